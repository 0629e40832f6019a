//! Several balancers as a small model: messages, connections, and what each may use.

use std::collections::VecDeque;

use super::super::*;

pub(super) const TENANTS: [Key; 2] = [11, 22];

/// Balancers, the messages between them, and what each knows of the others.
pub(super) struct World {
    pub(super) shares: Vec<Shares>,
    pub(super) asked: Vec<HashMap<Key, u32, FixedState>>,
    /// By sender, then receiver.
    pub(super) letters: Vec<Vec<VecDeque<Vec<u8>>>>,
    pub(super) connected: Vec<Vec<bool>>,
    pub(super) dead: Vec<Vec<bool>>,
    pub(super) up: Vec<bool>,
    pub(super) now: Instant,
}

impl World {
    pub(super) fn new(balancers: usize) -> Self {
        let mut world = Self {
            shares: (0..balancers).map(|_| Shares::new()).collect(),
            asked: vec![HashMap::with_hasher(FixedState::default()); balancers],
            letters: vec![vec![VecDeque::new(); balancers]; balancers],
            connected: vec![vec![false; balancers]; balancers],
            dead: vec![vec![false; balancers]; balancers],
            up: vec![true; balancers],
            now: Instant::ZERO + Span::from_secs(1),
        };
        for at in 0..balancers {
            world.shares[at].set_incarnation(at as u64 + 1);
            world.shares[at].set_limited(true);
            world.review(at);
        }
        world
    }

    pub(super) fn len(&self) -> usize {
        self.up.len()
    }

    pub(super) fn siblings(&self, at: usize) -> Vec<Sibling> {
        let others = (0..self.len()).filter(|of| *of != at);
        others
            .map(|of| Sibling {
                peer: peer(of),
                dead: self.dead[at][of],
                takes: self.connected[at][of].then_some(true),
            })
            .collect()
    }

    pub(super) fn review(&mut self, at: usize) {
        let siblings = self.siblings(at);
        self.shares[at].set_siblings(siblings.into_iter());
        self.shares[at].review(&self.asked[at], |key| TENANTS.contains(&key), self.now);
    }

    pub(super) fn tell(&mut self, from: usize, to: usize) {
        if self.connected[from][to]
            && let Some(bytes) = self.shares[from].message(peer(to), self.now)
        {
            self.letters[from][to].push_back(bytes);
        }
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize) {
        if let Some(bytes) = self.letters[from][to].pop_front() {
            let message = Message::decode(&bytes).unwrap();
            let heard = self.shares[to].hear(peer(from), message);
            assert!(matches!(heard, Ok(()) | Err(MessageError::Old)));
        }
    }

    pub(super) fn connect(&mut self, one: usize, other: usize, connected: bool) {
        if one == other || !self.up[one] || !self.up[other] {
            return;
        }
        for (from, to) in [(one, other), (other, one)] {
            self.connected[from][to] = connected;
            self.letters[from][to].clear();
            self.dead[from][to] &= !connected;
            let siblings = self.siblings(from);
            self.shares[from].set_siblings(siblings.into_iter());
        }
    }

    pub(super) fn die(&mut self, gone: usize) {
        for of in 0..self.len() {
            self.connect(gone, of, false);
        }
        self.up[gone] = false;
    }

    /// Everybody tells everybody in the group what is new, as often.
    pub(super) fn talk(&mut self, rounds: usize, group: impl Fn(usize, usize) -> bool + Copy) {
        for _ in 0..rounds {
            self.now += Span::from_ms(200);
            let pairs = (0..self.len()).flat_map(|from| (0..self.len()).map(move |to| (from, to)));
            let pairs: Vec<_> = pairs
                .filter(|(from, to)| from != to && group(*from, *to))
                .collect();
            for (from, to) in &pairs {
                self.tell(*from, *to);
            }
            for (from, to) in &pairs {
                while !self.letters[*from][*to].is_empty() {
                    self.deliver(*from, *to);
                }
            }
            for at in (0..self.len())
                .filter(|at| self.up[*at])
                .collect::<Vec<_>>()
            {
                self.review(at);
            }
        }
    }

    pub(super) fn ask(&mut self, at: usize, key: Key, demand: u32) {
        if demand == 0 {
            self.asked[at].remove(&key);
        } else {
            self.asked[at].insert(key, demand);
        }
    }

    pub(super) fn used(&self, key: Key) -> u64 {
        let up = (0..self.len()).filter(|at| self.up[*at]);
        up.map(|at| u64::from(self.shares[at].of(key))).sum()
    }
}

pub(super) fn peer(number: usize) -> PeerId {
    PeerId(crate::id::count(number))
}

/// Two that are connected, and have talked.
pub(super) fn two() -> World {
    let mut world = World::new(2);
    world.connect(0, 1, true);
    world.talk(2, |_, _| true);
    world
}
