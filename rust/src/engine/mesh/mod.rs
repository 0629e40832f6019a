//! The peers of this balancer, and which requests may go where.

mod away;
mod departure;
mod facts;
mod figures;
pub mod grants;
pub mod hot;
pub mod key;
pub mod listing;
pub mod peer;
pub mod region;
pub mod residency;
pub(in crate::engine) mod tell;

pub(in crate::engine) use away::Away;

use std::collections::VecDeque;

use slab::Slab;

use self::departure::Departure;
use self::hot::Hot;
use self::listing::{Listing, PeersError};
use self::peer::{PEERS_MAX, Peer, Presence};
use self::region::cached::RegionCache;
use self::region::{Sharer, Sharing};
use self::residency::{RegionError, Regions, Residency, Rule};
use self::tell::{Link, Telling};
use super::cache::Cache;
use super::cache::radix::{Radix, RadixConfig};
use super::config::Config;
use super::fleet::Fleet;
use super::hold::Hold;
use super::ring::{Ring, WEIGHT_ONE};
use crate::id::{PeerId, PeerSlot, ReplicaId, ReplicaSlot};
use crate::time::Instant;

/// Ends of waits for a peer's room that are known at once.
const LEAVE_ENDS_MAX: usize = 16_384;

/// Share of the tree's memory that the regional snapshot may take on top.
const TREE_SHARE: usize = 8;
/// Least memory of the regional snapshot.
const TREE_BYTES_MIN: usize = 1 << 20;

/// What a peer was sent last, as far as a change makes a new summary due.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct LastSent {
    draining: bool,
    holds: bool,
    over_max: bool,
    bytes: usize,
}

/// One peer and what is remembered beside it.
#[derive(Debug)]
pub(in crate::engine) struct Remote {
    peer: Peer,
    last_sent: LastSent,
    /// Number of the last digest of hot prefixes that it was sent.
    hot_sent: u64,
    /// The peer's start, as known then.
    hot_sent_start: u64,
    share: Sharer,
    link: Link,
}

/// All peers, by slot, and where requests may go.
#[derive(Debug)]
pub(in crate::engine) struct Mesh {
    name: String,
    region: String,
    /// This balancer's region.
    region_bit: u64,
    incarnation: u64,
    remotes: Slab<Remote>,
    regions: Regions,
    residency: Residency,
    /// What is new and what is held leaves while peers have room.
    evacuating: bool,
    /// Regions that streams leave at a time.
    departures: Vec<Departure>,
    /// When requests that wait for a peer's room no longer do, the earliest first.
    leave_ends: VecDeque<Instant>,
    /// The regional snapshot: which prompts were forwarded where.
    tree: Radix,
    /// Hot prefixes, where balancers send each other theirs.
    hot: Option<Hot>,
    /// Peers by their number.
    ring: Ring,
    /// Forwards that have not ended.
    in_flight: usize,
    /// What is shared with balancers of our region.
    sharing: Sharing,
    /// Which prompts were pushed there, where balancers of our region tell each other.
    region_cache: Option<RegionCache>,
    telling: Telling,
}

/// What peers receive of this balancer.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Local<'a> {
    pub(in crate::engine) config: &'a Config,
    pub(in crate::engine) fleet: &'a Fleet,
    pub(in crate::engine) hold: &'a Hold,
    pub(in crate::engine) cache: &'a Cache,
    pub(in crate::engine) now: Instant,
}

impl Mesh {
    pub(in crate::engine) fn new(tree_bytes_max: usize, vnodes: u32) -> Self {
        let regions = Regions::default();
        let region_bit = regions.bit("");
        Self {
            name: String::new(),
            region: String::new(),
            region_bit,
            incarnation: 1,
            remotes: Slab::new(),
            regions,
            residency: Residency::default(),
            evacuating: false,
            departures: Vec::new(),
            leave_ends: VecDeque::new(),
            tree: Radix::new(RadixConfig {
                bytes_max: (tree_bytes_max / TREE_SHARE).max(TREE_BYTES_MIN),
                capacity_blocks: u32::MAX,
            }),
            hot: None,
            ring: Ring::new(vnodes),
            in_flight: 0,
            sharing: Sharing::default(),
            region_cache: None,
            telling: Telling::default(),
        }
    }

