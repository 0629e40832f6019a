//! The policies: one function each, which chooses one of the candidates.
//!
//! The candidates are ready and may serve the request. While a request may wait (`affinity_wait_s`), policies with
//! [`Traits::waits`](crate::engine::policy::Traits::waits) also get those without room. All policies have one signature, and the set is closed ([`Policy`]). A view is
//! never empty, so no policy fails. None allocates.

use std::cmp::Ordering;

use crate::engine::config::Config;
use crate::engine::fleet::Slots;
pub use crate::engine::policy::PeerRule;
use crate::engine::policy::{Policy, with_policies};
use crate::engine::ring::Ring;
use crate::id::ReplicaSlot;
use crate::rng::Rng;
use crate::time::Span;

/// A wait is worth at least one in so many parts of the work that it saves.
const SUITS_BETTER: u64 = 8;

/// A replica that takes so many times as long per token is of another kind; less is load.
const OTHER_KIND: u32 = 2;

/// Marks a slot that is not among the candidates.
pub const NOT_A_CANDIDATE: u32 = u32::MAX;

/// One replica that may take the request now, or could be waited for.
///
/// What [`Traits::reads_figures`], [`Traits::reads_trees`] and [`Traits::reads_kv`] leave out stays 0, and so
/// does `recent_ns` without [`Traits::sums_recent_work`].
///
/// [`Traits::reads_figures`]: crate::engine::policy::Traits::reads_figures
/// [`Traits::reads_trees`]: crate::engine::policy::Traits::reads_trees
/// [`Traits::reads_kv`]: crate::engine::policy::Traits::reads_kv
/// [`Traits::sums_recent_work`]: crate::engine::policy::Traits::sums_recent_work
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Candidate {
    /// The replica.
    pub slot: ReplicaSlot,
    /// It may take the request now; without room the request would wait for it in the hold.
    pub room: bool,
    /// Requests in flight on it.
    pub in_flight: u32,
    /// Requests believed to wait there for a place in the batch.
    pub pending: u32,
    /// Leading blocks of the prompt it is believed to cache.
    pub match_blocks: u32,
    /// Blocks it is believed to cache in all.
    pub tree_blocks: u32,
    /// Time until the request would be computed there: the wait for room, and the base of every
    /// request (round trip, the step under way).
    pub start_in_ns: Span,
    /// Prompt tokens it is not believed to cache.
    pub uncached_tokens: u32,
    /// Time per such token; 0 is unknown.
    pub ns_per_token: u32,
    /// Requests running there, whose next tokens the request's prompt delays.
    pub running: u32,
    /// Prompt tokens of our requests there that have no first byte yet.
    pub prefill_tokens: u64,
    /// KV tokens that our requests there are predicted to take.
    pub active_tokens: u64,
    /// KV tokens in use there.
    pub kv_used_tokens: u64,
    /// KV tokens it has.
    pub kv_tokens: u64,
    /// Cached tokens that the request's new ones push out of its cache.
    pub evict_tokens: u32,
    /// Work given to it lately, as time of its engine.
    pub recent_ns: Span,
}

impl Candidate {
    /// Predicted time from the push, or from now if there is no room yet, to the first byte.
    #[must_use]
    pub fn ttft_ns(&self) -> Span {
        let token_ns = Span::from_ns(self.ns_per_token.into());
        self.start_in_ns + token_ns * u64::from(self.uncached_tokens)
    }

    /// Its place among candidates, by what the policy goes by first.
    pub(in crate::engine) fn rank(&self, config: &Config) -> (u64, u64) {
        if config.policy == Policy::Predictive {
            return (predictive::score(self, config).ns(), 0);
        }
        if config.policy.traits().reads_figures {
            return (self.ttft_ns().ns(), 0);
        }
        let unmatched = u64::from(u32::MAX - self.match_blocks);
        (unmatched, self.in_flight.into())
    }

    /// Apart from all loads the request takes less of this replica than of another: more of its prompt is
    /// cached, or the replica is of a faster kind. It may be worth a wait; a shorter queue is not, because others
    /// wait for that as well.
    #[must_use]
    pub fn suits_better(&self, other: &Self, prompt_blocks: u32) -> bool {
        let blocks =
            |candidate: &Self| u64::from(prompt_blocks.saturating_sub(candidate.match_blocks));
        let tokens = |candidate: &Self| u64::from(candidate.uncached_tokens);
        let time = |candidate: &Self| tokens(candidate) * u64::from(candidate.ns_per_token);
        let (slow, fast) = (
            self.ns_per_token.max(other.ns_per_token),
            self.ns_per_token.min(other.ns_per_token),
        );
        let (mine, theirs) = if tokens(self) == 0 && tokens(other) == 0 {
            (blocks(self), blocks(other))
        } else if slow / OTHER_KIND >= fast.max(1) {
            (time(self), time(other))
        } else {
            (tokens(self), tokens(other))
        };
        mine < theirs - theirs / SUITS_BETTER
    }
}

