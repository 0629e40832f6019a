//! The shadow against a second router, whose own policy is that of the shadow.
//!
//! The second router gets the same events. It chooses by its policy, which is noted, and then does what the
//! first router did. So at each choice both policies look at the same fleet, with the same past.

use super::*;
use crate::engine::choose::Selection;

/// Policies that may be compared while requests wait for full replicas: they wait equally long.
fn waiting() -> Vec<Policy> {
    let waits = |policy: &&Policy| policy.traits().waits && !policy.traits().orders_by_work;
    Policy::ALL.iter().filter(waits).copied().collect()
}

/// Settings with a policy and a shadow under which the hold is served in the same order.
fn pairs() -> impl Strategy<Value = Config> {
    let any = || prop::sample::select(Policy::ALL);
    let no_wait = (any(), any()).prop_map(|pair| (pair, Some(Span::ZERO)));
    let wait = || prop::sample::select(waiting());
    let with_wait = (wait(), wait()).prop_map(|pair| (pair, None));
    let pair = prop_oneof![no_wait, with_wait];
    (settings(), pair).prop_map(|(config, ((policy, shadow), affinity_wait_ns))| Config {
        policy,
        shadow_policy: Some(shadow),
        affinity_wait_ns: affinity_wait_ns.unwrap_or(400 * MS),
        hold_work_weight: 0.0,
        ..config
    })
}

/// The choices of one step: those of the first router, and its shadow's.
fn found(oracle: &mut Oracle) -> (Vec<Selection>, Vec<Selection>) {
    let chooser = &mut oracle.drive.router.chooser;
    let own = std::mem::take(&mut chooser.following().found);
    (own, chooser.shadow_found())
}

/// Those for which a policy was asked.
fn asked(selections: Vec<Selection>) -> Vec<Selection> {
    let asked = |found: &Selection| matches!(found, Selection::Here(_) | Selection::Awaits { .. });
    selections.into_iter().filter(asked).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_shadow_chooses_as_its_policy_would_in_its_place(
        config in pairs(),
        history in prop::collection::vec(step(), 1..200),
    ) {
        let alone = Config { policy: config.shadow_policy.unwrap(), shadow_policy: None, ..config.clone() };
        let mut first = Oracle::new(config);
        let mut second = Oracle::new(alone);
        first.drive.router.chooser.follow();
        second.drive.router.chooser.follow();
        for step in history.iter().filter(|step| !matches!(step, Step::Policy { .. })) {
            first.step(step);
            let (real, shadow) = found(&mut first);
            second.drive.router.chooser.following().led.extend(real);
            second.step(step);
            let following = second.drive.router.chooser.following();
            prop_assert!(following.led.is_empty());
            prop_assert_eq!(asked(std::mem::take(&mut following.found)), asked(shadow));
        }
    }
}
