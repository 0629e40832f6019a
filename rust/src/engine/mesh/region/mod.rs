//! Replicas that several balancers of one region push to.
//!
//! A balancer sends two things to each peer of its region that lists the same replicas
//! ([`crate::engine::mesh::region::message`]): its pushes there, and what its probes found. The requests of
//! peers count at the gate like its own ([`crate::engine::fleet::replica`]). So what is left as foreign
//! belongs to no known balancer.
//!
//! One of the balancers that may push to a replica probes it for all. Another balancer that receives no
//! page of it for three intervals probes it itself. There is no leader and no election: each
//! balancer computes its part from what it has received. While their views differ, there may be a probe or
//! a push too many.

pub mod cached;
mod hear;
pub mod message;
mod probes;
mod state;
mod tell;

pub(in crate::engine) use self::hear::{Changes, Passed};
use self::message::{SHARED_MAX, key, told, weight};
use self::state::{Reported, What};
pub(in crate::engine) use self::state::{Sharer, Sharing};
pub(in crate::engine) use self::tell::{began, wanted};
use super::Mesh;
use crate::engine::config::Config;
use crate::engine::fleet::Fleet;
use crate::engine::fleet::replica::{Need, Own, Split, TURN_NS};
use crate::engine::fleet::snapshot::Snapshot;
use crate::engine::hold::Hold;
use crate::id::{PeerId, PeerSlot, ReplicaSlot, RequestId, count};
use crate::time::{Instant, Span};

/// Who pushed so lately takes a part of the room.
const LATELY_NS: Span = Span::from_ns(500_000_000);
/// A push that could not be told for so long keeps nobody from pushing.
const UNSENT_NS: Span = TURN_NS;

impl Mesh {
    /// The peer is of our region, and to be heard.
    pub(in crate::engine) fn shares(&self, slot: PeerSlot) -> bool {
        self.peer(slot)
            .is_some_and(|peer| peer.listed() && peer.region == self.region)
    }

    /// The peer may push to this replica too.
    fn shares_replica(&self, peer: PeerSlot, slot: ReplicaSlot) -> bool {
        let reported = self
            .remote(peer)
            .and_then(|remote| remote.share.reported.get(&slot));
        self.shares(peer) && reported.is_some_and(|reported| reported.ready)
    }

    // ------------------------------------------------------------------ who shares what

    /// The fleet has changed: it is listed anew.
    pub(in crate::engine) fn list_replicas(&mut self, fleet: &mut Fleet, now: Instant) {
        let listed = fleet.members().filter(|(_, member)| !member.removed());
        let sharing = &mut self.sharing;
        sharing.listing = listed
            .clone()
            .take(SHARED_MAX)
            .map(|(slot, _)| slot)
            .collect();
        sharing.places = (0..)
            .zip(&sharing.listing)
            .map(|(place, slot)| (*slot, place))
            .collect();
        let keys = listed.map(|(slot, member)| (key(member.name()), slot));
        sharing.by_key = keys.collect();
        for (_, remote) in &mut self.remotes {
            remote.share.listed = false;
            remote.share.find(&self.sharing.by_key);
        }
        self.review_sharing(fleet, now);
    }

    /// A connection to a peer begins: neither knows what the other has told before.
    pub(in crate::engine) fn share_anew(
        &mut self,
        (slot, peer): (PeerSlot, PeerId),
        fleet: &mut Fleet,
        now: Instant,
    ) {
        if let Some(remote) = self.remotes.get_mut(slot.index()) {
            remote.share = Sharer::default();
        }
        fleet.keep_theirs(peer, |_, _| false);
        self.review_sharing(fleet, now);
    }

