//! The replicas and the models they serve.

use std::mem;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use slab::Slab;

use super::cards::{Card, Cards, Door};
use super::member::Member;
use super::paths::Found;
use super::pulse::Pulse;
use super::ratio::Ratio;
use super::shared::Shared;
use crate::engine::config::Config;
use crate::engine::health::Pool;
use crate::engine::id::{ModelId, Nanos, ReplicaId};
use crate::engine::peer::rate::Rate;
use crate::engine::ring::{Ring, WEIGHT_ONE};
use crate::engine::select::{Slot, Slots};
use crate::engine::speed::Speed;

/// Models and adapters taken from one replica's list; more are left out and counted.
pub const MODELS_PER_REPLICA_MAX: usize = 4_096;

/// A model or adapter that a replica serves, with its `max_model_len`.
pub type Served = (String, Option<u32>);

/// A model or adapter that a replica serves or a request waits for.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: String,
    /// The replicas that serve it, ascending.
    pub(super) serving: Vec<Slot>,
    /// Requests that name it.
    pub(super) requests: u32,
    pub(super) ratio: Ratio,
    /// How long its replicas take to first tokens: what a replica's own figures start from.
    pub(super) speed: Speed,
    /// How long requests run after their first byte: a running mean.
    pub(super) stay_ns: Option<Nanos>,
    /// Answer length in tokens: a running mean.
    pub(super) output_mean: Option<u32>,
    /// Whether engines find its answers again.
    pub(super) answers_found: Found,
    /// Chosen last, for turns.
    pub(super) last: Option<Slot>,
    /// Requests of our own clients lately.
    pub(super) arrivals: Rate,
}

/// All replicas, by slot, and all models, interned.
#[derive(Debug)]
pub(super) struct Fleet {
    members: Slab<Member>,
    /// What choices read of them.
    cards: Cards,
    pub(super) slots: Slots,
    pub(super) models: Slab<Model>,
    names: HashMap<String, ModelId, FixedState>,
    /// Virtual nodes are kept for the policies that walk the ring only.
    pub(super) ring: Ring,
    with_ring: bool,
    pub(super) models_ignored: u64,
}

impl Fleet {
    pub(super) fn new(config: &Config, with_ring: bool, seed: u64) -> Self {
        Self {
            members: Slab::new(),
            cards: Cards::default(),
            slots: HashMap::with_hasher(FixedState::default()),
            models: Slab::new(),
            names: HashMap::with_hasher(FixedState::with_seed(seed)),
            ring: Ring::new(config.ring_vnodes),
            with_ring,
            models_ignored: 0,
        }
    }

    pub(super) fn slot(&self, replica: ReplicaId) -> Option<Slot> {
        self.slots.get(&replica).copied()
    }

    /// The replica is in the fleet, and not only until its requests have ended.
    pub(super) fn listed(&self, replica: ReplicaId) -> bool {
        self.slot(replica)
            .and_then(|slot| self.member(slot))
            .is_some_and(|member| !member.removed)
    }

    pub(super) fn member(&self, slot: Slot) -> Option<&Member> {
        self.members.get(slot as usize)
    }

    /// The only way to a replica's figures: whoever takes it may change them.
    pub(super) fn member_mut(&mut self, slot: Slot) -> Option<&mut Member> {
        self.cards.changed(slot);
        self.members.get_mut(slot as usize)
    }

    /// [`Self::member_mut`] where it is to change: what choices read of others is not renewed.
    pub(super) fn member_mut_if(&mut self, slot: Slot, changes: bool) -> Option<&mut Member> {
        if changes { self.member_mut(slot) } else { None }
    }

    /// What other balancers have to do with a replica: no choice reads it, so nothing is renewed.
    pub(super) fn shared_mut(&mut self, slot: Slot) -> Option<&mut Shared> {
        let member = self.members.get_mut(slot as usize);
        member.map(|member| &mut member.shared)
    }

    /// Its signs of life: no choice reads them.
    pub(super) fn pulse_mut(&mut self, slot: Slot) -> Option<&mut Pulse> {
        let member = self.members.get_mut(slot as usize);
        member.map(|member| &mut member.pulse)
    }

    /// A replica that has just joined is being looked at.
    pub(super) fn looks(&self, now_ns: Nanos) -> bool {
        let mut members = self.members.iter();
        members.any(|(_, member)| member.looked_at(now_ns))
    }

