//! Replicas that have been announced to end.

use super::Fleet;
use super::member::{Member, Notice};
use crate::id::ReplicaSlot;
use crate::time::{Instant, Span};

/// What is still there before the end leaves so much earlier, at most: the prefill elsewhere takes time.
const MARGIN_NS_MAX: Span = Span::from_ns(10_000_000_000);
/// The same as a part of the notice.
const MARGIN_PART: u64 = 4;

impl Fleet {
    /// A replica ends at `at_ns`, as is announced `now`; `None`: it stays.
    pub(in crate::engine) fn set_notice(
        &mut self,
        slot: ReplicaSlot,
        at_ns: Option<Instant>,
        now: Instant,
    ) {
        let notice = at_ns.map(|at_ns| {
            let margin_ns = ((at_ns - now) / MARGIN_PART).min(MARGIN_NS_MAX);
            Notice {
                at_ns,
                cut_ns: at_ns - margin_ns,
                cut: false,
            }
        });
        if let Some(member) = self.members.get_mut(slot.index()) {
            member.notice = notice;
        }
    }

    /// When the next announced replica is to be left.
    pub(in crate::engine) fn next_cut_ns(&self) -> Option<Instant> {
        let notices = self.members().filter_map(|(_, member)| member.notice);
        let ahead = notices.filter(|notice| !notice.cut);
        ahead.map(|notice| notice.cut_ns).min()
    }

    /// The replicas that are to be left by now, each once.
    pub(in crate::engine) fn cut(&mut self, now: Instant) -> Vec<ReplicaSlot> {
        let mut due = Vec::new();
        for (index, member) in &mut self.members {
            if let Some(notice) = member.notice.as_mut().filter(|notice| !notice.cut)
                && notice.cut_ns <= now
            {
                notice.cut = true;
                due.push(ReplicaSlot::new(index));
            }
        }
        due
    }
}

impl Member {
    /// Time until it ends, as has been announced; 0 behind it.
    pub(in crate::engine) fn leaves_in_ns(&self, now: Instant) -> Option<Span> {
        self.notice.map(|notice| notice.at_ns - now)
    }
}
