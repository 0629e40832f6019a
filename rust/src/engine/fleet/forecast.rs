//! What a request is expected to take: tokens, room, and time to its first byte.

use super::Fleet;
use super::figures::Figures;
use super::member::Member;
use super::models::Model;
use super::replica::{Backlog, Need};
use super::speed::{Pace, Prior, StraightLine};
use crate::engine::ask::Usage;
use crate::engine::config::Config;
use crate::engine::demand::{Demand, Lane};
use crate::engine::hold::Tokens;
use crate::engine::tenants::Predicted;
use crate::http::route::Route;
use crate::id::ReplicaSlot;
use crate::time::{Instant, Span};

const NS_PER_S: f64 = 1e9;
/// As many samples the settings count against what a fleet has shown, and a fleet against what one
/// of its replicas has.
const FLEET_PRIOR_SAMPLES: f64 = 1.0;
const REPLICA_PRIOR_SAMPLES: f64 = 8.0;

/// What was expected of one attempt when it was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Forecast {
    pub(in crate::engine) pushed_ns: Instant,
    pub(in crate::engine) need: Need,
    /// Tokens of the prompt, and how many of them are believed to be cached there.
    pub(in crate::engine) prompt_tokens: u32,
    pub(in crate::engine) cached_tokens: u32,
    /// Time from the push to the first byte.
    pub(in crate::engine) ttft_ns: Span,
    /// How many requests ran there.
    pub(in crate::engine) load: u32,
    /// Nothing stood before it: its time to the first byte teaches speed.
    pub(in crate::engine) clear: bool,
}

impl Forecast {
    /// What its tenant is charged for it.
    pub(in crate::engine) fn tokens(&self) -> Tokens {
        Tokens {
            uncached: self.need.prefill,
            cached: self.cached_tokens,
            output: self.need.kv.saturating_sub(self.need.prefill),
        }
    }

    /// Of a replica that is not there.
    fn nothing(pushed_ns: Instant) -> Self {
        Self {
            pushed_ns,
            need: Need::default(),
            prompt_tokens: 0,
            cached_tokens: 0,
            ttft_ns: Span::ZERO,
            load: 0,
            clear: false,
        }
    }
}

/// When a request could get its first token at a replica, or at a peer: the only formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Estimate {
    /// Until it could start.
    pub(in crate::engine) start_in_ns: Span,
    /// What every request takes, whatever its prompt.
    pub(in crate::engine) base_ns: Span,
    /// Prompt tokens to compute, and the time for each.
    pub(in crate::engine) prefill: u32,
    pub(in crate::engine) token_ns: u32,
}

impl Estimate {
    /// At a replica with this backlog, behind so many others that wait for it. `stay_ns`: how long
    /// requests run there after their first byte.
    #[inline]
    pub(in crate::engine) fn at(
        backlog: &Backlog,
        need: Need,
        behind: u32,
        pace: Pace,
        stay_ns: impl FnOnce() -> Span,
        now: Instant,
    ) -> Self {
        Self {
            start_in_ns: backlog.start_in_ns(need, behind, pace, stay_ns, now),
            base_ns: pace.base_ns,
            prefill: need.prefill,
            token_ns: pace.token_ns,
        }
    }

    /// Time until the first token.
    #[inline]
    pub(in crate::engine) fn ttft_ns(&self) -> Span {
        let compute_ns = Span::from_ns(u64::from(self.prefill) * u64::from(self.token_ns));
        let ready_ns = self.start_in_ns + self.base_ns;
        ready_ns + compute_ns
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
    /// down to the engine's own block; `matched_tokens`: those up to the match's end,
    /// where they are known.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and `as` saturates"
    )]
    pub(in crate::engine) fn need(
        &self,
        figures: &Figures,
        match_blocks: u32,
        matched_tokens: Option<u32>,
    ) -> (Need, u32) {
        let block = figures.block_tokens;
        let assumed = (f64::from(match_blocks) * self.block_tokens) as u32;
        let assumed = assumed.min(self.prompt_tokens);
        let matched = matched_tokens
            .filter(|_| self.model.is_some())
            .unwrap_or(assumed);
        let cached = matched / block * block;
        let prefill = (self.prompt_tokens - assumed).saturating_add(matched - cached);
        (self.need_of(prefill), cached)
    }

    /// What its tenant is charged for it until it has ended. `choices`: answers that it asks for, which have
    /// `max_tokens` together.
    pub(in crate::engine) fn charged(
        &self,
        route: Route,
        choices: u32,
        max_tokens: Option<u32>,
    ) -> Predicted {
        if Lane::of(route) != Lane::Batch {
            return Predicted::default();
        }
        let answer = self.output_tokens.saturating_mul(choices.max(1));
        let answer = max_tokens.map_or(answer, |max| max.min(answer));
        Predicted {
            prompt: self.prompt_tokens,
            answer: if route.generates() { answer } else { 0 },
            counted: true,
        }
    }

    /// What its tenant is charged where so much of it matches.
    pub(in crate::engine) fn tokens(&self, match_blocks: u32) -> Tokens {
        let uncached = self.uncached(match_blocks);
        Tokens {
            uncached,
            cached: self.prompt_tokens - uncached,
            output: self.output_tokens,
        }
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
    pub(in crate::engine) fn pace(&self, figures: &Figures) -> Pace {
        figures
            .pace()
            .unwrap_or_else(|| self.fleet_pace(figures.backlog.load))
    }

    /// The pace at a load of replicas that have not shown theirs.
    pub(in crate::engine) fn fleet_pace(&self, load: u32) -> Pace {
        fleet_line(self.model, load, self.config).pace()
    }

    /// How long requests run there after their first byte.
    pub(in crate::engine) fn stay_ns(&self, own: Option<Span>) -> Span {
        own.unwrap_or_else(|| self.fleet_stay_ns())
    }

    /// How long requests run at replicas that have not shown it.
    pub(in crate::engine) fn fleet_stay_ns(&self) -> Span {
        self.model
            .and_then(|model| model.stay_ns)
            .unwrap_or_else(|| self.decode_ns(self.config.output_tokens))
    }

    /// Time that so many tokens take one request, as the settings assume.
    fn decode_ns(&self, tokens: u32) -> Span {
        Span::from_ns_f64(f64::from(tokens) * NS_PER_S / self.config.decode_tokens_per_s)
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

    /// Tokens that its new blocks push out of a cache with so many free blocks.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and `as` saturates"
    )]
    pub(in crate::engine) fn evicts(&self, free_blocks: u32, uncached_tokens: u32) -> u32 {
        let free_tokens = (f64::from(free_blocks) * self.block_tokens) as u32;
        uncached_tokens.saturating_sub(free_tokens)
    }
}

