//! The allow-list of paths: the inference paths of vLLM, and what the balancer answers itself.
//!
//! A path matches byte for byte or not at all, but for one slash at its end, which engines
//! redirect to the path without it. Nothing is decoded or normalised, so the route that was
//! authorised is the route that runs (docs/PROMISES.md, S7). `//host`, `%2e` and dot segments
//! therefore never match.
//!
//! [`ROUTES`] is the source of the list in docs/API.md, which is generated from it.

mod unknown;

use serde::{Deserialize, Serialize};

use super::error::RequestError;
use unknown::unknown_path;

/// What a path asks for. The numbers are part of the Python interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Route {
    /// `GET /health`.
    Health = 0,
    /// `GET /v1/models`.
    Models = 1,
    /// `POST /v1/chat/completions`.
    ChatCompletions = 2,
    /// `POST /v1/completions`.
    Completions = 3,
    /// `POST /v1/responses`.
    Responses = 4,
    /// `GET /v1/responses/{id}`.
    ResponseById = 5,
    /// `POST /v1/responses/{id}/cancel`.
    ResponseCancel = 6,
    /// `POST /v1/messages`.
    Messages = 7,
    /// `POST /v1/messages/count_tokens`.
    CountTokens = 8,
    /// `POST /v1/embeddings`.
    Embeddings = 9,
    /// `POST /v1/rerank`.
    Rerank = 10,
    /// `POST /v1/score`.
    Score = 11,
    /// `POST /v1/audio/transcriptions`.
    Transcriptions = 12,
    /// `POST /v1/audio/translations`.
    Translations = 13,
    /// `POST /v1/audio/speech`.
    Speech = 14,
    /// `POST /pooling`.
    Pooling = 15,
    /// `POST /classify`.
    Classify = 16,
    /// `POST /tokenize`.
    Tokenize = 17,
    /// `POST /detokenize`.
    Detokenize = 18,
    /// `POST /inference/v1/generate`.
    Generate = 19,
    /// `GET` and `POST /ping`.
    Ping = 20,
    /// `GET /version`.
    Version = 21,
    /// `POST /v1/chat/completions/batch`.
    ChatBatch = 22,
    /// `POST /v1/chat/completions/render`.
    ChatRender = 23,
    /// `POST /v1/chat/completions/derender`.
    ChatDerender = 24,
    /// `POST /v1/completions/render`.
    CompletionRender = 25,
    /// `POST /v1/completions/derender`.
    CompletionDerender = 26,
    /// `POST /v1/responses/render`.
    ResponsesRender = 27,
    /// `POST /v1/messages/render`.
    MessagesRender = 28,
    /// `POST /rerank`.
    RerankRoot = 29,
    /// `POST /v2/rerank`.
    RerankV2 = 30,
    /// `POST /score`.
    ScoreRoot = 31,
    /// `POST /v2/embed`.
    EmbedV2 = 32,
    /// `POST /invocations`.
    Invocations = 33,
    /// `POST /cohere/v2/chat`.
    CohereChat = 34,
    /// `POST /cohere/v2/chat/render`.
    CohereRender = 35,
    /// `POST /generative_scoring`.
    GenerativeScore = 36,
    /// `POST /v1/systemone`.
    Decisions = 37,
    /// `GET /readiness`.
    Readiness = 38,
    /// `GET /liveness`.
    Liveness = 39,
    /// `GET /workers`.
    Fleet = 40,
}

/// The body a route reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// None: a body is refused.
    None,
    /// JSON where one is sent; it may be absent.
    OptionalJson,
    /// JSON.
    Json,
    /// `multipart/form-data`.
    Multipart,
}

/// The methods a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// GET and HEAD.
    Get,
    /// POST.
    Post,
    /// GET, HEAD and POST.
    GetPost,
}

/// Who serves a route, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// The balancer answers.
    Local,
    /// It takes a place in the batch: the gate decides, and it may wait in the hold.
    Batch,
    /// The API server answers it without the model (tokens of a text): it neither waits nor counts
    /// in the load estimate, but within the cap.
    Light,
    /// As `Light`, about a response that one replica keeps: draining does not stop it.
    Stored,
}

