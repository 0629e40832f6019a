//! What tenants have used and may use, left to another process.

use serde::{Deserialize, Serialize};

use super::Tenants;
use super::account::Account;
use super::bucket::Bucket;
use super::recent::Recent;
use super::usage::{Figures, OTHER_ROW, ROWS_MAX};
use crate::tenant::Tenant;
use crate::time::Instant;

/// One tenant's account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::engine) struct KeptTenant {
    name: String,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    asked_requests: Recent,
    asked_tokens: Recent,
    /// By model; the first is that of further models.
    usage: Vec<(String, Figures)>,
}

impl Tenants {
    /// All accounts, but that of tenants beyond the bound.
    pub(in crate::engine) fn leave(&self) -> Vec<KeptTenant> {
        let accounts = self.accounts.iter();
        let named = accounts.filter(|(place, _)| self.others != Some(*place));
        named.map(|(_, account)| KeptTenant::of(account)).collect()
    }

    /// Takes accounts over. What a tenant's terms are is not among it: they are set before.
    pub(in crate::engine) fn inherit(
        &mut self,
        kept: Vec<KeptTenant>,
        ahead_ns: i64,
        now: Instant,
    ) {
        for tenant in kept {
            let Some(place) = self.host(Tenant::Named(tenant.name.as_str()), now) else {
                continue;
            };
            let room = ROWS_MAX.saturating_sub(self.rows);
            let Some(account) = self.accounts.get_mut(place) else {
                continue;
            };
            let before = account.usage.len();
            account.guest |= !account.listed;
            account.inherit(&tenant, ahead_ns, now);
            account.inherit_usage(tenant.usage, before + room);
            self.rows += account.usage.len() - before;
            if !std::mem::replace(&mut account.active, true) {
                self.active.push(place);
            }
        }
    }
}

impl KeptTenant {
    fn of(account: &Account) -> Self {
        let (requests, tokens) = account.buckets();
        let (asked_requests, asked_tokens) = account.asked();
        let usage = account.usage.all();
        Self {
            name: account.name.to_string(),
            requests,
            tokens,
            asked_requests,
            asked_tokens,
            usage: usage
                .map(|(model, figures)| (model.to_owned(), figures))
                .collect(),
        }
    }
}

impl Account {
    /// What was taken elsewhere is taken here: a limit that has changed counts from now on.
    fn inherit(&mut self, kept: &KeptTenant, ahead_ns: i64, now: Instant) {
        let share = self.share();
        let inherit = |bucket: &mut Option<Bucket>, kept: Option<Bucket>| {
            if let (Some(bucket), Some(kept)) = (bucket, kept) {
                let limit = bucket.limit();
                *bucket = kept.shifted(ahead_ns, now);
                bucket.set_limit(limit, now);
                bucket.set_share(share, now);
            }
        };
        let (requests, tokens) = self.buckets_mut();
        inherit(requests, kept.requests);
        inherit(tokens, kept.tokens);
        self.set_asked(
            kept.asked_requests.shifted(ahead_ns),
            kept.asked_tokens.shifted(ahead_ns),
        );
    }

    fn inherit_usage(&mut self, rows: Vec<(String, Figures)>, rows_max: usize) {
        for (place, (model, figures)) in rows.into_iter().enumerate() {
            let row = match place {
                0 => OTHER_ROW,
                _ => self.usage.row(&model, self.usage.len() < rows_max),
            };
            *self.usage.figures(row) = figures;
        }
    }
}
