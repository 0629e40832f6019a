//! What choices read of the replicas, kept in dense arrays.
//!
//! A replica with all that is known of it takes more than a kilobyte. A choice among a thousand of
//! them would wait for memory at each. What choices read is copied from a replica when it has
//! changed, or when time alone changes what it offers. Only [`Fleet::member_mut`] gives a replica
//! to be changed, and it marks it.
//!
//! [`Fleet::member_mut`]: crate::engine::fleet::Fleet::member_mut

use std::mem;

use slab::Slab;

use super::member::{Member, Offer};
use crate::engine::choose::policy::Slot;
use crate::engine::config::Config;
use crate::engine::fleet::replica::Backlog;
use crate::engine::fleet::slot_of;
use crate::engine::fleet::speed::{Line, Pace};
use crate::engine::requests::request::Lane;
use crate::id::{Nanos, ReplicaId};

/// Whether a replica takes requests. A slot in which there is none offers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Door {
    /// Its region's bit in masks of residency.
    pub(in crate::engine) region_bit: u64,
    /// From then on offers may be others though nothing has changed it; 0 until it is brought up to
    /// date.
    until_ns: Nanos,
    /// When time alone changes its health, or opens it, if it does.
    turns_ns: Nanos,
    pub(in crate::engine) id: ReplicaId,
    /// Its last probe was not answered, and nothing has been heard of it since.
    pub(in crate::engine) silent: bool,
    /// By lane.
    offers: [Offer; Lane::ALL.len()],
}

impl Door {
    const VACANT: Self = Self {
        region_bit: 0,
        until_ns: Nanos::MAX,
        turns_ns: Nanos::MAX,
        id: ReplicaId(u32::MAX),
        silent: false,
        offers: [Offer::None; Lane::ALL.len()],
    };

    fn of(member: &Member, config: &Config, now_ns: Nanos) -> Self {
        Self {
            region_bit: member.region_bit,
            until_ns: member.replica.next_change_ns(config, now_ns),
            turns_ns: member.next_change_ns(config).unwrap_or(Nanos::MAX),
            id: member.id,
            silent: member.replica.health.silent(),
            offers: Lane::ALL.map(|lane| member.offer(lane, config, now_ns)),
        }
    }

    #[inline]
    pub(in crate::engine) fn offer(&self, lane: Lane) -> Offer {
        self.offers[lane as usize]
    }
}

/// The figures of a replica that predictions rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Card {
    /// What stands before the next request.
    pub(in crate::engine) backlog: Backlog,
    /// Its own, at its present load.
    pub(in crate::engine) pace: Option<Pace>,
    /// Its own.
    pub(in crate::engine) stay_ns: Option<Nanos>,
    /// Tokens of the engine's own block; at least 1.
    pub(in crate::engine) block_tokens: u32,
    pub(in crate::engine) capacity_blocks: u32,
    pub(in crate::engine) in_flight: u32,
    pub(in crate::engine) pending: u32,
    pub(in crate::engine) active_tokens: u64,
    /// At least 1.
    pub(in crate::engine) kv_tokens: u64,
    pub(in crate::engine) kv_used_tokens: u64,
}

impl Card {
    pub(in crate::engine) fn of(member: &Member, config: &Config) -> Self {
        let replica = &member.replica;
        let block_tokens = replica.snapshot().and_then(|s| s.block_size);
        let line = member.speed.line_near(replica.load());
        Self {
            backlog: replica.backlog(),
            pace: line.map(Line::pace),
            stay_ns: member.stay_ns,
            block_tokens: block_tokens.unwrap_or(1).max(1),
            capacity_blocks: member.capacity_blocks,
            in_flight: member.all_in_flight(),
            pending: replica.pending(),
            active_tokens: replica.active_tokens(),
            kv_tokens: replica.kv_tokens(config).max(1),
            kv_used_tokens: replica.kv_used_tokens(config),
        }
    }
}