/// All that is said of one route.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Which one.
    pub route: Route,
    /// Its path; `{id}` stands for an id of [`RESPONSE_ID_LEN_MAX`] bytes at most.
    pub path: &'static str,
    /// Its methods.
    pub takes: Takes,
    /// Its body.
    pub body: BodyKind,
    /// Who serves it.
    pub serving: Serving,
    /// A sentence for documents.
    pub about: &'static str,
}

const fn row(
    route: Route,
    path: &'static str,
    takes: Takes,
    body: BodyKind,
    serving: Serving,
    about: &'static str,
) -> Row {
    Row {
        route,
        path,
        takes,
        body,
        serving,
        about,
    }
}

/// Every route, at the place of its number.
#[rustfmt::skip]
pub const ROUTES: [Row; 41] = [
    row(Route::Health, "/health", Takes::Get, BodyKind::None, Serving::Local, "Whether any replica is ready: 200 or 503."),
    row(Route::Models, "/v1/models", Takes::Get, BodyKind::None, Serving::Local, "Models and adapters; also /v1/models/{name}, whose slashes may be escaped."),
    row(Route::ChatCompletions, "/v1/chat/completions", Takes::Post, BodyKind::Json, Serving::Batch, "OpenAI's chat."),
    row(Route::Completions, "/v1/completions", Takes::Post, BodyKind::Json, Serving::Batch, "OpenAI's completions."),
    row(Route::Responses, "/v1/responses", Takes::Post, BodyKind::Json, Serving::Batch, "OpenAI's responses."),
    row(Route::ResponseById, "/v1/responses/{id}", Takes::Get, BodyKind::None, Serving::Stored, "A stored response, from the replica that has it."),
    row(Route::ResponseCancel, "/v1/responses/{id}/cancel", Takes::Post, BodyKind::OptionalJson, Serving::Stored, "Ends a stored response."),
    row(Route::Messages, "/v1/messages", Takes::Post, BodyKind::Json, Serving::Batch, "Anthropic's messages."),
    row(Route::CountTokens, "/v1/messages/count_tokens", Takes::Post, BodyKind::Json, Serving::Light, "Tokens of messages."),
    row(Route::Embeddings, "/v1/embeddings", Takes::Post, BodyKind::Json, Serving::Batch, "OpenAI's embeddings."),
    row(Route::Rerank, "/v1/rerank", Takes::Post, BodyKind::Json, Serving::Batch, "Ranks documents."),
    row(Route::Score, "/v1/score", Takes::Post, BodyKind::Json, Serving::Batch, "Scores pairs of texts."),
    row(Route::Transcriptions, "/v1/audio/transcriptions", Takes::Post, BodyKind::Multipart, Serving::Batch, "Text of sound (a form)."),
    row(Route::Translations, "/v1/audio/translations", Takes::Post, BodyKind::Multipart, Serving::Batch, "English text of sound (a form)."),
    row(Route::Speech, "/v1/audio/speech", Takes::Post, BodyKind::Json, Serving::Batch, "Sound of text."),
    row(Route::Pooling, "/pooling", Takes::Post, BodyKind::Json, Serving::Batch, "A model's pooled output."),
    row(Route::Classify, "/classify", Takes::Post, BodyKind::Json, Serving::Batch, "Classes of texts."),
    row(Route::Tokenize, "/tokenize", Takes::Post, BodyKind::Json, Serving::Light, "Tokens of a text."),
    row(Route::Detokenize, "/detokenize", Takes::Post, BodyKind::Json, Serving::Light, "Text of tokens."),
    row(Route::Generate, "/inference/v1/generate", Takes::Post, BodyKind::Json, Serving::Batch, "Tokens in, tokens out."),
    row(Route::Ping, "/ping", Takes::GetPost, BodyKind::None, Serving::Local, "As /health, with an empty body."),
    row(Route::Version, "/version", Takes::Get, BodyKind::None, Serving::Light, "The version of one ready replica's engine."),
    row(Route::ChatBatch, "/v1/chat/completions/batch", Takes::Post, BodyKind::Json, Serving::Batch, "Several chats in one request."),
    row(Route::ChatRender, "/v1/chat/completions/render", Takes::Post, BodyKind::Json, Serving::Light, "The tokens that a chat becomes."),
    row(Route::ChatDerender, "/v1/chat/completions/derender", Takes::Post, BodyKind::Json, Serving::Light, "The chat answer that tokens become."),
    row(Route::CompletionRender, "/v1/completions/render", Takes::Post, BodyKind::Json, Serving::Light, "The tokens that prompts become."),
    row(Route::CompletionDerender, "/v1/completions/derender", Takes::Post, BodyKind::Json, Serving::Light, "The completion that tokens become."),
    row(Route::ResponsesRender, "/v1/responses/render", Takes::Post, BodyKind::Json, Serving::Light, "The tokens that a responses request becomes."),
    row(Route::MessagesRender, "/v1/messages/render", Takes::Post, BodyKind::Json, Serving::Light, "The tokens that messages become."),
    row(Route::RerankRoot, "/rerank", Takes::Post, BodyKind::Json, Serving::Batch, "As /v1/rerank."),
    row(Route::RerankV2, "/v2/rerank", Takes::Post, BodyKind::Json, Serving::Batch, "As /v1/rerank (Cohere)."),
    row(Route::ScoreRoot, "/score", Takes::Post, BodyKind::Json, Serving::Batch, "As /v1/score."),
    row(Route::EmbedV2, "/v2/embed", Takes::Post, BodyKind::Json, Serving::Batch, "Cohere's embeddings."),
    row(Route::Invocations, "/invocations", Takes::Post, BodyKind::Json, Serving::Batch, "SageMaker: a chat, completion, embedding, pooling, classification, score or rerank request."),
    row(Route::CohereChat, "/cohere/v2/chat", Takes::Post, BodyKind::Json, Serving::Batch, "Cohere's chat."),
    row(Route::CohereRender, "/cohere/v2/chat/render", Takes::Post, BodyKind::Json, Serving::Light, "The tokens that Cohere's chat becomes."),
    row(Route::GenerativeScore, "/generative_scoring", Takes::Post, BodyKind::Json, Serving::Batch, "Scores of items by the tokens that a model would write."),
    row(Route::Decisions, "/v1/systemone", Takes::Post, BodyKind::Json, Serving::Batch, "Structured decisions."),
    row(Route::Readiness, "/readiness", Takes::Get, BodyKind::None, Serving::Local, "As /health, for probes that were written for vllm-router or smg."),
    row(Route::Liveness, "/liveness", Takes::Get, BodyKind::None, Serving::Local, "200 while the balancer runs, with or without replicas."),
    row(Route::Fleet, "/workers", Takes::Get, BodyKind::None, Serving::Local, "How many replicas there are and which are ready, in vllm-router's and smg's shape, without addresses."),
];

