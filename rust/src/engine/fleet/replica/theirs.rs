//! The requests that other balancers of the region report to have pushed to this replica, and this
//! balancer's share of its room.
//!
//! Their requests count like ours in all figures of the gate, so all balancers of the region see the
//! replica as a single balancer would. A rule keeps two of them from taking the same room at once. Let
//! `room` be the room when the others last received from us, and `n` the number of balancers that push
//! there. Each may take the n-th part of `room`. The rest goes to balancers that hold requests for the
//! replica, one after another in the order of their names. The turn passes on with every push, and the
//! balancer that pushes knows it first. A turn that is not used ends after [`TURN_NS`].

use super::{InFlight, Need, Place, Replica};
use crate::engine::config::Config;
use crate::id::{PeerId, RequestId};
use crate::time::{Instant, Span};

/// How long room is left to each of those whose turn comes first: for word of it to reach them, and
/// for word of their push to come back.
pub const TURN_NS: Span = Span::from_ns(75_000_000);

/// Numbers of others' requests have this bit; those of our own never do.
const THEIRS: u64 = 1 << 63;
/// Below it, the peer's number, and from this bit down the request's.
const NUMBER_BITS: u32 = 40;

/// Our name for a request of a peer.
#[must_use]
pub fn theirs(peer: PeerId, number: u64) -> RequestId {
    let low = number & ((1 << NUMBER_BITS) - 1);
    RequestId(THEIRS | (u64::from(peer.0) << NUMBER_BITS & !THEIRS) | low)
}

/// The peer whose request this is; `None` for our own.
fn owner(id: RequestId) -> Option<PeerId> {
    let peer = (id.0 & !THEIRS) >> NUMBER_BITS;
    (id.0 & THEIRS != 0).then(|| PeerId(u32::try_from(peer).unwrap_or(u32::MAX)))
}

/// Who else takes the room, as far as known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Split {
    /// Others that pushed there lately, or hold something for it.
    pub others: u32,
    /// Of those that hold something, how many have their turn before us.
    pub ahead: u32,
    /// Our own pushes that the others have not been told of.
    pub unsent: u32,
}

/// An own request as it is told to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// Its number.
    pub id: RequestId,
    /// When it was pushed.
    pub pushed_ns: Instant,
    /// When it had its first byte.
    pub first_byte_ns: Option<Instant>,
    /// What it takes.
    pub need: Need,
}

impl Replica {
    /// Another balancer has pushed a request, which it tells only now. Those beyond
    /// [`Config::in_flight_max`] are not counted one by one: gauges show them as foreign.
    pub fn push_theirs(&mut self, told: Own, config: &Config, now: Instant) {
        let Own {
            id,
            pushed_ns,
            need,
            ..
        } = told;
        let known = self.in_flight.iter().any(|request| request.id == id);
        if known || self.in_flight() >= config.in_flight_max {
            return;
        }
        let shown = self
            .last
            .as_ref()
            .map_or(Instant::ZERO, |last| last.sent_ns);
        let place = if pushed_ns >= shown {
            self.fresh += 1;
            Place::Fresh
        } else if self.foreign > 0 {
            // The last snapshot showed it as nobody's.
            self.foreign -= 1;
            self.foreign_floor = self.foreign_floor.saturating_sub(1);
            Place::Apart
        } else {
            self.unseen += 1;
            Place::Unseen
        };
        self.work.pushed(need, pushed_ns.min(now));
        let at = self
            .in_flight
            .partition_point(|request| request.pushed_ns <= pushed_ns);
        self.in_flight.insert(
            at,
            InFlight {
                id,
                pushed_ns,
                first_byte_ns: None,
                need,
                place,
            },
        );
        self.theirs += 1;
        self.in_flight_peak = self.in_flight_peak.max(self.in_flight());
        let light = self.work.within_steps(config.ahead_steps, config);
        self.knee.pushed(self.running, self.pending(), light, now);
        self.open_since_ns = None;
        match told.first_byte_ns {
            // It is in the gauges as running already.
            Some(at_ns) if place == Place::Apart => self.in_flight[at].first_byte_ns = Some(at_ns),
            Some(at_ns) => self.first_byte(id, at_ns),
            None => {}
        }
    }

