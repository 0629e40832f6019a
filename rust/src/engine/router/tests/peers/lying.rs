//! What a peer says of itself is believed of it alone, and breaks nothing.

use super::*;
use crate::engine::mesh::peer::summary::ModelSummary;

#[test]
fn counts_beyond_all_bounds_leave_the_others_room_as_it_is() {
    const AP: PeerId = PeerId(3);
    let mut us = Drive::new(config(), 2);
    us.router.set_self("us", "us", 11);
    us.peers(&[(EU.0, "eu", "eu"), (AP.0, "ap", "ap")]);
    for peer in [EU, AP] {
        us.alive(peer);
        us.call(|router, now, _| router.peer_started(peer, 12, now));
    }
    let mut granted = Vec::new();
    for sequence in 1..=40 {
        for (peer, lies) in [(EU, true), (AP, false)] {
            let sent = if lies && sequence < 5 { u64::MAX } else { 0 };
            let mut summary = Summary {
                incarnation: 12,
                sequence,
                received_incarnation: 11,
                valid_for_ms: 3_000,
                models: vec![ModelSummary {
                    model: "m".to_owned(),
                    ready: 1,
                    sent,
                    settled: sent,
                    ..ModelSummary::default()
                }],
                ..Summary::default()
            };
            us.merge(peer, &summary.encode()).unwrap();
            let told = us.router.summary(peer, us.now);
            if let (Some(told), AP) = (told, peer) {
                let models = Summary::decode(&told).unwrap().models;
                granted.extend(models.first().map(|model| model.limit));
            }
        }
        us.now += 500 * MS;
    }
    assert!(granted.iter().any(|limit| *limit > 0), "{granted:?}");
}
