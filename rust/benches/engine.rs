//! The router's decisions without Python: place + complete over a large tree, and the choice among
//! many replicas. `bench/engine.py` measures the same through Python, reading of bodies included.

#![expect(clippy::disallowed_types, reason = "it measures real time")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use skylb_core::engine::config::{AllowanceRule, Config, Policy, PushRule, TenantRule};
use skylb_core::engine::effect::{Effect, Outcome};
use skylb_core::engine::fleet::snapshot::Snapshot;
use skylb_core::engine::router::{Ask, ModelList, Report, Router};
use skylb_core::http::route::Route;
use skylb_core::id::{ReplicaId, RequestId};
use skylb_core::prompt::Digest;
use skylb_core::rng::Rng;
use skylb_core::tenant::Tenant;
use skylb_core::time::{Instant as Moment, Span};

const NOW_NS: Moment = Moment::from_ns(1_000_000_000);
const MODEL: &str = "meta-llama/Llama-3.1-8B-Instruct";
/// Blocks in the tree before anything is measured.
const TREE_BLOCKS: u64 = 1_000_000;

const ASK: Ask<'static> = Ask {
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

/// Ready replicas that serve the model and take whatever comes.
fn router(policy: Policy, replicas: u32) -> Router {
    let config = Config {
        policy,
        push: PushRule::Blind,
        in_flight_max: 1_000_000,
        replica_kv_tokens: 1 << 40,
        tree_bytes_max: 1 << 30,
        ..Config::sample()
    };
    router_of(config, replicas)
}

/// Ready, idle replicas that serve the model.
fn router_of(config: Config, replicas: u32) -> Router {
    let mut router = Router::new(config, b"0123456789abcdef", 7);
    let fleet: Vec<_> = (0..replicas)
        .map(|id| (ReplicaId(id), format!("http://{id}")))
        .collect();
    let mut out = Vec::new();
    router.set_replicas(&fleet, NOW_NS, &mut out);
    for id in 0..replicas {
        let models = [(MODEL.to_owned(), None)];
        router.set_listing(ReplicaId(id), ModelList::Whole(&models), NOW_NS, &mut out);
        let idle = Snapshot {
            running: Some(0),
            waiting: Some(0),
            ..Snapshot::default()
        };
        router.observe(ReplicaId(id), idle, NOW_NS, NOW_NS, &mut out);
    }
    router
}

fn digest(blocks: Vec<u64>, key: u64) -> Digest {
    Digest {
        model: MODEL.to_owned(),
        retry_safe: true,
        prompt_bytes: blocks.len() * 64,
        blocks,
        key: Some(key),
        ..Digest::default()
    }
}

/// Chained hashes as random as real ones: a shared beginning, then the conversation's own.
fn prompt(conversation: u64, len: usize) -> Vec<u64> {
    let mut shared = Rng::new(1);
    let mut own = Rng::new(conversation + 2);
    let blocks = (0..len).map(|n| {
        if n < 16 {
            shared.next_u64()
        } else {
            own.next_u64()
        }
    });
    blocks.collect()
}

/// One request from submission to end.
fn serve(router: &mut Router, id: &mut u64, digest: &mut Digest, out: &mut Vec<Effect>) {
    serve_as(router, &ASK, id, digest, out);
}

fn serve_as(
    router: &mut Router,
    ask: &Ask<'_>,
    id: &mut u64,
    digest: &mut Digest,
    out: &mut Vec<Effect>,
) {
    *id += 1;
    let placed = router.place(RequestId(*id), ask, digest, NOW_NS, out);
    black_box(&placed);
    router.first_byte(RequestId(*id), None, NOW_NS, out);
    router.complete(RequestId(*id), Outcome::Ok, Report::default(), NOW_NS, out);
    black_box(&out);
    out.clear();
}

