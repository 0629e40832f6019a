//! What tenants may use, what they are charged, and what they have used.
//!
//! A request is charged where its client came in: one request at once, and the tokens that it should use. At its
//! end the tokens are settled to what it used ([`Spent`]). A forward is charged at its origin only. Over several
//! balancers, each has a share of every limit ([`shares`]).
//!
//! | file | holds |
//! |---|---|
//! | `terms` | what the keys file says of each tenant |
//! | `account` | one tenant: terms, buckets, requests that have not ended |
//! | `bucket`, `recent` | a limit per minute; what was asked for lately |
//! | `charge` | what a request is charged, and what it used |
//! | `usage` | counts by model, for operators |
//! | `standing`, `refusals` | what clients read |
//! | `state`, `check` | what operators see; the invariants |
//! | `shares`, `message` | the parts of a limit that several balancers have |

mod account;
pub mod bucket;
mod charge;
mod check;
pub(in crate::engine) mod keep;
pub mod message;
mod recent;
mod refusals;
mod shares;
pub mod standing;
mod state;
pub mod terms;
pub mod usage;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use slab::Slab;
use xxhash_rust::xxh3::xxh3_64;

use self::account::Account;
pub(in crate::engine) use self::charge::{Charge, Delivery, Predicted, Progress, Spent};
use self::message::{Message, MessageError};
pub(in crate::engine) use self::shares::Sibling;
use self::shares::{Key, Shares};
use self::standing::Standing;
use self::terms::{Terms, TermsError};
use self::usage::{OTHER_ROW, ROWS_MAX};
use super::refusal::Refusal;
use crate::id::PeerId;
use crate::prompt::class::Class;
use crate::tenant::Tenant;
use crate::time::{Instant, Span};

/// Time between two looks at the shares, and the same where a peer has told something.
const REVIEW: Span = Span::from_ms(500);
const REVIEW_SOON: Span = Span::from_ms(50);
/// Tenants without terms whose usage is counted apart, at most.
const GUESTS_MAX: usize = 1_000;
/// The name under which that of further ones is counted.
const OTHER: &str = "other";

/// All tenants with terms, and those without that have asked for something beside them.
#[derive(Debug)]
pub(in crate::engine) struct Tenants {
    by_name: HashMap<Box<str>, usize, FixedState>,
    by_key: HashMap<Key, usize, FixedState>,
    accounts: Slab<Account>,
    /// Those with terms.
    listed: usize,
    /// Some tenant may not use every model.
    bounds_models: bool,
    /// That of all tenants without terms beyond [`GUESTS_MAX`]; no name leads to it.
    others: Option<usize>,
    /// Rows of all accounts' usage, but those of further models.
    rows: usize,
    shares: Shares,
    /// Accounts that have asked for something since they were last found idle.
    active: Vec<usize>,
    reviewed: Option<Instant>,
    /// A peer has told something since.
    told: bool,
    /// The revision of the shares that the accounts have.
    applied: Option<u64>,
}

impl Tenants {
    pub(in crate::engine) fn new() -> Self {
        Self {
            by_name: HashMap::with_hasher(FixedState::default()),
            by_key: HashMap::with_hasher(FixedState::default()),
            accounts: Slab::new(),
            listed: 0,
            bounds_models: false,
            others: None,
            rows: 0,
            shares: Shares::new(),
            active: Vec::new(),
            reviewed: None,
            told: false,
            applied: None,
        }
    }

    // ------------------------------------------------------------------ terms

    /// Sets the terms of all tenants. A tenant that had terms keeps what it has been charged.
    ///
    /// # Errors
    ///
    /// The terms cannot be read: the old ones stay.
    pub(in crate::engine) fn set(&mut self, json: &[u8], now: Instant) -> Result<(), TermsError> {
        let all = terms::read(json)?;
        self.listed = all.len();
        for (_, account) in &mut self.accounts {
            account.listed = false;
        }
        for (name, terms) in all {
            self.set_one(&name, terms, now);
        }
        for (_, account) in &mut self.accounts {
            if !account.listed {
                account.unlist(now);
            }
        }
        self.drop_unused();
        let limited = self
            .accounts
            .iter()
            .any(|(_, account)| account.listed && account.terms.limited());
        self.shares.set_limited(limited);
        let bounded = |(_, account): (usize, &Account)| account.terms.models.is_some();
        self.bounds_models = self.accounts.iter().any(bounded);
        (self.reviewed, self.applied) = (None, None);
        Ok(())
    }

