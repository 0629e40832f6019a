//! The rules that can be chosen among, by the words that settings have for them.

use serde::Deserialize;

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
    /// Always one, pushes since the probe included: the paper's rule, corrected.
    One,
    /// Any number while the last probe found nothing waiting: the paper's rule as published.
    Probed,
    /// Learned from the replica's knee.
    Knee,
}

/// What decides under `cache_aware` where too little of a prompt matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheAwareFallback {
    /// The fewest requests in flight.
    LeastLoad,
    /// The fewest blocks cached.
    SmallestTree,
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

/// How tenants of one class share the room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantRule {
    /// By weight, in tokens.
    Fair,
    /// Their requests wait in one line.
    None,
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
