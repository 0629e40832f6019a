//! What one balancer tells another of its region about prompts that it has pushed, and its form on the wire.
//!
//! A message has one entry per push. An entry names the replica by its place in the sender's list. It names
//! the prompt by the chained hash up to which it is known, and the hashes behind that. All numbers are
//! little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | [`VERSION`] |
//! | 1 | 1: the sender asks for all anew; else 0 |
//! | 8 | which key it is written with |
//! | 4 | bytes per block |
//! | 8, 8, 8 | the sender, its start, and the number of the message since then |
//! | 2 | entries |
//! | 2, 2, 8, 8 each | of each entry: place, hashes, the block that they follow (0: none), the hashes |
//!
//! The hashes are keyed, but by a function that is no cryptographic one. So each is combined with a number.
//! `SipHash`-2-4 makes it of the message's number and the hash's place in it, under a key that balancers alone
//! have. A reader of the link sees lengths only.

use std::fmt;
use std::hash::Hasher;

use crate::engine::mesh::key::{KEY_BYTES, MeshKey};
use crate::engine::mesh::region::message::SHARED_MAX;

/// Bytes of an encoded message, at most.
pub const CACHED_BYTES_MAX: usize = 40 << 10;
/// The form that is written and read here.
pub const VERSION: u8 = 1;
/// Bytes of a message without entries.
pub const HEAD_BYTES: usize = 40;
/// Bytes of an entry without hashes.
pub const ENTRY_BYTES: usize = 12;
/// Bytes of a hash.
pub const HASH_BYTES: usize = 8;

/// Covers and uncovers the hashes of messages.
#[derive(Debug, Clone, Copy)]
pub struct Cover {
    key: MeshKey,
}

impl Cover {
    /// `key`: bytes that all balancers of a mesh share.
    #[must_use]
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self {
            key: MeshKey::new(key),
        }
    }

    /// The numbers that cover a message.
    fn numbers(self, origin: Origin) -> impl FnMut() -> u64 {
        let mut hasher = self.key.hasher();
        for word in [origin.sender, origin.incarnation, origin.sequence] {
            hasher.write(&word.to_le_bytes());
        }
        let mut index = 0_u64;
        move || {
            let mut hasher = hasher;
            hasher.write(&index.to_le_bytes());
            index += 1;
            hasher.finish()
        }
    }
}

/// Which message it is: no two have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The sender's name, hashed.
    pub sender: u64,
    /// Its start.
    pub incarnation: u64,
    /// Greater in each message.
    pub sequence: u64,
}

/// A prompt that was pushed, or an answer behind one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// The replica's place in the sender's list.
    pub place: u16,
    /// The block that the hashes follow; `None`: they begin a prompt.
    pub parent: Option<u64>,
    /// Chained hashes.
    pub hashes: Vec<u64>,
}

impl Entry {
    /// What it takes of a message.
    #[must_use]
    pub fn bytes(&self) -> usize {
        ENTRY_BYTES + HASH_BYTES * self.hashes.len()
    }
}

/// What one balancer tells another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cached {
    /// Where it comes from.
    pub origin: Origin,
    /// The sender has lost what it was told: what follows is to be told from its beginning.
    pub asks: bool,
    /// Bytes per block: hashes of other blocks are others.
    pub block_bytes: u32,
    /// In the order of the pushes.
    pub entries: Vec<Entry>,
}

/// Why a message is refused. Its content is in none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachedError {
    /// It is longer than [`CACHED_BYTES_MAX`].
    TooLong,
    /// It is of another version.
    Version(u8),
    /// It cannot be read.
    Malformed,
    /// Its hashes are covered by another key.
    Key,
    /// Its blocks are of another size.
    Blocks(u32),
    /// It is not newer than what was told before.
    Old,
    /// The sender shares nothing with this balancer.
    Stranger,
}

impl fmt::Display for CachedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("the message is too long"),
            Self::Version(version) => {
                write!(f, "the message has version {version}, expected {VERSION}")
            }
            Self::Malformed => f.write_str("the message is malformed"),
            Self::Key => f.write_str("the message is made with another secret"),
            Self::Blocks(bytes) => write!(f, "the message has blocks of {bytes} bytes"),
            Self::Old => f.write_str("the message is not newer than the last"),
            Self::Stranger => f.write_str("the peer shares no replicas with this balancer"),
        }
    }
}

impl std::error::Error for CachedError {}

