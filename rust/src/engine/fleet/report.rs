//! A replica's figures for operators.

use serde::Serialize;

use super::member::Member;
use super::{Fleet, gate};
use crate::engine::config::Config;
use crate::id::{ReplicaId, ReplicaSlot};
use crate::time::Instant;

/// One replica's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a gauge of its own")]
pub struct Gauges {
    /// The replica.
    pub replica: ReplicaId,
    /// Its name, as configured.
    pub name: String,
    /// New requests may go there.
    pub ready: bool,
    /// The operator wants no new requests on it.
    pub draining: bool,
    /// Its load is not known.
    pub blind: bool,
    /// Its engine says that it sleeps.
    pub asleep: bool,
    /// `unknown`, `up`, `ejected`, `probing`, `down`.
    pub health: &'static str,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests believed to wait for the batch.
    pub pending: u32,
    /// Running, carried forward.
    pub running: Option<u32>,
    /// Waiting, carried forward.
    pub waiting: Option<u32>,
    /// Share of its KV cache in use, 0 to 1, as of its last page; `None` while it is blind.
    pub kv_used: Option<f64>,
    /// Pending requests allowed.
    pub allowance: u32,
    /// Blocks it is believed to cache.
    pub tree_blocks: u32,
    /// Attempts begun there.
    pub pushed_total: u64,
    /// Attempts that failed there, "full" left out.
    pub failed_total: u64,
    /// Blocks of prompts pushed there that were believed to be cached.
    pub match_blocks_total: u64,
    /// Blocks of prompts pushed there.
    pub prompt_blocks_total: u64,
    /// Cached prompt tokens it reported.
    pub cached_tokens_total: u64,
    /// Prompt tokens it reported.
    pub prompt_tokens_total: u64,
}

/// What else operators see of a replica.
#[derive(Debug, Serialize)]
pub(in crate::engine) struct ReplicaState<'a> {
    #[serde(flatten)]
    pub(in crate::engine) gauges: Gauges,
    pub(in crate::engine) models: Vec<&'a str>,
    pub(in crate::engine) room: u32,
    pub(in crate::engine) closed_by: Option<&'static str>,
    pub(in crate::engine) knee: Option<u32>,
    pub(in crate::engine) capacity_blocks: u32,
    /// Its time to a first token, as learned by decode load: load, base and time per computed token in
    /// nanoseconds.
    pub(in crate::engine) speed: Vec<(f64, f64, f64)>,
    pub(in crate::engine) removed: bool,
    /// Seconds until it ends, where that was announced.
    pub(in crate::engine) leaves_in_s: Option<f64>,
    /// Seconds until what is left there goes on elsewhere, where an operator wants that.
    pub(in crate::engine) empties_in_s: Option<f64>,
    /// Other balancers of our region push there; what they have in flight; whether we probe it.
    pub(in crate::engine) shared: bool,
    pub(in crate::engine) theirs_in_flight: u32,
    pub(in crate::engine) probed_here: bool,
}

impl Fleet {
    /// The figures of each replica, in the order of their ids; `blocks`: that it is believed to cache.
    pub(in crate::engine) fn gauges(
        &self,
        blocks: impl Fn(ReplicaSlot) -> u32,
        config: &Config,
        now: Instant,
    ) -> Vec<Gauges> {
        let listed = self.members().filter(|(_, member)| !member.removed());
        let gauges = listed.map(|(slot, member)| member.gauges(blocks(slot), config, now));
        let mut gauges: Vec<_> = gauges.collect();
        gauges.sort_unstable_by_key(|gauges| gauges.replica);
        gauges
    }

    /// Its monotonic counters by name.
    pub(in crate::engine) fn counters(&self) -> [(&'static str, u64); 3] {
        let (compared, within) = self.accuracy().within_a_fifth();
        [
            ("models_ignored", self.models_ignored()),
            ("ttft_predicted", compared),
            ("ttft_within_a_fifth", within),
        ]
    }

    /// What operators see of a replica. `blocks`: that it is believed to cache, and that it can; `shared`: by
    /// other balancers, and whether we probe it.
    pub(in crate::engine) fn state_of<'a>(
        &'a self,
        member: &Member,
        blocks: (u32, u32),
        shared: (bool, bool),
        (config, now): (&Config, Instant),
    ) -> ReplicaState<'a> {
        let replica = member.replica();
        let served = member.models().iter();
        ReplicaState {
            gauges: member.gauges(blocks.0, config, now),
            models: served
                .filter_map(|(id, _)| self.name_of(Some(*id)))
                .collect(),
            room: gate::room(replica, config, now),
            closed_by: member.closed_by(config, now),
            knee: replica.knee(),
            capacity_blocks: blocks.1,
            speed: member
                .speed
                .learned()
                .map(|(load, line)| (load.round(), line.base_ns.round(), line.token_ns.round()))
                .collect(),
            removed: member.removed(),
            leaves_in_s: member.leaves_in_ns(now).map(|left| left.ns_f64() / 1e9),
            empties_in_s: member.empties_in_ns(now).map(|left| left.ns_f64() / 1e9),
            shared: shared.0,
            theirs_in_flight: replica.theirs(),
            probed_here: shared.1,
        }
    }
}

impl Member {
    /// Its figures; `tree_blocks`: what it is believed to cache.
    pub(in crate::engine) fn gauges(
        &self,
        tree_blocks: u32,
        config: &Config,
        now: Instant,
    ) -> Gauges {
        let replica = &self.replica;
        let blind = replica.blind(config, now);
        let snapshot = replica.snapshot().filter(|_| !blind);
        Gauges {
            replica: self.id,
            name: self.name.clone(),
            ready: self.ready(config, now),
            draining: replica.health.draining(),
            blind,
            asleep: snapshot.is_some_and(|snapshot| snapshot.sleeping),
            health: replica.health.state().name(),
            in_flight: self.in_flight(),
            pending: replica.pending(),
            running: replica.running(),
            waiting: replica.waiting(),
            kv_used: snapshot.and_then(|snapshot| snapshot.kv_usage),
            allowance: replica.allowance(config).min(config.in_flight_max),
            tree_blocks,
            pushed_total: self.pushed_total,
            failed_total: self.failed_total,
            match_blocks_total: self.match_blocks_total,
            prompt_blocks_total: self.prompt_blocks_total,
            cached_tokens_total: self.cached_tokens_total,
            prompt_tokens_total: self.prompt_tokens_total,
        }
    }
}
