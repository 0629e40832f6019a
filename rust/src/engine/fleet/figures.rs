//! The figures of all replicas that choices read, in dense arrays.
//!
//! What is known of one replica takes more than a kilobyte. A choice among a thousand replicas would wait
//! for memory at each of them. So the figures that choices read are copied from a replica when it has
//! changed, or when time alone changes what it offers. Only [`Fleet::member_mut`] gives access to change a
//! replica, and it marks the replica as changed.
//!
//! [`Fleet::member_mut`]: crate::engine::fleet::Fleet::member_mut

use std::mem;

use slab::Slab;

use super::member::{Member, Offer};
use crate::engine::config::Config;
use crate::engine::demand::Lane;
use crate::engine::fleet::replica::Backlog;
use crate::engine::fleet::speed::{Pace, StraightLine};
use crate::id::{ReplicaId, ReplicaSlot};
use crate::time::{Instant, Span};

/// Whether a replica takes requests. A slot in which there is none offers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Offers {
    /// Its region's bit in masks of residency.
    pub(in crate::engine) region_bit: u64,
    /// From then on offers may be others though nothing has changed it; 0 until it is brought up to
    /// date.
    until_ns: Instant,
    /// When time alone changes its health, or opens it, if it does.
    turns_ns: Instant,
    pub(in crate::engine) id: ReplicaId,
    /// Its last probe was not answered, and nothing has been heard of it since.
    pub(in crate::engine) silent: bool,
    by_lane: [Offer; Lane::ALL.len()],
}

impl Offers {
    const VACANT: Self = Self {
        region_bit: 0,
        until_ns: Instant::MAX,
        turns_ns: Instant::MAX,
        id: ReplicaId(u32::MAX),
        silent: false,
        by_lane: [Offer::None; Lane::ALL.len()],
    };

    fn of(member: &Member, config: &Config, now: Instant) -> Self {
        Self {
            region_bit: member.region_bit,
            until_ns: member.replica.next_change_ns(config, now),
            turns_ns: member.next_change_ns(config).unwrap_or(Instant::MAX),
            id: member.id,
            silent: member.replica.health.silent(),
            by_lane: Lane::ALL.map(|lane| member.offer(lane, config, now)),
        }
    }

    #[inline]
    pub(in crate::engine) fn offer(&self, lane: Lane) -> Offer {
        self.by_lane[lane as usize]
    }
}

/// The figures of a replica that every prediction rests on: one line of the processor's cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(align(64))]
pub(in crate::engine) struct Figures {
    /// What stands before the next request.
    pub(in crate::engine) backlog: Backlog,
    /// Its own pace at its present load, where it has shown any: else both are 0.
    base_ns: Span,
    token_ns: u32,
    /// Tokens of the engine's own block; at least 1.
    pub(in crate::engine) block_tokens: u32,
    pub(in crate::engine) in_flight: u32,
    pub(in crate::engine) pending: u32,
}

const _: () = assert!(size_of::<Figures>() == 64, "one line of the cache");

/// What only some predictions read of a replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::engine) struct Details {
    /// Its own.
    pub(in crate::engine) stay_ns: Option<Span>,
    pub(in crate::engine) active_tokens: u64,
    /// At least 1.
    pub(in crate::engine) kv_tokens: u64,
    pub(in crate::engine) kv_used_tokens: u64,
}

impl Figures {
    pub(in crate::engine) fn of(member: &Member) -> Self {
        let replica = &member.replica;
        let block_tokens = replica.snapshot().and_then(|s| s.block_size);
        let line = member.speed.line_near(replica.load());
        let pace = line.map(StraightLine::pace);
        Self {
            backlog: replica.backlog(),
            base_ns: pace.map_or(Span::ZERO, |pace| pace.base_ns),
            token_ns: pace.map_or(0, |pace| pace.token_ns),
            block_tokens: block_tokens.unwrap_or(1).max(1),
            in_flight: member.all_in_flight(),
            pending: replica.pending(),
        }
    }

    /// Its own pace at its present load, where it has shown any.
    #[inline]
    pub(in crate::engine) fn pace(&self) -> Option<Pace> {
        (self.token_ns > 0).then_some(Pace {
            base_ns: self.base_ns,
            token_ns: self.token_ns,
        })
    }
}

impl Details {
    pub(in crate::engine) fn of(member: &Member, config: &Config) -> Self {
        let replica = &member.replica;
        Self {
            stay_ns: member.stay_ns,
            active_tokens: replica.active_tokens(),
            kv_tokens: replica.kv_tokens(config).max(1),
            kv_used_tokens: replica.kv_used_tokens(config),
        }
    }
}

