//! What peers receive from this balancer, and how much room it grants them.

use super::peer::summary::{MODELS_MAX, ModelSummary, Summary};
use super::peer::{Peer, VALID_FOR_NS_MAX};
use super::{LastSent, Local, Mesh, Remote};
use crate::engine::fleet::Fleet;
use crate::engine::fleet::forecast::fleet_line;
use crate::engine::fleet::models::Model;
use crate::id::{ModelId, PeerId, PeerSlot, ReplicaSlot};
use crate::time::{Instant, Span};

/// A summary is due after half of the time for which it is valid, whatever happens.
const DUE_NS: Span = Span::from_ns(VALID_FOR_NS_MAX.ns() / 2);
/// Least time between two summaries to one peer.
const GAP_NS: Span = Span::from_ns(25_000_000);
/// Bytes per second sent to one peer, at most.
const BYTES_PER_S_MAX: u64 = 48 << 10;
/// Local arrivals for which room is kept back: those of so much time.
const RESERVE_MS: u64 = 200;
/// Where there is less room than origins, those that get it change after so long.
const TURN_NS: Span = Span::from_ns(1_000_000_000);
/// How much more an origin counts that is evacuated and needs room: what stays there cannot end.
const LEAVING_WEIGHT: u64 = 1 << 20;
/// A change of the room by more than this part is sent at once.
const NOTICEABLE: u64 = 4;

/// What this balancer could take for one model now.
struct Offer<'a> {
    id: ModelId,
    model: &'a Model,
    ready: u32,
    /// Room of its replicas, less what is held for it.
    room: u64,
    /// The part of it at replicas that no other balancer of our region pushes to: those can send
    /// theirs to the others without us.
    unshared: u64,
    hold_len: usize,
    /// Until one more request would be computed at the replica where that is soonest.
    start_in_ns: Span,
}

