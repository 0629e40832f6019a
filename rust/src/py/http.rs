//! Binding of `route`, `request` and `relay`: heads, chunked bodies, responses.

use std::borrow::Cow;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::text::{expected, latin1};
use super::time::Began;
use crate::http::error::RequestError as Refused;
use crate::http::request::chunked::BodyDecoder;
use crate::http::request::{Head as EngineHead, HeadParser as EngineParser, Refusal};
use crate::http::route::Route;
use crate::relay::{self, Kept, Relay as EngineRelay};

create_exception!(
    skylb._core,
    RequestError,
    PyException,
    "A refusal that the client caused."
);

/// The exception for a refusal; `head` where the head could be read whole.
pub(super) fn refused(py: Python<'_>, error: &Refused, head: Option<EngineHead>) -> PyErr {
    let exception = RequestError::new_err(error.message.clone());
    let filled = (|| {
        let value = exception.value(py);
        value.setattr("status", error.status)?;
        value.setattr("code", error.code)?;
        value.setattr("message", &error.message)?;
        value.setattr("param", error.param.as_deref())?;
        value.setattr("close", error.close)?;
        value.setattr("allow", error.allow)?;
        value.setattr("head", head.map(|inner| Head { inner }))
    })();
    filled.err().unwrap_or(exception)
}

/// Strict parser of HTTP/1.x request heads.
#[pyclass(frozen, module = "skylb._core")]
pub struct HeadParser {
    inner: EngineParser,
}

#[pymethods]
impl HeadParser {
    #[new]
    #[pyo3(signature = (key_header=None, cors=false, class_header=None))]
    fn new(key_header: Option<&str>, cors: bool, class_header: Option<&str>) -> Self {
        Self {
            inner: EngineParser::new(key_header, cors).with_class_header(class_header),
        }
    }

    #[pyo3(signature = (data, start=0))]
    fn parse(&self, py: Python<'_>, data: &[u8], start: usize) -> PyResult<Option<Head>> {
        let data = data.get(start..).unwrap_or_default();
        match self.inner.parse(data) {
            Ok(head) => Ok(head.map(|inner| Head { inner })),
            Err(Refusal { error, head }) => Err(refused(py, &error, head.map(|h| *h))),
        }
    }
}

/// One parsed request head.
#[pyclass(frozen, module = "skylb._core")]
pub struct Head {
    /// The engine's head.
    pub(super) inner: EngineHead,
}

#[pymethods]
impl Head {
    #[getter]
    fn consumed(&self) -> usize {
        self.inner.consumed()
    }

    #[getter]
    fn method(&self) -> Cow<'_, str> {
        latin1(self.inner.method())
    }

    #[getter]
    fn target(&self) -> Cow<'_, str> {
        latin1(self.inner.path())
    }

    #[getter]
    fn route(&self) -> i16 {
        self.inner
            .route()
            .map_or(ROUTE_NONE, |r| i16::from(r as u8))
    }

    #[getter]
    fn is_local(&self) -> bool {
        self.inner.route().is_some_and(Route::is_local) || self.inner.is_options()
    }

    #[getter]
    fn route_name(&self) -> &'static str {
        self.inner.route_name()
    }

    #[getter]
    fn is_head(&self) -> bool {
        self.inner.is_head()
    }

    #[getter]
    fn is_options(&self) -> bool {
        self.inner.is_options()
    }

    #[getter]
    fn http11(&self) -> bool {
        self.inner.http11()
    }

    #[getter]
    fn keep_alive(&self) -> bool {
        self.inner.keep_alive()
    }

    #[getter]
    fn content_length(&self) -> i64 {
        self.inner.content_length()
    }

    #[getter]
    fn expect_continue(&self) -> bool {
        self.inner.expect_continue()
    }

    fn api_key_digest<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let digest = self.inner.api_key_digest()?;
        Some(PyBytes::new(py, &digest))
    }

    #[getter]
    fn request_id(&self) -> Option<Cow<'_, str>> {
        self.inner.request_id().map(latin1)
    }

    #[getter]
    fn trace_id(&self) -> Option<Cow<'_, str>> {
        self.inner.trace_id().map(latin1)
    }

    #[getter]
    fn anthropic(&self) -> bool {
        self.inner.anthropic()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.inner.header(name.as_bytes()).map(latin1)
    }

    fn signed<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.signed())
    }
}