    /// Some tenant may not use every model, nor is to be told of all: it finds its own in `/v1/models`.
    pub(in crate::engine) fn bounds_models(&self) -> bool {
        self.bounds_models
    }

    fn set_one(&mut self, name: &str, terms: Terms, now: Instant) {
        if let Some(place) = self.by_name.get(name) {
            if let Some(account) = self.accounts.get_mut(*place) {
                account.set_terms(terms, now);
            }
            return;
        }
        let share = self.shares.of(xxh3_64(name.as_bytes()));
        self.add(name, Account::new(name, terms, share, now));
    }

    fn add(&mut self, name: &str, account: Account) -> usize {
        let place = self.accounts.insert(account);
        self.by_name.insert(name.into(), place);
        self.by_key.insert(xxh3_64(name.as_bytes()), place);
        place
    }

    /// Forgets accounts without terms whose requests have ended, but for those of guests while there are hosts.
    fn drop_unused(&mut self) {
        let (by_name, by_key, rows) = (&mut self.by_name, &mut self.by_key, &mut self.rows);
        let (others, hosted) = (&mut self.others, self.listed > 0);
        self.accounts.retain(|place, account| {
            let kept = account.listed || account.in_flight > 0 || (account.guest && hosted);
            if !kept {
                if others.take_if(|others| *others == place).is_none() {
                    by_name.remove(&account.name);
                }
                let key = xxh3_64(account.name.as_bytes());
                if by_key.get(&key) == Some(&place) {
                    by_key.remove(&key);
                }
                *rows -= account.usage.len();
            }
            kept
        });
        self.active.retain(|place| self.accounts.contains(*place));
    }

    fn place(&self, tenant: Tenant<&str>) -> Option<usize> {
        if self.by_name.is_empty() {
            return None;
        }
        self.by_name.get(tenant.name()?).copied()
    }

    /// The account in which a request of a tenant is counted: that of its terms, else one for its usage alone.
    fn host(&mut self, tenant: Tenant<&str>, now: Instant) -> Option<usize> {
        let name = tenant.name().filter(|_| self.listed > 0)?;
        if let Some(place) = self.by_name.get(name) {
            return Some(*place);
        }
        let share = self.shares.of(xxh3_64(name.as_bytes()));
        if self.by_name.len() - self.listed < GUESTS_MAX {
            return Some(self.add(name, Account::of_guest(name, share, now)));
        }
        let accounts = &mut self.accounts;
        let others = self.others;
        let added = || accounts.insert(Account::of_guest(OTHER, share, now));
        self.others = Some(others.unwrap_or_else(added));
        self.others
    }

    /// The account of a tenant that has terms now.
    fn account(&self, tenant: Tenant<&str>) -> Option<&Account> {
        let account = self.accounts.get(self.place(tenant)?)?;
        account.listed.then_some(account)
    }

    /// Whether a tenant may use a model. `batch`: the request computes with it, so one without a name is
    /// for a model that is not known.
    pub(in crate::engine) fn allows(&self, tenant: Tenant<&str>, model: &str, batch: bool) -> bool {
        let account = self.account(tenant);
        account.is_none_or(|account| (model.is_empty() && !batch) || account.terms.allows(model))
    }

    /// The refusal of a request for a model that its tenant may not use.
    pub(in crate::engine) fn refuse_model(&mut self, tenant: Tenant<&str>, model: &str) -> Refusal {
        if let Some(account) = self
            .place(tenant)
            .and_then(|place| self.accounts.get_mut(place))
        {
            let row = account.usage.row(model, false); // the name is the client's to choose
            account.usage.figures(row).refused += 1;
        }
        refusals::model_not_allowed()
    }

    /// The class of a request that asks for `class`: not above the highest of its tenant.
    pub(in crate::engine) fn class(&self, tenant: Tenant<&str>, class: Class) -> Class {
        class.bounded(self.highest_class(tenant))
    }

