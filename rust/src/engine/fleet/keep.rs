//! What the fleet leaves to another one: what was learned of replicas and models, by their names.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::Fleet;
use super::answers::AnswersFound;
use super::lately::Lately;
use super::lengths::Mean;
use super::member::Member;
use super::models::Model;
use super::ratio::Ratio;
use super::replica::keep::Habits;
use super::speed::Speed;
use crate::id::{ModelId, ReplicaId, ReplicaSlot};
use crate::time::{Instant, Span};

/// A replica.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::engine) struct KeptReplica {
    pub(in crate::engine) name: String,
    /// When its last page was asked for, and the tokens that its engine had looked up since its start: fewer
    /// later mean another start.
    queries: Option<(Instant, u64)>,
    habits: Habits,
    speed: Speed,
    stay_ns: Option<Span>,
    lately: Lately,
    cached_tokens: u64,
    prompt_tokens: u64,
}

/// A model, or an adapter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::engine) struct KeptModel {
    name: String,
    ratio: Ratio,
    speed: Speed,
    stay_ns: Option<Span>,
    output_mean: Option<u32>,
    answers_found: AnswersFound,
    /// The place of the replica that was chosen last.
    last: Option<u16>,
}

/// What stands for replicas and models outside of this process: their places in two lists.
#[derive(Debug, Default, Clone)]
pub(in crate::engine) struct Places {
    /// By place.
    pub(in crate::engine) slots: Vec<Option<ReplicaSlot>>,
    pub(in crate::engine) ids: Vec<Option<ReplicaId>>,
    pub(in crate::engine) models: Vec<Option<ModelId>>,
    /// By slot, by id and by model.
    pub(in crate::engine) of_slot: HashMap<ReplicaSlot, u16, FixedState>,
    pub(in crate::engine) of_id: HashMap<ReplicaId, u16, FixedState>,
    pub(in crate::engine) of_model: HashMap<ModelId, u16, FixedState>,
}

impl Fleet {
    /// All that was learned, and the places by which the rest of a state names it. Replicas beyond what a
    /// place can number are left out.
    pub(in crate::engine) fn leave(&self) -> (Vec<KeptReplica>, Vec<KeptModel>, Places) {
        let mut places = Places::default();
        let mut replicas = Vec::new();
        let listed = self.members().filter(|(_, member)| !member.removed);
        for (place, (slot, member)) in (0..u16::MAX).zip(listed) {
            places.of_slot.insert(slot, place);
            places.of_id.insert(member.id, place);
            replicas.push(KeptReplica::of(member));
        }
        let mut models = Vec::new();
        for (place, (id, model)) in (0..u16::MAX).zip(self.listed_models()) {
            places.of_model.insert(id, place);
            let last = model.last[0].and_then(|slot| places.of_slot.get(&slot).copied());
            models.push(KeptModel::of(model, last));
        }
        (replicas, models, places)
    }

    /// Takes over what another fleet has left. What is not in this one is dropped, and so is a replica whose
    /// engine has started again since. The places of the others.
    pub(in crate::engine) fn inherit(
        &mut self,
        replicas: Vec<KeptReplica>,
        models: Vec<KeptModel>,
        ahead_ns: i64,
    ) -> Places {
        let by_name: HashMap<String, ReplicaSlot, FixedState> = self
            .members()
            .filter(|(_, member)| !member.removed)
            .map(|(slot, member)| (member.name.clone(), slot))
            .collect();
        let mut places = Places::default();
        for kept in replicas {
            let slot = by_name.get(&kept.name).copied();
            let member = slot.and_then(|slot| self.member_mut(slot));
            let lives = member.is_some_and(|member| kept.give_to(member, ahead_ns));
            let slot = slot.filter(|_| lives);
            let id = slot.and_then(|slot| self.member(slot)).map(Member::id);
            places.slots.push(slot);
            places.ids.push(id);
        }
        for kept in models {
            let id = self.model(&kept.name);
            if let Some(model) = id.and_then(|id| self.models.get_mut(id.0 as usize)) {
                let last = kept.last.and_then(|place| places.slot(place));
                kept.give_to(model, last);
            }
            places.models.push(id);
        }
        places
    }

    /// How long answers are, by the place of the model and the key.
    pub(in crate::engine) fn leave_lengths(&self, places: &Places) -> Vec<(u16, u64, Mean)> {
        let entries = self.lengths.entries();
        let named = entries
            .filter_map(|(model, key, mean)| Some((*places.of_model.get(&model)?, key, mean)));
        named.collect()
    }

    pub(in crate::engine) fn inherit_lengths(
        &mut self,
        lengths: Vec<(u16, u64, Mean)>,
        places: &Places,
    ) {
        for (place, key, mean) in lengths {
            if let Some(Some(model)) = places.models.get(usize::from(place)) {
                self.lengths.put(*model, key, mean);
            }
        }
    }
}

impl Places {
    /// The slot here of a replica that is named by its place.
    pub(in crate::engine) fn slot(&self, place: u16) -> Option<ReplicaSlot> {
        *self.slots.get(usize::from(place))?
    }

    /// The same, its id.
    pub(in crate::engine) fn id(&self, place: u16) -> Option<ReplicaId> {
        *self.ids.get(usize::from(place))?
    }
}

impl KeptReplica {
    fn of(member: &Member) -> Self {
        Self {
            name: member.name.clone(),
            queries: member.replica.queries(),
            habits: member.replica.habits(),
            speed: member.speed.clone(),
            stay_ns: member.stay_ns,
            lately: member.lately.clone(),
            cached_tokens: member.cached_tokens_total,
            prompt_tokens: member.prompt_tokens_total,
        }
    }

    /// The member gets what was learned; whether its engine is, as far as is known, the same process.
    fn give_to(self, member: &mut Member, ahead_ns: i64) -> bool {
        if self.speed.is_sound() {
            member.speed = self.speed;
            member.stay_ns = self.stay_ns;
        }
        let lives = match (self.queries, member.replica.queries()) {
            (Some((asked_ns, before)), Some((at_ns, now))) => {
                now >= before || at_ns <= asked_ns.shifted(ahead_ns)
            }
            (kept, None) => {
                member.kept_queries = kept.map(|(_, queries)| queries);
                true
            }
            (None, Some(_)) => true,
        };
        if lives {
            member.replica.set_habits(self.habits, ahead_ns);
            member.lately = self.lately.shifted(ahead_ns);
            member.cached_tokens_total = member.cached_tokens_total.max(self.cached_tokens);
            member.prompt_tokens_total = member.prompt_tokens_total.max(self.prompt_tokens);
        }
        lives
    }
}

impl KeptModel {
    fn of(model: &Model, last: Option<u16>) -> Self {
        Self {
            name: model.name.clone(),
            ratio: model.ratio.clone(),
            speed: model.speed.clone(),
            stay_ns: model.stay_ns,
            output_mean: model.output_mean,
            answers_found: model.answers_found,
            last,
        }
    }

    fn give_to(self, model: &mut Model, last: Option<ReplicaSlot>) {
        if self.ratio.is_sound() && self.answers_found.is_sound() && self.speed.is_sound() {
            model.ratio = self.ratio;
            model.answers_found = self.answers_found;
            model.speed = self.speed;
            model.stay_ns = self.stay_ns;
            model.output_mean = self.output_mean;
        }
        model.last[0] = last.or(model.last[0]);
    }
}
