//! Whether a stream may go on at another replica, and what that replica is asked.
//!
//! The replica that goes on gets the tokens of the prompt and of the answer so far, as ids, at
//! `/v1/completions`. So it must be given everything else that shapes the answer, and nothing may shape it that
//! depends on where the answer began. A body is therefore read field by field. Some pass as they are. Some
//! shaped the prompt alone, and are in its ids already. For the others the rest would differ, and a field in
//! no list is one of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::value::RawValue;

pub use super::asked::Scope;
use super::asked::{self, Fate};
use super::edit::{Edit, Edits};
use super::isolation::Salt;
use super::outline::{Field, Outline};
pub use super::reason::Reason;
use crate::http::route::Route;

/// Most bytes of a body's fields that a replica which goes on is sent as they are.
const CARRIED_BYTES_MAX: usize = 16 * 1024;
/// What `/v1/completions` generates where `max_tokens` is missing or null.
const COMPLETION_TOKENS: u32 = 16;

/// In which shape a stream was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `chat.completion.chunk`.
    Chat,
    /// `text_completion`.
    Text,
    /// Events of `/v1/messages`. Its ids are asked for when the stream breaks.
    Messages,
}

/// Whether the stream of a body may go on elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Continuing {
    /// It is no stream, or streams are not continued.
    #[default]
    Off,
    /// It ends where it breaks.
    Refused(Reason),
    /// It may, if the engine tells its ids.
    Planned(Box<Plan>),
    /// It may, and another process of the balancer has the plan.
    Elsewhere,
}

