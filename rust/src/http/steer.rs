//! Headers and body fields by which the sender of a request can steer an engine, and what becomes
//! of each on the way there.
//!
//! The tables are the source of docs/PASSING.md, which is generated from them. A client whose address
//! is in `trusted_proxies` is trusted, and so is a forward that carries a peer's signature: its origin
//! has decided already.

/// What becomes of a header or field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It passes as it is.
    Passed,
    /// It passes from trusted senders; others' is left out.
    Trusted,
    /// It passes from nobody.
    Dropped,
    /// It passes from trusted senders; a request of others that has it is refused with a 400, unless
    /// its value is null.
    Refused,
    /// It passes where it is believed; else the engine is sent 0 in its place.
    Zeroed,
}

impl Fate {
    /// The word for documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Trusted => "trusted only",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::Zeroed => "zeroed",
        }
    }
}

/// One header or field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// In lower case. A header's name that ends with `-` stands for all that begin so.
    pub name: &'static str,
    /// What becomes of it.
    pub fate: Fate,
    /// Who reads it, and what it does there.
    pub effect: &'static str,
}

const fn rule(name: &'static str, fate: Fate, effect: &'static str) -> Rule {
    Rule { name, fate, effect }
}

/// Request headers that engines and their sidecars read. Names are compared in any case and with `_`
/// for `-`.
#[rustfmt::skip]
pub const HEADERS: [Rule; 27] = [
    rule("x-vllm-", Fate::Trusted, "vLLM: x-vllm-priority outranks the body's priority"),
    rule("x-data-parallel-", Fate::Trusted, "vLLM, SGLang: pins the request to a data-parallel rank; llm-d: names a host to dial"),
    rule("x-prefiller-", Fate::Trusted, "llm-d sidecar: names the host that computes the prompt"),
    rule("x-prefill-", Fate::Trusted, "Dynamo, llm-d: names a prefill worker"),
    rule("x-decode-", Fate::Trusted, "Dynamo, llm-d: names a decode worker"),
    rule("x-encoder-", Fate::Trusted, "llm-d sidecar: names hosts that encode media"),
    rule("x-worker-", Fate::Trusted, "Dynamo: names a worker"),
    rule("x-dynamo-", Fate::Trusted, "Dynamo: hints of its router"),
    rule("x-dp-", Fate::Trusted, "Dynamo: a data-parallel rank"),
    rule("x-smg-", Fate::Trusted, "SGLang's gateway: target worker and routing key"),
    rule("x-sgl-", Fate::Trusted, "SGLang: its own hints"),
    rule("x-sglang-", Fate::Trusted, "SGLang: its own hints"),
    rule("x-llm-d-", Fate::Trusted, "llm-d: its own hints"),
    rule("x-gateway-", Fate::Trusted, "Gateway API inference extension: names the endpoint"),
    rule("endpoint-load-metrics-format", Fate::Trusted, "vLLM: adds a load report to the answer, for 1.5 ms of the engine's CPU"),
    rule("x-original-url", Fate::Trusted, "some servers and frameworks: another path than the one checked here"),
    rule("x-original-uri", Fate::Trusted, "the same"),
    rule("x-rewrite-url", Fate::Trusted, "the same"),
    rule("x-http-method", Fate::Trusted, "some frameworks: another method than the one checked here"),
    rule("x-http-method-override", Fate::Trusted, "the same"),
    rule("x-method-override", Fate::Trusted, "the same"),
    rule("x-amzn-sagemaker-", Fate::Dropped, "vLLM at /invocations: replaces the body's model, or names a session that one replica has"),
    rule("x-session-id", Fate::Passed, "vLLM: names the session in its cache events"),
    rule("traceparent", Fate::Passed, "vLLM, SGLang: the trace that the request belongs to"),
    rule("tracestate", Fate::Passed, "the same"),
    rule("baggage", Fate::Passed, "the same"),
    rule("origin", Fate::Passed, "vLLM, SGLang: adds CORS headers to the answer; see CORS"),
];

