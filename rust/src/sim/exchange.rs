//! What balancers of different regions send each other, and figures about it.

use serde_json::json;

use super::mail::{Exchange, Letter, Link};
use super::queue::Event;
use super::region::state::Sharing;
use super::scenario::{ScenarioError, Topology, nanos};
use super::simulator::Simulator;
use super::workload::small;
use crate::engine::effect::{Message, Tell};
use crate::engine::mesh::hot::heat::Terms;
use crate::engine::mesh::key::KEY_BYTES;
use crate::engine::mesh::peer::{PEERS_MAX, Presence};
use crate::engine::mesh::residency::Rule;
use crate::engine::router::Listing;
use crate::id::{Nanos, PeerId};
use crate::time::{Instant, Span};

/// Balancers connect to each other within this time.
const CONNECT_NS: Nanos = 50_000_000;

/// The key that names prefixes; nobody attacks a simulation.
const MARK_KEY: &[u8; KEY_BYTES] = b"the marks' simulated key";

/// The key that covers messages about prompts.
const COVER_KEY: &[u8; KEY_BYTES] = b"covers are simulated too";

impl Simulator {
    /// Introduces balancers to each other.
    ///
    /// # Errors
    ///
    /// There are more of them than the engine allows.
    pub(super) fn introduce(&mut self) -> Result<(), ScenarioError> {
        let regions: Vec<u32> = self.balancers.iter().map(|of| of.region).collect();
        let shares = self.scenario.topology == Topology::Skylb;
        if !shares || regions.len() < 2 {
            return self.settle_rules();
        }
        if regions.len() > PEERS_MAX + 1 {
            return Err(ScenarioError(format!(
                "topology: skylb: at most {PEERS_MAX} peers of one balancer"
            )));
        }
        self.sharing = Sharing::new(&regions, &self.scenario.faults);
        self.exchange.links = vec![vec![Link::default(); regions.len()]; regions.len()];
        let alone = regions.iter().all(|region| *region == regions[0]);
        for own in regions.iter().filter(|_| !alone) {
            let all = (0u32..).zip(&regions);
            let far = all.filter(|(_, region)| *region != own);
            self.exchange
                .peers
                .push(far.map(|(peer, _)| peer).collect());
            let alive = vec![(Presence::Alive, 1); regions.len()];
            self.exchange.presences.push(alive);
        }
        for number in 0..small(regions.len()) {
            self.introduce_at(number)?;
        }
        self.settle_rules()
    }

    /// Introduces all others to one balancer. Those of its own region it finds for itself.
    pub(super) fn introduce_at(&mut self, number: u32) -> Result<(), ScenarioError> {
        let now_ns = self.queue.now_ns();
        let called = |number: u32| format!("balancer-{number}");
        let name = |region: u32| self.scenario.regions[region as usize].name.clone();
        let own = self.balancers[number as usize].region;
        let others = (0u32..).zip(&self.balancers);
        let others = others.filter(|(other, _)| *other != number);
        let peers: Vec<_> = others
            .map(|(other, of)| (other, of.region, of.incarnation(other), of.up))
            .collect();
        let listed: Vec<_> = peers
            .iter()
            .map(|(peer, at, ..)| Listing::new(PeerId(*peer), called(*peer), name(*at)))
            .collect();
        let balancer = &mut self.balancers[number as usize];
        let (incarnation, clock_ns) = (balancer.incarnation(number), balancer.at(now_ns));
        let Some(router) = balancer.router_mut() else {
            return Ok(());
        };
        let out = &mut self.out;
        router.set_self(&called(number), &name(own), incarnation);
        let set = router.set_peers(&listed, Instant::from_ns(clock_ns), out);
        set.map_err(|error| ScenarioError(format!("regions: {error}")))?;
        let digest = &self.scenario.peer_digest;
        if digest.enabled {
            let terms = Terms {
                bytes_max: digest.bytes_max,
                interval_ns: Span::from_secs_f64(digest.interval_s),
                age_max_ns: Span::from_secs_f64(digest.age_max_s),
            };
            router.set_peer_digest(MARK_KEY, terms);
        }
        if self.scenario.region_cache {
            router.set_region_cache(COVER_KEY);
        }
        for (peer, at, ..) in peers.iter().filter(|(_, at, _, up)| *at != own && *up) {
            let trip_ns = self.network.round_trip_ns(own, *at);
            router.peer_rtt(
                PeerId(*peer),
                Span::from_ns(trip_ns),
                Instant::from_ns(clock_ns),
            );
            router.peer_state(
                PeerId(*peer),
                Presence::Alive,
                Instant::from_ns(clock_ns),
                out,
            );
        }
        Ok(())
    }

