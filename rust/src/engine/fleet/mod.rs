//! The replicas, and the models that they serve.
//!
//! The fleet keeps what is known of each replica: its health, its last snapshot, and the requests in flight
//! there. It also keeps what was learned of its speed, and of the length of answers. From these it says
//! whether a replica may take one more request ([`gate`]), and when a request would get its first token
//! there ([`forecast`]).

mod accuracy;
mod answers;
mod attempts;
mod check;
mod eligible;
pub mod failure;
pub mod figures;
pub mod forecast;
pub mod gate;
pub mod health;
pub(in crate::engine) mod keep;
pub mod lately;
pub mod lengths;
pub mod member;
pub mod models;
pub mod notice;
mod observe;
pub mod probes;
pub mod pulse;
pub mod ratio;
pub mod replica;
pub mod report;
mod ring;
mod shared;
pub mod snapshot;
pub mod speed;
pub mod wanted;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use slab::Slab;

use self::accuracy::Accuracy;
use self::lengths::Lengths;
use self::ratio::Ratio;
use super::generations::Generations;
use crate::engine::ask::Usage;
use crate::engine::config::Config;
use crate::engine::demand::Demand;
use crate::engine::fleet::figures::{Details, Figures, FiguresTable, Offers};
use crate::engine::fleet::health::Pool;
use crate::engine::fleet::member::Member;
use crate::engine::fleet::member::Takes;
use crate::engine::fleet::models::{GONE_MAX, Model};
use crate::engine::fleet::probes::Probes;
use crate::engine::fleet::replica::Need;
use crate::engine::ring::Ring;
use crate::id::{ModelId, ReplicaId, ReplicaSlot, RequestId};
use crate::time::{Instant, Span};

/// Whether a replica that has joined answers, and what it serves, is found out within this time.
const LOOK_NS: Span = Span::from_ns(5_000_000_000);

/// The slot of each replica.
pub type Slots = HashMap<ReplicaId, ReplicaSlot, FixedState>;

/// All replicas, by slot, and all models, interned.
#[derive(Debug)]
pub(in crate::engine) struct Fleet {
    members: Slab<Member>,
    /// What choices read of them.
    figures: FiguresTable,
    slots: Slots,
    models: Slab<Model>,
    names: HashMap<String, ModelId, FixedState>,
    /// Virtual nodes are kept for the policies that walk the ring only.
    ring: Ring,
    with_ring: bool,
    models_ignored: u64,
    lengths: Lengths,
    accuracy: Accuracy,
    probes: Probes,
    /// When models left every list, by the hash of their names.
    gone: Generations<u64, Instant>,
}

impl Fleet {
    pub(in crate::engine) fn new(config: &Config, seed: u64) -> Self {
        Self {
            members: Slab::new(),
            figures: FiguresTable::default(),
            slots: HashMap::with_hasher(FixedState::default()),
            models: Slab::new(),
            names: HashMap::with_hasher(FixedState::with_seed(seed)),
            ring: Ring::new(config.ring_vnodes),
            with_ring: config.walks_ring(),
            models_ignored: 0,
            lengths: Lengths::new(config.sessions_max),
            accuracy: Accuracy::default(),
            probes: Probes::new(config),
            gone: Generations::new(GONE_MAX),
        }
    }

    // ------------------------------------------------------------------ models and tokens

    /// A model that is known.
    pub(in crate::engine) fn model_of(&self, id: Option<ModelId>) -> Option<&Model> {
        self.models.get(id?.0 as usize)
    }

    /// The replicas that serve a model, ascending.
    pub(in crate::engine) fn serving(&self, id: Option<ModelId>) -> &[ReplicaSlot] {
        self.model_of(id).map_or(&[], |model| &model.serving)
    }

    /// The first replica that serves a model: models that have it in common share their room.
    pub(in crate::engine) fn pool_of(&self, id: Option<ModelId>) -> Option<ReplicaSlot> {
        self.serving(id).first().copied()
    }

    /// A model's name.
    pub(in crate::engine) fn name_of(&self, id: Option<ModelId>) -> Option<&str> {
        self.model_of(id).map(|model| model.name.as_str())
    }

    /// The replica chosen last for a model, for turns; `shadow`: by the policy that decides nothing.
    pub(in crate::engine) fn last_of(
        &self,
        id: Option<ModelId>,
        shadow: bool,
    ) -> Option<ReplicaSlot> {
        self.model_of(id)?.last[usize::from(shadow)]
    }

