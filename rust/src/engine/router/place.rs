//! Where a request goes: to a replica, to a peer, into the hold, or back with a refusal.
//!
//! [`Router::place`] takes a request whose body has been read. `admit` checks what it may use. `settle`
//! decides where it goes: `find` asks [`Chooser::find`] for a replica, `find_peer` and `faster_peer` for
//! a peer. `push` and `enter_hold` note the decision, and `out` gets the effect.

use smallvec::SmallVec;

use super::{AlreadyKnown, Ask, Forwarded, Router};
use crate::engine::choose::{Here, Selection, matched_tokens};
use crate::engine::demand::{Demand, Lane};
use crate::engine::effect::{Effect, Push};
use crate::engine::hold::{Full, Payer, Purse, Ticket, Tokens};
use crate::engine::plant::Plant;
use crate::engine::receipts::decision::Held;
use crate::engine::refusal::Refusal;
use crate::engine::requests::request::{Attempt, NoPlace, Phase, Request, Setbacks};
use crate::http::route::Route;
use crate::id::{ReplicaId, ReplicaSlot, RequestId};
use crate::prompt::Digest;
use crate::prompt::isolation::Owner;
use crate::time::{Instant, Span};

impl Router {
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
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Result<(), AlreadyKnown> {
        self.place_again(id, (ask, digest), Span::ZERO, now, out)
    }

