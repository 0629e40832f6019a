//! Events of `/v1/chat/completions` and `/v1/completions`, as far as they are kept.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::prompt::continuing::Reason;

#[derive(Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) created: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) choices: Vec<Choice<'a>>,
    #[serde(borrow)]
    pub(super) prompt_token_ids: Option<&'a RawValue>,
    pub(super) usage: Option<Usage>,
}

#[derive(Deserialize)]
pub(super) struct Usage {
    pub(super) completion_tokens: Option<usize>,
}

#[derive(Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default)]
    pub(super) index: u32,
    #[serde(borrow)]
    pub(super) delta: Option<Delta<'a>>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    pub(super) logprobs: Option<IgnoredAny>,
    #[serde(borrow)]
    pub(super) finish_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) stop_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) prompt_token_ids: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) token_ids: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    tool_calls: Option<IgnoredAny>,
    function_call: Option<IgnoredAny>,
}

impl Delta<'_> {
    pub(super) fn reasons(&self) -> bool {
        has_text(self.reasoning) || has_text(self.reasoning_content)
    }

    pub(super) fn calls(&self) -> bool {
        self.tool_calls.is_some() || self.function_call.is_some()
    }
}

/// A text that is there, and not empty.
pub(super) fn has_text(text: Option<&RawValue>) -> bool {
    text.is_some_and(|text| text.get() != "\"\"")
}

impl Choice<'_> {
    /// Nothing is said, and no reason why.
    pub(super) fn begins(&self) -> bool {
        let delta = self.delta.as_ref();
        let says = delta.is_some_and(|delta| delta.reasons() || delta.calls());
        !says && !has_text(self.text()) && self.finish_reason.is_none()
    }

    pub(super) fn text(&self) -> Option<&RawValue> {
        match &self.delta {
            Some(delta) => delta.content,
            None => self.text,
        }
    }
}

pub(super) fn ids_of(raw: &RawValue) -> Result<Vec<u32>, Reason> {
    serde_json::from_str(raw.get()).map_err(|_| Reason::NoIds)
}

/// The JSON of an event that has one line of data, and nothing else.
pub(super) fn data_of(block: &[u8]) -> Option<&[u8]> {
    let data = block.strip_prefix(b"data:")?.trim_ascii();
    (!data.iter().any(|byte| matches!(byte, b'\n' | b'\r'))).then_some(data)
}

/// The JSON of an event that has one line of data, perhaps behind its name.
pub(super) fn named_data_of(block: &[u8]) -> Option<&[u8]> {
    let mut lines = block.split(|byte| matches!(byte, b'\n' | b'\r'));
    let mut data = lines
        .by_ref()
        .filter_map(|line| line.strip_prefix(b"data:"));
    let found = data.next()?.trim_ascii();
    data.next().is_none().then_some(found)
}
