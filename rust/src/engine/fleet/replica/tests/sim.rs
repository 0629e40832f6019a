//! A small engine with a real queue, one balancer in front of it, and the wires between them.
//!
//! The engine works in steps. At the start of a step it takes the requests that have arrived, and fills its
//! slots in order of arrival. At the end every running request has one more token, and the gauges are
//! written. So gauges are up to a step old, and probes are answered some time after they are sent.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::engine::config::Config;
use crate::engine::fleet::gate::{may_push, probe_interval};
use crate::engine::fleet::replica::Replica;
use crate::id::RequestId;
use crate::rng::Rng;
use crate::time::{Instant, Span};

use super::{need, page};

pub(super) const MS: Span = Span::from_ns(1_000_000);

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// Requests the engine runs at once.
    pub(super) slots: usize,
    /// Length of a step, and what each prompt that enters the batch adds to it.
    pub(super) step_ns: Span,
    pub(super) prefill_ns: Span,
    /// One way between balancer and engine.
    pub(super) wire_ns: Span,
    /// Longest time the engine's server takes over a probe, on top of the wire.
    pub(super) probe_ns: Span,
    /// Clients that send the next request when the last one ended.
    pub(super) clients: usize,
    /// Answer length in tokens, from and to.
    pub(super) tokens: (usize, usize),
    /// The first token is seen when it comes, not with the whole answer.
    pub(super) streamed: bool,
    /// Share of clients that leave, in thousandths, and after how long at most.
    pub(super) leave_permille: usize,
    pub(super) leave_ns: Span,
    /// Clients stop sending.
    pub(super) until_ns: Instant,
    /// The run ends; what is in flight is done by then.
    pub(super) end_ns: Instant,
    pub(super) seed: u64,
}

impl Setup {
    /// 16 slots, steps of 10 ms, 64 clients, chat-like answers.
    pub(super) fn chat() -> Self {
        Self {
            slots: 16,
            step_ns: 10 * MS,
            prefill_ns: MS,
            wire_ns: 2 * MS,
            probe_ns: 4 * MS,
            clients: 64,
            tokens: (100, 300),
            streamed: true,
            leave_permille: 0,
            leave_ns: Span::ZERO,
            until_ns: Instant::from_ns(30_000 * 1_000_000),
            end_ns: Instant::from_ns(30_000 * 1_000_000),
            seed: 1,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// Requests answered in full, over the run and in the second half of the sending time.
    pub(super) completed: u64,
    pub(super) completed_late: u64,
    /// Most requests that found no slot at a step's start, over the run and in its second half.
    pub(super) waiting_max: usize,
    pub(super) waiting_max_late: usize,
    /// Most requests running at once.
    pub(super) running_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(u64, usize),
    Abort(u64),
    StepEnd,
    Token {
        id: u64,
        done: bool,
    },
    Leave(u64),
    ProbeDue,
    ProbeServed {
        sent_ns: Instant,
    },
    ProbeAnswered {
        sent_ns: Instant,
        running: u32,
        waiting: u32,
    },
}

#[derive(Debug, Default)]
struct Engine {
    input: VecDeque<(u64, Option<usize>)>,
    waiting: VecDeque<(u64, usize)>,
    running: Vec<(u64, usize)>,
    stepping: bool,
    gauges: (u32, u32),
}

/// Engine, balancer and clients.
pub(super) struct Sim<'a> {
    setup: &'a Setup,
    config: &'a Config,
    pub(super) replica: Replica,
    engine: Engine,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    order: u64,
    now: Instant,
    next_id: u64,
    idle_clients: usize,
    rng: Rng,
    probes: u32,
    pub(super) outcome: Outcome,
}

impl<'a> Sim<'a> {
    pub(super) fn new(setup: &'a Setup, config: &'a Config) -> Self {
        let mut sim = Self {
            setup,
            config,
            replica: Replica::new(),
            engine: Engine::default(),
            events: BinaryHeap::new(),
            order: 0,
            now: Instant::ZERO + MS,
            next_id: 0,
            idle_clients: setup.clients,
            rng: Rng::new(setup.seed),
            probes: 0,
            outcome: Outcome::default(),
        };
        sim.replica.health.probe_succeeded(Instant::ZERO);
        sim.replica.probe_sent(Instant::ZERO);
        let _ = sim
            .replica
            .observe(page(0, 0), Instant::ZERO, Instant::ZERO);
        sim.at(Span::ZERO, Event::ProbeDue);
        sim
    }

    /// Runs to the end, `check` looking after every event.
    pub(super) fn run(mut self, mut check: impl FnMut(&Self)) -> Self {
        self.fill();
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > self.setup.end_ns {
                break;
            }
            self.now = at;
            self.happen(event);
            self.fill();
            check(&self);
        }
        self
    }

    /// Requests that wait in the engine and that somebody still wants.
    pub(super) fn true_waiting(&self) -> usize {
        let wanted = |id| self.replica.in_flight.iter().any(|r| r.id == RequestId(id));
        self.engine
            .waiting
            .iter()
            .filter(|(id, _)| wanted(*id))
            .count()
    }

