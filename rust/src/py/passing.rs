//! Binding of the tables that documents are generated from: routes, and what controls engines.

use pyo3::prelude::*;

use crate::engine::policy::Policy;
use crate::http::errors::ERRORS;
use crate::http::route::{BodyKind, ROUTES, Serving, Takes};
use crate::http::steer::{FIELDS, HEADERS, Rule};

/// Every policy as `(name, rule, source)`.
#[pyfunction]
fn policies() -> Vec<(&'static str, &'static str, &'static str)> {
    let rows = Policy::ALL.iter().map(|policy| {
        let (rule, source) = policy.about();
        (policy.name(), rule, source)
    });
    rows.collect()
}

/// Every route as `(path, methods, body, served by, about)`.
#[pyfunction]
fn routes() -> Vec<(
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
)> {
    let rows = ROUTES.iter().map(|row| {
        let methods = match row.takes {
            Takes::Get => "GET",
            Takes::Post => "POST",
            Takes::GetPost => "GET, POST",
        };
        let body = match row.body {
            BodyKind::None => "none",
            BodyKind::OptionalJson => "JSON or none",
            BodyKind::Json => "JSON",
            BodyKind::Multipart => "form",
        };
        let serving = match row.serving {
            Serving::Local => "the balancer",
            Serving::Batch => "an engine's batch",
            Serving::Light => "an engine's API server",
            Serving::Stored => "the replica that has the response",
        };
        (row.path, methods, body, serving, row.about)
    });
    rows.collect()
}

fn rules(table: &[Rule]) -> Vec<(&'static str, &'static str, &'static str)> {
    table
        .iter()
        .map(|rule| (rule.name, rule.fate.name(), rule.effect))
        .collect()
}

/// Request headers that steer engines, as `(name, fate, effect)`.
#[pyfunction]
fn steering_headers() -> Vec<(&'static str, &'static str, &'static str)> {
    rules(&HEADERS)
}

/// Body fields that steer engines, likewise.
#[pyfunction]
fn steering_fields() -> Vec<(&'static str, &'static str, &'static str)> {
    rules(&FIELDS)
}

/// The table of errors, as `(code, status, side, retry, about)`; the status of what is written only in
/// a stream is 0.
#[pyfunction]
fn errors() -> Vec<(&'static str, u16, &'static str, &'static str, &'static str)> {
    let rows = ERRORS.iter();
    rows.map(|row| {
        (
            row.code,
            row.status,
            row.side.name(),
            row.retry.name(),
            row.about,
        )
    })
    .collect()
}

/// Adds this part's functions to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(policies, m)?)?;
    m.add_function(wrap_pyfunction!(routes, m)?)?;
    m.add_function(wrap_pyfunction!(errors, m)?)?;
    m.add_function(wrap_pyfunction!(steering_headers, m)?)?;
    m.add_function(wrap_pyfunction!(steering_fields, m)?)
}
