//! The beginning and the end of attempts at replicas.

use super::Fleet;
use super::failure::Failure;
use super::health::{Health, Pool};
use super::member::Full;
use crate::engine::config::Config;
use crate::engine::demand::Lane;
use crate::engine::plant::Plant;
use crate::id::{ReplicaId, ReplicaSlot, RequestId};
use crate::time::Instant;

impl Fleet {
    /// The first body byte of a request's answer arrived; the replica.
    pub(in crate::engine) fn first_byte(
        &mut self,
        slot: ReplicaSlot,
        (id, lane): (RequestId, Lane),
        now: Instant,
    ) -> Option<ReplicaId> {
        let member = self.member_mut(slot)?;
        member.replica.health.succeeded(now);
        member.pulse.answered();
        if lane == Lane::Batch {
            member.replica.first_byte(id, now);
        }
        Some(member.id)
    }

    /// A request is no longer at a replica: takes it off its counts.
    pub(in crate::engine) fn complete(
        &mut self,
        slot: ReplicaSlot,
        (id, lane): (RequestId, Lane),
        config: &Config,
    ) {
        let Some(member) = self.member_mut(slot) else {
            return;
        };
        match lane {
            Lane::Batch if config.planted(Plant::DebitForever) => {}
            Lane::Batch => {
                let known = member.replica.complete(id);
                debug_assert!(known, "a request in flight is counted");
            }
            Lane::Light | Lane::Stored => member.light = member.light.saturating_sub(1),
        }
    }

    /// A request was answered without a failure.
    pub(in crate::engine) fn succeeded(&mut self, slot: ReplicaSlot, now: Instant) {
        if let Some(member) = self.member_mut(slot) {
            member.replica.health.succeeded(now);
        }
    }

    /// A replica said that it is full: it gets no pushes until it is probed again.
    pub(in crate::engine) fn note_full(
        &mut self,
        slot: ReplicaSlot,
        config: &Config,
        now: Instant,
    ) {
        if let Some(member) = self.member_mut(slot) {
            member.full = Some(Full {
                since_ns: now,
                until_ns: now + config.probe_stale_ns,
                idle: member.idle(config, now),
            });
        }
    }

    /// An attempt failed at a replica. A failure that may be the request's own is judged when that has
    /// been tried elsewhere. True when the replica's health changed.
    pub(in crate::engine) fn blame(
        &mut self,
        slot: ReplicaSlot,
        failure: Failure,
        config: &Config,
        now: Instant,
    ) -> bool {
        let pool = self.pool();
        let Some(member) = self.member_mut(slot) else {
            return false;
        };
        member.failed_total += 1;
        let health = &mut member.replica.health;
        !failure.answered() && health.failed(failure, pool, config, now)
    }

    /// Another replica has served a request: those on which it failed before are at fault. True when
    /// the health of one of them changed.
    pub(in crate::engine) fn convict(
        &mut self,
        suspects: &[(ReplicaId, Failure)],
        config: &Config,
        now: Instant,
    ) -> bool {
        self.judge(suspects, |health, failure, pool| {
            health.failed(failure, pool, config, now)
        })
    }

    /// A request ends without an answer by which its failures could be judged. True when the health
    /// of a replica changed.
    pub(in crate::engine) fn suspect(
        &mut self,
        suspects: &[(ReplicaId, Failure)],
        config: &Config,
        now: Instant,
    ) -> bool {
        self.judge(suspects, |health, _, pool| {
            health.suspected(pool, config, now)
        })
    }

    /// Applies a verdict to the health of each replica that is still here; true when one changed. Each verdict
    /// is given with the pool as the ones before have left it.
    fn judge(
        &mut self,
        suspects: &[(ReplicaId, Failure)],
        verdict: impl Fn(&mut Health, Failure, Pool) -> bool,
    ) -> bool {
        let mut turned = false;
        for (replica, failure) in suspects {
            let pool = self.pool();
            let slot = self.slot(*replica);
            if let Some(member) = slot.and_then(|slot| self.member_mut(slot)) {
                turned |= verdict(&mut member.replica.health, *failure, pool);
            }
        }
        turned
    }
}