/// Body fields that engines read, as keys of JSON bodies and as names in forms. Those that are refused
/// are looked for at every depth outside of what a prompt and its schemas consist of.
#[rustfmt::skip]
pub const FIELDS: [Rule; 40] = [
    rule("kv_transfer_params", Fate::Refused, "vLLM with a KV connector: names a host and port that the engine dials"),
    rule("ec_transfer_params", Fate::Refused, "vLLM with an encoder-cache connector: likewise"),
    rule("bootstrap_host", Fate::Refused, "SGLang: the host that the engine fetches KV blocks from"),
    rule("bootstrap_port", Fate::Refused, "SGLang: its port"),
    rule("bootstrap_room", Fate::Refused, "SGLang: the transfer there"),
    rule("bootstrap_pair_key", Fate::Refused, "SGLang: likewise"),
    rule("disaggregated_params", Fate::Refused, "TensorRT-LLM: where the prompt was computed"),
    rule("data_parallel_rank", Fate::Refused, "SGLang: pins the request to a rank"),
    rule("routed_dp_rank", Fate::Refused, "SGLang: likewise"),
    rule("disagg_prefill_dp_rank", Fate::Refused, "SGLang: likewise"),
    rule("custom_logit_processor", Fate::Refused, "SGLang: code that the engine runs, where it was started so"),
    rule("lora_path", Fate::Refused, "SGLang: another adapter than the model that is routed by"),
    rule("session_params", Fate::Refused, "SGLang: goes on with a session of one engine, which may be another client's"),
    rule("rid", Fate::Refused, "SGLang: the engine's id of the request, which may be another's"),
    rule("priority", Fate::Zeroed, "vLLM (lower first), SGLang (higher first): outranks other requests"),
    rule("request_id", Fate::Passed, "vLLM: X-Request-Id, which is always sent, counts instead; at /v1/responses it names the stored response, and is refused from others than trusted senders"),
    rule("session_id", Fate::Passed, "vLLM: names the session in its cache events"),
    rule("cache_salt", Fate::Passed, "vLLM, SGLang: separates prefix caches, here too; with --isolate-tenants the engine gets a salt made of it"),
    rule("extra_key", Fate::Passed, "SGLang: likewise, behind the salt"),
    rule("vllm_xargs", Fate::Passed, "vLLM: arguments of plug-ins; the names refused above are refused in it"),
    rule("extra_args", Fate::Passed, "vLLM, in sampling_params: likewise"),
    rule("custom_params", Fate::Passed, "SGLang: likewise"),
    rule("mm_processor_kwargs", Fate::Passed, "vLLM refuses it unless started with --trust-request-mm-kwargs"),
    rule("media_io_kwargs", Fate::Passed, "vLLM refuses it unless started with --trust-request-mm-kwargs"),
    rule("chat_template", Fate::Passed, "vLLM refuses it unless started with --trust-request-chat-template"),
    rule("chat_template_kwargs", Fate::Passed, "vLLM, SGLang: variables of the model's template"),
    rule("documents", Fate::Passed, "vLLM: text for the template"),
    rule("image_url", Fate::Passed, "the engine fetches it: start vLLM with --allowed-media-domains"),
    rule("audio_url", Fate::Passed, "the engine fetches it: start vLLM with --allowed-media-domains"),
    rule("video_url", Fate::Passed, "the engine fetches it: start vLLM with --allowed-media-domains"),
    rule("prompt_embeds", Fate::Passed, "vLLM refuses it unless started with --enable-prompt-embeds"),
    rule("logits_processors", Fate::Passed, "vLLM: not read any more"),
    rule("structured_outputs", Fate::Passed, "vLLM: a grammar; its complexity costs the engine time"),
    rule("stream_interval", Fate::Passed, "vLLM: tokens per event"),
    rule("return_token_ids", Fate::Passed, "vLLM: token ids in the answer"),
    rule("return_tokens_as_token_ids", Fate::Passed, "vLLM: likewise"),
    rule("return_hidden_states", Fate::Passed, "SGLang: hidden states in the answer, where it was started so"),
    rule("skip_special_tokens", Fate::Passed, "vLLM, SGLang: what the answer's text holds"),
    rule("ignore_eos", Fate::Passed, "vLLM, SGLang: the answer goes on to its limit"),
    rule("skip_reading_prefix_cache", Fate::Passed, "vLLM, in sampling_params: computes the whole prompt"),
];

/// The header that outranks the body's `priority` at vLLM.
const PRIORITY: &[u8] = b"x-vllm-priority";

