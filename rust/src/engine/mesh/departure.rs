//! Regions that streams leave at a time, as operators have ordered.

use super::Mesh;
use crate::engine::config::Config;
use crate::engine::fleet::notice::LOOK_NS;
use crate::id::PeerSlot;
use crate::time::Instant;

/// A region that streams leave.
#[derive(Debug)]
pub(super) struct Departure {
    region: String,
    /// When it is next looked at what is still there.
    look_ns: Instant,
}

impl Mesh {
    /// Streams leave this region at `at_ns`; `None`: they end there. Regions in which no balancer is known any
    /// more are forgotten.
    pub(in crate::engine) fn set_departure(&mut self, region: &str, at_ns: Option<Instant>) {
        let mut departures = std::mem::take(&mut self.departures);
        departures.retain(|known| known.region != region && self.knows(&known.region));
        if let Some(look_ns) = at_ns.filter(|_| self.knows(region)) {
            departures.push(Departure {
                region: region.to_owned(),
                look_ns,
            });
        }
        self.departures = departures;
    }

    fn knows(&self, region: &str) -> bool {
        self.region == region || self.peers().any(|(_, peer)| peer.region == region)
    }

    /// When it is next to be looked at what has to leave a region.
    pub(in crate::engine) fn next_departure_ns(&self) -> Option<Instant> {
        self.departures.iter().map(|of| of.look_ns).min()
    }

    /// The regions that have to be left by now, by the peers there. `None`: ours.
    pub(in crate::engine) fn departures_due(&mut self, now: Instant) -> Vec<Option<Vec<PeerSlot>>> {
        let due = self.departures.iter_mut().filter(|of| of.look_ns <= now);
        let due = due.map(|of| {
            of.look_ns = now + LOOK_NS;
            of.region.clone()
        });
        let due: Vec<String> = due.collect();
        let peers_of = |region: &String| {
            let there = self.peers().filter(|(_, peer)| peer.region == *region);
            (*region != self.region).then(|| there.map(|(slot, _)| slot).collect())
        };
        due.iter().map(peers_of).collect()
    }

    /// Replicas of peers in these regions that have room for a model, as far as it is granted.
    pub(in crate::engine) fn with_room(
        &self,
        model: &str,
        regions: u64,
        config: &Config,
        now: Instant,
    ) -> u64 {
        let usable = self
            .peers()
            .filter(|(_, peer)| peer.region_bit & regions != 0);
        let room = usable.map(|(_, peer)| {
            let ready = peer.lanes.get(model).map_or(0, |lane| lane.ready);
            peer.room(model, config.peer_hold_max, now)
                .min(u64::from(ready))
        });
        room.sum()
    }
}
