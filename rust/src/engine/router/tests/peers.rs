//! Balancers that share load: routers that tell each other and forward, driven by hand.

mod leaving;
mod lying;

use super::*;
use crate::engine::effect::Forward;
use crate::engine::mesh::peer::Presence;
use crate::engine::mesh::peer::summary::{PeerError, Summary};
use crate::engine::mesh::residency::Rule;
use crate::id::PeerId;
use crate::tenant::Tenant;

/// Peers 0 and 1 of a router that is number 9 itself.
fn peers(names: &[(u32, &str, &str)]) -> Vec<Listing> {
    names
        .iter()
        .map(|(id, name, region)| Listing::new(PeerId(*id), *name, *region))
        .collect()
}

/// Two balancers, `us` in region "us" and `eu` in "eu", that have told each other twice.
struct Pair {
    us: Drive,
    eu: Drive,
}

const EU: PeerId = PeerId(1);
const US: PeerId = PeerId(2);

impl Pair {
    fn new(config: Config, replicas: (u32, u32)) -> Self {
        let mut us = Drive::new(config.clone(), replicas.0);
        let mut eu = Drive::new(config, replicas.1);
        us.router.set_self("us", "us", 11);
        eu.router.set_self("eu", "eu", 12);
        us.peers(&[(EU.0, "eu", "eu")]);
        eu.peers(&[(US.0, "us", "us")]);
        us.alive(EU);
        eu.alive(US);
        let mut pair = Self { us, eu };
        pair.tell();
        pair.tell();
        pair
    }

    /// Both tell each other; the effects at `us`.
    fn tell(&mut self) -> Vec<Effect> {
        let now = self.us.now.max(self.eu.now);
        (self.us.now, self.eu.now) = (now, now);
        let from_us = self.us.router.summary(EU, now).unwrap();
        self.eu.merge(US, &from_us).unwrap();
        let from_eu = self.eu.router.summary(US, now).unwrap();
        self.us.merge(EU, &from_eu).unwrap()
    }
}

impl Drive {
    fn peers(&mut self, names: &[(u32, &str, &str)]) -> Vec<Effect> {
        let peers = peers(names);
        self.call(|router, now, out| router.set_peers(&peers, now, out).unwrap())
    }

    fn alive(&mut self, peer: PeerId) -> Vec<Effect> {
        self.call(|router, now, out| router.peer_state(peer, Presence::Alive, now, out))
    }

    fn merge(&mut self, peer: PeerId, summary: &[u8]) -> Result<Vec<Effect>, PeerError> {
        let mut merged = Ok(());
        let out = self.call(|router, now, out| {
            merged = router.merge_peer(peer, summary, now, out);
        });
        merged.map(|()| out)
    }

    /// A forward arrives, with one attempt left.
    fn arrives(&mut self, origin: PeerId, hop: u8) -> Vec<Effect> {
        let forwarded = Forwarded {
            hop,
            attempts_left: 1,
            deadline_ns: None,
            origin: Some(origin),
        };
        let ask = Ask {
            forwarded: Some(forwarded),
            ..ask(Route::ChatCompletions)
        };
        self.submit_as(ask, digest("m", &[]))
    }

    fn room(&self, peer: PeerId) -> u64 {
        let gauges = self.router.peer_gauges(self.now);
        gauges.iter().find(|g| g.peer == peer).unwrap().room
    }
}

/// The only effect, a forward: `(request, peer, attempt, attempts_left)`.
fn forwarded(effects: &[Effect]) -> (u64, PeerId, u32, u32) {
    match effects {
        [
            Effect::Forward(Forward {
                request,
                peer,
                attempt,
                attempts_left,
                ..
            }),
        ] => (request.0, *peer, *attempt, *attempts_left),
        other => panic!("not one forward: {other:?}"),
    }
}

#[test]
fn local_replicas_come_first_then_a_peer_with_room_then_the_hold() {
    let mut pair = Pair::new(config(), (1, 1));
    assert_eq!(pushed(&pair.us.submit("m")), (1, 0, 1));
    assert_eq!(pair.us.room(EU), 1);
    assert_eq!(forwarded(&pair.us.submit("m")), (2, EU, 1, 1));
    assert_eq!(pair.us.room(EU), 0, "a forward uses up what was granted");
    assert_eq!(pair.us.submit("m"), [hold(3)]);
    assert_eq!(pushed(&pair.eu.arrives(US, 1)), (1, 0, 1));
    assert_eq!(pair.tell(), [], "its replica has no room now");
    assert_eq!(pair.us.first_byte(2), []);
    assert_eq!(pair.us.complete(2), []);
    pair.eu.first_byte(1);
    pair.eu.complete(1);
    assert_eq!(
        forwarded(&pair.tell()),
        (3, EU, 1, 1),
        "what is held leaves"
    );
}

