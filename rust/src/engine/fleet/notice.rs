//! Replicas that are to be left at a time: they end, as was announced, or an operator wants them empty.

use super::Fleet;
use super::member::{Member, Notice};
use crate::engine::config::Config;
use crate::engine::demand::Demand;
use crate::id::ReplicaSlot;
use crate::time::{Instant, Span};

/// What is still there before the end leaves so much earlier, at most: the prefill elsewhere takes time.
const MARGIN_NS_MAX: Span = Span::from_ns(10_000_000_000);
/// The same as a part of the notice.
const MARGIN_PART: u64 = 4;

/// Between two looks at what is to leave. A stream may be unable to go on at one moment, and able soon after.
pub(in crate::engine) const LOOK_NS: Span = Span::from_ns(250_000_000);

/// When a replica is to be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It ends then: what stays ends with it.
    Ends(Instant),
    /// An operator wants it empty: what has no place elsewhere may stay.
    Empties(Instant),
}

impl Fleet {
    /// A replica is to be left, as is announced `now`; `None`: it stays.
    pub(in crate::engine) fn set_notice(
        &mut self,
        slot: ReplicaSlot,
        leave: Option<Leave>,
        now: Instant,
    ) {
        let notice = leave.map(|leave| match leave {
            Leave::Ends(at_ns) => {
                let margin_ns = ((at_ns - now) / MARGIN_PART).min(MARGIN_NS_MAX);
                Notice {
                    at_ns,
                    look_ns: at_ns - margin_ns,
                    ends: true,
                }
            }
            Leave::Empties(at_ns) => Notice {
                at_ns,
                look_ns: at_ns,
                ends: false,
            },
        });
        if let Some(member) = self.members.get_mut(slot.index()) {
            member.notice = notice;
        }
    }

    /// When it is next to be looked at what has to leave a replica.
    pub(in crate::engine) fn next_look_ns(&self) -> Option<Instant> {
        let busy = self.members().filter(|(_, member)| member.in_flight() > 0);
        let notices = busy.filter_map(|(_, member)| member.notice);
        notices.map(|notice| notice.look_ns).min()
    }

    /// The replicas that have to be left by now, and whether they end.
    pub(in crate::engine) fn looks_due(&mut self, now: Instant) -> Vec<(ReplicaSlot, bool)> {
        let mut due = Vec::new();
        for (index, member) in &mut self.members {
            let busy = member.in_flight() > 0;
            if let Some(notice) = member.notice.as_mut().filter(|_| busy)
                && notice.look_ns <= now
            {
                notice.look_ns = now + LOOK_NS;
                due.push((ReplicaSlot::new(index), notice.ends));
            }
        }
        due
    }
}

impl Fleet {
    /// Replicas with room for such a request.
    pub(in crate::engine) fn with_room(
        &self,
        demand: &Demand,
        config: &Config,
        now: Instant,
    ) -> u64 {
        let members = self.serving(demand.model).iter();
        let usable = members
            .filter_map(|slot| self.member(*slot))
            .filter(|member| member.ready(config, now) && demand.may_use(member.region_bit));
        let free = usable.map(|member| u64::from(member.free(config, now) > 0));
        free.sum()
    }
}

impl Member {
    /// Time until it ends, as has been announced; 0 behind it.
    pub(in crate::engine) fn leaves_in_ns(&self, now: Instant) -> Option<Span> {
        let notice = self.notice.filter(|notice| notice.ends)?;
        Some(notice.at_ns - now)
    }

    /// Time until what is left there goes on elsewhere, as an operator wants; 0 behind it.
    pub(in crate::engine) fn empties_in_ns(&self, now: Instant) -> Option<Span> {
        let notice = self.notice.filter(|notice| !notice.ends)?;
        Some(notice.at_ns - now)
    }
}
