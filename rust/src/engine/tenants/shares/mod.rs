//! Which part of each limit this balancer may use.
//!
//! The parts of all balancers sum to [`ONE`] at most. A part is lowered at once. It is raised in two steps. First
//! the balancer reports what it is about to use. It uses that when each peer has said that it has read the report,
//! and when it fits beside what the peers use. Of two that raise theirs at the same time, one has read what the
//! other is about to use before its own second step. docs/ALGORITHM.md has the argument.
//!
//! | file | holds |
//! |---|---|
//! | `part` | one part, and how it changes |
//! | `party` | one peer: what it has reported, and what it has read |

mod part;
mod party;

#[cfg(test)]
mod tests;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use self::part::{Part, Place};
use self::party::Party;
use super::bucket::ONE;
use super::message::{ENTRIES_MAX, Entry, Message, MessageError};
use crate::id::PeerId;
use crate::time::{Instant, Span};

/// A tenant by a hash of its name, as all balancers know it.
pub(super) type Key = u64;

/// What all balancers keep of a limit whatever is asked for: the `FLOOR`th part of it, divided evenly.
const FLOOR: u32 = 8;
/// How long a tenant is told of after it has last asked for something anywhere.
const KEPT: Span = Span::from_secs(120);

/// A peer, as the mesh knows it.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Sibling {
    pub(in crate::engine) peer: PeerId,
    /// It is gone, as far as can be known.
    pub(in crate::engine) dead: bool,
    /// Whether its connection takes messages about tenants; `None`: there is none.
    pub(in crate::engine) takes: Option<bool>,
}

/// The parts of this balancer, and what peers have told of theirs.
#[derive(Debug)]
pub(super) struct Shares {
    incarnation: u64,
    /// Messages built.
    sequence: u64,
    parties: HashMap<PeerId, Party, FixedState>,
    /// There are limits here.
    limited: bool,
    /// Of tenants that are not listed.
    idle: Part,
    /// At most [`ENTRIES_MAX`] that are told of, and those that no longer are, until all know and the even part
    /// fits. Not more than peers have told of and we have told of lately.
    parts: HashMap<Key, Part, FixedState>,
    /// Changes that peers should soon know.
    changes: u64,
    /// Changes of what may be used.
    revision: u64,
}

impl Shares {
    pub(super) fn new() -> Self {
        Self {
            incarnation: 1,
            sequence: 0,
            parties: HashMap::with_hasher(FixedState::default()),
            limited: false,
            idle: Part::new(ONE, Instant::ZERO),
            parts: HashMap::with_hasher(FixedState::default()),
            changes: 0,
            revision: 0,
        }
    }

    /// Whether there is anything to share: limits here, or what a peer has told of its.
    pub(super) fn active(&self) -> bool {
        self.limited || self.parties.values().any(|party| party.told.is_some())
    }

    /// Greater after each change of some part.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The start of this balancer, greater after each.
    pub(super) fn set_incarnation(&mut self, incarnation: u64) {
        self.incarnation = incarnation.max(1);
    }

    /// Whether some tenant has a limit here. A balancer without limits leaves them to its peers.
    pub(super) fn set_limited(&mut self, limited: bool) {
        self.limited = limited;
    }

    /// This balancer's part of a tenant's limits.
    pub(super) fn of(&self, key: Key) -> u32 {
        let idle = self.idle.used();
        self.parts.get(&key).map_or(idle, |part| match part.place {
            Place::Listed => part.used(),
            Place::Leaving { .. } => part.used().min(idle),
        })
    }

    /// Tenants that have a part of their own, and that of all others.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    // ------------------------------------------------------------------ peers

    /// Sets all peers. Of those that are missing nothing is known any more.
    pub(super) fn set_siblings(&mut self, siblings: impl Iterator<Item = Sibling>) {
        for (_, party) in &mut self.parties {
            party.listed = false;
        }
        for sibling in siblings {
            let party = self.parties.entry(sibling.peer).or_insert_with(Party::new);
            party.update(sibling);
        }
        self.parties.retain(|_, party| party.listed);
        // Who is with at least half of all balancers takes over from those that are gone. So at most two groups
        // do, if these lose each other; everybody else keeps what it has.
        let here = 1 + self.parties.values().filter(|party| !party.dead).count();
        let takes_over = 2 * here > self.parties.len();
        for (_, party) in &mut self.parties {
            party.counts = party.takes != Some(false) && !(party.dead && takes_over);
        }
    }

    fn counted(&self) -> impl Iterator<Item = &Party> {
        self.parties.values().filter(|party| party.counts)
    }

