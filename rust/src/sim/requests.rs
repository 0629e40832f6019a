//! The way of a request: sent, placed, pushed, computed, answered, or failed.

use super::balancer::Brain;
use super::clients::{self, NO_SEAT};
use super::live::{Live, Pushed};
use super::network::uniform;
use super::queue::Event;
use super::replica::{Admission, Arrival};
use super::scenario::{Key, Mode, nanos};
use super::simulator::Simulator;
use super::workload::{NO_TURN, small};
use crate::engine::effect::{Effect, Forward, Outcome, Push};
use crate::engine::fleet::failure::Failure;
use crate::engine::plant::Plant;
use crate::engine::router::Report;
use crate::id::{Nanos, RequestId};
use crate::prompt::Digest;
use crate::time::Span;

/// Bytes of a prompt's token, as in the texts of `skylb mock`.
pub(super) const TOKEN_BYTES: usize = 4;
/// Where a request's model stands in the salt of its prompt.
const MODEL_SHIFT: u32 = 40;
/// Bytes of an answer's head and first event, about.
pub(super) const FIRST_BYTES: u64 = 500;

impl Simulator {
    /// Puts the clients' first events into the queue.
    pub(super) fn begin_clients(&mut self) {
        if self.scenario.clients.mode == Mode::Closed {
            let ramp_ns = nanos(self.scenario.clients.ramp_s);
            for seat in 0..self.clients.len() {
                let start_ns = self.clients.start_ns(seat, ramp_ns);
                self.put_client(start_ns, Event::User { seat });
            }
            return;
        }
        let scale = self.scenario.clients.rate_scale;
        let first_s = self
            .workload
            .turns
            .iter()
            .map(|turn| turn.t_s)
            .fold(f64::INFINITY, f64::min);
        let whole = self.scenario.clients.mode == Mode::Open;
        for turn in 0..small(self.workload.turns.len()) {
            let of = &self.workload.turns[turn as usize];
            if of.after.is_some() && !whole {
                continue;
            }
            let t_s = (of.t_s - first_s) / scale;
            self.put_client(
                nanos(t_s),
                Event::Send {
                    turn,
                    seat: NO_SEAT,
                },
            );
        }
    }

    /// An event of a client; nothing is sent after the scenario's duration.
    fn put_client(&mut self, at_ns: Nanos, event: Event) {
        if at_ns < self.duration_ns {
            self.clients_due += 1;
            self.queue.put(at_ns, event);
        }
    }

    /// A user begins its next session.
    pub(super) fn user(&mut self, seat: u32) {
        self.clients_due -= 1;
        let mut due = std::mem::take(&mut self.due);
        self.clients.next_session(seat, &self.workload, &mut due);
        self.put_due(seat, self.queue.now_ns(), &mut due);
        self.due = due;
    }

    fn put_due(&mut self, seat: u32, now_ns: Nanos, due: &mut Vec<super::clients::Due>) {
        for one in due.drain(..) {
            let pause_ns = nanos(one.think_s * self.scenario.clients.think_scale);
            self.put_client(
                now_ns.saturating_add(pause_ns),
                Event::Send {
                    turn: one.turn,
                    seat,
                },
            );
        }
    }

    /// A client sends a request.
    pub(super) fn send(&mut self, turn: u32, seat: u32) {
        self.clients_due -= 1;
        let now_ns = self.queue.now_ns();
        let of = &self.workload.turns[turn as usize];
        let (region, model, input) = (of.region, of.model, of.input);
        let (tenant, class) = (of.tenant, of.class);
        let hops = self.scenario.clients.hop;
        let door = if hops { u64::from(turn) } else { of.user };
        let spread = door.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let named = usize::try_from(spread).unwrap_or(0) % self.serving[region as usize].len();
        let answering = self.answering(region, named);
        let balancer = answering.unwrap_or(self.serving[region as usize][named]);
        let mut live = Live::new(turn, seat, region, balancer, now_ns);
        (live.tenant, live.class) = (tenant, class);
        // Each model computes a KV cache of its own.
        live.salt = self.clients.round(seat) | u64::from(model) << MODEL_SHIFT;
        live.output = self
            .scenario
            .clients
            .max_tokens
            .map_or(of.output, |max| of.output.min(max));
        live.measured = now_ns >= self.warmup_ns;
        self.measures.sent(&live);
        let id = self.live.insert(live);
        if let Some(leave) = self.scenario.clients.leave {
            let (leaves, when) = (uniform(&mut self.rng), uniform(&mut self.rng));
            if leaves <= leave.probability {
                let after_s = leave.from_s + (leave.to_s - leave.from_s) * when;
                self.queue
                    .put(now_ns.saturating_add(nanos(after_s)), Event::Leave(id));
            }
        }
        let to = self.balancers[balancer as usize].region;
        let arrives = self.connect(region, to, bytes(input));
        let Some(at_ns) = arrives.filter(|_| answering.is_some()) else {
            let pause_ns = nanos(self.scenario.network.connect_timeout_s);
            self.finish(id, Err("unreachable"), now_ns.saturating_add(pause_ns));
            return;
        };
        self.queue.put(at_ns, Event::Arrive(id));
    }

