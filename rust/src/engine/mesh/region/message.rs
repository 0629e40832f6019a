//! What balancers of one region tell each other about the replicas that they share, and its form
//! on the wire.
//!
//! Each lists its replicas by [`key`] and from then on names them by their place in that list. It
//! tells what it has pushed since, what got its first byte and what ended, and what its probes
//! said. The form is [`VERSION`] and then the fields in order, encoded by postcard
//! (variable-length integers, no names), at most [`SHARE_BYTES_MAX`].
//!
//! Times are ages in microseconds, counted from `told_ns` of the sender's clock.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::engine::fleet::snapshot::Snapshot;
use crate::time::Instant;

/// Bytes of an encoded message, at most.
pub const SHARE_BYTES_MAX: usize = 56 << 10;
/// Replicas that one balancer shares; those beyond are served by each for itself.
pub const SHARED_MAX: usize = 2_048;
/// The form that is written and read here.
pub const VERSION: u8 = 1;
/// Bytes of all entries of one message: with a listing of [`SHARED_MAX`] replicas it stays below
/// [`SHARE_BYTES_MAX`].
pub const ENTRIES_BYTES_MAX: usize = 32 << 10;
/// Bytes at most, as encoded: an entry without requests and page, ...
pub const ENTRY_BYTES: usize = 8;
/// ... a request that was pushed, ...
const BEGAN_BYTES: usize = 31;
/// ... one that got its first byte, one that ended, ...
const STARTED_BYTES: usize = 15;
const ENDED_BYTES: usize = 10;
/// ... an age, and a snapshot without adapters.
const AGE_BYTES: usize = 5;
const SNAPSHOT_BYTES: usize = 128;
/// Adapters told of one snapshot, and bytes of each one's name.
const LORAS_MAX: usize = 8;
const LORA_BYTES_MAX: usize = 64;

/// What one balancer tells another of its region.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Share {
    /// The sender's clock.
    pub told_ns: u64,
    /// The requests told are all that it has in flight at replicas that both list.
    pub whole: bool,
    /// It knows nothing of the other: that is to tell everything, its list first.
    pub asks: bool,
    /// All its replicas, by key, where that has changed.
    pub listing: Option<Vec<u64>>,
    /// By replica, what is new.
    pub entries: Vec<Entry>,
}

/// What is new about one replica.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the sender's list.
    pub place: u32,
    /// The sender holds something that may go there.
    pub wants: bool,
    /// The sender may push there, room or not.
    pub ready: bool,
    /// Pushed.
    pub began: Vec<Began>,
    /// Got their first byte: number and age.
    pub started: Vec<(u64, u32)>,
    /// Ended.
    pub ended: Vec<u64>,
    /// What a probe of the sender's said.
    pub page: Page,
}

impl Entry {
    /// What it takes of a message, in bytes: at least as many as when it is encoded.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let lists = [
            (self.began.len(), BEGAN_BYTES),
            (self.started.len(), STARTED_BYTES),
            (self.ended.len(), ENDED_BYTES),
        ];
        // The length of a long list takes more than the byte that an empty one's takes.
        let lists = lists.map(|(len, each)| len * each + if len > 127 { 2 } else { 0 });
        ENTRY_BYTES + lists.iter().sum::<usize>() + self.page.bytes()
    }
}

/// A request pushed to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Began {
    /// The sender's number of it.
    pub number: u64,
    /// Since its push.
    pub age_us: u32,
    /// Prompt tokens to compute.
    pub prefill: u32,
    /// KV room.
    pub kv: u32,
    /// Since its first byte, if it had one.
    pub started_us: Option<u32>,
}

/// What a probe said.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub enum Page {
    /// No news.
    #[default]
    None,
    /// What was told of the replica last.
    Same {
        /// Since the probe was sent.
        age_us: u32,
    },
    /// This.
    New {
        /// Since the probe was sent.
        age_us: u32,
        /// Its figures.
        snapshot: Box<Snapshot>,
    },
}

impl Page {
    /// What it takes of a message beyond its kind, in bytes, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Same { .. } => AGE_BYTES,
            Self::New { snapshot, .. } => {
                let names = snapshot.loras_running.iter().map(|name| 2 + name.len());
                AGE_BYTES + SNAPSHOT_BYTES + names.sum::<usize>()
            }
        }
    }
}

/// Why a message is refused. Its content is in none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareError {
    /// It is longer than [`SHARE_BYTES_MAX`].
    TooLong,
    /// It is of another version.
    Version(u8),
    /// It cannot be read.
    Malformed,
    /// The sender shares nothing with this balancer.
    Stranger,
}

