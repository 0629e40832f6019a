//! Which replica, or which peer, gets a request.
//!
//! | file | holds |
//! |---|---|
//! | `policy` | the policies: one file and one row of the table each |
//! | `candidates` | the replicas that a policy chooses among |
//! | `selection` | what follows from its choice |
//! | `peers` | the same for peers |
//! | `shadow`, `verdict` | what a second policy would choose, without effect |
//! | `noting` | what receipts keep of a search |
//! | `order` | which held request gets the room of a replica first |

mod candidates;
#[cfg(test)]
mod following;
mod noting;
mod order;
mod peers;
#[cfg(test)]
mod plain;
pub mod policy;
mod selection;
pub(in crate::engine) mod shadow;
pub mod verdict;

use std::mem;

pub(in crate::engine) use self::candidates::matched_tokens;
pub(in crate::engine) use self::order::COMPARED_MAX;
pub(in crate::engine) use self::peers::There;
pub(in crate::engine) use self::selection::{Here, Selection};
use self::shadow::Shadow;
use super::cache::Cache;
use super::config::Config;
use super::counters::Counters;
use super::demand::{Demand, Lane};
use super::fleet::Fleet;
use super::fleet::keep::Places;
use super::fleet::replica::Need;
use super::hold::{Hold, Room, Ticket};
use super::receipts::Receipts;
use super::receipts::decision::Held;
use super::recent::Recent;
use crate::id::{PeerId, ReplicaId, ReplicaSlot};
use crate::rng::Rng;
use crate::time::Instant;

/// A request that looks for a place.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Seeker<'a> {
    pub(in crate::engine) demand: &'a Demand,
    /// Names it for receipts.
    pub(in crate::engine) age: u64,
    /// Its place in the hold.
    pub(in crate::engine) ticket: Option<Ticket>,
    /// It has not been tried yet.
    pub(in crate::engine) first: bool,
    pub(in crate::engine) room: Room,
    /// It is not forwarded to peers.
    pub(in crate::engine) stays: bool,
    /// It is forwarded only where no replica here could serve it.
    pub(in crate::engine) rather_here: bool,
    /// Peers at which an attempt failed.
    pub(in crate::engine) tried_peers: &'a [PeerId],
}

/// What a choice looks at.
#[derive(Debug)]
pub(in crate::engine) struct Sight<'a> {
    pub(in crate::engine) config: &'a Config,
    pub(in crate::engine) fleet: &'a mut Fleet,
    pub(in crate::engine) cache: &'a mut Cache,
    pub(in crate::engine) hold: &'a Hold,
    pub(in crate::engine) now: Instant,
}

/// What a rehearsal puts back.
#[derive(Debug)]
pub(in crate::engine) struct Kept {
    rng: Rng,
    sessions: Recent,
    shadow: Option<Box<Shadow>>,
    receipts: Option<Box<Receipts>>,
}

/// Chooses, and remembers what later choices look at.
#[derive(Debug)]
pub(in crate::engine) struct Chooser {
    rng: Rng,
    /// Where sessions were pushed last, by key.
    sessions: Recent,
    scratch: candidates::Scratch,
    peers: peers::Scratch,
    /// It decides nothing.
    of_shadow: bool,
    shadow: Option<Box<Shadow>>,
    #[cfg(test)]
    following: Option<following::Following>,
    /// Why requests went where they went, where that is kept.
    receipts: Option<Box<Receipts>>,
}