    fn at(&mut self, delay: Span, event: Event) {
        self.order += 1;
        self.events
            .push(Reverse((self.now + delay, self.order, event)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(id, tokens) => self.arrive(id, Some(tokens)),
            Event::Abort(id) => self.arrive(id, None),
            Event::StepEnd => self.end_step(),
            Event::Token { id, done } => {
                self.replica.first_byte(RequestId(id), self.now);
                if done && self.replica.complete(RequestId(id)) {
                    self.outcome.completed += 1;
                    let late = self.now.ns() > self.setup.until_ns.ns() / 2;
                    self.outcome.completed_late += u64::from(late);
                    self.idle_clients += 1;
                }
            }
            Event::Leave(id) => {
                if self.replica.complete(RequestId(id)) {
                    self.idle_clients += 1;
                    self.at(self.setup.wire_ns, Event::Abort(id));
                }
            }
            Event::ProbeDue => self.probe(),
            Event::ProbeServed { sent_ns } => {
                let (running, waiting) = self.engine.gauges;
                self.at(
                    self.setup.wire_ns,
                    Event::ProbeAnswered {
                        sent_ns,
                        running,
                        waiting,
                    },
                );
            }
            Event::ProbeAnswered {
                sent_ns,
                running,
                waiting,
            } => {
                self.probes = self.probes.saturating_sub(1);
                let _ = self
                    .replica
                    .observe(page(running, waiting), sent_ns, self.now);
            }
        }
    }

    /// The balancer: pushes while clients want and the gate allows.
    fn fill(&mut self) {
        while self.now < self.setup.until_ns
            && self.idle_clients > 0
            && may_push(&self.replica, self.config, self.now).is_ok()
        {
            self.next_id += 1;
            let id = self.next_id;
            let (low, high) = self.setup.tokens;
            let tokens = low + self.rng.below(high - low + 1);
            if !self
                .replica
                .push(RequestId(id), need(100), self.config, self.now)
            {
                return;
            }
            self.idle_clients -= 1;
            self.at(self.setup.wire_ns, Event::Arrive(id, tokens));
            if self.rng.below(1000) < self.setup.leave_permille {
                let after = self.uniform(self.setup.leave_ns);
                self.at(after, Event::Leave(id));
            }
        }
    }

    fn probe(&mut self) {
        let held = self.idle_clients > 0;
        let interval = probe_interval(&self.replica, self.config, held);
        let due_ns = self.replica.probe_due_ns(interval);
        if due_ns.is_some_and(|due_ns| due_ns <= self.now) {
            self.replica.probe_sent(self.now);
            self.probes += 1;
            let serve = self.setup.wire_ns + self.uniform(self.setup.probe_ns);
            self.at(serve, Event::ProbeServed { sent_ns: self.now });
        }
        self.at(5 * MS, Event::ProbeDue);
    }

    fn uniform(&mut self, max_ns: Span) -> Span {
        Span::from_ns(self.rng.below(usize::try_from(max_ns.ns()).unwrap() + 1) as u64)
    }

    fn arrive(&mut self, id: u64, tokens: Option<usize>) {
        self.engine.input.push_back((id, tokens));
        if !self.engine.stepping {
            self.begin_step();
        }
    }

    fn begin_step(&mut self) {
        let engine = &mut self.engine;
        while let Some((id, tokens)) = engine.input.pop_front() {
            if let Some(tokens) = tokens {
                engine.waiting.push_back((id, tokens));
            } else {
                engine.waiting.retain(|r| r.0 != id);
                engine.running.retain(|r| r.0 != id);
            }
        }
        let mut length_ns = self.setup.step_ns;
        while engine.running.len() < self.setup.slots {
            let Some(next) = engine.waiting.pop_front() else {
                break;
            };
            engine.running.push(next);
            length_ns += self.setup.prefill_ns;
        }
        let waiting = engine.waiting.len();
        engine.stepping = !engine.running.is_empty();
        if !engine.stepping {
            engine.gauges = (0, 0);
            return;
        }
        self.outcome.running_max = self.outcome.running_max.max(engine.running.len());
        self.outcome.waiting_max = self.outcome.waiting_max.max(waiting);
        if self.now.ns() > self.setup.until_ns.ns() / 2 {
            self.outcome.waiting_max_late = self.outcome.waiting_max_late.max(waiting);
        }
        self.at(length_ns, Event::StepEnd);
    }

    fn end_step(&mut self) {
        let mut tokens = Vec::new();
        for (id, left) in &mut self.engine.running {
            *left -= 1;
            tokens.push((*id, *left == 0));
        }
        self.engine.running.retain(|r| r.1 > 0);
        for (id, done) in tokens {
            if done || self.setup.streamed {
                self.at(self.setup.wire_ns, Event::Token { id, done });
            }
        }
        let count = |n: usize| u32::try_from(n).unwrap();
        self.engine.gauges = (
            count(self.engine.running.len()),
            count(self.engine.waiting.len()),
        );
        self.begin_step();
    }
}
