//! Binding of `engine`.

use pyo3::prelude::*;

/// Adds this part's classes and functions to the module.
pub(super) fn register(_m: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
