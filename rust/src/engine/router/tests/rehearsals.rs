//! A rehearsal changes nothing and says what happens next. Receipts change nothing either.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::history::{MODELS, REPLICAS, Step, settings, step};
use super::*;
use crate::engine::mesh::listing::Listing;
use crate::id::PeerId;

const EU: PeerId = PeerId(1);
const US: PeerId = PeerId(2);

/// Two routers with one history. Only one of them rehearses requests and keeps receipts.
struct Twins {
    plain: Drive,
    rehearsing: Drive,
    /// Their peer.
    eu: Drive,
    /// Requests that have not ended: at a replica without a first byte, or not.
    live: BTreeMap<u64, bool>,
    responses: Vec<u64>,
    /// Verdicts that were compared with what came.
    compared: usize,
}

fn empty(config: &Config) -> Drive {
    Drive {
        router: Router::new(config.clone(), b"0123456789abcdef", 5),
        now: Instant::ZERO + S,
        last_id: 0,
        calls: 0,
        probes: Vec::new(),
        tells: Vec::new(),
    }
}

/// What a step asks for, if it submits something.
fn submission(step: &Step, responses: &[u64]) -> Option<(Ask<'static>, Digest)> {
    let Step::Submit {
        model,
        family,
        blocks,
        light,
        follow,
        safe,
        class,
    } = *step
    else {
        return None;
    };
    let made = follow.filter(|_| !responses.is_empty());
    let made = made.map(|nth| responses[nth % responses.len()]);
    let blocks: Vec<u64> = (0..blocks).map(|n| family * 1_000 + n + 1).collect();
    let digest = Digest {
        retry_safe: safe,
        stream: family % 2 == 0,
        class: Class::ALL[class],
        previous_response_id: made.map(|id| format!("resp_{id}")),
        key: (family > 2).then_some(family),
        ..digest(MODELS[model], &blocks)
    };
    let route = if light {
        Route::Tokenize
    } else {
        Route::ChatCompletions
    };
    Some((ask(route), digest))
}

impl Twins {
    fn new(config: &Config) -> Self {
        let mut twins = Self {
            plain: empty(config),
            rehearsing: empty(config),
            eu: Drive::new(config.clone(), 2),
            live: BTreeMap::new(),
            responses: Vec::new(),
            compared: 0,
        };
        let now = twins.rehearsing.now;
        twins.rehearsing.router.keep_receipts(8, now);
        twins.eu.router.set_self("eu", "eu", 12);
        let us = [Listing::new(US, "us", "us")];
        (twins.eu).call(|router, now, out| router.set_peers(&us, now, out).unwrap());
        twins.plain.router.set_self("us", "us", 11);
        twins.rehearsing.router.set_self("us", "us", 11);
        let eu = [Listing::new(EU, "eu", "eu")];
        twins.both(|router, now, out| router.set_peers(&eu, now, out).unwrap());
        twins.both(|router, now, out| router.peer_state(EU, Presence::Alive, now, out));
        twins.step(&Step::Fleet { mask: 0b1111 });
        for replica in 0..REPLICAS {
            twins.step(&Step::Models {
                replica,
                mask: 0b011,
            });
            twins.step(&Step::Observe {
                replica,
                running: 0,
                waiting: 0,
                late: false,
            });
        }
        twins
    }

    fn pick(&self, nth: usize, quiet: bool) -> Option<u64> {
        let ids = self.live.iter().filter(|(_, is)| **is || !quiet);
        let ids: Vec<_> = ids.map(|(id, _)| *id).collect();
        (!ids.is_empty()).then(|| ids[nth % ids.len()])
    }

    fn rehearse(&mut self, ask: &Ask<'_>, digest: Digest) -> Value {
        let now = self.rehearsing.now;
        let said = self.rehearsing.router.rehearse("r", ask, digest, now);
        serde_json::from_slice(&said.unwrap()).unwrap()
    }

    /// The same call of both, with the same effects.
    fn both(&mut self, call: impl Fn(&mut Router, Instant, &mut Vec<Effect>)) -> Vec<Effect> {
        let effects = self.plain.call(&call);
        let now = self.rehearsing.now;
        let others = self.rehearsing.call(&call);
        assert_eq!(effects, others);
        self.rehearsing.router.note_effects(&effects, now);
        effects
    }

    fn submit(&mut self, ask: &Ask<'_>, digest: &Digest) -> Vec<Effect> {
        let waits = !self.plain.router.hold.is_empty();
        let verdict = self.rehearse(ask, digest.clone());
        self.plain.last_id += 1;
        let id = RequestId(self.plain.last_id);
        let now = self.rehearsing.now;
        let router = &mut self.rehearsing.router;
        router.begin_receipt(id, &format!("r{}", id.0), ask, digest, now);
        let effects = self.both(|router, now, out| {
            router
                .place(id, ask, &mut digest.clone(), now, out)
                .unwrap();
        });
        self.live.insert(id.0, false);
        let own = effects.iter().find(|effect| effect.request() == Some(id));
        if !waits {
            self.compared += 1;
            self.compare(&verdict["decision"], own.unwrap());
        }
        effects
    }

