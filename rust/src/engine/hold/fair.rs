//! How the tenants of a class share the room.
//!
//! Each tenant of a class has an *account*: what it has been served, in tokens over its weight. Of the tenants
//! that wait, those are *due* that have had at most `tenant_quantum_tokens` more than the one that has had
//! least. Who of them is served, the policy says: that is what locality may decide. A start is charged with the
//! tokens that were predicted. The end of the request settles the charge to what `usage` says, and an attempt
//! that failed is given back. Requests that find room at once are charged alike.
//!
//! A *clock* tells since when credit counts. It never goes back, and a start moves it to the account's value
//! less the quantum. An account counts for no less than the clock. So a tenant that comes back starts level, and
//! one that lets room pass saves nothing up.
//!
//! Accounts are apart by class, and by pool: models whose first replica is the same. One tenant's share of one
//! fleet is nobody's business on another. An account lives as long as a request of it is held or in flight.
//!
//! A tenant that has far more in flight than the others leaves a part of each replica free ([`Hold::defer`]).
//!
//! *Source: start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996). The window is that of deficit longest
//! prefix match (arXiv:2501.14312), the tokens are those of the virtual token counter (arXiv:2401.00588).*

use std::mem;

use super::accounts::{Accounts, Bill, End, NOBODY, Purse, Tokens, rules};
use super::payers::Payer;
use super::queue::{Front, Queue};
use super::{Class, Config, Entrant, Hold, Instant};

impl Hold {
    /// The account that one more request of its waits for.
    pub(super) fn wait(&mut self, of: &Entrant, config: &Config) -> usize {
        if !rules(config) {
            return NOBODY;
        }
        let account = self.accounts.open(of.purse(), of.weight);
        let first = self.accounts.get_mut(account).is_some_and(|account| {
            account.waiting += 1;
            account.waiting == 1
        });
        if first {
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
        own.any(|of| of.waiting > of.choosing)
    }

    /// The purse's tenant has far more in flight than others have for their weight.
    #[must_use]
    pub fn is_over(&self, purse: &Purse, config: &Config) -> bool {
        let account = self.accounts.find(purse).filter(|_| rules(config));
        account.is_some_and(|account| self.accounts.over(account))
    }

    /// Of tenants that are due together, those who may use the room of a replica, in two turns. Where that
    /// `spares` nothing, tenants with more than their part are `deferred`: others can still come. They are not
    /// kept waiting for tenants that have been served more than they: those come after them.
    #[must_use]
    pub fn defer(&self, due: &[Front], spares: bool, deferred: &mut Vec<Front>) -> [Vec<Front>; 2] {
        if spares {
            return [Vec::new(), due.to_vec()];
        }
        let over = |front: &&Front| self.accounts.over(front.account());
        let (over, free): (Vec<_>, Vec<_>) = due.iter().partition(over);
        let first = if free.is_empty() {
            Vec::new()
        } else {
            mem::take(deferred)
        };
        deferred.extend(over);
        [first, free]
    }

    /// A request is started, held or not: its tenant is charged for it.
    pub fn begin(
        &mut self,
        purse: Purse,
        weight: u32,
        tokens: Tokens,
        config: &Config,
        now: Instant,
    ) -> Option<Bill> {
        if !rules(config) {
            return None;
        }
        let account = self.accounts.open(purse, weight);
        if let Some(account) = self.accounts.get_mut(account) {
            account.running += 1;
        }
        let had = self.accounts.charge(account, tokens, (config, now));
        self.accounts.take(account, tokens.cost(), true);
        self.reckon(account, had);
        Some(Accounts::charged(account, tokens))
    }

    /// A started request has ended, or is to be tried elsewhere.
    pub fn settle(&mut self, charge: Option<Bill>, end: End) {
        let Some(charge) = charge else { return };
        let had = self.accounts.settle(charge, end);
        let account = Accounts::account_of(charge);
        self.accounts.take(account, charge.cost(), false);
        self.reckon(account, had);
        if let Some(account) = self.accounts.get_mut(account) {
            account.running -= 1;
        }
        self.accounts.close(account);
    }
}
