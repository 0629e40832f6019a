//! The Python binding, `skylb._core`. Python makes one call for each event; Rust keeps no Python object.

mod arrivals;
mod continuing;
mod effects;
mod engine;
mod explain;
mod http;
mod keep;
mod limits;
mod model;
mod notice;
mod passing;
mod peers;
mod policy;
mod reader;
mod record;
mod remote;
mod report;
mod request;
mod scan;
mod sender;
mod serve;
mod sim;
mod snapshot;
mod spans;
mod tenant;
mod text;
mod time;
mod words;

use pyo3::prelude::*;

/// The extension module.
#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    http::register(m)?;
    request::register(m)?;
    sender::register(m)?;
    tenant::register(m)?;
    reader::register(m)?;
    snapshot::register(m)?;
    scan::register(m)?;
    effects::register(m)?;
    engine::register(m)?;
    words::register(m)?;
    keep::register(m)?;
    remote::register(m)?;
    peers::register(m)?;
    record::register(m)?;
    arrivals::register(m)?;
    spans::register(m)?;
    model::register(m)?;
    passing::register(m)?;
    sim::register(m)?;
    Ok(())
}
