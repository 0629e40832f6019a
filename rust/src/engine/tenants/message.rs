//! What balancers tell each other of their tenants, and its form on the wire.
//!
//! The form is [`VERSION`] and then the fields in order, encoded by postcard, at most [`BYTES_MAX`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::bucket::ONE;

/// Bytes of an encoded message, at most.
pub const BYTES_MAX: usize = 16 << 10;
/// Tenants in one message, at most.
pub const ENTRIES_MAX: usize = 1_024;
/// The form that is written and read here.
pub const VERSION: u8 = 1;

/// What one balancer tells another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::engine) struct Message {
    /// Start of the sender: greater after each.
    pub(super) incarnation: u64,
    /// Of this message, since the sender's start.
    pub(super) sequence: u64,
    /// Start of the receiver, and its last message, that the sender has read; 0 is none.
    pub(super) heard_incarnation: u64,
    pub(super) heard_sequence: u64,
    /// The most that the sender uses of the limits of tenants that are not listed.
    pub(super) idle: u32,
    pub(super) entries: Vec<Entry>,
}

/// One tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct Entry {
    /// A hash of its name.
    pub(super) tenant: [u8; 8],
    /// What it has lately asked for at the sender, as a part of its limits.
    pub(super) demand: u32,
    /// The most that the sender uses of its limits, or is about to.
    pub(super) most: u32,
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageError {
    /// It is longer than [`BYTES_MAX`].
    TooLong,
    /// It is of another version.
    Version(u8),
    /// It cannot be read, or passes a bound.
    Malformed,
    /// It is not newer than what was told before.
    Old,
    /// The peer is not among those configured.
    Unknown,
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("the message about tenants is too long"),
            Self::Version(version) => write!(
                f,
                "the message about tenants has version {version}, expected {VERSION}"
            ),
            Self::Malformed => f.write_str("the message about tenants is malformed"),
            Self::Old => f.write_str("the message about tenants is not newer than the last"),
            Self::Unknown => f.write_str("the peer is unknown"),
        }
    }
}

impl std::error::Error for MessageError {}

impl Message {
    /// The encoded form; [`ENTRIES_MAX`] entries always fit.
    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// Reads the encoded form. Bytes behind its end are fields of a later version: passed over.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > BYTES_MAX {
            return Err(MessageError::TooLong);
        }
        let (version, rest) = bytes.split_first().ok_or(MessageError::Malformed)?;
        if *version != VERSION {
            return Err(MessageError::Version(*version));
        }
        let (message, _): (Self, _) =
            postcard::take_from_bytes(rest).map_err(|_| MessageError::Malformed)?;
        let fits = message.incarnation > 0
            && message.sequence > 0
            && message.idle <= ONE
            && message.entries.len() <= ENTRIES_MAX
            && message
                .entries
                .iter()
                .all(|entry| entry.demand <= ONE && entry.most <= ONE)
            && message.entries.is_sorted_by(|a, b| a.tenant < b.tenant);
        if fits {
            Ok(message)
        } else {
            Err(MessageError::Malformed)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages() -> impl Strategy<Value = Message> {
        let entry = (any::<[u8; 8]>(), 0..=ONE, 0..=ONE);
        let entry = entry.prop_map(|(tenant, demand, most)| Entry {
            tenant,
            demand,
            most,
        });
        let head = (1..u64::MAX, 1..u64::MAX, any::<[u64; 2]>(), 0..=ONE);
        (head, prop::collection::vec(entry, 0..20)).prop_map(
            |((incarnation, sequence, heard, idle), mut entries)| {
                entries.sort_unstable_by_key(|entry| entry.tenant);
                entries.dedup_by_key(|entry| entry.tenant);
                Message {
                    incarnation,
                    sequence,
                    heard_incarnation: heard[0],
                    heard_sequence: heard[1],
                    idle,
                    entries,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(message in messages()) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn every_cut_of_a_message_is_refused_and_what_a_later_version_adds_is_passed_over(message in messages(), at in any::<prop::sample::Index>()) {
            let bytes = message.encode();
            prop_assert!(Message::decode(&bytes[..at.index(bytes.len())]).is_err());
            let later = [&bytes[..], b"fields of a later version"].concat();
            prop_assert_eq!(Message::decode(&later), Ok(message));
        }

        #[test]
        fn reading_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
            }
        }
    }

    #[test]
    fn as_many_tenants_as_may_be_told_fit_whatever_is_told_of_them() {
        let entry = |n: usize| Entry {
            tenant: n.to_be_bytes(),
            demand: ONE,
            most: ONE,
        };
        let mut message = Message {
            incarnation: u64::MAX,
            sequence: u64::MAX,
            heard_incarnation: u64::MAX,
            heard_sequence: u64::MAX,
            idle: ONE,
            entries: (0..ENTRIES_MAX).map(entry).collect(),
        };
        let bytes = message.encode();
        assert!(bytes.len() <= BYTES_MAX, "{}", bytes.len());
        assert_eq!(Message::decode(&bytes), Ok(message.clone()));
        message.entries.push(entry(ENTRIES_MAX));
        assert!(Message::decode(&message.encode()).is_err());
    }

    #[test]
    fn what_is_out_of_bounds_is_malformed() {
        let good = Message {
            incarnation: 1,
            sequence: 1,
            ..Message::default()
        };
        let entry = Entry {
            tenant: [1; 8],
            demand: 0,
            most: 0,
        };
        let bad = [
            Message {
                incarnation: 0,
                ..good.clone()
            },
            Message {
                sequence: 0,
                ..good.clone()
            },
            Message {
                idle: ONE + 1,
                ..good.clone()
            },
            Message {
                entries: vec![Entry {
                    most: ONE + 1,
                    ..entry
                }],
                ..good.clone()
            },
            Message {
                entries: vec![Entry {
                    demand: ONE + 1,
                    ..entry
                }],
                ..good.clone()
            },
            Message {
                entries: vec![entry, entry],
                ..good.clone()
            },
        ];
        for message in bad {
            assert_eq!(
                Message::decode(&message.encode()),
                Err(MessageError::Malformed)
            );
        }
        assert_eq!(Message::decode(&[9]), Err(MessageError::Version(9)));
        assert_eq!(Message::decode(&[]), Err(MessageError::Malformed));
        let long = vec![VERSION; BYTES_MAX + 1];
        assert_eq!(Message::decode(&long), Err(MessageError::TooLong));
    }
}