impl Mesh {
    /// What this balancer could take now, by model.
    fn offers<'a>(&self, local: &Local<'a>) -> Vec<Offer<'a>> {
        let fleet = local.fleet;
        let mut offers: Vec<_> = fleet
            .listed_models()
            .map(|(id, model)| self.offer(id, model, local))
            .collect();
        offers.sort_unstable_by(|a, b| a.model.name().cmp(b.model.name()));
        offers
    }

    fn offer<'a>(&self, id: ModelId, model: &'a Model, local: &Local<'a>) -> Offer<'a> {
        let (fleet, config, now) = (local.fleet, local.config, local.now);
        let hold_len = local.hold.calls_of(id, local.config, local.now);
        let mut ready = 0;
        let (mut room, mut unshared, mut start_in_ns) = (0, 0, None);
        for &slot in model.serving() {
            let Some(member) = fleet.member(slot).filter(|member| !member.removed()) else {
                continue;
            };
            if member.ready(config, now) {
                ready += 1;
                let start_ns = Fleet::start_in_ns(model, member, hold_len, config, now);
                start_in_ns = Some(start_in_ns.map_or(start_ns, |ns: Span| ns.min(start_ns)));
            }
            let free = member.free(config, now);
            let split = member.replica().split().others > 0;
            let part = if split {
                free
            } else {
                self.sharing.promised(slot, free)
            };
            room += u64::from(part);
            unshared += u64::from(free) * u64::from(self.sharing.alone(slot));
        }
        let left = |room: u64| room.saturating_sub(hold_len as u64);
        Offer {
            id,
            model,
            ready,
            room: left(room),
            unshared: left(unshared),
            hold_len,
            start_in_ns: start_in_ns.unwrap_or_default(),
        }
    }

    /// Whether this peer should be sent a summary now.
    pub(in crate::engine) fn summary_due(&self, peer: PeerId, local: &Local<'_>) -> bool {
        let now = local.now;
        let Some((slot, remote)) = self.remote_of(peer) else {
            return false;
        };
        let Some(sent_ns) = remote.peer.sent_ns() else {
            return true;
        };
        let since_ns = now - sent_ns;
        let gap_ns = remote.last_sent.bytes as u64 * Span::from_secs(1) / BYTES_PER_S_MAX;
        if since_ns < gap_ns.max(GAP_NS) {
            return false;
        }
        since_ns >= DUE_NS || self.changed(slot, remote, local)
    }

    /// What the peer was sent last is noticeably different now.
    fn changed(&self, slot: PeerSlot, remote: &Remote, local: &Local<'_>) -> bool {
        let now = local.now;
        let offers = self.offers(local);
        let current = LastSent {
            bytes: remote.last_sent.bytes,
            ..self.summary_state(&offers, local)
        };
        current != remote.last_sent
            || offers.iter().any(|offer| {
                let lane = remote.peer.lanes.get(offer.model.name());
                let left = lane.map_or(0, |lane| lane.credit.left(now));
                let room = self.grant(slot, offer, &offers, now);
                (left == 0) != (room == 0) || left.abs_diff(room) * NOTICEABLE > left.max(room) + 4
            })
    }

    fn summary_state(&self, offers: &[Offer<'_>], local: &Local<'_>) -> LastSent {
        let max = local.config.peer_hold_max as usize;
        LastSent {
            draining: self.evacuating,
            holds: !local.hold.is_empty(),
            over_max: offers.iter().any(|offer| offer.hold_len > max),
            bytes: 0,
        }
    }

    /// What to send this peer now: it grants room. `hold_age_ns`: how long the longest held request has
    /// waited.
    pub(in crate::engine) fn summary(
        &mut self,
        slot: PeerSlot,
        hold_age_ns: Span,
        local: &Local<'_>,
    ) -> Option<Vec<u8>> {
        let now = local.now;
        let offers = self.offers(local);
        let state = self.summary_state(&offers, local);
        let mut models: Vec<ModelSummary> = offers
            .iter()
            .take(MODELS_MAX)
            .map(|offer| self.model_summary(slot, offer, &offers, local))
            .collect();
        let elsewhere = held_elsewhere(local);
        let remote = self.remotes.get_mut(slot.index())?;
        let peer = &mut remote.peer;
        let sequence = peer.summary_sent(now);
        for entry in &mut models {
            if let Some(lane) = peer.lane_mut(&entry.model) {
                entry.limit = lane.credit.grant(sequence, entry.limit, now);
                (entry.sent, entry.settled) = (lane.sent, lane.settled);
            } else {
                entry.limit = 0;
            }
        }
        // What we hold or have sent for models that we do not serve ourselves.
        for (model, lane) in &peer.lanes {
            let hold_len = elsewhere.iter().find(|(name, _)| name == model);
            let hold_len = hold_len.map_or(0, |(_, hold_len)| *hold_len);
            let known = models.iter().any(|entry| entry.model == *model);
            if !known && (lane.sent > 0 || hold_len > 0) {
                models.push(ModelSummary {
                    model: model.clone(),
                    sent: lane.sent,
                    settled: lane.settled,
                    hold_len,
                    ..ModelSummary::default()
                });
            }
        }
        models.sort_unstable_by(|a, b| a.model.cmp(&b.model));
        let (received_incarnation, received_sequence) = peer.last_received();
        let mut summary = Summary {
            incarnation: self.incarnation,
            sequence,
            received_incarnation,
            received_sequence,
            valid_for_ms: u32::try_from(VALID_FOR_NS_MAX.ns() / 1_000_000).unwrap_or(u32::MAX),
            draining: state.draining,
            hold_len: u32::try_from(local.hold.len()).unwrap_or(u32::MAX),
            hold_age_ms: u32::try_from(hold_age_ns.ns() / 1_000_000).unwrap_or(u32::MAX),
            models,
        };
        let bytes = summary.encode();
        remote.last_sent = LastSent {
            bytes: bytes.len(),
            ..state
        };
        Some(bytes)
    }

    /// What this peer may send for one model from now on: its share by recent demand of the room
    /// that is neither kept back for local arrivals nor granted to others.
    fn grant(&self, slot: PeerSlot, offer: &Offer<'_>, offers: &[Offer<'_>], now: Instant) -> u64 {
        let listed = self
            .peer(slot)
            .is_some_and(|peer| !peer.removed && !peer.isolated);
        if self.evacuating || !listed {
            return 0;
        }
        let reserve = (offer.model.arrivals().per_s_milli(now) * RESERVE_MS + 500_000) / 1_000_000;
        let shares = self.shares(slot);
        let known = self.remote(slot).is_some_and(|of| of.share.is_known());
        let room = match (shares, known) {
            (true, true) => offer.unshared,
            // What it shares is not known yet.
            (true, false) => 0,
            (false, _) => offer.room,
        };
        let reserve = if self.somebody_leaves(offer, offers, now) {
            reserve.min(room / 2)
        } else {
            reserve
        };
        let room = room.saturating_sub(reserve);
        let mine = self.outstanding(slot, offer.model.name(), now);
        let all = self.outstanding_beside(offer, offers, now);
        let free = room.saturating_sub(all.saturating_sub(mine));
        free.min(self.share_of(slot, offer, offers, room, now))
    }

    /// A peer is evacuated, and has sent or holds requests for this model, or one beside it.
    fn somebody_leaves(&self, offer: &Offer<'_>, offers: &[Offer<'_>], now: Instant) -> bool {
        beside(offer, offers).any(|(_, other)| {
            let mut peers = self.peers().filter(|(_, peer)| peer.listed());
            peers.any(|(_, peer)| leaving_demand(peer, other.model.name(), now).is_some())
        })
    }

    /// Granted to one peer for one model, and not arrived.
    fn outstanding(&self, slot: PeerSlot, model: &str, now: Instant) -> u64 {
        let lane = self.peer(slot).and_then(|peer| peer.lanes.get(model));
        lane.map_or(0, |lane| lane.credit.outstanding(now))
    }

    /// Granted to all peers for all models that share a replica with this one, and not arrived.
    fn outstanding_beside(&self, offer: &Offer<'_>, offers: &[Offer<'_>], now: Instant) -> u64 {
        beside(offer, offers)
            .flat_map(|(_, other)| {
                let peers = self.peers();
                peers.map(|(slot, _)| self.outstanding(slot, other.model.name(), now))
            })
            .fold(0, u64::saturating_add)
    }

    /// The part of so much room that the peer gets for one model, by what all peers lately sent and
    /// now hold for models that share replicas: whole requests, by largest remainders.
    fn share_of(
        &self,
        slot: PeerSlot,
        offer: &Offer<'_>,
        offers: &[Offer<'_>],
        room: u64,
        now: Instant,
    ) -> u64 {
        let mut weights = Vec::new();
        let mut own = 0;
        for (index, other) in beside(offer, offers) {
            for (peer_slot, peer) in self.peers() {
                let idle = other.unshared == 0 && self.shares(peer_slot);
                if peer.removed || peer.isolated || idle {
                    continue;
                }
                if peer_slot == slot && other.id == offer.id {
                    own = weights.len();
                }
                let model = offers[index].model.name();
                let demand = peer.lanes.get(model).map_or(0, |lane| lane.demand(now));
                // One who has sent nothing yet must be able to begin.
                weights.push(match leaving_demand(peer, model, now) {
                    Some(demand) => demand.saturating_mul(LEAVING_WEIGHT),
                    None => 1 + demand,
                });
            }
        }
        let turn = usize::try_from(now.ns() / TURN_NS.ns()).unwrap_or(0);
        apportion(room, &weights, own, turn)
    }

    fn model_summary(
        &self,
        slot: PeerSlot,
        offer: &Offer<'_>,
        offers: &[Offer<'_>],
        local: &Local<'_>,
    ) -> ModelSummary {
        let pace = fleet_line(Some(offer.model), 0, local.config).pace();
        ModelSummary {
            model: offer.model.name().to_owned(),
            ready: offer.ready,
            limit: self.grant(slot, offer, offers, local.now),
            sent: 0,
            settled: 0,
            hold_len: u32::try_from(offer.hold_len).unwrap_or(u32::MAX),
            start_in_us: u32::try_from(offer.start_in_ns.ns() / 1_000).unwrap_or(u32::MAX),
            base_us: u32::try_from(pace.base_ns.ns() / 1_000).unwrap_or(u32::MAX),
            token_ns: pace.token_ns,
        }
    }
}

/// Requests held for models that no replica here serves.
fn held_elsewhere(local: &Local<'_>) -> Vec<(String, u32)> {
    let models = local.fleet.models();
    let elsewhere = models.filter(|(_, model)| model.serving().is_empty());
    elsewhere
        .map(|(id, model)| {
            let held = u32::try_from(local.hold.len_of(id)).unwrap_or(u32::MAX);
            (model.name().to_owned(), held)
        })
        .collect()
}

/// Two ascending runs have something in common.
fn intersect(mut a: &[ReplicaSlot], mut b: &[ReplicaSlot]) -> bool {
    while let (Some((x, rest_a)), Some((y, rest_b))) = (a.split_first(), b.split_first()) {
        match x.cmp(y) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => a = rest_a,
            std::cmp::Ordering::Greater => b = rest_b,
        }
    }
    false
}

