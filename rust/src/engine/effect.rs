//! What the engine asks its driver to do.
//!
//! Effects are values, in the order in which the driver is to carry them out. The effects of a call may
//! concern other requests than the one that the call was about.

use serde::{Deserialize, Serialize};

use super::choose::verdict::Verdict;
use crate::id::{PeerId, ReplicaId, RequestId};
use crate::time::{Instant, Span};

/// Send the request to this replica now. It is counted in flight already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The request to send.
    pub request: RequestId,
    /// Where to send it.
    pub replica: ReplicaId,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Leading blocks of the prompt that the replica is believed to cache.
    pub match_blocks: u32,
    /// Predicted time from now to the first body byte, of a streamed answer.
    pub predicted_ttft_ns: Option<Span>,
    /// Tokens of the model's context, as far as replicas here tell.
    pub context_len: Option<u32>,
    /// What the shadow policy does with the request, if there is one.
    pub shadow: Option<Verdict>,
}

/// Send the request to this peer now. It is counted already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The request to send.
    pub request: RequestId,
    /// Where to send it.
    pub peer: PeerId,
    /// 1 for the first attempt, replicas and peers counted together.
    pub attempt: u32,
    /// Replicas that the peer may try.
    pub attempts_left: u32,
    /// Leading blocks of the prompt that the peer is believed to cache.
    pub match_blocks: u32,
    /// Until when the peer may hold it.
    pub deadline_ns: Instant,
    /// Tokens of the model's context, as far as replicas here tell.
    pub context_len: Option<u32>,
}

/// Answer the client; the engine has forgotten the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The refused request.
    pub request: RequestId,
    /// HTTP status of the answer.
    pub status: u16,
    /// Stable word for the answer's `code` and for the log.
    pub code: &'static str,
    /// The text that the client gets. It contains no prompt, key or address.
    pub message: String,
    /// Value of `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
}

/// The kind of a message to a peer. The numbers are part of the Python interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// How much room there is, and how much is held.
    Summary = 0,
    /// Hot prefixes.
    Digest = 1,
    /// The load of the replicas that both balancers push to.
    Share = 2,
    /// What tenants with limits ask for, and which part of the limits is used.
    Tenants = 3,
    /// Which prompts were pushed to replicas that both balancers push to.
    Cached = 4,
}

impl Message {
    /// All kinds, in the order in which they are sent.
    pub const ALL: [Self; 5] = [
        Self::Summary,
        Self::Digest,
        Self::Share,
        Self::Tenants,
        Self::Cached,
    ];
}

/// Send a message to this peer now, and report when it has been written. The engine counts it as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tell {
    /// Where to send it.
    pub peer: PeerId,
    /// What it is about.
    pub kind: Message,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a request to a replica.
    Push(Push),
    /// Send a request to a peer.
    Forward(Forward),
    /// The request waits in the hold; a push, a forward, a refusal or its expiry follows.
    Hold(RequestId),
    /// Refuse a request.
    Reject(Reject),
    /// The hold's deadline passed; the engine has forgotten the request.
    Expire(RequestId),
    /// Give up the request's attempt, and report it as failed (`Failure::Withdrawn`): its replica is down or
    /// wedged, or is to be left. After its first byte only a stream that may go on elsewhere is withdrawn
    /// (`Router::resume` reports it). A driver that cannot continue it lets it be.
    Withdraw(RequestId),
    /// Send this replica a probe now. At most one per replica is under way. It ends when
    /// `Router::observe` or `Router::observe_failed` reports it, even if the driver gave it up.
    /// Only `Router::tick` asks for probes.
    Probe(ReplicaId),
    /// Send a message to a peer that is connected. Only `Router::tick` yields messages.
    Tell(Tell),
}

impl Effect {
    /// The request that the effect concerns, if it concerns one.
    #[must_use]
    pub fn request(&self) -> Option<RequestId> {
        Some(match self {
            Self::Push(push) => push.request,
            Self::Forward(forward) => forward.request,
            Self::Reject(reject) => reject.request,
            Self::Hold(request) | Self::Expire(request) | Self::Withdraw(request) => *request,
            Self::Probe(_) | Self::Tell(_) => return None,
        })
    }
}

/// How a request ended. The numbers are part of the Python interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Outcome {
    /// The response was relayed to its end, and its status is below 500.
    Ok = 0,
    /// The client left. Never counts against the replica.
    ClientLeft = 1,
    /// The replica failed after its first body byte, or SkyLB relayed its error (status 500 or above).
    ReplicaFailed = 2,
    /// The balancer gave the request up: it stops, or lacks descriptors. Counts as if the client had left.
    GivenUp = 3,
}

impl Outcome {
    /// The outcome of a number in the Python interface.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Ok,
            1 => Self::ClientLeft,
            2 => Self::ReplicaFailed,
            3 => Self::GivenUp,
            _ => return None,
        })
    }

    /// Nobody waits for the answer any more.
    #[must_use]
    pub fn is_unwanted(self) -> bool {
        matches!(self, Self::ClientLeft | Self::GivenUp)
    }
}
