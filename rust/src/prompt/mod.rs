//! Strict scan of an inference request's body, without building a tree.
//!
//! There are two passes. The first (`json`, `outline`) checks that the body is UTF-8 and strict JSON. It
//! notes where the values of the top level are, and where long strings end. The second (`cursor`, `render`,
//! `chat`) visits the parts of the prompt, in the order in which an engine renders them. It hashes them
//! into blocks straight from the body, without a copy of unescaped text.
//!
//! Keys are compared after unescaping. A key that SkyLB reads is refused if it is there twice with
//! different values, because the engine might take the other one. A value that no engine takes is refused
//! too. Where engines are lenient (`"100"` for a number), SkyLB is as well. Within free JSON (tool
//! parameters, call arguments, template variables) it refuses nothing.
//!
//! A body with a field that controls the engine itself is refused, unless its sender is trusted
//! ([`crate::http::steer`]).

mod answer;
mod asked;
pub mod blocks;
mod canonical;
mod chat;
pub mod class;
pub mod continuing;
mod cursor;
mod digest;
mod edit;
mod escape;
mod fault;
pub mod isolation;
mod json;
mod lanes;
mod multipart;
mod outline;
pub mod reason;
mod render;
mod settings;
mod tape;
pub mod text;

use std::sync::Arc;

use crate::http::error::RequestError;
use crate::http::route::{BodyKind, Route};
use crate::prompt::blocks::{BlockKey, BlockStream};
use canonical::tag;
use continuing::{Continuing, Reason, Scope};
use fault::Fault;
use isolation::{ISOLATION_KEY_BYTES, Isolation, Owner};
use outline::{Field, Outline};
use render::{Buffers, Prompt};
use tape::Tape;

pub use answer::{ANSWER_BODY_BYTES_MAX, ANSWER_BYTES_MAX, Answer, AnswerStart};
pub use digest::{AnswerForm, Digest};
pub use edit::{Edit, Edits, edited, moved};

/// Scratch buffers over this size are given back after the digest that needed them.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// Constants of [`digest`], one for the process.
#[derive(Debug, Clone)]
pub struct DigestConfig {
    key: Arc<BlockKey>,
    block_bytes: usize,
    prompt_blocks_max: usize,
    /// Owners share no prefix cache.
    isolation: Option<Isolation>,
    /// Streams may go on elsewhere, of these requests.
    continues: Option<Arc<Scope>>,
}

impl DigestConfig {
    /// `secret` (16 or more bytes) keys every hash, `block_bytes` is the size of a block of the
    /// rendered prompt, and at most `prompt_blocks_max` blocks of a prompt are hashed.
    #[must_use]
    pub fn new(secret: &[u8], block_bytes: usize, prompt_blocks_max: usize) -> Self {
        Self {
            key: Arc::new(BlockKey::new(secret)),
            block_bytes,
            prompt_blocks_max,
            isolation: None,
            continues: None,
        }
    }

    /// From now on no two owners share a prefix cache; `key` is that of [`Isolation::new`].
    pub fn isolate(&mut self, key: &[u8; ISOLATION_KEY_BYTES]) {
        self.isolation = Some(Isolation::new(key));
    }

    /// From now on streams of such requests may go on elsewhere where their bodies allow it, or no longer.
    pub fn continue_streams(&mut self, scope: Option<Arc<Scope>>) {
        self.continues = scope;
    }

    /// Owners share no prefix cache.
    #[must_use]
    pub fn isolates(&self) -> bool {
        self.isolation.is_some()
    }

    /// The ring's key of an owner's session: where owners are isolated, no other's has it.
    #[must_use]
    pub fn session_key(&self, owner: Owner<'_>, session: &[u8]) -> u64 {
        let key = self.key_of(session);
        if !self.isolates() {
            return key;
        }
        let (kind, name) = owner.parts();
        let owner = self.key.chain(u64::from(kind), self.key.hash(name));
        self.key.chain(key, owner)
    }

    /// The ring's key of a session name, wherever it was found: [`Digest::key`] of a body whose
    /// `session` it is. For a configured header.
    #[must_use]
    pub fn key_of(&self, session: &[u8]) -> u64 {
        self.key.chain(self.key.start(), self.key.hash(session))
    }

    /// The key of all hashes.
    #[must_use]
    pub fn block_key(&self) -> &BlockKey {
        &self.key
    }
}

/// Buffers that [`digest`] uses again from call to call; one per thread that digests.
#[derive(Debug, Default)]
pub struct Scratch {
    tape: Tape,
    buffers: Buffers,
}

impl Scratch {
    /// An unusual body leaves no memory behind.
    fn trim(&mut self) {
        if self.tape.capacity_bytes() > SCRATCH_BYTES_MAX {
            self.tape = Tape::default();
        }
        let Buffers { text, staged, tape } = &self.buffers;
        if text.capacity() + staged.capacity() + tape.capacity_bytes() > SCRATCH_BYTES_MAX {
            self.buffers = Buffers::default();
        }
    }
}

