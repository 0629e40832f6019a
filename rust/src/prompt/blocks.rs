//! Prompt bytes to chained, keyed block hashes.
//!
//! A prompt is one contiguous stream of bytes, cut into blocks of a fixed size. Each block is
//! hashed by itself, so that the hashes of many are computed side by side, then folded into the
//! chain. A chained hash stands for its block *and everything before it*. So two prompts whose
//! chained hashes are equal at one place are equal up to there.

use std::fmt;
use std::ops::Deref;

use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64_with_secret, xxh3_64_with_seed};

/// Bytes of an expanded secret: what XXH3 takes by default.
const SECRET_BYTES: usize = 192;

/// The block size that gets a loop of its own: the setting's default.
const COMMON_BLOCK_BYTES: usize = 64;

/// The secret that keys prefix hashes, expanded.
///
/// Without it nobody can construct two prompts that collide, nor tell from a hash what was hashed.
/// XXH3 is no cryptographic function: hashes stay inside the engine and its peers.
#[derive(Clone)]
pub struct BlockKey {
    secret: [u8; SECRET_BYTES],
    /// Odd factor of the chain's mix.
    factor: u64,
    start: u64,
}

impl BlockKey {
    /// Expands `secret` (16 or more bytes of entropy).
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let word = |index: u64| {
            xxh3_64_with_seed(secret, 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index + 1))
        };
        let mut expanded = [0; SECRET_BYTES];
        for (index, bytes) in (0..).zip(expanded.as_chunks_mut::<8>().0) {
            *bytes = word(index).to_le_bytes();
        }
        Self {
            secret: expanded,
            factor: word(SECRET_BYTES as u64) | 1,
            start: word(SECRET_BYTES as u64 + 1),
        }
    }

    /// Hash of some bytes by themselves.
    #[inline]
    #[must_use]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        xxh3_64_with_secret(bytes, &self.secret)
    }

    /// Where every chain starts.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The chain, one hash further. Order matters, and no sum of products can cancel (a polynomial
    /// in the hashes would collide on Thue-Morse sequences of two blocks, whatever the key).
    #[inline]
    #[must_use]
    pub fn chain(&self, before: u64, hash: u64) -> u64 {
        let wide = u128::from(before ^ hash) * u128::from(self.factor);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the two halves of the product"
        )]
        let (low, high) = (wide as u64, (wide >> 64) as u64);
        low ^ high
    }
}

impl fmt::Debug for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlockKey(..)")
    }
}

/// The end of a prompt's stream that did not fill a block.
pub type Tail = SmallVec<[u8; COMMON_BLOCK_BYTES]>;

/// A prompt on its way into blocks. `K` is a reference to the key, counted or not.
#[derive(Debug, Clone)]
pub struct BlockStream<K> {
    key: K,
    block_bytes: usize,
    blocks_max: usize,
    chain: u64,
    bytes: usize,
    partial: Tail,
    blocks: Vec<u64>,
}

impl<K: Deref<Target = BlockKey>> BlockStream<K> {
    /// A stream whose chain goes on from `chain`; at most `blocks_max` blocks are hashed, what
    /// follows is only counted. `expected` blocks are allocated for at once.
    #[must_use]
    pub fn new(key: K, block_bytes: usize, blocks_max: usize, chain: u64, expected: usize) -> Self {
        Self {
            key,
            block_bytes: block_bytes.max(1),
            blocks_max,
            chain,
            bytes: 0,
            partial: Tail::new(),
            blocks: Vec::with_capacity(expected.min(blocks_max)),
        }
    }

    /// A stream that goes on behind another, whose end was `chain` and `tail`. Its blocks are new
    /// ones only.
    #[must_use]
    pub fn behind(key: K, block_bytes: usize, blocks_max: usize, chain: u64, tail: &Tail) -> Self {
        let mut stream = Self::new(key, block_bytes, blocks_max, chain, 0);
        stream.partial.clone_from(tail);
        stream
    }

    /// The hashes so far.
    #[must_use]
    pub fn hashes(&self) -> &[u64] {
        &self.blocks
    }

    /// Whether all blocks that may be hashed have been.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.blocks.len() >= self.blocks_max
    }

    /// Appends to the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        if self.is_full() {
            return;
        }
        let mut rest = bytes;
        if !self.partial.is_empty() {
            let missing = self.block_bytes - self.partial.len();
            let Some((head, after)) = rest.split_at_checked(missing) else {
                self.partial.extend_from_slice(rest);
                return;
            };
            self.partial.extend_from_slice(head);
            rest = after;
            let hash = self.key.hash(&self.partial);
            self.partial.clear();
            self.append(hash);
        }
        let room = self.blocks_max - self.blocks.len();
        if self.block_bytes == COMMON_BLOCK_BYTES {
            let (whole, tail) = rest.as_chunks::<COMMON_BLOCK_BYTES>();
            for block in whole.iter().take(room) {
                self.append(self.key.hash(block));
            }
            rest = tail;
        } else {
            let mut whole = rest.chunks_exact(self.block_bytes);
            for block in whole.by_ref().take(room) {
                self.append(self.key.hash(block));
            }
            rest = whole.remainder();
        }
        self.partial.extend_from_slice(rest);
    }

    #[inline]
    fn append(&mut self, hash: u64) {
        self.chain = self.key.chain(self.chain, hash);
        self.blocks.push(self.chain);
    }

    /// Ends the stream.
    #[must_use]
    pub fn finish(mut self) -> Blocks {
        // A body of images has few blocks for its size, and the hashes outlive the body's reading.
        if self.blocks.capacity() > 2 * self.blocks.len() + COMMON_BLOCK_BYTES {
            self.blocks.shrink_to_fit();
        }
        let tail = if self.is_full() {
            Tail::new()
        } else {
            self.partial
        };
        Blocks {
            hashes: self.blocks,
            chain: self.chain,
            tail,
            bytes: self.bytes,
        }
    }
}

