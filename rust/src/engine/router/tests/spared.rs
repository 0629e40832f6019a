//! A tenant that asks for far more than its part takes only what replicas spare.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::engine::config::TenantRule;

/// A prompt takes a third of a replica's KV cache.
pub(super) fn fair(headroom: f64) -> Config {
    Config {
        tenant_rule: TenantRule::Fair,
        tenant_headroom_ratio: headroom,
        replica_kv_tokens: 100_000,
        ..config()
    }
}

/// A request of a tenant whose prompt shares nothing with those of other families.
pub(super) fn of_tenant(tenant: &str, family: u64) -> (Ask<'_>, Digest) {
    let blocks: Vec<u64> = (1..=PROMPT_BLOCKS)
        .map(|n| (family + 1) * 1_000_000 + n)
        .collect();
    let ask = Ask {
        tenant: Tenant::Named(tenant),
        ..ask(Route::ChatCompletions)
    };
    (ask, digest("m", &blocks))
}

impl Drive {
    fn submit_for(&mut self, tenant: &str, family: u64) -> Vec<Effect> {
        let (ask, digest) = of_tenant(tenant, family);
        self.submit_as(ask, digest)
    }

    /// Two replicas: at one, 1 of "polite" and 3 of "flood" run; at the other, 2 of "flood" is pending. 4 of "flood" is held.
    fn flooded(headroom: f64) -> Self {
        let mut drive = Self::new(fair(headroom), 2);
        let here = pushed(&drive.submit_for("polite", 0)).1;
        assert_eq!(drive.first_byte(1), []);
        let there = pushed(&drive.submit_for("flood", 1)).1;
        assert_ne!(here, there);
        assert_eq!(pushed(&drive.submit_for("flood", 2)).1, here);
        assert_eq!(drive.submit_for("flood", 3), [hold(4)]);
        drive
    }
}

#[test]
fn a_flood_waits_while_others_find_room_at_once_and_gets_an_idle_replica() {
    let mut drive = Drive::flooded(0.5);
    assert_eq!(drive.first_byte(3), [], "it would leave too little free");
    assert_eq!(
        pushed(&drive.submit_for("polite", 9)).0,
        5,
        "before the older one"
    );
    assert_eq!(drive.complete(5), []);
    assert_eq!(
        drive.complete(1),
        [],
        "who was here a moment ago may come back"
    );
    assert_eq!(pushed(&drive.complete(3)).0, 4, "nothing runs there");
}

#[test]
fn without_headroom_a_flood_takes_what_there_is() {
    let mut drive = Drive::flooded(0.0);
    assert_eq!(pushed(&drive.first_byte(3)).0, 4);
}

#[test]
fn a_request_that_fits_into_what_is_spared_does_not_wait() {
    let mut drive = Drive::flooded(0.1);
    assert_eq!(drive.first_byte(3), [], "a third one leaves nothing");
    assert_eq!(pushed(&drive.complete(1)).0, 4, "the second leaves a third");
}

#[test]
fn where_nobody_asks_for_more_than_others_no_room_is_kept() {
    let mut drive = Drive::flooded(0.5);
    assert_eq!(drive.submit_for("polite", 8), [hold(5)]);
    assert_eq!(drive.submit_for("polite", 9), [hold(6)]);
    assert_eq!(pushed(&drive.first_byte(3)).0, 5, "it has been served less");
    assert_eq!(
        pushed(&drive.first_byte(5)).0,
        4,
        "as much as the other now"
    );
}

#[test]
fn what_the_hold_refuses_of_a_flood_is_not_pushed_into_the_room_that_it_leaves() {
    let mut drive = Drive::new(
        Config {
            hold_tenant_len_max: Some(1),
            ..fair(0.5)
        },
        2,
    );
    pushed(&drive.submit_for("polite", 0));
    drive.first_byte(1);
    pushed(&drive.submit_for("flood", 1));
    pushed(&drive.submit_for("flood", 2));
    assert_eq!(drive.submit_for("flood", 3), [hold(4)]);
    assert_eq!(drive.first_byte(3), []);
    assert_eq!(rejected(&drive.submit_for("flood", 4)).status, 429);
    assert_eq!(pushed(&drive.submit_for("polite", 9)).0, 6);
}

#[test]
fn what_takes_no_room_of_the_batch_goes_at_once_for_a_flood_too() {
    let mut drive = Drive::flooded(0.5);
    assert_eq!(drive.first_byte(3), []);
    let asked = Ask {
        tenant: Tenant::Named("flood"),
        ..ask(Route::Tokenize)
    };
    assert_eq!(pushed(&drive.submit_as(asked, digest("m", &[]))).0, 5);
}

#[test]
fn a_backlog_behind_a_replica_of_another_tenant_gets_its_part() {
    // "polite" has both replicas in all but one place, and never waits; "flood" has one request there.
    let mut drive = Drive::new(fair(0.5), 2);
    for (id, family) in (1..).zip(0..4) {
        pushed(&drive.submit_for("polite", family));
        drive.first_byte(id);
    }
    let id = pushed(&drive.submit_for("flood", 4)).0;
    let held = pushed(&drive.submit_for("flood", 5)).0;
    assert_eq!(drive.submit_for("flood", 6), [hold(7)]);
    assert_eq!(drive.submit_for("flood", 7), [hold(8)]);
    assert_eq!(pushed(&drive.first_byte(id)).0, 7, "below its part");
    drive.first_byte(held);
}

