//! The router's invariants, for tests.

use super::Router;
use crate::engine::demand::{Lane, TRIED_MAX};
use crate::engine::fleet::member::Offer;
use crate::engine::requests::request::{Phase, Request};
use crate::id::PeerId;
use crate::time::Span;

impl Router {
    /// Requests at peers.
    #[must_use]
    pub fn forwards_in_flight(&self) -> usize {
        self.mesh.in_flight()
    }

    /// Requests at replicas that a peer of our region has told of.
    #[must_use]
    pub fn counted_for(&self, peer: PeerId) -> usize {
        let members = self.fleet.members();
        let counts = members.map(|(_, member)| member.replica().counted_for(peer));
        counts.sum()
    }

    /// Checks that all parts agree with each other.
    ///
    /// # Errors
    ///
    /// The name of the broken invariant, and what breaks it.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.cache.check_invariants()?;
        self.check_pins()?;
        self.mesh.check_hot()?;
        self.check_decisions()
    }

    fn check_pins(&self) -> Result<(), String> {
        let phases = self.requests.iter().map(|(_, request)| &request.phase);
        let mut matches = phases.filter_map(|phase| match phase {
            Phase::InFlight(attempt) => Some(&attempt.matched),
            _ => None,
        });
        matches.try_for_each(|matched| self.cache.check_match(matched))
    }

    /// All but the tree, whose check is the long one.
    pub(super) fn check_decisions(&self) -> Result<(), String> {
        self.hold
            .check_invariants(&self.config)
            .map_err(str::to_owned)?;
        self.check_members()?;
        self.check_requests()?;
        self.check_models()?;
        self.check_nothing_waits_for_room_there_is()
    }

    fn check_members(&self) -> Result<(), String> {
        self.fleet.check_invariants(&self.config, self.clock.now)?;
        let mut in_flight = 0;
        for (slot, member) in self.fleet.members() {
            let counted = self.requests.at(slot);
            if counted != member.in_flight() as usize {
                return Err(format!(
                    "in_flight_is_counted: {counted} != {}",
                    member.in_flight()
                ));
            }
            if member.removed() && counted == 0 {
                return Err(format!("removed_replicas_are_forgotten: {:?}", member.id()));
            }
            if member.removed() && self.cache.owner_blocks(slot) > 0 {
                return Err(format!("removed_replicas_cache_nothing: {:?}", member.id()));
            }
            in_flight += counted;
        }
        if in_flight != self.requests.in_flight() {
            return Err(format!(
                "in_flight_total_agrees: {in_flight} != {}",
                self.requests.in_flight()
            ));
        }
        Ok(())
    }

    fn check_requests(&self) -> Result<(), String> {
        let held = self
            .requests
            .count(|phase| matches!(phase, Phase::Held { .. }));
        if held != self.hold.len() {
            return Err(format!(
                "held_requests_are_in_the_hold: {held} != {}",
                self.hold.len()
            ));
        }
        let looking = self.requests.count(|phase| matches!(phase, Phase::Looking));
        if looking != self.requests.looks().len() {
            return Err("requests_for_unlisted_models_wait_for_a_look".to_owned());
        }
        let elsewhere = self.requests.in_flight() + self.mesh.in_flight();
        if held + looking + elsewhere != self.requests.len() {
            return Err("every_request_is_held_in_flight_or_forwarded".to_owned());
        }
        let most = self.config.attempts_max;
        let over = |request: &Request| {
            request.attempts > most
                || request.setbacks.suspects.len() > most as usize
                || request.demand.tried.len() > TRIED_MAX
        };
        if self.requests.iter().any(|(_, request)| over(request)) {
            return Err("attempts_at_most_max".to_owned());
        }
        Ok(())
    }

    fn check_models(&self) -> Result<(), String> {
        self.fleet
            .check_models(|model| self.requests.of_model(model))
    }

    /// No held request could go to a replica that has room for it, unless it waits for another by
    /// choice; room apart that has come with time alone since the last sweep: that is found by the
    /// next one.
    fn check_nothing_waits_for_room_there_is(&self) -> Result<(), String> {
        let held = self.requests.iter().filter_map(|(id, request)| {
            let Phase::Held { ticket, .. } = request.phase else {
                return None;
            };
            Some((id, request, ticket))
        });
        for (id, request, ticket) in held {
            let partition = request.partition();
            let found = partition.is_some_and(|partition| {
                let mut queue = self.hold.queue(partition, request.class);
                queue.any(|entry| entry == (ticket, id))
            });
            if !found {
                return Err(format!("held_requests_stand_in_their_queue: {id:?}"));
            }
            let times = [self.clock.swept_ns, self.clock.now];
            let mut open = times.iter().map(|at_ns| {
                let offers = self.fleet.offers_to(&request.demand, &self.config, *at_ns);
                offers.iter().any(|(_, offer)| *offer == Offer::Room)
            });
            // Until the tick of the very moment at which its wait for a peer's room ends.
            let leaves = request.is_leaving(self.clock.now - Span::from_ns(1));
            let over = self.hold.is_over(&self.purse(request), &self.config);
            let chooses = self.hold.choice(ticket).is_some() || leaves || over;
            if !chooses && open.all(|open| open) {
                return Err(format!("nothing_waits_for_room_there_is: {id:?}"));
            }
        }
        let mut bound = self.hold.lines().filter_map(|line| line.bound);
        if bound.any(|replica| !self.fleet.listed(replica)) {
            return Err("nothing_waits_for_a_removed_replica".to_owned());
        }
        let light = |request: &Request| {
            request.demand.lane != Lane::Batch && matches!(request.phase, Phase::Held { .. })
        };
        if self.requests.iter().any(|(_, request)| light(request)) {
            return Err("only_batch_requests_are_held".to_owned());
        }
        Ok(())
    }
}
