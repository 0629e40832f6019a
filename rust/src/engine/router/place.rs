//! Placing requests: which replica now, or the hold, or a refusal.

use smallvec::SmallVec;

use super::Router;
use super::fleet::Offer;
use super::request::{Attempt, Lane, Phase, Refusal, Request};
use super::view::Found;
use crate::engine::effect::{Effect, Push};
use crate::engine::hold::{Partition, Ticket};
use crate::engine::id::{Nanos, RequestId};
use crate::engine::plant::Plant;
use crate::engine::select::Slot;

/// Requests passed over in one search because they wait for a replica without room.
const AWAITING_MAX: u32 = 16;

impl Router {
    /// Pushes the request if it may be pushed now, else holds it, else refuses it: with `failed`
    /// where that is given (a retry), or with what stood in the way.
    pub(super) fn settle(
        &mut self,
        id: RequestId,
        mut request: Request,
        failed: Option<Refusal>,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        if let Some(partition) = request.partition().filter(|_| request.lane == Lane::Batch) {
            // Those that are older go first, if room has come with time alone.
            while self.serve_one(partition, request.age, now_ns, out) {}
        }
        let mut found = self.find(&mut request, true, now_ns);
        if found == Found::Awaits {
            if let Some(ticket) = self.enter_hold(id, &request, now_ns) {
                self.hold_request(id, request, ticket, now_ns, out);
                return;
            }
            // What cannot wait goes where there is room.
            self.unawait(&mut request);
            found = self.find(&mut request, false, now_ns);
        }
        match found {
            Found::Here { slot, match_blocks } => {
                self.push(id, request, slot, match_blocks, now_ns, out);
            }
            Found::NoneReady => {
                let refusal = failed.unwrap_or_else(|| self.none_ready());
                self.refuse(id, &request, refusal, out);
            }
            Found::NoRoom | Found::Awaits => {
                if let Some(ticket) = self.enter_hold(id, &request, now_ns) {
                    self.hold_request(id, request, ticket, now_ns, out);
                } else {
                    let refusal = failed.unwrap_or_else(|| self.no_room(request.lane));
                    self.refuse(id, &request, refusal, out);
                }
            }
        }
    }

    fn hold_request(
        &mut self,
        id: RequestId,
        mut request: Request,
        ticket: Ticket,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        request.phase = Phase::Held {
            ticket,
            since_ns: now_ns,
        };
        self.requests.insert(id, request);
        out.push(Effect::Hold(id));
    }

    /// A place in the hold, unless the request may not wait, has waited its time, or the hold is
    /// full.
    fn enter_hold(&mut self, id: RequestId, request: &Request, now_ns: Nanos) -> Option<Ticket> {
        if request.lane != Lane::Batch {
            return None;
        }
        let left_ns = self.config.hold_timeout_ns.saturating_sub(request.held_ns);
        let partition = request.partition().filter(|_| left_ns > 0)?;
        let deadline_ns = now_ns.saturating_add(left_ns);
        let ticket = self.hold.enter(partition, id, request.age, deadline_ns);
        self.counters.hold_entered += u64::from(ticket.is_some());
        self.counters.hold_full += u64::from(ticket.is_none());
        ticket
    }

    /// Starts held requests while `slot` has room that one of them may use.
    pub(super) fn dispatch(&mut self, slot: Slot, now_ns: Nanos, out: &mut Vec<Effect>) {
        self.expire_due(now_ns, out);
        let mut stuck: SmallVec<[Partition; 4]> = SmallVec::new();
        while !self.hold.is_empty() {
            let Some(member) = self.fleet.member(slot) else {
                return;
            };
            if member.offer(Lane::Batch, &self.config, now_ns) != Offer::Room {
                return;
            }
            let serves = |partition: &Partition| {
                let models = member.models.as_deref().unwrap_or_default();
                partition.bound.is_none_or(|bound| bound == member.id)
                    && models
                        .binary_search_by_key(&partition.model, |(model, _)| *model)
                        .is_ok()
            };
            let lines = self.hold.heads().filter(|(partition, _)| serves(partition));
            let open = lines.filter(|(partition, _)| !stuck.contains(partition));
            let Some((partition, _)) = open.min_by_key(|(_, age)| *age) else {
                return;
            };
            if !self.serve_one(partition, u64::MAX, now_ns, out) {
                stuck.push(partition);
            }
        }
    }

