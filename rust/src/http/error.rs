//! Typed refusals: status, code, message, parameter.

use std::fmt;

use super::errors;

/// A refusal that the client caused; it becomes an OpenAI- or Anthropic-shaped answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestError {
    /// HTTP status, 400..=505.
    pub status: u16,
    /// A stable word for programs (`unknown_model`).
    pub code: &'static str,
    /// A sentence for people. Never quotes a prompt, key or salt.
    pub message: String,
    /// The field at fault, where there is one.
    pub param: Option<String>,
    /// The connection must be closed after the answer: framing is lost, or a body would have to be
    /// read that nobody wants.
    pub close: bool,
    /// Value of `Allow` for a 405.
    pub allow: Option<&'static str>,
}

impl RequestError {
    /// A refusal after which the connection may stay open. The table of errors has its code, and says its status.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: errors::status_of(code),
            code,
            message: message.into(),
            param: None,
            close: false,
            allow: None,
        }
    }

    /// A 400 `invalid_type`: `param` is not `expected` (a noun with its article: `"a string"`).
    #[must_use]
    pub fn invalid_type(param: impl Into<String>, expected: &str) -> Self {
        let param = param.into();
        Self::new("invalid_type", format!("'{param}' must be {expected}")).param(param)
    }

    /// A 400 `duplicate_key`: an engine might read the other of the two, which says something else.
    #[must_use]
    pub fn duplicate_key(param: impl Into<String>) -> Self {
        let param = param.into();
        Self::new(
            "duplicate_key",
            format!("'{param}' is given more than once, with different values"),
        )
        .param(param)
    }

    /// A 400 `missing_model`.
    #[must_use]
    pub fn missing_model() -> Self {
        let message = "'model' is required where more than one is served";
        Self::new("missing_model", message).param("model")
    }

    /// A 400 `untrusted_field`: only trusted senders may steer an engine with it.
    #[must_use]
    pub fn untrusted_field(name: &str) -> Self {
        let message = format!("'{name}' is taken from trusted proxies only");
        Self::new("untrusted_field", message).param(name)
    }

    /// Names the field at fault.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The connection must be closed after the answer.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// The methods a 405 names.
    #[must_use]
    pub fn allowing(mut self, allow: &'static str) -> Self {
        self.allow = Some(allow);
        self
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.message)
    }
}

impl std::error::Error for RequestError {}
