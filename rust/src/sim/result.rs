//! What came out: the result as JSON.
//!
//! `total` and each of `regions` are a [`Section`]; distributions are [`Distribution`]s in seconds. A
//! request counts in the region that sent it, if it was sent between `warmup_s` and `duration_s`. Its
//! tokens count towards throughput if it was answered in that time.

use std::collections::BTreeMap;

use serde::Serialize;

/// Version of this form; changes when a field changes its meaning.
pub const SCHEMA: u32 = 1;

/// A run's result, whole or so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The scenario's seed.
    pub seed: u64,
    /// Its topology.
    pub topology: &'static str,
    /// The engine's policy; `oracle` under that topology.
    pub policy: &'static str,
    /// Virtual time reached.
    pub now_s: f64,
    /// Nothing is left to do.
    pub done: bool,
    /// Time in which requests were measured, so far.
    pub measured_s: f64,
    /// Events handled: what the run's real time is proportional to.
    pub events: u64,
    /// All regions together.
    pub total: Section,
    /// By region of the clients.
    pub regions: BTreeMap<String, Section>,
    /// By tenant, where requests name any.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<String, Section>,
    /// By class, where requests have any.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, Section>,
    /// Between tenants of a class, over all balancers; none where there are too many or too few.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fairness: Option<Fairness>,
    /// Replicas' outstanding requests against each other.
    pub load_spread: Spread,
    /// The same by region of the replicas; none for a region without any.
    pub region_load_spread: BTreeMap<String, Spread>,
    /// One row per second.
    pub series: Series,
    /// The same by region: requests and tokens by that of the clients, `running` and `waiting` by
    /// that of the replicas.
    pub region_series: BTreeMap<String, Series>,
    /// By replica, in order of their numbers.
    pub replicas: Vec<ReplicaReport>,
    /// Between balancers; none where they do not share.
    pub forwards: Option<Forwards>,
    /// Between balancers of one region; none where there is one of each.
    pub shares: Option<Shares>,
    /// By balancer.
    pub balancers: Vec<BalancerReport>,
    /// Every measured request that has ended, in the order of their ends; with `records` only.
    pub records: Option<Records>,
}

/// Figures of the requests of one region, or of all.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Section {
    /// Requests sent in the measured time.
    pub requests: u64,
    /// Of those, answered in full.
    pub completed: u64,
    /// Of those, failed, by kind: the engine's code (`hold_timeout`, `no_replica`, ...),
    /// `too_long`, `stream_cut`, `client_left`.
    pub failed: BTreeMap<String, u64>,
    /// Of those, neither ended nor under way: always 0.
    pub lost: u64,
    /// Of those, under way (in a whole run: when the time for draining was over).
    pub unfinished: u64,
    /// Attempts beyond the first, of ended requests.
    pub retries: u64,
    /// Prompt tokens of requests answered in the measured time.
    pub input_tokens: u64,
    /// Answer tokens of the same requests.
    pub output_tokens: u64,
    /// Prompt tokens that replicas found in their cache, of the same requests.
    pub cached_tokens: u64,
    /// `cached_tokens / input_tokens`; null without any.
    pub hit_rate: Option<f64>,
    /// Input plus twice the output, per second: the paper's throughput.
    pub throughput_tokens_per_s: f64,
    /// Output alone.
    pub output_tokens_per_s: f64,
    /// Requests answered per second.
    pub requests_per_s: f64,
    /// From sending to the first byte of the answer, as the client sees it. Answered requests.
    pub ttft_s: Distribution,
    /// From sending to the end of the answer.
    pub e2e_s: Distribution,
    /// Between two tokens of one answer.
    pub inter_token_s: Distribution,
    /// Time in holds, of answered requests; 0 where there was none.
    pub hold_s: Distribution,
    /// How well the engine predicted the time from a push to its first byte.
    pub prediction: Prediction,
}

/// What tenants were served against each other, in tokens over their weight: computed ones 1, cached ones 0.1,
/// generated ones 2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Fairness {
    /// Most that one was served beyond another while requests of both waited at a balancer, over all such
    /// intervals.
    pub gap_tokens: f64,
    /// The largest request.
    pub request_tokens: f64,
    /// Most by which what one tenant was charged for requests under way differed from what they came to.
    pub error_tokens: f64,
    /// What the gap may be at most: see docs/ALGORITHM.md.
    pub bound_tokens: f64,
}

/// Predicted against real times from a push to the first byte, as the balancer sees it; of answered
/// requests for which the engine predicted any.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Prediction {
    /// Predicted times.
    pub predicted_s: Distribution,
    /// Real times of the same requests.
    pub real_s: Distribution,
    /// `|predicted - real| / real`, not in seconds; to half a percent of itself.
    pub error: Distribution,
}

