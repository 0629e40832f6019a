//! The state machine over all of the engine.
//!
//! A request is held, in flight, or between attempts (only inside one call). Every call says what
//! happened and yields the effects it causes, for any request, in the order to carry them out.
//! Room that comes free starts what is held in the same call. A submitted request ends exactly
//! once: by [`Router::complete`], a `Reject`, or an `Expire`.
//!
//! | file | holds |
//! |---|---|
//! | `place` | a push now, or the hold, or a refusal |
//! | `serve` | which held request starts when a replica has room |
//! | `attempt` | first byte, failure, end |
//! | `forward`, `arrivals` | requests that go to a peer, and those that come from one |
//! | `withdraw` | requests at replicas that show no sign of life |
//! | `control`, `peers` | facts about replicas, and about peers |
//! | `look` | requests for models in no list |
//! | `refuse`, `report`, `check` | what clients and operators see; the invariants |

mod arrivals;
mod attempt;
mod check;
mod control;
mod forward;
mod look;
mod peers;
mod place;
mod refuse;
mod report;
mod serve;
mod withdraw;

#[cfg(test)]
mod tests;

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::cache::Cache;
use super::choose::{Chooser, Selection, Sight, There};
use super::config::Config;
use super::counters::Counters;
use super::demand::{Demand, Lane};
use super::effect::Effect;
use super::fleet::Fleet;
use super::hold::{Hold, Payer};
use super::mesh::{Local, Mesh};
use super::plant::Plant;
use super::refusal::Refusal;
use super::requests::Requests;
use super::requests::request::{Phase, Request, Setbacks};
use crate::http::error::RequestError;
use crate::http::route::Route;
use crate::id::{Nanos, ReplicaId, ReplicaSlot, RequestId};
use crate::prompt::{self, AnswerStart, Digest, DigestConfig, Envelope, Scratch as BodyScratch};
use crate::tenant::Tenant;

pub use super::ask::{AlreadyKnown, Ask, Forwarded, Report, Usage};
pub use super::fleet::models::{MODELS_PER_REPLICA_MAX, ModelList, Served};
pub use super::fleet::report::Gauges;
pub use super::mesh::listing::{Listing, PeerGauges, PeersError};

