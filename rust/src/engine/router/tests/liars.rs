//! Replicas whose metrics lie: they are blind, and traffic keeps flowing.

use super::*;
use crate::engine::config::Policy;
use crate::engine::fleet::snapshot::{VLLM, scan};

/// What `/metrics` of a liar shows in its `n`-th answer.
type Page = fn(u64) -> String;

fn lies() -> [(&'static str, Page); 5] {
    [
        ("negative", |_| gauges("-3", "-1")),
        ("NaN", |_| gauges("NaN", "NaN")),
        ("infinite", |_| gauges("+Inf", "2")),
        ("absurd", |n| gauges("1e300", &n.to_string())),
        ("frozen", |_| gauges("5", "3")),
    ]
}

fn gauges(running: &str, waiting: &str) -> String {
    format!(
        "vllm:num_requests_running {running}\nvllm:num_requests_waiting {waiting}\n\
         vllm:kv_cache_usage_perc 0.5\nvllm:prefix_cache_queries_total 1000\n"
    )
}

/// Ten seconds of probes and requests, each answered 50 ms after its push; how many were answered
/// within the last five, and how many are held at the end.
fn ten_seconds(policy: Policy, replicas: u32, page: Page) -> (u64, usize) {
    let mut drive = Drive::new(
        Config {
            policy,
            allowance: AllowanceRule::Knee,
            ..config()
        },
        replicas,
    );
    let mut flying = Vec::new();
    let mut late = 0;
    for n in 0..100 {
        for replica in 0..replicas {
            // One in two lies; a fleet of one is a liar.
            let page = if replica % 2 == 0 {
                page(n)
            } else {
                gauges("0", "0")
            };
            let snapshot = scan(page.as_bytes(), &VLLM);
            let effects = drive.observe(replica, snapshot);
            flying.extend(all_pushed(&effects));
        }
        for effect in drive.submit("m") {
            if let Effect::Push(push) = effect {
                flying.push(push.request.0);
            }
        }
        drive.now += 50 * MS;
        for id in std::mem::take(&mut flying) {
            flying.extend(all_pushed(&drive.first_byte(id)));
            flying.extend(all_pushed(&drive.complete(id)));
            late += u64::from(n >= 50);
        }
        drive.now += 40 * MS;
    }
    (late, drive.router.hold_requests())
}

#[test]
fn traffic_keeps_flowing_whatever_a_replicas_metrics_say() {
    for policy in [Policy::Prefix, Policy::Predictive, Policy::LeastLoad] {
        for (lie, page) in lies() {
            for replicas in [1, 4] {
                let (late, held) = ten_seconds(policy, replicas, page);
                assert!(late >= 50, "{policy:?}, {lie}, {replicas}: {late} answered");
                assert!(held <= 1, "{policy:?}, {lie}, {replicas}: {held} held");
            }
        }
    }
}

#[test]
fn a_lying_replica_is_shown_as_blind() {
    for (lie, page) in lies() {
        let mut drive = Drive::new(config(), 1);
        for n in 0..10 {
            drive.observe(0, scan(page(n).as_bytes(), &VLLM));
            drive.now += S;
        }
        assert!(drive.router.gauges()[0].blind, "{lie}");
    }
}