impl Chooser {
    pub(in crate::engine) fn new(config: &Config, hash_seed: u64, seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            sessions: Recent::new(config.sessions_max, hash_seed),
            scratch: candidates::Scratch::default(),
            peers: peers::Scratch::default(),
            of_shadow: false,
            shadow: Shadow::of(config, hash_seed, seed),
            #[cfg(test)]
            following: None,
            receipts: None,
        }
    }

    /// The state of the draws.
    pub(in crate::engine) fn leave_rng(&self) -> Rng {
        self.rng.clone()
    }

    /// Where sessions were pushed last, by the place of the replica.
    pub(in crate::engine) fn leave_sessions(&self, places: &Places) -> Vec<(u128, u16)> {
        let sessions = self.sessions.entries();
        let named = sessions.filter_map(|(hash, id)| Some((hash, *places.of_id.get(&id)?)));
        named.collect()
    }

    /// Goes on from where another chooser was; how many sessions have a replica here.
    pub(in crate::engine) fn inherit(
        &mut self,
        rng: Rng,
        sessions: Vec<(u128, u16)>,
        places: &Places,
    ) -> u64 {
        self.rng = rng;
        let mut found = 0;
        for (hash, place) in sessions {
            if let Some(id) = places.id(place) {
                self.sessions.put(hash, id);
                found += 1;
            }
        }
        found
    }

    /// Keeps so many receipts from now on; 0: none.
    pub(in crate::engine) fn keep_receipts(&mut self, max: usize) {
        self.receipts = (max > 0).then(|| Box::new(Receipts::new(max)));
    }

    /// From now on choices are a rehearsal, until [`Self::put_back`]: what they change is put back then. `key`:
    /// of the session that they are for.
    pub(in crate::engine) fn rehearse(&mut self, key: Option<u64>, receipts: Receipts) -> Kept {
        let rng = self.rng.clone();
        let only = self.sessions.only(key.map(u64::to_le_bytes).as_ref());
        Kept {
            rng,
            sessions: mem::replace(&mut self.sessions, only),
            shadow: self.shadow.take(),
            receipts: self.receipts.replace(Box::new(receipts)),
        }
    }

    /// The rehearsal is over: whether something was drawn, and its receipts.
    pub(in crate::engine) fn put_back(&mut self, kept: Kept) -> (bool, Option<Box<Receipts>>) {
        let drawn = self.rng.next_u64() != kept.rng.clone().next_u64();
        self.rng = kept.rng;
        self.sessions = kept.sessions;
        self.shadow = kept.shadow;
        (drawn, mem::replace(&mut self.receipts, kept.receipts))
    }

    /// The receipts, where they are kept.
    #[inline]
    pub(in crate::engine) fn receipts(&self) -> Option<&Receipts> {
        self.receipts.as_deref()
    }

    #[inline]
    pub(in crate::engine) fn receipts_mut(&mut self) -> Option<&mut Receipts> {
        self.receipts.as_deref_mut()
    }

    /// A request is held for this reason, which no search tells; its effect follows.
    #[inline]
    pub(in crate::engine) fn note_held(&mut self, age: u64, why: Held) {
        if let Some(receipts) = &mut self.receipts {
            receipts.note_held(age, why);
        }
    }

    /// A request was pushed: notes what later choices look at.
    pub(in crate::engine) fn note_push(
        &mut self,
        demand: &Demand,
        (slot, replica): (ReplicaSlot, ReplicaId),
        need: Need,
        fleet: &mut Fleet,
        config: &Config,
        now: Instant,
    ) {
        let traits = config.policy.traits();
        if let Some(key) = demand.key.filter(|_| traits.remembers_sessions) {
            self.sessions.note(&key.to_le_bytes(), replica);
        }
        let shadow = self.shadow.as_mut();
        if let Some((shadow, key)) = shadow.zip(demand.key) {
            shadow.note_session(key, replica);
        }
        if config.any_policy(|traits| traits.sums_recent_work) {
            fleet.note_work(demand, slot, need, config, now);
        }
    }

    /// A request that is not held may wait by choice for a replica without room, at its first attempt.
    pub(in crate::engine) fn may_wait(
        seeker: Seeker<'_>,
        hold: &Hold,
        config: &Config,
        now: Instant,
    ) -> bool {
        if !config.waits() {
            return false;
        }
        match seeker.ticket {
            Some(ticket) => hold.may_choose(ticket, config, now),
            None => seeker.demand.lane == Lane::Batch && seeker.first,
        }
    }
}
