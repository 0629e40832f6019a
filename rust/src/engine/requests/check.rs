//! The invariants of requests, for tests.

use super::Requests;
use super::request::{Phase, Request};
use crate::engine::cache::Cache;
use crate::engine::config::{Config, TenantRule};
use crate::engine::demand::{Lane, TRIED_MAX};
use crate::engine::fleet::Fleet;
use crate::engine::fleet::member::Offer;
use crate::engine::hold::Hold;
use crate::time::{Instant, Span};

impl Requests {
    /// Checks that each request is somewhere, and that nothing it remembers is out of bounds. `in_hold`: requests
    /// that the hold has; `away`: that are at peers.
    pub(in crate::engine) fn check(
        &self,
        in_hold: usize,
        away: usize,
        config: &Config,
    ) -> Result<(), String> {
        let held = self.count(|phase| matches!(phase, Phase::Held { .. }));
        if held != in_hold {
            return Err(format!(
                "held_requests_are_in_the_hold: {held} != {in_hold}"
            ));
        }
        let looking = self.count(|phase| matches!(phase, Phase::Looking));
        if looking != self.looks.len() {
            return Err("requests_for_unlisted_models_wait_for_a_look".to_owned());
        }
        if held + looking + self.in_flight + away != self.len() {
            return Err("every_request_is_held_in_flight_or_forwarded".to_owned());
        }
        let most = config.attempts_max;
        let over = |request: &Request| {
            request.attempts > most
                || request.setbacks.suspects.len() > most as usize
                || request.demand.tried.len() > TRIED_MAX
        };
        if self.live.values().any(over) {
            return Err("attempts_at_most_max".to_owned());
        }
        let charges = self.live.values().filter_map(|request| request.charge);
        self.tenants.check(charges)
    }

    /// What requests in flight have taken of the tree is there.
    pub(in crate::engine) fn check_pins(&self, cache: &Cache) -> Result<(), String> {
        let mut phases = self.iter().map(|(_, request)| &request.phase);
        phases.try_for_each(|phase| match phase {
            Phase::InFlight(attempt) => cache.check_match(&attempt.matched),
            _ => Ok(()),
        })
    }

    /// No held request could go to a replica that has room for it, unless it waits for another by
    /// choice, or its tenant has more than its part and no replica is idle; room apart that has come with time alone since the last sweep: that is found by the
    /// next one.
    pub(in crate::engine) fn check_waiting(
        &self,
        hold: &Hold,
        fleet: &Fleet,
        times: [Instant; 2],
        config: &Config,
    ) -> Result<(), String> {
        let waiting = self.iter().filter_map(|(id, request)| {
            let Phase::Held { ticket, .. } = request.phase else {
                return None;
            };
            Some((id, request, ticket))
        });
        for (id, request, ticket) in waiting {
            let partition = request.partition();
            let found = partition.is_some_and(|partition| {
                let mut queue = hold.queue(partition, request.class);
                queue.any(|entry| entry == (ticket, id))
            });
            if !found {
                return Err(format!("held_requests_stand_in_their_queue: {id:?}"));
            }
            // Whether a tenant has more than its part changes with what others do, without a look at all room.
            let leaves =
                config.tenant_rule == TenantRule::Fair && config.tenant_headroom_ratio > 0.0;
            let spared = |slot| {
                let idle = fleet.member(slot).is_some_and(|of| of.all_in_flight() == 0);
                idle || !leaves
            };
            let mut open = times.iter().map(|at_ns| {
                let offers = fleet.offers_to(&request.demand, config, *at_ns);
                let room = |(slot, offer): &(_, Offer)| *offer == Offer::Room && spared(*slot);
                offers.iter().any(room)
            });
            // Until the tick of the very moment at which its wait for a peer's room ends.
            let leaves = request.is_leaving(times[1] - Span::from_ns(1));
            let chooses = hold.choice(ticket).is_some() || leaves;
            if !chooses && open.all(|open| open) {
                return Err(format!("nothing_waits_for_room_there_is: {id:?}"));
            }
        }
        let mut bound = hold.lines().filter_map(|line| line.bound);
        if bound.any(|replica| !fleet.listed(replica)) {
            return Err("nothing_waits_for_a_removed_replica".to_owned());
        }
        let light = |request: &Request| {
            request.demand.lane != Lane::Batch && matches!(request.phase, Phase::Held { .. })
        };
        if self.iter().any(|(_, request)| light(request)) {
            return Err("only_batch_requests_are_held".to_owned());
        }
        Ok(())
    }
}
