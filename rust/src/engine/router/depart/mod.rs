//! Times at which requests leave a replica or a region, because it ends or an operator wants it empty.
//!
//! A replica that ends takes with it what stays, so all leaves at once, and waits in the hold where nobody has
//! room. What an operator wants empty is left at the pace at which others have room. At each look one request leaves
//! for each replica that has some. A prompt is computed within a look or two, so that its stream stands still briefly. If
//! all came at once, the last would wait for the prompts of all. One request more waits: it shows peers that room is
//! wanted. The other streams run on meanwhile. Requests are looked at again and again, because one that cannot leave at
//! one moment may be able to soon after. Nothing is taken from the budget of retries.

use super::Router;
use super::resume::DEPARTURES_MAX;
use crate::engine::effect::Effect;
use crate::engine::requests::leaving::{Origin, Room};
use crate::engine::requests::request::Request;
use crate::id::RequestId;
use crate::time::Instant;

impl Router {
    /// An operator's order for a region, ours or a peer's: it is evacuated, or taken back. Streams leave it at
    /// `leave_ns`; `None`: they end there.
    pub fn evacuate(
        &mut self,
        region: &str,
        (evacuating, leave_ns): (bool, Option<Instant>),
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        if region == self.mesh.region() {
            self.set_evacuating(evacuating, now, out);
        }
        let now = self.advance(now);
        self.mesh
            .set_departure(region, leave_ns.filter(|_| evacuating));
        self.leave_due(now, out);
    }

    /// Requests at replicas here, those that cannot leave, and those of peers.
    #[must_use]
    pub fn staying(&self) -> (usize, usize, usize) {
        self.requests.staying()
    }

    /// Withdraws what has to leave by now, and may.
    pub(super) fn leave_due(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for (slot, ends) in self.fleet.looks_due(now) {
            self.send_away(&Origin::Replica(slot), ends, now, out);
        }
        for peers in self.mesh.departures_due(now) {
            let origin = peers.map_or(Origin::Home, Origin::Peers);
            self.send_away(&origin, false, now, out);
        }
    }

    fn send_away(&mut self, origin: &Origin, ends: bool, now: Instant, out: &mut Vec<Effect>) {
        let mut room = Room::default();
        for id in self.requests.leaving(origin) {
            let may = self.has_elsewhere(id, origin, now)
                && (ends || self.has_turn(id, origin, &mut room, now));
            self.counters.left_on_notice += u64::from(may && self.give_up(id, out));
        }
    }

    /// It leaves now what an operator wants empty: others have room, or nobody waits for room yet.
    ///
    /// One whose driver could not let it go before takes no room, and neither does a peer's: its origin finds a place.
    fn has_turn(&self, id: RequestId, origin: &Origin, room: &mut Room, now: Instant) -> bool {
        let request = self.requests.get(id);
        let Some(request) = request.filter(|of| of.continuations() < DEPARTURES_MAX) else {
            return false;
        };
        if request.withdrawn() || request.deadline_ns.is_some() {
            return true;
        }
        room.take(&request.demand, || {
            let left = self.room_elsewhere(request, origin, now);
            (left, self.requests.one_waits(&request.demand))
        })
    }

    /// A place could take it, with room or without.
    fn has_elsewhere(&mut self, id: RequestId, origin: &Origin, now: Instant) -> bool {
        if let Origin::Replica(slot) = origin {
            return self.may_leave(id, *slot, now);
        }
        let Some(request) = self.requests.remove(id) else {
            return false;
        };
        let forwarded = request.deadline_ns.is_some();
        let found = match origin {
            Origin::Peers(_) => self.untried(&request, now),
            _ => forwarded || (request.has_tries() && self.peers_serve(&request, now)),
        };
        self.requests.insert(id, request);
        found
    }

    /// Replicas that have room for such a request: those of peers, and those here that are not left.
    fn room_elsewhere(&self, request: &Request, origin: &Origin, now: Instant) -> u64 {
        let name = self.fleet.name_of(request.demand.model);
        let there = name.map_or(0, |name| {
            self.mesh
                .with_room(name, request.demand.regions, &self.config, now)
        });
        if matches!(origin, Origin::Home) {
            return there;
        }
        there + self.fleet.with_room(&request.demand, &self.config, now)
    }
}
