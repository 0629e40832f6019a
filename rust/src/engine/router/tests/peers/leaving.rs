//! What leaves a region: one that is evacuated, and one without replicas.

use super::*;

#[test]
fn an_evacuated_region_sends_away_what_is_new_and_what_is_held_and_takes_nothing() {
    let mut pair = Pair::new(config(), (1, 2));
    pair.us.submit("m");
    let out = pair
        .us
        .call(|router, now, out| router.set_evacuating(true, now, out));
    assert_eq!(out, []);
    assert_eq!(forwarded(&pair.us.submit("m")).1, EU);
    let reject = pair.us.arrives(EU, 1);
    assert_eq!(rejected(&reject).code, "evacuating");
    pair.tell();
    pair.tell();
    assert_eq!(pair.eu.room(US), 0);
}

const ASIA: PeerId = PeerId(9);

/// What `from`, called `from_id` there, tells `to`; the effects.
fn tell(from: &mut Drive, to_id: PeerId, to: &mut Drive, from_id: PeerId) -> Vec<Effect> {
    to.now = to.now.max(from.now) + MS;
    let summary = from.router.summary(to_id, from.now).unwrap();
    to.merge(from_id, &summary).unwrap()
}

#[test]
fn an_evacuated_region_has_the_first_claim_where_there_is_less_room_than_origins() {
    let mut pair = Pair::new(config(), (1, 1));
    let mut asia = Drive::new(config(), 1);
    asia.router.set_self("asia", "asia", 13);
    asia.peers(&[(EU.0, "eu", "eu")]);
    asia.alive(EU);
    pair.eu
        .peers(&[(ASIA.0, "asia", "asia"), (US.0, "us", "us")]);
    pair.eu.alive(ASIA);
    for _ in 0..3 {
        tell(&mut pair.eu, ASIA, &mut asia, EU);
        tell(&mut asia, EU, &mut pair.eu, ASIA);
        pair.tell();
    }
    pair.us
        .call(|router, now, out| router.set_evacuating(true, now, out));
    for number in 1..=20 {
        let mut out = pair.us.submit("m");
        if out == [hold(number)] {
            for _ in 0..4 {
                tell(&mut asia, EU, &mut pair.eu, ASIA);
                out.extend(pair.tell());
                tell(&mut pair.eu, ASIA, &mut asia, EU);
            }
            out.remove(0);
        }
        assert_eq!(forwarded(&out), (number, EU, 1, 1), "it leaves");
        assert!(matches!(pair.eu.arrives(US, 1)[..], [Effect::Push(_)]));
        pair.us.first_byte(number);
        pair.us.complete(number);
        pair.eu.first_byte(number);
        pair.eu.complete(number);
        pair.eu.observe(0, idle());
    }
    assert_eq!(pair.us.router.counters.evacuation_stayed, 0);
}

#[test]
fn what_no_peer_has_room_for_while_its_region_is_evacuated_waits_and_is_then_served_there() {
    let mut pair = Pair::new(config(), (1, 1));
    assert_eq!(
        forwarded(&{
            pair.us.submit("m");
            pair.us.submit("m")
        })
        .1,
        EU,
        "no room is left at the peer"
    );
    pair.us.first_byte(1);
    pair.us.complete(1);
    pair.us.observe(0, idle());
    pair.us
        .call(|router, now, out| router.set_evacuating(true, now, out));
    assert_eq!(pair.us.submit("m"), [hold(3)], "though there is room here");
    pair.us.now += pair.us.router.leave_wait_ns() / 2;
    assert_eq!(pair.us.observe(0, idle()), []);
    pair.us.now += pair.us.router.leave_wait_ns();
    assert_eq!(pushed(&pair.us.observe(0, idle())), (3, 0, 1));
    assert_eq!(pair.us.router.counters.evacuation_stayed, 1);
}

#[test]
fn what_waits_to_leave_is_served_here_when_the_region_is_taken_back() {
    let mut pair = Pair::new(config(), (1, 0));
    pair.eu.set_replicas([0]);
    pair.eu.set_models(0, &["m"]);
    pair.eu.observe(0, load(9, 9));
    pair.tell();
    pair.us
        .call(|router, now, out| router.set_evacuating(true, now, out));
    assert_eq!(pair.us.submit("m"), [hold(1)], "its peer is full");
    let out = pair
        .us
        .call(|router, now, out| router.set_evacuating(false, now, out));
    assert_eq!(pushed(&out), (1, 0, 1));
}

#[test]
fn whatever_a_peer_can_serve_is_forwarded_where_no_replica_here_is_ready() {
    let mut pair = Pair::new(config(), (1, 2));
    pair.us.observe_failed(0, false);
    assert!(!pair.us.router.ready_here());
    assert!(pair.us.router.ready());
    assert_eq!(
        pair.us.router.models(Tenant::Nobody),
        [("m", None)],
        "its length is not told"
    );
    for (number, route) in [
        (1, Route::Tokenize),
        (2, Route::CountTokens),
        (3, Route::Responses),
    ] {
        let out = pair.us.submit_as(ask(route), digest("m", &[]));
        assert_eq!(forwarded(&out).1, EU, "{route:?}");
        pair.us.complete(number);
    }
    let kept = Digest {
        retry_safe: false,
        ..digest("m", &[])
    };
    let out = pair.us.submit_as(ask(Route::Responses), kept);
    assert_eq!(
        rejected(&out).code,
        "no_replica_ready",
        "what is kept of it would not be found again"
    );
}

