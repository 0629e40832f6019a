//! The requests of one partition and class: a lane for each tenant, and the lanes in the order of turns.
//!
//! Within a lane requests stand by age. Of the lanes, the one whose tenant has been served least is first. Where
//! tenants share nothing, all requests are in one lane.

use std::collections::BTreeSet;
use std::iter;
use std::ops::Bound;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use slab::Slab;

use super::accounts::{NOBODY, quantum, rules};
use super::bill::Purse;
use super::{Class, Config, Entrant, Entry, Hold, Partition, RequestId, Ticket};

/// A tenant's requests in one queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    pub(super) oldest: usize,
    pub(super) youngest: usize,
    len: usize,
    /// Bytes that its requests keep.
    pub(super) bytes: u64,
    weight: u32,
}

/// A lane, and the oldest request in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Front {
    account: usize,
    had: u64,
    /// The oldest request.
    pub ticket: Ticket,
    /// The same.
    pub request: RequestId,
}

impl Front {
    pub(super) fn account(&self) -> usize {
        self.account
    }

    pub(super) fn had(&self) -> u64 {
        self.had
    }
}

/// The requests of one partition and class.
#[derive(Debug)]
pub(super) struct Queue {
    /// By account.
    lanes: HashMap<usize, Lane, FixedState>,
    /// What each account has been served.
    order: BTreeSet<(u64, usize)>,
    pub(super) bytes: u64,
    weights: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            lanes: HashMap::with_hasher(FixedState::default()),
            order: BTreeSet::new(),
            bytes: 0,
            weights: 0,
        }
    }
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn lane(&self, account: usize) -> Option<&Lane> {
        self.lanes.get(&account)
    }

    /// Accounts, and how many requests of each wait here.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.lanes
            .iter()
            .map(|(account, lane)| (*account, lane.len))
    }

    /// Lanes in the order of turns: accounts, and what each has been served.
    pub(super) fn turns(&self) -> impl Iterator<Item = (usize, u64)> {
        self.order.iter().map(|(had, account)| (*account, *had))
    }

    /// The lane whose turn it is, and its account.
    pub(super) fn first(&self) -> Option<(usize, &Lane)> {
        let (account, _) = self.turns().next()?;
        Some((account, self.lane(account)?))
    }

    /// What the one has been served that has been served least.
    pub(super) fn least(&self) -> Option<u64> {
        self.order.first().map(|(had, _)| *had)
    }

    /// An account has been served this much now.
    pub(super) fn moved(&mut self, account: usize, before: u64, had: u64) {
        if self.order.remove(&(before, account)) {
            self.order.insert((had, account));
        }
    }

    /// An account has at least its part of the queue, in bytes over its weight.
    pub(super) fn has_its_part(&self, account: usize) -> bool {
        self.lane(account).is_some_and(|lane| {
            let (own, all) = (u128::from(lane.bytes), u128::from(self.bytes));
            own * u128::from(self.weights) >= all * u128::from(lane.weight)
        })
    }
}

impl Hold {
    pub(super) fn queue_of(&self, partition: Partition, class: Class) -> Option<&Queue> {
        let queues = self.partitions.get(&partition)?;
        Some(&queues.by_class[class as usize]).filter(|queue| !queue.is_empty())
    }

    /// Puts an entry of this account into its queue; its slot.
    pub(super) fn link(&mut self, of: Entrant, serial: u64, account: usize) -> usize {
        let queue = self.queue_of(of.partition, of.class);
        let lane = queue.and_then(|queue| queue.lane(account)).copied();
        let older = lane.and_then(|lane| place_after(&self.entries, lane, of.age));
        let younger = match older {
            Some(older) => self.entries[older].younger,
            None => lane.map(|lane| lane.oldest),
        };
        let slot = self.entries.insert(Entry {
            of,
            serial,
            account,
            passes: 0,
            passed_out: false,
            choice: None,
            choice_end_ns: None,
            older,
            younger,
        });
        if let Some(older) = older {
            self.entries[older].younger = Some(slot);
        }
        if let Some(younger) = younger {
            self.entries[younger].older = Some(slot);
        }
        let (had, weight) = (self.accounts.had(account), self.accounts.weight(account));
        let queues = self.partitions.entry(of.partition).or_default();
        queues.len += 1;
        queues.open += 1;
        queues.bytes += of.bytes;
        if !of.fresh {
            queues.shed.returned(of.bytes);
        }
        let queue = &mut queues.by_class[of.class as usize];
        queue.bytes += of.bytes;
        let lane = queue.lanes.entry(account).or_insert_with(|| {
            queue.order.insert((had, account));
            queue.weights += u64::from(weight);
            Lane {
                oldest: slot,
                youngest: slot,
                len: 0,
                bytes: 0,
                weight,
            }
        });
        lane.len += 1;
        lane.bytes += of.bytes;
        if older.is_none() {
            lane.oldest = slot;
        }
        if younger.is_none() {
            lane.youngest = slot;
        }
        if lane.oldest == lane.youngest
            && let Some(account) = self.accounts.get_mut(account)
        {
            account.lines.push(of.partition);
        }
        slot
    }

