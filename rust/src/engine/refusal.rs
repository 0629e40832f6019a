//! The refusals of the engine: status, code and message.

use crate::engine::effect::Reject;
use crate::http::errors;
use crate::id::RequestId;

/// Why a request is refused, before it is addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Refusal {
    pub(in crate::engine) status: u16,
    pub(in crate::engine) code: &'static str,
    pub(in crate::engine) message: String,
    pub(in crate::engine) retry_after_s: Option<u32>,
}

impl Refusal {
    pub(in crate::engine) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: errors::status_of(code),
            code,
            message: message.into(),
            retry_after_s: None,
        }
    }

    /// The client may try again after so many seconds.
    pub(in crate::engine) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub(in crate::engine) fn of(self, request: RequestId) -> Reject {
        Reject {
            request,
            status: self.status,
            code: self.code,
            message: self.message,
            retry_after_s: self.retry_after_s,
        }
    }
}
