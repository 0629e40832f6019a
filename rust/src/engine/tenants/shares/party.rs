//! One peer: what it has reported of its parts, and what it has read of ours.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{Key, Sibling};
use crate::engine::tenants::message::{Entry, Message, MessageError};
use crate::time::{Instant, Span};

/// Time between two messages to a peer, and the same where something has changed that it should know.
const TELL: Span = Span::from_secs(1);
const TELL_SOON: Span = Span::from_ms(100);
/// The time is so long at least for each byte of the last message: 7 KiB/s at most.
const TELL_PER_BYTE: Span = Span::from_ns(150_000);

/// What a peer told last.
#[derive(Debug)]
pub(super) struct Told {
    incarnation: u64,
    sequence: u64,
    pub(super) idle: u32,
    entries: HashMap<Key, Entry, FixedState>,
}

/// See the module's text.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one peer"
)]
pub(super) struct Party {
    pub(super) listed: bool,
    pub(super) dead: bool,
    /// Whether it takes messages about tenants, as its last connection said; `None`: there has been none.
    pub(super) takes: Option<bool>,
    connected: bool,
    /// What it uses, and what it has read, matters.
    pub(super) counts: bool,
    pub(super) told: Option<Told>,
    /// The last of our messages that it has read.
    pub(super) acked: u64,
    /// It raises something, and waits until it knows that we have read that.
    owed: bool,
    sent: Option<Instant>,
    sent_bytes: u64,
    sent_changes: u64,
}

impl Party {
    pub(super) fn new() -> Self {
        Self {
            listed: true,
            dead: false,
            takes: None,
            connected: false,
            counts: true,
            told: None,
            acked: 0,
            owed: false,
            sent: None,
            sent_bytes: 0,
            sent_changes: 0,
        }
    }

    pub(super) fn update(&mut self, sibling: Sibling) {
        self.listed = true;
        self.dead = sibling.dead;
        if sibling.takes.is_some() {
            self.takes = sibling.takes;
        }
        if !self.connected && sibling.takes.is_some() {
            self.sent = None; // an earlier connection may have lost what was sent
        }
        self.connected = sibling.takes.is_some();
    }

    /// The tenants that it told of.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.told.iter().flat_map(|told| &told.entries)
    }

    fn entry(&self, key: Key) -> Option<&Entry> {
        self.told.as_ref()?.entries.get(&key)
    }

    pub(super) fn demand(&self, key: Key) -> u32 {
        self.entry(key).map_or(0, |entry| entry.demand)
    }

    /// The most that it uses of a tenant's limits; `assumed` before it has told anything.
    pub(super) fn most(&self, key: Key, assumed: u32) -> u32 {
        self.entry(key)
            .map_or_else(|| self.idle(assumed), |entry| entry.most)
    }

    /// The same of tenants that it does not tell of.
    pub(super) fn idle(&self, assumed: u32) -> u32 {
        self.told.as_ref().map_or(assumed, |told| told.idle)
    }

    /// Start and number of its last message; 0 is none.
    pub(super) fn heard(&self) -> (u64, u64) {
        self.told
            .as_ref()
            .map_or((0, 0), |told| (told.incarnation, told.sequence))
    }

    pub(super) fn due(&self, limited: bool, changes: u64, now: Instant) -> bool {
        let Some(sent) = self.sent else {
            return limited || self.owed;
        };
        let least = TELL_PER_BYTE * self.sent_bytes;
        let has_news = self.owed || (limited && self.sent_changes != changes);
        let pause = if has_news { TELL_SOON } else { TELL };
        (has_news || limited) && now >= sent + pause.max(least)
    }

    pub(super) fn sent(&mut self, bytes: usize, changes: u64, now: Instant) {
        self.sent = Some(now);
        self.sent_bytes = bytes as u64;
        self.sent_changes = changes;
        self.owed = false;
    }

    pub(super) fn hear(
        &mut self,
        message: Message,
        ours: u64,
        sequence: u64,
    ) -> Result<(), MessageError> {
        let number = (message.incarnation, message.sequence);
        if self.told.is_some() && number <= self.heard() {
            return Err(MessageError::Old);
        }
        if message.incarnation != self.heard().0 {
            self.acked = 0;
        }
        if message.heard_incarnation == ours {
            self.acked = self.acked.max(message.heard_sequence.min(sequence));
        }
        let raised = |entry: &Entry| entry.most > self.most(Key::from_be_bytes(entry.tenant), 0);
        self.owed |= self.told.is_none()
            || message.idle > self.idle(0)
            || message.entries.iter().any(raised);
        let entries = message.entries.into_iter();
        self.told = Some(Told {
            incarnation: message.incarnation,
            sequence: message.sequence,
            idle: message.idle,
            entries: entries
                .map(|entry| (Key::from_be_bytes(entry.tenant), entry))
                .collect(),
        });
        Ok(())
    }
}
