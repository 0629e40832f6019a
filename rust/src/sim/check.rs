//! The faults of scenarios that cannot be simulated.

use super::fault::Fault;
use super::scenario::{Mode, Scenario, ScenarioError, Topology};
use super::workload::small;

/// Replicas of one scenario at most.
pub const REPLICAS_MAX: usize = 100_000;
/// Regions, and balancers in all, at most.
pub const REGIONS_MAX: usize = 1_000;
/// Longest simulated time: a month.
const SECONDS_MAX: f64 = 31.0 * 86_400.0;

fn fault<T>(text: impl Into<String>) -> Result<T, ScenarioError> {
    Err(ScenarioError(text.into()))
}

impl Scenario {
    /// Refuses what is impossible.
    ///
    /// # Errors
    ///
    /// The text names the field.
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        self.check_times()?;
        self.check_regions()?;
        self.check_network()?;
        self.check_clients()?;
        self.check_tenants()?;
        self.check_residency()?;
        for (index, one) in self.faults.iter().enumerate() {
            self.check_fault(one)
                .map_err(|error| ScenarioError(format!("faults[{index}].{error}")))?;
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), ScenarioError> {
        within("duration_s", self.duration_s, 1e-3, SECONDS_MAX)?;
        within("warmup_s", self.warmup_s, 0.0, SECONDS_MAX)?;
        within("drain_s", self.drain_s, 0.0, SECONDS_MAX)?;
        if self.warmup_s >= self.duration_s {
            return fault("warmup_s: must be below duration_s");
        }
        Ok(())
    }

    fn check_regions(&self) -> Result<(), ScenarioError> {
        if self.regions.is_empty() || self.regions.len() > REGIONS_MAX {
            return fault(format!("regions: expected 1 to {REGIONS_MAX}"));
        }
        for (index, region) in self.regions.iter().enumerate() {
            if region.name.is_empty() {
                return fault(format!("regions[{index}].name: must not be empty"));
            }
            if self.region(&region.name) != Some(index) {
                return fault(format!(
                    "regions[{index}].name: {} is there twice",
                    region.name
                ));
            }
            if region.balancers == 0 || region.balancers as usize > REGIONS_MAX {
                return fault(format!(
                    "regions[{index}].balancers: expected 1 to {REGIONS_MAX}"
                ));
            }
            for (group, of) in region.replicas.iter().enumerate() {
                if of.models.is_empty() || of.models.iter().any(String::is_empty) {
                    return fault(format!(
                        "regions[{index}].replicas[{group}].models: expected names"
                    ));
                }
                of.profile.validate().map_err(|error| {
                    ScenarioError(format!(
                        "regions[{index}].replicas[{group}].profile: {error}"
                    ))
                })?;
            }
        }
        if self.replicas() == 0 || self.replicas() > REPLICAS_MAX {
            return fault(format!(
                "regions: expected 1 to {REPLICAS_MAX} replicas in all"
            ));
        }
        if let Some(name) = &self.balancer_region {
            if self.region(name).is_none() {
                return fault(format!("balancer_region: there is no region {name}"));
            }
            if !self.topology.central() {
                return fault("balancer_region: for topologies global and oracle only");
            }
        }
        Ok(())
    }

    fn check_network(&self) -> Result<(), ScenarioError> {
        let network = &self.network;
        let len = self.regions.len();
        if network.rtt_ms.is_empty() && len > 1 {
            return fault("network.rtt_ms: needed with more than one region");
        }
        if !network.rtt_ms.is_empty()
            && (network.rtt_ms.len() != len || network.rtt_ms.iter().any(|row| row.len() != len))
        {
            return fault(format!("network.rtt_ms: expected {len} rows of {len}"));
        }
        for rtt_ms in network.rtt_ms.iter().flatten() {
            within("network.rtt_ms", *rtt_ms, 0.0, 60_000.0)?;
        }
        within("network.jitter_ms", network.jitter_ms, 0.0, 60_000.0)?;
        within("network.loss", network.loss, 0.0, 0.9)?;
        within(
            "network.clock_spread_s",
            network.clock_spread_s,
            0.0,
            SECONDS_MAX,
        )?;
        within("network.rto_ms", network.rto_ms, 0.0, 60_000.0)?;
        within(
            "network.connect_timeout_s",
            network.connect_timeout_s,
            1e-3,
            SECONDS_MAX,
        )?;
        within(
            "network.stall_timeout_s",
            network.stall_timeout_s,
            1e-3,
            SECONDS_MAX,
        )
    }

