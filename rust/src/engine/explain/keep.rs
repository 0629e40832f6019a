//! Receipts are kept: what a driver reports of a request beside the calls that decide.

use serde::Serialize;

use super::receipt;
use crate::engine::effect::Effect;
use crate::engine::fleet::failure::Failure;
use crate::engine::receipts::{Asked, End, Receipts};
use crate::engine::router::{Ask, Router};
use crate::id::RequestId;
use crate::prompt::Digest;
use crate::prompt::text::shortened;
use crate::time::Instant;

/// Requests that one listing has at most.
const LISTED_MAX: usize = 1_000;

/// What is kept, and what has made room.
#[derive(Debug, Serialize)]
struct Listing<'a> {
    now_ns: Instant,
    kept: usize,
    kept_max: usize,
    /// When the oldest that is kept was submitted.
    since_ns: Option<Instant>,
    dropped: u64,
    dropped_open: u64,
    requests: Vec<receipt::Summary<'a>>,
}

impl Router {
    /// Keeps the receipts of so many requests from now on; 0: none.
    pub fn keep_receipts(&mut self, max: usize, now: Instant) {
        self.sight(now).0.keep_receipts(max);
    }

    /// Receipts are kept.
    #[must_use]
    pub fn keeps_receipts(&self) -> bool {
        self.parts().chooser.receipts().is_some()
    }

    /// The policy that requests go by, where receipts are kept.
    #[must_use]
    pub fn receipt_policy(&self) -> Option<&'static str> {
        let parts = self.parts();
        parts.chooser.receipts().map(|_| parts.config.policy.name())
    }

    fn receipts(&mut self, now: Instant) -> Option<&mut Receipts> {
        self.sight(now).0.receipts_mut()
    }

    /// A request named so is placed next.
    pub fn begin_receipt(
        &mut self,
        id: RequestId,
        name: &str,
        ask: &Ask<'_>,
        digest: &Digest,
        now: Instant,
    ) {
        if !self.keeps_receipts() {
            return;
        }
        let asked = self.asked(name, ask, digest);
        let age = self.parts().requests.age_next();
        if let Some(receipts) = self.receipts(now) {
            receipts.begin(id, age, asked, now);
        }
    }

    /// What a request asks for, for its receipt.
    pub(super) fn asked(&self, name: &str, ask: &Ask<'_>, digest: &Digest) -> Asked {
        Asked {
            name: name.into(),
            route: ask.route.name(),
            model: shortened(&digest.model).into(),
            class: self.class_of(ask, digest.class),
            tenant: ask.tenant.owned(),
            origin: ask.forwarded.and_then(|forwarded| forwarded.origin),
            forwarded: ask.forwarded.is_some(),
            prompt_bytes: digest.prompt_bytes,
            prompt_blocks: digest.blocks.len(),
            session: ask.key.is_some() || digest.key.is_some(),
            stream: digest.stream,
        }
    }

    /// What a call has yielded.
    #[inline]
    pub fn note_effects(&mut self, effects: &[Effect], now: Instant) {
        if effects.is_empty() {
            return;
        }
        if let Some(receipts) = self.receipts(now) {
            receipts.note_effects(effects, now);
        }
    }

    /// The first body byte of a request's attempt has come.
    #[inline]
    pub fn note_first_byte(&mut self, id: RequestId, now: Instant) {
        if let Some(receipts) = self.receipts(now) {
            receipts.note_first_byte(id, now);
        }
    }

    /// A request's attempt has failed.
    pub fn note_failure(&mut self, id: RequestId, failure: Failure, now: Instant) {
        if let Some(receipts) = self.receipts(now) {
            receipts.note_failure(id, failure.word(), now);
        }
    }

    /// A request has ended.
    #[inline]
    pub fn note_end(&mut self, id: RequestId, end: End) {
        if let Some(receipts) = self.receipts(end.at_ns) {
            receipts.note_end(id, end);
        }
    }

    // ------------------------------------------------------------------ what operators read

    /// The receipt of the newest request of this name, as JSON; `None`: none is kept.
    ///
    /// # Errors
    ///
    /// None in practice: every value has a form in JSON.
    #[must_use]
    pub fn receipt(&self, name: &str, now: Instant) -> Option<Result<Vec<u8>, serde_json::Error>> {
        let parts = self.parts();
        let found = parts.chooser.receipts()?.find(name)?;
        Some(serde_json::to_vec(&receipt::View::of(found, &parts, now)))
    }

    /// The newest requests with receipts, as JSON; `None`: receipts are off.
    ///
    /// # Errors
    ///
    /// None in practice: every value has a form in JSON.
    #[must_use]
    pub fn receipt_list(
        &self,
        len_max: usize,
        now: Instant,
    ) -> Option<Result<Vec<u8>, serde_json::Error>> {
        let parts = self.parts();
        let receipts = parts.chooser.receipts()?;
        let kept = receipts.newest();
        let (dropped, dropped_open) = receipts.dropped();
        let newest = receipts.newest().take(len_max.min(LISTED_MAX));
        Some(serde_json::to_vec(&Listing {
            now_ns: now,
            kept: kept.len(),
            kept_max: receipts.max(),
            since_ns: kept.last().map(|oldest| oldest.submitted_ns),
            dropped,
            dropped_open,
            requests: newest.map(|of| receipt::Summary::of(of, &parts)).collect(),
        }))
    }
}
