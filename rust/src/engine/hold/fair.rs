//! How the tenants of a class share the room.
//!
//! Each tenant of a class has an *account*: what it has been served, in tokens over its weight. Of the tenants
//! that wait, those are *due* that have had at most `tenant_quantum_tokens` more than the one that has had
//! least. Who of them is served, the policy says: that is what locality may decide. A start is charged with the
//! tokens that were predicted. The end of the request settles the charge to what `usage` says, and an attempt
//! that failed is given back. Requests that find room at once are charged alike.
//!
//! A *clock* tells since when credit counts. It never goes back, and a start moves it to the account's value
//! less the quantum; less eleven where tenants leave room free. An account counts for no less than the clock. So a tenant that comes back starts level, and
//! one that lets room pass saves nothing up.
//!
//! Accounts are apart by class, and by pool: models whose first replica is the same. One tenant's share of one
//! fleet is nobody's business on another. An account lives as long as a request of it is held or in flight.
//!
//! A tenant that asks for far more than the others takes only what replicas spare, after all others
//! ([`Hold::defer`]).
//!
//! *Source: start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996). The window is that of deficit longest
//! prefix match (arXiv:2501.14312), the tokens are those of the virtual token counter (arXiv:2401.00588).*

use std::mem;

use super::accounts::{
    Account, Accounts, NOBODY, ahead_max, leaves_room, over_ahead, rules, tokens,
};
use super::bill::{Bill, End, Purse, Tokens};
use super::payers::Payer;
use super::queue::{Front, Queue};
use super::turn::Head;
use super::{Class, Config, Entrant, Hold, Instant, ModelId, Partition};

/// Which room of replicas a request may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// All there is.
    Any,
    /// What they spare: its tenant asks for far more than its part.
    Spared,
}

/// Tenants of one queue who may use some room together.
#[derive(Debug)]
pub struct Turn {
    /// The queue.
    pub head: Head,
    /// Their oldest requests.
    pub fronts: Vec<Front>,
    /// What room.
    pub room: Room,
}

impl Turn {
    fn any(head: Head, fronts: Vec<Front>) -> Self {
        Self {
            head,
            fronts,
            room: Room::Any,
        }
    }
}

/// By how many tokens one tenant that waits may be ahead of another that does, and be served first.
#[must_use]
pub fn ahead_max_tokens(config: &Config) -> u64 {
    tokens(ahead_max(config))
}

impl Hold {
    /// The account that one more request of its waits for.
    pub(super) fn wait(&mut self, of: &Entrant, config: &Config) -> usize {
        if !rules(config) {
            return NOBODY;
        }
        let account = self.accounts.open(of.purse(), self.payers.weight(of.payer));
        self.accounts.waits(account, true, None);
        let first = |of: &Account| of.sum.waiting == 1;
        if self.accounts.get(account).is_some_and(first) {
            let least = self.queue_of(of.partition, of.class).and_then(Queue::least);
            let level = self.accounts.level(account, least);
            self.accounts.set(account, level);
        }
        account
    }

    /// Several tenants wait, and share the room.
    #[must_use]
    pub fn shares(&self, config: &Config) -> bool {
        rules(config) && self.payers.len() > 1
    }

    /// Some request of this payer and class waits for what comes, and lets no room pass.
    #[must_use]
    pub fn waits_openly(&self, payer: Payer, class: Class) -> bool {
        let accounts = self.accounts.iter().map(|(_, account)| account);
        let mut own = accounts.filter(|of| (of.purse().payer, of.purse().class) == (payer, class));
        own.any(|of| of.sum.waiting > of.choosing)
    }

    /// Which room a request of this purse may have. `waits`: requests of its wait elsewhere.
    #[must_use]
    pub fn room_for(&self, purse: &Purse, waits: bool, config: &Config, now: Instant) -> Room {
        let account = self.accounts.find(purse);
        let over = |account: usize| self.over(account, waits, config, now);
        account
            .filter(|account| over(*account))
            .map_or(Room::Any, |_| Room::Spared)
    }

    /// An account's tenant takes only what replicas spare. `waits`: requests of its wait elsewhere.
    pub(super) fn over(&self, account: usize, waits: bool, config: &Config, now: Instant) -> bool {
        leaves_room(config) && self.accounts.over(account, waits, now)
    }

    /// Of tenants of one queue that are due together, those who may use the room of a replica, in turns. Tenants
    /// that ask for far more than their part come last, and use only what is spared. They are `deferred`, too,
    /// with their queue: where that is nothing, others can still come, of this queue and the next ones. A
    /// tenant that has been served ten quanta more than they is none of these others: it comes after them.
    pub fn defer(
        &self,
        head: Head,
        due: &[Front],
        deferred: &mut Vec<(Head, Front)>,
        (config, now): (&Config, Instant),
    ) -> Vec<Turn> {
        let over = |front: &&Front| self.over(front.account(), false, config, now);
        let (over, free): (Vec<Front>, Vec<Front>) = due.iter().partition(over);
        let mut turns = Vec::with_capacity(2);
        if let Some(least) = free.first() {
            let served = least.had().saturating_sub(over_ahead(config));
            let place = |front: &Front| self.accounts.get(front.account()).map(Account::place);
            let behind = |(_, of): &(_, Front)| of.had() < served && place(of) == place(least);
            let (first, rest): (Vec<_>, _) = mem::take(deferred).into_iter().partition(behind);
            *deferred = rest;
            turns.extend(
                first
                    .into_iter()
                    .map(|(head, front)| Turn::any(head, vec![front])),
            );
        }
        deferred.extend(over.iter().map(|front| (head, *front)));
        turns.push(Turn::any(head, free));
        turns.push(Turn {
            head,
            fronts: over,
            room: Room::Spared,
        });
        turns
    }

    /// Held requests for one model, without those of our own clients that wait for what replicas spare: they
    /// leave the rest to others, and so to what peers send.
    #[must_use]
    pub fn calls_of(&self, model: ModelId, config: &Config, now: Instant) -> usize {
        let parts = self.partitions.iter();
        let of_model = parts.filter(|(line, _)| line.model == model);
        let waits =
            |line: &Partition, account| line.stays || !self.over(account, false, config, now);
        let lanes = of_model.flat_map(|(line, queues)| {
            let lanes = queues.by_class.iter().flat_map(Queue::lanes);
            lanes.filter(|(account, _)| waits(line, *account))
        });
        lanes.map(|(_, len)| len).sum()
    }

    /// A request is started, held or not: its tenant is charged for it.
    pub fn begin(
        &mut self,
        purse: Purse,
        tokens: Tokens,
        config: &Config,
        now: Instant,
    ) -> Option<Bill> {
        if !rules(config) {
            return None;
        }
        let account = self.accounts.open(purse, self.payers.weight(purse.payer));
        self.accounts.runs(account, true);
        let had = self.accounts.charge(account, tokens, (config, now));
        self.accounts.take(account, tokens.cost(), true);
        self.reckon(account, had);
        // The one under which it was held, if its model has another pool since.
        if let Some(held) = self.leaving.take() {
            self.accounts.close(held);
        }
        Some(self.accounts.bill(account, tokens))
    }

    /// A started request has ended, or is to be tried elsewhere.
    pub fn settle(&mut self, charge: Option<Bill>, end: End) {
        let Some(charge) = charge else { return };
        let had = self.accounts.settle(charge, end);
        let account = Accounts::account_of(charge);
        self.accounts.take(account, charge.cost(), false);
        self.reckon(account, had);
        self.accounts.runs(account, false);
        self.accounts.close(account);
    }
}
