//! Requests that another engine process has placed, and that are under way while this one takes its place:
//! a fact about their replicas.
//!
//! A request whose attempt has failed meanwhile is decided on as ever: it is counted at its replica, and then
//! [`Router::retry`] is called. What may not be sent twice, or has had all its attempts, is refused.

use smallvec::SmallVec;

use super::super::{AlreadyKnown, Ask, Router};
use crate::engine::choose::Here;
use crate::engine::demand::{Demand, Lane};
use crate::engine::effect::Effect;
use crate::engine::fleet::failure::Failure;
use crate::engine::fleet::member::Member;
use crate::engine::hold::Payer;
use crate::engine::refusal::Refusal;
use crate::engine::requests::request::{Given, Phase, Request, Setbacks};
use crate::engine::router::resume::Part;
use crate::http::route::Route;
use crate::id::{ReplicaId, ReplicaSlot, RequestId};
use crate::prompt::Digest;
use crate::time::{Instant, Span};

/// How far a request has come that is to be adopted.
#[derive(Debug, Clone, Copy)]
pub struct Adopted<'a> {
    /// The name of the replica that its attempt is at, or was when it failed; `None`: it is at none.
    pub replica: Option<&'a str>,
    /// Attempts so far, that one included unless nobody was there to take the request.
    pub attempts: u32,
    /// The first byte of its answer has come.
    pub started: bool,
    /// Time in the hold so far.
    pub waited: Span,
    /// Its attempt has failed so, and nothing has been decided since; and whether bytes of the request went out.
    pub failed: Option<(Failure, bool)>,
    /// What its client has of a stream that has left a replica.
    pub given: Option<Part>,
}