/// What a replica that goes on is asked, without the ids.
#[derive(Clone, PartialEq, Eq)]
pub struct Plan {
    /// The shape of the stream.
    pub form: Form,
    /// The client has asked for ids itself.
    pub shows_ids: bool,
    /// Tokens of the answer at most; `None`: as many as the context allows.
    limit: Option<u32>,
    tokens_min: u32,
    /// Members of the new body, each with a comma behind.
    carried: Vec<u8>,
    /// The body's priority, as it stands there.
    priority: Option<Box<str>>,
    /// The body's salt, as it stands there.
    client_salt: Option<Box<str>>,
    /// Of the owner's prefix cache, where owners are isolated.
    owner_salt: Option<Box<str>>,
    /// What stands for the prompt in a question for its ids, where they have to be asked for, until it is charged.
    pub question: Option<Box<[u8]>>,
    /// What asks for ids in the body as it came.
    pub ids_edits: Edits,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

fn fate(key: &str) -> Fate {
    match key {
        "temperature"
        | "top_p"
        | "top_k"
        | "min_p"
        | "repetition_penalty"
        | "length_penalty"
        | "stop_token_ids"
        | "ignore_eos"
        | "skip_special_tokens"
        | "spaces_between_special_tokens"
        | "allowed_token_ids"
        | "logit_bias"
        | "user"
        | "session_id"
        | "stream_interval" => Fate::Carried,
        "model"
        | "messages"
        | "prompt"
        | "stream"
        | "max_tokens"
        | "max_completion_tokens"
        | "min_tokens"
        | "return_token_ids"
        | "priority"
        | "cache_salt"
        | "add_generation_prompt"
        | "continue_final_message"
        | "add_special_tokens"
        | "chat_template"
        | "chat_template_kwargs"
        | "documents"
        | "reasoning_effort"
        | "mm_processor_kwargs"
        | "media_io_kwargs"
        | "truncate_prompt_tokens"
        | "truncation_side"
        | "metadata"
        | "prompt_cache_key"
        | "service_tier"
        | "safety_identifier"
        | "prompt_cache_retention"
        | "session"
        | "parallel_tool_calls"
        | "top_logprobs"
        | "include_stop_str_in_output" => Fate::Done,
        "logprobs" | "prompt_logprobs" | "logprob_token_ids" => Fate::Unless(Reason::Logprobs),
        "response_format" | "structured_outputs" | "guided_json" | "guided_regex"
        | "guided_choice" | "guided_grammar" => Fate::Unless(Reason::Guided),
        "tools" | "functions" => Fate::Unless(Reason::Tools),
        "presence_penalty"
        | "frequency_penalty"
        | "repetition_detection"
        | "thinking_token_budget" => Fate::Unless(Reason::Penalty),
        "stop" => Fate::Unless(Reason::Stop),
        "store" | "background" => Fate::Unless(Reason::Stored),
        "n" | "best_of" => Fate::Unless(Reason::Choices),
        "seed" => Fate::Unless(Reason::Seed),
        "include_reasoning" => Fate::Unless(Reason::Reasoning),
        _ => Fate::Unless(Reason::Field),
    }
}

/// Whether a value says nothing, wherever false is the default.
fn is_nothing(value: &str) -> bool {
    matches!(value, "null" | "false" | "[]" | "{}" | "\"\"")
}

fn is_zero(value: &str) -> bool {
    value.parse::<f64>().is_ok_and(|number| number == 0.0)
}

type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// A number of tokens; `None` for null.
fn tokens(members: &Members<'_>, key: &str) -> Result<Option<u32>, Reason> {
    let Some(value) = members.get(key).filter(|value| value.get() != "null") else {
        return Ok(None);
    };
    value.get().parse().map(Some).map_err(|_| Reason::Field)
}

/// Whether the stream that a body asks for may go on elsewhere.
pub(super) fn read(
    route: Route,
    (outline, body): (&Outline<'_>, &[u8]),
    salt: Option<&Salt>,
    (by_text, has_media): (bool, bool),
) -> Continuing {
    let form = match route {
        Route::ChatCompletions => Form::Chat,
        Route::Completions => Form::Text,
        Route::Messages if by_text => Form::Messages,
        _ => return Continuing::Refused(Reason::Route),
    };
    if has_media {
        return Continuing::Refused(Reason::Media);
    }
    match plan(form, (outline, body), salt) {
        Ok(plan) => Continuing::Planned(Box::new(plan)),
        Err(reason) => Continuing::Refused(reason),
    }
}

fn plan(
    form: Form,
    (outline, body): (&Outline<'_>, &[u8]),
    salt: Option<&Salt>,
) -> Result<Plan, Reason> {
    let members: Members<'_> = serde_json::from_slice(body).map_err(|_| Reason::Field)?;
    let mut carried = Vec::new();
    for (key, value) in &members {
        let fate = match form {
            Form::Messages => asked::fate(key),
            Form::Chat | Form::Text => fate(key),
        };
        match fate {
            Fate::Carried if value.get() != "null" => {
                carried.extend_from_slice(format!("\"{key}\":{},", value.get()).as_bytes());
            }
            Fate::Carried | Fate::Done => {}
            Fate::Unless(reason) => check(key, value.get(), reason, &members)?,
        }
    }
    if carried.len() > CARRIED_BYTES_MAX || one_of_several(&members) {
        return Err(if carried.len() > CARRIED_BYTES_MAX {
            Reason::Field
        } else {
            Reason::Choices
        });
    }
    let limit = match form {
        Form::Chat => {
            tokens(&members, "max_completion_tokens")?.or(tokens(&members, "max_tokens")?)
        }
        Form::Text => tokens(&members, "max_tokens")?.or(Some(COMPLETION_TOKENS)),
        Form::Messages => tokens(&members, "max_tokens")?,
    };
    let question = match form {
        Form::Messages => Some(question(&members)?.into()),
        Form::Chat | Form::Text => None,
    };
    let text = |key: &str| members.get(key).map(|value| Box::from(value.get()));
    Ok(Plan {
        form,
        shows_ids: text("return_token_ids").is_some_and(|value: Box<str>| &*value == "true"),
        limit,
        tokens_min: tokens(&members, "min_tokens")?.unwrap_or(0),
        carried,
        priority: text("priority"),
        client_salt: text("cache_salt").filter(|value| **value != *"null"),
        owner_salt: salt.map(|salt| salt.text().into()),
        ids_edits: match form {
            Form::Messages => Edits::new(),
            Form::Chat | Form::Text => ids_edits(outline),
        },
        question,
    })
}

fn question(members: &Members<'_>) -> Result<Vec<u8>, Reason> {
    let member = |key: &str| members.get(key).copied();
    let messages = member("messages").ok_or(Reason::Field)?;
    asked::question(member("system"), messages, member("chat_template_kwargs"))
}

/// Whether a field with this value leaves the rest of the answer what it would be.
fn check(key: &str, value: &str, reason: Reason, members: &Members<'_>) -> Result<(), Reason> {
    let is = |key: &str, value: &str| members.get(key).is_some_and(|raw| raw.get() == value);
    let harmless = match key {
        _ if value == "null" => true,
        "n" | "best_of" => value == "1",
        "include_reasoning" => value == "true",
        "presence_penalty" | "frequency_penalty" => is_zero(value),
        // The first of equals is taken: there is nothing to draw.
        "seed" => {
            let temperature = members.get("temperature");
            temperature.is_some_and(|raw| is_zero(raw.get()))
        }
        _ if is_nothing(value) => true,
        "tools" => is("tool_choice", "\"none\""),
        "tool_choice" => matches!(value, "\"none\"" | "\"auto\""),
        "response_format" => serde_json::from_str::<serde_json::Value>(value)
            .is_ok_and(|format| format.get("type").and_then(|kind| kind.as_str()) == Some("text")),
        "stream_options" => {
            let options = serde_json::from_str::<Members<'_>>(value);
            options.is_ok_and(|options| {
                let mut others = options.iter().filter(|(key, _)| *key != "include_usage");
                others.all(|(_, value)| is_nothing(value.get()))
            })
        }
        _ => false,
    };
    if harmless { Ok(()) } else { Err(reason) }
}

/// `prompt` is a list of prompts.
fn one_of_several(members: &Members<'_>) -> bool {
    members.get("prompt").is_some_and(|prompt| {
        let list = prompt.get().strip_prefix('[').map(str::trim_ascii_start);
        list.is_some_and(|rest| !rest.starts_with(|first: char| first.is_ascii_digit()))
    })
}

/// Asks for ids, wherever the body says something of them.
fn ids_edits(outline: &Outline<'_>) -> Edits {
    if !outline.has(Field::ReturnTokenIds) {
        let text = &b"\"return_token_ids\":true,"[..];
        return Edits::from_iter([Edit::insert(outline.splice_at, text)]);
    }
    let places = outline.places(Field::ReturnTokenIds);
    places
        .map(|(at, gone)| Edit {
            at,
            gone,
            text: Cow::Borrowed(b"true"),
        })
        .collect()
}

impl Plan {
    /// Of a chat that says nothing of its tokens.
    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        Self {
            form: Form::Chat,
            shows_ids: false,
            limit: None,
            tokens_min: 0,
            carried: Vec::new(),
            priority: None,
            client_salt: None,
            owner_salt: None,
            ids_edits: Edits::new(),
            question: None,
        }
    }

    /// The answer may fill the context: to go on with it, the length of the context has to be known.
    #[must_use]
    pub fn fills_context(&self) -> bool {
        self.limit.is_none()
    }

    /// The body for a replica that goes on, and what gives it its owner's salt. `None`: nothing is missing, the
    /// answer has all its tokens; or it may fill the context, and `context_len` is not known.
    ///
    /// `priority`: the engine is to get the body's. `context_len`: of the model, in tokens.
    #[must_use]
    pub fn body(
        &self,
        model: &str,
        (prompt, answer): (&[u32], &[u32]),
        priority: bool,
        context_len: Option<u32>,
    ) -> Option<(Vec<u8>, Edits)> {
        let count = |ids: &[u32]| u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let given = count(answer);
        // `null` is 16 at `/v1/completions`. vLLM refuses a number above the context's length.
        let limit = match self.limit {
            Some(limit) => limit,
            None => context_len?.saturating_sub(count(prompt)),
        };
        let left = limit.checked_sub(given).filter(|left| *left > 0)?;
        let mut body = b"{".to_vec();
        let salt = self.client_salt.as_deref();
        let salt = salt.map_or_else(String::new, |salt| format!("\"cache_salt\":{salt},"));
        body.extend_from_slice(salt.as_bytes());
        let salt_edits = self.owner_salt.iter().map(|owner| Edit {
            at: 1,
            gone: salt.len(),
            text: Cow::Owned(format!("\"cache_salt\":\"{owner}\",").into_bytes()),
        });
        let salt_edits = salt_edits.collect();
        let model = serde_json::Value::from(model);
        body.extend_from_slice(format!("\"model\":{model},\"prompt\":[").as_bytes());
        let mut digits = itoa::Buffer::new();
        for (index, id) in prompt.iter().chain(answer).enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(digits.format(*id).as_bytes());
        }
        body.extend_from_slice(format!("],\"max_tokens\":{left},").as_bytes());
        let tokens_min = self.tokens_min.saturating_sub(given);
        if tokens_min > 0 {
            body.extend_from_slice(format!("\"min_tokens\":{tokens_min},").as_bytes());
        }
        if let Some(value) = self.priority.as_ref().filter(|_| priority) {
            body.extend_from_slice(format!("\"priority\":{value},").as_bytes());
        }
        body.extend_from_slice(&self.carried);
        body.extend_from_slice(
            b"\"stream\":true,\"stream_options\":{\"include_usage\":true},\"return_token_ids\":true}",
        );
        Some((body, salt_edits))
    }
}
