//! What tenants are charged, against an oracle that keeps plain sums.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::engine::plant::Plant;

const FULL: i64 = 60_000;
const PROMPT: u64 = 250;

#[derive(Debug, Clone)]
enum Step {
    Submit {
        limited: bool,
        stream: bool,
        max_tokens: Option<u32>,
    },
    FirstByte(usize),
    Fail {
        nth: usize,
        failure: usize,
        sent: bool,
    },
    End {
        nth: usize,
        outcome: usize,
        usage: Option<(u32, u32)>,
        refused: bool,
        events: (u64, u64),
        sent: bool,
    },
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let submit = (any::<bool>(), any::<bool>(), prop::option::of(0_u32..400));
    let usage = prop::option::of((1_u32..5, 0_u32..500));
    let events = (0_u64..300, 0_u64..50);
    let end = (
        0_usize..8,
        0_usize..3,
        usage,
        prop::bool::weighted(0.1),
        events,
        any::<bool>(),
    );
    let step = prop_oneof![
        5 => submit.prop_map(|(limited, stream, max_tokens)| Step::Submit { limited, stream, max_tokens }),
        5 => (0_usize..8).prop_map(Step::FirstByte),
        2 => (0_usize..8, 0_usize..4, any::<bool>())
            .prop_map(|(nth, failure, sent)| Step::Fail { nth, failure, sent }),
        5 => end.prop_map(|(nth, outcome, usage, refused, events, sent)| Step::End { nth, outcome, usage, refused, events, sent }),
        1 => (1_u64..20_000).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..120)
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    #[default]
    Held,
    Replica,
    /// Its first byte has come.
    Answering,
}

/// A request that has not ended.
#[derive(Debug, Clone, Default)]
struct Live {
    limited: bool,
    stream: bool,
    at: At,
    predicted: u64,
}

/// What the tenant should have been charged.
struct Oracle {
    drive: Drive,
    live: BTreeMap<u64, Live>,
    spent: u64,
    level: i64,
    seen: Instant,
}

impl Oracle {
    fn new(plant: Option<Plant>) -> Self {
        let config = Config {
            hold_timeout_ns: 5 * S,
            bytes_per_token: 4.0,
            plant,
            ..config()
        };
        let mut drive = Drive::new(config, 3);
        drive.set_tenants(&[entry(
            "acme",
            &serde_json::json!({"tokens_per_minute": LIMIT}),
        )]);
        let seen = drive.now;
        Self {
            drive,
            live: BTreeMap::new(),
            spent: 0,
            level: FULL,
            seen,
        }
    }

    /// Brings the level to the time at which the last call was made.
    fn pass(&mut self, at: Instant) {
        let ms = i64::try_from((at - self.seen).ns() / MS.ns()).unwrap();
        self.level = (self.level + ms).min(FULL);
        self.seen = at;
    }

    fn take(&mut self, tokens: u64) {
        self.level = (self.level - i64::try_from(tokens).unwrap()).min(FULL);
    }

    fn give(&mut self, tokens: u64) {
        self.level = (self.level + i64::try_from(tokens).unwrap()).min(FULL);
    }

    fn pick(&self, nth: usize, which: impl Fn(&Live) -> bool) -> Option<u64> {
        let ids: Vec<u64> = self
            .live
            .iter()
            .filter(|(_, live)| which(live))
            .map(|(id, _)| *id)
            .collect();
        (!ids.is_empty()).then(|| ids[nth % ids.len()])
    }

    /// One request has ended, and has used so much.
    fn over(&mut self, id: u64, used: u64) {
        let live = self.live.remove(&id).unwrap();
        if !live.limited {
            return;
        }
        self.spent += used;
        if used >= live.predicted {
            self.take(used - live.predicted);
        } else {
            self.give(live.predicted - used);
        }
    }

