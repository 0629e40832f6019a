//! What a driver reports of a request: at its beginning, and at its end.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::http::route::Route;
use crate::id::{PeerId, RequestId};
use crate::prompt::class::Class;
use crate::prompt::isolation::Owner;
use crate::prompt::{DigestConfig, Envelope};
use crate::tenant::Tenant;
use crate::time::Instant;

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
    /// The credential that the request came with: the hold counts by it where no tenant is named.
    pub credential: Option<&'a [u8]>,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Its tenant, for residency and the hold.
    pub tenant: Tenant<&'a str>,
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
    pub deadline_ns: Option<Instant>,
    /// The peer that it came from.
    pub origin: Option<PeerId>,
}

/// Whose a request is: the named tenant's, else its credential's, else nobody's.
#[must_use]
pub fn owner_of<'a>(tenant: Tenant<&'a str>, credential: Option<&'a [u8]>) -> Owner<'a> {
    match (tenant, credential) {
        (Tenant::Named(name), _) => Owner::Tenant(name),
        (Tenant::Nobody | Tenant::Unknown, Some(credential)) => Owner::Credential(credential),
        (Tenant::Nobody | Tenant::Unknown, None) => Owner::Nobody,
    }
}

impl<'a> Ask<'a> {
    /// The class that a trusted front names, else what the body says where it is `believed`. Every client
    /// may ask to be served later.
    #[must_use]
    pub fn class_of(&self, body: Class, believed: bool) -> Class {
        match self.class {
            Some(value) => Class::of_header(value),
            None if believed => body,
            None => body.max(Class::Normal),
        }
    }

    /// Whose it is, for the hold, for prefix caches and for stored responses.
    pub(in crate::engine) fn owner(&self) -> Owner<'a> {
        owner_of(self.tenant, self.credential)
    }

    /// The ring's key that the configured header gives.
    #[must_use]
    pub fn session_key(&self, config: &DigestConfig) -> Option<u64> {
        let key = self.key;
        key.map(|key| config.session_key(self.owner(), key))
    }

    /// What its body is read with; `only_model` is the one meant by a body that names none.
    pub(crate) fn envelope(&self, only_model: Option<&'a str>) -> Envelope<'a> {
        Envelope {
            trusted: self.trusted,
            only_model,
            owner: self.owner(),
            ..Envelope::new(self.route, self.content_type)
        }
    }

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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The target of its attempt was sent it.
    pub sent: bool,
    /// The answer is a stream of events.
    pub streamed: bool,
    /// The answer is an error from its beginning.
    pub refused: bool,
    /// Events of the stream that came.
    pub events: u64,
    /// Of those, behind the last that told `completion_tokens`.
    pub events_since_usage: u64,
}

/// A request with this id is known already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlreadyKnown(pub RequestId);

impl fmt::Display for AlreadyKnown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {} is known already", self.0.0)
    }
}

impl std::error::Error for AlreadyKnown {}