#[test]
fn answers_that_come_whole_do_not_count_as_prompts_for_as_long_as_they_take() {
    let config = Config {
        replica_kv_tokens: 1_000_000,
        hold_timeout_ns: 600 * S,
        ..fair(0.1)
    };
    let mut drive = Drive::new(config, 3);
    pushed(&drive.submit_for("polite", 0));
    pushed(&drive.submit_for("flood", 1));
    let there = pushed(&drive.submit_for("flood", 2)).1;
    for (id, family) in [(4, 3), (5, 4)] {
        assert_eq!(drive.submit_for("flood", family), [hold(id)]);
    }
    let computing = drive.observe(there, load(1, 0));
    assert_eq!(computing, [], "its prompt is being computed");
    // Later it has long been computed. No first byte has come: it does not stream.
    drive.now += 60 * S;
    assert_eq!(pushed(&drive.observe(there, load(1, 0))).0, 4);
}

#[derive(Debug, Clone)]
enum Step {
    Submit {
        tenant: usize,
        family: u64,
        light: bool,
    },
    FirstByte(usize),
    Fail(usize),
    Complete(usize),
    Fleet(u32),
    Observe {
        replica: u32,
        running: u32,
        waiting: u32,
    },
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let submit = (0_usize..4, 0_u64..6, prop::bool::weighted(0.1));
    let observe = (0_u32..3, 0_u32..4, 0_u32..2);
    let step = prop_oneof![
        // The last of the tenants floods.
        6 => submit.prop_map(|(tenant, family, light)| Step::Submit { tenant, family, light }),
        4 => (0_u64..6).prop_map(|family| Step::Submit { tenant: 3, family, light: false }),
        4 => (0_usize..9).prop_map(Step::FirstByte),
        1 => (0_usize..9).prop_map(Step::Fail),
        5 => (0_usize..9).prop_map(Step::Complete),
        1 => (1_u32..8).prop_map(Step::Fleet),
        3 => observe.prop_map(|(replica, running, waiting)| Step::Observe { replica, running, waiting }),
        1 => (1_u64..9_000).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..150)
}

/// Where requests are, as the effects say.
#[derive(Default)]
struct Seen {
    in_flight: Vec<u64>,
    held: BTreeSet<u64>,
}

impl Seen {
    fn note(&mut self, effects: &[Effect]) {
        for effect in effects {
            let id = effect.request().unwrap().0;
            self.held.remove(&id);
            match effect {
                Effect::Push(_) => self.in_flight.push(id),
                Effect::Hold(_) => drop(self.held.insert(id)),
                _ => {}
            }
        }
    }

    fn take(&mut self, nth: usize) -> Option<u64> {
        let len = self.in_flight.len();
        (len > 0).then(|| self.in_flight.swap_remove(nth % len))
    }
}

proptest! {
    /// All agrees after every event (see [`Drive::call`]), whatever becomes of replicas and so of pools, and
    /// every request ends.
    #[test]
    fn accounts_agree_with_requests_whatever_happens(
        headroom in prop::sample::select(vec![0.0, 0.1, 0.5]),
        steps in steps(),
    ) {
        let mut drive = Drive::new(fair(headroom), 3);
        let mut seen = Seen::default();
        for step in steps {
            let effects = match step {
                Step::Submit { tenant, family, light: false } => {
                    drive.submit_for(["a", "b", "c", "flood"][tenant], family)
                }
                Step::Submit { .. } => drive.submit_as(ask(Route::Tokenize), digest("m", &[])),
                Step::FirstByte(nth) => {
                    let id = seen.in_flight.get(nth % seen.in_flight.len().max(1));
                    id.copied().map_or_else(Vec::new, |id| drive.first_byte(id))
                }
                Step::Fail(nth) => {
                    let id = seen.take(nth);
                    id.map_or_else(Vec::new, |id| drive.retry(id, Failure::Reset, true))
                }
                Step::Complete(nth) => seen.take(nth).map_or_else(Vec::new, |id| drive.complete(id)),
                Step::Fleet(mask) => {
                    let effects = drive.set_replicas((0..3).filter(|n| mask & (1 << n) != 0));
                    seen.note(&effects);
                    for replica in (0..3).filter(|n| mask & (1 << n) != 0) {
                        seen.note(&drive.set_models(replica, &["m"]));
                        seen.note(&drive.observe(replica, idle()));
                    }
                    Vec::new()
                }
                Step::Observe { replica, running, waiting } => {
                    drive.observe(replica, load(running, waiting))
                }
                Step::Pass(ms) => {
                    let later = drive.now + ms * MS;
                    drive.tick_at(later)
                }
            };
            seen.note(&effects);
        }
        while let Some(id) = seen.take(0) {
            seen.note(&drive.complete(id));
        }
        let later = drive.now + 600 * S;
        seen.note(&drive.tick_at(later));
        while let Some(id) = seen.take(0) {
            seen.note(&drive.complete(id));
        }
        prop_assert!(seen.held.is_empty(), "{:?} wait for ever", seen.held);
        prop_assert_eq!(drive.router.check_invariants(), Ok(()));
    }
}