/// Longest `{id}` of `/v1/responses/{id}`, in bytes.
pub const RESPONSE_ID_LEN_MAX: usize = 128;

impl Route {
    /// The route of a path (without query) and method.
    ///
    /// `HEAD` counts as `GET`, and `OPTIONS` is left to the caller: it matches every known path.
    ///
    /// # Errors
    ///
    /// 404 for an unknown path, 405 with `Allow` (RFC 9110, 15.5.6) for a method it does not take.
    pub fn of(method: &[u8], path: &[u8]) -> Result<Self, RequestError> {
        let Some(route) = Self::of_path(path) else {
            return Err(unknown_path(path));
        };
        let fits = match (method, route.row().takes) {
            (b"POST", takes) => takes != Takes::Get,
            (b"GET" | b"HEAD", takes) => takes != Takes::Post,
            (b"OPTIONS", _) => true,
            _ => false,
        };
        if fits {
            Ok(route)
        } else {
            Err(route.wrong_method(false))
        }
    }

    /// The 405 of this route; `cors`: OPTIONS is answered as well.
    #[must_use]
    pub fn wrong_method(self, cors: bool) -> RequestError {
        let allow = match (self.row().takes, cors) {
            (Takes::Get, false) => "GET, HEAD",
            (Takes::Get, true) => "GET, HEAD, OPTIONS",
            (Takes::Post, false) => "POST",
            (Takes::Post, true) => "POST, OPTIONS",
            (Takes::GetPost, false) => "GET, HEAD, POST",
            (Takes::GetPost, true) => "GET, HEAD, POST, OPTIONS",
        };
        RequestError::new(
            "method_not_allowed",
            format!("This path takes {allow} only."),
        )
        .allowing(allow)
    }