/// What is known of a body before it is read.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// What is asked for.
    pub route: Route,
    /// Value of `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// Where owners are isolated, prompts of different ones share no block.
    pub owner: Owner<'a>,
    /// The sender may steer engines.
    pub trusted: bool,
    /// The model meant by a body that names none; empty where that is not known yet.
    pub only_model: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    /// Of a sender that is not trusted, who has to name the model.
    #[must_use]
    pub fn new(route: Route, content_type: Option<&'a [u8]>) -> Self {
        Self {
            route,
            content_type,
            owner: Owner::Nobody,
            trusted: false,
            only_model: None,
        }
    }
}

/// Reads the body of one request.
///
/// # Errors
///
/// 415 for another content type than the route takes; 400 `invalid_json`, `invalid_type`,
/// `duplicate_key`, `untrusted_field`, `missing_model`, `body_too_complex` or `empty_body`; 413 over 4 GiB.
pub fn digest(
    envelope: &Envelope<'_>,
    body: &[u8],
    cfg: &DigestConfig,
    scratch: &mut Scratch,
) -> Result<Digest, RequestError> {
    match envelope.route.body() {
        BodyKind::None | BodyKind::OptionalJson => Ok(Digest::default()),
        BodyKind::Multipart => multipart::read(envelope, body),
        BodyKind::Json => {
            check_json_type(envelope.content_type)?;
            check_text(body)?;
            let read = read_json(envelope, body, cfg, scratch);
            scratch.trim();
            read
        }
    }
}

/// Engines take JSON only; a missing type is theirs to judge.
fn check_json_type(content_type: Option<&[u8]>) -> Result<(), RequestError> {
    let Some(content_type) = content_type else {
        return Ok(());
    };
    let mut parts = content_type
        .split(|&byte| byte == b';')
        .map(<[u8]>::trim_ascii);
    let is_json = parts
        .next()
        .is_some_and(|media| media.eq_ignore_ascii_case(b"application/json"));
    let is_utf8 = parts.all(|parameter| {
        let value = parameter.get(8..).unwrap_or_default();
        !parameter
            .get(..8)
            .is_some_and(|name| name.eq_ignore_ascii_case(b"charset="))
            || [&b"utf-8"[..], b"utf8", b"\"utf-8\""]
                .iter()
                .any(|name| value.eq_ignore_ascii_case(name))
    });
    if is_json && is_utf8 {
        return Ok(());
    }
    let message = "the content type must be application/json in UTF-8";
    Err(RequestError::new("unsupported_media_type", message))
}

fn check_text(body: &[u8]) -> Result<(), RequestError> {
    if body.is_empty() {
        return Err(RequestError::new("empty_body", "the request has no body"));
    }
    if u32::try_from(body.len()).is_err() {
        return Err(RequestError::new(
            "body_too_large",
            "the body is larger than 4 GiB",
        ));
    }
    if simdutf8::basic::from_utf8(body).is_err() {
        let at = str::from_utf8(body).map_or_else(|error| error.valid_up_to(), str::len);
        let message = format!("invalid JSON at byte {at}: expected UTF-8");
        return Err(RequestError::new("invalid_json", message));
    }
    Ok(())
}

fn read_json(
    envelope: &Envelope<'_>,
    body: &[u8],
    cfg: &DigestConfig,
    scratch: &mut Scratch,
) -> Result<Digest, RequestError> {
    let route = envelope.route;
    let outline = Outline::read(body, &mut scratch.tape, envelope.trusted)?;
    let mut digest = settings::read(envelope, &outline, cfg)?;
    let model = digest.model.as_bytes();
    let staged = &mut scratch.buffers.staged;
    let salt = settings::salt(envelope, &outline, cfg, staged)?;
    digest.salt_edits = settings::salt_edits(route, &outline, salt);
    let salt_of = salt.as_ref().filter(|_| route.takes_salt());
    let seed = settings::seed((route, model, salt), &outline, cfg, staged)?;
    let expected = body.len() / cfg.block_bytes.max(1) + 1;
    let mut prompt = Prompt {
        key: &cfg.key,
        stream: BlockStream::new(
            &cfg.key,
            cfg.block_bytes,
            cfg.prompt_blocks_max,
            seed,
            expected,
        ),
        buffers: &mut scratch.buffers,
        has_media: false,
    };
    put_prompt(route, &outline, &mut prompt)?;
    digest.has_media = prompt.has_media;
    let scope = cfg.continues.as_deref();
    if let Some(scope) = scope.filter(|scope| digest.stream && scope.has(&digest.model)) {
        let retry_safe = digest.retry_safe;
        digest.continuing = if retry_safe {
            let facts = (scope.by_text, digest.has_media);
            continuing::read(route, (&outline, body), salt_of, facts)
        } else {
            Continuing::Refused(Reason::Stored)
        };
    }
    let blocks = prompt.stream.finish();
    digest.prompt_bytes = blocks.bytes;
    digest.blocks = blocks.hashes;
    digest.chain = blocks.chain;
    digest.tail = blocks.tail;
    digest.answer = digest
        .answer
        .filter(|_| digest.blocks.len() < cfg.prompt_blocks_max);
    Ok(digest)
}

