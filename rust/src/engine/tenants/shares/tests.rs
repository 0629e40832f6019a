//! What each of several balancers may use, whatever becomes of their messages.

mod model;

use proptest::prelude::*;

use self::model::{TENANTS, World, peer, two};
use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Ask(usize, usize, u32),
    Review(usize),
    Tell(usize, usize),
    Deliver(usize, usize),
    /// A message is told and read at once.
    Exchange(usize, usize),
    Connect(usize, usize, bool),
    Pass(u64),
    Die(usize),
    /// One that is gone is found out.
    FindOut(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = || 0_usize..4;
    let demand = prop_oneof![1 => Just(0), 1 => Just(1), 4 => 1..=ONE];
    let step = prop_oneof![
        3 => (who(), 0_usize..2, demand).prop_map(|(at, key, demand)| Step::Ask(at, key, demand)),
        8 => who().prop_map(Step::Review),
        8 => (who(), who()).prop_map(|(from, to)| Step::Tell(from, to)),
        10 => (who(), who()).prop_map(|(from, to)| Step::Deliver(from, to)),
        12 => (who(), who()).prop_map(|(from, to)| Step::Exchange(from, to)),
        2 => (who(), who(), prop::bool::weighted(0.8)).prop_map(|(a, b, on)| Step::Connect(a, b, on)),
        1 => (0_u64..200_000).prop_map(Step::Pass),
        1 => who().prop_map(Step::Die),
        6 => (who(), who()).prop_map(|(at, of)| Step::FindOut(at, of)),
    ];
    prop::collection::vec(step, 1..250)
}

fn run(world: &mut World, step: Step) {
    let len = world.len();
    match step {
        Step::Ask(at, key, demand) => world.ask(at % len, TENANTS[key], demand),
        Step::Review(at) if world.up[at % len] => world.review(at % len),
        Step::Tell(from, to) => world.tell(from % len, to % len),
        Step::Deliver(from, to) => world.deliver(from % len, to % len),
        Step::Exchange(from, to) => {
            world.tell(from % len, to % len);
            while !world.letters[from % len][to % len].is_empty() {
                world.deliver(from % len, to % len);
            }
        }
        Step::Connect(one, other, on) => world.connect(one % len, other % len, on),
        Step::Pass(ms) => world.now += Span::from_ms(ms),
        // Somebody stays.
        Step::Die(gone) if world.up.iter().filter(|up| **up).count() > 1 => world.die(gone % len),
        Step::FindOut(at, of) if !world.up[of % len] => world.dead[at % len][of % len] = true,
        Step::Review(_) | Step::Die(_) | Step::FindOut(..) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn parts_sum_to_the_whole_at_most_whatever_becomes_of_messages_connections_and_balancers(
        balancers in 2_usize..=4,
        steps in steps(),
    ) {
        let mut world = World::new(balancers);
        for one in 0..balancers {
            for other in 0..one {
                world.connect(one, other, true);
            }
        }
        world.talk(2, |_, _| true);
        for step in steps {
            run(&mut world, step);
            for key in TENANTS {
                prop_assert!(world.used(key) <= u64::from(ONE), "{step:?}: {}", world.used(key));
            }
        }
        // All who are left find each other, and what is asked for is theirs.
        for one in 0..balancers {
            for other in 0..balancers {
                world.connect(one, other, true);
                world.dead[one][other] = !world.up[other];
            }
        }
        let up: Vec<usize> = (0..balancers).filter(|at| world.up[*at]).collect();
        if 2 * up.len() < balancers {
            return Ok(()); // each keeps what it has
        }
        let pairs = world.up.clone();
        world.talk(30, |from, to| pairs[from] && pairs[to]);
        for key in TENANTS {
            let demand = |at: usize| u64::from(world.asked[at].get(&key).copied().unwrap_or(0));
            let all: u64 = up.iter().map(|at| demand(*at)).sum();
            for at in &up {
                let part = u64::from(world.shares[*at].of(key));
                let fair = (demand(*at) * u64::from(ONE - ONE / FLOOR)).checked_div(all);
                let needed = fair.map(|fair| fair.min(2 * demand(*at)));
                prop_assert!(needed.is_none_or(|needed| part + u64::from(ONE / 32) >= needed), "{at}: {part} < {needed:?}");
            }
            prop_assert!(world.used(key) <= u64::from(ONE));
        }
    }

    #[test]
    fn two_that_find_room_at_the_same_time_do_not_both_take_it(
        steps in prop::collection::vec((0_usize..12, 0_usize..2, 1..=ONE), 1..40),
    ) {
        let mut world = World::new(3);
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            world.connect(one, other, true);
        }
        for at in 0..3 {
            world.ask(at, TENANTS[0], ONE / 2);
        }
        world.talk(4, |_, _| true);
        world.die(2);
        (world.dead[0][2], world.dead[1][2]) = (true, true);
        for (kind, at, demand) in steps {
            match kind {
                0..3 => world.ask(at, TENANTS[0], demand),
                3..8 => world.review(at),
                8..10 => run(&mut world, Step::Exchange(at, 1 - at)),
                10 => world.tell(at, 1 - at),
                _ => world.deliver(at, 1 - at),
            }
            prop_assert!(world.used(TENANTS[0]) <= u64::from(ONE), "{}", world.used(TENANTS[0]));
        }
    }

    #[test]
    fn balancers_that_lose_each_other_use_twice_the_whole_at_most_and_the_whole_when_they_are_back(
        balancers in 2_usize..=5,
        side in prop::collection::vec(0_usize..3, 5),
        demands in prop::collection::vec(prop_oneof![Just(1_u32), Just(ONE / 4), Just(ONE)], 10),
        order in prop::collection::vec((0_usize..5, 0_usize..5), 0..20),
    ) {
        let mut world = World::new(balancers);
        for (one, demand) in demands.iter().enumerate().take(balancers) {
            for other in 0..one {
                world.connect(one, other, true);
            }
            world.ask(one, TENANTS[0], *demand);
        }
        world.talk(10, |_, _| true);
        prop_assert!(world.used(TENANTS[0]) <= u64::from(ONE));
        let together = |one: usize, other: usize| side[one] == side[other];
        for one in 0..balancers {
            for other in (0..balancers).filter(|other| !together(one, *other)) {
                world.connect(one, other, false);
            }
        }
        // They find out one after another.
        for (one, other) in order.into_iter().map(|(a, b)| (a % balancers, b % balancers)) {
            world.dead[one][other] |= !together(one, other);
            world.review(one);
            prop_assert!(world.used(TENANTS[0]) <= 2 * u64::from(ONE));
        }
        for one in 0..balancers {
            for other in 0..balancers {
                world.dead[one][other] |= !together(one, other);
            }
            world.ask(one, TENANTS[0], demands[5 + one]);
        }
        for _ in 0..10 {
            world.talk(1, together);
            prop_assert!(world.used(TENANTS[0]) <= 2 * u64::from(ONE));
        }
        for one in 0..balancers {
            for other in 0..one {
                world.connect(one, other, true);
            }
        }
        world.talk(10, |_, _| true);
        prop_assert!(world.used(TENANTS[0]) <= u64::from(ONE));
    }
}

