//! The router driven by hand, and as a whole against an oracle.

mod adopting;
mod caching;
mod digests;
mod history;
mod keeping;
mod learning;
mod liars;
mod limits;
mod model;
mod models;
mod notice;
mod order;
mod peers;
mod predicting;
mod pulse;
mod queueing;
mod receipts;
mod rehearsals;
mod resuming;
mod retries;
mod routing;
mod scaling;
mod sharing;
mod spared;
mod switching;
mod telling;
mod waiting;

use super::*;
use crate::engine::config::{AllowanceRule, ClassRule, Policy, PushRule};
use crate::engine::effect::{Outcome, Push, Reject, Tell};
use crate::engine::fleet::failure::{Failure, Unread};
use crate::engine::fleet::snapshot::Snapshot;
use crate::engine::mesh::peer::Presence;
use crate::http::route::Route;
use crate::id::ReplicaId;
use crate::prompt::class::Class;
use crate::tenant::Tenant;

const MS: Span = Span::from_ns(1_000_000);
const S: Span = Span::from_secs(1);
/// Of a prompt of about 32,000 tokens: seconds of computing.
const PROMPT_BLOCKS: u64 = 2_000;

/// A router, its clock, and the effects of the last call.
struct Drive {
    router: Router,
    now: Instant,
    last_id: u64,
    calls: u64,
    /// Probes asked for since the test looked last.
    probes: Vec<u32>,
    /// Messages, likewise.
    tells: Vec<Tell>,
}

fn idle() -> Snapshot {
    load(0, 0)
}

fn load(running: u32, waiting: u32) -> Snapshot {
    Snapshot {
        running: Some(running),
        waiting: Some(waiting),
        ..Snapshot::default()
    }
}

fn ask(route: Route) -> Ask<'static> {
    Ask {
        route,
        path: b"/v1/chat/completions",
        content_type: None,
        key: None,
        class: None,
        trusted: false,
        credential: None,
        body_bytes: 0,
        tenant: Tenant::Nobody,
        forwarded: None,
    }
}

fn digest(model: &str, blocks: &[u64]) -> Digest {
    Digest {
        model: model.to_owned(),
        retry_safe: true,
        prompt_bytes: blocks.len() * 64,
        blocks: blocks.to_vec(),
        ..Digest::default()
    }
}

/// Selective pushing with the paper's allowance of one, and no ramp to wait for.
fn config() -> Config {
    Config {
        push: PushRule::Pending,
        allowance: AllowanceRule::One,
        ramp_ns: Span::ZERO,
        ..Config::sample()
    }
}

impl Drive {
    /// `replicas` ready, idle replicas that serve "m".
    fn new(config: Config, replicas: u32) -> Self {
        let router = Router::new(config, b"0123456789abcdef", 7);
        let mut drive = Self {
            router,
            now: Instant::ZERO + S,
            last_id: 0,
            calls: 0,
            probes: Vec::new(),
            tells: Vec::new(),
        };
        drive.set_replicas(0..replicas);
        for replica in 0..replicas {
            drive.set_models(replica, &["m"]);
            assert_eq!(drive.observe(replica, idle()), []);
        }
        drive
    }

    fn call(&mut self, call: impl FnOnce(&mut Router, Instant, &mut Vec<Effect>)) -> Vec<Effect> {
        let mut out = Vec::new();
        call(&mut self.router, self.now, &mut out);
        self.calls += 1;
        let sound = if self.calls.is_multiple_of(64) {
            self.router.check_invariants()
        } else {
            self.router.check_decisions()
        };
        assert_eq!(sound, Ok(()));
        self.now += MS;
        let mut requests = Vec::new();
        for effect in out {
            match effect {
                Effect::Probe(replica) => self.probes.push(replica.0),
                Effect::Tell(tell) => self.tells.push(tell),
                effect => requests.push(effect),
            }
        }
        requests
    }

    fn set_replicas(&mut self, ids: impl IntoIterator<Item = u32>) -> Vec<Effect> {
        let fleet: Vec<_> = ids
            .into_iter()
            .map(|id| (ReplicaId(id), format!("http://replica-{id}")))
            .collect();
        self.call(|router, now, out| router.set_replicas(&fleet, now, out))
    }

