//! The routing core of `SkyLB`.
//!
//! [`engine`] decides: it is pure, takes time as an argument and opens nothing. [`record`] counts
//! and formats the access log. [`sim`] holds the replica model that `skylb mock` and the simulator
//! share. `py` (feature `python`) is the only module that knows about Python.

pub mod engine;
pub mod record;
pub mod sim;

#[cfg(feature = "python")]
mod py;
