//! What models and tenants used: tokens as replicas reported them, requests, and time to first byte.

use super::ended::Ended;
use super::labels::{Key, Labels, at};
use super::target::Target;

/// Kinds of tokens: all of the prompt, those of them that the replica found cached, those of the answer.
pub const KINDS: [&str; 3] = ["prompt", "cached", "generated"];

/// How requests of a tenant ended.
pub const OUTCOMES: [&str; 5] = ["ok", "limited", "refused", "failed", "client_left"];

type Tokens = [u64; KINDS.len()];

/// Requests of one tenant.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    tokens: Tokens,
    outcomes: [u64; OUTCOMES.len()],
    ttft_ns: u128,
    ttft_count: u64,
}

/// Tokens of one model.
#[derive(Debug, Clone, Copy, Default)]
struct Output {
    tokens: Tokens,
    /// Answers that could tell tokens.
    answers: u64,
    /// Those of them that told none.
    untold: u64,
}

/// The figures of one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelUsage<'a> {
    /// Its label.
    pub model: &'a str,
    /// By [`KINDS`].
    pub tokens: [u64; KINDS.len()],
    /// Answers of its replicas here that could tell tokens.
    pub answers: u64,
    /// Those of them that told none.
    pub untold: u64,
}

/// The figures of one tenant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TenantUsage<'a> {
    /// Its label.
    pub tenant: &'a str,
    /// By [`KINDS`].
    pub tokens: [u64; KINDS.len()],
    /// Requests by [`OUTCOMES`].
    pub outcomes: [u64; OUTCOMES.len()],
    /// Sum of the times to first body byte in seconds, of answers below 400, and their number.
    pub ttft: (f64, u64),
}

/// By model, and by tenant.
#[derive(Debug, Default)]
pub(super) struct Usage {
    models: Vec<Output>,
    tenants: Vec<Share>,
}

impl Usage {
    /// A request for inference ended. Tokens count where the replica is: not at a balancer that forwarded.
    pub(super) fn add(&mut self, key: Key, ended: &Ended<'_>) {
        let share = at(&mut self.tenants, usize::from(key.tenant));
        let status = if ended.is_cut() { 500 } else { ended.status };
        share.outcomes[outcome(status)] += 1;
        if let Some(ttft_ns) = ended.ttft_ns().filter(|_| ended.status < 400) {
            share.ttft_ns += u128::from(ttft_ns);
            share.ttft_count += 1;
        }
        if matches!(ended.life.target, Some(Target::Peer(_))) {
            return;
        }
        let Some(relay) = ended.relay.filter(|relay| relay.verdict < 400) else {
            return;
        };
        let output = at(&mut self.models, usize::from(key.model));
        let told = [
            relay.prompt_tokens,
            relay.cached_tokens,
            relay.completion_tokens,
        ];
        if ended.computed() {
            output.answers += 1;
            output.untold += u64::from(told[0].is_none() && told[2].is_none());
        }
        for (kind, told) in told.into_iter().enumerate() {
            let tokens = told.and_then(|told| u64::try_from(told).ok()).unwrap_or(0);
            output.tokens[kind] += tokens;
            share.tokens[kind] += tokens;
        }
    }

    /// The figures of each model that was answered.
    pub(super) fn models<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = ModelUsage<'a>> {
        let used = self.models.iter().enumerate();
        let used = used.filter(|(_, of)| of.answers > 0 || of.tokens != Tokens::default());
        used.filter_map(|(id, of)| {
            Some(ModelUsage {
                model: labels.models.name(u16::try_from(id).ok()?),
                tokens: of.tokens,
                answers: of.answers,
                untold: of.untold,
            })
        })
    }

    /// The figures of each tenant that has had requests.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
    pub(super) fn tenants<'a>(
        &'a self,
        labels: &'a Labels,
    ) -> impl Iterator<Item = TenantUsage<'a>> {
        let used = self.tenants.iter().enumerate();
        let used = used.filter(|(_, of)| of.outcomes != <[u64; OUTCOMES.len()]>::default());
        used.filter_map(|(id, of)| {
            Some(TenantUsage {
                tenant: labels.tenants.name(u16::try_from(id).ok()?),
                tokens: of.tokens,
                outcomes: of.outcomes,
                ttft: (of.ttft_ns as f64 / 1e9, of.ttft_count),
            })
        })
    }
}

