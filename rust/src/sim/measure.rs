//! What is measured during a run, and the report that is made of it.

use std::iter::Sum;
use std::mem;

use super::fleet::Replica;
use super::live::{Live, Table};
use super::result::{Records, ReplicaReport, Series, Spread};
use super::scenario::{Scenario, nanos, seconds};
use super::stats::Tally;
use super::workload::small;
use crate::id::Nanos;
use crate::prompt::class::CLASSES;

/// Tenants whose figures are told apart.
const TENANTS_SHOWN_MAX: usize = 1_000;

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
    pub(super) tallies: Vec<Tally>,
    /// By tenant and by class, where requests have any.
    pub(super) groups: Groups,
    /// By region: seconds past, and the one under way.
    pub(super) series: Vec<Series>,
    seconds: Vec<Second>,
    /// Over all regions, and by region.
    spreads: Vec<Vec<f64>>,
    pub(super) records: Option<Records>,
    pub(super) from_ns: Nanos,
    pub(super) until_ns: Nanos,
}

impl Measures {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            tallies: vec![Tally::default(); scenario.regions.len()],
            groups: Groups::new(scenario),
            series: vec![Series::default(); scenario.regions.len()],
            seconds: scenario.regions.iter().map(|_| Second::default()).collect(),
            spreads: vec![Vec::new(); scenario.regions.len() + 1],
            records: scenario.records.then(Records::default),
            from_ns: nanos(scenario.warmup_s),
            until_ns: nanos(scenario.duration_s),
        }
    }

    /// A request is sent.
    pub(super) fn sent(&mut self, live: &Live) {
        let sent = |tally: &mut Tally| tally.requests += u64::from(live.measured);
        sent(&mut self.tallies[live.region as usize]);
        self.groups.of(live).for_each(sent);
    }

    /// A token came so long after the one before.
    pub(super) fn token(&mut self, live: &Live, gap_ns: Nanos) {
        let came = |tally: &mut Tally| tally.inter_token.add(gap_ns);
        came(&mut self.tallies[live.region as usize]);
        self.groups.of(live).for_each(came);
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
        let second = &mut self.seconds[live.region as usize];
        if ended.is_ok() {
            second.input_tokens += u64::from(input);
            second.output_tokens += u64::from(live.output);
            second.cached_tokens += u64::from(live.cached);
        } else {
            second.failed += 1;
        }
        let inside = (self.from_ns..=self.until_ns).contains(&at_ns);
        let count = |tally: &mut Tally| tally.count(live, (input, inside), ended, at_ns);
        count(&mut self.tallies[live.region as usize]);
        self.groups.of(live).for_each(count);
        if !live.measured {
            return;
        }
        let since = |at_ns: Nanos| at_ns.saturating_sub(live.sent_ns);
        if let Some(records) = &mut self.records {
            records.id.push(id);
            records.sent_s.push(seconds(live.sent_ns));
            records.hold_s.push(seconds(live.held_ns));
            records
                .ttft_s
                .push(live.first_byte_ns.map(|first_ns| seconds(since(first_ns))));
            records.predicted_s.push(live.predicted_ns.map(seconds));
            records.e2e_s.push(seconds(since(at_ns)));
            records.replica.push(live.replica);
            records.cached_tokens.push(live.cached);
            records.attempts.push(live.tries);
            records.outcome.push(ended.err().unwrap_or("ok").to_owned());
        }
    }

    /// A second has passed.
    pub(super) fn second(&mut self, replicas: &mut [Replica], live: &Table, measured: bool) {
        let regions = self.series.len();
        let mut rows = vec![Row::default(); regions];
        let mut loads = vec![Loads::default(); regions + 1];
        for replica in replicas {
            let (running, waiting) = replica.load();
            let region = replica.region as usize;
            rows[region].running += small(running);
            rows[region].waiting += small(waiting);
            if replica.up {
                loads[0].add(running + waiting);
                loads[region + 1].add(running + waiting);
            }
            if measured {
                replica.sample();
            }
        }
        for (_, live) in live.iter() {
            rows[live.region as usize].in_flight += 1;
            rows[live.region as usize].held += u32::from(live.held_since_ns.is_some());
        }
        if measured {
            for (spreads, loads) in self.spreads.iter_mut().zip(&loads) {
                spreads.extend(loads.spread());
            }
        }
        let seconds = self.seconds.iter_mut().map(mem::take);
        for ((series, second), row) in self.series.iter_mut().zip(seconds).zip(rows) {
            series.push(row, &second);
        }
    }

    /// The spread at one place of `spreads`, over these replicas.
    pub(super) fn spread(&self, place: usize, replicas: &[&ReplicaReport]) -> Spread {
        let mut sorted = self.spreads[place].clone();
        sorted.sort_by(f64::total_cmp);
        let len = f64::from(small(sorted.len()));
        let nine_of_ten = sorted.len().saturating_sub(1) * 9 / 10;
        let means = || replicas.iter().map(|of| of.outstanding_mean);
        let (least, most) = (
            means().fold(f64::INFINITY, f64::min),
            means().fold(0.0, f64::max),
        );
        Spread {
            mean: (!sorted.is_empty()).then(|| sorted.iter().sum::<f64>() / len),
            p90: sorted.get(nine_of_ten).copied(),
            max: sorted.last().copied(),
            of_means: (least > 0.0 && least.is_finite()).then(|| most / least),
        }
    }
}

