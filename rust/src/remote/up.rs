//! What a worker reports to the engine process.

use serde::{Deserialize, Serialize};

use super::frame::{Bytes, Hashes};
use super::submitted::Submit;
use crate::engine::effect::Outcome;
use crate::engine::fleet::failure::Failure;
use crate::engine::router::{Report, Usage};

/// One report.
#[expect(
    clippy::large_enum_variant,
    reason = "it is written or read at once, and never kept"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Up<'a> {
    /// A request is to be placed, or is at a replica already.
    #[serde(borrow)]
    Submit(Submit<'a>),
    /// The first body byte of its attempt has come.
    FirstByte {
        /// The request's number within the worker; likewise below.
        number: u64,
        /// Names a stored response.
        response_id: Option<&'a str>,
        /// When.
        at_ns: u64,
    },
    /// Its attempt has failed before that.
    Retry {
        /// See `FirstByte`.
        number: u64,
        /// How.
        failure: Failure,
        /// Bytes of the request went out.
        sent: bool,
        /// When.
        at_ns: u64,
    },
    /// The stream of its attempt broke or is left, and can go on elsewhere.
    Resume {
        /// See `FirstByte`.
        number: u64,
        /// Why.
        failure: Failure,
        /// What its client has.
        #[serde(borrow)]
        given: Told<'a>,
        /// When.
        at_ns: u64,
    },
    /// It has ended.
    Complete {
        /// See `FirstByte`.
        number: u64,
        /// How.
        outcome: Outcome,
        /// What its answer told; `None` where there was none.
        told: Option<Told<'a>>,
        /// When.
        at_ns: u64,
    },
    /// Answers of these replicas have gone on.
    Heard(Vec<u32>),
    /// Records of requests, as a recorder gave them.
    Records(#[serde(borrow)] Bytes<'a>),
    /// A message for the code around the engine.
    Note(Bytes<'a>),
}

/// What an answer told: a [`Report`], as it crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told<'a> {
    /// See [`Report`]; likewise below.
    pub usage: Usage,
    /// Names a stored response.
    pub response_id: Option<&'a str>,
    /// Hashes of the answer's blocks.
    #[serde(borrow)]
    pub answer: Hashes<'a>,
    /// The answer is a stream.
    pub streamed: bool,
    /// The answer is an error.
    pub refused: bool,
    /// Events of the stream.
    pub events: u64,
    /// Events behind the last usage.
    pub events_since_usage: u64,
    /// Its status, for the receipt.
    pub status: u16,
}

impl<'a> Told<'a> {
    /// What crosses of a report; `answer`: the bytes of its hashes.
    #[must_use]
    pub fn of(report: &Report<'a>, answer: &'a [u8], status: u16) -> Self {
        Self {
            usage: report.usage,
            response_id: report.response_id,
            answer: Hashes::new(answer),
            streamed: report.streamed,
            refused: report.refused,
            events: report.events,
            events_since_usage: report.events_since_usage,
            status,
        }
    }

    /// The report; `answer`: its hashes.
    #[must_use]
    pub fn report(&self, answer: &'a [u64]) -> Report<'a> {
        Report {
            usage: self.usage,
            response_id: self.response_id,
            answer,
            sent: true, // only then has something been told
            streamed: self.streamed,
            refused: self.refused,
            events: self.events,
            events_since_usage: self.events_since_usage,
        }
    }
}