    /// The path's route, whatever the method.
    #[must_use]
    pub fn of_path(path: &[u8]) -> Option<Self> {
        let known = ROUTES.iter().find(|row| row.path.as_bytes() == path);
        match known {
            Some(row) => Some(row.route),
            None => Self::with_id(path),
        }
    }

    fn with_id(path: &[u8]) -> Option<Self> {
        if let Some(id) = path.strip_prefix(b"/v1/responses/") {
            return match id.strip_suffix(b"/cancel") {
                Some(id) if is_response_id(id) => Some(Self::ResponseCancel),
                None if is_response_id(id) => Some(Self::ResponseById),
                _ => None,
            };
        }
        let id = path.strip_prefix(b"/v1/models/")?;
        is_model_id(id).then_some(Self::Models)
    }

    fn row(self) -> &'static Row {
        &ROUTES[self as usize]
    }

    /// The template, bounded and fit for a metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().path
    }

    /// It needs no API key where others do: it tells nothing of models, tenants or load.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(
            self,
            Self::Health | Self::Ping | Self::Readiness | Self::Liveness
        )
    }

    /// The balancer answers it.
    #[must_use]
    pub fn is_local(self) -> bool {
        self.row().serving == Serving::Local
    }

    /// Who serves it, and how.
    #[must_use]
    pub fn serving(self) -> Serving {
        self.row().serving
    }

    /// The engine's prefix cache serves it, and its body may name a salt of that cache
    /// (`cache_salt`): as vLLM 0.32 has it.
    #[must_use]
    pub fn takes_salt(self) -> bool {
        let batch = self.serving() == Serving::Batch && self.body() == BodyKind::Json;
        batch && !matches!(self, Self::CohereChat | Self::EmbedV2 | Self::Speech)
    }

    /// The model writes an answer, token by token.
    #[must_use]
    pub fn generates(self) -> bool {
        let reads = matches!(
            self,
            Self::Embeddings
                | Self::EmbedV2
                | Self::Rerank
                | Self::RerankRoot
                | Self::RerankV2
                | Self::Score
                | Self::ScoreRoot
                | Self::Pooling
                | Self::Classify
                | Self::GenerativeScore
        );
        self.serving() == Serving::Batch && !reads
    }

    /// The body this route reads.
    #[must_use]
    pub fn body(self) -> BodyKind {
        self.row().body
    }

    /// Errors take Anthropic's shape.
    #[must_use]
    pub fn anthropic(self) -> bool {
        self.row().path.starts_with("/v1/messages")
    }
}

/// The path without the one slash that it may end with.
#[must_use]
pub fn without_slash(path: &[u8]) -> &[u8] {
    match path {
        [rest @ .., before, b'/'] if *before != b'/' => &path[..=rest.len()],
        _ => path,
    }
}

/// `[A-Za-z0-9_-]{1,128}`: what vLLM makes (`resp_` and hex digits), and nothing that could be read as
/// another path.
#[must_use]
pub fn is_response_id(id: &[u8]) -> bool {
    (1..=RESPONSE_ID_LEN_MAX).contains(&id.len())
        && id
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// A model name, escaped as its client likes, with or without a slash behind it: no empty or dot
/// segment. The balancer answers itself, nothing is forwarded.
fn is_model_id(id: &[u8]) -> bool {
    let id = id.strip_suffix(b"/").unwrap_or(id);
    let Some(id) = unescaped(id).and_then(|id| String::from_utf8(id).ok()) else {
        return false;
    };
    // What would be another name if it were decoded once more is an attempt at something else.
    let twice = unescaped(id.as_bytes()).is_some_and(|again| again != id.as_bytes());
    !twice && id.split('/').all(|s| !matches!(s, "" | "." | ".."))
}

/// Percent-decoded once (RFC 3986, 2.1); `None` where an escape is malformed.
fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |b: &u8| {
        char::from(*b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&b) = rest.next() {
        out.push(if b == b'%' {
            digit(rest.next()?)? << 4 | digit(rest.next()?)?
        } else {
            b
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests;
