//! What would be decided about a request now, without doing it.
//!
//! The steps are those of `place`, with the same parts of the engine. What a choice changes on its way is put
//! back: the draw, the turn of `round_robin`, and the use of a session. A model without a number gets one for as
//! long as the rehearsal takes.

use serde::Serialize;
use smallvec::SmallVec;

use super::receipt::{AskedView, DecisionView};
use super::reckoned::Weights;
use crate::engine::choose::{Here, Seeker, Selection, There, matched_tokens};
use crate::engine::config::UnknownModels;
use crate::engine::counters::Counters;
use crate::engine::demand::{Demand, Lane};
use crate::engine::hold::{Full, Payer};
use crate::engine::receipts::decision::{Came, Decision, Held};
use crate::engine::receipts::{Asked, Receipts};
use crate::engine::refusal::Refusal;
use crate::engine::requests::request::{NoPlace, Phase, Request, Setbacks};
use crate::engine::router::{Ask, LOADING_NS, Router};
use crate::http::route::Route;
use crate::id::{ModelId, RequestId};
use crate::prompt::Digest;
use crate::time::{Instant, Span};

/// Names the request of a rehearsal. No driver gives it.
const NOBODY: RequestId = RequestId(u64::MAX);

/// What would be decided.
#[derive(Debug, Serialize)]
struct Verdict<'a> {
    #[serde(flatten)]
    asked: AskedView<'a>,
    now_ns: Instant,
    weights: Weights,
    decision: DecisionView<'a>,
    /// Something was drawn: the next request may get another lot.
    drawn: bool,
    /// Requests are held, and their turn decides as well.
    others_wait: bool,
}

impl Router {
    /// What would be decided now about a request with this body, as JSON. Nothing is changed. The limits of
    /// tenants are not looked at.
    ///
    /// # Errors
    ///
    /// None in practice: every value has a form in JSON.
    pub fn rehearse(
        &mut self,
        name: &str,
        ask: &Ask<'_>,
        mut digest: Digest,
        now: Instant,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let now = now.max(self.parts().now);
        let asked = self.asked(name, ask, &digest);
        let (decision, drawn) = self.decide(&asked, ask, &mut digest, now);
        let parts = self.parts();
        serde_json::to_vec(&Verdict {
            asked: AskedView::of(&asked, &parts),
            now_ns: now,
            weights: Weights::of(parts.config),
            decision: DecisionView::of(&decision, &parts),
            drawn,
            others_wait: !parts.hold.is_empty(),
        })
    }

    /// The decision, and whether something was drawn for it.
    fn decide(
        &mut self,
        asked: &Asked,
        ask: &Ask<'_>,
        digest: &mut Digest,
        now: Instant,
    ) -> (Decision, bool) {
        let plain = |came| Decision {
            at_ns: now,
            came,
            held: (came == Came::Held).then_some(Held::ListsAreRead),
            search: None,
            peers: None,
            first_byte_ns: None,
            failed: None,
        };
        let fleet = self.parts().fleet;
        let known = fleet.model(&digest.model);
        let passed = known.map(|id| (id, fleet.is_passed(id)));
        let request = match self.rehearsed(ask, digest, now) {
            Ok(request) => request,
            Err(came) => return (plain(came), false),
        };
        let (age, model, key) = (request.age, request.demand.model, request.demand.key);
        let last = self.parts().fleet.last_of(model, false);
        let mut receipts = Receipts::new(1);
        receipts.begin(NOBODY, age, asked.clone(), now);
        let kept = self.sight(now).0.rehearse(key, receipts);
        let (came, held) = if self.is_unlisted(&request, now) {
            (Came::Held, Some(Held::ListsAreRead))
        } else {
            self.rehearse_settle(&request, now)
        };
        let (chooser, _, sight, _) = self.sight(now);
        let (drawn, receipts) = chooser.put_back(kept);
        sight.fleet.put_back_last(model, last);
        match passed {
            Some((known, false)) => sight.fleet.set_passed(known, false),
            Some((_, true)) => {}
            None => model
                .into_iter()
                .for_each(|id| sight.fleet.forget_if_unused(id)),
        }
        let looked_at = receipts.map(|mut receipts| receipts.take_looked_at(age));
        let (search, peers) = looked_at.unwrap_or_default();
        let decision = Decision {
            held,
            search,
            peers,
            ..plain(came)
        };
        (decision, drawn)
    }

