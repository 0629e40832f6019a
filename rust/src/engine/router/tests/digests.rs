//! Hot prefixes that balancers tell each other: routers driven by hand.

use super::*;
use crate::engine::effect::Forward;
use crate::engine::mesh::hot::digest::{DigestError, PeerDigest};
use crate::engine::mesh::hot::heat::Terms;
use crate::engine::mesh::key::KEY_BYTES;
use crate::engine::mesh::peer::Presence;
use crate::id::PeerId;

const TERMS: Terms = Terms {
    bytes_max: 8 << 10,
    interval_ns: Span::from_secs(2),
    age_max_ns: Span::from_secs(30),
};
const US: PeerId = PeerId(0);
const EU: PeerId = PeerId(1);
const ASIA: PeerId = PeerId(2);
/// Of the shared prefix, in blocks; 32 of them can be told.
const SHARED: u64 = 35;

/// `us` without replicas of its own; asia is nearer than eu.
struct Three {
    us: Drive,
    /// eu, asia.
    others: [Drive; 2],
}

impl Three {
    fn new(config: &Config, keys: [Option<u8>; 3]) -> Self {
        let regions = ["us", "eu", "asia"];
        let mut all = [0, 4, 4].map(|replicas| Drive::new(config.clone(), replicas));
        for (own, drive) in all.iter_mut().enumerate() {
            drive.router.set_self(regions[own], regions[own], 10);
            let others = (0..3).filter(|other| *other != own).map(|other| {
                let name = regions[other].to_owned();
                Listing::new(PeerId(u32::try_from(other).unwrap()), name.clone(), name)
            });
            let others: Vec<_> = others.collect();
            drive.call(|router, now, out| router.set_peers(&others, now, out).unwrap());
            for peer in others.into_iter().map(|listing| listing.id) {
                drive.call(|router, now, out| {
                    router.peer_state(peer, Presence::Alive, now, out);
                    router.peer_rtt(peer, if peer == EU { 150 } else { 120 } * MS, now);
                });
            }
            if let Some(key) = keys[own] {
                drive.router.set_peer_digest(&[key; KEY_BYTES], TERMS);
            }
        }
        let [us, eu, asia] = all;
        let mut three = Self {
            us,
            others: [eu, asia],
        };
        three.tell();
        three.tell();
        three
    }

    /// Everybody's clock goes on to the same time, and us hears both others, and they us.
    fn tell(&mut self) {
        let now = self.others.iter().map(|other| other.now).max();
        let now = now.unwrap().max(self.us.now);
        self.us.now = now;
        for (peer, other) in [EU, ASIA].into_iter().zip(&mut self.others) {
            other.now = now;
            let said = self.us.router.summary(peer, now).unwrap();
            other.call(|router, now, out| {
                router.merge_peer(US, &said, now, out).unwrap();
            });
            let said = other.router.summary(US, now).unwrap();
            self.us.call(|router, now, out| {
                router.merge_peer(peer, &said, now, out).unwrap();
            });
        }
    }

    /// eu serves prompts that share a prefix, and time passes until that may be told.
    fn heat_up(&mut self) {
        let eu = &mut self.others[0];
        for session in 1..9 {
            eu.submit_as(ask(Route::ChatCompletions), prompt(session));
            let id = eu.last_id;
            eu.first_byte(id);
            eu.complete(id);
        }
        eu.now += TERMS.interval_ns;
        for replica in 0..4 {
            eu.observe(replica, idle());
        }
        self.tell();
    }

    /// What eu tells us of hot prefixes, if there is something to tell.
    fn digest(&mut self) -> Option<Vec<u8>> {
        let eu = &mut self.others[0];
        let due = eu.router.digest_due(US, eu.now);
        due.then(|| eu.router.hot_digest(US).unwrap())
    }

    fn heard(&mut self, digest: &[u8]) -> Result<(), DigestError> {
        self.us.router.merge_peer_digest(EU, digest, self.us.now)
    }

