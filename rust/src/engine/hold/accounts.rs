//! What the tenants of a class have been served, and by which clock that counts.
//!
//! See [`super::fair`] for what it is for.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;

use super::payers::Payer;
use super::{Class, Config, Instant, Partition};
use crate::engine::ask::Usage;
use crate::engine::config::TenantRule;
use crate::engine::plant::Plant;
use crate::id::ReplicaSlot;
use crate::time::Span;

/// Tenths of a token are counted so much finer, so that a weight divides them well.
const FINE: u64 = 1 << 10;
/// Tenths of a token that one counts for: computed, found cached, generated.
const UNCACHED: u64 = 10;
const CACHED: u64 = 1;
const GENERATED: u64 = 20;
/// A tenant that asks for so many times as much as the others for its weight leaves some room free,
const OVER: u128 = 2;
/// if a request of its has waited within this time.
const WAITED_KEPT: Span = Span::from_secs(1);
/// Others that were here so recently may come back at any time.
const OTHERS_KEPT: Span = Span::from_secs(60);
/// Stands for the one account where tenants share nothing.
pub(super) const NOBODY: usize = usize::MAX;

/// What a request takes of a replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the prompt, to be computed.
    pub uncached: u32,
    /// Of the prompt, found cached.
    pub cached: u32,
    /// Of the answer.
    pub output: u32,
}

impl Tokens {
    /// What it counts for, in tenths of a token that is computed.
    #[must_use]
    pub fn cost(self) -> u64 {
        u64::from(self.uncached) * UNCACHED
            + u64::from(self.cached) * CACHED
            + u64::from(self.output) * GENERATED
    }

    /// What it was, as far as an engine reported it.
    fn settled(self, usage: Usage) -> Self {
        let cached = usage.cached_tokens.unwrap_or(self.cached);
        let uncached = usage
            .prompt_tokens
            .map_or(self.uncached, |prompt| prompt.saturating_sub(cached));
        Self {
            uncached,
            cached,
            output: usage.completion_tokens.unwrap_or(self.output),
        }
    }

    /// The prompt alone.
    fn prompt(self) -> Self {
        Self { output: 0, ..self }
    }
}

/// Whose request it is, where it competes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Purse {
    /// Models whose first replica this is are one pool; none where no replica here serves the model.
    pub pool: Option<ReplicaSlot>,
    /// Its class.
    pub class: Class,
    /// Whom it counts for.
    pub payer: Payer,
}

/// What a started request was charged.
#[derive(Debug, Clone, Copy)]
pub struct Bill {
    account: usize,
    tokens: Tokens,
}

impl Bill {
    /// In tenths of a token.
    #[must_use]
    pub fn cost(self) -> u64 {
        self.tokens.cost()
    }
}

/// How an attempt ended, as far as charges go.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// It failed: it is tried elsewhere, or was refused.
    Failed,
    /// Its client left before the first byte.
    Unanswered,
    /// It was answered, in part at least.
    Answered(Usage),
}

#[derive(Debug)]
pub(super) struct Account {
    purse: Purse,
    weight: u32,
    /// What it has been served, in fine tenths of a token over its weight.
    had: u64,
    /// Requests in the hold, and in flight.
    pub(super) waiting: u32,
    pub(super) running: u32,
    /// Of those in the hold: the ones that wait for a replica by choice.
    pub(super) choosing: u32,
    /// What its requests in flight were charged.
    taken: u64,
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
    /// Of all accounts together.
    taken: u64,
    weights: u64,
    waiting: u32,
    running: u32,
    /// When a request was last started while there were several accounts.
    shared_ns: Option<Instant>,
}