    /// When a message that opens a connection arrives; none if the link is cut for too long.
    pub(super) fn connect(&mut self, from: u32, to: u32, bytes: u64) -> Option<Nanos> {
        let now_ns = self.queue.now_ns();
        let patience_ns = nanos(self.scenario.network.connect_timeout_s);
        let start_ns = self.network.cut_until(from, to, now_ns).unwrap_or(now_ns);
        (start_ns - now_ns < patience_ns).then(|| self.network.deliver(from, to, bytes, start_ns))
    }

    /// A request reaches its balancer.
    pub(super) fn arrive(&mut self, id: RequestId) {
        let Some(live) = self.live.get_mut(id) else {
            return;
        };
        if !self.balancers[live.balancer as usize].up {
            let now_ns = self.queue.now_ns();
            return self.finish(id, Err("unreachable"), now_ns);
        }
        self.arrived += 1;
        live.order = self.arrived;
        live.home_order = self.arrived;
        let (turn, balancer, salt) = (live.turn, live.balancer, live.salt);
        let tenant = self.tenant_of(turn);
        let mut digest = self.digest(turn, salt);
        let now_ns = self.queue.now_ns();
        if matches!(self.balancers[balancer as usize].brain, Brain::Oracle(_)) {
            self.tell_oracle(id, balancer);
        }
        let mut out = std::mem::take(&mut self.out);
        let says = (tenant.as_deref(), None);
        self.balancers[balancer as usize].place(id, &mut digest, says, now_ns, &mut out);
        self.act(balancer, out);
    }

    /// What the engine would have read in the request's body.
    pub(super) fn digest(&self, turn: u32, salt: u64) -> Digest {
        let of = &self.workload.turns[turn as usize];
        let key = match self.scenario.clients.key {
            Key::User => Some(of.user),
            Key::Session => Some(of.session),
            Key::None => None,
        };
        let unit = self.unit();
        let mut blocks = Vec::with_capacity((of.input / unit) as usize);
        self.prompts
            .hashes(&self.workload.turns, turn, false, unit, salt, &mut blocks);
        blocks.truncate(self.config.prompt_blocks_max);
        Digest {
            model: self.workload.models[of.model as usize].clone(),
            stream: true,
            include_usage: true,
            max_tokens: self.scenario.clients.max_tokens,
            class: of.class,
            key: key.map(|key| xxhash_rust::xxh3::xxh3_64_with_seed(&key.to_le_bytes(), salt)),
            prompt_bytes: of.input as usize * TOKEN_BYTES,
            chain: blocks.last().copied().unwrap_or(salt),
            blocks,
            ..Digest::default()
        }
    }

    /// Tokens of one of the engine's blocks.
    pub(super) fn unit(&self) -> u32 {
        small(self.config.block_bytes.div_ceil(TOKEN_BYTES))
    }

    /// Does what a balancer asks for, in order.
    pub(super) fn act(&mut self, balancer: u32, mut out: Vec<Effect>) {
        let now_ns = self.queue.now_ns();
        self.balancers[balancer as usize].touched = true;
        self.ask_oracle(balancer, &mut out);
        let mut withdrawn = Vec::new();
        for effect in out.drain(..) {
            #[cfg(test)]
            self.note(balancer, &effect);
            if let Effect::Push(Push { request, .. }) | Effect::Forward(Forward { request, .. }) =
                &effect
            {
                self.note_start(balancer, *request);
            }
            match effect {
                Effect::Push(push) => self.push(balancer, &push),
                Effect::Forward(forward) => self.forward(balancer, &forward),
                Effect::Hold(id) => {
                    self.check_hold(balancer, id);
                    if let Some(live) = self.live.get_mut(id) {
                        live.held_since_ns = Some(now_ns);
                    }
                }
                Effect::Reject(reject) => {
                    self.check_refusal(balancer, reject.request, false);
                    if !self.refused_there(reject.request) {
                        self.finish(reject.request, Err(reject.code), now_ns);
                    }
                }
                Effect::Expire(id) => {
                    self.check_refusal(balancer, id, true);
                    if !self.expired_there(id) {
                        self.finish(id, Err("hold_timeout"), now_ns);
                    }
                }
                Effect::Withdraw(id) => withdrawn.push(id),
                Effect::Probe(replica) => self.send_probe(balancer, replica.0),
                Effect::Tell(tell) => self.send_message(balancer, tell),
            }
        }
        self.out = out;
        for id in withdrawn {
            self.withdraw(balancer, id);
        }
        self.balancers[balancer as usize].note_waiting(&self.tenant_names);
        self.arm(balancer);
    }

