//! Waiting for one replica by choice while others have room.

use std::mem;

use slab::Slab;

use super::timers::Timer;
use super::{Choice, Config, Entry, Hold, Instant, ReplicaSlot, RequestId, Ticket};

impl Hold {
    /// Lets a request wait for a replica while others have room; false when it has done so for as
    /// long as it may, or is due.
    pub fn choose(
        &mut self,
        ticket: Ticket,
        replica: ReplicaSlot,
        config: &Config,
        now: Instant,
    ) -> bool {
        if !self.may_choose(ticket, config, now) {
            return false;
        }
        self.open(ticket);
        let Some(entry) = self.entry_mut(ticket) else {
            return false;
        };
        let overdue_ns = entry.of.submitted_ns + config.due_after_ns();
        let end_ns = now + config.wait_max_ns();
        let until_ns = *entry
            .choice_end_ns
            .get_or_insert(end_ns.min(overdue_ns).min(entry.of.deadline_ns));
        if until_ns <= now {
            return false;
        }
        let (partition, account) = (entry.of.partition, entry.account);
        if let Some(account) = self.accounts.get_mut(account) {
            account.choosing += 1;
        }
        self.serials += 1;
        let serial = self.serials;
        let chosen = self.chosen.entry(replica).or_default();
        self.entries[ticket.slot].choice = Some(Choice {
            replica,
            until_ns,
            serial,
            number: chosen.begun,
        });
        chosen.begun += 1;
        if let Some(queues) = self.partitions.get_mut(&partition) {
            queues.open -= 1;
        }
        self.timers.add(Timer {
            at_ns: until_ns,
            slot: ticket.slot,
            serial,
        });
        true
    }

    /// A request may let room pass: it has not done so for as long as it may, and is not due.
    #[must_use]
    pub fn may_choose(&self, ticket: Ticket, config: &Config, now: Instant) -> bool {
        let ends_ns = self.entry(ticket).and_then(|entry| entry.choice_end_ns);
        ends_ns.is_none_or(|end_ns| now < end_ns) && !self.is_due(ticket, config, now)
    }

    /// A request takes what comes from now on, until it chooses again.
    pub(super) fn open(&mut self, ticket: Ticket) {
        if self
            .entry_mut(ticket)
            .is_some_and(|entry| entry.choice.is_some())
        {
            self.reopen_slot(ticket.slot);
            self.retire(1);
        }
    }

    /// Ends a choice; its timer is the caller's.
    fn reopen_slot(&mut self, slot: usize) {
        let entry = &mut self.entries[slot];
        let partition = entry.of.partition;
        let Some(choice) = entry.choice.take() else {
            return;
        };
        if let Some(account) = self.accounts.get_mut(entry.account) {
            account.choosing -= 1;
        }
        if let Some(queues) = self.partitions.get_mut(&partition) {
            queues.open += 1;
        }
        if let Some(chosen) = self.chosen.get_mut(&choice.replica) {
            chosen.ended += 1;
            if chosen.len() == 0 {
                self.chosen.remove(&choice.replica);
            }
        }
    }

    /// The replica for which a request waits by choice.
    #[must_use]
    pub fn choice(&self, ticket: Ticket) -> Option<ReplicaSlot> {
        self.entry(ticket)?.choice.map(|choice| choice.replica)
    }

    /// Ends the waits for replicas that `lost` picks.
    pub fn reopen(&mut self, lost: impl Fn(ReplicaSlot) -> bool) {
        if !self.chosen.keys().any(|replica| lost(*replica)) {
            return;
        }
        let slots: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.choice.is_some_and(|choice| lost(choice.replica)))
            .map(|(slot, _)| slot)
            .collect();
        for &slot in &slots {
            self.reopen_slot(slot);
        }
        self.opened = true;
        self.retire(slots.len());
    }

    /// Whether the wait of some request by choice has ended since last asked: it takes now what
    /// room there is.
    pub fn take_opened(&mut self) -> bool {
        mem::take(&mut self.opened)
    }

    // ------------------------------------------------------------------ time

    /// The earliest deadline or end of a choice.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<Instant> {
        self.timers.first().map(|timer| timer.at_ns)
    }

    /// Ends the choices whose time is over, and takes out the request with the earliest deadline,
    /// if that is not after `now`.
    pub fn expire(&mut self, now: Instant) -> Option<RequestId> {
        while let Some(timer) = self.timers.first().filter(|timer| timer.at_ns <= now) {
            let Some(entry) = self.entries.get(timer.slot) else {
                break;
            };
            let ticket = Ticket {
                slot: timer.slot,
                serial: entry.serial,
            };
            if timer.serial == entry.serial {
                return self.leave(ticket);
            }
            self.open(ticket);
            self.opened = true;
        }
        None
    }

    /// So many timers are no longer waited for.
    pub(super) fn retire(&mut self, count: usize) {
        let entries = &self.entries;
        self.timers.retire(count, |timer| valid(entries, timer));
    }
}

/// Somebody still waits for this moment.
pub(super) fn valid(entries: &Slab<Entry>, timer: &Timer) -> bool {
    entries.get(timer.slot).is_some_and(|entry| {
        let chosen = entry
            .choice
            .is_some_and(|choice| choice.serial == timer.serial);
        chosen || entry.serial == timer.serial
    })
}
