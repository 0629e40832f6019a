//! When replicas are probed.
//!
//! Probes go in *rounds*, so that a driver wakes rarely. If many replicas fall due together, their probes
//! are spread in equal shares over the shortest interval. So neither the driver nor a host that replicas
//! share works in bursts. After that it stays spread.

use super::health::State;
use super::member::Member;
use super::{Fleet, gate};
use crate::engine::config::Config;
use crate::id::{ReplicaId, ReplicaSlot};
use crate::time::{EARLY, Instant, Span};

/// Rounds within the shortest interval between two probes of one replica.
const ROUNDS_PER_INTERVAL: u64 = 5;
/// Longest time between two rounds while requests may change what is due.
const ROUND_NS_MAX: Span = Span::from_ns(50_000_000);
/// The same without requests. Below the gap in calls that tells of a process that stood still.
const IDLE_ROUND_NS: Span = Span::from_ns(500_000_000);

/// What is known of a replica by its probes. The numbers are part of the Python interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbedState {
    /// Nothing yet.
    Unknown,
    /// The last page could be read.
    Up,
    /// It may serve, but its last probe told nothing of its load.
    Blind,
    /// Nobody is there.
    Down,
}

/// When the next round of probes is.
#[derive(Debug)]
pub(in crate::engine) struct Probes {
    /// Least time between two rounds.
    round_ns: Span,
    rounds_per_interval: usize,
    /// The last round.
    probed_ns: Option<Instant>,
    /// When the first probe is due, as far as known.
    due_ns: Instant,
}

impl Probes {
    pub(in crate::engine) fn new(config: &Config) -> Self {
        let interval_ns = config.probe_interval_ns;
        let round_ns = (interval_ns / ROUNDS_PER_INTERVAL).clamp(Span::from_ns(1), ROUND_NS_MAX);
        let rounds = (interval_ns + round_ns / 2) / round_ns;
        Self {
            round_ns,
            rounds_per_interval: usize::try_from(rounds).unwrap_or(1).max(1),
            probed_ns: None,
            due_ns: Instant::ZERO,
        }
    }

    /// Something has changed that may make a replica due sooner: the next round finds out.
    pub(in crate::engine) fn soon(&mut self) {
        self.due_ns = Instant::ZERO;
    }

    /// A probe is due then.
    fn note(&mut self, due_ns: Instant) {
        self.due_ns = self.due_ns.min(due_ns);
    }

    /// When the next round is. `busy`: requests may make a replica due at any time.
    fn next_ns(&self, busy: bool) -> Instant {
        let Some(probed_ns) = self.probed_ns else {
            return Instant::ZERO;
        };
        let first_ns = probed_ns + self.round_ns;
        if busy {
            return first_ns;
        }
        let last_ns = probed_ns + IDLE_ROUND_NS;
        self.due_ns.clamp(first_ns, last_ns.max(first_ns))
    }

    /// Whether it is time for it.
    fn begins(&self, busy: bool, now: Instant) -> bool {
        self.next_ns(busy) <= now + EARLY
    }

    /// Of all replicas, with when each is due, those to probe now: the longest due first.
    fn pick(&mut self, mut all: Vec<(Instant, ReplicaSlot)>, now: Instant) -> Vec<ReplicaSlot> {
        let share = all.len().div_ceil(self.rounds_per_interval);
        // What falls due before the middle between this round and the next one is probed with this.
        let until_ns = now + self.round_ns / 2;
        all.sort_unstable();
        let due = all.partition_point(|(due_ns, _)| *due_ns <= until_ns);
        let sent = due.min(share);
        self.probed_ns = Some(now);
        self.due_ns = all.get(sent).map_or(Instant::MAX, |(due_ns, _)| *due_ns);
        all.truncate(sent);
        all.into_iter().map(|(_, slot)| slot).collect()
    }
}

impl Fleet {
    /// When the next round of probes is. `busy`: there are requests.
    pub(in crate::engine) fn next_probes_ns(&self, busy: bool) -> Option<Instant> {
        (!self.is_empty()).then(|| self.probes.next_ns(busy))
    }

