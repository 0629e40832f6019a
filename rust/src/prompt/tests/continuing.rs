//! Which streams may go on at another replica, by what their bodies say.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::prompt::continuing::{Continuing, Reason};

/// Why the stream of a chat with these members may not go on; `None`: it may.
fn refusal(members: &Value) -> Option<Reason> {
    let mut body =
        json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let given = members.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(given);
    let mut config = config();
    config.continue_streams(Some(Arc::from([])));
    let envelope = Envelope::new(Route::ChatCompletions, Some(b"application/json"));
    let body = body.to_string();
    let digest = digest(&envelope, body.as_bytes(), &config, &mut Scratch::default()).unwrap();
    match digest.continuing {
        Continuing::Planned(_) => None,
        Continuing::Refused(reason) => Some(reason),
        Continuing::Off | Continuing::Elsewhere => panic!("it is a stream, and read here"),
    }
}

#[test]
fn a_stream_goes_on_only_where_the_rest_would_be_the_same() {
    let rows = [
        (json!({}), None),
        (
            json!({"temperature": 0.7, "top_p": 0.9, "max_tokens": 9, "logit_bias": {"5": 1}}),
            None,
        ),
        (
            json!({"n": 1, "seed": null, "stop": [], "tools": [], "presence_penalty": 0.0}),
            None,
        ),
        (json!({"n": 2}), Some(Reason::Choices)),
        (json!({"n": 0}), Some(Reason::Choices)),
        (json!({"seed": 0}), Some(Reason::Seed)),
        (json!({"seed": 7, "temperature": 1.0}), Some(Reason::Seed)),
        (json!({"seed": 7, "temperature": 0}), None),
        (json!({"logprobs": true}), Some(Reason::Logprobs)),
        (json!({"logprobs": 0}), Some(Reason::Logprobs)),
        (json!({"logprobs": false}), None),
        (json!({"include_reasoning": false}), Some(Reason::Reasoning)),
        (json!({"include_reasoning": true}), None),
        (json!({"frequency_penalty": 0.1}), Some(Reason::Penalty)),
        (json!({"thinking_token_budget": 0}), Some(Reason::Penalty)),
        (json!({"stop": "end"}), Some(Reason::Stop)),
        (json!({"response_format": {"type": "text"}}), None),
        (
            json!({"response_format": {"type": "json_object"}}),
            Some(Reason::Guided),
        ),
        (
            json!({"tools": [{"type": "function"}]}),
            Some(Reason::Tools),
        ),
        (
            json!({"tools": [{"type": "function"}], "tool_choice": "none"}),
            None,
        ),
        (json!({"stream_options": {"include_usage": true}}), None),
        (
            json!({"stream_options": {"continuous_usage_stats": true}}),
            Some(Reason::Field),
        ),
        (json!({"a_field_of_tomorrow": 0}), Some(Reason::Field)),
    ];
    for (members, expected) in rows {
        assert_eq!(refusal(&members), expected, "{members}");
    }
}
