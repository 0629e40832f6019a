//! What a client reads when a request is refused.

use super::Router;
use crate::engine::config::UnknownModels;
use crate::engine::fleet::failure::Failure;
use crate::engine::mesh::residency::ANYWHERE;
use crate::engine::plant::Plant;
use crate::engine::refusal::Refusal;
use crate::engine::requests::request::{NoPlace, Request};
use crate::id::ModelId;
use crate::tenant::Tenant;
use crate::time::{Instant, Span};

/// How long a replica that has not told its models may be loading: with large weights over a network,
/// longer than a quarter of an hour.
pub(in crate::engine) const LOADING_NS: Span = Span::from_ns(1_800_000_000_000);

impl Router {
    /// The model or adapter of a name; no name, which only routes without a body may have while models
    /// are known, is any model. One that nobody is known to serve where the lists are to be
    /// read again for it, or where such models are passed on.
    pub(super) fn model_named(
        &mut self,
        name: &str,
        regions: u64,
        forwarded: bool,
        now: Instant,
    ) -> Result<ModelId, Refusal> {
        if name.is_empty() {
            return self.any_model();
        }
        match self.model_for(name, regions, now) {
            Some(known) => Ok(known),
            // A replica that has just joined may serve it: it is held until that is known.
            None if self.fleet.looks(now) => {
                Ok(self.fleet.intern(name, self.config.bytes_per_token))
            }
            None if !forwarded && self.requests.looks().take_more() => {
                Ok(self.fleet.intern(name, self.config.bytes_per_token))
            }
            None => self.unlisted_model(name, forwarded, now),
        }
    }

    /// The model or adapter of a name, where some replica is sent it.
    ///
    /// A model that only peers in `regions` serve is known too.
    pub(super) fn model_for(&mut self, name: &str, regions: u64, now: Instant) -> Option<ModelId> {
        let known = self
            .fleet
            .model(name)
            .filter(|id| self.fleet.is_served(*id));
        let first = self.fleet.listed_models().next().map(|(id, _)| id);
        let wrong = first.filter(|_| self.config.planted(Plant::WrongModel));
        if let Some(known) = wrong.or(known) {
            return Some(known);
        }
        let served = self.fleet.takes_unlisted() || self.mesh.serves(name, regions, now);
        served.then(|| self.fleet.intern(name, self.config.bytes_per_token))
    }

    /// Nobody is known to serve its model: the lists are to be read again.
    pub(in crate::engine) fn is_unlisted(&self, request: &Request, now: Instant) -> bool {
        !self.is_known(request, now) && !self.fleet.looks(now)
    }

    /// Somebody is known to serve its model, here or at a peer; or it needs none.
    pub(in crate::engine) fn is_known(&self, request: &Request, now: Instant) -> bool {
        request.demand.model.is_none_or(|model| {
            let name = self.fleet.name_of(Some(model));
            let away = |name| self.mesh.serves(name, request.demand.regions, now);
            self.fleet.is_served(model) || name.is_some_and(away)
        })
    }

    /// The model of a name that nobody is known to serve, where such models are passed on.
    ///
    /// While no replica has told its models, nothing is known of any name: the client is to come
    /// back instead of being told that its model does not exist. It is also to come back for a model
    /// that was there a moment ago, and while a replica that may have it is loading.
    pub(super) fn unlisted_model(
        &mut self,
        name: &str,
        forwarded: bool,
        now: Instant,
    ) -> Result<ModelId, Refusal> {
        if !self.fleet.any_models_known() {
            return Err(self.none_ready());
        }
        if self.fleet.was_listed(name, self.config.model_gone_ns, now) {
            return Err(self.model_away(name));
        }
        if self.config.unknown_models == UnknownModels::Pass && !forwarded {
            let id = self.fleet.intern(name, self.config.bytes_per_token);
            self.fleet.pass(id);
            return Ok(id);
        }
        Err(if self.fleet.awaits(LOADING_NS, now) {
            self.model_away(name)
        } else {
            self.model_unknown(name)
        })
    }

    /// A model of a replica that is ready, for what all of them answer alike.
    fn any_model(&mut self) -> Result<ModelId, Refusal> {
        let listed = self.fleet.listed_models().map(|(id, _)| id);
        match listed.last() {
            Some(listed) => Ok(listed),
            None if self.fleet.takes_unlisted() => {
                Ok(self.fleet.intern("", self.config.bytes_per_token))
            }
            None => Err(self.none_ready()),
        }
    }

    /// Refuses what may be served nowhere: neither by our replicas, adopted ones included, nor by a
    /// peer that is configured.
    pub(in crate::engine) fn check_regions(
        &self,
        regions: u64,
        tenant: Tenant<&str>,
    ) -> Result<(), Refusal> {
        if regions == ANYWHERE {
            return Ok(());
        }
        let peers = self.mesh.peers().filter(|(_, peer)| !peer.removed);
        let here = self.fleet.regions() | self.mesh.region_bit();
        let places = peers.fold(here, |all, (_, peer)| all | peer.region_bit);
        if places & regions == 0 {
            return Err(Refusal::residency(tenant));
        }
        Ok(())
    }

    /// No replica lists the model, and one may again soon.
    fn model_away(&self, name: &str) -> Refusal {
        Refusal::model_away(name, self.config.retry_after_s)
    }

    fn model_unknown(&self, name: &str) -> Refusal {
        let named = !self.requests.tenants().bounds_models();
        let known = self.fleet.listed_models().filter(|_| named);
        Refusal::model_unknown(name, known.map(|(_, model)| model.name()).collect())
    }

    /// No replica that serves the request is ready.
    pub(super) fn none_ready(&self) -> Refusal {
        Refusal::none_ready(self.config.retry_after_s)
    }

    /// Replicas are ready, but neither they nor the hold have room.
    pub(super) fn no_room(&self, why: NoPlace) -> Refusal {
        Refusal::no_room(why, self.config.retry_after_s)
    }

    /// What a client reads when its last attempt failed so.
    pub(super) fn failed(&self, failure: Failure) -> Refusal {
        Refusal::failed(failure, self.config.retry_after_s)
    }
}
