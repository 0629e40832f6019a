//! Attributes and status of spans: the words of OpenTelemetry's conventions, and our own.

use super::super::ended::Ended;
use super::super::protobuf::{Value, attribute, message, number};
use super::span;
use crate::http::route::Route;
use crate::prompt::text::shortened;

/// `Status.code`.
const STATUS_ERROR: u64 = 2;

pub(super) fn put_http(out: &mut Vec<u8>, ended: &Ended<'_>) {
    text(out, "http.request.method", Some(ended.method()));
    text(out, "http.route", Some(ended.route()));
    int(out, "http.response.status_code", known(ended.status));
}

pub(super) fn put_gen_ai(out: &mut Vec<u8>, ended: &Ended<'_>) {
    let route = ended.head.and_then(|head| head.route);
    text(out, "gen_ai.operation.name", route.and_then(operation));
    text(
        out,
        "gen_ai.request.model",
        ended.model().filter(|model| !model.is_empty()),
    );
    if let Some(digest) = ended.digest {
        attribute(
            out,
            span::ATTRIBUTES,
            "gen_ai.request.stream",
            Value::Bool(digest.stream),
        );
        int(
            out,
            "gen_ai.request.max_tokens",
            digest.max_tokens.map(u64::from),
        );
    }
    if let Some(relay) = ended.relay {
        let tokens = |told: Option<i64>| told.and_then(|count| u64::try_from(count).ok());
        int(
            out,
            "gen_ai.usage.input_tokens",
            tokens(relay.prompt_tokens),
        );
        int(
            out,
            "gen_ai.usage.cache_read.input_tokens",
            tokens(relay.cached_tokens),
        );
        int(
            out,
            "gen_ai.usage.output_tokens",
            tokens(relay.completion_tokens),
        );
        if relay.streaming {
            seconds(out, "gen_ai.response.time_to_first_chunk", ended.ttft_ns());
        }
    }
}

/// The word of OpenTelemetry's conventions for what a route asks of a model.
fn operation(route: Route) -> Option<&'static str> {
    match route {
        Route::ChatCompletions
        | Route::ChatBatch
        | Route::Responses
        | Route::Messages
        | Route::CohereChat => Some("chat"),
        Route::Completions | Route::Generate => Some("text_completion"),
        Route::Embeddings | Route::EmbedV2 => Some("embeddings"),
        _ => None,
    }
}

/// `server.address` and `server.port` of an authority.
pub(super) fn put_address(out: &mut Vec<u8>, authority: &str) {
    if authority.is_empty() {
        return;
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, digits)) if !digits.ends_with(']') => (host, digits.parse().ok()),
        _ => (authority, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    text(out, "server.address", Some(host));
    int(out, "server.port", port);
}

/// The status of a span that failed, and its `error.type`.
pub(super) fn put_error(out: &mut Vec<u8>, word: Option<&str>, status: u16) {
    match word {
        Some(_) => text(out, "error.type", word),
        None => text(out, "error.type", Some(itoa::Buffer::new().format(status))),
    }
    message(out, span::STATUS, |out| number(out, 3, STATUS_ERROR));
}

pub(super) fn text(out: &mut Vec<u8>, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        attribute(out, span::ATTRIBUTES, key, Value::Text(shortened(value)));
    }
}

pub(super) fn int(out: &mut Vec<u8>, key: &str, value: Option<u64>) {
    if let Some(value) = value {
        attribute(out, span::ATTRIBUTES, key, Value::Int(value));
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds are doubles")]
pub(super) fn seconds(out: &mut Vec<u8>, key: &str, value_ns: Option<u64>) {
    if let Some(value_ns) = value_ns {
        attribute(
            out,
            span::ATTRIBUTES,
            key,
            Value::Double(value_ns as f64 / 1e9),
        );
    }
}

pub(super) fn known(status: u16) -> Option<u64> {
    (status != 0).then_some(u64::from(status))
}
