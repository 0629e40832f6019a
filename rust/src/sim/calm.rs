//! Which invariants can be checked in a scenario: some hold only without faults.

use super::scenario::Scenario;
use crate::engine::config::{AllowanceRule, Config, PushRule};

/// What a scenario without faults allows to be looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calm {
    /// No faults.
    pub(super) quiet: bool,
    /// One balancer per replica pushes by the paper's rule, and nobody leaves: what waits in a
    /// replica is known exactly.
    pub(super) gate: bool,
}

impl Calm {
    pub(super) fn of(scenario: &Scenario, config: &Config) -> Self {
        let quiet = scenario.faults.is_empty();
        let rule = config.push == PushRule::Pending && config.allowance == AllowanceRule::One;
        let alone = scenario.topology.central()
            || scenario.regions.iter().all(|region| region.balancers == 1);
        Self {
            quiet,
            gate: quiet && rule && alone && scenario.clients.leave.is_none(),
        }
    }
}