    fn compare(&self, said: &Value, came: &Effect) {
        let (result, replica, code) = match came {
            Effect::Push(push) => {
                let gauges = self.plain.router.gauges();
                let mut named = gauges.iter().filter(|of| of.replica == push.replica);
                let blocks = said["match_blocks"].as_u64().unwrap();
                assert_eq!(blocks, u64::from(push.match_blocks));
                let predicted = said["predicted_ttft_ns"].as_u64();
                assert_eq!(predicted, push.predicted_ttft_ns.map(Span::ns));
                ("push", named.next().map(|of| of.name.clone()), None)
            }
            Effect::Forward(forward) => {
                let blocks = said["match_blocks"].as_u64().unwrap();
                assert_eq!(blocks, u64::from(forward.match_blocks));
                assert_eq!(said["peer"].as_str(), Some("eu"), "{said}");
                ("forward", None, None)
            }
            Effect::Hold(_) => ("hold", None, None),
            Effect::Reject(reject) => ("refuse", None, Some(reject.code)),
            other => panic!("of a new request: {other:?}"),
        };
        assert_eq!(said["result"].as_str(), Some(result), "{said}");
        assert_eq!(said["replica"].as_str(), replica.as_deref(), "{said}");
        assert_eq!(said["code"].as_str(), code, "{said}");
    }

    fn apply(&mut self, step: &Step) -> Vec<Effect> {
        match *step {
            Step::Submit { .. } => {
                let (ask, digest) = submission(step, &self.responses).unwrap();
                self.submit(&ask, &digest)
            }
            Step::FirstByte { nth } => {
                let id = self.pick(nth, true).unwrap_or(u64::MAX);
                self.live.entry(id).and_modify(|quiet| *quiet = false);
                self.responses.push(id);
                let response = format!("resp_{id}");
                let id = RequestId(id);
                self.both(|router, now, out| router.first_byte(id, Some(&response), now, out))
            }
            Step::Fail { nth, failure, sent } => {
                let failure = [Failure::Connect, Failure::Reset, Failure::Full][failure % 3];
                let id = RequestId(self.pick(nth, true).unwrap_or(u64::MAX));
                self.live.entry(id.0).and_modify(|quiet| *quiet = false);
                self.both(|router, now, out| router.retry(id, failure, sent, now, out))
            }
            Step::Complete { nth, outcome } => {
                let outcome = Outcome::from_number(u8::try_from(outcome).unwrap()).unwrap();
                let id = self.pick(nth, false).unwrap_or(u64::MAX);
                self.live.remove(&id);
                let id = RequestId(id);
                self.both(|router, now, out| {
                    router.complete(id, outcome, Report::default(), now, out);
                })
            }
            Step::Observe {
                replica,
                running,
                waiting,
                late,
            } => {
                let old = if late { 80 * MS } else { Span::ZERO };
                let (id, page) = (ReplicaId(replica), load(running, waiting));
                self.both(|router, now, out| router.observe(id, page.clone(), now - old, now, out))
            }
            Step::ObserveFailed { replica, reachable } => {
                let unread = if reachable {
                    Unread::Unreadable
                } else {
                    Unread::Refused
                };
                let id = ReplicaId(replica);
                self.both(|router, now, out| router.observe_failed(id, unread, now, out))
            }
            Step::Drain { replica, draining } => {
                let id = ReplicaId(replica);
                self.both(|router, now, out| router.set_draining(id, draining, now, out))
            }
            Step::Models { replica, mask } => {
                let served = (0..3).filter(|n| mask & (1 << n) != 0);
                let served: Vec<_> = served.map(|n| (MODELS[n].to_owned(), None)).collect();
                self.both(|router, now, out| {
                    router.set_listing(ReplicaId(replica), ModelList::Whole(&served), now, out);
                })
            }
            Step::Fleet { mask } => {
                let listed = (0..REPLICAS).filter(|id| mask & (1 << id) != 0);
                let listed = listed.map(|id| (ReplicaId(id), format!("http://replica-{id}")));
                let listed: Vec<_> = listed.collect();
                self.both(|router, now, out| router.set_replicas(&listed, now, out))
            }
            Step::Policy { policy } => {
                self.both(|router, now, out| router.set_policy(policy, now, out))
            }
            Step::Probe => {
                let mut effects = self.heard();
                effects.extend(self.both(Router::tick));
                effects
            }
            Step::Wait { ms } => {
                self.plain.now += ms * MS;
                self.rehearsing.now = self.plain.now;
                self.both(Router::tick)
            }
        }
    }

