//! The whole router against an oracle that keeps plain lists and searches them.
//!
//! The oracle does not predict which replica a policy takes. It knows what may never happen, and
//! what must be equal after every event.

mod follow;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::history::{MODELS, REPLICAS, Step, settings, step};
use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Nowhere,
    Held { deadline_ns: Instant },
    Replica { replica: u32, started: bool },
}

/// A request that has not ended.
#[derive(Debug, Clone)]
struct Live {
    model: usize,
    bound: Option<u32>,
    light: bool,
    at: At,
    attempts: u32,
    tried: Vec<u32>,
    held_ns: Span,
    class: usize,
    submitted_ns: Instant,
    /// Times that room it could use went to a younger request of its queue.
    passes: u32,
}

#[derive(Debug, Clone, Default)]
struct Facts {
    listed: bool,
    draining: bool,
    down: bool,
    models: u8,
}

struct Oracle {
    drive: Drive,
    live: BTreeMap<u64, Live>,
    replicas: Vec<Facts>,
    /// Replicas by the request whose response they made.
    responses: Vec<(u64, u32)>,
    /// Attempts that are to be given up.
    withdrawn: Vec<u64>,
    /// Replicas with a probe under way.
    probing: BTreeSet<u32>,
    ended: u64,
    /// First pushes.
    firsts: u64,
}

impl Oracle {
    fn new(config: Config) -> Self {
        let drive = Drive {
            router: Router::new(config, b"0123456789abcdef", 5),
            now: Instant::ZERO + S,
            last_id: 0,
            calls: 0,
            probes: Vec::new(),
            tells: Vec::new(),
        };
        let replicas = vec![Facts::default(); REPLICAS as usize];
        let mut oracle = Self {
            drive,
            live: BTreeMap::new(),
            replicas,
            responses: Vec::new(),
            withdrawn: Vec::new(),
            probing: BTreeSet::new(),
            ended: 0,
            firsts: 0,
        };
        oracle.step(&Step::Fleet { mask: 0b1111 });
        for replica in 0..REPLICAS {
            oracle.step(&Step::Models {
                replica,
                mask: 0b011,
            });
            oracle.step(&Step::Observe {
                replica,
                running: 0,
                waiting: 0,
                late: false,
            });
        }
        oracle
    }

    fn pick(&self, nth: usize, which: impl Fn(&Live) -> bool) -> Option<u64> {
        let ids: Vec<_> = self
            .live
            .iter()
            .filter(|(_, live)| which(live))
            .map(|(id, _)| *id)
            .collect();
        (!ids.is_empty()).then(|| ids[nth % ids.len()])
    }

    fn step(&mut self, step: &Step) {
        let effects = match *step {
            Step::Submit { .. } => self.submit(step),
            Step::FirstByte { nth } => self.first_byte(nth),
            Step::Fail { nth, failure, sent } => self.fail(nth, failure, sent),
            Step::Complete { nth, outcome } => self.complete(nth, outcome),
            Step::Observe { .. } => self.observe(step),
            Step::ObserveFailed { replica, reachable } => {
                let facts = &mut self.replicas[replica as usize];
                facts.down = if facts.listed { !reachable } else { facts.down };
                self.probing.remove(&replica);
                self.drive.observe_failed(replica, reachable)
            }
            Step::Drain { replica, draining } => {
                let facts = &mut self.replicas[replica as usize];
                facts.draining = if facts.listed {
                    draining
                } else {
                    facts.draining
                };
                self.drive.drain(replica, draining)
            }
            Step::Models { replica, mask } => {
                let facts = &mut self.replicas[replica as usize];
                facts.models = if facts.listed { mask } else { facts.models };
                let names: Vec<_> = (0..3)
                    .filter(|n| mask & (1 << n) != 0)
                    .map(|n| MODELS[n])
                    .collect();
                self.drive.set_models(replica, &names)
            }
            Step::Fleet { mask } => self.set_fleet(mask),
            Step::Policy { policy } => self.drive.set_policy(policy),
            Step::Probe => {
                let now = self.drive.now;
                self.drive.tick_at(now)
            }
            Step::Wait { ms } => self.drive.tick_at(self.drive.now + ms * MS),
        };
        self.apply(&effects);
        for replica in std::mem::take(&mut self.drive.probes) {
            assert!(self.replicas[replica as usize].listed);
            assert!(self.probing.insert(replica), "two probes under way");
        }
        while let Some(id) = self.withdrawn.pop() {
            let effects = self.fail_one(id, Failure::Withdrawn, true);
            self.apply(&effects);
        }
        self.compare();
    }

