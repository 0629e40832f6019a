//! Takes in what probes of replicas found.

use super::failure::{Failure, Unread};
use super::snapshot::Snapshot;
use super::{Fleet, Probed};
use crate::engine::config::Config;
use crate::id::ReplicaSlot;
use crate::time::Instant;

/// A replica refuses requests while it has nothing to do.
const REFUSES: Failure = Failure::Status(503);

/// What a page shows beside loads.
#[derive(Debug)]
pub(in crate::engine) struct Seen {
    /// More may have changed than the room there.
    pub(in crate::engine) changed: bool,
    /// Another engine process answers.
    pub(in crate::engine) restarted: bool,
    /// Tokens looked up in the prefix cache and found there, since the engine's start.
    pub(in crate::engine) reported: Option<(u64, u64)>,
}

impl Fleet {
    /// Takes over a page that was asked for at `sent_ns`.
    pub(in crate::engine) fn observe(
        &mut self,
        slot: ReplicaSlot,
        snapshot: Snapshot,
        (sent_ns, probed): (Instant, Probed),
        config: &Config,
        now: Instant,
    ) -> Option<Seen> {
        let pool = self.pool();
        let member = self.member_mut(slot)?;
        let last = member.replica.snapshot();
        let moved = last.is_none_or(|last| snapshot.moved_since(last));
        let before = last.map_or(member.kept_queries, |last| last.cache_queries);
        let after = snapshot.cache_queries;
        let sleeping = snapshot.sleeping;
        let reported = after.zip(snapshot.cache_hits);
        let restarted = matches!((before, after), (Some(before), Some(after)) if after < before);
        let refused = member.full.filter(|full| sent_ns >= full.since_ns);
        member.full = member.full.filter(|full| sent_ns < full.since_ns);
        member.replica.health.probe_succeeded(now);
        // It has refused requests, though it had nothing to do before and after.
        let mut changed = sleeping;
        if refused.is_some_and(|full| full.idle) && snapshot.idle() {
            let health = &mut member.replica.health;
            changed |= health.failed(REFUSES, pool, config, now);
        }
        if restarted {
            member.pulse.restarted();
        }
        let busy = member.replica.own_in_flight() > 0;
        member.pulse.page(&snapshot, (moved, busy), sent_ns, now);
        if !member.pulse.stands() {
            changed |= member.replica.health.revive(now);
        }
        match probed {
            Probed::Here => member.replica.observe(snapshot, sent_ns, now),
            Probed::Elsewhere => member.replica.observe_copy(snapshot, sent_ns, now),
        };
        Some(Seen {
            changed,
            restarted,
            reported,
        })
    }

    /// A probe told nothing.
    pub(in crate::engine) fn observe_failed(
        &mut self,
        slot: ReplicaSlot,
        unread: Unread,
        config: &Config,
        now: Instant,
    ) {
        let Some(member) = self.member_mut(slot) else {
            return;
        };
        if unread == Unread::Unsent {
            member.replica.probe_unsent();
            return;
        }
        member.replica.probe_failed();
        self.judge_unread(slot, unread, config, now);
    }

    /// Something other than a probe was answered. True where the last probe was not.
    pub(in crate::engine) fn answered(
        &mut self,
        slot: ReplicaSlot,
        config: &Config,
        now: Instant,
    ) -> bool {
        let member = self.member(slot);
        let silent = member.is_some_and(|member| member.replica.health.silent());
        if silent {
            self.judge_unread(slot, Unread::Unreadable, config, now);
        }
        silent
    }

    /// What it says of a replica that a probe, or another question, told nothing of its load.
    fn judge_unread(&mut self, slot: ReplicaSlot, unread: Unread, config: &Config, now: Instant) {
        let pool = self.pool();
        let Some(member) = self.member_mut(slot) else {
            return;
        };
        match unread {
            Unread::Unsent => {}
            Unread::Refused => {
                member.replica.health.unreachable();
                member.pulse.restarted();
            }
            Unread::Unconnected | Unread::Late => {
                let connected = unread == Unread::Late;
                member.replica.health.probe_unanswered(connected, now);
                member.pulse.unanswered(connected, now);
            }
            Unread::Unreadable => {
                let refused = member.full.take();
                member.replica.health.probe_succeeded(now);
                member.pulse.unreadable();
                if !member.pulse.stands() {
                    member.replica.health.revive(now);
                }
                let blind = member.replica.blind(config, now);
                let idle = blind && member.idle(config, now);
                if idle && refused.is_some_and(|full| full.idle) {
                    let health = &mut member.replica.health;
                    health.failed(REFUSES, pool, config, now);
                }
            }
        }
    }

    /// A replica has just joined, and is being looked at.
    pub(in crate::engine) fn looks_at(&self, slot: ReplicaSlot, now: Instant) -> bool {
        let member = self.member(slot);
        member.is_some_and(|member| member.looked_at(now))
    }
}
