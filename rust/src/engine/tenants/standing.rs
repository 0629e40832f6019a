//! How a tenant stands with its limits, as clients read it: the header lines that OpenAI's API has.

use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use crate::time::Span;

const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

/// One limit per minute, as it stood at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    limit: u64,
    /// That may be taken at this balancer at once.
    remaining: u64,
    /// Until this balancer's share is whole again.
    reset: Span,
}

impl Line {
    pub(super) fn of(bucket: &Bucket) -> Self {
        Self {
            limit: bucket.limit(),
            remaining: bucket.remaining(),
            reset: bucket.refilled_in(),
        }
    }
}

/// The limits per minute of one tenant, those that it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub(super) requests: Option<Line>,
    pub(super) tokens: Option<Line>,
}

impl Standing {
    /// Tokens are counted.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// The header lines, each with its CR LF.
    #[must_use]
    pub fn lines(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        for (what, line) in [("requests", self.requests), ("tokens", self.tokens)] {
            let Some(line) = line else { continue };
            put(&mut out, "limit", what, &line.limit.to_string());
            put(&mut out, "remaining", what, &line.remaining.to_string());
            put(&mut out, "reset", what, &duration(line.reset));
        }
        out
    }
}

fn put(out: &mut Vec<u8>, name: &str, what: &str, value: &str) {
    for part in ["x-ratelimit-", name, "-", what, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// A length of time as OpenAI writes it: `12ms`, `1s`, `6m0s`, `1h0m0s`. Rounded up, to whole seconds from
/// one second on.
fn duration(span: Span) -> String {
    let ms = span.ns().div_ceil(MS);
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let s = span.ns().div_ceil(S);
    match (s / 3_600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

/// Whole seconds for `Retry-After`: rounded up, and at least one.
pub(super) fn retry_after_s(wait: Span) -> u32 {
    u32::try_from(wait.ns().div_ceil(S).max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tenants::bucket::ONE;
    use crate::time::Instant;

    #[test]
    fn lengths_of_time_are_written_as_openai_writes_them() {
        let spans = [
            (0, "0ms"),
            (1, "1ms"),
            (11_500_000, "12ms"),
            (999_000_001, "1s"),
            (1_000_000_001, "2s"),
            (59_000_000_000, "59s"),
            (360_000_000_000, "6m0s"),
            (3_725_000_000_000, "1h2m5s"),
        ];
        for (ns, text) in spans {
            assert_eq!(duration(Span::from_ns(ns)), text);
        }
    }

    #[test]
    fn the_wait_of_a_client_is_whole_seconds_and_never_none() {
        let waits = [0, 1, 1_000_000_000, 1_000_000_001].map(Span::from_ns);
        assert_eq!(waits.map(retry_after_s), [1, 1, 1, 2]);
        assert_eq!(retry_after_s(Span::MAX), u32::MAX);
    }

    #[test]
    fn only_limits_that_there_are_have_lines() {
        let mut bucket = Bucket::new(600, ONE, Instant::ZERO);
        bucket.take(1);
        let standing = Standing {
            requests: Some(Line::of(&bucket)),
            tokens: None,
        };
        let lines = "x-ratelimit-limit-requests: 600\r\nx-ratelimit-remaining-requests: 599\r\n\
                     x-ratelimit-reset-requests: 100ms\r\n";
        assert_eq!(standing.lines(), lines.as_bytes());
    }
}