/// The cards and doors of all replicas, by slot.
#[derive(Debug, Default)]
pub(in crate::engine) struct Cards {
    doors: Vec<Door>,
    figures: Vec<Option<Card>>,
    /// Slots whose door's `until_ns` is 0.
    changed: Vec<Slot>,
    /// No later than the `until_ns` of all others.
    due_ns: Nanos,
    /// Doors with a `turns_ns`: most of the time there are none.
    turning: usize,
}

impl Cards {
    /// Something about the replica at a slot may change now.
    #[inline]
    pub(in crate::engine) fn changed(&mut self, slot: Slot) {
        if let Some(door) = self.doors.get_mut(slot as usize) {
            if mem::take(&mut door.until_ns) != 0 {
                self.changed.push(slot);
            }
            return;
        }
        for new in self.doors.len()..=slot as usize {
            self.doors.push(Door {
                until_ns: 0,
                ..Door::VACANT
            });
            self.figures.push(None);
            self.changed.push(slot_of(new));
        }
    }

    pub(in crate::engine) fn refresh(
        &mut self,
        members: &Slab<Member>,
        config: &Config,
        now_ns: Nanos,
    ) {
        while let Some(slot) = self.changed.pop() {
            self.renew(slot as usize, members, config, now_ns);
        }
        if now_ns < self.due_ns {
            return;
        }
        self.due_ns = Nanos::MAX;
        for index in 0..self.doors.len() {
            if self.doors[index].until_ns <= now_ns {
                self.renew(index, members, config, now_ns);
            }
            self.due_ns = self.due_ns.min(self.doors[index].until_ns);
        }
    }

    fn renew(&mut self, index: usize, members: &Slab<Member>, config: &Config, now_ns: Nanos) {
        let member = members.get(index);
        let door = member.map_or(Door::VACANT, |member| Door::of(member, config, now_ns));
        let before = mem::replace(&mut self.doors[index], door);
        self.turning += usize::from(door.turns_ns != Nanos::MAX);
        self.turning -= usize::from(before.turns_ns != Nanos::MAX);
        self.figures[index] = member.map(|member| Card::of(member, config));
        self.due_ns = self.due_ns.min(door.until_ns);
    }

    /// When time alone changes the health of one of them, or opens it.
    pub(in crate::engine) fn turns_ns(&self) -> Option<Nanos> {
        let turns_ns = self.doors.iter().map(|door| door.turns_ns);
        turns_ns.min().filter(|_| self.turning > 0)
    }

    #[inline]
    pub(in crate::engine) fn door(&self, slot: Slot) -> Option<&Door> {
        self.doors.get(slot as usize)
    }

    #[inline]
    pub(in crate::engine) fn card(&self, slot: Slot) -> Option<&Card> {
        self.figures.get(slot as usize)?.as_ref()
    }

    /// Whether all that is not marked is what the replicas say.
    pub(in crate::engine) fn check(
        &self,
        members: &Slab<Member>,
        config: &Config,
        now_ns: Nanos,
    ) -> Result<(), String> {
        for (index, member) in members {
            let door = self.doors.get(index).ok_or("a_replica_has_a_door")?;
            let valid = door.until_ns > now_ns;
            let plain = Door {
                until_ns: door.until_ns,
                ..Door::of(member, config, now_ns)
            };
            let same = *door == plain && self.figures[index] == Some(Card::of(member, config));
            if valid && !same {
                return Err(format!("cards_say_what_replicas_say: {:?}", member.id));
            }
            if door.until_ns == 0 && !self.changed.contains(&slot_of(index)) {
                return Err(format!("changed_replicas_are_marked: {:?}", member.id));
            }
            if door.until_ns != 0 && door.until_ns < self.due_ns {
                return Err(format!("cards_are_renewed_in_time: {:?}", member.id));
            }
        }
        Ok(())
    }
}
