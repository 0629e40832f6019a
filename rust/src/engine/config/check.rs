//! Which settings the engine can work with.

use super::{Config, ConfigError, WEIGHT_MAX};

impl Config {
    /// Refuses values on which a rule would divide by zero, never end, or never let anything pass.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_positive()?;
        check_ranges(&self.shares())?;
        check_ranges(&self.ranges())
    }

    fn check_positive(&self) -> Result<(), ConfigError> {
        let positive = [
            ("outstanding_max", u64::from(self.outstanding_max)),
            (
                "blind_outstanding_max",
                u64::from(self.blind_outstanding_max),
            ),
            ("in_flight_max", u64::from(self.in_flight_max)),
            ("hold_timeout_s", self.hold_timeout_ns.ns()),
            ("hold_passes_max", u64::from(self.hold_passes_max)),
            ("class_weight_high", u64::from(self.class_weight_high)),
            ("class_weight_normal", u64::from(self.class_weight_normal)),
            ("class_weight_low", u64::from(self.class_weight_low)),
            ("block_bytes", self.block_bytes as u64),
            ("prompt_blocks_max", self.prompt_blocks_max as u64),
            ("replica_kv_tokens", self.replica_kv_tokens),
            ("output_tokens", u64::from(self.output_tokens)),
            ("probe_interval_s", self.probe_interval_ns.ns()),
            ("probe_idle_interval_s", self.probe_idle_interval_ns.ns()),
            ("probe_stale_s", self.probe_stale_ns.ns()),
            ("wedged_s", self.wedged_ns.ns()),
            ("attempts_max", u64::from(self.attempts_max)),
            ("eject_failures", u64::from(self.eject_failures)),
            ("eject_s", self.eject_ns.ns()),
            ("eject_max_s", self.eject_max_ns.ns()),
            ("ring_vnodes", u64::from(self.ring_vnodes)),
            ("response_ids_max", self.response_ids_max as u64),
            ("sessions_max", self.sessions_max as u64),
            ("preble_window_s", self.preble_window_ns.ns()),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError(format!("{name}: must be above zero")));
        }
        Ok(())
    }

    /// Settings that are a part of one.
    fn shares(&self) -> [(&'static str, f64, f64, f64); 10] {
        [
            ("match_threshold", self.match_threshold, 0.0, 1.0),
            ("retry_ratio", self.retry_ratio, 0.0, 1.0),
            ("eject_ratio_max", self.eject_ratio_max, 0.0, 1.0),
            (
                "cache_aware_threshold",
                self.cache_aware_threshold,
                0.0,
                1.0,
            ),
            ("shed_ratio_max", self.shed_ratio_max, 0.0, 1.0),
            ("explore_ratio", self.explore_ratio, 0.0, 1.0),
            (
                "tenant_headroom_ratio",
                self.tenant_headroom_ratio,
                0.0,
                1.0,
            ),
            ("session_gain_ratio", self.session_gain_ratio, 0.0, 1.0),
            ("leave_gain_ratio", self.leave_gain_ratio, 0.0, 1.0),
            ("smg_kv_ratio_max", self.smg_kv_ratio_max, 0.0, 1.0),
        ]
    }

    /// Other numbers with a fraction, and their bounds.
    fn ranges(&self) -> [(&'static str, f64, f64, f64); 15] {
        [
            (
                "bytes_per_token",
                self.bytes_per_token,
                f64::MIN_POSITIVE,
                f64::MAX,
            ),
            ("retry_per_s", self.retry_per_s, 0.0, f64::MAX),
            ("ring_load_factor", self.ring_load_factor, 1.0, f64::MAX),
            ("cache_aware_rel", self.cache_aware_rel, 1.0, f64::MAX),
            ("prefill_tokens_per_s", self.prefill_tokens_per_s, 1.0, 1e9),
            ("decode_tokens_per_s", self.decode_tokens_per_s, 1e-3, 1e9),
            ("hold_work_weight", self.hold_work_weight, 0.0, WEIGHT_MAX),
            ("delay_weight", self.delay_weight, 0.0, WEIGHT_MAX),
            ("evict_weight", self.evict_weight, 0.0, WEIGHT_MAX),
            ("queue_weight", self.queue_weight, 0.0, WEIGHT_MAX),
            (
                "dynamo_prefill_weight",
                self.dynamo_prefill_weight,
                0.0,
                WEIGHT_MAX,
            ),
            (
                "llm_d_prefix_weight",
                self.llm_d_prefix_weight,
                0.0,
                WEIGHT_MAX,
            ),
            (
                "llm_d_queue_weight",
                self.llm_d_queue_weight,
                0.0,
                WEIGHT_MAX,
            ),
            ("llm_d_kv_weight", self.llm_d_kv_weight, 0.0, WEIGHT_MAX),
            (
                "preble_balance_ratio",
                self.preble_balance_ratio,
                1.0,
                f64::MAX,
            ),
        ]
    }
}

fn check_ranges(ranges: &[(&'static str, f64, f64, f64)]) -> Result<(), ConfigError> {
    let wrong = ranges
        .iter()
        .find(|(_, value, low, high)| !(low..=high).contains(&value));
    match wrong {
        Some((name, value, low, high)) => Err(ConfigError(format!(
            "{name}: {value} is not between {low} and {high}"
        ))),
        None => Ok(()),
    }
}
