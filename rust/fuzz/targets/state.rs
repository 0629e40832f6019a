//! A state that another process has left: the input is a list of sections, which get the frame and the
//! checksum that belong to them. Whatever they say, the router's parts agree with each other afterwards.

use skylb_core::engine::ask::{Ask, Report};
use skylb_core::engine::config::Config;
use skylb_core::engine::effect::Outcome;
use skylb_core::engine::fleet::snapshot::Snapshot;
use skylb_core::engine::keep::file::{sealed, sections};
use skylb_core::engine::keep::state::{self, Head, StateWriter};
use skylb_core::engine::router::{ModelList, Router};
use skylb_core::http::route::Route;
use skylb_core::id::{ReplicaId, RequestId};
use skylb_core::prompt::Digest;
use skylb_core::tenant::Tenant;
use skylb_core::time::{Instant, Span};

const REPLICAS: u32 = 2;
const NOW: Instant = Instant::from_ns(60_000_000_000);

fn router() -> Router {
    let mut router = Router::new(Config::sample(), b"0123456789abcdef", 7);
    let fleet: Vec<_> = (0..REPLICAS)
        .map(|n| (ReplicaId(n), format!("http://10.0.0.{n}:8000")))
        .collect();
    let mut out = Vec::new();
    router.set_replicas(&fleet, NOW, &mut out);
    for (id, _) in fleet {
        let models = [("m".to_owned(), None)];
        router.set_listing(id, ModelList::Whole(&models), NOW, &mut out);
        let idle = Snapshot {
            running: Some(0),
            waiting: Some(0),
            ..Snapshot::default()
        };
        router.observe(id, idle, NOW, NOW, &mut out);
    }
    router
}

fn serve(router: &mut Router, number: u64) {
    let ask = Ask {
        route: Route::ChatCompletions,
        path: b"/v1/chat/completions",
        content_type: None,
        key: None,
        class: None,
        trusted: false,
        credential: None,
        body_bytes: 0,
        tenant: Tenant::Nobody,
        forwarded: None,
    };
    let hash = |n: u64| (number % 3 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ n << 32 | n);
    let mut digest = Digest {
        model: "m".to_owned(),
        retry_safe: true,
        prompt_bytes: 640,
        blocks: (1..=10).map(hash).collect(),
        key: Some(number % 5),
        ..Digest::default()
    };
    let (id, mut out) = (RequestId(number), Vec::new());
    router
        .place(id, &ask, &mut digest, NOW, &mut out)
        .expect("a number of its own");
    router.first_byte(id, None, NOW, &mut out);
    router.complete(id, Outcome::Ok, Report::default(), NOW, &mut out);
}

fn written(requests: u64) -> Vec<u8> {
    let mut router = router();
    for number in 1..=requests {
        serve(&mut router, number);
    }
    let mut writer = StateWriter::new(Head::default(), 1 << 20, None);
    let parts = std::iter::from_fn(|| router.export(&mut writer, NOW));
    parts.flatten().collect()
}

/// The sections of real states, each with its length.
pub fn seeds() -> Vec<Vec<u8>> {
    let states = [0, 1, 12].map(written);
    let seed = |state: &Vec<u8>| {
        let found = sections(state).expect("a whole state");
        let script = found.into_iter().flat_map(|(kind, payload)| {
            let length = u16::try_from(payload.len()).expect("a seed is short");
            [&[kind][..], &length.to_le_bytes(), payload].concat()
        });
        script.collect()
    };
    states.iter().map(seed).collect()
}

pub fn run(data: &[u8]) {
    let mut found = Vec::new();
    let mut rest = data;
    while let Some(([kind, low, high], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(behind.len());
        let (payload, further) = behind.split_at(length);
        found.push((*kind, payload));
        rest = further;
    }
    let state = sealed(&found);
    assert_eq!(sections(&state).as_deref(), Ok(&found[..]));
    let _either = state::head(&state);
    let _none = state::head(data);
    let mut router = router();
    let imported = router.import(&state, Span::from_ms(5), NOW);
    assert_eq!(router.check_invariants(), Ok(()), "after {imported:?}");
    for number in 1..=3 {
        serve(&mut router, number);
    }
    assert_eq!(
        router.check_invariants(),
        Ok(()),
        "requests after {imported:?}"
    );
}
