//! Which peer gets a request that is to leave.
//!
//! Source: the paper's algorithm, steps 2 to 4 (arXiv:2505.24095, section 3). Local replicas with
//! room come first. Else it is a peer that has room and holds no more than a bound, by the same
//! rule as among replicas. There is one hop. Ours: room is granted to each origin, not advertised,
//! and the round trip counts, which the published code ignores.

use std::cmp::Reverse;

use super::candidates::matched_tokens;
use super::policy::PeerRule;
use super::selection::{Here, Selection};
use super::{Chooser, Seeker, Sight, mem};
use crate::engine::config::Config;
use crate::engine::demand::Lane;
use crate::engine::fleet::forecast::{Estimate, Expected};
use crate::engine::mesh::Mesh;
use crate::engine::plant::Plant;
use crate::engine::receipts::decision::{Compared, PeerNote, Peers};
use crate::id::PeerSlot;
use crate::time::Span;

/// A peer that has granted room for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct PeerCandidate {
    slot: PeerSlot,
    /// The round trip; 0 is unknown.
    rtt_ns: Span,
    /// Forwards from here that have not ended.
    in_flight: u32,
    /// Leading blocks of the prompt that it is believed to cache.
    match_blocks: u32,
    /// It reported so itself; else it is known from what went there.
    reported: bool,
    /// Predicted time to the first byte, the way included; for [`PeerRule::Time`] only.
    ttft_ns: Span,
}

/// Buffers used again from choice to choice.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    targets: Vec<PeerCandidate>,
    matches: Vec<(PeerSlot, u32)>,
}

/// The peer for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct There {
    pub(in crate::engine) slot: PeerSlot,
    pub(in crate::engine) match_blocks: u32,
    /// It is chosen for them, and has reported of them itself.
    pub(in crate::engine) reported: bool,
    /// Predicted time to the first byte, the way included.
    ttft_ns: Span,
}

impl Chooser {
    /// The peer that a request may be forwarded to now, if there is one. `by_reports`: what peers
    /// have reported of their prefixes counts.
    pub(in crate::engine) fn find_peer(
        &mut self,
        seeker: Seeker<'_>,
        by_reports: bool,
        mesh: &mut Mesh,
        sight: &mut Sight<'_>,
    ) -> Option<There> {
        let stays = seeker.stays && !sight.config.planted(Plant::CrossedTwice);
        if mesh.is_empty() || stays || had_better_stay(seeker, mesh, sight) {
            return None;
        }
        let mut scratch = mem::take(&mut self.peers);
        look_at_peers(seeker, mesh, sight, &mut scratch.targets);
        let found = choose_peer(seeker, by_reports, &mut scratch, mesh, sight);
        if let Some(receipts) = &mut self.receipts {
            let peers = noted(seeker, found, &scratch.targets, mesh, sight);
            receipts.looked_at_peers(seeker.age, peers);
        }
        self.peers = scratch;
        found
    }

    /// The peer that answers sooner than the replica that was found, by more than `leave_gain_s` and
    /// `leave_gain_ratio`; for [`PeerRule::Time`] only.
    ///
    /// What peers have reported of their prefixes does not count here: a prefix that is computed here
    /// once is cached here, while a session that leaves pays the way at every turn.
    pub(in crate::engine) fn faster_peer(
        &mut self,
        seeker: Seeker<'_>,
        found: Selection,
        mesh: &mut Mesh,
        sight: &mut Sight<'_>,
    ) -> Option<There> {
        let config = sight.config;
        let compared = seeker.demand.lane == Lane::Batch && !seeker.stays;
        let by_time = config.policy.traits().peer_rule == PeerRule::Time;
        if !by_time || mesh.is_empty() || !compared {
            return None;
        }
        let (Selection::Here(Here { slot, .. }) | Selection::Awaits { slot }) = found else {
            return None;
        };
        let blocks = self.match_blocks(slot);
        let tokens = matched_tokens(sight.cache, sight.fleet, seeker.demand, blocks);
        let matched = (blocks, tokens);
        let forecast = sight
            .fleet
            .forecast(seeker.demand, slot, matched, config, sight.now);
        let there = self.find_peer(seeker, false, mesh, sight)?;
        let gain_ns = forecast.ttft_ns - there.ttft_ns;
        let share = gain_ns.ns_f64() / forecast.ttft_ns.max(Span::from_ns(1)).ns_f64();
        let leaves = gain_ns > config.leave_gain_ns && share > config.leave_gain_ratio;
        if let Some(receipts) = &mut self.receipts {
            let here_ns = forecast.ttft_ns;
            receipts.compared(seeker.age, Compared { here_ns, leaves });
        }
        leaves.then_some(there)
    }
}

