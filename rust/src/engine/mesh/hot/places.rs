//! Where prompts are compared across balancers, and what a place in a prompt is called there.
//!
//! Chained hashes of blocks are keyed, but by a function that is no cryptographic one, and what
//! peers exchange may be read on its way. So a place is sent as its [`Namer`]'s mark: a
//! pseudo-random function (`SipHash`-2-4) of its chained hash, under a key that only balancers
//! have. Who lacks the key cannot tell from a mark what was hashed, nor find the mark of a prompt
//! of theirs.
//!
//! Only some depths are sent: four per doubling. So a prefix is known up to at least four fifths
//! of its length. A prompt is looked up at few places ([`PLACES`] at most).

use std::hash::Hasher;

use crate::engine::mesh::key::{KEY_BYTES, MeshKey};

/// Depths at which prompts are compared; the last is at 114,688 blocks.
pub const PLACES: usize = 56;
/// Blocks up to the first place; less is not worth a journey.
const FIRST_BLOCKS: u32 = 8;

/// Blocks of a prompt up to a place.
#[must_use]
pub fn blocks_at(place: usize) -> u32 {
    let quarters = 4 + u32::try_from(place % 4).unwrap_or(0);
    (FIRST_BLOCKS / 4 * quarters) << (place / 4)
}

/// How many places the first `blocks` blocks of a prompt reach.
#[must_use]
pub fn places_within(blocks: u32) -> usize {
    let Some(octave) = (blocks / FIRST_BLOCKS).checked_ilog2() else {
        return 0;
    };
    let quarters = blocks / ((FIRST_BLOCKS / 4) << octave);
    let place = octave * 4 + quarters - 4;
    (place as usize + 1).min(PLACES)
}

/// Names places by marks.
#[derive(Debug, Clone, Copy)]
pub struct Namer {
    key: MeshKey,
}

impl Namer {
    /// `key`: bytes that all balancers of a mesh share.
    #[must_use]
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self {
            key: MeshKey::new(key),
        }
    }

    /// Tells keys apart.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.key.tag
    }

    /// The mark of the place that ends with the block of this chained hash.
    #[inline]
    #[must_use]
    pub fn mark(&self, chained: u64) -> u64 {
        let mut hasher = self.key.hasher();
        hasher.write(&chained.to_le_bytes());
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_four_per_doubling_and_found_again_from_their_depth() {
        let depths: Vec<u32> = (0..PLACES).map(blocks_at).collect();
        assert_eq!(depths[..9], [8, 10, 12, 14, 16, 20, 24, 28, 32]);
        assert_eq!(depths[PLACES - 1], 114_688);
        for blocks in 0..20_000 {
            let within = depths.iter().filter(|depth| **depth <= blocks).count();
            assert_eq!(places_within(blocks), within, "{blocks}");
        }
        assert_eq!(places_within(u32::MAX), PLACES);
    }

    #[test]
    fn marks_are_those_of_the_published_function() {
        // The reference implementation's vector of 8 bytes (vectors_sip64[8]).
        let mut key = [0; KEY_BYTES];
        for (index, byte) in (0..).zip(&mut key) {
            *byte = index;
        }
        let namer = Namer::new(&key);
        let mark = namer.mark(u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(
            mark.to_le_bytes(),
            [0x62, 0x24, 0x93, 0x9a, 0x79, 0xf5, 0xf5, 0x93]
        );
        assert_eq!(namer.tag().to_le_bytes(), [16, 17, 18, 19, 20, 21, 22, 23]);
    }

    #[test]
    fn another_key_gives_other_marks() {
        let (one, other) = (Namer::new(&[1; KEY_BYTES]), Namer::new(&[2; KEY_BYTES]));
        assert!((0..1_000).all(|chained| one.mark(chained) != other.mark(chained)));
        assert_eq!(format!("{one:?}"), "Namer { key: MeshKey(..) }");
    }
}
