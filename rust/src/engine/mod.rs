//! The decision engine: no clock, no entropy, no I/O, no Python.
//!
//! Time is an argument in nanoseconds of a monotonic clock, randomness a seeded generator given
//! at construction, results are [`effect`]s addressed by request id.

pub mod admit;
pub mod config;
pub mod effect;
pub mod forward;
pub mod health;
pub mod hold;
pub mod peer;
pub mod plant;
pub mod radix;
pub mod replica;
pub mod residency;
pub mod ring;
pub mod router;
pub mod select;
pub mod share;
pub mod snapshot;
pub mod speed;
