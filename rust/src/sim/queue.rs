//! Events in virtual time: a binary heap, ties in the order in which they were put in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::engine::fleet::failure::Failure;
use crate::id::{Nanos, RequestId};

/// What a peer tells of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The answer's first body byte.
    FirstByte,
    /// The answer's end.
    End,
    /// The replica refused the request itself (a 400).
    TooLong,
    /// No answer will come.
    Failed(Failure),
}

/// Something that happens at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A user of a region begins, or goes on with, its sessions.
    User {
        /// The user's place among those at once.
        seat: u32,
    },
    /// A client sends a request of the workload; `seat` is none in open loop.
    Send {
        /// The request's number in the workload.
        turn: u32,
        /// Whose, in closed loop.
        seat: u32,
    },
    /// A request reaches its balancer.
    Arrive(RequestId),
    /// A push reaches its replica.
    AtReplica(RequestId, u32),
    /// A replica's step ends.
    Step {
        /// The replica.
        replica: u32,
        /// The process of the replica that the step is of.
        epoch: u32,
    },
    /// An attempt's first body byte reaches the balancer.
    FirstByte(RequestId, u32),
    /// An attempt's answer has reached the balancer to its end.
    End(RequestId, u32),
    /// The replica refused the request itself (a 400).
    TooLong(RequestId, u32),
    /// The balancer sees an attempt fail.
    Fail(RequestId, u32, Failure),
    /// The balancer has heard nothing of an attempt for long; the replica's `epoch` at its silence.
    Stall(RequestId, u32, u32),
    /// The client leaves.
    Leave(RequestId),
    /// A balancer connects to those of other regions.
    Connect(u32),
    /// A balancer looks what to tell those of its own region.
    Talk(u32),
    /// A message between balancers of one region arrives.
    Heard(u32),
    /// A balancer looks which of its peers are heard.
    Judge(u32),
    /// A summary reaches a peer.
    Told(u32),
    /// A forward of this number reaches the peer.
    AtPeer(RequestId, u32),
    /// News of a forward reach the balancer that it came from.
    Home(RequestId, u32, News),
    /// The replica learns that nobody waits for an answer any more.
    Abort(RequestId, u32),
    /// A balancer looks for probes due and deadlines passed.
    Tick(u32),
    /// A probe reaches its replica.
    Probe {
        /// Who asks.
        balancer: u32,
        /// Who is asked.
        replica: u32,
        /// When it was sent.
        sent_ns: Nanos,
    },
    /// A probe's answer reaches the balancer.
    Probed(u32),
    /// A fault of the script begins (or ends).
    Fault {
        /// Its number.
        index: u32,
        /// It begins.
        begins: bool,
    },
    /// A second has passed.
    Second,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    at_ns: Nanos,
    order: u64,
    event: Event,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.order).cmp(&(other.at_ns, other.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The queue. Its time never goes back.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    order: u64,
    now_ns: Nanos,
}

impl Queue {
    /// Puts an event in; one of the past happens now.
    pub fn put(&mut self, at_ns: Nanos, event: Event) {
        self.order += 1;
        self.heap.push(Reverse(Entry {
            at_ns: at_ns.max(self.now_ns),
            order: self.order,
            event,
        }));
    }

    /// Takes the next event that happens by `until_ns`; the time becomes that event's.
    pub fn take(&mut self, until_ns: Nanos) -> Option<Event> {
        let Reverse(next) = self.heap.peek()?;
        if next.at_ns > until_ns {
            return None;
        }
        let Reverse(next) = self.heap.pop()?;
        self.now_ns = next.at_ns;
        Some(next.event)
    }

    /// Virtual time.
    #[must_use]
    pub fn now_ns(&self) -> Nanos {
        self.now_ns
    }

    /// Lets time pass up to `now_ns`, if nothing happens before.
    pub fn pass(&mut self, now_ns: Nanos) {
        let next = self.heap.peek().map_or(now_ns, |Reverse(next)| next.at_ns);
        self.now_ns = self.now_ns.max(now_ns.min(next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_and_ties_as_they_were_put_in() {
        let mut queue = Queue::default();
        for (at_ns, balancer) in [(20, 0), (10, 1), (20, 2), (10, 3)] {
            queue.put(at_ns, Event::Tick(balancer));
        }
        let mut seen = Vec::new();
        while let Some(Event::Tick(balancer)) = queue.take(20) {
            seen.push((queue.now_ns(), balancer));
        }
        assert_eq!(seen, [(10, 1), (10, 3), (20, 0), (20, 2)]);
    }

    #[test]
    fn what_lies_beyond_stays_and_the_past_happens_now() {
        let mut queue = Queue::default();
        queue.put(50, Event::Second);
        assert_eq!(queue.take(49), None);
        assert_eq!(queue.take(50), Some(Event::Second));
        queue.put(10, Event::Tick(1));
        assert_eq!(queue.take(50), Some(Event::Tick(1)));
        assert_eq!(queue.now_ns(), 50);
    }
}