    /// Names this balancer.
    pub(in crate::engine) fn set_self(&mut self, name: &str, region: &str, incarnation: u64) {
        self.region_bit = self.regions.bit(region);
        name.clone_into(&mut self.name);
        region.clone_into(&mut self.region);
        self.incarnation = incarnation.max(1);
    }

    /// Rules may name other regions by now: finds the bits of all anew.
    pub(in crate::engine) fn find_regions(&mut self) {
        self.region_bit = self.regions.bit(&self.region);
        for (_, remote) in &mut self.remotes {
            let peer = &mut remote.peer;
            peer.region_bit = bit_of(&self.regions, &peer.region, peer.sure);
        }
    }

    /// Some request waits for a peer's room until then; the wait is as long for everybody, so that ends
    /// come in order. Beyond [`LEAVE_ENDS_MAX`] the next snapshot finds who has waited long enough.
    pub(in crate::engine) fn note_leave_end(&mut self, at_ns: Instant) {
        let last_ns = self.leave_ends.back().copied().unwrap_or_default();
        if at_ns > last_ns && self.leave_ends.len() < LEAVE_ENDS_MAX {
            self.leave_ends.push_back(at_ns);
        }
    }

    /// Forgets the ends that have come.
    pub(in crate::engine) fn pass_leave_ends(&mut self, now: Instant) {
        while self.leave_ends.front().is_some_and(|at_ns| *at_ns <= now) {
            self.leave_ends.pop_front();
        }
    }

    pub(in crate::engine) fn region(&self) -> &str {
        &self.region
    }

    /// This balancer's region as a bit.
    pub(in crate::engine) fn region_bit(&self) -> u64 {
        self.region_bit
    }

    pub(in crate::engine) fn regions(&self) -> &Regions {
        &self.regions
    }

    pub(in crate::engine) fn residency(&self) -> &Residency {
        &self.residency
    }

    pub(in crate::engine) fn set_residency(&mut self, rules: Vec<Rule>) -> Result<(), RegionError> {
        self.residency = Residency::new(rules, &mut self.regions)?;
        Ok(())
    }

    /// What is new and what is held leaves while peers have room.
    pub(in crate::engine) fn evacuating(&self) -> bool {
        self.evacuating
    }

    pub(in crate::engine) fn set_evacuating(&mut self, evacuating: bool) {
        self.evacuating = evacuating;
    }

    /// Forwards that have not ended.
    pub(in crate::engine) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// A replica that is new has come to a slot.
    pub(in crate::engine) fn share_replica(&mut self, slot: ReplicaSlot) {
        self.sharing.add(slot);
        for (_, remote) in &mut self.remotes {
            remote.share.forget(slot);
        }
    }

