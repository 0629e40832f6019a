//! The policies that weigh several signals, against their rules written out in wide numbers.

use proptest::prelude::*;

use super::*;

const SCORED: [Policy; 8] = [
    Policy::Predictive,
    Policy::Dualmap,
    Policy::Dynamo,
    Policy::LlmD,
    Policy::Smg,
    Policy::Preble,
    Policy::Gorgo,
    Policy::Lmetric,
];

/// Numbers of the size that fleets show.
fn plain() -> impl Strategy<Value = Candidate> {
    (
        (
            any::<bool>(),
            0..200_u32,
            0..20_u32,
            0..60_u32,
            0..100_000_u32,
        ),
        (
            0..5_000_000_000_u64,
            0..4_000_u32,
            0..2_000_000_u32,
            0..64_u32,
        ),
        (
            0..50_000_u64,
            0..400_000_u64,
            0..500_000_u64,
            1..500_000_u64,
        ),
        (0..4_000_u32, 0..400_000_000_000_u64),
    )
        .prop_map(|(a, b, c, d)| Candidate {
            slot: ReplicaSlot::default(),
            room: a.0,
            in_flight: a.1,
            pending: a.2,
            match_blocks: a.3,
            tree_blocks: a.4,
            start_in_ns: Span::from_ns(b.0),
            uncached_tokens: b.1,
            ns_per_token: b.2,
            running: b.3,
            prefill_tokens: c.0,
            active_tokens: c.1,
            kv_used_tokens: c.2,
            kv_tokens: c.3,
            evict_tokens: d.0,
            recent_ns: Span::from_ns(d.1),
        })
}

/// Any numbers at all.
fn absurd() -> impl Strategy<Value = Candidate> {
    let wide = || prop_oneof![Just(0), Just(u64::MAX), any::<u64>()];
    let narrow = || prop_oneof![Just(0), Just(u32::MAX), any::<u32>()];
    (
        prop::array::uniform8(wide()),
        prop::array::uniform8(narrow()),
        any::<bool>(),
    )
        .prop_map(|(w, n, room)| Candidate {
            slot: ReplicaSlot::default(),
            room,
            in_flight: n[0],
            pending: n[1],
            match_blocks: n[2],
            tree_blocks: n[7],
            start_in_ns: Span::from_ns(w[1]),
            uncached_tokens: n[3],
            ns_per_token: n[4],
            running: n[5],
            prefill_tokens: w[2],
            active_tokens: w[3],
            kv_used_tokens: w[4],
            kv_tokens: w[5],
            evict_tokens: n[6],
            recent_ns: Span::from_ns(w[6]),
        })
}

fn with(policy: Policy, candidates: &[Candidate]) -> Case {
    let loads = vec![(0, 0); candidates.len()];
    let mut case = case(policy, &loads);
    case.config.explore_ratio = 0.0;
    for ((slot, place), candidate) in (0..).zip(&mut case.candidates).zip(candidates) {
        *place = Candidate {
            slot: ReplicaSlot::new(slot),
            ..*candidate
        };
    }
    case
}

/// The slot that the policy takes has the smallest of these costs.
fn takes_smallest(case: &mut Case, blocks: u32, cost: impl Fn(&Candidate) -> f64) {
    let (slot, _) = case.choose(blocks, None);
    let least = case
        .candidates
        .iter()
        .map(&cost)
        .fold(f64::INFINITY, f64::min);
    let taken = cost(&case.candidates[slot]);
    assert!(
        taken <= least * (1.0 + 1e-6) + 1e-5,
        "{taken} is not {least}"
    );
}

fn wide(number: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an oracle within a millionth")]
    {
        number as f64
    }
}

/// Time to the first token, and what others lose, by the sample's weights.
fn predicted(c: &Candidate) -> f64 {
    let token_ns = f64::from(c.ns_per_token);
    let compute = f64::from(c.uncached_tokens) * token_ns;
    let again = f64::from(c.evict_tokens) * token_ns;
    let delays = 0.1 * compute * f64::from(c.running) + compute * f64::from(c.pending);
    c.start_in_ns.ns_f64() + compute + delays + 0.1 * again
}

