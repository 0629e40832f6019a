//! Requests that leave a replica or a region at a time, because it ends or an operator wants it empty.
//!
//! It takes nothing from the budget of retries. A replica that ends takes with it what stays, so all leaves at
//! once, and waits in the hold where nobody has room. What an operator wants empty is left at the pace at which
//! others have room, and one request more, which waits: it shows peers that room is wanted. A stream runs on
//! meanwhile. Both are looked at again and again: a stream may be between two states in which it can go on, a
//! request may come to have a first byte, and another engine process may know of more.

use super::Router;
use super::resume::CONTINUATIONS_MAX;
use crate::engine::effect::Effect;
use crate::engine::requests::request::{Phase, Request};
use crate::id::{ModelId, PeerSlot, ReplicaSlot, RequestId};
use crate::time::Instant;

/// A stream that an operator wants to leave may use up so many of its tries; the others are for failures.
const DEPARTURES_MAX: u32 = CONTINUATIONS_MAX / 2;

/// What is left.
#[derive(Debug, Clone)]
enum Origin {
    Replica(ReplicaSlot),
    /// All replicas here: the region of this balancer.
    Home,
    /// A region of these peers.
    Peers(Vec<PeerSlot>),
}

/// Room elsewhere that has not been given to those who leave, by model and by regions that may be used.
type Room = Vec<((Option<ModelId>, u64), u64)>;

impl Router {
    /// An operator's order for a region, ours or a peer's: it is evacuated, or taken back. Streams leave it at
    /// `leave_ns`; `None`: they end there.
    pub fn evacuate(
        &mut self,
        region: &str,
        (evacuating, leave_ns): (bool, Option<Instant>),
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        if region == self.mesh.region() {
            self.set_evacuating(evacuating, now, out);
        }
        let now = self.advance(now);
        self.mesh
            .set_departure(region, leave_ns.filter(|_| evacuating));
        self.leave_due(now, out);
    }

    /// Of the requests at replicas here: how many there are, how many of them would end there whatever an
    /// operator wants, and how many are peers', which go on where their balancers let them.
    #[must_use]
    pub fn staying(&self) -> (usize, usize, usize) {
        let (mut all, mut stay, mut of_peers) = (0, 0, 0);
        for (_, request) in self.requests.iter() {
            let Phase::InFlight(attempt) = &request.phase else {
                continue;
            };
            all += 1;
            if request.deadline_ns.is_some() {
                of_peers += 1;
            } else if attempt.started {
                stay += usize::from(!request.continues);
            } else {
                stay += usize::from(!request.retry_safe);
            }
        }
        (all, stay, of_peers)
    }

    /// Withdraws what has to leave by now, and may.
    pub(super) fn leave_due(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for (slot, ends) in self.fleet.looks_due(now) {
            self.send_away(&Origin::Replica(slot), ends, now, out);
        }
        for region in self.mesh.departures_due(now) {
            let origin = if region == self.mesh.region() {
                Origin::Home
            } else {
                let peers = self.mesh.peers();
                let there = peers.filter(|(_, peer)| peer.region == region);
                Origin::Peers(there.map(|(slot, _)| slot).collect())
            };
            self.send_away(&origin, false, now, out);
        }
    }

    fn send_away(&mut self, origin: &Origin, ends: bool, now: Instant, out: &mut Vec<Effect>) {
        let leaving = (self.requests.iter()).filter(|(_, request)| origin.is_left_by(request));
        let mut leaving: Vec<(u64, RequestId)> =
            leaving.map(|(id, request)| (request.age, id)).collect();
        leaving.sort_unstable();
        let mut room = Room::new();
        let waits =
            |request: &Request| request.is_cut() && matches!(request.phase, Phase::Held { .. });
        let mut one_waits = self.requests.iter().any(|(_, request)| waits(request));
        for (_, id) in leaving {
            if !self.has_elsewhere(id, origin, now) {
                continue;
            }
            if !ends {
                match self.take_room(id, origin, &mut room, now) {
                    None => continue,
                    Some(false) if one_waits => continue,
                    Some(has_room) => one_waits |= !has_room,
                }
            }
            self.counters.left_on_notice += u64::from(self.give_up(id, out));
        }
    }

    /// A place that could take it, with room or without.
    fn has_elsewhere(&mut self, id: RequestId, origin: &Origin, now: Instant) -> bool {
        match origin {
            Origin::Replica(slot) => self.may_leave(id, *slot, now),
            Origin::Home => (self.requests.get(id)).is_some_and(|request| {
                request.deadline_ns.is_some() || self.peers_serve(request, now)
            }),
            Origin::Peers(_) => {
                let Some(request) = self.requests.remove(id) else {
                    return false;
                };
                let found = self.untried(&request, now);
                self.requests.insert(id, request);
                found
            }
        }
    }

    /// Takes room elsewhere for a request; whether there was some. `None`: it has been moved often enough.
    fn take_room(
        &self,
        id: RequestId,
        origin: &Origin,
        room: &mut Room,
        now: Instant,
    ) -> Option<bool> {
        let request = self.requests.get(id)?;
        if request.continuations() >= DEPARTURES_MAX {
            return None;
        }
        let key = (request.demand.model, request.demand.regions);
        let known = room.iter().position(|(of, _)| *of == key);
        let position = known.unwrap_or_else(|| {
            room.push((key, self.room_elsewhere(request, origin, now)));
            room.len() - 1
        });
        let (_, left) = room.get_mut(position)?;
        let found = *left > 0;
        *left = left.saturating_sub(1);
        Some(found)
    }

    /// Room for such a request at peers, and at replicas here that are not left.
    fn room_elsewhere(&self, request: &Request, origin: &Origin, now: Instant) -> u64 {
        let (demand, config) = (&request.demand, &self.config);
        let name = self.fleet.name_of(demand.model).unwrap_or_default();
        let peers = self.mesh.peers();
        let others = peers.filter(|(_, peer)| demand.may_use(peer.region_bit));
        let there: u64 = others
            .map(|(_, peer)| peer.room(name, config.peer_hold_max, now))
            .sum();
        let there = if request.stays { 0 } else { there };
        if matches!(origin, Origin::Home) {
            return there;
        }
        let members = self.fleet.serving(demand.model).iter();
        let usable = members
            .filter_map(|slot| self.fleet.member(*slot))
            .filter(|member| member.ready(config, now) && demand.may_use(member.region_bit()));
        let here = usable.map(|member| u64::from(member.free(config, now)));
        there + here.sum::<u64>()
    }
}

impl Origin {
    /// The request is there, and may be given up: what has not begun, once, and a stream that may go on, as
    /// often as it takes until its driver can.
    fn is_left_by(&self, request: &Request) -> bool {
        match (&request.phase, self) {
            (Phase::InFlight(attempt), Self::Replica(_) | Self::Home) => {
                let here = !matches!(self, Self::Replica(slot) if *slot != attempt.slot);
                let may = if attempt.started {
                    request.continues
                } else {
                    request.retry_safe && !attempt.withdrawn
                };
                here && may
            }
            (Phase::Away(away), Self::Peers(slots)) => {
                away.started && request.continues && slots.contains(&away.slot)
            }
            _ => false,
        }
    }
}
