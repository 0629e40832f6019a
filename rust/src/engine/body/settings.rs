//! The settings of a request that routing needs, and the seed of its chain.

use super::cursor::{Cursor, RawStr};
use super::fault::Fault;
use super::outline::{Field, Outline, boolean, count, pick};
use super::prompt::{canonical, text_at};
use super::{AnswerForm, Digest, DigestConfig};
use crate::engine::class::Class;
use crate::engine::error::RequestError;
use crate::engine::route::Route;

/// Everything in the digest but the prompt.
pub(super) fn read(
    route: Route,
    outline: &Outline<'_>,
    cfg: &DigestConfig,
) -> Result<Digest, RequestError> {
    let model = outline.string(Field::Model)?.map(RawStr::to_text);
    let Some(model) = model.filter(|model| !model.is_empty()) else {
        return Err(RequestError::new(400, "missing_model", "'model' is required").param("model"));
    };
    let always_usage = matches!(
        route,
        Route::Messages | Route::CountTokens | Route::Responses
    );
    let background = outline.boolean(Field::Background)?;
    let store = outline.boolean(Field::Store)?;
    let previous = match route {
        Route::Responses => outline.string(Field::PreviousResponseId)?,
        _ => None,
    };
    let stream = outline.boolean(Field::Stream)?;
    let include_usage = include_usage(outline)? || always_usage;
    Ok(Digest {
        model,
        stream,
        include_usage,
        usage_splice: usage_splice(route, outline).filter(|_| stream && !include_usage),
        answer: answer_form(route, outline)?.filter(|_| previous.is_none() && !background),
        max_tokens: max_tokens(route, outline)?,
        key: key(outline, cfg)?,
        class: class(outline)?,
        retry_safe: !background && !store,
        unstored: !background && !store && outline.has(Field::Store),
        previous_response_id: previous.map(RawStr::to_text),
        splice_at: outline.splice_at,
        ..Digest::default()
    })
}

/// vLLM's `priority` where it says something, else `OpenAI`'s `service_tier`.
fn class(outline: &Outline<'_>) -> Result<Class, Fault> {
    let priority = outline.integer(Field::Priority)?.map(Class::of_priority);
    let tier = outline.string(Field::ServiceTier)?;
    let mut buffer = Vec::new();
    Ok(match (priority, tier) {
        (Some(class), _) if class != Class::Normal => class,
        (_, Some(tier)) => Class::of_service_tier(tier.text(&mut buffer)),
        _ => Class::Normal,
    })
}

/// Bytes to put into a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splice {
    /// Where, as an offset into the body.
    pub at: usize,
    /// What.
    pub text: &'static [u8],
}

/// Asks for usage at a stream's end, where the client says nothing about it.
fn usage_splice(route: Route, outline: &Outline<'_>) -> Option<Splice> {
    if !matches!(route, Route::ChatCompletions | Route::Completions) {
        return None;
    }
    if !outline.has(Field::StreamOptions) {
        // The body is not empty: it names a model.
        return Some(Splice {
            at: outline.splice_at,
            text: b"\"stream_options\":{\"include_usage\":true},",
        });
    }
    let mut options = outline.get(Field::StreamOptions)?;
    if !options.enter(b'{') {
        return None;
    }
    let at = options.at;
    let mut buffer = Vec::new();
    let mut is_empty = true;
    while let Some(key) = options.member() {
        is_empty = false;
        if key.text(&mut buffer) == b"include_usage" {
            return None;
        }
        options.skip();
    }
    let text: &[u8] = if is_empty {
        b"\"include_usage\":true"
    } else {
        b"\"include_usage\":true,"
    };
    Some(Splice { at, text })
}

/// How the one answer to this request will be sent back as part of the next prompt.
fn answer_form(route: Route, outline: &Outline<'_>) -> Result<Option<AnswerForm>, Fault> {
    if outline.count(Field::N)?.is_some_and(|n| n != 1) {
        return Ok(None);
    }
    // No request is refused for the sake of learning: what is no boolean is the engine's to judge.
    let first_byte = |field| outline.get(field).map(|value| value.peek());
    if !matches!(first_byte(Field::Echo), None | Some(b'f')) {
        return Ok(None);
    }
    Ok(match route {
        Route::ChatCompletions => match first_byte(Field::ContinueFinalMessage) {
            None | Some(b'f') => Some(AnswerForm::Chat),
            Some(b't') => Some(AnswerForm::ChatContinued),
            Some(_) => None,
        },
        Route::Completions => {
            let is_one = first_byte(Field::Prompt) == Some(b'"');
            is_one.then_some(AnswerForm::Text)
        }
        Route::Messages => Some(AnswerForm::Messages),
        Route::Responses => Some(AnswerForm::Responses),
        _ => None,
    })
}

