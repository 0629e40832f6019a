//! What operators see of tenants.

use serde::Serialize;

use super::Tenants;
use super::account::Account;
use super::bucket::ONE;
use super::usage::Seen;

impl Tenants {
    /// What tenants have used, and how they stand with their limits, as JSON: by name, as of each tenant's last
    /// request.
    pub(in crate::engine) fn usage(&self) -> Result<Vec<u8>, serde_json::Error> {
        let accounts = self.accounts.iter();
        let mut tenants: Vec<_> = accounts
            .map(|(_, account)| TenantState::of(account))
            .collect();
        tenants.sort_unstable_by_key(|tenant| tenant.name);
        serde_json::to_vec(&UsageState { tenants })
    }
}

#[derive(Serialize)]
struct UsageState<'a> {
    tenants: Vec<TenantState<'a>>,
}

#[derive(Serialize)]
struct TenantState<'a> {
    name: &'a str,
    weight: u32,
    in_flight: u32,
    concurrent: Option<LimitState>,
    requests: Option<LimitState>,
    tokens: Option<LimitState>,
    models: Vec<Seen<'a>>,
}

#[derive(Serialize)]
struct LimitState {
    limit: u64,
    /// This balancer's part.
    share: f64,
    remaining: u64,
}

impl<'a> TenantState<'a> {
    fn of(account: &'a Account) -> Self {
        let share = f64::from(account.share()) / f64::from(ONE);
        let state = |limit: Option<u64>, remaining: Option<u64>| {
            limit.zip(remaining).map(|(limit, remaining)| LimitState {
                limit,
                share,
                remaining,
            })
        };
        let (requests, tokens) = account.remaining();
        let free = account
            .places()
            .map(|places| u64::from(places.saturating_sub(account.in_flight)));
        Self {
            name: &account.name,
            weight: account.terms.weight,
            in_flight: account.in_flight,
            concurrent: state(account.terms.concurrent.map(u64::from), free),
            requests: state(account.terms.requests, requests),
            tokens: state(account.terms.tokens, tokens),
            models: account.usage.seen(),
        }
    }
}
