//! All that is known of a request that ended.

use std::sync::Arc;

use super::facts::{Answered, Asked, Said};
use super::life::Life;
use super::prompt::Prompt;
use super::target::Target;
use crate::http::route::{Route, Serving};

/// Route of requests whose head could not be read, or whose path is no route.
pub const ROUTE_INVALID: &str = "invalid";

/// A request that ended: its parts, and how it ended. Borrowed: nothing is kept of it.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// Its head; `None` where that could not be read.
    pub head: Option<Asked<'a>>,
    /// It was refused for its head, or while its body came.
    pub refused: bool,
    /// What its body says; `None` where that was not read.
    pub digest: Option<Said<'a>>,
    /// Blocks of the prompt, which the digest no longer has.
    pub prompt_blocks: u64,
    /// Hashes of its prompt, while requests are recorded.
    pub prompt: Option<&'a Arc<Prompt>>,
    /// The response, where there was one.
    pub relay: Option<Answered>,
    /// Its course.
    pub life: &'a Life,
    /// The client's address; `None` over a Unix socket.
    pub client: Option<&'a str>,
    /// The peer that forwarded it; empty where that is not known, or not proven.
    pub origin: Option<&'a str>,
    /// HTTP status that the client has seen; 499 for a client that left.
    pub status: u16,
    /// Stable word for what went wrong.
    pub error_code: Option<&'a str>,
    /// Ended at.
    pub end_ns: u64,
}

