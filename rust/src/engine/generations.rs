//! A map with a maximum of entries. When it is full, it drops entries that have not been used for long.

use std::hash::Hash;
use std::mem;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// At most `len_max` entries.
///
/// Two generations stand for an exact least-recently-used order: what is put or found goes to the
/// young one; when that is half the bound, the old one is dropped and the young one takes its place.
/// So the `len_max / 2` most recently used entries are always there.
#[derive(Debug)]
pub(in crate::engine) struct Generations<K, V> {
    young: HashMap<K, V, FixedState>,
    old: HashMap<K, V, FixedState>,
    half: usize,
}

impl<K: Copy + Eq + Hash, V: Copy> Generations<K, V> {
    pub(in crate::engine) fn new(len_max: usize) -> Self {
        Self {
            young: HashMap::with_hasher(FixedState::default()),
            old: HashMap::with_hasher(FixedState::default()),
            half: len_max.div_ceil(2),
        }
    }

    /// Changes the bound. Where there are more entries, all are dropped.
    pub(in crate::engine) fn set_len_max(&mut self, len_max: usize) {
        self.half = len_max.div_ceil(2);
        if self.len() > len_max {
            (self.young, self.old) = (HashMap::default(), HashMap::default());
        }
    }

    /// An entry's value; not a use.
    pub(in crate::engine) fn get(&self, key: K) -> Option<V> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    /// An entry's value, used now.
    pub(in crate::engine) fn find(&mut self, key: K) -> Option<V> {
        if let Some(value) = self.young.get(&key) {
            return Some(*value);
        }
        let value = *self.old.get(&key)?;
        self.put(key, value);
        Some(value)
    }

    pub(in crate::engine) fn put(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// All entries: first those that may be dropped next.
    pub(in crate::engine) fn entries(&self) -> impl Iterator<Item = (K, V)> {
        let all = self.old.iter().chain(&self.young);
        all.map(|(key, value)| (*key, *value))
    }

    pub(in crate::engine) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