    pub(in crate::engine) fn set_last(
        &mut self,
        id: Option<ModelId>,
        slot: ReplicaSlot,
        shadow: bool,
    ) {
        if let Some(model) = id.and_then(|id| self.models.get_mut(id.0 as usize)) {
            model.last[usize::from(shadow)] = Some(slot);
        }
    }

    /// A model's prompt bytes per token, as learned.
    pub(in crate::engine) fn ratio(&self, id: Option<ModelId>) -> Option<&Ratio> {
        self.model_of(id).map(|model| &model.ratio)
    }

    /// The same as a number.
    pub(in crate::engine) fn bytes_per_token(&self, id: Option<ModelId>) -> Option<f64> {
        self.ratio(id).map(Ratio::bytes_per_token)
    }

    /// KV tokens of a replica, and the bytes of a prompt that one of them stands for.
    pub(in crate::engine) fn kv_of(
        &self,
        slot: ReplicaSlot,
        config: &Config,
    ) -> Option<(u64, f64)> {
        let member = self.member(slot)?;
        let first = member.models.iter().flatten().next().map(|(id, _)| *id);
        let bytes_per_token = self.bytes_per_token(first);
        let bytes_per_token = bytes_per_token.unwrap_or(config.bytes_per_token);
        Some((member.replica.kv_tokens(config), bytes_per_token))
    }

    /// Tokens of the engine's own block, where its pages say so.
    pub(in crate::engine) fn engine_block(&self, slot: ReplicaSlot) -> Option<u32> {
        self.member(slot)?.replica.snapshot()?.block_size
    }

    /// The replica's pages tell its KV capacity.
    pub(in crate::engine) fn tells_kv(&self, slot: ReplicaSlot) -> bool {
        let snapshot = self.member(slot).and_then(|m| m.replica.snapshot());
        snapshot.is_some_and(|snapshot| snapshot.kv_tokens.is_some())
    }

    /// The replica has reported cached tokens other than 0.
    pub(in crate::engine) fn tells_cached(&self, slot: ReplicaSlot) -> bool {
        let member = self.member(slot);
        member.is_some_and(|member| member.cached_tokens_total > 0)
    }

    /// Counts what a replica reported of a request, and learns its model's bytes per token.
    pub(in crate::engine) fn note_usage(
        &mut self,
        demand: &Demand,
        slot: ReplicaSlot,
        usage: Usage,
    ) {
        let tokens = usage.prompt_tokens.filter(|_| !demand.has_media);
        let model = demand
            .model
            .and_then(|id| self.models.get_mut(id.0 as usize));
        if let (Some(model), Some(tokens)) = (model, tokens) {
            model.ratio.learn(demand.prompt_bytes, tokens);
        }
        if let Some(member) = self.member_mut(slot) {
            member.prompt_tokens_total += u64::from(usage.prompt_tokens.unwrap_or(0));
            member.cached_tokens_total += u64::from(usage.cached_tokens.unwrap_or(0));
        }
    }

    /// Learns whether an engine found an answer again; false for a model that is not known.
    pub(in crate::engine) fn learn_answer(&mut self, model: Option<ModelId>, found: bool) -> bool {
        let model = model.and_then(|id| self.models.get_mut(id.0 as usize));
        let known = model.is_some();
        if let Some(model) = model {
            model.answers_found.learn(found);
        }
        known
    }

    /// Engines usually find the answers of this model again.
    pub(in crate::engine) fn finds_answers(&self, model: Option<ModelId>) -> bool {
        let model = self.model_of(model);
        model.is_none_or(|model| model.answers_found.is_usual())
    }

    /// How true forecasts of times to the first byte were.
    pub(in crate::engine) fn accuracy(&self) -> &Accuracy {
        &self.accuracy
    }

    // ------------------------------------------------------------------ replicas by slot

    pub(in crate::engine) fn slot(&self, replica: ReplicaId) -> Option<ReplicaSlot> {
        self.slots.get(&replica).copied()
    }

    /// The replica is in the fleet, and not only until its requests have ended.
    pub(in crate::engine) fn listed(&self, replica: ReplicaId) -> bool {
        self.slot(replica)
            .and_then(|slot| self.member(slot))
            .is_some_and(|member| !member.removed)
    }

