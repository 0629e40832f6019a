//! Peers as configured, and their figures for operators.

use std::fmt;

use serde::Serialize;

use super::peer::PEERS_MAX;
use crate::id::PeerId;
use crate::time::Span;

/// A peer as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Its number.
    pub id: PeerId,
    /// Its name.
    pub name: String,
    /// Where it is; empty while that is not known.
    pub region: String,
    /// More than its own word says so. Else no rule of residency allows requests to go there.
    pub sure: bool,
}

impl Listing {
    /// A peer whose region is known for sure.
    #[must_use]
    pub fn new(id: PeerId, name: impl Into<String>, region: impl Into<String>) -> Self {
        Self {
            id,
            name: name.into(),
            region: region.into(),
            sure: true,
        }
    }
}

/// Why peers cannot be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeersError {
    /// More than [`PEERS_MAX`].
    TooMany,
    /// Two have this name, or it is this balancer's own.
    Name(String),
    /// Two have this number.
    Id(u32),
}

impl fmt::Display for PeersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "more than {PEERS_MAX} peers"),
            Self::Name(name) => write!(f, "peer {name:?}: the name is taken"),
            Self::Id(id) => write!(f, "peer id {id} is given twice"),
        }
    }
}

impl std::error::Error for PeersError {}

/// One peer's figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerGauges {
    /// The peer.
    pub peer: PeerId,
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// `alive`, `unreachable`, `dead`.
    pub state: &'static str,
    /// Forwards may go there while it grants room.
    pub available: bool,
    /// It takes no forwards.
    pub draining: bool,
    /// The operator wants nothing sent there.
    pub isolated: bool,
    /// The median round trip.
    pub rtt_ns: Option<Span>,
    /// How much round trips differ.
    pub jitter_ns: Span,
    /// Since its last summary.
    pub age_ns: Option<Span>,
    /// Requests that may be forwarded there now.
    pub room: u64,
    /// Requests that it may still forward to us.
    pub granted: u64,
    /// Requests in its hold.
    pub hold_requests: u32,
    /// Forwards to it that have not ended.
    pub in_flight: u32,
    /// Forwards to it.
    pub forwarded_total: u64,
    /// Forwards from it.
    pub arrived_total: u64,
    /// Forwards answered.
    pub ok_total: u64,
    /// Forwards refused.
    pub refused_total: u64,
    /// Forwards failed.
    pub failed_total: u64,
    /// Forwards whose client left.
    pub client_left_total: u64,
    /// Blocks of prompts it is believed to cache.
    pub tree_blocks: u32,
    /// Hot prefixes that it has told, ...
    pub digest_prefixes: u32,
    /// ... and how long ago; `None` where nothing of it counts.
    pub digest_age_ns: Option<Span>,
    /// Forwards to it that were chosen by what it had told.
    pub digest_hits_total: u64,
    /// Of those whose answers told `cached_tokens`: tokens that it should have cached, ...
    pub digest_tokens_total: u64,
    /// ... and of them, found there.
    pub digest_tokens_found_total: u64,
}