    /// The request as the engine would keep it, or what it would come to before any choice.
    fn rehearsed(
        &mut self,
        ask: &Ask<'_>,
        digest: &mut Digest,
        now: Instant,
    ) -> Result<Request, Came> {
        let refused = |refusal: Refusal| Came::Refused(refusal.code);
        let lane = Lane::of(ask.route);
        let parts = self.parts();
        let tenants = parts.requests.tenants();
        if !tenants.allows(ask.tenant, &digest.model, lane == Lane::Batch) {
            return Err(Came::Refused("model_not_allowed"));
        }
        let regions = parts.mesh.residency().allowed(ask.tenant, &digest.model);
        self.check_regions(regions, ask.tenant).map_err(refused)?;
        let payer = Payer::of(ask.owner(), parts.digest);
        let keeper = payer.keeper(parts.digest.isolates());
        let previous = digest.previous_response_id.as_deref().map(str::as_bytes);
        let response = ask.response_id().or(previous);
        let replica = response.and_then(|id| parts.requests.look_up_response(keeper, id));
        let bound = replica.filter(|replica| parts.fleet.listed(*replica));
        if response.is_some() && bound.is_none() {
            return Err(refused(Refusal::response_unknown()));
        }
        let header = ask.session_key(parts.digest);
        let class = self.class_of(ask, digest.class);
        let age = parts.requests.age_next();
        let attempts_max = parts.config.attempts_max;
        let model = match lane {
            Lane::Stored => None,
            Lane::Batch | Lane::Light => Some(self.named(&digest.model, regions, now)?),
        };
        let responses = ask.route == Route::Responses;
        let kept = bound.is_some() || lane == Lane::Stored || (responses && !digest.retry_safe);
        let demand = Demand::new(lane, model, (bound, regions), header.or(digest.key), digest);
        Ok(Request {
            demand,
            age,
            stays: kept,
            rather_here: responses && !digest.unstored,
            leaves_until_ns: Instant::ZERO,
            attempts_max,
            deadline_ns: None,
            tried_peers: SmallVec::new(),
            class,
            payer,
            bill: None,
            charge: None,
            submitted_ns: now,
            retry_safe: digest.retry_safe,
            continues: false,
            given: None,
            body_bytes: u32::try_from(ask.body_bytes.max(digest.prompt_bytes)).unwrap_or(u32::MAX),
            attempts: 0,
            setbacks: Setbacks::default(),
            held_ns: Span::ZERO,
            phase: Phase::Between,
        })
    }

