//! Facts about peers.

use super::super::Router;
use crate::engine::effect::{Effect, Message};
use crate::engine::fleet::{Fleet, Probed};
use crate::engine::mesh::Local;
use crate::engine::mesh::hot::digest::DigestError;
use crate::engine::mesh::hot::heat::Terms;
use crate::engine::mesh::key::KEY_BYTES;
use crate::engine::mesh::listing::{Listing, PeerGauges, PeersError};
use crate::engine::mesh::peer::Presence;
use crate::engine::mesh::peer::summary::PeerError;
use crate::engine::mesh::region::message::{Share, ShareError};
use crate::engine::mesh::region::{Changes, Passed};
use crate::engine::mesh::residency::{RegionError, Rule};
use crate::engine::plant::Plant;
use crate::id::{PeerId, PeerSlot, ReplicaId};
use crate::time::{EARLY, Instant, Span};

impl Router {
    /// Names this balancer: its name, its region, and a number that is greater after each start.
    pub fn set_self(&mut self, name: &str, region: &str, incarnation: u64) {
        self.mesh.set_self(name, region, incarnation);
        self.requests.tenants_mut().set_incarnation(incarnation);
        self.find_regions();
    }

    /// Finds the bits of all regions anew.
    fn find_regions(&mut self) {
        self.mesh.find_regions();
        let regions = self.mesh.regions();
        self.fleet
            .set_regions(self.mesh.region_bit(), |name| regions.bit(name));
    }

