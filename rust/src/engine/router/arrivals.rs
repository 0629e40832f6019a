//! Requests that come from a peer, or from our own clients: what is counted, and what is refused at
//! once.

use super::Router;
use crate::engine::demand::Lane;
use crate::engine::refusal::Refusal;
use crate::engine::requests::request::Request;
use crate::id::PeerId;
use crate::time::Instant;

impl Router {
    /// Counts the arrival of a forward, or of a request of our own clients.
    pub(super) fn arrive(
        &mut self,
        origin: Option<PeerId>,
        model: &str,
        (hop, granted): (u8, bool),
        now: Instant,
    ) {
        if hop == 0 {
            self.fleet.count_arrival(model, now);
            return;
        }
        self.counters.forwards_arrived += 1;
        let slot = origin.and_then(|origin| self.mesh.slot(origin));
        match slot {
            Some(slot) => self.mesh.arrive(slot, model, granted, now),
            None => self.counters.unknown_peers += 1,
        }
    }

    /// Why a request that came from a peer is refused at once, if it is.
    pub(super) fn refuses_forward(&self, request: &Request, forwarded: bool) -> Option<Refusal> {
        if !forwarded {
            return None;
        }
        let held = request.demand.model.map_or(0, |model| {
            self.hold.calls_of(model, &self.config, self.clock.now)
        });
        let over = request.demand.lane == Lane::Batch && held > self.config.peer_hold_max as usize;
        let busy =
            |code, text: &str| Refusal::new(code, text).retry_after(self.config.retry_after_s);
        if self.mesh.evacuating() {
            let text = "This region takes no requests from others.";
            Some(busy("evacuating", text))
        } else if over {
            let text = "Too many requests are waiting already.";
            Some(busy("peer_hold_max", text))
        } else {
            None
        }
    }
}