impl Cached {
    /// The encoded form; `None` where it is too long.
    #[must_use]
    pub fn encode(&self, cover: Cover) -> Option<Vec<u8>> {
        let bytes = HEAD_BYTES + self.entries.iter().map(Entry::bytes).sum::<usize>();
        let len = u16::try_from(self.entries.len()).ok()?;
        if bytes > CACHED_BYTES_MAX {
            return None;
        }
        let mut number = cover.numbers(self.origin);
        let mut out = Vec::with_capacity(bytes);
        out.extend([VERSION, u8::from(self.asks)]);
        out.extend(cover.key.tag.to_le_bytes());
        out.extend(self.block_bytes.to_le_bytes());
        let Origin {
            sender,
            incarnation,
            sequence,
        } = self.origin;
        for word in [sender, incarnation, sequence] {
            out.extend(word.to_le_bytes());
        }
        out.extend(len.to_le_bytes());
        for entry in &self.entries {
            out.extend(entry.place.to_le_bytes());
            out.extend(u16::try_from(entry.hashes.len()).ok()?.to_le_bytes());
            out.extend((entry.parent.unwrap_or(0) ^ number()).to_le_bytes());
            for hash in &entry.hashes {
                out.extend((hash ^ number()).to_le_bytes());
            }
        }
        Some(out)
    }

    /// Reads the encoded form. Bytes behind its end are fields of a later version: passed over.
    ///
    /// # Errors
    ///
    /// It is too long, of another version or key, or malformed. A replica beyond [`SHARED_MAX`] and an
    /// entry that says nothing are malformed too.
    pub fn decode(bytes: &[u8], cover: Cover) -> Result<Self, CachedError> {
        if bytes.len() > CACHED_BYTES_MAX {
            return Err(CachedError::TooLong);
        }
        let mut rest = Rest(bytes);
        let version = rest.byte().ok_or(CachedError::Malformed)?;
        if version != VERSION {
            return Err(CachedError::Version(version));
        }
        let asks = rest.byte().ok_or(CachedError::Malformed)?;
        let tag = rest.word().ok_or(CachedError::Malformed)?;
        if tag != cover.key.tag {
            return Err(CachedError::Key);
        }
        rest.cached(asks == 1, cover)
            .filter(|cached| asks <= 1 && cached.entries.iter().all(is_possible))
            .ok_or(CachedError::Malformed)
    }
}

