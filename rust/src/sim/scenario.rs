//! What is simulated: the scenario as JSON, and the checks that it is possible.
//!
//! ```json
//! {
//!   "seed": 1, "duration_s": 600, "warmup_s": 60, "topology": "skylb", "engine": {"...": "..."},
//!   "regions": [{"name": "us", "balancers": 1, "replicas": [{"count": 4, "profile": {"...": "..."}}]}],
//!   "network": {"rtt_ms": [[0.5]], "jitter_ms": 0.1, "loss": 0.001},
//!   "clients": {"mode": "closed", "users": {"us": 80}},
//!   "faults": [{"kind": "crash", "replica": 2, "at_s": 100, "until_s": 160}]
//! }
//! ```
//!
//! `engine` is the engine's whole configuration, as [`Config::from_json`] reads it; `profile` is a
//! [`Profile`]. Times are in seconds of virtual time since the start. Fields with a default may be
//! left out; unknown fields are errors. Replicas are numbered from 0 in the order in which regions
//! and groups list them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::fault::Fault;
use super::replica::Profile;
use crate::engine::config::Config;
use crate::id::Nanos;
use crate::prompt::class::Class;

const NS_PER_S: f64 = 1e9;
const NS_PER_MS: f64 = 1e6;

/// The model of requests and replicas that name none.
pub const MODEL: &str = "sim";

/// One scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "settings of a file, each on its own"
)]
pub struct Scenario {
    /// Decides every draw: same scenario, requests and seed, same result, byte by byte.
    #[serde(default)]
    pub seed: u64,
    /// Clients send nothing more after this time.
    pub duration_s: f64,
    /// Requests sent before are not measured.
    #[serde(default)]
    pub warmup_s: f64,
    /// Time after `duration_s` in which requests may end; those that have not count as unfinished.
    #[serde(default = "drain_s")]
    pub drain_s: f64,
    /// Checks the engine's invariants after every event, the replicas' once a second (slow).
    #[serde(default)]
    pub check: bool,
    /// Lists every measured request in the result.
    #[serde(default)]
    pub records: bool,
    /// Who decides for whom.
    #[serde(default)]
    pub topology: Topology,
    /// Region of the one balancer under `global` and `oracle`; the first region if left out.
    #[serde(default)]
    pub balancer_region: Option<String>,
    /// Answers are hashed and enter the engine's tree, as `skylb serve` does.
    #[serde(default = "yes")]
    pub learn_answers: bool,
    /// Replicas tell what they found in their caches (`cached_tokens` of usage, counters of hits);
    /// otherwise nothing corrects the engine's tree.
    #[serde(default = "yes")]
    pub tell_cached: bool,
    /// The engine's configuration.
    pub engine: Value,
    /// Where balancers and replicas are.
    pub regions: Vec<Region>,
    /// What lies between them.
    #[serde(default)]
    pub network: Network,
    /// Who sends the requests, and when.
    pub clients: Clients,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// Where requests may be served.
    #[serde(default)]
    pub residency: Vec<Residency>,
    /// What balancers tell each other of hot prefixes.
    #[serde(default)]
    pub peer_digest: PeerDigest,
    /// Balancers of one region tell each other which prompts they push.
    #[serde(default = "yes")]
    pub region_cache: bool,
    /// Tenants that requests of the workload are of, by their numbers there.
    #[serde(default)]
    pub tenants: Vec<TenantOf>,
    /// Share of forwards whose hop is forged on the way; no peer may serve them.
    #[serde(default)]
    pub forged_hops: f64,
}

/// A tenant whose requests the workload names.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantOf {
    /// Its name, as requests bear it.
    pub name: String,
    /// Its share of the room.
    #[serde(default = "one")]
    pub weight: u32,
    /// Classes over which its users are spread in turn; empty: as `clients.classes` says.
    #[serde(default, deserialize_with = "classes")]
    pub classes: Vec<Class>,
}

/// Settings of `skylb serve` by the same names, `peer_digest` in front.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerDigest {
    /// They are told.
    pub enabled: bool,
    /// Bytes of one.
    pub bytes_max: usize,
    /// Time between two.
    pub interval_s: f64,
    /// Age at which one no longer counts.
    pub age_max_s: f64,
}

