//! Which prefixes are hot at this balancer's replicas: what peers receive.
//!
//! Heat is the number of lately pushed prompts that were found cached up to a place, halved every
//! [`HALF_LIFE_NS`]. Only what matched counts: what has come once is not worth its bytes.
//!
//! A prompt passes many places, and of a prefix that is shared as a whole only the last is worth
//! its bytes. So a place is worth the heat that *ends* there. That is the prompts that got so far
//! and that no longer reported prefix covers, times the blocks that they save.

use std::cmp::Reverse;
use std::mem;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::digest::{PeerDigest, Prefix, prefixes_within};
use super::places::{Namer, PLACES, blocks_at, places_within};
use crate::id::ReplicaSlot;
use crate::time::{Instant, Span};

/// Time in which heat is halved: about as long as a busy replica keeps what is not asked for.
const HALF_LIFE_NS: f64 = 120e9;
/// Places whose heat is known, at most; 48 bytes each.
pub const SPOTS_MAX: usize = 1 << 14;
/// Prompts are looked at no more often than this; each stands for those since the one before.
const SAMPLE_NS: Span = Span::from_ns(2_000_000);
/// Least heat of a prefix that is told, ...
const HEAT_MIN: f32 = 1.5;
/// ... and of what ends there. Less than the heat of one prompt is forgotten after two half-lives.
const ENDS_MIN: f32 = 1.0;
const FORGET: f32 = 0.25;
/// Sessions that share a prefix before it is told, ...
const SHARERS_MIN: u8 = 2;
/// ... unless it has so many blocks: 4,096 tokens of four bytes each, at 64 bytes a block.
const LONG_BLOCKS: u32 = 256;
/// A change of more than this part of the prefixes is told before the digest is renewed anyway.
const NOTICEABLE: usize = 8;

/// One place.
#[derive(Debug, Clone, Copy)]
struct Spot {
    /// Chained hash of the place before it, 0 for none.
    above: u64,
    /// Of the session that came last.
    key: Option<u64>,
    heat_ns: Instant,
    heat: f32,
    /// The replica that was last found to cache it.
    replica: ReplicaSlot,
    place: u8,
    /// Times that another session came than the last time.
    sharers: u8,
}

impl Spot {
    #[expect(clippy::cast_possible_truncation, reason = "heat is an estimate")]
    fn cool(&mut self, now: Instant) {
        let age_ns = now - self.heat_ns;
        self.heat *= (-age_ns.ns_f64() / HALF_LIFE_NS).exp2() as f32;
        self.heat_ns = now;
    }

    fn is_worth_telling(&self) -> bool {
        let shared = self.sharers >= SHARERS_MIN || blocks_at(self.place.into()) >= LONG_BLOCKS;
        shared && self.heat >= HEAT_MIN
    }
}

/// How digests are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Bytes of a digest, at most.
    pub bytes_max: usize,
    /// Least time between two digests.
    pub interval_ns: Span,
    /// Age at which a peer gives a digest up.
    pub age_max_ns: Span,
}

/// The heat of all places, and the digest that peers are told.
#[derive(Debug)]
pub struct Heat {
    namer: Namer,
    terms: Terms,
    spots: HashMap<u64, Spot, FixedState>,
    /// Prompts since the last that was looked at, and when that was.
    unseen: u32,
    seen_ns: Instant,
    /// Places that were left out because too many are known.
    pub left_out: u64,
    looked_ns: Option<Instant>,
    told: Vec<Prefix>,
    told_ns: Instant,
    sequence: u64,
}

impl Heat {
    /// Nothing is hot yet.
    #[must_use]
    pub fn new(namer: Namer, terms: Terms) -> Self {
        Self {
            namer,
            terms,
            spots: HashMap::with_hasher(FixedState::default()),
            unseen: 0,
            seen_ns: Instant::ZERO,
            left_out: 0,
            looked_ns: None,
            told: Vec::new(),
            told_ns: Instant::ZERO,
            sequence: 0,
        }
    }