/// All peers as receipts keep them; `targets`: those that were candidates.
fn noted(
    seeker: Seeker<'_>,
    found: Option<There>,
    targets: &[PeerCandidate],
    mesh: &Mesh,
    sight: &Sight<'_>,
) -> Peers {
    let (demand, config, now) = (seeker.demand, sight.config, sight.now);
    let best = found.and_then(|there| Some(mesh.peer(there.slot)?.id));
    let by_time = config.policy.traits().peer_rule == PeerRule::Time;
    let mut peers = Peers {
        at_ns: now,
        best,
        ..Peers::default()
    };
    let name = sight.fleet.name_of(demand.model).unwrap_or_default();
    for (slot, peer) in mesh.peers() {
        let target = targets.iter().find(|target| target.slot == slot);
        let closed = || {
            if !demand.may_use(peer.region_bit) {
                "residency"
            } else if seeker.tried_peers.contains(&peer.id) {
                "tried"
            } else {
                peer.closed_to(name, config.peer_hold_max, now)
            }
        };
        peers.add(PeerNote {
            peer: peer.id,
            rtt_ns: peer.rtt_ns().unwrap_or_default(),
            room: peer.room(name, config.peer_hold_max, now),
            in_flight: peer.in_flight,
            match_blocks: target.map_or(0, |target| target.match_blocks),
            reported: target.is_some_and(|target| target.reported),
            ttft_ns: target.filter(|_| by_time).map(|target| target.ttft_ns),
            closed: target.is_none().then(closed),
        });
    }
    peers
}

/// What is kept of its answer is found again here, where a replica is ready for it.
fn had_better_stay(seeker: Seeker<'_>, mesh: &Mesh, sight: &Sight<'_>) -> bool {
    seeker.rather_here && !mesh.evacuating() && is_served_here(seeker, sight)
}

/// A replica here is ready for the request, with room or without.
fn is_served_here(seeker: Seeker<'_>, sight: &Sight<'_>) -> bool {
    let demand = seeker.demand;
    sight.fleet.serving(demand.model).iter().any(|slot| {
        let member = sight.fleet.member(*slot);
        member.is_some_and(|member| {
            demand.may_use(member.region_bit())
                && !demand.tried.contains(&member.id())
                && member.ready(sight.config, sight.now)
        })
    })
}

/// Fills the targets with the peers that have room for the request.
fn look_at_peers(
    seeker: Seeker<'_>,
    mesh: &Mesh,
    sight: &Sight<'_>,
    targets: &mut Vec<PeerCandidate>,
) {
    targets.clear();
    let (demand, config, now) = (seeker.demand, sight.config, sight.now);
    let Some(model) = sight.fleet.name_of(demand.model) else {
        return;
    };
    let again = only_tried_peers_serve(seeker, model, mesh, sight);
    let anywhere = config.planted(Plant::ResidencyForgotten);
    let for_ever = config.planted(Plant::StaleBelieved);
    for (slot, peer) in mesh.peers() {
        let lane = peer.lanes.get(model).filter(|_| for_ever);
        let room = match lane {
            Some(lane) => lane.limit.saturating_sub(lane.sent),
            None if demand.lane.takes_room() => peer.room(model, config.peer_hold_max, now),
            None => u64::from(peer.serves(model, now)),
        };
        if (anywhere || demand.may_use(peer.region_bit))
            && (again || !seeker.tried_peers.contains(&peer.id))
            && room > 0
        {
            targets.push(PeerCandidate {
                slot,
                rtt_ns: peer.rtt_ns().unwrap_or_default(),
                in_flight: peer.in_flight,
                ..PeerCandidate::default()
            });
        }
    }
}

