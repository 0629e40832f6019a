//! A continuous-batching replica with chunked prefill, paged KV and a prefix cache.
//!
//! The scheduling rules are those of vLLM's V1 engine: one token budget per step, shared by
//! decodes (one token each) and chunks of prefill. Running sequences come first, in order of
//! admission, then the waiting queue, first come first served. When no KV block is free, the
//! newest running sequence is preempted and computed anew later. The prefix cache knows full
//! blocks by chained hashes. Blocks that no sequence holds stay hittable until they are taken in
//! least-recently-used order. The last token of a prompt is always computed, because its logits
//! are needed.
//!
//! Three things are simplified on purpose. A step's duration is linear in what it computes
//! ([`Profile`]). A block whose content is cached already under another block is not entered a
//! second time. The engine core schedules a request that arrives while it is idle at once, alone.
//!
//! Time is an argument: the simulator passes virtual time, `skylb mock` that of its event loop.

mod hash;
mod model;
mod pool;
mod profile;
#[cfg(test)]
mod properties;
mod schedule;
#[cfg(test)]
mod tests;

pub use hash::chain_hashes;
pub use model::{Admission, Arrival, Counters, Gauges, Progress, ReplicaModel, TOKEN_BYTES};
pub use profile::{Profile, ProfileError};
