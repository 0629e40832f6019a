//! A balancer: the engine itself, or the oracle in its place.

use std::collections::BTreeMap;

use super::fleet::Probed;
use super::ledger::Ledger;
use super::oracle::Oracle;
use super::result::BalancerReport;
use super::scenario::Group;
use crate::engine::config::Config;
use crate::engine::effect::{Effect, Outcome};
use crate::engine::fleet::failure::{Failure, Unread};
use crate::engine::hold::Tokens;
use crate::engine::router::{Ask, Forwarded, ModelList, Report, Router};
use crate::http::route::Route;
use crate::id::{Nanos, PeerId, ReplicaId, RequestId};
use crate::prompt::Digest;
use crate::prompt::class::Class;
use crate::tenant::Tenant;
use crate::time::Instant;

/// The oracle looks for deadlines so often.
const ORACLE_NS: Nanos = 50_000_000;
/// Keys the hashes; nobody attacks a simulation.
const SECRET: &[u8; 16] = b"simulated secret";

/// Who decides.
#[derive(Debug)]
pub enum Brain {
    /// The engine.
    Engine(Box<Router>),
    /// True cache and load.
    Oracle(Oracle),
}

/// One balancer.
#[derive(Debug)]
pub struct Balancer {
    /// Number of its region.
    pub region: u32,
    /// Who decides.
    pub brain: Brain,
    /// Numbers of its replicas.
    pub replicas: Vec<u32>,
    /// When its timer goes, in virtual time.
    pub armed_ns: Option<Nanos>,
    /// How far its monotonic clock is ahead of virtual time.
    pub clock_ns: Nanos,
    /// Its process runs.
    pub up: bool,
    /// Number of its process, from 1 on.
    pub process: u64,
    /// It has been asked something since it was checked.
    pub touched: bool,
    /// When others find out that it is gone.
    pub missed_ns: Nanos,
    /// Probes sent.
    pub probes: u64,
    /// What tenants were served, where that is compared.
    pub ledger: Option<Box<Ledger>>,
    hold_peak: u64,
}

/// What a request says beside its body.
fn ask(tenant: Option<&str>, forwarded: Option<Forwarded>) -> Ask<'_> {
    Ask {
        route: Route::ChatCompletions,
        path: b"/v1/chat/completions",
        content_type: None,
        key: None,
        class: None,
        trusted: true, // the scenario says which class its clients are of
        credential: None,
        body_bytes: 0,
        tenant: tenant.map_or(Tenant::Nobody, Tenant::Named),
        forwarded,
    }
}

/// An engine in front of these replicas.
fn router(config: &Config, seed: u64, replicas: &[(u32, &Group)], now_ns: Nanos) -> Router {
    let mut router = Router::new(config.clone(), SECRET, seed);
    let mut out = Vec::new();
    let names: Vec<_> = replicas
        .iter()
        .map(|(number, _)| (ReplicaId(*number), format!("replica-{number}")))
        .collect();
    router.set_replicas(&names, Instant::from_ns(now_ns), &mut out);
    for (number, group) in replicas {
        let len_max = Some(group.profile.max_model_len);
        let models = group.models.iter();
        let served: Vec<_> = models.map(|name| (name.clone(), len_max)).collect();
        router.set_listing(
            ReplicaId(*number),
            ModelList::Whole(&served),
            Instant::from_ns(now_ns),
            &mut out,
        );
    }
    router
}

impl Balancer {
    /// The engine in front of these replicas.
    #[must_use]
    pub fn engine(region: u32, config: &Config, seed: u64, replicas: &[(u32, &Group)]) -> Self {
        let router = router(config, seed, replicas, 0);
        let numbers = replicas.iter().map(|(number, _)| *number);
        Self::new(region, Brain::Engine(Box::new(router)), numbers.collect())
    }

    /// Before anything has happened: its clock begins at this time.
    pub fn set_clock(
        &mut self,
        clock_ns: Nanos,
        config: &Config,
        seed: u64,
        replicas: &[(u32, &Group)],
    ) {
        self.clock_ns = clock_ns;
        self.brain = Brain::Engine(Box::new(router(config, seed, replicas, clock_ns)));
    }

