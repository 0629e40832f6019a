//! What a client reads when a request is refused.

use super::request::NoPlace;
use crate::engine::fleet::failure::Failure;
use crate::engine::hold::Full;
use crate::engine::refusal::Refusal;
use crate::tenant::Tenant;

/// Known models that a 404 names at most.
const MODELS_NAMED_MAX: usize = 20;
/// Characters of a model's name that an answer repeats at most.
const NAME_CHARS_MAX: usize = 200;

impl Refusal {
    /// A request that says it has crossed regions more than once.
    pub(in crate::engine) fn too_many_hops() -> Self {
        Self::new("hop_limit", "The request has been forwarded already.")
    }

    /// A forward asks for a model, or for a response, that no replica here has. Its origin goes elsewhere, and
    /// its client is told nothing of what is known here.
    pub(in crate::engine) fn not_served_here() -> Self {
        Self::new(
            "not_served_here",
            "No model server here serves this forward.",
        )
    }

    /// The rules of residency leave no place for the request.
    pub(in crate::engine) fn residency(tenant: Tenant<&str>) -> Self {
        Self::new(
            "residency",
            if tenant == Tenant::Unknown {
                "This request may not be served in any region that can be reached from here; \
                 its tenant is not known, so the rules of every tenant apply."
            } else {
                "This request may not be served in any region that can be reached from here."
            },
        )
    }

    /// `/v1/responses/{id}` or `previous_response_id` that no replica is known to have made.
    pub(in crate::engine) fn response_unknown() -> Self {
        Self::new(
            "response_not_found",
            "There is no response with this id here.",
        )
    }

    /// No replica lists the model, and one may again soon.
    pub(in crate::engine) fn model_away(name: &str, retry_after_s: u32) -> Self {
        let name: String = name.chars().take(NAME_CHARS_MAX).collect();
        let message = format!("No model server offers the model `{name}` at present.");
        Self::new("model_not_ready", message).retry_after(retry_after_s)
    }

    /// `known`: the models that are listed.
    pub(in crate::engine) fn model_unknown(name: &str, mut known: Vec<&str>) -> Self {
        let name: String = name.chars().take(NAME_CHARS_MAX).collect();
        known.sort_unstable();
        let more = known.len() > MODELS_NAMED_MAX;
        known.truncate(MODELS_NAMED_MAX);
        let mut message = format!("The model `{name}` does not exist.");
        if !known.is_empty() {
            message.push_str(" Known models: ");
            message.push_str(&known.join(", "));
            if more {
                message.push_str(" and more");
            }
            message.push('.');
        }
        Self::new("model_not_found", message)
    }

    /// No replica that serves the request is ready.
    pub(in crate::engine) fn none_ready(retry_after_s: u32) -> Self {
        Self::new(
            "no_replica_ready",
            "No model server is ready to serve this request.",
        )
        .retry_after(retry_after_s)
    }

    /// Replicas are ready, but neither they nor the hold have room.
    pub(in crate::engine) fn no_room(why: NoPlace, retry_after_s: u32) -> Self {
        let refusal = match why {
            NoPlace::Hold(Full::Hold) => {
                Self::new("hold_full", "Too many requests are waiting already.")
            }
            NoPlace::Hold(Full::Payer) => Self::new(
                "tenant_hold_full",
                "Too many of your requests are waiting already.",
            ),
            NoPlace::Hold(Full::Shed) => Self::new(
                "load_shed",
                "More requests come than the model servers can answer.",
            ),
            NoPlace::Light => Self::new("replica_full", "The model servers are at capacity."),
        };
        refusal.retry_after(retry_after_s)
    }

    /// What a client reads when its last attempt failed so.
    pub(in crate::engine) fn failed(failure: Failure, retry_after_s: u32) -> Self {
        let refusal = |code, message: &str| Self::new(code, message);
        match failure {
            Failure::Connect => {
                refusal("upstream_connect", "The model server could not be reached.")
            }
            Failure::Timeout | Failure::Withdrawn => refusal(
                "upstream_timeout",
                "The model server did not answer in time.",
            ),
            Failure::Reset => refusal(
                "upstream_reset",
                "The model server closed the connection before it answered.",
            ),
            Failure::Absent => refusal(
                "model_not_found",
                "No model server that was asked has this model.",
            ),
            Failure::Status(_) => refusal("upstream_status", "The model server failed to answer."),
            Failure::BadResponse => refusal(
                "upstream_bad_response",
                "The model server's answer could not be read.",
            ),
            Failure::Refused => {
                refusal("peers_full", "All regions are at capacity.").retry_after(retry_after_s)
            }
            Failure::Limited => refusal(
                "upstream_limited",
                "The model servers take no more of these requests at present.",
            )
            .retry_after(retry_after_s),
            Failure::Unauthorized => refusal(
                "upstream_unauthorized",
                "The model servers do not accept the key of this balancer.",
            ),
            Failure::Full => refusal("upstream_full", "All model servers are at capacity.")
                .retry_after(retry_after_s),
        }
    }
}
