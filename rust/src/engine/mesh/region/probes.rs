//! When the replicas are to be probed from here.

use crate::engine::fleet::gate;
use crate::engine::mesh::{Local, Mesh};
use crate::id::ReplicaSlot;
use crate::time::Instant;

/// Probe intervals without a page of the balancer that probes for all.
const PATIENCE: u64 = 3;

impl Mesh {
    /// All replicas, with when each is to be probed from here. One that has a probe under way is due
    /// when it has ended.
    pub(in crate::engine) fn probes_due(
        &mut self,
        local: &Local<'_>,
    ) -> Vec<(Instant, ReplicaSlot)> {
        let held = held(local);
        let slots = local.fleet.all_slots().into_iter();
        let due = slots.map(|slot| {
            let held = held.get(slot.index()).copied().unwrap_or(false);
            let due_ns = self.probe_due_ns(slot, held, local);
            (due_ns.unwrap_or(Instant::MAX), slot)
        });
        due.collect()
    }

    /// When a replica is to be probed from here; `None` while a probe is under way.
    fn probe_due_ns(
        &mut self,
        slot: ReplicaSlot,
        held: bool,
        local: &Local<'_>,
    ) -> Option<Instant> {
        let wanted = held || self.wanted_elsewhere(slot);
        let member = local
            .fleet
            .member(slot)
            .filter(|member| !member.removed())?;
        let interval_ns = gate::probe_interval(member.replica(), local.config, wanted);
        let due_ns = member.replica().probe_due_ns(interval_ns);
        let looked_for = gate::looked_for(member.replica());
        let shared = self.sharing.replicas.get_mut(slot.index())?;
        if shared.interval_ns != interval_ns {
            (shared.interval_ns, shared.interval_since_ns) = (interval_ns, local.now);
        }
        if !shared.probed_elsewhere || looked_for {
            return due_ns;
        }
        let heard_ns = shared.heard_ns.max(shared.interval_since_ns);
        Some(due_ns?.max(heard_ns + PATIENCE * interval_ns))
    }
}

/// By slot: whether something that the replica could serve is held.
fn held(local: &Local<'_>) -> Vec<bool> {
    let mut held = vec![false; local.fleet.slots_end()];
    for partition in local.hold.lines() {
        let bound = partition.bound.and_then(|id| local.fleet.slot(id));
        for slot in local.fleet.serving(Some(partition.model)) {
            held[slot.index()] |= partition.bound.is_none() || bound == Some(*slot);
        }
    }
    held
}
