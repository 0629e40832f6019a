//! A request as the engine keeps it, from submission to its end.

use smallvec::SmallVec;

use crate::engine::ask::{Report, Usage};
use crate::engine::cache::Match;
use crate::engine::choose::Seeker;
use crate::engine::config::Config;
use crate::engine::demand::{Demand, Lane};
use crate::engine::effect::Outcome;
use crate::engine::fleet::failure::Failure;
use crate::engine::fleet::forecast::Forecast;
use crate::engine::hold::{Bill, End, Entrant, Full, Partition, Payer, Purse, Room, Ticket};
use crate::engine::mesh::Away;
use crate::engine::tenants::{Charge, Progress};
use crate::id::{PeerId, ReplicaId, ReplicaSlot, RequestId};
use crate::prompt::class::Class;
use crate::time::{Instant, Span};

/// So many replicas and peers may turn out to be gone before a request is not tried any more.
const UNREACHED_MAX: u32 = 3;

/// One attempt at a replica.
#[derive(Debug)]
pub(in crate::engine) struct Attempt {
    pub(in crate::engine) slot: ReplicaSlot,
    /// What was believed to be cached there when it was pushed.
    pub(in crate::engine) matched: Match,
    /// The first body byte arrived: there is no other attempt after this one.
    pub(in crate::engine) started: bool,
    pub(in crate::engine) first_byte_ns: Option<Instant>,
    /// What was expected of it.
    pub(in crate::engine) forecast: Forecast,
    /// The driver has been told to give it up.
    pub(in crate::engine) withdrawn: bool,
    /// Another engine process began it: what it expected is not known, and nothing is learned from it.
    pub(in crate::engine) adopted: bool,
}

/// Where a request stands.
#[derive(Debug)]
pub(in crate::engine) enum Phase {
    /// Neither held nor in flight: only inside one call of the router.
    Between,
    /// For a model in no list: until the lists have been read again.
    Looking,
    /// In the hold.
    Held { ticket: Ticket, since_ns: Instant },
    /// At a replica.
    InFlight(Attempt),
    /// At a peer.
    Away(Away),
}

/// What attempts of a request came to that tells of the request as much as of the replica.
#[derive(Debug, Default)]
pub(in crate::engine) struct Setbacks {
    /// Times that peers have refused it.
    pub(in crate::engine) by_peers: u32,
    /// Times that replicas have refused it without having begun anything.
    pub(in crate::engine) by_replicas: u32,
    /// Times that nobody was there to take it.
    pub(in crate::engine) unreached: u32,
    /// Replicas that answered with a failure, which may be the request's own; at most `attempts_max`.
    pub(in crate::engine) suspects: SmallVec<[(ReplicaId, Failure); 1]>,
}

/// The part of an answer that its client has, of a stream that goes on elsewhere.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Given {
    /// No replica goes on with it yet.
    pub(in crate::engine) cut: bool,
    /// Replicas and peers tried for what is missing.
    pub(in crate::engine) continuations: u32,
    /// What the engine has told of it, or the relay has counted.
    pub(in crate::engine) usage: Usage,
    /// Events of the stream.
    pub(in crate::engine) events: u64,
}

/// Everything the router remembers of a request.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one request"
)]
pub(in crate::engine) struct Request {
    /// What it asks for.
    pub(in crate::engine) demand: Demand,
    /// Order of submission: the request's place in every line.
    pub(in crate::engine) age: u64,
    pub(in crate::engine) class: Class,
    pub(in crate::engine) payer: Payer,
    /// What its tenant has been charged for the attempt under way, where tenants share the room.
    pub(in crate::engine) bill: Option<Bill>,
    /// What the limits of its tenant have been charged for it, until that is settled.
    pub(in crate::engine) charge: Option<Charge>,
    pub(in crate::engine) submitted_ns: Instant,
    pub(in crate::engine) retry_safe: bool,
    /// Its stream may go on at another replica after the first byte ([`Router::resume`](crate::engine::router::Router::resume)):
    /// then it may be withdrawn while it streams, and keeps its blocks.
    pub(in crate::engine) continues: bool,
    /// What its client has of the answer, once its stream has left a replica.
    pub(in crate::engine) given: Option<Given>,
    pub(in crate::engine) body_bytes: u32,
    pub(in crate::engine) attempts: u32,
    pub(in crate::engine) attempts_max: u32,
    /// It is not forwarded to peers.
    pub(in crate::engine) stays: bool,
    /// It is forwarded only where no replica here could serve it: what is kept of its answer is found
    /// again only where it was made.
    pub(in crate::engine) rather_here: bool,
    /// While this region is evacuated: until when it waits for a peer's room, whatever room there is
    /// here; 0: it does not.
    pub(in crate::engine) leaves_until_ns: Instant,
    /// Until when it may be held, if its origin said so.
    pub(in crate::engine) deadline_ns: Option<Instant>,
    /// Peers at which an attempt failed, or that could not be reached.
    pub(in crate::engine) tried_peers: SmallVec<[PeerId; 2]>,
    pub(in crate::engine) setbacks: Setbacks,
    /// Time spent in the hold so far, the present wait left out.
    pub(in crate::engine) held_ns: Span,
    pub(in crate::engine) phase: Phase,
}

impl Request {
    /// Whether it has failed alike at another replica, so that the request is at fault. If not, what
    /// may be its own fault is remembered until another replica has been tried.
    pub(in crate::engine) fn fails_alike(&mut self, replica: ReplicaId, failure: Failure) -> bool {
        if !failure.answered() {
            return false;
        }
        let mut others = self
            .setbacks
            .suspects
            .iter()
            .filter(|(other, _)| *other != replica);
        if others.any(|(_, other)| *other == failure) {
            return true;
        }
        if self
            .setbacks
            .suspects
            .iter()
            .all(|(other, _)| *other != replica)
        {
            self.setbacks.suspects.push((replica, failure));
        }
        false
    }

