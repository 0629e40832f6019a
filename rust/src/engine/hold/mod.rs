//! The hold: requests that wait for room.
//!
//! A *partition* is a set of requests that may use the same replicas. Each partition has a queue of its
//! own, so that a request never blocks one that could use other replicas. Within a queue each class has its
//! own part. In a part, the request with the lowest age number goes first. A request gets that number when
//! it is submitted, and keeps it. So a request that comes back after a failed attempt stands before all
//! that were submitted later.
//!
//! A request is *due* if it has been passed over as often as allowed, or is older than `hold_age_max_s`.
//! The next request of a queue is the oldest that is due. If none is due, it comes from the class that has
//! had least for its weight. For this a part counts as the class of its oldest request. That class rises by
//! one for every `class_age_s` of waiting.
//!
//! A request may decline room, and wait for a replica that caches its prompt. It then waits *by choice*,
//! for a bounded time. All other requests are *open*: they take any room.
//!
//! Entering costs O(log n) for the deadline, leaving O(1).

mod accounts;
mod bill;
mod check;
mod choice;
mod fair;
mod payers;
mod queue;
mod report;
mod share;
mod shed;
mod timers;
mod turn;

#[cfg(test)]
mod tests;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use slab::Slab;

use self::accounts::{Accounts, rules};
pub use self::bill::{Bill, End, Purse, Tokens};
pub use self::fair::{Room, Turn, ahead_max_tokens};
pub use self::payers::Payer;
use self::payers::{Payers, Use};
pub use self::queue::Front;
use self::queue::Queue;
pub(in crate::engine) use self::report::HoldState;
use self::share::Served;
use self::share::weight;
use self::shed::Shed;
use self::timers::{Timer, Timers};
pub use self::turn::Head;
use super::config::Config;
use crate::id::{ModelId, ReplicaId, ReplicaSlot, RequestId};
use crate::prompt::class::{CLASSES, Class};
use crate::time::Instant;

/// What a request may use: requests with equal partitions wait together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The model or adapter asked for.
    pub model: ModelId,
    /// The one replica that can serve it (`previous_response_id`), if only one can.
    pub bound: Option<ReplicaId>,
    /// Regions that it may be served in, as bits.
    pub regions: u64,
    /// It is not forwarded to peers.
    pub stays: bool,
}

/// A place in the hold, valid until its request leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    slot: usize,
    serial: u64,
}

/// What a request brings into the hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entrant {
    /// The request.
    pub request: RequestId,
    /// What it may use.
    pub partition: Partition,
    /// Its class.
    pub class: Class,
    /// Whom it counts for.
    pub payer: Payer,
    /// Models whose first replica this is share their room.
    pub pool: Option<ReplicaSlot>,
    /// Bytes of memory that it keeps while it waits.
    pub bytes: u64,
    /// Order of submission.
    pub age: u64,
    /// When it was submitted.
    pub submitted_ns: Instant,
    /// When its wait ends.
    pub deadline_ns: Instant,
    /// It has just come from a client: it may be refused because overload lasts.
    pub fresh: bool,
}

impl Entrant {
    fn purse(&self) -> Purse {
        Purse {
            pool: self.pool,
            class: self.class,
            payer: self.payer,
        }
    }
}

/// Why a request cannot be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The hold has no room.
    Hold,
    /// Its payer has taken what one payer may take.
    Payer,
    /// It was drawn to be refused, because overload lasts.
    Shed,
}

/// A wait for a replica that has no room now, while others have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    /// The router's number of the replica.
    replica: ReplicaSlot,
    until_ns: Instant,
    /// Of its timer.
    serial: u64,
    /// Its number among those who chose this replica.
    number: u64,
}

/// Who waits for one replica by choice.
#[derive(Debug, Clone, Copy, Default)]
struct Chosen {
    /// How many have begun to, and how many have ended, since somebody does.
    begun: u64,
    ended: u64,
}

impl Chosen {
    fn len(self) -> u64 {
        self.begun - self.ended
    }
}

#[derive(Debug)]
struct Entry {
    of: Entrant,
    serial: u64,
    /// Its tenant's, or [`accounts::NOBODY`].
    account: usize,
    /// How often a younger request of its queue took room that it could have used.
    passes: u32,
    /// That is as often as allowed.
    passed_out: bool,
    choice: Option<Choice>,
    /// From the first choice on: when the last one ends.
    choice_end_ns: Option<Instant>,
    older: Option<usize>,
    younger: Option<usize>,
}

