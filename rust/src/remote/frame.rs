//! Values as bytes: postcard, with the length in front.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// Bytes of one frame at most. The longest has the hashes of a prompt of `prompt_blocks_max` blocks.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// Bytes of a frame's length.
pub const LENGTH_BYTES: usize = 4;

/// The other side has sent what is no frame of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// It is longer than [`FRAME_BYTES_MAX`].
    TooLong(usize),
    /// Its bytes are no value of the kind that is expected.
    Malformed,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(bytes) => write!(f, "a frame of {bytes} bytes"),
            Self::Malformed => f.write_str("a malformed frame"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Appends a value as a frame. Nothing is appended, and `false` returned, if it is too long.
pub fn put<T: Serialize>(out: &mut Vec<u8>, value: &T) -> bool {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    let Ok(mut written) = postcard::to_extend(value, std::mem::take(out)) else {
        return false; // a vector takes everything, and every value of ours has a form
    };
    let bytes = written.len() - start - LENGTH_BYTES;
    let length = u32::try_from(bytes)
        .ok()
        .filter(|_| bytes <= FRAME_BYTES_MAX);
    match length {
        Some(length) => written[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes()),
        None => written.truncate(start),
    }
    *out = written;
    length.is_some()
}

/// A frame, and what is behind it.
pub type Split<'a> = (&'a [u8], &'a [u8]);

/// The next frame of `bytes`, and what is behind it; `None`: it is not complete.
///
/// # Errors
///
/// It is longer than a frame may be.
pub fn split(bytes: &[u8]) -> Result<Option<Split<'_>>, FrameError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    Ok(rest.split_at_checked(length))
}

/// The frames of a line, whose bytes come in any pieces. Each byte is copied once at most.
#[derive(Default)]
pub struct Inbox {
    /// The beginning of a frame that is not complete.
    begun: Vec<u8>,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inbox with {} bytes", self.begun.len())
    }
}

impl Inbox {
    /// Calls `each` with every frame that is complete now.
    ///
    /// # Errors
    ///
    /// A frame is too long, or what `each` says. Frames before that one have been shown.
    pub fn feed<E: From<FrameError>>(
        &mut self,
        mut data: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !self.begun.is_empty() {
            let missing = missing(&self.begun)?;
            if missing == 0 {
                let whole = std::mem::take(&mut self.begun);
                each(&whole[LENGTH_BYTES..])?;
                break;
            }
            if data.is_empty() {
                return Ok(());
            }
            let (more, rest) = data.split_at(missing.min(data.len()));
            self.begun.extend_from_slice(more);
            data = rest;
        }
        while let Some((frame, rest)) = split(data)? {
            each(frame)?;
            data = rest;
        }
        self.begun.extend_from_slice(data);
        Ok(())
    }
}

/// Bytes that the frame lacks which begins so; of one whose length is not known, those of the length.
fn missing(begun: &[u8]) -> Result<usize, FrameError> {
    let Some((length, rest)) = begun.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(LENGTH_BYTES - begun.len());
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    Ok(length.saturating_sub(rest.len()))
}

/// The value of a frame.
///
/// # Errors
///
/// It is none, or something is behind it.
pub fn read<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(frame) {
        Ok((value, [])) => Ok(value),
        _ => Err(FrameError::Malformed),
    }
}

/// Bytes that are passed on as they are. What shows a message leaves them out.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Bytes<'a>(pub &'a [u8]);

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self)
    }
}

/// Hashes of blocks, as they lie in memory of the sender: eight bytes each, the lowest first.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Hashes<'a>(&'a [u8]);

impl fmt::Debug for Hashes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hashes", self.0.len() / 8)
    }
}

impl<'a> Hashes<'a> {
    /// Of bytes that [`Self::bytes_of`] made.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Hashes as bytes.
    #[must_use]
    pub fn bytes_of(hashes: &[u64]) -> Vec<u8> {
        hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect()
    }

    /// The hashes.
    #[must_use]
    pub fn get(self) -> Vec<u64> {
        let chunks = self.0.as_chunks::<8>().0;
        chunks
            .iter()
            .map(|chunk| u64::from_le_bytes(*chunk))
            .collect()
    }
}

impl Serialize for Hashes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Hashes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = &'de [u8];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("hashes of eight bytes")
            }

            fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<&'de [u8], E> {
                if bytes.len().is_multiple_of(8) {
                    Ok(bytes)
                } else {
                    Err(E::invalid_length(bytes.len(), &self))
                }
            }
        }
        deserializer.deserialize_bytes(Borrowed).map(Self)
    }
}