    /// Whether it is time for it.
    pub(in crate::engine) fn probes_begin(&self, busy: bool, now: Instant) -> bool {
        !self.is_empty() && self.probes.begins(busy, now)
    }

    pub(in crate::engine) fn probes_mut(&mut self) -> &mut Probes {
        &mut self.probes
    }

    /// Of all replicas, with when each is due, those to probe now: they count as probed.
    pub(in crate::engine) fn send_probes(
        &mut self,
        all: Vec<(Instant, ReplicaSlot)>,
        now: Instant,
    ) -> Vec<ReplicaId> {
        let mut sent = Vec::new();
        for slot in self.probes.pick(all, now) {
            if let Some(member) = self.member_mut(slot) {
                member.replica.probe_sent(now);
                sent.push(member.id);
            }
        }
        sent
    }

    /// What is known of a replica by its probes, in a word for operators.
    pub(in crate::engine) fn probed_state(&self, replica: ReplicaId) -> ProbedState {
        let Some(member) = self.slot(replica).and_then(|slot| self.member(slot)) else {
            return ProbedState::Unknown;
        };
        match (member.replica.health.state(), member.replica.read()) {
            (State::Unknown, _) => ProbedState::Unknown,
            (State::Down, _) => ProbedState::Down,
            (_, true) => ProbedState::Up,
            (_, false) => ProbedState::Blind,
        }
    }

    /// A probe of a replica has ended: it is due again. `wanted`: something waits for it elsewhere.
    pub(in crate::engine) fn note_probe_due(
        &mut self,
        slot: ReplicaSlot,
        wanted: bool,
        config: &Config,
    ) {
        let Some(replica) = self.member(slot).map(Member::replica) else {
            return;
        };
        let interval_ns = gate::probe_interval(replica, config, wanted);
        if let Some(due_ns) = replica.probe_due_ns(interval_ns) {
            self.probes.note(due_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Span = Span::from_ns(1_000_000);

    fn at(place: usize) -> ReplicaSlot {
        ReplicaSlot::new(place)
    }

    fn probes() -> Probes {
        Probes::new(&Config {
            probe_interval_ns: 100 * MS,
            ..Config::sample()
        })
    }

    #[test]
    fn a_fleet_that_falls_due_together_is_probed_in_shares() {
        let mut probes = probes();
        let mut sent_ns = [Instant::ZERO; 12];
        let mut shares = Vec::new();
        for round in 0..10 {
            let now = Instant::ZERO + (1_000 + round * 20) * MS;
            assert!(probes.begins(true, now));
            let due = (0..12).map(at).zip(sent_ns);
            let picked = probes.pick(due.map(|(slot, due_ns)| (due_ns, slot)).collect(), now);
            for slot in &picked {
                sent_ns[slot.index()] = now + 100 * MS;
            }
            shares.push(picked.len());
        }
        assert_eq!(shares, [3, 3, 3, 3, 0, 3, 3, 3, 3, 0]);
    }

    #[test]
    fn an_idle_fleet_is_probed_when_something_is_due() {
        let mut probes = probes();
        assert_eq!(
            probes.pick(
                vec![(Instant::ZERO, at(0)), (Instant::ZERO + 300 * MS, at(1))],
                Instant::ZERO
            ),
            [at(0)]
        );
        assert_eq!(probes.next_ns(false), Instant::ZERO + 300 * MS);
        assert_eq!(probes.next_ns(true), Instant::ZERO + 20 * MS);
        probes.note(Instant::ZERO + 200 * MS);
        assert_eq!(probes.next_ns(false), Instant::ZERO + 200 * MS);
        probes.soon();
        assert_eq!(probes.next_ns(false), Instant::ZERO + 20 * MS);
        assert_eq!(
            probes.pick(
                vec![(Instant::ZERO + 9_000 * MS, at(0))],
                Instant::ZERO + 200 * MS
            ),
            []
        );
        assert_eq!(
            probes.next_ns(false),
            Instant::ZERO + 700 * MS,
            "calls never stop for long"
        );
    }
}