/// Figures by tenant and by class.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    pub(super) tenants: Vec<Tally>,
    /// Empty where no request has one.
    pub(super) classes: Vec<Tally>,
}

impl Groups {
    fn new(scenario: &Scenario) -> Self {
        let tenants = (scenario.tenants_len() as usize).min(TENANTS_SHOWN_MAX);
        let own = scenario.tenants.iter().any(|of| !of.classes.is_empty());
        let classed = own || !scenario.clients.classes.is_empty();
        Self {
            tenants: vec![Tally::default(); tenants],
            classes: vec![Tally::default(); if classed { CLASSES } else { 0 }],
        }
    }

    /// Those in which a request counts.
    pub(super) fn of(&mut self, live: &Live) -> impl Iterator<Item = &mut Tally> {
        let tenant = live.tenant.map_or(usize::MAX, |tenant| tenant as usize);
        let tenant = self.tenants.get_mut(tenant).into_iter();
        tenant.chain(self.classes.get_mut(live.class as usize))
    }
}

/// Gauges of one second and region.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    in_flight: u32,
    held: u32,
    running: u32,
    waiting: u32,
}

/// Least and most outstanding requests of some replicas.
#[derive(Debug, Clone, Copy, Default)]
struct Loads {
    range: Option<(usize, usize)>,
}

impl Loads {
    fn add(&mut self, load: usize) {
        let (least, most) = self.range.unwrap_or((load, load));
        self.range = Some((least.min(load), most.max(load)));
    }

    pub(super) fn spread(&self) -> Option<f64> {
        let (least, most) = self.range?;
        Some(f64::from(small(most)) / f64::from(small(least.max(1))))
    }
}

impl Series {
    fn push(&mut self, row: Row, second: &Second) {
        self.in_flight.push(row.in_flight);
        self.held.push(row.held);
        self.running.push(row.running);
        self.waiting.push(row.waiting);
        self.input_tokens.push(second.input_tokens);
        self.output_tokens.push(second.output_tokens);
        self.cached_tokens.push(second.cached_tokens);
        self.failed.push(second.failed);
    }

    /// Several of equal length as one.
    pub(super) fn sum(all: &[Self]) -> Self {
        Self {
            in_flight: columns(all, |of| &of.in_flight),
            held: columns(all, |of| &of.held),
            running: columns(all, |of| &of.running),
            waiting: columns(all, |of| &of.waiting),
            input_tokens: columns(all, |of| &of.input_tokens),
            output_tokens: columns(all, |of| &of.output_tokens),
            cached_tokens: columns(all, |of| &of.cached_tokens),
            failed: columns(all, |of| &of.failed),
        }
    }
}

fn columns<T: Copy + Sum>(all: &[Series], column: impl Fn(&Series) -> &Vec<T>) -> Vec<T> {
    let len = all.first().map_or(0, |first| column(first).len());
    let row = |at: usize| {
        all.iter()
            .filter_map(|of| column(of).get(at).copied())
            .sum()
    };
    (0..len).map(row).collect()
}
