//! Balancers of one region before the same replicas, in virtual time.

mod leaving;
mod telling;

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::engine::mesh::peer::Presence;
use crate::engine::mesh::peer::summary::Summary;
use crate::engine::mesh::region::message::{SHARE_BYTES_MAX, SHARED_MAX};
use crate::id::PeerId;
use proptest::prelude::*;

const STEP_NS: Span = Span::from_ms(5);
const TELL_STEPS: u64 = 4;

/// A replica that computes so many requests at once, in the order in which they come.
#[derive(Default)]
struct Engine {
    slots: usize,
    /// Balancer, request, when it ends.
    running: Vec<(usize, u64, Instant)>,
    waiting: VecDeque<(usize, u64)>,
    waiting_max: usize,
    /// Requests that found another one waiting.
    behind: u64,
    queries: u64,
    probes: u64,
}

impl Engine {
    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    fn snapshot(&self) -> Snapshot {
        let len = |len: usize| u32::try_from(len).ok();
        Snapshot {
            running: len(self.running.len()),
            waiting: len(self.waiting.len()),
            cache_queries: Some(self.queries),
            ..Snapshot::default()
        }
    }
}

/// Balancers `us-0`, `us-1`, … and what they share.
struct Region {
    balancers: Vec<Drive>,
    engines: Vec<Engine>,
    /// Balancers that have died.
    dead: Vec<usize>,
    now: Instant,
    steps: u64,
    stay_ns: Span,
    served: BTreeMap<usize, u64>,
    bytes: u64,
    shares: bool,
}

fn peer(number: usize) -> PeerId {
    PeerId(u32::try_from(number).unwrap() + 1)
}

impl Region {
    fn new(config: &Config, balancers: usize, replicas: u32, slots: usize) -> Self {
        let mut region = Self {
            balancers: Vec::new(),
            engines: Vec::new(),
            dead: Vec::new(),
            now: Instant::ZERO + 10 * S,
            steps: 0,
            stay_ns: 400 * MS,
            served: BTreeMap::new(),
            bytes: 0,
            shares: true,
        };
        for _ in 0..replicas {
            region.engines.push(Engine {
                slots,
                ..Engine::default()
            });
        }
        for number in 0..balancers {
            let mut drive = Drive::new(config.clone(), replicas);
            let name = format!("us-{number}");
            drive.router.set_self(&name, "us", 5);
            region.balancers.push(drive);
        }
        for number in 0..balancers {
            let others: Vec<_> = (0..balancers)
                .filter(|other| *other != number)
                .map(|other| Listing::new(peer(other), format!("us-{other}"), "us"))
                .collect();
            let mut out = Vec::new();
            let router = &mut region.balancers[number].router;
            router
                .set_peers(&others, Instant::ZERO + S, &mut out)
                .unwrap();
            for id in others.into_iter().map(|listing| listing.id) {
                router.share_anew(id, Instant::ZERO + S, &mut out);
                router.peer_state(id, Presence::Alive, Instant::ZERO + S, &mut out);
            }
            assert_eq!(out, []);
        }
        region.run(40);
        region
    }

