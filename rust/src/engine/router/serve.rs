//! Starts held requests when a replica has room.
//!
//! Room is offered to the queues in their turn (see [`crate::engine::hold`]). The first request of a queue
//! takes it, and goes where its policy sends it (the paper's rule). Under `predictive`, age and predicted
//! work decide which request is first ([`crate::engine::choose`]).

use super::Router;
use crate::engine::choose::Selection;
use crate::engine::choose::verdict::Verdict;
use crate::engine::choose::{COMPARED_MAX, Sight};
use crate::engine::demand::Lane;
use crate::engine::effect::Effect;
use crate::engine::fleet::member::Offer;
use crate::engine::hold::{Front, Head, Partition, Purse, Room, Ticket};
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
    room: Room,
    /// What the shadow does with it, where that has been asked.
    shadow: Shadow,
}

/// The shadow's part in the start of a held request.
#[derive(Clone, Copy)]
enum Shadow {
    /// It is not asked whether the request waits: room is owed to the request.
    Starts,
    /// It is still to be asked: the policy lets no request wait.
    Free,
    /// It was asked beside the policy; a verdict if it would let the request wait.
    Asked(Option<Verdict>),
}

/// What a held request does with room that it is offered.
enum Pass {
    Starts,
    /// It waits for another replica.
    Awaits,
    /// No replica spares what it needs.
    Stays,
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
            let mut deferred = Vec::new();
            let started = due.is_some_and(|due| self.start(slot, &due, now, out))
                || heads.iter().any(|head| {
                    let first = self.first_of(slot, head, &mut deferred, now);
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
    pub(in crate::engine) fn contested(&self, line: Partition, now: Instant) -> bool {
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
        let spares = self.fleet.spares(slot, 0, &self.config, now);
        let due = heads.iter().filter_map(|&head| {
            let front = self.hold.front(head.partition, head.class)?;
            let room = self.room_for(self.requests.get(front.request)?, now);
            let mut owed = self.hold.owed(&head, &self.config, now);
            let next = |ticket, id| Next {
                head,
                ticket,
                id,
                room,
                shadow: Shadow::Starts,
            };
            owed.find_map(|(ticket, id)| {
                let fits = room == Room::Any || spares;
                let request = self.requests.get(id).filter(|_| fits)?;
                self.fits(request, slot, now)
                    .then_some((request.age, next(ticket, id)))
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
    ///
    /// `deferred`: tenants that ask for far more than their part, of the queues before this one.
    fn first_of(
        &mut self,
        slot: ReplicaSlot,
        head: &Head,
        deferred: &mut Vec<(Head, Front)>,
        now: Instant,
    ) -> Option<Next> {
        let by_work =
            self.config.policy.traits().orders_by_work && self.config.hold_work_weight > 0.0;
        let most = match (by_work, self.config.waits()) {
            (true, _) => COMPARED_MAX,
            (false, true) => AWAITING_MAX + 1,
            (false, false) => 1,
        };
        // What is spared is asked for apart, so that a tenant with more than its part hides nobody.
        let (mut awaiting, mut left, mut spares_left) = (0, most, most);
        let spares = self.fleet.spares(slot, 0, &self.config, now);
        let mut group = Vec::new();
        let queue = (head.partition, head.class);
        while left > 0 && (self.hold).next_due(queue, (&self.config, most), &mut group) {
            for turn in (self.hold).defer(*head, &group, deferred, (&self.config, now)) {
                let left = match turn.room {
                    Room::Any => &mut left,
                    Room::Spared if !spares || spares_left == 0 => break,
                    Room::Spared => &mut spares_left,
                };
                for (ticket, id) in self.ranked(&turn.fronts, (slot, by_work), left, now) {
                    let (head, room) = (turn.head, turn.room);
                    let mut next = Next {
                        head,
                        ticket,
                        id,
                        room,
                        shadow: Shadow::Free,
                    };
                    match self.pass(&mut next, now) {
                        Pass::Starts => return Some(next),
                        Pass::Awaits if awaiting == AWAITING_MAX => return Some(next),
                        Pass::Awaits => awaiting += 1,
                        Pass::Stays => {}
                    }
                }
            }
        }
        None
    }

    /// The held requests of these tenants in the order in which they are to have the room of a replica.
    fn ranked(
        &mut self,
        turn: &[Front],
        at: (ReplicaSlot, bool),
        left: &mut usize,
        now: Instant,
    ) -> Vec<(Ticket, RequestId)> {
        let asks = |id| self.requests.asks(id, now);
        let mut sight = Sight {
            config: &self.config,
            fleet: &mut self.fleet,
            cache: &mut self.cache,
            hold: &self.hold,
            now,
        };
        sight.rank(turn, at, left, asks)
    }

    /// Whether a held request starts, or lets room pass. It may wait by choice for a replica without room, where
    /// that is better for it.
    fn pass(&mut self, next: &mut Next, now: Instant) -> Pass {
        if !self.config.waits() && next.room == Room::Any {
            return Pass::Starts;
        }
        let Some(request) = self.requests.remove(next.id) else {
            return Pass::Starts;
        };
        let found = self.find_room(&request, (true, true), next.room, now);
        self.requests.insert(next.id, request);
        next.shadow = Shadow::Asked(found.here().and_then(|here| here.shadow));
        match found {
            Selection::Awaits { slot }
                if self.hold.choose(next.ticket, slot, &self.config, now) =>
            {
                self.counters.affinity_waits += 1;
                Pass::Awaits
            }
            Selection::NoRoom if next.room == Room::Spared => Pass::Stays,
            _ => Pass::Starts,
        }
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
        let Next {
            head, ticket, id, ..
        } = *next;
        let Some(mut request) = self.requests.remove(id) else {
            return false;
        };
        let is_due = self.hold.is_owed(ticket, &self.config, now);
        let may_wait = (false, matches!(next.shadow, Shadow::Free));
        let Selection::Here(mut here) = self.find_room(&request, may_wait, next.room, now) else {
            self.requests.insert(id, request);
            return false;
        };
        if let Shadow::Asked(Some(verdict)) = next.shadow
            && verdict.waits
        {
            here.shadow = Some(verdict);
        }
        let (purse, age, slot) = (self.purse(&request), request.age, here.slot);
        if slot != offered
            && let Some(due) = self.due_before(slot, age, is_due, now)
        {
            self.requests.insert(id, request);
            if self.start(slot, &due, now, out) {
                return true;
            }
            let Some(again) = self.requests.remove(id) else {
                return false;
            };
            request = again;
        }
        let request = self.leave_hold(ticket, request, now);
        let tokens = self.push(id, request, here, now, out);
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
        let request = self.requests.get(id);
        (request.and_then(Request::ticket)).is_some_and(|of| self.hold.choice(of).is_some())
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
