//! The replicas and the models they serve.

pub mod accuracy;
pub mod figures;
pub mod fits;
pub mod forecast;
pub mod gate;
pub mod health;
pub mod lengths;
pub mod member;
pub mod models;
pub mod pulse;
pub mod ratio;
pub mod replica;
pub mod snapshot;
pub mod speed;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use slab::Slab;

use super::generations::Generations;
use crate::engine::choose::policy::{Slot, Slots};
use crate::engine::config::Config;
use crate::engine::fleet::figures::{Card, Cards, Door};
use crate::engine::fleet::health::Pool;
use crate::engine::fleet::member::Member;
use crate::engine::fleet::models::{GONE_MAX, Model, Takes};
use crate::engine::fleet::pulse::Pulse;
use crate::engine::mesh::region::Shared;
use crate::engine::ring::{Ring, WEIGHT_ONE};
use crate::id::{ModelId, Nanos, ReplicaId};

/// All replicas, by slot, and all models, interned.
#[derive(Debug)]
pub(in crate::engine) struct Fleet {
    pub(in crate::engine) members: Slab<Member>,
    /// What choices read of them.
    cards: Cards,
    pub(in crate::engine) slots: Slots,
    pub(in crate::engine) models: Slab<Model>,
    pub(in crate::engine) names: HashMap<String, ModelId, FixedState>,
    /// Virtual nodes are kept for the policies that walk the ring only.
    pub(in crate::engine) ring: Ring,
    with_ring: bool,
    pub(in crate::engine) models_ignored: u64,
    /// When models left every list, by the hash of their names.
    pub(in crate::engine) gone: Generations<u64, Nanos>,
}

impl Fleet {
    pub(in crate::engine) fn new(config: &Config, with_ring: bool, seed: u64) -> Self {
        Self {
            members: Slab::new(),
            cards: Cards::default(),
            slots: HashMap::with_hasher(FixedState::default()),
            models: Slab::new(),
            names: HashMap::with_hasher(FixedState::with_seed(seed)),
            ring: Ring::new(config.ring_vnodes),
            with_ring,
            models_ignored: 0,
            gone: Generations::new(GONE_MAX),
        }
    }

    pub(in crate::engine) fn slot(&self, replica: ReplicaId) -> Option<Slot> {
        self.slots.get(&replica).copied()
    }

    /// The replica is in the fleet, and not only until its requests have ended.
    pub(in crate::engine) fn listed(&self, replica: ReplicaId) -> bool {
        self.slot(replica)
            .and_then(|slot| self.member(slot))
            .is_some_and(|member| !member.removed)
    }

    pub(in crate::engine) fn member(&self, slot: Slot) -> Option<&Member> {
        self.members.get(slot as usize)
    }

    /// The only way to a replica's figures: whoever takes it may change them.
    pub(in crate::engine) fn member_mut(&mut self, slot: Slot) -> Option<&mut Member> {
        self.cards.changed(slot);
        self.members.get_mut(slot as usize)
    }

    /// [`Self::member_mut`] where it is to change: what choices read of others is not renewed.
    pub(in crate::engine) fn member_mut_if(
        &mut self,
        slot: Slot,
        changes: bool,
    ) -> Option<&mut Member> {
        if changes { self.member_mut(slot) } else { None }
    }

    /// What other balancers have to do with a replica: no choice reads it, so nothing is renewed.
    pub(in crate::engine) fn shared_mut(&mut self, slot: Slot) -> Option<&mut Shared> {
        let member = self.members.get_mut(slot as usize);
        member.map(|member| &mut member.shared)
    }

    /// Its signs of life: no choice reads them.
    pub(in crate::engine) fn pulse_mut(&mut self, slot: Slot) -> Option<&mut Pulse> {
        let member = self.members.get_mut(slot as usize);
        member.map(|member| &mut member.pulse)
    }

    /// A replica that has just joined is being looked at.
    pub(in crate::engine) fn looks(&self, now_ns: Nanos) -> bool {
        let mut members = self.members.iter();
        members.any(|(_, member)| member.looked_at(now_ns))
    }