    /// [`Self::dispatch`] for every replica: what may have given room is not known.
    pub(super) fn dispatch_all(&mut self, now_ns: Nanos, out: &mut Vec<Effect>) {
        self.swept_ns = now_ns;
        self.expire_due(now_ns, out);
        if !self.hold.is_empty() {
            for slot in self.fleet.all_slots() {
                self.dispatch(slot, now_ns, out);
            }
        }
    }

    /// Pushes the oldest request of a line that can use the room there is, if it is older than
    /// `age`. Only a request that must go elsewhere than where it failed is passed over, and those,
    /// up to [`AWAITING_MAX`], that had better wait for a replica without room.
    fn serve_one(
        &mut self,
        partition: Partition,
        age: u64,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) -> bool {
        let mut awaiting = 0;
        let mut next = self.hold.oldest(partition);
        while let Some((ticket, id)) = next {
            let older = |request: &Request| request.age < age;
            if !self.requests.get(&id).is_some_and(older) {
                return false;
            }
            let Some(mut request) = self.requests.remove(&id) else {
                return false;
            };
            let found = self.find(&mut request, true, now_ns);
            if let Found::Here { slot, match_blocks } = found {
                let request = self.leave_hold(ticket, request, now_ns);
                self.push(id, request, slot, match_blocks, now_ns, out);
                return true;
            }
            let awaits = found == Found::Awaits && awaiting < AWAITING_MAX;
            awaiting += u32::from(awaits);
            let passed_over = awaits || !request.tried.is_empty();
            self.requests.insert(id, request);
            next = if passed_over {
                self.hold.after(ticket)
            } else {
                None
            };
        }
        false
    }

    /// Takes a held request out of the hold, and counts its time there.
    pub(super) fn leave_hold(
        &mut self,
        ticket: Ticket,
        mut request: Request,
        now_ns: Nanos,
    ) -> Request {
        self.hold.leave(ticket);
        if let Phase::Held { since_ns, .. } = request.phase {
            request.held_ns += now_ns.saturating_sub(since_ns);
        }
        request.phase = Phase::Between;
        request
    }

    /// Counts the request in flight, records its prompt in the tree, and asks for the push.
    fn push(
        &mut self,
        id: RequestId,
        mut request: Request,
        slot: Slot,
        match_blocks: u32,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        let forecast = self.forecast(&request, slot, match_blocks, now_ns);
        self.unawait(&mut request);
        let Some(member) = self.fleet.member_mut(slot) else {
            return;
        };
        member.push(id, request.lane, forecast.need, &self.config, now_ns);
        member.match_blocks_total += u64::from(match_blocks);
        member.prompt_blocks_total += u64::from(request.prompt_blocks);
        let replica = member.id;
        self.note_push(&request, slot, replica, forecast.need, now_ns);
        let pin = if request.blocks.is_empty() {
            None
        } else {
            self.tree.insert(slot, &request.blocks)
        };
        self.counters.pushed += 1;
        self.counters.match_blocks += u64::from(match_blocks);
        self.counters.miss_blocks += u64::from(request.prompt_blocks.saturating_sub(match_blocks));
        self.in_flight += 1;
        request.attempts += 1;
        request.phase = Phase::InFlight(Attempt {
            slot,
            pin,
            started: false,
            match_blocks,
            first_byte_ns: None,
            forecast,
        });
        let attempt = request.attempts;
        self.requests.insert(id, request);
        let push = Push {
            request: id,
            replica,
            attempt,
            match_blocks,
        };
        if attempt > 1 && self.config.planted(Plant::PushedTwice) {
            out.push(Effect::Push(push.clone()));
        }
        out.push(Effect::Push(push));
    }
}