    fn effects(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Push(push) => {
                    let live = self.live.get_mut(&push.request.0).unwrap();
                    live.at = At::Replica;
                }
                Effect::Hold(id) => self.live.get_mut(&id.0).unwrap().at = At::Held,
                Effect::Reject(reject) => self.over(reject.request.0, 0),
                Effect::Expire(id) => self.over(id.0, 0),
                Effect::Forward(_) | Effect::Withdraw(_) | Effect::Probe(_) | Effect::Tell(_) => {}
            }
        }
    }

    fn submit(&mut self, limited: bool, stream: bool, max_tokens: Option<u32>) {
        let body = Digest {
            prompt_bytes: BYTES,
            stream,
            max_tokens,
            ..digest("m", &[])
        };
        let asked = if limited {
            asks("acme")
        } else {
            ask(Route::ChatCompletions)
        };
        let before = self.charged();
        let effects = self.drive.submit_as(asked, body);
        let id = self.drive.last_id;
        // Those whose time in the hold is over end first.
        let (others, effects): (Vec<_>, Vec<_>) = (effects.into_iter())
            .partition(|effect| matches!(effect, Effect::Expire(other) if other.0 != id));
        let ended = |effect: &Effect| self.live[&effect.request().unwrap().0].predicted;
        let before = before - others.iter().map(ended).sum::<u64>();
        self.effects(&others);
        let refused = matches!(&effects[..], [Effect::Reject(reject)] if reject.code == "rate_limit_exceeded");
        let predicted = self.charged() - before;
        // It is let in where it fits, or where nothing has been used.
        let most = PROMPT + u64::from(max_tokens.unwrap_or(u32::MAX));
        if refused {
            assert!(limited && predicted == 0 && self.level < i64::try_from(most).unwrap());
            return;
        }
        let fits = self.level >= i64::try_from(predicted).unwrap();
        assert!(predicted <= most && (fits || self.level == FULL));
        self.take(predicted);
        self.live.insert(
            id,
            Live {
                limited,
                stream,
                predicted,
                ..Live::default()
            },
        );
        self.effects(&effects);
    }

    fn charged(&self) -> u64 {
        self.drive.used("acme", "m")["charged_tokens"]
            .as_u64()
            .unwrap_or(0)
    }

    fn step(&mut self, step: &Step) {
        let at = self.drive.now;
        self.pass(at);
        match *step {
            Step::Submit {
                limited,
                stream,
                max_tokens,
            } => self.submit(limited, stream, max_tokens),
            Step::FirstByte(nth) => {
                if let Some(id) = self.pick(nth, |live| live.at == At::Replica) {
                    self.live.get_mut(&id).unwrap().at = At::Answering;
                    let effects = self.drive.first_byte(id);
                    self.effects(&effects);
                }
            }
            Step::Fail { nth, failure, sent } => {
                let failures = [
                    Failure::Connect,
                    Failure::Reset,
                    Failure::Full,
                    Failure::Status(500),
                ];
                if let Some(id) = self.pick(nth, |live| live.at == At::Replica) {
                    let effects = self.drive.retry(id, failures[failure], sent);
                    self.effects(&effects);
                }
            }
            Step::End {
                nth,
                outcome,
                usage,
                refused,
                events,
                sent,
            } => {
                let outcomes = [Outcome::Ok, Outcome::ClientLeft, Outcome::ReplicaFailed];
                if let Some(id) = self.pick(nth, |_| true) {
                    self.end(id, outcomes[outcome], usage, (refused, sent), events);
                }
            }
            Step::Pass(ms) => {
                let now = at + Span::from_ms(ms);
                self.pass(now);
                let effects = self.drive.tick_at(now);
                self.effects(&effects);
            }
        }
        self.check();
    }

    fn end(
        &mut self,
        id: u64,
        outcome: Outcome,
        usage: Option<(u32, u32)>,
        (refused, sent): (bool, bool),
        events: (u64, u64),
    ) {
        let live = self.live[&id].clone();
        let started = live.at == At::Answering;
        // Only what has begun can have told anything.
        let usage = usage.filter(|_| started && !refused);
        let events = if started && live.stream {
            events
        } else {
            (0, 0)
        };
        let report = Report {
            usage: Usage {
                prompt_tokens: usage.map(|(prompt, _)| prompt),
                completion_tokens: usage.map(|(_, completion)| completion),
                cached_tokens: None,
            },
            sent: sent || started,
            streamed: live.stream,
            refused,
            events: events.0,
            events_since_usage: events.1,
            ..Report::default()
        };
        let whole = outcome == Outcome::Ok;
        let left = outcome == Outcome::ClientLeft && live.at == At::Replica && sent;
        let used = match usage {
            _ if left && !refused && live.stream => PROMPT,
            _ if left && !refused => live.predicted,
            _ if !started || refused => 0,
            Some((prompt, completion)) if whole => u64::from(prompt) + u64::from(completion),
            Some((prompt, completion)) => u64::from(prompt) + u64::from(completion) + events.1,
            None if !live.stream && outcome != Outcome::ReplicaFailed => live.predicted,
            None => PROMPT + events.0,
        };
        self.over(id, used);
        let effects = self.drive.end_with(id, outcome, report);
        self.effects(&effects);
    }

    fn check(&self) {
        let used = self.drive.used("acme", "m");
        let count = |name: &str| used[name].as_u64().unwrap_or(0);
        let live: u64 = self.live.values().map(|live| live.predicted).sum();
        assert_eq!(count("charged_tokens"), self.spent + live);
        assert_eq!(
            count("prompt_tokens") + count("completion_tokens"),
            self.spent
        );
        let in_flight = self.live.values().filter(|live| live.limited).count();
        assert_eq!(usage(&self.drive.router, "acme")["in_flight"], in_flight);
    }

    /// What is left, after a look that brings the bucket to the present.
    fn check_level(&mut self) {
        let at = self.drive.now;
        self.pass(at);
        self.drive.tick_at(at);
        let mut lines = String::new();
        if let Some(standing) = self.drive.router.standing(Tenant::Named("acme")) {
            lines = String::from_utf8(standing.lines()).unwrap();
        }
        let remaining = format!("x-ratelimit-remaining-tokens: {}\r\n", self.level.max(0));
        assert!(lines.contains(&remaining), "{lines} lacks {remaining}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn charged_tokens_equal_reported_tokens_over_cancels_cuts_and_retries(steps in steps()) {
        let mut oracle = Oracle::new(None);
        for step in &steps {
            oracle.step(step);
        }
        // Whoever is left leaves: then what was charged is what was used.
        while let Some(id) = oracle.pick(0, |_| true) {
            let at = oracle.drive.now;
            oracle.pass(at);
            oracle.end(id, Outcome::ClientLeft, None, (false, true), (7, 7));
            oracle.check();
        }
        prop_assert_eq!(oracle.charged(), oracle.spent);
        oracle.check_level();
    }
}

#[test]
fn a_charge_that_is_not_settled_is_found() {
    let found = std::panic::catch_unwind(|| {
        let mut oracle = Oracle::new(Some(Plant::ChargeKept));
        oracle.step(&Step::Submit {
            limited: true,
            stream: true,
            max_tokens: None,
        });
        oracle.step(&Step::End {
            nth: 0,
            outcome: 1,
            usage: None,
            refused: false,
            events: (0, 0),
            sent: false,
        });
    });
    let text = found.unwrap_err();
    let text = text.downcast_ref::<String>().unwrap();
    assert!(text.contains("charges_are_settled"), "{text}");
}
