//! The way of a forward: to the peer, its request there, and what comes back.

use super::network::uniform;
use super::queue::{Event, News};
use super::requests::{FIRST_BYTES, bytes};
use super::scenario::nanos;
use super::simulator::Simulator;
use crate::engine::effect::{Effect, Forward, Outcome};
use crate::engine::fleet::failure::Failure;
use crate::engine::router::{Forwarded, Report, Usage};
use crate::id::{PeerId, RequestId};
use crate::time::Instant;

impl Simulator {
    /// A balancer forwards a request.
    pub(super) fn forward(&mut self, balancer: u32, forward: &Forward) {
        let now_ns = self.queue.now_ns();
        let (id, peer) = (forward.request, forward.peer.0);
        self.check_forward(balancer, peer, forward);
        let Some(live) = self.live.get_mut(id) else {
            return;
        };
        live.leave_hold(now_ns);
        live.tries = forward.attempt;
        live.forwards += 1;
        live.away = Some(peer);
        let at_home_ns = self.balancers[balancer as usize].clock_ns;
        live.terms = (
            forward.attempts_left,
            forward.deadline_ns.ns().saturating_sub(at_home_ns),
        );
        live.tries_there = 0;
        live.started_there = false;
        live.home_ns = now_ns;
        let (number, turn) = (live.forwards, live.turn);
        self.exchange.forwarded(balancer, peer);
        let from = self.balancers[balancer as usize].region;
        let to = self.balancers[peer as usize].region;
        let size = bytes(self.workload.turns[turn as usize].input);
        if let Some(at_ns) = self.connect(from, to, size) {
            self.queue.put(at_ns, Event::AtPeer(id, number));
        } else {
            let timeout_ns = nanos(self.scenario.network.connect_timeout_s);
            let failed = Event::Home(id, number, News::Failed(Failure::Connect));
            self.queue.put(now_ns.saturating_add(timeout_ns), failed);
        }
    }

    /// A forward reaches the peer.
    pub(super) fn at_peer(&mut self, id: RequestId, number: u32) {
        let now_ns = self.queue.now_ns();
        let Some(live) = self.live.forward(id, number) else {
            return;
        };
        let Some(peer) = live.away else { return };
        if !self.balancers[peer as usize].up {
            return self.tell_home(id, News::Failed(Failure::Connect));
        }
        self.arrived += 1;
        live.order = self.arrived;
        live.passed = 0;
        live.there = true;
        live.message_ns = now_ns;
        let (attempts_left, deadline_ns) = live.terms;
        let deadline_ns = self.balancers[peer as usize].at(deadline_ns);
        let (turn, salt, origin) = (live.turn, live.salt, live.balancer);
        let forged = self.scenario.forged_hops > 0.0
            && uniform(&mut self.chance) <= self.scenario.forged_hops;
        let forwarded = Forwarded {
            hop: if forged { 2 } else { 1 },
            attempts_left,
            deadline_ns: Some(Instant::from_ns(deadline_ns)),
            origin: Some(PeerId(origin)),
        };
        let mut digest = self.digest(turn, salt);
        let tenant = self.tenant_of(turn);
        let says = (tenant.as_deref(), Some(forwarded));
        let mut out = std::mem::take(&mut self.out);
        self.balancers[peer as usize].place(id, &mut digest, says, now_ns, &mut out);
        let own = out.iter().filter(|effect| effect.request() == Some(id));
        let (mut refused, mut held) = (false, false);
        for effect in own {
            refused |= matches!(effect, Effect::Reject(_));
            held |= matches!(effect, Effect::Hold(_));
        }
        if forged && !refused {
            self.broke(Err(format!("forged_hops_are_refused: {id:?}")));
        }
        let counts = &mut self.exchange.counts;
        counts.arrived += 1;
        counts.forged += u64::from(forged);
        counts.refused += u64::from(refused && !forged);
        counts.over_room += u64::from((refused || held) && !forged);
        self.act(peer, out);
    }

    /// The peer that has a request has refused it; false if none has it.
    pub(super) fn refused_there(&mut self, id: RequestId) -> bool {
        let Some(live) = self.live.get_mut(id).filter(|live| live.there) else {
            return false;
        };
        live.there = false;
        // What was tried there has used up what it was given.
        let failure = if live.tries_there == 0 {
            Failure::Refused
        } else {
            Failure::Status(502)
        };
        self.tell_home(id, News::Failed(failure));
        true
    }

    /// The request has waited as long as it may at the peer that has it; false if none has it.
    pub(super) fn expired_there(&mut self, id: RequestId) -> bool {
        let now_ns = self.queue.now_ns();
        let Some(live) = self.live.get_mut(id).filter(|live| live.there) else {
            return false;
        };
        live.there = false;
        live.leave_hold(now_ns);
        self.tell_home(id, News::Failed(Failure::Full));
        true
    }

