//! Models and adapters, and which replicas are sent requests for them.
//!
//! A replica is sent the models that its list has. One without a list is sent every model. One
//! whose list was cut is also sent those that no list has. So are all replicas where such models
//! are passed on.

use std::mem;

use xxhash_rust::xxh3::xxh3_64;

use super::answers::AnswersFound;
use super::member::{Member, Takes};
use super::ratio::Ratio;
use crate::engine::config::Config;
use crate::engine::fleet::Fleet;
use crate::engine::fleet::health::State;
use crate::engine::fleet::snapshot::Snapshot;
use crate::engine::fleet::speed::Speed;
use crate::engine::hold::Partition;
use crate::engine::rate::Rate;
use crate::id::{ModelId, ReplicaSlot, count};
use crate::time::{Instant, Span};

/// Models and adapters taken from one replica's list; more are left out and counted.
pub const MODELS_PER_REPLICA_MAX: usize = 4_096;

/// Models remembered that left every list.
pub(in crate::engine) const GONE_MAX: usize = 4_096;

/// A model or adapter that a replica serves, with its `max_model_len`.
pub type Served = (String, Option<u32>);

/// What a replica says of its models.
#[derive(Debug, Clone, Copy)]
pub enum ModelList<'a> {
    /// All that it serves.
    Whole(&'a [Served]),
    /// Some of what it serves: its list has more than is kept.
    Cut(&'a [Served]),
    /// Nothing: its list is refused, or cannot be read.
    Hidden,
}

/// A model or adapter that a replica serves or a request waits for.
#[derive(Debug)]
pub(in crate::engine) struct Model {
    pub(super) name: String,
    /// The replicas that serve it, as far as is known, ascending.
    pub(super) serving: Vec<ReplicaSlot>,
    /// Replicas whose list has it.
    pub(super) listed: u32,
    /// Where no list has it, all replicas are sent it.
    pub(super) passed: bool,
    /// Requests that name it.
    pub(super) requests: u32,
    pub(super) ratio: Ratio,
    /// How long its replicas take to first tokens: what a replica's own figures start from.
    pub(super) speed: Speed,
    /// How long requests run after their first byte: a running mean.
    pub(super) stay_ns: Option<Span>,
    /// Answer length in tokens: a running mean.
    pub(super) output_mean: Option<u32>,
    /// Whether engines find its answers again.
    pub(super) answers_found: AnswersFound,
    /// Chosen last, for turns: by the policy, and by its shadow.
    pub(super) last: [Option<ReplicaSlot>; 2],
    /// Requests of our own clients lately.
    pub(super) arrivals: Rate,
}

impl Model {
    pub(in crate::engine) fn name(&self) -> &str {
        &self.name
    }

    /// The replicas that serve it, as far as is known, ascending.
    pub(in crate::engine) fn serving(&self) -> &[ReplicaSlot] {
        &self.serving
    }

    /// Requests of our own clients lately.
    pub(in crate::engine) fn arrivals(&self) -> &Rate {
        &self.arrivals
    }
}

impl Fleet {
    /// A request of our own clients names a model.
    pub(in crate::engine) fn count_arrival(&mut self, name: &str, now: Instant) {
        if let Some(id) = self.model(name)
            && let Some(model) = self.models.get_mut(id.0 as usize)
        {
            model.arrivals.count(now);
        }
    }

    /// Models and adapters of the ready replicas by name, with the smallest `max_model_len` told.
    pub(in crate::engine) fn ready_models(
        &self,
        config: &Config,
        now: Instant,
    ) -> Vec<(&str, Option<u32>)> {
        let models = self.listed_models().filter_map(|(id, model)| {
            let members = model.serving.iter().filter_map(|slot| self.member(*slot));
            let mut ready = members.filter(|member| member.ready(config, now));
            let first = ready.next()?;
            let lens = std::iter::once(first).chain(ready).filter_map(|member| {
                let mut listed = member.models().iter();
                listed.find(|(served, _)| *served == id)?.1
            });
            Some((model.name.as_str(), lens.min()))
        });
        models.collect()
    }

    /// Tokens of a model's context: the least that a replica which serves it tells. An adapter has that of the
    /// others in its replica's list.
    pub(in crate::engine) fn context_len(&self, id: Option<ModelId>) -> Option<u32> {
        let model = self.models.get(id?.0 as usize)?;
        let members = model.serving.iter().filter_map(|slot| self.member(*slot));
        let lens = members.filter_map(|member| {
            let listed = member.models();
            let own = listed.iter().find(|(served, _)| Some(*served) == id);
            let own = own.and_then(|(_, len)| *len);
            own.or_else(|| listed.iter().filter_map(|(_, len)| *len).min())
        });
        lens.min()
    }

    /// All models that are known.
    pub(in crate::engine) fn models(&self) -> impl Iterator<Item = (ModelId, &Model)> {
        self.models
            .iter()
            .map(|(index, model)| (ModelId(count(index)), model))
    }

    /// Models left out of lists that are too long.
    pub(in crate::engine) fn models_ignored(&self) -> u64 {
        self.models_ignored
    }

    /// A replica that is up, and has told its models, for the first time takes its share little by
    /// little, where others can take the rest meanwhile: its caches are cold, and its first requests
    /// slow. Not so if its page shows that it has served before.
    pub(in crate::engine) fn welcome(&mut self, slot: ReplicaSlot, config: &Config, now: Instant) {
        let new = |member: &&Member| {
            let is_up = member.replica.health.state() == State::Up;
            member.models_known_ns.is_none() && member.models.is_some() && is_up
        };
        let Some(member) = self.member(slot).filter(new) else {
            return;
        };
        let warm = |other: &ReplicaSlot| {
            let other = self.member(*other).filter(|_| *other != slot);
            other.is_some_and(|other| other.warm(config, now))
        };
        let listed = member.models();
        let models = listed.iter().map(|(id, _)| id.0 as usize);
        let mut models = models.filter_map(|id| self.models.get(id));
        let relieved = if listed.is_empty() {
            member.takes == Takes::Any && self.all_slots().iter().any(warm)
        } else {
            models.all(|model| model.serving.iter().any(warm))
        };
        let served = member.replica.snapshot().is_some_and(Snapshot::served);
        if let Some(member) = self.member_mut(slot) {
            member.models_known_ns = Some(now);
            if relieved && !served {
                member.replica.health.join(now);
            }
        }
    }

    pub(in crate::engine) fn model(&self, name: &str) -> Option<ModelId> {
        self.names.get(name).copied()
    }

    /// The models that some replica's list has, with the replicas that serve them.
    pub(in crate::engine) fn listed_models(&self) -> impl Iterator<Item = (ModelId, &Model)> {
        let listed = self.models.iter().filter(|(_, model)| model.listed > 0);
        listed.map(|(index, model)| (ModelId(count(index)), model))
    }

    /// The replica's list has this model.
    pub(in crate::engine) fn lists(&self, slot: ReplicaSlot, id: ModelId) -> bool {
        self.member(slot).is_some_and(|member| lists(member, id))
    }

    /// The one model that is listed; empty while nothing is known of any, `None` where there are more.
    pub(in crate::engine) fn only_model(&self) -> Option<&str> {
        let mut listed = self.listed_models();
        match (listed.next(), listed.next()) {
            (Some((_, model)), None) => Some(&model.name),
            (None, _) if !self.any_models_known() || self.takes_unlisted() => Some(""),
            _ => None,
        }
    }

    /// Some replica is sent this model, listed or not.
    pub(in crate::engine) fn is_served(&self, id: ModelId) -> bool {
        self.models
            .get(id.0 as usize)
            .is_some_and(|model| !model.serving.is_empty())
    }

    /// At least one replica has told its models.
    pub(in crate::engine) fn any_models_known(&self) -> bool {
        self.members
            .iter()
            .any(|(_, member)| !member.removed && member.models.is_some())
    }

    /// Some replica is sent models that no list has.
    pub(in crate::engine) fn takes_unlisted(&self) -> bool {
        self.members
            .iter()
            .any(|(_, member)| !member.removed && member.takes != Takes::Listed)
    }

    /// Some replica is wanted that has not told its models, and came `within_ns`: it may be loading.
    pub(in crate::engine) fn awaits(&self, within_ns: Span, now: Instant) -> bool {
        self.members.iter().any(|(_, member)| {
            !member.removed
                && !member.replica.health.draining()
                && member.models.is_none()
                && now - member.joined_ns <= within_ns
        })
    }

    /// A model of this name was in a list, `within_ns` before now.
    pub(in crate::engine) fn was_listed(&self, name: &str, within_ns: Span, now: Instant) -> bool {
        let left_ns = self.gone.get(xxh3_64(name.as_bytes()));
        left_ns.is_some_and(|left_ns| now - left_ns < within_ns)
    }

    /// Sends a model that no list has to all replicas.
    pub(in crate::engine) fn pass(&mut self, id: ModelId) {
        self.set_passed(id, true);
    }

    /// [`Self::pass`], or the end of that.
    pub(in crate::engine) fn set_passed(&mut self, id: ModelId, passed: bool) {
        if let Some(model) = self.models.get_mut(id.0 as usize) {
            model.passed = passed;
        }
        self.spread(id);
    }

    /// Sets what a replica serves; false when nothing changed.
    pub(in crate::engine) fn set_models(
        &mut self,
        slot: ReplicaSlot,
        listing: ModelList<'_>,
        bytes_per_token: f64,
        now: Instant,
    ) -> bool {
        if self.member(slot).is_none_or(|member| member.removed) {
            return false;
        }
        let (served, takes) = match listing {
            ModelList::Whole(served) if served.len() <= MODELS_PER_REPLICA_MAX => {
                (served, Takes::Listed)
            }
            ModelList::Whole(served) | ModelList::Cut(served) => (served, Takes::Unlisted),
            ModelList::Hidden => (&[][..], Takes::Any),
        };
        let mut ids: Vec<_> = served
            .iter()
            .take(MODELS_PER_REPLICA_MAX)
            .map(|(name, len_max)| (self.intern(name, bytes_per_token), *len_max))
            .collect();
        ids.sort_unstable();
        ids.dedup_by_key(|(id, _)| *id);
        let changed = self
            .member(slot)
            .is_some_and(|member| member.models.as_ref() != Some(&ids) || member.takes != takes);
        if changed {
            self.models_ignored += served.len().saturating_sub(MODELS_PER_REPLICA_MAX) as u64;
            self.serve(slot, Some(ids), takes, now);
        }
        changed
    }

    /// The number of a name, a new one if need be: to be held by a request or a replica.
    pub(in crate::engine) fn intern(&mut self, name: &str, bytes_per_token: f64) -> ModelId {
        if let Some(id) = self.model(name) {
            return id;
        }
        let model = Model {
            name: name.to_owned(),
            serving: Vec::new(),
            listed: 0,
            passed: false,
            requests: 0,
            ratio: Ratio::new(bytes_per_token),
            speed: Speed::default(),
            stay_ns: None,
            output_mean: None,
            answers_found: AnswersFound::default(),
            last: [None; 2],
            arrivals: Rate::default(),
        };
        let id = ModelId(count(self.models.insert(model)));
        self.names.insert(name.to_owned(), id);
        if self.takes_unlisted() {
            self.spread(id);
        }
        id
    }

    /// Replaces what a replica serves, and forgets models that no list has and no request names.
    pub(in crate::engine) fn serve(
        &mut self,
        slot: ReplicaSlot,
        ids: Option<Vec<(ModelId, Option<u32>)>>,
        takes: Takes,
        now: Instant,
    ) {
        let Some(member) = self.members.get_mut(slot.index()) else {
            return;
        };
        let takes_before = mem::replace(&mut member.takes, takes);
        let after: Vec<_> = ids.iter().flatten().map(|(id, _)| *id).collect();
        let before = mem::replace(&mut member.models, ids);
        let told = before.is_some() && member.models.is_some();
        let more = !told || takes_before != Takes::Listed || takes != Takes::Listed;
        let mut turned = self.count_listed(before.as_deref().unwrap_or_default(), &after, now);
        if more {
            // Models beside the list are concerned too, and those are few unless they are all listed.
            let all = self.models.iter().map(|(index, _)| ModelId(count(index)));
            for id in all.collect::<Vec<_>>() {
                self.place(id, slot);
            }
        }
        let before: Vec<_> = before.into_iter().flatten().map(|(id, _)| id).collect();
        for id in before.iter().chain(&after) {
            self.place(*id, slot);
        }
        let loose = self.takes_unlisted();
        turned.retain(|id| loose || self.is_passed(*id));
        for id in turned {
            self.spread(id);
        }
        for id in before {
            self.forget_if_unused(id);
        }
    }

    /// Counts what left a list and what came into it; the models that no list has any more, or that
    /// one has again.
    fn count_listed(
        &mut self,
        before: &[(ModelId, Option<u32>)],
        after: &[ModelId],
        now: Instant,
    ) -> Vec<ModelId> {
        let mut turned = Vec::new();
        for id in after {
            if let Some(model) = self.models.get_mut(id.0 as usize) {
                if model.listed == 0 {
                    turned.push(*id);
                }
                model.listed += 1;
            }
        }
        for (id, _) in before {
            if let Some(model) = self.models.get_mut(id.0 as usize) {
                model.listed = model.listed.saturating_sub(1);
                if model.listed == 0 {
                    turned.push(*id);
                    model.passed = false;
                    self.gone.put(xxh3_64(model.name.as_bytes()), now);
                }
            }
        }
        turned
    }

    /// What waits in this line may go to this replica.
    pub(in crate::engine) fn serves(&self, slot: ReplicaSlot, line: Partition) -> bool {
        let model = self.models.get(line.model.0 as usize);
        let (Some(member), Some(model)) = (self.member(slot), model) else {
            return false;
        };
        line.regions & member.region_bit != 0
            && line.bound.is_none_or(|bound| bound == member.id)
            && sends(member, line.model, model)
    }

    pub(in crate::engine) fn is_passed(&self, id: ModelId) -> bool {
        let model = self.models.get(id.0 as usize);
        model.is_some_and(|model| model.passed)
    }

    /// Finds anew which replicas are sent a model.
    fn spread(&mut self, id: ModelId) {
        for slot in self.all_slots() {
            self.place(id, slot);
        }
    }

    /// Finds anew whether a replica is sent a model.
    fn place(&mut self, id: ModelId, slot: ReplicaSlot) {
        let (Some(member), Some(model)) = (
            self.members.get(slot.index()),
            self.models.get_mut(id.0 as usize),
        ) else {
            return;
        };
        let at = model.serving.binary_search(&slot);
        match (at, sends(member, id, model)) {
            (Ok(at), false) => {
                model.serving.remove(at);
            }
            (Err(at), true) => model.serving.insert(at, slot),
            (Ok(_), true) | (Err(_), false) => {}
        }
    }

    /// Puts back what [`Self::last_of`] said of the policy that decides.
    pub(in crate::engine) fn put_back_last(
        &mut self,
        id: Option<ModelId>,
        last: Option<ReplicaSlot>,
    ) {
        if let Some(model) = id.and_then(|id| self.models.get_mut(id.0 as usize)) {
            model.last[0] = last;
        }
    }

    /// A request names this model.
    pub(in crate::engine) fn hold_model(&mut self, id: ModelId) {
        if let Some(model) = self.models.get_mut(id.0 as usize) {
            model.requests += 1;
        }
    }

    /// A request that named this model is over.
    pub(in crate::engine) fn release_model(&mut self, id: ModelId) {
        if let Some(model) = self.models.get_mut(id.0 as usize) {
            model.requests = model.requests.saturating_sub(1);
        }
        self.forget_if_unused(id);
    }

    pub(in crate::engine) fn forget_if_unused(&mut self, id: ModelId) {
        let unused = |model: &Model| model.listed == 0 && model.requests == 0;
        if self.models.get(id.0 as usize).is_some_and(unused) {
            let model = self.models.remove(id.0 as usize);
            self.names.remove(&model.name);
        }
    }
}

/// Requests for this model are sent to this replica.
pub(in crate::engine) fn sends(member: &Member, id: ModelId, model: &Model) -> bool {
    if member.removed || member.models.is_none() {
        return false;
    }
    lists(member, id)
        || match member.takes {
            Takes::Any => true,
            Takes::Unlisted => model.listed == 0,
            Takes::Listed => model.listed == 0 && model.passed,
        }
}

fn lists(member: &Member, id: ModelId) -> bool {
    let listed = member.models.as_deref().unwrap_or_default();
    listed.binary_search_by_key(&id, |(id, _)| *id).is_ok()
}
