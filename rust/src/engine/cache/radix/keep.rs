//! What a tree leaves to another one: runs of blocks, and who holds how much of each since when.
//!
//! A tree is written in slices, between which it may change. So a run names the run above by the last hash
//! there, not by a number. A run whose run above is missing is left out when it is read. Written is what was
//! used last. Who uses a run also uses those above, so these are never left out before it.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::slab::number;
use super::{NIL, Radix, WALK_NODES_MAX};

/// Blocks walked while paths are inserted, at most: a path counts whole each time.
pub(in crate::engine) const REPLAY_BLOCKS_MAX: usize = 1 << 27;

/// Bytes of a run beside its hashes and holders, and of each holder.
const RUN_BYTES: usize = 12;
const HOLDER_BYTES: usize = 8;

/// Parts of an octave of ages that are told apart.
const PARTS: u32 = 16;
const BUCKETS: usize = 33 * PARTS as usize;

/// How many bytes the runs take that were used so many operations ago.
#[derive(Debug)]
pub(in crate::engine) struct Ages(Vec<u64>);

impl Ages {
    pub(in crate::engine) fn new() -> Self {
        Self(vec![0; BUCKETS])
    }

    /// The largest age of which, and of all below, everything fits.
    pub(in crate::engine) fn youngest(&self, bytes_max: u64) -> u32 {
        let mut sum = 0_u64;
        for (bucket, bytes) in self.0.iter().enumerate() {
            sum = sum.saturating_add(*bytes);
            if sum > bytes_max {
                return bucket.checked_sub(1).map_or(0, last_of);
            }
        }
        u32::MAX
    }
}

fn bucket_of(age: u32) -> usize {
    if age < PARTS {
        return age as usize;
    }
    let octave = age.ilog2();
    let part = (age >> (octave - 4)) & (PARTS - 1);
    ((octave - 3) * PARTS + part) as usize
}

/// The largest age in a bucket.
fn last_of(bucket: usize) -> u32 {
    let bucket = number(bucket);
    if bucket < PARTS {
        return bucket;
    }
    let (octave, part) = (bucket / PARTS + 3, bucket % PARTS);
    let next = u64::from(PARTS + part + 1) << (octave - 4);
    u32::try_from(next - 1).unwrap_or(u32::MAX)
}

/// Which nodes are written: from one on, those that were used within so many operations.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Slice {
    /// The first node.
    pub(in crate::engine) from: u32,
    /// Nodes that are looked at, at most.
    pub(in crate::engine) nodes_max: u32,
    /// Bytes after which no further node begins.
    pub(in crate::engine) bytes_max: usize,
    /// The tree's clock when the writing began.
    pub(in crate::engine) clock: u64,
    /// Nodes that were used longer ago are left out.
    pub(in crate::engine) age_max: u32,
}

impl Radix {
    /// Operations so far.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// The number behind the last node's.
    pub(in crate::engine) fn nodes_end(&self) -> u32 {
        self.nodes.end()
    }

    /// How many operations before `clock` a mark was used; 0 also for one in flight, or used since.
    fn age(&self, mark: u32, clock: u64) -> u32 {
        let mark = &self.marks[mark];
        let used = super::owner::used_at(mark.stamp, self.clock);
        if mark.pins > 0 {
            return 0;
        }
        u32::try_from(clock.saturating_sub(used)).unwrap_or(u32::MAX)
    }

    fn node_age(&self, node: u32, clock: u64) -> Option<u32> {
        let holders = self.holders_of(node);
        holders.map(|holder| self.age(holder.mark, clock)).min()
    }

    /// Adds up what some nodes take; the node to go on with.
    pub(in crate::engine) fn weigh(&self, slice: Slice, ages: &mut Ages) -> u32 {
        let end = slice.from.saturating_add(slice.nodes_max);
        let end = end.min(self.nodes.end());
        for node in (slice.from..end).filter(|node| self.nodes.has(*node)) {
            if let Some(age) = self.node_age(node, slice.clock) {
                let bytes = RUN_BYTES
                    + 8 * self.nodes[node].hashes.len()
                    + HOLDER_BYTES * self.holder_count(node);
                ages.0[bucket_of(age)] += bytes as u64;
            }
        }
        end
    }

    /// Writes some nodes; the node to go on with. `place_of`: the number of an owner for the reader.
    pub(in crate::engine) fn write(
        &self,
        slice: Slice,
        place_of: impl Fn(u32) -> Option<u16>,
        out: &mut Vec<u8>,
    ) -> u32 {
        let end = slice.from.saturating_add(slice.nodes_max);
        let end = end.min(self.nodes.end());
        for node in slice.from..end {
            if out.len() >= slice.bytes_max {
                return node;
            }
            let wanted = |age: u32| age <= slice.age_max;
            if self.nodes.has(node) && self.node_age(node, slice.clock).is_some_and(wanted) {
                self.write_node(node, slice.clock, &place_of, out);
            }
        }
        end
    }

