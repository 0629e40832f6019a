//! Events that are no requests: probes, faults, samples, and the oracle's turns.

use super::balancer::Brain;
use super::fault::Fault;
use super::fleet::Probed;
use super::oracle::Need;
use super::queue::Event;
use super::scenario::nanos;
use super::simulator::{Answer, SECOND_NS, Simulator};
use super::workload::small;
use crate::engine::effect::Effect;
use crate::engine::fleet::failure::Failure;
use crate::id::{Nanos, RequestId};

/// Bytes of a metrics page: as vLLM's.
const PAGE_BYTES: u64 = 50_000;

/// A timer goes no sooner than this after it was set.
const TIMER_NS: Nanos = 100_000;

impl Simulator {
    /// A balancer's timer goes.
    pub(super) fn tick(&mut self, balancer: u32) {
        let now_ns = self.queue.now_ns();
        let of = &mut self.balancers[balancer as usize];
        if of.armed_ns != Some(now_ns) {
            return; // it was set to an earlier time
        }
        of.armed_ns = None;
        if of.up {
            let mut out = std::mem::take(&mut self.out);
            of.tick(now_ns, &mut out);
            self.act(balancer, out);
        }
    }

    /// Sets a balancer's timer.
    pub(super) fn arm(&mut self, balancer: u32) {
        let now_ns = self.queue.now_ns();
        let of = &mut self.balancers[balancer as usize];
        let Some(next_ns) = of.next_ns(now_ns).filter(|_| of.up) else {
            return;
        };
        let at_ns = next_ns.max(now_ns + TIMER_NS);
        if of.armed_ns.is_none_or(|armed_ns| at_ns < armed_ns) {
            of.armed_ns = Some(at_ns);
            self.queue.put(at_ns, Event::Tick(balancer));
        }
    }

    /// A balancer sends a probe.
    pub(super) fn send_probe(&mut self, balancer: u32, replica: u32) {
        let now_ns = self.queue.now_ns();
        let of = &mut self.balancers[balancer as usize];
        of.probes += 1;
        let (from, process) = (of.region, of.process);
        let to = self.replicas[replica as usize].region;
        let cut = self.network.cut_until(from, to, now_ns);
        if cut.is_some() || self.replicas[replica as usize].mute() {
            let answer = Answer {
                balancer,
                replica,
                sent_ns: now_ns,
                process,
                probed: if cut.is_some() {
                    Probed::Unconnected
                } else {
                    Probed::Late
                },
            };
            let answer = small(self.answers.insert(answer));
            let timeout_ns = nanos(self.scenario.network.connect_timeout_s);
            let at_ns = now_ns.saturating_add(timeout_ns);
            return self.queue.put(at_ns, Event::Probed(answer));
        }
        let at_ns = self.network.deliver(from, to, 0, now_ns);
        let probe = Event::Probe {
            balancer,
            replica,
            sent_ns: now_ns,
        };
        self.queue.put(at_ns, probe);
    }

    /// A probe reaches its replica.
    pub(super) fn probe(&mut self, balancer: u32, replica: u32, sent_ns: Nanos) {
        let probed = self.replicas[replica as usize].probed();
        let from = self.replicas[replica as usize].region;
        let to = self.balancers[balancer as usize].region;
        let bytes = match probed {
            Probed::Page(_) | Probed::Unreadable => PAGE_BYTES,
            Probed::Unconnected | Probed::Late | Probed::Refused => 0,
        };
        let at_ns = self.network.deliver(from, to, bytes, self.queue.now_ns());
        let answer = Answer {
            balancer,
            replica,
            sent_ns,
            process: self.balancers[balancer as usize].process,
            probed,
        };
        let answer = small(self.answers.insert(answer));
        self.queue.put(at_ns, Event::Probed(answer));
    }

    /// A probe's answer reaches the balancer.
    pub(super) fn probed(&mut self, answer: u32) {
        let Some(answer) = self.answers.try_remove(answer as usize) else {
            return;
        };
        let Answer {
            balancer,
            replica,
            sent_ns,
            process,
            probed,
        } = answer;
        let of = &self.balancers[balancer as usize];
        if !of.up || of.process != process {
            return;
        }
        let now_ns = self.queue.now_ns();
        let mut out = std::mem::take(&mut self.out);
        self.balancers[balancer as usize].observe(replica, probed, sent_ns, now_ns, &mut out);
        self.act(balancer, out);
    }

    /// A fault of the script begins or ends.
    pub(super) fn fault(&mut self, index: u32, begins: bool) {
        match self.scenario.faults[index as usize].clone() {
            Fault::Crash { replica, .. } if begins => self.crash(replica),
            Fault::Crash { replica, .. } => self.replicas[replica as usize].restart(),
            Fault::Freeze { replica, .. } if begins => self.freeze(replica, true),
            Fault::Wedge { replica, .. } if begins => self.freeze(replica, false),
            Fault::Freeze { replica, .. } | Fault::Wedge { replica, .. } => self.thaw(replica),
            Fault::Errors {
                replica, rate, how, ..
            } => {
                self.replicas[replica as usize].errors = begins.then_some((rate, how));
            }
            Fault::Slow {
                replica, factor, ..
            } => {
                self.replicas[replica as usize].slow(if begins { factor } else { 1.0 });
            }
            Fault::Lie { replica, how, .. } => {
                self.replicas[replica as usize].lie(begins.then_some(how));
            }
            Fault::Forget { replica, .. } => self.replicas[replica as usize].forget(),
            Fault::Drain { replica, .. } => self.drain(replica, begins),
            Fault::Evacuate { region, .. } => self.evacuate(&region, begins),
            Fault::Kill {
                balancer, silent, ..
            } if begins => self.kill(balancer, silent),
            Fault::Kill { balancer, .. } => self.revive(balancer),
            // The network knows its cuts from the start.
            Fault::Cut { .. } | Fault::Drop { .. } | Fault::Part { .. } => {}
        }
        self.wake_oracle();
    }