    /// Both, for what the one teaches the other.
    pub(super) fn member_and_model(
        &mut self,
        slot: Slot,
        model: ModelId,
    ) -> (Option<&mut Member>, Option<&mut Model>) {
        self.cards.changed(slot);
        let member = self.members.get_mut(slot as usize);
        (member, self.models.get_mut(model.0 as usize))
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (Slot, &Member)> + Clone {
        self.members
            .iter()
            .map(|(index, member)| (slot_of(index), member))
    }

    /// Slots are below this.
    pub(super) fn slots_end(&self) -> usize {
        self.members.capacity()
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Lets time pass for all replicas.
    pub(super) fn tick(&mut self, config: &Config, now_ns: Nanos) {
        for (index, member) in &mut self.members {
            if member
                .next_change_ns(config)
                .is_some_and(|at_ns| at_ns <= now_ns)
            {
                self.cards.changed(slot_of(index));
                member.replica.health.tick(config, now_ns);
                member.full = member.full.filter(|full| now_ns < full.until_ns);
            }
        }
    }

    // ------------------------------------------------------------------ what choices read

    /// Brings up to date what choices read.
    pub(super) fn refresh(&mut self, config: &Config, now_ns: Nanos) {
        self.cards.refresh(&self.members, config, now_ns);
    }

    /// When time alone changes the health of a replica, or opens one, as of the last
    /// [`Self::refresh`].
    pub(super) fn turns_ns(&self) -> Option<Nanos> {
        self.cards.turns_ns()
    }

    /// What a replica offers, as of the last [`Self::refresh`].
    #[inline]
    pub(super) fn door(&self, slot: Slot) -> Option<&Door> {
        self.cards.door(slot)
    }

    /// What a choice reads of a replica, as of the last [`Self::refresh`].
    #[inline]
    pub(super) fn card(&self, slot: Slot) -> Option<&Card> {
        self.cards.card(slot)
    }

    /// Whether what choices read is what the replicas say.
    pub(super) fn check_cards(&self, config: &Config, now_ns: Nanos) -> Result<(), String> {
        self.cards.check(&self.members, config, now_ns)
    }

    /// All slots in use, ascending.
    pub(super) fn all_slots(&self) -> Vec<Slot> {
        self.members
            .iter()
            .map(|(index, _)| slot_of(index))
            .collect()
    }

    pub(super) fn pool(&self) -> Pool {
        let listed = self.members.iter().filter(|(_, member)| !member.removed);
        Pool::count(listed.map(|(_, member)| &member.replica.health))
    }

    // ------------------------------------------------------------------ replicas

    /// Adds a replica, or takes one back that was removed; its slot if it is new.
    pub(super) fn add(&mut self, id: ReplicaId, name: String, region_bit: u64) -> Option<Slot> {
        let known = self.slot(id);
        let listed = known.and_then(|slot| self.member_mut(slot)).map(|member| {
            let back = member.removed;
            member.removed = false;
            member.name.clone_from(&name);
            back
        });
        if listed == Some(false) {
            return None;
        }
        if known.is_some() {
            return known;
        }
        let slot = slot_of(self.members.insert(Member::new(id, name, region_bit)));
        self.cards.changed(slot);
        self.slots.insert(id, slot);
        Some(slot)
    }

    /// Puts replicas on the ring, if a policy walks it.
    pub(super) fn join_ring(&mut self, replicas: &[ReplicaId]) {
        if self.with_ring {
            let weights = replicas.iter().map(|id| (*id, WEIGHT_ONE));
            self.ring.add_all(weights);
        }
    }

    /// Takes a replica out of the fleet: it is offered nothing from now on.
    pub(super) fn remove(&mut self, slot: Slot) {
        self.serve(slot, None);
        if let Some(member) = self.member_mut(slot) {
            member.removed = true;
            let id = member.id;
            self.ring.remove(id);
        }
        self.drop_if_over(slot);
    }

    /// Forgets a removed replica whose requests have all ended.
    pub(super) fn drop_if_over(&mut self, slot: Slot) {
        let over = |member: &Member| member.removed && member.in_flight() == 0;
        if self.member(slot).is_some_and(over) {
            let member = self.members.remove(slot as usize);
            self.cards.changed(slot);
            self.slots.remove(&member.id);
        }
    }

    // ------------------------------------------------------------------ models

    pub(super) fn model(&self, name: &str) -> Option<ModelId> {
        self.names.get(name).copied()
    }

    /// The models that some replica serves, with their replicas.
    pub(super) fn served(&self) -> impl Iterator<Item = (ModelId, &Model)> {
        let served = self
            .models
            .iter()
            .filter(|(_, model)| !model.serving.is_empty());
        served.map(|(index, model)| (ModelId(slot_of(index)), model))
    }

    /// The one model that is served; empty while nothing is known of any, `None` where there are more.
    pub(super) fn only_model(&self) -> Option<&str> {
        let mut served = self.served();
        match (served.next(), served.next()) {
            (Some((_, model)), None) => Some(&model.name),
            (None, _) if !self.told() => Some(""),
            _ => None,
        }
    }

    pub(super) fn is_served(&self, id: ModelId) -> bool {
        self.models
            .get(id.0 as usize)
            .is_some_and(|model| !model.serving.is_empty())
    }

    /// At least one replica has told its models.
    pub(super) fn told(&self) -> bool {
        self.members
            .iter()
            .any(|(_, member)| !member.removed && member.models.is_some())
    }

    /// Sets what a replica serves; false when nothing changed.
    pub(super) fn set_models(
        &mut self,
        slot: Slot,
        served: &[Served],
        bytes_per_token: f64,
    ) -> bool {
        if self.member(slot).is_none_or(|member| member.removed) {
            return false;
        }
        self.models_ignored += served.len().saturating_sub(MODELS_PER_REPLICA_MAX) as u64;
        let mut ids: Vec<_> = served
            .iter()
            .take(MODELS_PER_REPLICA_MAX)
            .map(|(name, len_max)| (self.intern(name, bytes_per_token), *len_max))
            .collect();
        ids.sort_unstable();
        ids.dedup_by_key(|(id, _)| *id);
        let changed = self
            .member(slot)
            .is_some_and(|member| member.models.as_ref() != Some(&ids));
        if changed {
            self.serve(slot, Some(ids));
        }
        changed
    }

    /// The number of a name, a new one if need be: to be held by a request or a replica.
    pub(super) fn intern(&mut self, name: &str, bytes_per_token: f64) -> ModelId {
        if let Some(id) = self.model(name) {
            return id;
        }
        let model = Model {
            name: name.to_owned(),
            serving: Vec::new(),
            requests: 0,
            ratio: Ratio::new(bytes_per_token),
            speed: Speed::default(),
            stay_ns: None,
            output_mean: None,
            answers_found: Found::default(),
            last: None,
            arrivals: Rate::default(),
        };
        let id = ModelId(slot_of(self.models.insert(model)));
        self.names.insert(name.to_owned(), id);
        id
    }

    /// Replaces what a replica serves, and forgets models that nobody serves or waits for.
    fn serve(&mut self, slot: Slot, ids: Option<Vec<(ModelId, Option<u32>)>>) {
        let Some(member) = self.members.get_mut(slot as usize) else {
            return;
        };
        let before = mem::replace(&mut member.models, ids).unwrap_or_default();
        for (id, _) in &before {
            if let Some(model) = self.models.get_mut(id.0 as usize) {
                model.serving.retain(|other| *other != slot);
            }
        }
        for (id, _) in member.models.iter().flatten() {
            if let Some(model) = self.models.get_mut(id.0 as usize) {
                let at = model.serving.partition_point(|other| *other < slot);
                model.serving.insert(at, slot);
            }
        }
        for (id, _) in before {
            self.forget_if_unused(id);
        }
    }

    /// A request names this model.
    pub(super) fn hold_model(&mut self, id: ModelId) {
        if let Some(model) = self.models.get_mut(id.0 as usize) {
            model.requests += 1;
        }
    }

    /// A request that named this model is over.
    pub(super) fn release_model(&mut self, id: ModelId) {
        if let Some(model) = self.models.get_mut(id.0 as usize) {
            model.requests = model.requests.saturating_sub(1);
        }
        self.forget_if_unused(id);
    }

    fn forget_if_unused(&mut self, id: ModelId) {
        let unused = |model: &Model| model.serving.is_empty() && model.requests == 0;
        if self.models.get(id.0 as usize).is_some_and(unused) {
            let model = self.models.remove(id.0 as usize);
            self.names.remove(&model.name);
        }
    }
}

/// Slab keys stay far below 2^32: replicas and models are bounded.
pub(super) fn slot_of(index: usize) -> Slot {
    Slot::try_from(index).unwrap_or(Slot::MAX)
}
