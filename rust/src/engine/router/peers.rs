//! Facts about peers.

use super::Router;
use crate::engine::choose::policy::Slot;
use crate::engine::effect::Effect;
use crate::engine::mesh::Remote;
use crate::engine::mesh::listing::{Listing, PeerGauges, PeersError};
use crate::engine::mesh::peer::summary::{PeerError, Summary};
use crate::engine::mesh::peer::{PEERS_MAX, Presence};
use crate::engine::mesh::residency::{RegionError, Residency, Rule};
use crate::engine::requests::request::{Phase, Request};
use crate::id::{Nanos, PeerId, ReplicaId, RequestId};

impl Router {
    /// Names this balancer: its name, its region, and a number that is greater after each start.
    pub fn set_self(&mut self, name: &str, region: &str, incarnation: u64) {
        self.mesh.set_self(name, region, incarnation);
        self.find_regions();
    }

    /// Finds the bits of all regions anew.
    fn find_regions(&mut self) {
        self.mesh.find_regions();
        let (own, regions) = (self.mesh.region_bit, &self.mesh.regions);
        for slot in self.fleet.all_slots() {
            if let Some(member) = self.fleet.member_mut(slot) {
                let adopted = member.adopted.as_deref();
                member.region_bit = adopted.map_or(own, |region| regions.bit(region));
            }
        }
    }

    /// Sets all peers.
    ///
    /// # Errors
    ///
    /// They contradict each other; nothing happened.
    pub fn set_peers(
        &mut self,
        peers: &[Listing],
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) -> Result<(), PeersError> {
        let now_ns = self.advance(now_ns);
        if peers.len() > PEERS_MAX {
            return Err(PeersError::TooMany);
        }
        for (position, peer) in peers.iter().enumerate() {
            let before = &peers[..position];
            if peer.name == self.mesh.name || before.iter().any(|other| other.name == peer.name) {
                return Err(PeersError::Name(peer.name.clone()));
            }
            if before.iter().any(|other| other.id == peer.id) {
                return Err(PeersError::Id(peer.id.0));
            }
        }
        let listed: Vec<(Slot, PeerId)> = self.mesh.peers().map(|(slot, p)| (slot, p.id)).collect();
        for (slot, gone) in listed {
            if peers.iter().all(|peer| peer.id != gone) {
                self.mesh.remove(slot);
            }
        }
        for peer in peers {
            self.mesh.add(peer);
        }
        self.review_sharing();
        self.dispatch_all(now_ns, out);
        self.dispatch_peers(now_ns, out);
        Ok(())
    }

    /// A connection to a peer begins, which has proven when it started.
    pub fn peer_started(&mut self, peer: PeerId, incarnation: u64, now_ns: Nanos) {
        self.advance(now_ns);
        if let Some(slot) = self.known_peer(peer)
            && let Some(peer) = self.mesh.peer_mut(slot)
            && peer.started(incarnation)
        {
            self.mesh.forget_hot(slot);
        }
    }

    /// One measured round trip to a peer.
    pub fn peer_rtt(&mut self, peer: PeerId, rtt_ns: Nanos, now_ns: Nanos) {
        self.advance(now_ns);
        if let Some(slot) = self.known_peer(peer)
            && let Some(peer) = self.mesh.peer_mut(slot)
        {
            peer.observe_rtt(rtt_ns);
        }
    }

    /// What the control plane found out about a peer.
    pub fn peer_state(
        &mut self,
        peer: PeerId,
        presence: Presence,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        let now_ns = self.advance(now_ns);
        let Some(slot) = self.known_peer(peer) else {
            return;
        };
        if let Some(peer) = self.mesh.peer_mut(slot) {
            peer.presence = presence;
            if presence == Presence::Dead {
                peer.forget();
                self.mesh.tree.forget(slot);
                self.mesh.forget_hot(slot);
            }
        }
        self.review_sharing();
        self.dispatch_all(now_ns, out);
        self.dispatch_peers(now_ns, out);
    }

    /// The operator's intent for a peer.
    pub fn set_isolated(
        &mut self,
        peer: PeerId,
        isolated: bool,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        let now_ns = self.advance(now_ns);
        let Some(slot) = self.known_peer(peer) else {
            return;
        };
        if let Some(peer) = self.mesh.peer_mut(slot) {
            peer.isolated = isolated;
        }
        if isolated {
            self.mesh.forget_hot(slot);
        }
        self.review_sharing();
        self.dispatch_all(now_ns, out);
        self.dispatch_peers(now_ns, out);
    }

    /// The operator's intent for this balancer: what is new and what is held leaves while peers
    /// have room, and peers send nothing.
    pub fn set_evacuating(&mut self, evacuating: bool, now_ns: Nanos, out: &mut Vec<Effect>) {
        let now_ns = self.advance(now_ns);
        self.mesh.evacuating = evacuating;
        let until_ns = now_ns.saturating_add(self.leave_wait_ns());
        let held: Vec<_> = self.hold_ids();
        for id in held {
            let leaves = evacuating
                && (self.requests.get(&id))
                    .is_some_and(|request| self.peers_serve(request, now_ns));
            if leaves {
                self.mesh.note_leave_end(until_ns);
            }
            if let Some(request) = self.requests.get_mut(&id) {
                request.leaves_until_ns = if leaves { until_ns } else { 0 };
            }
        }
        self.dispatch_peers(now_ns, out);
        self.dispatch_all(now_ns, out);
    }

