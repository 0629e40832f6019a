//! Pages that have stopped changing.

use crate::engine::fleet::snapshot::Snapshot;
use crate::time::{Instant, Span};

/// Equal pages in a row before they are suspected.
const PAGES: u32 = 3;
/// A page may be so much older than what it should show.
const PAGE_AGE_NS: Span = Span::from_ns(1_000_000_000);
/// With requests waiting the batch is full, and some of its KV blocks fill up within this time.
const STUCK_NS: Span = Span::from_ns(5_000_000_000);

/// Whether a replica's pages are frozen: equal in every gauge and counter, though
///
/// - a request that was pushed since then has had its first byte, which adds to the prefix cache's
///   queries; or
/// - requests wait, so that the batch is full, and for [`STUCK_NS`] not even the KV usage has
///   moved (which it must tell). Without this rule a page frozen under load would close the gate for ever.
#[derive(Debug, Default)]
pub(super) struct Frozen {
    /// When the first of the equal pages was asked for, and how many there were.
    since_ns: Instant,
    pages: u32,
    /// When the first request was seen to start that was pushed since.
    started_ns: Option<Instant>,
    stopped: bool,
}

impl Frozen {
    /// A page was read; `before` is the one before it.
    pub(super) fn observe(&mut self, before: Option<&Snapshot>, page: &Snapshot, sent_ns: Instant) {
        if before != Some(page) {
            *self = Self {
                since_ns: sent_ns,
                pages: 1,
                ..Self::default()
            };
            return;
        }
        self.pages = self.pages.saturating_add(1);
        let counted = page.cache_queries.is_some();
        let started = self
            .started_ns
            .is_some_and(|at_ns| counted && at_ns + PAGE_AGE_NS < sent_ns);
        let waiting = page.waiting.is_some_and(|waiting| waiting > 0);
        let moves = page.kv_usage.is_some();
        let stuck = waiting && moves && sent_ns - self.since_ns >= STUCK_NS;
        self.stopped = self.pages >= PAGES && (started || stuck);
    }

    /// A request that was pushed at `pushed_ns` has its first byte.
    pub(super) fn started(&mut self, pushed_ns: Instant, now: Instant) {
        if pushed_ns > self.since_ns {
            self.started_ns.get_or_insert(now);
        }
    }

    pub(super) fn frozen(&self) -> bool {
        self.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Span = Span::from_ns(1_000_000_000);

    fn page(running: u32, waiting: u32, queries: Option<u64>) -> Snapshot {
        Snapshot {
            running: Some(running),
            waiting: Some(waiting),
            kv_usage: Some(0.5),
            cache_queries: queries,
            ..Snapshot::default()
        }
    }

    /// Asks for the same page once a second from second `from` to `to`.
    fn shown(frozen: &mut Frozen, page: &Snapshot, from: u64, to: u64) {
        for second in from..=to {
            frozen.observe(Some(page), page, Instant::ZERO + second * S);
        }
    }

    #[test]
    fn pages_that_miss_a_request_seen_to_start_are_frozen() {
        let page = page(3, 0, Some(1_000));
        let mut frozen = Frozen::default();
        frozen.observe(None, &page, Instant::ZERO + S);
        shown(&mut frozen, &page, 2, 4);
        assert!(!frozen.frozen(), "an engine with nothing new to do");
        frozen.started(Instant::ZERO + S / 2, Instant::ZERO + 4 * S);
        shown(&mut frozen, &page, 5, 9);
        assert!(!frozen.frozen(), "it was pushed before");
        frozen.started(Instant::ZERO + 5 * S, Instant::ZERO + 9 * S);
        shown(&mut frozen, &page, 10, 10);
        assert!(!frozen.frozen(), "the page may be too old to show it");
        shown(&mut frozen, &page, 11, 11);
        assert!(frozen.frozen());
    }

    #[test]
    fn pages_with_requests_waiting_are_frozen_when_nothing_moves_for_long() {
        let page = page(8, 2, None);
        let mut frozen = Frozen::default();
        frozen.observe(None, &page, Instant::ZERO + S);
        shown(&mut frozen, &page, 2, 5);
        assert!(!frozen.frozen());
        shown(&mut frozen, &page, 6, 6);
        assert!(frozen.frozen());
    }

    #[test]
    fn any_change_thaws() {
        let stuck = page(8, 2, None);
        let mut frozen = Frozen::default();
        shown(&mut frozen, &stuck, 1, 20);
        assert!(frozen.frozen());
        let moved = Snapshot {
            kv_usage: Some(0.51),
            ..stuck.clone()
        };
        frozen.observe(Some(&stuck), &moved, Instant::ZERO + 21 * S);
        assert!(!frozen.frozen());
    }
}
