//! Which request a client sends next in closed loop: users with sessions, one after another.

use super::scenario::Scenario;
use super::workload::{NO_TURN, Turn, Workload, small};
use crate::id::Nanos;

/// Marks the absence of a user.
pub const NO_SEAT: u32 = u32::MAX;

/// One of the users at once.
#[derive(Debug, Clone)]
struct Seat {
    region: u32,
    /// The workload's user that it is, and how many of its sessions have begun.
    user: Option<usize>,
    begun: usize,
    /// Requests of the session that are under way or about to be sent.
    open: u32,
    /// Repetition of the workload.
    round: u64,
}

/// All users at once.
#[derive(Debug)]
pub struct Clients {
    seats: Vec<Seat>,
    /// By region: the next user, and how often all have been.
    next: Vec<(usize, u64)>,
    repeat: bool,
}

/// A request to be sent, and its pause before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Due {
    /// Its number in the workload.
    pub turn: u32,
    /// Pause, in seconds.
    pub think_s: f64,
}

impl Clients {
    /// The users of a scenario; none in open loop. They start at `start_ns(seat)`.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let mut seats = Vec::new();
        for (region, of) in (0u32..).zip(&scenario.regions) {
            let users = scenario.clients.users.get(&of.name).copied().unwrap_or(0);
            seats.extend((0..users).map(|_| Seat {
                region,
                user: None,
                begun: 0,
                open: 0,
                round: 0,
            }));
        }
        Self {
            seats,
            next: vec![(0, 0); scenario.regions.len()],
            repeat: scenario.clients.repeat,
        }
    }

    /// Users at once.
    #[must_use]
    pub fn len(&self) -> u32 {
        small(self.seats.len())
    }

    /// When a user starts: evenly over the ramp, region by region.
    #[must_use]
    pub fn start_ns(&self, seat: u32, ramp_ns: Nanos) -> Nanos {
        let region = self.seats[seat as usize].region;
        let same = |other: &&Seat| other.region == region;
        let of = self.seats.iter().filter(same).count() as u64;
        let before = self.seats[..seat as usize].iter().filter(same).count() as u64;
        ramp_ns / of.max(1) * before
    }

    /// The user's next session: its first requests. None when the region's workload is used up.
    pub fn next_session(&mut self, seat: u32, workload: &Workload, due: &mut Vec<Due>) {
        due.clear();
        let seat = &mut self.seats[seat as usize];
        let users = &workload.users[seat.region as usize];
        let sessions = |user: Option<usize>| user.map_or(0, |user| users[user].len());
        if seat.begun >= sessions(seat.user) {
            let (next, round) = &mut self.next[seat.region as usize];
            if *next == users.len() && self.repeat && !users.is_empty() {
                *next = 0;
                *round += 1;
            }
            if *next == users.len() {
                return;
            }
            seat.user = Some(*next);
            seat.begun = 0;
            seat.round = *round;
            *next += 1;
        }
        let Some(user) = seat.user else { return };
        let session = &workload.sessions[users[user][seat.begun] as usize];
        seat.begun += 1;
        follow(&workload.turns, session.first_root, due);
        seat.open = small(due.len());
    }

    /// A user's request has ended: what it sends after it. True when its session is over.
    pub fn ended(&mut self, seat: u32, turn: u32, workload: &Workload, due: &mut Vec<Due>) -> bool {
        due.clear();
        follow(
            &workload.turns,
            workload.turns[turn as usize].first_follower,
            due,
        );
        let seat = &mut self.seats[seat as usize];
        seat.open = seat.open.saturating_sub(1) + small(due.len());
        seat.open == 0
    }

    /// Which repetition of the workload a user is in.
    #[must_use]
    pub fn round(&self, seat: u32) -> u64 {
        self.seats.get(seat as usize).map_or(0, |seat| seat.round)
    }
}

/// A request and its siblings.
pub(super) fn follow(turns: &[Turn], first: u32, due: &mut Vec<Due>) {
    let mut next = first;
    while next != NO_TURN {
        let turn = &turns[next as usize];
        due.push(Due {
            turn: next,
            think_s: turn.think_s,
        });
        next = turn.next_sibling;
    }
}
