//! What the tenants of a class have been served, and by which clock that counts.
//!
//! See [`super::fair`] for what it is for.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;

use super::bill::{Bill, End, Purse, Tokens, UNCACHED};
use super::{Class, Config, Instant, Partition};
use crate::engine::config::TenantRule;
use crate::engine::plant::Plant;
use crate::id::ReplicaSlot;
use crate::time::Span;

/// Tenths of a token are counted so much finer, so that a weight divides them well.
const FINE: u64 = 1 << 10;
/// A tenant that asks for so many times as much as the others for its weight leaves some room free.
const OVER: u128 = 2;
/// It may have any room until it has a part of its part in flight, of which there are so many.
const PART: u128 = 2;
/// It waits if a request of its has waited within this time.
const WAITED_KEPT: Span = Span::from_secs(1);
/// Others that were here so recently may come back at any time.
const OTHERS_KEPT: Span = Span::from_secs(60);
/// Stands for the one account where tenants share nothing.
pub(super) const NOBODY: usize = usize::MAX;

#[derive(Debug)]
pub(super) struct Account {
    purse: Purse,
    weight: u32,
    /// What it has been served, in fine tenths of a token over its weight.
    had: u64,
    pub(super) sum: Sum,
    /// Of its requests in the hold: the ones that wait for a replica by choice.
    pub(super) choosing: u32,
    /// When one of its requests was last started.
    served_ns: Instant,
    /// When one that had waited was.
    waited_ns: Option<Instant>,
    /// Where it waits.
    pub(super) lines: SmallVec<[Partition; 1]>,
}

/// What is known of one class in one pool.
#[derive(Debug, Default, PartialEq, Eq)]
struct Clock {
    now: u64,
    accounts: usize,
    /// Of all accounts.
    sum: Sum,
    /// When a request of this class or a more urgent one was last started while there were several accounts.
    shared_ns: Option<Instant>,
}

/// What one account has, or several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    weights: u64,
    /// Requests in the hold, and in flight.
    pub(super) waiting: u32,
    pub(super) running: u32,
    /// What those in flight were charged.
    taken: u64,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.weights += other.weights;
        self.waiting += other.waiting;
        self.running += other.running;
        self.taken += other.taken;
    }

    fn without(&self, other: &Self) -> Self {
        Self {
            weights: self.weights - other.weights,
            waiting: self.waiting - other.waiting,
            running: self.running - other.running,
            taken: self.taken - other.taken,
        }
    }

    /// What is taken, and as much more for each request that waits.
    fn asked(&self) -> u128 {
        let requests = u128::from(self.running) + u128::from(self.waiting);
        u128::from(self.taken) * requests / u128::from(self.running.max(1))
    }
}

pub(super) type Place = (Option<ReplicaSlot>, Class);

/// All accounts.
#[derive(Debug)]
pub(super) struct Accounts {
    all: Slab<Account>,
    by_purse: HashMap<Purse, usize, FixedState>,
    clocks: HashMap<Place, Clock, FixedState>,
}

impl Accounts {
    pub(super) fn new() -> Self {
        Self {
            all: Slab::new(),
            by_purse: HashMap::with_hasher(FixedState::default()),
            clocks: HashMap::with_hasher(FixedState::default()),
        }
    }

    pub(super) fn get(&self, account: usize) -> Option<&Account> {
        self.all.get(account)
    }

    pub(super) fn get_mut(&mut self, account: usize) -> Option<&mut Account> {
        self.all.get_mut(account)
    }

    /// The account of a purse, if it has one.
    pub(super) fn find(&self, purse: &Purse) -> Option<usize> {
        self.by_purse.get(purse).copied()
    }

    /// The account of a purse, a new one if need be.
    pub(super) fn open(&mut self, purse: Purse, weight: u32) -> usize {
        let weight = weight.max(1);
        let known = self.find(&purse);
        let clock = self.clocks.entry((purse.pool, purse.class)).or_default();
        clock.sum.weights += u64::from(weight);
        if let Some(account) = known {
            if let Some(known) = self.all.get_mut(account) {
                clock.sum.weights -= u64::from(known.weight);
                (known.weight, known.sum.weights) = (weight, weight.into());
            }
            return account;
        }
        clock.accounts += 1;
        let account = self.all.insert(Account {
            purse,
            weight,
            had: clock.now,
            sum: Sum {
                weights: weight.into(),
                ..Sum::default()
            },
            choosing: 0,
            served_ns: Instant::ZERO,
            waited_ns: None,
            lines: SmallVec::new(),
        });
        self.by_purse.insert(purse, account);
        account
    }

