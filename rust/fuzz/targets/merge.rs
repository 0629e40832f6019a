//! What peers send, merged into a balancer with requests: the input is a script of messages, requests and
//! time. Whatever the messages say, the router's parts agree with each other, and nothing is sent twice.

use skylb_core::engine::ask::{Ask, Report};
use skylb_core::engine::config::Config;
use skylb_core::engine::effect::{Effect, Message, Outcome, Tell};
use skylb_core::engine::fleet::snapshot::Snapshot;
use skylb_core::engine::mesh::hot::heat::Terms;
use skylb_core::engine::mesh::listing::Listing;
use skylb_core::engine::mesh::peer::Presence;
use skylb_core::engine::router::{ModelList, Router};
use skylb_core::http::route::Route;
use skylb_core::id::{PeerId, ReplicaId, RequestId};
use skylb_core::tenant::Tenant;
use skylb_core::time::{Instant, Span};

/// Balancers by name and region; each knows the two others as its peers, by these numbers.
const ALL: [(PeerId, &str, &str); 3] = [
    (FIRST, "us-1", "us"),
    (NEAR, "us-2", "us"),
    (FAR, "eu-1", "eu"),
];
const FIRST: PeerId = PeerId(1);
const NEAR: PeerId = PeerId(2);
const FAR: PeerId = PeerId(3);
const REPLICAS: u32 = 2;
const REQUESTS_MAX: u64 = 64;

struct World {
    router: Router,
    now: Instant,
    last_id: u64,
    /// Pushed or forwarded, and not ended.
    away: Vec<RequestId>,
    out: Vec<Effect>,
}

/// The replicas; those that are `later` have taken the place of the last one.
fn replicas(later: u32) -> Vec<(ReplicaId, String)> {
    let numbers = (1..REPLICAS).chain([REPLICAS + later]);
    numbers
        .map(|n| (ReplicaId(n), format!("http://10.0.0.{n}:8000")))
        .collect()
}

/// All others, as the balancer of that name lists them.
fn peers_of(name: &str) -> Vec<Listing> {
    let others = ALL.iter().filter(|(_, other, _)| *other != name);
    others
        .map(|(id, other, region)| Listing::new(*id, *other, *region))
        .collect()
}

/// One step: what happens, the milliseconds before it, and how many bytes of message follow.
fn step(kind: u8, ms: u8, message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).expect("a seed is short");
    [&[kind, ms][..], &len.to_le_bytes(), message].concat()
}

/// What real peers have sent, between requests, probes and time.
pub fn seeds() -> Vec<Vec<u8>> {
    let near = sent_by("us-2", "us");
    let far = sent_by("eu-1", "eu");
    let mut seeds = Vec::new();
    for (messages, bit) in [(&near, 0), (&far, 8), (&near, 8)] {
        for requests in [0, 6] {
            let mut script = Vec::new();
            for (number, message) in (0_u8..).zip(messages) {
                if number < requests {
                    script.extend(step(4, 10, &[number]));
                }
                let payload = &message.payload;
                script.extend(step(message.kind as u8 | bit, 40, payload));
                script.extend(step(5 + number % 3, 5, b""));
                if number % 4 == 3 {
                    script.extend(step(3 | bit | number >> 2 << 4, 5, b""));
                }
            }
            seeds.push(script);
        }
    }
    seeds
}

