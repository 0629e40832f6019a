//! Requests that have not ended, which replica made which stored response, the budget of retries, and what
//! tenants are charged.

pub mod budget;
mod charges;
mod check;
pub mod leaving;
pub mod look;
mod refusals;
pub mod request;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use self::budget::Budget;
use self::look::Looks;
use self::request::{Phase, Request};
use super::config::Config;
use super::demand::Demand;
use super::fleet::keep::Places;
use super::recent::Recent;
use super::tenants::Tenants;
use crate::id::{ModelId, ReplicaId, ReplicaSlot, RequestId};
use crate::time::{Instant, Span};

/// All requests that have not ended.
#[derive(Debug)]
pub(in crate::engine) struct Requests {
    live: HashMap<RequestId, Request, FixedState>,
    /// Which replica made a response, by its id.
    responses: Recent,
    budget: Budget,
    /// What tenants may use, and have used.
    tenants: Tenants,
    looks: Looks,
    /// Those at replicas of ours.
    in_flight: usize,
    /// Numbers given out.
    ages: u64,
}

impl Requests {
    pub(in crate::engine) fn new(config: &Config, hash_seed: u64) -> Self {
        Self {
            live: HashMap::with_hasher(FixedState::default()),
            responses: Recent::new(config.response_ids_max, hash_seed),
            budget: Budget::default(),
            tenants: Tenants::new(),
            looks: Looks::default(),
            in_flight: 0,
            ages: 0,
        }
    }

    /// The next request's place in the order of submission.
    pub(in crate::engine) fn next_age(&mut self) -> u64 {
        self.ages += 1;
        self.ages
    }

    /// What the next request gets from [`Self::next_age`].
    pub(in crate::engine) fn age_next(&self) -> u64 {
        self.ages + 1
    }

    pub(in crate::engine) fn contains(&self, id: RequestId) -> bool {
        self.live.contains_key(&id)
    }

    pub(in crate::engine) fn get(&self, id: RequestId) -> Option<&Request> {
        self.live.get(&id)
    }

    /// What a held request asks for that could leave the hold now, and when it was submitted.
    pub(in crate::engine) fn asks(
        &self,
        id: RequestId,
        now: Instant,
    ) -> Option<(&Demand, Instant)> {
        let request = self.get(id).filter(|request| !request.is_leaving(now))?;
        Some((&request.demand, request.submitted_ns))
    }

    pub(in crate::engine) fn get_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        self.live.get_mut(&id)
    }

    pub(in crate::engine) fn insert(&mut self, id: RequestId, request: Request) {
        self.live.insert(id, request);
    }

    pub(in crate::engine) fn remove(&mut self, id: RequestId) -> Option<Request> {
        self.live.remove(&id)
    }

    pub(in crate::engine) fn len(&self) -> usize {
        self.live.len()
    }

    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    pub(in crate::engine) fn iter(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        self.live.iter().map(|(id, request)| (*id, request))
    }

    /// The longest wait in the hold among these.
    pub(in crate::engine) fn longest_wait(
        &self,
        ids: impl Iterator<Item = RequestId>,
        now: Instant,
    ) -> Span {
        let requests = ids.filter_map(|id| self.get(id));
        let waits = requests.map(|request| request.waited_ns(now));
        waits.max().unwrap_or_default()
    }

    /// Remembers which replica made a response, and that it is this keeper's ([`super::hold::Payer::keeper`]).
    pub(in crate::engine) fn note_response(&mut self, keeper: u64, id: &str, replica: ReplicaId) {
        self.responses.note_of(keeper, id.as_bytes(), replica);
    }

    /// The replica that made a keeper's response, if it is remembered.
    pub(in crate::engine) fn find_response(&mut self, keeper: u64, id: &[u8]) -> Option<ReplicaId> {
        self.responses.find_of(keeper, id)
    }

    /// The same; not a use.
    pub(in crate::engine) fn look_up_response(&self, keeper: u64, id: &[u8]) -> Option<ReplicaId> {
        self.responses.look_up(keeper, id)
    }

    /// Which replicas made responses, by their places.
    pub(in crate::engine) fn leave_responses(&self, places: &Places) -> Vec<(u128, u16)> {
        let responses = self.responses.entries();
        let named = responses.filter_map(|(hash, id)| Some((hash, *places.of_id.get(&id)?)));
        named.collect()
    }

    pub(in crate::engine) fn inherit_responses(
        &mut self,
        responses: Vec<(u128, u16)>,
        places: &Places,
    ) {
        for (hash, place) in responses {
            if let Some(id) = places.id(place) {
                self.responses.put(hash, id);
            }
        }
    }

    /// Responses remembered.
    pub(in crate::engine) fn responses_len(&self) -> usize {
        self.responses.len()
    }

    /// The budget of retries.
    pub(in crate::engine) fn budget_mut(&mut self) -> &mut Budget {
        &mut self.budget
    }

    /// What tenants may use, and have used.
    pub(in crate::engine) fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    pub(in crate::engine) fn tenants_mut(&mut self) -> &mut Tenants {
        &mut self.tenants
    }

    /// Requests for models in no list.
    pub(in crate::engine) fn looks(&self) -> &Looks {
        &self.looks
    }

    pub(in crate::engine) fn looks_mut(&mut self) -> &mut Looks {
        &mut self.looks
    }

    /// Those in the hold.
    pub(in crate::engine) fn held(&self) -> Vec<RequestId> {
        let held = |request: &Request| matches!(request.phase, Phase::Held { .. });
        let requests = self.live.iter().filter(|(_, request)| held(request));
        requests.map(|(id, _)| *id).collect()
    }

    /// A request goes to a replica of ours.
    pub(in crate::engine) fn began(&mut self) {
        self.in_flight += 1;
    }

    /// An attempt at a replica of ours is over.
    pub(in crate::engine) fn ended(&mut self) {
        self.in_flight -= 1;
    }

    /// Requests at replicas of ours.
    pub(in crate::engine) fn in_flight(&self) -> usize {
        self.in_flight
    }

    // ------------------------------------------------------------------ invariants

    /// Requests that stand so.
    pub(in crate::engine) fn count(&self, stands: impl Fn(&Phase) -> bool) -> usize {
        let requests = self.live.values();
        requests.filter(|request| stands(&request.phase)).count()
    }

    /// Requests at one replica.
    pub(in crate::engine) fn at(&self, slot: ReplicaSlot) -> usize {
        self.count(|phase| matches!(phase, Phase::InFlight(attempt) if attempt.slot == slot))
    }

    /// Requests that name a model.
    pub(in crate::engine) fn of_model(&self, model: ModelId) -> usize {
        let requests = self.live.values();
        requests
            .filter(|request| request.demand.model == Some(model))
            .count()
    }
}
