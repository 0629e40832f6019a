//! What waits for the next message to a peer about prompts, and what the peer has.

use super::message::{ENTRY_BYTES, Entry, HASH_BYTES};
use crate::engine::cache::{PLACES_MAX, STRIDE, places};
use crate::engine::generations::Generations;
use crate::id::ReplicaSlot;
use crate::time::{Instant, Span};

/// Bytes of the entries that wait for one message, at most.
pub const OUT_BYTES_MAX: usize = 32 << 10;
/// Bytes per second told to one peer, at most, but for one message.
pub const BYTES_PER_S_MAX: u64 = 96 << 10;
/// Places of paths that are remembered as told to one peer, where it hears of nobody else.
pub const TOLD_MAX: usize = PLACES_MAX / PLACES_PART;
/// Part of the places that a peer has which those who report to it remember. It keeps the half that was used last.
/// A place that its sender has dropped may have been used since the oldest that the sender still has, so that what
/// a sender uses in that time is half as much again.
const PLACES_PART: usize = 3;

/// What one peer is to be told, and what it knows.
#[derive(Debug)]
pub(in crate::engine) struct Outbox {
    told: Generations<u64, ()>,
    told_max: usize,
    pub(super) entries: Vec<(ReplicaSlot, Entry)>,
    pub(super) bytes: usize,
    /// Replicas of which the peer is to be told what was pushed last; `None`: of all, none has been told.
    pub(super) seeds: Option<Vec<ReplicaSlot>>,
    /// We have lost what it told us.
    pub(super) asks: bool,
    /// When it was told something, and how much.
    pub(super) last: Option<(Instant, usize)>,
    /// Start and number of the last message that it told us.
    pub(super) heard: (u64, u64),
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            told: Generations::new(TOLD_MAX),
            told_max: TOLD_MAX,
            entries: Vec::new(),
            bytes: 0,
            seeds: None,
            asks: false,
            last: None,
            heard: (0, 0),
        }
    }
}

impl Outbox {
    /// The peer has so many places, for what so many balancers tell it: no more of them are remembered than it
    /// keeps whatever the others tell.
    pub(super) fn fit(&mut self, places_max: usize, tellers: usize) {
        let told_max = places_max / PLACES_PART / tellers.max(1);
        if told_max != self.told_max {
            self.told_max = told_max;
            self.told.set_len_max(told_max);
        }
    }

    /// Blocks of the path up to the last place that has been told, of the first `within`.
    fn known(&self, blocks: &[u64], within: usize) -> usize {
        let blocks = &blocks[..within.min(blocks.len())];
        if blocks
            .last()
            .is_some_and(|end| self.told.get(*end).is_some())
        {
            return blocks.len();
        }
        // Who was told a place was told all before it.
        let (mut known, mut beyond) = (0, blocks.len() / STRIDE + 1);
        while known + 1 < beyond {
            let middle = usize::midpoint(known, beyond);
            if self.told.get(blocks[middle * STRIDE - 1]).is_some() {
                known = middle;
            } else {
                beyond = middle;
            }
        }
        known * STRIDE
    }

    /// The peer has the path up to this block.
    pub(super) fn knows(&self, block: u64) -> bool {
        self.told.get(block).is_some()
    }

    /// A path was used at a replica, of which so many blocks were in the tree. How many of its blocks do
    /// not fit.
    pub(super) fn add(
        &mut self,
        slot: ReplicaSlot,
        (blocks, depth): (&[u64], usize),
        bytes_max: usize,
    ) -> usize {
        let known = self.known(blocks, depth);
        let parent = known.checked_sub(1).map(|last| blocks[last]);
        self.append(slot, (parent, known), &blocks[known..], bytes_max)
    }

    /// These blocks follow one that has been told, at a depth, or begin a prompt. How many of them do
    /// not fit.
    pub(super) fn append(
        &mut self,
        slot: ReplicaSlot,
        (parent, depth): (Option<u64>, usize),
        more: &[u64],
        bytes_max: usize,
    ) -> usize {
        let room = bytes_max.saturating_sub(self.bytes);
        let fits = room.saturating_sub(ENTRY_BYTES) / HASH_BYTES;
        let told = more.len().min(fits);
        if room < ENTRY_BYTES || (told == 0 && (parent.is_none() || !more.is_empty())) {
            return more.len().max(1);
        }
        let hashes = more[..told].to_vec();
        for place in places(&hashes, depth) {
            self.told.put(place, ());
        }
        let entry = Entry {
            place: 0,
            parent,
            hashes,
        };
        self.bytes += entry.bytes();
        self.entries.push((slot, entry));
        more.len() - told
    }

    /// The peer has forgotten something of what it was told. What is pushed from now on is told from its
    /// beginning; what was told before is not told again.
    pub(super) fn begin_anew(&mut self) {
        self.told = Generations::new(self.told_max);
        self.entries.clear();
        self.bytes = 0;
    }