    /// The same for a request that another engine process has held so long.
    ///
    /// # Errors
    ///
    /// See [`Self::place`].
    pub fn place_again(
        &mut self,
        id: RequestId,
        (ask, digest): (&Ask<'_>, &mut Digest),
        waited: Span,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Result<(), AlreadyKnown> {
        let now = self.advance(now);
        if self.requests.contains(id) {
            return Err(AlreadyKnown(id));
        }
        self.counters.submitted += 1;
        self.requests.budget_mut().request(now);
        self.expire_due(now, out);
        let (hop, origin) = ask.forwarded.map_or((0, None), |f| (f.hop, f.origin));
        let granted = Lane::of(ask.route).takes_room();
        self.arrive(origin, &digest.model, (hop, granted), now);
        let admitted = self.admit(ask, digest, now).map(|mut request| {
            request.held_ns = waited;
            request
        });
        match admitted {
            Ok(request) if self.is_unlisted(&request, now) => {
                self.await_look(id, request, now, out);
            }
            Ok(request) => self.settle(id, request, None, now, out),
            Err(mut refusal) => {
                self.counters.rejected += 1;
                self.counters.count_refusal(refusal.code);
                if ask.forwarded.is_some() && refusal.status == 404 {
                    refusal = Refusal::not_served_here();
                }
                out.push(Effect::Reject(refusal.of(id)));
            }
        }
        Ok(())
    }

    /// The request as the engine keeps it, or a refusal. A request is refused if its regions, its model or the
    /// stored response that it builds on allow no replica and no peer. A forward is also refused if it has
    /// made more than one hop, if this region is evacuated, or if too many requests for its model wait here.
    fn admit(
        &mut self,
        ask: &Ask<'_>,
        digest: &mut Digest,
        now: Instant,
    ) -> Result<Request, Refusal> {
        let lane = Lane::of(ask.route);
        let forwarded = ask.forwarded;
        self.check_hop(forwarded)?;
        if let Some(refusal) = self.requests.refuses_model(ask, &digest.model) {
            return Err(refusal);
        }
        let regions = self.mesh.residency().allowed(ask.tenant, &digest.model);
        self.check_regions(regions, ask.tenant)?;
        let payer = Payer::of(ask.owner(), &self.reader.config);
        let bound = self.bound(ask, digest, payer)?;
        let model = match lane {
            Lane::Stored => None,
            Lane::Batch | Lane::Light => {
                // Only requests that may leave can be served where the model is missing here.
                let regions = if forwarded.is_none() { regions } else { 0 };
                Some(self.model_named(&digest.model, regions, forwarded.is_some(), now)?)
            }
        };
        if let Some(model) = model {
            self.fleet.hold_model(model);
        }
        self.hold.saw(payer, now);
        let header = ask.session_key(&self.reader.config);
        let attempts_max = self.config.attempts_max;
        let responses = ask.route == Route::Responses;
        // What a replica keeps can only be found again from here.
        let kept = bound.is_some() || lane == Lane::Stored || (responses && !digest.retry_safe);
        let demand = Demand::new(lane, model, (bound, regions), header.or(digest.key), digest);
        let mut request = Request {
            demand,
            age: self.requests.next_age(),
            stays: forwarded.is_some() || kept,
            rather_here: responses && !digest.unstored,
            leaves_until_ns: Instant::ZERO,
            attempts_max: forwarded.map_or(attempts_max, |f| f.attempts_left.min(attempts_max)),
            deadline_ns: forwarded.and_then(|f| f.deadline_ns),
            tried_peers: SmallVec::new(),
            class: self.class_of(ask, digest.class),
            payer,
            bill: None,
            charge: None,
            submitted_ns: now,
            retry_safe: digest.retry_safe,
            continues: lane == Lane::Batch && forwarded.is_none() && !kept && digest.may_go_on(),
            given: None,
            body_bytes: u32::try_from(ask.body_bytes.max(digest.prompt_bytes)).unwrap_or(u32::MAX),
            attempts: 0,
            setbacks: Setbacks::default(),
            held_ns: Span::ZERO,
            phase: Phase::Between,
        };
        let refusal = self.refuses_forward(&request, forwarded.is_some());
        let known = self.is_known(&request, now);
        let seen = (&self.fleet, &self.config);
        let charge = || (self.requests).charge((&mut request, known), (ask, digest), seen, now);
        if let Err(refusal) = refusal.map_or_else(charge, Err) {
            self.forget(&request);
            return Err(refusal);
        }
        Ok(request)
    }

    /// A request crosses between balancers once.
    fn check_hop(&self, forwarded: Option<Forwarded>) -> Result<(), Refusal> {
        let crossed = forwarded.is_some_and(|forwarded| forwarded.hop != 1);
        if crossed && !self.config.planted(Plant::HopIgnored) {
            return Err(Refusal::too_many_hops());
        }
        Ok(())
    }

    /// The replica that keeps the stored response that the request names, if it names one. To ask for that of
    /// another tenant is to ask for one that nobody made.
    fn bound(
        &mut self,
        ask: &Ask<'_>,
        digest: &Digest,
        payer: Payer,
    ) -> Result<Option<ReplicaId>, Refusal> {
        let previous = digest.previous_response_id.as_deref().map(str::as_bytes);
        let Some(response_id) = ask.response_id().or(previous) else {
            return Ok(None);
        };
        let keeper = payer.keeper(self.reader.config.isolates());
        let replica = self.requests.find_response(keeper, response_id);
        let listed = replica.filter(|replica| self.fleet.listed(*replica));
        listed.map(Some).ok_or_else(Refusal::response_unknown)
    }

    pub(super) fn tenant(&self, name: &str) -> Payer {
        Payer::of(Owner::Tenant(name), &self.reader.config)
    }

    /// Pushes the request to a replica, forwards it to a peer, or holds it. If it can do none of these, it
    /// refuses the request. At a retry it gives the reason `failed`, else the reason found here.
    pub(super) fn settle(
        &mut self,
        id: RequestId,
        request: Request,
        failed: Option<Refusal>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        // A bug that tests plant; never so in a release.
        let sent_on = request.stays && self.config.planted(Plant::CrossedTwice);
        if (self.mesh.evacuating() || sent_on)
            && let Some(there) = self.find_peer(&request, now)
        {
            self.forward(id, request, there, now, out);
            return;
        }
        let Some(request) = self.wait_to_leave(id, request, now, out) else {
            return;
        };
        let Some(request) = self.queue_up(id, request, now, out) else {
            return;
        };
        let mut found = self.find(&request, true, now);
        if let Some(there) = self.faster_peer(&request, found, now) {
            self.forward(id, request, there, now, out);
            return;
        }
        if matches!(found, Selection::NoRoom | Selection::NoneReady) {
            if let Some(there) = self.find_peer(&request, now) {
                self.forward(id, request, there, now, out);
                return;
            }
            let anybody = request.demand.lane == Lane::Batch && request.demand.bound.is_none();
            let looks = anybody && self.fleet.looks(now);
            if found == Selection::NoneReady && (looks || self.peers_serve(&request, now)) {
                found = Selection::NoRoom;
            }
        }
        match found {
            Selection::Here(here) => self.push_past(id, request, here, now, out),
            Selection::Awaits { slot } => {
                let request = self.wait_for(id, request, slot, now, out);
                // It could not be held: another replica that has room takes it.
                if let Some(request) = request
                    && let Selection::Here(here) = self.find(&request, false, now)
                {
                    self.push_past(id, request, here, now, out);
                }
            }
            Selection::NoneReady => {
                let refusal = failed.unwrap_or_else(|| self.none_ready());
                self.refuse(id, &request, refusal, out);
            }
            Selection::NoRoom => match self.enter_hold(id, &request, now) {
                Ok(ticket) => {
                    self.keep(id, request, ticket, now);
                    out.push(Effect::Hold(id));
                }
                Err(full) => {
                    self.counters.hold_shed += u64::from(full == NoPlace::Hold(Full::Shed));
                    let refusal = failed.unwrap_or_else(|| self.no_room(full));
                    self.refuse(id, &request, refusal, out);
                }
            },
        }
    }

    /// While this region is evacuated: holds a request that a peer can serve, though none has room for it yet.
    /// After [`Self::leave_wait_ns`] it is served here. Returns the request if it was not held.
    #[inline]
    fn wait_to_leave(
        &mut self,
        id: RequestId,
        mut request: Request,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Option<Request> {
        let may_wait = self.mesh.evacuating() && request.demand.lane == Lane::Batch;
        if !may_wait || !self.peers_serve(&request, now) {
            return Some(request);
        }
        if request.leaves_until_ns == Instant::ZERO {
            request.leaves_until_ns = now + self.leave_wait_ns();
        }
        if !request.is_leaving(now) {
            return Some(request);
        }
        let Ok(ticket) = self.enter_hold(id, &request, now) else {
            request.leaves_until_ns = now;
            return Some(request);
        };
        self.mesh.note_leave_end(request.leaves_until_ns);
        self.chooser.note_held(request.age, Held::Leaves);
        self.keep(id, request, ticket, now);
        out.push(Effect::Hold(id));
        None
    }

    /// How long a request waits for a peer's room while this region is evacuated.
    pub(super) fn leave_wait_ns(&self) -> Span {
        self.config.hold_timeout_ns / 2
    }

    /// Holds the request if a replica that it may use has room, and held requests wait for that room. Then
    /// those go first. Returns the request if none waits for it, or if the hold is full.
    fn queue_up(
        &mut self,
        id: RequestId,
        request: Request,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Option<Request> {
        let partition = request
            .partition()
            .filter(|_| request.demand.lane == Lane::Batch);
        let Some(partition) = partition.filter(|_| !self.hold.is_empty()) else {
            return Some(request);
        };
        self.expire_due(now, out);
        self.serve_opened(now, out);
        if !self.contested(partition, now) {
            return Some(request);
        }
        let Ok(ticket) = self.enter_hold(id, &request, now) else {
            self.serve_line(partition, now, out);
            return Some(request);
        };
        self.chooser.note_held(request.age, Held::OthersFirst);
        self.keep(id, request, ticket, now);
        let before = out.len();
        self.serve_line(partition, now, out);
        self.serve_opened(now, out);
        self.dispatch_peers(now, out);
        let held = |request: &Request| matches!(request.phase, Phase::Held { .. });
        if self.requests.get(id).is_some_and(held) {
            out.insert(before, Effect::Hold(id));
        }
        None
    }

    /// Holds a request until `owner`, which the policy prefers, has room. Returns it if it cannot wait.
    fn wait_for(
        &mut self,
        id: RequestId,
        request: Request,
        owner: ReplicaSlot,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Option<Request> {
        let Ok(ticket) = self.enter_hold(id, &request, now) else {
            return Some(request);
        };
        if !self.hold.choose(ticket, owner, &self.config, now) {
            self.hold.leave(ticket);
            return Some(request);
        }
        self.counters.affinity_waits += 1;
        self.keep(id, request, ticket, now);
        out.push(Effect::Hold(id));
        None
    }

    /// Pushes a request that was not held. The hold counts each request of its queue that it overtakes.
    fn push_past(
        &mut self,
        id: RequestId,
        request: Request,
        here: Here,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let partition = request
            .partition()
            .filter(|_| request.demand.lane == Lane::Batch);
        let (purse, age) = (self.purse(&request), request.age);
        self.push(id, request, here, now, out);
        if let Some(partition) = partition {
            self.pass_over(partition, &purse, age, here.slot, now);
            self.serve_opened(now, out);
        }
    }

    /// Puts the request into the hold, unless it may not wait, its time there is over, or the hold is full.
    fn enter_hold(
        &mut self,
        id: RequestId,
        request: &Request,
        now: Instant,
    ) -> Result<Ticket, NoPlace> {
        let pool = self.fleet.pool_of(request.demand.model);
        let entrant = request.entrant(id, pool, &self.config, now)?;
        let entered = self.hold.enter(entrant, &self.config);
        match entered {
            Ok(_) => self.counters.hold_entered += 1,
            Err(Full::Hold) => self.counters.hold_full += 1,
            Err(Full::Payer) => self.counters.hold_tenant_full += 1,
            Err(Full::Shed) => {}
        }
        entered.map_err(NoPlace::Hold)
    }

    /// Notes that a request is in the hold.
    fn keep(&mut self, id: RequestId, mut request: Request, ticket: Ticket, now: Instant) {
        request.phase = Phase::Held {
            ticket,
            since_ns: now,
        };
        self.requests.insert(id, request);
    }

    /// Whose a request is, where it competes.
    pub(super) fn purse(&self, request: &Request) -> Purse {
        request.purse(self.fleet.pool_of(request.demand.model))
    }

    /// Charges a request's tenant for the attempt that begins.
    pub(super) fn charge(&mut self, request: &mut Request, tokens: Tokens, now: Instant) {
        let purse = self.purse(request);
        request.bill = self.hold.begin(purse, tokens, &self.config, now);
    }

    /// Counts the request as in flight, and records its prompt. Returns the KV tokens that it should need.
    pub(super) fn push(
        &mut self,
        id: RequestId,
        mut request: Request,
        here: Here,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> u32 {
        let (demand, slot, match_blocks) = (&request.demand, here.slot, here.match_blocks);
        let (fleet, config) = (&mut self.fleet, &self.config);
        let tokens = matched_tokens(&self.cache, fleet, demand, match_blocks);
        let matched = (match_blocks, tokens);
        let forecast = fleet.forecast(demand, slot, matched, config, now);
        let need = forecast.need;
        let Some(replica) = fleet.push((id, slot), demand, (match_blocks, need), config, now)
        else {
            return 0;
        };
        if demand.lane == Lane::Batch {
            self.charge(&mut request, forecast.tokens(), now);
        }
        let (demand, fleet, config) = (&request.demand, &mut self.fleet, &self.config);
        let pushed = (slot, replica);
        self.chooser
            .note_push(demand, pushed, need, fleet, config, now);
        self.mesh.count_hot(demand, slot, match_blocks, now);
        if demand.lane == Lane::Batch {
            self.mesh.note_began(slot, (id, need), fleet, now);
        }
        if self.mesh.tells_prompts() && !demand.blocks.is_empty() {
            let depth = self.cache.depth(&demand.blocks);
            self.counters.cached_left_out += self.mesh.note_prompt(slot, &demand.blocks, depth);
        }
        let matched = self.cache.push(slot, demand, match_blocks);
        self.counters.pushed += 1;
        self.counters.evacuation_stayed += u64::from(self.mesh.evacuating());
        self.counters.match_blocks += u64::from(match_blocks);
        self.counters.miss_blocks += u64::from(demand.prompt_blocks.saturating_sub(match_blocks));
        self.requests.began();
        (self.counters).count_shadow(here.shadow.filter(|_| request.attempts == 0));
        request.attempts += 1;
        request.phase = Phase::InFlight(Attempt {
            slot,
            matched,
            started: false,
            first_byte_ns: None,
            forecast,
            withdrawn: false,
            adopted: false,
        });
        let attempt = request.attempts;
        let context_len = self.fleet.context_len(request.demand.model);
        let predicted_ttft_ns = request.demand.measured().then_some(forecast.ttft_ns);
        self.requests.insert(id, request);
        let push = Push {
            request: id,
            replica,
            attempt,
            match_blocks,
            predicted_ttft_ns,
            context_len,
            shadow: here.shadow,
        };
        if attempt > 1 && self.config.planted(Plant::PushedTwice) {
            out.push(Effect::Push(push.clone()));
        }
        out.push(Effect::Push(push));
        forecast.need.kv
    }
}
