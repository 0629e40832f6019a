//! Placing requests: which replica now, or the hold, or a refusal.

use super::Router;
use crate::engine::choose::{Selection, matched_tokens};
use crate::engine::demand::Lane;
use crate::engine::effect::{Effect, Push};
use crate::engine::hold::{Entrant, Full, Ticket};
use crate::engine::plant::Plant;
use crate::engine::refusal::Refusal;
use crate::engine::requests::request::{Attempt, NoPlace, Phase, Request};
use crate::id::{Nanos, ReplicaSlot, RequestId};

impl Router {
    /// Pushes the request if it may be pushed now, else holds it, else refuses it: with `failed`
    /// where that is given (a retry), or with what stood in the way.
    pub(super) fn settle(
        &mut self,
        id: RequestId,
        request: Request,
        failed: Option<Refusal>,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        let sent_on = request.stays && self.config.planted(Plant::CrossedTwice);
        if (self.mesh.evacuating() || sent_on)
            && let Some(there) = self.find_peer(&request, now_ns)
        {
            self.forward(id, request, there, now_ns, out);
            return;
        }
        let Some(request) = self.wait_to_leave(id, request, now_ns, out) else {
            return;
        };
        let Some(request) = self.queue_up(id, request, now_ns, out) else {
            return;
        };
        let mut found = self.find(&request, true, now_ns);
        if let Some(there) = self.faster_peer(&request, found, now_ns) {
            self.forward(id, request, there, now_ns, out);
            return;
        }
        if matches!(found, Selection::NoRoom | Selection::NoneReady) {
            if let Some(there) = self.find_peer(&request, now_ns) {
                self.forward(id, request, there, now_ns, out);
                return;
            }
            let anybody = request.demand.lane == Lane::Batch && request.demand.bound.is_none();
            let looks = anybody && self.fleet.looks(now_ns);
            if found == Selection::NoneReady && (looks || self.peers_serve(&request, now_ns)) {
                found = Selection::NoRoom;
            }
        }
        match found {
            Selection::Here { slot, match_blocks } => {
                self.push_past(id, request, slot, match_blocks, now_ns, out);
            }
            Selection::Awaits { slot } => {
                let request = self.wait_for(id, request, slot, now_ns, out);
                // What cannot wait goes where there is room.
                if let Some(request) = request
                    && let Selection::Here { slot, match_blocks } =
                        self.find(&request, false, now_ns)
                {
                    self.push_past(id, request, slot, match_blocks, now_ns, out);
                }
            }
            Selection::NoneReady => {
                let refusal = failed.unwrap_or_else(|| self.none_ready());
                self.refuse(id, &request, refusal, out);
            }
            Selection::NoRoom => match self.enter_hold(id, &request, now_ns) {
                Ok(ticket) => {
                    self.keep(id, request, ticket, now_ns);
                    out.push(Effect::Hold(id));
                }
                Err(full) => {
                    let refusal = failed.unwrap_or_else(|| self.no_room(full));
                    self.refuse(id, &request, refusal, out);
                }
            },
        }
    }

    /// While this region is evacuated: holds a request that peers serve, but have no room for yet.
    /// After [`Self::leave_wait_ns`] it is served here. Gives it back where it is not held.
    #[inline]
    fn wait_to_leave(
        &mut self,
        id: RequestId,
        mut request: Request,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) -> Option<Request> {
        let may_wait = self.mesh.evacuating() && request.demand.lane == Lane::Batch;
        if !may_wait || !self.peers_serve(&request, now_ns) {
            return Some(request);
        }
        if request.leaves_until_ns == 0 {
            request.leaves_until_ns = now_ns.saturating_add(self.leave_wait_ns());
        }
        if !request.is_leaving(now_ns) {
            return Some(request);
        }
        let Ok(ticket) = self.enter_hold(id, &request, now_ns) else {
            request.leaves_until_ns = now_ns;
            return Some(request);
        };
        self.mesh.note_leave_end(request.leaves_until_ns);
        self.keep(id, request, ticket, now_ns);
        out.push(Effect::Hold(id));
        None
    }

    /// How long a request waits for a peer's room while this region is evacuated.
    pub(super) fn leave_wait_ns(&self) -> Nanos {
        self.config.hold_timeout_ns / 2
    }

    /// Where others wait for room that has come with time alone, the request stands in line with
    /// them. Gives it back when nobody does, or the hold has no place for it.
    fn queue_up(
        &mut self,
        id: RequestId,
        request: Request,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) -> Option<Request> {
        let partition = request
            .partition()
            .filter(|_| request.demand.lane == Lane::Batch);
        let Some(partition) = partition.filter(|_| !self.hold.is_empty()) else {
            return Some(request);
        };
        self.expire_due(now_ns, out);
        self.serve_opened(now_ns, out);
        if !self.contested(partition, now_ns) {
            return Some(request);
        }
        let Ok(ticket) = self.enter_hold(id, &request, now_ns) else {
            self.serve_line(partition, now_ns, out);
            return Some(request);
        };
        self.keep(id, request, ticket, now_ns);
        let before = out.len();
        self.serve_line(partition, now_ns, out);
        self.serve_opened(now_ns, out);
        self.dispatch_peers(now_ns, out);
        let held = |request: &Request| matches!(request.phase, Phase::Held { .. });
        if self.requests.get(id).is_some_and(held) {
            out.insert(before, Effect::Hold(id));
        }
        None
    }

