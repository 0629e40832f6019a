//! What must hold of every run, whatever the engine decides.
//!
//! | invariant | checked |
//! |---|---|
//! | one attempt at a time, none after the request's end, no more than `attempts_max` | always, at each push |
//! | a request is at one peer at a time, and never sent on from there | always, at each forward |
//! | pushes and forwards keep to the rules of residency | always, at each of them |
//! | no forward goes out on a summary sent longer ago than may be believed | always, at each forward |
//! | a push goes to a replica of the request's model that is not draining | always, at each push |
//! | nothing starts after its deadline, and nothing is held past it | always, at each push and once a second |
//! | what is refused or expires is not in flight | always |
//! | the engine agrees with itself, and with what is under way | with `check`, after each event |
//! | every request that has arrived is held or in flight | with `check`, after each event |
//! | a held request is passed over at most as often as the settings say | with `check`, at each push |
//! | replicas' blocks and requests are conserved | with `check`, once a second |
//! | no request waits while a replica is idle, but by choice | calm scenarios (no faults), once a second |
//! | no more requests wait in a replica than the paper's rule allows | calm scenarios under that rule, at each push |
//!
//! A run ends at the first broken invariant, and prints its seed, time and event.

#[cfg(test)]
use super::balancer::Balancer;
use super::balancer::Brain;
use super::fleet::Replica;
use super::live::Live;
use super::queue::Event;
use super::replica::ReplicaModel;
use super::scenario::Scenario;
use super::simulator::{Broken, Simulator};
use super::workload::Workload;
use crate::engine::config::Config;
use crate::engine::effect::{Forward, Push};
use crate::engine::mesh::peer::{AGE_NS_MAX, PROOF_NS_MAX};
use crate::id::{Nanos, RequestId};

/// Deadlines are looked for so often, and one sweep may just have passed.
const LATE_NS: Nanos = 100_000_000;
/// Seconds in which a balancer must have seen that a replica is idle.
const IDLE_S: u32 = 3;

impl Simulator {
    /// Looks at what must hold after an event.
    pub(super) fn check(&mut self, event: Event) -> Result<(), Broken> {
        let mut found = self.broken.take().map_or(Ok(()), Err);
        if event == Event::Second {
            found = found.and_then(|()| self.check_second());
        }
        if self.scenario.check {
            found = found.and_then(|()| self.check_event(event));
        }
        found.map_err(|text| {
            Broken(format!(
                "{text} (seed {}, {} s, event {}, {event:?})",
                self.scenario.seed,
                self.now_s(),
                self.events
            ))
        })
    }

    pub(super) fn broke(&mut self, found: Result<(), String>) {
        if let Err(text) = found {
            self.broken.get_or_insert(text);
        }
    }

    fn check_event(&mut self, event: Event) -> Result<(), String> {
        if self.shares() {
            self.note_rooms();
        }
        match event {
            Event::Second => {
                let mut models = self.replicas.iter().map(Replica::model);
                models.try_for_each(ReplicaModel::check_invariants)
            }
            // No balancer has been asked anything.
            Event::Step { .. } | Event::AtReplica(..) | Event::Probe { .. } | Event::Abort(..) => {
                Ok(())
            }
            _ => {
                for balancer in &mut self.balancers {
                    if std::mem::take(&mut balancer.touched) {
                        balancer.check()?;
                    }
                }
                self.check_counts()
            }
        }
    }

    /// Each balancer agrees with itself, and all together with what is under way.
    #[cfg(test)]
    pub(super) fn check_balancers(&self) -> Result<(), String> {
        self.balancers.iter().try_for_each(Balancer::check)?;
        self.check_counts()
    }

    /// All together agree with what is under way.
    fn check_counts(&self) -> Result<(), String> {
        let (mut pushed, mut waiting, mut away) = (0, 0, 0);
        for (id, live) in self.live.iter().filter(|(_, live)| live.order > 0) {
            let (in_flight, held) = (live.replica.is_some(), live.held_since_ns.is_some());
            // On its way to a peer, or its end on the way home.
            let between = live.away.is_some() && !live.there;
            if (in_flight == held) != between || (in_flight && held) {
                return Err(format!("every_request_is_held_or_in_flight: {id:?}"));
            }
            pushed += usize::from(in_flight);
            waiting += usize::from(held);
            away += usize::from(live.away.is_some());
        }
        let counted = self.counted();
        if counted != (pushed, waiting, away) {
            return Err(format!(
                "no_request_is_lost: {counted:?} are counted in flight, held and away, but \
                 {pushed}, {waiting} and {away} are"
            ));
        }
        Ok(())
    }

