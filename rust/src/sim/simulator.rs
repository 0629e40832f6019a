//! The simulator: takes event after event, and lets balancers, replicas and clients act on it.

use super::balancer::Balancer;
use super::calm::Calm;
use super::clients::{Clients, Due};
use super::fleet::{self, Replica};
use super::ledger;
use super::live::Table;
use super::mail::Exchange;
use super::measure::Measures;
use super::network::{Network, uniform};
use super::prompt::Prompts;
use super::queue::{Event, Queue};
use super::region::rooms::Rooms;
use super::region::state::Sharing;
use super::replica::Progress;
use super::result::Report;
use super::scenario::{Group, Mode, Scenario, ScenarioError, Topology, nanos, seconds};
use super::workload::{Workload, small};
use crate::engine::config::{Config, TenantRule};
use crate::engine::effect::Effect;
use crate::id::Nanos;
use crate::rng::Rng;

/// One second of virtual time.
pub(super) const SECOND_NS: Nanos = 1_000_000_000;

/// An answer of a probe on its way.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) balancer: u32,
    pub(super) replica: u32,
    pub(super) sent_ns: Nanos,
    pub(super) probed: fleet::Probed,
    /// The balancer's process that asked.
    pub(super) process: u64,
}

/// A run of one scenario. See the [module](super).
#[derive(Debug)]
pub struct Simulator {
    pub(super) scenario: Scenario,
    pub(super) config: Config,
    pub(super) workload: Workload,
    pub(super) prompts: Prompts,
    pub(super) queue: Queue,
    pub(super) network: Network,
    pub(super) replicas: Vec<Replica>,
    pub(super) balancers: Vec<Balancer>,
    /// By region: its balancers.
    pub(super) serving: Vec<Vec<u32>>,
    pub(super) clients: Clients,
    pub(super) live: Table,
    pub(super) measures: Measures,
    /// Names of the tenants whose service is compared.
    pub(super) tenant_names: Vec<String>,
    /// Decides what clients do.
    pub(super) rng: Rng,
    /// What goes between balancers.
    pub(super) exchange: Exchange,
    /// The same within a region.
    pub(super) sharing: Sharing,
    /// Probes' answers on their way.
    pub(super) answers: slab::Slab<Answer>,
    pub(super) duration_ns: Nanos,
    pub(super) warmup_ns: Nanos,
    pub(super) end_ns: Nanos,
    /// Clients' events in the queue: when there are none and nothing is under way, it is over.
    pub(super) clients_due: u64,
    pub(super) done: bool,
    pub(super) events: u64,
    /// The first invariant that the event under way broke.
    pub(super) broken: Option<String>,
    /// What is known of shared replicas' room.
    pub(super) rooms: Rooms,
    /// Nothing goes wrong in the scenario, so that more must hold.
    pub(super) calm: Calm,
    /// Decides which requests replicas fail.
    pub(super) chance: Rng,
    /// Requests that have reached a balancer.
    pub(super) arrived: u64,
    /// Hash of every decision so far, in order.
    #[cfg(test)]
    pub(super) decisions: u64,
    /// Every push, where a test wants them.
    #[cfg(test)]
    pub(super) pushes: Option<Vec<crate::engine::effect::Push>>,
    /// Used again from event to event.
    pub(super) out: Vec<Effect>,
    pub(super) progress: Vec<Progress>,
    pub(super) due: Vec<Due>,
    pub(super) blocks: Vec<u64>,
}

/// An invariant broke: the run cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

impl Simulator {
    /// A run at its beginning.
    ///
    /// # Errors
    ///
    /// Scenario or requests are impossible: the text names the field.
    pub fn new(scenario_json: &[u8], requests_json: &[u8]) -> Result<Self, ScenarioError> {
        let scenario = Scenario::from_json(scenario_json)?;
        let config = scenario.config()?;
        Self::with_config(scenario, requests_json, config)
    }

    /// As `new`, with the engine's configuration read already.
    ///
    /// # Errors
    ///
    /// As `new`.
    pub fn with_config(
        scenario: Scenario,
        requests_json: &[u8],
        config: Config,
    ) -> Result<Self, ScenarioError> {
        let workload = Workload::from_json(requests_json, &scenario)?;
        let mut rng = Rng::new(scenario.seed);
        let replicas = fleet::build(&scenario, &workload.models)
            .map_err(|error| ScenarioError(error.to_string()))?;
        let (balancers, serving) = balancers(&scenario, &config, &mut rng)?;
        let network = Network::new(&scenario, Rng::new(rng.next_u64()));
        let chance = Rng::new(rng.next_u64());
        let calm = Calm::of(&scenario, &config);
        let rooms = Rooms::new(&scenario, &config, replicas.len());
        let duration_ns = nanos(scenario.duration_s);
        let mut simulator = Self {
            prompts: Prompts::new(&workload),
            clients: Clients::new(&scenario),
            measures: Measures::new(&scenario),
            end_ns: duration_ns.saturating_add(nanos(scenario.drain_s)),
            warmup_ns: nanos(scenario.warmup_s),
            duration_ns,
            config,
            workload,
            queue: Queue::default(),
            network,
            replicas,
            balancers,
            serving,
            live: Table::default(),
            tenant_names: Vec::new(),
            rng,
            exchange: Exchange::default(),
            sharing: Sharing::default(),
            answers: slab::Slab::new(),
            clients_due: 0,
            done: false,
            events: 0,
            broken: None,
            calm,
            rooms,
            chance,
            arrived: 0,
            #[cfg(test)]
            decisions: 0,
            #[cfg(test)]
            pushes: None,
            out: Vec::new(),
            progress: Vec::new(),
            due: Vec::new(),
            blocks: Vec::new(),
            scenario,
        };
        simulator.check_reachable()?;
        simulator.open_ledgers();
        simulator.introduce()?;
        simulator.begin();
        Ok(simulator)
    }

