//! What a worker keeps of a request until its end, so that another engine process can take it over.

use std::fmt;

use super::frame::{self, Hashes};
use super::submitted::{Body, Course, Failed, Submit};
use super::up::Up;
use crate::engine::fleet::failure::Failure;
use crate::engine::router::{Part, Report};

/// What a worker keeps of a request that the engine process knows: the frame that it sent.
pub struct Submitted {
    frame: Vec<u8>,
}

impl fmt::Debug for Submitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Submitted of {} bytes", self.frame.len()) // they hold credentials
    }
}

impl Submitted {
    /// Keeps a frame of [`Up::Submit`], without its length.
    #[must_use]
    pub fn new(frame: Vec<u8>) -> Self {
        Self { frame }
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.frame.len()
    }

    /// The first byte has come: the hashes of the prompt are of no use any more, unless the stream may go on
    /// elsewhere.
    pub fn started(&mut self) {
        let Some(submit) = self.submit().filter(|submit| !submit.body.may_go_on) else {
            return;
        };
        let body = Body {
            blocks: Hashes::default(),
            ..submit.body
        };
        let kept = Submit { body, ..submit };
        if let Ok(frame) = postcard::to_extend(&Up::Submit(kept), Vec::new()) {
            self.frame = frame;
        }
    }

    /// Appends the frame for another engine process.
    pub fn put_again(&self, out: &mut Vec<u8>, waited_ns: u64, course: Option<Course<'_>>) {
        if let Some(submit) = self.submit() {
            frame::put(
                out,
                &Up::Submit(Submit {
                    waited_ns,
                    course,
                    ..submit
                }),
            );
        }
    }

    fn submit(&self) -> Option<Submit<'_>> {
        match frame::read(&self.frame) {
            Ok(Up::Submit(submit)) => Some(submit),
            _ => None, // it was written here
        }
    }
}

/// How far a request has come, as the engine process knew it, and what that has not decided yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Journey {
    attempts: u32,
    started: bool,
    failed: Option<Failed>,
    given: Option<Part>,
    /// Its client has a part of its answer, and no replica goes on with it yet.
    cut: bool,
    /// It was submitted again since its attempt failed.
    again: bool,
    /// Of its time in the hold, what was before it was cut: that is another wait.
    held_before_ns: u64,
}

impl Journey {
    /// It is sent to a replica or a peer, as the attempt of this number.
    pub fn sent(&mut self, attempt: u32) {
        self.decided();
        self.attempts = attempt;
        self.started = false;
    }

    /// It waits in the hold.
    pub fn held(&mut self) {
        self.decided();
        self.started = false;
    }

    /// What the router counts when it lets a request that has failed go on.
    fn decided(&mut self) {
        let Some(failed) = self.failed.take() else {
            return;
        };
        if failed.failure.refused() {
            self.attempts = self.attempts.saturating_sub(1); // nothing was begun
        } else if let Some(given) = self.given.as_mut().filter(|_| self.cut) {
            given.continuations += 1;
            self.attempts = 0;
        }
    }

    /// The first byte of its answer has come, or of what was missing of it.
    pub fn first_byte(&mut self) {
        self.started = true;
        self.cut = false;
    }

    /// Its attempt has failed before that; the engine process is to decide.
    pub fn failed(&mut self, failure: Failure, sent: bool, at_ns: u64) {
        self.again = false;
        self.failed = Some(Failed {
            failure,
            sent,
            at_ns,
        });
    }

    /// Its stream is to go on elsewhere; likewise. `held_ns`: its time in the hold so far.
    pub fn cut(&mut self, failure: Failure, given: &Report<'_>, held_ns: u64, at_ns: u64) {
        self.failed(failure, true, at_ns);
        self.given = Some(Part {
            continuations: self.given.map_or(0, |part| part.continuations),
            usage: given.usage,
            events: given.events,
        });
        self.cut = true;
        self.held_before_ns = held_ns;
    }

    /// Its attempt has failed, and nothing has been decided since.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.failed.is_some()
    }

    /// The engine process does not know it: whether it gets it again for a decision. It may say so twice, of the request
    /// and of its failure.
    pub fn asks_again(&mut self) -> bool {
        let asks = self.is_undecided() && !self.again;
        self.again |= asks;
        asks
    }

    /// The part of its time in the hold that counts.
    #[must_use]
    pub fn waited_ns(&self, held_ns: u64) -> u64 {
        held_ns.saturating_sub(self.held_before_ns)
    }

    /// For another engine process; `None`: it was sent nowhere yet. `replica`: at which its attempt is, or was when
    /// it failed.
    #[must_use]
    pub fn course<'a>(&self, replica: Option<&'a str>) -> Option<Course<'a>> {
        let begun = self.attempts > 0 || self.failed.is_some() || self.given.is_some();
        begun.then_some(Course {
            replica,
            attempts: self.attempts,
            started: self.started,
            failed: self.failed,
            given: self.given,
        })
    }
}
