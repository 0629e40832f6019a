//! What one search for a replica looked at.

use crate::engine::choose::policy::{Basis, Candidate};
use crate::engine::config::Config;
use crate::engine::policy::Policy;
use crate::id::{ReplicaId, ReplicaSlot};
use crate::time::Instant;

/// Candidates kept of a search: the best, and those that the choice names.
pub const CANDIDATES_MAX: usize = 16;
/// Those that the choice may name: where the session was, the preferred one, the chosen one.
const NAMED: usize = 3;
/// Replicas kept that were no candidates.
pub const CLOSED_MAX: usize = 16;

/// What a search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Found {
    /// A replica with room.
    Here,
    /// A replica without room that is better than those with room.
    Awaits,
    /// Replicas are ready, but none has room.
    NoRoom,
    /// No replica is ready.
    #[default]
    NoneReady,
}

/// A candidate, by its id: slots are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    pub(in crate::engine) replica: ReplicaId,
    pub(in crate::engine) candidate: Candidate,
    /// What keeps it from taking the request, where it has no room.
    pub(in crate::engine) closed: Option<&'static str>,
}

/// A search: the candidates with their figures, and which of them was chosen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Search {
    pub(in crate::engine) at_ns: Instant,
    pub(in crate::engine) policy: Option<Policy>,
    pub(in crate::engine) found: Found,
    /// Replicas without room could be candidates.
    pub(in crate::engine) may_wait: bool,
    /// Only room that is spared counts: its tenant has more than its part.
    pub(in crate::engine) spared: bool,
    pub(in crate::engine) candidates: Vec<Noted>,
    pub(in crate::engine) left_out: u32,
    /// Where the session was pushed last.
    pub(in crate::engine) home: Option<(ReplicaSlot, ReplicaId)>,
    /// The policy's choice among all candidates.
    pub(in crate::engine) preferred: Option<(ReplicaId, Basis)>,
    /// If that has no room: its choice among those with room.
    pub(in crate::engine) second: Option<(ReplicaId, Basis)>,
    /// Replicas that serve the model and were no candidates, and why.
    pub(in crate::engine) closed: Vec<(ReplicaId, &'static str)>,
    pub(in crate::engine) closed_left_out: u32,
}

impl Search {
    /// Begins anew, with the buffers there are.
    pub(in crate::engine) fn begin(
        &mut self,
        config: &Config,
        (may_wait, spared): (bool, bool),
        now: Instant,
    ) {
        let (mut candidates, mut closed) = (
            std::mem::take(&mut self.candidates),
            std::mem::take(&mut self.closed),
        );
        candidates.clear();
        closed.clear();
        *self = Self {
            at_ns: now,
            policy: Some(config.policy),
            may_wait,
            spared,
            candidates,
            closed,
            ..Self::default()
        };
    }

    /// The candidates, and which of them the policy chose. `note`: a candidate with its id, and what closes it.
    pub(in crate::engine) fn weighed(
        &mut self,
        candidates: &[Candidate],
        (chosen, basis): (&Candidate, Basis),
        config: &Config,
        note: impl Fn(&Candidate) -> Option<Noted>,
    ) {
        if candidates.len() <= CANDIDATES_MAX {
            self.candidates.extend(candidates.iter().filter_map(&note));
        } else {
            let best = best(candidates, config);
            self.candidates.extend(best.into_iter().filter_map(&note));
            let home = self.home.map(|(slot, _)| slot);
            let home = candidates.iter().find(|of| Some(of.slot) == home);
            for named in home.into_iter().chain([chosen]) {
                self.add(named, &note);
            }
        }
        let all = u32::try_from(candidates.len()).unwrap_or(u32::MAX);
        self.left_out = all - u32::try_from(self.candidates.len()).unwrap_or(all);
        self.preferred = note(chosen).map(|noted| (noted.replica, basis));
    }

    /// What it chose among those with room.
    pub(in crate::engine) fn chose_second(
        &mut self,
        (chosen, basis): (&Candidate, Basis),
        note: impl Fn(&Candidate) -> Option<Noted>,
    ) {
        let before = self.candidates.len();
        self.add(chosen, &note);
        self.left_out -= u32::from(self.candidates.len() > before);
        self.second = note(chosen).map(|noted| (noted.replica, basis));
    }

    /// A replica was no candidate.
    pub(in crate::engine) fn add_closed(&mut self, replica: ReplicaId, why: &'static str) {
        if self.closed.len() < CLOSED_MAX {
            self.closed.push((replica, why));
        } else {
            self.closed_left_out += 1;
        }
    }

    fn add(&mut self, candidate: &Candidate, note: impl Fn(&Candidate) -> Option<Noted>) {
        let mut kept = self.candidates.iter();
        if kept.all(|noted| noted.candidate.slot != candidate.slot) {
            self.candidates.extend(note(candidate));
        }
    }
}

/// The best of many by what the policy goes by, in the order of their slots; places stay for those that are named.
fn best<'a>(candidates: &'a [Candidate], config: &Config) -> Vec<&'a Candidate> {
    const LEN: usize = CANDIDATES_MAX - NAMED;
    let mut best: Vec<(_, &Candidate)> = Vec::with_capacity(LEN + 1);
    for candidate in candidates {
        let key = candidate.rank(config);
        if best.len() == LEN && best.last().is_some_and(|(last, _)| *last <= key) {
            continue;
        }
        let place = best.partition_point(|(other, _)| *other <= key);
        best.insert(place, (key, candidate));
        best.truncate(LEN);
    }
    best.sort_unstable_by_key(|(_, candidate)| candidate.slot);
    best.into_iter().map(|(_, candidate)| candidate).collect()
}