    /// A request of another balancer ended; unknown ones are ignored.
    pub fn complete_theirs(&mut self, id: RequestId) {
        if self.complete(id) {
            self.theirs -= 1;
        }
    }

    /// Forgets a peer's requests, all but those that `keep` names.
    pub fn forget_theirs(&mut self, peer: PeerId, keep: impl Fn(RequestId) -> bool) {
        let gone = |request: &&InFlight| owner(request.id) == Some(peer) && !keep(request.id);
        let gone: Vec<_> = self.in_flight.iter().filter(gone).map(|r| r.id).collect();
        for id in gone {
            self.complete_theirs(id);
        }
    }

    /// Requests of others in flight, as they told.
    #[must_use]
    pub fn theirs(&self) -> u32 {
        self.theirs
    }

    /// Of those, one peer's.
    #[must_use]
    pub fn counted_for(&self, peer: PeerId) -> usize {
        let of = |request: &&InFlight| owner(request.id) == Some(peer);
        self.in_flight.iter().filter(of).count()
    }

    /// Own requests in flight.
    #[must_use]
    pub fn own_in_flight(&self) -> u32 {
        self.in_flight() - self.theirs
    }

    /// The own requests in flight, for others.
    pub fn own(&self) -> impl Iterator<Item = Own> {
        let own = self.in_flight.iter().filter(|r| owner(r.id).is_none());
        own.map(|request| Own {
            id: request.id,
            pushed_ns: request.pushed_ns,
            first_byte_ns: request.first_byte_ns,
            need: request.need,
        })
    }

    // ------------------------------------------------------------------ the split

    /// Who else takes the room.
    pub fn set_split(&mut self, split: Split) {
        self.split = split;
    }

    /// Who else takes the room.
    #[must_use]
    pub fn split(&self) -> Split {
        self.split
    }

    /// It is not noted as it is whether there is room for somebody.
    #[must_use]
    pub fn opens_or_closes(&self, config: &Config) -> bool {
        self.open_since_ns.is_some() != (self.pending() < self.allowance(config))
    }

    /// Notes since when there has been room for somebody.
    pub fn note_open(&mut self, config: &Config, now: Instant) {
        let open = self.pending() < self.allowance(config);
        self.open_since_ns = match self.open_since_ns {
            Some(since_ns) if open => Some(since_ns),
            _ => open.then_some(now),
        };
    }

    /// The part of so much room that is ours now.
    #[must_use]
    pub fn part_of(&self, room: u32, now: Instant) -> u32 {
        let Split {
            others,
            ahead,
            unsent,
        } = self.split;
        if others == 0 || room == 0 {
            return room;
        }
        let all = room.saturating_add(unsent);
        let sharers = others.saturating_add(1);
        let rest = all % sharers;
        let turn = ahead < rest || self.turn_ns().is_some_and(|at_ns| now >= at_ns);
        let part = all / sharers + u32::from(rest > 0 && turn);
        part.saturating_sub(unsent).min(room)
    }

    /// When time alone gives us what others have left.
    pub(super) fn next_turn_ns(&self, now: Instant) -> Option<Instant> {
        let turn_ns = self.turn_ns().filter(|_| self.split.others > 0);
        turn_ns.filter(|at_ns| *at_ns > now)
    }