    /// Where us sends a prompt of the shared prefix, and the blocks that should match there.
    fn forward(&mut self) -> (PeerId, u32) {
        let effects = self.us.submit_as(ask(Route::ChatCompletions), prompt(99));
        match &effects[..] {
            [
                Effect::Forward(Forward {
                    peer, match_blocks, ..
                }),
            ] => (*peer, *match_blocks),
            other => panic!("not one forward: {other:?}"),
        }
    }

    fn prefixes(&self) -> u32 {
        let gauges = self.us.router.peer_gauges(self.us.now);
        gauges
            .iter()
            .find(|g| g.peer == EU)
            .unwrap()
            .digest_prefixes
    }
}

fn prompt(session: u64) -> Digest {
    let own = |block: u64| {
        if block < SHARED {
            block + 1
        } else {
            (session << 32) + block
        }
    };
    let blocks: Vec<u64> = (0..40).map(own).collect();
    Digest {
        key: Some(session),
        ..digest("m", &blocks)
    }
}

fn told(policy: Policy) -> Three {
    let config = Config { policy, ..config() };
    let mut three = Three::new(&config, [Some(1); 3]);
    three.heat_up();
    let digest = three.digest().unwrap();
    three.heard(&digest).unwrap();
    three
}

#[test]
fn a_prefix_that_a_peer_has_told_makes_a_forward_go_there_rather_than_to_the_nearer() {
    for policy in [Policy::Prefix, Policy::Predictive] {
        let mut three = told(policy);
        assert_eq!(three.prefixes(), 1);
        assert_eq!(three.forward(), (EU, 32), "{policy:?}");
        assert_eq!(three.us.counter("peer_digest_hits"), 1);
    }
}

#[test]
fn what_has_room_at_home_does_not_leave_for_what_was_told() {
    let mut three = told(Policy::Predictive);
    three.us.set_replicas([0]);
    three.us.set_models(0, &["m"]);
    three.us.observe(0, idle());
    // So near that the way is soon made up for.
    for _ in 0..9 {
        three.us.router.peer_rtt(EU, MS, three.us.now);
    }
    let here = three.us.submit_as(ask(Route::ChatCompletions), prompt(98));
    assert_eq!(pushed(&here), (1, 0, 1));
    assert_eq!(three.forward(), (EU, 32), "but what has not, does");
}

#[test]
fn without_the_key_nothing_is_told_or_believed_and_the_nearer_is_chosen() {
    let config = config();
    let mut off = Three::new(&config, [Some(1), None, None]);
    off.heat_up();
    assert_eq!(off.digest(), None);
    let mut deaf = Three::new(&config, [None, Some(1), Some(1)]);
    deaf.heat_up();
    let digest = deaf.digest().unwrap();
    assert_eq!(deaf.heard(&digest), Ok(()));
    for three in [&mut off, &mut deaf] {
        assert_eq!(three.forward(), (ASIA, 0));
        assert_eq!(three.us.counter("peer_digest_hits"), 0);
    }
}

#[test]
fn a_digest_under_another_key_is_refused_and_counted() {
    let mut three = Three::new(&config(), [Some(2), Some(1), Some(1)]);
    three.heat_up();
    let digest = three.digest().unwrap();
    assert_eq!(three.heard(&digest), Err(DigestError::Key));
    assert_eq!(three.us.counter("peer_digests_refused"), 1);
    assert_eq!(three.forward(), (ASIA, 0));
}

#[test]
fn old_broken_and_foreign_digests_change_nothing() {
    let mut three = told(Policy::Prefix);
    let mut digest = three.others[0].router.hot_digest(US).unwrap();
    assert_eq!(three.heard(&digest), Err(DigestError::Old));
    assert_eq!(three.heard(&[9]), Err(DigestError::Version(9)));
    let last = digest.pop();
    assert!(last.is_some());
    assert_eq!(three.heard(&digest), Err(DigestError::Malformed));
    let now = three.us.now;
    let unknown = three.us.router.merge_peer_digest(PeerId(7), &digest, now);
    assert_eq!(unknown, Err(DigestError::Unknown));
    let other = PeerDigest {
        block_bytes: 128,
        incarnation: 10,
        sequence: 9,
        ..PeerDigest::default()
    };
    assert_eq!(three.heard(&other.encode()), Err(DigestError::Blocks(128)));
    assert_eq!(three.us.counter("peer_digests_refused"), 4);
    assert_eq!(three.prefixes(), 1);
}

