//! Facts from the control plane: replicas, models, intent, probes, time.

use super::super::Router;
use crate::engine::effect::Effect;
use crate::engine::fleet::Probed;
use crate::engine::fleet::failure::Unread;
use crate::engine::fleet::models::ModelList;
use crate::engine::fleet::notice::Leave;
use crate::engine::fleet::probes::ProbedState;
use crate::engine::fleet::snapshot::Snapshot;
use crate::engine::hold::Partition;
use crate::engine::plant::Plant;
use crate::engine::policy::Policy;
use crate::engine::refusal::Refusal;
use crate::engine::requests::request::Phase;
use crate::id::{ReplicaId, ReplicaSlot};
use crate::time::Instant;

impl Router {
    /// Sets the whole fleet. New replicas start unknown; missing ones get nothing more and are
    /// forgotten once their requests have ended, what they cached at once.
    pub fn set_replicas(
        &mut self,
        replicas: &[(ReplicaId, String)],
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let now = self.advance(now);
        for (slot, gone) in self.fleet.not_among(replicas) {
            self.cache.forget(slot);
            self.fleet.remove(slot, now);
            self.refuse_bound(gone, out);
        }
        let mut joined = Vec::new();
        for (id, name) in replicas {
            let region_bit = self.mesh.region_bit();
            if let Some((slot, new)) = self.fleet.add(*id, name.clone(), region_bit, now) {
                if new {
                    self.cache.add(slot);
                    self.mesh.share_replica(slot);
                }
                self.cache.fit(&self.fleet, slot, true, &self.config);
                joined.push(*id);
            }
        }
        self.fleet.join_ring(&joined);
        self.mesh.list_replicas(&mut self.fleet, now);
        self.dispatch_all(now, out);
    }

    /// Refuses held requests that only this replica could have served.
    fn refuse_bound(&mut self, replica: ReplicaId, out: &mut Vec<Effect>) {
        let bound = |line: &Partition| line.bound == Some(replica);
        let lines: Vec<_> = self.hold.lines().filter(bound).collect();
        for line in lines {
            self.refuse_line(line, &Refusal::response_unknown(), out);
        }
    }

    /// Refuses all that a line holds.
    fn refuse_line(&mut self, line: Partition, why: &Refusal, out: &mut Vec<Effect>) {
        while let Some((ticket, id)) = self.hold.oldest(line) {
            self.hold.leave(ticket);
            if let Some(request) = self.requests.remove(id) {
                self.refuse(id, &request, why.clone(), out);
            }
        }
    }

    /// Sets what a replica says of the models and adapters that it serves; false when nothing changed.
    pub fn set_listing(
        &mut self,
        replica: ReplicaId,
        listing: ModelList<'_>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> bool {
        let now = self.advance(now);
        let Some(slot) = self.known(replica) else {
            return false;
        };
        let first = (self.fleet.member(slot)).is_some_and(|member| !member.models_known());
        let bytes_per_token = self.config.bytes_per_token;
        let changed = self.fleet.set_models(slot, listing, bytes_per_token, now);
        if changed {
            self.fleet.welcome(slot, &self.config, now);
            if first {
                self.refuse_unserved(now, out);
            }
            self.dispatch_all(now, out);
            self.settle_found(now, out);
        }
        changed
    }

    /// Chooses by another policy from now on. Requests in the hold stay there, and start by its rule.
    pub fn set_policy(&mut self, policy: Policy, now: Instant, out: &mut Vec<Effect>) {
        let now = self.advance(now);
        self.config.policy = policy;
        self.fleet.keep_ring(self.config.walks_ring());
        self.hold.reopen(|_| true);
        self.dispatch_all(now, out);
    }

    /// Sets the operator's intent for a replica. What failed elsewhere may have to go back there
    /// when this one drains.
    pub fn set_draining(
        &mut self,
        replica: ReplicaId,
        draining: bool,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let now = self.advance(now);
        let Some(slot) = self.known(replica) else {
            return;
        };
        if !self.config.planted(Plant::DrainingIgnored) {
            self.fleet.set_draining(slot, draining);
        }
        self.dispatch_all(now, out);
    }

    /// A replica is to be left, as its machine or an operator has announced; `None`: it stays. Drain it as
    /// well ([`Self::set_draining`]). What is still there at that time, or shortly before the end, leaves for
    /// others.
    pub fn set_notice(
        &mut self,
        replica: ReplicaId,
        leave: Option<Leave>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let now = self.advance(now);
        if let Some(slot) = self.known(replica) {
            self.fleet.set_notice(slot, leave, now);
            self.leave_due(now, out);
        }
    }

    /// A probe sent at `sent_ns` was answered at `now`.
    pub fn observe(
        &mut self,
        replica: ReplicaId,
        snapshot: Snapshot,
        sent_ns: Instant,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let now = self.advance(now);
        let Some(slot) = self.known(replica) else {
            return;
        };
        self.mesh.note_page(slot, &snapshot, sent_ns);
        let changed = self.cache.observe(
            &mut self.fleet,
            slot,
            (snapshot, sent_ns, Probed::Here),
            &mut self.counters,
            (&self.config, now),
        );
        self.fleet.welcome(slot, &self.config, now);
        self.fleet
            .note_probe_due(slot, self.mesh.wanted_elsewhere(slot), &self.config);
        if self.review(slot, now, out) || changed {
            self.dispatch_all(now, out);
        } else {
            self.dispatch(slot, now, out);
        }
    }

