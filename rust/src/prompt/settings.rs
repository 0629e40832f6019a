//! The settings of a request that routing needs, and the seed of its chain.

use std::borrow::Cow;

use super::canonical::{canonical, tag};
use super::cursor::{Cursor, RawStr};
use super::edit::{Edit, Edits};
use super::fault::Fault;
use super::isolation::Salt;
use super::outline::{Field, Outline, boolean, count, pick};
use super::{AnswerForm, Digest, DigestConfig, Envelope};
use crate::http::error::RequestError;
use crate::http::route::Route;
use crate::prompt::class::Class;

/// Everything in the digest but the prompt.
pub(super) fn read(
    envelope: &Envelope<'_>,
    outline: &Outline<'_>,
    cfg: &DigestConfig,
) -> Result<Digest, RequestError> {
    let route = envelope.route;
    let (model, model_edits) = model(envelope, outline)?;
    let always_usage = matches!(
        route,
        Route::Messages | Route::CountTokens | Route::Responses
    );
    let background = outline.boolean(Field::Background)?;
    let store = outline.boolean(Field::Store)?;
    let priority = outline.integer(Field::Priority)?;
    let previous = match route {
        Route::Responses => outline.string(Field::PreviousResponseId)?,
        _ => None,
    };
    // It names the stored response, and might name one that is there and another's.
    if route == Route::Responses && !envelope.trusted && outline.get(Field::RequestId).is_some() {
        return Err(RequestError::untrusted_field(Field::RequestId.name()));
    }
    let stream = outline.boolean(Field::Stream)?;
    let (max_tokens, choices) = lengths(route, outline)?;
    let include_usage = include_usage(outline)? || always_usage;
    let (usage_edits, usage_declined) = if stream && !include_usage {
        usage_edits(route, outline)
    } else {
        Default::default()
    };
    Ok(Digest {
        model,
        stream,
        include_usage,
        model_edits,
        priority_edits: priority_edits(outline, priority),
        usage_edits,
        usage_declined,
        answer: answer_form(route, outline)?.filter(|_| previous.is_none() && !background),
        max_tokens,
        choices,
        event_tokens: event_tokens(outline),
        key: key(envelope, outline, cfg)?,
        class: class(outline, priority),
        retry_safe: !background && !store,
        unstored: !background && !store && outline.get(Field::Store).is_some(),
        previous_response_id: previous.map(RawStr::to_text),
        ..Digest::default()
    })
}

/// The model, and where the body names none, as engines that serve one allow, what names it.
fn model(envelope: &Envelope<'_>, outline: &Outline<'_>) -> Result<(String, Edits), RequestError> {
    let named = outline.string(Field::Model)?.map(RawStr::to_text);
    if let Some(named) = named.filter(|name| !name.is_empty()) {
        return Ok((named, Edits::new()));
    }
    let Some(only) = envelope.only_model else {
        return Err(RequestError::missing_model());
    };
    if only.is_empty() {
        return Ok((String::new(), Edits::new()));
    }
    let name = serde_json::Value::from(only).to_string();
    let mut edits: Edits = outline
        .places(Field::Model)
        .map(|(at, gone)| Edit {
            at,
            gone,
            text: Cow::Owned(name.clone().into_bytes()),
        })
        .collect();
    if edits.is_empty() {
        let comma = if outline.is_empty { "" } else { "," };
        let text = format!("\"model\":{name}{comma}");
        edits.push(Edit::insert(outline.splice_at, text.into_bytes()));
    }
    Ok((only.to_owned(), edits))
}

/// What makes a priority say nothing, wherever it is: engines take the last of several.
fn priority_edits(outline: &Outline<'_>, priority: Option<i64>) -> Edits {
    if matches!(priority, None | Some(0)) {
        return Edits::new();
    }
    let places = outline.places(Field::Priority);
    places
        .map(|(at, gone)| Edit {
            at,
            gone,
            text: Cow::Borrowed(b"0"),
        })
        .collect()
}

/// vLLM's `priority` where it says something, else `OpenAI`'s `service_tier`.
fn class(outline: &Outline<'_>, priority: Option<i64>) -> Class {
    let mut buffer = Vec::new();
    match (
        priority.map(Class::of_priority),
        outline.hint(Field::ServiceTier),
    ) {
        (Some(class), _) if class != Class::Normal => class,
        (_, Some(tier)) => Class::of_service_tier(tier.text(&mut buffer)),
        _ => Class::Normal,
    }
}

/// Asks for usage at a stream's end; whether the client has said that it wants none.
fn usage_edits(route: Route, outline: &Outline<'_>) -> (Edits, bool) {
    let mut edits = Edits::new();
    if !matches!(route, Route::ChatCompletions | Route::Completions) {
        return (edits, false);
    }
    if !outline.has(Field::StreamOptions) {
        // The body is not empty: it asks for a stream.
        let text = &b"\"stream_options\":{\"include_usage\":true},"[..];
        edits.push(Edit::insert(outline.splice_at, text));
    }
    let mut declined = false;
    for options in outline.cursors(Field::StreamOptions) {
        declined |= edit_options(options, &mut edits);
    }
    (edits, declined)
}

/// The same in options that are there, or null.
fn edit_options(mut options: Cursor<'_>, edits: &mut Edits) -> bool {
    if !options.enter(b'{') {
        edits.push(replaced(options, b"{\"include_usage\":true}"));
        return false;
    }
    let at = options.at;
    let mut buffer = Vec::new();
    let (mut is_empty, mut said, mut declined) = (true, false, false);
    while let Some(key) = options.member() {
        is_empty = false;
        if key.text(&mut buffer) == b"include_usage" {
            said = true;
            declined |= options.peek() != b'n';
            edits.push(replaced(options, b"true"));
        }
        options.skip();
    }
    let text: &[u8] = if is_empty {
        b"\"include_usage\":true"
    } else {
        b"\"include_usage\":true,"
    };
    if !said {
        edits.push(Edit::insert(at, text));
    }
    declined
}

