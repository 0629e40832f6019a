//! The event that ends a stream which broke (RELIABILITY, contract of a stream).

use serde::Serialize;

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

/// One error event, in the shape of the API that was asked. JSON keeps line ends out of the data.
pub(super) fn error_event(anthropic: bool, message: &str, code: &str) -> Vec<u8> {
    let (field, json) = if anthropic {
        let error = Anthropic {
            r#type: "error",
            error: AnthropicError {
                r#type: "api_error",
                message,
                code,
            },
        };
        (&b"event: error\ndata: "[..], serde_json::to_vec(&error))
    } else {
        let error = OpenAi {
            error: OpenAiError {
                message,
                r#type: "server_error",
                param: None,
                code,
            },
        };
        (&b"data: "[..], serde_json::to_vec(&error))
    };
    // Strings alone always serialise.
    [field, &json.unwrap_or_default(), b"\n\n"].concat()
}