    /// Regions that send requests must have somebody who takes them.
    fn check_reachable(&self) -> Result<(), ScenarioError> {
        let open = self.scenario.clients.mode != Mode::Closed;
        for (number, region) in self.scenario.regions.iter().enumerate() {
            let sends = if open {
                self.workload
                    .turns
                    .iter()
                    .any(|turn| turn.region as usize == number)
            } else {
                self.scenario
                    .clients
                    .users
                    .get(&region.name)
                    .is_some_and(|users| *users > 0)
            };
            if sends && self.serving[number].is_empty() {
                return Err(ScenarioError(format!(
                    "regions[{number}].replicas: {} has clients but no replicas, and nobody shares with it",
                    region.name
                )));
            }
            if sends && let Some(name) = self.model_nobody_serves(number) {
                return Err(ScenarioError(format!(
                    "requests.model: no replica serves {name} for region {}",
                    region.name
                )));
            }
            if sends && !open && self.workload.users[number].is_empty() {
                return Err(ScenarioError(format!(
                    "clients.users: no request is of region {}",
                    region.name
                )));
            }
        }
        Ok(())
    }

    /// A model that a region's requests ask for, and none of the replicas it may use has.
    fn model_nobody_serves(&self, region: usize) -> Option<&str> {
        let central = self.scenario.topology.central();
        let turns = self.workload.turns.iter();
        let mut asked: Vec<_> = turns
            .filter(|turn| turn.region as usize == region)
            .map(|turn| turn.model)
            .collect();
        asked.sort_unstable();
        asked.dedup();
        let served = |model: &u32| {
            let mut usable = self
                .replicas
                .iter()
                .filter(|replica| central || replica.region as usize == region);
            usable.any(|replica| replica.serves(*model))
        };
        let missing = asked.into_iter().find(|model| !served(model))?;
        Some(&self.workload.models[missing as usize])
    }

    /// Compares what tenants are served, where there are several and they are few.
    fn open_ledgers(&mut self) {
        let tenants = self.scenario.tenants_len();
        let fair = self.config.tenant_rule == TenantRule::Fair;
        if !fair || !(2..=ledger::TENANTS_MAX).contains(&(tenants as usize)) {
            return;
        }
        self.tenant_names = (0..tenants)
            .map(|number| self.tenant_name(number))
            .collect();
        for balancer in &mut self.balancers {
            balancer.ledger = Some(Box::default());
        }
    }

    /// Puts the first events into the queue.
    fn begin(&mut self) {
        for balancer in &mut self.balancers {
            // The fleet has stood there for a while: the first probes have been answered.
            for replica in balancer.replicas.clone() {
                let probed = self.replicas[replica as usize].probed();
                balancer.observe(replica, probed, 0, 0, &mut self.out);
            }
        }
        for number in 0..small(self.balancers.len()) {
            self.arm(number);
        }
        self.queue.put(SECOND_NS, Event::Second);
        for (index, fault) in (0u32..).zip(&self.scenario.faults) {
            let (at_s, until_s) = fault.times();
            self.queue.put(
                nanos(at_s),
                Event::Fault {
                    index,
                    begins: true,
                },
            );
            if let Some(until_s) = until_s {
                self.queue.put(
                    nanos(until_s),
                    Event::Fault {
                        index,
                        begins: false,
                    },
                );
            }
        }
        self.begin_exchange();
        self.begin_sharing();
        self.begin_judging();
        self.begin_clients();
    }

    /// Runs until virtual time `until_s`, or to the end; returns the time reached, in seconds.
    ///
    /// # Errors
    ///
    /// An invariant broke (most are looked at with `check` only): names it, the time, and the seed
    /// that replays it.
    pub fn advance(&mut self, until_s: f64) -> Result<f64, Broken> {
        let limit_ns = nanos(until_s).min(self.end_ns);
        while !self.done {
            let Some(event) = self.queue.take(limit_ns) else {
                self.queue.pass(limit_ns);
                self.done = self.queue.now_ns() >= self.end_ns;
                break;
            };
            self.events += 1;
            self.handle(event);
            self.check(event)?;
            self.done = self.live.is_empty()
                && (self.clients_due == 0 || self.queue.now_ns() >= self.duration_ns);
        }
        Ok(seconds(self.queue.now_ns()))
    }

