//! What a request is expected to take: tokens, room, and time to its first byte.

use super::accuracy::Accuracy;
use super::models::Model;
use crate::engine::cache::paths::Path;
use crate::engine::choose::policy::Slot;
use crate::engine::config::{Config, Policy};
use crate::engine::fleet::figures::Card;
use crate::engine::fleet::replica::Need;
use crate::engine::fleet::speed::{Line, Pace, Prior};
use crate::engine::requests::request::{Attempt, Lane, Request, Usage};
use crate::engine::router::Router;
use crate::id::{Nanos, ReplicaId};

const NS_PER_S: f64 = 1e9;
/// As many samples the settings count against what a fleet has shown, and a fleet against what one
/// of its replicas has.
const FLEET_PRIOR_SAMPLES: f64 = 1.0;
const REPLICA_PRIOR_SAMPLES: f64 = 8.0;

/// What was expected of one attempt when it was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Forecast {
    pub(in crate::engine) pushed_ns: Nanos,
    pub(in crate::engine) need: Need,
    /// Tokens of the prompt, and how many of them are believed to be cached there.
    pub(in crate::engine) prompt_tokens: u32,
    pub(in crate::engine) cached_tokens: u32,
    /// Time from the push to the first byte.
    pub(in crate::engine) ttft_ns: Nanos,
    /// How many requests ran there.
    pub(in crate::engine) load: u32,
    /// Nothing stood before it: its time to the first byte teaches speed.
    pub(in crate::engine) clear: bool,
}

impl Forecast {
    /// The first byte of a streamed answer has arrived.
    pub(in crate::engine) fn compare(&self, now_ns: Nanos, accuracy: &mut Accuracy) {
        let real_ns = now_ns.saturating_sub(self.pushed_ns);
        accuracy.count(self.ttft_ns, real_ns);
    }
}

/// What is expected of a request wherever it goes.
#[derive(Debug)]
pub(in crate::engine) struct Expected<'a> {
    config: &'a Config,
    model: Option<&'a Model>,
    prompt_tokens: u32,
    output_tokens: u32,
    block_tokens: f64,
}

impl Expected<'_> {
    /// What it takes of a replica, and how much of its prompt is cached there. Matches are rounded
    /// down to the engine's own block; `path` tells the tokens up to the match's end where they are
    /// known.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and `as` saturates"
    )]
    pub(in crate::engine) fn need(
        &self,
        card: &Card,
        match_blocks: u32,
        path: Option<Path>,
    ) -> (Need, u32) {
        let block = card.block_tokens;
        let assumed = (f64::from(match_blocks) * self.block_tokens) as u32;
        let assumed = assumed.min(self.prompt_tokens);
        let known = path.zip(self.model);
        let matched = known.map_or(assumed, |(path, model)| path.findable_tokens(model));
        let cached = matched / block * block;
        let prefill = (self.prompt_tokens - assumed).saturating_add(matched - cached);
        (self.need_of(prefill), cached)
    }

    /// What it takes where nothing of it is cached.
    pub(in crate::engine) fn need_unmatched(&self) -> Need {
        self.need_of(self.prompt_tokens)
    }

    fn need_of(&self, prefill: u32) -> Need {
        Need {
            prefill,
            kv: prefill.saturating_add(self.output_tokens),
        }
    }

    /// Tokens of the prompt behind so many blocks.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and `as` saturates"
    )]
    pub(in crate::engine) fn uncached(&self, match_blocks: u32) -> u32 {
        let cached = (f64::from(match_blocks) * self.block_tokens) as u32;
        self.prompt_tokens.saturating_sub(cached)
    }

    /// The replica's time to the first token at its present load: its own, else its fleet's, else
    /// as the settings assume.
    pub(in crate::engine) fn pace(&self, card: &Card) -> Pace {
        card.pace
            .unwrap_or_else(|| self.fleet_pace(card.backlog.load))
    }

    /// The pace at a load of replicas that have not shown theirs.
    pub(in crate::engine) fn fleet_pace(&self, load: u32) -> Pace {
        fleet_line(self.model, load, self.config).pace()
    }

    /// How long requests run there after their first byte.
    pub(in crate::engine) fn stay_ns(&self, card: &Card) -> Nanos {
        card.stay_ns.unwrap_or_else(|| self.fleet_stay_ns())
    }

    /// How long requests run at replicas that have not shown it.
    pub(in crate::engine) fn fleet_stay_ns(&self) -> Nanos {
        self.model
            .and_then(|model| model.stay_ns)
            .unwrap_or_else(|| self.decode_ns(self.config.output_tokens))
    }

    /// Time that so many tokens take one request, as the settings assume.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and `as` saturates"
    )]
    fn decode_ns(&self, tokens: u32) -> Nanos {
        (f64::from(tokens) * NS_PER_S / self.config.decode_tokens_per_s) as Nanos
    }

    /// With so many blocks free, a prompt of so many new tokens pushes nothing out for certain: it
    /// saves most candidates the exact answer of [`Self::evicts`].
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and `as` saturates"
    )]
    pub(in crate::engine) fn blocks_enough(&self, uncached_tokens: u32) -> u32 {
        let blocks = f64::from(uncached_tokens) / self.block_tokens;
        (blocks as u32).saturating_add(2)
    }

    /// Tokens that its new blocks push out of the replica's cache.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and `as` saturates"
    )]
    pub(in crate::engine) fn evicts(
        &self,
        card: &Card,
        tree_blocks: u32,
        uncached_tokens: u32,
    ) -> u32 {
        let free_blocks = card.capacity_blocks.saturating_sub(tree_blocks);
        let free_tokens = (f64::from(free_blocks) * self.block_tokens) as u32;
        uncached_tokens.saturating_sub(free_tokens)
    }
}