    /// Its client has a part of its answer, and no replica goes on with it yet.
    pub(in crate::engine) fn is_cut(&self) -> bool {
        self.given.is_some_and(|given| given.cut)
    }

    /// The first byte of its answer has come.
    pub(in crate::engine) fn started(&self) -> bool {
        match &self.phase {
            Phase::InFlight(attempt) => attempt.started,
            Phase::Away(away) => away.started,
            Phase::Between | Phase::Looking | Phase::Held { .. } => false,
        }
    }

    /// Its driver has been asked to give its attempt up.
    pub(in crate::engine) fn withdrawn(&self) -> bool {
        match &self.phase {
            Phase::InFlight(attempt) => attempt.withdrawn,
            Phase::Away(away) => away.withdrawn,
            Phase::Between | Phase::Looking | Phase::Held { .. } => false,
        }
    }

    /// If its attempt is given up, another one may follow.
    pub(in crate::engine) fn has_tries(&self) -> bool {
        let tries = self.attempts < self.attempts_max && self.setbacks.unreached <= UNREACHED_MAX;
        tries || self.started()
    }

    /// Takes its last attempt back if nobody was there to take the request (*connection refused*). It was not
    /// sent, so no replica can have died of it.
    pub(in crate::engine) fn take_back(&mut self, failure: Failure, sent: bool) {
        if failure.unreached(sent) {
            self.attempts = self.attempts.saturating_sub(1);
            self.setbacks.unreached += 1;
        }
    }

    /// It is at a replica or at a peer.
    pub(in crate::engine) fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::InFlight(_) | Phase::Away(_))
    }

    /// How far it has come, as far as its tenant is charged for it.
    pub(in crate::engine) fn progress(&self) -> Progress {
        match &self.phase {
            _ if self.started() || self.given.is_some() => Progress::Started,
            Phase::InFlight(_) | Phase::Away(_) => Progress::Attempted,
            Phase::Between | Phase::Looking | Phase::Held { .. } => Progress::Waiting,
        }
    }

    /// How its attempt ended, as far as its tenant is charged for it.
    pub(in crate::engine) fn end(&self, outcome: Outcome, report: &Report<'_>) -> End {
        match outcome {
            Outcome::ClientLeft | Outcome::GivenUp if !self.started() => End::Unanswered {
                answer: report.sent && !self.demand.stream,
            },
            _ => End::Answered(report.usage),
        }
    }

    /// What choices need to know of it.
    pub(in crate::engine) fn seeker(&self) -> Seeker<'_> {
        Seeker {
            demand: &self.demand,
            age: self.age,
            ticket: self.ticket(),
            first: self.attempts == 0,
            room: Room::Any,
            stays: self.stays,
            rather_here: self.rather_here,
            tried_peers: &self.tried_peers,
        }
    }

    /// Its place in the hold.
    pub(in crate::engine) fn ticket(&self) -> Option<Ticket> {
        match self.phase {
            Phase::Held { ticket, .. } => Some(ticket),
            _ => None,
        }
    }

    /// It waits for a peer's room, and lets room here pass.
    pub(in crate::engine) fn is_leaving(&self, now: Instant) -> bool {
        now < self.leaves_until_ns
    }

    /// Time spent in the hold, the present wait included.
    pub(in crate::engine) fn waited_ns(&self, now: Instant) -> Span {
        match self.phase {
            Phase::Held { since_ns, .. } => self.held_ns + (now - since_ns),
            _ => self.held_ns,
        }
    }

    /// What it brings into the hold. `pool`: of its model.
    ///
    /// # Errors
    ///
    /// It may not wait, or its time there is over.
    pub(in crate::engine) fn entrant(
        &self,
        request: RequestId,
        pool: Option<ReplicaSlot>,
        config: &Config,
        now: Instant,
    ) -> Result<Entrant, NoPlace> {
        if self.demand.lane != Lane::Batch {
            return Err(NoPlace::Light);
        }
        let left_ns = config.hold_timeout_ns - self.held_ns;
        let partition = self.partition().filter(|_| !left_ns.is_zero());
        let partition = partition.ok_or(NoPlace::Hold(Full::Hold))?;
        let deadline_ns = now + left_ns;
        let deadline_ns = self
            .deadline_ns
            .map_or(deadline_ns, |at_ns| at_ns.min(deadline_ns));
        if deadline_ns <= now {
            return Err(NoPlace::Hold(Full::Hold));
        }
        Ok(Entrant {
            request,
            partition,
            class: self.class,
            payer: self.payer,
            pool,
            bytes: u64::from(self.body_bytes),
            age: self.age,
            submitted_ns: self.submitted_ns,
            deadline_ns,
            fresh: self.submitted_ns == now && !self.stays && !self.is_leaving(now),
        })
    }

    /// Whose it is, where it competes.
    pub(in crate::engine) fn purse(&self, pool: Option<ReplicaSlot>) -> Purse {
        Purse {
            pool,
            class: self.class,
            payer: self.payer,
        }
    }

    /// The line it waits in.
    pub(in crate::engine) fn partition(&self) -> Option<Partition> {
        Some(Partition {
            model: self.demand.model?,
            bound: self.demand.bound,
            regions: self.demand.regions,
            stays: self.stays,
        })
    }
}

/// Why a request that finds no room is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum NoPlace {
    /// The hold, or its payer's part of it, is full; or it has waited its time.
    Hold(Full),
    /// Requests of its lane do not wait.
    Light,
}
