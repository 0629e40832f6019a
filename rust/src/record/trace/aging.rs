//! A bounded memory that forgets what was not used for long.

use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

type Map<V> = HashMap<u64, V, Xxh3DefaultBuilder>;

/// Values by hash, in two generations. A value that is used is young. When `max` are young, all older ones are
/// forgotten, and the young ones are the older ones from then on.
#[derive(Debug)]
pub(super) struct Aging<V> {
    young: Map<V>,
    old: Map<V>,
    max: usize,
    forgotten: u64,
}

impl<V: Copy> Aging<V> {
    /// An empty one.
    pub(super) fn new(max: usize) -> Self {
        Self {
            young: Map::default(),
            old: Map::default(),
            max: max.max(1),
            forgotten: 0,
        }
    }

    /// The value of a hash, which is young from now on.
    pub(super) fn get(&mut self, hash: u64) -> Option<V> {
        if let Some(value) = self.young.get(&hash) {
            return Some(*value);
        }
        let value = self.old.remove(&hash)?;
        self.put(hash, value);
        Some(value)
    }

    /// Sets the value of a hash.
    pub(super) fn put(&mut self, hash: u64, value: V) {
        if self.young.len() >= self.max {
            let older = std::mem::take(&mut self.young);
            let oldest = std::mem::replace(&mut self.old, older);
            self.forgotten += oldest.len() as u64;
        }
        self.old.remove(&hash);
        self.young.insert(hash, value);
    }

    /// Values that were forgotten.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_is_forgotten_and_counted() {
        let mut memory = Aging::new(4);
        for hash in 0..100 {
            memory.put(hash, hash);
            assert_eq!(memory.get(0), Some(0), "used all the time");
            assert!(memory.young.len() + memory.old.len() <= 8);
        }
        assert_eq!(memory.get(50), None);
        assert_eq!(memory.get(99), Some(99));
        let kept = (memory.young.len() + memory.old.len()) as u64;
        assert_eq!(memory.forgotten() + kept, 100);
    }
}