    /// Both, for what the one teaches the other.
    pub(in crate::engine) fn member_and_model(
        &mut self,
        slot: Slot,
        model: ModelId,
    ) -> (Option<&mut Member>, Option<&mut Model>) {
        self.cards.changed(slot);
        let member = self.members.get_mut(slot as usize);
        (member, self.models.get_mut(model.0 as usize))
    }

    pub(in crate::engine) fn members(&self) -> impl Iterator<Item = (Slot, &Member)> + Clone {
        self.members
            .iter()
            .map(|(index, member)| (slot_of(index), member))
    }

    /// Slots are below this.
    pub(in crate::engine) fn slots_end(&self) -> usize {
        self.members.capacity()
    }

    pub(in crate::engine) fn len(&self) -> usize {
        self.members.len()
    }

    /// Lets time pass for all replicas.
    pub(in crate::engine) fn tick(&mut self, config: &Config, now_ns: Nanos) {
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
    pub(in crate::engine) fn refresh(&mut self, config: &Config, now_ns: Nanos) {
        self.cards.refresh(&self.members, config, now_ns);
    }

    /// When time alone changes the health of a replica, or opens one, as of the last
    /// [`Self::refresh`].
    pub(in crate::engine) fn turns_ns(&self) -> Option<Nanos> {
        self.cards.turns_ns()
    }

    /// What a replica offers, as of the last [`Self::refresh`].
    #[inline]
    pub(in crate::engine) fn door(&self, slot: Slot) -> Option<&Door> {
        self.cards.door(slot)
    }

    /// What a choice reads of a replica, as of the last [`Self::refresh`].
    #[inline]
    pub(in crate::engine) fn card(&self, slot: Slot) -> Option<&Card> {
        self.cards.card(slot)
    }

    /// Whether what choices read is what the replicas say.
    pub(in crate::engine) fn check_cards(
        &self,
        config: &Config,
        now_ns: Nanos,
    ) -> Result<(), String> {
        self.cards.check(&self.members, config, now_ns)
    }

    /// All slots in use, ascending.
    pub(in crate::engine) fn all_slots(&self) -> Vec<Slot> {
        self.members
            .iter()
            .map(|(index, _)| slot_of(index))
            .collect()
    }

    pub(in crate::engine) fn pool(&self) -> Pool {
        let listed = self.members.iter().filter(|(_, member)| !member.removed);
        Pool::count(listed.map(|(_, member)| &member.replica.health))
    }

    // ------------------------------------------------------------------ replicas

    /// Adds a replica, or takes one back that was removed; its slot if it is new.
    pub(in crate::engine) fn add(
        &mut self,
        id: ReplicaId,
        name: String,
        region_bit: u64,
        now_ns: Nanos,
    ) -> Option<Slot> {
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
        let member = Member::new(id, name, region_bit, now_ns);
        let slot = slot_of(self.members.insert(member));
        self.cards.changed(slot);
        self.slots.insert(id, slot);
        Some(slot)
    }

    /// Puts replicas on the ring, if a policy walks it.
    pub(in crate::engine) fn join_ring(&mut self, replicas: &[ReplicaId]) {
        if self.with_ring {
            let weights = replicas.iter().map(|id| (*id, WEIGHT_ONE));
            self.ring.add_all(weights);
        }
    }

    /// Takes a replica out of the fleet: it is offered nothing from now on.
    pub(in crate::engine) fn remove(&mut self, slot: Slot, now_ns: Nanos) {
        if let Some(member) = self.member_mut(slot) {
            member.removed = true;
            let id = member.id;
            self.ring.remove(id);
        }
        self.serve(slot, None, Takes::Listed, now_ns);
        self.drop_if_over(slot);
    }

    /// Forgets a removed replica whose requests have all ended.
    pub(in crate::engine) fn drop_if_over(&mut self, slot: Slot) {
        let over = |member: &Member| member.removed && member.in_flight() == 0;
        if self.member(slot).is_some_and(over) {
            let member = self.members.remove(slot as usize);
            self.cards.changed(slot);
            self.slots.remove(&member.id);
        }
    }
}

/// Slab keys stay far below 2^32: replicas and models are bounded.
pub(in crate::engine) fn slot_of(index: usize) -> Slot {
    Slot::try_from(index).unwrap_or(Slot::MAX)
}

/// Whose probe brought a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Probed {
    /// Our own.
    Here,
    /// That of another balancer of our region.
    Elsewhere,
}
