//! Consistent-hash ring with virtual nodes and bounded load.
//!
//! A key belongs to the first virtual node clockwise of it. [`Ring::walk`] goes on from there, so that a
//! policy can pass over owners. It passes over those that are not available (SkyLB-CH; the SkyLB paper,
//! arXiv:2505.24095), and those loaded over [`load_bound`].

use std::iter::Chain;
use std::slice::Iter;

use smallvec::SmallVec;

use crate::id::ReplicaId;

/// Weight of an ordinary replica: it gets the ring's `vnodes` virtual nodes.
pub const WEIGHT_ONE: u32 = 1_000;

/// The most virtual nodes one replica gets, whatever its weight.
pub const REPLICA_VNODES_MAX: u32 = 65_536;

/// A virtual node: its position, its replica, and the replica's place among the members.
type Point = (u64, ReplicaId, u32);

/// The ring: virtual nodes in the order of their hashes.
#[derive(Debug, Clone)]
pub struct Ring {
    vnodes: u32,
    /// `(position, index into members)`, sorted. Equal positions are ordered by replica id, so the
    /// ring does not depend on the order of joining.
    points: Vec<Point>,
    members: Vec<Option<ReplicaId>>,
}

impl Ring {
    /// An empty ring whose ordinary replicas get `vnodes` virtual nodes each (at least one).
    #[must_use]
    pub fn new(vnodes: u32) -> Self {
        Self {
            vnodes: vnodes.max(1),
            points: Vec::new(),
            members: Vec::new(),
        }
    }

    /// Adds a replica with `weight` thousandths of an ordinary one's share, at least one virtual
    /// node and at most [`REPLICA_VNODES_MAX`]. A replica that is there already changes its weight:
    /// more weight only takes keys from others, less only gives keys up.
    pub fn add(&mut self, replica: ReplicaId, weight: u32) {
        self.add_all([(replica, weight)]);
    }

    /// Adds many replicas with their weights, sorting once: a thousand of them one by one took a
    /// second.
    pub fn add_all(&mut self, replicas: impl IntoIterator<Item = (ReplicaId, u32)>) {
        for (replica, weight) in replicas {
            if self.members.contains(&Some(replica)) {
                self.remove(replica);
            }
            self.join(replica, weight);
        }
        self.points.sort_unstable();
    }

    /// Adds a replica's points, out of order.
    fn join(&mut self, replica: ReplicaId, weight: u32) {
        let free = self.members.iter().position(Option::is_none);
        let member = free.unwrap_or_else(|| {
            self.members.push(None);
            self.members.len() - 1
        });
        self.members[member] = Some(replica);
        let count = u64::from(self.vnodes) * u64::from(weight) / u64::from(WEIGHT_ONE);
        let member = u32::try_from(member).unwrap_or(u32::MAX);
        let indices = 0..count.clamp(1, u64::from(REPLICA_VNODES_MAX));
        let points = indices.map(|index| (position(replica, index), replica, member));
        self.points.extend(points);
    }

    /// Takes a replica off the ring; its keys go to the next ones clockwise.
    pub fn remove(&mut self, replica: ReplicaId) {
        self.points.retain(|&(_, owner, _)| owner != replica);
        for member in &mut self.members {
            if *member == Some(replica) {
                *member = None;
            }
        }
    }

    /// Takes all replicas off the ring.
    pub fn clear(&mut self) {
        (self.points, self.members) = (Vec::new(), Vec::new());
    }

    /// Replicas on the ring.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.iter().flatten().count()
    }

    /// No replica is on the ring.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The distinct replicas clockwise from `key`, each once; allocates only over 512 replicas.
    #[must_use]
    pub fn walk(&self, key: u64) -> Walk<'_> {
        let key = scatter(key);
        let at = self
            .points
            .partition_point(|&(position, ..)| position < key);
        let (before, after) = self.points.split_at(at);
        Walk {
            points: after.iter().chain(before.iter()),
            seen: SmallVec::from_elem(0, self.members.len().div_ceil(64)),
            left: self.len(),
        }
    }
}

/// Iterator of [`Ring::walk`].
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    points: Chain<Iter<'a, Point>, Iter<'a, Point>>,
    /// One bit per member.
    seen: SmallVec<[u64; 8]>,
    left: usize,
}

