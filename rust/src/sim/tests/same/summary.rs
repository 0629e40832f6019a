//! A run's result as a few lines to read and hashes of the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use super::hash;
use crate::sim::Simulator;
use crate::sim::result::{BalancerReport, Distribution, Report, Section};

/// Lines of one run.
pub(super) fn summary(run: &Simulator) -> String {
    let report = run.report();
    let mut text = String::new();
    let mut line = |key: &str, words: String| {
        let _ = writeln!(text, "{key}: {words}");
    };
    line(
        "run",
        format!(
            "seed={} policy={} now_s={} events={}",
            report.seed, report.policy, report.now_s, report.events
        ),
    );
    line("total", section(&report.total));
    for (name, of) in report.regions.iter().filter(|_| report.regions.len() > 1) {
        line(&format!("region {name}"), section(of));
    }
    for (name, of) in [
        ("ttft_s", &report.total.ttft_s),
        ("e2e_s", &report.total.e2e_s),
        ("hold_s", &report.total.hold_s),
        ("predicted_s", &report.total.prediction.predicted_s),
    ] {
        line(name, distribution(of));
    }
    line(
        "replicas",
        words(report.replicas.iter().map(|of| of.requests)),
    );
    line("spread", format!("mean={}", short(report.load_spread.mean)));
    if let Some(forwards) = &report.forwards {
        line(
            "forwards",
            format!(
                "sent={} arrived={} refused={} over_room={} summaries={} digests={}",
                forwards.sent,
                forwards.arrived,
                forwards.refused,
                forwards.over_room,
                forwards.summaries,
                forwards.digests
            ),
        );
    }
    line("engine", counters(&report.balancers));
    line("hashes", hashes(run, &report));
    text
}

fn section(of: &Section) -> String {
    let mut text = format!(
        "requests={} completed={} retries={} hit_rate={} output_tokens={}",
        of.requests,
        of.completed,
        of.retries,
        short(of.hit_rate),
        of.output_tokens
    );
    for (kind, count) in &of.failed {
        let _ = write!(text, " {kind}={count}");
    }
    text
}

fn distribution(of: &Distribution) -> String {
    format!(
        "count={} mean={} p50={} p99={}",
        of.count,
        short(of.mean),
        short(of.p50),
        short(of.p99)
    )
}

/// To read; the hashes have it whole.
fn short(value: Option<f64>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| format!("{value:.4}"))
}

fn words(values: impl Iterator<Item = u64>) -> String {
    let words: Vec<_> = values.map(|value| value.to_string()).collect();
    words.join(" ")
}

/// The engine's counters that are not zero, a value per balancer.
fn counters(balancers: &[BalancerReport]) -> String {
    let names: BTreeSet<_> = balancers.iter().flat_map(|of| of.counters.keys()).collect();
    let mut text = String::new();
    for name in names {
        let values = balancers
            .iter()
            .map(|of| of.counters.get(name).copied().unwrap_or(0));
        if values.clone().any(|value| value > 0) {
            let values: Vec<_> = values.map(|value| value.to_string()).collect();
            let _ = write!(text, " {name}={}", values.join("+"));
        }
    }
    text.trim_start().to_owned()
}

/// Hashes of all that is not above, part by part.
fn hashes(run: &Simulator, report: &Report) -> String {
    let sections = (&report.total, &report.regions, &report.forwards);
    let spreads = (&report.load_spread, &report.region_load_spread);
    let series = (&report.series, &report.region_series);
    let probes: Vec<_> = report
        .balancers
        .iter()
        .map(|of| (&of.region, of.probes, of.hold_peak))
        .collect();
    let parts: BTreeMap<_, _> = [
        ("decisions", run.decisions),
        ("requests", hash_of(&report.records)),
        ("figures", hash_of(&(sections, spreads))),
        ("seconds", hash_of(&series)),
        ("replicas", hash_of(&report.replicas)),
        ("probes", hash_of(&probes)),
    ]
    .into();
    let words: Vec<_> = parts
        .into_iter()
        .map(|(name, hash)| format!("{name}={hash:016x}"))
        .collect();
    words.join(" ")
}

fn hash_of(value: &impl Serialize) -> u64 {
    hash(&serde_json::to_vec(value).unwrap())
}
