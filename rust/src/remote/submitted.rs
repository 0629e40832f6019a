//! A request as it crosses.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::frame::Hashes;
use crate::engine::fleet::failure::Failure;
use crate::engine::router::{Ask, Part};
use crate::http::route::Route;
use crate::prompt::Digest;
use crate::prompt::class::Class;
use crate::prompt::continuing::Continuing;
use crate::tenant::Tenant;

/// A request that is to be placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit<'a> {
    /// Its number within the worker.
    pub number: u64,
    /// Its name in logs.
    pub request_id: &'a str,
    /// When its head was complete.
    pub start_ns: u64,
    /// Time that it has been in the hold of another engine process.
    pub waited_ns: u64,
    /// What its head says.
    #[serde(borrow)]
    pub head: Head<'a>,
    /// What its body says.
    #[serde(borrow)]
    pub body: Body<'a>,
    /// How far it has come, where another engine process has placed it.
    #[serde(borrow)]
    pub course: Option<Course<'a>>,
}

/// How far a request has come that another engine process has placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course<'a> {
    /// The name of the replica that its attempt is at, or was when it failed: its id may be another one now.
    pub replica: Option<&'a str>,
    /// Attempts so far, that one included.
    pub attempts: u32,
    /// The first byte of its answer has come.
    pub started: bool,
    /// Its attempt has failed, and nothing has been decided since.
    pub failed: Option<Failed>,
    /// What its client has of a stream that has left a replica.
    pub given: Option<Part>,
}

/// How an attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The kind.
    pub failure: Failure,
    /// Bytes of the request went out.
    pub sent: bool,
    /// When.
    pub at_ns: u64,
}

/// An [`Ask`], as it crosses.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head<'a> {
    /// See [`Ask`]; likewise below.
    pub route: Route,
    /// The path, where it names a response; else empty.
    pub path: &'a [u8],
    /// Value of the key header.
    pub key: Option<&'a [u8]>,
    /// Value of the class header.
    pub class: Option<&'a [u8]>,
    /// It came from a front whose word counts.
    pub trusted: bool,
    /// Its credential.
    pub credential: Option<&'a [u8]>,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// Its tenant.
    #[serde(borrow)]
    pub tenant: Tenant<&'a str>,
}

impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The others hold credentials, and names that clients choose.
        f.debug_struct("Head")
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

impl<'a> Head<'a> {
    /// What crosses of a request of one of our own clients.
    #[must_use]
    pub fn of(ask: &Ask<'a>) -> Self {
        let named = matches!(ask.route, Route::ResponseById | Route::ResponseCancel);
        Self {
            route: ask.route,
            path: if named { ask.path } else { b"" },
            key: ask.key,
            class: ask.class,
            trusted: ask.trusted,
            credential: ask.credential,
            body_bytes: ask.body_bytes as u64,
            tenant: ask.tenant,
        }
    }

    /// What the engine is asked.
    #[must_use]
    pub fn ask(&self) -> Ask<'a> {
        Ask {
            route: self.route,
            path: self.path,
            content_type: None, // the body has been read
            key: self.key,
            class: self.class,
            trusted: self.trusted,
            credential: self.credential,
            body_bytes: usize::try_from(self.body_bytes).unwrap_or(usize::MAX),
            tenant: self.tenant,
            forwarded: None,
        }
    }
}

/// What the engine needs of a [`Digest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one request"
)]
pub struct Body<'a> {
    /// See [`Digest`]; likewise below.
    pub model: &'a str,
    /// The client wants a stream.
    pub stream: bool,
    /// Answer tokens at most.
    pub max_tokens: Option<u32>,
    /// Answers asked for.
    pub choices: u32,
    /// Tokens that one event may have.
    pub event_tokens: u32,
    /// The ring's key.
    pub key: Option<u64>,
    /// How urgent it says that it is.
    pub class: Class,
    /// It may be sent twice.
    pub retry_safe: bool,
    /// Its stream may go on at another replica: the worker has the plan.
    pub may_go_on: bool,
    /// Nothing is kept of its answer.
    pub unstored: bool,
    /// The answer that it builds on.
    pub previous_response_id: Option<&'a str>,
    /// Bytes of the prompt.
    pub prompt_bytes: u64,
    /// There is more in it than text.
    pub has_media: bool,
    /// Whole blocks of the prompt.
    pub prompt_blocks: u32,
    /// Their hashes; none once they are of no use.
    #[serde(borrow)]
    pub blocks: Hashes<'a>,
}

impl<'a> Body<'a> {
    /// What crosses of a digest; `blocks`: the bytes of its hashes.
    #[must_use]
    pub fn of(digest: &'a Digest, blocks: &'a [u8]) -> Self {
        Self {
            model: &digest.model,
            stream: digest.stream,
            max_tokens: digest.max_tokens,
            choices: digest.choices,
            event_tokens: digest.event_tokens,
            key: digest.key,
            class: digest.class,
            retry_safe: digest.retry_safe,
            may_go_on: digest.may_go_on(),
            unstored: digest.unstored,
            previous_response_id: digest.previous_response_id.as_deref(),
            prompt_bytes: digest.prompt_bytes as u64,
            has_media: digest.has_media,
            prompt_blocks: crate::id::count(digest.blocks.len()),
            blocks: Hashes::new(blocks),
        }
    }

    /// What the engine is given.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest {
            model: self.model.into(),
            stream: self.stream,
            max_tokens: self.max_tokens,
            choices: self.choices,
            event_tokens: self.event_tokens,
            key: self.key,
            class: self.class,
            retry_safe: self.retry_safe,
            continuing: if self.may_go_on {
                Continuing::Elsewhere
            } else {
                Continuing::Off
            },
            unstored: self.unstored,
            previous_response_id: self.previous_response_id.map(Into::into),
            prompt_bytes: usize::try_from(self.prompt_bytes).unwrap_or(usize::MAX),
            has_media: self.has_media,
            blocks: self.blocks.get(),
            ..Digest::default()
        }
    }
}
