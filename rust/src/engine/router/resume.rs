//! Streams that go on elsewhere from where they were.
//!
//! A stream may break after its first byte, or have to leave its replica. If the driver has what another
//! replica needs to go on with it, it calls [`Router::resume`]. From then on the attempt counts as one without
//! a first byte. It is released, its replica is blamed as ever, and the request is placed again. It keeps its
//! age, so that it goes before all that came later, and its blocks, so that the choice is by prefix.
//!
//! Tries to continue a stream take nothing from the budget of retries. That budget is a part of the requests
//! that come, and most streams of a dead region began long before. Their number has its own bounds:
//! [`CONTINUATIONS_MAX`] for each request, and the streams that are open.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Router;
use crate::engine::ask::{Report, Usage};
use crate::engine::effect::Effect;
use crate::engine::fleet::failure::Failure;
use crate::engine::requests::request::{Given, Request};
use crate::id::RequestId;
use crate::time::{Instant, Span};

/// Replicas and peers that are tried for what is missing of one stream. Each continuation computes the prompt again
/// where it is not cached, so an engine that dies of a request must not be followed through the whole fleet.
pub const CONTINUATIONS_MAX: u32 = 8;

/// A stream that an operator wants to leave may use up so many of its tries; the others are for failures.
pub(super) const DEPARTURES_MAX: u32 = CONTINUATIONS_MAX / 2;

/// What a client has of a stream that has left a replica, for another engine process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Replicas and peers tried for what is missing.
    pub continuations: u32,
    /// Tokens of the prompt, and those that the client has.
    pub usage: Usage,
    /// Events of the stream.
    pub events: u64,
}

impl Router {
    /// The request has been placed, and has not ended.
    #[must_use]
    pub fn knows(&self, id: RequestId) -> bool {
        self.requests.contains(id)
    }

    /// The request is at a replica or at a peer: [`Self::retry`] decides what follows if it fails there.
    #[must_use]
    pub fn is_under_way(&self, id: RequestId) -> bool {
        self.requests.get(id).is_some_and(Request::is_under_way)
    }

    /// The request streams and may go on elsewhere: [`Self::resume`] decides what follows if it breaks.
    #[must_use]
    pub fn may_resume(&self, id: RequestId) -> bool {
        let request = self.requests.get(id);
        request.is_some_and(|request| request.continues && request.started())
    }

    /// The stream of a request's attempt broke or was withdrawn after its first byte, and the driver can go on
    /// with it elsewhere. `given`: what its client has.
    ///
    /// Causes a push or a forward of what is missing, a place in the hold, or a refusal. Then the driver ends
    /// the stream with an error.
    pub fn resume(
        &mut self,
        id: RequestId,
        failure: Failure,
        given: &Report<'_>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let now = self.advance(now);
        let may = self.may_resume(id);
        let Some(request) = self.requests.get_mut(id).filter(|_| may) else {
            self.counters.unknown_retries += 1;
            return;
        };
        let continuations = request.continuations();
        request.given = Some(Given {
            cut: true,
            continuations,
            usage: given.usage,
            events: given.events,
        });
        // The time in the hold before its first byte is another wait.
        request.held_ns = Span::ZERO;
        request.leaves_until_ns = Instant::ZERO;
        request.tried_peers = SmallVec::new();
        // Who had no room before the first byte may have some by now.
        request.stays = false;
        request.setbacks.by_peers = 0;
        request.setbacks.by_replicas = 0;
        self.counters.resumed += 1;
        self.retry(id, failure, true, now, out);
    }
}

impl Request {
    /// Replicas and peers that were tried for what is missing of its stream.
    pub(super) fn continuations(&self) -> u32 {
        self.given.map_or(0, |given| given.continuations)
    }

    /// One more replica or peer may be tried for what is missing of its stream; it is counted.
    pub(super) fn may_continue(&mut self) -> bool {
        let Some(given) = &mut self.given else {
            return false;
        };
        given.continuations += 1;
        self.attempts = 0;
        if self.setbacks.suspects.len() > 1 {
            self.setbacks.suspects.remove(0);
        }
        given.continuations <= CONTINUATIONS_MAX
    }
}

impl Given {
    /// As a driver reports it at a request's end.
    pub(in crate::engine) fn report(&self) -> Report<'static> {
        Report {
            usage: self.usage,
            sent: true,
            streamed: true,
            events: self.events,
            ..Report::default()
        }
    }
}
