//! Times at which something is due for a held request. Entries of requests that have left are dropped late.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Instant;

/// Timers that nobody waits for any more are kept up to so many beyond the others.
const STALE_SPARE: usize = 64;

/// One moment of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timer {
    pub(super) at_ns: Instant,
    pub(super) slot: usize,
    /// Tells it from all others: the entry's own for its deadline, else that of its choice.
    pub(super) serial: u64,
}

/// A heap from which a timer is removed by being no longer valid, so that leaving the hold costs
/// O(1): what is stale goes when it comes to the top, or all at once when it is the greater part.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
    stale: usize,
}

impl Timers {
    pub(super) fn add(&mut self, timer: Timer) {
        self.heap.push(Reverse(timer));
    }

    /// So many timers have become stale. The first one is valid afterwards.
    pub(super) fn retire(&mut self, count: usize, valid: impl Fn(&Timer) -> bool) {
        self.stale += count;
        if self.stale > self.heap.len() / 2 + STALE_SPARE {
            self.heap.retain(|Reverse(timer)| valid(timer));
            self.stale = 0;
            return;
        }
        while self.first().is_some_and(|timer| !valid(&timer)) {
            self.heap.pop();
            self.stale -= 1;
        }
    }

    /// The earliest.
    pub(super) fn first(&self) -> Option<Timer> {
        self.heap.peek().map(|Reverse(timer)| *timer)
    }

    /// All, the stale ones too, for checks.
    pub(super) fn all(&self) -> impl Iterator<Item = &Timer> {
        self.heap.iter().map(|Reverse(timer)| timer)
    }

    pub(super) fn stale(&self) -> usize {
        self.stale
    }
}
