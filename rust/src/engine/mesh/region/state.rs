//! What is known about sharing: with each peer, and at each replica.

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use super::cached::outbox::Outbox;
use crate::engine::fleet::replica::Own;
use crate::engine::fleet::snapshot::Snapshot;
use crate::id::{ReplicaSlot, RequestId};
use crate::time::{Instant, Span};

/// Events remembered for those that have not been told; who is further behind is told everything.
const EVENTS_MAX: usize = 8_192;

/// What a replica's sharing comes to, beside the split.
#[derive(Debug, Default)]
pub(in crate::engine) struct Shared {
    /// Others that may push there.
    pub(super) others: u32,
    /// One of them probes it for all.
    pub(super) probed_elsewhere: bool,
    /// Our place among all that may push there, in the order of their names.
    pub(super) rank: u32,
    /// When one of their pages came last.
    pub(super) heard_ns: Instant,
    /// Our own last page, as it is told: when it was asked for, and how many different ones there were.
    pub(super) page_ns: Instant,
    pub(super) pages: u64,
    pub(super) page: Option<Snapshot>,
    /// Since when the probe interval has been what it is.
    pub(super) interval_ns: Span,
    pub(super) interval_since_ns: Instant,
    /// Our last push.
    pub(super) pushed_ns: Instant,
    /// Our pushes that somebody may not have been told of: their event, and when.
    pub(super) unsent: SmallVec<[(u64, Instant); 2]>,
}

impl Shared {
    fn promised(&self, room: u32) -> u32 {
        let sharers = self.others + 1;
        room / sharers + u32::from(self.rank < room % sharers)
    }
}

/// What one request in flight has come to.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Began(Own),
    Started(RequestId, Instant),
    Ended(RequestId),
}

/// What a peer of our region has told of one replica.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// It has been told.
    pub(super) told: bool,
    pub(super) wants: bool,
    pub(super) ready: bool,
    pub(super) pushed_ns: Instant,
    pub(super) page: Option<Snapshot>,
}

/// What a peer was told of one replica last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) wants: bool,
    pub(super) ready: bool,
    pub(super) page_ns: Instant,
    pub(super) pages: u64,
}

/// Sharing with one peer.
#[derive(Debug, Default)]
pub(in crate::engine) struct Sharer {
    /// It has told its list.
    pub(super) heard: bool,
    /// Its replicas by their place in that: ours, where we have them.
    pub(super) places: Vec<Option<ReplicaSlot>>,
    /// Its list.
    pub(super) listing: Vec<u64>,
    pub(super) reported: HashMap<ReplicaSlot, Reported, FixedState>,
    /// It has been told our list.
    pub(super) listed: bool,
    /// It has been told all events up to this one; `None`: it is to be told everything.
    pub(super) cursor: Option<u64>,
    pub(super) said: HashMap<ReplicaSlot, Said, FixedState>,
    pub(super) told_ns: Option<Instant>,
    pub(super) told_bytes: usize,
    /// It is to be told that we share nothing any more.
    pub(super) retracts: bool,
    /// Which prompts it is to be told of.
    pub(super) cached: Outbox,
}

impl Sharer {
    /// It has told its list, and of all that we have too whether it may push there.
    pub(in crate::engine) fn is_known(&self) -> bool {
        self.heard && self.reported.values().all(|of| of.told)
    }

    pub(super) fn lists(&self, slot: ReplicaSlot) -> bool {
        self.reported.contains_key(&slot)
    }

    pub(super) fn listed(&self) -> impl Iterator<Item = ReplicaSlot> {
        self.reported.keys().copied()
    }

    /// Another replica is at a slot: nothing of what was said of the one before it counts.
    pub(in crate::engine::mesh) fn forget(&mut self, slot: ReplicaSlot) {
        self.reported.remove(&slot);
        self.said.remove(&slot);
        self.cached.forget(slot);
    }

    /// Finds our replicas in its list.
    pub(super) fn find(&mut self, by_key: &HashMap<u64, ReplicaSlot, FixedState>) {
        self.places = self
            .listing
            .iter()
            .map(|key| by_key.get(key).copied())
            .collect();
        let listed: HashSet<ReplicaSlot, FixedState> =
            self.places.iter().flatten().copied().collect();
        self.reported.retain(|slot, _| listed.contains(slot));
        for slot in listed {
            self.reported.entry(slot).or_default();
        }
        self.cursor = None;
    }
}

/// All that is shared.
#[derive(Debug, Default)]
pub(in crate::engine) struct Sharing {
    /// Somebody shares with us.
    pub(super) active: bool,
    /// Our replicas by place and by key.
    pub(super) listing: Vec<ReplicaSlot>,
    pub(super) places: HashMap<ReplicaSlot, u32, FixedState>,
    pub(super) by_key: HashMap<u64, ReplicaSlot, FixedState>,
    pub(super) events: VecDeque<(ReplicaSlot, What)>,
    /// The number of the first of them.
    pub(super) first: u64,
    /// What it comes to, by replica.
    pub(super) replicas: Vec<Shared>,
}

impl Sharing {
    /// A replica that is new has come to a slot.
    pub(in crate::engine) fn add(&mut self, slot: ReplicaSlot) {
        let index = slot.index();
        if index >= self.replicas.len() {
            self.replicas.resize_with(index + 1, Shared::default);
        }
        self.replicas[index] = Shared::default();
    }

    /// The part of so much room at a replica that may be promised to balancers of other regions, which
    /// hear of it from all that share it.
    pub(in crate::engine) fn promised(&self, slot: ReplicaSlot, room: u32) -> u32 {
        let shared = self.replicas.get(slot.index());
        shared.map_or(room, |shared| shared.promised(room))
    }

    /// No other balancer pushes to a replica.
    pub(in crate::engine) fn alone(&self, slot: ReplicaSlot) -> bool {
        let shared = self.replicas.get(slot.index());
        shared.is_none_or(|shared| shared.others == 0)
    }

    /// A replica is probed from here.
    pub(in crate::engine) fn probed_here(&self, slot: ReplicaSlot) -> bool {
        let shared = self.replicas.get(slot.index());
        shared.is_none_or(|shared| !shared.probed_elsewhere)
    }

    pub(super) fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    pub(super) fn note(&mut self, slot: ReplicaSlot, what: What) -> u64 {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
            self.first += 1;
        }
        self.events.push_back((slot, what));
        self.next() - 1
    }
}
