//! What one balancer tells another, and its form on the wire.
//!
//! The form is [`VERSION`] and then the fields in order, encoded by postcard (variable-length
//! integers, no names), at most [`SUMMARY_BYTES_MAX`]. Counts of forwards are totals since the
//! teller's start, so that a lost or repeated summary changes nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes of an encoded summary, at most.
pub const SUMMARY_BYTES_MAX: usize = 16 << 10;
/// Models that one summary tells of, at most.
pub const LINES_MAX: usize = 256;
/// The form that is written and read here.
pub const VERSION: u8 = 1;
/// Bytes of a model's name, at most; longer ones are not told.
pub const MODEL_BYTES_MAX: usize = 512;

/// What one balancer tells another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Start of the teller: greater after each.
    pub incarnation: u64,
    /// Of this summary to this peer, since the teller's start.
    pub sequence: u64,
    /// Start of the peer, and its last summary, that the teller has heard; 0 is none. Proves how
    /// fresh this one is, and which grants it knows.
    pub heard_incarnation: u64,
    /// See above.
    pub heard_sequence: u64,
    /// How long this may be believed, in milliseconds.
    pub valid_for_ms: u32,
    /// Send nothing.
    pub draining: bool,
    /// Requests held in all.
    pub hold_len: u32,
    /// How long the oldest of them has waited.
    pub hold_age_ms: u32,
    /// By model.
    pub lines: Vec<Line>,
}

/// What concerns one model or adapter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Line {
    /// Its name.
    pub model: String,
    /// Replicas ready for it.
    pub ready: u32,
    /// Forwards that the peer may have sent in all: what it has sent already, by this count, is no
    /// room any more.
    pub limit: u64,
    /// Forwards that the teller has sent to the peer in all.
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
    /// It is not of the run that the teller has proven.
    Start,
    /// It is not newer than what was told before.
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
        self.lines
            .retain(|line| line.model.len() <= MODEL_BYTES_MAX);
        self.lines.truncate(LINES_MAX);
        loop {
            let mut bytes = vec![VERSION];
            bytes = postcard::to_extend(self, bytes).unwrap_or_default();
            if bytes.len() <= SUMMARY_BYTES_MAX || self.lines.is_empty() {
                return bytes;
            }
            let keep = self.lines.len() * SUMMARY_BYTES_MAX / bytes.len();
            self.lines.truncate(keep.min(self.lines.len() - 1));
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
        let fits = summary.lines.len() <= LINES_MAX
            && summary.incarnation > 0
            && summary.sequence > 0
            && summary
                .lines
                .iter()
                .all(|line| (1..=MODEL_BYTES_MAX).contains(&line.model.len()));
        summary.lines.sort_unstable_by(|a, b| a.model.cmp(&b.model));
        let twice = summary
            .lines
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

    fn lines() -> impl Strategy<Value = Vec<Line>> {
        let line = ("[a-z/.-]{1,24}", any::<[u32; 5]>(), any::<[u64; 3]>());
        let line = line.prop_map(|(model, small, large)| Line {
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
        prop::collection::vec(line, 0..20).prop_map(|mut lines| {
            lines.sort_unstable_by(|a, b| a.model.cmp(&b.model));
            lines.dedup_by(|a, b| a.model == b.model);
            lines
        })
    }

    fn summaries() -> impl Strategy<Value = Summary> {
        let head = (1..u64::MAX, 1..u64::MAX, any::<[u64; 2]>());
        (head, any::<[u32; 3]>(), any::<bool>(), lines()).prop_map(
            |((incarnation, sequence, heard), small, draining, lines)| Summary {
                incarnation,
                sequence,
                heard_incarnation: heard[0],
                heard_sequence: heard[1],
                valid_for_ms: small[0],
                draining,
                hold_len: small[1],
                hold_age_ms: small[2],
                lines,
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
        let line = |n: usize| Line {
            model: format!("{n:0>400}"),
            ..Line::default()
        };
        let mut summary = Summary {
            incarnation: 1,
            sequence: 1,
            lines: (0..300).map(line).collect(),
            ..Summary::default()
        };
        let bytes = summary.encode();
        assert!(bytes.len() <= SUMMARY_BYTES_MAX);
        let read = Summary::decode(&bytes).unwrap();
        assert!(read.lines.len() > 30);
        assert_eq!(read.lines[0].model, format!("{:0>400}", 0));
    }

    #[test]
    fn another_version_and_too_much_are_told_apart() {
        assert_eq!(Summary::decode(&[9]), Err(PeerError::Version(9)));
        assert_eq!(Summary::decode(&[]), Err(PeerError::Malformed));
        let long = vec![VERSION; SUMMARY_BYTES_MAX + 1];
        assert_eq!(Summary::decode(&long), Err(PeerError::TooLong));
    }
}
