//! The table of errors: every code that a client, a peer or an operator can read, in an answer or in a stream.
//!
//! Code that refuses gives the code only. The status stands here and nowhere else.

use Retry::{Later, No, Unsure};
use Side::{Balancer, Client, Operator, Peer, Replica};

/// Whose side an error is on: what has to change before the request can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The request, or the connection that brought it.
    Client,
    /// This balancer: its room, or its state.
    Balancer,
    /// A replica.
    Replica,
    /// A peer, or what a peer sent.
    Peer,
    /// An operator's request to the admin listener.
    Operator,
}

/// Whether the same request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It gets the same answer.
    No,
    /// Nothing was begun; `Retry-After` says when, where it is given.
    Later,
    /// A replica may have computed an answer already.
    Unsure,
}

impl Side {
    /// For documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Client => "client",
            Balancer => "SkyLB",
            Replica => "replica",
            Peer => "peer",
            Operator => "operator",
        }
    }
}

impl Retry {
    /// For documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            No => "no",
            Later => "later",
            Unsure => "it may have run",
        }
    }
}

/// The status of what is written only within a stream that has begun.
pub const IN_STREAM: u16 = 0;

/// One code with one status.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// A stable word for programs.
    pub code: &'static str,
    /// HTTP status, or [`IN_STREAM`].
    pub status: u16,
    /// Whose side it is on.
    pub side: Side,
    /// Whether to try again.
    pub retry: Retry,
    /// What it means.
    pub about: &'static str,
}

const fn row(
    code: &'static str,
    status: u16,
    side: Side,
    retry: Retry,
    about: &'static str,
) -> Row {
    Row {
        code,
        status,
        side,
        retry,
        about,
    }
}