    /// A prompt of the session `key` is pushed to a replica, which caches its first `matched`
    /// blocks.
    pub fn count(
        &mut self,
        blocks: &[u64],
        matched: u32,
        key: Option<u64>,
        replica: ReplicaSlot,
        now: Instant,
    ) {
        self.unseen = self.unseen.saturating_add(1);
        if self.seen_ns > Instant::ZERO && now < self.seen_ns + SAMPLE_NS {
            return;
        }
        self.seen_ns = now;
        #[expect(clippy::cast_precision_loss, reason = "heat is an estimate")]
        let weight = mem::take(&mut self.unseen) as f32;
        let mut above = 0;
        for place in 0..places_within(matched) {
            let Some(chained) = blocks.get(blocks_at(place) as usize - 1) else {
                return;
            };
            let fresh = Spot {
                above,
                key,
                heat_ns: now,
                heat: 0.0,
                replica,
                place: u8::try_from(place).unwrap_or(u8::MAX),
                sharers: 1,
            };
            above = *chained;
            let full = self.spots.len() >= SPOTS_MAX;
            if full && !self.spots.contains_key(chained) {
                self.left_out += 1;
                return;
            }
            let spot = self.spots.entry(*chained).or_insert(fresh);
            spot.cool(now);
            spot.heat += weight;
            spot.replica = replica;
            if key.is_none() || spot.key != key {
                spot.sharers = spot.sharers.saturating_add(1);
                spot.key = key;
            }
        }
    }

    /// Looks whether there is something new to tell, if that has not been done for a while. `ready`:
    /// a replica may be pushed to.
    pub fn renew(&mut self, now: Instant, ready: impl Fn(ReplicaSlot) -> bool) {
        let due_ns = self
            .looked_ns
            .map_or(Instant::ZERO, |at_ns| at_ns + self.terms.interval_ns);
        if now < due_ns {
            return;
        }
        self.looked_ns = Some(now);
        let hot = self.hottest(now, ready);
        let ages = now - self.told_ns >= self.terms.age_max_ns / 2;
        if differs(&self.told, &hot) || (ages && !hot.is_empty()) {
            self.told = hot;
            self.told_ns = now;
            self.sequence += 1;
        }
    }

    /// Number of the digest that peers should know; 0 while there is none.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The digest that peers should know.
    #[must_use]
    pub fn digest(&self, block_bytes: u32, incarnation: u64) -> PeerDigest {
        PeerDigest {
            tag: self.namer.tag(),
            block_bytes,
            incarnation,
            sequence: self.sequence,
            prefixes: self.told.clone(),
        }
    }

    /// Places whose heat is known.
    #[must_use]
    pub fn places_len(&self) -> usize {
        self.spots.len()
    }

    /// Prefixes in the digest.
    #[must_use]
    pub fn told_len(&self) -> usize {
        self.told.len()
    }

    /// Memory in use, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.spots.allocation_size() + self.told.capacity() * size_of::<Prefix>()
    }

    /// The prefixes worth most, by mark.
    fn hottest(&mut self, now: Instant, ready: impl Fn(ReplicaSlot) -> bool) -> Vec<Prefix> {
        self.spots.retain(|_, spot| {
            spot.cool(now);
            spot.heat >= FORGET
        });
        self.make_room();
        let mut by_place: Vec<(u64, Spot)> =
            self.spots.iter().map(|(at, spot)| (*at, *spot)).collect();
        by_place.sort_unstable_by_key(|(at, spot)| (Reverse(spot.place), *at));
        // By chained hash: heat of longer prefixes that cover part of its own.
        let mut covered: HashMap<u64, f32, FixedState> =
            HashMap::with_hasher(FixedState::default());
        let mut worth = Vec::new();
        for (at, spot) in by_place {
            let longer = covered.remove(&at).unwrap_or(0.0).min(spot.heat);
            let ends = spot.heat - longer;
            // A prefix of which nearly all goes on is told by what it goes on to.
            let tells = ends >= ENDS_MIN.max(spot.heat / 16.0);
            let covers = if tells && spot.is_worth_telling() && ready(spot.replica) {
                worth.push((ends * depth(spot.place), at, spot.place));
                spot.heat
            } else {
                longer
            };
            if spot.above != 0 && covers > 0.0 {
                *covered.entry(spot.above).or_insert(0.0) += covers;
            }
        }
        worth.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        worth.truncate(prefixes_within(self.terms.bytes_max));
        let mut hot: Vec<Prefix> = worth
            .into_iter()
            .map(|(_, at, place)| Prefix {
                mark: self.namer.mark(at),
                place,
            })
            .collect();
        hot.sort_unstable();
        hot.dedup_by_key(|prefix| prefix.mark);
        hot
    }

    /// Forgets the coldest half where half of all places are taken: those of one session first.
    fn make_room(&mut self) {
        let keep = SPOTS_MAX / 2;
        if self.spots.len() <= keep {
            return;
        }
        let warmth = |spot: &Spot| {
            let shared = if spot.sharers >= SHARERS_MIN {
                4.0
            } else {
                1.0
            };
            spot.heat * shared
        };
        let mut all: Vec<f32> = self.spots.values().map(warmth).collect();
        let (_, least, _) = all.select_nth_unstable_by(keep, |a, b| b.total_cmp(a));
        let least = *least;
        self.spots.retain(|_, spot| warmth(spot) > least);
    }
}

