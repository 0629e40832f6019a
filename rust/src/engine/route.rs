//! The allow-list of paths (vLLM's inference paths, `/v1/models`, `/health`).
//!
//! A path matches byte for byte or not at all: nothing is decoded or normalised, so the route that
//! was authorised is the route that runs (RELIABILITY S7). `//host`, `%2e`, dot segments and
//! trailing slashes therefore never match.

use super::error::RequestError;

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
            return Err(RequestError::new(
                404,
                "unknown_path",
                "This path does not exist here.",
            ));
        };
        let fits = match method {
            b"POST" => !route.is_get(),
            b"GET" | b"HEAD" => route.is_get(),
            b"OPTIONS" => true,
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
        let allow = match (self.is_get(), cors) {
            (true, false) => "GET, HEAD",
            (true, true) => "GET, HEAD, OPTIONS",
            (false, false) => "POST",
            (false, true) => "POST, OPTIONS",
        };
        RequestError::new(
            405,
            "method_not_allowed",
            format!("This path takes {allow} only."),
        )
        .allowing(allow)
    }

    /// The path's route, whatever the method.
    #[must_use]
    pub fn of_path(path: &[u8]) -> Option<Self> {
        Some(match path {
            b"/v1/chat/completions" => Self::ChatCompletions,
            b"/v1/completions" => Self::Completions,
            b"/v1/responses" => Self::Responses,
            b"/v1/messages" => Self::Messages,
            b"/v1/messages/count_tokens" => Self::CountTokens,
            b"/v1/embeddings" => Self::Embeddings,
            b"/v1/rerank" => Self::Rerank,
            b"/v1/score" => Self::Score,
            b"/v1/audio/transcriptions" => Self::Transcriptions,
            b"/v1/audio/translations" => Self::Translations,
            b"/v1/audio/speech" => Self::Speech,
            b"/v1/models" => Self::Models,
            b"/health" => Self::Health,
            b"/pooling" => Self::Pooling,
            b"/classify" => Self::Classify,
            b"/tokenize" => Self::Tokenize,
            b"/detokenize" => Self::Detokenize,
            b"/inference/v1/generate" => Self::Generate,
            _ => return Self::with_id(path),
        })
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

    /// The template, bounded and fit for a metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Health => "/health",
            Self::Models => "/v1/models",
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::ResponseById => "/v1/responses/{id}",
            Self::ResponseCancel => "/v1/responses/{id}/cancel",
            Self::Messages => "/v1/messages",
            Self::CountTokens => "/v1/messages/count_tokens",
            Self::Embeddings => "/v1/embeddings",
            Self::Rerank => "/v1/rerank",
            Self::Score => "/v1/score",
            Self::Transcriptions => "/v1/audio/transcriptions",
            Self::Translations => "/v1/audio/translations",
            Self::Speech => "/v1/audio/speech",
            Self::Pooling => "/pooling",
            Self::Classify => "/classify",
            Self::Tokenize => "/tokenize",
            Self::Detokenize => "/detokenize",
            Self::Generate => "/inference/v1/generate",
        }
    }

    /// Read by GET and HEAD; every other route takes POST.
    #[must_use]
    pub fn is_get(self) -> bool {
        matches!(self, Self::Health | Self::Models | Self::ResponseById)
    }

    /// The body this route reads.
    #[must_use]
    pub fn body(self) -> BodyKind {
        match self {
            Self::Health | Self::Models | Self::ResponseById => BodyKind::None,
            Self::ResponseCancel => BodyKind::OptionalJson,
            Self::Transcriptions | Self::Translations => BodyKind::Multipart,
            _ => BodyKind::Json,
        }
    }

    /// Errors take Anthropic's shape.
    #[must_use]
    pub fn anthropic(self) -> bool {
        matches!(self, Self::Messages | Self::CountTokens)
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

/// A model name, whose slashes and colons may be escaped, and nothing else: no empty or dot segment.
/// The balancer answers itself, nothing is forwarded.
fn is_model_id(id: &[u8]) -> bool {
    let Ok(id) = std::str::from_utf8(id) else {
        return false;
    };
    let id = id
        .replace("%2F", "/")
        .replace("%2f", "/")
        .replace("%3A", ":")
        .replace("%3a", ":");
    !id.contains('%') && id.split('/').all(|s| !matches!(s, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_matches_byte_for_byte_or_not_at_all() {
        for path in [
            "//v1/completions",
            "/v1//completions",
            "/v1/completions/",
            "/v1/./completions",
            "/v1/x/../completions",
            "/v1/%63ompletions",
            "/V1/completions",
            "/v1/completions;x",
            "/v1/responses/..",
            "/v1/responses/%2e%2e",
            "/v1/responses/a/b",
            "/v1/responses/",
            "/v1/responses//cancel",
            "/v1/responses/a/cancel/",
            "/v1/models/",
            "/v1/models/..",
            "/v1/models/a/../b",
            "/v1/models/a%2F..%2Fb",
            "/v1/models/%2e%2e",
            "/v1/models/a//b",
            "/metrics",
            "/reset_prefix_cache",
            "",
        ] {
            assert_eq!(Route::of_path(path.as_bytes()), None, "{path}");
        }
        let long = format!("/v1/responses/{}", "a".repeat(RESPONSE_ID_LEN_MAX + 1));
        assert_eq!(Route::of_path(long.as_bytes()), None);
    }

    #[test]
    fn ids_match_their_template() {
        let route = |path: &str| Route::of_path(path.as_bytes());
        assert_eq!(
            route("/v1/responses/resp_01ab-x"),
            Some(Route::ResponseById)
        );
        assert_eq!(
            route("/v1/responses/resp_1/cancel"),
            Some(Route::ResponseCancel)
        );
        // `cancel` alone is an id like any other: vLLM would look it up and not find it.
        assert_eq!(route("/v1/responses/cancel"), Some(Route::ResponseById));
        for id in [
            "llama",
            "meta-llama/Llama-3.1-8B",
            "org%2Fm.x",
            "ft%3Agpt",
            ".hidden",
            "...",
        ] {
            assert_eq!(
                route(&format!("/v1/models/{id}")),
                Some(Route::Models),
                "{id}"
            );
        }
    }

    #[test]
    fn a_wrong_method_names_the_right_ones() {
        let allow =
            |method: &[u8], path: &[u8]| Route::of(method, path).map_err(|e| (e.status, e.allow));
        assert_eq!(allow(b"GET", b"/v1/messages"), Err((405, Some("POST"))));
        assert_eq!(allow(b"POST", b"/health"), Err((405, Some("GET, HEAD"))));
        assert_eq!(allow(b"post", b"/v1/messages"), Err((405, Some("POST"))));
        assert_eq!(allow(b"HEAD", b"/v1/models"), Ok(Route::Models));
        assert_eq!(allow(b"DELETE", b"/nowhere"), Err((404, None)));
    }

    #[test]
    fn every_template_without_an_id_is_its_own_path() {
        for number in 0..=19_u8 {
            let names: Vec<Route> = ALL.iter().copied().filter(|r| *r as u8 == number).collect();
            assert_eq!(names.len(), 1);
            if !names[0].name().contains('{') {
                assert_eq!(Route::of_path(names[0].name().as_bytes()), Some(names[0]));
            }
        }
    }

    const ALL: [Route; 20] = [
        Route::Health,
        Route::Models,
        Route::ChatCompletions,
        Route::Completions,
        Route::Responses,
        Route::ResponseById,
        Route::ResponseCancel,
        Route::Messages,
        Route::CountTokens,
        Route::Embeddings,
        Route::Rerank,
        Route::Score,
        Route::Transcriptions,
        Route::Translations,
        Route::Speech,
        Route::Pooling,
        Route::Classify,
        Route::Tokenize,
        Route::Detokenize,
        Route::Generate,
    ];
}
