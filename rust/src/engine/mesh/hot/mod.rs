//! Prefixes that are hot here and at peers: what is sent of them, and what is received.

pub mod digest;
pub mod heat;
pub mod known;
pub mod places;

use serde::Serialize;

use crate::engine::choose::peer::Target;
use crate::engine::choose::policy::Slot;
use crate::engine::config::Policy;
use crate::engine::mesh::Mesh;
use crate::engine::mesh::hot::digest::{DIGEST_BYTES_MAX, DigestError, PeerDigest};
use crate::engine::mesh::hot::heat::{Heat, SPOTS_MAX, Terms};
use crate::engine::mesh::hot::known::Known;
use crate::engine::mesh::hot::places::{KEY_BYTES, Namer};
use crate::engine::requests::request::{Away, Request, Usage};
use crate::engine::router::Router;
use crate::id::{Nanos, PeerId};

/// Bytes per second of digests told to one peer, at most.
const BYTES_PER_S_MAX: u64 = 16 << 10;

/// What is hot here, and what peers have told.
#[derive(Debug)]
pub(in crate::engine) struct Hot {
    pub(in crate::engine) heat: Heat,
    pub(in crate::engine) known: Known,
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
    pub(in crate::engine) fn forget_hot(&mut self, slot: Slot) {
        if let Some(hot) = &mut self.hot {
            hot.known.forget(slot);
        }
    }
}

impl Router {
    /// Tells peers which prefixes are hot here, and believes them. `key`: what all balancers of the
    /// mesh share; their secrets must be one too. Without this call nothing is told or believed.
    /// Large digests are told more rarely than `terms` say: at most [`BYTES_PER_S_MAX`].
    pub fn set_peer_digest(&mut self, key: &[u8; KEY_BYTES], terms: Terms) {
        let bytes_max = terms.bytes_max.min(DIGEST_BYTES_MAX) as u64;
        let terms = Terms {
            interval_ns: terms
                .interval_ns
                .max(bytes_max * 1_000_000_000 / BYTES_PER_S_MAX),
            ..terms
        };
        let namer = Namer::new(key);
        self.mesh.hot = Some(Hot {
            heat: Heat::new(namer, terms),
            known: Known::new(namer, terms.age_max_ns),
        });
    }

    pub(in crate::engine) fn hot_state(&self) -> Option<HotState> {
        let Hot { heat, known } = self.mesh.hot.as_ref()?;
        Some(HotState {
            places: heat.places_len(),
            places_max: SPOTS_MAX,
            prefixes: heat.told_len(),
            bytes: heat.bytes() + known.bytes(),
        })
    }

    /// A request is pushed to a replica that caches so many blocks of its prompt.
    pub(in crate::engine) fn count_heat(
        &mut self,
        request: &Request,
        slot: Slot,
        match_blocks: u32,
        now_ns: Nanos,
    ) {
        if let Some(hot) = &mut self.mesh.hot {
            hot.heat
                .count(&request.blocks, match_blocks, request.key, slot, now_ns);
        }
    }

    /// Whether this peer should be told of hot prefixes now.
    pub fn peer_digest_due(&mut self, peer: PeerId, now_ns: Nanos) -> bool {
        let now_ns = self.advance(now_ns);
        let Some(hot) = &mut self.mesh.hot else {
            return false;
        };
        let (fleet, config) = (&self.fleet, &self.config);
        hot.heat.renew(now_ns, |slot| {
            let member = fleet.member(slot);
            member.is_some_and(|member| member.ready(config, now_ns))
        });
        let sequence = hot.heat.sequence();
        let own = &self.mesh.region;
        self.remote_of(peer).is_some_and(|(_, remote)| {
            // Balancers of one region see its replicas themselves.
            remote.peer.listed() && remote.peer.region != *own && remote.told_hot != sequence
        })
    }