    /// When the turn is ours at the latest, where there is room for somebody.
    #[must_use]
    pub fn turn_ns(&self) -> Option<Instant> {
        let since_ns = self.open_since_ns?;
        Some(since_ns + TURN_NS * u64::from(self.split.ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(peer: u32, number: u64, pushed_ns: Instant) -> Own {
        Own {
            id: theirs(PeerId(peer), number),
            pushed_ns,
            first_byte_ns: None,
            need: Need::default(),
        }
    }

    proptest! {
        /// Whatever each of `n` has pushed since the others heard of it, all together take no more
        /// than the room that there was, and all of it while all of those left over hold something.
        #[test]
        fn parts_add_up_to_the_room(
            room in 1_u32..40,
            pushed in prop::collection::vec(0_u32..40, 2..6),
        ) {
            let sharers = u32::try_from(pushed.len()).unwrap();
            let mut taken = 0;
            for (place, pushed) in (0..).zip(&pushed) {
                // Each sees its own pushes only.
                let (mut own, mut left) = (0, room);
                loop {
                    let mut replica = Replica::new();
                    replica.set_split(Split { others: sharers - 1, ahead: place, unsent: own });
                    if replica.part_of(left, Instant::ZERO) == 0 || own == *pushed {
                        break;
                    }
                    own += 1;
                    left -= 1;
                }
                prop_assert!(own <= room / sharers + u32::from(place < room % sharers));
                taken += own;
            }
            prop_assert!(taken <= room);
            if pushed.iter().all(|pushed| *pushed >= room) {
                prop_assert_eq!(taken, room);
            }
        }

        /// With time alone our part changes at the moment that is told, and at no other.
        #[test]
        fn our_part_changes_when_it_was_said_to(
            (others, ahead, unsent) in (0_u32..5, 0_u32..5, 0_u32..3),
            (room, now_ms, later_ms) in (0_u32..9, 0_u64..400, 0_u64..400),
        ) {
            let (now, later_ns) = (now_ms * 1_000_000, (now_ms + later_ms) * 1_000_000);
            let config = Config::sample();
            let mut replica = Replica::new();
            replica.set_split(Split { others, ahead: ahead.min(others), unsent });
            replica.note_open(&config, Instant::ZERO);
            let changes_ns = replica.next_change_ns(&config, Instant::from_ns(now));
            if later_ns < changes_ns.ns() {
                prop_assert_eq!(replica.part_of(room, Instant::from_ns(now)), replica.part_of(room, Instant::from_ns(later_ns)));
            }
            prop_assert!(changes_ns == Instant::MAX || others > 0 && changes_ns > Instant::from_ns(now));
        }

        /// What peers tell, in any order, leaves the figures whole, and forgetting a peer leaves
        /// nothing of it.
        #[test]
        fn what_others_tell_breaks_no_count(
            events in prop::collection::vec((0_u32..3, 0_u64..6, 0_u8..4, 0_u64..50), 0..60)
        ) {
            let config = Config { in_flight_max: 8, ..Config::sample() };
            let mut replica = Replica::new();
            for (now, (peer, number, what, age_ns)) in (100_u64..).zip(events) {
                let id = theirs(PeerId(peer), number);
                match what {
                    0 => replica.push_theirs(told(peer, number, Instant::from_ns(now - age_ns)), &config, Instant::from_ns(now)),
                    1 => replica.first_byte(id, Instant::from_ns(now - age_ns)),
                    2 => replica.complete_theirs(id),
                    _ => {
                        let _pushed = replica.push(RequestId(now), Need::default(), &config, Instant::from_ns(now));
                    }
                }
                prop_assert_eq!(replica.check_invariants(), Ok(()));
            }
            for peer in 0..3 {
                replica.forget_theirs(PeerId(peer), |_| false);
            }
            prop_assert_eq!(replica.theirs(), 0);
            prop_assert_eq!(replica.check_invariants(), Ok(()));
            prop_assert_eq!(replica.own().count(), replica.own_in_flight() as usize);
        }
    }

    #[test]
    fn a_turn_that_nobody_takes_comes_round() {
        let config = Config::sample();
        let mut replica = Replica::new();
        replica.set_split(Split {
            others: 2,
            ahead: 2,
            unsent: 0,
        });
        assert_eq!(replica.part_of(1, Instant::from_ns(5)), 0);
        replica.note_open(&config, Instant::from_ns(10));
        assert_eq!(replica.part_of(1, Instant::from_ns(9) + 2 * TURN_NS), 0);
        assert_eq!(replica.part_of(1, Instant::from_ns(10) + 2 * TURN_NS), 1);
    }

    #[test]
    fn numbers_of_peers_do_not_collide_with_ours_or_each_others() {
        let one = theirs(PeerId(1), 7);
        assert_eq!(owner(one), Some(PeerId(1)));
        assert_eq!(owner(RequestId(7)), None);
        assert_ne!(one, theirs(PeerId(2), 7));
    }
}