#[test]
fn what_is_computed_without_the_model_uses_up_nothing_of_what_was_granted() {
    let mut pair = Pair::new(config(), (1, 1));
    pair.us.observe_failed(0, false);
    assert_eq!(pair.us.room(EU), 1);
    for number in 1..=5 {
        let out = pair.us.submit_as(ask(Route::Tokenize), digest("m", &[]));
        assert_eq!(forwarded(&out), (number, EU, 1, 1));
    }
    assert_eq!(pair.us.room(EU), 1);
    assert_eq!(forwarded(&pair.us.submit("m")).1, EU);
    assert_eq!(pair.us.room(EU), 0);
    assert_eq!(
        forwarded(&pair.us.submit_as(ask(Route::Tokenize), digest("m", &[]))).1,
        EU
    );
}

#[test]
fn a_response_that_may_be_kept_leaves_only_where_no_replica_here_is_ready() {
    let mut pair = Pair::new(config(), (1, 1));
    pair.us.submit("m");
    let rather_here = pair.us.submit_as(ask(Route::Responses), digest("m", &[]));
    assert_eq!(rather_here, [hold(2)], "there is room at the peer");
    let unstored = Digest {
        unstored: true,
        ..digest("m", &[])
    };
    let out = pair.us.submit_as(ask(Route::Responses), unstored);
    assert_eq!(forwarded(&out), (3, EU, 1, 1), "nothing is kept of it");
}

#[test]
fn models_of_peers_are_listed_for_those_who_may_use_them_there() {
    let mut pair = Pair::new(config(), (1, 1));
    pair.eu.set_models(0, &["m", "rare"]);
    pair.tell();
    let rule = Rule {
        tenant: Some("home".to_owned()),
        model: None,
        regions: vec!["us".to_owned()],
    };
    pair.us.router.set_residency(vec![rule]).unwrap();
    let names = |tenant| {
        let models = pair.us.router.models(tenant);
        models.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names(Tenant::Nobody), ["m", "rare"]);
    assert_eq!(names(Tenant::Named("home")), ["m"]);
    assert_eq!(names(Tenant::Unknown), ["m"]);
}

impl Drive {
    fn evacuate(&mut self, region: &str, within: Span) -> Vec<Effect> {
        let leave_ns = self.now + within;
        self.call(|router, now, out| {
            router.evacuate(region, (true, Some(leave_ns)), now, out);
        })
    }

    /// Its stream has begun, and may go on elsewhere.
    fn streams(&mut self, id: u64) {
        self.first_byte(id);
        self.router
            .requests
            .get_mut(RequestId(id))
            .unwrap()
            .continues = true;
    }

    /// The stream was withdrawn, and is placed again.
    fn goes_on(&mut self, id: u64) -> Vec<Effect> {
        let given = Report::default();
        self.call(|router, now, out| {
            router.resume(RequestId(id), Failure::Withdrawn, &given, now, out);
        })
    }
}

#[test]
fn streams_leave_an_evacuated_region_in_time_and_those_that_may_not_end_there() {
    let mut pair = Pair::new(config(), (2, 4));
    for id in 1..=2 {
        pushed(&pair.us.submit("m"));
        pair.us.first_byte(id);
    }
    pair.us.streams(2);
    assert_eq!(pair.us.evacuate("us", 2 * S), []);
    assert_eq!(pair.us.router.staying(), (2, 1, 0));
    pair.tell();
    pair.us.now += S;
    assert_eq!(pair.us.tick_at(pair.us.now), []);
    pair.tell();
    let later = pair.us.now + S;
    assert_eq!(pair.us.tick_at(later), [Effect::Withdraw(RequestId(2))]);
    assert_eq!(forwarded(&pair.us.goes_on(2)).1, EU);
    assert_eq!(pair.us.router.staying(), (1, 1, 0));
    // Its peer is evacuated in turn: it comes back, and the peer is not at fault.
    pair.us.streams(2);
    pair.us
        .call(|router, now, out| router.evacuate("us", (false, None), now, out));
    assert_eq!(
        pair.us.evacuate("eu", Span::ZERO),
        [Effect::Withdraw(RequestId(2))]
    );
    assert_eq!(pushed(&pair.us.goes_on(2)).0, 2);
    assert!(pair.us.room(EU) > 0, "it may be asked");
    assert_eq!(pair.us.counter("left_on_notice"), 2);
}