impl Default for PeerDigest {
    fn default() -> Self {
        Self {
            enabled: false,
            bytes_max: 8 << 10,
            interval_s: 2.0,
            age_max_s: 30.0,
        }
    }
}

/// A rule of residency: regions allowed for the requests that it names.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residency {
    /// Whose, by number: in `tenants`, or of the `clients.tenants` over which users are spread.
    /// Everybody's if left out.
    #[serde(default)]
    pub tenant: Option<u32>,
    /// For which model; for all if left out.
    #[serde(default)]
    pub model: Option<String>,
    /// Names of regions.
    pub regions: Vec<String>,
}

/// Who decides for whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topology {
    /// Balancers per region; all are peers, and those of one region share its replicas.
    #[default]
    Skylb,
    /// Balancers per region that never share.
    Local,
    /// One balancer in front of all replicas.
    Global,
    /// One that knows every replica's true cache and load without delay, for regret.
    Oracle,
}

impl Topology {
    /// The word in scenario and result.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Skylb => "skylb",
            Self::Local => "local",
            Self::Global => "global",
            Self::Oracle => "oracle",
        }
    }

    /// One balancer stands in front of all replicas.
    #[must_use]
    pub fn central(self) -> bool {
        matches!(self, Self::Global | Self::Oracle)
    }
}

/// One region.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Its name, as requests bear it.
    pub name: String,
    /// Balancers; each fronts all replicas of the region, users are spread over them. Under topology
    /// `skylb` they share the replicas' room.
    #[serde(default = "one")]
    pub balancers: u32,
    /// Its replicas, group by group.
    #[serde(default)]
    pub replicas: Vec<Group>,
}

/// Replicas of one kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// How many.
    pub count: u32,
    /// Their parameters.
    pub profile: Profile,
    /// The models they serve; one of the name [`MODEL`] if left out.
    #[serde(default = "models")]
    pub models: Vec<String>,
}

/// Delays between regions. A message takes half a round trip, plus what is drawn.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Round trips between regions (row, column: in the order of `regions`; the diagonal is within
    /// a region). Empty: 0.5 ms, which a scenario of one region only may rely on.
    pub rtt_ms: Vec<Vec<f64>>,
    /// Mean of an exponential delay added to each message.
    pub jitter_ms: f64,
    /// Probability that a message is lost and comes `rto_ms` later.
    pub loss: f64,
    /// Retransmission timeout.
    pub rto_ms: f64,
    /// Bytes sent in the first round trip (ten segments, RFC 6928); each further one doubles
    /// them. 0: no slow start.
    pub window_bytes: u64,
    /// Balancers' monotonic clocks begin at times drawn up to this.
    pub clock_spread_s: f64,
    /// A connect over a cut link fails after this time.
    pub connect_timeout_s: f64,
    /// An answer that a cut holds up for this long is given up.
    pub stall_timeout_s: f64,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            rtt_ms: Vec::new(),
            jitter_ms: 0.0,
            loss: 0.0,
            rto_ms: 200.0,
            window_bytes: 14_600,
            clock_spread_s: 0.0,
            connect_timeout_s: 1.5,
            stall_timeout_s: 60.0,
        }
    }
}

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Users who wait for answers: a request goes out `think` after the one it follows has ended,
    /// several that follow the same one together; a session's first requests at once.
    Closed,
    /// A timetable: `t` of each request, whatever became of others.
    Open,
    /// A timetable of sessions: first requests at `t`, the others as in closed loop. Load does not
    /// give way to latency as in closed loop, and nobody goes on before they have their answer.
    Sessions,
}

/// What the ring's key is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The user (the paper's choice).
    #[default]
    User,
    /// The session.
    Session,
    /// There is none.
    None,
}