#[derive(Debug, Default)]
struct Queues {
    by_class: [Queue; CLASSES],
    len: usize,
    /// Requests that do not wait by choice.
    open: usize,
    /// Bytes that its requests keep.
    bytes: u64,
    shed: Shed,
}

/// The hold. See the module's text.
#[derive(Debug)]
pub struct Hold {
    entries: Slab<Entry>,
    partitions: HashMap<Partition, Queues, FixedState>,
    timers: Timers,
    payers: Payers,
    accounts: Accounts,
    /// The account of a request that has been taken out to be served, and has not begun.
    leaving: Option<usize>,
    served: Served,
    used: Use,
    serials: u64,
    /// Requests that have been passed over as often as allowed.
    passed_out: usize,
    /// The wait of some request by choice has ended since last asked.
    opened: bool,
    /// Requests that wait by choice, by replica.
    chosen: HashMap<ReplicaSlot, Chosen, FixedState>,
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

impl Hold {
    /// An empty hold.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: Slab::new(),
            partitions: HashMap::with_hasher(FixedState::default()),
            timers: Timers::default(),
            payers: Payers::new(),
            accounts: Accounts::new(),
            leaving: None,
            served: Served::default(),
            used: Use::default(),
            serials: 0,
            passed_out: 0,
            opened: false,
            chosen: HashMap::with_hasher(FixedState::default()),
        }
    }

    // ------------------------------------------------------------------ figures

    /// Requests held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used.requests
    }

    /// Nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used.requests == 0
    }

    /// Bytes that the held requests keep.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.used.bytes
    }

    /// Payers with at least one request.
    #[must_use]
    pub fn payers_len(&self) -> usize {
        self.payers.len()
    }

    /// Lines with at least one request.
    #[must_use]
    pub fn partitions_len(&self) -> usize {
        self.partitions.len()
    }

    /// Requests held in one partition.
    #[must_use]
    pub fn partition_len(&self, partition: Partition) -> usize {
        self.partitions
            .get(&partition)
            .map_or(0, |queues| queues.len)
    }

    /// Requests of one partition that do not wait by choice.
    #[must_use]
    pub fn open_len(&self, partition: Partition) -> usize {
        self.partitions
            .get(&partition)
            .map_or(0, |queues| queues.open)
    }

    /// Requests held for one model.
    #[must_use]
    pub fn len_of(&self, model: ModelId) -> usize {
        let partitions = self.partitions.iter();
        let of_model = partitions.filter(|(partition, _)| partition.model == model);
        of_model.map(|(_, queues)| queues.len).sum()
    }

    /// Some request waits by choice.
    #[must_use]
    pub fn any_chosen(&self) -> bool {
        !self.chosen.is_empty()
    }

    /// Requests that wait by choice for this replica, and have done so for longer than this one.
    #[must_use]
    pub fn chosen_before(&self, replica: ReplicaSlot, ticket: Option<Ticket>) -> u32 {
        let Some(chosen) = self.chosen.get(&replica) else {
            return 0;
        };
        let own = ticket
            .and_then(|ticket| self.entry(ticket)?.choice)
            .filter(|choice| choice.replica == replica);
        // Whoever has left may have stood behind: the number is an upper bound of the place then.
        let before = own.map_or(chosen.begun, |choice| choice.number);
        u32::try_from(before.saturating_sub(chosen.ended)).unwrap_or(u32::MAX)
    }

    /// What each class has had beyond the one that has had least, in tokens over its weight.
    #[must_use]
    pub fn ahead(&self) -> [u64; CLASSES] {
        self.served.ahead()
    }

    // ------------------------------------------------------------------ entering and leaving

    /// Puts a request into its queue by age.
    ///
    /// A fresh request is younger than all others and goes to the tail in O(1). One that returns is
    /// placed from the head on, behind the returned requests that are older.
    ///
    /// # Errors
    ///
    /// A bound would be passed: of the hold or of the request's payer, in requests or bytes. A
    /// request too large for the bound in bytes is held if it is the only one.
    pub fn enter(&mut self, of: Entrant, config: &Config) -> Result<Ticket, Full> {
        self.fits(&of, config)?;
        if self.sheds(&of, config) {
            return Err(Full::Shed);
        }
        self.used.add(of.bytes);
        self.payers.add(of.payer, of.bytes);
        self.serials += 1;
        let serial = self.serials;
        let account = self.wait(&of, config);
        let slot = self.link(of, serial, account);
        self.timers.add(Timer {
            at_ns: of.deadline_ns,
            slot,
            serial,
        });
        Ok(Ticket { slot, serial })
    }

    /// Whether the bounds of the hold and of the request's payer leave a place for it.
    ///
    /// # Errors
    ///
    /// A bound would be passed.
    pub fn fits(&self, of: &Entrant, config: &Config) -> Result<(), Full> {
        if !self
            .used
            .fits(of.bytes, config.hold_len_max, config.hold_bytes_max)
        {
            return Err(Full::Hold);
        }
        let (len_max, bytes_max) = self.payers.bounds(of.payer, config, of.submitted_ns);
        if !self.payers.of(of.payer).fits(of.bytes, len_max, bytes_max) {
            return Err(Full::Payer);
        }
        Ok(())
    }

    /// Overload lasts, and this request is drawn to be refused. Tenants that have less than their part of the
    /// queue are spared.
    fn sheds(&mut self, of: &Entrant, config: &Config) -> bool {
        let others = self.payers.len() > usize::from(self.payers.of(of.payer).requests > 0);
        let account = self.accounts.find(&of.purse());
        let Some(queues) = self.partitions.get_mut(&of.partition).filter(|_| of.fresh) else {
            return false;
        };
        queues.shed.look(queues.bytes, config, of.submitted_ns);
        if rules(config) && others {
            let queue = &queues.by_class[of.class as usize];
            if !account.is_some_and(|account| queue.has_its_part(account)) {
                return false;
            }
        }
        queues.shed.refuses(of, config)
    }

    /// Sets the names of payers and their shares of the room; 1 for all others.
    pub fn set_terms(&mut self, terms: impl IntoIterator<Item = (Payer, Box<str>, u32)>) {
        self.payers.set_terms(terms);
    }

    /// The share of the room that a payer's requests have.
    #[must_use]
    pub fn weight(&self, payer: Payer) -> u32 {
        self.payers.weight(payer)
    }

    /// A request of this payer was submitted, held or not.
    pub fn saw(&mut self, payer: Payer, now: Instant) {
        self.payers.saw(payer, now);
    }

    /// Takes out a request that is served, as [`Self::leave`]. The caller begins it ([`Self::begin`]).
    pub fn serve(&mut self, ticket: Ticket, now: Instant) -> Option<RequestId> {
        let of = self.entry(ticket)?.of;
        if let Some(queues) = self.partitions.get_mut(&of.partition) {
            queues.shed.served(of.bytes, now);
        }
        let entry = self.take_out(ticket, Some(now))?;
        // Its account is kept until it begins.
        if let Some(other) = self.leaving.replace(entry.account) {
            self.accounts.close(other);
        }
        Some(entry.of.request)
    }

    /// Takes a request out, wherever it stands; `None` when the ticket is not valid any more.
    pub fn leave(&mut self, ticket: Ticket) -> Option<RequestId> {
        let entry = self.take_out(ticket, None)?;
        self.accounts.close(entry.account);
        Some(entry.of.request)
    }

    /// `served_ns`: when it is served, if it is.
    fn take_out(&mut self, ticket: Ticket, served_ns: Option<Instant>) -> Option<Entry> {
        self.entry(ticket)?;
        self.open(ticket);
        let entry = self.entries.remove(ticket.slot);
        let of = entry.of;
        self.used.take(of.bytes);
        self.payers.take(of.payer, of.bytes);
        self.passed_out -= usize::from(entry.passed_out);
        self.unlink(&entry);
        self.accounts.waits(entry.account, false, served_ns);
        self.retire(1);
        if self.used.requests == 0 {
            self.served = Served::default();
        }
        Some(entry)
    }

    /// The oldest request of one partition, whatever its class.
    #[must_use]
    pub fn oldest(&self, partition: Partition) -> Option<(Ticket, RequestId)> {
        let classes = Class::ALL.into_iter();
        let fronts = classes.flat_map(|class| self.fronts(partition, class));
        let oldest = fronts.min_by_key(|front| self.entries[front.ticket.slot].of.age)?;
        Some((oldest.ticket, oldest.request))
    }

    /// The next younger request of the same lane.
    #[must_use]
    pub fn after(&self, ticket: Ticket) -> Option<(Ticket, RequestId)> {
        Some(self.at(self.entry(ticket)?.younger?))
    }

    fn at(&self, slot: usize) -> (Ticket, RequestId) {
        let Entry { of, serial, .. } = &self.entries[slot];
        let serial = *serial;
        (Ticket { slot, serial }, of.request)
    }

    fn entry(&self, ticket: Ticket) -> Option<&Entry> {
        let entry = self.entries.get(ticket.slot);
        entry.filter(|entry| entry.serial == ticket.serial)
    }

    fn entry_mut(&mut self, ticket: Ticket) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(ticket.slot);
        entry.filter(|entry| entry.serial == ticket.serial)
    }
}