    fn set_models(&mut self, replica: u32, models: &[&str]) -> Vec<Effect> {
        let models: Vec<_> = models
            .iter()
            .map(|name| ((*name).to_owned(), Some(4_096)))
            .collect();
        self.call(|router, now, out| {
            router.set_listing(ReplicaId(replica), ModelList::Whole(&models), now, out);
        })
    }

    fn drain(&mut self, replica: u32, draining: bool) -> Vec<Effect> {
        self.call(|router, now, out| {
            router.set_draining(ReplicaId(replica), draining, now, out);
        })
    }

    fn set_policy(&mut self, policy: Policy) -> Vec<Effect> {
        self.call(|router, now, out| router.set_policy(policy, now, out))
    }

    fn observe(&mut self, replica: u32, snapshot: Snapshot) -> Vec<Effect> {
        self.call(|router, now, out| {
            router.observe(ReplicaId(replica), snapshot, now, now, out);
        })
    }

    fn observe_failed(&mut self, replica: u32, reachable: bool) -> Vec<Effect> {
        self.probe_fails(
            replica,
            if reachable {
                Unread::Unreadable
            } else {
                Unread::Refused
            },
        )
    }

    fn probe_fails(&mut self, replica: u32, unread: Unread) -> Vec<Effect> {
        self.call(|router, now, out| {
            router.observe_failed(ReplicaId(replica), unread, now, out);
        })
    }

    fn submit_as(&mut self, ask: Ask<'_>, mut digest: Digest) -> Vec<Effect> {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        self.call(|router, now, out| {
            router.place(id, &ask, &mut digest, now, out).unwrap();
        })
    }

    /// A prompt that shares nothing with those of other families.
    fn submit_of(&mut self, family: u64) -> Vec<Effect> {
        let blocks: Vec<u64> = (1..=PROMPT_BLOCKS)
            .map(|n| (family + 1) * 1_000_000 + n)
            .collect();
        self.submit_as(ask(Route::ChatCompletions), digest("m", &blocks))
    }

    /// First bytes, each of which lets one held request start: these, `count` of them.
    fn one_after_another(&mut self, first: u64, count: usize) -> Vec<u64> {
        let mut last = first;
        let mut next = || {
            last = pushed(&self.first_byte(last)).0;
            last
        };
        (0..count).map(|_| next()).collect()
    }

    fn submit(&mut self, model: &str) -> Vec<Effect> {
        self.submit_as(ask(Route::ChatCompletions), digest(model, &[]))
    }

    fn first_byte(&mut self, id: u64) -> Vec<Effect> {
        self.call(|router, now, out| router.first_byte(RequestId(id), None, now, out))
    }

    fn complete(&mut self, id: u64) -> Vec<Effect> {
        self.end(id, Outcome::Ok)
    }

    fn end(&mut self, id: u64, outcome: Outcome) -> Vec<Effect> {
        self.call(|router, now, out| {
            router.complete(RequestId(id), outcome, Report::default(), now, out);
        })
    }

    fn retry(&mut self, id: u64, failure: Failure, sent: bool) -> Vec<Effect> {
        self.call(|router, now, out| router.retry(RequestId(id), failure, sent, now, out))
    }

    fn tick_at(&mut self, now: Instant) -> Vec<Effect> {
        self.now = now;
        self.call(Router::tick)
    }

    fn counter(&self, name: &str) -> u64 {
        let counters = self.router.counters();
        counters
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, value)| *value)
            .unwrap()
    }
}

fn hold(id: u64) -> Effect {
    Effect::Hold(RequestId(id))
}

/// The only effect, a push: `(request, replica, attempt)`.
fn pushed(effects: &[Effect]) -> (u64, u32, u32) {
    match effects {
        [
            Effect::Push(Push {
                request,
                replica,
                attempt,
                ..
            }),
        ] => (request.0, replica.0, *attempt),
        other => panic!("not one push: {other:?}"),
    }
}

/// The requests pushed, in order; there are no other effects.
fn all_pushed(effects: &[Effect]) -> Vec<u64> {
    let id = |effect: &Effect| match effect {
        Effect::Push(push) => push.request.0,
        other => panic!("not a push: {other:?}"),
    };
    effects.iter().map(id).collect()
}

/// The only effect, a refusal.
fn rejected(effects: &[Effect]) -> &Reject {
    match effects {
        [Effect::Reject(reject)] => reject,
        other => panic!("not one refusal: {other:?}"),
    }
}
