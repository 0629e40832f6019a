//! Records on their way from a worker to the engine process, which counts them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::counts::{OUTCOMES, number_of};
use super::ended::Ended;
use super::exemplars::Traced;
use super::facts::{Answered, Asked, Said};
use super::life::{Continued, Life, reason_named};
use super::prompt::Prompt;
use super::target::Target;
use crate::prompt::class::Class;
use crate::remote::frame::{self, FrameError, Hashes};
use crate::tenant::Tenant;

/// Bytes of records that wait to be sent: some 100,000 requests.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// What crosses of a record: all but what only the access log has.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Crossed<'a> {
    /// A request ended.
    #[serde(borrow)]
    Ended(Box<Request<'a>>),
    /// An attempt ended, with the outcome of this number.
    Attempt(u8),
}

/// A request that ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    head: Option<Asked<'a>>,
    refused: bool,
    #[serde(borrow)]
    digest: Option<Said<'a>>,
    prompt_blocks: u64,
    /// Hashes of prompt and answer, and the session's key, where requests are recorded.
    #[serde(borrow)]
    prompt: Option<(Hashes<'a>, Hashes<'a>, Option<u64>)>,
    relay: Option<Answered>,
    #[serde(borrow)]
    tenant: Tenant<&'a str>,
    class: Class,
    start_ns: u64,
    held_ns: u64,
    first_byte_ns: u64,
    attempts: u32,
    /// Why its stream was given up at replicas, each time that another went on: numbers of outcomes of attempts.
    causes: Vec<u8>,
    /// Why it ended where it was.
    refusal: Option<&'a str>,
    /// A peer was the last target.
    away: bool,
    origin: Option<&'a str>,
    status: u16,
    error_code: Option<&'a str>,
    end_ns: u64,
    traced: Option<(u128, u64)>,
    /// Its spans, as a collector gets them, and their number.
    spans: &'a [u8],
    spans_len: u64,
}

/// The records that wait to be sent.
#[derive(Debug, Default)]
pub struct Crossing {
    queue: Vec<u8>,
    dropped: u64,
}

impl Crossing {
    /// A request ended; `spans`: the bytes of its spans, and their number.
    pub(super) fn add(&mut self, ended: &Ended<'_>, traced: Option<Traced>, spans: (&[u8], u64)) {
        let prompt = ended.prompt.map(|prompt| {
            let [blocks, answer] = [&prompt.blocks, &prompt.answer].map(|of| Hashes::bytes_of(of));
            (blocks, answer, prompt.key)
        });
        let life = ended.life;
        let request = Request {
            head: ended.head,
            refused: ended.refused,
            digest: ended.digest,
            prompt_blocks: ended.prompt_blocks,
            prompt: prompt
                .as_ref()
                .map(|(blocks, answer, key)| (Hashes::new(blocks), Hashes::new(answer), *key)),
            relay: ended.relay,
            tenant: life.tenant.borrowed(),
            class: life.class,
            start_ns: life.start_ns,
            held_ns: life.held_ns,
            first_byte_ns: life.first_byte_ns,
            attempts: life.attempts,
            causes: numbers_of(&life.continued.causes),
            refusal: life.continued.refusal,
            away: matches!(life.target, Some(Target::Peer(_))),
            origin: ended.origin,
            status: ended.status,
            error_code: ended.error_code,
            end_ns: ended.end_ns,
            traced: traced.map(|of| (of.trace_id, of.unix_ns)),
            spans: spans.0,
            spans_len: spans.1,
        };
        self.put(&Crossed::Ended(Box::new(request)));
    }

    /// An attempt ended.
    pub(super) fn add_attempt(&mut self, outcome: u8) {
        self.put(&Crossed::Attempt(outcome));
    }

    fn put(&mut self, record: &Crossed<'_>) {
        let room = self.queue.len() < WAITING_BYTES_MAX;
        if !room || !frame::put(&mut self.queue, record) {
            self.dropped += 1;
        }
    }

    /// Shows the waiting records to `consume`, and empties the queue.
    pub fn take<T>(&mut self, consume: impl FnOnce(&[u8]) -> T) -> T {
        let taken = consume(&self.queue);
        self.queue.clear();
        taken
    }

    /// Records that found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

fn numbers_of(outcomes: &[&str]) -> Vec<u8> {
    outcomes.iter().copied().filter_map(number_of).collect()
}

/// Calls `each` with every record of some bytes that [`Crossing::take`] gave.
///
/// # Errors
///
/// They are none.
pub(super) fn read<'a>(
    mut bytes: &'a [u8],
    mut each: impl FnMut(Crossed<'a>),
) -> Result<(), FrameError> {
    while let Some((record, rest)) = frame::split(bytes)? {
        each(frame::read(record)?);
        bytes = rest;
    }
    if bytes.is_empty() {
        Ok(())
    } else {
        Err(FrameError::Malformed)
    }
}

impl Request<'_> {
    /// How its stream went on, in words of ours.
    fn continued(&self) -> Continued {
        let causes = self.causes.iter().map(|number| usize::from(*number));
        let mut continued = Continued::default();
        continued
            .causes
            .extend(causes.filter_map(|number| OUTCOMES.get(number).copied()));
        continued.refusal = self.refusal.and_then(reason_named);
        continued
    }

    /// Shows the record to `count`, with its exemplar and its spans.
    pub(super) fn show(&self, count: impl FnOnce(&Ended<'_>, Option<Traced>, (&[u8], u64))) {
        let life = Life {
            tenant: self.tenant.owned(),
            class: self.class,
            start_ns: self.start_ns,
            held_ns: self.held_ns,
            first_byte_ns: self.first_byte_ns,
            attempts: self.attempts,
            continued: self.continued(),
            target: self.away.then(|| Target::Peer("".into())),
            ..Life::default()
        };
        let prompt = self.prompt.map(|(blocks, answer, key)| {
            Arc::new(Prompt {
                blocks: blocks.get(),
                answer: answer.get(),
                key,
            })
        });
        let ended = Ended {
            head: self.head,
            refused: self.refused,
            digest: self.digest,
            prompt_blocks: self.prompt_blocks,
            prompt: prompt.as_ref(),
            relay: self.relay,
            life: &life,
            client: None,
            origin: self.origin,
            status: self.status,
            error_code: self.error_code,
            end_ns: self.end_ns,
        };
        let traced = self
            .traced
            .map(|(trace_id, unix_ns)| Traced { trace_id, unix_ns });
        count(&ended, traced, (self.spans, self.spans_len));
    }
}