/// Puts all that an engine renders into the stream.
fn put_prompt(
    route: Route,
    outline: &Outline<'_>,
    prompt: &mut Prompt<'_, '_>,
) -> Result<(), Fault> {
    let within = |field: Field| move |fault: Fault| fault.within(field.name());
    if let Some(tools) = outline.get(Field::Tools) {
        prompt.put_tools(tools).map_err(within(Field::Tools))?;
    }
    if let Some(functions) = outline.get(Field::Functions) {
        prompt
            .put_tools(functions)
            .map_err(within(Field::Functions))?;
    }
    let anthropic = matches!(route, Route::Messages | Route::CountTokens);
    if anthropic && let Some(system) = outline.get(Field::System) {
        prompt.put_system(system).map_err(within(Field::System))?;
    }
    if route == Route::Responses {
        if let Some(instructions) = outline.get(Field::Instructions) {
            prompt
                .put_system(instructions)
                .map_err(within(Field::Instructions))?;
        }
        if let Some(input) = outline.get(Field::Input) {
            prompt.put_items(input).map_err(within(Field::Input))?;
        }
        return Ok(());
    }
    if let Some(messages) = outline.get(Field::Messages) {
        let put = match route {
            Route::ChatBatch => prompt.put_conversations(messages),
            _ => prompt.put_messages(messages, anthropic),
        };
        put.map_err(within(Field::Messages))?;
    }
    for &field in prompt_fields(route) {
        if let Some(cursor) = outline.get(field) {
            prompt.put_prompts(cursor).map_err(within(field))?;
        }
    }
    Ok(())
}

/// Fields that hold a prompt which is no conversation, in the order in which they are rendered.
fn prompt_fields(route: Route) -> &'static [Field] {
    match route {
        Route::Completions | Route::Tokenize => &[Field::Prompt],
        Route::Embeddings | Route::Pooling | Route::Classify | Route::Speech => &[Field::Input],
        Route::Rerank | Route::RerankRoot | Route::RerankV2 => &[Field::Query, Field::Documents],
        Route::Score | Route::ScoreRoot => &[
            Field::Text1,
            Field::Data1,
            Field::Queries,
            Field::Text2,
            Field::Data2,
            Field::Documents,
            Field::Items,
        ],
        Route::GenerativeScore => &[Field::Query, Field::Items],
        Route::EmbedV2 => &[Field::Texts, Field::Inputs],
        Route::Decisions => &[Field::State, Field::Questions],
        Route::Detokenize => &[Field::Tokens],
        Route::Generate => &[Field::TokenIds],
        // Whatever it is of these.
        Route::Invocations => &[
            Field::Prompt,
            Field::Input,
            Field::Query,
            Field::Text1,
            Field::Data1,
            Field::Queries,
            Field::Text2,
            Field::Data2,
            Field::Documents,
            Field::Items,
        ],
        _ => &[],
    }
}

impl Prompt<'_, '_> {
    /// A text, a list of token ids, or a list of such; objects (multimodal documents) as they are.
    fn put_prompts(&mut self, mut cursor: cursor::Cursor<'_>) -> Result<(), Fault> {
        if cursor.peek() != b'[' {
            return self.put_one_prompt(&mut cursor);
        }
        let list = cursor;
        cursor.enter(b'[');
        if cursor.item() && matches!(cursor.peek(), b'-' | b'0'..=b'9') {
            cursor = list;
            self.put_tokens(&mut cursor);
            return Ok(());
        }
        cursor = list;
        cursor.enter(b'[');
        let mut index = 0;
        while cursor.item() {
            self.put_one_prompt(&mut cursor)
                .map_err(|fault| fault.at_index(index))?;
            index += 1;
        }
        Ok(())
    }

    fn put_one_prompt(&mut self, cursor: &mut cursor::Cursor<'_>) -> Result<(), Fault> {
        match cursor.peek() {
            b'"' => {
                self.stream.push(&[tag::TEXT]);
                if let Some(text) = cursor.string() {
                    self.put_text(text);
                }
                Ok(())
            }
            b'[' => {
                self.put_tokens(cursor);
                Ok(())
            }
            b'{' => {
                self.put_other(cursor);
                Ok(())
            }
            _ => Err(Fault::of_type("", "a string or a list")),
        }
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