    /// Sets all peers.
    ///
    /// # Errors
    ///
    /// They contradict each other; nothing happened.
    pub fn set_peers(
        &mut self,
        peers: &[Listing],
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Result<(), PeersError> {
        let now = self.advance(now);
        self.mesh.set_peers(peers, &mut self.fleet)?;
        self.mesh.review_sharing(&mut self.fleet, now);
        self.share_limits(true, now);
        self.dispatch_all(now, out);
        self.dispatch_peers(now, out);
        Ok(())
    }

    /// A connection to a peer begins, which has proven when it started.
    pub fn peer_started(&mut self, peer: PeerId, incarnation: u64, now: Instant) {
        self.advance(now);
        if let Some(slot) = self.known_peer(peer) {
            self.mesh.started(slot, incarnation);
        }
    }

    /// A connection to a peer stands, which takes these kinds. What either side told before is void.
    pub fn peer_connected(
        &mut self,
        peer: PeerId,
        kinds: &[Message],
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let now = self.advance(now);
        if let Some(slot) = self.known_peer(peer) {
            self.mesh.connect((slot, peer), kinds);
            self.mesh.share_anew((slot, peer), &mut self.fleet, now);
            self.dispatch_all(now, out);
        }
    }

    /// The connection takes these kinds of messages as well.
    pub fn peer_takes(&mut self, peer: PeerId, kinds: &[Message]) {
        self.mesh.take_kinds(peer, kinds);
    }

    /// That connection has ended: the peer is told nothing until there is another.
    pub fn peer_disconnected(&mut self, peer: PeerId) {
        self.mesh.disconnect(peer);
    }

    /// The last message of this kind has been written to the peer's connection.
    pub fn written(&mut self, peer: PeerId, kind: Message) {
        self.mesh.written(peer, kind);
    }

    /// One measured round trip to a peer.
    pub fn peer_rtt(&mut self, peer: PeerId, rtt_ns: Span, now: Instant) {
        self.advance(now);
        if let Some(slot) = self.known_peer(peer) {
            self.mesh.observe_rtt(slot, rtt_ns);
        }
    }

    /// What the control plane found out about a peer.
    pub fn peer_state(
        &mut self,
        peer: PeerId,
        presence: Presence,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let now = self.advance(now);
        let Some(slot) = self.known_peer(peer) else {
            return;
        };
        self.mesh.set_presence(slot, presence);
        self.share_limits(true, now);
        if presence == Presence::Alive || !self.config.planted(Plant::DeadRemembered) {
            self.mesh.review_sharing(&mut self.fleet, now);
        }
        self.dispatch_all(now, out);
        self.dispatch_peers(now, out);
    }

    /// The operator's intent for a peer.
    pub fn set_isolated(
        &mut self,
        peer: PeerId,
        isolated: bool,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let now = self.advance(now);
        let Some(slot) = self.known_peer(peer) else {
            return;
        };
        self.mesh.set_isolated(slot, isolated);
        self.mesh.review_sharing(&mut self.fleet, now);
        self.dispatch_all(now, out);
        self.dispatch_peers(now, out);
    }

    /// The operator's intent for this balancer: what is new and what is held leaves while peers
    /// have room, and peers send nothing.
    pub fn set_evacuating(&mut self, evacuating: bool, now: Instant, out: &mut Vec<Effect>) {
        let now = self.advance(now);
        self.mesh.set_evacuating(evacuating);
        let until_ns = now + self.leave_wait_ns();
        let held: Vec<_> = self.requests.held();
        for id in held {
            let leaves = evacuating
                && (self.requests.get(id)).is_some_and(|request| self.peers_serve(request, now));
            if leaves {
                self.mesh.note_leave_end(until_ns);
            }
            if let Some(request) = self.requests.get_mut(id) {
                request.leaves_until_ns = if leaves { until_ns } else { Instant::ZERO };
            }
        }
        self.dispatch_peers(now, out);
        self.dispatch_all(now, out);
    }

    /// Sets the rules of residency, for requests placed from now on.
    ///
    /// # Errors
    ///
    /// A rule names no region, or there are too many regions: the old rules stay.
    pub fn set_residency(&mut self, rules: Vec<Rule>) -> Result<(), RegionError> {
        self.mesh.set_residency(rules)?;
        self.find_regions();
        Ok(())
    }

    /// Sets the region of a replica that was adopted from another balancer; `None`: ours.
    pub fn set_replica_region(
        &mut self,
        replica: ReplicaId,
        region: Option<&str>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let now = self.advance(now);
        let mesh = &self.mesh;
        let bit = region.map_or(mesh.region_bit(), |name| mesh.regions().bit(name));
        if let Some(slot) = self.known(replica) {
            self.fleet.set_region(slot, region, bit);
            self.dispatch_all(now, out);
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
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        let now = self.advance(now);
        let slot = self.known_peer(peer).ok_or(PeerError::Unknown)?;
        let merged = self.mesh.merge(slot, summary, now);
        self.counters.summaries_refused += u64::from(merged.is_err());
        merged?;
        self.counters.summaries_merged += 1;
        self.dispatch_peers(now, out);
        Ok(())
    }

    // ------------------------------------------------------------------ what peers are told

    /// What to tell this peer now, out of turn: it grants room. `None` for a peer that is not known.
    pub fn summary(&mut self, peer: PeerId, now: Instant) -> Option<Vec<u8>> {
        let now = self.advance(now);
        let slot = self.known_peer(peer)?;
        let hold_age_ns = self.hold_age_ns(now);
        let (mesh, local) = self.local(now);
        mesh.summary(slot, hold_age_ns, &local)
    }

    /// How long the longest held request has waited.
    fn hold_age_ns(&self, now: Instant) -> Span {
        let oldest = (self.hold.lines()).filter_map(|line| self.hold.oldest(line));
        self.requests.longest_wait(oldest.map(|(_, id)| id), now)
    }

    /// Tells peers which prefixes are hot here, and believes them. `key`: what all balancers of the
    /// mesh share; their secrets must be one too. Without this call nothing is told or believed.
    /// Large digests are told more rarely than `terms` say.
    pub fn set_peer_digest(&mut self, key: &[u8; KEY_BYTES], terms: Terms) {
        self.mesh.set_hot(key, terms);
    }

    /// Messages for peers that should get something now, if it is time to look.
    pub(in crate::engine::router) fn tell(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let busy = !self.requests.is_empty();
        if (self.mesh.next_tell_ns(busy)).is_none_or(|next_ns| next_ns > now + EARLY) {
            return;
        }
        self.share_limits(false, now);
        let hold_age_ns = self.hold_age_ns(now);
        let local = Local {
            config: &self.config,
            fleet: &self.fleet,
            hold: &self.hold,
            cache: &self.cache,
            now,
        };
        let tenants = self.requests.tenants_mut();
        for tell in self.mesh.tell(busy, hold_age_ns, &local, tenants) {
            self.counters.peer_digests_told += u64::from(tell.kind == Message::Digest);
            if tell.kind == Message::Cached {
                self.counters.cached_told += 1;
                self.counters.cached_bytes += tell.payload.len() as u64;
            }
            out.push(Effect::Tell(tell));
        }
        // What has been told keeps nobody from pushing any more.
        for slot in self.mesh.review_splits(&mut self.fleet, now) {
            self.dispatch(slot, now, out);
        }
    }

    // ------------------------------------------------------------------ what peers tell

    /// What a peer told of its hot prefixes. Of one that is isolated nothing is taken, nor where
    /// digests are off.
    ///
    /// # Errors
    ///
    /// It cannot be read, cannot be compared, or is not newer than what it told before: nothing
    /// happened.
    pub fn merge_peer_digest(
        &mut self,
        peer: PeerId,
        digest: &[u8],
        now: Instant,
    ) -> Result<(), DigestError> {
        let now = self.advance(now);
        let slot = self.known_peer(peer).ok_or(DigestError::Unknown)?;
        let merged = self.mesh.merge_hot(slot, digest, &self.config, now);
        self.counters.peer_digests_refused += u64::from(merged.is_err());
        self.counters.peer_digests_merged += u64::from(merged == Ok(true));
        merged.map(|_| ())
    }

    /// What a peer of our region told. `ahead_ns`: how far our clock is ahead of its clock.
    ///
    /// # Errors
    ///
    /// It cannot be read, or the peer is not of our region: nothing happened.
    pub fn merge_share(
        &mut self,
        peer: PeerId,
        bytes: &[u8],
        ahead_ns: i64,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Result<(), ShareError> {
        let now = self.advance(now);
        let slot = self.known_peer(peer).ok_or(ShareError::Stranger)?;
        let region = self.mesh.peer(slot).map(|peer| &peer.region);
        if region.map(String::as_str) != Some(self.mesh.region()) {
            return Err(ShareError::Stranger);
        }
        if !self.mesh.shares(slot) {
            return Ok(()); // an operator has isolated it
        }
        let share = Share::decode(bytes).inspect_err(|_| self.counters.shares_refused += 1)?;
        self.counters.shares_merged += 1;
        let told_ns = Instant::from_ns(share.told_ns).shifted(ahead_ns).min(now);
        let Changes { more, replicas } = self.take_share((slot, peer), share, told_ns, now);
        if more {
            self.mesh.review_sharing(&mut self.fleet, now);
        }
        let mut changed = more;
        for replica in &replicas {
            self.mesh.review_split(*replica, &mut self.fleet, now);
            changed |= self.review(*replica, now, out);
        }
        if changed {
            self.dispatch_all(now, out);
        } else {
            for replica in replicas {
                self.dispatch(replica, now, out);
            }
        }
        Ok(())
    }

    fn take_share(
        &mut self,
        peer: (PeerSlot, PeerId),
        share: Share,
        told_ns: Instant,
        now: Instant,
    ) -> Changes {
        let (cache, counters, config) = (&mut self.cache, &mut self.counters, &self.config);
        let bounds = (config, now);
        let observe = |fleet: &mut Fleet, passed: Passed| {
            counters.pages_heard += 1;
            let page = (passed.page, passed.sent_ns, Probed::Elsewhere);
            cache.observe(fleet, passed.slot, page, counters, (config, now))
        };
        self.mesh
            .take_share(peer, share, told_ns, &mut self.fleet, bounds, observe)
    }

    /// All peers' figures, in the order of their ids.
    #[must_use]
    pub fn peer_gauges(&self, now: Instant) -> Vec<PeerGauges> {
        self.mesh.gauges(&self.config, now)
    }

    pub(in crate::engine::router) fn known_peer(&mut self, peer: PeerId) -> Option<PeerSlot> {
        let slot = self.mesh.slot(peer);
        self.counters.unknown_peers += u64::from(slot.is_none());
        slot
    }
}
