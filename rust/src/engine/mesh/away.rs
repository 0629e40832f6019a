//! A request at a peer.

use super::Mesh;
use crate::engine::ask::Usage;
use crate::engine::effect::Outcome;
use crate::engine::fleet::failure::Failure;
use crate::id::{ModelId, PeerId, PeerSlot};
use crate::time::Instant;

/// One attempt at a peer.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Away {
    /// The peer.
    pub(in crate::engine) slot: PeerSlot,
    /// Since when.
    pub(in crate::engine) since_ns: Instant,
    /// By which the peer counts it.
    pub(in crate::engine) model: ModelId,
    /// Tokens that it should have cached, where it was chosen by what it had reported.
    pub(in crate::engine) digest_tokens: Option<u32>,
    /// The first body byte arrived: there is no other attempt after this one.
    pub(in crate::engine) started: bool,
    /// It used up one of what the peer has granted.
    pub(in crate::engine) granted: bool,
    /// The driver has been asked to give it up.
    pub(in crate::engine) withdrawn: bool,
}

impl Mesh {
    /// A request with these blocks is sent to a peer; the peer. `granted`: it uses up one of what that
    /// has granted. `reported`: it was chosen by what the peer had reported.
    pub(in crate::engine) fn begin(
        &mut self,
        slot: PeerSlot,
        model: &str,
        blocks: &[u64],
        (granted, reported): (bool, bool),
    ) -> Option<PeerId> {
        let remote = self.remotes.get_mut(slot.index())?;
        remote.peer.forward(model, granted);
        remote.peer.counts.digest_hits += u64::from(reported);
        let peer = remote.peer.id;
        if !blocks.is_empty()
            && let Some(pin) = self.tree.insert(slot.number(), blocks)
        {
            self.tree.unpin(pin);
        }
        self.in_flight += 1;
        Some(peer)
    }

    /// The first byte of its answer arrived. `model`: its name.
    pub(in crate::engine) fn first_byte(&mut self, away: &Away, model: Option<&str>) {
        self.settle(away, model);
        if let Some(peer) = self.peer_mut(away.slot) {
            peer.succeeded();
        }
    }

    /// It is answered, or over without an answer.
    fn settle(&mut self, away: &Away, model: Option<&str>) {
        let remote = self.remotes.get_mut(away.slot.index());
        if let (Some(model), Some(remote), true) = (model, remote, away.granted) {
            remote.peer.settle(model);
        }
    }

    /// It is over: takes it off the peer's counts.
    pub(in crate::engine) fn end(&mut self, away: &Away, model: Option<&str>) {
        if !away.started {
            self.settle(away, model);
        }
        self.in_flight -= 1;
        if let Some(peer) = self.peer_mut(away.slot) {
            peer.in_flight = peer.in_flight.saturating_sub(1);
        }
    }

    /// It failed before its first byte; true where the peer refused it.
    pub(in crate::engine) fn blame(
        &mut self,
        away: &Away,
        model: Option<&str>,
        failure: Failure,
        now: Instant,
    ) -> bool {
        let remote = self.remotes.get_mut(away.slot.index());
        let (Some(model), Some(remote)) = (model, remote) else {
            return false;
        };
        match failure {
            Failure::Refused | Failure::Full | Failure::Limited => {
                remote.peer.refused(model, away.granted);
                return true;
            }
            // It leaves because its region is evacuated.
            Failure::Withdrawn => {}
            Failure::Connect | Failure::Reset | Failure::Timeout => {
                remote.peer.counts.failed += 1;
                remote.peer.failed(now);
            }
            // The peer answered: what failed is one of its replicas.
            Failure::Status(_) | Failure::BadResponse | Failure::Absent | Failure::Unauthorized => {
                remote.peer.counts.failed += 1;
            }
        }
        false
    }

    /// It ended.
    pub(in crate::engine) fn complete(
        &mut self,
        away: &Away,
        model: Option<&str>,
        outcome: Outcome,
    ) {
        self.end(away, model);
        if let Some(peer) = self.peer_mut(away.slot) {
            match outcome {
                Outcome::Ok => {
                    peer.counts.ok += 1;
                    peer.succeeded();
                }
                Outcome::ClientLeft | Outcome::GivenUp => peer.counts.client_left += 1,
                Outcome::ReplicaFailed => peer.counts.failed += 1,
            }
        }
        self.drop_if_over(away.slot);
    }

    /// It was chosen by what its peer reported, and is answered: tokens that should have been cached there,
    /// and of them, found. `None` where that cannot be said.
    pub(in crate::engine) fn confirm_reported(
        &mut self,
        away: &Away,
        usage: Usage,
    ) -> Option<(u32, u32)> {
        let (reported, cached) = (away.digest_tokens?, usage.cached_tokens?);
        let peer = self.peer_mut(away.slot)?;
        let found = reported.min(cached);
        peer.counts.digest_tokens += u64::from(reported);
        peer.counts.digest_tokens_found += u64::from(found);
        Some((reported, found))
    }
}
