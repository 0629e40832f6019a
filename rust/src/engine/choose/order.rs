//! The order of the hold by predicted work.
//!
//! Under first come, first served, a long uncached prompt holds up requests whose prompts are
//! cached, until their caches are lost too. That makes more work and longer waits. So under
//! `predictive` each request counts as younger by `hold_work_weight` times the time that its
//! uncached prompt takes there. The room of a replica goes to the oldest. A request that is cached
//! on another replica is expensive here, and thereby left to that one.
//!
//! A request of so much work is overtaken only by those that came at most the weighted difference
//! later. So no request starves even without the bounds of [`crate::engine::hold`], which hold as
//! well.

use super::Sight;
use crate::engine::demand::Demand;
use crate::engine::hold::{Front, Ticket};
use crate::id::{ReplicaSlot, RequestId};
use crate::time::{Instant, Span};

/// Requests of a queue that are compared, the oldest: each costs a walk of the tree.
pub(in crate::engine) const COMPARED_MAX: usize = 64;

impl Sight<'_> {
    /// The held requests of tenants that are due together, those first that are to get the room of a replica
    /// first: by age, or `by_work` too. `fronts`: each tenant's oldest. `left`: requests to be compared at
    /// most, of each tenant its part; less afterwards. `asks`: what a request that could leave the hold asks
    /// for, and when it was submitted.
    ///
    /// Between tenants age says nothing: whoever sends more than its share has the oldest. So the age of a
    /// request is that beyond its tenant's oldest. Of a tenant with requests that are due, the oldest stands
    /// for all.
    pub(in crate::engine) fn rank<'a>(
        &mut self,
        fronts: &[Front],
        (slot, by_work): (ReplicaSlot, bool),
        left: &mut usize,
        asks: impl Fn(RequestId) -> Option<(&'a Demand, Instant)>,
    ) -> Vec<(Ticket, RequestId)> {
        let each = (*left / fronts.len().max(1)).max(1);
        let shares = self.hold.shares(self.config);
        let (mut ranked, mut matches) = (Vec::new(), Vec::new());
        for front in fronts {
            let (mut first_ns, mut taken) = (None, 0);
            for (ticket, id) in self.hold.lane(*front) {
                let Some((demand, submitted_ns)) = asks(id) else {
                    continue;
                };
                if !self.fleet.fits(demand, slot, self.config, self.now) {
                    continue;
                }
                let later_ns = if by_work {
                    self.later_ns(demand, slot, &mut matches)
                } else {
                    Span::ZERO
                };
                let first_ns = *first_ns.get_or_insert(submitted_ns);
                let counts_ns = if shares {
                    Instant::ZERO + (submitted_ns - first_ns)
                } else {
                    submitted_ns
                };
                ranked.push((counts_ns + later_ns, (ticket, id)));
                taken += 1;
                if taken == each || (shares && self.hold.is_due(ticket, self.config, self.now)) {
                    break;
                }
            }
            *left = left.saturating_sub(taken);
        }
        if by_work {
            // A lane is by age, and of equals the older one stays first.
            ranked.sort_by_key(|(rank, _)| *rank);
        }
        ranked.into_iter().map(|(_, request)| request).collect()
    }

    /// How much later a request counts for the time that its uncached prompt takes there.
    fn later_ns(
        &mut self,
        demand: &Demand,
        slot: ReplicaSlot,
        matches: &mut Vec<(ReplicaSlot, u32)>,
    ) -> Span {
        matches.clear();
        self.cache.matches(&demand.blocks, matches);
        let here = matches.iter().find(|(owner, _)| *owner == slot);
        let blocks = here.map_or(0, |(_, blocks)| *blocks);
        let (uncached, token_ns) = self.fleet.work_of(demand, slot, blocks, self.config);
        let work_ns = Span::from_ns(u64::from(uncached) * u64::from(token_ns));
        Span::from_ns_f64(work_ns.ns_f64() * self.config.hold_work_weight)
    }
}