#[test]
fn a_forward_is_not_forwarded_again_and_more_hops_are_refused() {
    let mut pair = Pair::new(config(), (1, 1));
    assert_eq!(pushed(&pair.us.arrives(EU, 1)), (1, 0, 1));
    assert_eq!(pair.us.room(EU), 1);
    assert_eq!(pair.us.arrives(EU, 1), [hold(2)], "it waits here");
    let reject = pair.us.arrives(EU, 2);
    assert_eq!(
        (rejected(&reject).status, rejected(&reject).code),
        (503, "hop_limit")
    );
    assert_eq!(pair.tell(), []);
}

#[test]
fn a_refused_forward_costs_no_attempt_and_closes_the_peer_until_it_grants_again() {
    let mut pair = Pair::new(config(), (1, 3));
    pair.us.submit("m");
    assert_eq!(pair.us.room(EU), 3);
    assert_eq!(forwarded(&pair.us.submit("m")), (2, EU, 1, 1));
    assert_eq!(pair.us.retry(2, Failure::Refused, true), [hold(2)]);
    assert_eq!(pair.us.room(EU), 0);
    assert_eq!(
        forwarded(&pair.tell()),
        (2, EU, 1, 1),
        "the first attempt still"
    );
    for _ in 0..2 {
        pair.us.retry(2, Failure::Refused, true);
        pair.tell();
    }
    assert_eq!(pair.tell(), [], "refused three times, it stays");
    assert_eq!(pushed(&pair.us.complete(1)), (2, 0, 1));
}

#[test]
fn a_failed_forward_comes_home_with_the_attempt_that_is_left() {
    let mut pair = Pair::new(config(), (1, 1));
    pair.us.submit("m");
    assert_eq!(forwarded(&pair.us.submit("m")), (2, EU, 1, 1));
    assert_eq!(pair.us.retry(2, Failure::Reset, true), [hold(2)]);
    assert_eq!(pushed(&pair.us.complete(1)), (2, 0, 2));
    let reject = pair.us.retry(2, Failure::Connect, true);
    assert_eq!(rejected(&reject).code, "upstream_connect", "two in all");
}

#[test]
fn a_peer_where_nobody_is_there_costs_no_attempt() {
    let mut pair = Pair::new(config(), (1, 1));
    pair.us.submit("m");
    assert_eq!(forwarded(&pair.us.submit("m")), (2, EU, 1, 1));
    assert_eq!(pair.us.retry(2, Failure::Connect, false), [hold(2)]);
    assert_eq!(pushed(&pair.us.complete(1)), (2, 0, 1));
}

#[test]
fn a_peer_that_failed_is_tried_again_only_where_nobody_else_could_serve() {
    let mut pair = Pair::new(config(), (1, 2));
    let rule = Rule {
        tenant: None,
        model: Some("m".to_owned()),
        regions: vec!["eu".to_owned()],
    };
    pair.us.router.set_residency(vec![rule]).unwrap();
    assert_eq!(forwarded(&pair.us.submit("m")), (1, EU, 1, 1));
    let again = pair.us.retry(1, Failure::Status(500), true);
    assert_eq!(forwarded(&again), (1, EU, 2, 1));
    let end = pair.us.retry(1, Failure::Status(500), true);
    assert_eq!(rejected(&end).status, 502, "two attempts in all");
}

#[test]
fn an_attempt_left_by_the_origin_is_all_that_a_peer_makes() {
    let mut pair = Pair::new(config(), (1, 2));
    assert_eq!(pushed(&pair.eu.arrives(US, 1)).2, 1);
    let reject = pair.eu.retry(1, Failure::Reset, true);
    assert_eq!(rejected(&reject).code, "upstream_reset");
}

#[test]
fn a_peer_whose_hold_is_too_long_refuses() {
    let config = Config {
        peer_hold_max: 2,
        ..config()
    };
    let mut pair = Pair::new(config, (1, 1));
    pair.eu.submit("m");
    for id in 2..=4 {
        assert_eq!(pair.eu.arrives(US, 1), [hold(id)]);
    }
    let reject = pair.eu.arrives(US, 1);
    assert_eq!(
        (rejected(&reject).status, rejected(&reject).code),
        (503, "peer_hold_max")
    );
    pair.tell();
    assert_eq!(pair.us.room(EU), 0);
}