    /// The peer tells of its room. It has what is forwarded done at once.
    fn heard(&mut self) -> Vec<Effect> {
        self.eu.now = self.rehearsing.now;
        let summary = self.eu.router.summary(US, self.eu.now).unwrap();
        self.both(|router, now, out| router.merge_peer(EU, &summary, now, out).unwrap())
    }

    /// The region is evacuated, or no longer.
    fn evacuate(&mut self, evacuating: bool) {
        self.both(|router, now, out| router.set_evacuating(evacuating, now, out));
    }

    fn step(&mut self, step: &Step) {
        let mut effects = self.apply(step);
        while let Some(effect) = effects.pop() {
            match effect {
                Effect::Push(push) => _ = self.live.insert(push.request.0, true),
                Effect::Hold(id) => _ = self.live.insert(id.0, false),
                Effect::Reject(reject) => _ = self.live.remove(&reject.request.0),
                Effect::Expire(id) => _ = self.live.remove(&id.0),
                Effect::Withdraw(id) => {
                    self.live.insert(id.0, false);
                    let failure = Failure::Withdrawn;
                    let more =
                        self.both(|router, now, out| router.retry(id, failure, true, now, out));
                    effects.extend(more);
                }
                Effect::Forward(forward) => _ = self.live.insert(forward.request.0, true),
                Effect::Probe(_) | Effect::Tell(_) => {}
            }
        }
    }

    /// All that operators see of both is the same, to the byte.
    fn check(&self) {
        let seen = |drive: &Drive| {
            let state = drive.router.state(drive.now).unwrap();
            (
                String::from_utf8(state).unwrap(),
                drive.router.counters(),
                drive.router.check_invariants(),
            )
        };
        assert_eq!(seen(&self.plain), seen(&self.rehearsing));
    }
}

/// A history's settings, under any policy.
fn any_policy() -> impl Strategy<Value = Config> {
    (settings(), 0..Policy::ALL.len()).prop_map(|(config, nth)| Config {
        policy: Policy::ALL[nth],
        explore_ratio: 0.2,
        ..config
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_rehearsal_changes_nothing_and_says_what_happens_next(
        config in any_policy(),
        history in prop::collection::vec((step(), step()), 1..250),
        evacuating in prop::bool::weighted(0.2),
    ) {
        let mut twins = Twins::new(&config);
        twins.evacuate(evacuating);
        for (step, other) in &history {
            // Of something else, before what happens; and of a model that nobody serves.
            if let Some((ask, digest)) = submission(other, &twins.responses) {
                twins.rehearse(&ask, digest.clone());
                twins.rehearse(&ask, Digest { model: "nobody\'s".to_owned(), ..digest });
            }
            twins.step(step);
            twins.check();
        }
        let receipts = twins.rehearsing.router.receipt_list(100, twins.rehearsing.now);
        let listed: Value = serde_json::from_slice(&receipts.unwrap().unwrap()).unwrap();
        prop_assert!(listed["kept"].as_u64().unwrap() <= 8);
    }
}

#[test]
fn a_verdict_says_why_with_every_figure() {
    let mut drive = Drive::new(
        Config {
            policy: Policy::Predictive,
            explore_ratio: 0.0,
            ..config()
        },
        3,
    );
    drive.drain(2, true);
    let blocks: Vec<u64> = (1..=40).collect();
    let first = drive.submit_as(ask(Route::ChatCompletions), digest("m", &blocks));
    let other = 1 - pushed(&first).1;
    let of = |drive: &mut Drive| {
        let (now, ask) = (drive.now, ask(Route::ChatCompletions));
        let said = drive.router.rehearse("r", &ask, digest("m", &blocks), now);
        serde_json::from_slice::<Value>(&said.unwrap()).unwrap()
    };
    let verdict = of(&mut drive);
    assert_eq!(verdict, of(&mut drive), "asked twice, it says the same");
    let search = &verdict["decision"]["search"];
    assert_eq!(search["policy"], "predictive");
    let closed = search["closed"].as_array().unwrap();
    let whys: Vec<_> = closed
        .iter()
        .map(|of| of["why"].as_str().unwrap())
        .collect();
    assert_eq!(
        whys,
        ["pending", "draining"],
        "the first has one that is pending"
    );
    let candidate = &search["candidates"][0];
    let (figures, score) = (&candidate["figures"], &candidate["score"]);
    let number = |of: &Value| of.as_u64().unwrap();
    let own = number(&figures["start_in_ns"])
        + number(&figures["uncached_tokens"]) * number(&figures["ns_per_token"]);
    assert_eq!(number(&figures["ttft_ns"]), own);
    assert_eq!(
        number(&score["total_ns"]),
        own + number(&score["imposed_ns"])
    );
    let name = format!("http://replica-{other}");
    assert_eq!(verdict["decision"]["replica"], name.as_str());
}