/// Not called for so long, although its driver calls many times a second, its process stood still. With the
/// longest age of a snapshot, below the time after which one is stale.
const STOOD_STILL_NS: Nanos = 1_500_000_000;

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
    now_ns: Nanos,
    /// When all replicas were last looked at for room.
    swept_ns: Nanos,
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

    /// Reads a request's body. Needs nothing of the router's state but buffers, so that another
    /// process may do it later.
    ///
    /// # Errors
    ///
    /// The body is refused (400, 415); see [`prompt::digest`].
    pub fn digest(&mut self, ask: &Ask<'_>, body: &[u8]) -> Result<Digest, RequestError> {
        let envelope = Envelope {
            trusted: ask.trusted,
            only_model: self.fleet.only_model(),
            ..Envelope::new(ask.route, ask.content_type)
        };
        prompt::digest(
            &envelope,
            body,
            &self.reader.config,
            &mut self.reader.scratch,
        )
    }

    /// Whether a body's own word for its urgency counts, here and at the engine.
    #[must_use]
    pub fn believes(&self, ask: &Ask<'_>) -> bool {
        ask.trusted || self.believes_all()
    }

    /// Whether it counts whoever sends it.
    #[must_use]
    pub fn believes_all(&self) -> bool {
        self.config.class_from_body
    }

    /// The model meant by a body that names none; empty while none is known, `None` where there are more.
    #[must_use]
    pub fn only_model(&self) -> Option<&str> {
        self.fleet.only_model()
    }

    /// What bodies are read with, for whoever reads them elsewhere.
    #[must_use]
    pub fn digest_config(&self) -> &DigestConfig {
        &self.reader.config
    }

    /// Where the blocks of the answer to a request with this digest start.
    #[must_use]
    pub fn answer_start(&self, digest: &Digest) -> Option<AnswerStart> {
        AnswerStart::behind(digest, &self.reader.config)
    }

    /// Places a request whose body has been read; takes the blocks out of `digest`.
    ///
    /// # Errors
    ///
    /// The id is in use: nothing happened.
    pub fn place(
        &mut self,
        id: RequestId,
        ask: &Ask<'_>,
        digest: &mut Digest,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) -> Result<(), AlreadyKnown> {
        let now_ns = self.advance(now_ns);
        if self.requests.contains(id) {
            return Err(AlreadyKnown(id));
        }
        self.counters.submitted += 1;
        self.requests.budget_mut().request(now_ns);
        self.expire_due(now_ns, out);
        let (hop, origin) = ask.forwarded.map_or((0, None), |f| (f.hop, f.origin));
        let granted = Lane::of(ask.route).takes_room();
        self.arrive(origin, &digest.model, (hop, granted), now_ns);
        match self.admit(ask, digest, now_ns) {
            Ok(request) if self.is_unlisted(&request, now_ns) => {
                self.await_look(id, request, now_ns, out);
            }
            Ok(request) => self.settle(id, request, None, now_ns, out),
            Err(mut refusal) => {
                self.counters.rejected += 1;
                self.counters.residency_refused += u64::from(refusal.status == 403);
                if ask.forwarded.is_some() && refusal.status == 404 {
                    // Its origin goes elsewhere; its client is told nothing of what is known here.
                    refusal.status = 503;
                }
                out.push(Effect::Reject(refusal.of(id)));
            }
        }
        Ok(())
    }

    /// `digest` and `place` in one.
    ///
    /// # Errors
    ///
    /// The body is refused: nothing happened.
    pub fn submit(
        &mut self,
        id: RequestId,
        ask: &Ask<'_>,
        body: &[u8],
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) -> Result<Digest, RequestError> {
        let mut digest = self.digest(ask, body)?;
        self.place(id, ask, &mut digest, now_ns, out)
            .map_err(|known| RequestError::new(500, "request_id_in_use", known.to_string()))?;
        Ok(digest)
    }

    /// What a request may use: its model, and the one replica that keeps the response it builds on.
    fn admit(
        &mut self,
        ask: &Ask<'_>,
        digest: &mut Digest,
        now_ns: Nanos,
    ) -> Result<Request, Refusal> {
        let lane = Lane::of(ask.route);
        let forwarded = ask.forwarded;
        let crossed = forwarded.is_some_and(|forwarded| forwarded.hop != 1);
        if crossed && !self.config.planted(Plant::HopIgnored) {
            return Err(Refusal::too_many_hops());
        }
        let regions = self.mesh.residency().allowed(ask.tenant, &digest.model);
        self.check_regions(regions, ask.tenant)?;
        let bound = self.bound(ask, digest)?;
        let model = match lane {
            Lane::Stored => None,
            Lane::Batch | Lane::Light => {
                // Only requests that may leave can be served where the model is missing here.
                let regions = if forwarded.is_none() { regions } else { 0 };
                Some(self.model_named(&digest.model, regions, forwarded.is_some(), now_ns)?)
            }
        };
        if let Some(model) = model {
            self.fleet.hold_model(model);
        }
        let header = ask.key.map(|key| self.reader.config.key_of(key));
        let attempts_max = self.config.attempts_max;
        let responses = ask.route == Route::Responses;
        // What a replica keeps can only be found again from here.
        let kept = bound.is_some() || lane == Lane::Stored || (responses && !digest.retry_safe);
        let demand = Demand::new(lane, model, (bound, regions), header.or(digest.key), digest);
        let request = Request {
            demand,
            age: self.requests.next_age(),
            stays: forwarded.is_some() || kept,
            rather_here: responses && !digest.unstored,
            leaves_until_ns: 0,
            attempts_max: forwarded.map_or(attempts_max, |f| f.attempts_left.min(attempts_max)),
            deadline_ns: forwarded.and_then(|f| f.deadline_ns),
            tried_peers: SmallVec::new(),
            class: ask.class_of(digest.class, self.believes(ask)),
            payer: self.payer(ask, now_ns),
            submitted_ns: now_ns,
            retry_safe: digest.retry_safe,
            body_bytes: u32::try_from(ask.body_bytes.max(digest.prompt_bytes)).unwrap_or(u32::MAX),
            attempts: 0,
            setbacks: Setbacks::default(),
            held_ns: 0,
            phase: Phase::Between,
        };
        if let Some(refusal) = forwarded.and_then(|_| self.refuses_forward(&request)) {
            self.forget(&request);
            return Err(refusal);
        }
        Ok(request)
    }

    fn sight(&mut self, now_ns: Nanos) -> (&mut Chooser, &mut Mesh, Sight<'_>, &mut Counters) {
        let sight = Sight {
            config: &self.config,
            fleet: &mut self.fleet,
            cache: &mut self.cache,
            hold: &self.hold,
            now_ns,
        };
        (&mut self.chooser, &mut self.mesh, sight, &mut self.counters)
    }

    /// The replica for a request by the policy; `may_wait`: one without room may be waited for.
    fn find(&mut self, request: &Request, may_wait: bool, now_ns: Nanos) -> Selection {
        let (chooser, _, mut sight, counters) = self.sight(now_ns);
        chooser.find(request.seeker(), may_wait, &mut sight, counters)
    }

    /// The peer that a request may be forwarded to now, if there is one.
    fn find_peer(&mut self, request: &Request, now_ns: Nanos) -> Option<There> {
        let (chooser, mesh, mut sight, _) = self.sight(now_ns);
        chooser.find_peer(request.seeker(), true, mesh, &mut sight)
    }

    /// The peer that answers sooner than the replica that was found.
    fn faster_peer(&mut self, request: &Request, found: Selection, now_ns: Nanos) -> Option<There> {
        let (chooser, mesh, mut sight, _) = self.sight(now_ns);
        chooser.faster_peer(request.seeker(), found, mesh, &mut sight)
    }

    /// What peers are told of this balancer, and the mesh that tells it.
    fn local(&mut self, now_ns: Nanos) -> (&mut Mesh, Local<'_>) {
        let local = Local {
            config: &self.config,
            fleet: &self.fleet,
            hold: &self.hold,
            now_ns,
        };
        (&mut self.mesh, local)
    }

    /// The request may use the room of a replica, and does not wait for a peer's.
    fn fits(&self, request: &Request, slot: ReplicaSlot, now_ns: Nanos) -> bool {
        !request.is_leaving(now_ns) && self.fleet.fits(&request.demand, slot, &self.config, now_ns)
    }

    /// The one replica that keeps what the request builds on, if it builds on something.
    fn bound(&mut self, ask: &Ask<'_>, digest: &Digest) -> Result<Option<ReplicaId>, Refusal> {
        let previous = digest.previous_response_id.as_deref().map(str::as_bytes);
        let Some(response_id) = ask.response_id().or(previous) else {
            return Ok(None);
        };
        let replica = self.requests.find_response(response_id);
        let listed = replica.filter(|replica| self.fleet.listed(*replica));
        listed.map(Some).ok_or_else(Refusal::response_unknown)
    }

    /// Whom a request's place in the hold counts for.
    fn payer(&mut self, ask: &Ask<'_>, now_ns: Nanos) -> Payer {
        let key_of = |name| self.reader.config.key_of(name);
        let payer = match (ask.tenant, ask.credential) {
            (Tenant::Named(name), _) => Payer::Tenant(key_of(name.as_bytes())),
            (_, Some(credential)) => Payer::Credential(key_of(credential)),
            (_, None) => Payer::Anonymous,
        };
        self.hold.saw(payer, now_ns);
        payer
    }

    /// The request is over: nothing of it is kept.
    fn forget(&mut self, request: &Request) {
        if let Some(model) = request.demand.model {
            self.fleet.release_model(model);
        }
    }

    fn refuse(&mut self, id: RequestId, request: &Request, why: Refusal, out: &mut Vec<Effect>) {
        self.counters.rejected += 1;
        self.forget(request);
        out.push(Effect::Reject(why.of(id)));
    }

    /// Time never goes back in here, whatever the driver's calls say. Who was not called for long, because
    /// its process was stopped or its machine stood still, knows no less than before: else all replicas were
    /// blind at once, and got at once what is held.
    fn advance(&mut self, now_ns: Nanos) -> Nanos {
        let gap_ns = now_ns.saturating_sub(self.clock.now_ns);
        if gap_ns >= STOOD_STILL_NS {
            self.fleet.stood_still(gap_ns);
        }
        self.clock.now_ns = self.clock.now_ns.max(now_ns);
        self.clock.now_ns
    }
}
