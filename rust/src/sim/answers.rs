//! The way of an answer: steps of a replica, first byte, end, failure.

use super::queue::{Event, News};
use super::replica::Progress;
use super::requests::FIRST_BYTES;
use super::simulator::Simulator;
use crate::engine::effect::Outcome;
use crate::engine::fleet::failure::Failure;
use crate::engine::hold::Tokens;
use crate::engine::router::{Report, Usage};
use crate::id::RequestId;

impl Simulator {
    pub(super) fn note_start(&mut self, balancer: u32, id: RequestId) {
        if let Some(live) = self.live.get(id) {
            self.balancers[balancer as usize].note_start(id, live.class, live.tenant);
        }
    }

    /// What a request took that was answered, as far as its replica has told.
    pub(super) fn took(&self, id: RequestId) -> Option<Tokens> {
        let live = self.live.get(id)?;
        let input = self.workload.turns[live.turn as usize].input;
        Some(Tokens {
            uncached: input.saturating_sub(live.cached),
            cached: live.cached,
            output: live.output,
        })
    }

    pub(super) fn put_step(&mut self, number: u32) {
        let replica = &mut self.replicas[number as usize];
        let epoch = replica.epoch;
        if let Some(at_ns) = replica.next_step() {
            self.queue.put(
                at_ns,
                Event::Step {
                    replica: number,
                    epoch,
                },
            );
        }
    }

    /// A replica's step ends.
    pub(super) fn step(&mut self, number: u32, epoch: u32) {
        let replica = &mut self.replicas[number as usize];
        if replica.epoch != epoch {
            return;
        }
        let mut progress = std::mem::take(&mut self.progress);
        progress.clear();
        replica.advance(self.queue.now_ns(), &mut progress);
        for one in &progress {
            self.token(one);
        }
        self.progress = progress;
        self.put_step(number);
        self.wake_oracle();
    }

    /// One more token of one request.
    fn token(&mut self, one: &Progress) {
        let now_ns = self.queue.now_ns();
        let Some(live) = self.live.get_mut(one.id).filter(|live| live.at_replica) else {
            return;
        };
        let attempt = live.attempt;
        let before_ns = std::mem::replace(&mut live.token_ns, now_ns);
        if one.generated == 1 {
            live.cached = one.cached_tokens;
            self.tell(one.id, attempt, Event::FirstByte(one.id, attempt));
        } else if live.measured {
            self.measures.token(live, now_ns - before_ns);
        }
        if one.finished {
            self.tell(one.id, attempt, Event::End(one.id, attempt));
            if let Some(live) = self.live.attempt(one.id, attempt) {
                live.at_replica = false;
            }
        }
    }

    /// An answer's first body byte reaches the balancer.
    pub(super) fn first_byte(&mut self, id: RequestId, attempt: u32) {
        let now_ns = self.queue.now_ns();
        let Some(live) = self.live.attempt(id, attempt) else {
            return;
        };
        live.started_ns = now_ns - live.pushed_ns;
        let (balancer, there) = (live.decider(), live.there);
        live.started_there |= there;
        if there {
            self.tell_home(id, News::FirstByte);
        } else {
            let from = self.balancers[balancer as usize].region;
            live.first_byte_ns = Some(self.network.deliver(from, live.region, FIRST_BYTES, now_ns));
        }
        let mut out = std::mem::take(&mut self.out);
        self.balancers[balancer as usize].first_byte(id, now_ns, &mut out);
        self.act(balancer, out);
    }

    /// An answer has reached the balancer to its end.
    pub(super) fn end(&mut self, id: RequestId, attempt: u32) {
        let Some(live) = self.live.attempt(id, attempt) else {
            return;
        };
        let (turn, salt, there) = (live.turn, live.salt, live.there);
        let input = self.workload.turns[turn as usize].input;
        let usage = Usage {
            prompt_tokens: Some(input),
            cached_tokens: self.scenario.tell_cached.then_some(live.cached),
            completion_tokens: Some(live.output),
        };
        let unit = self.unit();
        let prompt_blocks = (input / unit) as usize;
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.clear();
        if self.scenario.learn_answers && prompt_blocks < self.config.prompt_blocks_max {
            self.prompts
                .hashes(&self.workload.turns, turn, true, unit, salt, &mut blocks);
        }
        let report = Report {
            usage,
            response_id: None,
            answer: blocks.get(prompt_blocks..).unwrap_or_default(),
            ..Report::default()
        };
        if there {
            self.complete_there(id, Outcome::Ok, report);
            self.tell_home(id, News::End);
        } else {
            self.complete(id, Outcome::Ok, report, Ok(()));
        }
        self.blocks = blocks;
    }

    /// The replica answered with a 400.
    pub(super) fn too_long(&mut self, id: RequestId, attempt: u32) {
        let Some(live) = self.live.attempt(id, attempt) else {
            return;
        };
        if live.there {
            self.complete_there(id, Outcome::Ok, Report::default());
            self.tell_home(id, News::TooLong);
        } else {
            self.complete(id, Outcome::Ok, Report::default(), Err("too_long"));
        }
    }

    /// A replica has been silent for as long as a balancer waits.
    pub(super) fn stall(&mut self, id: RequestId, attempt: u32, epoch: u32) {
        let Some(live) = self.live.attempt(id, attempt) else {
            return;
        };
        let Some(number) = live.replica else { return };
        let replica = &mut self.replicas[number as usize];
        if replica.frozen() && replica.epoch == epoch {
            replica.abort(id);
            self.fail(id, attempt, Failure::Timeout);
        }
    }

    /// A balancer gives up an attempt: it closes the connection, and reports a failure.
    pub(super) fn withdraw(&mut self, balancer: u32, id: RequestId) {
        let Some(live) = self.live.get(id) else {
            return;
        };
        let (attempt, replica) = (live.attempt, live.replica);
        if let Some(replica) = replica {
            self.abort_later(id, replica, balancer);
        }
        self.fail(id, attempt, Failure::Withdrawn);
    }

    /// The balancer sees an attempt fail.
    pub(super) fn fail(&mut self, id: RequestId, attempt: u32, failure: Failure) {
        let now_ns = self.queue.now_ns();
        let Some(live) = self.live.attempt(id, attempt) else {
            return;
        };
        if live.there && live.started_there {
            self.complete_there(id, Outcome::ReplicaFailed, Report::default());
            self.tell_home(id, News::Failed(Failure::Reset));
            return;
        }
        if live.first_byte_ns.is_some() {
            self.complete(
                id,
                Outcome::ReplicaFailed,
                Report::default(),
                Err("stream_cut"),
            );
            return;
        }
        let balancer = live.decider();
        live.replica = None;
        live.at_replica = false;
        // Nothing was begun.
        let tries = if live.there {
            &mut live.tries_there
        } else {
            &mut live.tries
        };
        *tries -= u32::from(failure.free(false));
        let mut out = std::mem::take(&mut self.out);
        self.balancers[balancer as usize].retry(id, failure, now_ns, &mut out);
        self.act(balancer, out);
    }
}
