//! The decision engine: it reads no clock, draws no entropy, does no I/O and knows no Python.
//!
//! Time is an argument of each call, in nanoseconds of a monotonic clock. Random choices come from a
//! generator, whose seed is given at construction. The results are [`effect`]s: values addressed by request
//! id.

pub mod ask;
pub mod cache;
pub mod choose;
pub mod config;
mod counters;
mod demand;
pub mod effect;
pub mod explain;
pub mod fleet;
mod generations;
pub mod hold;
pub mod keep;
pub mod mesh;
mod parts;
pub mod plant;
pub mod policy;
mod rate;
pub mod receipts;
mod recent;
mod refusal;
mod requests;
pub mod ring;
pub mod router;
pub mod tenants;