/// Strict decoder of a chunked request body.
#[pyclass(module = "skylb._core")]
pub struct ChunkedDecoder {
    inner: BodyDecoder,
}

#[pymethods]
impl ChunkedDecoder {
    #[new]
    fn new(body_bytes_max: u64) -> Self {
        Self {
            inner: BodyDecoder::new(body_bytes_max),
        }
    }

    fn feed<'py>(&mut self, data: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyBytes>> {
        let py = data.py();
        match self.inner.feed(data.as_bytes()) {
            Ok(body) => Ok(PyBytes::new(py, &body)),
            Err(error) => Err(refused(py, &error, None)),
        }
    }

    #[pyo3(signature = (data, /))]
    fn skip(&mut self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        self.inner
            .skip(data)
            .map_err(|error| refused(py, &error, None))
    }

    #[getter]
    fn done(&self) -> bool {
        self.inner.done()
    }

    #[getter]
    fn rest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.rest())
    }
}

/// One response on its way from a replica to a client.
#[pyclass(module = "skylb._core")]
pub struct Relay {
    /// The engine's relay.
    pub(super) inner: EngineRelay,
    /// What the gaps between events are measured by.
    began: Began,
}

impl Relay {
    pub(super) fn new(inner: EngineRelay) -> Self {
        let began = Began::now();
        Self { inner, began }
    }
}

#[pymethods]
impl Relay {
    #[pyo3(signature = (lines, /))]
    fn set_cors(&mut self, lines: &[u8]) {
        self.inner.set_cors(lines);
    }

    #[pyo3(signature = (lines, /))]
    fn set_rate_limit(&mut self, lines: &[u8]) {
        self.inner.set_rate_limit(lines);
    }

    #[pyo3(signature = (data, /))]
    fn feed(&mut self, data: &[u8]) -> u8 {
        let flags = self.inner.feed(data);
        if self.inner.streaming() {
            self.inner.came(self.began.elapsed_ns());
        }
        flags
    }

    fn resumed(&mut self) {
        self.inner.resumed();
    }

    fn eof(&mut self) -> u8 {
        self.inner.eof()
    }