    /// Nobody is held past the deadline, and nobody at all while a replica is idle, but by choice: who
    /// is sooner served by a full replica than by an empty cache may wait for it, for
    /// `affinity_wait_s` at most (which the engine checks of itself), and others after it may too.
    fn check_second(&mut self) -> Result<(), String> {
        let now_ns = self.queue.now_ns();
        let limit_ns = self.config.hold_timeout_ns.ns().saturating_add(LATE_NS);
        let mut wanted = vec![false; self.balancers.len() * self.workload.models.len()];
        for (id, live) in self.live.iter() {
            if live.held_since_ns.is_none() {
                continue;
            }
            if self.decides(live.decider()) && held_ns(live, now_ns) > limit_ns {
                return Err(format!("nothing_is_held_past_its_deadline: {id:?}"));
            }
            if self.balancers[live.decider() as usize].waits_by_choice(id) {
                continue;
            }
            let model = self.workload.turns[live.turn as usize].model;
            // Who may not go everywhere may have to wait for others.
            wanted[self.line(live.decider(), model)] |= self.scenario.residency.is_empty();
        }
        if self.shares() {
            let replicas = self.replicas.iter();
            let wanted: Vec<_> = replicas.map(|of| self.is_wanted(of, &wanted)).collect();
            self.check_shared(&wanted)?;
        }
        for number in 0..self.replicas.len() {
            let replica = &self.replicas[number];
            let idle = replica.load() == (0, 0) && replica.coming == 0;
            let is_wanted = idle && self.is_wanted(replica, &wanted);
            let replica = &mut self.replicas[number];
            replica.idle_s = if is_wanted { replica.idle_s + 1 } else { 0 };
            if self.calm.quiet && replica.idle_s > IDLE_S {
                return Err(format!("nobody_waits_for_an_idle_replica: {number}"));
            }
        }
        Ok(())
    }

    /// Somebody who is held could go to this replica.
    fn is_wanted(&self, replica: &Replica, wanted: &[bool]) -> bool {
        let central = self.scenario.topology.central();
        let balancers = (0_u32..).zip(&self.balancers).filter(|(_, of)| of.up);
        let mut usable = balancers.filter(|(_, of)| central || of.region == replica.region);
        usable.any(|(balancer, _)| {
            let mut models = (0_u32..).take(self.workload.models.len());
            models.any(|model| replica.serves(model) && wanted[self.line(balancer, model)])
        })
    }

    fn line(&self, balancer: u32, model: u32) -> usize {
        balancer as usize * self.workload.models.len() + model as usize
    }

    /// The engine decides there, not the oracle.
    fn decides(&self, balancer: u32) -> bool {
        matches!(self.balancers[balancer as usize].brain, Brain::Engine(_))
    }

    /// A balancer is about to push.
    pub(super) fn check_push(&mut self, balancer: u32, push: &Push) {
        let mut found = self.check_attempt(balancer, push);
        if found.is_ok() && self.calm.gate && self.decides(balancer) {
            found = self.check_gate(push);
        }
        if found.is_ok() && self.scenario.check {
            found = self.check_room(balancer, push);
        }
        if found.is_ok() && self.scenario.check && self.decides(balancer) {
            found = self.check_passed(balancer, push);
        }
        self.broke(found);
    }

    /// A balancer is about to forward to `peer`.
    pub(super) fn check_forward(&mut self, balancer: u32, peer: u32, forward: &Forward) {
        let found = self.check_crossing(balancer, peer, forward);
        self.broke(found);
    }

    fn check_crossing(&self, balancer: u32, peer: u32, forward: &Forward) -> Result<(), String> {
        let id = forward.request;
        let Some(live) = self.live.get(id) else {
            return Err(format!("nothing_is_forwarded_after_its_end: {id:?}"));
        };
        if live.away.is_some() || live.balancer != balancer {
            return Err(format!("nothing_crosses_twice: {id:?}"));
        }
        if live.replica.is_some() {
            return Err(format!("one_attempt_at_a_time: {id:?}"));
        }
        if !self.may_use(live.turn, self.balancers[peer as usize].region) {
            return Err(format!("nothing_leaves_its_residency: {id:?}"));
        }
        if forward.attempt != live.tries + 1 || forward.attempt > self.config.attempts_max {
            return Err(format!("attempts_at_most_max: {id:?}"));
        }
        if self.balancers[peer as usize].region == self.balancers[balancer as usize].region {
            return self.check_neighbour(balancer, peer, id);
        }
        let age_ns = self.exchange.age_ns(balancer, peer, self.queue.now_ns());
        if age_ns.is_none_or(|age_ns| age_ns > (AGE_NS_MAX + PROOF_NS_MAX).ns()) {
            return Err(format!("stale_word_is_not_believed: {age_ns:?} ns"));
        }
        Ok(())
    }

    fn may_use(&self, turn: u32, region: u32) -> bool {
        allowed(&self.scenario, &self.workload, turn, region)
    }

