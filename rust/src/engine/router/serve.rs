//! Starts held requests when a replica has room.
//!
//! Room is offered to the queues in their turn (see [`crate::engine::hold`]). The first request of a queue
//! takes it, and goes where its policy sends it (the paper's rule). Under `predictive`, age and predicted
//! work decide which request is first ([`crate::engine::choose`]).

use super::Router;
use crate::engine::choose::Selection;
use crate::engine::choose::{COMPARED_MAX, Sight};
use crate::engine::demand::Lane;
use crate::engine::effect::Effect;
use crate::engine::fleet::member::Offer;
use crate::engine::hold::{Head, Partition, Purse, Ticket};
use crate::engine::requests::request::{Phase, Request};
use crate::id::{ReplicaSlot, RequestId};
use crate::time::Instant;

/// Requests passed over in one search because they wait for a replica without room.
const AWAITING_MAX: usize = 16;

/// A held request that is to start, of the queue with this head.
#[derive(Clone, Copy)]
struct Next {
    head: Head,
    ticket: Ticket,
    id: RequestId,
}

impl Router {
    /// Something at `slot` may have given room: starts held requests while it has.
    pub(super) fn dispatch(&mut self, slot: ReplicaSlot, now: Instant, out: &mut Vec<Effect>) {
        self.expire_due(now, out);
        self.serve(slot, now, out);
        self.serve_opened(now, out);
    }

    /// Offers all the room there is to those who no longer wait for a replica.
    pub(super) fn serve_opened(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while self.hold.take_opened() {
            for slot in self.fleet.all_slots() {
                self.serve(slot, now, out);
            }
        }
    }

    /// [`Self::dispatch`] for every replica: what may have given room is not known.
    pub(super) fn dispatch_all(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.clock.swept_ns = now;
        self.expire_due(now, out);
        if self.hold.is_empty() {
            return;
        }
        self.offer_everywhere(now, out);
        self.dispatch_peers(now, out);
    }

    /// Offers the room of every replica.
    fn offer_everywhere(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let (fleet, config) = (&self.fleet, &self.config);
        let waited_for = |slot| {
            let member = fleet.member(slot);
            member.is_some_and(|member| member.offer(Lane::Batch, config, now) == Offer::Later)
        };
        self.hold.reopen(|slot| !waited_for(slot));
        for slot in self.fleet.all_slots() {
            self.serve(slot, now, out);
        }
        self.serve_opened(now, out);
    }

    /// Starts held requests while `slot` has room that one of them may use.
    fn serve(&mut self, slot: ReplicaSlot, now: Instant, out: &mut Vec<Effect>) {
        while !self.hold.is_empty() {
            let (fleet, config) = (&mut self.fleet, &self.config);
            self.mesh.note_open(slot, fleet, config, now);
            let Some(member) = self.fleet.member(slot) else {
                return;
            };
            let declined = member.declined();
            if member.offer(Lane::Batch, &self.config, now) != Offer::Room {
                if declined {
                    self.fleet.set_declined(slot, false);
                }
                return;
            }
            // All who could use this room have let it pass, and nobody else has come since.
            if declined && !self.anyone_open(slot) {
                return;
            }
            let mut heads = Vec::new();
            self.turns(slot, now, &mut heads);
            let due = self.oldest_due(slot, &heads, now);
            let started = due.is_some_and(|due| self.start(slot, &due, now, out))
                || heads.iter().any(|head| {
                    let first = self.first_of(slot, head, now);
                    first.is_some_and(|first| self.start(slot, &first, now, out))
                });
            if !started {
                self.fleet.set_declined(slot, true);
                return;
            }
        }
    }

    /// Starts what a line holds where there is room for it.
    pub(super) fn serve_line(&mut self, line: Partition, now: Instant, out: &mut Vec<Effect>) {
        let serving = self.fleet.serving(Some(line.model)).to_vec();
        for slot in serving {
            self.serve(slot, now, out);
        }
    }

    /// There is room for this line for which somebody waits.
    pub(super) fn contested(&self, line: Partition, now: Instant) -> bool {
        let serving = self.fleet.serving(Some(line.model));
        serving.iter().any(|&slot| {
            self.fleet.member(slot).is_some_and(|member| {
                self.fleet.serves(slot, line)
                    && member.offer(Lane::Batch, &self.config, now) == Offer::Room
                    && self.anyone_open(slot)
            })
        })
    }

    fn anyone_open(&self, slot: ReplicaSlot) -> bool {
        let mut lines = self.hold.lines();
        lines.any(|line| self.hold.open_len(line) > 0 && self.fleet.serves(slot, line))
    }

    /// The queues that `slot` can serve, those first whose turn it is.
    fn turns(&mut self, slot: ReplicaSlot, now: Instant, heads: &mut Vec<Head>) {
        let serves = |partition| self.fleet.serves(slot, partition);
        self.hold.turns(&self.config, now, serves, heads);
    }

    /// The oldest request to which the room of `slot` is owed, and which can use it.
    fn oldest_due(&self, slot: ReplicaSlot, heads: &[Head], now: Instant) -> Option<Next> {
        let due = heads.iter().filter_map(|head| {
            let mut owed = self.hold.owed(head, &self.config, now);
            owed.find_map(|(ticket, id)| {
                let request = self.requests.get(id)?;
                let fits = self.fits(request, slot, now);
                let head = *head;
                fits.then_some((request.age, Next { head, ticket, id }))
            })
        });
        due.min_by_key(|(age, _)| *age).map(|(_, next)| next)
    }