type Place = (Option<ReplicaSlot>, Class);

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
        clock.weights += u64::from(weight);
        if let Some(account) = known {
            if let Some(known) = self.all.get_mut(account) {
                clock.weights -= u64::from(known.weight);
                known.weight = weight;
            }
            return account;
        }
        clock.accounts += 1;
        let account = self.all.insert(Account {
            purse,
            weight,
            had: clock.now,
            waiting: 0,
            running: 0,
            choosing: 0,
            taken: 0,
            served_ns: Instant::ZERO,
            waited_ns: None,
            lines: SmallVec::new(),
        });
        self.by_purse.insert(purse, account);
        account
    }

    /// Forgets an account with nothing in the hold or in flight.
    pub(super) fn close(&mut self, account: usize) {
        let idle = |of: &&Account| of.waiting == 0 && of.running == 0;
        let Some(of) = self.get(account).filter(idle) else {
            return;
        };
        let (purse, weight) = (of.purse, of.weight);
        self.all.remove(account);
        self.by_purse.remove(&purse);
        let place = (purse.pool, purse.class);
        if let Some(clock) = self.clocks.get_mut(&place) {
            clock.accounts -= 1;
            clock.weights -= u64::from(weight);
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
        for taken in [&mut of.taken, &mut clock.taken] {
            *taken = if begins { *taken + cost } else { *taken - cost };
        }
    }

    /// An account asks for far more than the others do for their weight, and has to wait. What it asks for is
    /// what it has in flight, and as much more as it has more requests in the hold.
    pub(super) fn over(&self, account: usize, waits: bool, now: Instant) -> bool {
        let lately = |at_ns: Option<Instant>, kept| at_ns.is_some_and(|at_ns| now < at_ns + kept);
        let waits = |of: &&Account| waits || of.waiting > 0 || lately(of.waited_ns, WAITED_KEPT);
        let of = self.get(account).filter(waits);
        let clock = of.and_then(|of| self.clocks.get(&(of.purse.pool, of.purse.class)));
        let shared = |clock: &&Clock| lately(clock.shared_ns, OTHERS_KEPT);
        let (Some(of), Some(clock)) = (of, clock.filter(shared)) else {
            return false;
        };
        let own = asked(of.taken, of.running, of.waiting);
        let (taken, running) = (clock.taken - of.taken, clock.running - of.running);
        let rest = asked(taken, running, clock.waiting - of.waiting);
        let weights = (clock.weights - u64::from(of.weight)).max(1);
        own * u128::from(weights) > OVER * rest * u128::from(of.weight)
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
            .map(|of| &mut of.waiting)
            .into_iter()
            .chain([&mut of.waiting])
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
            .map(|of| &mut of.running)
            .into_iter()
            .chain([&mut of.running])
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
            if clock.accounts > 1 {
                clock.shared_ns = Some(now);
            }
        }
        of.served_ns = now;
        if config.planted(Plant::TenantUncharged) {
            return start;
        }
        start.saturating_add(tokens.cost().saturating_mul(FINE) / u64::from(of.weight))
    }

    /// The value of a charge's account once the charge is settled.
    pub(super) fn settle(&self, charge: Bill, end: End) -> u64 {
        let Some(of) = self.get(charge.account) else {
            return 0;
        };
        let fine = |tokens: Tokens| tokens.cost().saturating_mul(FINE) / u64::from(of.weight);
        let charged = fine(charge.tokens);
        let due = match end {
            End::Failed => 0,
            End::Unanswered => fine(charge.tokens.prompt()),
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

    pub(super) fn charged(account: usize, tokens: Tokens) -> Bill {
        Bill { account, tokens }
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
            let mut sum = Clock {
                now: clock.now,
                shared_ns: clock.shared_ns,
                ..Clock::default()
            };
            for of in all.filter(|of| (of.purse.pool, of.purse.class) == *place) {
                sum.accounts += 1;
                sum.taken += of.taken;
                sum.weights += u64::from(of.weight);
                sum.waiting += of.waiting;
                sum.running += of.running;
            }
            sum == *clock
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
}

/// What requests in flight have taken, and as much more for each that waits.
fn asked(taken: u64, running: u32, waiting: u32) -> u128 {
    let requests = u128::from(running) + u128::from(waiting);
    u128::from(taken) * requests / u128::from(running.max(1))
}

/// By so many quanta tenants may be ahead of one that asks for far more than its part, and go first.
const OVER_QUANTA: u64 = 10;

/// How far ahead of another that waits a tenant may be, and be served first.
pub(super) fn ahead_max(config: &Config) -> u64 {
    let quanta = if config.tenant_headroom_ratio > 0.0 {
        OVER_QUANTA
    } else {
        1
    };
    quantum(config).saturating_mul(quanta)
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
