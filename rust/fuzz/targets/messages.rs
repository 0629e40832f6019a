//! What balancers tell each other: [`Summary`], [`PeerDigest`] and [`Share`].

use skylb_core::engine::fleet::snapshot::Snapshot;
use skylb_core::engine::mesh::hot::digest::{DIGEST_BYTES_MAX, PeerDigest, Prefix};
use skylb_core::engine::mesh::hot::places::PLACES;
use skylb_core::engine::mesh::peer::summary::{
    MODEL_BYTES_MAX, MODELS_MAX, ModelSummary, SUMMARY_BYTES_MAX, Summary,
};
use skylb_core::engine::mesh::region::message::{
    Began, Entry, Page, SHARE_BYTES_MAX, SHARED_MAX, Share,
};

pub fn seeds() -> Vec<Vec<u8>> {
    let entry = |model: &str| ModelSummary {
        model: model.to_owned(),
        ready: 3,
        limit: 1 << 40,
        ..ModelSummary::default()
    };
    let mut summary = Summary {
        incarnation: 1 << 60,
        sequence: 7,
        valid_for_ms: 5_000,
        models: vec![entry("a/b"), entry("c")],
        ..Summary::default()
    };
    let prefix = |mark, place| Prefix { mark, place };
    let digest = PeerDigest {
        tag: 5,
        block_bytes: 64,
        incarnation: 1,
        sequence: 1,
        prefixes: vec![prefix(1, 0), prefix(1 << 63, 55)],
    };
    let snapshot = Snapshot {
        running: Some(3),
        waiting: Some(0),
        kv_usage: Some(0.5),
        loras_running: vec!["l".to_owned()],
        ..Snapshot::default()
    };
    let entry = Entry {
        began: vec![Began::default()],
        started: vec![(1, 2)],
        ended: vec![9],
        page: Page::New {
            age_us: 1,
            snapshot: Box::new(snapshot),
        },
        ..Entry::default()
    };
    let second = Entry {
        place: 3,
        page: Page::Same { age_us: 300 },
        ..Entry::default()
    };
    let share = Share {
        told_ns: 1,
        listing: Some(vec![1, u64::MAX]),
        entries: vec![entry, second],
        ..Share::default()
    };
    vec![
        [&[0], &summary.encode()[..]].concat(),
        [&[1], &digest.encode()[..]].concat(),
        [&[2], &share.encode().unwrap_or_default()[..]].concat(),
    ]
}

pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((0, bytes)) => check_summary(bytes),
        Some((1, bytes)) => check_digest(bytes),
        Some((2, bytes)) => check_share(bytes),
        _ => {}
    }
}

/// Whether any cut of a message that is accepted is accepted as well; what a later version adds at its
/// end is passed over, so the shortest form that is accepted is the message.
fn needed_len(bytes: &[u8], is_accepted: impl Fn(&[u8]) -> bool) -> usize {
    let mut len = bytes.len();
    while len > 0 && bytes.len() - len < 64 && is_accepted(&bytes[..len - 1]) {
        len -= 1;
    }
    len
}

fn check_summary(bytes: &[u8]) {
    let Ok(mut summary) = Summary::decode(bytes) else {
        return;
    };
    assert!(bytes.len() <= SUMMARY_BYTES_MAX && summary.models.len() <= MODELS_MAX);
    let models = summary.models.iter().map(|entry| entry.model.len());
    assert!(
        models
            .clone()
            .all(|len| (1..=MODEL_BYTES_MAX).contains(&len))
    );
    assert!(
        summary.models.capacity() <= 16 * bytes.len() + 64,
        "more memory than was sent"
    );
    let len = needed_len(bytes, |part| Summary::decode(part).is_ok());
    if bytes.len() - len < 64 {
        assert_eq!(Summary::decode(&bytes[..len]), Ok(summary.clone()));
    }
    let encoded = summary.encode();
    assert!(
        encoded.len() <= bytes.len(),
        "the form that is written is the shortest"
    );
    assert_eq!(Summary::decode(&encoded), Ok(summary));
}

fn check_digest(bytes: &[u8]) {
    let Ok(digest) = PeerDigest::decode(bytes) else {
        return;
    };
    assert!(bytes.len() <= DIGEST_BYTES_MAX);
    assert!(
        digest
            .prefixes
            .iter()
            .all(|prefix| usize::from(prefix.place) < PLACES)
    );
    assert!(digest.prefixes.is_sorted());
    assert!(
        digest.prefixes.capacity() <= 16 * bytes.len() + 64,
        "more memory than was sent"
    );
    let encoded = digest.encode();
    assert!(encoded.len() <= bytes.len());
    assert_eq!(PeerDigest::decode(&encoded), Ok(digest));
}

fn check_share(bytes: &[u8]) {
    let Ok(share) = Share::decode(bytes) else {
        return;
    };
    assert!(bytes.len() <= SHARE_BYTES_MAX && share.entries.len() <= SHARED_MAX);
    assert!(
        share.entries.capacity() <= 16 * bytes.len() + 64,
        "more memory than was sent"
    );
    for entry in &share.entries {
        assert!((entry.place as usize) < SHARED_MAX);
        assert!(entry.began.capacity() <= 16 * bytes.len() + 64);
        assert!(entry.ended.capacity() <= 16 * bytes.len() + 64);
        if let Page::New { snapshot, .. } = &entry.page {
            assert!(snapshot.possible());
        }
    }
    let encoded = share.encode().expect("what was read can be written");
    assert!(encoded.len() <= bytes.len());
    assert_eq!(Share::decode(&encoded), Ok(share));
}
