//! Conversions of text and numbers between Python and Rust.

use std::borrow::Cow;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Bytes of a head as text.
pub(super) fn latin1(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => Cow::Borrowed(text),
        _ => Cow::Owned(bytes.iter().map(|b| char::from(*b)).collect()),
    }
}

/// What a fault says to people.
pub(super) fn expected(what: &str) -> String {
    format!("expected {what}")
}

/// The value behind a constant of the interface: its place in the table.
pub(super) fn constant<T: Copy>(table: &[(&str, T)], what: &str, number: usize) -> PyResult<T> {
    table.get(number).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = table.iter().map(|(name, _)| *name).collect();
        PyValueError::new_err(format!(
            "{what}: expected one of {}, got {number}",
            names.join(", ")
        ))
    })
}