    fn check_clients(&self) -> Result<(), ScenarioError> {
        let clients = &self.clients;
        within("clients.ramp_s", clients.ramp_s, 0.0, SECONDS_MAX)?;
        within("clients.rate_scale", clients.rate_scale, 1e-6, 1e6)?;
        within("clients.think_scale", clients.think_scale, 0.0, 1e6)?;
        within(
            "clients.failure_pause_s",
            clients.failure_pause_s,
            1e-3,
            SECONDS_MAX,
        )?;
        if clients.max_tokens == Some(0) {
            return fault("clients.max_tokens: must be above zero");
        }
        if clients.mode != Mode::Closed && !clients.users.is_empty() {
            return fault("clients.users: for mode closed only");
        }
        if clients.mode == Mode::Closed && clients.users.values().all(|users| *users == 0) {
            return fault("clients.users: no region sends anything");
        }
        for name in clients.users.keys() {
            if self.region(name).is_none() {
                return fault(format!("clients.users: there is no region {name}"));
            }
        }
        if let Some(leave) = &clients.leave {
            within("clients.leave.probability", leave.probability, 0.0, 1.0)?;
            within("clients.leave.from_s", leave.from_s, 0.0, SECONDS_MAX)?;
            within("clients.leave.to_s", leave.to_s, leave.from_s, SECONDS_MAX)?;
        }
        Ok(())
    }

    fn check_tenants(&self) -> Result<(), ScenarioError> {
        if !self.tenants.is_empty() && self.clients.tenants > 0 {
            return fault("tenants: clients.tenants names others");
        }
        for (index, of) in self.tenants.iter().enumerate() {
            if of.name.is_empty() || of.weight == 0 {
                return fault(format!(
                    "tenants[{index}]: expected a name and a weight above zero"
                ));
            }
            let mut others = self.tenants[..index].iter();
            if others.any(|other| other.name == of.name) {
                return fault(format!("tenants[{index}].name: {} is there twice", of.name));
            }
        }
        Ok(())
    }

    /// How many tenants there are; 0: requests name none.
    pub(super) fn tenants_len(&self) -> u32 {
        if self.tenants.is_empty() {
            self.clients.tenants
        } else {
            small(self.tenants.len())
        }
    }

    fn check_residency(&self) -> Result<(), ScenarioError> {
        within("forged_hops", self.forged_hops, 0.0, 1.0)?;
        let limited = self.clients.requests_per_minute > 0;
        if limited && self.clients.tenants == 0 {
            return fault("clients.requests_per_minute: expected clients.tenants as well");
        }
        if limited && self.topology.central() {
            return fault("clients.requests_per_minute: for topologies skylb and local only");
        }
        if !self.residency.is_empty() && self.topology.central() {
            return fault("residency: for topologies skylb and local only");
        }
        for (index, rule) in self.residency.iter().enumerate() {
            let place = || format!("residency[{index}]");
            if rule.regions.is_empty() {
                return fault(format!("{}.regions: expected names", place()));
            }
            if let Some(name) = rule.regions.iter().find(|name| self.region(name).is_none()) {
                return fault(format!("{}.regions: there is no region {name}", place()));
            }
            if rule
                .tenant
                .is_some_and(|tenant| tenant >= self.tenants_len())
            {
                return fault(format!("{}.tenant: there is none of this number", place()));
            }
        }
        Ok(())
    }

    fn check_fault(&self, one: &Fault) -> Result<(), ScenarioError> {
        let (at_s, until_s) = one.times();
        within("at_s", at_s, 0.0, SECONDS_MAX)?;
        if let Some(until_s) = until_s {
            within("until_s", until_s, at_s, SECONDS_MAX)?;
        }
        if let Fault::Slow { factor, .. } = one {
            within("factor", *factor, 1e-3, 1e6)?;
        }
        if let Fault::Errors { rate, .. } = one {
            within("rate", *rate, 0.0, 1.0)?;
        }
        let named: &[(&str, &String)] = match one {
            Fault::Cut { between, .. } => &[("between", &between.0), ("between", &between.1)],
            Fault::Drop { from, to, .. } => &[("from", from), ("to", to)],
            Fault::Evacuate { region, .. } => &[("region", region)],
            _ => &[],
        };
        if let Some((field, name)) = named.iter().find(|(_, name)| self.region(name).is_none()) {
            return fault(format!("{field}: there is no region {name}"));
        }
        self.check_balancers_named(one)?;
        match one.replica() {
            Some(replica) if replica as usize >= self.replicas() => fault(format!(
                "replica: there is no replica {replica}, they are numbered from 0 to {}",
                self.replicas() - 1
            )),
            _ => Ok(()),
        }
    }

    /// Faults of balancers name those that there are.
    fn check_balancers_named(&self, one: &Fault) -> Result<(), ScenarioError> {
        let regions = self.balancers();
        let region = |balancer: u32| regions.get(balancer as usize).copied();
        let unknown = |field: &str, balancer: u32| {
            fault(format!(
                "{field}: there is no balancer {balancer}, they are numbered from 0 to {}",
                regions.len().saturating_sub(1)
            ))
        };
        if one.of_balancers() && self.topology != Topology::Skylb {
            return fault("kind: kill and part are for topology skylb only");
        }
        match one {
            Fault::Kill { balancer, .. } if region(*balancer).is_none() => {
                unknown("balancer", *balancer)
            }
            Fault::Part { balancers, .. } => {
                let (Some(low), Some(high)) = (region(balancers.0), region(balancers.1)) else {
                    return unknown("balancers", balancers.0.max(balancers.1));
                };
                if low != high || balancers.0 == balancers.1 {
                    return fault("balancers: expected two of one region");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn within(name: &str, value: f64, low: f64, high: f64) -> Result<(), ScenarioError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    fault(format!("{name}: {value} is not between {low} and {high}"))
}
