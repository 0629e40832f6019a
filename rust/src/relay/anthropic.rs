//! Events of `/v1/messages`.

use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
pub(super) struct Told<'a> {
    pub(super) r#type: &'a str,
    #[serde(borrow)]
    pub(super) message: Option<Message<'a>>,
    pub(super) index: Option<u32>,
    #[serde(borrow)]
    pub(super) content_block: Option<Typed<'a>>,
    #[serde(borrow)]
    pub(super) delta: Option<Typed<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    pub(super) usage: Option<Usage>,
}

#[derive(Deserialize)]
pub(super) struct Usage {
    #[serde(rename = "input_tokens")]
    pub(super) computed: usize,
    #[serde(rename = "cache_read_input_tokens", default)]
    pub(super) cached: Option<usize>,
    #[serde(rename = "cache_creation_input_tokens", default)]
    pub(super) stored: Option<usize>,
}

#[derive(Deserialize)]
pub(super) struct Typed<'a> {
    pub(super) r#type: Option<&'a str>,
    #[serde(borrow)]
    pub(super) text: Option<&'a RawValue>,
}

/// Where a message stands, in the client's stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    /// Of the block of text that is open.
    pub(super) open: Option<u32>,
    /// Why the answer ended, as `/v1/completions` says it.
    pub(super) finish: Option<Box<str>>,
}

/// Whether events only begin a message: none has text.
pub(super) fn only_begins(data: &[u8]) -> bool {
    serde_json::from_slice::<Told<'_>>(data).is_ok_and(|told| {
        let block = told.content_block.and_then(|block| block.r#type);
        match told.r#type {
            "message_start" | "ping" => true,
            "content_block_start" => block == Some("text"),
            _ => false,
        }
    })
}

/// The last event of a message.
pub(super) fn message_stop() -> Vec<u8> {
    named("message_stop", "").into_bytes()
}

pub(super) fn named(name: &str, members: &str) -> String {
    format!("event: {name}\ndata: {{\"type\":\"{name}\"{members}}}\n\n")
}