/// A prompt in blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// Chained hash of each whole block.
    pub hashes: Vec<u64>,
    /// The chain's end: the last of `hashes`, or where it started.
    pub chain: u64,
    /// Bytes after the last whole block; empty where blocks were left out.
    pub tail: Tail,
    /// Bytes of the stream.
    pub bytes: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocks(key: &BlockKey, block_bytes: usize, pieces: &[&[u8]]) -> Blocks {
        let mut stream = BlockStream::new(key, block_bytes, 1_000, key.start(), 0);
        for piece in pieces {
            stream.push(piece);
        }
        stream.finish()
    }

    #[test]
    fn the_key_decides_every_hash() {
        let (a, b) = (
            BlockKey::new(b"0123456789abcdef"),
            BlockKey::new(b"0123456789abcdeg"),
        );
        let text = [7; 640];
        let (of_a, of_b) = (
            blocks(&a, 64, &[&text]).hashes,
            blocks(&b, 64, &[&text]).hashes,
        );
        assert!(of_a.iter().all(|hash| !of_b.contains(hash)));
        assert_eq!(format!("{a:?}"), "BlockKey(..)");
    }

    #[test]
    fn thue_morse_sequences_of_two_blocks_do_not_collide() {
        let key = BlockKey::new(b"0123456789abcdef");
        let block = |odd: bool| [if odd { b'b' } else { b'a' }; 64];
        let chain = |flip: bool| {
            (0_u32..4_096).fold(key.start(), |chain, index| {
                key.chain(
                    chain,
                    key.hash(&block((index.count_ones() % 2 == 1) != flip)),
                )
            })
        };
        assert_ne!(chain(false), chain(true));
    }

    #[test]
    fn blocks_over_the_bound_are_counted_but_not_hashed() {
        let key = BlockKey::new(b"0123456789abcdef");
        let mut stream = BlockStream::new(&key, 64, 3, key.start(), 100);
        stream.push(&[1; 1_000]);
        let cut = stream.finish();
        assert_eq!((cut.hashes.len(), cut.bytes, cut.tail.len()), (3, 1_000, 0));
        assert_eq!(cut.hashes, blocks(&key, 64, &[&[1; 1_000]]).hashes[..3]);
    }

    proptest! {
        #[test]
        fn the_cut_into_pieces_does_not_matter(text in prop::collection::vec(any::<u8>(), 0..1_000), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8), block_bytes in prop::sample::select(vec![16_usize, 63, 64, 100])) {
            let key = BlockKey::new(b"0123456789abcdef");
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.push(text.len());
            at.sort_unstable();
            let mut from = 0;
            let mut pieces = Vec::new();
            for to in at {
                pieces.push(&text[from..to]);
                from = to;
            }
            let whole = blocks(&key, block_bytes, &[&text]);
            prop_assert_eq!(&blocks(&key, block_bytes, &pieces), &whole);
            prop_assert_eq!(whole.hashes.len(), text.len() / block_bytes);
            prop_assert_eq!(&whole.tail[..], &text[text.len() / block_bytes * block_bytes..]);
        }

        #[test]
        fn equal_hashes_mean_equal_prefixes(a in prop::collection::vec(0_u8..2, 0..200), b in prop::collection::vec(0_u8..2, 0..200)) {
            let key = BlockKey::new(b"0123456789abcdef");
            let (of_a, of_b) = (blocks(&key, 16, &[&a]).hashes, blocks(&key, 16, &[&b]).hashes);
            for (index, (x, y)) in of_a.iter().zip(&of_b).enumerate() {
                let end = (index + 1) * 16;
                prop_assert_eq!(x == y, a[..end] == b[..end]);
            }
        }

        #[test]
        fn a_stream_goes_on_from_its_tail(text in prop::collection::vec(any::<u8>(), 0..500), more in prop::collection::vec(any::<u8>(), 0..500)) {
            let key = BlockKey::new(b"0123456789abcdef");
            let first = blocks(&key, 64, &[&text]);
            let mut stream = BlockStream::new(&key, 64, 1_000, first.chain, 0);
            stream.push(&first.tail);
            stream.push(&more);
            let mut resumed = first.hashes;
            resumed.extend(stream.finish().hashes);
            prop_assert_eq!(resumed, blocks(&key, 64, &[&text, &more]).hashes);
        }
    }
}
