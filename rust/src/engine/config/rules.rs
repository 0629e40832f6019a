//! The rules that can be chosen among, by the words that settings have for them.

use serde::Deserialize;

/// How a replica is chosen among those with room; one function in [`crate::engine::choose::policy`] each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Longest matching prefix, else least load (`SkyLB`).
    Prefix,
    /// Consistent hash of the session's key (`SkyLB-CH`).
    Ring,
    /// Each replica in turn.
    RoundRobin,
    /// Fewest requests in flight.
    LeastLoad,
    /// The less loaded of two drawn at random.
    TwoChoices,
    /// Consistent hash that walks past loaded replicas.
    BoundedRing,
    /// `SGLang` router's rule.
    CacheAware,
    /// Least predicted time to the first token (ours).
    Predictive,
    /// Dynamo's block cost.
    Dynamo,
    /// `llm-d`'s prefix, queue and KV scorers.
    LlmD,
    /// smg's cache-aware rule with its overload cut-off.
    Smg,
    /// Preble's exploitation or exploration.
    Preble,
    /// GORGO's additive cost.
    Gorgo,
}

impl Policy {
    /// The word for settings, log and state.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Ring => "ring",
            Self::RoundRobin => "round_robin",
            Self::LeastLoad => "least_load",
            Self::TwoChoices => "two_choices",
            Self::BoundedRing => "bounded_ring",
            Self::CacheAware => "cache_aware",
            Self::Predictive => "predictive",
            Self::Dynamo => "dynamo",
            Self::LlmD => "llm_d",
            Self::Smg => "smg",
            Self::Preble => "preble",
            Self::Gorgo => "gorgo",
        }
    }

    /// It looks at loads and predictions of the candidates.
    #[must_use]
    pub fn reads_figures(self) -> bool {
        matches!(
            self,
            Self::Predictive | Self::Dynamo | Self::LlmD | Self::Smg | Self::Preble | Self::Gorgo
        )
    }

    /// It looks at how much the candidates cache in all.
    #[must_use]
    pub fn reads_trees(self) -> bool {
        matches!(
            self,
            Self::CacheAware | Self::Smg | Self::Predictive | Self::Preble
        )
    }
}

/// When a request may be pushed to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushRule {
    /// At once, whatever the replica's load.
    Blind,
    /// While fewer than `outstanding_max` are in flight.
    Outstanding,
    /// While fewer are pending than the allowance (selective pushing).
    Pending,
}

/// How many pending requests a replica may have under [`PushRule::Pending`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AllowanceRule {
    /// Always one: the paper's rule.
    One,
    /// Learned from the replica's knee.
    Knee,
}

/// How classes share the room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassRule {
    /// By weight, in tokens.
    Weighted,
    /// No request of a class while one of a more urgent class waits.
    Strict,
}

/// What becomes of requests for models that no replica's list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownModels {
    /// They are refused.
    Refuse,
    /// They are sent to a replica as any other, and its answer is passed on.
    Pass,
}
