use super::*;

const S: Span = Span::from_ns(1_000_000_000);

#[test]
fn the_round_trip_is_the_median_of_the_last() {
    let mut peer = Peer::new(PeerId(1), "a".to_owned(), "b".to_owned(), 1);
    assert_eq!(peer.rtt_ns(), None);
    for rtt_ns in [100, 90, 5_000, 110] {
        peer.observe_rtt(Span::from_ns(rtt_ns));
    }
    assert_eq!(
        peer.rtt_ns(),
        Some(Span::from_ns(110)),
        "one that was slow does not count"
    );
    for _ in 0..9 {
        peer.observe_rtt(Span::from_ns(70));
    }
    assert_eq!(peer.rtt_ns(), Some(Span::from_ns(70)));
}

#[test]
fn a_rate_follows_arrivals_and_ends_with_them() {
    let mut rate = Rate::default();
    for n in 0..20 {
        rate.count(Instant::ZERO + 10 * S + n * S / 10);
    }
    assert!(
        (9_000..=11_000).contains(&rate.per_s_milli(Instant::ZERO + 12 * S)),
        "10 per second"
    );
    assert_eq!(rate.per_s_milli(Instant::ZERO + 14 * S), 0);
}

#[test]
fn a_limit_counts_until_a_later_one_is_heard_or_it_must_have_expired() {
    let mut credit = Credit::default();
    assert_eq!(credit.grant(1, 4, Instant::ZERO + S), 4);
    credit.arrive();
    assert_eq!(credit.grant(2, 1, Instant::ZERO + S), 2);
    assert_eq!(
        (
            credit.left(Instant::ZERO + S),
            credit.outstanding(Instant::ZERO + S)
        ),
        (1, 3),
        "the first may still be used"
    );
    credit.acknowledge(2, 1, 1, Instant::ZERO + S);
    assert_eq!(credit.outstanding(Instant::ZERO + S), 1);
    assert_eq!(
        credit.outstanding(Instant::ZERO + S + credit::LAPSE_NS + Span::from_ns(1)),
        0
    );
}

#[test]
fn forwards_that_were_lost_are_given_up_and_late_ones_do_not_grant_more() {
    let mut credit = Credit::default();
    credit.grant(1, 4, Instant::ZERO + S);
    credit.acknowledge(1, 3, 2, Instant::ZERO + S);
    assert_eq!(
        credit.outstanding(Instant::ZERO + S),
        2,
        "two are over: if they have not arrived, they will not"
    );
    assert_eq!(credit.grant(2, 1, Instant::ZERO + S), 3);
    for _ in 0..3 {
        credit.arrive();
    }
    assert_eq!(
        credit.grant(3, 1, Instant::ZERO + S),
        6,
        "five counted, of three"
    );
    for second in 2..=13 {
        credit.acknowledge(3, 3, 3, Instant::ZERO + second * S);
    }
    assert_eq!(credit.grant(4, 1, Instant::ZERO + 13 * S), 4, "found out");
}

/// A summary of a run, whose peer is this test's balancer, with start 9.
fn summary(incarnation: u64, sequence: u64, received: u64, limit: u64) -> Summary {
    Summary {
        incarnation,
        sequence,
        received_incarnation: 9,
        received_sequence: received,
        valid_for_ms: 1_000,
        models: vec![summary::ModelSummary {
            model: "m".to_owned(),
            ready: 1,
            limit,
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[test]
fn what_a_run_has_granted_counts_until_the_next_one_knows_us() {
    let mut peer = Peer::new(PeerId(1), "a".to_owned(), "b".to_owned(), 1);
    let now = Instant::ZERO + 10 * S;
    peer.presence = Presence::Alive;
    peer.started(100);
    peer.merge(summary(100, 1, 0, 0), 9, now).unwrap();
    assert!(!peer.available(now), "it does not know us");
    peer.merge(summary(100, 2, 1, 5), 9, now).unwrap();
    assert_eq!(peer.room("m", 9, now), 5);
    peer.started(200);
    peer.merge(summary(200, 1, 0, 0), 9, now).unwrap();
    assert_eq!(peer.room("m", 9, now), 5, "its successor has just begun");
    assert!(peer.serves("m", now));
    assert_eq!(peer.last_received(), (200, 1), "so that it gets to know us");
    peer.merge(summary(200, 2, 0, 0), 9, now).unwrap();
    assert_eq!(peer.room("m", 9, now), 5);
    assert!(!peer.serves("m", now + 60 * S), "as long as it is fresh");
    peer.merge(summary(200, 3, 2, 7), 9, now).unwrap();
    assert_eq!(peer.room("m", 9, now), 7);
    let leaves = Summary {
        draining: true,
        ..summary(300, 1, 0, 0)
    };
    peer.started(300);
    peer.merge(leaves, 9, now).unwrap();
    assert!(!peer.available(now), "it wants nothing");
}