/// Who sends the requests.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// How requests are sent.
    pub mode: Mode,
    /// Closed loop: users at once by region. Each runs the sessions of one user of the workload
    /// after another; then the next user's.
    #[serde(default)]
    pub users: BTreeMap<String, u32>,
    /// Closed loop: time over which the users start.
    #[serde(default)]
    pub ramp_s: f64,
    /// Closed loop: start over when a region's requests are used up, with prompts that share
    /// nothing with those before.
    #[serde(default)]
    pub repeat: bool,
    /// Open loop and sessions: how many times as fast as `t` says.
    #[serde(default = "unit")]
    pub rate_scale: f64,
    /// Closed loop and sessions: factor on `think`.
    #[serde(default = "unit")]
    pub think_scale: f64,
    /// Closed loop and sessions: pause after a failed request.
    #[serde(default = "half")]
    pub failure_pause_s: f64,
    /// What the ring's key is made of.
    #[serde(default)]
    pub key: Key,
    /// Longest answer, told to the balancer; longer ones of the workload are cut.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// Some leave before they have their answer.
    #[serde(default)]
    pub leave: Option<Leave>,
    /// Each request goes to any balancer of its region, not all of a user's to one.
    #[serde(default)]
    pub hop: bool,
    /// Tenants over which users are spread; 0: requests name none.
    #[serde(default)]
    pub tenants: u32,
    /// Requests per minute that each tenant may send, to all balancers together; 0: no limit.
    #[serde(default)]
    pub requests_per_minute: u64,
    /// Classes over which users are spread in turn; empty: requests name none.
    #[serde(default, deserialize_with = "classes")]
    pub classes: Vec<Class>,
}

/// Classes by the words of settings and headers.
fn classes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Class>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let class = |name: &String| {
        let known = Class::ALL.into_iter().find(|class| class.name() == name);
        known.ok_or_else(|| D::Error::custom(format!("there is no class {name}")))
    };
    names.iter().map(class).collect()
}

/// Clients who leave.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// Share of requests whose client will not wait.
    pub probability: f64,
    /// It leaves between so many seconds after sending ...
    pub from_s: f64,
    /// ... and so many, equally likely.
    pub to_s: f64,
}

/// Why a scenario or its requests cannot be simulated; the text names the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioError(pub String);

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScenarioError {}

impl Scenario {
    /// Reads and checks a scenario.
    ///
    /// # Errors
    ///
    /// A field is missing, unknown, of the wrong type, or impossible: the text names it.
    pub fn from_json(json: &[u8]) -> Result<Self, ScenarioError> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let scenario: Self = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| ScenarioError(error.to_string()))?;
        reader
            .end()
            .map_err(|error| ScenarioError(error.to_string()))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The engine's configuration.
    ///
    /// # Errors
    ///
    /// As [`Config::from_json`], the field's name after `engine.`.
    pub fn config(&self) -> Result<Config, ScenarioError> {
        let json = self.engine.to_string();
        Config::from_json(json.as_bytes()).map_err(|error| ScenarioError(format!("engine.{error}")))
    }

    /// Number of a region.
    #[must_use]
    pub fn region(&self, name: &str) -> Option<usize> {
        self.regions.iter().position(|region| region.name == name)
    }

    /// Region of the one balancer under a central topology.
    #[must_use]
    pub fn center(&self) -> usize {
        let name = self.balancer_region.as_deref();
        name.and_then(|name| self.region(name)).unwrap_or(0)
    }

    /// The region of each balancer; where one stands before all replicas, no region's.
    #[must_use]
    pub fn balancers(&self) -> Vec<usize> {
        if self.topology.central() {
            return Vec::new();
        }
        let serves = |region: &Region| region.replicas.iter().any(|group| group.count > 0);
        let regions = self.regions.iter().enumerate();
        let serving = regions.filter(|(_, region)| serves(region));
        serving
            .flat_map(|(number, region)| (0..region.balancers).map(move |_| number))
            .collect()
    }

    /// Replicas in all.
    #[must_use]
    pub fn replicas(&self) -> usize {
        let groups = self.regions.iter().flat_map(|region| &region.replicas);
        groups.map(|group| group.count as usize).sum()
    }
}

/// Seconds to nanoseconds; what is no duration is none.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and checked values are far below 2^63 nanoseconds"
)]
pub fn nanos(seconds: f64) -> Nanos {
    (seconds * NS_PER_S).round() as Nanos
}

/// Milliseconds to nanoseconds.
#[must_use]
pub fn nanos_of_ms(ms: f64) -> Nanos {
    nanos(ms * (NS_PER_MS / NS_PER_S))
}

/// Nanoseconds to seconds.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "results are doubles")]
pub fn seconds(ns: Nanos) -> f64 {
    ns as f64 / NS_PER_S
}

fn yes() -> bool {
    true
}

fn models() -> Vec<String> {
    vec![MODEL.to_owned()]
}

fn one() -> u32 {
    1
}

fn unit() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

fn drain_s() -> f64 {
    600.0
}
