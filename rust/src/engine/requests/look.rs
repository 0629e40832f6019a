//! Requests for models in no list: before they are refused, the replicas are asked for their lists again.
//!
//! An adapter may have been loaded since the lists were read. A look answers only those who came
//! before it began; one look serves all of them. Looks begin [`EVERY_NS`] apart, further apart in
//! large fleets, so that no stranger's names cost the engines more than that.

use std::collections::VecDeque;

use super::request::{Phase, Request};
use crate::engine::effect::Effect;
use crate::engine::router::Router;
use crate::id::{Nanos, RequestId};

/// From the beginning of one look to that of the next, and so much more for each replica.
const EVERY_NS: Nanos = 1_000_000_000;
const EVERY_PER_REPLICA_NS: Nanos = 5_000_000;
/// Longest wait for a look; a replica's list has 2 s.
const WAIT_NS: Nanos = 4_000_000_000;
/// Requests that wait for a look at most; more are answered out of what is known.
const WAITING_MAX: usize = 1_024;

/// Who waits for a look, and when the next may begin.
#[derive(Debug, Default)]
pub(in crate::engine) struct Looks {
    /// The driver can ask for lists.
    enabled: bool,
    /// In the order in which they came.
    waiting: VecDeque<(Nanos, RequestId)>,
    /// When the look under way began.
    under_way_ns: Option<Nanos>,
    /// When the last look began.
    last_ns: Option<Nanos>,
}

impl Looks {
    pub(in crate::engine) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// One more request may wait for a look.
    pub(in crate::engine) fn take_more(&self) -> bool {
        self.enabled && self.waiting.len() < WAITING_MAX
    }

    pub(in crate::engine) fn forget(&mut self, id: RequestId) {
        self.waiting.retain(|(_, waiting)| *waiting != id);
    }

    /// Takes out the oldest that came no later than `until_ns`.
    fn pop(&mut self, until_ns: Nanos) -> Option<RequestId> {
        let due = self
            .waiting
            .front()
            .is_some_and(|(came_ns, _)| *came_ns <= until_ns);
        due.then(|| self.waiting.pop_front())?.map(|(_, id)| id)
    }
}

impl Router {
    /// Whether the driver asks replicas for their lists when [`Self::look_due`] says so.
    pub fn set_looks(&mut self, looks: bool) {
        self.looks.enabled = looks;
    }

    /// Whether all lists should be read now; they count as being read until [`Self::looked`].
    pub fn look_due(&mut self, now_ns: Nanos) -> bool {
        let now_ns = self.advance(now_ns);
        let due = self.look_due_ns().is_some_and(|due_ns| due_ns <= now_ns);
        if due {
            self.looks.under_way_ns = Some(now_ns);
            self.looks.last_ns = Some(now_ns);
            self.counters.model_looks += 1;
        }
        due
    }

    /// All lists have been read, or could not be.
    pub fn looked(&mut self, now_ns: Nanos, out: &mut Vec<Effect>) {
        let now_ns = self.advance(now_ns);
        if let Some(began_ns) = self.looks.under_way_ns.take() {
            self.end_looks(began_ns, now_ns, out);
        }
    }

    /// Keeps a request until the lists have been read again.
    pub(in crate::engine) fn await_look(
        &mut self,
        id: RequestId,
        mut request: Request,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        request.phase = Phase::Looking;
        self.requests.insert(id, request);
        self.looks.waiting.push_back((now_ns, id));
        out.push(Effect::Hold(id));
    }

    /// When a look should begin or a wait for one ends.
    pub(in crate::engine) fn next_look_ns(&self) -> Option<Nanos> {
        let (came_ns, _) = self.looks.waiting.front()?;
        let ends_ns = came_ns.saturating_add(WAIT_NS);
        let due_ns = self.look_due_ns();
        Some(due_ns.map_or(ends_ns, |due_ns| due_ns.min(ends_ns)))
    }

    fn look_due_ns(&self) -> Option<Nanos> {
        if self.looks.waiting.is_empty() || self.looks.under_way_ns.is_some() {
            return None;
        }
        let apart_ns = EVERY_NS + EVERY_PER_REPLICA_NS * self.fleet.len() as u64;
        let last_ns = self.looks.last_ns;
        Some(last_ns.map_or(0, |last_ns| last_ns.saturating_add(apart_ns)))
    }

    /// Answers those who have waited too long: what should have been read was not.
    pub(in crate::engine) fn end_old_looks(&mut self, now_ns: Nanos, out: &mut Vec<Effect>) {
        let Some(until_ns) = now_ns.checked_sub(WAIT_NS) else {
            return;
        };
        let oldest = self.looks.waiting.front();
        if oldest.is_some_and(|(came_ns, _)| *came_ns <= until_ns) {
            self.looks.under_way_ns = None;
            self.end_looks(until_ns, now_ns, out);
        }
    }

    /// Answers those who came no later than `until_ns`.
    fn end_looks(&mut self, until_ns: Nanos, now_ns: Nanos, out: &mut Vec<Effect>) {
        while let Some(id) = self.looks.pop(until_ns) {
            self.settle_looked(id, now_ns, out);
        }
    }

    /// Lets go on whose model has come into a list.
    pub(in crate::engine) fn settle_found(&mut self, now_ns: Nanos, out: &mut Vec<Effect>) {
        let found = self.looks.waiting.iter().filter(|(_, id)| {
            let model = self.requests.get(id).and_then(|request| request.model);
            model.is_some_and(|model| self.fleet.is_served(model))
        });
        let found: Vec<_> = found.map(|(_, id)| *id).collect();
        for id in found {
            self.looks.forget(id);
            self.settle_looked(id, now_ns, out);
        }
    }

    fn settle_looked(&mut self, id: RequestId, now_ns: Nanos, out: &mut Vec<Effect>) {
        let Some(mut request) = self.requests.remove(&id) else {
            return;
        };
        request.phase = Phase::Between;
        let name = request.model.and_then(|id| self.model_name(id));
        let Some(name) = name.map(str::to_owned) else {
            return;
        };
        let found = match self.model_for(&name, request.regions, now_ns) {
            Some(_) => Ok(()),
            None => self.unlisted_model(&name, false, now_ns).map(|_| ()),
        };
        match found {
            Ok(()) => self.settle(id, request, None, now_ns, out),
            Err(refusal) => self.refuse(id, &request, refusal, out),
        }
    }
}
