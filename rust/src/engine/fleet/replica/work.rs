//! What the requests in flight from here still cost the replica.

use super::{Replica, mean};
use crate::engine::config::Config;
use crate::engine::fleet::speed::Pace;
use crate::time::{Instant, Span};

/// What a request is predicted to take of a replica, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// Prompt tokens not cached there: they are computed before its first token.
    pub prefill: u32,
    /// KV room: those, and its answer.
    pub kv: u32,
}

/// Tokens of the own requests in flight.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Prompt tokens of those without a first byte.
    prefill: u64,
    /// Since when the engine has been computing them, as far as seen.
    since_ns: Instant,
    /// KV room of all.
    kv: u64,
    /// Running mean of the prompt tokens of those pushed.
    prompt_mean: Option<u32>,
    /// Prompt tokens that take as long as a step without any, where that was learned.
    step_tokens: Option<u32>,
}

impl Work {
    pub(super) fn pushed(&mut self, need: Need, now: Instant) {
        if self.prefill == 0 {
            self.since_ns = now;
        }
        self.prompt_mean = Some(mean(self.prompt_mean, need.prefill));
        self.prefill += u64::from(need.prefill);
        self.kv += u64::from(need.kv);
    }

    /// So many prompt tokens have just been computed.
    pub(super) fn computed(&mut self, prefill: u32, now: Instant) {
        self.prefill = self.prefill.saturating_sub(u64::from(prefill));
        self.since_ns = now;
    }

    pub(super) fn ended(&mut self, need: Need) {
        self.prefill = self.prefill.saturating_sub(u64::from(need.prefill));
        self.kv = self.kv.saturating_sub(u64::from(need.kv));
    }

    /// Running mean of the prompt tokens of those pushed.
    pub(super) fn prompt_mean(&self) -> Option<u32> {
        self.prompt_mean
    }

    pub(super) fn prefill(&self) -> u64 {
        self.prefill
    }

    /// The prompts under way and one of average length take no longer than so many steps.
    pub(super) fn within_steps(&self, steps: u32, config: &Config) -> bool {
        let step_tokens = self.step_tokens.unwrap_or_else(|| config.step_tokens());
        let most = u64::from(step_tokens) * u64::from(steps);
        let mean = u64::from(self.prompt_mean.unwrap_or(0));
        most > 0 && self.prefill.saturating_add(mean) <= most
    }
}

/// What stands before the next request at a replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Prompt tokens of own requests without a first byte.
    pub prefill: u64,
    /// Since when the engine has been computing them, as far as seen.
    since_ns: Instant,
    /// Free KV tokens, where they and the requests' mean are known.
    kv_free: i64,
    tokens_mean: u32,
    /// How many requests run there, seen or, without a snapshot, sent.
    pub load: u32,
    /// Of those, seen.
    running: u32,
    /// Requests that must end before there is a place in the batch.
    places: u32,
}

impl Backlog {
    /// Time until a request pushed now would be computed: the prompts ahead of it, and the ends of
    /// others that it has to wait for, of which `behind` more if it is not the next.
    ///
    /// `stay_ns` is how long a request runs after its first token: in a steady state one ends
    /// every `stay_ns / running` (Little's law).
    #[must_use]
    #[inline]
    pub fn start_in_ns(
        &self,
        need: Need,
        behind: u32,
        pace: Pace,
        stay_ns: impl FnOnce() -> Span,
        now: Instant,
    ) -> Span {
        let ends = self.ends_awaited(need).saturating_add(behind);
        let waiting_ns = if ends == 0 {
            Span::ZERO
        } else {
            stay_ns() / u64::from(self.load.max(1)) * u64::from(ends)
        };
        self.ahead_ns(pace, now) + waiting_ns
    }

    /// Time until the prompts pushed so far are computed. That begins with a step, a base after the
    /// first of them was pushed.
    #[must_use]
    pub fn ahead_ns(&self, pace: Pace, now: Instant) -> Span {
        let all_ns = Span::from_ns(self.prefill.saturating_mul(u64::from(pace.token_ns)));
        let elapsed_ns = now - self.since_ns;
        all_ns - (elapsed_ns - pace.base_ns)
    }

    /// Requests that must end before one more runs: for a place in the batch, or for KV room.
    fn ends_awaited(&self, need: Need) -> u32 {
        let missing = i64::from(need.kv).saturating_sub(self.kv_free);
        if missing <= 0 {
            return self.places;
        }
        let ends = missing / i64::from(self.tokens_mean.max(1)) + 1;
        // A request larger than all of them together waits for all.
        let room = u32::try_from(ends).unwrap_or(u32::MAX).min(self.running);
        self.places.max(room)
    }
}

impl Replica {
    /// The prompts under way and one of average length take no longer than so many steps.
    #[must_use]
    pub fn within_steps(&self, steps: u32, config: &Config) -> bool {
        self.work.within_steps(steps, config)
    }

    /// So many prompt tokens take as long there as a step without any.
    pub fn learn_step(&mut self, tokens: u32) {
        self.work.step_tokens = Some(tokens);
    }

    /// KV tokens that the own requests in flight are predicted to take.
    #[must_use]
    pub fn active_tokens(&self) -> u64 {
        self.work.kv
    }

    /// KV tokens in use: by the last snapshot, carried forward; where that does not tell, those of
    /// the own requests.
    #[must_use]
    pub fn kv_used_tokens(&self, config: &Config) -> u64 {
        let all = self.kv_tokens(config);
        match self.kv_free {
            Some(free) => all.saturating_sub(u64::try_from(free).unwrap_or(0)),
            None => self.work.kv.min(all),
        }
    }

    /// How many requests run there, seen or, without a snapshot, sent.
    #[must_use]
    pub fn load(&self) -> u32 {
        self.running().unwrap_or_else(|| self.in_flight())
    }

    /// Nothing stands before the next request: it would be computed at once.
    #[must_use]
    pub fn clear(&self, need: Need) -> bool {
        let backlog = self.backlog();
        self.pending() == 0 && backlog.prefill == 0 && backlog.ends_awaited(need) == 0
    }

    /// What stands before the next request.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let known = self.kv_free.zip(self.tokens_mean);
        let (kv_free, tokens_mean) = known.unwrap_or((i64::MAX, 1));
        Backlog {
            prefill: self.work.prefill,
            since_ns: self.work.since_ns,
            kv_free,
            tokens_mean,
            load: self.load(),
            running: self.running,
            places: self.places_awaited(),
        }
    }

    /// Requests that must end before there is a place in the batch for one more.
    fn places_awaited(&self) -> u32 {
        match self.knee() {
            Some(knee) => self
                .load()
                .saturating_add(self.pending())
                .saturating_add(1)
                .saturating_sub(knee),
            None => self.waiting,
        }
    }
}
