//! Each policy against what its source says.

mod rivals;

use super::*;
use crate::engine::config::CacheAwareFallback;
use crate::engine::ring::WEIGHT_ONE;
use crate::id::ReplicaId;

/// Candidates, everything a view borrows, and the context's parts.
struct Case {
    candidates: Vec<Candidate>,
    positions: Vec<u32>,
    ring: Ring,
    slots: Slots,
    config: Config,
    rng: Rng,
    last: Option<ReplicaSlot>,
    home: Option<ReplicaSlot>,
    blocks: Vec<u64>,
}

/// Replicas with the given loads and matches; a replica's id is its slot plus 100.
fn case(policy: Policy, replicas: &[(u32, u32)]) -> Case {
    let mut case = Case {
        candidates: Vec::new(),
        positions: vec![NOT_A_CANDIDATE; replicas.len()],
        ring: Ring::new(64),
        slots: Slots::default(),
        config: Config {
            policy,
            ..Config::sample()
        },
        rng: Rng::new(3),
        last: None,
        home: None,
        blocks: vec![11, 12, 13],
    };
    for (number, &(in_flight, match_blocks)) in (0..).zip(replicas) {
        let (id, slot) = (ReplicaId(number + 100), ReplicaSlot::from(number));
        case.ring.add(id, WEIGHT_ONE);
        case.slots.insert(id, slot);
        case.positions[slot.index()] = number;
        case.candidates.push(Candidate {
            slot,
            room: true,
            in_flight,
            match_blocks,
            ..Candidate::default()
        });
    }
    case
}

impl Case {
    /// Takes the replica out of the candidates.
    fn without(&mut self, slot: usize) {
        self.candidates
            .retain(|candidate| candidate.slot.index() != slot);
        self.positions.fill(NOT_A_CANDIDATE);
        for (position, candidate) in (0..).zip(&self.candidates) {
            self.positions[candidate.slot.index()] = position;
        }
    }

    /// The slot of the choice, and what it rests on.
    fn choose(&mut self, prompt_blocks: u32, key: Option<u64>) -> (usize, Basis) {
        let view = View {
            candidates: &self.candidates,
            positions: &self.positions,
            prompt_blocks,
            blocks: &self.blocks,
            key,
            home: self.home,
            ring: &self.ring,
            slots: &self.slots,
        };
        let mut context = Context {
            config: &self.config,
            rng: &mut self.rng,
            last: &mut self.last,
        };
        let choice = choose(&view, &mut context);
        let slot = self.candidates[choice.position].slot;
        self.last = Some(slot);
        (slot.index(), choice.basis)
    }

    fn chosen(&mut self, times: usize) -> Vec<usize> {
        (0..times).map(|_| self.choose(10, None).0).collect()
    }
}

#[test]
fn least_load_takes_the_fewest_in_flight_and_draws_between_equals() {
    let mut case = case(Policy::LeastLoad, &[(2, 0), (1, 9), (5, 0), (1, 0)]);
    let mut chosen = case.chosen(64);
    chosen.sort_unstable();
    chosen.dedup();
    assert_eq!(chosen, [1, 3]);
}

#[test]
fn a_floor_changes_no_choice() {
    let mut drawn = Rng::new(7);
    for _ in 0..200 {
        let loads: Vec<_> = (0..20)
            .map(|_| (u32::try_from(drawn.below(4)).unwrap(), 0))
            .collect();
        let mut case = case(Policy::Predictive, &loads);
        for candidate in &mut case.candidates {
            candidate.pending = u32::try_from(drawn.below(3)).unwrap();
        }
        let view = View {
            candidates: &case.candidates,
            positions: &case.positions,
            prompt_blocks: 10,
            blocks: &case.blocks,
            key: None,
            home: None,
            ring: &case.ring,
            slots: &case.slots,
        };
        let measure = |candidate: &Candidate| candidate.in_flight + candidate.pending;
        let chosen = |floor: bool| {
            let (rng, last) = (&mut Rng::new(3), &mut None);
            let config = &case.config;
            let mut context = Context { config, rng, last };
            if floor {
                smallest_above(&view, &mut context, |one| one.in_flight, measure)
            } else {
                smallest(&view, &mut context, measure)
            }
        };
        assert_eq!(chosen(true), chosen(false));
    }
}