    /// A new process in place of the one before: it knows nothing.
    pub fn restart(
        &mut self,
        config: &Config,
        seed: u64,
        replicas: &[(u32, &Group)],
        now_ns: Nanos,
    ) {
        let router = router(config, seed, replicas, self.at(now_ns));
        self.brain = Brain::Engine(Box::new(router));
        self.process += 1;
    }

    /// A number that is greater after each start.
    #[must_use]
    pub fn incarnation(&self, number: u32) -> u64 {
        (self.process - 1) * 1_000 + u64::from(number) + 1
    }

    /// Its clock at a virtual time.
    #[must_use]
    pub fn at(&self, now_ns: Nanos) -> Nanos {
        now_ns.saturating_add(self.clock_ns)
    }

    /// The oracle in front of all replicas.
    #[must_use]
    pub fn oracle(region: u32, config: &Config, replicas: usize) -> Self {
        let oracle = Oracle::new(replicas, config.hold_timeout_ns.ns());
        Self::new(region, Brain::Oracle(oracle), Vec::new())
    }

    fn new(region: u32, brain: Brain, replicas: Vec<u32>) -> Self {
        Self {
            region,
            brain,
            replicas,
            armed_ns: None,
            clock_ns: 0,
            up: true,
            process: 1,
            missed_ns: 0,
            touched: true,
            probes: 0,
            ledger: None,
            hold_peak: 0,
        }
    }

    /// A held request lets room pass, for another replica.
    #[must_use]
    pub fn waits_by_choice(&self, id: RequestId) -> bool {
        match &self.brain {
            Brain::Engine(router) => router.waits_by_choice(id),
            Brain::Oracle(_) => false,
        }
    }

    /// A request has arrived.
    pub fn place(
        &mut self,
        id: RequestId,
        digest: &mut Digest,
        (tenant, forwarded): (Option<&str>, Option<Forwarded>),
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        let now_ns = self.at(now_ns);
        match &mut self.brain {
            Brain::Engine(router) => {
                let placed = router.place(
                    id,
                    &ask(tenant, forwarded),
                    digest,
                    Instant::from_ns(now_ns),
                    out,
                );
                debug_assert!(placed.is_ok(), "ids are never used twice");
                self.hold_peak = self.hold_peak.max(router.hold_requests() as u64);
            }
            Brain::Oracle(oracle) => {
                oracle.place(id, now_ns, out);
                self.hold_peak = self.hold_peak.max(oracle.held() as u64);
            }
        }
    }

    /// The first body byte of its answer has arrived.
    pub fn first_byte(&mut self, id: RequestId, now_ns: Nanos, out: &mut Vec<Effect>) {
        let now_ns = self.at(now_ns);
        if let Brain::Engine(router) = &mut self.brain {
            router.first_byte(id, None, Instant::from_ns(now_ns), out);
        }
    }

    /// An attempt failed before its first body byte.
    pub fn retry(&mut self, id: RequestId, failure: Failure, now_ns: Nanos, out: &mut Vec<Effect>) {
        let now_ns = self.at(now_ns);
        self.note_end(id, Some(Tokens::default()));
        match &mut self.brain {
            Brain::Engine(router) => {
                router.retry(
                    id,
                    failure,
                    failure != Failure::Connect,
                    Instant::from_ns(now_ns),
                    out,
                );
            }
            Brain::Oracle(oracle) => oracle.place(id, now_ns, out),
        }
    }

    /// A request ended.
    pub fn complete(
        &mut self,
        id: RequestId,
        outcome: Outcome,
        report: Report<'_>,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        let now_ns = self.at(now_ns);
        match &mut self.brain {
            Brain::Engine(router) => {
                router.complete(id, outcome, report, Instant::from_ns(now_ns), out);
            }
            Brain::Oracle(oracle) => oracle.forget(id),
        }
    }

    /// A request was started, by a push or a forward: its tenant was charged for it.
    pub fn note_start(&mut self, id: RequestId, class: Class, tenant: Option<u32>) {
        let (Some(ledger), Brain::Engine(router)) = (&mut self.ledger, &self.brain) else {
            return;
        };
        if let (Some(tenant), Some(charge)) = (tenant, router.bill_of(id)) {
            ledger.starts(id, class, tenant, charge.cost());
        }
    }

