//! Reads one response without relaying it: probes and the load generator.

use super::super::request::chunked::Chunks;
use super::head::{self, Fault, Framing};
use super::{INTERIM_MAX, WRONG_END};

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

    /// Appends the body bytes in `data` to `body`; nothing of a malformed input.
    pub fn feed(&mut self, data: &[u8], body: &mut Vec<u8>) {
        let start = body.len();
        let fed = match self.phase {
            Phase::Head => self.read_head(data, body),
            Phase::Body => self.read_body(data, body),
            Phase::Done => {
                self.keep_alive &= data.is_empty();
                Ok(())
            }
            Phase::Failed => Ok(()),
        };
        if let Err(fault) = fed {
            body.truncate(start);
            self.fail(fault);
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.phase = Phase::Failed;
        self.keep_alive = false;
        self.error = Some(fault);
    }

    fn read_head(&mut self, data: &[u8], body: &mut Vec<u8>) -> Result<(), Fault> {
        self.head.extend_from_slice(data);
        loop {
            let (len, status, keep_alive, framing) = match head::parse(&self.head)? {
                Some(head) => (head.len, head.status, head.keep_alive, head.framing),
                None => return Ok(()),
            };
            if status >= 200 {
                self.status = status;
                self.keep_alive = keep_alive;
                self.framing = if self.is_head { Framing::None } else { framing };
                self.phase = Phase::Body;
                let rest = self.head.split_off(len);
                return self.read_body(&rest, body);
            }
            self.head.drain(..len);
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err("fewer interim responses");
            }
        }
    }

    fn read_body(&mut self, data: &[u8], body: &mut Vec<u8>) -> Result<(), Fault> {
        let used = match &mut self.framing {
            Framing::None => 0,
            Framing::Length(left) => {
                let len = usize::try_from(*left).map_or(data.len(), |l| l.min(data.len()));
                *left -= len as u64;
                body.extend_from_slice(&data[..len]);
                len
            }
            Framing::Close => {
                body.extend_from_slice(data);
                data.len()
            }
            Framing::Chunked => {
                let mut at = 0;
                while at < data.len() && !self.chunks.done() {
                    let (used, piece) = self.chunks.step(&data[at..])?;
                    at += used;
                    body.extend_from_slice(piece);
                }
                at
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
        Ok(())
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
