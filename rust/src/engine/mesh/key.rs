//! A key that all balancers of a mesh share, and that hashes what they tell each other.

use std::fmt;

use siphasher::sip::SipHasher24;

/// Bytes of a key: 16 that hash, and 8 that tell the key.
pub const KEY_BYTES: usize = 24;

/// A key of the pseudo-random function `SipHash`-2-4.
#[derive(Clone, Copy)]
pub struct MeshKey {
    words: (u64, u64),
    /// Tells keys apart; says nothing about the rest of the key.
    pub tag: u64,
}

impl MeshKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut words = bytes.as_chunks::<8>().0.iter().copied();
        let mut word = || u64::from_le_bytes(words.next().unwrap_or_default());
        Self {
            words: (word(), word()),
            tag: word(),
        }
    }

    /// A hasher under the key.
    #[inline]
    #[must_use]
    pub fn hasher(self) -> SipHasher24 {
        SipHasher24::new_with_keys(self.words.0, self.words.1)
    }
}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshKey(..)")
    }
}
