//! One tenant: its terms, what it has been charged, and what it has used.

use super::bucket::{Bucket, ONE};
use super::recent::Recent;
use super::refusals::Limit;
use super::standing::{Line, Standing};
use super::terms::Terms;
use super::usage::Usage;
use crate::time::Instant;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: Box<str>,
    pub(super) terms: Terms,
    /// It is among those that have terms now.
    pub(super) listed: bool,
    /// It has none, and is named all the same: it is kept. Any other is until its requests have ended.
    pub(super) guest: bool,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    /// This balancer's part of its limits.
    share: u32,
    /// Admitted and not ended.
    pub(super) in_flight: u32,
    asked_requests: Recent,
    asked_tokens: Recent,
    /// It is among those that have lately asked for something.
    pub(super) active: bool,
    pub(super) usage: Usage,
}

impl Account {
    pub(super) fn new(name: &str, terms: Terms, share: u32, now: Instant) -> Self {
        let mut account = Self {
            name: name.into(),
            terms,
            listed: true,
            guest: false,
            requests: None,
            tokens: None,
            share,
            in_flight: 0,
            asked_requests: Recent::default(),
            asked_tokens: Recent::default(),
            active: false,
            usage: Usage::new(),
        };
        account.fit(now);
        account
    }

    /// One without terms, for its usage alone.
    pub(super) fn of_guest(name: &str, share: u32, now: Instant) -> Self {
        Self {
            listed: false,
            guest: true,
            ..Self::new(name, Terms::NONE, share, now)
        }
    }

    /// Other terms; what has been charged stays.
    pub(super) fn set_terms(&mut self, terms: Terms, now: Instant) {
        self.terms = terms;
        (self.listed, self.guest) = (true, false);
        self.fit(now);
    }

    /// It has no terms any more.
    pub(super) fn unlist(&mut self, now: Instant) {
        self.terms = Terms::NONE;
        self.listed = false;
        self.fit(now);
    }

    /// Brings the buckets to what the terms say.
    fn fit(&mut self, now: Instant) {
        let share = self.share;
        let fit = |bucket: &mut Option<Bucket>, limit: Option<u64>| match (bucket.as_mut(), limit) {
            (Some(bucket), Some(limit)) => bucket.set_limit(limit, now),
            (_, limit) => *bucket = limit.map(|limit| Bucket::new(limit, share, now)),
        };
        fit(&mut self.requests, self.terms.requests);
        fit(&mut self.tokens, self.terms.tokens);
    }

    pub(super) fn set_share(&mut self, share: u32, now: Instant) {
        if self.share == share {
            return;
        }
        self.share = share;
        for bucket in [&mut self.requests, &mut self.tokens].into_iter().flatten() {
            bucket.set_share(share, now);
        }
    }

    pub(super) fn share(&self) -> u32 {
        self.share
    }

    /// Places for requests that have not ended: whole ones, rounded up.
    pub(super) fn places(&self) -> Option<u32> {
        let whole = u64::from(ONE);
        let most = self.terms.concurrent?;
        u32::try_from((u64::from(most) * u64::from(self.share)).div_ceil(whole)).ok()
    }

    /// One request more that should use so many tokens: whether it may come. It counts as asked for.
    pub(super) fn ask(&mut self, tokens: u64, now: Instant) -> Result<(), Limit> {
        self.asked_requests.add(1, now);
        self.asked_tokens.add(tokens, now);
        self.fits(tokens, now)
    }

    /// Likewise, while it is not known how many tokens. It counts only if it may not come.
    pub(super) fn look(&mut self, now: Instant) -> Result<(), Limit> {
        let fits = self.fits(0, now);
        if fits.is_err() {
            self.asked_requests.add(1, now);
        }
        fits
    }

