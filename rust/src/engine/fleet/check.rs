//! The fleet's invariants, for tests.

use super::Fleet;
use super::member::{Member, Offer};
use super::models::sends;
use crate::engine::config::Config;
use crate::engine::demand::Demand;
use crate::id::{ModelId, PeerId, ReplicaSlot, count};
use crate::time::Instant;

impl Fleet {
    /// Requests at replicas that this peer has told of.
    pub(in crate::engine) fn counted_for(&self, peer: PeerId) -> usize {
        let counts = self
            .members()
            .map(|(_, member)| member.replica().counted_for(peer));
        counts.sum()
    }

    pub(in crate::engine) fn check_invariants(
        &self,
        config: &Config,
        now: Instant,
    ) -> Result<(), String> {
        self.check_figures(config, now)?;
        for (_, member) in self.members() {
            member.replica.check_invariants()?;
            if member.in_flight() > config.in_flight_max {
                return Err(format!("in_flight_at_most_max: {}", member.in_flight()));
            }
        }
        if self.slots.len() != self.len() {
            return Err("one_slot_per_replica".to_owned());
        }
        Ok(())
    }

    /// `sent`: requests in flight at a replica, `all` of them together; `cached`: blocks that it is believed to
    /// cache.
    pub(in crate::engine) fn check_members(
        &self,
        all: usize,
        sent: impl Fn(ReplicaSlot) -> usize,
        cached: impl Fn(ReplicaSlot) -> u32,
    ) -> Result<(), String> {
        for (slot, member) in self.members() {
            let (counted, in_flight) = (sent(slot), member.in_flight());
            if counted != in_flight as usize {
                return Err(format!("in_flight_is_counted: {counted} != {in_flight}"));
            }
            if member.removed() && counted == 0 {
                return Err(format!("removed_replicas_are_forgotten: {:?}", member.id()));
            }
            if member.removed() && cached(slot) > 0 {
                return Err(format!("removed_replicas_cache_nothing: {:?}", member.id()));
            }
        }
        let total: usize = self.members().map(|(slot, _)| sent(slot)).sum();
        if total != all {
            return Err(format!("in_flight_total_agrees: {total} != {all}"));
        }
        Ok(())
    }

    /// `named`: requests that name a model.
    pub(in crate::engine) fn check_models(
        &self,
        named: impl Fn(ModelId) -> usize,
    ) -> Result<(), String> {
        for (index, model) in &self.models {
            let id = ModelId(count(index));
            if named(id) != model.requests as usize {
                return Err(format!(
                    "requests_of_a_model_are_counted: {}",
                    model.requests
                ));
            }
            let sent = self.members();
            let sent = sent.filter(|(_, member)| sends(member, id, model));
            if !sent.map(|(slot, _)| slot).eq(model.serving.iter().copied()) {
                return Err("models_and_replicas_agree".to_owned());
            }
            let lists = |member: &Member| {
                let mut listed = member.models.iter().flatten();
                listed.any(|(listed, _)| *listed == id)
            };
            let listed = self.members().filter(|(_, member)| lists(member)).count();
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
        demand: &Demand,
        config: &Config,
        now: Instant,
    ) -> Vec<(ReplicaSlot, Offer)> {
        let model = self.model_of(demand.model);
        let members = self.members().filter(|(slot, member)| {
            let serves = model.is_none_or(|model| model.serving.contains(slot));
            let bound = demand.bound.is_none_or(|bound| bound == member.id);
            serves
                && bound
                && (demand.model.is_some() || demand.bound.is_some())
                && demand.may_use(member.region_bit)
        });
        let offers = members.map(|(slot, member)| {
            let tried = demand.tried.contains(&member.id);
            (tried, slot, member.offer(demand.lane, config, now))
        });
        let ready = offers.filter(|(.., offer)| *offer != Offer::None);
        let (tried, untried): (Vec<_>, Vec<_>) = ready.partition(|(tried, ..)| *tried);
        let offers = if untried.is_empty() { tried } else { untried };
        offers
            .into_iter()
            .map(|(_, slot, offer)| (slot, offer))
            .collect()
    }
}
