//! What one balancer sends another, and its form on the wire.
//!
//! The form is [`VERSION`] and then the fields in order, encoded by postcard (variable-length
//! integers, no names), at most [`SUMMARY_BYTES_MAX`]. Counts of forwards are totals since the
//! sender's start, so that a lost or repeated summary changes nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes of an encoded summary, at most.
pub const SUMMARY_BYTES_MAX: usize = 16 << 10;
/// Models in one summary, at most.
pub const MODELS_MAX: usize = 256;
/// The form that is written and read here.
pub const VERSION: u8 = 1;
/// Bytes of a model's name, at most; longer ones are left out.
pub const MODEL_BYTES_MAX: usize = 512;

/// What one balancer sends another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Start of the sender: greater after each.
    pub incarnation: u64,
    /// Of this summary to this peer, since the sender's start.
    pub sequence: u64,
    /// Start of the peer, and its last summary, that the sender has received; 0 is none. Proves how
    /// fresh this one is, and which grants it knows.
    pub received_incarnation: u64,
    /// See above.
    pub received_sequence: u64,
    /// How long this may be believed, in milliseconds.
    pub valid_for_ms: u32,
    /// Send nothing.
    pub draining: bool,
    /// Requests held in all.
    pub hold_len: u32,
    /// How long the oldest of them has waited.
    pub hold_age_ms: u32,
    /// By model.
    pub models: Vec<ModelSummary>,
}

/// What concerns one model or adapter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModelSummary {
    /// Its name.
    pub model: String,
    /// Replicas ready for it.
    pub ready: u32,
    /// Forwards that the peer may have sent in all: what it has sent already, by this count, is no
    /// room any more.
    pub limit: u64,
    /// Forwards that the sender has sent to the peer in all.
    pub sent: u64,
    /// Of those, answered (their first byte) or failed.
    pub settled: u64,
    /// Requests held for it.
    pub hold_len: u32,
    /// Time until a request that arrived now would be computed, room or not, in microseconds.
    pub start_in_us: u32,
    /// Time to the first token of a cached prompt, in microseconds.
    pub base_us: u32,
    /// Time per prompt token, in nanoseconds.
    pub token_ns: u32,
}

/// Why a peer's message is refused. Its content is in none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerError {
    /// It is longer than [`SUMMARY_BYTES_MAX`].
    TooLong,
    /// It is of another version.
    Version(u8),
    /// It cannot be read.
    Malformed,
    /// It is not of the run that the sender has proven.
    Start,
    /// It is not newer than what was sent before.
    Old,
    /// The peer is not among those configured.
    Unknown,
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("the summary is too long"),
            Self::Version(version) => {
                write!(f, "the summary has version {version}, expected {VERSION}")
            }
            Self::Malformed => f.write_str("the summary is malformed"),
            Self::Start => f.write_str("the summary is of another run of the peer"),
            Self::Old => f.write_str("the summary is not newer than the last"),
            Self::Unknown => f.write_str("the peer is unknown"),
        }
    }
}

impl std::error::Error for PeerError {}

impl Summary {
    /// The encoded form. Lines that do not fit are left out, the last first.
    #[must_use]
    pub fn encode(&mut self) -> Vec<u8> {
        self.models
            .retain(|entry| entry.model.len() <= MODEL_BYTES_MAX);
        self.models.truncate(MODELS_MAX);
        loop {
            let mut bytes = vec![VERSION];
            bytes = postcard::to_extend(self, bytes).unwrap_or_default();
            if bytes.len() <= SUMMARY_BYTES_MAX || self.models.is_empty() {
                return bytes;
            }
            let keep = self.models.len() * SUMMARY_BYTES_MAX / bytes.len();
            self.models.truncate(keep.min(self.models.len() - 1));
        }
    }