fn large_tree(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("place_and_complete_over_a_million_blocks");
    for (name, len) in [("4kB", 64), ("400kB", 6_250)] {
        let mut router = router(Policy::Prefix, 4);
        let (mut id, mut out) = (0, Vec::new());
        let conversations = TREE_BLOCKS / len as u64;
        for conversation in 0..conversations {
            serve(
                &mut router,
                &mut id,
                &mut digest(prompt(conversation, len), 1),
                &mut out,
            );
        }
        let mut rng = Rng::new(9);
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || digest(prompt(rng.next_u64() % conversations, len), 1),
                |digest| serve(&mut router, &mut id, digest, &mut out),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn many_replicas(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("place_and_complete_among_1000_replicas");
    for policy in [
        Policy::Prefix,
        Policy::Ring,
        Policy::RoundRobin,
        Policy::LeastLoad,
        Policy::TwoChoices,
        Policy::BoundedRing,
        Policy::CacheAware,
        Policy::Predictive,
        Policy::Smg,
        Policy::LlmD,
        Policy::Dynamo,
        Policy::Preble,
        Policy::Gorgo,
    ] {
        let mut router = router(policy, 1_000);
        let (mut id, mut out) = (0, Vec::new());
        let mut rng = Rng::new(9);
        group.bench_function(BenchmarkId::from_parameter(policy.name()), |bencher| {
            bencher.iter_batched_ref(
                || digest(prompt(rng.next_u64() % 5_000, 64), rng.next_u64()),
                |digest| serve(&mut router, &mut id, digest, &mut out),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Replicas with one pending request each, and held requests of conversations that are cached.
struct Full {
    router: Router,
    /// Whose the requests are, in turn; nobody's if empty.
    tenants: Vec<String>,
    pending: Vec<u64>,
    id: u64,
    rng: Rng,
    out: Vec<Effect>,
}

const CONVERSATIONS: u64 = 4_000;

impl Full {
    fn new(replicas: u32, held: usize, tenants: usize, tenant_rule: TenantRule) -> Self {
        let config = Config {
            tenant_rule,
            hold_len_max: 100_000,
            push: PushRule::Pending,
            allowance: AllowanceRule::One,
            ramp_ns: Span::ZERO,
            hold_age_max_ns: Some(Span::MAX),
            hold_passes_max: u32::MAX,
            replica_kv_tokens: 1 << 40,
            tree_bytes_max: 1 << 30,
            ..Config::sample()
        };
        let mut full = Self {
            router: router_of(config, replicas),
            tenants: (0..tenants).map(|tenant| tenant.to_string()).collect(),
            pending: vec![0; replicas as usize],
            id: 0,
            rng: Rng::new(9),
            out: Vec::new(),
        };
        for conversation in 0..CONVERSATIONS {
            let mut digest = digest(prompt(conversation, 64), conversation);
            serve(&mut full.router, &mut full.id, &mut digest, &mut full.out);
        }
        for _ in 0..replicas as usize + held {
            full.submit();
        }
        assert_eq!(full.router.hold_requests(), held);
        full
    }

    fn submit(&mut self) {
        self.id += 1;
        let conversation = self.rng.next_u64() % CONVERSATIONS;
        let mut digest = digest(prompt(conversation, 64), conversation);
        let turn = usize::try_from(self.id).unwrap_or(0) % self.tenants.len().max(1);
        let tenant = self.tenants.get(turn).map(String::as_str);
        let ask = Ask {
            tenant: tenant.map_or(Tenant::Nobody, Tenant::Named),
            ..ASK
        };
        let (router, out) = (&mut self.router, &mut self.out);
        let placed = router.place(RequestId(self.id), &ask, &mut digest, NOW_NS, out);
        black_box(&placed);
        self.note();
    }

    fn note(&mut self) {
        for effect in self.out.drain(..) {
            if let Effect::Push(push) = effect {
                self.pending[push.replica.0 as usize] = push.request.0;
            }
        }
    }

    /// A replica gets room: the request that is to have it is pushed.
    fn free(&mut self, replica: usize) -> u64 {
        let id = self.pending[replica];
        self.router
            .first_byte(RequestId(id), None, NOW_NS, &mut self.out);
        id
    }

    /// Everything as it was, with another request held.
    fn restore(&mut self, id: u64) {
        self.note();
        self.router.complete(
            RequestId(id),
            Outcome::Ok,
            Report::default(),
            NOW_NS,
            &mut self.out,
        );
        self.note();
        self.submit();
    }
}

/// A replica gets room, and one of so many held requests of so many tenants starts there.
fn room_appears(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("room_appears_among_64_replicas");
    for (name, held, tenants, rule) in [
        ("256_held", 256, 0, TenantRule::None),
        ("256_held_of_nobody_fair", 256, 0, TenantRule::Fair),
        ("256_held_of_10_tenants_fair", 256, 10, TenantRule::Fair),
        ("10000_held", 10_000, 0, TenantRule::None),
        (
            "10000_held_of_1000_tenants_fair",
            10_000,
            1_000,
            TenantRule::Fair,
        ),
    ] {
        let mut full = Full::new(64, held, tenants, rule);
        let mut replica = 0;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut taken = Duration::ZERO;
                for _ in 0..rounds {
                    replica = (replica + 1) % 64;
                    let start = Instant::now();
                    let id = black_box(full.free(replica));
                    taken += start.elapsed();
                    full.restore(id);
                }
                taken
            });
        });
        assert_eq!(full.router.hold_requests(), held);
    }
    group.finish();
}

/// What terms of a thousand tenants add: to a request of a tenant with all limits, of one without any, and
/// where there are no terms.
fn tenants(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("place_and_complete_under_limits");
    let limits = r#""requests_per_minute": 1000000000, "tokens_per_minute": 1000000000000, "concurrent": 1000"#;
    let names: Vec<String> = (0..1_000)
        .map(|n| format!(r#"{{"name": "tenant-{n}", "weight": 1, {limits}}}"#))
        .collect();
    let free = r#"{"name": "free", "weight": 1}"#;
    let terms = format!(r#"{{"tenants": [{}, {free}]}}"#, names.join(","));
    for (name, tenant, limited) in [
        ("off", "tenant-500", false),
        ("no limit", "free", true),
        ("limited", "tenant-500", true),
    ] {
        let mut router = router(Policy::LeastLoad, 4);
        if limited {
            let set = router.set_tenants(terms.as_bytes(), NOW_NS);
            assert!(set.is_ok());
        }
        let (mut id, mut out) = (0, Vec::new());
        let ask = Ask {
            tenant: Tenant::Named(tenant),
            ..ASK
        };
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || digest(Vec::new(), 1),
                |digest| serve_as(&mut router, &ask, &mut id, digest, &mut out),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A request enters a hold of 10,000, and its client leaves.
fn held_and_left(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("held_and_left_beside_10000");
    for (name, tenants, rule) in [
        ("of_nobody", 0, TenantRule::None),
        ("of_1000_tenants_fair", 1_000, TenantRule::Fair),
    ] {
        let mut full = Full::new(64, 10_000, tenants, rule);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                full.submit();
                let (id, out) = (RequestId(full.id), &mut full.out);
                let report = Report::default();
                full.router
                    .complete(id, Outcome::ClientLeft, report, NOW_NS, out);
            });
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    large_tree,
    many_replicas,
    room_appears,
    held_and_left,
    tenants
);
criterion_main!(benches);