    /// Takes an entry out of its queue, which is no longer in the slab.
    pub(super) fn unlink(&mut self, entry: &Entry) {
        let of = entry.of;
        if let Some(older) = entry.older {
            self.entries[older].younger = entry.younger;
        }
        if let Some(younger) = entry.younger {
            self.entries[younger].older = entry.older;
        }
        let Some(queues) = self.partitions.get_mut(&of.partition) else {
            return;
        };
        queues.len -= 1;
        queues.open -= 1;
        queues.bytes -= of.bytes;
        let queue = &mut queues.by_class[of.class as usize];
        queue.bytes -= of.bytes;
        let Some(lane) = queue.lanes.get_mut(&entry.account) else {
            return;
        };
        lane.len -= 1;
        lane.bytes -= of.bytes;
        match (entry.older, entry.younger) {
            (None, None) => {
                queue.weights -= u64::from(lane.weight);
                queue.lanes.remove(&entry.account);
                let had = self.accounts.had(entry.account);
                queue.order.remove(&(had, entry.account));
                if let Some(account) = self.accounts.get_mut(entry.account) {
                    account.lines.retain(|line| *line != of.partition);
                }
            }
            (None, Some(younger)) => lane.oldest = younger,
            (Some(older), None) => lane.youngest = older,
            (Some(_), Some(_)) => {}
        }
        if queues.len == 0 {
            self.partitions.remove(&of.partition);
        }
    }

    /// Sets what an account has been served, in all queues in which it waits.
    pub(super) fn reckon(&mut self, account: usize, had: u64) {
        let before = self.accounts.had(account);
        let Some(of) = self.accounts.get(account).filter(|_| had != before) else {
            return;
        };
        let class = of.purse().class as usize;
        for partition in &of.lines {
            if let Some(queues) = self.partitions.get_mut(partition) {
                queues.by_class[class].moved(account, before, had);
            }
        }
        self.accounts.set(account, had);
    }

    /// The oldest request of the lane whose turn it is.
    #[must_use]
    pub fn front(&self, partition: Partition, class: Class) -> Option<Front> {
        let queue = self.queue_of(partition, class)?;
        let (account, had) = queue.turns().next()?;
        self.front_of(queue, account, had)
    }

    fn front_of(&self, queue: &Queue, account: usize, had: u64) -> Option<Front> {
        let (ticket, request) = self.at(queue.lane(account)?.oldest);
        Some(Front {
            account,
            had,
            ticket,
            request,
        })
    }

    /// The lanes of one queue, in the order of turns.
    pub fn fronts(&self, partition: Partition, class: Class) -> impl Iterator<Item = Front> {
        let queue = self.queue_of(partition, class);
        queue.into_iter().flat_map(|queue| {
            let turns = queue.turns();
            turns.filter_map(|(account, had)| self.front_of(queue, account, had))
        })
    }

    /// Fills `out` with the lanes whose tenants are due together: after those that `out` had before, the next
    /// one, and all that have been served hardly more; `most` at most. False where there is none.
    pub fn next_due(
        &self,
        (partition, class): (Partition, Class),
        (config, most): (&Config, usize),
        out: &mut Vec<Front>,
    ) -> bool {
        let after = out.last().map(|last| (last.had, last.account));
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        out.clear();
        let Some(queue) = self.queue_of(partition, class) else {
            return false;
        };
        let mut limit = None;
        for &(had, account) in queue.order.range((after, Bound::Unbounded)).take(most) {
            let level = || self.accounts.level(account, None).max(had);
            if had > *limit.get_or_insert_with(|| level().saturating_add(quantum(config))) {
                break;
            }
            out.extend(self.front_of(queue, account, had));
        }
        !out.is_empty()
    }

    /// The requests of one queue, lane by lane, oldest first.
    pub fn queue(
        &self,
        partition: Partition,
        class: Class,
    ) -> impl Iterator<Item = (Ticket, RequestId)> {
        let fronts = self.fronts(partition, class);
        fronts.flat_map(|front| self.lane(front))
    }

    /// The requests of one lane, oldest first.
    pub fn lane(&self, front: Front) -> impl Iterator<Item = (Ticket, RequestId)> {
        let first = Some(front.ticket.slot);
        iter::successors(first, |&slot| self.entries[slot].younger).map(|slot| self.at(slot))
    }

    /// The requests of one partition that a purse's next one would stand behind, oldest first.
    pub fn beside(
        &self,
        partition: Partition,
        purse: &Purse,
        config: &Config,
    ) -> impl Iterator<Item = (Ticket, RequestId)> {
        let front = self.queue_of(partition, purse.class).and_then(|queue| {
            let account = if rules(config) {
                self.accounts.find(purse)?
            } else {
                NOBODY
            };
            self.front_of(queue, account, 0)
        });
        front.into_iter().flat_map(|front| self.lane(front))
    }
}

/// The entry behind which a request of this age stands; `None` at the head.
fn place_after(entries: &Slab<Entry>, lane: Lane, age: u64) -> Option<usize> {
    if entries[lane.youngest].of.age <= age {
        return Some(lane.youngest);
    }
    let mut after = None;
    let mut next = Some(lane.oldest);
    while let Some(slot) = next.filter(|&slot| entries[slot].of.age <= age) {
        after = Some(slot);
        next = entries[slot].younger;
    }
    after
}
