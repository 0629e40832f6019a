//! Takes in what is found out about peers, and what they report.

use super::Mesh;
use super::peer::Presence;
use super::peer::summary::{PeerError, Summary};
use crate::id::PeerSlot;
use crate::tenant::Tenant;
use crate::time::{Instant, Span};

impl Mesh {
    /// Adds the models that peers serve and to which requests of a tenant may go. `models` are in order.
    pub(in crate::engine) fn add_models<'a>(
        &'a self,
        tenant: Tenant<&str>,
        models: &mut Vec<(&'a str, Option<u32>)>,
        now: Instant,
    ) {
        for (_, peer) in self.peers() {
            for name in peer.models(now) {
                let place = models.binary_search_by_key(&name, |(known, _)| known);
                let allowed = self.residency().allowed(tenant, name) & peer.region_bit != 0;
                if let (Err(place), true) = (place, allowed) {
                    models.insert(place, (name, None));
                }
            }
        }
    }

    /// A connection to a peer begins, which has proven when it started.
    pub(in crate::engine) fn started(&mut self, slot: PeerSlot, incarnation: u64) {
        if self
            .peer_mut(slot)
            .is_some_and(|peer| peer.started(incarnation))
        {
            self.forget_hot(slot);
        }
    }

    /// One measured round trip to a peer.
    pub(in crate::engine) fn observe_rtt(&mut self, slot: PeerSlot, rtt_ns: Span) {
        if let Some(peer) = self.peer_mut(slot) {
            peer.observe_rtt(rtt_ns);
        }
    }

    /// What the control plane found out about a peer.
    pub(in crate::engine) fn set_presence(&mut self, slot: PeerSlot, presence: Presence) {
        let Some(peer) = self.peer_mut(slot) else {
            return;
        };
        peer.presence = presence;
        if presence == Presence::Dead {
            peer.forget();
            self.tree.forget(slot.number());
            self.forget_hot(slot);
        }
    }

    /// The operator's intent for a peer.
    pub(in crate::engine) fn set_isolated(&mut self, slot: PeerSlot, isolated: bool) {
        if let Some(peer) = self.peer_mut(slot) {
            peer.isolated = isolated;
        }
        if isolated {
            self.forget_hot(slot);
        }
    }

    /// Takes over a peer's summary.
    pub(in crate::engine) fn merge(
        &mut self,
        slot: PeerSlot,
        summary: &[u8],
        now: Instant,
    ) -> Result<(), PeerError> {
        let summary = Summary::decode(summary)?;
        let own = self.incarnation;
        let peer = self.peer_mut(slot).ok_or(PeerError::Unknown)?;
        peer.merge(summary, own, now)?;
        self.peer_started(slot);
        Ok(())
    }

    /// A forward of a peer has come; `granted`: it uses up one of what was granted.
    pub(in crate::engine) fn arrive(
        &mut self,
        slot: PeerSlot,
        model: &str,
        granted: bool,
        now: Instant,
    ) {
        let Some(peer) = self.peer_mut(slot) else {
            return;
        };
        peer.counts.arrived += 1;
        if let Some(lane) = peer.lane_mut(model).filter(|_| granted) {
            lane.credit.arrive();
            lane.arrivals.count(now);
        }
    }
}