/// The figures and offers of all replicas, by slot.
#[derive(Debug, Default)]
pub(in crate::engine) struct FiguresTable {
    offers: Vec<Offers>,
    figures: Vec<Figures>,
    details: Vec<Details>,
    /// Slots whose offers have an `until_ns` of 0.
    changed: Vec<ReplicaSlot>,
    /// No later than the `until_ns` of all others.
    due_ns: Instant,
    /// Doors with a `turns_ns`: most of the time there are none.
    turning: usize,
}

impl FiguresTable {
    /// Something about the replica at a slot may change now.
    #[inline]
    pub(in crate::engine) fn changed(&mut self, slot: ReplicaSlot) {
        if let Some(offers) = self.offers.get_mut(slot.index()) {
            if mem::take(&mut offers.until_ns) != Instant::ZERO {
                self.changed.push(slot);
            }
            return;
        }
        for new in self.offers.len()..=slot.index() {
            self.offers.push(Offers {
                until_ns: Instant::ZERO,
                ..Offers::VACANT
            });
            self.figures.push(Figures::default());
            self.details.push(Details::default());
            self.changed.push(ReplicaSlot::new(new));
        }
    }

    pub(in crate::engine) fn refresh(
        &mut self,
        members: &Slab<Member>,
        config: &Config,
        now: Instant,
    ) {
        while let Some(slot) = self.changed.pop() {
            self.renew(slot.index(), members, config, now);
        }
        if now < self.due_ns {
            return;
        }
        self.due_ns = Instant::MAX;
        for index in 0..self.offers.len() {
            if self.offers[index].until_ns <= now {
                self.renew(index, members, config, now);
            }
            self.due_ns = self.due_ns.min(self.offers[index].until_ns);
        }
    }

    fn renew(&mut self, index: usize, members: &Slab<Member>, config: &Config, now: Instant) {
        let member = members.get(index);
        let offers = member.map_or(Offers::VACANT, |member| Offers::of(member, config, now));
        let before = mem::replace(&mut self.offers[index], offers);
        self.turning += usize::from(offers.turns_ns != Instant::MAX);
        self.turning -= usize::from(before.turns_ns != Instant::MAX);
        self.figures[index] = member.map(Figures::of).unwrap_or_default();
        self.details[index] =
            member.map_or_else(Details::default, |member| Details::of(member, config));
        self.due_ns = self.due_ns.min(offers.until_ns);
    }

    /// When time alone changes the health of one of them, or opens it.
    pub(in crate::engine) fn turns_ns(&self) -> Option<Instant> {
        let offers = self.offers.iter().filter(|_| self.turning > 0);
        offers.map(|offers| offers.turns_ns).min()
    }

    #[inline]
    pub(in crate::engine) fn offers(&self, slot: ReplicaSlot) -> Option<&Offers> {
        self.offers.get(slot.index())
    }

    #[inline]
    pub(in crate::engine) fn figures(&self, slot: ReplicaSlot) -> Option<&Figures> {
        self.figures.get(slot.index())
    }

    #[inline]
    pub(in crate::engine) fn details(&self, slot: ReplicaSlot) -> Option<&Details> {
        self.details.get(slot.index())
    }

    /// Whether all that is not marked is what the replicas say.
    pub(in crate::engine) fn check(
        &self,
        members: &Slab<Member>,
        config: &Config,
        now: Instant,
    ) -> Result<(), String> {
        for (index, member) in members {
            let offers = self.offers.get(index).ok_or("a_replica_has_offers")?;
            let valid = offers.until_ns > now;
            let plain = Offers {
                until_ns: offers.until_ns,
                ..Offers::of(member, config, now)
            };
            let same = *offers == plain
                && self.figures[index] == Figures::of(member)
                && self.details[index] == Details::of(member, config);
            if valid && !same {
                return Err(format!("figures_say_what_replicas_say: {:?}", member.id));
            }
            if offers.until_ns == Instant::ZERO && !self.changed.contains(&ReplicaSlot::new(index))
            {
                return Err(format!("changed_replicas_are_marked: {:?}", member.id));
            }
            if offers.until_ns != Instant::ZERO && offers.until_ns < self.due_ns {
                return Err(format!("figures_are_renewed_in_time: {:?}", member.id));
            }
        }
        Ok(())
    }
}