    fn settle_rules(&mut self) -> Result<(), ScenarioError> {
        (0..self.balancers.len()).try_for_each(|number| self.settle_rules_at(number))
    }

    /// Gives one balancer the weights and limits of tenants.
    fn settle_terms_at(&mut self, number: usize) -> Result<(), ScenarioError> {
        let scenario = &self.scenario;
        let limit = scenario.clients.requests_per_minute;
        let limit = (limit > 0).then_some(limit);
        let terms = |name: &str, weight: u32| json!({"name": name, "weight": weight, "requests_per_minute": limit});
        let named = scenario.tenants.iter().map(|of| terms(&of.name, of.weight));
        let numbered = (0..scenario.clients.tenants).filter(|_| limit.is_some());
        let numbered = numbered.map(|name| terms(&name.to_string(), 1));
        let tenants: Vec<_> = named.chain(numbered).collect();
        let text = json!({ "tenants": tenants }).to_string();
        let balancer = &mut self.balancers[number];
        let clock = Instant::from_ns(balancer.at(self.queue.now_ns()));
        let Some(router) = balancer.router_mut().filter(|_| !tenants.is_empty()) else {
            return Ok(());
        };
        let set = router.set_tenants(text.as_bytes(), clock);
        set.map_err(|error| ScenarioError(format!("tenants: {error}")))
    }

    /// Gives one balancer the rules of residency, and the terms of tenants.
    pub(super) fn settle_rules_at(&mut self, number: usize) -> Result<(), ScenarioError> {
        self.settle_terms_at(number)?;
        let rules: Vec<Rule> = self
            .scenario
            .residency
            .iter()
            .map(|rule| Rule {
                tenant: rule.tenant.map(|tenant| self.tenant_name(tenant)),
                model: rule.model.clone(),
                regions: rule.regions.clone(),
            })
            .collect();
        let balancer = &mut self.balancers[number];
        let name = &self.scenario.regions[balancer.region as usize].name;
        let alone = self.exchange.peers.is_empty() && self.sharing.peers.is_empty();
        let Some(router) = balancer.router_mut().filter(|_| !rules.is_empty()) else {
            return Ok(());
        };
        if alone {
            router.set_self(name, name, 1);
        }
        let set = router.set_residency(rules);
        set.map_err(|error| ScenarioError(format!("residency: {error}")))
    }

    /// All have told each other before the first request comes.
    pub(super) fn begin_exchange(&mut self) {
        // The second round knows that the first was heard.
        for _ in 0..2 {
            for from in 0..small(self.exchange.peers.len()) {
                for to in self.exchange.peers[from as usize].clone() {
                    let clock_ns = self.balancers[from as usize].at(0);
                    let router = self.balancers[from as usize].router_mut();
                    let summary = router
                        .and_then(|router| router.summary(PeerId(to), Instant::from_ns(clock_ns)));
                    if let Some(bytes) = summary {
                        self.write(Message::Summary, from, to, bytes);
                    }
                }
            }
            for letter in 0..small(self.exchange.letters.len()) {
                self.told(letter);
            }
        }
        for from in 0..small(self.exchange.peers.len()) {
            // They do not tell at the same moment.
            let first_ns = CONNECT_NS * u64::from(from + 1) / self.exchange.peers.len() as u64;
            self.queue.put(first_ns, Event::Connect(from));
        }
    }

    /// A balancer connects to all of other regions. What is on its way is kept through cuts.
    pub(super) fn connect_far(&mut self, from: u32) {
        let now_ns = self.queue.now_ns();
        let mut out = std::mem::take(&mut self.out);
        let balancer = &mut self.balancers[from as usize];
        let clock_ns = balancer.at(now_ns);
        if let Some(router) = balancer.router_mut() {
            for to in self.exchange.peers_of(from) {
                let kinds = [Message::Summary, Message::Digest, Message::Tenants];
                router.peer_connected(PeerId(*to), &kinds, Instant::from_ns(clock_ns), &mut out);
            }
        }
        self.act(from, out);
    }