    /// The most urgent class that a tenant's requests may have, if it has a bound.
    pub(in crate::engine) fn highest_class(&self, tenant: Tenant<&str>) -> Option<Class> {
        self.account(tenant).and_then(|account| account.terms.class)
    }

    /// Whether a tenant's streams may go on elsewhere, where streams do.
    pub(in crate::engine) fn continues(&self, tenant: Tenant<&str>) -> bool {
        self.account(tenant)
            .is_none_or(|account| account.terms.continues)
    }

    /// The tenants with terms, and their weights between tenants that wait.
    pub(in crate::engine) fn weights(&self) -> impl Iterator<Item = (&str, u32)> {
        let accounts = self.accounts.iter().map(|(_, account)| account);
        let listed = accounts.filter(|account| account.listed);
        listed.map(|account| (&*account.name, account.terms.weight))
    }

    /// Whether the requests of a tenant are counted, and so are to be predicted: where any have terms.
    pub(in crate::engine) fn counts(&self, tenant: Tenant<&str>) -> bool {
        self.listed > 0 && tenant.name().is_some()
    }

    // ------------------------------------------------------------------ charges

    /// Charges a request, or refuses it. It gets a row of its model if that is `known`. `assumed_s`: when a client comes back where nothing says when it may.
    ///
    /// # Errors
    ///
    /// It would pass a limit: nothing is charged.
    pub(in crate::engine) fn charge(
        &mut self,
        tenant: Tenant<&str>,
        (model, known): (&str, bool),
        (predicted, delivery): (Predicted, Delivery),
        assumed_s: u32,
        now: Instant,
    ) -> Result<Option<Charge>, Refusal> {
        let Some((place, row)) = self.open(tenant, (model, known), now) else {
            return Ok(None);
        };
        let account = &mut self.accounts[place];
        if let Err(limit) = account.ask(predicted.tokens(), now) {
            account.usage.figures(row).refused += 1;
            return Err(limit.refusal(assumed_s));
        }
        Ok(Some(self.take((place, row), predicted, delivery)))
    }

    /// Charges a request that is under way already, whether it would pass a limit or not; and whether it does.
    pub(in crate::engine) fn charge_late(
        &mut self,
        tenant: Tenant<&str>,
        (model, known): (&str, bool),
        (predicted, delivery): (Predicted, Delivery),
        now: Instant,
    ) -> (Option<Charge>, bool) {
        let Some((place, row)) = self.open(tenant, (model, known), now) else {
            return (None, false);
        };
        let over = self.accounts[place].ask(predicted.tokens(), now).is_err();
        (Some(self.take((place, row), predicted, delivery)), over)
    }

    /// The account that a request is charged to, and the row of its model.
    fn open(
        &mut self,
        tenant: Tenant<&str>,
        (model, known): (&str, bool),
        now: Instant,
    ) -> Option<(usize, u32)> {
        let place = self.host(tenant, now)?;
        let account = self.accounts.get_mut(place)?;
        account.guest |= !account.listed;
        if !std::mem::replace(&mut account.active, true) {
            self.active.push(place);
        }
        let before = account.usage.len();
        let row = account.usage.row(model, known && self.rows < ROWS_MAX);
        self.rows += account.usage.len() - before;
        Some((place, row))
    }

    fn take(
        &mut self,
        (place, row): (usize, u32),
        predicted: Predicted,
        delivery: Delivery,
    ) -> Charge {
        let (account, tokens) = (&mut self.accounts[place], predicted.tokens());
        account.charge(tokens);
        let figures = account.usage.figures(row);
        figures.requests += 1;
        figures.charged_tokens += tokens;
        Charge {
            account: crate::id::count(place),
            row,
            predicted,
            delivery,
        }
    }

    /// Looks at a request of which nothing but the head has come: a refusal if its tenant is over a limit, whatever
    /// else the request says. Only the refusal counts as asked for.
    pub(in crate::engine) fn look(
        &mut self,
        tenant: Tenant<&str>,
        assumed_s: u32,
        now: Instant,
    ) -> Option<Refusal> {
        let place = self.place(tenant)?;
        let account = self.accounts.get_mut(place)?;
        let limit = account.look(now).err()?;
        if !std::mem::replace(&mut account.active, true) {
            self.active.push(place);
        }
        account.usage.figures(OTHER_ROW).refused += 1;
        Some(limit.refusal(assumed_s))
    }

