//! A request as the router knows it, from submission to its end.

use smallvec::SmallVec;

use crate::engine::cache::paths::Path;
use crate::engine::cache::radix::Pin;
use crate::engine::choose::policy::Slot;
use crate::engine::effect::Reject;
use crate::engine::fleet::forecast::Forecast;
use crate::engine::fleet::health::Failure;
use crate::engine::hold::{Full, Partition, Tenant, Ticket};
use crate::engine::mesh::residency::Whose;
use crate::http::route::{Route, Serving};
use crate::id::{ModelId, Nanos, PeerId, ReplicaId, RequestId};
use crate::prompt::class::Class;

/// Replicas on which a request was tried that are remembered of it.
pub(in crate::engine) const TRIED_MAX: usize = 256;
/// Stands for replicas that are not ours.
pub(in crate::engine) const ELSEWHERE: ReplicaId = ReplicaId(u32::MAX);

/// What the head of a request says, as far as decisions need it.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What is asked for.
    pub route: Route,
    /// Path without query: names the response on the routes of one response.
    pub path: &'a [u8],
    /// Value of `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// Value of the configured key header.
    pub key: Option<&'a [u8]>,
    /// Value of the configured class header, from a front that is trusted.
    pub class: Option<&'a [u8]>,
    /// It came from a front whose word counts, of its requests' class above all.
    pub trusted: bool,
    /// The credential that the request came with: whose it is where no tenant is named.
    pub credential: Option<&'a [u8]>,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Whose request it is, for residency.
    pub whose: Whose<'a>,
    /// It came from a peer.
    pub forwarded: Option<Forwarded>,
}

/// What the signature of a forwarded request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// 1; more is refused.
    pub hop: u8,
    /// Replicas that may be tried.
    pub attempts_left: u32,
    /// Until when it may be held; `None`: as the settings say.
    pub deadline_ns: Option<Nanos>,
    /// The peer that it came from.
    pub origin: Option<PeerId>,
}

impl<'a> Ask<'a> {
    /// The id of the response that `/v1/responses/{id}` and `.../cancel` are about.
    pub(in crate::engine) fn response_id(&self) -> Option<&'a [u8]> {
        let rest = self.path.strip_prefix(b"/v1/responses/")?;
        match self.route {
            Route::ResponseById => Some(rest),
            Route::ResponseCancel => rest.strip_suffix(b"/cancel"),
            _ => None,
        }
    }
}

/// What an engine reported about a request it answered; `None` is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: Option<u32>,
    /// Of those, found in the prefix cache.
    pub cached_tokens: Option<u32>,
    /// Tokens of the answer.
    pub completion_tokens: Option<u32>,
}

/// What a driver tells of a request that ended; nothing where there was no answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report<'a> {
    /// What the engine reported.
    pub usage: Usage,
    /// Names a stored response, where the answer tells it.
    pub response_id: Option<&'a str>,
    /// Chained hashes of the answer's blocks, which go on where those of the prompt end; they enter
    /// the tree.
    pub answer: &'a [u64],
}

/// How a request meets a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Lane {
    /// It takes a place in the batch: the gate decides, and it may wait in the hold.
    Batch,
    /// The API server answers it without the model (tokens of a text): it neither waits nor counts
    /// in the load estimate, but within the cap.
    Light,
    /// As `Light`, about a response that one replica keeps: draining does not stop it.
    Stored,
}

impl Lane {
    pub(in crate::engine) const ALL: [Self; 3] = [Self::Batch, Self::Light, Self::Stored];

    pub(in crate::engine) fn of(route: Route) -> Self {
        match route.serving() {
            Serving::Stored => Self::Stored,
            Serving::Light => Self::Light,
            Serving::Batch | Serving::Local => Self::Batch,
        }
    }

    /// At a peer it uses up one of what that has granted. The others are computed without the model.
    pub(in crate::engine) fn takes_room(self) -> bool {
        self == Self::Batch
    }
}

/// One attempt at a replica.
#[derive(Debug)]
pub(in crate::engine) struct Attempt {
    pub(in crate::engine) slot: Slot,
    pub(in crate::engine) pin: Option<Pin>,
    /// The first body byte arrived: there is no other attempt after this one.
    pub(in crate::engine) started: bool,
    /// Leading blocks of the prompt believed to be cached there, before it was pushed.
    pub(in crate::engine) match_blocks: u32,
    /// Chained hash of the last of them, and the tokens up to there where they are known.
    pub(in crate::engine) match_end: Option<u64>,
    pub(in crate::engine) path: Option<Path>,
    pub(in crate::engine) first_byte_ns: Option<Nanos>,
    /// What was expected of it.
    pub(in crate::engine) forecast: Forecast,
    /// The driver has been told to give it up.
    pub(in crate::engine) withdrawn: bool,
}

/// Where a request stands.
#[derive(Debug)]
pub(in crate::engine) enum Phase {
    /// Neither held nor in flight: only inside one call of the router.
    Between,
    /// For a model in no list: until the lists have been read again.
    Looking,
    /// In the hold.
    Held { ticket: Ticket, since_ns: Nanos },
    /// At a replica.
    InFlight(Attempt),
    /// At a peer.
    Away(Away),
}

/// One attempt at a peer.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Away {
    /// The peer.
    pub(in crate::engine) slot: Slot,
    /// Since when.
    pub(in crate::engine) since_ns: Nanos,
    /// By which the peer counts it.
    pub(in crate::engine) model: ModelId,
    /// Tokens that it should have cached, where it was chosen by what it had told.
    pub(in crate::engine) told_tokens: Option<u32>,
    /// The first body byte arrived: there is no other attempt after this one.
    pub(in crate::engine) started: bool,
    /// It used up one of what the peer has granted.
    pub(in crate::engine) granted: bool,
}