    /// Lets so much time pass after the end.
    #[cfg(test)]
    pub(super) fn rest(&mut self, for_s: f64) -> Result<(), Broken> {
        let until_ns = self.queue.now_ns() + nanos(for_s);
        while let Some(event) = self.queue.take(until_ns) {
            self.events += 1;
            self.handle(event);
            self.check(event)?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::User { seat } => self.user(seat),
            Event::Send { turn, seat } => self.send(turn, seat),
            Event::Arrive(id) => self.arrive(id),
            Event::AtReplica(id, attempt) => self.at_replica(id, attempt),
            Event::Step { replica, epoch } => self.step(replica, epoch),
            Event::FirstByte(id, attempt) => self.first_byte(id, attempt),
            Event::End(id, attempt) => self.end(id, attempt),
            Event::TooLong(id, attempt) => self.too_long(id, attempt),
            Event::Fail(id, attempt, failure) => self.fail(id, attempt, failure),
            Event::Stall(id, attempt, epoch) => self.stall(id, attempt, epoch),
            Event::Leave(id) => self.leave(id),
            Event::Connect(balancer) => self.connect_far(balancer),
            Event::Talk(balancer) => self.talk(balancer),
            Event::Heard(letter) => self.heard(letter),
            Event::Judge(balancer) => self.judge(balancer),
            Event::Told(summary) => self.told(summary),
            Event::AtPeer(id, number) => self.at_peer(id, number),
            Event::Home(id, number, news) => self.home(id, number, news),
            Event::Abort(id, replica) => self.replicas[replica as usize].abort(id),
            Event::Tick(balancer) => self.tick(balancer),
            Event::Probe {
                balancer,
                replica,
                sent_ns,
            } => self.probe(balancer, replica, sent_ns),
            Event::Probed(answer) => self.probed(answer),
            Event::Fault { index, begins } => self.fault(index, begins),
            Event::Second => self.second(),
        }
    }

    /// The run is over.
    #[must_use]
    pub fn done(&self) -> bool {
        self.done
    }

    /// Virtual time reached, in seconds.
    #[must_use]
    pub fn now_s(&self) -> f64 {
        seconds(self.queue.now_ns())
    }

    /// Requests that balancers count at replicas, in their holds, and at peers.
    #[must_use]
    pub fn counted(&self) -> (usize, usize, usize) {
        let counts = self.balancers.iter().map(Balancer::counted);
        counts.fold((0, 0, 0), |sum, (in_flight, held, away)| {
            (sum.0 + in_flight, sum.1 + held, sum.2 + away)
        })
    }

    /// The result so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report_now()
    }

    /// The result so far as JSON.
    ///
    /// # Errors
    ///
    /// None in practice: every value has a form in JSON.
    pub fn result(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&self.report())
    }
}

type Serving = Vec<Vec<u32>>;

/// The balancers of a scenario, and by region those that its clients use.
fn balancers(
    scenario: &Scenario,
    config: &Config,
    rng: &mut Rng,
) -> Result<(Vec<Balancer>, Serving), ScenarioError> {
    let mut fleet: Vec<(u32, u32, &Group)> = Vec::new();
    for (region, of) in (0u32..).zip(&scenario.regions) {
        for group in &of.replicas {
            for _ in 0..group.count {
                fleet.push((region, small(fleet.len()), group));
            }
        }
    }
    if scenario.topology.central() {
        let center = small(scenario.center());
        let all: Vec<_> = fleet
            .iter()
            .map(|(_, number, group)| (*number, *group))
            .collect();
        let one = if scenario.topology == Topology::Oracle {
            let profiles = || all.iter().map(|(_, group)| group.profile.block_size);
            if profiles().min() != profiles().max() {
                return Err(ScenarioError(
                    "topology: the oracle needs replicas of one block_size".into(),
                ));
            }
            Balancer::oracle(center, config, all.len())
        } else {
            Balancer::engine(center, config, rng.next_u64(), &all)
        };
        return Ok((vec![one], vec![vec![0]; scenario.regions.len()]));
    }
    let spread_s = scenario.network.clock_spread_s;
    let (mut balancers, mut serving) = (Vec::new(), Vec::new());
    for (region, of) in (0u32..).zip(&scenario.regions) {
        let own: Vec<_> = fleet
            .iter()
            .filter(|(at, ..)| *at == region)
            .map(|(_, number, group)| (*number, *group))
            .collect();
        let mut here = Vec::new();
        if !own.is_empty() {
            for _ in 0..of.balancers {
                here.push(small(balancers.len()));
                let seed = rng.next_u64();
                let mut balancer = Balancer::engine(region, config, seed, &own);
                if spread_s > 0.0 {
                    let clock_ns = nanos(uniform(rng) * spread_s);
                    balancer.set_clock(clock_ns, config, seed, &own);
                }
                balancers.push(balancer);
            }
        }
        serving.push(here);
    }
    Ok((balancers, serving))
}
