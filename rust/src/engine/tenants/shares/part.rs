//! One part of a limit, and how it changes.

use crate::engine::tenants::bucket::ONE;
use crate::time::Instant;

/// A part is raised by this much at least, so that a wavering demand tells nothing new each time.
const STEP: u32 = ONE / 64;

/// Whether a part is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Listed,
    /// Not in messages from number `since` on, and dropped when all have read such a message.
    Leaving {
        since: u64,
    },
}

/// See the module's text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// What may be used.
    cap: u32,
    /// What is to be used when all know: messages behind this number tell it.
    raise: Option<(u32, u64)>,
    pub(super) place: Place,
    /// When somebody asked for something last.
    pub(super) asked: Instant,
    /// What is asked for here.
    pub(super) demand: u32,
}

impl Part {
    pub(super) fn new(cap: u32, now: Instant) -> Self {
        Self {
            cap,
            raise: None,
            place: Place::Listed,
            asked: now,
            demand: 0,
        }
    }

    /// What may be used.
    pub(super) fn used(&self) -> u32 {
        self.cap
    }

    /// What is told: it bounds what may be used until the next message has been read.
    pub(super) fn most(&self) -> u32 {
        self.raise
            .map_or(self.cap, |(raised, _)| raised.max(self.cap))
    }

    /// No more than this, at once.
    pub(super) fn lower(&mut self, most: u32) {
        self.cap = self.cap.min(most);
        self.raise = self.raise.filter(|(raised, _)| *raised <= most);
    }

    /// It is told of. If it was not before, what was told of the others has held for it too.
    pub(super) fn list(&mut self, idle: u32) {
        if self.place != Place::Listed {
            self.lower(idle);
            self.place = Place::Listed;
        }
    }

    /// It is no longer told of: what is told of the others holds for it too. False: that was so before.
    pub(super) fn leave(&mut self, idle: u32, sequence: u64) -> bool {
        let leaves = self.place == Place::Listed;
        if leaves {
            self.lower(idle);
            self.raise = None;
            self.place = Place::Leaving { since: sequence };
        }
        leaves
    }

    /// One step towards `target`. `theirs`: the most that peers use; `sequence`: of the last message built;
    /// `read`: of the last one that all peers have read.
    pub(super) fn step(&mut self, target: u32, theirs: u64, sequence: u64, read: u64) {
        let fits = |most: u32| theirs + u64::from(most) <= u64::from(ONE);
        // Somebody needs what is used here, or is to be, beyond our part.
        if !fits(self.cap) {
            let over = theirs + u64::from(self.cap) - u64::from(ONE);
            let room = self.cap.saturating_sub(target);
            self.cap -= u32::try_from(over).unwrap_or(ONE).min(room);
        }
        if let Some((raised, since)) = &mut self.raise {
            if read > *since && fits(*raised) {
                (self.cap, self.raise) = (*raised, None);
            } else if target < *raised {
                // Every message since then has told more than this.
                *raised = target;
            }
        }
        if self.raise.is_some_and(|(raised, _)| raised <= self.cap) {
            self.raise = None;
        }
        if self.raise.is_none()
            && target >= self.cap.saturating_add(STEP).min(ONE)
            && target > self.cap
        {
            self.raise = Some((target, sequence));
            if read == u64::MAX && fits(target) {
                (self.cap, self.raise) = (target, None); // there is nobody to tell
            }
        }
    }
}