/// Peers that have failed it are all that could serve it: one is better tried again, with its other
/// replicas, than the request held for nothing.
fn only_tried_peers_serve(seeker: Seeker<'_>, model: &str, mesh: &Mesh, sight: &Sight<'_>) -> bool {
    let demand = seeker.demand;
    if seeker.tried_peers.is_empty() {
        return false;
    }
    let here = sight.fleet.serving(demand.model).iter().any(|slot| {
        let member = sight.fleet.member(*slot);
        member.is_some_and(|member| demand.may_use(member.region_bit()))
    });
    let untried = mesh.peers().any(|(_, peer)| {
        demand.may_use(peer.region_bit)
            && !seeker.tried_peers.contains(&peer.id)
            && peer.serves(model, sight.now)
    });
    !here && !untried
}

fn choose_peer(
    seeker: Seeker<'_>,
    by_reports: bool,
    scratch: &mut Scratch,
    mesh: &mut Mesh,
    sight: &Sight<'_>,
) -> Option<There> {
    let Scratch { targets, matches } = scratch;
    if targets.is_empty() {
        return None;
    }
    let (demand, config) = (seeker.demand, sight.config);
    let traits = config.policy.traits();
    matches.clear();
    mesh.matches(&demand.blocks, matches);
    for target in targets.iter_mut() {
        let found = matches.iter().find(|(owner, _)| *owner == target.slot);
        target.match_blocks = found.map_or(0, |(_, blocks)| *blocks);
    }
    if by_reports && matches!(traits.peer_rule, PeerRule::Match | PeerRule::Time) {
        let slots = targets.iter().map(|target| target.slot).collect::<Vec<_>>();
        mesh.reported_matches(&demand.blocks, &slots, sight.now, |slot, blocks| {
            let target = targets.iter_mut().find(|target| target.slot == slot);
            if let Some(target) = target.filter(|target| target.match_blocks < blocks) {
                target.match_blocks = blocks;
                target.reported = true;
            }
        });
    }
    let by_time = traits.peer_rule == PeerRule::Time;
    let expected = sight.fleet.expected(demand, config);
    for target in targets.iter_mut().filter(|_| by_time) {
        target.ttft_ns = ttft_there_ns(seeker, target, &expected, mesh, sight);
    }
    let threshold = config.match_threshold * f64::from(demand.prompt_blocks);
    let on_ring = first_on_ring(seeker, targets, mesh, config);
    let position = best(targets, traits.peer_rule, threshold, on_ring)?;
    let matched = f64::from(targets[position].match_blocks) > threshold;
    Some(There {
        slot: targets[position].slot,
        match_blocks: targets[position].match_blocks,
        reported: targets[position].reported && (by_time || matched),
        ttft_ns: targets[position].ttft_ns,
    })
}

/// Time until the first byte of the peer's answer is here: the way, the wait there, and what is not
/// cached there, at the speed that the peer tells.
fn ttft_there_ns(
    seeker: Seeker<'_>,
    target: &PeerCandidate,
    expected: &Expected<'_>,
    mesh: &Mesh,
    sight: &Sight<'_>,
) -> Span {
    let name = sight.fleet.name_of(seeker.demand.model);
    let peer = mesh.peer(target.slot);
    let lane = peer.zip(name).and_then(|(peer, name)| peer.lanes.get(name));
    let Some(lane) = lane else {
        return Span::MAX;
    };
    let estimate = Estimate {
        start_in_ns: target.rtt_ns + lane.start_in_ns,
        base_ns: Span::from_ns(lane.base_ns.into()),
        prefill: expected.uncached(target.match_blocks),
        token_ns: lane.token_ns,
    };
    estimate.ttft_ns()
}

