//! What the engine process has for its workers: bytes of each, until they are written.

use super::down::Down;
use super::frame::{self, Inbox};
use super::{WORKERS_MAX, worker_of};
use crate::engine::effect::Effect;
use crate::id::RequestId;

/// The bytes that a frame's reader keeps room for between two reads.
const KEEP_BYTES: usize = 1 << 20;

/// One worker's bytes.
#[derive(Debug, Default)]
struct Seat {
    joined: bool,
    inbox: Inbox,
    outbox: Vec<u8>,
    /// The driver has been told that there is something.
    told: bool,
}

/// The mail of all workers. A worker that has not joined gets none.
#[derive(Debug, Default)]
pub struct Mail {
    seats: Vec<Seat>,
}

impl Mail {
    /// A worker takes its seat, with nothing of the one that had it before. `false`: there are not so many.
    pub fn join(&mut self, worker: u16) -> bool {
        if worker == 0 || worker > WORKERS_MAX {
            return false;
        }
        let seats = usize::from(worker) + 1;
        if self.seats.len() < seats {
            self.seats.resize_with(seats, Seat::default);
        }
        self.seats[usize::from(worker)] = Seat {
            joined: true,
            ..Seat::default()
        };
        true
    }

    /// A worker has left: nothing of its mail is kept.
    pub fn leave(&mut self, worker: u16) {
        if let Some(seat) = self.seats.get_mut(usize::from(worker)) {
            *seat = Seat::default();
        }
    }

    /// Nobody has ever joined.
    #[must_use]
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.seats.is_empty()
    }

    /// Puts a message into a worker's mail. `false`: it has no seat, or the message is too long.
    pub fn put(&mut self, worker: u16, message: &Down<'_>) -> bool {
        let seat = self
            .seats
            .get_mut(usize::from(worker))
            .filter(|seat| seat.joined);
        seat.is_some_and(|seat| frame::put(&mut seat.outbox, message))
    }

    /// Takes the effects that concern workers' requests out of `out`.
    pub fn take_effects(&mut self, out: &mut Vec<Effect>, guessed: impl Fn(RequestId) -> bool) {
        out.retain(|effect| {
            let Some(id) = effect.request() else {
                return true;
            };
            let worker = worker_of(id);
            if worker == 0 {
                return true;
            }
            if let Some(message) = message_of(effect, &guessed) {
                self.put(worker, &message);
            }
            false
        });
    }

    /// The workers that have mail of which the driver has not been told.
    pub fn untold(&mut self) -> impl Iterator<Item = u16> {
        let seats = self.seats.iter_mut().zip(0..);
        seats.filter_map(|(seat, worker)| {
            let untold = !seat.told && !seat.outbox.is_empty();
            seat.told |= untold;
            untold.then_some(worker)
        })
    }

    /// Shows a worker's mail to `consume`, and empties it.
    pub fn take<T>(&mut self, worker: u16, consume: impl FnOnce(&[u8]) -> T) -> T {
        let Some(seat) = self.seats.get_mut(usize::from(worker)) else {
            return consume(&[]);
        };
        seat.told = false;
        let taken = consume(&seat.outbox);
        seat.outbox.clear();
        seat.outbox.shrink_to(KEEP_BYTES);
        taken
    }

    /// What a worker's bytes are read with; [`Self::put_inbox`] gives it back.
    pub fn take_inbox(&mut self, worker: u16) -> Inbox {
        let seat = self.seats.get_mut(usize::from(worker));
        seat.map_or_else(Inbox::default, |seat| std::mem::take(&mut seat.inbox))
    }

    /// Keeps it until more comes.
    pub fn put_inbox(&mut self, worker: u16, inbox: Inbox) {
        if let Some(seat) = self.seats.get_mut(usize::from(worker)) {
            seat.inbox = inbox;
        }
    }
}

/// What a worker is told of an effect; `None`: it is for no worker.
fn message_of(effect: &Effect, guessed: impl Fn(RequestId) -> bool) -> Option<Down<'_>> {
    let number = super::number_of(effect.request()?);
    Some(match effect {
        Effect::Push(push) => Down::Push {
            number,
            replica: push.replica.0,
            attempt: push.attempt,
            match_blocks: push.match_blocks,
            predicted_ttft_ns: push.predicted_ttft_ns.map(crate::time::Span::ns),
            context_len: push.context_len,
            guessed: guessed(push.request),
        },
        Effect::Forward(forward) => Down::Forward {
            number,
            peer: forward.peer.0,
            attempt: forward.attempt,
            attempts_left: forward.attempts_left,
            match_blocks: forward.match_blocks,
            deadline_ns: forward.deadline_ns.ns(),
            context_len: forward.context_len,
        },
        Effect::Hold(_) => Down::Hold(number),
        Effect::Reject(reject) => Down::Reject {
            number,
            code: reject.code,
            message: &reject.message,
            retry_after_s: reject.retry_after_s,
        },
        Effect::Expire(_) => Down::Expire(number),
        Effect::Withdraw(_) => Down::Withdraw(number),
        Effect::Probe(_) | Effect::Tell(_) => return None,
    })
}
