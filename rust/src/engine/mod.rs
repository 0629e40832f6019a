//! The decision engine: no clock, no entropy, no I/O, no Python.
//!
//! Time is an argument in nanoseconds of a monotonic clock, randomness a seeded generator given
//! at construction, results are [`effect`]s addressed by request id.

pub mod ask;
pub mod cache;
pub mod choose;
pub mod config;
mod counters;
mod demand;
pub mod effect;
pub mod fleet;
mod generations;
pub mod hold;
pub mod mesh;
pub mod plant;
pub mod policy;
mod rate;
mod recent;
mod refusal;
mod requests;
pub mod ring;
pub mod router;