#[test]
fn draws_between_equals_are_even() {
    let mut case = case(Policy::LeastLoad, &[(0, 0); 4]);
    let mut shares = [0; 4];
    for slot in case.chosen(4_000) {
        shares[slot] += 1;
    }
    assert!(
        shares.iter().all(|share| (850..1_150).contains(share)),
        "{shares:?}"
    );
}

#[test]
fn prefix_takes_the_longest_match_above_the_threshold_whatever_its_load() {
    let mut case = case(Policy::Prefix, &[(0, 4), (90, 6), (50, 5)]);
    assert_eq!(case.choose(10, None), (1, Basis::Match));
}

#[test]
fn prefix_takes_the_less_loaded_of_equal_matches() {
    let mut case = case(Policy::Prefix, &[(7, 8), (3, 8), (0, 7)]);
    assert_eq!(case.choose(10, None), (1, Basis::Match));
}

#[test]
fn prefix_explores_unless_more_than_the_threshold_matches() {
    let mut case = case(Policy::Prefix, &[(9, 5), (1, 0)]);
    assert_eq!(case.choose(10, None), (1, Basis::Load));
    assert_eq!(case.choose(9, None), (0, Basis::Match));
    case.config.match_threshold = 0.0;
    assert_eq!(case.choose(1_000, None), (0, Basis::Match));
    case.candidates[0].match_blocks = 0;
    assert_eq!(case.choose(0, None), (1, Basis::Load));
}

#[test]
fn round_robin_gives_each_its_turn_also_when_replicas_come_and_go() {
    let mut case = case(Policy::RoundRobin, &[(9, 9), (0, 0), (5, 5)]);
    assert_eq!(case.chosen(4), [0, 1, 2, 0]);
    case.without(1);
    assert_eq!(case.chosen(3), [2, 0, 2]);
}

#[test]
fn two_choices_never_takes_the_most_loaded_and_reaches_all_others() {
    let mut case = case(Policy::TwoChoices, &[(1, 0), (2, 0), (9, 0), (3, 0)]);
    let mut chosen = case.chosen(500);
    chosen.sort_unstable();
    chosen.dedup();
    assert_eq!(chosen, [0, 1, 3]);
}

#[test]
fn ring_keeps_a_key_at_its_replica_and_walks_past_those_without_room() {
    let mut case = case(Policy::Ring, &[(0, 0); 5]);
    for key in 0..200 {
        let (owner, basis) = case.choose(10, Some(key));
        assert_eq!(basis, Basis::Key);
        case.candidates[owner].in_flight += 1;
        assert_eq!(
            case.choose(10, Some(key)).0,
            owner,
            "load does not move a key"
        );
    }
    let before: Vec<_> = (0..200).map(|key| case.choose(10, Some(key)).0).collect();
    case.without(2);
    for (key, was) in (0..200).zip(before) {
        let (is, _) = case.choose(10, Some(key));
        assert!(
            is == was || (was == 2 && is != 2),
            "only the keys of the full replica move"
        );
    }
}

#[test]
fn ring_without_a_key_takes_the_least_loaded() {
    for policy in [Policy::Ring, Policy::BoundedRing] {
        let mut case = case(policy, &[(2, 0), (1, 0), (3, 0)]);
        assert_eq!(case.choose(10, None), (1, Basis::Load));
    }
}

#[test]
fn bounded_ring_never_passes_its_factor_over_the_mean() {
    let mut case = case(Policy::BoundedRing, &[(0, 0); 4]);
    case.config.ring_load_factor = 1.25;
    for total in 0..400_u32 {
        let (slot, _) = case.choose(10, Some(7));
        case.candidates[slot].in_flight += 1;
        let bound = (1.25 * f64::from(total + 1) / 4.0).ceil();
        assert!(f64::from(case.candidates[slot].in_flight) <= bound);
    }
    let (owner, _) = (0..4)
        .map(|slot| (slot, case.candidates[slot].in_flight))
        .max_by_key(|x| x.1)
        .unwrap();
    assert!(
        case.candidates[owner].in_flight > 100,
        "the key's owner has more than the mean"
    );
}