/// What a balancer with requests sends to the one that is fuzzed, while both exchange messages.
fn sent_by(name: &str, region: &str) -> Vec<Tell> {
    let mut worlds = [World::new(name, region), World::new("us-1", "us")];
    let ids = ALL.map(|(id, known, _)| (known == name).then_some(id));
    let sender = ids.into_iter().flatten().next().expect("a known name");
    let mut sent = Vec::new();
    for round in 0..40 {
        for world in &mut worlds {
            world.now += Span::from_ms(60);
            world.submit(round % 2);
            world.observe(0);
            world.router.tick(world.now, &mut world.out);
            world.end(round);
        }
        let [from, to] = &mut worlds;
        let mut said = from.tells(FIRST);
        to.take(sender, &said);
        from.take(FIRST, &to.tells(sender));
        sent.append(&mut said);
        from.carry_out();
        to.carry_out();
    }
    let kinds = |kind| sent.iter().filter(|tell| tell.kind == kind).count();
    assert!(kinds(Message::Summary) > 3);
    assert!(region != "us" || kinds(Message::Share) > 3);
    sent
}

pub fn run(data: &[u8]) {
    let mut world = World::new("us-1", "us");
    let mut rest = data;
    while let Some((&[kind, ms, len @ ..], behind)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_le_bytes(len)).min(behind.len());
        let (message, after) = behind.split_at(len);
        rest = after;
        world.now += Span::from_ms(u64::from(ms));
        world.step(kind, message);
        world.keep_time();
        world.carry_out();
        assert_eq!(world.router.check_invariants(), Ok(()));
    }
}

impl World {
    fn new(name: &str, region: &str) -> Self {
        let config = Config {
            tree_bytes_max: 1 << 20,
            ..Config::sample()
        };
        let mut world = Self {
            router: Router::new(config, b"0123456789abcdef", 7),
            now: Instant::ZERO + Span::from_ms(1_000),
            last_id: 0,
            away: Vec::new(),
            out: Vec::new(),
        };
        world.set_up(name, region);
        world
    }

    fn set_up(&mut self, name: &str, region: &str) {
        let (now, out, router) = (self.now, &mut self.out, &mut self.router);
        router.set_self(name, region, 1);
        router.set_replicas(&replicas(0), now, out);
        let peers = peers_of(name);
        router.set_peers(&peers, now, out).expect("two peers");
        let terms = Terms {
            bytes_max: 4_096,
            interval_ns: Span::from_ms(1_000),
            age_max_ns: Span::from_ms(60_000),
        };
        router.set_peer_digest(&[3; 24], terms);
        for peer in peers.iter().map(|peer| peer.id) {
            router.peer_started(peer, 1, now);
            router.peer_connected(peer, &Message::ALL, now, out);
            router.peer_rtt(peer, Span::from_ms(20), now);
            router.peer_state(peer, Presence::Alive, now, out);
        }
        self.list_models();
        self.observe(0);
    }

    fn list_models(&mut self) {
        let model = [("m".to_owned(), Some(4_096))];
        for (replica, _) in replicas(0).into_iter().chain(replicas(1)) {
            self.router
                .set_listing(replica, ModelList::Whole(&model), self.now, &mut self.out);
        }
    }

    fn step(&mut self, kind: u8, message: &[u8]) {
        let (now, peer) = (self.now, if kind & 8 == 0 { NEAR } else { FAR });
        let (router, out) = (&mut self.router, &mut self.out);
        match kind & 7 {
            0..=2 => self.merge(peer, kind, message),
            3 => self.change(peer, kind >> 4),
            4 => self.submit(message.first().copied().unwrap_or(0)),
            5 => router.tick(now, out),
            6 => self.observe(u32::from(kind >> 4)),
            _ => self.end(kind),
        }
    }

    /// A connection, a list or a peer changes.
    fn change(&mut self, peer: PeerId, what: u8) {
        let (now, router, out) = (self.now, &mut self.router, &mut self.out);
        match what {
            0 => router.peer_connected(peer, &Message::ALL, now, out),
            1 => router.peer_disconnected(peer),
            2 => router.peer_state(peer, Presence::Alive, now, out),
            3 => router.peer_state(peer, Presence::Dead, now, out),
            4 | 5 => router.set_isolated(peer, what == 4, now, out),
            6 => {
                let mut others = peers_of("us-1");
                others.retain(|listing| listing.id != peer);
                router.set_peers(&others, now, out).expect("one peer");
                assert_eq!(router.counted_for(peer), 0, "who has left has nothing here");
            }
            7 => {
                let all = peers_of("us-1");
                router.set_peers(&all, now, out).expect("two peers");
            }
            _ => {
                router.set_replicas(&replicas(u32::from(what & 1)), now, out);
                self.list_models();
            }
        }
    }

