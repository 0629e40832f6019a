//! A stream that goes on at another replica: what its relays hand to each other.

use super::kept::Kept;
use super::{FEED_FAILED, Phase, Relay};
use crate::prompt::continuing::Reason;

impl Relay {
    /// From now on keeps what another replica needs to go on with the stream.
    pub fn keep(&mut self, kept: Kept) {
        if !self.options.is_head {
            self.kept = Some(Box::new(kept));
        }
    }

    /// What is kept, if the response is a stream that may go on.
    #[must_use]
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_deref()
    }

    /// Why the stream cannot go on elsewhere from where it is, if it cannot; nothing is kept of a stream that may
    /// never.
    #[must_use]
    pub fn refusal(&self) -> Option<Reason> {
        let kept = self.kept.as_ref()?;
        let whole = self.mid_event.is_none();
        kept.refusal().or((!whole).then_some(Reason::Boundary))
    }

    /// Says whether the text of [`Kept::question`] ends with a whole character.
    pub fn answered(&mut self, whole: bool) {
        if let Some(kept) = &mut self.kept {
            kept.answer(whole);
        }
    }

    /// Takes the answer to [`Kept::asks`], with its status. False: it is none.
    pub fn replied(&mut self, status: u16, body: &[u8]) -> bool {
        let kept = self.kept.as_mut();
        kept.is_some_and(|kept| kept.replied(status, body))
    }

    /// The answer has all tokens that it may have; whether [`Self::finish`] writes its end.
    pub fn fill(&mut self) -> bool {
        self.kept.as_mut().is_some_and(|kept| kept.fill())
    }

    /// The status by which the stream has said that it failed, where it may go on elsewhere.
    #[must_use]
    pub fn failed(&self) -> Option<u16> {
        self.kept.as_ref()?.failed()
    }

    /// The replica is given up. What it sent and the client does not have is dropped; until another replica goes on
    /// the stream takes comments, and at last an error.
    pub fn suspend(&mut self) {
        self.withheld = Vec::new();
        self.out = Vec::new();
        self.complete_len = 0;
        self.opened = true;
        self.phase = Phase::Body;
        self.error_status = None;
        if let Some(kept) = &mut self.kept {
            kept.cut();
        }
    }

    /// Goes on with the stream of another relay, which is suspended.
    pub fn go_on(&mut self, before: &mut Self) {
        self.join();
        self.answer = None;
        self.kept = before.kept.take();
        self.gaps = std::mem::take(&mut before.gaps);
        self.bytes_out = before.bytes_out;
        self.events_before = before.events_out;
        self.events_out = before.events_out;
    }

    /// Ends a stream of which only the end is missing; nothing where tokens may be missing too.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        let rest = self.kept.as_mut()?.rest()?;
        let mut out = Vec::new();
        self.bytes_out += rest.len() as u64;
        self.frame(&mut out, &rest);
        self.observe(&rest);
        self.end(&mut out);
        self.phase = Phase::Done;
        self.upstream_keeps_alive = false;
        Some(out)
    }

    /// The stream has said that it failed, and may go on elsewhere: what was before it is still written.
    pub(super) fn failed_within(&mut self) -> Option<u8> {
        let status = self.kept.as_ref()?.failed()?;
        if self.out.is_empty() {
            self.error_status = Some(status);
        }
        self.phase = Phase::Failed;
        self.upstream_keeps_alive = false;
        self.error = Some("no error in the stream");
        Some(FEED_FAILED)
    }
}