/// What attempts of a request came to that tells of the request as much as of the replica.
#[derive(Debug, Default)]
pub(in crate::engine) struct Setbacks {
    /// Times that peers have refused it.
    pub(in crate::engine) by_peers: u32,
    /// Times that replicas have refused it without having begun anything.
    pub(in crate::engine) by_replicas: u32,
    /// Replicas that answered with a failure, which may be the request's own; at most `attempts_max`.
    pub(in crate::engine) suspects: SmallVec<[(ReplicaId, Failure); 1]>,
}

/// Everything the router remembers of a request.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one request, none a state of another"
)]
pub(in crate::engine) struct Request {
    /// Order of submission: the request's place in every line.
    pub(in crate::engine) age: u64,
    pub(in crate::engine) lane: Lane,
    /// What it may use; no model on the routes of one response.
    pub(in crate::engine) model: Option<ModelId>,
    pub(in crate::engine) bound: Option<ReplicaId>,
    pub(in crate::engine) key: Option<u64>,
    pub(in crate::engine) class: Class,
    pub(in crate::engine) tenant: Tenant,
    pub(in crate::engine) submitted_ns: Nanos,
    pub(in crate::engine) retry_safe: bool,
    pub(in crate::engine) body_bytes: u32,
    pub(in crate::engine) prompt_bytes: u32,
    pub(in crate::engine) prompt_blocks: u32,
    pub(in crate::engine) max_tokens: Option<u32>,
    /// The first byte comes with the first token, not with the whole answer.
    pub(in crate::engine) stream: bool,
    /// It has images or the like, whose tokens its bytes do not tell.
    pub(in crate::engine) has_media: bool,
    /// Chained hash of the prompt's last block.
    pub(in crate::engine) last_block: Option<u64>,
    /// Chained hashes of the prompt; given up at the first body byte.
    pub(in crate::engine) blocks: Vec<u64>,
    pub(in crate::engine) attempts: u32,
    pub(in crate::engine) attempts_max: u32,
    /// Regions it may be served in, as bits.
    pub(in crate::engine) regions: u64,
    /// It is not forwarded to peers.
    pub(in crate::engine) stays: bool,
    /// It is forwarded only where no replica here could serve it: what is kept of its answer is found
    /// again only where it was made.
    pub(in crate::engine) rather_here: bool,
    /// While this region is evacuated: until when it waits for a peer's room, whatever room there is
    /// here; 0: it does not.
    pub(in crate::engine) leaves_until_ns: Nanos,
    /// Until when it may be held, if its origin said so.
    pub(in crate::engine) deadline_ns: Option<Nanos>,
    /// Peers at which an attempt failed; at most `attempts_max`.
    pub(in crate::engine) tried_peers: SmallVec<[PeerId; 2]>,
    /// Replicas on which an attempt failed or was refused; the last [`TRIED_MAX`].
    pub(in crate::engine) tried: SmallVec<[ReplicaId; 2]>,
    pub(in crate::engine) setbacks: Setbacks,
    /// Time spent in the hold so far, the present wait left out.
    pub(in crate::engine) held_ns: Nanos,
    pub(in crate::engine) phase: Phase,
}

impl Request {
    /// An attempt at this replica is over.
    pub(in crate::engine) fn note_tried(&mut self, replica: ReplicaId) {
        if replica == ELSEWHERE || self.tried.contains(&replica) {
            return;
        }
        if self.tried.len() == TRIED_MAX {
            self.tried.remove(0);
        }
        self.tried.push(replica);
    }

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

    /// Its first byte is its first token: the time to it can be predicted, and learned from.
    pub(in crate::engine) fn measured(&self) -> bool {
        self.stream && self.lane == Lane::Batch
    }

    /// Its place in the hold.
    pub(in crate::engine) fn ticket(&self) -> Option<Ticket> {
        match self.phase {
            Phase::Held { ticket, .. } => Some(ticket),
            _ => None,
        }
    }

    /// It may be served in this region.
    pub(in crate::engine) fn may_use(&self, region_bit: u64) -> bool {
        self.regions & region_bit != 0
    }

    /// It waits for a peer's room, and lets room here pass.
    pub(in crate::engine) fn is_leaving(&self, now_ns: Nanos) -> bool {
        now_ns < self.leaves_until_ns
    }

    /// Time spent in the hold, the present wait included.
    pub(in crate::engine) fn waited_ns(&self, now_ns: Nanos) -> Nanos {
        match self.phase {
            Phase::Held { since_ns, .. } => self.held_ns + now_ns.saturating_sub(since_ns),
            _ => self.held_ns,
        }
    }

    /// The line it waits in.
    pub(in crate::engine) fn partition(&self) -> Option<Partition> {
        Some(Partition {
            model: self.model?,
            bound: self.bound,
            regions: self.regions,
            stays: self.stays,
        })
    }
}

/// Why a request that finds no room is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum NoPlace {
    /// The hold, or its tenant's part of it, is full; or it has waited its time.
    Hold(Full),
    /// Requests of its lane do not wait.
    Light,
}

/// Why a request is refused, before it is addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Refusal {
    pub(in crate::engine) status: u16,
    pub(in crate::engine) code: &'static str,
    pub(in crate::engine) message: String,
    pub(in crate::engine) retry_after_s: Option<u32>,
}

impl Refusal {
    pub(in crate::engine) fn new(
        status: u16,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after_s: None,
        }
    }

    /// The client may try again after so many seconds.
    pub(in crate::engine) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub(in crate::engine) fn of(self, request: RequestId) -> Reject {
        Reject {
            request,
            status: self.status,
            code: self.code,
            message: self.message,
            retry_after_s: self.retry_after_s,
        }
    }
}
