//! Balancers that share one limit: real routers, with connections that take time and break.

use std::collections::VecDeque;

use super::*;
use crate::engine::effect::Message;
use crate::id::PeerId;

/// Requests per minute of the tenant.
const LIMIT: u64 = 1_200;
const WINDOW: Span = Span::from_secs(60);
/// One way between balancers.
const WAY: Span = Span::from_ms(40);
const STEP: Span = Span::from_ms(5);

struct Letter {
    at: Instant,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

/// Balancers under one limit, and the requests that each has admitted.
struct Region {
    routers: Vec<Router>,
    letters: VecDeque<Letter>,
    connected: Vec<Vec<bool>>,
    now: Instant,
    last_id: u64,
    admitted: Vec<(Instant, usize)>,
    refused: u64,
    sent: u64,
}

impl Region {
    fn new(balancers: usize) -> Self {
        let mut region = Self {
            routers: Vec::new(),
            letters: VecDeque::new(),
            connected: vec![vec![false; balancers]; balancers],
            now: Instant::ZERO + S,
            last_id: 0,
            admitted: Vec::new(),
            refused: 0,
            sent: 0,
        };
        for at in 0..balancers {
            region
                .routers
                .push(Router::new(config(), b"0123456789abcdef", 7));
            region.start(at, 1);
        }
        region
    }

    /// A process starts: it knows nothing of what was before.
    fn start(&mut self, at: usize, incarnation: u64) {
        let (now, mut out) = (self.now, Vec::new());
        let mut router = Router::new(config(), b"0123456789abcdef", 7);
        router.set_self(&format!("b{at}"), "us", incarnation);
        router.set_replicas(
            &[(ReplicaId(0), "http://replica".to_owned())],
            now,
            &mut out,
        );
        let models = [("m".to_owned(), None)];
        router.set_listing(ReplicaId(0), ModelList::Whole(&models), now, &mut out);
        router.observe(ReplicaId(0), idle(), now, now, &mut out);
        let others = (0..self.connected.len()).filter(|of| *of != at);
        let peers: Vec<_> = others
            .map(|of| Listing::new(peer(of), format!("b{of}"), "us"))
            .collect();
        router.set_peers(&peers, now, &mut out).unwrap();
        let terms = entry("acme", &serde_json::json!({"requests_per_minute": LIMIT}));
        let terms = serde_json::json!({"tenants": [terms]}).to_string();
        router.set_tenants(terms.as_bytes(), now).unwrap();
        self.routers[at] = router;
    }

    fn connect(&mut self, one: usize, other: usize) {
        for (at, of) in [(one, other), (other, one)] {
            let (now, mut out) = (self.now, Vec::new());
            self.connected[at][of] = true;
            self.routers[at].peer_connected(peer(of), &Message::ALL, now, &mut out);
            self.routers[at].peer_state(peer(of), Presence::Alive, now, &mut out);
        }
    }

    fn connect_all(&mut self) {
        for one in 0..self.routers.len() {
            for other in 0..one {
                self.connect(one, other);
            }
        }
    }

    fn cut(&mut self, one: usize, other: usize, presence: Presence) {
        for (at, of) in [(one, other), (other, one)] {
            let (now, mut out) = (self.now, Vec::new());
            if std::mem::take(&mut self.connected[at][of]) {
                self.routers[at].peer_disconnected(peer(of));
            }
            self.routers[at].peer_state(peer(of), presence, now, &mut out);
        }
        self.letters.retain(|letter| {
            (letter.from, letter.to) != (one, other) && (letter.from, letter.to) != (other, one)
        });
    }

    /// Time passes, in which each balancer is asked so often per second.
    fn run(&mut self, span: Span, per_s: &[u64]) {
        let end = self.now + span;
        let mut owed = vec![0; per_s.len()];
        while self.now < end {
            self.now += STEP;
            self.deliver();
            for (at, rate) in per_s.iter().enumerate() {
                owed[at] += rate * (STEP.ns() / MS.ns());
                while owed[at] >= 1_000 {
                    owed[at] -= 1_000;
                    self.ask(at);
                }
                self.tick(at);
            }
        }
    }

    fn deliver(&mut self) {
        while self
            .letters
            .front()
            .is_some_and(|letter| letter.at <= self.now)
        {
            let Some(Letter {
                from, to, bytes, ..
            }) = self.letters.pop_front()
            else {
                return;
            };
            if self.connected[to][from] {
                self.routers[to]
                    .merge_tenants(peer(from), &bytes, self.now)
                    .unwrap();
            }
        }
    }

    fn tick(&mut self, at: usize) {
        let mut out = Vec::new();
        self.routers[at].tick(self.now, &mut out);
        for effect in out {
            let Effect::Tell(tell) = effect else { continue };
            self.routers[at].written(tell.peer, tell.kind);
            if tell.kind == Message::Tenants {
                self.sent += 1;
                let to = tell.peer.0 as usize;
                let letter = Letter {
                    at: self.now + WAY,
                    from: at,
                    to,
                    bytes: tell.payload,
                };
                self.letters.push_back(letter);
            }
        }
        assert_eq!(self.routers[at].check_decisions(), Ok(()));
    }

    /// A client asks, and its request ends at once.
    fn ask(&mut self, at: usize) {
        self.last_id += 1;
        let (id, now, mut out) = (RequestId(self.last_id), self.now, Vec::new());
        let mut body = digest("m", &[]);
        self.routers[at]
            .place(id, &asks("acme"), &mut body, now, &mut out)
            .unwrap();
        if matches!(&out[..], [Effect::Reject(reject)] if reject.code == "rate_limit_exceeded") {
            self.refused += 1;
            return;
        }
        self.admitted.push((now, at));
        self.routers[at].first_byte(id, None, now, &mut out);
        self.routers[at].complete(id, Outcome::Ok, Report::default(), now, &mut out);
    }