    /// A probe told nothing, or was given up.
    pub fn observe_failed(
        &mut self,
        replica: ReplicaId,
        unread: Unread,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let now = self.advance(now);
        let Some(slot) = self.known(replica) else {
            return;
        };
        let looked_at = self.fleet.looks_at(slot, now);
        self.fleet.observe_failed(slot, unread, &self.config, now);
        self.fleet.welcome(slot, &self.config, now);
        self.fleet
            .note_probe_due(slot, self.mesh.wanted_elsewhere(slot), &self.config);
        self.review(slot, now, out);
        if looked_at && !self.fleet.looks_at(slot, now) {
            self.refuse_unserved(now, out);
        }
        self.dispatch_all(now, out);
    }

    /// A replica has answered another question than a probe: it is there, if its last probe was not
    /// answered.
    pub fn answered(&mut self, replica: ReplicaId, now: Instant, out: &mut Vec<Effect>) {
        let now = self.advance(now);
        let Some(slot) = self.known(replica) else {
            return;
        };
        if self.fleet.answered(slot, &self.config, now) {
            self.review(slot, now, out);
            self.dispatch_all(now, out);
        }
    }

    /// What is known of a replica by its probes; `Unknown` for one that is not in the fleet.
    #[must_use]
    pub fn probed_state(&self, replica: ReplicaId) -> ProbedState {
        self.fleet.probed_state(replica)
    }

    /// A replica that was looked at turns out not to serve what is held for it: refuses that, once no
    /// other is being looked at.
    fn refuse_unserved(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.hold.is_empty() || self.fleet.looks(now) {
            return;
        }
        let unserved = |line: &Partition| !self.fleet.is_served(line.model);
        let lines: Vec<_> = self.hold.lines().filter(unserved).collect();
        for line in lines {
            let oldest = self.hold.oldest(line);
            let request = oldest.and_then(|(_, id)| self.requests.get(id));
            if request.is_none_or(|request| self.peers_serve(request, now)) {
                continue;
            }
            let name = self.fleet.name_of(Some(line.model)).unwrap_or_default();
            let name = name.to_owned();
            let Err(refusal) = self.unlisted_model(&name, false, now) else {
                continue;
            };
            self.refuse_line(line, &refusal, out);
        }
    }

    /// Lets time pass: expires what has waited too long, ends ejections, starts what may start, and
    /// asks for the probes and the messages that are due.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let now = self.advance(now);
        self.fleet.tick(&self.config, now);
        self.mesh.review_splits(&mut self.fleet, now);
        self.end_old_looks(now, out);
        self.mesh.pass_leave_ends(now);
        self.leave_due(now, out);
        self.dispatch_all(now, out);
        if self.fleet.probes_begin(!self.requests.is_empty(), now) {
            let (mesh, local) = self.local(now);
            let due = mesh.probes_due(&local);
            let probes = self.fleet.send_probes(due, now);
            out.extend(probes.into_iter().map(Effect::Probe));
        }
        self.tell(now, out);
    }

    /// When [`Self::tick`] has work at the latest.
    #[must_use]
    pub fn next_deadline_ns(&mut self) -> Option<Instant> {
        let busy = !self.requests.is_empty();
        let probes_ns = self.fleet.next_probes_ns(busy);
        let others_ns = probes_ns.into_iter().chain(self.mesh.next_tell_ns(busy));
        others_ns.chain(self.next_change_ns()).min()
    }

    /// When time alone changes what becomes of requests.
    pub(in crate::engine::router) fn next_change_ns(&mut self) -> Option<Instant> {
        self.fleet.refresh(&self.config, self.clock.now);
        let (fleet, hold, now) = (&self.fleet, &self.hold, self.clock.now);
        let all = [
            hold.next_deadline_ns(),
            fleet.turns_ns(),
            fleet.next_look_ns(),
            self.mesh
                .next_departure_ns()
                .filter(|_| !self.requests.is_empty()),
            self.requests.looks().next_ns(fleet.len()),
            self.mesh.next_change_ns(fleet, hold, now),
        ];
        all.into_iter().flatten().min()
    }

    /// Ends the wait of what is held past its deadline.
    pub(in crate::engine::router) fn expire_due(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.config.planted(Plant::DeadlineIgnored) {
            return;
        }
        while let Some(id) = self.hold.expire(now) {
            self.counters.expired += 1;
            if let Some(mut request) = self.requests.remove(id) {
                request.phase = Phase::Between;
                self.forget(&request);
            }
            out.push(Effect::Expire(id));
        }
    }

    /// The slot of a replica that is in the fleet; facts about others are counted.
    pub(in crate::engine::router) fn known(&mut self, replica: ReplicaId) -> Option<ReplicaSlot> {
        let slot = self.fleet.slot(replica);
        let slot = slot.filter(|_| self.fleet.listed(replica));
        self.counters.unknown_replicas += u64::from(slot.is_none());
        slot
    }
}
