//! The routing core of `SkyLB`.
//!
//! | package | holds |
//! |---|---|
//! | [`http`] | heads, chunked bodies, paths, refusals: bytes in, values out |
//! | [`prompt`] | what a body asks for: model, limits, the prompt as blocks |
//! | [`relay`] | a replica's answer on its way to the client |
//! | [`engine`] | the decisions: takes time as an argument and opens nothing |
//! | [`record`] | counters, histograms, lines of the access log |
//! | [`remote`] | what crosses between the processes of one balancer |
//! | [`sim`] | the model of a replica, and the simulator that drives the engine |
//! | `py` | the only package that knows about Python (feature `python`) |

pub mod engine;
pub mod http;
pub mod id;
pub mod prompt;
pub mod record;
pub mod relay;
pub mod remote;
pub mod rng;
pub mod sim;
pub mod tenant;
pub mod time;

#[cfg(feature = "python")]
mod py;
