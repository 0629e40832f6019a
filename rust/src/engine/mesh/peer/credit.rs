//! Room granted to one peer for one model: what it may still send, and what may still be on its way.
//!
//! A grant is a limit on the total that the peer has sent since its start, as in flow control by
//! windows. It is `left = limit - sent` there, `outstanding = limit - arrived` here, and both hold
//! whatever is lost, late or repeated between. A limit counts here until the peer is known to have
//! received a later one, or until it must have expired there.

use smallvec::SmallVec;

use crate::time::{Instant, Span};

/// Limits remembered that may still be in use; of more, the oldest two are taken together.
const GRANTS_MAX: usize = 8;
/// A peer uses no limit that is older by this: no summary is believed for longer than
/// [`super::AGE_NS_MAX`], and none that took longer to arrive than [`super::PROOF_NS_MAX`].
pub const LAPSE_NS: Span =
    Span::from_ns(super::AGE_NS_MAX.ns() + super::PROOF_NS_MAX.ns() + 1_000_000_000);
/// More arrivals than the peer says it sent, for so long, are not only its summaries' delay: some
/// came after they had been given up.
const EXCESS_NS: Span = Span::from_ns(10_000_000_000);

#[derive(Debug, Clone, Copy)]
struct Grant {
    sequence: u64,
    limit: u64,
    at_ns: Instant,
}

/// What has been granted to one peer for one model.
#[derive(Debug, Default)]
pub struct Credit {
    /// Of what the peer has sent in all, what arrived or was given up.
    arrived: u64,
    grants: SmallVec<[Grant; GRANTS_MAX]>,
    /// Since when, by at least how much our count has been above the peer's.
    excess: Option<(Instant, u64)>,
}

impl Credit {
    /// What the peer may still send, or has sent and is on its way.
    #[must_use]
    pub fn outstanding(&self, now: Instant) -> u64 {
        let live = self.grants.iter().filter(|grant| !lapsed(grant, now));
        let limit = live.map(|grant| grant.limit).max().unwrap_or(0);
        limit.saturating_sub(self.arrived)
    }

    /// The limit granted last, if it has not lapsed.
    #[must_use]
    pub fn limit(&self, now: Instant) -> u64 {
        let last = self.grants.last().filter(|grant| !lapsed(grant, now));
        last.map_or(self.arrived, |grant| grant.limit)
    }

    /// What is left of the limit granted last.
    #[must_use]
    pub fn left(&self, now: Instant) -> u64 {
        self.limit(now).saturating_sub(self.arrived)
    }

    /// Grants `room` from now on, in the summary of this number: the limit to send.
    pub fn grant(&mut self, sequence: u64, room: u64, now: Instant) -> u64 {
        self.grants.retain(|grant| !lapsed(grant, now));
        let limit = self.arrived.saturating_add(room);
        if self.grants.len() == GRANTS_MAX {
            let oldest = self.grants.remove(0);
            self.grants[0].limit = self.grants[0].limit.max(oldest.limit);
        }
        self.grants.push(Grant {
            sequence,
            limit,
            at_ns: now,
        });
        limit
    }

    /// A forward arrived.
    pub fn arrive(&mut self) {
        self.arrived = self.arrived.saturating_add(1);
    }

    /// The peer has received our summary of this number (0: none), has sent so many, and of those so
    /// many are settled: answered, or failed. What is settled and has not arrived never will.
    pub fn acknowledge(&mut self, sequence: u64, sent: u64, settled: u64, now: Instant) {
        self.grants.retain(|grant| grant.sequence >= sequence);
        self.arrived = self.arrived.max(settled.min(sent));
        let above = self.arrived.saturating_sub(sent);
        self.excess = match self.excess {
            _ if above == 0 => None,
            None => Some((now, above)),
            Some((since_ns, least)) if now - since_ns >= EXCESS_NS => {
                self.arrived -= least.min(above);
                None
            }
            Some((since_ns, least)) => Some((since_ns, least.min(above))),
        };
    }

    /// The peer has started anew, and has sent so many since.
    pub fn restart(&mut self, sent: u64) {
        *self = Self {
            arrived: sent,
            ..Self::default()
        };
    }
}

fn lapsed(grant: &Grant, now: Instant) -> bool {
    now - grant.at_ns > LAPSE_NS
}
