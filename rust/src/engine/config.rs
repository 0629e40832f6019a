//! The engine's settings; their defaults are written once, in `skylb/settings/engine.py`.
//!
//! Every field of `EngineSettings` has its counterpart here under the same name. Settings in
//! seconds (`_s`) become nanoseconds (`_ns`) when they are read, so that no decision computes with
//! floating-point time.

mod check;
mod derived;
mod rules;

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::plant::Plant;
use crate::time::Span;

pub use rules::{
    AllowanceRule, CacheAwareFallback, ClassRule, PushRule, TenantRule, UnknownModels,
};

pub use super::policy::Policy;

/// Largest weight of one signal against others.
const WEIGHT_MAX: f64 = 1e6;
/// Longest duration a setting may have: a century, so that sums of times cannot overflow.
const SECONDS_MAX: f64 = 100.0 * 366.0 * 86_400.0;

/// The engine's settings, as Python validated them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The bug that a test has planted.
    #[cfg(test)]
    #[serde(skip)]
    pub plant: Option<Plant>,
    /// How a replica is chosen.
    pub policy: Policy,
    /// A second policy that is asked about each choice, without effect.
    pub shadow_policy: Option<Policy>,
    /// When a request may be pushed.
    pub push: PushRule,
    /// Requests in flight per replica under [`PushRule::Outstanding`].
    pub outstanding_max: u32,
    /// Pending requests allowed per replica.
    pub allowance: AllowanceRule,
    /// Prompts pushed ahead while nobody waits for a slot may take so many times what the first token of a
    /// cached prompt takes ([`AllowanceRule::Knee`]).
    pub ahead_steps: u32,
    /// Requests in flight on a replica whose metrics cannot be read.
    pub blind_outstanding_max: u32,
    /// Hard cap of requests in flight per replica.
    pub in_flight_max: u32,
    /// Longest wait in the hold.
    #[serde(rename = "hold_timeout_s", deserialize_with = "seconds")]
    pub hold_timeout_ns: Span,
    /// Requests held at most.
    pub hold_len_max: usize,
    /// Bytes of the bodies held at most.
    pub hold_bytes_max: u64,
    /// Requests of one tenant held at most; unset: a quarter of the hold.
    pub hold_tenant_len_max: Option<usize>,
    /// Bytes of one tenant's bodies held at most; unset: a quarter of the hold's.
    pub hold_tenant_bytes_max: Option<u64>,
    /// `predictive`: how much later a held request counts for the time that its
    /// uncached prompt takes; 0 is first come, first served.
    pub hold_work_weight: f64,
    /// How often a held request is passed over at most.
    pub hold_passes_max: u32,
    /// Age from which on a held request gets the next room it can use; unset: see [`Config::due_after_ns`].
    #[serde(rename = "hold_age_max_s", deserialize_with = "maybe_seconds")]
    pub hold_age_max_ns: Option<Span>,
    /// Share of new requests that is refused at most while overload lasts, rather than held.
    pub shed_ratio_max: f64,
    /// How classes share the room there is.
    pub class_rule: ClassRule,
    /// The share of urgent requests under [`ClassRule::Weighted`].
    pub class_weight_high: u32,
    /// The share of all that say nothing.
    pub class_weight_normal: u32,
    /// The share of requests that can wait.
    pub class_weight_low: u32,
    /// Wait after which a request counts as one class more urgent; 0 is never.
    #[serde(rename = "class_age_s", deserialize_with = "seconds")]
    pub class_age_ns: Span,
    /// How tenants of one class share the room there is.
    pub tenant_rule: TenantRule,
    /// How much more than the one that has had least a tenant may have had, and be due.
    pub tenant_quantum_tokens: u32,
    /// Share of a replica's KV cache and slots that a tenant leaves free which has more than its part.
    pub tenant_headroom_ratio: f64,
    /// The body of any client says its class (`priority`, `service_tier`), not only that of a trusted
    /// one. A class below normal counts in either case.
    pub class_from_body: bool,
    /// Share of a prompt that must match before its owner is preferred.
    pub match_threshold: f64,
    /// Prompt bytes per hashed block.
    pub block_bytes: usize,
    /// Blocks hashed per prompt at most.
    pub prompt_blocks_max: usize,
    /// Memory of the prefix tree in bytes.
    pub tree_bytes_max: usize,
    /// KV capacity assumed until a replica tells its own.
    pub replica_kv_tokens: u64,
    /// Prompt bytes per token assumed until learned from usage.
    pub bytes_per_token: f64,
    /// Answer length in tokens assumed until learned.
    pub output_tokens: u32,
    /// Time between probes while the gate decides.
    #[serde(rename = "probe_interval_s", deserialize_with = "seconds")]
    pub probe_interval_ns: Span,
    /// Time between probes while it does not.
    #[serde(rename = "probe_idle_interval_s", deserialize_with = "seconds")]
    pub probe_idle_interval_ns: Span,
    /// Age at which a snapshot no longer counts and the replica is blind.
    #[serde(rename = "probe_stale_s", deserialize_with = "seconds")]
    pub probe_stale_ns: Span,
    /// Without a sign of life for so long, a replica with requests is wedged.
    #[serde(rename = "wedged_s", deserialize_with = "seconds")]
    pub wedged_ns: Span,
    /// Replicas tried per request.
    pub attempts_max: u32,
    /// Retries allowed as a share of requests.
    pub retry_ratio: f64,
    /// Retries always allowed per second.
    pub retry_per_s: f64,
    /// Consecutive failures that eject a replica.
    pub eject_failures: u32,
    /// First ejection; doubles while the replica keeps failing.
    #[serde(rename = "eject_s", deserialize_with = "seconds")]
    pub eject_ns: Span,
    /// Longest ejection.
    #[serde(rename = "eject_max_s", deserialize_with = "seconds")]
    pub eject_max_ns: Span,
    /// Share of a pool that may be ejected.
    pub eject_ratio_max: f64,
    /// Linear ramp of a replica that came back.
    #[serde(rename = "ramp_s", deserialize_with = "seconds")]
    pub ramp_ns: Span,
    /// What becomes of requests for models in no list.
    pub unknown_models: UnknownModels,
    /// How long a model that left every list is unavailable rather than unknown.
    #[serde(rename = "model_gone_s", deserialize_with = "seconds")]
    pub model_gone_ns: Span,
    /// `Retry-After` of refusals, in seconds.
    pub retry_after_s: u32,
    /// Virtual nodes per replica on the ring.
    pub ring_vnodes: u32,
    /// `bounded_ring`: load over the mean at which the walk goes on.
    pub ring_load_factor: f64,
    /// `cache_aware`, `smg`: what decides where too little matches.
    pub cache_aware_fallback: CacheAwareFallback,
    /// `cache_aware`: match share that binds.
    pub cache_aware_threshold: f64,
    /// `cache_aware`: load difference that spills.
    pub cache_aware_abs: u32,
    /// `cache_aware`: load ratio that spills.
    pub cache_aware_rel: f64,
    /// Ids of `/v1/responses` remembered.
    pub response_ids_max: usize,
    /// Sessions whose last replica, and keys whose answer length, are remembered.
    pub sessions_max: usize,
    /// Longest that a request waits for one replica while another has room.
    #[serde(rename = "affinity_wait_s", deserialize_with = "seconds")]
    pub affinity_wait_ns: Span,
    /// Prompt tokens an engine computes per second, assumed until learned.
    pub prefill_tokens_per_s: f64,
    /// Time to the first token of a cached prompt, assumed until learned.
    #[serde(rename = "ttft_base_s", deserialize_with = "seconds")]
    pub ttft_base_ns: Span,
    /// Tokens per second of one answer, assumed until learned.
    pub decode_tokens_per_s: f64,
    /// `predictive`: share of choices drawn at random.
    pub explore_ratio: f64,
    /// `predictive`: a session moves for a gain of more than this ...
    #[serde(rename = "session_gain_s", deserialize_with = "seconds")]
    pub session_gain_ns: Span,
    /// ... and more than this share.
    pub session_gain_ratio: f64,
    /// `predictive`: a request leaves its region for a gain of more than this ...
    #[serde(rename = "leave_gain_s", deserialize_with = "seconds")]
    pub leave_gain_ns: Span,
    /// ... and more than this share.
    pub leave_gain_ratio: f64,
    /// `predictive`: weight of the delay of running streams.
    pub delay_weight: f64,
    /// `predictive`: weight of computing again what is evicted.
    pub evict_weight: f64,
    /// `predictive`: weight of the delay of the prompts that are queued.
    pub queue_weight: f64,
    /// `dynamo`: weight of prompt blocks against decode blocks.
    pub dynamo_prefill_weight: f64,
    /// `llm_d`: weight of the prefix scorer.
    pub llm_d_prefix_weight: f64,
    /// `llm_d`: weight of the queue scorer.
    pub llm_d_queue_weight: f64,
    /// `llm_d`: weight of the KV scorer.
    pub llm_d_kv_weight: f64,
    /// A peer that holds more for a model gets no requests for it, and refuses them (the paper's tau).
    pub peer_hold_max: u32,
    /// `smg`: waiting requests from which a replica is overloaded.
    pub smg_waiting_max: u32,
    /// `smg`: share of KV in use from which it is.
    pub smg_kv_ratio_max: f64,
    /// `preble`: time over which load is summed.
    #[serde(rename = "preble_window_s", deserialize_with = "seconds")]
    pub preble_window_ns: Span,
    /// `preble`: load ratio at which exploitation gives way.
    pub preble_balance_ratio: f64,
    /// `dualmap`: leading prompt blocks that are hashed to two replicas.
    pub dualmap_blocks: u32,
    /// `dualmap`: predicted time to the first token above which load decides.
    #[serde(rename = "dualmap_slo_s", deserialize_with = "seconds")]
    pub dualmap_slo_ns: Span,
    /// `gorgo`: time per prompt token.
    #[serde(rename = "gorgo_token_s", deserialize_with = "seconds")]
    pub gorgo_token_ns: Span,
}

