//! What is left of a balancer that leaves the list, and what an idle one does for one that waits.

use super::*;

fn replica_state(region: &Region, number: usize) -> serde_json::Value {
    let state = region.balancers[number].router.state(region.now).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    state["replicas"][0].clone()
}

#[test]
fn a_balancer_that_leaves_the_list_leaves_no_request_behind() {
    let mut region = saturated(&knee(), &[40, 40], 4, 100);
    assert!(region.balancers[0].router.counted_for(peer(1)) > 0);
    region.call(0, |router, now, out| {
        router.set_peers(&[], now, out).unwrap();
    });
    assert_eq!(region.balancers[0].router.counted_for(peer(1)), 0);
    assert_eq!(replica_state(&region, 0)["theirs_in_flight"], 0);
    assert_eq!(replica_state(&region, 0)["shared"], false);
}

#[test]
fn an_idle_balancer_that_probes_for_all_probes_often_for_one_that_waits() {
    let config = Config {
        in_flight_max: 1,
        ..knee()
    };
    let mut region = Region::new(&config, 2, 1, 4);
    region.stay_ns = 3_600 * S;
    let waits = usize::from(replica_state(&region, 0)["probed_here"] == true);
    region.submit(waits);
    region.submit(waits);
    region.run(100);
    assert_eq!(region.held(), 1);
    let before = region.probes();
    region.run(400);
    let often = 2 * S / config.probe_interval_ns;
    assert!(
        (region.probes() - before) * 10 >= often * 8,
        "{} of {often}",
        region.probes() - before
    );
}
