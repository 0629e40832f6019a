//! A tenant that asks for far more than its part takes only what replicas spare.

use super::*;
use crate::engine::config::TenantRule;

/// A prompt takes a third of a replica's KV cache.
fn fair(headroom: f64) -> Config {
    Config {
        tenant_rule: TenantRule::Fair,
        tenant_headroom_ratio: headroom,
        replica_kv_tokens: 100_000,
        ..config()
    }
}

impl Drive {
    fn submit_for(&mut self, tenant: &str, family: u64) -> Vec<Effect> {
        let blocks: Vec<u64> = (1..=PROMPT_BLOCKS)
            .map(|n| (family + 1) * 1_000_000 + n)
            .collect();
        let ask = Ask {
            tenant: Tenant::Named(tenant),
            ..ask(Route::ChatCompletions)
        };
        self.submit_as(ask, digest("m", &blocks))
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
