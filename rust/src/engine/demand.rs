//! What a request needs, as far as the fleet, the cache, the policies and the hold have to know it.

use std::mem;

use smallvec::SmallVec;

use crate::http::route::{Route, Serving};
use crate::id::{ModelId, ReplicaId};
use crate::prompt::Digest;

/// Replicas on which a request was tried that are remembered of it.
pub(in crate::engine) const TRIED_MAX: usize = 256;
/// Stands for replicas that are not ours.
pub(in crate::engine) const ELSEWHERE: ReplicaId = ReplicaId(u32::MAX);

/// How a request meets a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Lane {
    /// It takes a place in the batch: the gate decides, and it may wait in the hold.
    Batch,
    /// The API server answers it without the model (tokens of a text): it neither waits nor counts
    /// in the load estimate, but within the cap.
    Light,
    /// As `Light`, about a response that one replica keeps: draining does not stop it.
    Stored,
}

impl Lane {
    pub(in crate::engine) const ALL: [Self; 3] = [Self::Batch, Self::Light, Self::Stored];

    pub(in crate::engine) fn of(route: Route) -> Self {
        match route.serving() {
            Serving::Stored => Self::Stored,
            Serving::Light => Self::Light,
            Serving::Batch | Serving::Local => Self::Batch,
        }
    }

    /// At a peer it uses up one of what that has granted. The others are computed without the model.
    pub(in crate::engine) fn takes_room(self) -> bool {
        self == Self::Batch
    }
}

/// What a request asks for.
#[derive(Debug)]
pub(in crate::engine) struct Demand {
    pub(in crate::engine) lane: Lane,
    /// What it may use; no model on the routes of one response.
    pub(in crate::engine) model: Option<ModelId>,
    pub(in crate::engine) bound: Option<ReplicaId>,
    /// Regions it may be served in, as bits.
    pub(in crate::engine) regions: u64,
    pub(in crate::engine) key: Option<u64>,
    pub(in crate::engine) prompt_bytes: u32,
    pub(in crate::engine) prompt_blocks: u32,
    /// Chained hash of the prompt's last block.
    pub(in crate::engine) last_block: Option<u64>,
    /// Chained hashes of the prompt; given up at the first body byte.
    pub(in crate::engine) blocks: Vec<u64>,
    pub(in crate::engine) max_tokens: Option<u32>,
    /// The first byte comes with the first token, not with the whole answer.
    pub(in crate::engine) stream: bool,
    /// It has images or the like, whose tokens its bytes do not tell.
    pub(in crate::engine) has_media: bool,
    /// Replicas on which an attempt failed or was refused; the last [`TRIED_MAX`].
    pub(in crate::engine) tried: SmallVec<[ReplicaId; 2]>,
}

impl Demand {
    /// What a body asks for; takes its blocks out of `digest`. `key`: its session's, wherever that was
    /// found.
    pub(in crate::engine) fn new(
        lane: Lane,
        model: Option<ModelId>,
        (bound, regions): (Option<ReplicaId>, u64),
        key: Option<u64>,
        digest: &mut Digest,
    ) -> Self {
        Self {
            lane,
            model,
            bound,
            regions,
            key,
            prompt_bytes: u32::try_from(digest.prompt_bytes).unwrap_or(u32::MAX),
            prompt_blocks: u32::try_from(digest.blocks.len()).unwrap_or(u32::MAX),
            last_block: digest.blocks.last().copied(),
            blocks: mem::take(&mut digest.blocks),
            max_tokens: digest.max_tokens,
            stream: digest.stream,
            has_media: digest.has_media,
            tried: SmallVec::new(),
        }
    }

    /// An attempt at this replica is over.
    pub(in crate::engine) fn note_tried(&mut self, replica: ReplicaId) {
        if replica == ELSEWHERE || self.tried.contains(&replica) {
            return;
        }
        if self.tried.len() == TRIED_MAX {
            self.tried.remove(0);
        }
        self.tried.push(replica);
    }

    /// Its first byte is its first token: the time to it can be predicted, and learned from.
    pub(in crate::engine) fn measured(&self) -> bool {
        self.stream && self.lane == Lane::Batch
    }

    /// It may be served in this region.
    pub(in crate::engine) fn may_use(&self, region_bit: u64) -> bool {
        self.regions & region_bit != 0
    }
}
