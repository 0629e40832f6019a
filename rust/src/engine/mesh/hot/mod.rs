//! Prefixes that are hot here and at peers: what is sent of them, and what is received.

pub mod digest;
pub mod heat;
pub mod known;
pub mod places;

use serde::Serialize;

use self::digest::{DIGEST_BYTES_MAX, DigestError, PeerDigest};
use self::heat::{Heat, SPOTS_MAX, Terms};
use self::known::Known;
use self::places::Namer;
use super::key::KEY_BYTES;
use super::{Local, Mesh};
use crate::engine::config::Config;
use crate::engine::demand::Demand;
use crate::id::{PeerId, PeerSlot, ReplicaSlot};
use crate::time::{Instant, Span};

/// Bytes per second of digests told to one peer, at most.
const BYTES_PER_S_MAX: u64 = 16 << 10;

/// What is hot here, and what peers have told.
#[derive(Debug)]
pub(in crate::engine) struct Hot {
    heat: Heat,
    known: Known,
}

/// What is known of hot prefixes, for operators.
#[derive(Debug, Serialize)]
pub(in crate::engine) struct HotState {
    /// Places whose heat is known here.
    places: usize,
    places_max: usize,
    /// Prefixes in our own digest.
    prefixes: usize,
    /// Memory of both, and of what peers have told.
    bytes: usize,
}

impl Mesh {
    /// Nothing that this peer told of its prefixes counts any more.
    pub(super) fn forget_hot(&mut self, slot: PeerSlot) {
        if let Some(hot) = &mut self.hot {
            hot.known.forget(slot);
        }
    }
}

impl Mesh {
    /// Tells peers which prefixes are hot here, and believes them. See
    /// [`crate::engine::router::Router::set_peer_digest`].
    pub(in crate::engine) fn set_hot(&mut self, key: &[u8; KEY_BYTES], terms: Terms) {
        let bytes_max = terms.bytes_max.min(DIGEST_BYTES_MAX) as u64;
        let terms = Terms {
            interval_ns: terms
                .interval_ns
                .max(bytes_max * Span::from_secs(1) / BYTES_PER_S_MAX),
            ..terms
        };
        let namer = Namer::new(key);
        self.hot = Some(Hot {
            heat: Heat::new(namer, terms),
            known: Known::new(namer, terms.age_max_ns),
        });
    }

    pub(in crate::engine) fn hot_state(&self) -> Option<HotState> {
        let Hot { heat, known } = self.hot.as_ref()?;
        Some(HotState {
            places: heat.places_len(),
            places_max: SPOTS_MAX,
            prefixes: heat.told_len(),
            bytes: heat.bytes() + known.bytes(),
        })
    }

    /// Places left out of our own digests for want of room.
    pub(in crate::engine) fn hot_left_out(&self) -> u64 {
        self.hot.as_ref().map_or(0, |hot| hot.heat.left_out)
    }

    /// Hot prefixes that a peer has told, and how long ago.
    pub(in crate::engine) fn digest_of(
        &self,
        slot: PeerSlot,
        now: Instant,
    ) -> Option<(usize, Span)> {
        self.hot.as_ref()?.known.reported(slot, now)
    }

    /// A request is pushed to a replica that caches so many blocks of its prompt.
    pub(in crate::engine) fn count_hot(
        &mut self,
        demand: &Demand,
        slot: ReplicaSlot,
        match_blocks: u32,
        now: Instant,
    ) {
        if let Some(hot) = &mut self.hot {
            hot.heat
                .count(&demand.blocks, match_blocks, demand.key, slot, now);
        }
    }

    /// Whether a peer should be told of hot prefixes now.
    pub(in crate::engine) fn hot_due(&mut self, peer: PeerId, local: &Local<'_>) -> bool {
        let Some(hot) = &mut self.hot else {
            return false;
        };
        hot.heat.renew(local.now, |slot| {
            let member = local.fleet.member(slot);
            member.is_some_and(|member| member.ready(local.config, local.now))
        });
        let sequence = hot.heat.sequence();
        let own = &self.region;
        self.remote_of(peer).is_some_and(|(_, remote)| {
            // Balancers of one region see its replicas themselves.
            remote.peer.listed() && remote.peer.region != *own && remote.hot_sent != sequence
        })
    }

    /// What to tell a peer of hot prefixes; `None` where nothing is told.
    pub(in crate::engine) fn hot_digest(
        &mut self,
        slot: PeerSlot,
        config: &Config,
    ) -> Option<Vec<u8>> {
        let heat = &self.hot.as_ref()?.heat;
        let block_bytes = u32::try_from(config.block_bytes).unwrap_or(u32::MAX);
        let digest = heat.digest(block_bytes, self.incarnation);
        if digest.sequence == 0 {
            return None;
        }
        self.remotes.get_mut(slot.index())?.hot_sent = digest.sequence;
        Some(digest.encode())
    }

    /// Takes over what a peer told of its hot prefixes; false where nothing of it is to be taken.
    pub(in crate::engine) fn merge_hot(
        &mut self,
        slot: PeerSlot,
        digest: &[u8],
        config: &Config,
        now: Instant,
    ) -> Result<bool, DigestError> {
        let digest = PeerDigest::decode(digest)?;
        let Some(peer) = self.peer(slot) else {
            return Err(DigestError::Unknown);
        };
        if digest.block_bytes as usize != config.block_bytes {
            return Err(DigestError::Blocks(digest.block_bytes));
        }
        if digest.incarnation < peer.last_received().0 {
            return Err(DigestError::Old);
        }
        if peer.isolated || peer.removed {
            return Ok(false);
        }
        let Some(hot) = &mut self.hot else {
            return Ok(false);
        };
        hot.known.merge(slot, digest, now)?;
        Ok(true)
    }

    /// A peer's summary was taken over: if it has started anew, it knows nothing of us, nor has what
    /// it had.
    pub(super) fn peer_started(&mut self, slot: PeerSlot) {
        let Some(remote) = self.remotes.get_mut(slot.index()) else {
            return;
        };
        let (incarnation, _) = remote.peer.last_received();
        if remote.hot_sent_start != incarnation {
            remote.hot_sent_start = incarnation;
            remote.hot_sent = 0;
        }
        if let Some(hot) = &mut self.hot {
            hot.known.restarted(slot, incarnation);
        }
    }

    /// Calls `found` with each of these peers that has told of leading blocks, and how many.
    pub(in crate::engine) fn reported_matches(
        &self,
        blocks: &[u64],
        slots: &[PeerSlot],
        now: Instant,
        found: impl FnMut(PeerSlot, u32),
    ) {
        let Some(hot) = self.hot.as_ref() else {
            return;
        };
        let bit = |slot: PeerSlot| 1_u64.checked_shl(slot.number()).unwrap_or(0);
        let wanted = slots.iter().fold(0, |slots, slot| slots | bit(*slot));
        hot.known.find(blocks, wanted, now, found);
    }

    pub(in crate::engine) fn check_hot(&self) -> Result<(), String> {
        let hot = self.hot.as_ref();
        hot.map_or(Ok(()), |hot| hot.known.check_invariants())
    }
}
