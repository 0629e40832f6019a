//! The hold's figures for operators.

use std::cmp::Reverse;

use serde::Serialize;

use super::{Hold, accounts, weight};
use crate::engine::config::Config;
use crate::id::{ModelId, ReplicaId};
use crate::prompt::class::Class;

/// Lines of the hold that `state` shows at most.
const LINES_SHOWN_MAX: usize = 100;
/// Tenants that wait which `state` shows at most.
const TENANTS_SHOWN_MAX: usize = 100;

#[derive(Debug, Serialize)]
struct HeldPartition<'a> {
    model: &'a str,
    bound_replica: Option<ReplicaId>,
    requests: usize,
    /// Of those, the ones that let room pass and wait for a replica.
    by_choice: usize,
}

#[derive(Debug, Serialize)]
struct HoldClass {
    class: &'static str,
    weight: u32,
    /// Tokens over weight that it has had beyond the class that has had least.
    ahead_tokens: u64,
}

#[derive(Debug, Serialize)]
struct HeldTenant {
    tenant: String,
    class: &'static str,
    requests: u32,
    weight: u32,
    /// Tokens over weight that it has had beyond the clock of its class.
    ahead_tokens: u64,
}

/// The hold, as operators see it.
#[derive(Debug, Serialize)]
pub(in crate::engine) struct HoldState<'a> {
    requests: usize,
    len_max: usize,
    bytes: u64,
    bytes_max: u64,
    tenants: usize,
    /// Those with most requests. Empty where tenants share nothing.
    waiting_tenants: Vec<HeldTenant>,
    classes: Vec<HoldClass>,
    lines: Vec<HeldPartition<'a>>,
}

impl Hold {
    fn waiting_tenants(&self) -> Vec<HeldTenant> {
        let accounts = self.accounts.iter().filter(|(_, of)| of.sum.waiting > 0);
        let mut most: Vec<_> = accounts.collect();
        most.sort_unstable_by_key(|(number, of)| (Reverse(of.sum.waiting), *number));
        most.truncate(TENANTS_SHOWN_MAX);
        let tenants = most.into_iter().map(|(number, of)| HeldTenant {
            tenant: self.payers.called(of.purse().payer),
            class: of.purse().class.name(),
            requests: of.sum.waiting,
            weight: self.accounts.weight(number),
            ahead_tokens: accounts::tokens(self.accounts.ahead(number)),
        });
        tenants.collect()
    }

    /// `name_of`: a model's name.
    pub(in crate::engine) fn state<'a>(
        &self,
        config: &Config,
        name_of: impl Fn(ModelId) -> Option<&'a str>,
    ) -> HoldState<'a> {
        let mut lines: Vec<_> = self.lines().collect();
        lines.sort_unstable_by_key(|partition| Reverse(self.partition_len(*partition)));
        lines.truncate(LINES_SHOWN_MAX);
        let lines = lines.into_iter().map(|partition| HeldPartition {
            model: name_of(partition.model).unwrap_or_default(),
            bound_replica: partition.bound,
            requests: self.partition_len(partition),
            by_choice: self.partition_len(partition) - self.open_len(partition),
        });
        let classes = Class::ALL.into_iter().zip(self.ahead());
        let classes = classes.map(|(class, ahead_tokens)| HoldClass {
            class: class.name(),
            weight: weight(class, config),
            ahead_tokens,
        });
        HoldState {
            requests: self.len(),
            len_max: config.hold_len_max,
            bytes: self.bytes(),
            bytes_max: config.hold_bytes_max,
            tenants: self.payers_len(),
            waiting_tenants: self.waiting_tenants(),
            classes: classes.collect(),
            lines: lines.collect(),
        }
    }
}
