//! The probe of one replica: at most one is under way.

use super::Replica;
use crate::time::{Instant, Span};

/// What has become of the last probe.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Probing {
    sent_ns: Option<Instant>,
    under_way: bool,
    /// It brought a page that could be read.
    read: bool,
}

impl Probing {
    /// It was answered.
    pub(super) fn answered(&mut self, sent_ns: Instant) {
        self.under_way = false;
        self.sent_ns = self.sent_ns.max(Some(sent_ns));
    }

    /// The page could be read.
    pub(super) fn read(&mut self) {
        self.read = true;
    }
}

impl Replica {
    /// A probe is being sent.
    pub fn probe_sent(&mut self, now: Instant) {
        self.probing.sent_ns = Some(now);
        self.probing.under_way = true;
    }

    /// A probe failed. The last snapshot keeps counting until it is stale.
    pub fn probe_failed(&mut self) {
        self.probing.under_way = false;
        self.probing.read = false;
    }

    /// A probe was given up before it was sent: it says nothing.
    pub fn probe_unsent(&mut self) {
        self.probing.under_way = false;
    }

    /// The last probe brought a page that could be read.
    #[must_use]
    pub fn read(&self) -> bool {
        self.probing.read
    }

    /// When the next probe is due, given the interval (see [`crate::engine::fleet::gate::probe_interval`]);
    /// `None` while one is under way.
    #[must_use]
    pub fn probe_due_ns(&self, interval_ns: Span) -> Option<Instant> {
        let sent_ns = self.probing.sent_ns;
        let due_ns = sent_ns.map_or(Instant::ZERO, |sent_ns| sent_ns + interval_ns);
        (!self.probing.under_way).then_some(due_ns)
    }
}
