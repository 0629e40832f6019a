//! Requests that leave a replica or a region at a time: which may, in what order, and how many now.

use super::Requests;
use super::request::{Phase, Request};
use crate::engine::demand::Demand;
use crate::id::{ModelId, PeerSlot, ReplicaSlot, RequestId};

/// What is left.
#[derive(Debug, Clone)]
pub(in crate::engine) enum Origin {
    Replica(ReplicaSlot),
    /// All replicas here: the region of this balancer.
    Home,
    /// A region of these peers.
    Peers(Vec<PeerSlot>),
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

/// Whose room it is: a model's, in regions that may be used.
type Key = (Option<ModelId>, u64);

fn key_of(demand: &Demand) -> Key {
    (demand.model, demand.regions)
}

/// Room elsewhere that has not been given to those who leave, and whether one of them waits for more.
#[derive(Debug, Default)]
pub(in crate::engine) struct Room(Vec<(Key, u64, bool)>);

impl Room {
    /// Takes room for one request, or the one place of those that wait; whether there was some. `all`: how much room
    /// there is at first, and whether one waits.
    pub(in crate::engine) fn take(
        &mut self,
        demand: &Demand,
        all: impl FnOnce() -> (u64, bool),
    ) -> bool {
        let key = key_of(demand);
        let known = self.0.iter().position(|(of, ..)| *of == key);
        let position = known.unwrap_or_else(|| {
            let (left, waits) = all();
            self.0.push((key, left, waits));
            self.0.len() - 1
        });
        let (_, left, waits) = &mut self.0[position];
        let found = *left > 0;
        *left = left.saturating_sub(1);
        found || !std::mem::replace(waits, true)
    }
}

impl Requests {
    /// What may leave, the oldest first.
    pub(in crate::engine) fn leaving(&self, origin: &Origin) -> Vec<RequestId> {
        let leaving = self
            .iter()
            .filter(|(_, request)| origin.is_left_by(request));
        let mut leaving: Vec<_> = leaving.map(|(id, request)| (request.age, id)).collect();
        leaving.sort_unstable();
        leaving.into_iter().map(|(_, id)| id).collect()
    }

    /// A stream that was given up waits for a place to go on, which may be where this one could go.
    pub(in crate::engine) fn one_waits(&self, demand: &Demand) -> bool {
        let waits = |request: &Request| {
            let held = matches!(request.phase, Phase::Held { .. });
            held && request.is_cut() && key_of(&request.demand) == key_of(demand)
        };
        self.iter().any(|(_, request)| waits(request))
    }

    /// Of the requests at replicas here: how many there are, how many of them would end there whatever an
    /// operator wants, and how many are peers', which go on where their balancers let them.
    pub(in crate::engine) fn staying(&self) -> (usize, usize, usize) {
        let (mut all, mut stay, mut of_peers) = (0, 0, 0);
        for (_, request) in self.iter() {
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
}