#[expect(clippy::cast_precision_loss, reason = "depths are below 2^24")]
fn depth(place: u8) -> f32 {
    blocks_at(usize::from(place).min(PLACES - 1)) as f32
}

/// Whether so many prefixes came or went that peers should be told at once. Both are sorted.
fn differs(old: &[Prefix], new: &[Prefix]) -> bool {
    let kept = new
        .iter()
        .filter(|prefix| old.binary_search(prefix).is_ok());
    let kept = kept.count();
    let changed = (old.len() - kept) + (new.len() - kept);
    changed * NOTICEABLE > old.len().max(new.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::mesh::key::KEY_BYTES;

    const SECOND_NS: Span = Span::from_ns(1_000_000_000);
    const TERMS: Terms = Terms {
        bytes_max: 8 << 10,
        interval_ns: Span::from_secs(2),
        age_max_ns: Span::from_secs(30),
    };

    struct Drive {
        heat: Heat,
        now: Instant,
    }

    impl Drive {
        fn new(terms: Terms) -> Self {
            Self {
                heat: Heat::new(Namer::new(&[3; KEY_BYTES]), terms),
                now: Instant::ZERO + SECOND_NS,
            }
        }

        /// A prompt whose first `shared` blocks are those of all prompts of its family.
        fn push(&mut self, family: u64, shared: u32, session: u64, matched: u32) {
            self.now += SAMPLE_NS;
            let blocks = prompt(family, shared, session);
            self.heat.count(
                &blocks,
                matched,
                Some(session),
                ReplicaSlot::default(),
                self.now,
            );
        }

        /// Depths of the prefixes told after the next interval, of any prompt.
        fn depths(&mut self) -> Vec<u32> {
            self.now += self.heat.terms.interval_ns;
            self.heat.renew(self.now, |_| true);
            let told = self.heat.told.iter();
            let mut depths: Vec<_> = told.map(|p| blocks_at(p.place.into())).collect();
            depths.sort_unstable();
            depths
        }
    }

    fn prompt(family: u64, shared: u32, session: u64) -> Vec<u64> {
        let hash = |block: u32| {
            let own = if block < shared { 0 } else { session };
            1 + u64::from(block) + (family << 40) + (own << 20)
        };
        (0..512).map(hash).collect()
    }

    #[test]
    fn of_a_prefix_that_is_shared_as_a_whole_only_the_last_place_is_told() {
        let mut drive = Drive::new(TERMS);
        for session in 1..9 {
            drive.push(1, 70, session, 70);
        }
        assert_eq!(drive.depths(), [64]);
        assert_eq!(drive.heat.sequence(), 1);
        let digest = drive.heat.digest(64, 5);
        let mark = drive.heat.namer.mark(prompt(1, 70, 9)[63]);
        let place = digest.prefixes[0].place;
        assert_eq!(digest.prefixes, [Prefix { mark, place }]);
        assert_eq!((digest.incarnation, digest.sequence), (5, 1));
    }

    #[test]
    fn where_prompts_part_the_common_prefix_and_each_hot_branch_are_told() {
        let mut drive = Drive::new(TERMS);
        for session in 1..9 {
            // Two programs, each of eight users, with 32 blocks in common.
            let mut blocks = prompt(7, 32, 1 + session % 2);
            blocks.splice(64.., prompt(8, 0, session)[64..].iter().copied());
            drive.now += SAMPLE_NS;
            let now = drive.now;
            drive
                .heat
                .count(&blocks, 64, Some(session), ReplicaSlot::default(), now);
        }
        assert_eq!(drive.depths(), [64, 64], "nothing ends at the common part");
        for session in 20..30 {
            drive.push(7, 32, session, 32);
        }
        assert_eq!(drive.depths(), [32, 64, 64]);
    }

    #[test]
    fn what_one_session_alone_sends_is_told_only_if_it_is_long() {
        let mut drive = Drive::new(TERMS);
        for _ in 0..8 {
            drive.push(1, 0, 5, 200);
        }
        assert_eq!(drive.depths(), [] as [u32; 0]);
        for _ in 0..8 {
            drive.push(2, 0, 5, 300);
        }
        assert_eq!(drive.depths(), [256]);
    }

    #[test]
    fn what_is_cold_or_at_replicas_that_are_not_ready_is_not_told() {
        let mut drive = Drive::new(TERMS);
        for session in 1..9 {
            drive.push(1, 70, session, 70);
        }
        drive.now += TERMS.interval_ns;
        drive.heat.renew(drive.now, |_| false);
        assert_eq!((drive.heat.told_len(), drive.heat.sequence()), (0, 0));
        assert_eq!(drive.depths(), [64]);
        drive.now += 360 * SECOND_NS;
        assert_eq!(drive.depths(), [] as [u32; 0], "eight cool down to one");
        assert_eq!(
            drive.heat.sequence(),
            2,
            "that nothing is hot is told, once"
        );
        drive.now += 600 * SECOND_NS;
        assert_eq!(drive.depths(), [] as [u32; 0]);
        assert_eq!(drive.heat.sequence(), 2);
        assert!(drive.heat.spots.is_empty());
    }

    #[test]
    fn a_digest_is_renewed_when_much_has_changed_or_before_it_is_too_old() {
        let mut drive = Drive::new(TERMS);
        for family in 0..20 {
            for session in 1..9 {
                drive.push(family, 70, session, 70);
            }
        }
        assert_eq!(drive.depths().len(), 20);
        for session in 1..9 {
            drive.push(77, 70, session, 70);
        }
        assert_eq!(drive.depths().len(), 20, "one of twenty is not noticeable");
        assert_eq!(drive.heat.sequence(), 1);
        drive.now += TERMS.age_max_ns / 2;
        assert_eq!(drive.depths().len(), 21);
        assert_eq!(drive.heat.sequence(), 2);
        let before_ns = drive.now;
        drive
            .heat
            .renew(before_ns + TERMS.interval_ns - Span::from_ns(1), |_| false);
        assert_eq!(drive.heat.sequence(), 2, "not before the interval is over");
    }

    #[test]
    fn a_digest_keeps_to_its_bytes_and_holds_what_saves_most() {
        let terms = Terms {
            bytes_max: 200,
            ..TERMS
        };
        let mut drive = Drive::new(terms);
        for family in 0..40 {
            for session in 1..9 {
                let shared = if family % 2 == 0 { 20 } else { 100 };
                drive.push(family, shared, session, shared);
            }
        }
        assert_eq!(drive.depths(), [96; 17]);
        assert!(drive.heat.digest(64, 1).encode().len() <= 200);
    }

    #[test]
    fn however_many_prompts_come_a_bounded_number_of_places_is_known() {
        let mut drive = Drive::new(TERMS);
        for session in 1..9 {
            drive.push(1, 70, session, 70);
        }
        for session in 100..3_000 {
            drive.push(session, 0, session, 500);
        }
        assert_eq!(drive.heat.spots.len(), SPOTS_MAX);
        assert!(drive.heat.left_out > 0);
        let told = drive.depths();
        assert!(told.contains(&64), "what is shared is kept: {told:?}");
        assert!(drive.heat.spots.len() <= SPOTS_MAX / 2);
        assert!(drive.heat.bytes() < 4 << 20);
    }

    #[test]
    fn prompts_in_quick_succession_are_counted_though_not_all_are_looked_at() {
        let mut drive = Drive::new(TERMS);
        for session in 1..101 {
            let blocks = prompt(1, 70, session);
            let now = drive.now + session * SAMPLE_NS / 10;
            drive
                .heat
                .count(&blocks, 70, Some(session), ReplicaSlot::default(), now);
        }
        let spot = drive.heat.spots[&prompt(1, 70, 1)[63]];
        assert!(spot.heat > 90.0 && spot.heat <= 100.0, "{}", spot.heat);
        assert!(spot.sharers <= 12, "one in ten was looked at");
    }
}
