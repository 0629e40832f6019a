//! One decision about a request: what was looked at, and what came of it.

use super::search::Search;
use crate::engine::effect::Effect;
use crate::id::{PeerId, ReplicaId};
use crate::time::{Instant, Span};

/// Peers of a decision that are kept.
pub const PEERS_MAX: usize = 16;

/// Why a request waits, where the replicas that were looked at do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// No list has its model: the lists are read again.
    ListsAreRead,
    /// Its region is evacuated, and no peer has room yet.
    Leaves,
    /// Others wait for the room that there is.
    OthersFirst,
}

impl Held {
    /// In one word.
    pub(in crate::engine) fn name(self) -> &'static str {
        match self {
            Self::ListsAreRead => "lists_are_read",
            Self::Leaves => "leaves",
            Self::OthersFirst => "others_first",
        }
    }
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// It was pushed to a replica.
    Pushed {
        /// Which.
        replica: ReplicaId,
        /// 1 for the first attempt.
        attempt: u32,
        /// Leading blocks believed to be cached there.
        match_blocks: u32,
        /// Predicted time from the push to the first byte, of a streamed answer.
        predicted_ttft_ns: Option<Span>,
    },
    /// It was forwarded to a peer.
    Forwarded {
        /// Which.
        peer: PeerId,
        /// 1 for the first attempt.
        attempt: u32,
        /// Leading blocks believed to be cached there.
        match_blocks: u32,
    },
    /// It waits.
    Held,
    /// It was refused, with this code.
    Refused(&'static str),
    /// It has waited its time.
    Expired,
    /// Its attempt is given up: its replica is down or wedged.
    Withdrawn,
}

impl Came {
    /// What an effect decides about a request, if it does.
    pub(super) fn of(effect: &Effect) -> Option<Self> {
        Some(match effect {
            Effect::Push(push) => Self::Pushed {
                replica: push.replica,
                attempt: push.attempt,
                match_blocks: push.match_blocks,
                predicted_ttft_ns: push.predicted_ttft_ns,
            },
            Effect::Forward(forward) => Self::Forwarded {
                peer: forward.peer,
                attempt: forward.attempt,
                match_blocks: forward.match_blocks,
            },
            Effect::Hold(_) => Self::Held,
            Effect::Reject(reject) => Self::Refused(reject.code),
            Effect::Expire(_) => Self::Expired,
            Effect::Withdraw(_) => Self::Withdrawn,
            Effect::Probe(_) | Effect::Tell(_) => return None,
        })
    }

    /// An attempt begins.
    pub(super) fn begins(self) -> bool {
        matches!(self, Self::Pushed { .. } | Self::Forwarded { .. })
    }

    /// Nothing follows.
    pub(in crate::engine) fn ends(self) -> bool {
        matches!(self, Self::Refused(_) | Self::Expired)
    }
}

/// What a request found, and what came of it.
#[derive(Debug)]
pub struct Decision {
    pub(in crate::engine) at_ns: Instant,
    pub(in crate::engine) came: Came,
    /// Why it is held, where the search does not tell.
    pub(in crate::engine) held: Option<Held>,
    /// The replicas that were looked at; `None`: none were.
    pub(in crate::engine) search: Option<Search>,
    /// The peers that were looked at; `None`: none were.
    pub(in crate::engine) peers: Option<Peers>,
    /// When the first byte came of the attempt that began here.
    pub(in crate::engine) first_byte_ns: Option<Instant>,
    /// How it failed, and when. With a first byte, its stream was to go on elsewhere.
    pub(in crate::engine) failed: Option<(&'static str, Instant)>,
}

/// A peer that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerNote {
    pub(in crate::engine) peer: PeerId,
    /// The round trip; 0 is unknown.
    pub(in crate::engine) rtt_ns: Span,
    /// What it grants: requests that may be sent there now.
    pub(in crate::engine) room: u64,
    pub(in crate::engine) in_flight: u32,
    /// Leading blocks of the prompt that it is believed to cache.
    pub(in crate::engine) match_blocks: u32,
    /// It reported so itself.
    pub(in crate::engine) reported: bool,
    /// Predicted time to the first byte, the way included, where the policy goes by it.
    pub(in crate::engine) ttft_ns: Option<Span>,
    /// Why it was no candidate.
    pub(in crate::engine) closed: Option<&'static str>,
}

/// With what peers were compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// Time to the first byte at the replica that was found here.
    pub(in crate::engine) here_ns: Span,
    /// The peer answers that much sooner.
    pub(in crate::engine) leaves: bool,
}

/// The peers of one decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    pub(in crate::engine) at_ns: Instant,
    pub(in crate::engine) looked_at: Vec<PeerNote>,
    pub(in crate::engine) left_out: u32,
    /// The best of them.
    pub(in crate::engine) best: Option<PeerId>,
    /// It was compared with a replica here.
    pub(in crate::engine) compared: Option<Compared>,
}

impl Peers {
    pub(in crate::engine) fn add(&mut self, note: PeerNote) {
        if self.looked_at.len() < PEERS_MAX {
            self.looked_at.push(note);
        } else {
            self.left_out += 1;
        }
    }
}
