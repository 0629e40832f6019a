//! The whole estimate in front of a simulated engine, and against the rule written down plainly.

use proptest::prelude::*;

use super::sim::{MS, Setup, Sim};
use super::{config, need, page};
use crate::engine::config::{AllowanceRule, PushRule};
use crate::engine::fleet::replica::{Observed, Replica};
use crate::id::RequestId;
use crate::time::Instant;

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
            until_ns: Instant::from_ns(4_000 * 1_000_000),
            end_ns: Instant::from_ns(60_000 * 1_000_000),
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
    fn an_engine_of_few_slots_never_has_more_than_one_waiting_from_a_chat(
        setup in setups(),
        slots in 1_usize..5,
    ) {
        let setup = Setup {
            slots,
            clients: 20,
            tokens: (100, 300),
            step_ns: setup.step_ns.max(10 * MS),
            leave_permille: 0,
            until_ns: Instant::from_ns(20_000 * 1_000_000),
            ..setup
        };
        let config = config(PushRule::Pending, AllowanceRule::Knee);
        let sim = Sim::new(&setup, &config).run(|_| ());
        prop_assert!(sim.outcome.waiting_max <= 1, "{:?}", sim.outcome);
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
            until_ns: Instant::from_ns(8_000 * 1_000_000) + 1_000 * step * MS,
            end_ns: Instant::from_ns(8_000 * 1_000_000) + 1_000 * step * MS,
            seed,
            ..Setup::chat()
        };
        let knee = config(PushRule::Pending, AllowanceRule::Knee);
        let blind = config(PushRule::Blind, AllowanceRule::One);
        let ours = Sim::new(&setup, &knee).run(|_| ()).outcome.completed_late;
        let best = Sim::new(&setup, &blind).run(|_| ()).outcome.completed_late;
        prop_assert!(ours * 100 >= best * 95, "{ours} of {best}");
    }

    #[test]
    fn the_estimate_is_the_rule(
        script in prop::collection::vec((0_u8..3, 0_usize..12), 0..60),
        (sent, gauges) in (0_usize..60, (0_usize..12, 0_usize..6)),
    ) {
        let mut plain = Plain::default();
        let mut replica = Replica::new();
        let config = config(PushRule::Pending, AllowanceRule::One);
        let sent_ns = Instant::from_ns(sent as u64 * 10);
        for (step, (kind, pick)) in script.iter().enumerate() {
            let now = Instant::from_ns(step as u64 * 10 + 5);
            match kind {
                0 => {
                    let id = plain.push(now);
                    prop_assert!(replica.push(id, need(1), &config, now));
                }
                1 => {
                    if let Some(id) = plain.first_byte(*pick, now) {
                        replica.first_byte(id, now);
                    }
                }
                _ => {
                    if let Some(id) = plain.complete(*pick) {
                        prop_assert!(replica.complete(id));
                    }
                }
            }
            prop_assert_eq!(replica.check_invariants(), Ok(()));
        }
        let now = 1_000;
        let (running, waiting) = gauges;
        let count = |n: usize| u32::try_from(n).unwrap();
        let answer = page(count(running), count(waiting));
        prop_assert_eq!(replica.observe(answer, sent_ns, Instant::from_ns(now)), Observed::Used);
        prop_assert_eq!(replica.check_invariants(), Ok(()));
        let (pending, foreign) = plain.rule(running, waiting, sent_ns);
        prop_assert_eq!(replica.foreign(), count(foreign));
        prop_assert_eq!(replica.pending(), count(pending));
    }

    #[test]
    fn nothing_leaks_whatever_happens_in_whatever_order(
        script in prop::collection::vec((0_u8..6, 0_usize..12, 0_u32..8, 0_u32..4), 0..200),
    ) {
        let mut plain = Plain::default();
        let mut replica = Replica::new();
        let config = config(PushRule::Pending, AllowanceRule::Knee);
        let mut probes: Vec<Instant> = Vec::new();
        for (step, (kind, pick, running, waiting)) in script.iter().enumerate() {
            let now = Instant::ZERO + (step as u64 + 1) * 40 * MS;
            match kind {
                0 | 1 => {
                    let id = plain.push(now);
                    prop_assert!(replica.push(id, need(50), &config, now));
                }
                2 => {
                    if let Some(id) = plain.first_byte(*pick, now) {
                        replica.first_byte(id, now);
                    }
                }
                3 => {
                    if let Some(id) = plain.complete(*pick) {
                        prop_assert!(replica.complete(id));
                    }
                }
                4 => {
                    replica.probe_sent(now);
                    probes.push(now);
                }
                _ if probes.is_empty() => {}
                _ => {
                    // Answers come in any order, and counters may go back.
                    let sent_ns = probes.swap_remove(*pick % probes.len());
                    let mut answer = page(*running, *waiting);
                    answer.cache_queries = Some(u64::from(*running));
                    let _ = replica.observe(answer, sent_ns, now);
                }
            }
            prop_assert_eq!(replica.check_invariants(), Ok(()));
            prop_assert_eq!(replica.in_flight() as usize, plain.requests.len());
            prop_assert!(replica.allowance(&config) >= 1);
        }
        while let Some(id) = plain.complete(0) {
            prop_assert!(replica.complete(id));
        }
        let end_ns = 100_000 * MS;
        replica.observe(page(0, 0), Instant::ZERO + end_ns, Instant::ZERO + end_ns);
        prop_assert_eq!((replica.in_flight(), replica.pending(), replica.foreign()), (0, 0, 0));
        prop_assert_eq!((replica.running(), replica.waiting()), (Some(0), Some(0)));
    }
}