    /// Forgets an account with nothing in the hold or in flight.
    pub(super) fn close(&mut self, account: usize) {
        let idle = |of: &&Account| of.sum.waiting == 0 && of.sum.running == 0;
        let Some(of) = self.get(account).filter(idle) else {
            return;
        };
        let (purse, weight) = (of.purse, of.weight);
        self.all.remove(account);
        self.by_purse.remove(&purse);
        let place = (purse.pool, purse.class);
        if let Some(clock) = self.clocks.get_mut(&place) {
            clock.accounts -= 1;
            clock.sum.weights -= u64::from(weight);
            if clock.accounts == 0 {
                self.clocks.remove(&place);
            }
        }
    }

    /// A start takes so much, in tenths of a token; or its end gives it back.
    pub(super) fn take(&mut self, account: usize, cost: u64, begins: bool) {
        let Some(of) = self.all.get_mut(account) else {
            return;
        };
        let Some(clock) = self.clocks.get_mut(&(of.purse.pool, of.purse.class)) else {
            return;
        };
        for taken in [&mut of.sum.taken, &mut clock.sum.taken] {
            *taken = if begins { *taken + cost } else { *taken - cost };
        }
    }

    /// An account's tenant asks for far more than the others do for their weight, has half of its part in flight, and
    /// has to wait. What a tenant asks for is what it has in flight, and as much more as it has more requests in the
    /// hold. Others of a less urgent class do not count.
    pub(super) fn over(&self, account: usize, waits: bool, now: Instant) -> bool {
        let lately = |at_ns: Option<Instant>, kept| at_ns.is_some_and(|at_ns| now < at_ns + kept);
        let waits =
            |of: &&Account| waits || of.sum.waiting > 0 || lately(of.waited_ns, WAITED_KEPT);
        let Some(of) = self.get(account).filter(waits) else {
            return false;
        };
        let Purse { pool, class, payer } = of.purse;
        let shared_ns = self.clocks.get(&(pool, class)).and_then(|of| of.shared_ns);
        if !lately(shared_ns, OTHERS_KEPT) {
            return false;
        }
        let (mut own, mut all) = (Sum::default(), Sum::default());
        for class in Class::ALL.into_iter().filter(|other| *other <= class) {
            if let Some(clock) = self.clocks.get(&(pool, class)) {
                all.add(&clock.sum);
                let account = self.find(&Purse { pool, class, payer });
                let account = account.and_then(|account| self.get(account));
                own.add(&account.map(|of| of.sum).unwrap_or_default());
            }
        }
        let rest = all.without(&own);
        let (weight, weights) = (u128::from(of.weight), u128::from(rest.weights.max(1)));
        let takes = u128::from(own.taken) * weights * PART > u128::from(rest.taken) * weight;
        takes && own.asked() * weights > OVER * rest.asked() * weight
    }

    fn clock(&self, purse: &Purse) -> u64 {
        let clock = self.clocks.get(&(purse.pool, purse.class));
        clock.map_or(0, |clock| clock.now)
    }

    /// What an account has been served; where tenants share nothing, nobody has been.
    pub(super) fn had(&self, account: usize) -> u64 {
        self.get(account).map_or(0, |of| of.had)
    }

    /// What an account has been served beyond its clock.
    pub(super) fn ahead(&self, account: usize) -> u64 {
        self.get(account)
            .map_or(0, |of| of.had.saturating_sub(self.clock(&of.purse)))
    }

    pub(super) fn weight(&self, account: usize) -> u32 {
        self.get(account).map_or(1, |of| of.weight)
    }

    /// When a request of this account was last started.
    pub(super) fn served_ns(&self, account: usize) -> Instant {
        self.get(account).map_or(Instant::ZERO, |of| of.served_ns)
    }

    /// One more request of an account waits, or one less; `served_ns`: as it is served.
    pub(super) fn waits(&mut self, account: usize, more: bool, served_ns: Option<Instant>) {
        let Some(of) = self.all.get_mut(account) else {
            return;
        };
        let clock = self.clocks.get_mut(&(of.purse.pool, of.purse.class));
        of.waited_ns = of.waited_ns.max(served_ns);
        for waiting in clock
            .map(|of| &mut of.sum.waiting)
            .into_iter()
            .chain([&mut of.sum.waiting])
        {
            *waiting = if more { *waiting + 1 } else { *waiting - 1 };
        }
    }

    /// One more request of an account is in flight, or one less.
    pub(super) fn runs(&mut self, account: usize, more: bool) {
        let Some(of) = self.all.get_mut(account) else {
            return;
        };
        let clock = self.clocks.get_mut(&(of.purse.pool, of.purse.class));
        for running in clock
            .map(|of| &mut of.sum.running)
            .into_iter()
            .chain([&mut of.sum.running])
        {
            *running = if more { *running + 1 } else { *running - 1 };
        }
    }

    /// The value at which an account stands that begins to wait, where others have had `least`: it keeps what
    /// it has had beyond them, and saves nothing up.
    pub(super) fn level(&self, account: usize, least: Option<u64>) -> u64 {
        self.get(account).map_or(0, |of| {
            let level = self.clock(&of.purse).max(least.unwrap_or(0));
            of.had.max(level)
        })
    }

