//! The state machine over all of the engine.
//!
//! Every call reports an event, and yields the effects to carry out, in order, for any request. If the
//! event frees room, the same call starts held requests. Between two calls a request is in the hold, at a
//! replica, or at a peer. Or it waits until the lists of models have been read again. A request ends
//! exactly once: by [`Router::complete`], a `Reject`, or an `Expire`.
//!
//! | file | holds |
//! |---|---|
//! | `place` | where a request goes: to a replica, to a peer, into the hold, or back with a refusal |
//! | `serve` | which held request starts when a replica has room |
//! | `attempt` | first byte, failure, end |
//! | `forward`, `arrivals` | requests that go to a peer, and those that come from one |
//! | `limits` | what tenants may use, and are charged |
//! | `resume` | streams that go on elsewhere from where they were |
//! | `withdraw` | requests at replicas that show no sign of life |
//! | `facts/` | what is reported of replicas and peers, and time that passes |
//! | `look` | requests for a model in no list, until the lists have been read again |
//! | `refuse`, `report`, `check` | what clients and operators see; the invariants |

mod arrivals;
mod attempt;
mod check;
mod depart;
mod facts;
mod find;
mod forward;
mod limits;
mod look;
mod place;
mod refuse;
mod report;
mod resume;
mod serve;
mod withdraw;

#[cfg(test)]
mod tests;

use xxhash_rust::xxh3::xxh3_64;

use super::cache::Cache;
use super::choose::Chooser;
use super::config::Config;
use super::counters::Counters;
use super::effect::Effect;
use super::fleet::Fleet;
use super::hold::Hold;
use super::mesh::{Local, Mesh};
use super::parts::Parts;
use super::refusal::Refusal;
use super::requests::Requests;
use super::requests::request::Request;
use crate::http::error::RequestError;
use crate::id::{ReplicaSlot, RequestId};
use crate::prompt::{self, AnswerStart, Digest, DigestConfig, Scratch as BodyScratch};
use crate::time::{Instant, Span};

pub use facts::Adopted;
pub use resume::Part;

pub use super::ask::{AlreadyKnown, Ask, Forwarded, Report, Usage};
pub use super::fleet::models::{MODELS_PER_REPLICA_MAX, ModelList, Served};
pub use super::fleet::notice::Leave;
pub use super::fleet::probes::ProbedState;
pub use super::fleet::report::Gauges;
pub use super::mesh::listing::{Listing, PeerGauges, PeersError};
pub(in crate::engine) use refuse::LOADING_NS;

/// If the driver has not called for this long, the process was stopped: it calls many times a second. This
/// and the longest age of a snapshot together stay below the age at which a snapshot is stale.
const STOOD_STILL_NS: Span = Span::from_ns(1_500_000_000);

/// Bytes of the secret that keys all hashes, at least.
pub const SECRET_BYTES_MIN: usize = 16;

/// What bodies are read with.
#[derive(Debug)]
struct Reader {
    config: DigestConfig,
    scratch: BodyScratch,
}

/// Time as the router has it.
#[derive(Debug, Default)]
struct Clock {
    now: Instant,
    /// When all replicas were last looked at for room.
    swept_ns: Instant,
}

/// The router. See the module's text.
#[derive(Debug)]
pub struct Router {
    config: Config,
    reader: Reader,
    fleet: Fleet,
    cache: Cache,
    chooser: Chooser,
    hold: Hold,
    mesh: Mesh,
    requests: Requests,
    counters: Counters,
    clock: Clock,
}

impl Router {
    /// A router without replicas. `secret` ([`SECRET_BYTES_MIN`] or more bytes) keys all hashes,
    /// `seed` the generator for draws.
    #[must_use]
    pub fn new(config: Config, secret: &[u8], seed: u64) -> Self {
        let hash_seed = xxh3_64(secret);
        Self {
            reader: Reader {
                config: DigestConfig::new(secret, config.block_bytes, config.prompt_blocks_max),
                scratch: BodyScratch::default(),
            },
            fleet: Fleet::new(&config, hash_seed),
            cache: Cache::new(&config),
            chooser: Chooser::new(&config, hash_seed, seed),
            hold: Hold::new(),
            mesh: Mesh::new(config.tree_bytes_max, config.ring_vnodes),
            requests: Requests::new(&config, hash_seed),
            counters: Counters::default(),
            clock: Clock::default(),
            config,
        }
    }