    /// The peer that has a request is told that it ended.
    pub(super) fn complete_there(&mut self, id: RequestId, outcome: Outcome, report: Report<'_>) {
        let now_ns = self.queue.now_ns();
        let took = self.took(id).filter(|_| outcome == Outcome::Ok);
        let Some(live) = self.live.get_mut(id).filter(|live| live.there) else {
            return;
        };
        let Some(peer) = live.away else { return };
        self.balancers[peer as usize].note_end(id, took);
        live.leave_hold(now_ns);
        live.there = false;
        live.at_replica = false;
        live.replica = None;
        let mut out = std::mem::take(&mut self.out);
        self.balancers[peer as usize].complete(id, outcome, report, now_ns, &mut out);
        self.act(peer, out);
    }

    /// Nobody waits any more for what a peer does: its connection is closed.
    pub(super) fn abandon(&mut self, id: RequestId) {
        let Some(live) = self.live.get(id).filter(|live| live.there) else {
            return;
        };
        if let (Some(replica), Some(peer)) = (live.replica, live.away) {
            self.abort_later(id, replica, peer);
        }
        self.complete_there(id, Outcome::ClientLeft, Report::default());
    }

    /// News of a forward go home. Those that a cut holds up for too long become a timeout there.
    pub(super) fn tell_home(&mut self, id: RequestId, news: News) {
        let now_ns = self.queue.now_ns();
        let Some(live) = self.live.get_mut(id) else {
            return;
        };
        let Some(peer) = live.away else { return };
        let from = self.balancers[peer as usize].region;
        let to = self.balancers[live.balancer as usize].region;
        let patience_ns = nanos(self.scenario.network.stall_timeout_s);
        let start_ns = self.network.cut_until(from, to, now_ns).unwrap_or(now_ns);
        let (at_ns, news) = if start_ns - now_ns >= patience_ns {
            let timeout = News::Failed(Failure::Timeout);
            (now_ns.saturating_add(patience_ns), timeout)
        } else {
            let at_ns = self.network.deliver(from, to, FIRST_BYTES, start_ns);
            (at_ns, news)
        };
        live.home_ns = at_ns.max(live.home_ns);
        let home = Event::Home(id, live.forwards, news);
        self.queue.put(live.home_ns, home);
    }

    /// News of a forward reach the balancer that it came from.
    pub(super) fn home(&mut self, id: RequestId, number: u32, news: News) {
        let now_ns = self.queue.now_ns();
        let Some(live) = self.live.forward(id, number) else {
            return;
        };
        let (balancer, region, cached) = (live.balancer, live.region, live.cached);
        let (output, input) = (live.output, self.workload.turns[live.turn as usize].input);
        let tells_cached = self.scenario.tell_cached;
        if news == News::FirstByte {
            let from = self.balancers[balancer as usize].region;
            live.first_byte_ns = Some(self.network.deliver(from, region, FIRST_BYTES, now_ns));
            let mut out = std::mem::take(&mut self.out);
            self.balancers[balancer as usize].first_byte(id, now_ns, &mut out);
            self.act(balancer, out);
            return;
        }
        self.abandon(id);
        match news {
            News::FirstByte => {}
            News::End => {
                let usage = Usage {
                    prompt_tokens: Some(input),
                    cached_tokens: tells_cached.then_some(cached),
                    completion_tokens: Some(output),
                };
                let report = Report {
                    usage,
                    ..Report::default()
                };
                self.complete(id, Outcome::Ok, report, Ok(()));
            }
            News::TooLong => self.complete(id, Outcome::Ok, Report::default(), Err("too_long")),
            News::Failed(failure) => self.failed_away(id, failure),
        }
    }

    /// A forward has failed: its own balancer goes on.
    fn failed_away(&mut self, id: RequestId, failure: Failure) {
        let now_ns = self.queue.now_ns();
        let Some(live) = self.live.get_mut(id) else {
            return;
        };
        live.away = None;
        live.order = live.home_order;
        if live.first_byte_ns.is_some() {
            let report = Report::default();
            self.complete(id, Outcome::ReplicaFailed, report, Err("stream_cut"));
            return;
        }
        // Nothing was begun there.
        let free = failure.free(false);
        live.tries -= u32::from(free);
        let balancer = live.balancer;
        let mut out = std::mem::take(&mut self.out);
        self.balancers[balancer as usize].retry(id, failure, now_ns, &mut out);
        self.act(balancer, out);
    }

    /// Whose request it is, if requests say so.
    pub(super) fn tenant_of(&self, turn: u32) -> Option<String> {
        let tenant = self.workload.turns[turn as usize].tenant?;
        Some(self.tenant_name(tenant))
    }

    /// The name of a tenant: that of the scenario, else its number.
    pub(super) fn tenant_name(&self, number: u32) -> String {
        let named = self.scenario.tenants.get(number as usize);
        named.map_or_else(|| number.to_string(), |of| of.name.clone())
    }
}
