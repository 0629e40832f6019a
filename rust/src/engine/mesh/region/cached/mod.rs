//! Which prompts balancers of one region have pushed to the replicas that they share.
//!
//! Each sends each of the others what it pushed. So it does not matter which of them a session reaches. A
//! prompt is sent from the last place on up to which the other has its path already. So a turn of a
//! conversation costs as much as it is longer than the one before. What begins as others do costs its rest.
//!
//! | bound | kept by |
//! |---|---|
//! | bytes of a message | [`OUT_BYTES_MAX`]: of a longer prompt the beginning is sent, and more of it with its next turn |
//! | bytes per second | [`outbox::BYTES_PER_S_MAX`] for each peer: what does not fit is left out, and counted |
//! | places that are remembered as sent | [`outbox::TOLD_MAX`] for each peer; fewer where more balancers report to it |
//!
//! What is left out or lost costs hits only. A balancer may not find the place from which a prompt is sent.
//! Then it asks ([`Cached::asks`]), and gets what is pushed from then on from its beginning. A new connection
//! begins with the prompts that were pushed last to each replica, [`SEED_BYTES`] of each.

pub mod message;
pub mod outbox;

use xxhash_rust::xxh3::xxh3_64;

use self::message::{Cached, CachedError, Cover, Entry, Origin};
use self::outbox::{OUT_BYTES_MAX, Outbox};
use crate::engine::cache::PLACES_MAX;
use crate::engine::config::Config;
use crate::engine::demand::Demand;
use crate::engine::effect::Message;
use crate::engine::mesh::key::KEY_BYTES;
use crate::engine::mesh::{Local, Mesh};
use crate::id::{PeerSlot, ReplicaSlot};

/// Bytes told of one replica at the beginning of a connection.
pub const SEED_BYTES: usize = 8 << 10;

/// How messages are covered, and the number of the last one.
#[derive(Debug)]
pub(in crate::engine) struct RegionCache {
    cover: Cover,
    sequence: u64,
}

impl Mesh {
    /// Tells balancers of our region which prompts are pushed. `key`: bytes that all of them share.
    pub(in crate::engine) fn set_region_cache(&mut self, key: &[u8; KEY_BYTES]) {
        self.region_cache = Some(RegionCache {
            cover: Cover::new(key),
            sequence: 0,
        });
    }

    /// Calls `change` with the outbox of each peer that is told of this replica.
    fn each_outbox(&mut self, slot: ReplicaSlot, mut change: impl FnMut(&mut Outbox)) {
        if !self.tells_prompts() {
            return;
        }
        for (_, remote) in &mut self.remotes {
            let near = remote.peer.listed() && remote.peer.region == self.region;
            if near && remote.link.takes(Message::Cached) && remote.share.lists(slot) {
                change(&mut remote.share.cached);
            }
        }
    }

    /// Balancers of our region are told of prompts.
    pub(in crate::engine) fn tells_prompts(&self) -> bool {
        self.region_cache.is_some() && self.sharing.active
    }

    /// A prompt was pushed to a replica, of which so many blocks were in the tree before. How many of its
    /// blocks were left out, over all peers.
    pub(in crate::engine) fn note_prompt(
        &mut self,
        slot: ReplicaSlot,
        blocks: &[u64],
        depth: usize,
    ) -> u64 {
        let mut left_out = 0;
        self.each_outbox(slot, |outbox| {
            left_out += outbox.add(slot, (blocks, depth), OUT_BYTES_MAX) as u64;
        });
        left_out
    }

    /// A replica has computed an answer behind the prompt of a request. How many of its blocks were left
    /// out, over all peers.
    pub(in crate::engine) fn note_answer(
        &mut self,
        slot: ReplicaSlot,
        demand: &Demand,
        answer: &[u64],
    ) -> u64 {
        let mut left_out = 0;
        let depth = demand.prompt_blocks as usize;
        if let Some(end) = demand.last_block.filter(|_| !answer.is_empty()) {
            self.each_outbox(slot, |outbox| {
                if outbox.knows(end) {
                    let behind = (Some(end), depth);
                    left_out += outbox.append(slot, behind, answer, OUT_BYTES_MAX) as u64;
                }
            });
        }
        left_out
    }