    fn take<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.take())
    }

    #[pyo3(signature = (message, code, status=500, /))]
    fn cut<'py>(
        &mut self,
        py: Python<'py>,
        message: &str,
        code: &str,
        status: u16,
    ) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.cut(message, code, status))
    }

    #[pyo3(signature = (head, /))]
    fn open<'py>(&mut self, py: Python<'py>, head: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.open(head))
    }

    #[pyo3(signature = (before, /))]
    fn go_on(&mut self, before: &mut Self) {
        self.inner.go_on(&mut before.inner);
        self.began = before.began;
    }

    fn suspend(&mut self) {
        self.inner.suspend();
    }

    fn finish<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        Some(PyBytes::new(py, &self.inner.finish()?))
    }

    #[pyo3(signature = (model, /))]
    fn question<'py>(
        &self,
        py: Python<'py>,
        model: &str,
    ) -> Option<(&'static str, Bound<'py, PyBytes>)> {
        let (path, body) = self.inner.kept()?.asks(model)?;
        Some((path, PyBytes::new(py, &body)))
    }

    #[pyo3(signature = (status, body, /))]
    fn replied(&mut self, status: u16, body: &[u8]) -> bool {
        self.inner.replied(status, body)
    }

    #[getter]
    fn lacks_ids(&self) -> bool {
        self.inner.kept().is_some_and(Kept::lacks_ids)
    }

    fn fill(&mut self) -> bool {
        self.inner.fill()
    }

    #[getter]
    fn failed(&self) -> u16 {
        self.inner.failed().unwrap_or(0)
    }

    #[getter]
    fn keeps(&self) -> bool {
        self.inner.kept().is_some()
    }

    #[getter]
    fn refusal(&self) -> Option<&'static str> {
        Some(self.inner.refusal()?.word())
    }

    fn join(&mut self) {
        self.inner.join();
    }

    fn comment<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.comment())
    }

    #[getter]
    fn accepted(&self) -> bool {
        self.inner.accepted()
    }

    #[getter]
    fn commented(&self) -> bool {
        self.inner.commented()
    }

    #[getter]
    fn verdict(&self) -> u16 {
        self.inner.verdict()
    }

    #[getter]
    fn status(&self) -> u16 {
        self.inner.status()
    }

    #[getter]
    fn streaming(&self) -> bool {
        self.inner.streaming()
    }

    #[getter]
    fn reusable(&self) -> bool {
        self.inner.reusable()
    }

    #[getter]
    fn close_client(&self) -> bool {
        self.inner.close_client()
    }

    #[getter]
    fn started(&self) -> bool {
        self.inner.started()
    }

    #[getter]
    fn error(&self) -> Option<String> {
        self.inner.error().map(expected)
    }

    #[getter]
    fn retry_after_s(&self) -> Option<u32> {
        self.inner.retry_after_s()
    }

    #[getter]
    fn refused(&self) -> Option<&str> {
        self.inner.refused()
    }

    #[getter]
    fn response_id(&self) -> Option<&str> {
        self.inner.response_id()
    }

    #[getter]
    fn prompt_tokens(&self) -> i64 {
        self.inner.prompt_tokens().unwrap_or(-1)
    }

    #[getter]
    fn cached_tokens(&self) -> i64 {
        self.inner.cached_tokens().unwrap_or(-1)
    }

    #[getter]
    fn completion_tokens(&self) -> i64 {
        self.inner.completion_tokens().unwrap_or(-1)
    }

    #[getter]
    fn bytes_out(&self) -> u64 {
        self.inner.bytes_out()
    }

    #[getter]
    fn events(&self) -> u64 {
        self.inner.events()
    }
}

/// `Head.route` of `OPTIONS *` and of the head of a 404.
const ROUTE_NONE: i16 = -1;

/// Adds this part's classes and constants to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    register_error(m)?;
    for (name, route) in [
        ("ROUTE_HEALTH", Route::Health),
        ("ROUTE_MODELS", Route::Models),
        ("ROUTE_PING", Route::Ping),
        ("ROUTE_READINESS", Route::Readiness),
        ("ROUTE_LIVENESS", Route::Liveness),
        ("ROUTE_FLEET", Route::Fleet),
        ("ROUTE_RESPONSES", Route::Responses),
    ] {
        m.add(name, route as u8)?;
    }
    m.add("ROUTE_NONE", ROUTE_NONE)?;
    for (name, flag) in [
        ("FEED_WRITE_INPUT", relay::FEED_WRITE_INPUT),
        ("FEED_WRITE_BUFFER", relay::FEED_WRITE_BUFFER),
        ("FEED_FIRST_BYTE", relay::FEED_FIRST_BYTE),
        ("FEED_DONE", relay::FEED_DONE),
        ("FEED_FAILED", relay::FEED_FAILED),
    ] {
        m.add(name, flag)?;
    }
    m.add_class::<HeadParser>()?;
    m.add_class::<Head>()?;
    m.add_class::<ChunkedDecoder>()?;
    m.add_class::<Relay>()
}

/// The attributes exist on the class as well, so that one raised by hand has all of them.
fn register_error(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    let class = py.get_type::<RequestError>();
    class.setattr("status", 400)?;
    class.setattr("code", "bad_request")?;
    class.setattr("message", "")?;
    class.setattr("close", true)?;
    for name in ["param", "allow", "head"] {
        class.setattr(name, py.None())?;
    }
    m.add("RequestError", class)
}