#[test]
fn what_a_peer_told_is_forgotten_with_its_age_its_death_its_restart_and_isolation() {
    let mut aged = told(Policy::Prefix);
    aged.us.now += TERMS.age_max_ns;
    assert_eq!(aged.prefixes(), 1);
    aged.us.now += Span::from_ns(1);
    assert_eq!(aged.prefixes(), 0);

    let mut dead = told(Policy::Prefix);
    dead.us.call(|router, now, out| {
        router.peer_state(EU, Presence::Unreachable, now, out);
    });
    assert_eq!(dead.prefixes(), 1, "it may live");
    dead.us.call(|router, now, out| {
        router.peer_state(EU, Presence::Dead, now, out);
    });
    assert_eq!(dead.prefixes(), 0);

    let mut anew = told(Policy::Prefix);
    anew.others[0].router.set_self("eu", "eu", 11);
    anew.tell();
    assert_eq!(anew.prefixes(), 0);

    let mut alone = told(Policy::Prefix);
    alone
        .us
        .call(|router, now, out| router.set_isolated(EU, true, now, out));
    assert_eq!(alone.prefixes(), 0);
    let digest = PeerDigest {
        sequence: 9,
        ..PeerDigest::decode(&alone.others[0].router.hot_digest(US).unwrap()).unwrap()
    };
    assert_eq!(alone.heard(&digest.encode()), Ok(()));
    assert_eq!(alone.prefixes(), 0, "nothing is taken from it");
    alone
        .us
        .call(|router, now, out| router.set_isolated(EU, false, now, out));
    assert_eq!(alone.heard(&digest.encode()), Ok(()));
    assert_eq!(alone.prefixes(), 1);
}

#[test]
fn a_digest_is_told_once_and_again_to_a_peer_that_started_anew() {
    let mut three = told(Policy::Prefix);
    assert_eq!(three.digest(), None);
    three.us.router.set_self("us", "us", 11);
    three.tell();
    assert!(three.digest().is_some());
    assert_eq!(three.digest(), None);
    let eu = &mut three.others[0];
    assert!(eu.router.digest_due(ASIA, eu.now));
    eu.call(|router, now, out| router.set_isolated(ASIA, true, now, out));
    assert!(
        !eu.router.digest_due(ASIA, eu.now),
        "not to an isolated one"
    );
    let same = [Listing::new(US, "us", "eu")];
    eu.call(|router, now, out| router.set_peers(&same, now, out).unwrap());
    three.us.router.set_self("us", "eu", 12);
    three.tell();
    assert_eq!(three.digest(), None, "not within a region");
}

#[test]
fn what_answers_say_of_the_prefix_is_counted() {
    let mut three = told(Policy::Prefix);
    assert_eq!(three.forward(), (EU, 32));
    let usage = Usage {
        cached_tokens: Some(400),
        ..Usage::default()
    };
    let report = Report {
        usage,
        ..Report::default()
    };
    let id = RequestId(three.us.last_id);
    three.us.first_byte(id.0);
    three
        .us
        .call(|router, now, out| router.complete(id, Outcome::Ok, report, now, out));
    let gauges = three.us.router.peer_gauges(three.us.now);
    let eu = gauges.iter().find(|g| g.peer == EU).unwrap();
    assert_eq!(eu.digest_hits_total, 1);
    assert_eq!(
        eu.digest_tokens_total, 512,
        "32 blocks of 64 bytes, 4 bytes a token"
    );
    assert_eq!(eu.digest_tokens_found_total, 400);
}