    /// A replica's process ends: its connections are reset.
    fn crash(&mut self, number: u32) {
        if !self.replicas[number as usize].up {
            return;
        }
        self.replicas[number as usize].crash();
        let here = |live: &super::live::Live| live.at_replica && live.replica == Some(number);
        let lost: Vec<_> = self
            .live
            .iter()
            .filter(|(_, live)| here(live))
            .map(|(id, live)| (id, live.attempt))
            .collect();
        for (id, attempt) in lost {
            self.tell(id, attempt, Event::Fail(id, attempt, Failure::Reset));
            if let Some(live) = self.live.attempt(id, attempt) {
                live.at_replica = false;
            }
        }
    }

    /// A replica's process stands still, or its engine alone: whoever waits for it gives up after a while.
    fn freeze(&mut self, number: u32, mute: bool) {
        let now_ns = self.queue.now_ns();
        if !self.replicas[number as usize].freeze(mute, now_ns) {
            return;
        }
        let here = |live: &super::live::Live| live.at_replica && live.replica == Some(number);
        let silent = self.live.iter().filter(|(_, live)| here(live));
        let silent: Vec<_> = silent.map(|(id, live)| (id, live.attempt)).collect();
        for (id, attempt) in silent {
            self.give_up_later(id, attempt, number);
        }
    }

    /// Puts the end of a balancer's patience with a silent replica into the queue.
    pub(super) fn give_up_later(&mut self, id: RequestId, attempt: u32, number: u32) {
        let patience_ns = nanos(self.scenario.network.stall_timeout_s);
        let epoch = self.replicas[number as usize].epoch;
        let at_ns = self.queue.now_ns().saturating_add(patience_ns);
        self.queue.put(at_ns, Event::Stall(id, attempt, epoch));
    }

    /// A replica's process goes on, and takes in what has come.
    fn thaw(&mut self, number: u32) {
        let now_ns = self.queue.now_ns();
        for (id, attempt) in self.replicas[number as usize].thaw(now_ns) {
            self.at_replica(id, attempt);
        }
        self.put_step(number);
    }

    fn drain(&mut self, replica: u32, draining: bool) {
        let now_ns = self.queue.now_ns();
        self.replicas[replica as usize].draining = draining;
        for balancer in 0..small(self.balancers.len()) {
            let of = self.balancers[balancer as usize].region;
            let far =
                !self.scenario.topology.central() && of != self.replicas[replica as usize].region;
            if far || !self.balancers[balancer as usize].up {
                continue;
            }
            let mut out = std::mem::take(&mut self.out);
            self.balancers[balancer as usize].drain(replica, draining, now_ns, &mut out);
            self.act(balancer, out);
        }
    }

    /// A second has passed.
    pub(super) fn second(&mut self) {
        let now_ns = self.queue.now_ns();
        let measured = now_ns > self.warmup_ns && now_ns <= self.duration_ns;
        self.measures
            .second(&mut self.replicas, &self.live, measured);
        self.exchange.second();
        self.queue.put(now_ns + SECOND_NS, Event::Second);
    }
}

impl Simulator {
    pub(super) fn tell_oracle(&mut self, id: RequestId, balancer: u32) {
        let block = self.replicas[0].block_tokens();
        let Some(live) = self.live.get_mut(id) else {
            return;
        };
        let of = &self.workload.turns[live.turn as usize];
        let mut need = Need {
            model: of.model,
            input: of.input,
            output: live.output,
            hashes: Vec::new(),
        };
        let (turn, salt) = (live.turn, live.salt);
        self.prompts.hashes(
            &self.workload.turns,
            turn,
            false,
            block,
            salt,
            &mut need.hashes,
        );
        if let Brain::Oracle(oracle) = &mut self.balancers[balancer as usize].brain {
            oracle.tell(id, need);
        }
    }

    /// Lets the oracle, if it is one, push what can be pushed now.
    pub(super) fn ask_oracle(&mut self, balancer: u32, out: &mut Vec<Effect>) {
        let now_ns = self.queue.now_ns();
        if let Brain::Oracle(oracle) = &mut self.balancers[balancer as usize].brain {
            oracle.dispatch(&self.replicas, now_ns, out);
        }
    }

    /// The oracle looks again: a replica's state has changed.
    pub(super) fn wake_oracle(&mut self) {
        if matches!(self.balancers[0].brain, Brain::Oracle(_)) {
            let out = std::mem::take(&mut self.out);
            self.act(0, out);
        }
    }
}
