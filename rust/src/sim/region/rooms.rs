//! What is known of the room of shared replicas, for the invariants.

use crate::engine::config::{AllowanceRule, Config, PushRule};
use crate::id::Nanos;
use crate::sim::fault::Fault;
use crate::sim::live::Pushed;
use crate::sim::region::state::{JUDGE_NS, SILENT_NS};
use crate::sim::scenario::Scenario;

/// Time in which all turns must have passed, and pages come.
const PASSED_NS: Nanos = 1_000_000_000;
/// A balancer is gone for so long before others must have forgotten it.
pub(in crate::sim) const FORGOTTEN_NS: Nanos = SILENT_NS + 2 * JUDGE_NS;

/// What is known of the room of shared replicas.
#[derive(Debug, Default)]
pub(in crate::sim) struct Rooms {
    /// Room is looked at.
    pub(in crate::sim) exact: bool,
    /// By replica: since when nothing waits there, nor is on its way.
    pub(in crate::sim) since_ns: Vec<Option<Nanos>>,
    /// By replica: the last push there.
    pub(in crate::sim) pushed: Vec<Option<Pushed>>,
    /// By replica: since when somebody has been seen to wait while there is room.
    pub(in crate::sim) stuck_ns: Vec<Option<Nanos>>,
    /// For how long that may be: a balancer that is gone may have the turn until it is given up.
    pub(in crate::sim) stuck_max_ns: Nanos,
    /// By balancer: since when it is gone.
    pub(in crate::sim) gone_ns: Vec<Option<Nanos>>,
}

impl Rooms {
    pub(in crate::sim) fn new(scenario: &Scenario, config: &Config, replicas: usize) -> Self {
        let sound = scenario.faults.iter().all(Fault::of_balancers);
        let rule = config.push == PushRule::Pending && config.allowance == AllowanceRule::One;
        let lossless = scenario.network.loss <= 0.0;
        Self {
            exact: sound && lossless && rule && scenario.residency.is_empty(),
            since_ns: vec![Some(0); replicas],
            pushed: vec![None; replicas],
            stuck_ns: vec![None; replicas],
            stuck_max_ns: if scenario.faults.is_empty() {
                PASSED_NS
            } else {
                PASSED_NS + FORGOTTEN_NS
            },
            gone_ns: vec![None; scenario.balancers().len()],
        }
    }

    /// A balancer is gone, or there again.
    pub(in crate::sim) fn gone(&mut self, balancer: u32, since_ns: Option<Nanos>) {
        self.gone_ns[balancer as usize] = since_ns;
    }
}