/// The line that a replica's own starts from.
pub(in crate::engine) fn fleet_line(model: Option<&Model>, load: u32, config: &Config) -> Line {
    let learned = model.and_then(|model| model.speed.line(load));
    learned.unwrap_or_else(|| assumed_line(config))
}

/// The line that the settings assume.
#[expect(
    clippy::cast_precision_loss,
    reason = "a setting's nanoseconds are far below 2^53"
)]
pub(in crate::engine) fn assumed_line(config: &Config) -> Line {
    Line {
        base_ns: config.ttft_base_ns as f64,
        token_ns: NS_PER_S / config.prefill_tokens_per_s,
    }
}

impl Router {
    /// What is expected of a request wherever it goes.
    pub(in crate::engine) fn expected(&self, request: &Request) -> Expected<'_> {
        let config = &self.config;
        let model = request
            .model
            .and_then(|id| self.fleet.models.get(id.0 as usize));
        let bytes_per_token = model.map_or(config.bytes_per_token, |model| {
            model.ratio.bytes_per_token()
        });
        let prompt_bytes = u64::from(request.prompt_bytes);
        let output = self.lengths.predict(
            request.model,
            request.key,
            model.and_then(|model| model.output_mean),
            config.output_tokens,
        );
        #[expect(clippy::cast_precision_loss, reason = "a setting, far below 2^53")]
        let block_tokens = config.block_bytes as f64 / bytes_per_token;
        Expected {
            config,
            model,
            prompt_tokens: model.map_or(0, |model| model.ratio.tokens(prompt_bytes)),
            output_tokens: request.max_tokens.map_or(output, |max| max.min(output)),
            block_tokens,
        }
    }

    /// What is expected of a request at the replica it is about to be pushed to.
    pub(in crate::engine) fn forecast(
        &self,
        request: &Request,
        slot: Slot,
        match_blocks: u32,
        path: Option<Path>,
        now_ns: Nanos,
    ) -> Forecast {
        let expected = self.expected(request);
        let Some(member) = self.fleet.member(slot) else {
            return Forecast {
                pushed_ns: now_ns,
                need: Need::default(),
                prompt_tokens: 0,
                cached_tokens: 0,
                ttft_ns: 0,
                load: 0,
                clear: false,
            };
        };
        let card = Card::of(member, &self.config);
        let (need, cached_tokens) = expected.need(&card, match_blocks, path);
        let pace = expected.pace(&card);
        let stay_ns = expected.stay_ns(&card);
        let start_in_ns = card.backlog.start_in_ns(need, 0, pace, stay_ns, now_ns);
        let compute_ns = u64::from(need.prefill) * u64::from(pace.token_ns);
        Forecast {
            pushed_ns: now_ns,
            need,
            prompt_tokens: need.prefill.saturating_add(cached_tokens),
            cached_tokens,
            ttft_ns: start_in_ns
                .saturating_add(pace.base_ns)
                .saturating_add(compute_ns),
            load: card.backlog.load,
            clear: member.replica.clear(need),
        }
    }

    /// Notes what later choices look at: the session's replica, and the work given to it.
    pub(in crate::engine) fn note_push(
        &mut self,
        request: &Request,
        slot: Slot,
        replica: ReplicaId,
        need: Need,
        now_ns: Nanos,
    ) {
        match self.config.policy {
            Policy::Predictive => {
                if let Some(key) = request.key {
                    self.sessions.note(&key.to_le_bytes(), replica);
                }
            }
            Policy::Preble => {
                let work_ns = self.work_ns(request, slot, need);
                let window_ns = self.config.preble_window_ns;
                if let Some(member) = self.fleet.member_mut(slot) {
                    member.lately.add(work_ns, window_ns, now_ns);
                }
            }
            _ => {}
        }
    }

    /// Time of its engine that a request is expected to take.
    fn work_ns(&self, request: &Request, slot: Slot, need: Need) -> Nanos {
        let expected = self.expected(request);
        let Some(member) = self.fleet.member(slot) else {
            return 0;
        };
        let pace = expected.pace(&Card::of(member, &self.config));
        let prefill_ns = u64::from(need.prefill) * u64::from(pace.token_ns);
        prefill_ns.saturating_add(expected.decode_ns(expected.output_tokens))
    }
}

