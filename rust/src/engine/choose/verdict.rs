//! What a second policy says of a choice.

use crate::id::ReplicaId;
use crate::time::Span;

/// What the other policy would have done with a request that has a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The replica that it chooses.
    pub replica: ReplicaId,
    /// That has no room: the request would wait for it.
    pub waits: bool,
    /// Its choice is the one that was made.
    pub same: bool,
    /// How much sooner the first token is predicted there, or how much later; 0 where the time to the first
    /// token is not measured.
    pub sooner_ns: Span,
    /// See `sooner_ns`.
    pub later_ns: Span,
}