    /// Who is owed the room of `at`, to which the policy sends a request of this age that has
    /// been offered the room of another replica.
    fn due_before(&mut self, at: ReplicaSlot, age: u64, due: bool, now: Instant) -> Option<Next> {
        let mut heads = Vec::new();
        self.turns(at, now, &mut heads);
        let oldest = self.oldest_due(at, &heads, now)?;
        let older = self.requests.get(oldest.id)?.age < age;
        (older || !due).then_some(oldest)
    }

    /// The request of a queue that is to have the room of `slot`: of the tenants that are due, the first by
    /// age, or by age and work. Only those are passed over that must go elsewhere than where they failed,
    /// and those, up to [`AWAITING_MAX`], that had better wait for another replica.
    fn first_of(&mut self, slot: ReplicaSlot, head: &Head, now: Instant) -> Option<Next> {
        let by_work =
            self.config.policy.traits().orders_by_work && self.config.hold_work_weight > 0.0;
        let most = match (by_work, self.config.waits()) {
            (true, _) => COMPARED_MAX,
            (false, true) => AWAITING_MAX + 1,
            (false, false) => 1,
        };
        let (mut awaiting, mut left) = (0, most);
        let spares = self.fleet.spares(slot, &self.config);
        let (mut group, mut deferred) = (Vec::new(), Vec::new());
        let queue = (head.partition, head.class);
        while left > 0 && (self.hold).next_due(queue, (&self.config, most), &mut group) {
            let turns = self.hold.defer(&group, spares, &mut deferred);
            let requests = &self.requests;
            let asks = |id| {
                let request = requests
                    .get(id)
                    .filter(|request| !request.is_leaving(now))?;
                Some((&request.demand, request.submitted_ns))
            };
            let mut sight = Sight {
                config: &self.config,
                fleet: &mut self.fleet,
                cache: &mut self.cache,
                hold: &self.hold,
                now,
            };
            let ranked = turns
                .iter()
                .flat_map(|turn| sight.rank(turn, (slot, by_work), &mut left, asks));
            for (ticket, id) in ranked.collect::<Vec<_>>() {
                if awaiting == AWAITING_MAX || !self.lets_pass(ticket, id, now) {
                    let head = *head;
                    return Some(Next { head, ticket, id });
                }
                awaiting += 1;
            }
        }
        None
    }

    /// Lets a held request wait by choice for a replica without room, where that is better for it.
    pub(super) fn lets_pass(&mut self, ticket: Ticket, id: RequestId, now: Instant) -> bool {
        if !self.config.waits() {
            return false;
        }
        let Some(request) = self.requests.remove(id) else {
            return false;
        };
        let found = self.find(&request, true, now);
        self.requests.insert(id, request);
        let Selection::Awaits { slot: owner } = found else {
            return false;
        };
        let waits = self.hold.choose(ticket, owner, &self.config, now);
        self.counters.affinity_waits += u64::from(waits);
        waits
    }

    /// Pushes a held request where its policy sends it, and counts whom it has passed over. Where
    /// that is not the replica whose room was offered, who is due there goes first.
    fn start(
        &mut self,
        offered: ReplicaSlot,
        next: &Next,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> bool {
        let &Next { head, ticket, id } = next;
        let Some(request) = self.requests.remove(id) else {
            return false;
        };
        let is_due = self.hold.is_owed(ticket, &self.config, now);
        let Selection::Here { slot, match_blocks } = self.find(&request, false, now) else {
            self.requests.insert(id, request);
            return false;
        };
        let (purse, age) = (self.purse(&request), request.age);
        if slot != offered
            && let Some(due) = self.due_before(slot, age, is_due, now)
        {
            self.requests.insert(id, request);
            return self.start(slot, &due, now, out);
        }
        let request = self.leave_hold(ticket, request, now);
        let tokens = self.push(id, request, slot, match_blocks, now, out);
        self.hold.charge(head.as_class, tokens, &self.config);
        self.counters.count_class(head.class);
        self.counters.hold_due += u64::from(is_due);
        self.pass_over(head.partition, &purse, age, slot, now);
        true
    }

    /// A request of this age has taken room of `slot`: counts it for all older ones of its tenant's lane
    /// that could have used it.
    pub(super) fn pass_over(
        &mut self,
        line: Partition,
        purse: &Purse,
        age: u64,
        slot: ReplicaSlot,
        now: Instant,
    ) {
        let mut next = self.hold.beside(line, purse, &self.config).next();
        while let Some((ticket, id)) = next {
            next = self.hold.after(ticket);
            let Some(request) = self.requests.get(id).filter(|other| other.age < age) else {
                return;
            };
            if self.fits(request, slot, now) {
                self.counters.hold_passed_over += 1;
                self.hold.pass_over(ticket, &self.config);
            }
        }
    }

    /// A held request lets room pass, for another replica.
    #[must_use]
    pub fn waits_by_choice(&self, id: RequestId) -> bool {
        let ticket = self.requests.get(id).and_then(Request::ticket);
        ticket.is_some_and(|ticket| self.hold.choice(ticket).is_some())
    }

    /// Takes a held request out of the hold, and counts its time there.
    pub(super) fn leave_hold(
        &mut self,
        ticket: Ticket,
        mut request: Request,
        now: Instant,
    ) -> Request {
        self.hold.serve(ticket, now);
        if let Phase::Held { since_ns, .. } = request.phase {
            request.held_ns += now - since_ns;
        }
        request.phase = Phase::Between;
        request
    }
}
