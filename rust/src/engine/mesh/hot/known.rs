//! What peers have reported of the prefixes that are hot there.
//!
//! A digest counts until the peer's next one, until it is too old, or until the peer is forgotten.
//! One table holds all peers' prefixes by mark. So a prompt is looked up once per place, however
//! many peers there are. It is looked up only where some peer has reported a prefix.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::digest::{DigestError, PeerDigest, Prefix};
use super::places::{Namer, PLACES, blocks_at, places_within};
use crate::id::PeerSlot;
use crate::time::{Instant, Span};

/// Peers whose digests are kept: one bit each.
const SLOTS_MAX: usize = u64::BITS as usize;

/// One peer's digest.
#[derive(Debug)]
struct Report {
    slot: PeerSlot,
    /// Start of the sender, and number of the digest.
    number: (u64, u64),
    at_ns: Instant,
    prefixes: Vec<Prefix>,
}

/// All peers' digests.
#[derive(Debug)]
pub struct Known {
    namer: Namer,
    age_max_ns: Span,
    /// Who has reported a prefix, as bits by slot.
    marks: HashMap<u64, u64, FixedState>,
    /// How many prefixes end at each place, a prefix of two peers counted twice.
    counts: [u32; PLACES],
    reports: Vec<Report>,
}

impl Known {
    /// Nothing is known yet; digests count for `age_max_ns`.
    #[must_use]
    pub fn new(namer: Namer, age_max_ns: Span) -> Self {
        Self {
            namer,
            age_max_ns,
            marks: HashMap::with_hasher(FixedState::default()),
            counts: [0; PLACES],
            reports: Vec::new(),
        }
    }

    /// Takes a peer's digest over, in the place of its last one.
    ///
    /// # Errors
    ///
    /// It is named by another key, or not newer than the last: nothing happened.
    pub fn merge(
        &mut self,
        slot: PeerSlot,
        digest: PeerDigest,
        now: Instant,
    ) -> Result<(), DigestError> {
        if digest.tag != self.namer.tag() {
            return Err(DigestError::Key);
        }
        let number = (digest.incarnation, digest.sequence);
        if self.number(slot).is_some_and(|last| number <= last) {
            return Err(DigestError::Old);
        }
        self.forget(slot);
        if slot.index() >= SLOTS_MAX {
            return Ok(()); // slots so high are used only while many peers that left are not over
        }
        for prefix in &digest.prefixes {
            *self.marks.entry(prefix.mark).or_insert(0) |= 1 << slot.number();
            self.counts[usize::from(prefix.place)] += 1;
        }
        self.reports.push(Report {
            slot,
            number,
            at_ns: now,
            prefixes: digest.prefixes,
        });
        Ok(())
    }

    /// The peer is gone, or another by now: what it reported does not count any more.
    pub fn forget(&mut self, slot: PeerSlot) {
        let Some(index) = self.reports.iter().position(|report| report.slot == slot) else {
            return;
        };
        let report = self.reports.swap_remove(index);
        for prefix in &report.prefixes {
            self.counts[usize::from(prefix.place)] -= 1;
            if let Some(slots) = self.marks.get_mut(&prefix.mark) {
                *slots &= !(1 << slot.number());
                if *slots == 0 {
                    self.marks.remove(&prefix.mark);
                }
            }
        }
        if self.reports.is_empty() {
            self.marks.shrink_to_fit();
        }
    }

    /// The peer has started anew: what it reported before does not count any more.
    pub fn restarted(&mut self, slot: PeerSlot, incarnation: u64) {
        if self.number(slot).is_some_and(|last| last.0 < incarnation) {
            self.forget(slot);
        }
    }

    /// Calls `found` with each of the wanted peers (bits by slot) that has reported a prefix of the
    /// prompt, and the blocks of the longest.
    pub fn find(
        &self,
        blocks: &[u64],
        wanted: u64,
        now: Instant,
        mut found: impl FnMut(PeerSlot, u32),
    ) {
        let fresh = self
            .reports
            .iter()
            .filter(|report| self.counts_at(report, now));
        let mut wanted = fresh.fold(0, |slots, report| slots | 1 << report.slot.number()) & wanted;
        let reach = places_within(u32::try_from(blocks.len()).unwrap_or(u32::MAX));
        for place in (0..reach).rev() {
            if wanted == 0 {
                return;
            }
            let depth = blocks_at(place);
            if self.counts[place] == 0 {
                continue;
            }
            let mark = self.namer.mark(blocks[depth as usize - 1]);
            let mut here = self.marks.get(&mark).copied().unwrap_or(0) & wanted;
            wanted &= !here;
            while here != 0 {
                found(here.trailing_zeros().into(), depth);
                here &= here - 1;
            }
        }
    }

