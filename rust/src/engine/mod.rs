//! The decision engine: no clock, no entropy, no I/O, no Python.
//!
//! Time is an argument in nanoseconds of a monotonic clock, randomness a seeded generator given
//! at construction, results are [`effect`]s addressed by request id.

pub mod admit;
pub mod blocks;
pub mod body;
pub mod class;
pub mod config;
pub mod effect;
pub mod error;
pub mod forward;
pub mod health;
pub mod hold;
pub mod id;
pub mod peer;
pub mod plant;
pub mod radix;
pub mod relay;
pub mod replica;
pub mod request;
pub mod residency;
pub mod ring;
pub mod rng;
pub mod route;
pub mod router;
pub mod select;
pub mod share;
pub mod snapshot;
pub mod speed;
pub mod steer;