    /// Reads a request's body. Of the router's state it uses buffers only.
    ///
    /// # Errors
    ///
    /// The body is refused (400, 415); see [`prompt::digest`].
    pub fn digest(&mut self, ask: &Ask<'_>, body: &[u8]) -> Result<Digest, RequestError> {
        let envelope = ask.envelope(self.fleet.only_model());
        let Reader { config, scratch } = &mut self.reader;
        prompt::digest(&envelope, body, config, scratch)
    }

    /// Whether the class that a body names counts, here and at the engine.
    #[must_use]
    pub fn believes(&self, ask: &Ask<'_>) -> bool {
        ask.trusted || self.believes_all()
    }

    /// Whether it counts for every sender.
    #[must_use]
    pub fn believes_all(&self) -> bool {
        self.config.class_from_body
    }

    /// The model meant by a body that names none; empty while none is known, `None` where there are more.
    #[must_use]
    pub fn only_model(&self) -> Option<&str> {
        self.fleet.only_model()
    }

    /// The settings for reading bodies, for the thread that reads large ones.
    #[must_use]
    pub fn digest_config(&self) -> &DigestConfig {
        &self.reader.config
    }

    /// The same, to be changed before the first body is read.
    pub fn digest_config_mut(&mut self) -> &mut DigestConfig {
        &mut self.reader.config
    }

    /// Where the blocks of the answer to a request with this digest start.
    #[must_use]
    pub fn answer_start(&self, digest: &Digest) -> Option<AnswerStart> {
        AnswerStart::behind(digest, &self.reader.config)
    }

    /// The mesh, and what it tells peers about this balancer.
    fn local(&mut self, now: Instant) -> (&mut Mesh, Local<'_>) {
        let local = Local {
            config: &self.config,
            fleet: &self.fleet,
            hold: &self.hold,
            cache: &self.cache,
            now,
        };
        (&mut self.mesh, local)
    }

    /// All that explains decisions, and changes none.
    pub(in crate::engine) fn parts(&self) -> Parts<'_> {
        Parts {
            config: &self.config,
            digest: &self.reader.config,
            fleet: &self.fleet,
            cache: &self.cache,
            chooser: &self.chooser,
            hold: &self.hold,
            mesh: &self.mesh,
            requests: &self.requests,
            counters: &self.counters,
            now: self.clock.now,
        }
    }

    /// The request may use the room of a replica, and does not wait for a peer's.
    fn fits(&self, request: &Request, slot: ReplicaSlot, now: Instant) -> bool {
        !request.is_leaving(now) && self.fleet.fits(&request.demand, slot, &self.config, now)
    }

    /// The request is over: nothing of it is kept.
    fn forget(&mut self, request: &Request) {
        self.requests.release(request, self.clock.now);
        if let Some(model) = request.demand.model {
            self.fleet.release_model(model);
        }
    }

    fn refuse(&mut self, id: RequestId, request: &Request, why: Refusal, out: &mut Vec<Effect>) {
        self.counters.rejected += 1;
        self.forget(request);
        out.push(Effect::Reject(why.of(id)));
    }

    /// Time never goes back in here, whatever the driver's calls say. Time in which the process was stopped
    /// makes no snapshot older. Otherwise all replicas would be blind at once, and get all held requests.
    fn advance(&mut self, now: Instant) -> Instant {
        let gap_ns = now - self.clock.now;
        if gap_ns >= STOOD_STILL_NS {
            self.fleet.stood_still(gap_ns);
        }
        self.clock.now = self.clock.now.max(now);
        self.clock.now
    }
}