    /// What to tell a peer of our region now; `None` where there is nothing. It counts as told.
    pub(in crate::engine) fn tell_cached(
        &mut self,
        peer: PeerSlot,
        local: &Local<'_>,
    ) -> Option<Vec<u8>> {
        if !self.shares(peer) {
            return None;
        }
        let sender = xxh3_64(self.name.as_bytes());
        let incarnation = self.incarnation;
        let near = self.peers().filter(|(_, peer)| peer.listed());
        let near = near.filter(|(_, peer)| peer.region == self.region).count();
        let telling = self.region_cache.as_mut()?;
        let sharer = &mut self.remotes.get_mut(peer.index())?.share;
        // It finds replicas in the list that it was told.
        if !sharer.listed || !sharer.heard || !sharer.cached.is_due(local.now) {
            return None;
        }
        // It hears of as many as we do.
        sharer.cached.fit(PLACES_MAX, near);
        sharer.seed(local);
        let lists = sharer.listed().collect::<Vec<_>>();
        let outbox = &mut sharer.cached;
        if outbox.entries.is_empty() && !outbox.asks {
            return None;
        }
        let places = &self.sharing.places;
        let entries = std::mem::take(&mut outbox.entries).into_iter();
        let entries = entries.filter_map(|(slot, entry)| {
            let place = places.get(&slot).filter(|_| lists.contains(&slot))?;
            let place = u16::try_from(*place).ok()?;
            Some(Entry { place, ..entry })
        });
        telling.sequence += 1;
        let cached = Cached {
            origin: Origin {
                sender,
                incarnation,
                sequence: telling.sequence,
            },
            asks: std::mem::take(&mut outbox.asks),
            block_bytes: block_bytes(local.config),
            entries: entries.collect(),
        };
        let bytes = cached.encode(telling.cover)?;
        (outbox.bytes, outbox.last) = (0, Some((local.now, bytes.len())));
        Some(bytes)
    }

    /// Reads what a peer of our region told. By slot: the prompts, each with what it follows.
    ///
    /// # Errors
    ///
    /// It cannot be read, cannot be compared, or is not newer than what it told before.
    pub(in crate::engine) fn take_cached(
        &mut self,
        peer: PeerSlot,
        bytes: &[u8],
        config: &Config,
    ) -> Result<Vec<(ReplicaSlot, Entry)>, CachedError> {
        let Some(telling) = self.region_cache.as_ref().filter(|_| self.shares(peer)) else {
            return Ok(Vec::new());
        };
        let cached = Cached::decode(bytes, telling.cover)?;
        if cached.block_bytes != block_bytes(config) {
            return Err(CachedError::Blocks(cached.block_bytes));
        }
        let Some(remote) = self.remotes.get_mut(peer.index()) else {
            return Err(CachedError::Stranger);
        };
        if cached.origin.sender != xxh3_64(remote.peer.name.as_bytes()) {
            return Err(CachedError::Stranger);
        }
        let outbox = &mut remote.share.cached;
        let number = (cached.origin.incarnation, cached.origin.sequence);
        if number <= outbox.heard {
            return Err(CachedError::Old);
        }
        outbox.heard = number;
        if cached.asks {
            outbox.begin_anew();
        }
        let places = &remote.share.places;
        let entries = cached.entries.into_iter();
        let entries = entries.filter_map(|entry| {
            let slot = (*places.get(usize::from(entry.place))?)?;
            Some((slot, entry))
        });
        Ok(entries.collect())
    }

    /// Something that a peer told could not be placed: it is to tell everything from its beginning.
    pub(in crate::engine) fn ask_cached(&mut self, peer: PeerSlot) {
        if let Some(remote) = self.remotes.get_mut(peer.index()) {
            remote.share.cached.asks = true;
        }
    }
}

impl super::Sharer {
    /// Adds what was pushed last, while the peer has not been told that of all replicas.
    fn seed(&mut self, local: &Local<'_>) {
        if self.cached.seeds.is_none() {
            let mut slots: Vec<ReplicaSlot> = self.listed().collect();
            slots.sort_unstable();
            self.cached.seeds = Some(slots);
        }
        let outbox = &mut self.cached;
        while outbox.bytes + SEED_BYTES <= OUT_BYTES_MAX {
            let Some(slot) = outbox.seeds.as_mut().and_then(Vec::pop) else {
                return;
            };
            let bytes_max = outbox.bytes + SEED_BYTES;
            local.cache.recent(slot, |path| {
                outbox.add(slot, (path, path.len()), bytes_max) == 0
            });
        }
    }
}

fn block_bytes(config: &Config) -> u32 {
    u32::try_from(config.block_bytes).unwrap_or(u32::MAX)
}
