//! The time between the events of a stream, as they came from the replica.

/// The gaps between events of one stream. Events that come in one input have gaps of 0 between them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gaps {
    /// When the last event came; `None` before the first, and behind an interruption.
    last_ns: Option<u64>,
    events: u64,
    count: u64,
    sum_ns: u64,
    worst_ns: u64,
    interrupted: bool,
}

impl Gaps {
    /// So many events have come in all, the last of them now.
    #[inline]
    pub(super) fn note(&mut self, events: u64, now_ns: u64) {
        let came = events.saturating_sub(self.events);
        if came == 0 {
            return;
        }
        self.events = events;
        if let Some(last_ns) = self.last_ns.replace(now_ns) {
            let gap_ns = now_ns.saturating_sub(last_ns);
            self.sum_ns += gap_ns;
            self.worst_ns = self.worst_ns.max(gap_ns);
            self.count += came;
        } else {
            self.count += came - 1;
        }
    }

    /// The gap under way does not count. How many tokens fall into it is not known.
    pub(super) fn interrupt(&mut self) {
        self.last_ns = None;
        self.interrupted = true;
    }

    /// The mean time between two tokens of the answer, where their number is known, else between two events. Of a
    /// stream that was interrupted there is none by tokens.
    #[must_use]
    pub fn mean_ns(&self, tokens: Option<u64>) -> Option<u64> {
        if self.interrupted && tokens.is_some() {
            return None;
        }
        let between = tokens.map(|tokens| tokens.saturating_sub(1));
        let between = between.filter(|count| *count > 0).unwrap_or(self.count);
        (self.sum_ns > 0)
            .then(|| self.sum_ns.checked_div(between))
            .flatten()
    }

    /// The longest time between two events.
    #[must_use]
    pub fn worst_ns(&self) -> Option<u64> {
        (self.sum_ns > 0).then_some(self.worst_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_mean_is_over_tokens_where_they_are_known_and_else_over_events() {
        let mut gaps = Gaps::default();
        for (events, now_ns) in [(1, 100), (1, 150), (2, 200), (4, 500)] {
            gaps.note(events, now_ns);
        }
        assert_eq!(gaps.mean_ns(None), Some(400 / 3));
        assert_eq!(gaps.mean_ns(Some(9)), Some(50));
        assert_eq!(gaps.mean_ns(Some(1)), Some(400 / 3));
        assert_eq!(gaps.worst_ns(), Some(300));
    }

    #[test]
    fn one_event_or_one_input_has_no_gap() {
        let mut gaps = Gaps::default();
        assert_eq!((gaps.mean_ns(None), gaps.worst_ns()), (None, None));
        gaps.note(5, 100);
        assert_eq!((gaps.mean_ns(Some(5)), gaps.worst_ns()), (None, None));
    }

    #[test]
    fn time_in_which_the_client_took_nothing_does_not_count() {
        let mut gaps = Gaps::default();
        gaps.note(1, 100);
        gaps.note(2, 110);
        gaps.interrupt();
        gaps.note(3, 9_000);
        gaps.note(4, 9_020);
        assert_eq!(gaps.worst_ns(), Some(20));
        assert_eq!(gaps.mean_ns(None), Some(15));
        assert_eq!(gaps.mean_ns(Some(500)), None);
    }

    proptest! {
        #[test]
        fn the_mean_is_no_longer_than_the_worst(
            steps in prop::collection::vec((0..4_u64, 0..1_000_000_u64), 0..50),
        ) {
            let mut gaps = Gaps::default();
            let (mut events, mut now_ns) = (0, 0);
            for (more, passed_ns) in steps {
                events += more;
                now_ns += passed_ns;
                gaps.note(events, now_ns);
            }
            prop_assert!(gaps.mean_ns(None) <= gaps.worst_ns());
        }
    }
}