/// The models that share a replica with this one, itself included, with their places.
fn beside<'a>(
    offer: &'a Offer<'a>,
    offers: &'a [Offer<'a>],
) -> impl Iterator<Item = (usize, &'a Offer<'a>)> {
    offers.iter().enumerate().filter(|(_, other)| {
        other.id == offer.id || intersect(other.model.serving(), offer.model.serving())
    })
}

/// How much a peer that is evacuated lately sent and now holds for a model, if it does.
fn leaving_demand(peer: &Peer, model: &str, now: Instant) -> Option<u64> {
    let draining = peer.received.is_some_and(|received| received.draining);
    let lane = peer.lanes.get(model).filter(|_| draining)?;
    Some(lane.demand(now)).filter(|demand| *demand > 0)
}

/// The part of the one at `own` when `seats` are given out by weight, by largest remainders, and
/// among equal ones in order, beginning with another at each `turn`.
fn apportion(seats: u64, weights: &[u64], own: usize, turn: usize) -> u64 {
    let total = weights
        .iter()
        .map(|weight| u128::from(*weight))
        .sum::<u128>()
        .max(1);
    let whole = |weight: u64| u128::from(seats) * u128::from(weight);
    let floor = |weight: u64| u64::try_from(whole(weight) / total).unwrap_or(seats);
    let given: u64 = weights.iter().map(|weight| floor(*weight)).sum();
    let Some(weight) = weights.get(own) else {
        return 0;
    };
    let rest = whole(*weight) % total;
    let order = |place: usize| place.wrapping_add(turn) % weights.len();
    let before = weights.iter().enumerate().filter(|(place, other)| {
        let other = whole(**other) % total;
        other > rest || (other == rest && order(*place) < order(own))
    });
    let extra = (before.count() as u64) < seats - given;
    floor(*weight) + u64::from(extra)
}

#[cfg(test)]
mod tests {
    use super::apportion;

    #[test]
    fn all_seats_are_given_and_in_turns_where_they_are_fewer_than_equals() {
        for turn in 0..5 {
            let parts: Vec<_> = (0..3)
                .map(|own| apportion(1, &[1, 1, 1], own, turn))
                .collect();
            assert_eq!(parts.iter().sum::<u64>(), 1, "{turn}");
        }
        let mut begun: Vec<_> = (0..3)
            .flat_map(|turn| (0..3).filter(move |own| apportion(1, &[1, 1, 1], *own, turn) == 1))
            .collect();
        begun.sort_unstable();
        assert_eq!(begun, [0, 1, 2]);
        assert_eq!(
            apportion(1, &[1, 11], 1, 0),
            1,
            "whoever needs it goes first"
        );
        assert_eq!(apportion(1, &[1, 11], 1, 1), 1);
    }
}