#[test]
fn a_tenant_that_asks_at_one_balancer_has_nearly_all_of_its_limits_there_after_three_messages() {
    let mut world = two();
    assert_eq!(world.shares[0].of(TENANTS[0]), ONE / 2);
    world.ask(0, TENANTS[0], ONE / 2);
    world.review(0);
    world.talk(3, |_, _| true);
    assert_eq!(world.shares[0].of(TENANTS[0]), ONE - ONE / FLOOR / 2);
    assert_eq!(world.shares[1].of(TENANTS[0]), ONE / FLOOR / 2);
    // Of what nobody asks for each has as much.
    assert_eq!(world.shares[1].of(TENANTS[1]), ONE / 2);
}

#[test]
fn parts_follow_what_is_asked_for() {
    let mut world = two();
    world.ask(0, TENANTS[0], ONE);
    world.ask(1, TENANTS[0], ONE / 3);
    world.talk(6, |_, _| true);
    let (large, small) = (
        world.shares[0].of(TENANTS[0]),
        world.shares[1].of(TENANTS[0]),
    );
    assert!(large > 2 * small && small > ONE / 5, "{large} {small}");
    world.ask(0, TENANTS[0], 0);
    world.talk(6, |_, _| true);
    assert!(world.shares[1].of(TENANTS[0]) > ONE * 9 / 10);
}

#[test]
fn what_nobody_has_asked_for_in_a_while_is_told_of_no_more_and_is_shared_evenly_again() {
    let mut world = two();
    world.ask(0, TENANTS[0], ONE);
    world.talk(4, |_, _| true);
    world.ask(0, TENANTS[0], 0);
    world.talk(4, |_, _| true);
    assert!(world.shares[0].of(TENANTS[0]) > ONE / 2);
    world.now += KEPT;
    world.talk(4, |_, _| true);
    assert_eq!(world.shares.iter().map(Shares::len).sum::<usize>(), 0);
    assert_eq!(world.shares[0].of(TENANTS[0]), ONE / 2);
}

#[test]
fn an_even_part_is_taken_back_only_when_the_other_has_given_it_up() {
    let mut world = two();
    world.ask(0, TENANTS[0], ONE);
    world.talk(4, |_, _| true);
    world.ask(0, TENANTS[0], 0);
    world.talk(2, |_, _| true);
    // The one without requests comes to it first, and the other answers before it looks itself.
    world.now += KEPT;
    for _ in 0..3 {
        world.review(1);
        world.tell(1, 0);
        world.deliver(1, 0);
        world.tell(0, 1);
        world.deliver(0, 1);
        assert!(
            world.used(TENANTS[0]) <= u64::from(ONE),
            "{}",
            world.used(TENANTS[0])
        );
    }
    world.talk(8, |_, _| true);
    assert_eq!(world.shares[1].of(TENANTS[0]), ONE / 2);
}