impl fmt::Display for ShareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("the message is too long"),
            Self::Version(version) => {
                write!(f, "the message has version {version}, expected {VERSION}")
            }
            Self::Malformed => f.write_str("the message is malformed"),
            Self::Stranger => f.write_str("the peer shares no replicas with this balancer"),
        }
    }
}

impl std::error::Error for ShareError {}

impl Share {
    /// The encoded form; `None` where it is too long.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let bytes = postcard::to_extend(self, vec![VERSION]).ok()?;
        (bytes.len() <= SHARE_BYTES_MAX).then_some(bytes)
    }

    /// Reads the encoded form. Bytes behind its end are fields of a later version: passed over.
    ///
    /// # Errors
    ///
    /// It is too long, of another version, or malformed: a replica twice or beyond [`SHARED_MAX`],
    /// and impossible figures are malformed too.
    pub fn decode(bytes: &[u8]) -> Result<Self, ShareError> {
        if bytes.len() > SHARE_BYTES_MAX {
            return Err(ShareError::TooLong);
        }
        let (version, rest) = bytes.split_first().ok_or(ShareError::Malformed)?;
        if *version != VERSION {
            return Err(ShareError::Version(*version));
        }
        let (share, _): (Self, _) =
            postcard::take_from_bytes(rest).map_err(|_| ShareError::Malformed)?;
        let ascends = share
            .entries
            .windows(2)
            .all(|pair| pair[0].place < pair[1].place);
        let within = share
            .entries
            .last()
            .is_none_or(|last| (last.place as usize) < SHARED_MAX);
        let listed = share
            .listing
            .as_ref()
            .is_none_or(|keys| keys.len() <= SHARED_MAX);
        let possible = share.entries.iter().all(|entry| match &entry.page {
            Page::New { snapshot, .. } => snapshot.possible(),
            Page::None | Page::Same { .. } => true,
        });
        if !ascends || !within || !listed || !possible {
            return Err(ShareError::Malformed);
        }
        Ok(share)
    }
}

/// A snapshot as it is told: few adapters' names, short ones.
#[must_use]
pub fn told(snapshot: &Snapshot) -> Snapshot {
    let mut told = snapshot.clone();
    told.loras_running
        .retain(|name| name.len() <= LORA_BYTES_MAX);
    told.loras_running.truncate(LORAS_MAX);
    told
}

/// The key of a replica: the same in all balancers that call it by this name.
#[must_use]
pub fn key(replica: &str) -> u64 {
    xxh3_64(replica.as_bytes())
}

/// The weight of a balancer for a replica: of those that share it the one that weighs most probes
/// it for all (rendezvous hashing: Thaler, Ravishankar, 1998).
#[must_use]
pub fn weight(balancer: &str, replica: u64) -> u64 {
    xxh3_64_with_seed(balancer.as_bytes(), replica)
}

