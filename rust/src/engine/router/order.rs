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

use super::Router;
use super::serve::AWAITING_MAX;
use crate::engine::hold::{Head, Ticket};
use crate::engine::requests::request::Request;
use crate::id::{Nanos, RequestId, Slot};

/// Requests of a queue that are compared, the oldest: each costs a walk of the tree.
const COMPARED_MAX: usize = 64;

/// A held request by when it came, later for its work.
type Ranked = (Nanos, Ticket, RequestId);

impl Router {
    /// The request of a queue that is to have the room of `slot`: of those that do not wait for
    /// another replica by choice then, the first by age and work.
    pub(super) fn cheapest(
        &mut self,
        slot: Slot,
        head: &Head,
        now_ns: Nanos,
    ) -> Option<(Ticket, RequestId)> {
        let ranked = self.rank(slot, head, now_ns);
        let mut awaiting = 0;
        let found = ranked.iter().find(|(_, ticket, id)| {
            let takes = awaiting == AWAITING_MAX || !self.lets_pass(*ticket, *id, now_ns);
            awaiting += 1;
            takes
        });
        found.map(|(_, ticket, id)| (*ticket, *id))
    }

    /// The oldest of a queue that may use `slot`, those first that are to go first.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "positive, and `as` saturates"
    )]
    fn rank(&mut self, slot: Slot, head: &Head, now_ns: Nanos) -> Vec<Ranked> {
        let (mut ranked, mut matches) = (Vec::with_capacity(COMPARED_MAX), Vec::new());
        for (ticket, id) in self.hold.queue(head.partition, head.class) {
            if ranked.len() == COMPARED_MAX {
                break;
            }
            let request = self.requests.get(id);
            let request = request.filter(|request| self.fits(request, slot, now_ns));
            let Some(Request {
                demand,
                submitted_ns,
                ..
            }) = request
            else {
                continue;
            };
            matches.clear();
            self.cache.matches(&demand.blocks, &mut matches);
            let here = matches.iter().find(|(owner, _)| *owner == slot);
            let blocks = here.map_or(0, |(_, blocks)| *blocks);
            let (uncached, token_ns) = self.fleet.work_of(demand, slot, blocks, &self.config);
            let work_ns = u64::from(uncached) * u64::from(token_ns);
            let later_ns = (work_ns as f64 * self.config.hold_work_weight) as Nanos;
            ranked.push((submitted_ns.saturating_add(later_ns), ticket, id));
        }
        // The queue is by age, and of equals the older one stays first.
        ranked.sort_by_key(|(rank, ..)| *rank);
        ranked
    }
}