/// The position of the first target from the key's place on the ring of peers.
fn first_on_ring(
    seeker: Seeker<'_>,
    targets: &[PeerCandidate],
    mesh: &Mesh,
    config: &Config,
) -> Option<usize> {
    if config.policy.traits().peer_rule != PeerRule::Ring {
        return None;
    }
    mesh.walk(seeker.demand.key?)
        .find_map(|slot| targets.iter().position(|target| target.slot == slot))
}

/// The position of the peer that gets the request; `None` without targets.
///
/// [`PeerRule::Match`]: the longest match of more than `threshold_blocks`, otherwise the nearest.
/// [`PeerRule::Ring`]: `on_ring`, the first target on the ring of peers. [`PeerRule::Time`]: the least
/// predicted time. [`PeerRule::Nearest`]: the nearest. Equals: the one with the fewest in flight.
fn best(
    targets: &[PeerCandidate],
    rule: PeerRule,
    threshold_blocks: f64,
    on_ring: Option<usize>,
) -> Option<usize> {
    let positions = 0..targets.len();
    let near = |position: &usize| (targets[*position].rtt_ns, targets[*position].in_flight);
    let nearest = positions.clone().min_by_key(near)?;
    let found = match rule {
        PeerRule::Match => positions
            .max_by_key(|position| (targets[*position].match_blocks, Reverse(near(position))))
            .filter(|position| targets[*position].match_blocks > 0)
            .filter(|position| f64::from(targets[*position].match_blocks) > threshold_blocks),
        PeerRule::Ring => on_ring,
        PeerRule::Time => {
            positions.min_by_key(|position| (targets[*position].ttft_ns, near(position)))
        }
        PeerRule::Nearest => None,
    };
    Some(found.unwrap_or(nearest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(slot: u32, rtt_ms: u64, match_blocks: u32) -> PeerCandidate {
        PeerCandidate {
            slot: slot.into(),
            rtt_ns: Span::from_ns(rtt_ms * 1_000_000),
            match_blocks,
            ttft_ns: Span::from_ns(
                rtt_ms * 1_000_000 + 1_000_000 * u64::from(10 - match_blocks) * 30,
            ),
            ..PeerCandidate::default()
        }
    }

    #[test]
    fn a_match_over_the_threshold_goes_before_the_nearest() {
        let targets = [target(0, 150, 6), target(1, 90, 0), target(2, 200, 6)];
        assert_eq!(best(&targets, PeerRule::Match, 5.0, None), Some(0));
        assert_eq!(best(&targets, PeerRule::Match, 6.0, None), Some(1));
        assert_eq!(best(&targets, PeerRule::Ring, 5.0, Some(2)), Some(2));
        assert_eq!(best(&targets, PeerRule::Ring, 5.0, None), Some(1), "no key");
        assert_eq!(best(&targets, PeerRule::Nearest, 5.0, None), Some(1));
        assert_eq!(best(&targets, PeerRule::Time, 5.0, None), Some(0));
        assert_eq!(best(&[], PeerRule::Match, 5.0, None), None);
    }

    #[test]
    fn of_equally_near_peers_the_one_with_fewest_in_flight_is_chosen() {
        let busy = PeerCandidate {
            in_flight: 3,
            ..target(0, 90, 0)
        };
        let targets = [busy, target(1, 90, 0)];
        assert_eq!(best(&targets, PeerRule::Match, 0.0, None), Some(1));
    }
}