    /// Merges a message; refusals are answers like any other.
    fn merge(&mut self, from: PeerId, kind: u8, message: &[u8]) {
        let (now, router, out) = (self.now, &mut self.router, &mut self.out);
        match kind & 7 {
            0 => drop(router.merge_peer(from, message, now, out)),
            1 => drop(router.merge_peer_digest(from, message, now)),
            _ => drop(router.merge_share(from, message, i64::from(kind >> 4) << 20, now, out)),
        }
    }

    /// The messages to a peer among what the engine wants sent.
    fn tells(&self, to: PeerId) -> Vec<Tell> {
        let tells = self.out.iter().filter_map(|effect| match effect {
            Effect::Tell(tell) if tell.peer == to => Some(tell.clone()),
            _ => None,
        });
        tells.collect()
    }

    /// Messages of a peer arrive.
    fn take(&mut self, from: PeerId, tells: &[Tell]) {
        let far = if from == FAR { 8 } else { 0 };
        for tell in tells {
            self.merge(from, tell.kind as u8 | far, &tell.payload);
        }
    }

    fn submit(&mut self, family: u8) {
        if self.last_id >= REQUESTS_MAX {
            return;
        }
        self.last_id += 1;
        let prompt = format!("{family:03}").repeat(200);
        let body = format!(r#"{{"model":"m","prompt":"{prompt}"}}"#);
        let ask = Ask {
            route: Route::Completions,
            path: b"/v1/completions",
            content_type: Some(b"application/json"),
            key: None,
            class: None,
            trusted: false,
            credential: None,
            body_bytes: body.len(),
            tenant: Tenant::Nobody,
            forwarded: None,
        };
        let mut digest = self
            .router
            .digest(&ask, body.as_bytes())
            .expect("a sound body");
        let id = RequestId(self.last_id);
        let placed = self
            .router
            .place(id, &ask, &mut digest, self.now, &mut self.out);
        placed.expect("a new id");
    }

    /// A probe of every replica says that so many wait there.
    fn observe(&mut self, waiting: u32) {
        for replica in (1..=REPLICAS).map(ReplicaId) {
            let snapshot = Snapshot {
                running: Some(1),
                waiting: Some(waiting),
                ..Snapshot::default()
            };
            self.router
                .observe(replica, snapshot, self.now, self.now, &mut self.out);
        }
    }

    fn end(&mut self, kind: u8) {
        if self.away.is_empty() {
            return;
        }
        let id = self
            .away
            .swap_remove(usize::from(kind >> 3) % self.away.len());
        self.router.first_byte(id, None, self.now, &mut self.out);
        self.router
            .complete(id, Outcome::Ok, Report::default(), self.now, &mut self.out);
    }

    /// The driver's timer: what time alone allows begins now.
    fn keep_time(&mut self) {
        let due = self.router.next_deadline_ns();
        if due.is_some_and(|at| at <= self.now) {
            self.router.tick(self.now, &mut self.out);
        }
    }

    /// What the engine wants done: each request is sent once.
    fn carry_out(&mut self) {
        for effect in self.out.drain(..) {
            let id = match effect {
                Effect::Push(push) => push.request,
                Effect::Forward(forward) => forward.request,
                Effect::Tell(tell) => {
                    self.router.written(tell.peer, tell.kind);
                    continue;
                }
                _ => continue,
            };
            assert!(
                id.0 <= self.last_id && !self.away.contains(&id),
                "{id:?} is sent twice"
            );
            self.away.push(id);
        }
    }
}
