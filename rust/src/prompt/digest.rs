//! What is kept of a body that was read.

use std::fmt;

use super::blocks::Tail;
use super::class::Class;
use super::continuing::{Continuing, Plan};
use super::edit::{Edit, Edits};

/// In which form an answer comes, and how a client sends it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerForm {
    /// The next message of a chat.
    Chat,
    /// The rest of a chat's last message (`continue_final_message`).
    ChatContinued,
    /// The rest of a text (`/v1/completions`).
    Text,
    /// The next message, in Anthropic's form.
    Messages,
    /// The next items of `/v1/responses`.
    Responses,
}

/// What a body said, as far as decisions, relay and log need it.
#[derive(Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one request"
)]
pub struct Digest {
    /// The model or adapter asked for; empty only on routes without a body.
    pub model: String,
    /// The client wants a stream.
    pub stream: bool,
    /// The client gets `usage` at a stream's end (`stream_options.include_usage`; always so in
    /// Anthropic's and the Responses form).
    pub include_usage: bool,
    /// Answer tokens at most, `n` answers together, where the client set a limit.
    pub max_tokens: Option<u32>,
    /// Answers asked for (`n`); at least 1.
    pub choices: u32,
    /// Tokens that one event of the stream may have (`stream_interval`); at least 1.
    pub event_tokens: u32,
    /// The ring's key: keyed hash of session, `prompt_cache_key`, `user` or `metadata.user_id`.
    pub key: Option<u64>,
    /// How urgent the body says that it is (`priority`, else `service_tier`).
    pub class: Class,
    /// False for `background` and `store: true`: such a request is never sent twice.
    pub retry_safe: bool,
    /// Whether its stream may go on elsewhere after its first byte.
    pub continuing: Continuing,
    /// The body says `store: false`: nothing is kept of the answer.
    pub unstored: bool,
    /// The answer this request builds on (`/v1/responses`).
    pub previous_response_id: Option<String>,
    /// Bytes of the canonical prompt stream, separators included.
    pub prompt_bytes: usize,
    /// There are images, sound or films in it, which have more tokens than their hashes have bytes.
    pub has_media: bool,
    /// Chained, keyed hashes of the whole blocks of the prompt stream, for [`crate::engine::cache::radix::Radix`].
    pub blocks: Vec<u64>,
    /// The chain's end and the bytes after the last whole block: where an answer's blocks go on.
    pub chain: u64,
    /// See `chain`. Text of the prompt: never to be logged, and left out of `Debug`.
    pub tail: Tail,
    /// What names the model in a body that names none, wherever that says so.
    pub model_edits: Edits,
    /// What makes the body's priority say nothing, where it says something.
    pub priority_edits: Edits,
    /// What makes the engine report usage at the end of this stream, where it would not.
    pub usage_edits: Edits,
    /// The client says that it wants none.
    pub usage_declined: bool,
    /// What gives the body the salt of its owner's prefix cache, where owners are isolated and the
    /// engine takes a salt on this route. For a replica alone: a peer makes its own.
    pub salt_edits: Edits,
    /// How the answer will be sent back as part of the next prompt; `None` where that cannot be told
    /// from its bytes.
    pub answer: Option<AnswerForm>,
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digest")
            .field("model", &self.model)
            .field("stream", &self.stream)
            .field("max_tokens", &self.max_tokens)
            .field("retry_safe", &self.retry_safe)
            .field("prompt_bytes", &self.prompt_bytes)
            .field("blocks", &self.blocks.len())
            .finish_non_exhaustive()
    }
}

impl Default for Digest {
    /// What a request without a body says: nothing, and nothing against sending it twice.
    fn default() -> Self {
        Self {
            model: String::new(),
            stream: false,
            include_usage: false,
            max_tokens: None,
            choices: 1,
            event_tokens: 1,
            key: None,
            class: Class::Normal,
            retry_safe: true,
            continuing: Continuing::Off,
            unstored: false,
            previous_response_id: None,
            prompt_bytes: 0,
            has_media: false,
            blocks: Vec::new(),
            chain: 0,
            tail: Tail::new(),
            model_edits: Edits::new(),
            priority_edits: Edits::new(),
            usage_edits: Edits::new(),
            usage_declined: false,
            salt_edits: Edits::new(),
            answer: None,
        }
    }
}

impl Digest {
    /// What a replica that goes on with its stream is asked, if it may go on.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        match &self.continuing {
            Continuing::Planned(plan) => Some(plan),
            Continuing::Off | Continuing::Refused(_) | Continuing::Elsewhere => None,
        }
    }

    /// Its stream may go on at another replica; the plan may be in another process.
    #[must_use]
    pub fn may_go_on(&self) -> bool {
        matches!(
            self.continuing,
            Continuing::Planned(_) | Continuing::Elsewhere
        )
    }

    /// What an engine gets in place of the body's priority: 0 where that is not `believed`, or where the `highest`
    /// class of its sender has a bound. Engines differ in the sign that is urgent: no other number is safe.
    #[must_use]
    pub fn priority_changes(&self, believed: bool, highest: Option<Class>) -> &[Edit] {
        if believed && !Class::is_bound(highest) {
            return &[];
        }
        &self.priority_edits
    }

    /// What asks for usage at this stream's end: where it `counts`, whatever the client says; where it is only
    /// `wanted`, unless the client declines it.
    #[must_use]
    pub fn usage_changes(&self, wanted: bool, counts: bool) -> &[Edit] {
        if counts || (wanted && !self.usage_declined) {
            return &self.usage_edits;
        }
        &[]
    }
}
