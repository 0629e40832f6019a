//! Peers' figures for operators.

use super::Mesh;
use super::listing::PeerGauges;
use crate::engine::config::Config;
use crate::time::Instant;

impl Mesh {
    /// All peers' figures, in the order of their ids.
    #[must_use]
    pub(in crate::engine) fn gauges(&self, config: &Config, now: Instant) -> Vec<PeerGauges> {
        let listed = self.peers().filter(|(_, peer)| !peer.removed);
        let mut gauges: Vec<_> = listed
            .map(|(slot, peer)| {
                let max = config.peer_hold_max;
                let lanes = peer.lanes.iter();
                let digest = self.digest_of(slot, now);
                PeerGauges {
                    peer: peer.id,
                    name: peer.name.clone(),
                    region: peer.region.clone(),
                    state: peer.presence.name(),
                    available: peer.listed() && peer.available(now),
                    draining: peer.received.is_some_and(|received| received.draining),
                    isolated: peer.isolated,
                    rtt_ns: peer.rtt_ns(),
                    jitter_ns: peer.jitter_ns(),
                    age_ns: peer.age_ns(now),
                    room: total(lanes.clone().map(|(model, _)| peer.room(model, max, now))),
                    granted: total(lanes.map(|(_, lane)| lane.credit.left(now))),
                    hold_requests: peer.received.map_or(0, |received| received.hold_len),
                    in_flight: peer.in_flight,
                    forwarded_total: peer.counts.forwarded,
                    arrived_total: peer.counts.arrived,
                    ok_total: peer.counts.ok,
                    refused_total: peer.counts.refused,
                    failed_total: peer.counts.failed,
                    client_left_total: peer.counts.client_left,
                    tree_blocks: self.tree.owner_blocks(slot.number()),
                    digest_prefixes: digest
                        .map_or(0, |(len, _)| u32::try_from(len).unwrap_or(u32::MAX)),
                    digest_age_ns: digest.map(|(_, age_ns)| age_ns),
                    digest_hits_total: peer.counts.digest_hits,
                    digest_tokens_total: peer.counts.digest_tokens,
                    digest_tokens_found_total: peer.counts.digest_tokens_found,
                }
            })
            .collect();
        gauges.sort_unstable_by_key(|gauges| gauges.peer);
        gauges
    }
}

/// A sum of what peers say: they may say anything.
fn total(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}
