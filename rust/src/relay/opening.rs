//! A client's stream that begins before its first event: a head and comments. Without them, a proxy may
//! take the wait for a dead connection.
//!
//! The head is that of the replica if it has sent one, else SkyLB's own. The events come later from the
//! replica that answers. Until then only comments have been written, so a failed attempt can still be made
//! elsewhere.

use super::{Framing, Phase, Relay};
use crate::http::request::put;

/// A comment, as vLLM writes it.
const COMMENT: &[u8] = b": keep-alive\n\n";

impl Relay {
    /// Begins the client's stream before its first event: its head, and the comments that came.
    /// Nothing where the replica has answered with something else.
    ///
    /// `head`: one of our own, up to where the framing's fields go; used while the replica's is not
    /// here.
    pub fn open(&mut self, head: &[u8]) -> Vec<u8> {
        let waits = match self.phase {
            Phase::Head => true,
            Phase::Body => self.accepted(),
            Phase::Done | Phase::Failed => false,
        };
        if !waits || self.opened || self.first_byte || self.options.is_head {
            return Vec::new();
        }
        let mut out = std::mem::take(&mut self.client_head);
        self.join();
        if out.is_empty() {
            put(&mut out, &[head]);
            self.finish_head(&mut out);
        }
        if self.comments_len > 0 {
            let len = self.comments_len;
            self.hand_out(&mut out, len);
        }
        out
    }

    /// The client's stream has begun already: this response goes on with it.
    pub fn join(&mut self) {
        self.opened = true;
        self.client_head = Vec::new();
        self.client = if self.options.http11 {
            Framing::Chunked
        } else {
            Framing::Close
        };
    }

    /// The replica has taken the request for a stream of events.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.status == 200 && self.is_sse
    }

    /// It has sent comments before the first event.
    #[must_use]
    pub fn commented(&self) -> bool {
        self.comments_len > 0
    }

    /// A comment for a stream that is silent; nothing where none may stand.
    pub fn comment(&mut self) -> Vec<u8> {
        let streams = self.opened || (self.first_byte && self.is_sse && !self.options.is_head);
        let is_over = matches!(self.phase, Phase::Done | Phase::Failed);
        let mut out = Vec::new();
        if streams && self.mid_event.is_none() && !is_over {
            self.bytes_out += COMMENT.len() as u64;
            self.frame(&mut out, COMMENT);
        }
        out
    }
}