    /// The number of a model's name. A new one is given back at the end of the rehearsal.
    fn named(&mut self, name: &str, regions: u64, now: Instant) -> Result<ModelId, Came> {
        let parts = self.parts();
        let (fleet, config) = (parts.fleet, parts.config);
        let bytes_per_token = config.bytes_per_token;
        let known = if name.is_empty() {
            fleet.listed_models().map(|(id, _)| id).last()
        } else {
            fleet.model(name).filter(|id| fleet.is_served(*id))
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let away = !name.is_empty() && parts.mesh.serves(name, regions, now);
        let found = fleet.takes_unlisted() || away || (!name.is_empty() && fleet.looks(now));
        let passes = config.unknown_models == UnknownModels::Pass;
        if name.is_empty() && !found {
            return Err(Came::Refused("no_replica_ready"));
        }
        if !found && parts.requests.looks().take_more() {
            return Err(Came::Held);
        }
        if !found && !fleet.any_models_known() {
            return Err(Came::Refused("no_replica_ready"));
        }
        if !found && fleet.was_listed(name, config.model_gone_ns, now) {
            return Err(Came::Refused("model_not_ready"));
        }
        if !found && !passes {
            let loading = fleet.awaits(LOADING_NS, now);
            let code = if loading {
                "model_not_ready"
            } else {
                "model_not_found"
            };
            return Err(Came::Refused(code));
        }
        let fleet = self.sight(now).2.fleet;
        let id = fleet.intern(name, bytes_per_token);
        if !found {
            fleet.pass(id);
        }
        Ok(id)
    }

    /// As `settle` decides; why it is held, where what is looked at does not tell.
    fn rehearse_settle(&mut self, request: &Request, now: Instant) -> (Came, Option<Held>) {
        let evacuating = self.parts().mesh.evacuating();
        if evacuating && let Some(there) = self.rehearse_peer(request, now) {
            return (self.forwarded(there), None);
        }
        let batch = request.demand.lane == Lane::Batch;
        let place = self.place_in_hold(request, now);
        if evacuating && batch && self.peers_serve(request, now) && place.is_ok() {
            return (Came::Held, Some(Held::Leaves));
        }
        let line = request.partition().filter(|_| batch);
        let line = line.filter(|_| !self.parts().hold.is_empty());
        if place.is_ok() && line.is_some_and(|line| self.contested(line, now)) {
            return (Came::Held, Some(Held::OthersFirst));
        }
        (self.rehearse_choice(request, place, now), None)
    }

    /// What the policy's choice comes to.
    fn rehearse_choice(
        &mut self,
        request: &Request,
        place: Result<(), NoPlace>,
        now: Instant,
    ) -> Came {
        let found = self.rehearse_find(request, true, now);
        let (chooser, mesh, mut sight, _) = self.sight(now);
        if let Some(there) = chooser.faster_peer(request.seeker(), found, mesh, &mut sight) {
            return self.forwarded(there);
        }
        match found {
            Selection::Here(_) => self.pushed(request, found, now),
            Selection::Awaits { .. } if place.is_ok() => Came::Held,
            Selection::Awaits { .. } => {
                let second = self.rehearse_find(request, false, now);
                self.pushed(request, second, now)
            }
            Selection::NoRoom | Selection::NoneReady => {
                self.without_room(request, found == Selection::NoneReady, place, now)
            }
        }
    }

    /// No replica here has room.
    fn without_room(
        &mut self,
        request: &Request,
        none_ready: bool,
        place: Result<(), NoPlace>,
        now: Instant,
    ) -> Came {
        if let Some(there) = self.rehearse_peer(request, now) {
            return self.forwarded(there);
        }
        let parts = self.parts();
        let anybody = request.demand.lane == Lane::Batch && request.demand.bound.is_none();
        let looks = anybody && parts.fleet.looks(now);
        if none_ready && !looks && !self.peers_serve(request, now) {
            return Came::Refused("no_replica_ready");
        }
        match place {
            Ok(()) => Came::Held,
            Err(full) => Came::Refused(Refusal::no_room(full, 0).code),
        }
    }

    fn rehearse_find(&mut self, request: &Request, may_wait: bool, now: Instant) -> Selection {
        let room = self.room_for(request, now);
        let (chooser, _, mut sight, _) = self.sight(now);
        let seeker = Seeker {
            room,
            ..request.seeker()
        };
        let may_wait = (may_wait, false);
        chooser.find(seeker, may_wait, &mut sight, &mut Counters::default())
    }

    fn rehearse_peer(&mut self, request: &Request, now: Instant) -> Option<There> {
        let (chooser, mesh, mut sight, _) = self.sight(now);
        chooser.find_peer(request.seeker(), true, mesh, &mut sight)
    }

    /// Whether the hold has a place for it.
    fn place_in_hold(&self, request: &Request, now: Instant) -> Result<(), NoPlace> {
        let parts = self.parts();
        let pool = parts.fleet.pool_of(request.demand.model);
        let entrant = request.entrant(NOBODY, pool, parts.config, now)?;
        let fits: Result<(), Full> = parts.hold.fits(&entrant, parts.config);
        fits.map_err(NoPlace::Hold)
    }

    fn pushed(&self, request: &Request, found: Selection, now: Instant) -> Came {
        let parts = self.parts();
        let Selection::Here(Here {
            slot, match_blocks, ..
        }) = found
        else {
            return Came::Held;
        };
        let Some(member) = parts.fleet.member(slot) else {
            return Came::Held;
        };
        let demand = &request.demand;
        let tokens = matched_tokens(parts.cache, parts.fleet, demand, match_blocks);
        let matched = (match_blocks, tokens);
        let forecast = parts
            .fleet
            .forecast(demand, slot, matched, parts.config, now);
        Came::Pushed {
            replica: member.id(),
            attempt: 1,
            match_blocks,
            predicted_ttft_ns: demand.measured().then_some(forecast.ttft_ns),
        }
    }

    fn forwarded(&self, there: There) -> Came {
        let peer = self.parts().mesh.peer(there.slot);
        peer.map_or(Came::Held, |peer| Came::Forwarded {
            peer: peer.id,
            attempt: 1,
            match_blocks: there.match_blocks,
        })
    }
}