/// `text` in place of the value at hand.
fn replaced(mut value: Cursor<'_>, text: &'static [u8]) -> Edit {
    let at = value.at;
    value.skip();
    Edit {
        at,
        gone: value.at - at,
        text: Cow::Borrowed(text),
    }
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

/// The limit of the answer, times the number of answers: what may be generated in all. And that number.
fn lengths(route: Route, outline: &Outline<'_>) -> Result<(Option<u32>, u32), Fault> {
    if route == Route::Generate {
        let Some(mut parameters) = outline.get(Field::SamplingParams) else {
            return Ok((None, 1));
        };
        let within = |fault: Fault| fault.within("sampling_params");
        let [limit, n] = pick(&mut parameters, &["max_tokens", "n"]).map_err(within)?;
        let number = |cursor: Option<Cursor<'_>>, path| match cursor {
            Some(at) => count(at, path).map_err(within),
            None => Ok(None),
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

/// Tokens that an event may have. What is no number is the engine's to judge.
fn event_tokens(outline: &Outline<'_>) -> u32 {
    let asked = outline.count(Field::StreamInterval);
    asked.ok().flatten().unwrap_or(1).max(1)
}

fn times(limit: Option<u32>, n: Option<u32>) -> (Option<u32>, u32) {
    let n = n.unwrap_or(1).max(1);
    (limit.map(|limit| limit.saturating_mul(n)), n)
}

/// The first of session, `prompt_cache_key`, `user` and `metadata.user_id` that is a text.
fn key(
    envelope: &Envelope<'_>,
    outline: &Outline<'_>,
    cfg: &DigestConfig,
) -> Result<Option<u64>, Fault> {
    let mut user_id = None;
    if let Some(mut metadata) = outline.get(Field::Metadata).filter(|at| at.peek() == b'{') {
        let [found] =
            pick(&mut metadata, &["user_id"]).map_err(|fault| fault.within("metadata"))?;
        user_id = found.and_then(|mut cursor| cursor.string());
    }
    let candidates = [
        outline.hint(Field::Session),
        outline.hint(Field::SessionId),
        outline.hint(Field::PromptCacheKey),
        outline.hint(Field::User),
        user_id,
    ];
    let mut buffer = Vec::new();
    let found = candidates
        .into_iter()
        .flatten()
        .find(|text| !text.bytes.is_empty());
    Ok(found.map(|text| cfg.session_key(envelope.owner, text.text(&mut buffer))))
}

/// The salt of the request's prefix cache, where owners are isolated. It covers the client's own, of
/// which the engine sees nothing else: one that is no text is refused here.
pub(super) fn salt(
    envelope: &Envelope<'_>,
    outline: &Outline<'_>,
    cfg: &DigestConfig,
    staged: &mut Vec<u8>,
) -> Result<Option<Salt>, Fault> {
    let Some(isolation) = &cfg.isolation else {
        return Ok(None);
    };
    let client = outline.string(Field::CacheSalt)?;
    let client = client.map(|text| text.text(staged));
    Ok(Some(isolation.salt(envelope.owner, client)))
}

/// Puts the salt in, in place of the client's own wherever that is: engines take the last of several.
pub(super) fn salt_edits(route: Route, outline: &Outline<'_>, salt: Option<Salt>) -> Edits {
    let Some(salt) = salt.filter(|_| route.takes_salt() && !outline.is_empty) else {
        return Edits::new();
    };
    let text = format!("\"{}\"", salt.text());
    if !outline.has(Field::CacheSalt) {
        let text = format!("\"cache_salt\":{text},");
        return Edits::from_iter([Edit::insert(outline.splice_at, text.into_bytes())]);
    }
    let places = outline.places(Field::CacheSalt);
    places
        .map(|(at, gone)| Edit {
            at,
            gone,
            text: Cow::Owned(text.clone().into_bytes()),
        })
        .collect()
}

/// Where the chain of this prompt starts: prompts with different seeds share no block. `salt` is the
/// owner's.
pub(super) fn seed(
    (route, model, salt): (Route, &[u8], Option<Salt>),
    outline: &Outline<'_>,
    cfg: &DigestConfig,
    staged: &mut Vec<u8>,
) -> Result<u64, Fault> {
    let key = &cfg.key;
    let isolation = salt.as_ref().map_or(&b""[..], Salt::as_bytes);
    let mut seed = key.chain(key.start(), key.hash(isolation));
    seed = key.chain(seed, key.hash(model));
    for field in [
        Field::CacheSalt,
        Field::ChatTemplate,
        Field::ReasoningEffort,
    ] {
        seed = key.chain(
            seed,
            outline.get(field).map_or(0, |at| hash_of(at, cfg, staged)),
        );
    }
    if let Some(mut reasoning) = outline.get(Field::Reasoning)
        && route == Route::Responses
    {
        let within = |fault: Fault| fault.within("reasoning");
        let [effort] = pick(&mut reasoning, &["effort"]).map_err(within)?;
        if let Some(effort) = effort {
            seed = key.chain(seed, hash_of(effort, cfg, staged));
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

/// The hash of a text, or of another value as it is: whether it may be one is the engine's to judge.
fn hash_of(mut cursor: Cursor<'_>, cfg: &DigestConfig, staged: &mut Vec<u8>) -> u64 {
    if let Some(text) = cursor.string() {
        return cfg.key.hash(text.text(staged));
    }
    staged.clear();
    staged.push(tag::OTHER);
    canonical(&mut cursor, staged);
    cfg.key.hash(staged)
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
