//! Which replica caches what: the tree of prompts, its corrections, and how many tokens a prefix has.
//!
//! The knowledge comes from pushes, and from what engines report about requests that they answered. This
//! package knows replicas by their slots only.

mod errors;
mod keep;
mod learn;
mod observe;
mod paths;
pub mod radix;
mod reported;
mod retention;

use serde::Serialize;

use self::errors::Errors;
pub(in crate::engine) use self::learn::Confirmed;
pub(in crate::engine) use self::paths::Path;
use self::paths::Paths;
pub(in crate::engine) use self::radix::Pin;
pub(in crate::engine) use self::radix::keep::{Ages, Runs, Slice};
use self::radix::{Radix, RadixConfig};
use self::reported::Reported;
pub(in crate::engine) use self::reported::{PLACES_MAX, STRIDE, places};
pub(in crate::engine) use self::retention::Retention as KeptRetention;
use self::retention::Retention;
use super::config::Config;
use super::demand::Demand;
use super::fleet::Fleet;
use crate::id::ReplicaSlot;

/// What was believed to be cached of a prompt where it was pushed.
#[derive(Debug)]
pub(in crate::engine) struct Match {
    /// Leading blocks.
    blocks: u32,
    /// Chained hash of the last of them.
    end: Option<u64>,
    /// Tokens up to there, where they are known.
    path: Option<Path>,
    /// Keeps the prompt in the tree while the request is in flight.
    pin: Option<Pin>,
}

/// Memory of the tree, for operators.
#[derive(Debug, Serialize)]
pub(in crate::engine) struct TreeState {
    bytes: usize,
    bytes_max: usize,
}

/// What the replicas cache.
#[derive(Debug)]
pub(in crate::engine) struct Cache {
    tree: Radix,
    paths: Paths,
    /// By slot.
    retentions: Vec<Retention>,
    /// Blocks that a replica holds at most, by slot: every choice reads all of them.
    capacities: Vec<u32>,
    errors: Errors,
    /// Where to go on with what other balancers tell.
    reported: Reported,
}

impl Cache {
    pub(in crate::engine) fn new(config: &Config) -> Self {
        let tree = Radix::new(RadixConfig {
            bytes_max: config.tree_bytes_max,
            capacity_blocks: u32::MAX,
        });
        #[cfg(test)]
        let tree =
            tree.with_pinned_evicted(config.planted(crate::engine::plant::Plant::PinnedEvicted));
        Self {
            tree,
            paths: Paths::default(),
            retentions: Vec::new(),
            capacities: Vec::new(),
            errors: Errors::default(),
            reported: Reported::default(),
        }
    }

    // ------------------------------------------------------------------ prompts

    /// Appends `(slot, blocks)` for each replica that is believed to cache leading blocks.
    pub(in crate::engine) fn matches(&mut self, blocks: &[u64], out: &mut Vec<(ReplicaSlot, u32)>) {
        if !blocks.is_empty() {
            self.tree.matches(blocks, out);
        }
    }

    /// Blocks that a replica is believed to cache.
    #[inline]
    pub(in crate::engine) fn owner_blocks(&self, slot: ReplicaSlot) -> u32 {
        self.tree.owner_blocks(slot.number())
    }

    /// Blocks that a replica holds at most.
    #[inline]
    pub(in crate::engine) fn capacity_blocks(&self, slot: ReplicaSlot) -> u32 {
        self.capacities.get(slot.index()).copied().unwrap_or(0)
    }

    /// A prompt goes to a replica, where so many blocks of it were believed to be cached. It stays in
    /// the tree until [`Self::release`].
    pub(in crate::engine) fn push(
        &mut self,
        slot: ReplicaSlot,
        demand: &Demand,
        blocks: u32,
    ) -> Match {
        let end = (blocks as usize).checked_sub(1);
        let end = end.and_then(|last| demand.blocks.get(last).copied());
        let path = self.path(demand, blocks);
        let pin = if demand.blocks.is_empty() {
            None
        } else {
            self.tree.insert(slot.number(), &demand.blocks)
        };
        Match {
            blocks,
            end,
            path,
            pin,
        }
    }