/// Whether a header names the priority of its request.
#[must_use]
pub fn is_priority(name: &[u8]) -> bool {
    is_named(name, PRIORITY)
}

/// Longest header name that is looked up with `-` for `_`.
pub const FOLDED_NAME_BYTES_MAX: usize = 64;

/// What becomes of a request header that no rule of HTTP decides on.
#[must_use]
pub fn header(name: &[u8]) -> Fate {
    // Nearly all others pass at their first byte: those of the table that begin otherwise pass too.
    if !matches!(name.first(), Some(b'x' | b'X' | b'e' | b'E')) {
        return Fate::Passed;
    }
    HEADERS
        .iter()
        .find(|rule| is_named(name, rule.name.as_bytes()))
        .map_or(Fate::Passed, |rule| rule.fate)
}

/// `known` in any case, with `_` for `-`; what ends with `-` is the beginning of the name.
fn is_named(name: &[u8], known: &[u8]) -> bool {
    let fits = if known.ends_with(b"-") {
        name.len() > known.len()
    } else {
        name.len() == known.len()
    };
    fits && name.iter().zip(known).all(|(a, b)| fold(*a) == *b)
}

/// In lower case, with `-` for `_`: some servers do not tell the two apart.
#[must_use]
pub fn fold(byte: u8) -> u8 {
    if byte == b'_' {
        b'-'
    } else {
        byte.to_ascii_lowercase()
    }
}

/// The name of a body field that only trusted senders may use.
#[must_use]
pub fn refused(key: &[u8]) -> Option<&'static str> {
    FIELDS
        .iter()
        .find(|rule| rule.fate == Fate::Refused && rule.name.as_bytes() == key)
        .map(|rule| rule.name)
}

/// Whether a top-level field holds what a prompt, its answer and their schemas consist of: names of
/// their own, which no engine takes for its settings.
#[must_use]
pub fn is_content(key: &[u8]) -> bool {
    matches!(
        key,
        b"messages"
            | b"input"
            | b"inputs"
            | b"prompt"
            | b"tools"
            | b"functions"
            | b"tool_choice"
            | b"system"
            | b"instructions"
            | b"response_format"
            | b"structured_outputs"
            | b"guided_json"
            | b"text"
            | b"output_format"
            | b"output_config"
            | b"metadata"
            | b"documents"
            | b"chat_template_kwargs"
            | b"query"
            | b"queries"
            | b"items"
            | b"data"
            | b"data_1"
            | b"data_2"
            | b"text_1"
            | b"text_2"
            | b"texts"
            | b"images"
            | b"state"
            | b"questions"
            | b"tokens"
            | b"token_ids"
            | b"features"
            | b"generate_response"
            | b"generate_responses"
            | b"logit_bias"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_in_any_case_and_with_underscores() {
        for name in [
            "X-Vllm-Priority",
            "x_vllm_priority",
            "X-VLLM_anything",
            "x-data-parallel-rank",
        ] {
            assert_eq!(header(name.as_bytes()), Fate::Trusted, "{name}");
        }
        for name in [
            "x-vllm-",
            "x-vllm",
            "x-stainless-lang",
            "x-session-id",
            "accept",
        ] {
            assert_eq!(header(name.as_bytes()), Fate::Passed, "{name}");
        }
        assert_eq!(
            header(b"X-Amzn-SageMaker-Adapter-Identifier"),
            Fate::Dropped
        );
    }

    #[test]
    fn every_rule_stands_once_and_is_one_that_is_obeyed() {
        for rule in &HEADERS {
            let more = if rule.name.ends_with('-') { "x" } else { "" };
            let fate = header(format!("{}{more}", rule.name).as_bytes());
            assert_eq!(fate, rule.fate, "{}", rule.name);
        }
        for table in [&HEADERS[..], &FIELDS[..]] {
            for (index, rule) in table.iter().enumerate() {
                assert!(
                    table[..index].iter().all(|other| other.name != rule.name),
                    "{}",
                    rule.name
                );
            }
        }
        assert!(
            HEADERS
                .iter()
                .all(|rule| !matches!(rule.fate, Fate::Refused | Fate::Zeroed))
        );
        assert!(
            FIELDS
                .iter()
                .all(|rule| !matches!(rule.fate, Fate::Trusted | Fate::Dropped))
        );
    }
}