    /// Who shares what has changed: who pushes where, and who probes what, follows from it.
    pub(in crate::engine) fn review_sharing(&mut self, fleet: &mut Fleet, now: Instant) {
        fleet.probes_mut().soon();
        let peers: Vec<(PeerSlot, PeerId)> = self.peers().map(|(slot, p)| (slot, p.id)).collect();
        let before = self.sharing.active;
        self.sharing.active = false;
        for (slot, peer) in peers {
            if self.shares(slot) {
                self.sharing.active = true;
            } else if self
                .remotes
                .get(slot.index())
                .is_some_and(|r| !r.share.reported.is_empty())
            {
                if let Some(remote) = self.remotes.get_mut(slot.index()) {
                    remote.share = Sharer {
                        retracts: remote.peer.isolated,
                        ..Sharer::default()
                    };
                }
                fleet.keep_theirs(peer, |_, _| false);
            }
        }
        if !before && !self.sharing.active {
            return;
        }
        if !self.sharing.active {
            self.sharing.first = self.sharing.next();
            self.sharing.events.clear();
        }
        for slot in fleet.all_slots() {
            self.review_replica(slot, fleet, now);
        }
    }

    fn review_replica(&mut self, slot: ReplicaSlot, fleet: &mut Fleet, now: Instant) {
        let sharers = self.peers();
        let sharers = sharers.filter(|(peer, _)| self.shares_replica(*peer, slot));
        let names: Vec<&str> = sharers.map(|(_, peer)| peer.name.as_str()).collect();
        let Some(replica) = fleet.member(slot).map(|member| key(member.name())) else {
            return;
        };
        let own = self.name.as_str();
        let ours = (weight(own, replica), own);
        let mut weights = names.iter().map(|name| (weight(name, replica), *name));
        let probed_elsewhere = weights.any(|theirs| theirs > ours);
        let others = count(names.len());
        let before = names.iter().filter(|name| **name < own);
        let rank = count(before.count());
        if let Some(shared) = self.sharing.replicas.get_mut(slot.index()) {
            shared.probed_elsewhere = probed_elsewhere;
            (shared.others, shared.rank) = (others, rank);
        }
        self.review_split(slot, fleet, now);
    }

    /// Who takes part of a replica's room, and whose turn it is.
    pub(in crate::engine) fn review_split(
        &mut self,
        slot: ReplicaSlot,
        fleet: &mut Fleet,
        now: Instant,
    ) {
        let split = self.split_of(slot, now);
        set_split(slot, split, fleet);
    }

    fn split_of(&mut self, slot: ReplicaSlot, now: Instant) -> Split {
        let told = self.told_by_all();
        let Some(shared) = self.sharing.replicas.get_mut(slot.index()) else {
            return Split::default();
        };
        if shared.others == 0 {
            return Split::default();
        }
        shared
            .unsent
            .retain(|(event, at_ns)| *event >= told && now < *at_ns + UNSENT_NS);
        let unsent = count(shared.unsent.len());
        let ours = (shared.pushed_ns, self.name.as_str());
        let reported = || {
            self.remotes.iter().filter_map(|(peer, remote)| {
                let reported = remote.share.reported.get(&slot)?;
                self.shares_replica(PeerSlot::new(peer), slot)
                    .then_some((remote.peer.name.as_str(), reported))
            })
        };
        let pushed = reported().map(|(name, reported)| (reported.pushed_ns, name));
        let (_, last) = pushed.fold(ours, std::cmp::Ord::max);
        let turn = |name: &str| (name <= last, name.to_owned());
        let our_turn = turn(&self.name);
        let lately = |reported: &Reported| {
            reported.pushed_ns > Instant::ZERO && now < reported.pushed_ns + LATELY_NS
        };
        let active = reported()
            .filter(|(_, reported)| reported.wants || lately(reported))
            .count();
        let ahead = reported()
            .filter(|(name, reported)| reported.wants && turn(name) < our_turn)
            .count();
        Split {
            others: count(active),
            ahead: count(ahead),
            unsent,
        }
    }

    /// Notes since when there has been room for somebody at a replica that is shared.
    pub(in crate::engine) fn note_open(
        &self,
        slot: ReplicaSlot,
        fleet: &mut Fleet,
        config: &Config,
        now: Instant,
    ) {
        if !self.sharing.alone(slot) {
            fleet.note_open(slot, config, now);
        }
    }