impl Iterator for Walk<'_> {
    type Item = ReplicaId;

    fn next(&mut self) -> Option<ReplicaId> {
        if self.left == 0 {
            return None;
        }
        for &(_, replica, member) in self.points.by_ref() {
            let bit = 1_u64 << (member % 64);
            let word = &mut self.seen[member as usize / 64];
            if *word & bit == 0 {
                *word |= bit;
                self.left -= 1;
                return Some(replica);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Walk<'_> {}

/// The load at which a walk passes over a replica: `ceil(factor x (total + 1) / replicas)`, where
/// `total` is the load of all of them without the request to be placed (consistent hashing with
/// bounded loads, Mirrokni et al., arXiv:1608.01350). With `factor` > 1 some replica is always
/// below it.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of requests are far below 2^52, and the quotient is positive"
)]
pub fn load_bound(total: u64, replicas: usize, factor: f64) -> u64 {
    let share = (total + 1) as f64 / replicas.max(1) as f64;
    (factor * share).ceil() as u64
}

/// Where a replica's `index`-th virtual node lies: a function of the two alone.
fn position(replica: ReplicaId, index: u64) -> u64 {
    scatter(scatter(u64::from(replica.0)) ^ index)
}

/// `SplitMix64`'s finaliser over an odd step: a bijection, so distinct keys stay distinct.
fn scatter(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYS: u64 = 4_000;

    fn ring_of(replicas: impl IntoIterator<Item = u32>, vnodes: u32) -> Ring {
        let mut ring = Ring::new(vnodes);
        for replica in replicas {
            ring.add(ReplicaId(replica), WEIGHT_ONE);
        }
        ring
    }

    fn owners(ring: &Ring) -> Vec<Option<ReplicaId>> {
        (0..KEYS).map(|key| ring.walk(key).next()).collect()
    }

    #[test]
    fn an_empty_ring_walks_nowhere() {
        assert_eq!(Ring::new(64).walk(1).count(), 0);
        assert!(Ring::new(64).is_empty());
    }

    #[test]
    fn shares_of_equal_replicas_stay_near_the_mean() {
        let ring = ring_of(0..8, 256);
        let mut shares = [0_u64; 8];
        for key in 0..80_000 {
            shares[ring.walk(key).next().unwrap().0 as usize] += 1;
        }
        for share in shares {
            assert!((7_500..=12_500).contains(&share), "{shares:?}");
        }
    }

    #[test]
    fn half_the_weight_gets_about_half_the_keys() {
        let mut ring = ring_of(0..4, 256);
        ring.add(ReplicaId(3), WEIGHT_ONE / 2);
        let light = (0..70_000)
            .filter(|&key| ring.walk(key).next() == Some(ReplicaId(3)))
            .count();
        assert!((7_500..=12_500).contains(&light), "{light}");
    }

    #[test]
    fn some_replica_is_always_below_the_load_bound() {
        for replicas in 1..20_usize {
            for total in 0..200_u64 {
                let bound = load_bound(total, replicas, 1.01);
                let least = total / replicas as u64;
                assert!(least < bound, "{replicas} replicas, {total} in flight");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn adding_a_replica_moves_keys_to_it_only(present in prop::collection::btree_set(0_u32..1_000, 1..12), new in 1_000_u32..2_000) {
            let mut ring = ring_of(present, 64);
            let before = owners(&ring);
            ring.add(ReplicaId(new), WEIGHT_ONE);
            for (was, is) in before.iter().zip(owners(&ring)) {
                prop_assert!(*was == is || is == Some(ReplicaId(new)));
            }
        }

        #[test]
        fn removing_a_replica_moves_its_keys_only_and_to_its_next(present in prop::collection::btree_set(0_u32..1_000, 2..12), pick in any::<prop::sample::Index>()) {
            let present: Vec<u32> = present.into_iter().collect();
            let gone = ReplicaId(present[pick.index(present.len())]);
            let mut ring = ring_of(present, 64);
            let before: Vec<Vec<ReplicaId>> = (0..KEYS).map(|key| ring.walk(key).take(2).collect()).collect();
            ring.remove(gone);
            for (was, is) in before.iter().zip(owners(&ring)) {
                let expected = if was[0] == gone { was[1] } else { was[0] };
                prop_assert_eq!(is, Some(expected));
            }
        }

        #[test]
        fn a_walk_visits_every_replica_once(present in prop::collection::btree_set(any::<u32>(), 0..40), key: u64) {
            let ring = ring_of(present.iter().copied(), 16);
            let walked: Vec<u32> = ring.walk(key).map(|replica| replica.0).collect();
            let mut sorted = walked.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, present.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(ring.walk(key).len(), walked.len());
        }

        #[test]
        fn the_ring_does_not_depend_on_the_order_of_joining(present in prop::collection::btree_set(0_u32..1_000, 1..10), leaver in 1_000_u32..2_000) {
            let forward = ring_of(present.iter().copied(), 32);
            let mut backward = ring_of(std::iter::once(leaver).chain(present.iter().rev().copied()), 32);
            backward.remove(ReplicaId(leaver));
            prop_assert_eq!(owners(&forward), owners(&backward));
        }

        #[test]
        fn more_weight_only_takes_keys(weight in 100_u32..3_000, more in 0_u32..3_000) {
            let mut ring = ring_of(0..5, 64);
            ring.add(ReplicaId(2), weight);
            let before = owners(&ring);
            ring.add(ReplicaId(2), weight + more);
            for (was, is) in before.iter().zip(owners(&ring)) {
                prop_assert!(*was == is || is == Some(ReplicaId(2)));
            }
        }
    }
}
