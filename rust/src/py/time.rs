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

/// When something began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began(Clock);

#[expect(
    clippy::disallowed_types,
    reason = "the boundary times chunks: a clock read in Python for each would cost more than the relay"
)]
type Clock = std::time::Instant;

impl Began {
    /// Now.
    pub(super) fn now() -> Self {
        Self(Clock::now())
    }

    /// Nanoseconds since then: about 25 ns to read.
    pub(super) fn elapsed_ns(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
