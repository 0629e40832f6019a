//! Monotonic counters of the engine.

use crate::engine::choose::policy::Basis;
use crate::engine::effect::Outcome;
use crate::prompt::class::Class;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Monotonic counters.
        #[derive(Debug, Default, Clone, PartialEq, Eq)]
        pub(in crate::engine) struct Counters {
            $($(#[$doc])* pub(in crate::engine) $name: u64,)*
        }

        impl Counters {
            pub(in crate::engine) fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Requests placed.
    submitted,
    /// Requests under way that another engine process had placed.
    adopted,
    /// Of those, whose tenants are over a limit.
    adopted_over_limit,
    /// Attempts begun.
    pushed,
    /// Places taken in the hold.
    hold_entered,
    /// Requests refused a place because the hold was full.
    hold_full,
    /// Requests refused a place because their tenant had its part of the hold.
    hold_tenant_full,
    /// Requests refused a place because overload lasted.
    hold_shed,
    /// Waits for a replica that caches the prompt while others had room.
    affinity_waits,
    /// Times that a younger request took room before an older one of its queue.
    hold_passed_over,
    /// Held requests started because they were due.
    hold_due,
    /// Held requests started, by class.
    hold_started_high,
    /// See `hold_started_high`.
    hold_started_normal,
    /// See `hold_started_high`.
    hold_started_low,
    /// Attempts begun here while this region was evacuated.
    evacuation_stayed,
    /// Held requests whose client left.
    left_held,
    /// Held requests whose deadline passed.
    expired,
    /// Requests refused.
    rejected,
    /// Requests that ended well.
    completed_ok,
    /// Requests whose client left.
    completed_client_left,
    /// Requests whose replica failed after the first byte.
    completed_replica_failed,
    /// Failed attempts that were tried again.
    retries,
    /// Times that a stream which had begun left a replica or a peer, to go on elsewhere.
    resumed,
    /// Failed attempts that the budget did not allow to try again.
    retry_denied,
    /// Answers "full" or "too many".
    full,
    /// Replicas found wedged.
    wedged,
    /// Attempts given up because their replica was down or wedged.
    withdrawn,
    /// Times that all lists of models were to be read again, for requests for models in none.
    model_looks,
    /// Completions of requests that are not known.
    unknown_completions,
    /// First bytes of requests that are not in flight.
    unknown_first_bytes,
    /// Failures of requests that are not in flight.
    unknown_retries,
    /// Facts about replicas that are not in the fleet.
    unknown_replicas,
    /// Replicas seen to have restarted.
    restarts,
    /// Blocks of pushed prompts believed to be cached where they went.
    match_blocks,
    /// The other blocks of pushed prompts.
    miss_blocks,
    /// Choices by matching prefix.
    chosen_by_match,
    /// Choices by session key.
    chosen_by_key,
    /// Choices by load.
    chosen_by_load,
    /// Choices by turn.
    chosen_by_turn,
    /// Choices where only one replica had room.
    chosen_alone,
    /// Choices by predicted time.
    chosen_by_time,
    /// Choices drawn to learn about replicas that are not chosen otherwise.
    chosen_to_explore,
    /// First pushes for which the shadow policy chose the same replica.
    shadow_same,
    /// First pushes for which it chose another replica.
    shadow_other,
    /// First pushes for which it chose to wait for a replica without room.
    shadow_waits,
    /// Sum of the times by which its choices were predicted to give the first token sooner, ...
    shadow_sooner_ns,
    /// ... and later.
    shadow_later_ns,
    /// Cached tokens predicted, of answers that report theirs.
    cached_tokens_predicted,
    /// Cached tokens reported.
    cached_tokens_confirmed,
    /// Sum of the differences of both.
    cached_tokens_error,
    /// Answers that the engine did not find again in the next turn's prompt.
    answers_not_found,
    /// Prompts of which an engine had cached less than predicted.
    cache_misses,
    /// Times that a replica was believed to have evicted what it was last used for earlier.
    cache_corrections,
    /// Blocks dropped for it.
    cache_corrected_blocks,
    /// Forwards begun.
    forwarded,
    /// Forwards that peers refused.
    forwards_refused,
    /// Forwards that came from peers.
    forwards_arrived,
    /// Facts about peers, and forwards from peers, that are not configured.
    unknown_peers,
    /// Summaries taken over.
    summaries_merged,
    /// Summaries that could not be read or were not newer.
    summaries_refused,
    /// Digests of hot prefixes told to peers.
    peer_digests_told,
    /// Digests of peers taken over.
    peer_digests_merged,
    /// Digests of peers that could not be read, not be compared, or were not newer.
    peer_digests_refused,
    /// Forwards that were chosen by what their peers had told.
    peer_digest_hits,
    /// Of those whose answers told `cached_tokens`: tokens that should have been cached, ...
    peer_digest_tokens,
    /// ... and of them, found.
    peer_digest_tokens_found,
    /// Messages about shared replicas taken over.
    shares_merged,
    /// Such messages that could not be read.
    shares_refused,
    /// Attempts given up because their replica was announced to end.
    left_on_notice,
    /// Messages sent to balancers of our region about pushed prompts, ...
    cached_told,
    /// ... and their bytes.
    cached_bytes,
    /// Blocks of prompts and answers that did not fit into such messages, over all peers.
    cached_left_out,
    /// Prompts and answers that they have told of, and that have entered the tree.
    cached_heard,
    /// Those whose beginning was not known here.
    cached_unplaced,
    /// Messages about pushed prompts that could not be read, not be compared, or were not newer.
    cached_refused,
    /// Pages of replicas' metrics that other balancers of our region passed on.
    pages_heard,
    /// Requests refused because they may be served nowhere.
    residency_refused,
    /// Requests refused because their tenant had used up a limit.
    rate_limited,
    /// Requests refused because their tenant may not use the model.
    model_refused,
    /// Messages about tenants taken over.
    tenants_merged,
    /// Such messages that could not be read or were not newer.
    tenants_refused,
}

impl Counters {
    pub(in crate::engine) fn count_basis(&mut self, basis: Basis) {
        *match basis {
            Basis::Match => &mut self.chosen_by_match,
            Basis::Key => &mut self.chosen_by_key,
            Basis::Load => &mut self.chosen_by_load,
            Basis::Turn => &mut self.chosen_by_turn,
            Basis::Only => &mut self.chosen_alone,
            Basis::Time => &mut self.chosen_by_time,
            Basis::Explore => &mut self.chosen_to_explore,
        } += 1;
    }

    /// A request was refused at once with this code.
    pub(in crate::engine) fn count_refusal(&mut self, code: &str) {
        match code {
            "residency" => self.residency_refused += 1,
            "rate_limit_exceeded" => self.rate_limited += 1,
            "model_not_allowed" => self.model_refused += 1,
            _ => {}
        }
    }

    pub(in crate::engine) fn count_class(&mut self, class: Class) {
        *match class {
            Class::High => &mut self.hold_started_high,
            Class::Normal => &mut self.hold_started_normal,
            Class::Low => &mut self.hold_started_low,
        } += 1;
    }

    pub(in crate::engine) fn count_outcome(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Ok => &mut self.completed_ok,
            Outcome::ClientLeft | Outcome::GivenUp => &mut self.completed_client_left,
            Outcome::ReplicaFailed => &mut self.completed_replica_failed,
        } += 1;
    }
}
