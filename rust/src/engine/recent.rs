//! Which replica an id belongs to: a bounded memory of recently used ids, of responses or of sessions.

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::engine::generations::Generations;
use crate::id::ReplicaId;

/// Ids and their replicas. Ids are kept as keyed hashes of 128 bits: 24 bytes
/// each, whatever a replica sends.
#[derive(Debug)]
pub(in crate::engine) struct Recent {
    replicas: Generations<u128, ReplicaId>,
    seed: u64,
}

impl Recent {
    pub(in crate::engine) fn new(len_max: usize, seed: u64) -> Self {
        Self {
            replicas: Generations::new(len_max),
            seed,
        }
    }

    /// Remembers that `id` belongs to `replica`.
    pub(in crate::engine) fn note(&mut self, id: &[u8], replica: ReplicaId) {
        self.note_of(0, id, replica);
    }

    /// The replica that `id` belongs to, if it is remembered.
    pub(in crate::engine) fn find(&mut self, id: &[u8]) -> Option<ReplicaId> {
        self.find_of(0, id)
    }

    /// As [`Self::note`], for one of several who may use the same ids.
    pub(in crate::engine) fn note_of(&mut self, keeper: u64, id: &[u8], replica: ReplicaId) {
        let hash = xxh3_128_with_seed(id, self.seed ^ keeper);
        self.replicas.put(hash, replica);
    }

    /// As [`Self::find`], for one of several.
    pub(in crate::engine) fn find_of(&mut self, keeper: u64, id: &[u8]) -> Option<ReplicaId> {
        self.replicas
            .find(xxh3_128_with_seed(id, self.seed ^ keeper))
    }

    /// The replica that `id` of one of several belongs to; not a use.
    pub(in crate::engine) fn look_up(&self, keeper: u64, id: &[u8]) -> Option<ReplicaId> {
        self.replicas
            .get(xxh3_128_with_seed(id, self.seed ^ keeper))
    }

    /// A memory of its own that knows this id alone, if it is known.
    pub(in crate::engine) fn only(&self, id: Option<&[u8; 8]>) -> Self {
        let mut only = Self::new(2, self.seed);
        if let Some(id) = id
            && let Some(replica) = self.look_up(0, id)
        {
            only.note(id, replica);
        }
        only
    }

    /// All of them by the hashes of their ids, those used longest ago first.
    pub(in crate::engine) fn entries(&self) -> impl Iterator<Item = (u128, ReplicaId)> {
        self.replicas.entries()
    }

    /// Takes over what another memory with the same seed has remembered.
    pub(in crate::engine) fn put(&mut self, hash: u128, replica: ReplicaId) {
        self.replicas.put(hash, replica);
    }

    /// Ids remembered.
    pub(in crate::engine) fn len(&self) -> usize {
        self.replicas.len()
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
