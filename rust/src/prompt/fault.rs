//! What may be wrong with a body: its grammar, with the place, or a value, with the path to it.

use crate::http::error::RequestError;

/// A fault of a value. Built deep inside, its path is completed on the way out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another type than the field takes.
    Type {
        /// As OpenAI writes it: `messages[2].content`.
        path: String,
        /// A noun with its article.
        expected: &'static str,
    },
    /// A key that is there twice.
    Duplicate {
        /// Likewise.
        path: String,
    },
}

impl Fault {
    pub(super) fn of_type(path: impl Into<String>, expected: &'static str) -> Self {
        Self::Type {
            path: path.into(),
            expected,
        }
    }

    pub(super) fn duplicate(path: impl Into<String>) -> Self {
        Self::Duplicate { path: path.into() }
    }

    /// The fault seen from outside a member or item.
    pub(super) fn within(mut self, outer: &str) -> Self {
        let (Self::Type { path, .. } | Self::Duplicate { path }) = &mut self;
        let joint = if path.is_empty() || path.starts_with('[') {
            ""
        } else {
            "."
        };
        *path = format!("{outer}{joint}{path}");
        self
    }

    /// The fault seen from outside an array.
    pub(super) fn at_index(self, index: usize) -> Self {
        self.within(&format!("[{index}]"))
    }
}

/// Why a body is not acceptable JSON, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed {
    /// Byte offset.
    pub(super) at: usize,
    /// What was expected there, or which bound was passed.
    pub(super) what: &'static str,
    /// It is a bound: the JSON may be good.
    pub(super) is_bound: bool,
}

/// What a check finds, or why the body is malformed.
pub(super) type Checked<T = ()> = Result<T, Malformed>;

impl From<Fault> for RequestError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Type { path, expected } => Self::invalid_type(path, expected),
            Fault::Duplicate { path } => Self::duplicate_key(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_grows_from_the_inside_out() {
        let fault = Fault::of_type("", "a string")
            .within("content")
            .at_index(2)
            .within("messages");
        let error = RequestError::from(fault);
        assert_eq!(error.param.as_deref(), Some("messages[2].content"));
    }
}