    pub(in crate::engine) fn member(&self, slot: ReplicaSlot) -> Option<&Member> {
        self.members.get(slot.index())
    }

    /// The only way to a replica's figures: whoever takes it may change them.
    fn member_mut(&mut self, slot: ReplicaSlot) -> Option<&mut Member> {
        self.figures.changed(slot);
        self.members.get_mut(slot.index())
    }

    /// [`Self::member_mut`] where it is to change: what choices read of others is not renewed.
    fn member_mut_if(&mut self, slot: ReplicaSlot, changes: bool) -> Option<&mut Member> {
        if changes { self.member_mut(slot) } else { None }
    }

    /// A replica that has just joined is being looked at.
    pub(in crate::engine) fn looks(&self, now: Instant) -> bool {
        let mut members = self.members.iter();
        members.any(|(_, member)| member.looked_at(now))
    }

    pub(in crate::engine) fn members(
        &self,
    ) -> impl Iterator<Item = (ReplicaSlot, &Member)> + Clone {
        self.members
            .iter()
            .map(|(index, member)| (ReplicaSlot::new(index), member))
    }

    /// Slots are below this.
    pub(in crate::engine) fn slots_end(&self) -> usize {
        self.members.capacity()
    }

    pub(in crate::engine) fn len(&self) -> usize {
        self.members.len()
    }

    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Nobody could ask for so long: no replica is older or more silent for it.
    pub(in crate::engine) fn stood_still(&mut self, gap_ns: Span) {
        for slot in self.all_slots() {
            if let Some(member) = self.member_mut(slot) {
                member.replica.stood_still(gap_ns);
                member.pulse.stood_still(gap_ns);
            }
        }
    }

    /// Lets time pass for all replicas.
    pub(in crate::engine) fn tick(&mut self, config: &Config, now: Instant) {
        for (index, member) in &mut self.members {
            if member
                .next_change_ns(config)
                .is_some_and(|at_ns| at_ns <= now)
            {
                self.figures.changed(ReplicaSlot::new(index));
                member.replica.health.tick(config, now);
                member.full = member.full.filter(|full| now < full.until_ns);
            }
        }
    }

    // ------------------------------------------------------------------ what choices read

    /// Brings up to date what choices read.
    pub(in crate::engine) fn refresh(&mut self, config: &Config, now: Instant) {
        self.figures.refresh(&self.members, config, now);
    }

    /// When time alone changes the health of a replica, or opens one, as of the last
    /// [`Self::refresh`].
    pub(in crate::engine) fn turns_ns(&self) -> Option<Instant> {
        self.figures.turns_ns()
    }

    /// What a replica offers, as of the last [`Self::refresh`].
    #[inline]
    pub(in crate::engine) fn offers(&self, slot: ReplicaSlot) -> Option<&Offers> {
        self.figures.offers(slot)
    }

    /// What a choice reads of a replica, as of the last [`Self::refresh`].
    #[inline]
    pub(in crate::engine) fn figures(&self, slot: ReplicaSlot) -> Option<&Figures> {
        self.figures.figures(slot)
    }

    /// What some choices read of it besides.
    #[inline]
    pub(in crate::engine) fn details(&self, slot: ReplicaSlot) -> Option<&Details> {
        self.figures.details(slot)
    }

    /// Whether what choices read is what the replicas say.
    pub(in crate::engine) fn check_figures(
        &self,
        config: &Config,
        now: Instant,
    ) -> Result<(), String> {
        self.figures.check(&self.members, config, now)
    }

    /// All slots in use, ascending.
    pub(in crate::engine) fn all_slots(&self) -> Vec<ReplicaSlot> {
        self.members
            .iter()
            .map(|(index, _)| ReplicaSlot::new(index))
            .collect()
    }

    pub(in crate::engine) fn pool(&self) -> Pool {
        let listed = self.members.iter().filter(|(_, member)| !member.removed);
        Pool::count(listed.map(|(_, member)| &member.replica.health))
    }

    // ------------------------------------------------------------------ replicas

