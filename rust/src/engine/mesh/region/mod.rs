//! Replicas that several balancers of one region push to.
//!
//! Every balancer tells every peer of its region that lists the same replicas what it pushes
//! there, and passes on what its probes say ([`crate::engine::mesh::region::message`]). Their
//! requests count at the gate as ours do ([`crate::engine::fleet::replica`]), so what is left as
//! foreign belongs to no known balancer. Of those that may push to a replica one probes it for
//! all; who hears no page of it for [`PATIENCE`] intervals probes for itself. There is no leader
//! and no election. Each balancer computes from what it has received. Views that differ for a
//! while cost a probe or a push more.

mod hear;
pub mod message;
mod state;
mod tell;

use self::state::{Reported, What};
pub(in crate::engine) use self::state::{Shared, Sharer, Sharing};
use crate::engine::choose::policy::Slot;
use crate::engine::effect::Effect;
use crate::engine::fleet::gate;
use crate::engine::fleet::member::Member;
use crate::engine::fleet::replica::{Need, Own, Split, TURN_NS};
use crate::engine::fleet::snapshot::Snapshot;
use crate::engine::fleet::{Fleet, slot_of};
use crate::engine::mesh::Mesh;
use crate::engine::mesh::region::message::{SHARED_MAX, key, told, weight};
use crate::engine::router::Router;
use crate::id::{Nanos, PeerId, RequestId};

/// Probe intervals without a page of the balancer that probes for all.
const PATIENCE: u64 = 3;
/// Who pushed so lately takes a part of the room.
const LATELY_NS: Nanos = 500_000_000;
/// A push that could not be told for so long keeps nobody from pushing.
const UNTOLD_NS: Nanos = TURN_NS;

impl Mesh {
    /// The peer is of our region, and to be heard.
    pub(in crate::engine) fn shares(&self, slot: Slot) -> bool {
        self.peer(slot)
            .is_some_and(|peer| peer.listed() && peer.region == self.region)
    }

    /// The peer may push to this replica too.
    fn shares_replica(&self, peer: Slot, slot: Slot) -> bool {
        let line = self
            .remote(peer)
            .and_then(|remote| remote.share.reported.get(&slot));
        self.shares(peer) && line.is_some_and(|line| line.ready)
    }
}

impl Router {
    // ------------------------------------------------------------------ who shares what

    /// The fleet has changed: it is listed anew.
    pub(in crate::engine) fn list_replicas(&mut self) {
        let listed = self.fleet.members().filter(|(_, member)| !member.removed);
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
        let keys = listed.map(|(slot, member)| (key(&member.name), slot));
        sharing.by_key = keys.collect();
        for (_, remote) in &mut self.mesh.remotes {
            remote.share.listed = false;
            remote.share.find(&self.sharing.by_key);
        }
        self.review_sharing();
    }

    /// A connection to a peer begins: neither knows what the other has told before.
    pub fn share_anew(&mut self, peer: PeerId, now_ns: Nanos, out: &mut Vec<Effect>) {
        let now_ns = self.advance(now_ns);
        if let Some(slot) = self.known_peer(peer) {
            if let Some(remote) = self.mesh.remotes.get_mut(slot as usize) {
                remote.share = Sharer::default();
            }
            self.forget_theirs(peer);
            self.review_sharing();
            self.dispatch_all(now_ns, out);
        }
    }

    fn forget_theirs(&mut self, peer: PeerId) {
        self.keep_theirs(peer, |_, _| false);
    }

    /// Forgets a peer's requests, all but those that `keep` names.
    fn keep_theirs(&mut self, peer: PeerId, keep: impl Fn(Slot, RequestId) -> bool) {
        for slot in self.fleet.all_slots() {
            let theirs = self.fleet.member(slot).map_or(0, |m| m.replica.theirs());
            if let Some(member) = self.fleet.member_mut_if(slot, theirs > 0) {
                member.replica.forget_theirs(peer, |id| keep(slot, id));
            }
        }
    }

