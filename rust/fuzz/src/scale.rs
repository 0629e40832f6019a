//! Inputs that grow: the CPU time of every parser must grow with them, and not faster.
//!
//! Each family makes an input of a size. It is read at a size, at twice and at four times that; of a
//! parser that takes more than [`GROWTH_MAX`] times as long for twice the input the family is named.

use skylb_core::engine::fleet::snapshot::{DIALECTS, scan};
use skylb_core::http::request::HeadParser;
use skylb_core::http::request::chunked::BodyDecoder;
use skylb_core::http::route::Route;
use skylb_core::prompt::{DigestConfig, Envelope, Scratch, digest};
use skylb_core::relay::{Options, Relay, ResponseReader};

/// Bytes of the smallest input.
const BYTES: usize = 1 << 20;
/// Growth of the time for twice the input that is taken for linear, with noise.
const GROWTH_MAX: f64 = 3.2;
/// Times below say nothing, in nanoseconds.
const NOISE_NS: u64 = 50_000_000;

struct Family {
    name: &'static str,
    make: fn(usize) -> Vec<u8>,
    read: fn(&[u8]),
}

/// `text` over and over, `len` bytes of it or a little more.
fn many(text: &str, len: usize) -> String {
    text.repeat(len / text.len() + 1)
}

/// `line` with a number for each `@`, over and over.
fn numbered(line: &str, len: usize) -> String {
    let lines = (0..=len / (line.len() + 5)).map(|number| line.replace('@', &number.to_string()));
    lines.collect()
}

fn chat(inner: &str) -> Vec<u8> {
    format!("{{\"model\":\"m\",{inner}}}").into_bytes()
}

fn body(route: Route, body: &[u8]) {
    let config = DigestConfig::new(b"0123456789abcdef", 64, 1 << 20);
    let only_model = Some("m");
    let envelope = Envelope {
        only_model,
        ..Envelope::new(route, None)
    };
    // Refused or not, it was read.
    let _ = digest(&envelope, body, &config, &mut Scratch::default());
}

