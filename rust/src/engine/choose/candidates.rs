//! The replicas that a policy chooses among, with their figures, and what follows from its choice.
//!
//! [`Chooser::find`] collects the candidates (`collect`), has the configured policy choose one
//! ([`policy::choose`]), and returns a [`Selection`].

use super::noting::{note_search, noted};
use super::policy::{self, Basis, Candidate, Choice, Context, NOT_A_CANDIDATE, View};
use super::selection::{Here, Selection};
use super::{Chooser, Counters, Demand, Fleet, Room, Seeker, Sight, Ticket, mem};
use crate::engine::cache::Cache;
use crate::engine::config::Config;
use crate::engine::fleet::figures::Figures;
use crate::engine::fleet::forecast::{Estimate, Expected};
use crate::engine::fleet::member::Offer;
use crate::engine::fleet::replica::Need;
use crate::engine::fleet::speed::Pace;
use crate::engine::policy::Traits;
use crate::engine::receipts::search::Found;
use crate::id::ReplicaSlot;
use crate::time::{Instant, Span};

/// Loads whose pace is remembered while one choice is made.
const PACES: usize = 256;

/// Buffers used again from choice to choice.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    candidates: Vec<Candidate>,
    /// Replicas that the request may go to, and whether each has room.
    open: Vec<(ReplicaSlot, bool)>,
    /// By slot: the position in `candidates`.
    positions: Vec<u32>,
    matches: Vec<(ReplicaSlot, u32)>,
    /// By slot: leading blocks that match; 0 for all but those in `matches`.
    match_blocks: Vec<u32>,
    paces: Paces,
}

impl Scratch {
    /// Whether a replica was a candidate of the search that is at its end, which has weighed some.
    fn is_candidate(&self, slot: ReplicaSlot, spared: bool) -> bool {
        if spared {
            let position = self.positions.get(slot.index());
            return position.is_some_and(|position| *position != NOT_A_CANDIDATE);
        }
        let found = self.open.binary_search_by_key(&slot, |(slot, _)| *slot);
        found.is_ok()
    }

    /// Leading blocks that match at a replica.
    fn match_blocks(&self, slot: ReplicaSlot) -> u32 {
        self.match_blocks.get(slot.index()).copied().unwrap_or(0)
    }

    /// Drops the candidates without room.
    fn keep_those_with_room(&mut self) {
        self.candidates.retain(|candidate| candidate.room);
        self.positions.fill(NOT_A_CANDIDATE);
        for (position, candidate) in (0..).zip(&self.candidates) {
            self.positions[candidate.slot.index()] = position;
        }
    }
}

impl Scratch {
    /// Only replicas that spare what the request needs have room for it. Returns what the candidates offer.
    fn keep_those_that_spare(&mut self, demand: &Demand, sight: &Sight<'_>) -> Offer {
        let expected = sight.fleet.expected(demand, sight.config);
        for candidate in &mut self.candidates {
            let figures = sight.fleet.figures(candidate.slot);
            let need = figures.map(|of| expected.need(of, candidate.match_blocks, None).0);
            let kv = need.unwrap_or_default().kv;
            candidate.room = sight
                .fleet
                .spares(candidate.slot, kv, sight.config, sight.now);
        }
        if !self.candidates.iter().any(|candidate| candidate.room) {
            return Offer::Later;
        }
        self.keep_those_with_room();
        Offer::Room
    }
}

/// What is the same for all candidates of one choice.
struct Common<'a> {
    demand: &'a Demand,
    ticket: Option<Ticket>,
    expected: Expected<'a>,
    /// What the request needs at a replica that caches none of its prompt.
    need: Need,
    /// A replica with this many free blocks evicts nothing for `need`.
    blocks_enough: u32,
    stay_ns: Span,
    /// The match length in blocks that was looked up last, and its tokens if they are known.
    matched: (u32, Option<u32>),
    /// Some held request waits for one replica by choice, though another has room.
    any_chosen: bool,
    traits: Traits,
    now: Instant,
}

/// The fleet's pace by load: many replicas have the same.
#[derive(Debug, Default)]
struct Paces {
    by_load: Vec<Option<Pace>>,
    /// What was asked for last, and mostly is next.
    last: Option<(u32, Pace)>,
}

impl Paces {
    fn clear(&mut self) {
        self.by_load.clear();
        self.by_load.resize(PACES, None);
        self.last = None;
    }