    /// Who shares what has changed: who pushes where, and who probes what, follows from it.
    pub(in crate::engine) fn review_sharing(&mut self) {
        let peers: Vec<(Slot, PeerId)> = self.mesh.peers().map(|(slot, p)| (slot, p.id)).collect();
        let before = self.sharing.active;
        self.sharing.active = false;
        for (slot, peer) in peers {
            if self.mesh.shares(slot) {
                self.sharing.active = true;
            } else if self
                .mesh
                .remotes
                .get(slot as usize)
                .is_some_and(|r| !r.share.reported.is_empty())
            {
                if let Some(remote) = self.mesh.remotes.get_mut(slot as usize) {
                    remote.share = Sharer {
                        retracts: remote.peer.isolated,
                        ..Sharer::default()
                    };
                }
                self.forget_theirs(peer);
            }
        }
        if !before && !self.sharing.active {
            return;
        }
        if !self.sharing.active {
            self.sharing.first = self.sharing.next();
            self.sharing.events.clear();
        }
        for slot in self.fleet.all_slots() {
            self.review_replica(slot);
        }
    }

    fn review_replica(&mut self, slot: Slot) {
        let mesh = &self.mesh;
        let sharers = mesh
            .peers()
            .filter(|(peer, _)| mesh.shares_replica(*peer, slot));
        let names: Vec<&str> = sharers.map(|(_, peer)| peer.name.as_str()).collect();
        let Some(replica) = self.fleet.member(slot).map(|member| key(&member.name)) else {
            return;
        };
        let ours = (weight(&mesh.name, replica), mesh.name.as_str());
        let Some(shared) = self.fleet.shared_mut(slot) else {
            return;
        };
        shared.probed_elsewhere = names
            .iter()
            .any(|name| (weight(name, replica), *name) > ours);
        shared.others = slot_of(names.len());
        let before = names.iter().filter(|name| **name < mesh.name.as_str());
        shared.rank = slot_of(before.count());
        self.review_split(slot, self.now_ns);
    }

    /// Who takes part of a replica's room, and whose turn it is.
    fn review_split(&mut self, slot: Slot, now_ns: Nanos) {
        let Some(shared) = self.fleet.shared_mut(slot) else {
            return;
        };
        if shared.others == 0 {
            return self.set_split(slot, Split::default());
        }
        let mesh = &self.mesh;
        let lines = || {
            mesh.remotes.iter().filter_map(|(peer, remote)| {
                let line = remote.share.reported.get(&slot)?;
                mesh.shares_replica(slot_of(peer), slot)
                    .then_some((remote.peer.name.as_str(), line))
            })
        };
        let ours = (shared.pushed_ns, mesh.name.as_str());
        let pushed = lines().map(|(name, line)| (line.pushed_ns, name));
        let (_, last) = pushed.fold(ours, std::cmp::Ord::max);
        let turn = |name: &str| (name <= last, name.to_owned());
        let our_turn = turn(&mesh.name);
        let lately = |line: &Reported| line.pushed_ns > 0 && now_ns < line.pushed_ns + LATELY_NS;
        let active = lines()
            .filter(|(_, line)| line.wants || lately(line))
            .count();
        let ahead = lines()
            .filter(|(name, line)| line.wants && turn(name) < our_turn)
            .count();
        let told = told_by_all(mesh);
        shared
            .untold
            .retain(|(event, at_ns)| *event >= told && now_ns < *at_ns + UNTOLD_NS);
        let split = Split {
            others: slot_of(active),
            ahead: slot_of(ahead),
            untold: slot_of(shared.untold.len()),
        };
        self.set_split(slot, split);
    }

    fn set_split(&mut self, slot: Slot, split: Split) {
        let before = self.fleet.member(slot).map(|m| m.replica.split());
        if let Some(member) = self.fleet.member_mut_if(slot, before != Some(split)) {
            member.replica.set_split(split);
        }
    }

    /// Notes since when there has been room for somebody at a replica that is shared.
    pub(in crate::engine) fn note_open(&mut self, slot: Slot, now_ns: Nanos) {
        let moves = |member: &Member| {
            !member.shared.alone() && member.replica.opens_or_closes(&self.config)
        };
        let moves = self.fleet.member(slot).is_some_and(moves);
        if let Some(member) = self.fleet.member_mut_if(slot, moves) {
            member.replica.note_open(&self.config, now_ns);
        }
    }

