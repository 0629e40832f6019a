//! What one balancer tells others of the prefixes that are hot at its replicas, and its form on the wire.
//!
//! A digest is complete: it replaces the one before, so that a lost one changes nothing. It has
//! the mark and the place of each prefix, no more. The chain of hashes starts with the model, so
//! the mark implies the model. What is not hot is not in it. The form is [`VERSION`] and then the
//! fields in order, encoded by postcard: 9 bytes per prefix, at most [`DIGEST_BYTES_MAX`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::places::PLACES;

/// Bytes of an encoded digest, at most.
pub const DIGEST_BYTES_MAX: usize = 32 << 10;
/// The form that is written and read here.
pub const VERSION: u8 = 1;
/// Bytes of one prefix.
pub const ENTRY_BYTES: usize = 9;
/// Bytes of all that is not prefixes, at most.
pub const HEAD_BYTES_MAX: usize = 40;

/// What one balancer tells its peers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PeerDigest {
    /// By which key prefixes are named.
    #[serde(with = "postcard::fixint::le")]
    pub tag: u64,
    /// Bytes per block: places of other blocks are other places.
    pub block_bytes: u32,
    /// Start of the sender: greater after each.
    pub incarnation: u64,
    /// Of this digest, since the sender's start.
    pub sequence: u64,
    /// By mark, ascending.
    pub prefixes: Vec<Prefix>,
}

/// One prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Prefix {
    /// Its name between balancers.
    #[serde(with = "postcard::fixint::le")]
    pub mark: u64,
    /// Where it ends.
    pub place: u8,
}

/// Why a digest is refused. Its content is in none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestError {
    /// It is longer than [`DIGEST_BYTES_MAX`].
    TooLong,
    /// It is of another version.
    Version(u8),
    /// It cannot be read.
    Malformed,
    /// Its names are made with another key.
    Key,
    /// Its blocks are of another size.
    Blocks(u32),
    /// It is not newer than what was told before.
    Old,
    /// The peer is not among those configured.
    Unknown,
}

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("the digest is too long"),
            Self::Version(version) => {
                write!(f, "the digest has version {version}, expected {VERSION}")
            }
            Self::Malformed => f.write_str("the digest is malformed"),
            Self::Key => f.write_str("the digest is made with another secret"),
            Self::Blocks(bytes) => write!(f, "the digest has blocks of {bytes} bytes"),
            Self::Old => f.write_str("the digest is not newer than the last"),
            Self::Unknown => f.write_str("the peer is unknown"),
        }
    }
}

impl std::error::Error for DigestError {}

/// Prefixes that a digest of at most so many bytes has room for.
#[must_use]
pub fn prefixes_within(bytes_max: usize) -> usize {
    bytes_max
        .min(DIGEST_BYTES_MAX)
        .saturating_sub(HEAD_BYTES_MAX)
        / ENTRY_BYTES
}

impl PeerDigest {
    /// The encoded form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// Reads the encoded form. Bytes behind its end are fields of a later version: passed over.
    ///
    /// # Errors
    ///
    /// It is too long, of another version, or malformed: prefixes out of order or twice, or a place
    /// that there is not are malformed too.
    pub fn decode(bytes: &[u8]) -> Result<Self, DigestError> {
        if bytes.len() > DIGEST_BYTES_MAX {
            return Err(DigestError::TooLong);
        }
        let (version, rest) = bytes.split_first().ok_or(DigestError::Malformed)?;
        if *version != VERSION {
            return Err(DigestError::Version(*version));
        }
        let (digest, _): (Self, _) =
            postcard::take_from_bytes(rest).map_err(|_| DigestError::Malformed)?;
        let prefixes = &digest.prefixes;
        let fits = digest.incarnation > 0
            && digest.sequence > 0
            && prefixes.iter().all(|p| usize::from(p.place) < PLACES)
            && prefixes.windows(2).all(|pair| pair[0].mark < pair[1].mark);
        if !fits {
            return Err(DigestError::Malformed);
        }
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digests() -> impl Strategy<Value = PeerDigest> {
        let prefixes = prop::collection::btree_map(any::<u64>(), 0..PLACES, 0..40);
        let head = (any::<u64>(), any::<u32>(), 1..=u64::MAX, 1..=u64::MAX);
        (head, prefixes).prop_map(|((tag, block_bytes, incarnation, sequence), prefixes)| {
            let prefixes = prefixes.into_iter().map(|(mark, place)| Prefix {
                mark,
                place: u8::try_from(place).unwrap(),
            });
            PeerDigest {
                tag,
                block_bytes,
                incarnation,
                sequence,
                prefixes: prefixes.collect(),
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again_and_as_long_as_was_said(digest in digests()) {
            let bytes = digest.encode();
            prop_assert!(bytes.len() <= HEAD_BYTES_MAX + ENTRY_BYTES * digest.prefixes.len());
            prop_assert_eq!(PeerDigest::decode(&bytes), Ok(digest));
        }

        #[test]
        fn every_cut_is_refused_and_what_a_later_version_adds_is_passed_over(digest in digests(), at in any::<prop::sample::Index>()) {
            let bytes = digest.encode();
            prop_assert!(PeerDigest::decode(&bytes[..at.index(bytes.len())]).is_err());
            let later = [&bytes[..], b"fields of a later version"].concat();
            prop_assert_eq!(PeerDigest::decode(&later), Ok(digest));
        }

        #[test]
        fn prefixes_out_of_order_or_twice_are_refused(mut digest in digests(), at in any::<prop::sample::Index>()) {
            prop_assume!(digest.prefixes.len() > 1);
            let first = at.index(digest.prefixes.len() - 1);
            let mut twice = digest.clone();
            twice.prefixes[first] = twice.prefixes[first + 1];
            digest.prefixes.swap(first, first + 1);
            prop_assert_eq!(PeerDigest::decode(&digest.encode()), Err(DigestError::Malformed));
            prop_assert_eq!(PeerDigest::decode(&twice.encode()), Err(DigestError::Malformed));
        }

        #[test]
        fn reading_survives_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Ok(digest) = PeerDigest::decode(&bytes) {
                prop_assert_eq!(PeerDigest::decode(&digest.encode()), Ok(digest));
            }
        }
    }

    #[test]
    fn faults_are_told_apart() {
        assert_eq!(PeerDigest::decode(&[9]), Err(DigestError::Version(9)));
        assert_eq!(PeerDigest::decode(&[]), Err(DigestError::Malformed));
        let long = vec![VERSION; DIGEST_BYTES_MAX + 1];
        assert_eq!(PeerDigest::decode(&long), Err(DigestError::TooLong));
        let mut digest = PeerDigest {
            incarnation: 1,
            sequence: 1,
            prefixes: vec![Prefix {
                mark: 1,
                place: 200,
            }],
            ..PeerDigest::default()
        };
        assert_eq!(
            PeerDigest::decode(&digest.encode()),
            Err(DigestError::Malformed)
        );
        digest.prefixes.clear();
        assert_eq!(PeerDigest::decode(&digest.encode()), Ok(digest.clone()));
        digest.sequence = 0;
        assert_eq!(
            PeerDigest::decode(&digest.encode()),
            Err(DigestError::Malformed)
        );
    }
}