    #[inline]
    fn at(&mut self, load: u32, expected: &Expected<'_>) -> Pace {
        if let Some((_, pace)) = self.last.filter(|(last, _)| *last == load) {
            return pace;
        }
        let pace = match self.by_load.get_mut(load as usize) {
            Some(pace) => *pace.get_or_insert_with(|| expected.fleet_pace(load)),
            None => expected.fleet_pace(load),
        };
        self.last = Some((load, pace));
        pace
    }
}

impl Chooser {
    /// The replica that the policy chooses for a request, among those that may take it now. If the request
    /// `may_wait`, as far as the policy goes and as far as its shadow does, replicas without room are candidates too.
    pub(in crate::engine) fn find(
        &mut self,
        seeker: Seeker<'_>,
        (may_wait, shadow_may_wait): (bool, bool),
        sight: &mut Sight<'_>,
        counters: &mut Counters,
    ) -> Selection {
        let (mut found, basis) = self.find_beside(seeker, may_wait, None, sight);
        if let Some(basis) = basis {
            counters.count_basis(basis);
        }
        if let Some(shadow) = &mut self.shadow {
            let asks = (may_wait, shadow_may_wait);
            let verdict = shadow.judge((seeker, asks), found, &self.scratch, sight);
            if let Selection::Here(here) = &mut found {
                here.shadow = verdict;
            }
        }
        found
    }

    /// [`Self::find`], and on what the choice rests. `known`: what a chooser beside this one has just found.
    pub(super) fn find_beside(
        &mut self,
        seeker: Seeker<'_>,
        may_wait: bool,
        known: Option<&Scratch>,
        sight: &mut Sight<'_>,
    ) -> (Selection, Option<Basis>) {
        let mut scratch = mem::take(&mut self.scratch);
        let any = seeker.room == Room::Any;
        if let Some(receipts) = &mut self.receipts {
            let how = (may_wait, !any);
            receipts.search().begin(sight.config, how, sight.now);
        }
        let full = any && may_wait && Self::may_wait(seeker, sight.hold, sight.config, sight.now);
        let mut offer = collect(seeker, full, known, sight, &mut scratch);
        if !any && offer == Offer::Room {
            offer = scratch.keep_those_that_spare(seeker.demand, sight);
        }
        let found = match offer {
            Offer::None => (Selection::NoneReady, None),
            Offer::Later => (Selection::NoRoom, None),
            Offer::Room => self.choose(seeker.demand, &mut scratch, sight),
        };
        if let Some(receipts) = &mut self.receipts {
            let kind = match found.0 {
                Selection::Here(_) => Found::Here,
                Selection::Awaits { .. } => Found::Awaits,
                Selection::NoRoom => Found::NoRoom,
                Selection::NoneReady => Found::NoneReady,
            };
            let is_candidate = |slot| scratch.is_candidate(slot, !any);
            note_search(seeker, kind, (&scratch.open, is_candidate), sight, receipts);
        }
        self.scratch = scratch;
        #[cfg(test)]
        let found = (self.note(found.0), found.1);
        found
    }

    /// Leading blocks of the last request that match at a replica.
    pub(in crate::engine) fn match_blocks(&self, slot: ReplicaSlot) -> u32 {
        self.scratch.match_blocks(slot)
    }

    /// Lets the policy choose among the candidates, of which at least one has room.
    fn choose(
        &mut self,
        demand: &Demand,
        scratch: &mut Scratch,
        sight: &mut Sight<'_>,
    ) -> (Selection, Option<Basis>) {
        let mut choice = self.ask_policy(demand, scratch, sight.fleet, sight.config);
        let mut chosen = scratch.candidates[choice.position];
        if let Some(receipts) = &mut self.receipts {
            let note = |of: &Candidate| noted(of, sight);
            let chose = (&chosen, choice.basis);
            let search = receipts.search();
            search.weighed(&scratch.candidates, chose, sight.config, note);
        }
        if !chosen.room {
            let preferred = chosen;
            scratch.keep_those_with_room();
            choice = self.ask_policy(demand, scratch, sight.fleet, sight.config);
            chosen = scratch.candidates[choice.position];
            if let Some(receipts) = &mut self.receipts {
                let search = receipts.search();
                search.chose_second((&chosen, choice.basis), |of| noted(of, sight));
            }
            if preferred.suits_better(&chosen, demand.prompt_blocks) {
                let slot = preferred.slot;
                return (Selection::Awaits { slot }, None);
            }
        }
        let here = Here {
            slot: chosen.slot,
            match_blocks: chosen.match_blocks,
            shadow: None,
        };
        (Selection::Here(here), Some(choice.basis))
    }