    /// Charges the start of a request; the account's new value.
    pub(super) fn charge(
        &mut self,
        account: usize,
        tokens: Tokens,
        (config, now): (&Config, Instant),
    ) -> u64 {
        let Some(of) = self.all.get_mut(account) else {
            return 0;
        };
        let clock = self.clocks.get_mut(&(of.purse.pool, of.purse.class));
        let mut start = of.had;
        if let Some(clock) = clock {
            start = start.max(clock.now);
            clock.now = clock.now.max(start.saturating_sub(ahead_max(config)));
        }
        of.served_ns = now;
        let (of, weight) = (of.purse, u64::from(of.weight));
        self.share(of, now);
        if config.planted(Plant::TenantUncharged) {
            return start;
        }
        start.saturating_add(tokens.cost().saturating_mul(FINE) / weight)
    }

    /// A request of this purse is started: those of its class and less urgent ones have seen others.
    fn share(&mut self, purse: Purse, now: Instant) {
        let mut accounts = 0;
        for class in Class::ALL {
            if let Some(clock) = self.clocks.get_mut(&(purse.pool, class)) {
                accounts += clock.accounts;
                if accounts > 1 && class >= purse.class {
                    clock.shared_ns = Some(now);
                }
            }
        }
    }

    /// The value of a charge's account once the charge is settled.
    pub(super) fn settle(&self, charge: Bill, end: End) -> u64 {
        let Some(of) = self.get(charge.account) else {
            return 0;
        };
        let weight = u64::from(charge.weight);
        let fine = |tokens: Tokens| tokens.cost().saturating_mul(FINE) / weight;
        let charged = fine(charge.tokens);
        let due = match end {
            End::Failed => 0,
            End::Unanswered { answer: true } => charged,
            End::Unanswered { answer: false } => fine(charge.tokens.prompt()),
            End::Answered(usage) => fine(charge.tokens.settled(usage)),
        };
        of.had.saturating_add(due).saturating_sub(charged)
    }

    /// Sets what an account has been served.
    pub(super) fn set(&mut self, account: usize, had: u64) {
        if let Some(of) = self.all.get_mut(account) {
            of.had = had;
        }
    }

    pub(super) fn bill(&self, account: usize, tokens: Tokens) -> Bill {
        let weight = self.weight(account);
        Bill {
            account,
            tokens,
            weight,
        }
    }

    pub(super) fn account_of(charge: Bill) -> usize {
        charge.account
    }

    /// All of them, for operators and checks.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Account)> {
        self.all.iter()
    }

    /// What is known of each class and pool is the sum over its accounts.
    pub(super) fn add_up(&self) -> bool {
        self.clocks.iter().all(|(place, clock)| {
            let all = self.all.iter().map(|(_, of)| of);
            let (mut accounts, mut sum) = (0, Sum::default());
            for of in all.filter(|of| (of.purse.pool, of.purse.class) == *place) {
                accounts += 1;
                sum.add(&of.sum);
            }
            (accounts, sum) == (clock.accounts, clock.sum)
        })
    }

    /// Pools and classes with an account.
    pub(super) fn clocks_len(&self) -> usize {
        self.clocks.len()
    }
}

impl Account {
    pub(super) fn purse(&self) -> Purse {
        self.purse
    }

    /// Accounts of one place are compared.
    pub(super) fn place(&self) -> Place {
        (self.purse.pool, self.purse.class)
    }
}

/// By so many quanta tenants may be ahead of one that asks for far more than its part, and go first.
const OVER_QUANTA: u64 = 10;

/// How far ahead of another that waits a tenant may be, and be served first. Those are a quantum further ahead
/// that are due together with one that is just not too far.
pub(super) fn ahead_max(config: &Config) -> u64 {
    over_ahead(config).saturating_add(quantum(config))
}

/// How far ahead of one that asks for far more than its part a tenant goes first.
pub(super) fn over_ahead(config: &Config) -> u64 {
    quantum(config).saturating_mul(if leaves_room(config) { OVER_QUANTA } else { 0 })
}

/// Tenants that ask for far more than their part leave room free.
pub(super) fn leaves_room(config: &Config) -> bool {
    rules(config) && config.tenant_headroom_ratio > 0.0
}

/// How much more than the one that has had least a tenant may have had, and be due.
pub(super) fn quantum(config: &Config) -> u64 {
    u64::from(config.tenant_quantum_tokens) * UNCACHED * FINE
}

/// Fine tenths as tokens.
pub(super) fn tokens(fine: u64) -> u64 {
    fine / (FINE * UNCACHED)
}

/// Tenants share the room, where there are several.
pub(super) fn rules(config: &Config) -> bool {
    config.tenant_rule == TenantRule::Fair
}