impl Router {
    /// Counts a request at its replica, as the one that placed it did. Nothing is refused for a limit: it is there
    /// already, and its tenant is charged. One that is at no replica, or has failed there, is placed again, if it may be.
    ///
    /// `false`: no replica has this name, and nothing happened.
    ///
    /// # Errors
    ///
    /// The id is in use: nothing happened.
    pub fn adopt(
        &mut self,
        id: RequestId,
        (ask, digest): (&Ask<'_>, &mut Digest),
        at: Adopted<'_>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Result<bool, AlreadyKnown> {
        let now = self.advance(now);
        if self.requests.contains(id) {
            return Err(AlreadyKnown(id));
        }
        let slot = at.replica.and_then(|name| self.slot_named(name));
        if slot.is_none() && at.replica.is_some() && at.failed.is_none() {
            return Ok(false);
        }
        if slot.is_none() && builds(ask, digest) {
            out.push(Effect::Reject(Refusal::response_unknown().of(id))); // who keeps it is gone
            return Ok(true);
        }
        let keeper = slot.and_then(|slot| self.fleet.member(slot).map(Member::id));
        let mut request = self.under_way((ask, digest), keeper, now);
        let unreached = (at.failed).is_some_and(|(failure, sent)| failure.unreached(sent));
        request.attempts = at.attempts + u32::from(unreached);
        request.held_ns = at.waited;
        request.given = at.given.map(|part| Given {
            cut: !at.started || at.failed.is_some(),
            continuations: part.continuations,
            usage: part.usage,
            events: part.events,
        });
        let seen = (&self.fleet, &self.config);
        let over = (self.requests).charge_late(&mut request, (ask, digest), seen, now);
        self.counters.adopted += 1;
        self.requests.budget_mut().request(now);
        self.counters.adopted_over_limit += u64::from(over);
        let Some(slot) = slot else {
            self.place_on(id, request, at.failed, now, out);
            return Ok(true);
        };
        request.attempts = request.attempts.saturating_sub(1);
        self.put_back(id, request, (slot, at.started), now);
        if let Some((failure, sent)) = at.failed {
            self.retry(id, failure, sent, now, out);
        }
        Ok(true)
    }

    fn slot_named(&self, name: &str) -> Option<ReplicaSlot> {
        let mut members = self.fleet.members();
        let found = members.find(|(_, member)| member.name() == name);
        found.map(|(slot, _)| slot)
    }

    /// Counts a request at the replica at which it is.
    fn put_back(
        &mut self,
        id: RequestId,
        request: Request,
        (slot, started): (ReplicaSlot, bool),
        now: Instant,
    ) {
        let lane = request.demand.lane;
        let here = Here {
            slot,
            match_blocks: 0,
            shadow: None,
        };
        self.push(id, request, here, now, &mut Vec::new()); // it was sent long ago
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        if let Phase::InFlight(attempt) = &mut request.phase {
            attempt.adopted = true;
            attempt.started = started;
        }
        if started {
            if !request.continues {
                request.demand.blocks = Vec::new();
            }
            self.fleet.first_byte(slot, (id, lane), now);
            if lane == Lane::Batch {
                self.mesh.note_started(slot, id, now);
            }
        }
    }

    /// Places a request again that is at no replica of ours: it was held, or its attempt has failed at a peer, or at
    /// a replica that is gone.
    fn place_on(
        &mut self,
        id: RequestId,
        mut request: Request,
        failed: Option<(Failure, bool)>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let Some((failure, sent)) = failed else {
            return self.settle(id, request, None, now, out);
        };
        let refusal = self.failed(failure);
        let again = if failure.refused() {
            request.attempts = request.attempts.saturating_sub(1);
            true
        } else if failure == Failure::Withdrawn && !request.is_cut() {
            request.attempts < request.attempts_max
        } else {
            self.may_retry(&mut request, failure, false, sent, now)
        };
        if again {
            self.counters.retries += u64::from(!failure.refused());
            self.settle(id, request, Some(refusal), now, out);
        } else {
            self.refuse(id, &request, refusal, out);
        }
    }

    /// The request as [`Self::admit`] makes it, whatever it may use. `keeper`: the replica at which it is, which
    /// keeps what it asks for.
    fn under_way(
        &mut self,
        (ask, digest): (&Ask<'_>, &mut Digest),
        keeper: Option<ReplicaId>,
        now: Instant,
    ) -> Request {
        let lane = Lane::of(ask.route);
        let named = lane != Lane::Stored && !digest.model.is_empty();
        let model = named.then(|| {
            self.fleet
                .intern(&digest.model, self.config.bytes_per_token)
        });
        if let Some(model) = model {
            self.fleet.hold_model(model);
        }
        let payer = Payer::of(ask.owner(), &self.reader.config);
        self.hold.saw(payer, now);
        let regions = self.mesh.residency().allowed(ask.tenant, &digest.model);
        let header = ask.session_key(&self.reader.config);
        let key = header.or(digest.key);
        let responses = ask.route == Route::Responses;
        let builds = builds(ask, digest);
        let stays = builds || (responses && !digest.retry_safe);
        let bound = keeper.filter(|_| builds);
        Request {
            demand: Demand::new(lane, model, (bound, regions), key, digest),
            age: self.requests.next_age(),
            stays,
            rather_here: responses && !digest.unstored,
            leaves_until_ns: Instant::ZERO,
            attempts_max: self.config.attempts_max,
            deadline_ns: None,
            tried_peers: SmallVec::new(),
            class: self.class_of(ask, digest.class),
            payer,
            bill: None,
            charge: None,
            submitted_ns: now,
            retry_safe: digest.retry_safe,
            continues: lane == Lane::Batch && !stays && digest.may_go_on(),
            given: None,
            body_bytes: crate::id::count(ask.body_bytes),
            attempts: 0,
            setbacks: Setbacks::default(),
            held_ns: Span::ZERO,
            phase: Phase::Between,
        }
    }
}

/// It asks for what one replica keeps.
fn builds(ask: &Ask<'_>, digest: &Digest) -> bool {
    Lane::of(ask.route) == Lane::Stored || digest.previous_response_id.is_some()
}