/// Durations in seconds, to half a percent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// Their mean; null without any, as all that follows.
    pub mean: Option<f64>,
    /// Half are at most this.
    pub p50: Option<f64>,
    /// Nine of ten.
    pub p90: Option<f64>,
    /// 99 of 100.
    pub p99: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
    /// `[upper bound, count]` of every bucket that has any, ascending; buckets grow by 1 %.
    pub histogram: Vec<(f64, u64)>,
}

/// Outstanding requests (running and waiting) of the most loaded replica over those of the least
/// loaded, which counts as one at least; sampled every second of the measured time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Mean over the samples; null without any.
    pub mean: Option<f64>,
    /// Nine of ten samples are at most this.
    pub p90: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// Of the time averages of outstanding requests: largest over smallest.
    pub of_means: Option<f64>,
}

/// One value per second in each column; row `i` is the second that ends at `i + 1`. Gauges are
/// those of that end, tokens those of answers that ended within.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Series {
    /// Requests sent and not ended.
    pub in_flight: Vec<u32>,
    /// Of those, in holds.
    pub held: Vec<u32>,
    /// Requests running, over all replicas.
    pub running: Vec<u32>,
    /// Requests waiting in replicas.
    pub waiting: Vec<u32>,
    /// Prompt tokens answered.
    pub input_tokens: Vec<u64>,
    /// Answer tokens.
    pub output_tokens: Vec<u64>,
    /// Prompt tokens found cached.
    pub cached_tokens: Vec<u64>,
    /// Requests that failed.
    pub failed: Vec<u32>,
}

/// One replica's totals since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReplicaReport {
    /// Its region.
    pub region: String,
    /// Requests it took.
    pub requests: u64,
    /// Prompt tokens looked up in its cache.
    pub cache_queries: u64,
    /// Those found.
    pub cache_hits: u64,
    /// Prompt tokens computed.
    pub prefill_tokens: u64,
    /// Tokens generated.
    pub output_tokens: u64,
    /// Sequences thrown out of the batch.
    pub preemptions: u64,
    /// Steps run.
    pub steps: u64,
    /// Mean of outstanding requests, sampled every second of the measured time.
    pub outstanding_mean: f64,
    /// Mean of requests waiting in it, sampled likewise.
    pub waiting_mean: f64,
}

/// What went between balancers since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Forwards {
    /// Requests forwarded.
    pub sent: u64,
    /// Of those, the ones that reached the peer.
    pub arrived: u64,
    /// Of those, the ones that the peer refused on arrival.
    pub refused: u64,
    /// Of those, the ones that the peer held or refused: sent beyond its room.
    pub over_room: u64,
    /// Hops that were forged on the way.
    pub forged: u64,
    /// Summaries sent, and their bytes.
    pub summaries: u64,
    /// See above.
    pub summary_bytes: u64,
    /// Most bytes of summaries that one balancer told one peer, per second.
    pub summary_bytes_per_s_max: f64,
    /// Digests of hot prefixes sent, and their bytes.
    pub digests: u64,
    /// See above.
    pub digest_bytes: u64,
    /// Most bytes of digests that one balancer told one peer, per second.
    pub digest_bytes_per_s_max: f64,
    /// Changes of sign of the net flow of one second between two balancers, over all pairs.
    pub flips: u64,
    /// Of the pair with most: per ten seconds.
    pub flips_per_10s_max: f64,
}

/// What balancers of one region told each other of its replicas.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Shares {
    /// Messages sent, and their bytes.
    pub messages: u64,
    /// See above.
    pub bytes: u64,
    /// Most bytes that one balancer told another, per second.
    pub bytes_per_s_max: f64,
    /// Bytes of messages about pushed prompts.
    pub cached_bytes: u64,
}

/// One balancer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BalancerReport {
    /// Its region.
    pub region: String,
    /// The engine's counters.
    pub counters: BTreeMap<String, u64>,
    /// Probes sent.
    pub probes: u64,
    /// Most requests held at once.
    pub hold_peak: u64,
}

/// Requests one by one, a column a field.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Records {
    /// Id in the workload.
    pub id: Vec<u64>,
    /// When the client sent it.
    pub sent_s: Vec<f64>,
    /// Time in holds.
    pub hold_s: Vec<f64>,
    /// To the first byte; null where there was none.
    pub ttft_s: Vec<Option<f64>>,
    /// Predicted from the last push to the first byte; null where nothing was.
    pub predicted_s: Vec<Option<f64>>,
    /// To the end.
    pub e2e_s: Vec<f64>,
    /// The replica of the last attempt; null where there was none.
    pub replica: Vec<Option<u32>>,
    /// Prompt tokens found cached.
    pub cached_tokens: Vec<u32>,
    /// Attempts made.
    pub attempts: Vec<u32>,
    /// `ok`, or the kind of failure.
    pub outcome: Vec<String>,
}
