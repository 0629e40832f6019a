//! The router's invariants, for tests.

use super::Router;
use crate::engine::choose::policy::Slot;
use crate::engine::fleet::member::{Member, Offer};
use crate::engine::fleet::models::sends;
use crate::engine::fleet::slot_of;
use crate::engine::requests::request::{Lane, Phase, Request, TRIED_MAX};
use crate::id::{ModelId, Nanos, ReplicaId};

impl Router {
    /// Requests at peers.
    #[must_use]
    pub fn forwards_in_flight(&self) -> usize {
        self.mesh.in_flight
    }

    /// Checks that all parts agree with each other.
    ///
    /// # Errors
    ///
    /// The name of the broken invariant, and what breaks it.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.tree.check_invariants()?;
        self.check_pins()?;
        if let Some(hot) = &self.mesh.hot {
            hot.known.check_invariants()?;
        }
        self.check_decisions()
    }

    fn check_pins(&self) -> Result<(), String> {
        let phases = self.requests.values().map(|request| &request.phase);
        let mut pins = phases.filter_map(|phase| match phase {
            Phase::InFlight(attempt) => attempt.pin.as_ref(),
            _ => None,
        });
        pins.try_for_each(|pin| self.tree.check_pin(pin))
    }

    /// All but the tree, whose check is the long one.
    pub(in crate::engine) fn check_decisions(&self) -> Result<(), String> {
        self.hold
            .check_invariants(&self.config)
            .map_err(str::to_owned)?;
        self.check_members()?;
        self.check_requests()?;
        self.check_models()?;
        self.check_nothing_waits_for_room_there_is()
    }

    fn check_members(&self) -> Result<(), String> {
        let mut in_flight = 0;
        self.fleet.check_cards(&self.config, self.now_ns)?;
        for (slot, member) in self.fleet.members() {
            member.replica.check_invariants()?;
            let at = |request: &&super::Request| matches!(&request.phase, Phase::InFlight(attempt) if attempt.slot == slot);
            let counted = self.requests.values().filter(at).count();
            if counted != member.in_flight() as usize {
                return Err(format!(
                    "in_flight_is_counted: {counted} != {}",
                    member.in_flight()
                ));
            }
            if member.in_flight() > self.config.in_flight_max {
                return Err(format!("in_flight_at_most_max: {}", member.in_flight()));
            }
            if member.removed && counted == 0 {
                return Err(format!("removed_replicas_are_forgotten: {:?}", member.id));
            }
            if member.removed && self.tree.owner_blocks(slot) > 0 {
                return Err(format!("removed_replicas_cache_nothing: {:?}", member.id));
            }
            in_flight += counted;
        }
        if in_flight != self.in_flight {
            return Err(format!(
                "in_flight_total_agrees: {in_flight} != {}",
                self.in_flight
            ));
        }
        if self.fleet.slots.len() != self.fleet.len() {
            return Err("one_slot_per_replica".to_owned());
        }
        Ok(())
    }

    fn check_requests(&self) -> Result<(), String> {
        let held = self
            .requests
            .values()
            .filter(|r| matches!(r.phase, Phase::Held { .. }))
            .count();
        if held != self.hold.len() {
            return Err(format!(
                "held_requests_are_in_the_hold: {held} != {}",
                self.hold.len()
            ));
        }
        let looking = self
            .requests
            .values()
            .filter(|r| matches!(r.phase, Phase::Looking))
            .count();
        if looking != self.looks.len() {
            return Err("requests_for_unlisted_models_wait_for_a_look".to_owned());
        }
        if held + looking + self.in_flight + self.mesh.in_flight != self.requests.len() {
            return Err("every_request_is_held_in_flight_or_forwarded".to_owned());
        }
        let most = self.config.attempts_max;
        let over = |request: &Request| {
            request.attempts > most
                || request.setbacks.suspects.len() > most as usize
                || request.tried.len() > TRIED_MAX
        };
        if self.requests.values().any(over) {
            return Err("attempts_at_most_max".to_owned());
        }
        Ok(())
    }

    fn check_models(&self) -> Result<(), String> {
        for (index, model) in &self.fleet.models {
            let named = self
                .requests
                .values()
                .filter(|r| r.model.is_some_and(|id| id.0 as usize == index));
            if named.count() != model.requests as usize {
                return Err(format!(
                    "requests_of_a_model_are_counted: {}",
                    model.requests
                ));
            }
            let id = ModelId(slot_of(index));
            let sent = self.fleet.members();
            let sent = sent.filter(|(_, member)| sends(member, id, model));
            if !sent.map(|(slot, _)| slot).eq(model.serving.iter().copied()) {
                return Err("models_and_replicas_agree".to_owned());
            }
            let lists = |member: &Member| {
                let mut listed = member.models.iter().flatten();
                listed.any(|(listed, _)| *listed == id)
            };
            let listed = self
                .fleet
                .members()
                .filter(|(_, member)| lists(member))
                .count();
            if listed != model.listed as usize {
                return Err("lists_of_a_model_are_counted".to_owned());
            }
            if model.listed == 0 && model.requests == 0 {
                return Err("unused_models_are_forgotten".to_owned());
            }
        }
        Ok(())
    }

    /// What the replicas that could serve a request offer it, asked of each of them: those that it
    /// has not failed on, unless none of them is ready.
    pub(in crate::engine) fn offers_to(
        &self,
        request: &Request,
        now_ns: Nanos,
    ) -> Vec<(Slot, Offer)> {
        let members = self.fleet.members().filter(|(slot, member)| {
            let models = self
                .fleet
                .models
                .get(request.model.map_or(usize::MAX, |id| id.0 as usize));
            let serves = models.is_none_or(|model| model.serving.contains(slot));
            let bound = request.bound.is_none_or(|bound| bound == member.id);
            serves
                && bound
                && (request.model.is_some() || request.bound.is_some())
                && request.may_use(member.region_bit)
        });
        let offers = members.map(|(slot, member)| {
            let tried = request.tried.contains(&member.id);
            (
                tried,
                slot,
                member.offer(request.lane, &self.config, now_ns),
            )
        });
        let ready = offers.filter(|(.., offer)| *offer != Offer::None);
        let (tried, untried): (Vec<_>, Vec<_>) = ready.partition(|(tried, ..)| *tried);
        let offers = if untried.is_empty() { tried } else { untried };
        offers
            .into_iter()
            .map(|(_, slot, offer)| (slot, offer))
            .collect()
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
                queue.any(|entry| entry == (ticket, *id))
            });
            if !found {
                return Err(format!("held_requests_stand_in_their_queue: {id:?}"));
            }
            let times = [self.swept_ns, self.now_ns];
            let mut open = times.iter().map(|at_ns| {
                let offers = self.offers_to(request, *at_ns);
                offers.iter().any(|(_, offer)| *offer == Offer::Room)
            });
            // Until the tick of the very moment at which its wait for a peer's room ends.
            let leaves = request.is_leaving(self.now_ns.saturating_sub(1));
            let chooses = self.hold.choice(ticket).is_some() || leaves;
            if !chooses && open.all(|open| open) {
                return Err(format!("nothing_waits_for_room_there_is: {id:?}"));
            }
        }
        let bound: Vec<ReplicaId> = self
            .hold
            .heads()
            .filter_map(|(line, _)| line.bound)
            .collect();
        if bound.iter().any(|replica| !self.fleet.listed(*replica)) {
            return Err("nothing_waits_for_a_removed_replica".to_owned());
        }
        if self
            .requests
            .values()
            .any(|r| r.lane != Lane::Batch && matches!(r.phase, Phase::Held { .. }))
        {
            return Err("only_batch_requests_are_held".to_owned());
        }
        Ok(())
    }
}
