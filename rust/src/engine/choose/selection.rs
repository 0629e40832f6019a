//! What a search for a replica comes to.

use super::verdict::Verdict;
use crate::id::ReplicaSlot;

/// A replica that has room for a request, and was chosen for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Here {
    pub(in crate::engine) slot: ReplicaSlot,
    /// Leading blocks of the prompt that match there.
    pub(in crate::engine) match_blocks: u32,
    /// What the shadow policy does with the request.
    pub(in crate::engine) shadow: Option<Verdict>,
}

/// The result of the search for a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Selection {
    /// Push it to this replica.
    Here(Here),
    /// Wait for this replica: it has no room, but the policy prefers it to those that have.
    Awaits { slot: ReplicaSlot },
    /// Replicas are ready for it, but none has room.
    NoRoom,
    /// No replica is ready for it.
    NoneReady,
}

impl Selection {
    /// The replica with room that was found.
    pub(in crate::engine) fn here(self) -> Option<Here> {
        match self {
            Self::Here(here) => Some(here),
            Self::Awaits { .. } | Self::NoRoom | Self::NoneReady => None,
        }
    }
}