    /// Looks at all that is split: time has passed, or somebody was told something. The replicas of
    /// which we may have another part now.
    pub(in crate::engine) fn review_splits(
        &mut self,
        fleet: &mut Fleet,
        now: Instant,
    ) -> Vec<ReplicaSlot> {
        let mut changed = Vec::new();
        if !self.sharing.active {
            return changed;
        }
        for slot in fleet.all_slots() {
            let before = fleet.split(slot);
            if before.is_some_and(|split| split != Split::default()) {
                self.review_split(slot, fleet, now);
                if fleet.split(slot) != before {
                    changed.push(slot);
                }
            }
        }
        changed
    }

    // ------------------------------------------------------------------ what happens here

    /// A request was pushed.
    pub(in crate::engine) fn note_began(
        &mut self,
        slot: ReplicaSlot,
        (id, need): (RequestId, Need),
        fleet: &mut Fleet,
        now: Instant,
    ) {
        if !self.sharing.active {
            return;
        }
        let own = Own {
            id,
            pushed_ns: now,
            first_byte_ns: None,
            need,
        };
        let event = self.sharing.note(slot, What::Began(own));
        let Some(shared) = self.sharing.replicas.get_mut(slot.index()) else {
            return;
        };
        shared.pushed_ns = now;
        if shared.others == 0 {
            return;
        }
        shared.unsent.push((event, now));
        let before = fleet.split(slot).unwrap_or_default();
        let after = self.split_of(slot, now);
        // Others' part comes to us where held requests are offered it, not here.
        let split = Split {
            others: after.others.max(before.others),
            ahead: after.ahead.max(before.ahead),
            ..after
        };
        set_split(slot, split, fleet);
    }

    /// A request got its first byte.
    pub(in crate::engine) fn note_started(
        &mut self,
        slot: ReplicaSlot,
        id: RequestId,
        now: Instant,
    ) {
        if self.sharing.active {
            self.sharing.note(slot, What::Started(id, now));
        }
    }

    /// A request is no longer at the replica.
    pub(in crate::engine) fn note_ended(&mut self, slot: ReplicaSlot, id: RequestId) {
        if self.sharing.active {
            self.sharing.note(slot, What::Ended(id));
        }
    }

    /// Our own probe brought a page.
    pub(in crate::engine) fn note_page(
        &mut self,
        slot: ReplicaSlot,
        page: &Snapshot,
        sent_ns: Instant,
    ) {
        let active = self.sharing.active;
        let shared = self.sharing.replicas.get_mut(slot.index());
        if let Some(shared) = shared.filter(|_| active) {
            let page = Some(told(page));
            shared.pages += u64::from(shared.page != page);
            (shared.page, shared.page_ns) = (page, sent_ns);
        }
    }

    /// Whether a balancer of our region has something for the replica that waits.
    pub(in crate::engine) fn wanted_elsewhere(&self, slot: ReplicaSlot) -> bool {
        let mut sharers = self.remotes.iter().map(|(_, remote)| &remote.share);
        self.sharing.active && sharers.any(|of| of.reported.get(&slot).is_some_and(|of| of.wants))
    }

    /// When somebody's turn is over, or word that has not gone out counts no more, so that something
    /// held here may start.
    pub(in crate::engine::mesh) fn next_turn_ns(
        &self,
        fleet: &Fleet,
        hold: &Hold,
        now: Instant,
    ) -> Option<Instant> {
        if !self.sharing.active || hold.is_empty() {
            return None;
        }
        let later_ns = now + TURN_NS;
        let members = fleet.members().map(|(_, member)| member.replica());
        let split = members.filter(|replica| replica.split().others > 0);
        let turns = split.map(|replica| replica.turn_ns().filter(|at_ns| *at_ns > now));
        turns.map(|at_ns| at_ns.unwrap_or(later_ns)).min()
    }

    /// The first event that not all that share with us have been told of.
    fn told_by_all(&self) -> u64 {
        let sharers = self.peers().filter(|(slot, _)| self.shares(*slot));
        let remotes = sharers.filter_map(|(slot, _)| self.remote(slot));
        remotes
            .map(|remote| remote.share.cursor.unwrap_or(0))
            .min()
            .unwrap_or(u64::MAX)
    }
}

fn set_split(slot: ReplicaSlot, split: Split, fleet: &mut Fleet) {
    if fleet.split(slot) != Some(split) {
        fleet.set_split(slot, split);
    }
}