    fn check_attempt(&self, balancer: u32, push: &Push) -> Result<(), String> {
        let id = push.request;
        let Some(live) = self.live.get(id) else {
            return Err(format!("nothing_is_pushed_after_its_end: {id:?}"));
        };
        if live.replica.is_some() || live.decider() != balancer {
            return Err(format!("one_attempt_at_a_time: {id:?}"));
        }
        let turn = &self.workload.turns[live.turn as usize];
        let replica = &self.replicas[push.replica.0 as usize];
        if !replica.serves(turn.model) {
            return Err(format!("replicas_serve_what_they_get: {id:?}"));
        }
        if !self.decides(balancer) {
            return Ok(());
        }
        let (before, max) = if live.there {
            (live.tries_there, 1)
        } else if live.away.is_some() {
            return Err(format!("one_attempt_at_a_time: {id:?} is at a peer"));
        } else {
            (live.tries, self.config.attempts_max)
        };
        if !self.may_use(live.turn, replica.region) {
            return Err(format!("nothing_leaves_its_residency: {id:?}"));
        }
        if push.attempt != before + 1 || push.attempt > max {
            return Err(format!("attempts_at_most_max: {id:?}"));
        }
        if replica.draining {
            return Err(format!("draining_replicas_get_nothing_new: {id:?}"));
        }
        // A peer may have found out late that it had held it for too long.
        let late_ns = if live.forwards > 0 { LATE_NS } else { 0 };
        let limit_ns = self.config.hold_timeout_ns.ns().saturating_add(late_ns);
        if held_ns(live, self.queue.now_ns()) > limit_ns {
            return Err(format!("nothing_starts_after_its_deadline: {id:?}"));
        }
        Ok(())
    }

    /// At most one request may wait at the replica, or be on its way there, when one more is pushed:
    /// one that the gate takes for another, which ended while a probe's answer was on its way.
    fn check_gate(&self, push: &Push) -> Result<(), String> {
        let replica = &self.replicas[push.replica.0 as usize];
        let pending = replica.coming as usize + replica.model().unscheduled();
        if pending > 1 {
            return Err(format!(
                "nothing_is_pushed_where_requests_wait: {pending} at {:?}",
                push.replica
            ));
        }
        Ok(())
    }

    /// Counts the push for all older ones that are held and could have gone there.
    fn check_passed(&mut self, balancer: u32, push: &Push) -> Result<(), String> {
        let replica = &self.replicas[push.replica.0 as usize];
        let Some(pushed) = self.live.get(push.request) else {
            return Ok(());
        };
        let turns = &self.workload.turns;
        // Requests of one line are served in order; between lines it is whose turn it is.
        let line = |live: &Live| (turns[live.turn as usize].tenant, live.there);
        let (order, beside) = (pushed.order, line(pushed));
        for (id, live) in self.live.iter_mut() {
            let model = self.workload.turns[live.turn as usize].model;
            // Who failed somewhere may have to wait for another replica than this one.
            let first = live.attempt == 0 && live.forwards == u32::from(live.there);
            let could = live.decider() == balancer && first && replica.serves(model);
            if could && line(live) == beside && live.held_since_ns.is_some() && live.order < order {
                live.passed += 1;
                if live.passed > passes_max(&self.config) {
                    return Err(format!("nobody_starves_in_the_hold: {id:?}"));
                }
            }
        }
        Ok(())
    }

    /// A balancer holds a request.
    pub(super) fn check_hold(&mut self, balancer: u32, id: RequestId) {
        let live = self.live.get(id);
        let free = live.is_some_and(|live| {
            live.decider() == balancer && live.replica.is_none() && live.held_since_ns.is_none()
        });
        if !free {
            self.broke(Err(format!("what_is_held_is_nowhere_else: {id:?}")));
        }
    }

    /// A balancer refuses a request, or lets it expire.
    pub(super) fn check_refusal(&mut self, balancer: u32, id: RequestId, expired: bool) {
        let live = self.live.get(id);
        let free = live.is_some_and(|live| {
            live.decider() == balancer
                && live.replica.is_none()
                && (!expired || live.held_since_ns.is_some())
        });
        if !free {
            self.broke(Err(format!("what_is_refused_is_not_in_flight: {id:?}")));
        }
    }
}

/// A request may be served in a region, by the scenario's rules.
pub(super) fn allowed(scenario: &Scenario, workload: &Workload, turn: u32, region: u32) -> bool {
    let of = &workload.turns[turn as usize];
    let tenant = of.tenant;
    let name = &scenario.regions[region as usize].name;
    let model = &workload.models[of.model as usize];
    scenario.residency.iter().all(|rule| {
        let whose = rule.tenant.is_none_or(|whose| Some(whose) == tenant);
        let named = whose && rule.model.as_ref().is_none_or(|named| named == model);
        !named || rule.regions.contains(name)
    })
}

/// Time in the hold so far, the wait under way included.
fn held_ns(live: &Live, now_ns: Nanos) -> Nanos {
    let since_ns = live.held_since_ns.unwrap_or(now_ns);
    live.held_ns + now_ns.saturating_sub(since_ns)
}

/// How often a held request may be passed over.
fn passes_max(config: &Config) -> u32 {
    // Some wait by choice, or start by their work.
    if !config.waits() && !config.policy.traits().orders_by_work {
        0
    } else {
        config.hold_passes_max
    }
}
