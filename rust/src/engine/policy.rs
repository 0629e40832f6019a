//! The table of policies: one row each, and one file in [`crate::engine::choose::policy`].
//!
//! To add a policy, write its function in a file of its own there, and add its row here. Its name is
//! then known to the settings, the command line, the simulator and the documents.

use serde::Deserialize;

/// How a request that leaves finds its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRule {
    /// The nearest.
    Nearest,
    /// The longest match over the threshold, else the nearest.
    Match,
    /// The first on the ring of peers from the key's place.
    Ring,
    /// The least predicted time to the first token, the round trip included.
    Time,
}

/// What a policy needs to know, and what else follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a row of a table")]
pub struct Traits {
    /// It looks at loads and predictions of the candidates.
    pub reads_figures: bool,
    /// It looks at how much the candidates cache in all.
    pub reads_trees: bool,
    /// It looks at the KV tokens in use at the candidates.
    pub reads_kv: bool,
    /// It prefers a replica for what is cached there: a request may wait for that one.
    pub waits: bool,
    /// Held requests start by age and predicted work, not by age alone.
    pub orders_by_work: bool,
    /// It looks at where a session was pushed last.
    pub remembers_sessions: bool,
    /// It looks at the work given to the candidates lately.
    pub sums_recent_work: bool,
    /// It walks the ring of replicas.
    pub walks_ring: bool,
    /// How a request that leaves finds its peer.
    pub peer_rule: PeerRule,
}

/// Nothing but loads in flight and matches; peers by distance.
const PLAIN: Traits = Traits {
    reads_figures: false,
    reads_trees: false,
    reads_kv: false,
    waits: false,
    orders_by_work: false,
    remembers_sessions: false,
    sums_recent_work: false,
    walks_ring: false,
    peer_rule: PeerRule::Nearest,
};

/// Loads and predictions as well.
const FIGURES: Traits = Traits {
    reads_figures: true,
    waits: true,
    ..PLAIN
};

/// Calls a macro with the rows of the table: variant, module and function, traits, and what the documents say:
/// its rule and its source.
macro_rules! with_policies {
    ($call:ident) => {
        $call! {
            /// Longest matching prefix, else least load (`SkyLB`).
            Prefix, prefix, Traits { waits: true, peer_rule: PeerRule::Match, ..PLAIN },
                "the longest match if it is more than `match_threshold` of the prompt, ties by fewest in flight; else least load",
                "the paper, tree variant";
            /// Least predicted time to the first token (ours).
            Predictive, predictive, Traits {
                reads_trees: true,
                orders_by_work: true,
                remembers_sessions: true,
                peer_rule: PeerRule::Time,
                ..FIGURES
            },
                "the least predicted time to first token, plus a part of what other requests lose; also over replicas without room",
                "ours, see below";
            /// Consistent hash of the session's key (`SkyLB-CH`).
            Ring, ring, Traits { waits: true, walks_ring: true, peer_rule: PeerRule::Ring, ..PLAIN },
                "consistent hash of the key with virtual nodes, walking on past replicas that cannot take it; without a key least load",
                "the paper, SkyLB-CH";
            /// Each replica in turn.
            RoundRobin, round_robin, PLAIN,
                "each in turn",
                "";
            /// Fewest requests in flight.
            LeastLoad, least_load, PLAIN,
                "fewest in flight",
                "";
            /// The less loaded of two drawn at random.
            TwoChoices, two_choices, PLAIN,
                "the less loaded of two drawn",
                "Mitzenmacher 2001";
            /// Consistent hash that walks past loaded replicas.
            BoundedRing, bounded_ring, Traits { waits: true, walks_ring: true, peer_rule: PeerRule::Ring, ..PLAIN },
                "the same, walking on past replicas above `ring_load_factor` times the mean load",
                "Mirrokni, Thorup, Zadimoghaddam, SODA 2018";
            /// `SGLang` router's rule.
            CacheAware, cache_aware, Traits { waits: true, reads_trees: true, ..PLAIN },
                "while loads are apart by both thresholds least load; else the longest match above `cache_aware_threshold`; else least load (`cache_aware_fallback`)",
                "SGLang router";
            /// smg's cache-aware rule with its overload cut-off.
            Smg, smg, Traits { reads_trees: true, reads_kv: true, ..FIGURES },
                "`cache_aware` over the replicas below `smg_waiting_max` and `smg_kv_ratio_max`, if there are any",
                "smg 1.13, overload guard";
            /// `llm-d`'s prefix, queue and KV scorers.
            LlmD, llm_d, Traits { reads_kv: true, ..FIGURES },
                "the highest weighted sum of matching share, shortness of queue, free KV share",
                "llm-d's scorers";
            /// Dynamo's block cost.
            Dynamo, dynamo, Traits { reads_kv: true, ..FIGURES },
                "the least `weight x` prompt tokens to compute `+` tokens active, this request's included",
                "Dynamo's KV router";
            /// Preble's exploitation or exploration.
            Preble, preble, Traits { reads_trees: true, sums_recent_work: true, ..FIGURES },
                "the owner if more is cached than not and it is not overloaded; else least of recent work, eviction, and the prompt's own time",
                "Preble's E2, arXiv:2407.00023";
            /// `DualMap`'s two replicas of a prefix.
            Dualmap, dualmap, Traits { walks_ring: true, ..FIGURES },
                "of two replicas to which the first `dualmap_blocks` blocks hash: the longer match; the sooner one, if that is predicted to take longer than `dualmap_slo_s`",
                "DualMap, arXiv:2602.06502";
            /// GORGO's additive cost.
            Gorgo, gorgo, FIGURES,
                "the fewest prompt tokens queued and uncached, at a fixed time per token",
                "GORGO, arXiv:2602.11688";
            /// `LMetric`'s product.
            Lmetric, lmetric, FIGURES,
                "the least product of prompt tokens to compute, those queued there included, and the batch size it would join",
                "LMetric, arXiv:2603.15202";
        }
    };
}
pub(in crate::engine) use with_policies;

macro_rules! define {
    ($($(#[$doc:meta])* $variant:ident, $name:ident, $traits:expr, $rule:literal, $source:literal;)*) => {
        /// How a replica is chosen among those with room.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Policy {
            $($(#[$doc])* $variant,)*
        }

        impl Policy {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The policy with this place in the table.
            #[must_use]
            pub fn by_number(number: u8) -> Option<Self> {
                Self::ALL.get(usize::from(number)).copied()
            }

            /// The word for settings, log and state.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($name),)*
                }
            }

            /// Its rule and its source, for the documents.
            #[must_use]
            pub fn about(self) -> (&'static str, &'static str) {
                match self {
                    $(Self::$variant => ($rule, $source),)*
                }
            }

            /// What it needs to know, and what else follows from it.
            #[must_use]
            pub fn traits(self) -> &'static Traits {
                match self {
                    $(Self::$variant => const { &$traits },)*
                }
            }
        }
    };
}
with_policies!(define);