#[test]
fn what_a_peer_told_counts_for_a_while_only() {
    let mut pair = Pair::new(config(), (0, 1));
    assert_eq!(pair.us.room(EU), 1);
    pair.us.now += 2_300 * MS;
    assert_eq!(pair.us.room(EU), 1);
    pair.us.now += 200 * MS;
    assert_eq!(pair.us.room(EU), 0, "three times 0.8 s");
    let now = pair.us.now;
    for _ in 0..9 {
        pair.us.router.peer_rtt(EU, 150 * MS, now);
    }
    assert_eq!(pair.us.room(EU), 1, "and two round trips");
    pair.us.now += 600 * MS;
    assert_eq!(pair.us.room(EU), 0, "at most 3 s");
}

#[test]
fn old_repeated_and_broken_summaries_change_nothing() {
    let mut pair = Pair::new(config(), (0, 1));
    let now = pair.us.now;
    let first = pair.eu.router.summary(US, now).unwrap();
    let second = pair.eu.router.summary(US, now).unwrap();
    assert!(pair.us.merge(EU, &second).is_ok());
    assert_eq!(pair.us.merge(EU, &first), Err(PeerError::Old));
    assert_eq!(pair.us.merge(EU, &second), Err(PeerError::Old));
    assert_eq!(
        pair.us.merge(EU, &second[1..]),
        Err(PeerError::Version(second[1]))
    );
    assert_eq!(pair.us.merge(PeerId(7), &second), Err(PeerError::Unknown));
    assert_eq!(pair.us.counter("summaries_refused"), 3);
}

#[test]
fn rules_of_residency_hold_for_forwards_and_fail_closed() {
    let mut pair = Pair::new(config(), (1, 1));
    let rule = |tenant: &str, regions: &[&str]| Rule {
        tenant: Some(tenant.to_owned()),
        model: None,
        regions: regions.iter().map(|&name| name.to_owned()).collect(),
    };
    let rules = vec![
        rule("home", &["us"]),
        rule("away", &["eu"]),
        rule("none", &["mars"]),
    ];
    pair.us.router.set_residency(rules).unwrap();
    let of = |tenant| Ask {
        tenant: Tenant::Named(tenant),
        ..ask(Route::ChatCompletions)
    };
    let reject = pair.us.submit_as(of("none"), digest("m", &[]));
    assert_eq!(
        (rejected(&reject).status, rejected(&reject).code),
        (403, "residency")
    );
    let away = pair.us.submit_as(of("away"), digest("m", &[]));
    assert_eq!(forwarded(&away).0, 2, "though a local replica has room");
    pair.us.submit("m");
    assert_eq!(pair.us.submit_as(of("home"), digest("m", &[])), [hold(4)]);
    assert_eq!(pair.us.submit_as(of("away"), digest("m", &[])), [hold(5)]);
    assert_eq!(pushed(&pair.us.complete(3)), (4, 0, 1));
    assert_eq!(
        pair.us.complete(4),
        [],
        "a local replica is no place for it"
    );
    pair.eu.arrives(US, 1);
    pair.eu.first_byte(1);
    pair.eu.complete(1);
    pair.us.complete(2);
    assert_eq!(forwarded(&pair.tell()).0, 5);
    let unknown = Ask {
        tenant: Tenant::Unknown,
        ..ask(Route::ChatCompletions)
    };
    let anybodys = pair.us.submit_as(unknown, digest("m", &[]));
    assert_eq!(
        (rejected(&anybodys).status, rejected(&anybodys).code),
        (403, "residency"),
        "whose tenant is unknown may be anybody's"
    );
}

#[test]
fn the_nearest_peer_is_chosen_unless_another_has_the_prefix() {
    let mut near = Drive::new(config(), 0);
    near.router.set_self("us", "us", 1);
    near.peers(&[(1, "eu", "eu"), (2, "asia", "asia")]);
    let mut others: Vec<Drive> = (0..2).map(|_| Drive::new(config(), 2)).collect();
    for (peer, other) in (1..).map(PeerId).zip(&mut others) {
        let name = ["eu", "asia"][peer.0 as usize - 1];
        other.router.set_self(name, name, 5);
        other.peers(&[(0, "us", "us")]);
        other.alive(PeerId(0));
        near.alive(peer);
        near.router
            .peer_rtt(peer, u64::from(peer.0) * 80 * MS, near.now);
    }
    let blocks: Vec<u64> = (1..=10).collect();
    for _ in 0..2 {
        for (peer, other) in (1..).map(PeerId).zip(&mut others) {
            let from_us = near.router.summary(peer, near.now).unwrap();
            other.merge(PeerId(0), &from_us).unwrap();
            let told = other.router.summary(PeerId(0), other.now).unwrap();
            near.merge(peer, &told).unwrap();
        }
    }
    let mut submit = |blocks: &[u64]| {
        let effects = near.submit_as(ask(Route::ChatCompletions), digest("m", blocks));
        forwarded(&effects).1
    };
    assert_eq!(submit(&[]), PeerId(1));
    assert_eq!(submit(&[]), PeerId(1));
    assert_eq!(submit(&blocks), PeerId(2), "the nearest has no room");
    for (peer, other) in (1..).map(PeerId).zip(&mut others) {
        let told = other.router.summary(PeerId(0), other.now).unwrap();
        near.merge(peer, &told).unwrap();
    }
}