    /// Asks the policy. A single candidate needs no policy.
    fn ask_policy(
        &mut self,
        demand: &Demand,
        scratch: &Scratch,
        fleet: &mut Fleet,
        config: &Config,
    ) -> Choice {
        let home = self.home(demand, fleet, config);
        if let Some(receipts) = &mut self.receipts {
            receipts.search().home = home.and_then(|slot| Some((slot, fleet.member(slot)?.id())));
        }
        let candidates = &scratch.candidates;
        let mut last = fleet.last_of(demand.model, self.of_shadow);
        let choice = if candidates.len() == 1 {
            Choice {
                position: 0,
                basis: Basis::Only,
            }
        } else {
            let (ring, slots) = fleet.ring();
            let view = View {
                candidates,
                positions: &scratch.positions,
                prompt_blocks: demand.prompt_blocks,
                blocks: &demand.blocks,
                key: demand.key,
                home,
                ring,
                slots,
            };
            let context = &mut Context {
                config,
                rng: &mut self.rng,
                last: &mut last,
            };
            policy::choose(&view, context)
        };
        let chosen = candidates[choice.position].slot;
        fleet.set_last(demand.model, chosen, self.of_shadow);
        choice
    }

    /// The replica that the request's session was pushed to last.
    fn home(&mut self, demand: &Demand, fleet: &Fleet, config: &Config) -> Option<ReplicaSlot> {
        if !config.policy.traits().remembers_sessions {
            return None;
        }
        let replica = self.sessions.find(&demand.key?.to_le_bytes())?;
        fleet.slot(replica)
    }
}

/// Fills the candidates with what the policy reads; with `full`, also those without room. Returns whether
/// some replica has room, or at least is ready. If none has room, the candidates stay as they were.
fn collect(
    seeker: Seeker<'_>,
    full: bool,
    known: Option<&Scratch>,
    sight: &mut Sight<'_>,
    scratch: &mut Scratch,
) -> Offer {
    sight.fleet.refresh(sight.config, sight.now);
    let offer = sight.fleet.collect(seeker.demand, full, &mut scratch.open);
    if offer == Offer::Room {
        match known {
            Some(known) => scratch.match_blocks.clone_from(&known.match_blocks),
            None => note_matches(seeker.demand, sight, scratch),
        }
        let slots_end = sight.fleet.slots_end();
        scratch.positions.clear();
        scratch.positions.resize(slots_end, NOT_A_CANDIDATE);
        if sight.config.policy.traits().reads_figures {
            fill_with_figures(seeker, sight, scratch);
        } else {
            fill(sight, scratch);
        }
    }
    #[cfg(test)]
    super::plain::check(seeker, full, sight, (offer, &scratch.candidates));
    offer
}

/// Notes what the replicas are believed to cache of the prompt.
fn note_matches(demand: &Demand, sight: &mut Sight<'_>, scratch: &mut Scratch) {
    scratch.match_blocks.clear();
    scratch.match_blocks.resize(sight.fleet.slots_end(), 0);
    scratch.matches.clear();
    sight.cache.matches(&demand.blocks, &mut scratch.matches);
    for &(owner, blocks) in &scratch.matches {
        if let Some(match_blocks) = scratch.match_blocks.get_mut(owner.index()) {
            *match_blocks = blocks;
        }
    }
}

/// Fills the candidates for a policy that predicts nothing.
fn fill(sight: &Sight<'_>, scratch: &mut Scratch) {
    let reads_trees = sight.config.policy.traits().reads_trees;
    scratch.candidates.clear();
    for (position, &(slot, room)) in (0..).zip(&scratch.open) {
        let trees = reads_trees.then(|| sight.cache.owner_blocks(slot));
        let figures = sight.fleet.figures(slot);
        scratch.positions[slot.index()] = position;
        scratch.candidates.push(Candidate {
            slot,
            room,
            in_flight: figures.map_or(0, |figures| figures.in_flight),
            match_blocks: scratch.match_blocks[slot.index()],
            tree_blocks: trees.unwrap_or(0),
            ..Candidate::default()
        });
    }
}

