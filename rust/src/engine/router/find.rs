//! Asks the [`Chooser`] for a replica or a peer.

use super::Router;
use crate::engine::choose::{Chooser, Seeker, Selection, Sight, There};
use crate::engine::counters::Counters;
use crate::engine::demand::Lane;
use crate::engine::hold::Room;
use crate::engine::mesh::Mesh;
use crate::engine::requests::request::Request;
use crate::time::Instant;

impl Router {
    /// The replica that the policy chooses; with `may_wait` it may be one without room, to be waited for.
    pub(super) fn find(&mut self, request: &Request, may_wait: bool, now: Instant) -> Selection {
        let room = self.room_for(request, now);
        self.find_room(request, (may_wait, may_wait), room, now)
    }

    /// Which room the request may have. If its tenant has more than its part, that is what is spared, unless the
    /// tenant has been served nothing for too long.
    pub(in crate::engine) fn room_for(&self, request: &Request, now: Instant) -> Room {
        let ticket = request.ticket();
        let unserved = ticket.is_some_and(|of| self.hold.is_unserved(of, &self.config, now));
        if request.demand.lane != Lane::Batch || unserved {
            return Room::Any;
        }
        // It may have found no room where it came from.
        let waits = request.deadline_ns.is_some();
        self.hold
            .room_for(&self.purse(request), waits, &self.config, now)
    }

    /// [`Self::find`] in this room. It may wait, as far as the policy goes, and as far as its shadow does.
    pub(super) fn find_room(
        &mut self,
        request: &Request,
        may_wait: (bool, bool),
        room: Room,
        now: Instant,
    ) -> Selection {
        let (chooser, _, mut sight, counters) = self.sight(now);
        let seeker = Seeker {
            room,
            ..request.seeker()
        };
        chooser.find(seeker, may_wait, &mut sight, counters)
    }

    /// The peer that a request may be forwarded to now, if there is one.
    pub(super) fn find_peer(&mut self, request: &Request, now: Instant) -> Option<There> {
        let (chooser, mesh, mut sight, _) = self.sight(now);
        chooser.find_peer(request.seeker(), true, mesh, &mut sight)
    }

    /// A peer that should answer sooner than the replica that was found, if there is one.
    pub(super) fn faster_peer(
        &mut self,
        request: &Request,
        found: Selection,
        now: Instant,
    ) -> Option<There> {
        let (chooser, mesh, mut sight, _) = self.sight(now);
        chooser.faster_peer(request.seeker(), found, mesh, &mut sight)
    }

    /// What choices look at and change.
    pub(in crate::engine) fn sight(
        &mut self,
        now: Instant,
    ) -> (&mut Chooser, &mut Mesh, Sight<'_>, &mut Counters) {
        let sight = Sight {
            config: &self.config,
            fleet: &mut self.fleet,
            cache: &mut self.cache,
            hold: &self.hold,
            now,
        };
        (&mut self.chooser, &mut self.mesh, sight, &mut self.counters)
    }
}