/// Learning what requests take.
impl Router {
    /// Learns from a request that was answered in full: how long the answer was, how long the
    /// engine took to the first token, and how long it ran from then on. Only a streamed answer
    /// shows the latter two, and only one that did not queue the former of them.
    pub(in crate::engine) fn learn_speed(
        &mut self,
        request: &Request,
        attempt: &Attempt,
        usage: Usage,
        now_ns: Nanos,
    ) {
        let Some(id) = request.model.filter(|_| request.lane == Lane::Batch) else {
            return;
        };
        let (member, model) = self.fleet.member_and_model(attempt.slot, id);
        let Some(model) = model else {
            return;
        };
        if let Some(tokens) = usage.completion_tokens {
            model.output_mean = Some(mean_u32(model.output_mean, tokens));
            if let Some(key) = request.key {
                self.lengths.learn(id, key, tokens);
            }
        }
        let Some(first_byte_ns) = attempt.first_byte_ns.filter(|_| request.measured()) else {
            return;
        };
        let forecast = &attempt.forecast;
        let stay_ns = now_ns.saturating_sub(first_byte_ns);
        let ttft_ns = first_byte_ns.saturating_sub(forecast.pushed_ns);
        let computed = usage.prompt_tokens.map_or(forecast.need.prefill, |prompt| {
            prompt.saturating_sub(usage.cached_tokens.unwrap_or(forecast.cached_tokens))
        });
        let load = forecast.load;
        let prior = Prior {
            line: fleet_line(Some(model), load, &self.config),
            samples: REPLICA_PRIOR_SAMPLES,
        };
        model.stay_ns = Some(mean_ns(model.stay_ns, stay_ns));
        if forecast.clear {
            let assumed = Prior {
                line: assumed_line(&self.config),
                samples: FLEET_PRIOR_SAMPLES,
            };
            model.speed.learn(load, computed, ttft_ns, assumed);
        }
        if let Some(member) = member {
            member.stay_ns = Some(mean_ns(member.stay_ns, stay_ns));
            if forecast.clear {
                member.speed.learn(load, computed, ttft_ns, prior);
            }
        }
    }
}

/// A running mean of about the last 16 samples that starts at its first.
fn mean_ns(old: Option<Nanos>, new: Nanos) -> Nanos {
    // Differences of times since a start are far below 2^60.
    old.map_or(new, |old| old - old / 16 + new / 16)
}

fn mean_u32(old: Option<u32>, new: u32) -> u32 {
    let mean = mean_ns(old.map(u64::from), u64::from(new));
    u32::try_from(mean).unwrap_or(new)
}

/// Work given to a replica in about the last so much time: that of the present window, and of the
/// one before the part that the present one does not cover yet.
#[derive(Debug, Default)]
pub(in crate::engine) struct Lately {
    /// In nanoseconds, as the next.
    newer: u64,
    older: u64,
    since_ns: Nanos,
}

impl Lately {
    pub(in crate::engine) fn add(&mut self, work_ns: u64, window_ns: Nanos, now_ns: Nanos) {
        let age_ns = now_ns.saturating_sub(self.since_ns);
        if age_ns >= window_ns {
            let next = age_ns < window_ns.saturating_mul(2);
            self.older = if next { self.newer } else { 0 };
            self.newer = 0;
            self.since_ns = now_ns;
        }
        self.newer = self.newer.saturating_add(work_ns);
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "positive, and `as` saturates"
    )]
    pub(in crate::engine) fn sum_ns(&self, window_ns: Nanos, now_ns: Nanos) -> u64 {
        let age = now_ns.saturating_sub(self.since_ns) as f64 / window_ns.max(1) as f64;
        let newer = self.newer as f64 * (2.0 - age).clamp(0.0, 1.0);
        let older = self.older as f64 * (1.0 - age).clamp(0.0, 1.0);
        (newer + older) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_remembered_for_one_to_two_windows() {
        let mut lately = Lately::default();
        lately.add(100, 10, 1_000);
        assert_eq!(lately.sum_ns(10, 1_009), 100);
        lately.add(50, 10, 1_010);
        assert_eq!(lately.sum_ns(10, 1_010), 150);
        assert_eq!(lately.sum_ns(10, 1_015), 100, "half of the older window");
        assert_eq!(lately.sum_ns(10, 1_030), 0);
        lately.add(u64::MAX, 10, 2_000);
        lately.add(u64::MAX, 10, 2_001);
        assert_eq!(lately.sum_ns(10, 2_001), u64::MAX);
        assert_eq!(lately.sum_ns(0, 2_001), u64::MAX);
    }
}