impl<'a> Ended<'a> {
    /// Request method; empty where the head could not be read.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.head.map_or("", |head| head.method)
    }

    /// Of its trace where spans are exported, else from a valid `traceparent`.
    #[must_use]
    pub fn trace_id(&self) -> Option<&'a str> {
        match &self.life.trace {
            Some(trace) => Some(trace.id()),
            None => self.head.and_then(|head| head.trace_id),
        }
    }

    /// The route's template, one of a fixed set.
    #[must_use]
    pub fn route(&self) -> &'static str {
        match self.head {
            Some(head) if !self.refused || head.route.is_some() => {
                head.route.map_or("other", Route::name)
            }
            _ => ROUTE_INVALID,
        }
    }

    /// The path as the client wrote it, without its query, where the route does not tell it.
    #[must_use]
    pub fn path(&self) -> Option<&'a str> {
        let head = self.head.filter(|_| self.route() == ROUTE_INVALID);
        head.map(|head| head.path)
    }

    /// The route is inference, not one that the balancer answers by itself.
    #[must_use]
    pub fn measured(&self) -> bool {
        let head = self.head.filter(|_| !self.refused);
        head.and_then(|head| head.route)
            .is_some_and(|route| !route.is_local())
    }

    /// A replica's model computes the answer: it can report tokens.
    #[must_use]
    pub fn computed(&self) -> bool {
        let head = self.head.filter(|_| !self.refused);
        head.and_then(|head| head.route)
            .is_some_and(|route| route.serving() == Serving::Batch)
    }

    /// Model named in the body.
    #[must_use]
    pub fn model(&self) -> Option<&'a str> {
        self.digest.map(|digest| digest.model)
    }

    /// Name of the replica of the last attempt.
    #[must_use]
    pub fn replica(&self) -> Option<&'a str> {
        match &self.life.target {
            Some(Target::Replica(name)) => Some(name),
            _ => None,
        }
    }

    /// Name of the peer that it was forwarded to, else of the one that it came from.
    #[must_use]
    pub fn peer(&self) -> Option<&'a str> {
        match &self.life.target {
            Some(Target::Peer(name)) => Some(name),
            _ => self.origin.filter(|name| !name.is_empty()),
        }
    }

    /// Who sent it: `client` or `peer`.
    #[must_use]
    pub fn from(&self) -> &'static str {
        if self.origin.is_some() {
            "peer"
        } else {
            "client"
        }
    }

    /// Its answer had begun, and ended by a fault: the client has a part of it.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.status < 400 && self.error_code.is_some()
    }

    /// Body bytes to the client.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        self.relay.map_or(0, |relay| relay.bytes_out)
    }

    /// Time from accept to the first body byte.
    #[must_use]
    pub fn ttft_ns(&self) -> Option<u64> {
        let life = self.life;
        (life.first_byte_ns != 0).then(|| life.first_byte_ns.saturating_sub(life.start_ns))
    }

    /// Mean time between two tokens of a stream, where the replica told their number, else between two events.
    #[must_use]
    pub fn mean_gap_ns(&self) -> Option<u64> {
        self.stream()?.mean_gap_ns
    }

    /// Longest time between two events of a stream.
    #[must_use]
    pub fn worst_gap_ns(&self) -> Option<u64> {
        self.stream()?.worst_gap_ns
    }

    /// The response, if it is a stream that is no error.
    fn stream(&self) -> Option<Answered> {
        let relay = self.relay;
        relay.filter(|relay| relay.streaming && relay.verdict < 400)
    }

    /// Time from accept to the end.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.life.start_ns)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::http::request::{Head, HeadParser};
    use crate::prompt::{Digest, DigestConfig, Envelope, Scratch, digest};
    use crate::relay::{Options, Relay};

    /// What a record is made of.
    pub(in crate::record) struct Parts {
        pub(in crate::record) head: Option<Head>,
        pub(in crate::record) digest: Option<Digest>,
        pub(in crate::record) relay: Option<Relay>,
        pub(in crate::record) life: Life,
        pub(in crate::record) origin: Option<&'static str>,
        pub(in crate::record) prompt: Option<Arc<Prompt>>,
    }

    impl Parts {
        /// A request for this path; with a model, one for inference.
        pub(in crate::record) fn new(path: &str, model: Option<&str>) -> Self {
            let body = model.map(|name| format!(r#"{{"model":"{name}","messages":[]}}"#));
            let fields = match &body {
                Some(body) => format!(
                    "Content-Type: application/json\r\nContent-Length: {}\r\n",
                    body.len()
                ),
                None => String::new(),
            };
            let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            let method = if body.is_some() { "POST" } else { "GET" };
            let text = format!(
                "{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}traceparent: {trace}\r\n\r\n"
            );
            let parsed = HeadParser::new(None, false).parse(text.as_bytes());
            let head = match parsed {
                Ok(head) => head,
                Err(refusal) => refusal.head.map(|head| *head),
            };
            let config = DigestConfig::new(&[7; 16], 64, 100);
            let digest = body.and_then(|body| {
                let route = head.as_ref()?.route()?;
                let envelope = Envelope::new(route, Some(b"application/json"));
                digest(&envelope, body.as_bytes(), &config, &mut Scratch::default()).ok()
            });
            Self {
                head,
                digest,
                relay: None,
                life: Life::default(),
                origin: None,
                prompt: None,
            }
        }

        /// With an answer of so many bytes.
        pub(in crate::record) fn answered(mut self, bytes: usize) -> Self {
            let mut relay = Relay::new(Options::default(), "r");
            let answer = "x".repeat(bytes);
            relay.feed(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n{answer}").as_bytes(),
            );
            self.relay = Some(relay);
            self
        }

        /// The record of its end.
        pub(in crate::record) fn ended(&self, status: u16) -> Ended<'_> {
            Ended {
                head: self.head.as_ref().map(Into::into),
                refused: false,
                digest: self.digest.as_ref().map(Into::into),
                prompt_blocks: 32,
                prompt: self.prompt.as_ref(),
                relay: self.relay.as_ref().map(Into::into),
                life: &self.life,
                client: Some("127.0.0.1:50000"),
                origin: self.origin,
                status,
                error_code: None,
                end_ns: 3_000_001_000,
            }
        }
    }

    #[test]
    fn a_forward_is_recorded_with_the_other_balancer_on_either_side() {
        let mut parts = Parts::new("/v1/completions", None);
        parts.origin = Some("eu");
        parts.life.target = Some(Target::Replica("http://a".into()));
        assert_eq!(
            (parts.ended(200).replica(), parts.ended(200).peer()),
            (Some("http://a"), Some("eu"))
        );
        parts.life.target = Some(Target::Peer("us".into()));
        assert_eq!(
            (parts.ended(200).replica(), parts.ended(200).peer()),
            (None, Some("us"))
        );
        parts.origin = Some("");
        parts.life.target = None;
        assert_eq!(
            (parts.ended(503).peer(), parts.ended(503).from()),
            (None, "peer")
        );
    }

    #[test]
    fn of_a_refused_request_the_route_is_told_or_else_the_path() {
        let known = Parts::new("/v1/chat/completions", Some("m"));
        let ended = Ended {
            refused: true,
            ..known.ended(401)
        };
        assert_eq!(
            (ended.route(), ended.path()),
            ("/v1/chat/completions", None)
        );
        assert!(!ended.measured());
        let parts = Parts::new("/v1/v1/chat/completions", None);
        let ended = Ended {
            refused: true,
            ..parts.ended(404)
        };
        assert_eq!(ended.route(), ROUTE_INVALID);
        assert_eq!(ended.path(), Some("/v1/v1/chat/completions"));
        assert!(!ended.measured());
    }
}