    /// A request ended; `took`: what it took, where that is known.
    pub fn note_end(&mut self, id: RequestId, took: Option<Tokens>) {
        if let Some(ledger) = &mut self.ledger {
            ledger.ends(id, took);
        }
    }

    /// Something has happened: notes which of these tenants wait for what comes.
    pub fn note_waiting(&mut self, names: &[String]) {
        let (Some(ledger), Brain::Engine(router)) = (&mut self.ledger, &self.brain) else {
            return;
        };
        for (tenant, name) in (0..).zip(names) {
            for class in Class::ALL {
                ledger.waits(class, tenant, router.waits_openly(name, class));
            }
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now_ns: Nanos, out: &mut Vec<Effect>) {
        let now_ns = self.at(now_ns);
        match &mut self.brain {
            Brain::Engine(router) => router.tick(Instant::from_ns(now_ns), out),
            Brain::Oracle(oracle) => oracle.expire(now_ns, out),
        }
    }

    /// When [`Self::tick`] has work, in virtual time.
    pub fn next_ns(&mut self, now_ns: Nanos) -> Option<Nanos> {
        match &mut self.brain {
            Brain::Engine(router) => {
                let at_ns = router.next_deadline_ns();
                at_ns.map(|at_ns| at_ns.ns().saturating_sub(self.clock_ns))
            }
            Brain::Oracle(_) => Some(now_ns.saturating_add(ORACLE_NS)),
        }
    }

    /// A probe was answered.
    pub fn observe(
        &mut self,
        replica: u32,
        probed: Probed,
        sent_ns: Nanos,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        let (sent_ns, now_ns) = (self.at(sent_ns), self.at(now_ns));
        let Brain::Engine(router) = &mut self.brain else {
            return;
        };
        let replica = ReplicaId(replica);
        let unread = match probed {
            Probed::Page(snapshot) => {
                return router.observe(
                    replica,
                    snapshot,
                    Instant::from_ns(sent_ns),
                    Instant::from_ns(now_ns),
                    out,
                );
            }
            Probed::Unreadable => Unread::Unreadable,
            Probed::Unconnected => Unread::Unconnected,
            Probed::Late => Unread::Late,
            Probed::Refused => Unread::Refused,
        };
        router.observe_failed(replica, unread, Instant::from_ns(now_ns), out);
    }

    /// An operator's intent.
    pub fn drain(&mut self, replica: u32, draining: bool, now_ns: Nanos, out: &mut Vec<Effect>) {
        let now_ns = self.at(now_ns);
        if let Brain::Engine(router) = &mut self.brain {
            router.set_draining(ReplicaId(replica), draining, Instant::from_ns(now_ns), out);
        }
    }

    /// The engine, if it decides here.
    pub fn router_mut(&mut self) -> Option<&mut Router> {
        match &mut self.brain {
            Brain::Engine(router) => Some(router),
            Brain::Oracle(_) => None,
        }
    }

    /// Requests at replicas, in the hold, and at peers, as it counts them.
    #[must_use]
    pub fn counted(&self) -> (usize, usize, usize) {
        match &self.brain {
            Brain::Engine(router) => (
                router.in_flight(),
                router.hold_requests(),
                router.forwards_in_flight(),
            ),
            Brain::Oracle(oracle) => (oracle.in_flight(), oracle.held(), 0),
        }
    }

    /// Requests in flight that a peer of its region has told of.
    #[must_use]
    pub fn counted_for(&self, peer: PeerId) -> usize {
        match &self.brain {
            Brain::Engine(router) => router.counted_for(peer),
            Brain::Oracle(_) => 0,
        }
    }

    /// The engine's invariants.
    ///
    /// # Errors
    ///
    /// The name of the broken one.
    pub fn check(&self) -> Result<(), String> {
        match &self.brain {
            Brain::Engine(router) => router.check_invariants(),
            Brain::Oracle(_) => Ok(()),
        }
    }

    /// The form of the result.
    #[must_use]
    pub fn report(&self, region: &str) -> BalancerReport {
        let counters = match &self.brain {
            Brain::Engine(router) => router.counters(),
            Brain::Oracle(_) => Vec::new(),
        };
        BalancerReport {
            region: region.to_owned(),
            counters: counters
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<BTreeMap<_, _>>(),
            probes: self.probes,
            hold_peak: self.hold_peak,
        }
    }
}