#[test]
fn a_model_that_only_a_peer_serves_is_served_there() {
    let mut pair = Pair::new(config(), (1, 1));
    pair.eu.set_models(0, &["m", "rare"]);
    pair.tell();
    assert_eq!(
        pair.us.submit("rare"),
        [hold(1)],
        "all room was granted for the other model, until its turn was over"
    );
    assert_eq!(
        forwarded(&pair.tell()),
        (1, EU, 1, 1),
        "now that it is known to be taken back"
    );
    let reject = pair.us.submit("none");
    assert_eq!(rejected(&reject).code, "model_not_found");
    pair.us.complete(1);
}

#[test]
fn a_peer_whose_region_is_its_word_alone_is_in_none_that_a_rule_names() {
    let mut pair = Pair::new(config(), (1, 1));
    let rule = Rule {
        tenant: None,
        model: None,
        regions: vec!["eu".to_owned()],
    };
    pair.us.router.set_residency(vec![rule]).unwrap();
    assert_eq!(forwarded(&pair.us.submit("m")).1, EU);
    let listing = Listing {
        sure: false,
        ..Listing::new(EU, "eu", "eu")
    };
    pair.us
        .call(|router, now, out| router.set_peers(&[listing], now, out).unwrap());
    assert_eq!(rejected(&pair.us.submit("m")).code, "residency");
}

#[test]
fn of_a_peers_next_run_everything_is_heard_whatever_numbers_the_one_before_had() {
    let mut pair = Pair::new(Config::sample(), (1, 1));
    let told = |incarnation, sequence| {
        let mut summary = Summary {
            incarnation,
            sequence,
            ..Summary::default()
        };
        summary.encode()
    };
    pair.us
        .call(|router, now, _| router.peer_started(EU, u64::MAX, now));
    pair.us.merge(EU, &told(u64::MAX, u64::MAX)).unwrap();
    assert_eq!(
        pair.us.merge(EU, &told(12, 1)),
        Err(PeerError::Start),
        "it is not of the run that it has proven"
    );
    pair.us
        .call(|router, now, _| router.peer_started(EU, 12, now));
    pair.us.merge(EU, &told(12, 1)).unwrap();
    pair.us
        .call(|router, now, _| router.peer_started(EU, 12, now));
    assert_eq!(
        pair.us.merge(EU, &told(12, 1)),
        Err(PeerError::Old),
        "another connection of the same run"
    );
}

#[test]
fn a_peer_may_change_its_region_as_often_as_it_likes() {
    let mut pair = Pair::new(Config::sample(), (1, 1));
    let rule = Rule {
        tenant: None,
        model: None,
        regions: vec!["us".to_owned()],
    };
    pair.us.router.set_residency(vec![rule]).unwrap();
    for n in 0..1_000 {
        pair.us.peers(&[(EU.0, "eu", &format!("region-{n}"))]);
        let mesh = &pair.us.router.mesh;
        assert_eq!(
            mesh.peer(0.into()).unwrap().region_bit & mesh.region_bit(),
            0
        );
    }
    pair.us.peers(&[(EU.0, "eu", "us")]);
    let mesh = &pair.us.router.mesh;
    assert_eq!(mesh.peer(0.into()).unwrap().region_bit, mesh.region_bit());
}

#[test]
fn what_a_peer_answers_is_charged_here_by_what_is_seen_of_it() {
    let mut pair = Pair::new(config(), (1, 1));
    let terms = serde_json::json!({"tokens_per_minute": 60_000});
    pair.us.set_tenants(&[limits::entry("acme", &terms)]);
    pair.us.submit("m");
    let effects = pair.us.submit_as(limits::asks("acme"), digest("m", &[]));
    let (id, ..) = forwarded(&effects);
    pair.us.first_byte(id);
    pair.us.end_with(id, Outcome::Ok, limits::told(70, 5));
    assert_eq!(pair.us.used("acme", "m")["charged_tokens"], 75);
}