    /// Holds a request that had better wait for a replica without room; else gives it back.
    fn wait_for(
        &mut self,
        id: RequestId,
        request: Request,
        owner: ReplicaSlot,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) -> Option<Request> {
        let Ok(ticket) = self.enter_hold(id, &request, now_ns) else {
            return Some(request);
        };
        if !self.hold.choose(ticket, owner, &self.config, now_ns) {
            self.hold.leave(ticket);
            return Some(request);
        }
        self.counters.affinity_waits += 1;
        self.keep(id, request, ticket, now_ns);
        out.push(Effect::Hold(id));
        None
    }

    /// Pushes a request that was not held. Those of its queue that let the room pass are passed
    /// over.
    fn push_past(
        &mut self,
        id: RequestId,
        request: Request,
        slot: ReplicaSlot,
        match_blocks: u32,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        let partition = request
            .partition()
            .filter(|_| request.demand.lane == Lane::Batch);
        let (class, age) = (request.class, request.age);
        self.push(id, request, slot, match_blocks, now_ns, out);
        if let Some(partition) = partition {
            self.pass_over(partition, class, age, slot, now_ns);
            self.serve_opened(now_ns, out);
        }
    }

    /// A place in the hold, unless the request may not wait, has waited its time, or the hold is
    /// full.
    fn enter_hold(
        &mut self,
        id: RequestId,
        request: &Request,
        now_ns: Nanos,
    ) -> Result<Ticket, NoPlace> {
        if request.demand.lane != Lane::Batch {
            return Err(NoPlace::Light);
        }
        let left_ns = self.config.hold_timeout_ns.saturating_sub(request.held_ns);
        let partition = request.partition().filter(|_| left_ns > 0);
        let partition = partition.ok_or(NoPlace::Hold(Full::Hold))?;
        let deadline_ns = now_ns.saturating_add(left_ns);
        let deadline_ns = request
            .deadline_ns
            .map_or(deadline_ns, |at_ns| at_ns.min(deadline_ns));
        if deadline_ns <= now_ns {
            return Err(NoPlace::Hold(Full::Hold));
        }
        let entrant = Entrant {
            request: id,
            partition,
            class: request.class,
            payer: request.payer,
            bytes: u64::from(request.body_bytes),
            age: request.age,
            submitted_ns: request.submitted_ns,
            deadline_ns,
        };
        let entered = self.hold.enter(entrant, &self.config);
        match entered {
            Ok(_) => self.counters.hold_entered += 1,
            Err(Full::Hold) => self.counters.hold_full += 1,
            Err(Full::Payer) => self.counters.hold_tenant_full += 1,
        }
        entered.map_err(NoPlace::Hold)
    }

    /// Remembers a request that has entered the hold.
    fn keep(&mut self, id: RequestId, mut request: Request, ticket: Ticket, now_ns: Nanos) {
        request.phase = Phase::Held {
            ticket,
            since_ns: now_ns,
        };
        self.requests.insert(id, request);
    }

    /// Counts the request in flight, records its prompt in the tree, and asks for the push. The
    /// tokens that it is predicted to need.
    pub(super) fn push(
        &mut self,
        id: RequestId,
        mut request: Request,
        slot: ReplicaSlot,
        match_blocks: u32,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) -> u32 {
        let demand = &request.demand;
        let (fleet, config) = (&mut self.fleet, &self.config);
        let tokens = matched_tokens(&self.cache, fleet, demand, match_blocks);
        let matched = (match_blocks, tokens);
        let forecast = fleet.forecast(demand, slot, matched, config, now_ns);
        let need = forecast.need;
        let Some(replica) = fleet.push((id, slot), demand, (match_blocks, need), config, now_ns)
        else {
            return 0;
        };
        let pushed = (slot, replica);
        self.chooser
            .note_push(demand, pushed, need, fleet, config, now_ns);
        self.mesh.count_hot(demand, slot, match_blocks, now_ns);
        if demand.lane == Lane::Batch {
            self.mesh.note_began(slot, (id, need), fleet, now_ns);
        }
        let matched = self.cache.push(slot, demand, match_blocks);
        self.counters.pushed += 1;
        self.counters.evacuation_stayed += u64::from(self.mesh.evacuating());
        self.counters.match_blocks += u64::from(match_blocks);
        self.counters.miss_blocks += u64::from(demand.prompt_blocks.saturating_sub(match_blocks));
        self.requests.began();
        request.attempts += 1;
        request.phase = Phase::InFlight(Attempt {
            slot,
            matched,
            started: false,
            first_byte_ns: None,
            forecast,
            withdrawn: false,
        });
        let attempt = request.attempts;
        let predicted_ttft_ns = request.demand.measured().then_some(forecast.ttft_ns);
        self.requests.insert(id, request);
        let push = Push {
            request: id,
            replica,
            attempt,
            match_blocks,
            predicted_ttft_ns,
        };
        if attempt > 1 && self.config.planted(Plant::PushedTwice) {
            out.push(Effect::Push(push.clone()));
        }
        out.push(Effect::Push(push));
        forecast.need.kv
    }
}
