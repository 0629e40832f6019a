//! Requests for models in no list: before they are refused, the replicas are asked for their lists again.

use super::Router;
use crate::engine::effect::Effect;
use crate::engine::receipts::decision::Held;
use crate::engine::requests::request::{Phase, Request};
use crate::id::RequestId;
use crate::time::Instant;

impl Router {
    /// Whether the driver asks replicas for their lists when [`Self::look_due`] says so.
    pub fn set_looks(&mut self, looks: bool) {
        self.requests.looks_mut().enable(looks);
    }

    /// Whether all lists should be read now; they count as being read until [`Self::looked`].
    pub fn look_due(&mut self, now: Instant) -> bool {
        let now = self.advance(now);
        let due = self.requests.looks_mut().begin(self.fleet.len(), now);
        self.counters.model_looks += u64::from(due);
        due
    }

    /// All lists have been read, or could not be.
    pub fn looked(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let now = self.advance(now);
        if let Some(began_ns) = self.requests.looks_mut().end() {
            self.end_looks(began_ns, now, out);
        }
    }

    /// Keeps a request until the lists have been read again.
    pub(super) fn await_look(
        &mut self,
        id: RequestId,
        mut request: Request,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        request.phase = Phase::Looking;
        let age = request.age;
        self.requests.insert(id, request);
        self.requests.looks_mut().add(id, now);
        self.chooser.note_held(age, Held::ListsAreRead);
        out.push(Effect::Hold(id));
    }

    /// Answers those who have waited too long: what should have been read was not.
    pub(super) fn end_old_looks(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if let Some(until_ns) = self.requests.looks_mut().end_old(now) {
            self.end_looks(until_ns, now, out);
        }
    }

    /// Answers those who came no later than `until_ns`.
    fn end_looks(&mut self, until_ns: Instant, now: Instant, out: &mut Vec<Effect>) {
        while let Some(id) = self.requests.looks_mut().pop(until_ns) {
            self.settle_looked(id, now, out);
        }
    }

    /// Lets go on whose model has come into a list.
    pub(super) fn settle_found(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let found = self.requests.looks().waiting().filter(|id| {
            let model = self
                .requests
                .get(*id)
                .and_then(|request| request.demand.model);
            model.is_some_and(|model| self.fleet.is_served(model))
        });
        let found: Vec<_> = found.collect();
        for id in found {
            self.requests.looks_mut().forget(id);
            self.settle_looked(id, now, out);
        }
    }

    fn settle_looked(&mut self, id: RequestId, now: Instant, out: &mut Vec<Effect>) {
        let Some(mut request) = self.requests.remove(id) else {
            return;
        };
        request.phase = Phase::Between;
        let name = self.fleet.name_of(request.demand.model);
        let Some(name) = name.map(str::to_owned) else {
            return;
        };
        let found = match self.model_for(&name, request.demand.regions, now) {
            Some(_) => Ok(()),
            None => self.unlisted_model(&name, false, now).map(|_| ()),
        };
        match found {
            Ok(()) => self.settle(id, request, None, now, out),
            Err(refusal) => self.refuse(id, &request, refusal, out),
        }
    }
}
