//! What the first pass over a body leaves to the second.

use super::lanes::RUN;

/// What the first pass leaves to the second.
#[derive(Debug, Clone, Default)]
pub(super) struct Tape {
    /// In the order of their places.
    pub(super) strings: Vec<LongString>,
    /// The text of those that hold escapes, one after the other: `text[..used]`. The rest is room
    /// written before, so that growing costs once and not per body.
    text: Vec<u8>,
    used: usize,
}

impl Tape {
    pub(super) fn clear(&mut self) {
        self.strings.clear();
        self.used = 0;
    }

    /// Memory that is kept, in bytes.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.strings.capacity() * size_of::<LongString>() + self.text.capacity()
    }

    /// Some of the unescaped text.
    pub(super) fn text(&self, from: u32, to: u32) -> &[u8] {
        self.text
            .get(from as usize..to as usize)
            .unwrap_or_default()
    }

    /// Where the next bytes of text go.
    #[inline]
    pub(super) fn text_len(&self) -> usize {
        self.used
    }

    /// Forgets the text from `length` on.
    #[inline]
    pub(super) fn truncate_text(&mut self, length: usize) {
        self.used = length;
    }

    /// Appends bytes.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        self.make_room(end);
        self.text[self.used..end].copy_from_slice(bytes);
        self.used = end;
    }

    /// Appends the first `length` bytes of a run; the whole is copied, which is faster.
    #[inline]
    pub(super) fn put_run(&mut self, run: &[u8; RUN], length: usize) {
        let end = self.used + RUN;
        if self.text.len() < end {
            self.make_room(end);
        }
        self.text[self.used..end].copy_from_slice(run);
        self.used += length;
    }

    #[inline]
    pub(super) fn put_byte(&mut self, byte: u8) {
        if self.used >= self.text.len() {
            self.make_room(self.used + 1);
        }
        self.text[self.used] = byte;
        self.used += 1;
    }

    #[cold]
    fn make_room(&mut self, end: usize) {
        if self.text.len() < end {
            self.text.resize((end + RUN).next_power_of_two(), 0);
        }
    }
}

/// A string remembered by the first pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct LongString {
    /// Of its opening quote.
    pub(super) start: u32,
    /// Of its closing quote.
    pub(super) end: u32,
    /// Where its text is on the tape; for a string without escapes it is where it stands.
    pub(super) text: Option<(u32, u32)>,
}

/// A position as it is stored; the caller has refused longer bodies.
pub(super) fn narrow(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}