fn is_possible(entry: &Entry) -> bool {
    let says = entry.parent.is_some() || !entry.hashes.is_empty();
    says && usize::from(entry.place) < SHARED_MAX
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn word(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn cached(&mut self, asks: bool, cover: Cover) -> Option<Cached> {
        let block_bytes = self.array().map(u32::from_le_bytes)?;
        let origin = Origin {
            sender: self.word()?,
            incarnation: self.word()?,
            sequence: self.word()?,
        };
        let mut number = cover.numbers(origin);
        let len = self.short()?;
        // What says that it has more than there are bytes ends before it takes memory.
        let mut entries = Vec::new();
        for _ in 0..len {
            let place = self.short()?;
            let len = usize::from(self.short()?);
            let parent = self.word()? ^ number();
            if self.0.len() < len * HASH_BYTES {
                return None;
            }
            let mut hashes = Vec::with_capacity(len);
            for _ in 0..len {
                hashes.push(self.word()? ^ number());
            }
            entries.push(Entry {
                place,
                parent: (parent != 0).then_some(parent),
                hashes,
            });
        }
        Some(Cached {
            origin,
            asks,
            block_bytes,
            entries,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cover(byte: u8) -> Cover {
        Cover::new(&[byte; KEY_BYTES])
    }

    fn messages() -> impl Strategy<Value = Cached> {
        let entry = (
            0..u16::try_from(SHARED_MAX).unwrap(),
            1..=u64::MAX,
            any::<bool>(),
            prop::collection::vec(any::<u64>(), 0..20),
        );
        let entry = entry.prop_map(|(place, parent, begins, hashes)| Entry {
            place,
            parent: (!begins || hashes.is_empty()).then_some(parent),
            hashes,
        });
        let origin = any::<(u64, u64, u64)>();
        let head = (origin, any::<bool>(), any::<u32>());
        (head, prop::collection::vec(entry, 0..8)).prop_map(
            |((origin, asks, block_bytes), entries)| {
                let (sender, incarnation, sequence) = origin;
                let origin = Origin {
                    sender,
                    incarnation,
                    sequence,
                };
                Cached {
                    origin,
                    asks,
                    block_bytes,
                    entries,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_is_heard(cached in messages()) {
            let bytes = cached.encode(cover(1)).unwrap();
            let len: usize = cached.entries.iter().map(Entry::bytes).sum();
            prop_assert_eq!(bytes.len(), HEAD_BYTES + len);
            prop_assert_eq!(Cached::decode(&bytes, cover(2)), Err(CachedError::Key));
            prop_assert_eq!(Cached::decode(&bytes, cover(1)), Ok(cached));
        }

        #[test]
        fn every_cut_is_refused_and_what_a_later_version_adds_is_passed_over(
            cached in messages(), at in any::<prop::sample::Index>(),
        ) {
            let bytes = cached.encode(cover(1)).unwrap();
            prop_assert!(Cached::decode(&bytes[..at.index(bytes.len())], cover(1)).is_err());
            let later = [&bytes[..], b"fields of a later version"].concat();
            prop_assert_eq!(Cached::decode(&later, cover(1)), Ok(cached));
        }

        #[test]
        fn no_bytes_make_it_panic_and_what_is_read_is_what_was_written(
            behind in prop::collection::vec(any::<u8>(), 0..400), asks in 0..3_u8, entries in 0..4_u16,
        ) {
            // A head that is right, so that what is behind it is read.
            let mut bytes = vec![VERSION, asks];
            bytes.extend(cover(1).key.tag.to_le_bytes());
            bytes.extend(&behind);
            if bytes.len() >= HEAD_BYTES {
                bytes[HEAD_BYTES - 2..HEAD_BYTES].copy_from_slice(&entries.to_le_bytes());
            }
            let read = Cached::decode(&bytes, cover(1));
            prop_assert!(bytes.len() >= HEAD_BYTES || read == Err(CachedError::Malformed));
            if entries == 0 && asks <= 1 && bytes.len() >= HEAD_BYTES {
                prop_assert!(read.is_ok());
            }
            if let Ok(cached) = read {
                let again = cached.encode(cover(1)).unwrap();
                prop_assert_eq!(&again[..], &bytes[..again.len()]);
            }
        }

        #[test]
        fn a_message_with_some_bytes_changed_is_refused_or_bounded(
            cached in messages(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = cached.encode(cover(1)).unwrap();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                // The key's tag stays: else nothing more is read.
                if !(2..10).contains(&at) {
                    bytes[at] = byte;
                }
            }
            match Cached::decode(&bytes, cover(1)) {
                Ok(read) => {
                    let len: usize = read.entries.iter().map(Entry::bytes).sum();
                    prop_assert!(HEAD_BYTES + len <= bytes.len());
                    prop_assert!(read.entries.iter().all(|entry| usize::from(entry.place) < SHARED_MAX));
                }
                Err(error) => prop_assert!(matches!(error, CachedError::Malformed | CachedError::Version(_))),
            }
        }

        #[test]
        fn no_hash_can_be_read_on_the_way_nor_is_one_written_alike_twice(
            hash in 1..=u64::MAX, first in any::<u64>(), second in any::<u64>(),
        ) {
            prop_assume!(first != second);
            let written = |sequence| {
                let entry = Entry { place: 1, parent: Some(hash), hashes: vec![hash; 3] };
                let origin = Origin { sequence, ..Origin::default() };
                let bytes = Cached { origin, entries: vec![entry], ..Cached::default() }.encode(cover(1)).unwrap();
                bytes[HEAD_BYTES + 4..].as_chunks::<8>().0.to_vec()
            };
            let mut all = [written(first), written(second)].concat();
            prop_assert!(!all.contains(&hash.to_le_bytes()));
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all.len(), 8);
        }
    }

    #[test]
    fn faults_are_told_apart() {
        assert_eq!(Cached::decode(&[9], cover(1)), Err(CachedError::Version(9)));
        assert_eq!(Cached::decode(&[], cover(1)), Err(CachedError::Malformed));
        let long = vec![VERSION; CACHED_BYTES_MAX + 1];
        assert_eq!(Cached::decode(&long, cover(1)), Err(CachedError::TooLong));
        let says_nothing = Cached {
            entries: vec![Entry::default()],
            ..Cached::default()
        };
        let beyond = Cached {
            entries: vec![Entry {
                place: u16::try_from(SHARED_MAX).unwrap(),
                parent: Some(1),
                hashes: Vec::new(),
            }],
            ..Cached::default()
        };
        for cached in [says_nothing, beyond] {
            let bytes = cached.encode(cover(1)).unwrap();
            assert_eq!(
                Cached::decode(&bytes, cover(1)),
                Err(CachedError::Malformed)
            );
        }
        assert_eq!(format!("{:?}", cover(1)), "Cover { key: MeshKey(..) }");
    }
}