fn include_usage(outline: &Outline<'_>) -> Result<bool, Fault> {
    let Some(mut options) = outline.get(Field::StreamOptions) else {
        return Ok(false);
    };
    let within = |fault: Fault| fault.within("stream_options");
    let [include] = pick(&mut options, &["include_usage"]).map_err(within)?;
    include.map_or(Ok(false), |include| {
        boolean(include, "include_usage").map_err(within)
    })
}

/// The limit of the answer, times the number of answers: what may be generated in all.
fn max_tokens(route: Route, outline: &Outline<'_>) -> Result<Option<u32>, Fault> {
    if route == Route::Generate {
        let Some(mut parameters) = outline.get(Field::SamplingParams) else {
            return Ok(None);
        };
        let within = |fault: Fault| fault.within("sampling_params");
        let [limit, n] = pick(&mut parameters, &["max_tokens", "n"]).map_err(within)?;
        let number = |cursor: Option<Cursor<'_>>, path| {
            cursor.map(|at| count(at, path)).transpose().map_err(within)
        };
        return Ok(times(number(limit, "max_tokens")?, number(n, "n")?));
    }
    // All are read, so that a wrong type is found wherever it is.
    let chat = outline.count(Field::MaxCompletionTokens)?;
    let responses = outline.count(Field::MaxOutputTokens)?;
    let legacy = outline.count(Field::MaxTokens)?;
    let n = outline.count(Field::N)?;
    Ok(times(chat.or(responses).or(legacy), n))
}

fn times(limit: Option<u32>, n: Option<u32>) -> Option<u32> {
    limit.map(|limit| limit.saturating_mul(n.unwrap_or(1).max(1)))
}

/// The first of session, `prompt_cache_key`, `user` and `metadata.user_id` that is a text.
fn key(outline: &Outline<'_>, cfg: &DigestConfig) -> Result<Option<u64>, Fault> {
    let mut user_id = None;
    if let Some(mut metadata) = outline.get(Field::Metadata) {
        let [found] =
            pick(&mut metadata, &["user_id"]).map_err(|fault| fault.within("metadata"))?;
        user_id = found.and_then(|mut cursor| cursor.string());
    }
    // No API defines a session: what is no text under that name is somebody else's.
    let loose = |field| outline.get(field).and_then(|mut cursor| cursor.string());
    let candidates = [
        loose(Field::Session),
        loose(Field::SessionId),
        outline.string(Field::PromptCacheKey)?,
        outline.string(Field::User)?,
        user_id,
    ];
    let mut buffer = Vec::new();
    let found = candidates
        .into_iter()
        .flatten()
        .find(|text| !text.bytes.is_empty());
    Ok(found.map(|text| cfg.key_of(text.text(&mut buffer))))
}

/// Where the chain of this prompt starts: prompts with different seeds share no block.
pub(super) fn seed(
    route: Route,
    outline: &Outline<'_>,
    isolation: &[u8],
    cfg: &DigestConfig,
    staged: &mut Vec<u8>,
) -> Result<u64, Fault> {
    let key = &cfg.key;
    let mut seed = key.chain(key.start(), key.hash(isolation));
    for field in [
        Field::Model,
        Field::CacheSalt,
        Field::ChatTemplate,
        Field::ReasoningEffort,
    ] {
        let text = outline.string(field)?;
        let hash = match text {
            Some(text) => key.hash(text.text(staged)),
            None => 0,
        };
        seed = key.chain(seed, hash);
    }
    if let Some(mut reasoning) = outline.get(Field::Reasoning)
        && route == Route::Responses
    {
        let within = |fault: Fault| fault.within("reasoning");
        let [effort] = pick(&mut reasoning, &["effort"]).map_err(within)?;
        if let Some(effort) = text_at(effort, "effort").map_err(within)? {
            seed = key.chain(seed, key.hash(effort.text(staged)));
        }
    }
    if let Some(variables) = outline.get(Field::ChatTemplateKwargs) {
        let path = Field::ChatTemplateKwargs.name();
        let sum = variables_hash(variables, cfg, staged).map_err(|fault| fault.within(path))?;
        seed = key.chain(seed, sum);
    }
    if let Some(mut documents) = outline.get(Field::Documents)
        && route == Route::ChatCompletions
    {
        staged.clear();
        canonical(&mut documents, staged);
        seed = key.chain(seed, key.hash(staged));
    }
    Ok(seed)
}

/// The template's variables, in whatever order they stand.
fn variables_hash(
    mut cursor: Cursor<'_>,
    cfg: &DigestConfig,
    staged: &mut Vec<u8>,
) -> Result<u64, Fault> {
    if !cursor.enter(b'{') {
        return Err(Fault::of_type("", "an object"));
    }
    let mut sum = 0_u64;
    while let Some(name) = cursor.member() {
        let name = cfg.key.hash(name.text(staged));
        staged.clear();
        canonical(&mut cursor, staged);
        sum = sum.wrapping_add(cfg.key.chain(name, cfg.key.hash(staged)));
    }
    Ok(sum)
}