/// The line that a replica's own starts from.
pub(in crate::engine) fn fleet_line(
    model: Option<&Model>,
    load: u32,
    config: &Config,
) -> StraightLine {
    let learned = model.and_then(|model| model.speed.line(load));
    learned.unwrap_or_else(|| assumed_line(config))
}

/// The line that the settings assume.
pub(in crate::engine) fn assumed_line(config: &Config) -> StraightLine {
    StraightLine {
        base_ns: config.ttft_base_ns.ns_f64(),
        token_ns: NS_PER_S / config.prefill_tokens_per_s,
    }
}

impl Fleet {
    /// What is expected of a request wherever it goes.
    pub(in crate::engine) fn expected<'a>(
        &'a self,
        demand: &Demand,
        config: &'a Config,
    ) -> Expected<'a> {
        let model = self.model_of(demand.model);
        let bytes_per_token = model.map_or(config.bytes_per_token, |model| {
            model.ratio.bytes_per_token()
        });
        let prompt_bytes = u64::from(demand.prompt_bytes);
        let output = self.lengths.predict(
            demand.model,
            demand.key,
            model.and_then(|model| model.output_mean),
            config.output_tokens,
        );
        #[expect(clippy::cast_precision_loss, reason = "a setting, far below 2^53")]
        let block_tokens = config.block_bytes as f64 / bytes_per_token;
        Expected {
            config,
            model,
            prompt_tokens: model.map_or(0, |model| model.ratio.tokens(prompt_bytes)),
            output_tokens: demand.max_tokens.map_or(output, |max| max.min(output)),
            block_tokens,
        }
    }

    /// What is expected of a request at one replica. `matched`: leading blocks that match, and the
    /// tokens up to there where they are known.
    pub(in crate::engine) fn forecast(
        &self,
        demand: &Demand,
        slot: ReplicaSlot,
        (match_blocks, matched_tokens): (u32, Option<u32>),
        config: &Config,
        now: Instant,
    ) -> Forecast {
        let expected = self.expected(demand, config);
        let Some(member) = self.member(slot) else {
            return Forecast::nothing(now);
        };
        let figures = Figures::of(member);
        let (need, cached_tokens) = expected.need(&figures, match_blocks, matched_tokens);
        let pace = expected.pace(&figures);
        let stay_ns = || expected.stay_ns(member.stay_ns);
        let estimate = Estimate::at(&figures.backlog, need, 0, pace, stay_ns, now);
        Forecast {
            pushed_ns: now,
            need,
            prompt_tokens: need.prefill.saturating_add(cached_tokens),
            cached_tokens,
            ttft_ns: estimate.ttft_ns(),
            load: figures.backlog.load,
            clear: member.replica.clear(need),
        }
    }

    /// Until one more request of a model would be computed at a replica, behind its share of so many
    /// that are held.
    pub(in crate::engine) fn start_in_ns(
        model: &Model,
        member: &Member,
        held: usize,
        config: &Config,
        now: Instant,
    ) -> Span {
        let load = member.replica.load();
        let line = member.speed.line_near(load);
        let pace = line
            .unwrap_or_else(|| fleet_line(Some(model), load, config))
            .pace();
        let stay_ns = || member.stay_ns.or(model.stay_ns).unwrap_or_default();
        let behind = u32::try_from(held / model.serving.len().max(1)).unwrap_or(u32::MAX);
        let backlog = member.replica.backlog();
        Estimate::at(&backlog, Need::default(), behind, pace, stay_ns, now).start_in_ns
    }

    /// A request was pushed whose policy counts the work given to replicas lately.
    pub(in crate::engine) fn note_work(
        &mut self,
        demand: &Demand,
        slot: ReplicaSlot,
        need: Need,
        config: &Config,
        now: Instant,
    ) {
        let expected = self.expected(demand, config);
        let Some(member) = self.member(slot) else {
            return;
        };
        let pace = expected.pace(&Figures::of(member));
        let prefill_ns = Span::from_ns(u64::from(need.prefill) * u64::from(pace.token_ns));
        let work_ns = prefill_ns + expected.decode_ns(expected.output_tokens);
        if let Some(member) = self.member_mut(slot) {
            member.lately.add(work_ns, config.preble_window_ns, now);
        }
    }

    /// Prompt tokens of a request behind so many blocks, and the time that each takes at a replica.
    pub(in crate::engine) fn work_of(
        &self,
        demand: &Demand,
        slot: ReplicaSlot,
        match_blocks: u32,
        config: &Config,
    ) -> (u32, u32) {
        let expected = self.expected(demand, config);
        let member = self.member(slot);
        let pace = member.map(|member| expected.pace(&Figures::of(member)));
        let token_ns = pace.map_or(0, |pace| pace.token_ns);
        (expected.uncached(match_blocks), token_ns)
    }

    /// Work given to a replica lately.
    pub(in crate::engine) fn recent_ns(
        &self,
        slot: ReplicaSlot,
        config: &Config,
        now: Instant,
    ) -> Span {
        let member = self.member(slot);
        member.map_or(Span::ZERO, |member| {
            member.lately.sum_ns(config.preble_window_ns, now)
        })
    }

    /// Learns from a request that was answered in full: how long the answer was, how long the engine
    /// took to the first token, and how long it ran from then on. Only a streamed answer shows the
    /// latter two, and only one that did not queue the former of them.
    pub(in crate::engine) fn learn_speed(
        &mut self,
        demand: &Demand,
        slot: ReplicaSlot,
        (forecast, first_byte_ns): (&Forecast, Option<Instant>),
        usage: Usage,
        config: &Config,
        now: Instant,
    ) {
        let Some(id) = demand.model.filter(|_| demand.lane == Lane::Batch) else {
            return;
        };
        self.figures.changed(slot);
        let Some(model) = self.models.get_mut(id.0 as usize) else {
            return;
        };
        if let Some(tokens) = usage.completion_tokens {
            model.output_mean = Some(mean_u32(model.output_mean, tokens));
            if let Some(key) = demand.key {
                self.lengths.learn(id, key, tokens);
            }
        }
        let Some(first_byte_ns) = first_byte_ns.filter(|_| demand.measured()) else {
            return;
        };
        let stay_ns = now - first_byte_ns;
        let ttft_ns = first_byte_ns - forecast.pushed_ns;
        let computed = usage.prompt_tokens.map_or(forecast.need.prefill, |prompt| {
            prompt.saturating_sub(usage.cached_tokens.unwrap_or(forecast.cached_tokens))
        });
        let load = forecast.load;
        let prior = Prior {
            line: fleet_line(Some(model), load, config),
            samples: REPLICA_PRIOR_SAMPLES,
        };
        model.stay_ns = Some(mean_ns(model.stay_ns, stay_ns));
        if forecast.clear {
            let assumed = Prior {
                line: assumed_line(config),
                samples: FLEET_PRIOR_SAMPLES,
            };
            model.speed.learn(load, computed, ttft_ns, assumed);
        }
        if let Some(member) = self.members.get_mut(slot.index()) {
            member.stay_ns = Some(mean_ns(member.stay_ns, stay_ns));
            if forecast.clear {
                member.speed.learn(load, computed, ttft_ns, prior);
                if let Some(line) = member.speed.line_near(load) {
                    member.replica.learn_step(line.pace().base_tokens());
                }
            }
        }
    }

    /// The first byte of a streamed answer has arrived: how true the forecast was.
    pub(in crate::engine) fn compare(&mut self, forecast: &Forecast, now: Instant) {
        let real_ns = now - forecast.pushed_ns;
        self.accuracy.count(forecast.ttft_ns, real_ns);
    }
}

/// A running mean of about the last 16 samples that starts at its first.
fn mean_ns(old: Option<Span>, new: Span) -> Span {
    Span::from_ns(mean_u64(old.map(Span::ns), new.ns()))
}

fn mean_u64(old: Option<u64>, new: u64) -> u64 {
    // Differences of times since a start are far below 2^60.
    old.map_or(new, |old| old - old / 16 + new / 16)
}

fn mean_u32(old: Option<u32>, new: u32) -> u32 {
    let mean = mean_u64(old.map(u64::from), u64::from(new));
    u32::try_from(mean).unwrap_or(new)
}