/// The number of an outcome in [`OUTCOMES`].
fn outcome(status: u16) -> usize {
    match status {
        ..400 => 0,
        429 => 1,
        499 => 4,
        400..500 => 2,
        500.. => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ended::tests::Parts;
    use super::*;
    use crate::relay::{Options, Relay};
    use crate::tenant::Tenant;

    const CHAT: &str = "/v1/chat/completions";
    const USAGE: &str = r#"{"id":"x","usage":{"prompt_tokens":10,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#;

    fn parts(answer: &str, tenant: Tenant<Box<str>>) -> Parts {
        let mut parts = Parts::new(CHAT, Some("m"));
        let mut relay = Relay::new(Options::default(), "r");
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        relay.feed((head + answer).as_bytes());
        parts.relay = Some(relay);
        parts.life.attempts = 1;
        parts.life.tenant = tenant;
        parts.life.first_byte_ns = 500_000_000;
        parts
    }

    fn add(usage: &mut Usage, labels: &mut Labels, parts: &Parts, status: u16) {
        let ended = parts.ended(status);
        usage.add(labels.key(&ended), &ended);
    }

    #[test]
    fn tokens_count_for_the_model_and_the_tenant() {
        let (mut usage, mut labels) = (Usage::default(), Labels::new(8));
        add(
            &mut usage,
            &mut labels,
            &parts(USAGE, Tenant::Named("acme".into())),
            200,
        );
        add(&mut usage, &mut labels, &parts(USAGE, Tenant::Nobody), 200);
        add(&mut usage, &mut labels, &parts("{}", Tenant::Nobody), 200);
        add(&mut usage, &mut labels, &Parts::new(CHAT, Some("m")), 429);
        let models: Vec<_> = usage.models(&labels).collect();
        let model = ModelUsage {
            model: "m",
            tokens: [20, 8, 6],
            answers: 3,
            untold: 1,
        };
        assert_eq!(models, [model]);
        let tenants: Vec<_> = usage.tenants(&labels).collect();
        let nobody = TenantUsage {
            tenant: "",
            tokens: [10, 4, 3],
            outcomes: [2, 1, 0, 0, 0],
            ttft: (1.0, 2),
        };
        let acme = TenantUsage {
            tenant: "acme",
            outcomes: [1, 0, 0, 0, 0],
            ttft: (0.5, 1),
            ..nobody
        };
        assert_eq!(tenants, [nobody, acme]);
    }

    #[test]
    fn tokens_of_a_forward_count_where_the_replica_is() {
        let (mut usage, mut labels) = (Usage::default(), Labels::new(8));
        let mut forwarded = parts(USAGE, Tenant::Nobody);
        forwarded.life.target = Some(Target::Peer("eu".into()));
        add(&mut usage, &mut labels, &forwarded, 200);
        assert_eq!(usage.models(&labels).count(), 0);
        let tenants: Vec<_> = usage.tenants(&labels).collect();
        assert_eq!((tenants[0].tokens, tenants[0].outcomes[0]), ([0; 3], 1));
    }

    #[test]
    fn tenants_beyond_the_bound_and_unknown_ones_are_the_others() {
        let (mut usage, mut labels) = (Usage::default(), Labels::new(1));
        for tenant in ["a", "b", "c"] {
            add(
                &mut usage,
                &mut labels,
                &parts("{}", Tenant::Named(tenant.into())),
                200,
            );
        }
        add(&mut usage, &mut labels, &parts("{}", Tenant::Unknown), 503);
        let tenants: Vec<_> = usage.tenants(&labels).collect();
        let shown: Vec<_> = tenants.iter().map(|of| (of.tenant, of.outcomes)).collect();
        assert_eq!(shown, [("other", [2, 0, 0, 1, 0]), ("a", [1, 0, 0, 0, 0])]);
    }

    #[test]
    fn statuses_are_outcomes() {
        let of = |status| OUTCOMES[outcome(status)];
        assert_eq!(
            [200, 304, 400, 404, 429, 499, 500, 503].map(of),
            [
                "ok",
                "ok",
                "refused",
                "refused",
                "limited",
                "client_left",
                "failed",
                "failed"
            ]
        );
    }
}
