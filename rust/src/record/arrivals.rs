//! What a recording keeps of the requests that ended, until its thread takes it.
//!
//! Off by default. While it is on, a request keeps the hashes of its prompt from its placing to its end.
//! [`Recorder::complete`](super::Recorder::complete) puts a few facts beside them into a bounded queue.
//! The lines are written elsewhere ([`super::trace`]), by a thread.

use std::sync::Arc;

use super::ended::Ended;
use super::prompt::Prompt;
use super::target::Target;
use crate::prompt::class::Class;
use crate::prompt::text::shortened;

/// Requests that wait for the thread.
const ARRIVALS_MAX: usize = 16_384;
/// Hashes of their prompts and answers: 32 MiB.
const ARRIVAL_BLOCKS_MAX: usize = 4 << 20;

/// One request that ended.
#[derive(Debug)]
pub struct Arrival {
    pub(super) prompt: Arc<Prompt>,
    pub(super) route: &'static str,
    pub(super) model: Box<str>,
    pub(super) tenant: Option<Box<str>>,
    pub(super) class: Class,
    pub(super) prompt_bytes: usize,
    pub(super) has_media: bool,
    /// The route gives answers of tokens.
    pub(super) generates: bool,
    pub(super) tokens_max: Option<u32>,
    pub(super) prompt_tokens: Option<u32>,
    pub(super) cached_tokens: Option<u32>,
    pub(super) answer_tokens: Option<u32>,
    /// Tokens of the answer by the events of its stream.
    pub(super) events_tokens: u64,
    pub(super) status: u16,
    /// A peer served it.
    pub(super) forwarded: bool,
    pub(super) start_ns: u64,
    pub(super) ttft_ns: Option<u64>,
    pub(super) held_ns: u64,
    pub(super) end_ns: u64,
}

impl Arrival {
    /// A request from a client that was placed; `None` for others, and for those that no replica could have
    /// served.
    fn of(ended: &Ended<'_>) -> Option<Self> {
        let (prompt, digest) = (ended.prompt?, ended.digest?);
        let hopeless = ended.life.attempts == 0 && matches!(ended.status, 400..=428);
        if ended.origin.is_some() || hopeless || !ended.measured() {
            return None;
        }
        let told = |tokens: Option<i64>| tokens.and_then(|tokens| u32::try_from(tokens).ok());
        let relay = ended.relay;
        let events = relay.map_or(0, |relay| relay.events);
        Some(Self {
            prompt: Arc::clone(prompt),
            route: ended.route(),
            model: shortened(digest.model).into(),
            tenant: ended.life.tenant.name().map(Into::into),
            class: ended.life.class,
            prompt_bytes: digest.prompt_bytes,
            has_media: digest.has_media,
            generates: digest.stream || digest.continues || digest.max_tokens.is_some(),
            tokens_max: digest.max_tokens,
            prompt_tokens: relay.and_then(|relay| told(relay.prompt_tokens)),
            cached_tokens: relay.and_then(|relay| told(relay.cached_tokens)),
            answer_tokens: relay.and_then(|relay| told(relay.completion_tokens)),
            events_tokens: events.saturating_mul(u64::from(digest.event_tokens)),
            status: ended.status,
            forwarded: matches!(ended.life.target, Some(Target::Peer(_))),
            start_ns: ended.life.start_ns,
            ttft_ns: ended.ttft_ns(),
            held_ns: ended.life.held_ns,
            end_ns: ended.end_ns,
        })
    }

    fn blocks(&self) -> usize {
        self.prompt.blocks.len() + self.prompt.answer.len()
    }
}

/// The queue.
#[derive(Debug, Default)]
pub struct Arrivals {
    waiting: Vec<Arrival>,
    blocks: usize,
    dropped: u64,
}

impl Arrivals {
    /// A request ended.
    pub(super) fn add(&mut self, ended: &Ended<'_>) {
        let Some(arrival) = Arrival::of(ended) else {
            return;
        };
        let blocks = self.blocks + arrival.blocks();
        if self.waiting.len() >= ARRIVALS_MAX || blocks > ARRIVAL_BLOCKS_MAX {
            self.dropped += 1;
            return;
        }
        self.blocks = blocks;
        self.waiting.push(arrival);
    }

    /// All that wait; empties the queue.
    pub fn take(&mut self) -> Vec<Arrival> {
        self.blocks = 0;
        std::mem::take(&mut self.waiting)
    }

    /// Requests that found no room in the queue.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::super::ended::tests::Parts;
    use super::super::{Format, Recorder};
    use super::*;

    const CHAT: &str = "/v1/chat/completions";

    /// A placed request with a prompt of so many blocks.
    fn parts(blocks: usize) -> Parts {
        let mut parts = Parts::new(CHAT, Some("m"));
        parts.life.attempts = 1;
        parts.prompt = Some(Arc::new(Prompt {
            blocks: vec![7; blocks],
            ..Prompt::default()
        }));
        parts
    }

    fn recorder() -> Recorder {
        let mut recorder = Recorder::new(Format::Off, 0, "prefix", 0, 8);
        recorder.record_arrivals(true);
        recorder
    }

    #[test]
    fn requests_of_clients_are_kept_until_they_are_taken_and_none_while_it_is_off() {
        let mut recorder = recorder();
        recorder.complete(&parts(3).ended(200));
        recorder.complete(&parts(3).ended(503));
        let taken = recorder.take_arrivals();
        assert_eq!(taken.len(), 2);
        assert_eq!((&*taken[0].model, taken[0].route), ("m", CHAT));
        assert_eq!(format!("{:?}", taken[0].prompt), "Prompt(..)");
        assert!(recorder.take_arrivals().is_empty());
        recorder.record_arrivals(false);
        recorder.complete(&parts(3).ended(200));
        assert!(recorder.take_arrivals().is_empty());
    }

    #[test]
    fn forwards_of_peers_and_requests_without_a_place_are_left_out() {
        let mut recorder = recorder();
        let mut of_peer = parts(1);
        of_peer.origin = Some("eu");
        recorder.complete(&of_peer.ended(200));
        let mut unknown_model = parts(1);
        unknown_model.life.attempts = 0;
        recorder.complete(&unknown_model.ended(404));
        recorder.complete(&Parts::new("/health", None).ended(200));
        assert!(recorder.take_arrivals().is_empty());
        unknown_model.life.attempts = 1;
        recorder.complete(&unknown_model.ended(404));
        assert_eq!(recorder.take_arrivals().len(), 1);
    }

    #[test]
    fn the_queue_is_bounded_by_requests_and_by_blocks_and_counts_what_is_lost() {
        let mut recorder = recorder();
        let large = parts(ARRIVAL_BLOCKS_MAX / 2);
        for _ in 0..3 {
            recorder.complete(&large.ended(200));
        }
        assert_eq!(recorder.arrivals_dropped(), 1);
        assert_eq!(recorder.take_arrivals().len(), 2);
        let small = parts(1);
        for _ in 0..=ARRIVALS_MAX {
            recorder.complete(&small.ended(200));
        }
        assert_eq!(recorder.arrivals_dropped(), 2);
        assert_eq!(recorder.take_arrivals().len(), ARRIVALS_MAX);
    }
}
