//! Requests that are under way in the simulation.

use slab::Slab;

use super::workload::small;
use crate::id::{Nanos, RequestId};
use crate::prompt::class::Class;

/// A push to a replica that is shared.
#[derive(Debug, Clone, Copy)]
pub struct Pushed {
    /// Whose.
    pub by: u32,
    /// When.
    pub at_ns: Nanos,
    /// Its balancer knew of the push before. Else others may believe that the two came the other way round.
    pub in_turn: bool,
}

/// One request, from its sending to its end.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one request"
)]
pub struct Live {
    /// Distinguishes those that had the same place before.
    generation: u32,
    /// Its number in the workload.
    pub turn: u32,
    /// Whose, in closed loop.
    pub seat: u32,
    /// Which repetition of the workload it is of.
    pub salt: u64,
    /// Tokens of the answer.
    pub output: u32,
    /// Region of the client.
    pub region: u32,
    /// Number of its tenant, if there are any.
    pub tenant: Option<u32>,
    /// How urgent it is.
    pub class: Class,
    /// The balancer that its client sent it to.
    pub balancer: u32,
    /// Forwards so far: the number of the one under way.
    pub forwards: u32,
    /// The peer to which that goes.
    pub away: Option<u32>,
    /// Attempts that it may make, and until when it may hold the request.
    pub terms: (u32, Nanos),
    /// That peer has it: it decides.
    pub there: bool,
    /// Attempts that the peer has begun.
    pub tries_there: u32,
    /// The peer has had the first body byte.
    pub started_there: bool,
    /// When the last message from the peer reaches its balancer: they do not overtake.
    pub home_ns: Nanos,
    /// Order of arrival at its own balancer.
    pub home_order: u64,
    /// Order of arrival at who decides, from 1 on; 0 before.
    pub order: u64,
    /// How often a younger one was pushed while it was held.
    pub passed: u32,
    /// When the client sent it.
    pub sent_ns: Nanos,
    /// It counts in the figures.
    pub measured: bool,
    /// Attempts that count at its own balancer.
    pub tries: u32,
    /// The push under way, from 1 on; all balancers counted together.
    pub attempt: u32,
    /// Where that is.
    pub replica: Option<u32>,
    /// The replica works on it.
    pub at_replica: bool,
    /// Since when it is held.
    pub held_since_ns: Option<Nanos>,
    /// Time in the hold so far.
    pub held_ns: Nanos,
    /// When the replica generated the last token.
    pub token_ns: Nanos,
    /// When the last message about it reached, or will reach, the balancer: they do not overtake.
    pub message_ns: Nanos,
    /// When the last attempt was pushed.
    pub pushed_ns: Nanos,
    /// Who had told the pusher by then that it holds something for that replica, a bit each.
    pub wishes_known: u64,
    /// Who of its region had reported to the pusher shortly before, a bit each.
    pub reported: u64,
    /// Since when there was room at that replica, if there was.
    pub room_since_ns: Option<Nanos>,
    /// The push to that replica before this one, and whether this one's pusher knew of it.
    pub after: Option<Pushed>,
    /// See above.
    pub in_turn: bool,
    /// The time from then to its first body byte, as the engine predicted it.
    pub predicted_ns: Option<Nanos>,
    /// That time.
    pub started_ns: Nanos,
    /// When the client had the first byte.
    pub first_byte_ns: Option<Nanos>,
    /// Prompt tokens found in the replica's cache.
    pub cached: u32,
}

impl Live {
    /// A request that is being sent.
    #[must_use]
    pub fn new(turn: u32, seat: u32, region: u32, balancer: u32, sent_ns: Nanos) -> Self {
        Self {
            generation: 0,
            turn,
            seat,
            salt: 0,
            output: 1,
            region,
            tenant: None,
            class: Class::default(),
            balancer,
            forwards: 0,
            away: None,
            terms: (0, 0),
            there: false,
            tries_there: 0,
            started_there: false,
            home_ns: 0,
            home_order: 0,
            order: 0,
            passed: 0,
            sent_ns,
            measured: false,
            tries: 0,
            attempt: 0,
            replica: None,
            at_replica: false,
            held_since_ns: None,
            held_ns: 0,
            token_ns: 0,
            message_ns: 0,
            pushed_ns: 0,
            wishes_known: 0,
            reported: 0,
            room_since_ns: None,
            after: None,
            in_turn: false,
            predicted_ns: None,
            started_ns: 0,
            first_byte_ns: None,
            cached: 0,
        }
    }

    /// Who decides for it now.
    #[must_use]
    pub fn decider(&self) -> u32 {
        self.away.filter(|_| self.there).unwrap_or(self.balancer)
    }

    /// Its time in the hold is over.
    pub fn leave_hold(&mut self, now_ns: Nanos) {
        if let Some(since_ns) = self.held_since_ns.take() {
            self.held_ns += now_ns.saturating_sub(since_ns);
        }
    }
}

/// All requests under way. Ids are never used twice.
#[derive(Debug, Default)]
pub struct Table {
    slab: Slab<Live>,
    generation: u32,
}

impl Table {
    /// Puts a request in.
    pub fn insert(&mut self, mut live: Live) -> RequestId {
        self.generation = self.generation.wrapping_add(1);
        live.generation = self.generation;
        let index = small(self.slab.insert(live));
        RequestId(u64::from(self.generation) << 32 | u64::from(index))
    }

    /// A request, unless it has ended.
    pub fn get_mut(&mut self, id: RequestId) -> Option<&mut Live> {
        let (generation, index) = parts(id);
        self.slab
            .get_mut(index)
            .filter(|live| live.generation == generation)
    }

    /// A request, unless it has ended.
    #[must_use]
    pub fn get(&self, id: RequestId) -> Option<&Live> {
        let (generation, index) = parts(id);
        self.slab
            .get(index)
            .filter(|live| live.generation == generation)
    }

    /// Its attempt of that number, if it is the one under way.
    pub fn attempt(&mut self, id: RequestId, attempt: u32) -> Option<&mut Live> {
        self.get_mut(id)
            .filter(|live| live.attempt == attempt && live.replica.is_some())
    }

    /// Its forward of that number, if it is the one under way.
    pub fn forward(&mut self, id: RequestId, number: u32) -> Option<&mut Live> {
        self.get_mut(id)
            .filter(|live| live.forwards == number && live.away.is_some())
    }

    /// The request has ended.
    pub fn remove(&mut self, id: RequestId) -> Option<Live> {
        self.get_mut(id)?;
        Some(self.slab.remove(parts(id).1))
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// All of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (RequestId, &mut Live)> {
        self.slab.iter_mut().map(|(index, live)| {
            let id = u64::from(live.generation) << 32 | u64::from(small(index));
            (RequestId(id), live)
        })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (RequestId, &Live)> {
        self.slab.iter().map(|(index, live)| {
            let id = u64::from(live.generation) << 32 | u64::from(small(index));
            (RequestId(id), live)
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
fn parts(id: RequestId) -> (u32, usize) {
    ((id.0 >> 32) as u32, (id.0 as u32) as usize)
}