    fn push(&mut self, balancer: u32, push: &Push) {
        let now_ns = self.queue.now_ns();
        self.check_push(balancer, push);
        let wishes_known = self.wishes_known(balancer, push.replica.0);
        let room_since_ns = self.room_since_ns(push.replica.0);
        let reported = self.lately_reported(balancer);
        let after = self.rooms.pushed[push.replica.0 as usize];
        let in_turn = self.knows_push(balancer, after);
        self.rooms.pushed[push.replica.0 as usize] = Some(Pushed {
            by: balancer,
            at_ns: now_ns,
            in_turn,
        });
        let Some(live) = self.live.get_mut(push.request) else {
            return;
        };
        live.wishes_known = wishes_known;
        live.reported = reported;
        live.room_since_ns = room_since_ns;
        live.after = after;
        live.in_turn = in_turn;
        live.leave_hold(now_ns);
        live.replica = Some(push.replica.0);
        if live.there {
            live.tries_there = push.attempt;
        } else {
            live.tries = push.attempt;
        }
        live.attempt += 1;
        let attempt = live.attempt;
        live.at_replica = false;
        live.message_ns = now_ns;
        live.pushed_ns = now_ns;
        live.predicted_ns = push.predicted_ttft_ns.map(Span::ns);
        let bytes = bytes(self.workload.turns[live.turn as usize].input);
        let from = self.balancers[balancer as usize].region;
        let to = self.replicas[push.replica.0 as usize].region;
        let arrives = self.connect(from, to, bytes);
        let (at_ns, event) = if let Some(at_ns) = arrives {
            self.replicas[push.replica.0 as usize].coming += 1;
            (at_ns, Event::AtReplica(push.request, attempt))
        } else {
            let timeout_ns = nanos(self.scenario.network.connect_timeout_s);
            let failed = Event::Fail(push.request, attempt, Failure::Connect);
            (now_ns.saturating_add(timeout_ns), failed)
        };
        self.queue.put(at_ns, event);
    }

    /// A push reaches its replica.
    pub(super) fn at_replica(&mut self, id: RequestId, attempt: u32) {
        let Some(live) = self.live.attempt(id, attempt) else {
            return;
        };
        let Some(number) = live.replica else { return };
        let balancer = live.decider();
        if let Brain::Oracle(oracle) = &mut self.balancers[balancer as usize].brain {
            oracle.arrived(id);
        }
        let replica = &mut self.replicas[number as usize];
        replica.coming = replica.coming.saturating_sub(1);
        if !replica.up {
            self.tell(id, attempt, Event::Fail(id, attempt, Failure::Connect));
            return;
        }
        if replica.frozen() {
            replica.wait(id, attempt);
            if let Some(live) = self.live.attempt(id, attempt) {
                live.at_replica = true;
            }
            self.give_up_later(id, attempt, number);
            return;
        }
        if let Some((rate, how)) = replica.errors
            && uniform(&mut self.chance) <= rate
        {
            self.tell(id, attempt, Event::Fail(id, attempt, how.failure()));
            return;
        }
        self.submit(id, attempt, number);
    }

    /// A replica takes an attempt in, or refuses it.
    fn submit(&mut self, id: RequestId, attempt: u32, number: u32) {
        let now_ns = self.queue.now_ns();
        let Some(live) = self.live.attempt(id, attempt) else {
            return;
        };
        let (turn, output, salt) = (live.turn, live.output, live.salt);
        let input = self.workload.turns[turn as usize].input;
        let block = self.replicas[number as usize].block_tokens();
        let mut hashes = Vec::with_capacity(((input + output) / block) as usize);
        self.prompts
            .hashes(&self.workload.turns, turn, true, block, salt, &mut hashes);
        let arrival = Arrival {
            id,
            prompt_tokens: u64::from(input),
            output_tokens: u64::from(output),
            hashes,
        };
        match self.replicas[number as usize].submit(arrival, now_ns) {
            Admission::Accepted => {
                if let Some(live) = self.live.attempt(id, attempt) {
                    live.at_replica = true;
                }
                self.put_step(number);
                if self.config.planted(Plant::CreditFromTheHead) {
                    self.tell(id, attempt, Event::FirstByte(id, attempt));
                }
            }
            Admission::Full => self.tell(id, attempt, Event::Fail(id, attempt, Failure::Full)),
            Admission::TooLong => self.tell(id, attempt, Event::TooLong(id, attempt)),
            Admission::Duplicate => {
                self.tell(id, attempt, Event::Fail(id, attempt, Failure::Status(500)));
            }
        }
    }

