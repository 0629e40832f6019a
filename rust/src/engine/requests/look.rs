//! Requests for models in no list: before they are refused, the replicas are asked for their lists again.
//!
//! An adapter may have been loaded since the lists were read. A look answers only those who came
//! before it began; one look serves all of them. Looks begin [`EVERY_NS`] apart, further apart in
//! large fleets, so that no stranger's names cost the engines more than that.

use std::collections::VecDeque;

use crate::id::RequestId;
use crate::time::{Instant, Span};

/// From the beginning of one look to that of the next, and so much more for each replica.
const EVERY_NS: Span = Span::from_ns(1_000_000_000);
const EVERY_PER_REPLICA_NS: Span = Span::from_ns(5_000_000);
/// Longest wait for a look; a replica's list has 2 s.
const WAIT_NS: Span = Span::from_ns(4_000_000_000);
/// Requests that wait for a look at most; more are answered out of what is known.
const WAITING_MAX: usize = 1_024;

/// Who waits for a look, and when the next may begin.
#[derive(Debug, Default)]
pub(in crate::engine) struct Looks {
    /// The driver can ask for lists.
    enabled: bool,
    /// In the order in which they came.
    waiting: VecDeque<(Instant, RequestId)>,
    /// When the look under way began.
    under_way_ns: Option<Instant>,
    /// When the last look began.
    last_ns: Option<Instant>,
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
    pub(in crate::engine) fn pop(&mut self, until_ns: Instant) -> Option<RequestId> {
        let due = self
            .waiting
            .front()
            .is_some_and(|(came_ns, _)| *came_ns <= until_ns);
        due.then(|| self.waiting.pop_front())?.map(|(_, id)| id)
    }

    /// Whether the driver can ask for lists.
    pub(in crate::engine) fn enable(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// A request waits from now on.
    pub(in crate::engine) fn add(&mut self, id: RequestId, now: Instant) {
        self.waiting.push_back((now, id));
    }

    /// The requests that wait, in the order in which they came.
    pub(in crate::engine) fn waiting(&self) -> impl Iterator<Item = RequestId> {
        self.waiting.iter().map(|(_, id)| *id)
    }

    /// When a look should begin, in a fleet of so many replicas.
    fn due_ns(&self, replicas: usize) -> Option<Instant> {
        if self.waiting.is_empty() || self.under_way_ns.is_some() {
            return None;
        }
        let apart_ns = EVERY_NS + EVERY_PER_REPLICA_NS * replicas as u64;
        let last_ns = self.last_ns;
        Some(last_ns.map_or(Instant::ZERO, |last_ns| last_ns + apart_ns))
    }

    /// When a look should begin or a wait for one ends.
    pub(in crate::engine) fn next_ns(&self, replicas: usize) -> Option<Instant> {
        let (came_ns, _) = self.waiting.front()?;
        let ends_ns = *came_ns + WAIT_NS;
        let due_ns = self.due_ns(replicas);
        Some(due_ns.map_or(ends_ns, |due_ns| due_ns.min(ends_ns)))
    }

    /// Begins a look, if one is due.
    pub(in crate::engine) fn begin(&mut self, replicas: usize, now: Instant) -> bool {
        let due = self.due_ns(replicas).is_some_and(|due_ns| due_ns <= now);
        if due {
            self.under_way_ns = Some(now);
            self.last_ns = Some(now);
        }
        due
    }

    /// The look under way has ended; when it began.
    pub(in crate::engine) fn end(&mut self) -> Option<Instant> {
        self.under_way_ns.take()
    }

    /// What should have been read was not: until when those came who have waited too long.
    pub(in crate::engine) fn end_old(&mut self, now: Instant) -> Option<Instant> {
        let until_ns = now.checked_sub(WAIT_NS)?;
        let (came_ns, _) = self.waiting.front()?;
        if *came_ns > until_ns {
            return None;
        }
        self.under_way_ns = None;
        Some(until_ns)
    }
}