/// The age of something at `at_ns`, as told.
#[must_use]
pub fn age_us(at_ns: Instant, now: Instant) -> u32 {
    u32::try_from((now - at_ns).ns() / 1_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            running: Some(3),
            waiting: Some(1),
            kv_usage: Some(0.25),
            kv_tokens: Some(100_000),
            cache_queries: Some(1 << 40),
            ..Snapshot::default()
        }
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let began = any::<(u64, u32, u32, u32, Option<u32>)>().prop_map(
            |(number, age_us, prefill, kv, started_us)| Began {
                number,
                age_us,
                prefill,
                kv,
                started_us,
            },
        );
        let page = prop_oneof![
            Just(Page::None),
            any::<u32>().prop_map(|age_us| Page::Same { age_us }),
            any::<u32>().prop_map(|age_us| Page::New {
                age_us,
                snapshot: Box::new(snapshot())
            }),
        ];
        (
            any::<(bool, bool)>(),
            prop::collection::vec(began, 0..4),
            any::<Vec<(u64, u32)>>(),
            any::<Vec<u64>>(),
            page,
        )
            .prop_map(|((wants, ready), began, started, ended, page)| Entry {
                place: 0,
                wants,
                ready,
                began,
                started,
                ended,
                page,
            })
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_is_heard(
            told_ns in any::<u64>(),
            whole in any::<bool>(),
            listing in prop::option::of(prop::collection::vec(any::<u64>(), 0..8)),
            mut entries in prop::collection::vec(entry(), 0..4),
        ) {
            for (place, entry) in (0..).zip(&mut entries) {
                entry.place = place;
            }
            let share = Share { told_ns, whole, asks: !whole, listing, entries };
            let bytes = share.encode().unwrap();
            prop_assert_eq!(Share::decode(&bytes), Ok(share));
        }

        #[test]
        fn no_bytes_make_it_panic_and_none_that_are_cut_are_taken(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            entry in entry(),
        ) {
            let _either = Share::decode(&bytes);
            let whole = Share { entries: vec![entry], ..Share::default() }.encode().unwrap();
            for len in 0..whole.len() {
                prop_assert!(Share::decode(&whole[..len]).is_err());
            }
        }
    }

    /// The longest encodings of all fields.
    fn largest(place: u32) -> Entry {
        let snapshot = Snapshot {
            running: Some(u32::MAX),
            waiting: Some(u32::MAX),
            deferred: Some(u32::MAX),
            kv_usage: Some(1.0),
            kv_tokens: Some(u64::MAX),
            block_size: Some(u32::MAX),
            cache_queries: Some(u64::MAX),
            cache_hits: Some(u64::MAX),
            preemptions: Some(u64::MAX),
            loras_running: vec!["a".repeat(LORA_BYTES_MAX); LORAS_MAX + 1],
            ..Snapshot::default()
        };
        let began = Began {
            number: u64::MAX,
            age_us: u32::MAX,
            prefill: u32::MAX,
            kv: u32::MAX,
            started_us: Some(u32::MAX),
        };
        Entry {
            place,
            began: vec![began; 200],
            started: vec![(u64::MAX, u32::MAX); 200],
            ended: vec![u64::MAX; 200],
            page: Page::New {
                age_us: u32::MAX,
                snapshot: Box::new(told(&snapshot)),
            },
            ..Entry::default()
        }
    }

    #[test]
    fn no_entry_takes_more_bytes_than_it_says() {
        for entry in [
            largest(2_047),
            Entry::default(),
            Entry {
                page: Page::Same { age_us: u32::MAX },
                ..Entry::default()
            },
        ] {
            let encoded = postcard::to_extend(&entry, Vec::new()).unwrap();
            assert!(encoded.len() <= entry.bytes(), "{entry:?}");
        }
    }

    #[test]
    fn all_that_a_message_may_hold_fits_with_the_longest_listing() {
        let heads = Share {
            told_ns: u64::MAX,
            listing: Some(vec![u64::MAX; SHARED_MAX]),
            entries: vec![Entry::default(); SHARED_MAX],
            ..Share::default()
        };
        let entries = SHARED_MAX * ENTRY_BYTES;
        let rest = heads.encode().unwrap().len() - entries;
        // The last request or page may go beyond the bound.
        let beyond = largest(0).page.bytes() + BEGAN_BYTES;
        assert!(rest + ENTRIES_BYTES_MAX + beyond <= SHARE_BYTES_MAX);
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over() {
        let share = Share {
            told_ns: 5,
            ..Share::default()
        };
        let mut bytes = share.encode().unwrap();
        bytes.extend([1, 2, 3]);
        assert_eq!(Share::decode(&bytes), Ok(share));
    }

    #[test]
    fn impossible_messages_are_refused() {
        let entry = |place| Entry {
            place,
            ..Entry::default()
        };
        let share = |entries| Share {
            entries,
            ..Share::default()
        };
        let refused = |share: Share| Share::decode(&share.encode().unwrap());
        let malformed = Err(ShareError::Malformed);
        assert_eq!(refused(share(vec![entry(1), entry(1)])), malformed);
        assert_eq!(refused(share(vec![entry(2_048)])), malformed);
        let page = Page::New {
            age_us: 0,
            snapshot: Box::new(Snapshot {
                kv_usage: Some(f64::NAN),
                ..snapshot()
            }),
        };
        assert_eq!(refused(share(vec![Entry { page, ..entry(0) }])), malformed);
        let mut bytes = share(vec![]).encode().unwrap();
        bytes[0] = VERSION + 1;
        assert_eq!(Share::decode(&bytes), Err(ShareError::Version(VERSION + 1)));
        assert_eq!(
            Share::decode(&vec![VERSION; SHARE_BYTES_MAX + 1]),
            Err(ShareError::TooLong)
        );
    }

    #[test]
    fn one_of_all_that_share_a_replica_weighs_most_and_they_take_turns_over_many() {
        let names = ["us-1", "us-2", "us-3"];
        let mut chosen = [0_u32; 3];
        for replica in 0..3_000 {
            let replica = key(&format!("http://10.0.0.{replica}:8000"));
            let most = (0..3).max_by_key(|place| weight(names[*place], replica));
            chosen[most.unwrap()] += 1;
        }
        assert!(
            chosen.iter().all(|count| (800..1_200).contains(count)),
            "{chosen:?}"
        );
    }
}