    /// What to tell this peer of hot prefixes; `None` for one that is not known, or where nothing
    /// is told.
    pub fn peer_digest(&mut self, peer: PeerId, now_ns: Nanos) -> Option<Vec<u8>> {
        self.advance(now_ns);
        let slot = self.known_peer(peer)?;
        let heat = &self.mesh.hot.as_ref()?.heat;
        let block_bytes = u32::try_from(self.config.block_bytes).unwrap_or(u32::MAX);
        let digest = heat.digest(block_bytes, self.mesh.incarnation);
        if digest.sequence == 0 {
            return None;
        }
        self.mesh.remotes.get_mut(slot as usize)?.told_hot = digest.sequence;
        self.counters.peer_digests_told += 1;
        Some(digest.encode())
    }

    /// What a peer told of its hot prefixes. Of one that is isolated nothing is taken, nor where
    /// digests are off.
    ///
    /// # Errors
    ///
    /// It cannot be read, cannot be compared, or is not newer than what it told before: nothing
    /// happened.
    pub fn merge_peer_digest(
        &mut self,
        peer: PeerId,
        digest: &[u8],
        now_ns: Nanos,
    ) -> Result<(), DigestError> {
        let now_ns = self.advance(now_ns);
        let slot = self.known_peer(peer).ok_or(DigestError::Unknown)?;
        let merged = self.merge_hot(slot, digest, now_ns);
        self.counters.peer_digests_refused += u64::from(merged.is_err());
        merged
    }

    fn merge_hot(&mut self, slot: Slot, digest: &[u8], now_ns: Nanos) -> Result<(), DigestError> {
        let digest = PeerDigest::decode(digest)?;
        let Some(peer) = self.mesh.peer(slot) else {
            return Err(DigestError::Unknown);
        };
        if digest.block_bytes as usize != self.config.block_bytes {
            return Err(DigestError::Blocks(digest.block_bytes));
        }
        if digest.incarnation < peer.last_heard().0 {
            return Err(DigestError::Old);
        }
        if peer.isolated || peer.removed {
            return Ok(());
        }
        let Some(hot) = &mut self.mesh.hot else {
            return Ok(());
        };
        hot.known.merge(slot, digest, now_ns)?;
        self.counters.peer_digests_merged += 1;
        Ok(())
    }

    /// A peer's summary was taken over: if it has started anew, it knows nothing of us, nor has what
    /// it had.
    pub(in crate::engine) fn heard_of_start(&mut self, slot: Slot) {
        let Some(remote) = self.mesh.remotes.get_mut(slot as usize) else {
            return;
        };
        let (incarnation, _) = remote.peer.last_heard();
        if remote.told_hot_start != incarnation {
            remote.told_hot_start = incarnation;
            remote.told_hot = 0;
        }
        if let Some(hot) = &mut self.mesh.hot {
            hot.known.restarted(slot, incarnation);
        }
    }

    /// Raises targets' matches to what the peers have told.
    pub(in crate::engine) fn note_told(
        &self,
        request: &Request,
        targets: &mut [Target],
        now_ns: Nanos,
    ) {
        let reads = matches!(self.config.policy, Policy::Prefix | Policy::Predictive);
        let Some(hot) = self.mesh.hot.as_ref().filter(|_| reads) else {
            return;
        };
        let bit = |slot: Slot| 1_u64.checked_shl(slot).unwrap_or(0);
        let wanted = targets
            .iter()
            .fold(0, |slots, target| slots | bit(target.slot));
        hot.known
            .find(&request.blocks, wanted, now_ns, |slot, depth| {
                let target = targets.iter_mut().find(|target| target.slot == slot);
                if let Some(target) = target.filter(|target| target.match_blocks < depth) {
                    target.match_blocks = depth;
                    target.told = true;
                }
            });
    }

    /// A forward that was chosen by what its peer told was answered: whether that was true.
    pub(in crate::engine) fn confirm_told(&mut self, away: &Away, usage: Usage) {
        if let (Some(told), Some(cached), Some(peer)) = (
            away.told_tokens,
            usage.cached_tokens,
            self.mesh.peer_mut(away.slot),
        ) {
            let found = told.min(cached);
            peer.counts.told_tokens += u64::from(told);
            peer.counts.told_tokens_found += u64::from(found);
            self.counters.peer_digest_tokens += u64::from(told);
            self.counters.peer_digest_tokens_found += u64::from(found);
        }
    }
}