    /// A message for one peer of another region: its number under way.
    fn write(&mut self, kind: Message, from: u32, to: u32, bytes: Vec<u8>) -> u32 {
        let Exchange { counts, links, .. } = &mut self.exchange;
        let link = &mut links[from as usize][to as usize];
        let (written, written_bytes, told_bytes) = if kind == Message::Digest {
            let digests = (&mut counts.digests, &mut counts.digest_bytes);
            (digests.0, digests.1, &mut link.digest_bytes)
        } else {
            let summaries = (&mut counts.summaries, &mut counts.summary_bytes);
            (summaries.0, summaries.1, &mut link.bytes)
        };
        let len = bytes.len() as u64;
        *written += 1;
        *written_bytes += len;
        *told_bytes += len;
        small(self.exchange.letters.insert(Letter {
            kind,
            from,
            to,
            sent_ns: self.queue.now_ns(),
            bytes,
        }))
    }

    /// A balancer sends a peer a message. The connection takes it at once.
    pub(super) fn send_message(&mut self, from: u32, tell: Tell) {
        let to = tell.peer.0;
        if let Some(router) = self.balancers[from as usize].router_mut() {
            router.written(tell.peer, tell.kind);
        }
        if self.balancers[from as usize].region == self.balancers[to as usize].region {
            return self.tell_near(from, to, tell);
        }
        let letter = self.write(tell.kind, from, to, tell.payload);
        self.post(letter, from, to);
    }

    /// A message sets out. The connection keeps what a cut holds up, for a while.
    fn post(&mut self, letter: u32, from: u32, to: u32) {
        let now_ns = self.queue.now_ns();
        let here = self.balancers[from as usize].region;
        let there = self.balancers[to as usize].region;
        let cut_until_ns = self.network.cut_until(here, there, now_ns);
        let start_ns = cut_until_ns.unwrap_or(now_ns);
        if start_ns - now_ns >= nanos(self.scenario.network.stall_timeout_s) {
            self.exchange.letters.remove(letter as usize);
            return;
        }
        let bytes = self.exchange.letters[letter as usize].bytes.len() as u64;
        let at_ns = self.network.deliver(here, there, bytes, start_ns);
        self.queue.put(at_ns, Event::Told(letter));
    }

    /// A message reaches the peer.
    pub(super) fn told(&mut self, letter: u32) {
        let Some(letter) = self.exchange.letters.try_remove(letter as usize) else {
            return;
        };
        let Letter {
            kind,
            from,
            to,
            sent_ns,
            bytes,
        } = letter;
        if !self.balancers[to as usize].up {
            return;
        }
        let clock_ns = self.balancers[to as usize].at(self.queue.now_ns());
        let clock = Instant::from_ns(clock_ns);
        if kind != Message::Summary {
            return self.merge_news(kind, from, to, &bytes);
        }
        let mut out = std::mem::take(&mut self.out);
        // Those that others have overtaken are old.
        let merged = self.balancers[to as usize]
            .router_mut()
            .is_some_and(|router| {
                router
                    .merge_peer(PeerId(from), &bytes, clock, &mut out)
                    .is_ok()
            });
        if merged {
            self.exchange.links[from as usize][to as usize].word_ns = Some(sent_ns);
        }
        self.act(to, out);
    }

    /// A message that has no effect at once reaches a balancer. One that another has overtaken is old, and counted
    /// as refused there.
    pub(super) fn merge_news(&mut self, kind: Message, from: u32, to: u32, bytes: &[u8]) {
        let balancer = &mut self.balancers[to as usize];
        let clock = Instant::from_ns(balancer.at(self.queue.now_ns()));
        let Some(router) = balancer.router_mut() else {
            return;
        };
        let _taken = match kind {
            Message::Tenants => router.merge_tenants(PeerId(from), bytes, clock).is_ok(),
            Message::Cached => router.merge_cached(PeerId(from), bytes, clock).is_ok(),
            _ => router.merge_peer_digest(PeerId(from), bytes, clock).is_ok(),
        };
    }

    /// An operator evacuates a region, or ends it.
    pub(super) fn evacuate(&mut self, region: &str, evacuating: bool) {
        let Some(region) = self.scenario.region(region) else {
            return;
        };
        let now_ns = self.queue.now_ns();
        for number in 0..small(self.balancers.len()) {
            let balancer = &mut self.balancers[number as usize];
            if balancer.region as usize != region {
                continue;
            }
            let clock_ns = balancer.at(now_ns);
            let mut out = std::mem::take(&mut self.out);
            if let Some(router) = balancer.router_mut() {
                router.set_evacuating(evacuating, Instant::from_ns(clock_ns), &mut out);
            }
            self.act(number, out);
        }
    }
}