/// Every error, by status.
#[rustfmt::skip] // a table: one row a line
pub const ERRORS: &[Row] = &[
    row("bad_chunk", 400, Client, No, "The chunked body is malformed."),
    row("bad_connection", 400, Client, No, "The `Connection` header is no short list of names."),
    row("bad_content_length", 400, Client, No, "`Content-Length` is no number, or contradicts `Transfer-Encoding`."),
    row("bad_header", 400, Client, No, "A header line is malformed."),
    row("bad_host", 400, Client, No, "The `Host` header is missing, malformed or not that of the target."),
    row("bad_level", 400, Operator, No, "The level of the log has no such name."),
    row("bad_line", 400, Client, No, "A line does not end as HTTP's do."),
    row("bad_policy", 400, Operator, No, "No policy has such a name."),
    row("bad_continuing", 400, Operator, No, "Streams go on elsewhere or do not: on or off."),
    row("bad_query", 400, Operator, No, "A value in the query is none that the path takes."),
    row("bad_request_line", 400, Client, No, "The request line is malformed."),
    row("bad_target", 400, Client, No, "The request target is malformed."),
    row("bad_tenant", 400, Client, No, "The header that names the tenant is malformed."),
    row("bad_transfer_encoding", 400, Client, No, "`Transfer-Encoding` is not `chunked`, or the version has none."),
    row("body_too_complex", 400, Client, No, "The body passes a bound of nesting, keys or values."),
    row("duplicate_key", 400, Client, No, "A field is given more than once, with different values."),
    row("empty_body", 400, Client, No, "The request has no body."),
    row("invalid_json", 400, Client, No, "The body is no strict JSON, or no UTF-8."),
    row("invalid_multipart", 400, Client, No, "The multipart body is malformed."),
    row("invalid_type", 400, Client, No, "A field has a type that no engine takes."),
    row("missing_model", 400, Client, No, "The request names no model, and more than one is served."),
    row("unexpected_body", 400, Client, No, "The method takes no body."),
    row("untrusted_field", 400, Client, No, "Only a trusted sender may use this field."),
    row("invalid_api_key", 401, Client, No, "The request has no API key, or one that is not known, has expired or was revoked."),
    row("unauthorized", 401, Operator, No, "The admin token is missing or wrong."),
    row("cross_origin", 403, Operator, No, "Another web page asks, or the `Host` is no loopback name."),
    row("forward_refused", 403, Peer, No, "The signature of a forward is no good."),
    row("model_not_allowed", 403, Client, No, "The tenant of the API key may not use this model."),
    row("no_token", 403, Operator, No, "The admin listener is not on loopback, and has no token."),
    row("residency", 403, Client, No, "No region that can be reached may serve this request."),
    row("model_not_found", 404, Client, No, "No replica serves this model."),
    row("no_mesh", 404, Operator, No, "This balancer has no peers."),
    row("no_receipt", 404, Operator, No, "No receipt of this request is kept, or receipts are off."),
    row("response_not_found", 404, Client, No, "No replica here is known to have made this response."),
    row("unknown_path", 404, Client, No, "This path is not served."),
    row("unknown_peer", 404, Operator, No, "No peer has this name."),
    row("unknown_region", 404, Operator, No, "No balancer is known in this region."),
    row("unknown_replica", 404, Operator, No, "No replica has this name or number."),
    row("method_not_allowed", 405, Client, No, "The path takes other methods: see `Allow`."),
    row("body_timeout", 408, Client, Later, "The body came too slowly."),
    row("head_timeout", 408, Client, Later, "The head did not come in time."),
    row("body_too_large", 413, Client, No, "The body is larger than `body_bytes_max`."),
    row("target_too_long", 414, Client, No, "The request target is too long."),
    row("unsupported_content_encoding", 415, Client, No, "The body is compressed."),
    row("unsupported_media_type", 415, Client, No, "The path does not take this `Content-Type`."),
    row("expectation_failed", 417, Client, No, "Only `100-continue` can be expected."),
    row("rate_limit_exceeded", 429, Client, Later, "The tenant has used up its requests or tokens per minute, or its concurrent requests."),
    row("tenant_hold_full", 429, Client, Later, "Too many requests of this tenant are waiting."),
    row("upstream_limited", 429, Replica, Later, "Every replica that was asked answered 429."),
    row("head_too_large", 431, Client, No, "The request head is too large."),
    row("too_many_headers", 431, Client, No, "The request has too many headers."),
    row("client_left", 499, Client, Unsure, "The client closed the connection. Only the access log has it."),
    row("internal_error", 500, Balancer, Later, "The body could not be read for a fault of SkyLB."),
    row("unsupported_transfer_encoding", 501, Client, No, "The only transfer coding is `chunked`."),
    row("websocket_unsupported", 501, Client, No, "WebSocket is not offered."),
    row("upstream_bad_response", 502, Replica, Unsure, "The replica's answer was malformed."),
    row("upstream_connect", 502, Replica, Later, "No replica could be reached."),
    row("upstream_reset", 502, Replica, Unsure, "The replica closed before it answered."),
    row("upstream_status", 502, Replica, Unsure, "The replica failed to answer."),
    row("upstream_unauthorized", 502, Balancer, Later, "No replica that was asked accepts the key of `--replica-key-file`."),
    row("engine_away", 503, Balancer, Later, "The engine process has failed, and the new one is not there yet."),
    row("evacuating", 503, Peer, Later, "The region of this balancer is evacuated: a forward goes elsewhere."),
    row("hold_full", 503, Balancer, Later, "Too many requests are waiting."),
    row("hold_timeout", 503, Balancer, Later, "No replica had room within `hold_timeout_s`."),
    row("hop_limit", 503, Peer, No, "The request has been forwarded already."),
    row("load_shed", 503, Balancer, Later, "More requests come than can be served: a share of them is refused."),
    row("model_not_ready", 503, Replica, Later, "No replica serves this model at present, and one may soon."),
    row("no_replica_ready", 503, Replica, Later, "No replica that serves the request is ready."),
    row("not_served_here", 503, Peer, Later, "No replica of this balancer serves a forward: it goes elsewhere."),
    row("overloaded", 503, Balancer, Later, "SkyLB lacks memory, sockets or connections."),
    row("peer_hold_max", 503, Peer, Later, "Too many forwards are waiting here."),
    row("peers_full", 503, Peer, Later, "All regions are at capacity."),
    row("replica_full", 503, Replica, Later, "The replicas are at capacity."),
    row("shutting_down", 503, Balancer, Later, "SkyLB is being stopped."),
    row("upstream_full", 503, Replica, Later, "Every replica that was asked answered 503."),
    row("upstream_timeout", 504, Replica, Unsure, "The replica did not answer in time."),
    row("unsupported_version", 505, Client, No, "Only HTTP/1.1 and HTTP/1.0 are offered."),
    row("upstream_error", IN_STREAM, Replica, Unsure, "The replica failed within its answer."),
    row("upstream_refused", IN_STREAM, Peer, Later, "The peer refused the request."),
];

/// The status of a code. The table has every code that is answered with; another one is a 500.
#[must_use]
pub fn status_of(code: &str) -> u16 {
    let row = ERRORS.iter().find(|row| row.code == code);
    debug_assert!(row.is_some(), "{code} is not in the table of errors");
    row.map_or(500, |row| row.status)
}

/// A code as it stands in the table; `None`: it does not.
#[must_use]
pub fn known(code: &str) -> Option<&'static str> {
    let row = ERRORS.iter().find(|row| row.code == code);
    row.map(|row| row.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_is_in_the_table_twice() {
        let mut codes: Vec<&str> = ERRORS.iter().map(|row| row.code).collect();
        codes.sort_unstable();
        let all = codes.len();
        codes.dedup();
        assert_eq!(codes.len(), all);
    }

    #[test]
    fn a_retry_helps_where_the_balancer_or_a_replica_is_at_fault() {
        for row in ERRORS {
            if matches!(row.side, Balancer | Replica) {
                assert_ne!(row.retry, No, "{}", row.code);
            }
        }
    }
}