/// Fills the candidates with loads, and with what the request would cost each of them.
fn fill_with_figures(seeker: Seeker<'_>, sight: &Sight<'_>, scratch: &mut Scratch) {
    let expected = sight.fleet.expected(seeker.demand, sight.config);
    let need = expected.need_unmatched();
    let mut common = Common {
        demand: seeker.demand,
        ticket: seeker.ticket,
        need,
        blocks_enough: expected.blocks_enough(need.prefill),
        stay_ns: expected.fleet_stay_ns(),
        matched: (0, None),
        any_chosen: sight.hold.any_chosen(),
        expected,
        traits: *sight.config.policy.traits(),
        now: sight.now,
    };
    scratch.paces.clear();
    scratch.candidates.clear();
    scratch.candidates.reserve(scratch.open.len());
    for (position, &(slot, room)) in (0..).zip(&scratch.open) {
        let Some(figures) = sight.fleet.figures(slot) else {
            continue;
        };
        let match_blocks = scratch.match_blocks[slot.index()];
        let found = (slot, room, match_blocks);
        let candidate = candidate(figures, found, sight, &mut common, &mut scratch.paces);
        scratch.positions[slot.index()] = position;
        scratch.candidates.push(candidate);
    }
}

/// One candidate, given by its slot, whether it has room, and how many leading blocks match.
#[inline]
fn candidate(
    figures: &Figures,
    (slot, room, match_blocks): (ReplicaSlot, bool, u32),
    sight: &Sight<'_>,
    common: &mut Common<'_>,
    paces: &mut Paces,
) -> Candidate {
    let now = common.now;
    let need = if match_blocks == 0 {
        common.need
    } else {
        if common.matched.0 != match_blocks {
            let tokens = matched_tokens(sight.cache, sight.fleet, common.demand, match_blocks);
            common.matched = (match_blocks, tokens);
        }
        common
            .expected
            .need(figures, match_blocks, common.matched.1)
            .0
    };
    let load = figures.backlog.load;
    let pace = figures
        .pace()
        .unwrap_or_else(|| paces.at(load, &common.expected));
    let behind = if common.any_chosen {
        sight.hold.chosen_before(slot, common.ticket)
    } else {
        0
    };
    let details = || sight.fleet.details(slot);
    let stay_ns = || {
        details()
            .and_then(|own| own.stay_ns)
            .unwrap_or(common.stay_ns)
    };
    let estimate = Estimate::at(&figures.backlog, need, behind, pace, stay_ns, now);
    // Without room, the one that is pending there has to start before this one may be pushed.
    let bases = if room { 1 } else { 2 };
    let traits = common.traits;
    let kv = if traits.reads_kv { details() } else { None };
    let kv = kv.copied().unwrap_or_default();
    let trees = traits.reads_trees.then(|| sight.cache.owner_blocks(slot));
    let tree_blocks = trees.unwrap_or(0);
    let capacity_blocks = sight.cache.capacity_blocks(slot);
    let free_blocks = capacity_blocks.saturating_sub(tree_blocks);
    let fits = free_blocks >= common.blocks_enough && need.prefill <= common.need.prefill;
    let evicts = || common.expected.evicts(free_blocks, need.prefill);
    Candidate {
        slot,
        room,
        in_flight: figures.in_flight,
        pending: figures.pending,
        match_blocks,
        tree_blocks,
        start_in_ns: estimate.start_in_ns + pace.base_ns * bases,
        uncached_tokens: need.prefill,
        ns_per_token: pace.token_ns,
        running: load,
        prefill_tokens: figures.backlog.prefill,
        active_tokens: kv.active_tokens,
        kv_used_tokens: kv.kv_used_tokens,
        kv_tokens: kv.kv_tokens,
        evict_tokens: if fits { 0 } else { evicts() },
        recent_ns: if traits.sums_recent_work {
            sight.fleet.recent_ns(slot, sight.config, now)
        } else {
            Span::ZERO
        },
    }
}

/// How many tokens of the first `blocks` blocks an engine finds in its cache; `None` if that is unknown.
pub(in crate::engine) fn matched_tokens(
    cache: &Cache,
    fleet: &Fleet,
    demand: &Demand,
    blocks: u32,
) -> Option<u32> {
    let path = cache.path(demand, blocks)?;
    Some(path.findable_tokens(fleet.finds_answers(demand.model)))
}
