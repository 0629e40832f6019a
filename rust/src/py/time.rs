//! Moments and lengths of time cross as whole nanoseconds.

use std::convert::Infallible;

use pyo3::prelude::*;
use pyo3::types::PyInt;

use crate::time::{Instant, Span};

macro_rules! nanoseconds {
    ($name:ident) => {
        impl<'a, 'py> FromPyObject<'a, 'py> for $name {
            type Error = PyErr;

            fn extract(number: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
                number.extract().map(Self::from_ns)
            }
        }

        impl<'py> IntoPyObject<'py> for $name {
            type Target = PyInt;
            type Output = Bound<'py, PyInt>;
            type Error = Infallible;

            fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Infallible> {
                self.ns().into_pyobject(py)
            }
        }
    };
}

nanoseconds!(Instant);
nanoseconds!(Span);
