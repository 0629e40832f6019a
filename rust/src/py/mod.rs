//! The Python binding, `skylb._core`: one coarse call per event, no Python object kept in Rust.

mod effects;
mod engine;
mod http;
mod model;
mod passing;
mod peers;
mod reader;
mod record;
mod scan;
mod sim;
mod snapshot;

use pyo3::prelude::*;

/// The extension module.
#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    http::register(m)?;
    snapshot::register(m)?;
    scan::register(m)?;
    engine::register(m)?;
    record::register(m)?;
    model::register(m)?;
    passing::register(m)?;
    sim::register(m)?;
    Ok(())
}