    fn write_node(
        &self,
        node: u32,
        clock: u64,
        place_of: &impl Fn(u32) -> Option<u16>,
        out: &mut Vec<u8>,
    ) {
        let found = &self.nodes[node];
        let above = match found.parent {
            NIL => 0,
            parent => *self.nodes[parent].hashes.all().last().unwrap_or(&0),
        };
        let holders = self.holders_of(node).filter_map(|holder| {
            let place = place_of(self.owners[holder.slot].id)?;
            Some((place, holder.len, self.age(holder.mark, clock)))
        });
        let holders: Vec<(u16, u16, u32)> = holders.collect();
        if holders.is_empty() {
            return;
        }
        let hashes = found.hashes.all();
        out.extend_from_slice(&above.to_le_bytes());
        out.extend_from_slice(&short(hashes.len()).to_le_bytes());
        out.extend_from_slice(&short(holders.len()).to_le_bytes());
        for hash in hashes {
            out.extend_from_slice(&hash.to_le_bytes());
        }
        for (place, len, age) in holders {
            out.extend_from_slice(&place.to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&age.to_le_bytes());
        }
    }
}

fn short(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// An owner holds the first blocks of a run.
#[derive(Debug, Clone, Copy)]
struct Holding {
    place: u16,
    len: u16,
    age: u32,
}

#[derive(Debug)]
struct Run {
    above: u64,
    hashes: Vec<u64>,
    holdings: Vec<Holding>,
}

/// Runs that were read, and are to be inserted.
#[derive(Debug, Default)]
pub(in crate::engine) struct Runs {
    runs: Vec<Run>,
    by_end: HashMap<u64, usize, FixedState>,
}

/// Takes fixed-size fields off the front of some bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

impl Runs {
    /// Adds what [`Radix::write`] has written; `None` where it has not.
    pub(in crate::engine) fn read(&mut self, bytes: &[u8]) -> Option<()> {
        let mut fields = Fields(bytes);
        while !fields.0.is_empty() {
            let (above, len, holders) = (fields.u64()?, fields.u16()?, fields.u16()?);
            // Nothing is reserved for more than there is.
            let fits = usize::from(len) * 8 + usize::from(holders) * HOLDER_BYTES;
            if len == 0 || fits > fields.0.len() {
                return None;
            }
            let hashes = (0..len).map(|_| fields.u64());
            let hashes: Vec<u64> = hashes.collect::<Option<_>>()?;
            let holdings = (0..holders).map(|_| {
                let (place, len, age) = (fields.u16()?, fields.u16()?, fields.u32()?);
                Some(Holding { place, len, age })
            });
            let holdings = holdings.collect::<Option<_>>()?;
            if let Some(end) = hashes.last() {
                self.by_end.insert(*end, self.runs.len());
            }
            self.runs.push(Run {
                above,
                hashes,
                holdings,
            });
        }
        Some(())
    }

    fn above(&self, run: &Run) -> Option<usize> {
        self.by_end.get(&run.above).copied()
    }

    /// The ends of paths: age, run and place. A run that was used by the same operation as one below it is
    /// not the end of that operation's path.
    fn ends(&self) -> Vec<(u32, usize, usize)> {
        let mut inner: Vec<Vec<bool>> = self
            .runs
            .iter()
            .map(|run| vec![false; run.holdings.len()])
            .collect();
        for run in &self.runs {
            let Some(above) = self.above(run) else {
                continue;
            };
            for below in &run.holdings {
                let same =
                    |holding: &Holding| (holding.place, holding.age) == (below.place, below.age);
                if let Some(at) = self.runs[above].holdings.iter().position(same) {
                    inner[above][at] = true;
                }
            }
        }
        let mut ends = Vec::new();
        for (number, (run, inner)) in self.runs.iter().zip(&inner).enumerate() {
            let holdings = run.holdings.iter().zip(inner).enumerate();
            let holdings = holdings.filter(|(_, (_, inner))| !**inner);
            ends.extend(holdings.map(|(at, (holding, _))| (holding.age, number, at)));
        }
        ends
    }

    /// The blocks from the first one to the end of what is held of a run; `None` where some are missing.
    fn path(&self, run: usize, len: usize, out: &mut Vec<u64>) -> Option<()> {
        let mut runs = vec![run];
        let mut at = &self.runs[run];
        while at.above != 0 {
            let above = self.above(at).filter(|_| runs.len() < WALK_NODES_MAX)?;
            runs.push(above);
            at = &self.runs[above];
        }
        out.clear();
        for (place, run) in runs.iter().enumerate().rev() {
            let hashes = &self.runs[*run].hashes;
            let len = if place == 0 { len } else { hashes.len() };
            out.extend_from_slice(hashes.get(..len)?);
        }
        Some(())
    }

    /// Inserts all paths, those used longest ago first; how many. `owner_of`: whom a place stands for here.
    pub(in crate::engine) fn insert(
        &self,
        tree: &mut Radix,
        owner_of: impl Fn(u16) -> Option<u32>,
    ) -> u64 {
        let mut ends = self.ends();
        // Of one operation's ends the order does not matter.
        ends.sort_unstable();
        let (mut path, mut walked, mut kept) = (Vec::new(), 0_usize, 0);
        for (_, run, at) in &ends {
            if walked > REPLAY_BLOCKS_MAX {
                break;
            }
            let holding = self.runs[*run].holdings[*at];
            if self
                .path(*run, usize::from(holding.len), &mut path)
                .is_some()
            {
                walked += path.len();
            }
            kept += 1;
        }
        ends.truncate(kept);
        let mut inserted = 0;
        for (_, run, at) in ends.into_iter().rev() {
            let holding = self.runs[run].holdings[at];
            let owner = owner_of(holding.place);
            let found = self.path(run, usize::from(holding.len), &mut path);
            if let Some(owner) = owner.filter(|_| found.is_some() && !path.is_empty())
                && let Some(pin) = tree.insert(owner, &path)
            {
                tree.unpin(pin);
                inserted += 1;
            }
        }
        inserted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Radix, RadixConfig};
    use super::*;

    /// Chained: equal at one place means equal up to there.
    fn chain(words: &[u8]) -> Vec<u64> {
        let mut hash = 7_u64;
        words
            .iter()
            .map(|word| {
                hash = (hash ^ (u64::from(*word) + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                hash
            })
            .collect()
    }

    fn tree() -> Radix {
        Radix::new(RadixConfig {
            bytes_max: 1 << 22,
            capacity_blocks: 60,
        })
    }

    fn written(tree: &Radix, age_max: u32, slice: u32) -> Vec<u8> {
        let (mut from, mut all) = (0, Vec::new());
        while from < tree.nodes_end() {
            let mut out = Vec::new();
            let slice = Slice {
                from,
                nodes_max: slice,
                bytes_max: usize::MAX,
                clock: tree.clock(),
                age_max,
            };
            from = tree.write(slice, |owner| u16::try_from(owner).ok(), &mut out);
            all.extend(out);
        }
        all
    }

    fn matches(tree: &mut Radix, blocks: &[u64]) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        tree.matches(blocks, &mut found);
        found.sort_unstable();
        found
    }

    fn read(bytes: &[u8]) -> Radix {
        let mut runs = Runs::default();
        runs.read(bytes).unwrap();
        let mut copy = tree();
        runs.insert(&mut copy, |place| Some(u32::from(place)));
        copy.check_invariants().unwrap();
        copy
    }

    proptest! {
        /// A copy matches as the tree does, and goes on evicting as it does.
        #[test]
        fn a_copy_matches_and_evicts_as_the_tree_does(
            before in prop::collection::vec((0_u32..3, prop::collection::vec(0_u8..3, 1..12)), 0..60),
            after in prop::collection::vec((0_u32..3, prop::collection::vec(0_u8..3, 1..12)), 0..30),
            slice in 1_u32..9,
        ) {
            let mut tree = tree();
            for (owner, words) in &before {
                if let Some(pin) = tree.insert(*owner, &chain(words)) {
                    tree.unpin(pin);
                }
            }
            let mut copy = read(&written(&tree, u32::MAX, slice));
            for (owner, words) in before.iter().chain(&after) {
                prop_assert_eq!(matches(&mut tree, &chain(words)), matches(&mut copy, &chain(words)));
                if let Some(pin) = tree.insert(*owner, &chain(words)) {
                    tree.unpin(pin);
                }
                if let Some(pin) = copy.insert(*owner, &chain(words)) {
                    copy.unpin(pin);
                }
            }
        }

        /// Whatever the bytes, nothing panics.
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut runs = Runs::default();
            if runs.read(&bytes).is_some() {
                runs.insert(&mut tree(), |place| Some(u32::from(place % 8)));
            }
        }

        #[test]
        fn ages_fall_into_buckets_in_order(age in any::<u32>()) {
            let bucket = bucket_of(age);
            prop_assert!(bucket < BUCKETS && age <= last_of(bucket));
            prop_assert!(bucket == 0 || last_of(bucket - 1) < age);
        }
    }

    #[test]
    fn what_was_used_longest_ago_is_left_out_first() {
        let mut tree = tree();
        for word in 0..20 {
            let pin = tree.insert(0, &chain(&[word, 1])).unwrap();
            tree.unpin(pin);
        }
        let mut ages = Ages::new();
        let slice = Slice {
            from: 0,
            nodes_max: u32::MAX,
            bytes_max: usize::MAX,
            clock: tree.clock(),
            age_max: u32::MAX,
        };
        tree.weigh(slice, &mut ages);
        let run = (RUN_BYTES + HOLDER_BYTES + 16) as u64;
        let age_max = ages.youngest(5 * run);
        let mut copy = read(&written(&tree, age_max, 100));
        let kept: Vec<u8> = (0..20)
            .filter(|word| !matches(&mut copy, &chain(&[*word, 1])).is_empty())
            .collect();
        assert!(!kept.is_empty() && kept.len() <= 5, "{kept:?}");
        let first = 20 - u8::try_from(kept.len()).unwrap();
        assert_eq!(kept, (first..20).collect::<Vec<_>>());
    }
}