/// The settings do not fit; the text names the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the settings from JSON: every field required, no other allowed.
    ///
    /// # Errors
    ///
    /// A field is missing, unknown, of the wrong type, or outside what the engine can work with;
    /// the tighter bounds an operator meets are checked in Python.
    pub fn from_json(json: &[u8]) -> Result<Self, ConfigError> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let config: Self = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| ConfigError(error.to_string()))?;
        reader
            .end()
            .map_err(|error| ConfigError(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// Whether a test has planted this bug.
    #[cfg(test)]
    pub(crate) fn planted(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    /// Never, outside of tests.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "as in tests")]
    pub(crate) const fn planted(&self, _: Plant) -> bool {
        false
    }

    /// Settings for tests and benches. **Not the defaults**: those are in Python's `settings/engine.py` and `settings/serving.py`.
    #[must_use]
    pub fn sample() -> Self {
        Self::SAMPLE
    }

    const SAMPLE: Self = Self {
        #[cfg(test)]
        plant: None,
        policy: Policy::Prefix,
        shadow_policy: None,
        push: PushRule::Pending,
        outstanding_max: 32,
        allowance: AllowanceRule::One,
        ahead_steps: 0,
        blind_outstanding_max: 16,
        in_flight_max: 1024,
        hold_timeout_ns: Span::from_ns(30_000_000_000),
        hold_len_max: 10_000,
        hold_bytes_max: 1 << 30,
        hold_tenant_len_max: None,
        hold_tenant_bytes_max: None,
        hold_work_weight: 0.0,
        hold_passes_max: 64,
        hold_age_max_ns: Some(Span::from_ns(10_000_000_000)),
        shed_ratio_max: 0.0,
        class_rule: ClassRule::Weighted,
        class_weight_high: 8,
        class_weight_normal: 4,
        class_weight_low: 1,
        class_age_ns: Span::from_ns(5_000_000_000),
        tenant_rule: TenantRule::None,
        tenant_quantum_tokens: 4_000,
        tenant_headroom_ratio: 0.0,
        class_from_body: false,
        match_threshold: 0.5,
        block_bytes: 64,
        prompt_blocks_max: 32_768,
        tree_bytes_max: 256 << 20,
        replica_kv_tokens: 1_000_000,
        bytes_per_token: 4.0,
        output_tokens: 256,
        probe_interval_ns: Span::from_ns(100_000_000),
        probe_idle_interval_ns: Span::from_ns(1_000_000_000),
        probe_stale_ns: Span::from_ns(3_000_000_000),
        wedged_ns: Span::from_ns(10_000_000_000),
        attempts_max: 2,
        retry_ratio: 0.2,
        retry_per_s: 10.0,
        eject_failures: 5,
        eject_ns: Span::from_ns(1_000_000_000),
        eject_max_ns: Span::from_ns(30_000_000_000),
        eject_ratio_max: 0.5,
        ramp_ns: Span::from_ns(10_000_000_000),
        unknown_models: UnknownModels::Refuse,
        model_gone_ns: Span::from_ns(60_000_000_000),
        retry_after_s: 1,
        ring_vnodes: 256,
        ring_load_factor: 1.25,
        cache_aware_fallback: CacheAwareFallback::LeastLoad,
        cache_aware_threshold: 0.3,
        cache_aware_abs: 64,
        cache_aware_rel: 1.5,
        response_ids_max: 65_536,
        sessions_max: 65_536,
        affinity_wait_ns: Span::ZERO,
        prefill_tokens_per_s: 10_000.0,
        ttft_base_ns: Span::from_ns(20_000_000),
        decode_tokens_per_s: 30.0,
        explore_ratio: 0.01,
        session_gain_ns: Span::from_ns(20_000_000),
        session_gain_ratio: 0.15,
        leave_gain_ns: Span::from_ns(20_000_000),
        leave_gain_ratio: 0.15,
        delay_weight: 0.1,
        evict_weight: 0.1,
        queue_weight: 1.0,
        dynamo_prefill_weight: 1.0,
        llm_d_prefix_weight: 3.0,
        llm_d_queue_weight: 2.0,
        llm_d_kv_weight: 2.0,
        peer_hold_max: 10,
        smg_waiting_max: 8,
        smg_kv_ratio_max: 0.8,
        preble_window_ns: Span::from_ns(180_000_000_000),
        preble_balance_ratio: 2.0,
        dualmap_blocks: 16,
        dualmap_slo_ns: Span::from_ns(2_000_000_000),
        gorgo_token_ns: Span::from_ns(94_000),
    };
}

/// Seconds as a JSON number, to whole nanoseconds.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if (0.0..=SECONDS_MAX).contains(&value) {
        Ok(Span::from_secs_f64(value))
    } else {
        Err(D::Error::custom(format!(
            "{value} s is not a duration between 0 and a century"
        )))
    }
}

