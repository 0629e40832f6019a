//! The rules that every step must keep.

use super::*;

impl Oracle {
    pub(super) fn check_push(&self, id: u64, live: &Live, push: &Push, now: Instant) {
        let replica = push.replica.0;
        match live.at {
            At::Replica { .. } => panic!("{id} is pushed while in flight"),
            At::Held { deadline_ns } => {
                assert!(now < deadline_ns, "{id} starts after its deadline");
            }
            At::Nowhere => {}
        }
        assert_eq!(push.attempt, live.attempts + 1);
        assert!(push.attempt <= self.drive.router.config.attempts_max);
        let serves = |facts: &Facts| facts.models & (1 << live.model) != 0;
        let facts = &self.replicas[replica as usize];
        assert!(
            facts.listed && !facts.draining && !facts.down && serves(facts),
            "{id}: {facts:?}"
        );
        assert!(
            live.bound.is_none_or(|bound| bound == replica),
            "{id} left its replica"
        );
        let gauges = self.drive.router.gauges();
        let ready = |other: u32| gauges.iter().any(|g| g.replica.0 == other && g.ready);
        assert!(
            ready(replica),
            "{id} is pushed to a replica that is not ready"
        );
        if live.tried.contains(&replica) && live.bound.is_none() {
            let untried = |other: &u32| {
                !live.tried.contains(other) && serves(&self.replicas[*other as usize])
            };
            assert!(
                !(0..REPLICAS).filter(untried).any(ready),
                "{id} goes where it failed"
            );
        }
    }

    /// Nobody who is due is left behind, and nobody is passed over more often than allowed.
    pub(super) fn check_passed_over(&mut self, id: u64, live: &Live, push: &Push, now: Instant) {
        if live.light {
            return;
        }
        let config = &self.drive.router.config;
        let facts = &self.replicas[push.replica.0 as usize];
        let is_due = |live: &Live| {
            live.passes >= config.hold_passes_max
                || now >= live.submitted_ns + config.due_after_ns()
        };
        let pushed_is_due = is_due(live);
        for (other_id, other) in &mut self.live {
            let fits = matches!(other.at, At::Held { .. })
                && facts.models & (1 << other.model) != 0
                && other.bound.is_none_or(|bound| bound == push.replica.0)
                && other.tried.is_empty();
            if !fits {
                continue;
            }
            let first = pushed_is_due && id < *other_id;
            assert!(
                first || !is_due(other),
                "{id} takes what {other_id} is due: {other:?}"
            );
            let queue = |live: &Live| (live.model, live.bound, live.class);
            if *other_id < id && queue(other) == queue(live) {
                let strict = config.policy != Policy::Predictive && !config.waits();
                assert!(!strict, "{id} overtakes {other_id}");
                other.passes += 1;
            }
        }
    }

    /// What must be equal after every event.
    pub(super) fn compare(&self) {
        let router = &self.drive.router;
        assert!(
            !self.live.values().any(|live| live.at == At::Nowhere),
            "lost: {:?}",
            self.live
        );
        let at = |replica: u32| {
            let there =
                |live: &&Live| matches!(live.at, At::Replica { replica: r, .. } if r == replica);
            u32::try_from(self.live.values().filter(there).count()).unwrap()
        };
        for gauges in router.gauges() {
            assert_eq!(gauges.in_flight, at(gauges.replica.0));
            assert!(gauges.in_flight <= router.config.in_flight_max);
        }
        assert_eq!(
            router.in_flight(),
            (0..REPLICAS).map(|r| at(r) as usize).sum::<usize>()
        );
        let held = self
            .live
            .values()
            .filter(|live| matches!(live.at, At::Held { .. }))
            .count();
        assert_eq!(router.hold_requests(), held);
        assert!(held <= router.config.hold_len_max);
        let ended = [
            "completed_ok",
            "completed_client_left",
            "completed_replica_failed",
            "rejected",
            "expired",
        ];
        let verdicts = ["shadow_same", "shadow_other", "shadow_waits"];
        let verdicts: u64 = verdicts.iter().map(|name| self.drive.counter(name)).sum();
        let shadowed = router.config.shadow_policy.is_some();
        assert_eq!(verdicts, if shadowed { self.firsts } else { 0 });
        let ended: u64 = ended.iter().map(|name| self.drive.counter(name)).sum();
        assert_eq!(ended, self.ended);
        assert_eq!(
            self.drive.counter("submitted"),
            ended + self.live.len() as u64
        );
    }
}
