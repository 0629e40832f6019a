//! What may happen to a router, and under which settings: strategies for the oracle's test.

use proptest::prelude::*;

use super::*;

pub(super) const REPLICAS: u32 = 4;
pub(super) const MODELS: [&str; 3] = ["m", "n", "lora"];

/// One event.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Submit {
        model: usize,
        family: u64,
        blocks: u64,
        light: bool,
        follow: Option<usize>,
        safe: bool,
        class: usize,
    },
    FirstByte {
        nth: usize,
    },
    Fail {
        nth: usize,
        failure: usize,
        sent: bool,
    },
    /// Any request, in any phase.
    Complete {
        nth: usize,
        outcome: usize,
    },
    Observe {
        replica: u32,
        running: u32,
        waiting: u32,
        late: bool,
    },
    ObserveFailed {
        replica: u32,
        reachable: bool,
    },
    Drain {
        replica: u32,
        draining: bool,
    },
    Models {
        replica: u32,
        mask: u8,
    },
    Fleet {
        mask: u8,
    },
    Policy {
        policy: Policy,
    },
    Probe,
    Wait {
        ms: u64,
    },
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let nth = any::<usize>;
    let replica = || 0..REPLICAS;
    let follow = prop_oneof![5 => Just(None), 1 => any::<usize>().prop_map(Some)];
    let submit = (
        0..MODELS.len(),
        0..5_u64,
        0..12_u64,
        prop::bool::weighted(0.1),
        follow,
        prop::bool::weighted(0.9),
        prop::sample::select(vec![1, 1, 1, 0, 2_usize]),
    );
    prop_oneof![
        10 => submit.prop_map(|(model, family, blocks, light, follow, safe, class)| {
            Step::Submit { model, family, blocks, light, follow, safe, class }
        }),
        6 => nth().prop_map(|nth| Step::FirstByte { nth }),
        5 => (nth(), 0..8_usize, any::<bool>())
            .prop_map(|(nth, failure, sent)| Step::Fail { nth, failure, sent }),
        6 => (nth(), 0..3_usize).prop_map(|(nth, outcome)| Step::Complete { nth, outcome }),
        5 => (replica(), 0..6_u32, 0..3_u32, any::<bool>()).prop_map(
            |(replica, running, waiting, late)| Step::Observe { replica, running, waiting, late }
        ),
        2 => (replica(), any::<bool>())
            .prop_map(|(replica, reachable)| Step::ObserveFailed { replica, reachable }),
        1 => (replica(), any::<bool>())
            .prop_map(|(replica, draining)| Step::Drain { replica, draining }),
        1 => (replica(), 0..8_u8).prop_map(|(replica, mask)| Step::Models { replica, mask }),
        1 => (1..16_u8).prop_map(|mask| Step::Fleet { mask }),
        1 => prop::sample::select(Policy::ALL).prop_map(|policy| Step::Policy { policy }),
        1 => Just(Step::Probe),
        4 => (1..600_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

pub(super) fn settings() -> impl Strategy<Value = Config> {
    let policies = prop::sample::select(vec![
        Policy::Prefix,
        Policy::Ring,
        Policy::RoundRobin,
        Policy::LeastLoad,
        Policy::TwoChoices,
        Policy::BoundedRing,
        Policy::CacheAware,
        Policy::Predictive,
        Policy::Predictive,
        Policy::Prefix,
    ]);
    let pushes = prop::sample::select(vec![
        PushRule::Blind,
        PushRule::Outstanding,
        PushRule::Pending,
    ]);
    let allowances = prop::sample::select(vec![
        AllowanceRule::One,
        AllowanceRule::Probed,
        AllowanceRule::Knee,
    ]);
    let rules = prop::sample::select(vec![ClassRule::Weighted, ClassRule::Strict]);
    let hold = (
        1..5_u32,
        1..3_u64,
        0..2_u64,
        rules,
        prop::sample::select(vec![0, 300_u64]),
        prop::sample::select(vec![0.0, 40.0]),
    );
    let shadows = prop::option::of(prop::sample::select(Policy::ALL));
    (
        (policies, shadows),
        pushes,
        allowances,
        1..5_u32,
        0..7_usize,
        1..4_u32,
        0..2_u64,
        hold,
    )
        .prop_map(
            |(
                (policy, shadow_policy),
                push,
                allowance,
                in_flight_max,
                hold_len_max,
                attempts_max,
                ramp_s,
                hold,
            )| {
                Config {
                    hold_passes_max: hold.0,
                    hold_age_max_ns: Some(hold.1 * S),
                    affinity_wait_ns: hold.2 * 400 * MS,
                    class_rule: hold.3,
                    class_age_ns: hold.4 * MS,
                    hold_work_weight: hold.5,
                    policy,
                    shadow_policy,
                    push,
                    allowance,
                    in_flight_max,
                    hold_len_max,
                    attempts_max,
                    outstanding_max: 2,
                    blind_outstanding_max: 2,
                    hold_timeout_ns: 2 * S,
                    eject_failures: 2,
                    ramp_ns: ramp_s * S,
                    ring_vnodes: 8,
                    retry_per_s: 1.0,
                    ..Config::sample()
                }
            },
        )
}