    /// A charged request has ended: what it used takes the place of what it was charged.
    pub(in crate::engine) fn settle(&mut self, charge: Charge, spent: Spent, now: Instant) {
        let Some(account) = self.accounts.get_mut(charge.account as usize) else {
            return;
        };
        let (charged, used) = (charge.predicted.tokens(), spent.tokens());
        account.settle(charged, used, now);
        let figures = account.usage.figures(charge.row);
        figures.prompt_tokens += spent.prompt;
        figures.cached_tokens += spent.cached;
        figures.completion_tokens += spent.completion;
        figures.charged_tokens = figures.charged_tokens.saturating_sub(charged) + used;
    }

    /// A charged request was refused before anything of it was tried: it does not count as one.
    pub(in crate::engine) fn give_back(&mut self, charge: Charge, now: Instant) {
        if let Some(account) = self.accounts.get_mut(charge.account as usize) {
            account.give_request(now);
        }
    }

    /// How a tenant stands with its limits per minute, if it has any.
    pub(in crate::engine) fn standing(
        &mut self,
        tenant: Tenant<&str>,
        now: Instant,
    ) -> Option<Standing> {
        let place = self.place(tenant)?;
        let account = self
            .accounts
            .get_mut(place)
            .filter(|account| account.listed)?;
        account.standing(now)
    }

    // ------------------------------------------------------------------ shares

    /// The start of this balancer, greater after each.
    pub(in crate::engine) fn set_incarnation(&mut self, incarnation: u64) {
        self.shares.set_incarnation(incarnation);
    }

    /// Whether limits are shared: some tenant has one here, or a peer has told of one.
    pub(in crate::engine) fn shared(&self) -> bool {
        self.shares.active()
    }

    /// Looks at the shares anew, if it is time or `at_once`.
    pub(in crate::engine) fn review(
        &mut self,
        siblings: impl Iterator<Item = Sibling>,
        at_once: bool,
        now: Instant,
    ) {
        let pause = if self.told { REVIEW_SOON } else { REVIEW };
        if !at_once && self.reviewed.is_some_and(|at| now < at + pause) {
            return;
        }
        self.reviewed = Some(now);
        self.told = false;
        self.shares.set_siblings(siblings);
        let mut asked = HashMap::with_hasher(FixedState::default());
        let accounts = &mut self.accounts;
        self.active.retain(|place| {
            let Some(account) = accounts.get_mut(*place) else {
                return false;
            };
            let demand = account.demand(now);
            account.active = demand > 0;
            if demand > 0 {
                asked.insert(xxh3_64(account.name.as_bytes()), demand);
            }
            demand > 0
        });
        let by_key = &self.by_key;
        let ours = |key: Key| {
            let account = by_key.get(&key).and_then(|place| accounts.get(*place));
            account.is_some_and(|account| account.listed && account.terms.limited())
        };
        asked.retain(|key, _| ours(*key));
        self.shares.review(&asked, ours, now);
        if self.applied.replace(self.shares.revision()) == Some(self.shares.revision()) {
            return;
        }
        for (key, place) in &self.by_key {
            if let Some(account) = self.accounts.get_mut(*place) {
                account.set_share(self.shares.of(*key), now);
            }
        }
    }

    /// The message that a peer should get now, if there is one. It counts as sent.
    pub(in crate::engine) fn tell(&mut self, peer: PeerId, now: Instant) -> Option<Vec<u8>> {
        if self.shares.due(peer, now) {
            self.shares.message(peer, now)
        } else {
            None
        }
    }

    /// What a peer told; the next review takes it up.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not newer than what it told before: nothing happened.
    pub(in crate::engine) fn hear(
        &mut self,
        peer: PeerId,
        bytes: &[u8],
        siblings: impl Iterator<Item = Sibling>,
    ) -> Result<(), MessageError> {
        let message = Message::decode(bytes)?;
        self.shares.set_siblings(siblings);
        self.shares.hear(peer, message)?;
        self.told = true;
        Ok(())
    }
}