    /// Another replica is at a slot.
    pub(in crate::engine::mesh::region) fn forget(&mut self, slot: ReplicaSlot) {
        self.entries.retain(|(other, _)| *other != slot);
        self.bytes = self.entries.iter().map(|(_, entry)| entry.bytes()).sum();
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|(at_ns, bytes)| {
            now >= at_ns + bytes as u64 * Span::from_secs(1) / BYTES_PER_S_MAX
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: usize = 3;

    fn chain(of: u64, len: u64) -> Vec<u64> {
        (0..len).map(|at| of << 32 | (at + 1)).collect()
    }

    /// Parent and number of hashes of each entry, which are taken out.
    fn taken(outbox: &mut Outbox) -> Vec<(Option<u64>, usize)> {
        outbox.bytes = 0;
        let entries = outbox.entries.drain(..);
        entries
            .map(|(_, entry)| (entry.parent, entry.hashes.len()))
            .collect()
    }

    #[test]
    fn a_path_is_sent_from_the_last_place_that_was_sent() {
        let (mut outbox, slot) = (Outbox::default(), ReplicaSlot::new(SLOT));
        let long = chain(1, 100);
        assert_eq!(outbox.add(slot, (&long[..40], 0), 4_096), 0);
        assert_eq!(outbox.add(slot, (&long[..40], 40), 4_096), 0);
        assert_eq!(outbox.add(slot, (&long, 40), 4_096), 0);
        // An answer goes on behind it, and the next turn behind the answer.
        let end = (Some(long[99]), 100);
        let answer = chain(2, 30);
        assert_eq!(outbox.append(slot, end, &answer, 4_096), 0);
        let turn = [&long[..], &answer, &chain(3, 5)].concat();
        assert_eq!(outbox.add(slot, (&turn, 130), 4_096), 0);
        let sent = taken(&mut outbox);
        assert_eq!(sent[..2], [(None, 40), (Some(long[39]), 0)]);
        assert_eq!(
            sent[2],
            (Some(long[39]), 60),
            "from where the last one ended"
        );
        assert_eq!(sent[3], (Some(long[99]), 30));
        assert_eq!(sent[4], (Some(answer[29]), 5));
    }

    #[test]
    fn what_the_tree_has_lost_is_sent_again() {
        let (mut outbox, slot) = (Outbox::default(), ReplicaSlot::new(SLOT));
        let path = chain(1, 64);
        outbox.add(slot, (&path, 0), 4_096);
        outbox.add(slot, (&path, 20), 4_096);
        assert_eq!(taken(&mut outbox)[1], (Some(path[15]), 48));
        outbox.begin_anew();
        outbox.add(slot, (&path, 64), 4_096);
        assert_eq!(taken(&mut outbox), [(None, 64)]);
    }

    #[test]
    fn of_what_does_not_fit_the_beginning_is_sent_and_the_rest_later() {
        let (mut outbox, slot) = (Outbox::default(), ReplicaSlot::new(SLOT));
        let path = chain(1, 6_000);
        let room = ENTRY_BYTES + 1_000 * HASH_BYTES;
        assert_eq!(outbox.add(slot, (&path, 0), room), 5_000);
        assert_eq!(outbox.bytes, room);
        assert_eq!(
            outbox.add(slot, (&chain(2, 9), 0), room),
            9,
            "there is no room at all"
        );
        taken(&mut outbox);
        assert_eq!(outbox.add(slot, (&path, 6_000), room), 4_008);
        assert_eq!(taken(&mut outbox), [(Some(path[991]), 1_000)]);
        outbox.add(slot, (&path, 6_000), room);
        outbox.forget(slot);
        assert_eq!((taken(&mut outbox), outbox.bytes), (Vec::new(), 0));
    }

    /// How many entries a peer with so many places cannot place of those that so many balancers tell it, if it
    /// uses them as [`Cache::hear`](crate::engine::cache::Cache::hear) does. `told_max`: how much they remember
    /// as told; `None`: what fits.
    fn unplaced(tellers: u64, places_max: usize, told_max: Option<usize>) -> usize {
        let slot = ReplicaSlot::new(SLOT);
        let mut peer = Generations::new(places_max);
        let mut outboxes: Vec<Outbox> = (0..tellers).map(|_| Outbox::default()).collect();
        for outbox in &mut outboxes {
            outbox.fit(places_max, usize::try_from(tellers).unwrap());
            if let Some(told_max) = told_max {
                outbox.told.set_len_max(told_max);
            }
        }
        let mut unplaced = 0;
        for round in 0..6 {
            for turn in 0..1_000 {
                for (outbox, teller) in outboxes.iter_mut().zip(0..) {
                    // Sessions of each balancer's own, all of which go on round by round.
                    let path = chain(teller * 1_000 + turn, 16 * (round + 1));
                    outbox.add(slot, (&path, path.len()), OUT_BYTES_MAX);
                    for (_, entry) in outbox.entries.drain(..) {
                        if let Some(parent) = entry.parent {
                            let known = peer.find(parent).is_some();
                            unplaced += usize::from(!known);
                            if !known {
                                continue;
                            }
                            peer.put(parent, ());
                        }
                        for place in places(&entry.hashes, path.len() - entry.hashes.len()) {
                            peer.put(place, ());
                        }
                    }
                    outbox.bytes = 0;
                }
            }
        }
        unplaced
    }

    #[test]
    fn what_is_remembered_as_told_is_known_there_however_many_tell() {
        for tellers in 1..=5 {
            for places_max in [300, 1_000, 3_000, 20_000] {
                let unplaced = unplaced(tellers, places_max, None);
                assert_eq!(unplaced, 0, "{tellers} tell, {places_max} places");
            }
        }
        assert!(
            unplaced(3, 3_000, Some(1_500)) > 1_000,
            "if each took all places for its own, much would be lost"
        );
    }

    #[test]
    fn who_remembers_more_than_the_bound_that_comes_forgets_it() {
        let (mut outbox, slot) = (Outbox::default(), ReplicaSlot::new(SLOT));
        let path = chain(1, 64);
        outbox.add(slot, (&path, 0), 4_096);
        outbox.fit(PLACES_MAX, 2);
        assert!(outbox.knows(path[63]), "there is room for it");
        outbox.fit(6, 1);
        assert!(!outbox.knows(path[63]));
        outbox.begin_anew();
        assert_eq!(outbox.told_max, 2, "the bound stays");
    }
}
