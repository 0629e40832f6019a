//! What is measured while a run goes on, and the report made of it.

use std::collections::BTreeMap;
use std::mem;

use super::balancer::Brain;
use super::fleet::Replica;
use super::live::Live;
use super::result::{Records, Report, SCHEMA, Section, Series, Spread};
use super::scenario::{Scenario, nanos, seconds};
use super::simulator::Simulator;
use super::stats::Tally;
use super::workload::small;
use crate::engine::id::Nanos;

/// Tokens and failures of the second under way.
#[derive(Debug, Default)]
struct Second {
    input_tokens: u64,
    output_tokens: u64,
    cached_tokens: u64,
    failed: u32,
}

/// All figures of a run.
#[derive(Debug)]
pub(super) struct Measures {
    /// By region.
    tallies: Vec<Tally>,
    series: Series,
    second: Second,
    spreads: Vec<f64>,
    records: Option<Records>,
    from_ns: Nanos,
    until_ns: Nanos,
}

impl Measures {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            tallies: vec![Tally::default(); scenario.regions.len()],
            series: Series::default(),
            second: Second::default(),
            spreads: Vec::new(),
            records: scenario.records.then(Records::default),
            from_ns: nanos(scenario.warmup_s),
            until_ns: nanos(scenario.duration_s),
        }
    }

    /// A request is sent.
    pub(super) fn sent(&mut self, live: &Live) {
        self.tallies[live.region as usize].requests += u64::from(live.measured);
    }

    /// A token came so long after the one before.
    pub(super) fn token(&mut self, region: u32, gap_ns: Nanos) {
        self.tallies[region as usize].inter_token.add(gap_ns);
    }

    /// The client knows at `at_ns` how its request ended.
    pub(super) fn ended(
        &mut self,
        live: &Live,
        id: u64,
        input: u32,
        ended: Result<(), &'static str>,
        at_ns: Nanos,
    ) {
        let tally = &mut self.tallies[live.region as usize];
        if ended.is_ok() {
            self.second.input_tokens += u64::from(input);
            self.second.output_tokens += u64::from(live.output);
            self.second.cached_tokens += u64::from(live.cached);
            if (self.from_ns..=self.until_ns).contains(&at_ns) {
                tally.answered += 1;
                tally.input_tokens += u64::from(input);
                tally.output_tokens += u64::from(live.output);
                tally.cached_tokens += u64::from(live.cached);
            }
        } else {
            self.second.failed += 1;
        }
        if !live.measured {
            return;
        }
        let since = |at_ns: Nanos| at_ns.saturating_sub(live.sent_ns);
        tally.retries += u64::from(live.attempt.saturating_sub(1));
        match ended {
            Ok(()) => {
                tally.completed += 1;
                tally.ttft.add(since(live.first_byte_ns.unwrap_or(at_ns)));
                tally.e2e.add(since(at_ns));
                tally.hold.add(live.held_ns);
            }
            Err(kind) => *tally.failed.entry(kind).or_default() += 1,
        }
        if let Some(records) = &mut self.records {
            records.id.push(id);
            records.sent_s.push(seconds(live.sent_ns));
            records.hold_s.push(seconds(live.held_ns));
            records
                .ttft_s
                .push(live.first_byte_ns.map(|first_ns| seconds(since(first_ns))));
            records.e2e_s.push(seconds(since(at_ns)));
            records.replica.push(live.replica);
            records.cached_tokens.push(live.cached);
            records.attempts.push(live.attempt);
            records.outcome.push(ended.err().unwrap_or("ok").to_owned());
        }
    }

    /// A second has passed.
    pub(super) fn second(
        &mut self,
        replicas: &mut [Replica],
        in_flight: u32,
        held: u32,
        measured: bool,
    ) {
        let (mut running, mut waiting, mut least, mut most) = (0, 0, usize::MAX, 0);
        for replica in replicas {
            let load = replica.load();
            running += load.0;
            waiting += load.1;
            if replica.up {
                least = least.min(load.0 + load.1);
                most = most.max(load.0 + load.1);
            }
            if measured {
                replica.sample();
            }
        }
        if measured && least != usize::MAX {
            self.spreads
                .push(f64::from(small(most)) / f64::from(small(least.max(1))));
        }
        let second = mem::take(&mut self.second);
        let series = &mut self.series;
        series.in_flight.push(in_flight);
        series.held.push(held);
        series.running.push(small(running));
        series.waiting.push(small(waiting));
        series.input_tokens.push(second.input_tokens);
        series.output_tokens.push(second.output_tokens);
        series.cached_tokens.push(second.cached_tokens);
        series.failed.push(second.failed);
    }

    pub(super) fn report(&self, run: &Simulator) -> Report {
        let now_ns = run.queue.now_ns();
        let measured_s = seconds(now_ns.min(self.until_ns).saturating_sub(self.from_ns));
        let names = || {
            run.scenario
                .regions
                .iter()
                .map(|region| region.name.as_str())
        };
        let name = |region: u32| run.scenario.regions[region as usize].name.as_str();
        let mut tallies = self.tallies.clone();
        for (_, live) in run.live.iter().filter(|(_, live)| live.measured) {
            tallies[live.region as usize].unfinished += 1;
        }
        let mut total = Tally::default();
        for tally in &tallies {
            total.merge(tally);
        }
        let regions: BTreeMap<String, Section> = names()
            .zip(&tallies)
            .map(|(name, tally)| (name.to_owned(), tally.section(measured_s)))
            .collect();
        let replicas: Vec<_> = run
            .replicas
            .iter()
            .map(|replica| replica.report(name(replica.region)))
            .collect();
        let means = || replicas.iter().map(|replica| replica.outstanding_mean);
        let (least, most) = (
            means().fold(f64::INFINITY, f64::min),
            means().fold(0.0, f64::max),
        );
        let engine = matches!(run.balancers[0].brain, Brain::Engine(_));
        Report {
            schema: SCHEMA,
            seed: run.scenario.seed,
            topology: run.scenario.topology.name(),
            policy: if engine {
                run.config.policy.name()
            } else {
                "oracle"
            },
            now_s: seconds(now_ns),
            done: run.done,
            measured_s,
            events: run.events,
            total: total.section(measured_s),
            regions,
            load_spread: Spread {
                of_means: (least > 0.0 && least.is_finite()).then(|| most / least),
                ..spread(&self.spreads)
            },
            series: self.series.clone(),
            replicas,
            balancers: run
                .balancers
                .iter()
                .map(|of| of.report(name(of.region)))
                .collect(),
            records: self.records.clone(),
        }
    }
}

fn spread(samples: &[f64]) -> Spread {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let len = f64::from(small(sorted.len()));
    let nine_of_ten = sorted.len().saturating_sub(1) * 9 / 10;
    Spread {
        mean: (!sorted.is_empty()).then(|| sorted.iter().sum::<f64>() / len),
        p90: sorted.get(nine_of_ten).copied(),
        max: sorted.last().copied(),
        of_means: None,
    }
}
