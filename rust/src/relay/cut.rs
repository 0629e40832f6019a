//! The event that ends a stream which broke (docs/PROMISES.md, "The contract of a stream").

use serde::Serialize;

use super::{FEED_DONE, FEED_FIRST_BYTE, FEED_WRITE_BUFFER, Options, Phase, Relay};

/// An error, as the event that ends a stream says it.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamError<'a> {
    pub(super) message: &'a str,
    pub(super) code: &'a str,
    /// The HTTP status that the error would have as an answer: decides its type.
    pub(super) status: u16,
}

#[derive(Serialize)]
struct OpenAi<'a> {
    error: OpenAiError<'a>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: &'a str,
}

#[derive(Serialize)]
struct Anthropic<'a> {
    r#type: &'a str,
    error: AnthropicError<'a>,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    r#type: &'a str,
    message: &'a str,
    code: &'a str,
}

/// `ResponseErrorEvent` of `OpenAI`'s Responses interface.
#[derive(Serialize)]
struct Responses<'a> {
    r#type: &'a str,
    code: &'a str,
    message: &'a str,
    param: Option<&'a str>,
    sequence_number: i64,
}

/// One error event of `/v1/messages`.
pub(super) fn anthropic_error(error: StreamError<'_>) -> Vec<u8> {
    let error = Anthropic {
        r#type: "error",
        error: AnthropicError {
            r#type: match error.status {
                429 => "rate_limit_error",
                503 => "overloaded_error",
                400..500 => "invalid_request_error",
                _ => "api_error",
            },
            message: error.message,
            code: error.code,
        },
    };
    // Strings alone always serialise.
    let json = serde_json::to_vec(&error).unwrap_or_default();
    [&b"event: error\ndata: "[..], &json, b"\n\n"].concat()
}

/// One error event, in the shape of the API that was asked. JSON keeps line ends out of the data.
///
/// `sequence_number`: of this event, where the API counts events.
fn error_event(options: Options, error: StreamError<'_>, sequence_number: i64) -> Vec<u8> {
    if options.anthropic {
        return anthropic_error(error);
    }
    let StreamError {
        message,
        code,
        status,
    } = error;
    let (field, json) = if options.responses_api {
        let error = Responses {
            r#type: "error",
            code,
            message,
            param: None,
            sequence_number,
        };
        (&b"event: error\ndata: "[..], serde_json::to_vec(&error))
    } else {
        let error = OpenAi {
            error: OpenAiError {
                message,
                r#type: match status {
                    429 => "rate_limit_error",
                    400..500 => "invalid_request_error",
                    _ => "server_error",
                },
                param: None,
                code,
            },
        };
        (&b"data: "[..], serde_json::to_vec(&error))
    };
    // Strings and numbers alone always serialise.
    [field, &json.unwrap_or_default(), b"\n\n"].concat()
}

impl Relay {
    /// Ends a response whose body has begun, or whose head is out: for a stream of events one error
    /// event and the end of the framing, else nothing (the connection must be cut). Works once.
    ///
    /// `status`: what the error would have as an answer.
    pub fn cut(&mut self, message: &str, code: &str, status: u16) -> Vec<u8> {
        let open =
            (self.first_byte || self.opened) && !self.options.is_head && self.phase != Phase::Done;
        self.was_cut = true;
        self.phase = Phase::Done;
        self.withheld = Vec::new();
        if !open || !(self.is_sse || self.opened) {
            return Vec::new();
        }
        let error = StreamError {
            message,
            code,
            status,
        };
        let mut out = Vec::new();
        self.put_error(&mut out, error);
        out
    }

    /// Appends an error event and the end of the framing.
    fn put_error(&mut self, out: &mut Vec<u8>, error: StreamError<'_>) {
        let next = self
            .sequence_number
            .map_or(0, |last| last.saturating_add(1));
        let mut event = error_event(self.options, error, next);
        if self.mid_event.is_some() {
            event.splice(..0, *b"\n\n");
        }
        out.reserve(event.len() + 16);
        self.bytes_out += event.len() as u64;
        self.frame(out, &event);
        self.end(out);
    }

    /// Ends a stream that the client was promised with what the replica answered instead of one.
    pub(super) fn end_misfit(&mut self) -> u8 {
        let withheld = std::mem::take(&mut self.withheld);
        let found = super::verdict::message_of(&withheld);
        let status = self.status;
        let message = found.unwrap_or_else(|| match status {
            200 => "The model server did not answer with a stream.".to_owned(),
            _ => format!("The model server answered with status {status}."),
        });
        let mut out = std::mem::take(&mut self.out);
        let error = StreamError {
            message: &message,
            code: "upstream_error",
            status,
        };
        self.put_error(&mut out, error);
        self.out = out;
        self.first_byte = true;
        self.phase = Phase::Done;
        FEED_WRITE_BUFFER | FEED_FIRST_BYTE | FEED_DONE
    }
}