    /// All that is held.
    fn hold_ids(&self) -> Vec<RequestId> {
        let held = |request: &Request| matches!(request.phase, Phase::Held { .. });
        let requests = self.requests.iter();
        requests
            .filter(|(_, request)| held(request))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Sets the rules of residency, for requests placed from now on.
    ///
    /// # Errors
    ///
    /// A rule names no region, or there are too many regions: the old rules stay.
    pub fn set_residency(&mut self, rules: Vec<Rule>) -> Result<(), RegionError> {
        self.mesh.residency = Residency::new(rules, &mut self.mesh.regions)?;
        self.find_regions();
        Ok(())
    }

    /// Sets the region of a replica that was adopted from another balancer; `None`: ours.
    pub fn set_replica_region(
        &mut self,
        replica: ReplicaId,
        region: Option<&str>,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        let now_ns = self.advance(now_ns);
        let mesh = &self.mesh;
        let bit = region.map_or(mesh.region_bit, |name| mesh.regions.bit(name));
        if let Some(slot) = self.known(replica) {
            if let Some(member) = self.fleet.member_mut(slot) {
                (member.adopted, member.region_bit) = (region.map(str::to_owned), bit);
            }
            self.dispatch_all(now_ns, out);
        }
    }

    /// What a peer told.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not newer than what it told before: nothing happened.
    pub fn merge_peer(
        &mut self,
        peer: PeerId,
        summary: &[u8],
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        let now_ns = self.advance(now_ns);
        let slot = self.known_peer(peer).ok_or(PeerError::Unknown)?;
        let merged = Summary::decode(summary).and_then(|summary| {
            let us = self.mesh.incarnation;
            let peer = self.mesh.peer_mut(slot).ok_or(PeerError::Unknown)?;
            peer.merge(summary, us, now_ns)
        });
        if merged.is_err() {
            self.counters.summaries_refused += 1;
            return merged;
        }
        self.counters.summaries_merged += 1;
        self.heard_of_start(slot);
        self.dispatch_peers(now_ns, out);
        Ok(())
    }

    pub(in crate::engine) fn known_peer(&mut self, peer: PeerId) -> Option<Slot> {
        let slot = self.mesh.slot(peer);
        self.counters.unknown_peers += u64::from(slot.is_none());
        slot
    }

    pub(in crate::engine) fn remote_of(&self, peer: PeerId) -> Option<(Slot, &Remote)> {
        let slot = self.mesh.slot(peer)?;
        Some((slot, self.mesh.remote(slot)?))
    }

    /// All peers' figures, in the order of their ids.
    #[must_use]
    pub fn peer_gauges(&self, now_ns: Nanos) -> Vec<PeerGauges> {
        let listed = self.mesh.peers().filter(|(_, peer)| !peer.removed);
        let mut gauges: Vec<_> = listed
            .map(|(slot, peer)| {
                let max = self.config.peer_hold_max;
                let lanes = peer.lanes.iter();
                let hot = self.mesh.hot.as_ref();
                let told = hot.and_then(|hot| hot.known.told(slot, now_ns));
                PeerGauges {
                    peer: peer.id,
                    name: peer.name.clone(),
                    region: peer.region.clone(),
                    state: peer.presence.name(),
                    available: peer.listed() && peer.available(now_ns),
                    draining: peer.heard.is_some_and(|heard| heard.draining),
                    isolated: peer.isolated,
                    rtt_ns: peer.rtt_ns(),
                    jitter_ns: peer.jitter_ns(),
                    age_ns: peer.age_ns(now_ns),
                    room: total(
                        lanes
                            .clone()
                            .map(|(model, _)| peer.room(model, max, now_ns)),
                    ),
                    granted: total(lanes.map(|(_, lane)| lane.credit.left(now_ns))),
                    hold_requests: peer.heard.map_or(0, |heard| heard.hold_len),
                    in_flight: peer.in_flight,
                    forwarded_total: peer.counts.forwarded,
                    arrived_total: peer.counts.arrived,
                    ok_total: peer.counts.ok,
                    refused_total: peer.counts.refused,
                    failed_total: peer.counts.failed,
                    client_left_total: peer.counts.client_left,
                    tree_blocks: self.mesh.tree.owner_blocks(slot),
                    digest_prefixes: told
                        .map_or(0, |(len, _)| u32::try_from(len).unwrap_or(u32::MAX)),
                    digest_age_ns: told.map(|(_, age_ns)| age_ns),
                    digest_hits_total: peer.counts.told_hits,
                    digest_tokens_total: peer.counts.told_tokens,
                    digest_tokens_found_total: peer.counts.told_tokens_found,
                }
            })
            .collect();
        gauges.sort_unstable_by_key(|gauges| gauges.peer);
        gauges
    }
}

/// A sum of what peers say: they may say anything.
fn total(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}