#[test]
fn a_tenant_that_is_told_of_again_has_no_more_than_the_even_part_by_then() {
    let mut world = World::new(3);
    // The third is gone, and the others have told each other of a tenant.
    world.die(2);
    (world.dead[0][2], world.dead[1][2]) = (true, true);
    world.connect(0, 1, true);
    world.ask(0, TENANTS[0], 1);
    world.talk(6, |_, _| true);
    world.ask(0, TENANTS[0], 0);
    world.now += KEPT;
    world.review(0);
    // It comes back before the tenant is forgotten: the even part is smaller.
    (world.up[2], world.dead[0][2], world.dead[1][2]) = (true, false, false);
    world.review(0);
    world.review(1);
    world.ask(0, TENANTS[0], 1);
    world.review(0);
    assert!(world.shares[0].of(TENANTS[0]) <= ONE / 3);
}

#[test]
fn a_peer_that_is_not_reached_keeps_its_part_until_it_is_gone() {
    let mut world = two();
    world.ask(0, TENANTS[0], ONE);
    world.connect(0, 1, false);
    world.talk(20, |_, _| false);
    assert_eq!(world.shares[0].of(TENANTS[0]), ONE / 2);
    world.dead[0][1] = true;
    world.talk(1, |_, _| false);
    assert_eq!(world.shares[0].of(TENANTS[0]), ONE);
}

#[test]
fn one_of_three_that_hears_neither_of_the_others_keeps_its_part() {
    let mut world = World::new(3);
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        world.connect(one, other, true);
    }
    for at in 0..3 {
        world.ask(at, TENANTS[0], ONE / 4);
    }
    world.talk(4, |_, _| true);
    let before = world.shares[2].of(TENANTS[0]);
    for of in 0..2 {
        world.connect(2, of, false);
        (world.dead[2][of], world.dead[of][2]) = (true, true);
    }
    world.talk(6, |from, to| from < 2 && to < 2);
    assert_eq!(world.shares[2].of(TENANTS[0]), before);
    let others = world.shares[0].of(TENANTS[0]) + world.shares[1].of(TENANTS[0]);
    assert!(others > ONE - ONE / 32, "{others}");
}

#[test]
fn a_balancer_without_limits_and_one_of_an_earlier_version_leave_theirs_to_the_others() {
    let mut world = two();
    world.shares[1].set_limited(false);
    world.talk(4, |_, _| true);
    assert_eq!(world.shares[0].of(TENANTS[0]), ONE);
    let mut alone = Shares::new();
    alone.set_limited(true);
    let earlier = Sibling {
        peer: peer(1),
        dead: false,
        takes: Some(false),
    };
    alone.set_siblings(std::iter::once(earlier));
    alone.review(&HashMap::default(), |_| true, world.now);
    assert_eq!(alone.of(TENANTS[0]), ONE);
}

#[test]
fn messages_are_a_second_apart_but_where_something_has_changed() {
    let mut world = two();
    let mut sent = Vec::new();
    let start = world.now;
    for ms in 0..2_500 {
        world.now = start + Span::from_ms(ms);
        if ms == 1_300 {
            world.ask(0, TENANTS[0], ONE);
            world.review(0);
        }
        if world.shares[0].due(peer(1), world.now) {
            world.tell(0, 1);
            sent.push(ms);
        }
    }
    assert_eq!(sent, [1_000, 1_300, 2_300]);
}

#[test]
fn where_nobody_has_limits_nothing_is_told() {
    let mut world = World::new(2);
    for at in 0..2 {
        world.shares[at].set_limited(false);
    }
    world.connect(0, 1, true);
    assert!(!world.shares[0].active() && !world.shares[0].due(peer(1), world.now));
}

#[test]
fn more_tenants_than_can_be_told_of_leave_the_even_parts_of_the_others() {
    let mut shares = Shares::new();
    shares.set_limited(true);
    let sibling = Sibling {
        peer: peer(1),
        dead: false,
        takes: Some(true),
    };
    shares.set_siblings(std::iter::once(sibling));
    let asked: HashMap<Key, u32, FixedState> = (0..3_000_u32)
        .map(|key| (u64::from(key), 1 + key))
        .collect();
    let now = Instant::ZERO + Span::from_secs(1);
    for round in 0..4 {
        shares.review(&asked, |_| true, now + Span::from_secs(round));
        let bytes = shares.message(peer(1), now).unwrap();
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(message.entries.len(), ENTRIES_MAX);
        assert!(
            message
                .entries
                .iter()
                .all(|entry| u64::from_be_bytes(entry.tenant) >= 1_976)
        );
    }
    assert_eq!(shares.of(5), ONE / 2);
}