/// What a policy may look at.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// At least one, ascending by slot.
    pub candidates: &'a [Candidate],
    /// By slot: the position in `candidates`, or [`NOT_A_CANDIDATE`].
    pub positions: &'a [u32],
    /// Blocks of the prompt; 0 when there is none to match.
    pub prompt_blocks: u32,
    /// Chained hashes of the prompt's blocks.
    pub blocks: &'a [u64],
    /// The session's key, hashed.
    pub key: Option<u64>,
    /// Where the session was pushed last, which need not be a candidate; for `predictive` only.
    pub home: Option<ReplicaSlot>,
    /// All replicas of the router, also those that are no candidates.
    pub ring: &'a Ring,
    /// The slots of the replicas on the ring.
    pub slots: &'a Slots,
}

/// What a policy may use besides the view.
#[derive(Debug)]
pub struct Context<'a> {
    /// Settings.
    pub config: &'a Config,
    /// Seeded generator, for draws and for ties.
    pub rng: &'a mut Rng,
    /// The slot chosen last for this model, for turns.
    pub last: &'a mut Option<ReplicaSlot>,
}

/// On what a choice rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The prompt's prefix is believed to be cached there.
    Match,
    /// The session's key hashes there.
    Key,
    /// It has the least load, or the smallest cache.
    Load,
    /// It was its turn.
    Turn,
    /// No other had room.
    Only,
    /// Its cost, in time or as a score of several signals, is the lowest.
    Time,
    /// It was drawn, to learn about it.
    Explore,
}

impl Basis {
    /// The word for receipts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Key => "key",
            Self::Load => "load",
            Self::Turn => "turn",
            Self::Only => "only",
            Self::Time => "time",
            Self::Explore => "explore",
        }
    }
}

/// A candidate and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Position in the view's candidates.
    pub position: usize,
    /// Why this one.
    pub basis: Basis,
}

/// Declares the policies' files, and calls the configured one.
macro_rules! dispatch {
    ($($(#[$doc:meta])* $variant:ident, $name:ident, $traits:expr, $rule:literal, $source:literal;)*) => {
        $(mod $name;)*

        /// Chooses by the configured policy.
        #[must_use]
        pub fn choose(view: &View<'_>, context: &mut Context<'_>) -> Choice {
            match context.config.policy {
                $(Policy::$variant => $name::$name(view, context),)*
            }
        }
    };
}
with_policies!(dispatch);
pub(in crate::engine) use self::predictive::imposed;

/// The position with the smallest measure; ties are drawn, so that the first replica of an idle
/// fleet does not get every request.
fn smallest<K: Ord>(
    view: &View<'_>,
    context: &mut Context<'_>,
    measure: impl Fn(&Candidate) -> K,
) -> usize {
    best(view, context, |candidate, _| Some(measure(candidate)))
}

/// [`smallest`], for a measure that takes time and is never below `floor`.
fn smallest_above<K: Ord>(
    view: &View<'_>,
    context: &mut Context<'_>,
    floor: impl Fn(&Candidate) -> K,
    measure: impl Fn(&Candidate) -> K,
) -> usize {
    best(view, context, |candidate, best| {
        best.reached_by(&floor(candidate))
            .then(|| measure(candidate))
    })
}

/// [`smallest`] among the candidates that count, of which there must be one.
fn smallest_of<K: Ord>(
    view: &View<'_>,
    context: &mut Context<'_>,
    counts: impl Fn(&Candidate) -> bool,
    measure: impl Fn(&Candidate) -> K,
) -> usize {
    best(view, context, |candidate, _| {
        counts(candidate).then(|| measure(candidate))
    })
}

/// The position with the smallest measure; candidates without one are passed over.
fn best<K: Ord>(
    view: &View<'_>,
    context: &mut Context<'_>,
    measure: impl Fn(&Candidate, &Best<K>) -> Option<K>,
) -> usize {
    let mut best = Best {
        position: 0,
        least: None,
        ties: 0,
    };
    for (position, candidate) in view.candidates.iter().enumerate() {
        if let Some(measured) = measure(candidate, &best) {
            best.offer(position, measured, context.rng);
        }
    }
    best.position
}

/// The smallest measure so far.
struct Best<K> {
    position: usize,
    least: Option<K>,
    ties: usize,
}

impl<K: Ord> Best<K> {
    /// A measure may be the smallest, or equal to it.
    fn reached_by(&self, measure: &K) -> bool {
        self.least.as_ref().is_none_or(|least| measure <= least)
    }

    fn offer(&mut self, position: usize, measure: K, rng: &mut Rng) {
        let order = self
            .least
            .as_ref()
            .map_or(Ordering::Less, |least| measure.cmp(least));
        match order {
            Ordering::Less => (self.position, self.least, self.ties) = (position, Some(measure), 1),
            Ordering::Equal => {
                // The n-th of equals takes the place with probability 1/n: each is as likely.
                self.ties += 1;
                if rng.below(self.ties) == 0 {
                    self.position = position;
                }
            }
            Ordering::Greater => {}
        }
    }
}

#[cfg(test)]
mod tests;