    /// A message about an attempt goes from its replica to its balancer. One that a cut holds up
    /// for too long becomes a timeout there.
    pub(super) fn tell(&mut self, id: RequestId, attempt: u32, event: Event) {
        let now_ns = self.queue.now_ns();
        let Some(live) = self.live.attempt(id, attempt) else {
            return;
        };
        let Some(number) = live.replica else { return };
        let from = self.replicas[number as usize].region;
        let to = self.balancers[live.decider() as usize].region;
        let patience_ns = nanos(self.scenario.network.stall_timeout_s);
        let start_ns = self.network.cut_until(from, to, now_ns).unwrap_or(now_ns);
        if start_ns - now_ns >= patience_ns {
            live.at_replica = false;
            let at_ns = now_ns.saturating_add(patience_ns).max(live.message_ns);
            self.queue
                .put(at_ns, Event::Fail(id, attempt, Failure::Timeout));
            self.queue.put(at_ns, Event::Abort(id, number));
            return;
        }
        let at_ns = self
            .network
            .deliver(from, to, FIRST_BYTES, start_ns)
            .max(live.message_ns);
        live.message_ns = at_ns;
        self.queue.put(at_ns, event);
    }

    /// The client leaves, wherever its request is.
    pub(super) fn leave(&mut self, id: RequestId) {
        let Some(live) = self.live.get_mut(id) else {
            return;
        };
        let report = Report {
            sent: live.there || live.away.is_some() || live.replica.is_some(),
            ..Report::default()
        };
        if live.there {
            self.abandon(id);
        } else if let Some(replica) = live.replica {
            let balancer = live.balancer;
            self.abort_later(id, replica, balancer);
        }
        self.complete(id, Outcome::ClientLeft, report, Err("client_left"));
    }

    /// A balancer closes its connection to a replica.
    pub(super) fn abort_later(&mut self, id: RequestId, replica: u32, balancer: u32) {
        let from = self.balancers[balancer as usize].region;
        let to = self.replicas[replica as usize].region;
        let at_ns = self.network.deliver(from, to, 0, self.queue.now_ns());
        self.queue.put(at_ns, Event::Abort(id, replica));
    }

    /// Tells the balancer that the request ended, and then the client.
    pub(super) fn complete(
        &mut self,
        id: RequestId,
        outcome: Outcome,
        report: Report<'_>,
        ended: Result<(), &'static str>,
    ) {
        let now_ns = self.queue.now_ns();
        let took = self.took(id).filter(|_| outcome == Outcome::Ok);
        let Some(live) = self.live.get_mut(id) else {
            return;
        };
        let balancer = live.balancer;
        self.balancers[balancer as usize].note_end(id, took);
        let mut out = std::mem::take(&mut self.out);
        self.balancers[balancer as usize].complete(id, outcome, report, now_ns, &mut out);
        self.finish(id, ended, now_ns);
        self.act(balancer, out);
    }

    /// The request is over at the balancer (or never got there): the client learns it, and goes on.
    pub(super) fn finish(&mut self, id: RequestId, ended: Result<(), &'static str>, now_ns: Nanos) {
        let Some(mut live) = self.live.remove(id) else {
            return;
        };
        live.leave_hold(now_ns);
        let from = self.balancers[live.balancer as usize].region;
        let left = ended == Err("client_left");
        let mut at_ns = self.network.deliver(from, live.region, FIRST_BYTES, now_ns);
        at_ns = if left {
            now_ns
        } else {
            at_ns.max(live.first_byte_ns.unwrap_or(0))
        };
        let input = self.workload.turns[live.turn as usize].input;
        let workload_id = self.workload.turns[live.turn as usize].id;
        self.measures.ended(&live, workload_id, input, ended, at_ns);
        let mode = self.scenario.clients.mode;
        if mode == Mode::Open || live.turn == NO_TURN {
            return;
        }
        let pause_s = if ended.is_ok() {
            0.0
        } else {
            self.scenario.clients.failure_pause_s
        };
        let on_ns = at_ns.saturating_add(nanos(pause_s));
        let mut due = std::mem::take(&mut self.due);
        let over = mode == Mode::Closed
            && self
                .clients
                .ended(live.seat, live.turn, &self.workload, &mut due);
        if mode == Mode::Sessions {
            let turns = &self.workload.turns;
            clients::follow(turns, turns[live.turn as usize].first_follower, &mut due);
        }
        self.put_due(live.seat, on_ns, &mut due);
        self.due = due;
        if over {
            self.put_client(on_ns, Event::User { seat: live.seat });
        }
    }
}

/// Bytes of a request with so many prompt tokens, head left out.
pub(super) fn bytes(tokens: u32) -> u64 {
    u64::from(tokens) * TOKEN_BYTES as u64
}