    /// Reads the encoded form. Bytes behind its end are fields of a later version: passed over.
    ///
    /// # Errors
    ///
    /// It is too long, of another version, or malformed: a model twice, or a bound passed are
    /// malformed too.
    pub fn decode(bytes: &[u8]) -> Result<Self, PeerError> {
        if bytes.len() > SUMMARY_BYTES_MAX {
            return Err(PeerError::TooLong);
        }
        let (version, rest) = bytes.split_first().ok_or(PeerError::Malformed)?;
        if *version != VERSION {
            return Err(PeerError::Version(*version));
        }
        let (mut summary, _): (Self, _) =
            postcard::take_from_bytes(rest).map_err(|_| PeerError::Malformed)?;
        let fits = summary.models.len() <= MODELS_MAX
            && summary.incarnation > 0
            && summary.sequence > 0
            && summary
                .models
                .iter()
                .all(|entry| (1..=MODEL_BYTES_MAX).contains(&entry.model.len()));
        summary
            .models
            .sort_unstable_by(|a, b| a.model.cmp(&b.model));
        let twice = summary
            .models
            .windows(2)
            .any(|pair| pair[0].model == pair[1].model);
        if !fits || twice {
            return Err(PeerError::Malformed);
        }
        Ok(summary)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn models() -> impl Strategy<Value = Vec<ModelSummary>> {
        let entry = ("[a-z/.-]{1,24}", any::<[u32; 5]>(), any::<[u64; 3]>());
        let entry = entry.prop_map(|(model, small, large)| ModelSummary {
            model,
            ready: small[0],
            limit: large[0],
            sent: large[1],
            settled: large[2],
            hold_len: small[1],
            start_in_us: small[2],
            base_us: small[3],
            token_ns: small[4],
        });
        prop::collection::vec(entry, 0..20).prop_map(|mut models| {
            models.sort_unstable_by(|a, b| a.model.cmp(&b.model));
            models.dedup_by(|a, b| a.model == b.model);
            models
        })
    }

    fn summaries() -> impl Strategy<Value = Summary> {
        let head = (1..u64::MAX, 1..u64::MAX, any::<[u64; 2]>());
        (head, any::<[u32; 3]>(), any::<bool>(), models()).prop_map(
            |((incarnation, sequence, heard), small, draining, models)| Summary {
                incarnation,
                sequence,
                received_incarnation: heard[0],
                received_sequence: heard[1],
                valid_for_ms: small[0],
                draining,
                hold_len: small[1],
                hold_age_ms: small[2],
                models,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(mut summary in summaries()) {
            let bytes = summary.encode();
            prop_assert_eq!(Summary::decode(&bytes), Ok(summary));
        }

        #[test]
        fn every_cut_of_a_summary_is_refused_and_what_a_later_version_adds_is_passed_over(mut summary in summaries(), at in any::<prop::sample::Index>()) {
            let bytes = summary.encode();
            prop_assert!(Summary::decode(&bytes[..at.index(bytes.len())]).is_err());
            let later = [&bytes[..], b"fields of a later version"].concat();
            prop_assert_eq!(Summary::decode(&later), Ok(summary));
        }

        #[test]
        fn reading_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(mut summary) = Summary::decode(&bytes) {
                let again = summary.encode();
                prop_assert_eq!(Summary::decode(&again), Ok(summary));
            }
        }
    }

    #[test]
    fn a_summary_of_many_models_is_cut_to_its_bound() {
        let entry = |n: usize| ModelSummary {
            model: format!("{n:0>400}"),
            ..ModelSummary::default()
        };
        let mut summary = Summary {
            incarnation: 1,
            sequence: 1,
            models: (0..300).map(entry).collect(),
            ..Summary::default()
        };
        let bytes = summary.encode();
        assert!(bytes.len() <= SUMMARY_BYTES_MAX);
        let read = Summary::decode(&bytes).unwrap();
        assert!(read.models.len() > 30);
        assert_eq!(read.models[0].model, format!("{:0>400}", 0));
    }

    #[test]
    fn another_version_and_too_much_are_told_apart() {
        assert_eq!(Summary::decode(&[9]), Err(PeerError::Version(9)));
        assert_eq!(Summary::decode(&[]), Err(PeerError::Malformed));
        let long = vec![VERSION; SUMMARY_BYTES_MAX + 1];
        assert_eq!(Summary::decode(&long), Err(PeerError::TooLong));
    }
}