fn relay(options: Options, payload: &[u8], step: usize) {
    let mut relay = Relay::new(options, "id");
    relay.feed(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    for piece in payload.chunks(step) {
        relay.feed(piece);
        relay.take();
    }
    relay.eof();
}

const STREAM: Options = Options {
    http11: true,
    keep_alive: true,
    is_head: false,
    anthropic: false,
    drop_usage: true,
    responses_api: false,
};
const RESPONSES: Options = Options {
    responses_api: true,
    ..STREAM
};

fn events(payload: &[u8]) {
    relay(STREAM, payload, 65_536);
    relay(RESPONSES, payload, 65_536);
}

fn drops(payload: &[u8]) {
    relay(STREAM, payload, 1);
    relay(RESPONSES, payload, 1);
}

fn chunked(wire: &[u8]) {
    for step in [wire.len(), 1] {
        let mut decoder = BodyDecoder::new(u64::MAX);
        for piece in wire.chunks(step) {
            if decoder.feed(piece).is_err() {
                break;
            }
        }
        let mut reader = ResponseReader::new(false);
        reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in wire.chunks(step) {
            reader.feed(piece);
        }
    }
}

/// Head bytes that come one by one are read anew each time: what bounds the work is the head's bound.
fn heads(wire: &[u8]) {
    let parser = HeadParser::default();
    let mut begin = 0;
    for end in (1..=wire.len()).step_by(64) {
        match parser.parse(&wire[begin..end]) {
            Ok(None) => {}
            Ok(Some(head)) => begin += head.consumed(),
            Err(_) => begin = end,
        }
    }
}

fn form(body: &[u8]) {
    let config = DigestConfig::new(b"0123456789abcdef", 64, 1 << 20);
    let envelope = Envelope::new(
        Route::Transcriptions,
        Some(b"multipart/form-data; boundary=xxxxxxxxxxxxxxxx"),
    );
    let _ = digest(&envelope, body, &config, &mut Scratch::default());
}

fn pages(page: &[u8]) {
    for dialect in DIALECTS {
        assert!(scan(page, dialect).possible());
    }
}

macro_rules! families {
    ($($name:literal $read:expr, $make:expr;)*) => {
        const FAMILIES: &[Family] = &[$(Family { name: $name, make: $make, read: $read },)*];
    };
}

const CHAT: fn(&[u8]) = |text| body(Route::ChatCompletions, text);
const MESSAGES: fn(&[u8]) = |text| body(Route::Messages, text);
const RESPONSE: fn(&[u8]) = |text| body(Route::Responses, text);
const COMPLETION: fn(&[u8]) = |text| body(Route::Completions, text);

families! {
    "heads, whole" heads, |n| many("GET /health HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", n).into_bytes();
    "heads, too long" heads, |n| many("GET /health HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyy", n).into_bytes();
    "chunks of one byte" chunked, |n| many("1\r\nx\r\n", n).into_bytes();
    "chunks with extensions" chunked, |n| many("1;a=\"\\b\"\r\nx\r\n", n).into_bytes();
    "one chunk" chunked, |n| format!("{n:x}\r\n{}", many("x", n)).into_bytes();
    "lists in lists" CHAT, |n| chat(&format!("\"messages\":[{}", many("[", n)));
    "empty lists" CHAT, |n| chat(&format!("\"x\":[{}[]]", many("[],", n)));
    "keys" CHAT, |n| chat(&format!("{}\"b\":1", numbered("\"k@\":1,", n.min(4 << 20))));
    "one key, again" CHAT, |n| chat(&format!("\"metadata\":{{{}\"user_id\":1}}", many("\"user_id\":1,", n)));
    "one key, long" CHAT, |n| chat(&format!("\"metadata\":{{\"user_id\":\"{0}\",\"user_id\":\"{0}\"}}", many("x", n / 2)));
    "escapes" CHAT, |n| chat(&format!("\"messages\":[{{\"role\":\"{}\"}}]", many("\\u00e9", n)));
    "backslashes" CHAT, |n| chat(&format!("\"messages\":[{{\"role\":\"{}\"}}]", many("\\\\", n)));
    "short escaped strings" CHAT, |n| chat(&format!("\"messages\":[{}{{}}]", many("{\"role\":\"\\n\"},", n)));
    "messages" CHAT, |n| chat(&format!("\"messages\":[{}{{}}]", many("{\"role\":\"u\",\"content\":\"x\"},", n)));
    "parts" CHAT, |n| chat(&format!("\"messages\":[{{\"content\":[{}\"x\"]}}]", many("{\"type\":\"text\",\"text\":\"x\"},", n)));
    "unknown parts" CHAT, |n| chat(&format!("\"messages\":[{{\"content\":[{}\"x\"]}}]", many("{\"type\":\"y\",\"z\":[1]},", n)));
    "calls" CHAT, |n| chat(&format!("\"messages\":[{{\"tool_calls\":[{}{{}}]}}]", many("{\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},", n)));
    "arguments" CHAT, |n| chat(&format!("\"messages\":[{{\"tool_calls\":[{{\"function\":{{\"arguments\":\"{{\\\"a\\\":[{}1]}}\"}}}}]}}]", many("1,", n)));
    "tools" CHAT, |n| chat(&format!("\"tools\":[{}{{}}]", many("{\"function\":{\"name\":\"f\",\"parameters\":{\"a\":1}}},", n)));
    "variables" CHAT, |n| chat(&format!("\"chat_template_kwargs\":{{{}\"b\":1}}", numbered("\"k@\":1,", n.min(4 << 20))));
    "blocks" MESSAGES, |n| chat(&format!("\"messages\":[{{\"content\":[{}{{}}]}}]", many("{\"type\":\"tool_result\",\"content\":\"x\"},{\"type\":\"tool_use\"},", n)));
    "items" RESPONSE, |n| chat(&format!("\"input\":[{}{{}}]", many("{\"type\":\"function_call\",\"name\":\"f\",\"arguments\":\"{}\"},", n)));
    "tokens" COMPLETION, |n| chat(&format!("\"prompt\":[{}1]", many("1,", n)));
    "prompts" COMPLETION, |n| chat(&format!("\"prompt\":[{}\"x\"]", many("\"x\",", n)));
    "numbers" COMPLETION, |n| chat(&format!("\"x\":[{}1]", many(&format!("{},", "9".repeat(500)), n)));
    "space" COMPLETION, |n| chat(&format!("\"x\":{}1", many(" \n", n)));
    "nearly a boundary" form, |n| many("\r\n--xxxxxxxxxxxxxxx", n).into_bytes();
    "a long part" form, |n| format!("--xxxxxxxxxxxxxxxx\r\n\r\n{}\r\n--xxxxxxxxxxxxxxxx--", many("\r\n-", n)).into_bytes();
    "a long part head" form, |n| format!("--xxxxxxxxxxxxxxxx\r\nA: {}", many("a;\"", n)).into_bytes();
    "events" events, |n| many("data: {\"choices\":[]}\n\n", n).into_bytes();
    "events, drop by drop" drops, |n| many("data: {\"choices\":[]}\n\n", n / 4).into_bytes();
    "line ends" events, |n| many("\r\n", n).into_bytes();
    "line ends, drop by drop" drops, |n| many("\r\r\n", n / 4).into_bytes();
    "comments" events, |n| many(":\n\n", n).into_bytes();
    "comments, drop by drop" drops, |n| many(":\n\n", n / 4).into_bytes();
    "announcements" events, |n| many("event: response.queued\n\n", n).into_bytes();
    "announcements, drop by drop" drops, |n| many("event: response.queued\n\n", n / 4).into_bytes();
    "one event" events, |n| format!("data: {}", many("x", n)).into_bytes();
    "one event, drop by drop" drops, |n| format!("data: {}", many("x", n / 4)).into_bytes();
    "one event of lines" events, |n| many("data: x\n", n).into_bytes();
    "open usage" events, |n| format!("data: 1\n\n{}", many("data: {\"usage\":{\"usage\":{\"usage\":{\"usage\":{", n)).into_bytes();
    "open usage in events" events, |n| format!("data: 1\n\n{}", many(&format!("data: {}\n\n", "\"usage\":{".repeat(20_000)), n)).into_bytes();
    "usage" events, |n| format!("data: 1\n\n{}", many("data: {\"usage\":{\"prompt_tokens\":1},\"choices\":[]}\n\n", n)).into_bytes();
    "errors that are none" events, |n| format!("data: 1\n\n{}", many("data: {\"error\":null}\n\n", n)).into_bytes();
    "names" events, |n| format!("data: 1\n\n{}", many("event: message_stop\ndata: 1\n\n", n)).into_bytes();
    "series" pages, |n| numbered("sglang:num_queue_reqs{a=\"@\"} 1\n", n).into_bytes();
    "series that repeat" pages, |n| format!("{}{}", numbered("sglang:num_queue_reqs{a=\"@\"} 1\n", 60_000), many("sglang:num_queue_reqs{a=\"0\"} 1\n", n)).into_bytes();
    "labels" pages, |n| format!("vllm:lora_requests_info{{{}}} 1\n", numbered("a@=\"b\",", n)).into_bytes();
    "escaped labels" pages, |n| format!("vllm:lora_requests_info{{running_lora_adapters=\"{}\"}} 1\n", many("\\\\,", n)).into_bytes();
    "open labels" pages, |n| many("vllm:lora_requests_info{a=\"b", n).into_bytes();
    "histograms" pages, |n| many("# TYPE a histogram\nb 1\n", n).into_bytes();
    "comment signs" pages, |n| many("# TYPE a histogram\nb #######\n", n).into_bytes();
}

/// CPU time of this thread so far.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split(' ').next().and_then(|word| word.parse().ok());
    first.unwrap_or(0)
}

fn took_ns(family: &Family, len: usize) -> u64 {
    let input = (family.make)(len);
    let began_ns = cpu_ns();
    (family.read)(&input);
    cpu_ns() - began_ns
}

/// Runs all families; whether none grows faster than its input.
pub fn holds() -> bool {
    let mut holds = true;
    for family in FAMILIES {
        let times: Vec<u64> = [1, 2, 4].map(|times| took_ns(family, BYTES * times)).to_vec();
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let growth = times[2] as f64 / times[1].max(1) as f64;
        let is_fast = growth <= GROWTH_MAX || times[2] < NOISE_NS;
        holds &= is_fast;
        let millis = times.iter().map(|ns| format!("{:9.1}", *ns as f64 / 1e6));
        println!(
            "{:28}{} ms  x{growth:.1}{}",
            family.name,
            millis.collect::<String>(),
            if is_fast { "" } else { "  grows faster than its input" }
        );
    }
    holds
}