    fn share(&self, at: usize) -> f64 {
        usage(&self.routers[at], "acme")["requests"]["share"]
            .as_f64()
            .unwrap()
    }

    fn shares(&self) -> f64 {
        (0..self.routers.len()).map(|at| self.share(at)).sum()
    }

    /// By how much more is admitted, in any stretch of time, than one balancer with a full bucket would: the
    /// overshoot.
    fn overshoot(&self) -> u64 {
        // One request is as much as the limit brings in so many nanoseconds, times the limit.
        let one = i128::from(WINDOW.ns());
        let (mut least, mut most) = (i128::MAX, 0);
        for (number, (at, _)) in (0_i128..).zip(&self.admitted) {
            let brought = i128::from(LIMIT) * i128::from(at.ns());
            least = least.min(number * one - brought);
            let over = (number + 1) * one - brought - least - i128::from(LIMIT) * one;
            most = most.max(over);
        }
        u64::try_from(most / one).unwrap()
    }

    fn admitted_since(&self, at: Instant) -> u64 {
        self.admitted.iter().filter(|(when, _)| *when >= at).count() as u64
    }
}

fn peer(number: usize) -> PeerId {
    PeerId(crate::id::count(number))
}

/// What is admitted in a minute by balancers that are asked for more than the limit.
fn full_minute(region: &mut Region, per_s: &[u64]) -> u64 {
    let since = region.now;
    region.run(WINDOW, per_s);
    region.admitted_since(since)
}

#[test]
fn two_balancers_that_start_at_once_admit_what_one_would() {
    let mut region = Region::new(2);
    region.connect_all();
    region.run(2 * WINDOW, &[40, 40]);
    assert_eq!(region.overshoot(), 0);
    let steady = full_minute(&mut region, &[40, 40]);
    assert!((LIMIT * 95 / 100..=LIMIT).contains(&steady), "{steady}");
    // About once a second, each to the other.
    assert!((2 * 170..2 * 400).contains(&region.sent), "{}", region.sent);
}

#[test]
fn the_limit_goes_where_the_requests_are() {
    let mut region = Region::new(3);
    region.connect_all();
    region.run(WINDOW, &[60, 0, 0]);
    assert!(region.share(0) > 0.9, "{}", region.share(0));
    let steady = full_minute(&mut region, &[60, 0, 0]);
    assert!(steady >= LIMIT * 90 / 100, "{steady}");
    region.run(20 * S, &[0, 60, 0]);
    assert!(region.share(1) > 0.9, "{}", region.share(1));
    let steady = full_minute(&mut region, &[0, 60, 0]);
    assert!(steady >= LIMIT * 90 / 100, "{steady}");
    assert_eq!(region.overshoot(), 0);
}

#[test]
fn balancers_that_come_and_go_overshoot_by_one_window_at_most() {
    let mut region = Region::new(3);
    region.connect_all();
    region.run(WINDOW, &[30, 30, 30]);
    // One ends, and its part goes to the others.
    for of in 0..2 {
        region.cut(2, of, Presence::Unreachable);
    }
    region.run(3 * S, &[40, 40, 0]);
    assert!(region.shares() <= 1.0);
    for of in 0..2 {
        region.cut(2, of, Presence::Dead);
    }
    region.run(10 * S, &[40, 40, 0]);
    assert!(region.share(0) + region.share(1) > 0.95);
    // It starts again.
    region.start(2, 2);
    for of in 0..2 {
        region.connect(2, of);
    }
    region.run(WINDOW, &[40, 40, 40]);
    assert!(region.shares() <= 1.0 && region.share(2) > 0.25);
    assert!(region.overshoot() <= LIMIT, "{}", region.overshoot());
}

#[test]
fn two_balancers_that_lose_each_other_for_a_minute_overshoot_by_one_window_at_most() {
    let mut region = Region::new(2);
    region.connect_all();
    region.run(2 * WINDOW, &[40, 40]);
    region.cut(0, 1, Presence::Unreachable);
    region.run(3 * S, &[40, 40]);
    assert!(region.shares() <= 1.0);
    region.cut(0, 1, Presence::Dead);
    region.run(57 * S, &[40, 40]);
    assert!(region.shares() > 1.9, "nobody else is left for either");
    region.connect_all();
    region.run(S, &[40, 40]);
    assert!(region.shares() <= 1.0, "{}", region.shares());
    region.run(2 * WINDOW, &[40, 40]);
    assert!(region.overshoot() <= LIMIT, "{}", region.overshoot());
    assert!(
        region.overshoot() > LIMIT / 2,
        "the parts are not bounded while they are apart: {}",
        region.overshoot()
    );
}

#[test]
fn of_three_the_one_that_is_cut_off_keeps_its_part_and_the_others_take_no_more_than_the_whole() {
    let mut region = Region::new(3);
    region.connect_all();
    region.run(2 * WINDOW, &[30, 30, 30]);
    let before = region.share(2);
    for of in 0..2 {
        region.cut(2, of, Presence::Dead);
    }
    region.run(WINDOW, &[40, 40, 40]);
    assert!((region.share(2) - before).abs() < 1e-9);
    assert!(region.share(0) + region.share(1) <= 1.0);
    for of in 0..2 {
        region.connect(2, of);
    }
    region.run(WINDOW, &[40, 40, 40]);
    assert!(region.shares() <= 1.0);
    assert!(region.overshoot() <= LIMIT, "{}", region.overshoot());
}