proptest! {
    #[test]
    fn no_figures_make_a_policy_overflow_or_leave_the_candidates(
        candidates in prop::collection::vec(absurd(), 1..12),
        blocks in prop_oneof![Just(0), Just(u32::MAX), any::<u32>()],
        home in prop::option::of(0..20_u32),
    ) {
        for policy in SCORED {
            let mut case = with(policy, &candidates);
            case.home = home.map(ReplicaSlot::from);
            for explore_ratio in [0.0, 0.5, 1.0] {
                case.config.explore_ratio = explore_ratio;
                let (slot, _) = case.choose(blocks, Some(7));
                prop_assert!(slot < candidates.len());
            }
        }
    }

    #[test]
    fn predictive_takes_the_least_cost_with_room_or_without(
        candidates in prop::collection::vec(plain(), 1..12),
    ) {
        let mut case = with(Policy::Predictive, &candidates);
        takes_smallest(&mut case, 60, predicted);
    }

    #[test]
    fn a_session_moves_only_for_more_than_both_thresholds(
        candidates in prop::collection::vec(plain(), 2..12), home in 0..2_usize,
    ) {
        let mut case = with(Policy::Predictive, &candidates);
        case.home = Some(ReplicaSlot::new(home));
        let (slot, _) = case.choose(60, Some(7));
        let at_home = predicted(&case.candidates[home]);
        let best = case.candidates.iter().map(predicted).fold(f64::INFINITY, f64::min);
        let gain = at_home - best;
        let needed = (at_home * 0.15).max(20e6);
        if (gain - needed).abs() > 10.0 {
            prop_assert_eq!(slot == home, gain <= needed);
        }
    }

    #[test]
    fn dynamo_takes_the_fewest_tokens_to_compute_and_to_hold(
        candidates in prop::collection::vec(plain(), 1..12), weight in 0.0..4.0,
    ) {
        let mut case = with(Policy::Dynamo, &candidates);
        case.config.dynamo_prefill_weight = weight;
        takes_smallest(&mut case, 60, |c| {
            let own = f64::from(c.uncached_tokens);
            (weight * (wide(c.prefill_tokens) + own) + wide(c.active_tokens) + own).mul_add(1.0, 2e-3)
        });
    }

    #[test]
    fn llm_d_takes_the_highest_weighted_score(
        candidates in prop::collection::vec(plain(), 1..12), blocks in 60..100_u32,
    ) {
        let mut case = with(Policy::LlmD, &candidates);
        let most = candidates.iter().map(|c| c.pending).max().unwrap();
        let least = candidates.iter().map(|c| c.pending).min().unwrap();
        takes_smallest(&mut case, blocks, |c| {
            let queue = if most == least {
                1.0
            } else {
                f64::from(most - c.pending) / f64::from(most - least)
            };
            let prefix = f64::from(c.match_blocks) / f64::from(blocks);
            let kv = (1.0 - wide(c.kv_used_tokens) / wide(c.kv_tokens)).max(0.0);
            8.0 - 3.0 * prefix - 2.0 * queue - 2.0 * kv
        });
    }

    #[test]
    fn gorgo_takes_the_fewest_prompt_tokens_queued_and_uncached(
        candidates in prop::collection::vec(plain(), 1..12),
    ) {
        let mut case = with(Policy::Gorgo, &candidates);
        takes_smallest(&mut case, 60, |c| {
            wide(c.prefill_tokens) + f64::from(c.uncached_tokens)
        });
    }

    #[test]
    fn lmetric_takes_the_least_product_of_tokens_to_compute_and_batch_size(
        candidates in prop::collection::vec(plain(), 1..12),
    ) {
        let mut case = with(Policy::Lmetric, &candidates);
        takes_smallest(&mut case, 60, |c| {
            let tokens = wide(c.prefill_tokens) + f64::from(c.uncached_tokens);
            tokens.max(1.0) * (f64::from(c.running) + f64::from(c.pending) + 1.0)
        });
    }

    #[test]
    fn smg_is_cache_aware_over_those_that_are_not_overloaded(
        candidates in prop::collection::vec(plain(), 1..12),
    ) {
        let mut smg = with(Policy::Smg, &candidates);
        let spared: Vec<_> = smg.candidates.iter().copied()
            .filter(|c| c.pending < 8 && wide(c.kv_used_tokens) < 0.8 * wide(c.kv_tokens))
            .collect();
        let left = if spared.is_empty() { smg.candidates.clone() } else { spared };
        let mut aware = with(Policy::CacheAware, &left);
        let figures = |c: &Candidate| (c.in_flight, c.match_blocks, c.tree_blocks);
        let (taken, basis) = smg.choose(60, None);
        prop_assert!(left.iter().any(|c| c.slot.index() == taken));
        let (expected, expected_basis) = aware.choose(60, None);
        prop_assert_eq!(basis, expected_basis);
        // Among equals either may be drawn: what the rule compares is equal then.
        let (a, b) = (figures(&smg.candidates[taken]), figures(&aware.candidates[expected]));
        prop_assert!(a.0 == b.0 || a.1 == b.1 || a.2 == b.2, "{a:?} {b:?}");
    }

    #[test]
    fn preble_exploits_where_more_is_cached_than_not_unless_that_is_overloaded(
        candidates in prop::collection::vec(plain(), 1..12), blocks in 1..100_u32,
    ) {
        let mut case = with(Policy::Preble, &candidates);
        let with_prompt = |c: &Candidate| {
            c.recent_ns.ns_f64() + f64::from(c.uncached_tokens) * f64::from(c.ns_per_token)
        };
        let least = candidates.iter().map(with_prompt).fold(f64::INFINITY, f64::min);
        let longest = candidates.iter().map(|c| c.match_blocks).max().unwrap();
        let owners = candidates.iter().filter(|c| c.match_blocks == longest);
        let lightest = owners.map(|c| c.recent_ns).min().unwrap();
        let exploits = longest > blocks.saturating_sub(longest) && lightest.ns_f64() <= 2.0 * least;
        let before = case.candidates.clone();
        let (slot, basis) = case.choose(blocks, None);
        prop_assert_eq!(basis == Basis::Match, exploits);
        if exploits {
            prop_assert_eq!(before[slot].match_blocks, longest);
            prop_assert_eq!(before[slot].recent_ns, lightest);
        } else {
            takes_smallest(&mut case, blocks, |c| {
                with_prompt(c) + f64::from(c.evict_tokens) * f64::from(c.ns_per_token)
            });
        }
    }
}

#[test]
fn one_choice_in_a_hundred_is_drawn_among_those_with_room_that_cost_little_more() {
    let mut case = with(
        Policy::Predictive,
        &[Candidate {
            room: true,
            ..Candidate::default()
        }; 5],
    );
    case.candidates[0].start_in_ns = Span::from_ns(15_000_000);
    case.candidates[1].start_in_ns = Span::from_ns(15_000_000);
    case.candidates[3].room = false;
    case.candidates[4].start_in_ns = Span::from_ns(1_000_000_000);
    case.config.explore_ratio = 0.01;
    let mut explored = [0_u32; 5];
    for _ in 0..20_000 {
        let (slot, basis) = case.choose(10, None);
        if basis == Basis::Explore {
            explored[slot] += 1;
        } else {
            assert!(slot == 2 || slot == 3, "the others are not the nearest");
        }
    }
    assert_eq!(explored[3..], [0, 0]);
    let total: u32 = explored.iter().sum();
    assert!((100..300).contains(&total), "{explored:?}");
    assert!(
        explored[..3].iter().all(|count| *count > 20),
        "{explored:?}"
    );
}
