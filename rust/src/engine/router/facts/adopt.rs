//! Requests that another engine process has placed, and that are under way while this one takes its place:
//! a fact about their replicas.

use smallvec::SmallVec;

use super::super::{Ask, Router};
use crate::engine::choose::Here;
use crate::engine::demand::{Demand, Lane};
use crate::engine::hold::Payer;
use crate::engine::requests::request::{Phase, Request, Setbacks};
use crate::id::RequestId;
use crate::prompt::Digest;
use crate::time::{Instant, Span};

/// Where a request is that is to be adopted.
#[derive(Debug, Clone, Copy)]
pub struct Adopted<'a> {
    /// The replica's name.
    pub replica: &'a str,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The first byte of its answer has come.
    pub started: bool,
}

impl Router {
    /// Counts a request at its replica, as the one that placed it did. Nothing is refused: it is there already.
    /// `false`: no replica has this name, or the id is in use; nothing happened.
    pub fn adopt(
        &mut self,
        id: RequestId,
        (ask, digest): (&Ask<'_>, &mut Digest),
        at: Adopted<'_>,
        now: Instant,
    ) -> bool {
        let now = self.advance(now);
        let mut members = self.fleet.members();
        let found = members.find(|(_, member)| member.name() == at.replica);
        let slot = found.map(|(slot, _)| slot);
        drop(members);
        let Some(slot) = slot.filter(|_| !self.requests.contains(id)) else {
            return false;
        };
        self.counters.adopted += 1;
        let mut request = self.under_way(ask, digest, now);
        request.attempts = at.attempt.saturating_sub(1);
        let seen = (&self.fleet, &self.config);
        // Over a limit or not, it is there, and its concurrency counts.
        let charged = (self.requests).charge((&mut request, true), (ask, digest), seen, now);
        self.counters.adopted_over_limit += u64::from(charged.is_err());
        let lane = request.demand.lane;
        let here = Here {
            slot,
            match_blocks: 0,
            shadow: None,
        };
        self.push(id, request, here, now, &mut Vec::new()); // it was sent long ago
        let Some(request) = self.requests.get_mut(id) else {
            return false;
        };
        if let Phase::InFlight(attempt) = &mut request.phase {
            attempt.adopted = true;
            attempt.started = at.started;
        }
        if at.started {
            request.demand.blocks = Vec::new();
            self.fleet.first_byte(slot, (id, lane), now);
            if lane == Lane::Batch {
                self.mesh.note_started(slot, id, now);
            }
        }
        true
    }

    /// The request as [`Self::admit`] makes it, whatever it may use.
    fn under_way(&mut self, ask: &Ask<'_>, digest: &mut Digest, now: Instant) -> Request {
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
        Request {
            demand: Demand::new(lane, model, (None, regions), key, digest),
            age: self.requests.next_age(),
            stays: lane == Lane::Stored,
            rather_here: false,
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
            continues: false,
            given: None,
            body_bytes: crate::id::count(ask.body_bytes),
            attempts: 0,
            setbacks: Setbacks::default(),
            held_ns: Span::ZERO,
            phase: Phase::Between,
        }
    }
}
