//! What follows from several settings, or from one that is not set.

use super::Config;
use crate::engine::policy::Traits;
use crate::time::Span;

const NS_PER_S: f64 = 1e9;
/// Longest wait for a replica under policies that cannot tell how long it will be.
const UNWEIGHED_WAIT: Span = Span::from_ns(500_000_000);
/// Part of the longest wait after which a held request is due, if no age is set.
const DUE: (u64, u64) = (4, 5);

impl Config {
    /// A request may wait for a replica without room that the policy prefers.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.policy.traits().waits && !self.affinity_wait_ns.is_zero()
    }

    /// The ring of replicas is walked.
    #[must_use]
    pub fn walks_ring(&self) -> bool {
        self.any_policy(|traits| traits.walks_ring)
    }

    /// The policy, or its shadow, has this trait.
    #[must_use]
    pub fn any_policy(&self, has: impl Fn(&Traits) -> bool) -> bool {
        has(self.policy.traits())
            || self
                .shadow_policy
                .is_some_and(|shadow| has(shadow.traits()))
    }

    /// How long a request waits for a replica without room, while another has some, at most. A policy that
    /// predicts no times does not know what the wait costs.
    #[must_use]
    pub fn wait_max_ns(&self) -> Span {
        if self.policy.traits().orders_by_work {
            self.affinity_wait_ns
        } else {
            self.affinity_wait_ns.min(UNWEIGHED_WAIT)
        }
    }

    /// Age from which on a held request gets the next room it can use.
    #[must_use]
    pub fn due_after_ns(&self) -> Span {
        let (parts, of) = DUE;
        self.hold_age_max_ns
            .unwrap_or(self.hold_timeout_ns * parts / of)
    }

    /// Prompt tokens that take as long as the first token of a cached prompt, until a replica's own are learned.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and `as` saturates"
    )]
    pub fn step_tokens(&self) -> u32 {
        (self.ttft_base_ns.ns_f64() / NS_PER_S * self.prefill_tokens_per_s) as u32
    }

    /// Requests and bytes of one tenant in the hold.
    #[must_use]
    pub fn hold_of_tenant_max(&self) -> (usize, u64) {
        let len_max = self.hold_tenant_len_max;
        let bytes_max = self.hold_tenant_bytes_max;
        (
            len_max.unwrap_or((self.hold_len_max / 4).max(1)),
            bytes_max.unwrap_or(self.hold_bytes_max / 4),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::policy::Policy;

    #[test]
    fn only_a_policy_that_weighs_a_wait_waits_for_long() {
        let waits = |policy, affinity_wait_ns| {
            let config = Config {
                policy,
                affinity_wait_ns,
                ..Config::sample()
            };
            config.wait_max_ns().ns() / 1_000_000
        };
        let long = Span::from_ns(3_000_000_000);
        assert_eq!(waits(Policy::Predictive, long), 3_000);
        assert_eq!(waits(Policy::Prefix, long), 500);
        assert_eq!(waits(Policy::Prefix, Span::from_ns(100_000_000)), 100);
    }
}