    fn call(&mut self, number: usize, call: impl FnOnce(&mut Router, Instant, &mut Vec<Effect>)) {
        let drive = &mut self.balancers[number];
        drive.now = self.now;
        for effect in drive.call(call) {
            match effect {
                Effect::Push(push) => self.pushed(number, &push),
                Effect::Hold(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn pushed(&mut self, number: usize, push: &Push) {
        let engine = &mut self.engines[push.replica.0 as usize];
        engine.behind += u64::from(!engine.waiting.is_empty());
        engine.waiting.push_back((number, push.request.0));
    }

    fn submit(&mut self, number: usize) {
        let drive = &mut self.balancers[number];
        drive.last_id += 1;
        let id = RequestId(drive.last_id);
        self.call(number, |router, now, out| {
            let mut digest = digest("m", &[]);
            router
                .place(id, &ask(Route::ChatCompletions), &mut digest, now, out)
                .unwrap();
        });
    }

    fn compute(&mut self, place: usize) {
        let engine = &mut self.engines[place];
        let now = self.now;
        let (ended, running): (Vec<_>, Vec<_>) = engine
            .running
            .drain(..)
            .partition(|(.., at_ns)| *at_ns <= now);
        engine.running = running;
        let mut begun = Vec::new();
        while engine.running.len() < engine.slots
            && let Some((number, id)) = engine.waiting.pop_front()
        {
            engine.queries += 64;
            // Not all alike: they would end in step with the probes.
            let stay_ns = self.stay_ns + (engine.queries * 37 % 100) * MS;
            engine.running.push((number, id, now + stay_ns));
            begun.push((number, id));
        }
        engine.waiting_max = engine.waiting_max.max(engine.waiting.len());
        for (number, id) in begun {
            self.call(number, |router, now, out| {
                router.first_byte(RequestId(id), None, now, out);
            });
        }
        for (number, id, _) in ended {
            *self.served.entry(number).or_default() += 1;
            self.call(number, |router, now, out| {
                router.complete(RequestId(id), Outcome::Ok, Report::default(), now, out);
            });
        }
    }

    fn living(&self) -> Vec<usize> {
        let all = 0..self.balancers.len();
        all.filter(|number| !self.dead.contains(number)).collect()
    }

    fn probe(&mut self, number: usize) {
        for replica in std::mem::take(&mut self.balancers[number].probes) {
            let engine = &mut self.engines[replica as usize];
            engine.probes += 1;
            let snapshot = engine.snapshot();
            self.call(number, |router, now, out| {
                router.observe(ReplicaId(replica), snapshot, now, now, out);
            });
        }
    }

    fn tell(&mut self, from: usize) {
        for to in self.living() {
            let now = self.now;
            if from == to || !self.shares {
                continue;
            }
            let mut told = None;
            self.call(from, |router, _, out| {
                told = router.share(peer(to), now, out);
            });
            if let Some(bytes) = told {
                self.bytes += bytes.len() as u64;
                self.call(to, |router, now, out| {
                    router.merge_share(peer(from), &bytes, 0, now, out).unwrap();
                });
            }
        }
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.now += STEP_NS;
            self.steps += 1;
            for place in 0..self.engines.len() {
                self.compute(place);
            }
            for number in self.living() {
                let due_ns = self.balancers[number].router.next_deadline_ns();
                if due_ns.is_some_and(|at_ns| at_ns <= self.now) {
                    self.call(number, Router::tick);
                }
                self.probe(number);
                // They do not tell at the same moment.
                if (self.steps + number as u64).is_multiple_of(TELL_STEPS) {
                    self.tell(number);
                }
            }
        }
    }

    fn kill(&mut self, number: usize) {
        self.dead.push(number);
        for engine in &mut self.engines {
            engine.running.retain(|(of, ..)| *of != number);
            engine.waiting.retain(|(of, _)| *of != number);
        }
        for other in self.living() {
            self.call(other, |router, now, out| {
                router.peer_state(peer(number), Presence::Dead, now, out);
            });
        }
    }

    fn held(&self) -> usize {
        let living = self.living();
        let held = living
            .iter()
            .map(|number| self.balancers[*number].router.hold_requests());
        held.sum()
    }

    fn served(&self) -> u64 {
        self.served.values().sum()
    }

    fn probes(&self) -> u64 {
        self.engines.iter().map(|engine| engine.probes).sum()
    }
}

fn knee() -> Config {
    Config {
        allowance: AllowanceRule::Knee,
        hold_timeout_ns: 600 * S,
        ..config()
    }
}

fn one() -> Config {
    Config {
        hold_timeout_ns: 600 * S,
        ..config()
    }
}

/// So many balancers, each with so many requests held from the beginning.
fn saturated(config: &Config, held: &[u32], slots: usize, steps: u64) -> Region {
    let mut region = Region::new(config, held.len(), 1, slots);
    for (number, held) in held.iter().enumerate() {
        for _ in 0..*held {
            region.submit(number);
        }
    }
    region.run(steps);
    region
}

#[test]
fn two_that_are_busy_take_turns_and_leave_one_waiting() {
    for config in [one(), knee()] {
        let both = saturated(&config, &[45, 45], 4, 1_200);
        let alone = saturated(&config, &[90], 4, 1_200);
        let (one, other) = (both.served[&0], both.served[&1]);
        assert!(one.abs_diff(other) * 4 <= one + other, "{one} and {other}");
        assert!(
            both.served() * 10 >= alone.served() * 9,
            "{} of {}",
            both.served(),
            alone.served()
        );
        let engine = &both.engines[0];
        assert!(
            engine.behind * 5 <= both.served(),
            "{} of {}",
            engine.behind,
            both.served()
        );
        assert!(engine.waiting_max <= 2, "{}", engine.waiting_max);
    }
}

#[test]
fn one_that_is_idle_takes_nothing_from_the_other() {
    for config in [one(), knee()] {
        let shared = saturated(&config, &[90, 0], 4, 1_200);
        let alone = saturated(&config, &[90], 4, 1_200);
        assert!(
            shared.served() * 20 >= alone.served() * 19,
            "{} of {}",
            shared.served(),
            alone.served()
        );
    }
}

#[test]
fn one_probes_for_all() {
    let alone = saturated(&knee(), &[90], 4, 1_200);
    let three = saturated(&knee(), &[30, 30, 30], 4, 1_200);
    assert!(
        three.probes() * 10 <= alone.probes() * 13,
        "{} of {}",
        three.probes(),
        alone.probes()
    );
    let idle = saturated(&knee(), &[0, 0, 0], 4, 4_000);
    let idle_alone = saturated(&knee(), &[0], 4, 4_000);
    assert!(
        idle.probes() * 10 <= idle_alone.probes() * 13 + 60,
        "{}",
        idle.probes()
    );
}

#[test]
fn who_hears_nothing_probes_for_itself() {
    let mut region = Region::new(&knee(), 2, 8, 4);
    region.shares = false;
    let before = region.probes();
    region.run(2_000);
    // Ten seconds, eight replicas: one balancer once a second, the other every third second.
    assert!(
        region.probes() - before >= 80 + 20,
        "{}",
        region.probes() - before
    );
    let blind = |drive: &Drive| drive.router.gauges().iter().any(|gauges| gauges.blind);
    assert!(!region.balancers.iter().any(blind));
}

#[test]
fn the_death_of_one_gives_the_others_all_of_the_room() {
    let mut region = saturated(&one(), &[60, 60], 4, 300);
    region.kill(1);
    let before = region.served[&0];
    region.run(800);
    let alone = saturated(&one(), &[60], 4, 800);
    assert!((region.served[&0] - before) * 10 >= alone.served() * 9);
    let state = region.balancers[0].router.state(region.now).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    assert_eq!(state["replicas"][0]["theirs_in_flight"], 0);
    assert_eq!(state["replicas"][0]["shared"], false);
    assert_eq!(state["replicas"][0]["probed_here"], true);
}

#[test]
fn a_connection_that_begins_anew_leaves_no_request_behind() {
    let mut region = saturated(&knee(), &[40, 40], 4, 100);
    for (at, of) in [(0, 1), (1, 0)] {
        region.call(at, |router, now, out| {
            router.share_anew(peer(of), now, out);
        });
    }
    region.run(2_400);
    assert_eq!(region.held(), 0);
    for drive in &mut region.balancers {
        let state: serde_json::Value =
            serde_json::from_slice(&drive.router.state(drive.now).unwrap()).unwrap();
        assert_eq!(state["replicas"][0]["theirs_in_flight"], 0);
        assert_eq!(state["replicas"][0]["shared"], true);
    }
}

/// What balancer 0 lets balancer 1 forward to it.
fn granted(region: &mut Region) -> u64 {
    let mut told = None;
    region.call(0, |router, now, _| {
        told = router.summary(peer(1), now);
    });
    let summary = Summary::decode(&told.unwrap()).unwrap();
    summary.models.iter().map(|line| line.limit).sum()
}

#[test]
fn a_peer_that_has_not_said_yet_what_it_shares_is_granted_nothing() {
    let mut region = Region::new(&one(), 2, 1, 4);
    assert_eq!(granted(&mut region), 0, "it shares all there is");
    region.call(0, |router, now, out| {
        router.share_anew(peer(1), now, out);
    });
    assert_eq!(granted(&mut region), 0);
}