    /// Looks at all that is split: time has passed, or somebody was told something. The replicas of
    /// which we may have another part now.
    pub(in crate::engine) fn review_splits(&mut self, now_ns: Nanos) -> Vec<Slot> {
        let mut changed = Vec::new();
        if !self.sharing.active {
            return changed;
        }
        let split = |router: &Self, slot| router.fleet.member(slot).map(|m| m.replica.split());
        for slot in self.fleet.all_slots() {
            let before = split(self, slot);
            if before.is_some_and(|split| split != Split::default()) {
                self.review_split(slot, now_ns);
                if split(self, slot) != before {
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
        slot: Slot,
        id: RequestId,
        need: Need,
        now_ns: Nanos,
    ) {
        if !self.sharing.active {
            return;
        }
        let own = Own {
            id,
            pushed_ns: now_ns,
            first_byte_ns: None,
            need,
        };
        let event = self.sharing.note(slot, What::Began(own));
        let Some(shared) = self.fleet.shared_mut(slot) else {
            return;
        };
        shared.pushed_ns = now_ns;
        if shared.others == 0 {
            return;
        }
        shared.untold.push((event, now_ns));
        let split = |fleet: &Fleet| fleet.member(slot).map(|m| m.replica.split());
        let before = split(&self.fleet).unwrap_or_default();
        self.review_split(slot, now_ns);
        let after = split(&self.fleet).unwrap_or_default();
        // Others' part comes to us where held requests are offered it, not here.
        let split = Split {
            others: after.others.max(before.others),
            ahead: after.ahead.max(before.ahead),
            ..after
        };
        self.set_split(slot, split);
    }

    /// A request got its first byte.
    pub(in crate::engine) fn note_started(&mut self, slot: Slot, id: RequestId, now_ns: Nanos) {
        if self.sharing.active {
            self.sharing.note(slot, What::Started(id, now_ns));
        }
    }

    /// A request is no longer at the replica.
    pub(in crate::engine) fn note_ended(&mut self, slot: Slot, id: RequestId) {
        if self.sharing.active {
            self.sharing.note(slot, What::Ended(id));
        }
    }

    /// Our own probe brought a page.
    pub(in crate::engine) fn note_page(&mut self, slot: Slot, page: &Snapshot, sent_ns: Nanos) {
        let active = self.sharing.active;
        if let Some(shared) = self.fleet.shared_mut(slot).filter(|_| active) {
            let page = Some(told(page));
            shared.pages += u64::from(shared.page != page);
            (shared.page, shared.page_ns) = (page, sent_ns);
        }
    }

    /// When a replica is to be probed from here.
    pub(in crate::engine) fn probe_due_ns(
        &mut self,
        slot: Slot,
        held: bool,
        now_ns: Nanos,
    ) -> Option<Nanos> {
        let wanted = held || self.wanted_elsewhere(slot);
        let member = self.fleet.member(slot).filter(|member| !member.removed)?;
        let interval_ns = gate::probe_interval(&member.replica, &self.config, wanted);
        let due_ns = member.replica.probe_due_ns(interval_ns, &self.config);
        let looked_for = gate::looked_for(&member.replica);
        let shared = self.fleet.shared_mut(slot)?;
        if shared.interval_ns != interval_ns {
            (shared.interval_ns, shared.interval_since_ns) = (interval_ns, now_ns);
        }
        if !shared.probed_elsewhere || looked_for {
            return Some(due_ns);
        }
        let heard_ns = shared.heard_ns.max(shared.interval_since_ns);
        Some(due_ns.max(heard_ns.saturating_add(PATIENCE * interval_ns)))
    }

    fn wanted_elsewhere(&self, slot: Slot) -> bool {
        let mut sharers = self.mesh.remotes.iter().map(|(_, remote)| &remote.share);
        self.sharing.active
            && sharers.any(|of| of.reported.get(&slot).is_some_and(|line| line.wants))
    }

    /// When somebody's turn is over, or word that has not gone out counts no more, so that something
    /// held here may start.
    pub(in crate::engine) fn next_turn_ns(&self) -> Option<Nanos> {
        if !self.sharing.active || self.hold.is_empty() {
            return None;
        }
        let later_ns = self.now_ns.saturating_add(TURN_NS);
        let members = self.fleet.members().map(|(_, member)| &member.replica);
        let split = members.filter(|replica| replica.split().others > 0);
        let turns = split.map(|replica| replica.turn_ns().filter(|at_ns| *at_ns > self.now_ns));
        turns.map(|at_ns| at_ns.unwrap_or(later_ns)).min()
    }
}

/// The first event that not all that share with us have been told of.
fn told_by_all(mesh: &Mesh) -> u64 {
    let sharers = mesh.peers().filter(|(slot, _)| mesh.shares(*slot));
    let remotes = sharers.filter_map(|(slot, _)| mesh.remote(slot));
    remotes
        .map(|remote| remote.share.cursor.unwrap_or(0))
        .min()
        .unwrap_or(u64::MAX)
}