    /// Adds a replica, or takes one back that was removed; its slot if it was not listed, and whether it is
    /// new.
    pub(in crate::engine) fn add(
        &mut self,
        id: ReplicaId,
        name: String,
        region_bit: u64,
        now: Instant,
    ) -> Option<(ReplicaSlot, bool)> {
        let known = self.slot(id);
        let listed = known.and_then(|slot| self.member_mut(slot)).map(|member| {
            let back = member.removed;
            if back {
                member.look_until_ns = now + LOOK_NS;
            }
            member.removed = false;
            member.name.clone_from(&name);
            back
        });
        if listed == Some(false) {
            return None;
        }
        if let Some(slot) = known {
            return Some((slot, false));
        }
        let mut member = Member::new(id, name, region_bit, now);
        member.look_until_ns = now + LOOK_NS;
        let slot = ReplicaSlot::new(self.members.insert(member));
        self.figures.changed(slot);
        self.slots.insert(id, slot);
        Some((slot, true))
    }

    /// A request is pushed to a replica, where so many blocks match; the replica. Counted before anything
    /// is sent.
    pub(in crate::engine) fn push(
        &mut self,
        (id, slot): (RequestId, ReplicaSlot),
        demand: &Demand,
        (match_blocks, need): (u32, Need),
        config: &Config,
        now: Instant,
    ) -> Option<ReplicaId> {
        let member = self.member_mut(slot)?;
        member.declined = false;
        member.push(id, demand.lane, need, config, now);
        member.match_blocks_total += u64::from(match_blocks);
        member.prompt_blocks_total += u64::from(demand.prompt_blocks);
        Some(member.id)
    }

    /// Those listed that are not among these.
    pub(in crate::engine) fn not_among(
        &self,
        replicas: &[(ReplicaId, String)],
    ) -> Vec<(ReplicaSlot, ReplicaId)> {
        let listed = self.members().filter(|(_, member)| !member.removed());
        let gone = listed.filter(|(_, of)| replicas.iter().all(|(id, _)| *id != of.id));
        gone.map(|(slot, member)| (slot, member.id)).collect()
    }

    /// Whether all who could use a replica's room have let it pass.
    pub(in crate::engine) fn set_declined(&mut self, slot: ReplicaSlot, declined: bool) {
        if let Some(member) = self.member_mut(slot) {
            member.declined = declined;
        }
    }

    /// The operator's intent for a replica.
    pub(in crate::engine) fn set_draining(&mut self, slot: ReplicaSlot, draining: bool) {
        if let Some(member) = self.member_mut(slot) {
            member.replica.health.set_draining(draining);
        }
    }

    /// Sets the region of a replica that was adopted from another balancer; `None`: ours.
    pub(in crate::engine) fn set_region(
        &mut self,
        slot: ReplicaSlot,
        region: Option<&str>,
        bit: u64,
    ) {
        if let Some(member) = self.member_mut(slot) {
            (member.adopted, member.region_bit) = (region.map(str::to_owned), bit);
        }
    }

    /// All regions of replicas, as bits.
    pub(in crate::engine) fn regions(&self) -> u64 {
        self.members()
            .fold(0, |all, (_, member)| all | member.region_bit)
    }

    /// Sets the regions of all replicas anew: `own` is ours, `bit` finds that of an adopted one.
    pub(in crate::engine) fn set_regions(&mut self, own: u64, bit: impl Fn(&str) -> u64) {
        for slot in self.all_slots() {
            if let Some(member) = self.member_mut(slot) {
                member.region_bit = member.adopted.as_deref().map_or(own, &bit);
            }
        }
    }

    /// Takes a replica out of the fleet: it is offered nothing from now on.
    pub(in crate::engine) fn remove(&mut self, slot: ReplicaSlot, now: Instant) {
        if let Some(member) = self.member_mut(slot) {
            member.removed = true;
            // A driver gives up probes of what has left.
            member.replica.probe_failed();
            let id = member.id;
            self.ring.remove(id);
        }
        self.serve(slot, None, Takes::Listed, now);
        self.drop_if_over(slot);
    }

    /// Forgets a removed replica whose requests have all ended.
    pub(in crate::engine) fn drop_if_over(&mut self, slot: ReplicaSlot) {
        let over = |member: &Member| member.removed && member.in_flight() == 0;
        if self.member(slot).is_some_and(over) {
            let member = self.members.remove(slot.index());
            self.figures.changed(slot);
            self.slots.remove(&member.id);
        }
    }
}

/// Whose probe brought a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Probed {
    /// Our own.
    Here,
    /// That of another balancer of our region.
    Elsewhere,
}
