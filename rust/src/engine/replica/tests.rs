//! The rules one by one, and all of them in front of a simulated engine.

mod sim;

use proptest::prelude::*;
use sim::{MS, Setup, Sim};

use super::*;
use crate::engine::config::PushRule;

fn config(push: PushRule, allowance: AllowanceRule) -> Config {
    Config {
        push,
        allowance,
        ..Config::sample()
    }
}

/// Engines, wires and loads of all kinds.
fn setups() -> impl Strategy<Value = Setup> {
    let engine = (1_usize..24, 2..60_u64, 0..10_u64, 0..10_u64, 0..60_u64);
    let load = (
        1_usize..60,
        1_usize..60,
        0_usize..40,
        any::<bool>(),
        0_usize..400,
        any::<u64>(),
    );
    (engine, load).prop_map(|((slots, step, prefill, wire, probe), load)| {
        let (clients, low, more, streamed, leave_permille, seed) = load;
        Setup {
            slots,
            step_ns: step * MS,
            prefill_ns: prefill * MS,
            wire_ns: wire * MS,
            probe_ns: probe * MS,
            clients,
            tokens: (low, low + more),
            streamed,
            leave_permille,
            leave_ns: 500 * MS,
            until_ns: 4_000 * MS,
            end_ns: 60_000 * MS,
            seed,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn with_an_allowance_of_one_at_most_one_request_waits_in_the_engine(setup in setups()) {
        let config = config(PushRule::Pending, AllowanceRule::One);
        let sim = Sim::new(&setup, &config).run(|sim| sim.replica.check_invariants().unwrap());
        prop_assert!(sim.outcome.waiting_max <= 1, "{:?}", sim.outcome);
        prop_assert!(sim.outcome.completed > 0 || setup.leave_permille > 0);
    }

    #[test]
    fn no_waiting_request_is_missed(setup in setups(), knee in any::<bool>()) {
        let rule = if knee { AllowanceRule::Knee } else { AllowanceRule::One };
        let config = config(PushRule::Pending, rule);
        // A request whose client has left holds its slot until the engine's next step, and one
        // that is not in the gauges yet may be taken for it; the slot it frees makes up for that.
        let setup = Setup { leave_permille: 0, ..setup };
        let _ = Sim::new(&setup, &config).run(|sim| {
            let (pending, truth) = (sim.replica.pending() as usize, sim.true_waiting());
            assert!(pending >= truth, "{pending} believed, {truth} wait: {:?}", sim.replica);
        });
    }

    #[test]
    fn counters_return_to_zero_when_all_is_quiet(setup in setups(), knee in any::<bool>()) {
        let rule = if knee { AllowanceRule::Knee } else { AllowanceRule::One };
        let config = config(PushRule::Pending, rule);
        let sim = Sim::new(&setup, &config).run(|sim| sim.replica.check_invariants().unwrap());
        let r = &sim.replica;
        prop_assert_eq!((r.in_flight(), r.pending(), r.foreign()), (0, 0, 0));
        prop_assert_eq!((r.running(), r.waiting()), (Some(0), Some(0)));
    }

    #[test]
    fn short_requests_are_served_nearly_as_fast_as_by_blind_pushing(
        (slots, step, wire, probe) in (12_usize..24, 3_u64..40, 0_u64..3, 0_u64..10),
        (crowd, kind, seed) in (2_usize..5, 0_usize..3, any::<u64>()),
    ) {
        let (tokens, streamed) = [(1, false), (20, false), (20, true)][kind];
        let setup = Setup {
            slots,
            step_ns: step * MS,
            prefill_ns: MS / 10,
            wire_ns: wire * MS,
            probe_ns: probe * MS,
            clients: slots * crowd,
            tokens: (tokens, tokens),
            streamed,
            until_ns: 8_000 * MS + 1_000 * step * MS,
            end_ns: 8_000 * MS + 1_000 * step * MS,
            seed,
            ..Setup::chat()
        };
        let knee = config(PushRule::Pending, AllowanceRule::Knee);
        let blind = config(PushRule::Blind, AllowanceRule::One);
        let ours = Sim::new(&setup, &knee).run(|_| ()).outcome.completed_late;
        let best = Sim::new(&setup, &blind).run(|_| ()).outcome.completed_late;
        prop_assert!(ours * 100 >= best * 95, "{ours} of {best}");
    }
}