#[test]
fn a_stream_that_ran_long_at_a_peer_may_wait_for_room_when_it_leaves_it() {
    let mut pair = Pair::new(config(), (1, 1));
    pushed(&pair.us.submit("m"));
    assert_eq!(forwarded(&pair.us.submit("m")).1, EU);
    pair.us.streams(2);
    pair.us.now += config().hold_timeout_ns + S;
    pair.us.observe(0, load(9, 9));
    pair.tell();
    assert_eq!(
        pair.us.evacuate("eu", Span::ZERO),
        [Effect::Withdraw(RequestId(2))]
    );
    assert_eq!(
        pair.us.goes_on(2),
        [hold(2)],
        "its time at the peer was no time in the hold"
    );
}

#[test]
fn an_order_for_a_region_that_nobody_is_in_is_forgotten() {
    let mut pair = Pair::new(config(), (1, 1));
    pair.us.evacuate("asia", Span::ZERO);
    assert_eq!(pair.us.router.mesh.next_departure_ns(), None);
    pair.us.evacuate("eu", S);
    assert!(pair.us.router.mesh.next_departure_ns().is_some());
    pair.us.peers(&[]);
    pair.us.evacuate("us", S);
    pair.us
        .call(|router, now, out| router.evacuate("us", (false, None), now, out));
    assert_eq!(pair.us.router.mesh.next_departure_ns(), None);
}

#[test]
fn the_room_of_a_replica_that_leaves_is_granted_to_nobody_and_nothing_that_comes_goes_there() {
    let mut pair = Pair::new(config(), (1, 2));
    let before = pair.us.room(EU);
    assert!(before > 1);
    let leave = Some(Leave::Ends(pair.eu.now + 60 * S));
    pair.eu.drain(0, true);
    pair.eu
        .call(|router, now, out| router.set_notice(ReplicaId(0), leave, now, out));
    pair.tell();
    pair.tell();
    assert!(pair.us.room(EU) < before, "as if it had one replica");
    pushed(&pair.us.submit("m"));
    assert_eq!(forwarded(&pair.us.submit("m")).1, EU);
    let (_, replica, _) = pushed(&pair.eu.arrives(US, 1));
    assert_eq!(replica, 1);
    // The other one leaves too: no room is left there, and the origin serves its requests itself.
    pair.eu.drain(1, true);
    pair.eu
        .call(|router, now, out| router.set_notice(ReplicaId(1), leave, now, out));
    pair.tell();
    pair.tell();
    assert_eq!(pair.us.room(EU), 0);
}

#[test]
fn a_request_of_a_peer_takes_no_room_from_those_that_leave_with_it() {
    let mut pair = Pair::new(config(), (2, 1));
    let forwarded = Forwarded {
        hop: 1,
        attempts_left: 1,
        deadline_ns: Some(pair.us.now + 5 * S),
        origin: Some(EU),
    };
    let ask = Ask {
        forwarded: Some(forwarded),
        ..ask(Route::ChatCompletions)
    };
    pushed(&pair.us.submit_as(ask, digest("m", &[])));
    for id in 2..=3 {
        pushed(&pair.us.submit("m"));
        pair.us.streams(id);
        pair.us.observe(0, idle());
        pair.us.observe(1, idle());
    }
    pair.tell();
    assert_eq!(pair.us.room(EU), 1);
    let left = pair.us.evacuate("us", Span::ZERO);
    let left: Vec<_> = left
        .iter()
        .map(|effect| effect.request().unwrap().0)
        .collect();
    assert_eq!(left, [1, 2, 3], "there is room for one, and one more waits");
}

#[test]
fn a_request_without_another_try_is_not_asked_to_leave() {
    for tries in [false, true] {
        let mut pair = Pair::new(config(), (1, 2));
        pushed(&pair.us.submit("m"));
        let request = pair.us.router.requests.get_mut(RequestId(1)).unwrap();
        if !tries {
            request.attempts = request.attempts_max;
        }
        let left = pair.us.evacuate("us", Span::ZERO);
        assert_eq!(left.len(), usize::from(tries));
    }
}

#[test]
fn the_length_of_the_context_is_told_with_each_place() {
    let mut pair = Pair::new(config(), (1, 1));
    let lists = [
        ("m", Some(4_096)),
        ("adapter", None),
        ("other", Some(9_000)),
    ];
    let lists: Vec<_> = lists.map(|(name, len)| (name.to_owned(), len)).into();
    pair.us.call(|router, now, out| {
        router.set_listing(ReplicaId(0), ModelList::Whole(&lists), now, out);
    });
    let told = |effects: &[Effect]| match effects {
        [Effect::Push(push)] => push.context_len,
        [Effect::Forward(forward)] => forward.context_len,
        other => panic!("no place: {other:?}"),
    };
    assert_eq!(
        told(&pair.us.submit("adapter")),
        Some(4_096),
        "its base model's"
    );
    assert_eq!(told(&pair.us.submit("m")), Some(4_096), "at a peer");
    let mut away = Pair::new(config(), (0, 1));
    assert_eq!(told(&away.us.submit("m")), None, "no replica here lists it");
}