/// A request: id, push, first byte.
type Sent = (RequestId, Instant, Option<Instant>);

/// The rule of the module's documentation, computed from a list of what happened.
#[derive(Default)]
struct Plain {
    next: u64,
    /// In push order.
    requests: Vec<Sent>,
}

impl Plain {
    fn push(&mut self, now: Instant) -> RequestId {
        self.next += 1;
        self.requests.push((RequestId(self.next), now, None));
        RequestId(self.next)
    }

    fn first_byte(&mut self, pick: usize, now: Instant) -> Option<RequestId> {
        let len = self.requests.len();
        let request = self.requests.get_mut(pick % len.max(1))?;
        request.2.get_or_insert(now);
        Some(request.0)
    }

    fn complete(&mut self, pick: usize) -> Option<RequestId> {
        let len = self.requests.len();
        (len > 0).then(|| self.requests.remove(pick % len).0)
    }

    /// Pending and foreign after a first snapshot, all requests being young.
    fn rule(&self, running: usize, waiting: usize, sent_ns: Instant) -> (usize, usize) {
        let streamed = |request: &Sent| request.2.is_some_and(|at| at < sent_ns);
        let own = self.requests.iter().filter(|request| request.1 < sent_ns);
        let (streaming, quiet): (Vec<&Sent>, Vec<&Sent>) =
            own.partition(|request| streamed(request));
        let (streaming, quiet) = (streaming.len(), quiet.len());
        let total = running + waiting;
        let foreign = total.saturating_sub(streaming + quiet);
        let seen = quiet.min(total.saturating_sub(streaming));
        let preempted = streaming.saturating_sub(running);
        let theirs = if foreign > 0 { waiting } else { preempted };
        let ours = seen.min(waiting.saturating_sub(theirs));
        // The quiet ones in push order: first those in the batch, then ours that wait, then unseen
        // ones; after them come the fresh. What has its first byte by now, or is older than one that
        // has, is no debit.
        let youngest = self
            .requests
            .iter()
            .rposition(|request| request.2.is_some());
        let (mut rank, mut debits, mut admitted) = (0, 0, 0);
        for (index, request) in self.requests.iter().enumerate() {
            let fresh = request.1 >= sent_ns;
            let settled = youngest.is_some_and(|youngest| index <= youngest);
            if fresh || (!streamed(request) && rank >= seen) {
                debits += usize::from(!settled);
            }
            if !fresh && !streamed(request) {
                let waits = rank < seen && rank >= seen - ours;
                admitted += usize::from(waits && request.2.is_some());
                rank += 1;
            }
        }
        (waiting - admitted + debits, foreign)
    }
}
