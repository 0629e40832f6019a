//! What sharers send each other, how much of it, and which peers receive nothing.

use super::*;

#[test]
fn an_isolated_peer_neither_tells_nor_is_told_and_shares_again_when_it_rejoins() {
    let mut region = saturated(&knee(), &[40, 40], 4, 100);
    let shared = |region: &Region, number: usize| {
        let state = region.balancers[number].router.state(region.now).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        let replica = &state["replicas"][0];
        (
            replica["shared"].clone(),
            replica["theirs_in_flight"].clone(),
        )
    };
    for isolated in [true, false] {
        region.call(0, |router, now, out| {
            router.set_isolated(peer(1), isolated, now, out);
        });
        region.run(100);
        for number in 0..2 {
            let (shared, theirs) = shared(&region, number);
            assert_eq!(shared, !isolated);
            assert_eq!(theirs == 0, isolated);
        }
    }
    region.run(2_400);
    assert_eq!(region.held(), 0);
}

#[test]
fn an_idle_region_tells_little() {
    let mut region = Region::new(&knee(), 2, 12, 4);
    region.bytes = 0;
    region.run(2_000);
    // Ten seconds, two directions; a frame adds some 50 bytes to each of two messages a second.
    assert!(
        region.bytes / 20 <= 250,
        "{} B/s each way",
        region.bytes / 20
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever comes to whom, everything is served, hardly anything is pushed behind a request that
    /// waits, and nothing is left behind.
    #[test]
    fn whatever_comes_to_whom_all_is_served(
        balancers in 2_usize..4,
        replicas in 1_u32..3,
        slots in 1_usize..5,
        policy in prop::sample::select(vec![Policy::Prefix, Policy::Predictive]),
        arrivals in prop::collection::vec((0_usize..3, 0_u64..60), 1..120),
        dies in prop::option::of(0_usize..120),
    ) {
        let config = Config { policy, ..knee() };
        let mut region = Region::new(&config, balancers, replicas, slots);
        for (index, (number, steps)) in arrivals.iter().enumerate() {
            region.run(*steps);
            if dies == Some(index) && region.dead.is_empty() {
                region.kill(balancers - 1);
            }
            let living = region.living();
            region.submit(living[number % living.len()]);
        }
        for _ in 0..600 {
            if region.held() == 0 && region.engines.iter().all(Engine::is_idle) {
                break;
            }
            region.run(100);
        }
        region.run(20);
        prop_assert_eq!(region.held(), 0);
        let behind: u64 = region.engines.iter().map(|engine| engine.behind).sum();
        prop_assert!(behind * 5 <= arrivals.len() as u64 + 20, "{} of {}", behind, arrivals.len());
        for drive in &mut region.balancers {
            prop_assert_eq!(drive.router.check_invariants(), Ok(()));
        }
        let living = region.living();
        for number in living {
            let drive = &mut region.balancers[number];
            let state: serde_json::Value =
                serde_json::from_slice(&drive.router.state(drive.now).unwrap()).unwrap();
            for replica in state["replicas"].as_array().unwrap() {
                prop_assert_eq!(&replica["theirs_in_flight"], &serde_json::Value::from(0));
            }
        }
    }
}

#[test]
fn however_much_there_is_to_share_it_is_told_in_messages_that_fit() {
    let mut out = Vec::new();
    let replicas: Vec<_> = (0..)
        .take(SHARED_MAX)
        .map(|n| (ReplicaId(n), format!("http://replica-{n}")))
        .collect();
    let mut pair: Vec<Router> = (0..2)
        .map(|number| {
            let mut router = Router::new(config(), b"0123456789abcdef", 7);
            router.set_self(&format!("us-{number}"), "us", 5);
            router.set_replicas(&replicas, Instant::ZERO + S, &mut out);
            let other = Listing::new(peer(1 - number), format!("us-{}", 1 - number), "us");
            router
                .set_peers(&[other], Instant::ZERO + S, &mut out)
                .unwrap();
            router.peer_state(
                peer(1 - number),
                Presence::Alive,
                Instant::ZERO + S,
                &mut out,
            );
            router
        })
        .collect();
    let page = Snapshot {
        cache_queries: Some(1 << 53),
        loras_running: (0..8).map(|n| format!("{n:0>64}")).collect(),
        ..load(0, 0)
    };
    for (replica, _) in &replicas {
        for router in &mut pair {
            router.observe(
                *replica,
                page.clone(),
                Instant::ZERO + S,
                Instant::ZERO + S,
                &mut out,
            );
        }
    }
    let mut now = S;
    for _ in 0..200 {
        now += 3 * S;
        for (one, other) in [(0, 1), (1, 0)] {
            if let Some(bytes) = pair[one].share(peer(other), Instant::ZERO + now, &mut out) {
                assert!(bytes.len() <= SHARE_BYTES_MAX);
                pair[other]
                    .merge_share(peer(one), &bytes, 0, Instant::ZERO + now, &mut out)
                    .unwrap();
            }
        }
    }
    let counters = pair[1].counters();
    let heard = counters.iter().find(|(name, _)| *name == "pages_heard");
    assert!(heard.unwrap().1 >= SHARED_MAX as u64, "{heard:?}");
}
