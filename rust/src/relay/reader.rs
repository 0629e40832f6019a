//! Reads one response for probes and the load generator, without relaying it.

use std::borrow::Cow;

use super::head::{self, Fault, Framing};
use super::{INTERIM_MAX, WRONG_END};
use crate::http::request::chunked::Chunks;

const NOTHING: Cow<'static, [u8]> = Cow::Borrowed(&[]);

/// One response's status, header fields and body.
#[derive(Debug, Clone)]
pub struct ResponseReader {
    is_head: bool,
    phase: Phase,
    /// The head, also while it is incomplete.
    head: Vec<u8>,
    /// Interim responses before it.
    interim: u32,
    status: u16,
    framing: Framing,
    chunks: Chunks,
    keep_alive: bool,
    error: Option<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Body,
    Done,
    Failed,
}

impl ResponseReader {
    /// A reader; `is_head`: the request was HEAD, the response has no body.
    #[must_use]
    pub fn new(is_head: bool) -> Self {
        Self {
            is_head,
            phase: Phase::Head,
            head: Vec::new(),
            interim: 0,
            status: 0,
            framing: Framing::None,
            chunks: Chunks::default(),
            keep_alive: false,
            error: None,
        }
    }

    /// The body bytes in `data`, borrowed where they lie in one piece: a probe's page comes whole, and
    /// is not copied. Nothing of a malformed input.
    pub fn feed<'a>(&mut self, data: &'a [u8]) -> Cow<'a, [u8]> {
        let fed = match self.phase {
            Phase::Head => self.read_head(data),
            Phase::Body => self.read_body(data),
            Phase::Done => {
                self.keep_alive &= data.is_empty();
                Ok(NOTHING)
            }
            Phase::Failed => Ok(NOTHING),
        };
        fed.unwrap_or_else(|fault| {
            self.fail(fault);
            NOTHING
        })
    }

    fn fail(&mut self, fault: Fault) {
        self.phase = Phase::Failed;
        self.keep_alive = false;
        self.error = Some(fault);
    }

    fn read_head<'a>(&mut self, mut data: &'a [u8]) -> Result<Cow<'a, [u8]>, Fault> {
        loop {
            // A head that comes whole is read where it lies; one that comes in parts is put together.
            let held = self.head.len();
            if held > 0 {
                self.head.extend_from_slice(data);
            }
            let whole = if held > 0 { &self.head } else { data };
            let parsed = head::parse(whole)?.map(|h| (h.len, h.status, h.keep_alive, h.framing));
            let Some((len, status, keep_alive, framing)) = parsed else {
                if held == 0 {
                    self.head.extend_from_slice(data);
                }
                return Ok(NOTHING);
            };
            let (own, rest) = data.split_at(len.saturating_sub(held));
            if status >= 200 {
                self.head.truncate(held);
                self.head.extend_from_slice(own);
                self.status = status;
                self.keep_alive = keep_alive;
                self.framing = if self.is_head { Framing::None } else { framing };
                self.phase = Phase::Body;
                return self.read_body(rest);
            }
            self.head.clear();
            data = rest;
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err("fewer interim responses");
            }
        }
    }

    fn read_body<'a>(&mut self, data: &'a [u8]) -> Result<Cow<'a, [u8]>, Fault> {
        let (used, body) = match &mut self.framing {
            Framing::None => (0, NOTHING),
            Framing::Length(left) => {
                let len = usize::try_from(*left).map_or(data.len(), |l| l.min(data.len()));
                *left -= len as u64;
                (len, Cow::Borrowed(&data[..len]))
            }
            Framing::Close => (data.len(), Cow::Borrowed(data)),
            Framing::Chunked => {
                let mut at = 0;
                let mut body = NOTHING;
                while at < data.len() && !self.chunks.done() {
                    let (used, piece) = self.chunks.step(&data[at..])?;
                    at += used;
                    if body.is_empty() {
                        body = Cow::Borrowed(piece);
                    } else if !piece.is_empty() {
                        body.to_mut().extend_from_slice(piece);
                    }
                }
                (at, body)
            }
        };
        let ended = match self.framing {
            Framing::None | Framing::Length(0) => true,
            Framing::Chunked => self.chunks.done(),
            _ => false,
        };
        if ended {
            self.phase = Phase::Done;
            self.keep_alive &= used == data.len();
        }
        Ok(body)
    }

    /// The connection was closed: the end of a close-delimited body, else a fault.
    pub fn eof(&mut self) {
        match (self.phase, self.framing) {
            (Phase::Body, Framing::Close) => self.phase = Phase::Done,
            (Phase::Head | Phase::Body, _) => self.fail(WRONG_END),
            _ => self.keep_alive = false,
        }
    }

    /// The status, 0 before the head.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// First value of a header, by name in any case.
    #[must_use]
    pub fn header(&self, name: &[u8]) -> Option<&[u8]> {
        if self.status == 0 {
            return None;
        }
        head::parse(&self.head).ok()??.header(name)
    }

    /// The response is complete.
    #[must_use]
    pub fn done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// After the end: the connection may serve another request.
    #[must_use]
    pub fn reusable(&self) -> bool {
        self.done() && self.keep_alive
    }

    /// What was expected where the response broke.
    #[must_use]
    pub fn error(&self) -> Option<&'static str> {
        self.error
    }
}
