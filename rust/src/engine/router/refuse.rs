//! What a client reads when a request is refused.

use super::Router;
use super::request::{NoPlace, Refusal};
use crate::engine::hold::Full;
use crate::engine::id::{ModelId, Nanos};
use crate::engine::plant::Plant;
use crate::engine::residency::{ANYWHERE, Whose};

/// Known models that a 404 names at most.
const MODELS_NAMED_MAX: usize = 20;
/// Characters of a model's name that an answer repeats at most.
const NAME_CHARS_MAX: usize = 200;

impl Refusal {
    /// A request that says it has crossed regions more than once.
    pub(super) fn too_many_hops() -> Self {
        Self::new(503, "hop_limit", "The request has been forwarded already.")
    }

    /// The rules of residency leave no place for the request.
    pub(super) fn residency(whose: Whose<'_>) -> Self {
        Self::new(
            403,
            "residency",
            if whose == Whose::Unknown {
                "This request may not be served in any region that can be reached from here; \
                 its tenant is not known, so the rules of every tenant apply."
            } else {
                "This request may not be served in any region that can be reached from here."
            },
        )
    }

    /// `/v1/responses/{id}` or `previous_response_id` that no replica is known to have made.
    pub(super) fn response_unknown() -> Self {
        Self::new(
            404,
            "response_not_found",
            "There is no response with this id here.",
        )
    }
}

impl Router {
    /// The model or adapter of a name.
    ///
    /// While no replica has told its models, nothing is known of any name: the client is to come
    /// back instead of being told that its model does not exist.
    ///
    /// A model that only peers in `regions` serve is known too, and any while a replica that has just
    /// joined is being looked at: it may serve it. No name, which only routes without a
    /// body may have while models are known, is any model.
    pub(super) fn model_for(
        &mut self,
        name: &str,
        regions: u64,
        now_ns: Nanos,
    ) -> Result<ModelId, Refusal> {
        if name.is_empty() {
            return self.any_model();
        }
        let known = self
            .fleet
            .model(name)
            .filter(|id| self.fleet.is_served(*id));
        let first = self.fleet.served().next().map(|(id, _)| id);
        let wrong = first.filter(|_| self.config.planted(Plant::WrongModel));
        if let Some(known) = wrong.or(known) {
            return Ok(known);
        }
        if self.mesh.serves(name, regions, now_ns) {
            return Ok(self.fleet.intern(name, self.config.bytes_per_token));
        }
        if self.fleet.looks(now_ns) {
            return Ok(self.fleet.intern(name, self.config.bytes_per_token));
        }
        Err(self.unserved(name))
    }

    /// Nobody serves a model of this name.
    pub(super) fn unserved(&self, name: &str) -> Refusal {
        if self.fleet.told() {
            self.model_unknown(name)
        } else {
            self.none_ready()
        }
    }

    /// A model of a replica that is ready, for what all of them answer alike.
    fn any_model(&self) -> Result<ModelId, Refusal> {
        let served = self.fleet.served().map(|(id, _)| id);
        served.last().ok_or_else(|| self.none_ready())
    }

    /// Refuses what may be served nowhere: neither by our replicas, adopted ones included, nor by a
    /// peer that is configured.
    pub(super) fn check_regions(&self, regions: u64, whose: Whose<'_>) -> Result<(), Refusal> {
        if regions == ANYWHERE {
            return Ok(());
        }
        let members = self.fleet.members().map(|(_, member)| member.region_bit);
        let peers = self.mesh.peers().filter(|(_, peer)| !peer.removed);
        let places = members.chain(peers.map(|(_, peer)| peer.region_bit));
        let places = places.fold(self.mesh.region_bit, |all, bit| all | bit);
        if places & regions == 0 {
            return Err(Refusal::residency(whose));
        }
        Ok(())
    }

    fn model_unknown(&self, name: &str) -> Refusal {
        let name: String = name.chars().take(NAME_CHARS_MAX).collect();
        let mut known: Vec<&str> = self
            .fleet
            .served()
            .map(|(_, model)| model.name.as_str())
            .collect();
        known.sort_unstable();
        let more = known.len() > MODELS_NAMED_MAX;
        known.truncate(MODELS_NAMED_MAX);
        let mut message = format!("The model `{name}` does not exist.");
        if !known.is_empty() {
            message.push_str(" Known models: ");
            message.push_str(&known.join(", "));
            if more {
                message.push_str(" and more");
            }
            message.push('.');
        }
        Refusal::new(404, "model_not_found", message)
    }

    /// No replica that serves the request is ready.
    pub(super) fn none_ready(&self) -> Refusal {
        Refusal::new(
            503,
            "no_replica_ready",
            "No model server is ready to serve this request.",
        )
        .retry_after(self.config.retry_after_s)
    }

    /// Replicas are ready, but neither they nor the hold have room.
    pub(super) fn no_room(&self, why: NoPlace) -> Refusal {
        let refusal = match why {
            NoPlace::Hold(Full::Hold) => {
                Refusal::new(503, "hold_full", "Too many requests are waiting already.")
            }
            NoPlace::Hold(Full::Tenant) => Refusal::new(
                429,
                "tenant_hold_full",
                "Too many of your requests are waiting already.",
            ),
            NoPlace::Light => {
                Refusal::new(503, "replica_full", "The model servers are at capacity.")
            }
        };
        refusal.retry_after(self.config.retry_after_s)
    }
}
