//! Which replica made a response: a bounded memory of recently used ids.

use std::mem;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::engine::id::ReplicaId;

/// Ids of `/v1/responses` and their replicas, at most `len_max` of them.
///
/// Two generations stand for an exact least-recently-used order: what is noted or found goes to the
/// young one; when that is half the bound, the old one is dropped and the young one takes its place.
/// So the `len_max / 2` most recently used ids are always known. Ids are kept as keyed hashes of
/// 128 bits: 24 bytes each, whatever a replica sends.
#[derive(Debug)]
pub(super) struct Recent {
    young: HashMap<u128, ReplicaId, FixedState>,
    old: HashMap<u128, ReplicaId, FixedState>,
    half: usize,
    seed: u64,
}

impl Recent {
    pub(super) fn new(len_max: usize, seed: u64) -> Self {
        Self {
            young: HashMap::with_hasher(FixedState::default()),
            old: HashMap::with_hasher(FixedState::default()),
            half: len_max.div_ceil(2),
            seed,
        }
    }

    /// Remembers that `replica` made the response `id`.
    pub(super) fn note(&mut self, id: &[u8], replica: ReplicaId) {
        self.put(xxh3_128_with_seed(id, self.seed), replica);
    }

    /// The replica that made the response `id`, if it is remembered.
    pub(super) fn find(&mut self, id: &[u8]) -> Option<ReplicaId> {
        let key = xxh3_128_with_seed(id, self.seed);
        if let Some(replica) = self.young.get(&key) {
            return Some(*replica);
        }
        let replica = *self.old.get(&key)?;
        self.put(key, replica);
        Some(replica)
    }

    /// Ids remembered.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn put(&mut self, key: u128, replica: ReplicaId) {
        self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, replica);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recently_used_half_is_always_known_and_the_bound_is_never_passed() {
        let mut recent = Recent::new(100, 7);
        for n in 0..1_000_u32 {
            recent.note(format!("resp_{n}").as_bytes(), ReplicaId(n));
            assert_eq!(
                recent.find(b"resp_0"),
                Some(ReplicaId(0)),
                "it is used all the time"
            );
            assert!(recent.len() <= 100, "{}", recent.len());
            for younger in n.saturating_sub(40)..=n {
                let id = format!("resp_{younger}");
                assert_eq!(recent.find(id.as_bytes()), Some(ReplicaId(younger)));
            }
        }
        assert_eq!(recent.find(b"resp_1"), None);
    }

    #[test]
    fn an_id_made_again_belongs_to_its_last_replica() {
        let mut recent = Recent::new(4, 7);
        recent.note(b"a", ReplicaId(1));
        recent.note(b"b", ReplicaId(1));
        recent.note(b"c", ReplicaId(1));
        recent.note(b"a", ReplicaId(2));
        assert_eq!(recent.find(b"a"), Some(ReplicaId(2)));
        assert_eq!(recent.len(), 3);
    }
}
