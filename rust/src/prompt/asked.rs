//! What a replica is asked for the ids of a prompt: the chat that vLLM makes of a `/v1/messages` body.
//!
//! vLLM 0.32 joins the texts of `system`, and gives a message with one text that text. It drops the texts of one client
//! that differ in each request. Whether the replica makes the same prompt of it is seen by its length, which the
//! stream says at its beginning.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::reason::Reason;

/// Such a text of `system` is no part of vLLM's prompt.
const DROPPED: &str = "x-anthropic-billing-header";

/// Of which streams it is asked whether they may go on elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Those of these models, of all where none is named.
    pub models: Vec<String>,
    /// Also where the engine tells no ids: what was told is tokenised anew.
    pub by_text: bool,
}

impl Scope {
    /// Whether streams of a model may go on.
    #[must_use]
    pub fn has(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|name| name == model)
    }
}

/// What becomes of a member of a body of `/v1/messages`. What vLLM does not read there is not carried to another path.
pub(super) fn fate(key: &str) -> Fate {
    match key {
        "temperature" | "top_p" | "top_k" => Fate::Carried,
        "model"
        | "messages"
        | "system"
        | "stream"
        | "max_tokens"
        | "metadata"
        | "cache_salt"
        | "cache_control"
        | "priority"
        | "service_tier"
        | "session"
        | "user"
        | "chat_template_kwargs" => Fate::Done,
        "tools" | "tool_choice" => Fate::Unless(Reason::Tools),
        "stop_sequences" => Fate::Unless(Reason::Stop),
        "thinking" => Fate::Unless(Reason::Reasoning),
        "output_config" => Fate::Unless(Reason::Guided),
        _ => Fate::Unless(Reason::Field),
    }
}

/// What becomes of a member of the body.
pub(super) enum Fate {
    /// The replica that goes on gets it as it is.
    Carried,
    /// It shaped the prompt, whose ids are known; or it is written anew.
    Done,
    /// It may have a value that says nothing ; else this is why the stream ends.
    Unless(Reason),
}

type Object<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Members of a body of `/tokenize`, without braces: what stands for the prompt.
///
/// # Errors
///
/// The messages have something else than text, or something that is not known.
pub(super) fn question(
    system: Option<&RawValue>,
    messages: &RawValue,
    template_kwargs: Option<&RawValue>,
) -> Result<Vec<u8>, Reason> {
    let mut chat = Vec::new();
    if let Some(system) = system.filter(|system| system.get() != "null") {
        let text = system_text(system)?;
        if text.len() > 2 {
            put(&mut chat, "\"system\"", Some(&text));
        }
    }
    let messages: Vec<Object<'_>> =
        serde_json::from_str(messages.get()).map_err(|_| Reason::Field)?;
    for message in &messages {
        put_message(&mut chat, message)?;
    }
    let mut question = b"\"messages\":[".to_vec();
    question.append(&mut chat);
    question.push(b']');
    if let Some(kwargs) = template_kwargs.filter(|kwargs| kwargs.get() != "null") {
        question.extend_from_slice(b",\"chat_template_kwargs\":");
        question.extend_from_slice(kwargs.get().as_bytes());
    }
    Ok(question)
}

fn put(chat: &mut Vec<u8>, role: &str, content: Option<&str>) {
    if !chat.is_empty() {
        chat.push(b',');
    }
    let content = content.map_or_else(String::new, |content| format!(",\"content\":{content}"));
    chat.extend_from_slice(format!("{{\"role\":{role}{content}}}").as_bytes());
}

/// As one JSON string.
fn system_text(system: &RawValue) -> Result<String, Reason> {
    if system.get().starts_with('"') {
        return Ok(system.get().to_owned());
    }
    let texts = texts(system)?;
    let kept = texts
        .iter()
        .map(|text| &text.get()[1..text.get().len() - 1]);
    let kept: String = kept.filter(|text| !text.starts_with(DROPPED)).collect();
    Ok(format!("\"{kept}\""))
}

fn put_message(chat: &mut Vec<u8>, message: &Object<'_>) -> Result<(), Reason> {
    if message.keys().any(|key| key != "role" && key != "content") {
        return Err(Reason::Field);
    }
    let role = message.get("role").map_or("", |role| role.get());
    // Where the template wants the system's text first, vLLM moves such a message there.
    if !matches!(role, "\"user\"" | "\"assistant\"") {
        return Err(Reason::Field);
    }
    let content = message.get("content").ok_or(Reason::Field)?;
    if content.get().starts_with('"') {
        put(chat, role, Some(content.get()));
        return Ok(());
    }
    match &texts(content)?[..] {
        [] if role == "\"user\"" => {}
        [] => put(chat, role, None),
        [text] => put(chat, role, Some(text.get())),
        several => {
            let parts = several
                .iter()
                .map(|text| format!("{{\"type\":\"text\",\"text\":{}}}", text.get()));
            let parts: Vec<String> = parts.collect();
            put(chat, role, Some(&format!("[{}]", parts.join(","))));
        }
    }
    Ok(())
}

/// The texts of blocks that are nothing else, but for those that are empty.
fn texts(blocks: &RawValue) -> Result<Vec<&RawValue>, Reason> {
    let blocks: Vec<Object<'_>> = serde_json::from_str(blocks.get()).map_err(|_| Reason::Field)?;
    let mut texts = Vec::with_capacity(blocks.len());
    for block in &blocks {
        let kind = block.get("type").map_or("", |kind| kind.get());
        match kind.trim_matches('"') {
            "text" => {}
            "image" | "document" => return Err(Reason::Media),
            "thinking" | "redacted_thinking" => return Err(Reason::Reasoning),
            kind if kind.starts_with("tool") => return Err(Reason::Tools),
            _ => return Err(Reason::Field),
        }
        let known = |key: &str| matches!(key, "type" | "text" | "cache_control" | "citations");
        if !block.keys().all(|key| known(key)) {
            return Err(Reason::Field);
        }
        let text = block.get("text").filter(|text| text.get() != "null");
        if let Some(text) = text.filter(|text| text.get() != "\"\"") {
            if !text.get().starts_with('"') {
                return Err(Reason::Field);
            }
            texts.push(*text);
        }
    }
    Ok(texts)
}
