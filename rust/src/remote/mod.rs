//! What crosses between a worker and the engine process, where a balancer has several processes.
//!
//! A worker holds connections: it reads heads and bodies, and relays answers. The engine process decides. So what
//! crosses is what a decision needs, and what it came to: hashes and lengths of a prompt, never its text.
//!
//! | file | holds |
//! |---|---|
//! | `frame` | a value as bytes with its length in front, and back |
//! | `up` | what a worker reports |
//! | `down` | what the engine process decides |
//! | `mail` | the bytes that wait for each worker |
//! | `submitted` | a request that is to be placed |
//! | `kept` | what a worker keeps of it, so that another engine process can take it over |
//!
//! Both ends are processes of one balancer and of one version, on one machine. So their clocks are the same,
//! and the form has no version. What cannot be read is an error all the same, and never a panic.

pub mod down;
pub mod frame;
pub mod kept;
pub mod mail;
pub mod submitted;
pub mod up;

use crate::id::RequestId;

/// Bits of a request's number within its worker; those above are the worker's number.
const NUMBER_BITS: u32 = 48;

/// Workers of one balancer at most.
pub const WORKERS_MAX: u16 = 64;

/// The id of a worker's request. The engine process itself is worker 0.
#[must_use]
pub fn id_of(worker: u16, number: u64) -> RequestId {
    RequestId(u64::from(worker) << NUMBER_BITS | number_of(RequestId(number)))
}

/// The worker that a request is at; 0: the engine process.
#[must_use]
#[inline]
pub fn worker_of(id: RequestId) -> u16 {
    (id.0 >> NUMBER_BITS) as u16
}

/// A request's number within its worker.
#[must_use]
#[inline]
pub fn number_of(id: RequestId) -> u64 {
    id.0 & ((1 << NUMBER_BITS) - 1)
}

#[cfg(test)]
mod tests;
