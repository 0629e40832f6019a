//! What a worker keeps of a request until its end, so that another engine process can take it over.

use super::frame::{self, Hashes};
use super::submitted::{At, Body, Submit};
use super::up::Up;

/// What a worker keeps of a request that the engine process knows: the frame that it sent.
#[derive(Debug)]
pub struct Submitted {
    frame: Vec<u8>,
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

    /// The first byte has come: the hashes of the prompt are of no use any more.
    pub fn forget_blocks(&mut self) {
        let Some(submit) = self.submit() else { return };
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
    pub fn put_again(&self, out: &mut Vec<u8>, waited_ns: u64, at: Option<At<'_>>) {
        if let Some(submit) = self.submit() {
            frame::put(
                out,
                &Up::Submit(Submit {
                    waited_ns,
                    at,
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