    /// What is shared with balancers of our region.
    pub(in crate::engine) fn sharing(&self) -> &Sharing {
        &self.sharing
    }

    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.remotes.is_empty()
    }

    pub(in crate::engine) fn slot(&self, id: PeerId) -> Option<PeerSlot> {
        let found = self.remotes.iter().find(|(_, remote)| remote.peer.id == id);
        found.map(|(index, _)| PeerSlot::new(index))
    }

    pub(in crate::engine) fn remote(&self, slot: PeerSlot) -> Option<&Remote> {
        self.remotes.get(slot.index())
    }

    pub(in crate::engine) fn peer(&self, slot: PeerSlot) -> Option<&Peer> {
        self.remote(slot).map(|remote| &remote.peer)
    }

    fn peer_mut(&mut self, slot: PeerSlot) -> Option<&mut Peer> {
        self.remotes
            .get_mut(slot.index())
            .map(|remote| &mut remote.peer)
    }

    pub(in crate::engine) fn peers(&self) -> impl Iterator<Item = (PeerSlot, &Peer)> {
        let peers = self.remotes.iter();
        peers.map(|(index, remote)| (PeerSlot::new(index), &remote.peer))
    }

    /// Sets all peers.
    pub(in crate::engine) fn set_peers(
        &mut self,
        peers: &[Listing],
        fleet: &mut Fleet,
    ) -> Result<(), PeersError> {
        if peers.len() > PEERS_MAX {
            return Err(PeersError::TooMany);
        }
        for (position, peer) in peers.iter().enumerate() {
            let before = &peers[..position];
            if peer.name == self.name || before.iter().any(|other| other.name == peer.name) {
                return Err(PeersError::Name(peer.name.clone()));
            }
            if before.iter().any(|other| other.id == peer.id) {
                return Err(PeersError::Id(peer.id.0));
            }
        }
        let listed: Vec<(PeerSlot, PeerId)> = self.peers().map(|(slot, p)| (slot, p.id)).collect();
        for (slot, gone) in listed {
            if peers.iter().all(|peer| peer.id != gone) {
                self.remove(slot);
                fleet.keep_theirs(gone, |_, _| false);
            }
        }
        for peer in peers {
            self.add(peer);
        }
        self.count_links();
        Ok(())
    }

    /// Adds a peer, or takes one back that was removed.
    fn add(&mut self, listing: &Listing) {
        let (id, region) = (listing.id, &listing.region);
        let region_bit = bit_of(&self.regions, region, listing.sure);
        if let Some(slot) = self.slot(id) {
            if let Some(peer) = self.peer_mut(slot) {
                peer.removed = false;
                region.clone_into(&mut peer.region);
                (peer.region_bit, peer.sure) = (region_bit, listing.sure);
            }
        } else {
            let mut peer = Peer::new(id, listing.name.clone(), region.clone(), region_bit);
            peer.sure = listing.sure;
            self.remotes.insert(Remote {
                peer,
                last_sent: LastSent::default(),
                hot_sent: 0,
                hot_sent_start: 0,
                share: Sharer::default(),
                link: Link::default(),
            });
        }
        self.ring.add(on_ring(id), WEIGHT_ONE);
    }

    /// Takes a peer out: nothing is forwarded to it from now on.
    fn remove(&mut self, slot: PeerSlot) {
        if let Some(peer) = self.peer_mut(slot) {
            peer.removed = true;
            // Where it is listed again, it is met anew.
            peer.presence = Presence::Unreachable;
            peer.forget();
            let id = peer.id;
            self.ring.remove(on_ring(id));
            self.tree.forget(slot.number());
            self.forget_hot(slot);
        }
        self.drop_if_over(slot);
    }

    /// Forgets a removed peer whose forwards have all ended.
    pub(in crate::engine) fn drop_if_over(&mut self, slot: PeerSlot) {
        let over = |peer: &Peer| peer.removed && peer.in_flight == 0;
        if self.peer(slot).is_some_and(over) {
            self.remotes.remove(slot.index());
        }
    }

    /// Appends `(slot, blocks)` for each peer that was sent leading blocks.
    pub(in crate::engine) fn matches(&mut self, blocks: &[u64], out: &mut Vec<(PeerSlot, u32)>) {
        if !blocks.is_empty() {
            self.tree.matches(blocks, out);
        }
    }

    /// Peers from the key's place on their ring on.
    pub(in crate::engine) fn walk(&self, key: u64) -> impl Iterator<Item = PeerSlot> {
        self.ring.walk(key).filter_map(|member| {
            let mut peers = self.peers();
            peers.find_map(|(slot, peer)| (on_ring(peer.id) == member).then_some(slot))
        })
    }

    pub(in crate::engine) fn remote_of(&self, peer: PeerId) -> Option<(PeerSlot, &Remote)> {
        let slot = self.slot(peer)?;
        Some((slot, self.remote(slot)?))
    }

    /// Some peer that may be sent requests serves the model, in one of these regions.
    pub(in crate::engine) fn serves(&self, model: &str, regions: u64, now: Instant) -> bool {
        self.peers()
            .any(|(_, peer)| peer.region_bit & regions != 0 && peer.serves(model, now))
    }

    /// When a peer may be sent requests again after failures, a wait for a peer's room ends, or it is
    /// another's turn at a replica.
    pub(in crate::engine) fn next_change_ns(
        &self,
        fleet: &Fleet,
        hold: &Hold,
        now: Instant,
    ) -> Option<Instant> {
        let opens = self.peers().filter_map(|(_, peer)| peer.opens_ns(now));
        let leave_end_ns = self.leave_ends.front().copied();
        let turn_ns = self.next_turn_ns(fleet, hold, now);
        opens.chain(leave_end_ns).chain(turn_ns).min()
    }
}

/// The bit of a peer's region. Where that is no more than its word, it is in none that a rule names.
fn bit_of(regions: &Regions, region: &str, sure: bool) -> u64 {
    // No rule names the region without a name.
    regions.bit(if sure { region } else { "" })
}

/// The ring knows its members by one kind of number: here they are peers.
pub(in crate::engine) fn on_ring(peer: PeerId) -> ReplicaId {
    ReplicaId(peer.0)
}
