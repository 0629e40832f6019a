//! Why nothing is sent to a peer.

use super::{Peer, Presence};
use crate::time::Instant;

impl Peer {
    /// What keeps a request for this model from it, in one word.
    #[must_use]
    pub fn closed_to(&self, model: &str, hold_max: u32, now: Instant) -> &'static str {
        let lane = self.lanes.get(model).filter(|lane| lane.ready > 0);
        let received = self.received.as_ref();
        if self.removed {
            "removed"
        } else if self.isolated {
            "isolated"
        } else if self.presence != Presence::Alive {
            self.presence.name()
        } else if received.is_none_or(|received| !received.knows_us) {
            "unheard"
        } else if received.is_some_and(|received| received.draining) {
            "draining"
        } else if now < self.shut_until_ns {
            "failed_lately"
        } else if !self.available(now) {
            "stale"
        } else if let Some(lane) = lane {
            if lane.hold_len > hold_max {
                "peer_hold_max"
            } else {
                "no_room"
            }
        } else {
            "model"
        }
    }
}
