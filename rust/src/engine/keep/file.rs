//! The form of a state: a magic word, a version, sections, and a checksum behind all.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 4 | [`VERSION`], little-endian, as all numbers here |
//! | 5 and more | a section: its kind (1), the length of its payload (4), and the payload. Any number of them. |
//! | 21 | the last section: kind [`END`], length 16, bytes before it (8), their xxh3 (8) |
//!
//! It is written in parts. A reader checks the whole first, so that a part of one does nothing.

use std::fmt;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// What a state begins with.
pub const MAGIC: [u8; 8] = *b"SkyLBst\n";
/// The form that is written and read here. Another one is not read.
pub const VERSION: u32 = 1;
/// The kind of the last section.
pub const END: u8 = 255;

const PREFIX: usize = MAGIC.len() + 4;
const SECTION: usize = 5;
/// Bytes of the last section.
pub(super) const SUFFIX: usize = SECTION + 16;

/// Why a state is not read. Its content is in none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateError {
    /// It does not begin as one.
    Foreign,
    /// It is of another version.
    Version(u32),
    /// It has another length than it says.
    Truncated,
    /// It is damaged.
    Checksum,
    /// Its sections cannot be read.
    Malformed,
    /// Its hashes are of blocks of other sizes.
    Blocks,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("it is no state of SkyLB"),
            Self::Version(version) => write!(f, "it has version {version}, expected {VERSION}"),
            Self::Truncated => f.write_str("it is truncated"),
            Self::Checksum => f.write_str("its checksum does not fit: it is damaged"),
            Self::Malformed => f.write_str("it is malformed"),
            Self::Blocks => f.write_str("it was written with another engine.block_bytes"),
        }
    }
}

impl std::error::Error for StateError {}

/// Writes the frame around sections.
pub(super) struct Frame {
    hasher: Xxh3,
    written: u64,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.written)
    }
}

impl Frame {
    pub(super) fn new() -> Self {
        Self {
            hasher: Xxh3::new(),
            written: 0,
        }
    }

    /// Bytes so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The beginning, which counts as written.
    fn start(&mut self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        self.hasher.update(&bytes);
        self.written += bytes.len() as u64;
        bytes
    }

    /// The next bytes: a section. Before the first one goes the beginning.
    pub(super) fn section(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        if self.written == 0 {
            let mut bytes = self.start();
            bytes.extend(self.section(kind, payload));
            return bytes;
        }
        let mut bytes = Vec::with_capacity(SECTION + payload.len());
        bytes.push(kind);
        bytes.extend_from_slice(&crate::id::count(payload.len()).to_le_bytes());
        bytes.extend_from_slice(payload);
        self.hasher.update(&bytes);
        self.written += bytes.len() as u64;
        bytes
    }

    /// The last section.
    pub(super) fn end(&self) -> Vec<u8> {
        let mut bytes = vec![END];
        bytes.extend_from_slice(&16_u32.to_le_bytes());
        bytes.extend_from_slice(&self.written.to_le_bytes());
        bytes.extend_from_slice(&self.hasher.digest().to_le_bytes());
        bytes
    }
}

/// A whole state of these sections.
#[must_use]
pub fn sealed(sections: &[(u8, &[u8])]) -> Vec<u8> {
    let mut frame = Frame::new();
    let parts = sections.iter();
    let parts = parts.map(|(kind, payload)| frame.section(*kind, payload));
    let mut all: Vec<u8> = parts.flatten().collect();
    if all.is_empty() {
        all = frame.start();
    }
    all.extend(frame.end());
    all
}

/// The sections of a state, which is whole and sound.
///
/// # Errors
///
/// It is not.
pub fn sections(bytes: &[u8]) -> Result<Vec<(u8, &[u8])>, StateError> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(StateError::Foreign)?;
    let (version, _) = rest.split_first_chunk().ok_or(StateError::Truncated)?;
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return Err(StateError::Version(version));
    }
    let length = bytes.len().checked_sub(SUFFIX);
    let length = length.filter(|length| *length >= PREFIX);
    let (body, suffix) = bytes.split_at(length.ok_or(StateError::Truncated)?);
    let (head, tail) = suffix.split_at(SECTION);
    if head != [END, 16, 0, 0, 0] {
        return Err(StateError::Truncated);
    }
    let number = |at: usize| {
        tail.get(at..at + 8)?
            .try_into()
            .ok()
            .map(u64::from_le_bytes)
    };
    if number(0) != Some(body.len() as u64) {
        return Err(StateError::Truncated);
    }
    if number(8) != Some(xxh3_64(body)) {
        return Err(StateError::Checksum);
    }
    let mut found = Vec::new();
    let mut rest = &body[PREFIX..];
    while !rest.is_empty() {
        let (head, behind) = rest
            .split_first_chunk::<SECTION>()
            .ok_or(StateError::Malformed)?;
        let [kind, length @ ..] = *head;
        let length = u32::from_le_bytes(length) as usize;
        let payload = behind.get(..length).ok_or(StateError::Malformed)?;
        found.push((kind, payload));
        rest = &behind[length..];
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(payloads: &[Vec<u8>]) -> Vec<u8> {
        let payloads = payloads.iter().map(|payload| (3, &payload[..]));
        sealed(&payloads.collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_that_is_cut_or_damaged(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..4),
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let bytes = whole(&payloads);
            let read = sections(&bytes).unwrap();
            let read: Vec<Vec<u8>> = read.into_iter().map(|(_, payload)| payload.to_vec()).collect();
            prop_assert_eq!(read, payloads);
            for length in 0..bytes.len() {
                prop_assert!(sections(&bytes[..length]).is_err());
            }
            let mut damaged = bytes;
            let at = at.index(damaged.len());
            damaged[at] ^= flip;
            prop_assert!(sections(&damaged).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _either = sections(&bytes);
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let bytes = whole(&[vec![1, 2, 3]]);
        assert_eq!(sections(b"PK.."), Err(StateError::Foreign));
        assert_eq!(sections(&bytes[..30]), Err(StateError::Truncated));
        let mut other = bytes.clone();
        other[8] = 9;
        assert_eq!(sections(&other), Err(StateError::Version(9)));
        let mut damaged = bytes;
        damaged[18] ^= 1;
        assert_eq!(sections(&damaged), Err(StateError::Checksum));
    }
}