    /// The last of our messages that all peers have read.
    fn read_by_all(&self) -> u64 {
        self.counted()
            .map(|party| party.acked)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Balancers with limits, this one included.
    fn sharers(&self) -> u32 {
        let with_limits = |party: &&Party| party.told.as_ref().is_none_or(|told| told.idle > 0);
        1 + crate::id::count(self.counted().filter(with_limits).count())
    }

    // ------------------------------------------------------------------ how parts change

    /// Looks at all parts anew. `asked`: tenants with limits that have lately asked for something here, and how
    /// much as a part of their limits. `ours`: whether a tenant has limits here.
    pub(super) fn review(
        &mut self,
        asked: &HashMap<Key, u32, FixedState>,
        ours: impl Fn(Key) -> bool,
        now: Instant,
    ) {
        let (read, sharers) = (self.read_by_all(), self.sharers());
        self.review_idle(read, sharers);
        self.list(asked, ours, now);
        let keys: Vec<Key> = self.parts.keys().copied().collect();
        let (floor, rest) = (
            u64::from(ONE / FLOOR / sharers),
            u64::from(ONE - ONE / FLOOR),
        );
        for key in keys {
            let own = asked.get(&key).copied().unwrap_or(0);
            let mut theirs = (0_u64, 0_u64);
            for party in self.counted() {
                theirs.0 += u64::from(party.demand(key));
                theirs.1 += u64::from(party.most(key, ONE / sharers));
            }
            let (sequence, idle) = (self.sequence, self.idle.most());
            let Some(part) = self.parts.get_mut(&key) else {
                continue;
            };
            part.demand = own;
            let fits = |used: u32| theirs.1 + u64::from(used) <= u64::from(ONE);
            if let Place::Leaving { since } = part.place {
                if read > since && fits(idle) {
                    self.parts.remove(&key);
                    self.revision += 1;
                }
                continue;
            }
            let all = theirs.0 + u64::from(own);
            let target = match (u64::from(own) * rest).checked_div(all) {
                Some(by_demand) => u32::try_from(floor + by_demand).unwrap_or(ONE).min(ONE),
                None if fits(part.used()) => part.used(),
                None => ONE / sharers,
            };
            let (used, most) = (part.used(), part.most());
            // Who needs no more than half of its part leaves the others theirs: what does not fit into theirs any
            // more would be lost.
            let target = if own < used / 2 {
                target.min(used)
            } else {
                target
            };
            part.step(target, theirs.1, sequence, read);
            self.changes += u64::from(part.most() != most);
            self.revision += u64::from(part.used() != used);
        }
    }

    fn review_idle(&mut self, read: u64, sharers: u32) {
        let target = if self.limited { ONE / sharers } else { 0 };
        let (used, most) = (self.idle.used(), self.idle.most());
        if self.sequence == 0 {
            self.idle = Part::new(target, Instant::ZERO);
        } else {
            let theirs = self
                .counted()
                .map(|party| u64::from(party.idle(ONE / sharers)))
                .sum();
            self.idle.lower(target);
            self.idle.step(target, theirs, self.sequence, read);
        }
        self.changes += u64::from(self.idle.most() != most);
        self.revision += u64::from(self.idle.used() != used);
    }

    /// Lists those tenants for which most is asked, here and elsewhere.
    fn list(
        &mut self,
        asked: &HashMap<Key, u32, FixedState>,
        ours: impl Fn(Key) -> bool,
        now: Instant,
    ) {
        let mut wanted: HashMap<Key, u64, FixedState> = HashMap::with_hasher(FixedState::default());
        for (key, demand) in asked {
            *wanted.entry(*key).or_default() += u64::from(*demand);
        }
        for party in self.counted() {
            // What a peer has beyond its even part is told of here too, so that it is not taken twice.
            let idle = party.idle(0);
            for (key, entry) in party.entries() {
                if ours(*key) && (entry.demand > 0 || entry.most > idle) {
                    *wanted.entry(*key).or_default() += u64::from(entry.demand);
                }
            }
        }
        let idle = self.idle.used();
        for (key, demand) in &wanted {
            let part = self.parts.entry(*key);
            let part = part.or_insert_with(|| Part::new(idle, now));
            if *demand > 0 {
                part.asked = now;
            }
        }
        let mut listed: Vec<(u64, Key)> = Vec::new();
        for (key, part) in &mut self.parts {
            let lately = now - part.asked < KEPT && ours(*key);
            if lately || wanted.contains_key(key) {
                listed.push((wanted.get(key).copied().unwrap_or(0), *key));
            } else {
                self.revision += u64::from(part.leave(idle, self.sequence));
            }
        }
        listed.sort_unstable_by(|a, b| b.cmp(a));
        for (place, (_, key)) in listed.into_iter().enumerate() {
            let Some(part) = self.parts.get_mut(&key) else {
                continue;
            };
            if place < ENTRIES_MAX {
                part.list(idle);
            } else {
                self.revision += u64::from(part.leave(idle, self.sequence));
            }
        }
    }

    // ------------------------------------------------------------------ messages

    /// Whether a peer should get a message now.
    pub(super) fn due(&self, peer: PeerId, now: Instant) -> bool {
        let party = self.parties.get(&peer);
        party.is_some_and(|party| party.due(self.limited, self.changes, now))
    }

    /// The message for a peer. It counts as sent.
    pub(super) fn message(&mut self, peer: PeerId, now: Instant) -> Option<Vec<u8>> {
        let party = self.parties.get_mut(&peer)?;
        self.sequence += 1;
        let listed = self
            .parts
            .iter()
            .filter(|(_, part)| matches!(part.place, Place::Listed));
        let mut entries: Vec<Entry> = listed
            .map(|(key, part)| Entry {
                tenant: key.to_be_bytes(),
                demand: part.demand,
                most: part.most(),
            })
            .collect();
        entries.sort_unstable_by_key(|entry| entry.tenant);
        let (heard_incarnation, heard_sequence) = party.heard();
        let message = Message {
            incarnation: self.incarnation,
            sequence: self.sequence,
            heard_incarnation,
            heard_sequence,
            idle: self.idle.most(),
            entries,
        };
        let bytes = message.encode();
        party.sent(bytes.len(), self.changes, now);
        Some(bytes)
    }

    /// What a peer told.
    pub(super) fn hear(&mut self, peer: PeerId, message: Message) -> Result<(), MessageError> {
        let party = self.parties.get_mut(&peer).ok_or(MessageError::Unknown)?;
        party.hear(message, self.incarnation, self.sequence)
    }
}