    fn counts_at(&self, report: &Report, now: Instant) -> bool {
        now - report.at_ns <= self.age_max_ns
    }

    fn of(&self, slot: PeerSlot) -> Option<&Report> {
        self.reports.iter().find(|report| report.slot == slot)
    }

    fn number(&self, slot: PeerSlot) -> Option<(u64, u64)> {
        Some(self.of(slot)?.number)
    }

    /// Prefixes that a peer has reported, and how long ago; `None` where nothing of it counts.
    #[must_use]
    pub fn reported(&self, slot: PeerSlot, now: Instant) -> Option<(usize, Span)> {
        let report = self.of(slot).filter(|report| self.counts_at(report, now))?;
        Some((report.prefixes.len(), now - report.at_ns))
    }

    /// Memory in use, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let prefixes = self.reports.iter().map(|report| report.prefixes.capacity());
        self.marks.allocation_size()
            + prefixes.sum::<usize>() * size_of::<Prefix>()
            + self.reports.capacity() * size_of::<Report>()
    }

    /// Checks that table, counts and digests agree.
    ///
    /// # Errors
    ///
    /// The name of the broken invariant.
    pub fn check_invariants(&self) -> Result<(), String> {
        let mut marks: HashMap<u64, u64, FixedState> = HashMap::with_hasher(FixedState::default());
        let mut counts = [0; PLACES];
        for report in &self.reports {
            for prefix in &report.prefixes {
                *marks.entry(prefix.mark).or_insert(0) |= 1 << report.slot.number();
                counts[usize::from(prefix.place)] += 1;
            }
        }
        if marks == self.marks && counts == self.counts {
            Ok(())
        } else {
            Err("reported_prefixes_agree".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::mesh::key::KEY_BYTES;

    const AGE_NS: Span = Span::from_ns(1_000);

    fn known() -> Known {
        Known::new(Namer::new(&[7; KEY_BYTES]), AGE_NS)
    }

    /// The digest of prompts' first blocks, up to the place of each.
    fn digest(known: &Known, number: (u64, u64), prompts: &[(u64, usize)]) -> PeerDigest {
        let prefixes = prompts.iter().map(|(prompt, place)| Prefix {
            mark: known
                .namer
                .mark(blocks(*prompt)[blocks_at(*place) as usize - 1]),
            place: u8::try_from(*place).unwrap(),
        });
        let mut prefixes: Vec<_> = prefixes.collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        PeerDigest {
            tag: known.namer.tag(),
            block_bytes: 64,
            incarnation: number.0,
            sequence: number.1,
            prefixes,
        }
    }

    /// 40 chained hashes of a prompt; the first 12 of all are the same.
    fn blocks(prompt: u64) -> Vec<u64> {
        let own = |block| {
            if block < 12 {
                block
            } else {
                prompt * 1_000 + block
            }
        };
        (0..40).map(own).collect()
    }

    fn found(known: &Known, prompt: u64, wanted: u64, now: Instant) -> Vec<(u32, u32)> {
        let mut all = Vec::new();
        known.find(&blocks(prompt), wanted, now, |slot, depth| {
            all.push((slot.number(), depth));
        });
        all
    }

    #[test]
    fn each_peer_is_found_by_the_longest_prefix_that_it_has_told() {
        let mut known = known();
        let both = digest(&known, (1, 1), &[(5, 8), (5, 2)]);
        known.merge(3.into(), both, Instant::ZERO).unwrap();
        let short = digest(&known, (1, 1), &[(9, 2)]);
        known.merge(4.into(), short, Instant::ZERO).unwrap();
        assert_eq!(
            found(&known, 5, u64::MAX, Instant::ZERO),
            [(3, 32), (4, 12)]
        );
        assert_eq!(
            found(&known, 6, u64::MAX, Instant::ZERO),
            [(3, 12), (4, 12)]
        );
        assert_eq!(
            found(&known, 5, 1 << 4, Instant::ZERO),
            [(4, 12)],
            "the other is not wanted"
        );
        assert_eq!(
            known.reported(3.into(), Instant::from_ns(10)),
            Some((2, Span::from_ns(10)))
        );
        assert_eq!(known.reported(5.into(), Instant::from_ns(10)), None);
    }

    #[test]
    fn what_is_too_old_or_of_a_peer_that_is_gone_or_new_does_not_count() {
        let mut known = known();
        known
            .merge(0.into(), digest(&known, (2, 1), &[(5, 8)]), Instant::ZERO)
            .unwrap();
        assert_eq!(found(&known, 5, 1, Instant::ZERO + AGE_NS), [(0, 32)]);
        assert_eq!(
            found(&known, 5, 1, Instant::ZERO + AGE_NS + Span::from_ns(1)),
            []
        );
        known.restarted(0.into(), 2);
        assert_eq!(found(&known, 5, 1, Instant::ZERO), [(0, 32)]);
        known.restarted(0.into(), 3);
        assert_eq!(found(&known, 5, 1, Instant::ZERO), []);
        known
            .merge(0.into(), digest(&known, (3, 1), &[(5, 8)]), Instant::ZERO)
            .unwrap();
        known.forget(0.into());
        assert_eq!(found(&known, 5, 1, Instant::ZERO), []);
        known.check_invariants().unwrap();
    }

    #[test]
    fn another_key_and_what_is_not_newer_are_refused_and_change_nothing() {
        let mut known = known();
        known
            .merge(0.into(), digest(&known, (2, 5), &[(5, 8)]), Instant::ZERO)
            .unwrap();
        let other = PeerDigest {
            tag: 1,
            ..digest(&known, (2, 6), &[])
        };
        assert_eq!(
            known.merge(0.into(), other, Instant::ZERO),
            Err(DigestError::Key)
        );
        for number in [(2, 5), (2, 4), (1, 9)] {
            let old = digest(&known, number, &[]);
            assert_eq!(
                known.merge(0.into(), old, Instant::ZERO),
                Err(DigestError::Old)
            );
        }
        assert_eq!(found(&known, 5, 1, Instant::ZERO), [(0, 32)]);
        known
            .merge(0.into(), digest(&known, (2, 6), &[]), Instant::ZERO)
            .unwrap();
        assert_eq!(
            found(&known, 5, 1, Instant::ZERO),
            [],
            "the new one replaces the old"
        );
    }

    /// Digests as they came, asked one by one.
    type Oracle = Vec<Option<Vec<(u64, usize)>>>;

    fn oracle(told: &Oracle, prompt: u64) -> Vec<(u32, u32)> {
        let of = |prefixes: &Vec<(u64, usize)>| {
            let fit = prefixes
                .iter()
                .filter(|(other, place)| *other == prompt || blocks_at(*place) <= 12);
            fit.map(|(_, place)| blocks_at(*place)).max()
        };
        let slots = (0..).zip(told);
        slots
            .filter_map(|(slot, told)| Some((slot, told.as_ref().and_then(of)?)))
            .collect()
    }

    proptest! {
        #[test]
        fn finding_agrees_with_asking_every_digest(
            steps in prop::collection::vec(
                (0..6_u32, prop::option::of(prop::collection::vec((0..4_u64, 0..9_usize), 0..12))),
                0..30,
            ),
        ) {
            let mut known = known();
            let mut told: Oracle = vec![None; 6];
            for (sequence, (slot, prefixes)) in (1..).zip(steps) {
                match &prefixes {
                    Some(prefixes) => known.merge(slot.into(), digest(&known, (1, sequence), prefixes), Instant::ZERO).unwrap(),
                    None => known.forget(slot.into()),
                }
                told[slot as usize] = prefixes;
                known.check_invariants().unwrap();
            }
            for prompt in 0..4 {
                let mut all = found(&known, prompt, u64::MAX, Instant::ZERO);
                all.sort_unstable();
                prop_assert_eq!(all, oracle(&told, prompt));
            }
        }
    }
}
