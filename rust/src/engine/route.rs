//! The allow-list of paths (vLLM's inference paths, `/v1/models`, `/health`).

/// What a path asks for. The numbers are part of the Python interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Route {
    /// `GET /health`, answered by the balancer.
    Health = 0,
    /// `GET /v1/models` and `GET /v1/models/{id}`, answered by the balancer.
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
    /// `POST /v1/messages` (Anthropic's shape).
    Messages = 7,
    /// `POST /v1/messages/count_tokens`.
    CountTokens = 8,
    /// `POST /v1/embeddings`.
    Embeddings = 9,
    /// `POST /v1/rerank`.
    Rerank = 10,
    /// `POST /v1/score`.
    Score = 11,
    /// `POST /v1/audio/transcriptions` (multipart).
    Transcriptions = 12,
    /// `POST /v1/audio/translations` (multipart).
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
}