    fn fits(&mut self, tokens: u64, now: Instant) -> Result<(), Limit> {
        self.refill(now);
        if let Some(places) = self.places().filter(|places| self.in_flight >= *places) {
            let most = self.terms.concurrent.unwrap_or(places);
            return Err(Limit::Concurrent { most });
        }
        if let Some(bucket) = self.requests.filter(|bucket| !bucket.has(1)) {
            return Err(Limit::Requests {
                limit: bucket.limit(),
                wait: bucket.wait(1).max(self.wait(tokens)),
            });
        }
        if let Some(bucket) = self.tokens.filter(|bucket| !bucket.has(tokens)) {
            return Err(Limit::Tokens {
                limit: bucket.limit(),
                wait: bucket.wait(tokens),
            });
        }
        Ok(())
    }

    fn wait(&self, tokens: u64) -> crate::time::Span {
        self.tokens
            .map_or(crate::time::Span::ZERO, |bucket| bucket.wait(tokens))
    }

    /// Both buckets, requests first.
    pub(super) fn buckets(&self) -> (Option<Bucket>, Option<Bucket>) {
        (self.requests, self.tokens)
    }

    pub(super) fn buckets_mut(&mut self) -> (&mut Option<Bucket>, &mut Option<Bucket>) {
        (&mut self.requests, &mut self.tokens)
    }

    /// Requests and tokens asked for lately.
    pub(super) fn asked(&self) -> (Recent, Recent) {
        (self.asked_requests, self.asked_tokens)
    }

    pub(super) fn set_asked(&mut self, requests: Recent, tokens: Recent) {
        (self.asked_requests, self.asked_tokens) = (requests, tokens);
    }

    pub(super) fn charge(&mut self, tokens: u64) {
        self.in_flight += 1;
        if let Some(bucket) = &mut self.requests {
            bucket.take(1);
        }
        self.charge_tokens(tokens);
    }

    fn charge_tokens(&mut self, tokens: u64) {
        if let Some(bucket) = &mut self.tokens {
            bucket.take(tokens);
        }
    }

    /// A request that was charged so many tokens has ended, and has used so many.
    pub(super) fn settle(&mut self, charged: u64, used: u64, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.refill(now);
        if used >= charged {
            self.charge_tokens(used - charged);
        } else if let Some(bucket) = &mut self.tokens {
            bucket.give(charged - used);
        }
    }

    /// A request that was charged does not count.
    pub(super) fn give_request(&mut self, now: Instant) {
        self.refill(now);
        if let Some(bucket) = &mut self.requests {
            bucket.give(1);
        }
    }

    fn refill(&mut self, now: Instant) {
        for bucket in [&mut self.requests, &mut self.tokens].into_iter().flatten() {
            bucket.refill(now);
        }
    }

    /// What it has lately asked for here, as a part of its limits: the largest part, and not more than the
    /// whole. Something, however little, is more than nothing.
    pub(super) fn demand(&self, now: Instant) -> u32 {
        let part = |amount: u64, limit: u64| {
            let part = u128::from(amount) * u128::from(ONE) / u128::from(limit.max(1));
            u32::try_from(part)
                .unwrap_or(ONE)
                .clamp(u32::from(amount > 0), ONE)
        };
        let terms = &self.terms;
        let requests = terms
            .requests
            .map(|limit| part(self.asked_requests.per_minute(now), limit));
        let tokens = terms
            .tokens
            .map(|limit| part(self.asked_tokens.per_minute(now), limit));
        let places = terms
            .concurrent
            .map(|most| part(u64::from(self.in_flight), u64::from(most)));
        requests.max(tokens).max(places).unwrap_or(0)
    }

    /// How it stands with its limits per minute.
    pub(super) fn standing(&mut self, now: Instant) -> Option<Standing> {
        self.refill(now);
        let line = |bucket: &Option<Bucket>| bucket.as_ref().map(Line::of);
        let standing = Standing {
            requests: line(&self.requests),
            tokens: line(&self.tokens),
        };
        (standing != Standing::default()).then_some(standing)
    }

    /// Requests and tokens that may be taken at the last refill.
    pub(super) fn remaining(&self) -> (Option<u64>, Option<u64>) {
        let remaining = |bucket: &Option<Bucket>| bucket.map(|bucket| bucket.remaining());
        (remaining(&self.requests), remaining(&self.tokens))
    }
}
