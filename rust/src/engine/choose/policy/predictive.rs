//! Least predicted time to the first token: ours.

use super::{Basis, Candidate, Choice, Context, View, smallest_above};
use crate::time::Span;
use crate::engine::config::Config;

/// Parts of one: exploration is drawn to this grain.
const GRAINS: usize = 1 << 20;

/// The candidate, with room or without, with the lowest predicted time to the first token and what the
/// request costs others, each part with its weight. A session stays where it was while moving would gain no more
/// than `session_gain_s` and `session_gain_ratio`. One choice in `1 / explore_ratio` is drawn among those with
/// room that cost no more than such a gain, so that speeds are learned everywhere, on short prompts rather than
/// at the price of a cached prefix.
///
/// Source: ours; the additive form is GORGO's (arXiv:2602.11688), with all its terms learned.
pub(super) fn predictive(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let config = context.config;
    let position = smallest_above(view, context, Candidate::ttft_ns, |candidate| score(candidate, config));
    let limit_ns = bearable(score(&view.candidates[position], config), context);
    if explores(context)
        && let Some(position) = drawn(view, context, limit_ns)
    {
        return Choice {
            position,
            basis: Basis::Explore,
        };
    }
    Choice {
        position: stay(view, context, position).unwrap_or(position),
        basis: Basis::Time,
    }
}

/// What the request costs at a candidate, in nanoseconds: its own time to the first token, and, weighed, the
/// delay of the next token of all that run there, the delay of the first token of all that are queued there
/// (what arrives in one step gets it at that step's end, so a prompt delays those before it too), and what must
/// be computed anew.
pub(super) fn score(candidate: &Candidate, config: &Config) -> Span {
    let [delayed_ns, queued_ns, again_ns] = imposed(candidate, config);
    candidate.ttft_ns() + Span::from_ns_f64(delayed_ns + queued_ns + again_ns)
}

/// What others lose by the request, in nanoseconds and weighed: those that run, those that are queued, and
/// those whose prefixes are evicted.
pub(in crate::engine) fn imposed(candidate: &Candidate, config: &Config) -> [f64; 3] {
    let token_ns = Span::from_ns(candidate.ns_per_token.into());
    let compute_ns = (token_ns * u64::from(candidate.uncached_tokens)).ns_f64();
    let again_ns = (token_ns * u64::from(candidate.evict_tokens)).ns_f64();
    [
        compute_ns * f64::from(candidate.running) * config.delay_weight,
        compute_ns * f64::from(candidate.pending) * config.queue_weight,
        again_ns * config.evict_weight,
    ]
}

/// The session's replica, if `best` is not that much better.
fn stay(view: &View<'_>, context: &Context<'_>, best: usize) -> Option<usize> {
    let home = *view.positions.get(view.home?.index())? as usize;
    let home_ns = score(view.candidates.get(home)?, context.config);
    let best_ns = score(&view.candidates[best], context.config);
    (home_ns <= bearable(best_ns, context)).then_some(home)
}

/// The highest cost that is as good as `best_ns`: neither a session moves for less, nor is more
/// spent on learning.
fn bearable(best_ns: Span, context: &Context<'_>) -> Span {
    let share = 1.0 - context.config.session_gain_ratio;
    let by_share_ns = Span::from_ns_f64(best_ns.ns_f64() / share.max(f64::MIN_POSITIVE));
    by_share_ns.max(best_ns + context.config.session_gain_ns)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a ratio is within 0 and 1"
)]
fn explores(context: &mut Context<'_>) -> bool {
    let part = (context.config.explore_ratio * GRAINS as f64) as usize;
    part > 0 && context.rng.below(GRAINS) < part
}

/// One of the candidates with room that cost at most `limit_ns`, each as likely.
fn drawn(view: &View<'_>, context: &mut Context<'_>, limit_ns: Span) -> Option<usize> {
    let config = context.config;
    let fits = |candidate: &Candidate| candidate.room && score(candidate, config) <= limit_ns;
    let open = || view.candidates.iter().enumerate().filter(|(_, c)| fits(c));
    let count = open().count();
    if count == 0 {
        return None;
    }
    let nth = context.rng.below(count);
    open().nth(nth).map(|(position, _)| position)
}