    fn complete(&mut self, nth: usize, outcome: usize) -> Vec<Effect> {
        let outcomes = [Outcome::Ok, Outcome::ClientLeft, Outcome::ReplicaFailed];
        let Some(id) = self.pick(nth, |_| true) else {
            return self.drive.complete(u64::MAX);
        };
        self.live.remove(&id);
        self.ended += 1;
        self.drive.end(id, outcomes[outcome])
    }

    fn observe(&mut self, step: &Step) -> Vec<Effect> {
        let Step::Observe {
            replica,
            running,
            waiting,
            late,
        } = *step
        else {
            return Vec::new();
        };
        let facts = &mut self.replicas[replica as usize];
        facts.down &= !facts.listed;
        self.probing.remove(&replica);
        let sent_ns = self.drive.now - if late { 80 * MS } else { Span::ZERO };
        self.drive.call(|router, now, out| {
            router.observe(
                ReplicaId(replica),
                load(running, waiting),
                sent_ns,
                now,
                out,
            );
        })
    }

    fn submit(&mut self, step: &Step) -> Vec<Effect> {
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
            return Vec::new();
        };
        let made = follow.filter(|_| !self.responses.is_empty());
        let made = made.map(|nth| self.responses[nth % self.responses.len()]);
        let blocks: Vec<u64> = (0..blocks).map(|n| family * 1_000 + n + 1).collect();
        let digest = Digest {
            retry_safe: safe,
            class: Class::ALL[class],
            previous_response_id: made.map(|(id, _)| format!("resp_{id}")),
            key: (family > 2).then_some(family),
            ..digest(MODELS[model], &blocks)
        };
        let route = if light {
            Route::Tokenize
        } else {
            Route::ChatCompletions
        };
        let bound = made.map(|(_, replica)| replica);
        let live = Live {
            model,
            bound,
            light,
            at: At::Nowhere,
            attempts: 0,
            tried: Vec::new(),
            held_ns: Span::ZERO,
            class,
            submitted_ns: self.drive.now,
            passes: 0,
        };
        self.live.insert(self.drive.last_id + 1, live);
        self.drive.submit_as(ask(route), digest)
    }

    fn first_byte(&mut self, nth: usize) -> Vec<Effect> {
        let quiet = |live: &Live| matches!(live.at, At::Replica { started: false, .. });
        let Some(id) = self.pick(nth, quiet) else {
            return self.drive.first_byte(u64::MAX);
        };
        let live = self.live.get_mut(&id).unwrap();
        let At::Replica { replica, started } = &mut live.at else {
            unreachable!("picked so")
        };
        *started = true;
        let response = (id % 3 == 0).then(|| format!("resp_{id}"));
        if response.is_some() {
            self.responses.push((id, *replica));
        }
        self.drive.call(|router, now, out| {
            router.first_byte(RequestId(id), response.as_deref(), now, out);
        })
    }

    fn fail(&mut self, nth: usize, failure: usize, sent: bool) -> Vec<Effect> {
        let quiet = |live: &Live| matches!(live.at, At::Replica { started: false, .. });
        let Some(id) = self.pick(nth, quiet) else {
            return self.drive.retry(u64::MAX, Failure::Reset, sent);
        };
        let failure = [
            Failure::Connect,
            Failure::Reset,
            Failure::Timeout,
            Failure::Full,
            Failure::Status(500),
            Failure::BadResponse,
            Failure::Limited,
            Failure::Status(502),
        ][failure];
        self.fail_one(id, failure, sent)
    }

    fn fail_one(&mut self, id: u64, failure: Failure, sent: bool) -> Vec<Effect> {
        let live = self.live.get_mut(&id).unwrap();
        live.attempts -= u32::from(failure.free(sent));
        if let At::Replica { replica, .. } = live.at {
            live.tried.push(replica);
        }
        live.at = At::Nowhere;
        self.drive.retry(id, failure, sent)
    }

    fn set_fleet(&mut self, mask: u8) -> Vec<Effect> {
        for (replica, facts) in self.replicas.iter_mut().enumerate() {
            let listed = mask & (1 << replica) != 0;
            if facts.listed != listed {
                // What a replica that comes back is known for is of no use to the oracle: a removed
                // one may or may not have been kept for its requests.
                facts.models = 0;
            }
            facts.listed = listed;
            // A driver gives up probes of what has left.
            self.probing.retain(|of| *of as usize != replica || listed);
        }
        let ids: Vec<_> = (0..REPLICAS)
            .filter(|replica| mask & (1 << replica) != 0)
            .collect();
        let effects = self.drive.set_replicas(ids);
        for gauges in self.drive.router.gauges() {
            let facts = &mut self.replicas[gauges.replica.0 as usize];
            facts.draining = gauges.draining;
            facts.down = gauges.health == "down";
        }
        effects
    }

    /// Takes note of effects, each against what may never happen.
    fn apply(&mut self, effects: &[Effect]) {
        let now = self.drive.now - MS;
        for effect in effects {
            let id = effect.request().map_or(0, |id| id.0);
            let mut live = self
                .live
                .remove(&id)
                .expect("an effect for a request that has ended");
            let before = live.at;
            if let At::Held { deadline_ns } = before {
                let left_ns = deadline_ns - now;
                live.held_ns = self.drive.router.config.hold_timeout_ns - left_ns;
            }
            match effect {
                Effect::Push(push) => {
                    self.check_push(id, &live, push, now);
                    self.check_passed_over(id, &live, push, now);
                    live.attempts += 1;
                    self.firsts += u64::from(push.attempt == 1);
                    live.at = At::Replica {
                        replica: push.replica.0,
                        started: false,
                    };
                }
                Effect::Forward(_) => panic!("{id} is forwarded, without peers"),
                Effect::Hold(_) => {
                    assert_eq!(before, At::Nowhere, "held twice");
                    live.passes = 0;
                    assert!(!live.light, "a light request waits");
                    let left_ns = self.drive.router.config.hold_timeout_ns - live.held_ns;
                    live.at = At::Held {
                        deadline_ns: now + left_ns,
                    };
                }
                Effect::Reject(_) => {
                    assert!(
                        !matches!(before, At::Replica { .. }),
                        "refused while in flight"
                    );
                    self.ended += 1;
                    continue;
                }
                Effect::Withdraw(_) => {
                    let waits = matches!(before, At::Replica { started: false, .. });
                    assert!(waits, "{id} is withdrawn, and not waiting at a replica");
                    self.withdrawn.push(id);
                }
                Effect::Expire(_) => {
                    let At::Held { deadline_ns } = before else {
                        panic!("{id} expires, not held")
                    };
                    assert!(deadline_ns <= now, "{id} expires early");
                    self.ended += 1;
                    continue;
                }
                Effect::Probe(_) | Effect::Tell(_) => panic!("it concerns no request"),
            }
            self.live.insert(id, live);
        }
    }

    /// Every request ends, the fleet goes: nothing is left.
    fn wind_down(&mut self) {
        while !self.live.is_empty() {
            self.step(&Step::Complete { nth: 0, outcome: 0 });
        }
        let effects = self.drive.set_replicas([]);
        assert_eq!(effects, []);
        let router = &self.drive.router;
        assert_eq!(
            (
                router.in_flight(),
                router.hold_requests(),
                router.requests.len()
            ),
            (0, 0, 0)
        );
        assert_eq!((router.fleet.len(), router.fleet.models().count()), (0, 0));
        assert_eq!(router.hold.next_deadline_ns(), None);
        assert_eq!(router.check_invariants(), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// 400 cases of up to 600 steps: over 10^5 events in a run.
    #[test]
    fn every_request_ends_once_and_no_rule_is_broken(
        config in settings(),
        history in prop::collection::vec(step(), 1..600),
    ) {
        let mut oracle = Oracle::new(config);
        for step in &history {
            oracle.step(step);
        }
        oracle.wind_down();
    }
}
