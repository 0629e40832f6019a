//! One function per policy over a view that is already filtered.
//!
//! The router hands over the replicas that are ready, serve the model, and have room now; a policy
//! says which of them. All have one signature, the set is closed ([`Policy`]), and none allocates
//! or fails: a view is never empty.

mod bounded_ring;
mod cache_aware;
mod least_load;
mod prefix;
mod ring;
mod round_robin;
mod two_choices;

use std::cmp::Ordering;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::config::{Config, Policy};
use super::id::ReplicaId;
use super::ring::Ring;
use super::rng::Rng;

/// A replica's dense number inside the router, its owner number in the tree. Reused after removal.
pub type Slot = u32;

/// The slot of each replica.
pub type Slots = HashMap<ReplicaId, Slot, FixedState>;

/// Marks a slot that is not among the candidates.
pub const NOT_A_CANDIDATE: u32 = u32::MAX;

/// One replica that may take the request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The replica.
    pub slot: Slot,
    /// Requests in flight on it.
    pub in_flight: u32,
    /// Leading blocks of the prompt it is believed to cache.
    pub match_blocks: u32,
    /// Blocks it is believed to cache in all.
    pub tree_blocks: u64,
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
    /// The session's key, hashed.
    pub key: Option<u64>,
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
    pub last: &'a mut Option<Slot>,
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
}

/// A candidate and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Position in the view's candidates.
    pub position: usize,
    /// Why this one.
    pub basis: Basis,
}

/// Chooses by the configured policy.
#[must_use]
pub fn choose(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    match context.config.policy {
        Policy::Prefix => prefix::prefix(view, context),
        Policy::Ring => ring::ring(view, context),
        Policy::RoundRobin => round_robin::round_robin(view, context),
        Policy::LeastLoad => least_load::least_load(view, context),
        Policy::TwoChoices => two_choices::two_choices(view, context),
        Policy::BoundedRing => bounded_ring::bounded_ring(view, context),
        Policy::CacheAware => cache_aware::cache_aware(view, context),
    }
}

/// The position with the smallest measure; ties are drawn, so that the first replica of an idle
/// fleet does not get every request.
fn smallest<K: Ord>(
    view: &View<'_>,
    context: &mut Context<'_>,
    measure: impl Fn(&Candidate) -> K,
) -> usize {
    let mut candidates = view.candidates.iter().map(measure).enumerate();
    let Some((mut position, mut least)) = candidates.next() else {
        return 0;
    };
    let mut ties = 1;
    for (other, measured) in candidates {
        match measured.cmp(&least) {
            Ordering::Less => (position, least, ties) = (other, measured, 1),
            Ordering::Equal => {
                // The n-th of equals takes the place with probability 1/n: each is as likely.
                ties += 1;
                if context.rng.below(ties) == 0 {
                    position = other;
                }
            }
            Ordering::Greater => {}
        }
    }
    position
}

#[cfg(test)]
mod tests;
