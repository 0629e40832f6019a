//! Makes the result of a run.

use std::collections::BTreeMap;

use super::balancer::Brain;
use super::result::{Fairness, ReplicaReport, Report, SCHEMA, Section, Series};
use super::scenario::seconds;
use super::simulator::Simulator;
use super::stats::Tally;
use crate::engine::hold::ahead_max_tokens;
use crate::prompt::class::Class;

type Sections = BTreeMap<String, Section>;

impl Simulator {
    pub(super) fn report_now(&self) -> Report {
        let measures = &self.measures;
        let now_ns = self.queue.now_ns();
        let measured_s = seconds(
            now_ns
                .min(measures.until_ns)
                .saturating_sub(measures.from_ns),
        );
        let names = || {
            self.scenario
                .regions
                .iter()
                .map(|region| region.name.as_str())
        };
        let name = |region: u32| self.scenario.regions[region as usize].name.as_str();
        let tallies = self.tallies_now();
        let groups = self.groups_now(measured_s);
        let mut total = Tally::default();
        for tally in &tallies {
            total.merge(tally);
        }
        let regions: BTreeMap<String, Section> = names()
            .zip(&tallies)
            .map(|(name, tally)| (name.to_owned(), tally.section(measured_s)))
            .collect();
        let replicas: Vec<ReplicaReport> = self
            .replicas
            .iter()
            .map(|replica| replica.report(name(replica.region)))
            .collect();
        Report {
            schema: SCHEMA,
            seed: self.scenario.seed,
            topology: self.scenario.topology.name(),
            policy: self.policy_name(),
            now_s: seconds(now_ns),
            done: self.done,
            measured_s,
            events: self.events,
            total: total.section(measured_s),
            regions,
            tenants: groups.0,
            fairness: self.fairness(),
            classes: groups.1,
            load_spread: measures.spread(0, &replicas.iter().collect::<Vec<_>>()),
            region_load_spread: names()
                .enumerate()
                .map(|(region, name)| (region + 1, name))
                .filter(|(_, name)| replicas.iter().any(|of| of.region == *name))
                .map(|(place, name)| {
                    let own: Vec<_> = replicas.iter().filter(|of| of.region == name).collect();
                    (name.to_owned(), measures.spread(place, &own))
                })
                .collect(),
            series: Series::sum(&measures.series),
            region_series: names()
                .map(str::to_owned)
                .zip(measures.series.iter().cloned())
                .collect(),
            replicas,
            forwards: self.exchange.report(self.duration_ns),
            shares: self.sharing.report(self.duration_ns),
            balancers: self
                .balancers
                .iter()
                .map(|of| of.report(name(of.region)))
                .collect(),
            records: measures.records.clone(),
        }
    }

    /// By region, with those that have not ended.
    fn tallies_now(&self) -> Vec<Tally> {
        let mut tallies = self.measures.tallies.clone();
        for (_, live) in self.live.iter().filter(|(_, live)| live.measured) {
            tallies[live.region as usize].unfinished += 1;
        }
        tallies
    }

    /// The largest figures of all balancers, and what the gap may be by them.
    fn fairness(&self) -> Option<Fairness> {
        let tenants = &self.scenario.tenants;
        let weight = |number: usize| tenants.get(number).map_or(1, |of| of.weight);
        let weights: Vec<_> = (0..self.tenant_names.len()).map(weight).collect();
        let ledgers = self.balancers.iter().filter_map(|of| of.ledger.as_ref());
        let mut found = ledgers
            .map(|ledger| ledger.fairness(&weights))
            .reduce(|one, other| Fairness {
                gap_tokens: one.gap_tokens.max(other.gap_tokens),
                request_tokens: one.request_tokens.max(other.request_tokens),
                error_tokens: one.error_tokens.max(other.error_tokens),
                ..one
            })?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let ahead = ahead_max_tokens(&self.config) as f64;
        found.bound_tokens = 2.0 * (ahead + found.request_tokens + 2.0 * found.error_tokens);
        Some(found)
    }

    /// By tenant and by class, with those that have not ended.
    fn groups_now(&self, measured_s: f64) -> (Sections, Sections) {
        let mut groups = self.measures.groups.clone();
        for (_, live) in self.live.iter().filter(|(_, live)| live.measured) {
            groups.of(live).for_each(|tally| tally.unfinished += 1);
        }
        let tenants = (0..).zip(&groups.tenants).map(|(number, tally)| {
            let name = self.tenant_name(number);
            (name, tally.section(measured_s))
        });
        let classes = Class::ALL.into_iter().zip(&groups.classes);
        let classes =
            classes.map(|(class, tally)| (class.name().to_owned(), tally.section(measured_s)));
        let sent = |(_, section): &(String, Section)| section.requests > 0;
        (
            tenants.filter(sent).collect(),
            classes.filter(sent).collect(),
        )
    }

    fn policy_name(&self) -> &'static str {
        match self.balancers[0].brain {
            Brain::Engine(_) => self.config.policy.name(),
            Brain::Oracle(_) => "oracle",
        }
    }
}
