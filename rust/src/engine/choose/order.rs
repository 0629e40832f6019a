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
use crate::id::ReplicaSlot;
use crate::time::{Instant, Span};

/// Requests of a queue that are compared, the oldest: each costs a walk of the tree.
pub(in crate::engine) const COMPARED_MAX: usize = 64;

impl Sight<'_> {
    /// These held requests, those first that are to get the room of a replica first. They come by age,
    /// each with what it asks for and when it was submitted; [`COMPARED_MAX`] at most are worth it.
    pub(in crate::engine) fn rank<'a, T>(
        &mut self,
        held: impl Iterator<Item = (T, &'a Demand, Instant)>,
        slot: ReplicaSlot,
    ) -> Vec<T> {
        let (mut ranked, mut matches) = (Vec::new(), Vec::new());
        for (request, demand, submitted_ns) in held {
            matches.clear();
            self.cache.matches(&demand.blocks, &mut matches);
            let here = matches.iter().find(|(owner, _)| *owner == slot);
            let blocks = here.map_or(0, |(_, blocks)| *blocks);
            let (uncached, token_ns) = self.fleet.work_of(demand, slot, blocks, self.config);
            let work_ns = Span::from_ns(u64::from(uncached) * u64::from(token_ns));
            let later_ns = Span::from_ns_f64(work_ns.ns_f64() * self.config.hold_work_weight);
            ranked.push((submitted_ns + later_ns, request));
        }
        // The queue is by age, and of equals the older one stays first.
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, request)| request).collect()
    }
}
