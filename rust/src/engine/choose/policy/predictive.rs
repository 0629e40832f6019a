//! Least predicted time to the first token: ours.

use super::{Basis, Candidate, Choice, Context, View, smallest};
use crate::time::Span;
use crate::engine::config::Config;

/// Parts of one: exploration is drawn to this grain.
const GRAINS: usize = 1 << 20;

/// The candidate, with room or without, with the lowest predicted time to the first token plus
/// `imposed_weight` times what the request costs others, and `queue_weight` times the prompts ahead of
/// it; a session stays where it was while moving
/// would gain no more than `session_gain_s` and `session_gain_ratio`. One choice in
/// `1 / explore_ratio` is drawn among those with room that cost no more than such a gain, so that
/// speeds are learned everywhere, on short prompts rather than at the price of a cached prefix.
///
/// Source: ours; the additive form is GORGO's (arXiv:2602.11688), with all its terms learned.
pub(super) fn predictive(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let config = context.config;
    let position = smallest(view, context, |candidate| score(candidate, config));
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

/// What the request costs at a candidate, in nanoseconds: its own time to the first token, and,
/// weighed, the delay of the next token of all that run there, what must be computed anew, and the
/// prompts ahead once more: what arrives in one step gets its first token at that step's end, so that
/// each prompt delays those before it too.
fn score(candidate: &Candidate, config: &Config) -> Span {
    let token_ns = Span::from_ns(candidate.ns_per_token.into());
    let compute_ns = token_ns * u64::from(candidate.uncached_tokens);
    let delay_ns = compute_ns * u64::from(candidate.running);
    let again_ns = token_ns * u64::from(candidate.evict_tokens);
    let ahead_ns = token_ns * candidate.prefill_tokens;
    let imposed_ns = (delay_ns + again_ns).ns_f64() * config.imposed_weight
        + ahead_ns.ns_f64() * config.queue_weight;
    candidate.ttft_ns() + Span::from_ns_f64(imposed_ns)
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
