//! What a page of a replica's metrics says of its cache.

use super::Cache;
use crate::engine::config::Config;
use crate::engine::counters::Counters;
use crate::engine::fleet::snapshot::Snapshot;
use crate::engine::fleet::{Fleet, Probed};
use crate::id::ReplicaSlot;
use crate::time::Instant;

impl Cache {
    /// Takes over a page that was asked for at `sent_ns`, for the fleet too. True when more may have
    /// changed than the room there.
    pub(in crate::engine) fn observe(
        &mut self,
        fleet: &mut Fleet,
        slot: ReplicaSlot,
        (snapshot, sent_ns, probed): (Snapshot, Instant, Probed),
        counters: &mut Counters,
        (config, now): (&Config, Instant),
    ) -> bool {
        let seen = fleet.observe(slot, snapshot, (sent_ns, probed), config, now);
        let Some(seen) = seen else {
            return false;
        };
        if let Some(reported) = seen.reported {
            self.reconcile(slot, reported, counters);
        }
        if seen.restarted {
            // A new process has an empty cache, and perhaps another size of it.
            self.restarted(slot);
            counters.restarts += 1;
        }
        self.fit(fleet, slot, seen.restarted, config);
        seen.changed
    }
}