#[test]
fn cache_aware_binds_above_its_threshold_while_loads_are_in_balance() {
    let mut case = case(Policy::CacheAware, &[(60, 4), (0, 3), (1, 0)]);
    assert_eq!(case.choose(10, None), (0, Basis::Match));
}

#[test]
fn cache_aware_spills_when_loads_are_apart_by_difference_and_ratio() {
    let mut case = case(Policy::CacheAware, &[(65, 10), (0, 0), (1, 0)]);
    assert_eq!(case.choose(10, None), (1, Basis::Load));
    for candidate in &mut case.candidates {
        candidate.in_flight += 1_000;
    }
    assert_eq!(
        case.choose(10, None),
        (0, Basis::Match),
        "65 more of 1,000 is no imbalance"
    );
}

#[test]
fn where_too_little_matches_the_fallback_decides() {
    for policy in [Policy::CacheAware, Policy::Smg] {
        let mut case = case(policy, &[(3, 1), (2, 0), (5, 0)]);
        case.candidates[2].tree_blocks = 1;
        case.candidates[0].tree_blocks = 4;
        case.candidates[1].tree_blocks = 9;
        for candidate in &mut case.candidates {
            candidate.kv_tokens = 100;
        }
        assert_eq!(case.choose(10, None), (1, Basis::Load), "least load");
        case.config.cache_aware_fallback = CacheAwareFallback::SmallestTree;
        assert_eq!(case.choose(10, None), (2, Basis::Load), "smallest tree");
        assert_eq!(case.choose(2, None).0, 0, "enough matches");
    }
}

#[test]
fn dualmap_keeps_a_prefix_on_two_replicas_the_warmer_one_first() {
    let mut case = case(Policy::Dualmap, &[(0, 0); 8]);
    let homes: std::collections::BTreeSet<_> = (0..64)
        .map(|load| {
            // Equal matches: the loads decide between the two.
            case.candidates[load % 8].in_flight += 1;
            case.choose(3, None).0
        })
        .collect();
    assert_eq!(homes.len(), 2, "{homes:?}");
    let warm = *homes.iter().next().unwrap();
    let other = *homes.iter().next_back().unwrap();
    case.candidates[warm].match_blocks = 2;
    case.candidates[warm].in_flight = 100;
    assert_eq!(case.choose(3, None), (warm, Basis::Match));
    case.candidates[warm].start_in_ns = case.config.dualmap_slo_ns + Span::from_ns(1);
    assert_eq!(case.choose(3, None), (other, Basis::Time));
    case.blocks.clear();
    assert_eq!(case.choose(0, None).1, Basis::Load, "without a prompt");
}

#[test]
fn a_wait_is_for_what_is_cached_or_faster_and_not_for_a_shorter_queue() {
    let at = |uncached_tokens, ns_per_token, match_blocks| Candidate {
        match_blocks,
        uncached_tokens,
        ns_per_token,
        ..Candidate::default()
    };
    let better = |one: Candidate, other| one.suits_better(&other, 100);
    assert!(better(at(10, 5, 9), at(100, 5, 0)), "cached");
    assert!(better(at(100, 10, 0), at(100, 50, 0)), "of a faster kind");
    assert!(!better(at(100, 10, 0), at(100, 15, 0)), "only less loaded");
    assert!(!better(at(100, 5, 0), at(100, 5, 0)), "equal");
    assert!(!better(at(95, 5, 1), at(100, 5, 0)), "hardly cached");
    assert!(better(at(0, 0, 20), at(0, 0, 1)), "by blocks");
    assert!(!better(at(0, 0, 2), at(0, 0, 1)), "hardly, by blocks");
}