/// The same, or null.
fn maybe_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Span>, D::Error> {
    #[derive(Deserialize)]
    struct Seconds(#[serde(deserialize_with = "seconds")] Span);
    let value = Option::<Seconds>::deserialize(deserializer)?;
    Ok(value.map(|Seconds(span)| span))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"policy":"two_choices","shadow_policy":null,"push":"pending","outstanding_max":32,
        "allowance":"knee","ahead_steps":8,"blind_outstanding_max":16,"in_flight_max":1024,"hold_timeout_s":30.0,
        "hold_len_max":0,"hold_bytes_max":1073741824,"hold_tenant_len_max":null,
        "hold_tenant_bytes_max":268435456,"hold_work_weight":40,"hold_passes_max":64,
        "hold_age_max_s":10.0,"class_rule":"weighted",
        "class_weight_high":8,"class_weight_normal":4,"class_weight_low":1,"class_age_s":5.0,
        "tenant_rule":"fair","tenant_quantum_tokens":4000,"tenant_headroom_ratio":0.3,
        "class_from_body":true,"match_threshold":0.5,"block_bytes":64,
        "prompt_blocks_max":32768,"tree_bytes_max":1048576,"replica_kv_tokens":1000000,
        "bytes_per_token":4.0,"output_tokens":256,"probe_interval_s":0.1,
        "probe_idle_interval_s":1.0,"probe_stale_s":3,"wedged_s":10,"attempts_max":2,"retry_ratio":0.2,
        "retry_per_s":10.0,"eject_failures":5,"eject_s":1.0,"eject_max_s":30.0,
        "eject_ratio_max":0.5,"ramp_s":0,"unknown_models":"refuse","model_gone_s":60,"retry_after_s":1,"ring_vnodes":256,
        "ring_load_factor":1.25,"cache_aware_fallback":"least_load","cache_aware_threshold":0.3,"cache_aware_abs":64,
        "cache_aware_rel":1.5,"response_ids_max":65536,"sessions_max":65536,"affinity_wait_s":0.5,
        "prefill_tokens_per_s":10000,"ttft_base_s":0.02,"decode_tokens_per_s":30,
        "explore_ratio":0.01,"session_gain_s":0.02,"session_gain_ratio":0.15,
        "leave_gain_s":0.4,"leave_gain_ratio":0.5,"delay_weight":0.1,"evict_weight":1,"shed_ratio_max":0.9,"queue_weight":1,"peer_hold_max":10,"dynamo_prefill_weight":1,
        "llm_d_prefix_weight":3,
        "llm_d_queue_weight":2,"llm_d_kv_weight":2,"smg_waiting_max":8,"smg_kv_ratio_max":0.8,
        "preble_window_s":180,"preble_balance_ratio":2,"dualmap_blocks":16,"dualmap_slo_s":2,"gorgo_token_s":0.000094}"#;

    fn fault(from: &str, to: &str) -> String {
        assert!(JSON.contains(from), "the sample has no {from}");
        Config::from_json(JSON.replace(from, to).as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn settings_are_read_with_seconds_as_nanoseconds() {
        let config = Config::from_json(JSON.as_bytes()).unwrap();
        assert_eq!(config.policy, Policy::TwoChoices);
        assert_eq!(config.allowance, AllowanceRule::Knee);
        assert_eq!(config.hold_timeout_ns, Span::from_ns(30_000_000_000));
        assert_eq!(config.probe_interval_ns, Span::from_ns(100_000_000));
        assert_eq!(config.probe_stale_ns, Span::from_ns(3_000_000_000));
        assert_eq!(config.ramp_ns, Span::ZERO);
    }

    #[test]
    fn the_sample_passes_its_own_check() {
        assert_eq!(Config::sample().check(), Ok(()));
    }

    #[test]
    fn a_fault_names_its_field() {
        assert!(fault("\"block_bytes\":64,", "").contains("block_bytes"));
        assert!(fault("\"block_bytes\"", "\"block_bites\"").contains("block_bites"));
        assert!(fault("\"block_bytes\":64", "\"block_bytes\":\"1\"").contains("block_bytes"));
        assert!(fault("\"block_bytes\":64", "\"block_bytes\":0").contains("block_bytes"));
        assert!(
            fault("\"hold_timeout_s\":30.0", "\"hold_timeout_s\":-1").contains("hold_timeout_s")
        );
        assert!(fault("\"ramp_s\":0", "\"ramp_s\":1e300").contains("ramp_s"));
        assert!(fault("\"retry_ratio\":0.2", "\"retry_ratio\":1.5").contains("retry_ratio"));
        assert!(fault("two_choices", "best").contains("policy"));
    }

    #[test]
    fn bytes_after_the_settings_are_refused() {
        assert!(Config::from_json(format!("{JSON} x").as_bytes()).is_err());
    }
}