    /// A request is no longer in flight: its prompt may be evicted again, and goes on with the answer,
    /// because the next turn's prompt contains it.
    pub(in crate::engine) fn release(
        &mut self,
        matched: Match,
        prompt_blocks: u32,
        answer: &[u64],
    ) {
        if let Some(pin) = matched.pin {
            self.tree.extend(pin, prompt_blocks as usize, answer);
        }
    }

    // ------------------------------------------------------------------ replicas

    /// A replica that is new has come to a slot.
    pub(in crate::engine) fn add(&mut self, slot: ReplicaSlot) {
        *self.retention_mut(slot) = Retention::default();
        *self.capacity_mut(slot) = 0;
    }

    /// A replica has left the fleet.
    pub(in crate::engine) fn forget(&mut self, slot: ReplicaSlot) {
        self.tree.forget(slot.number());
    }

    /// Another engine process answers, whose cache is empty.
    pub(in crate::engine) fn restarted(&mut self, slot: ReplicaSlot) {
        self.tree.forget(slot.number());
        *self.retention_mut(slot) = Retention::default();
    }

    fn retention_mut(&mut self, slot: ReplicaSlot) -> &mut Retention {
        at(&mut self.retentions, slot)
    }

    fn capacity_mut(&mut self, slot: ReplicaSlot) -> &mut u32 {
        at(&mut self.capacities, slot)
    }

    /// Gives the tree's bound for one replica: what its KV cache holds. Followed when it moves by more
    /// than a sixteenth, so that the learned ratio's jitter evicts nothing; `anew`: in any case.
    pub(in crate::engine) fn fit(
        &mut self,
        fleet: &Fleet,
        slot: ReplicaSlot,
        anew: bool,
        config: &Config,
    ) {
        let Some((kv_tokens, bytes_per_token)) = fleet.kv_of(slot, config) else {
            return;
        };
        let tokens = self.retention_mut(slot).of(kv_tokens);
        let blocks = blocks_of(tokens, bytes_per_token, config.block_bytes).max(1);
        let capacity = self.capacity_mut(slot);
        if anew || blocks.abs_diff(*capacity) > *capacity / 16 {
            *capacity = blocks;
            self.tree.set_capacity(slot.number(), blocks);
        }
    }

    // ------------------------------------------------------------------ figures and invariants

    /// Memory of the tree, in bytes.
    pub(in crate::engine) fn bytes(&self) -> usize {
        self.tree.bytes()
    }

    /// The same beside its bound.
    pub(in crate::engine) fn state(&self, config: &Config) -> TreeState {
        TreeState {
            bytes: self.bytes(),
            bytes_max: config.tree_bytes_max,
        }
    }

    /// Predicted minus confirmed cached tokens: upper bounds with cumulative counts, and the sum.
    pub(in crate::engine) fn errors(&self) -> (Vec<(f64, u64)>, i64) {
        self.errors.cumulative()
    }

    pub(in crate::engine) fn check_invariants(&self) -> Result<(), String> {
        self.tree.check_invariants()
    }

    pub(in crate::engine) fn check_match(&self, matched: &Match) -> Result<(), String> {
        matched
            .pin
            .as_ref()
            .map_or(Ok(()), |pin| self.tree.check_pin(pin))
    }
}

/// Whole blocks of `block_bytes` prompt bytes in so many tokens.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "positive, and `as` saturates"
)]
fn blocks_of(tokens: u64, bytes_per_token: f64, block_bytes: usize) -> u32 {
    (tokens as f64 * bytes_per_token / block_bytes as f64) as u32
}

/// The entry of a slot, made where there is none.
fn at<T: Clone + Default>(entries: &mut Vec<T>, slot: ReplicaSlot) -> &mut T {
    let index = slot.index();
    if index >= entries.len() {
        entries.resize(index + 1, T::default());
    }
    &mut entries[index]
}
