//! A response on its way through a [`Relay`], and the client at its end.

use skylb_core::http::route::Route;
use skylb_core::prompt::{AnswerStart, DigestConfig, Envelope, Scratch, digest};
use skylb_core::relay::{
    FEED_DONE, FEED_FAILED, FEED_FIRST_BYTE, FEED_WRITE_BUFFER, FEED_WRITE_INPUT, Options, Relay,
};

use super::pieces;

/// A client that reads strictly what it is sent, and knows at once when it is no whole chunk.
#[derive(Debug, Clone, Default)]
pub struct Client {
    pub head: Vec<u8>,
    /// Without framing.
    pub body: Vec<u8>,
    /// The chunked body is complete.
    pub ended: bool,
    is_chunked: bool,
    has_head: bool,
}

impl Client {
    /// One whose stream has begun already.
    pub fn joined(http11: bool) -> Self {
        Self {
            has_head: true,
            is_chunked: http11,
            ..Self::default()
        }
    }

    pub fn read(&mut self, mut bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if !self.has_head {
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
            let end = end.expect("the head comes whole") + 4;
            self.head = bytes[..end].to_vec();
            self.has_head = true;
            let chunked = b"\r\nTransfer-Encoding: chunked\r\n";
            self.is_chunked = self
                .head
                .windows(chunked.len())
                .any(|window| window == chunked);
            bytes = &bytes[end..];
        }
        if !self.is_chunked {
            return self.body.extend_from_slice(bytes);
        }
        while !bytes.is_empty() {
            assert!(!self.ended, "bytes behind the end");
            let line = bytes
                .iter()
                .position(|byte| *byte == b'\r')
                .expect("a size line");
            let digits = std::str::from_utf8(&bytes[..line]).expect("a size");
            let size = usize::from_str_radix(digits, 16).expect("a size");
            let (chunk, rest) = bytes[line..].split_at(size + 4);
            assert!(chunk.starts_with(b"\r\n") && chunk.ends_with(b"\r\n"));
            self.body.extend_from_slice(&chunk[2..size + 2]);
            self.ended = size == 0;
            bytes = rest;
        }
    }
}

/// All that can be known of a response that was relayed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one response"
)]
pub struct Played {
    pub head: Vec<u8>,
    pub body: Vec<u8>,
    pub ended: bool,
    pub done: bool,
    pub failed: bool,
    pub error: Option<&'static str>,
    pub status: u16,
    pub verdict: u16,
    pub tokens: [Option<i64>; 3],
    pub response_id: Option<String>,
    pub events: u64,
    pub bytes_out: u64,
    pub blocks: Vec<u64>,
    pub refused: Option<String>,
    pub retry_after_s: Option<u32>,
    pub reusable: bool,
}

/// How a response is relayed.
#[derive(Debug, Clone)]
pub struct Script {
    pub options: Options,
    pub start: Option<AnswerStart>,
    /// The client's stream has begun before this response.
    pub joins: bool,
    /// The replica closes its connection at the end.
    pub closes: bool,
}

impl Script {
    pub fn new(options: u8, flags: u8) -> Self {
        let bit = |number: u8| options >> number & 1 == 1;
        let http11 = bit(0);
        Self {
            options: Options {
                http11,
                keep_alive: bit(1),
                is_head: bit(2),
                anthropic: bit(3),
                drop_usage: bit(4),
                responses_api: bit(5),
            },
            start: (flags & 1 != 0).then(|| start(flags >> 3)),
            joins: flags & 2 != 0 && !bit(2),
            closes: flags & 4 != 0,
        }
    }

    /// What is known of a response that was cut, but for what may differ from the whole.
    pub fn comparable(&self, mut cut: Played, whole: &Played) -> Played {
        if self.options.is_head {
            // The head is the answer: what comes behind the first body byte is not looked at.
            assert_eq!(cut.status, whole.status);
            assert!(cut.head.is_empty() || whole.head.is_empty() || cut.head == whole.head);
            return whole.clone();
        }
        // The LF of a CR LF that comes behind an event that was taken out is not missed.
        let takes_out = self.options.drop_usage;
        let text = |body: &[u8]| -> Vec<u8> {
            let bytes = body.iter().copied();
            bytes
                .filter(|byte| !(takes_out && matches!(byte, b'\r' | b'\n')))
                .collect()
        };
        if cut.failed {
            // What came before the fault is out; of a whole that fails nothing is.
            assert!(whole.failed && cut.error.is_some());
            assert!(text(&cut.body).starts_with(&text(&whole.body)));
            return whole.clone();
        }
        if takes_out {
            assert_eq!(text(&cut.body), text(&whole.body));
            cut.body.clone_from(&whole.body);
            cut.bytes_out = whole.bytes_out;
        }
        cut
    }

    /// Feeds `wire` in pieces; `check` sees relay and client after each, and how much of it was fed.
    pub fn play(
        &self,
        wire: &[u8],
        how: [u8; 2],
        mut check: impl FnMut(&Relay, &Client, usize),
    ) -> Played {
        let mut relay = Relay::new(self.options, "id");
        if let Some(start) = &self.start {
            relay.attach(start.clone());
        }
        let mut client = Client::default();
        if self.joins {
            relay.join();
            client = Client::joined(self.options.http11);
        }
        let (mut fed, mut done, mut failed) = (0, false, false);
        let mut firsts = 0;
        for piece in pieces(wire, how) {
            let flags = relay.feed(piece);
            assert!(!done || flags == 0, "more behind the end");
            failed |= flags & FEED_FAILED != 0;
            write(&mut relay, &mut client, flags, piece);
            done |= flags & FEED_DONE != 0;
            firsts += usize::from(flags & FEED_FIRST_BYTE != 0);
            fed += piece.len();
            check(&relay, &client, fed);
        }
        if self.closes {
            let flags = relay.eof();
            failed |= flags & FEED_FAILED != 0;
            write(&mut relay, &mut client, flags, b"");
            done |= flags & FEED_DONE != 0;
        }
        assert!(firsts <= 1 && !(done && failed));
        Played {
            ended: client.ended,
            head: client.head,
            body: client.body,
            done,
            failed,
            error: relay.error(),
            status: relay.status(),
            verdict: relay.verdict(),
            tokens: [
                relay.prompt_tokens(),
                relay.cached_tokens(),
                relay.completion_tokens(),
            ],
            response_id: relay.response_id().map(str::to_owned),
            events: relay.events(),
            bytes_out: relay.bytes_out(),
            refused: relay.refused().map(str::to_owned),
            retry_after_s: relay.retry_after_s(),
            reusable: relay.reusable(),
            blocks: relay.take_answer(),
        }
    }
}

fn write(relay: &mut Relay, client: &mut Client, flags: u8, input: &[u8]) {
    assert_ne!(flags & 3, 3, "one source of bytes");
    let buffer = relay.take();
    assert_eq!(buffer.is_empty(), flags & FEED_WRITE_BUFFER == 0);
    if flags & FEED_WRITE_INPUT != 0 {
        client.read(input);
    }
    client.read(&buffer);
}

/// The end of a prompt, in one of the forms in which answers come.
fn start(form: u8) -> AnswerStart {
    let (route, body): (_, &[u8]) = match form % 5 {
        0 => (Route::ChatCompletions, br#"{"model":"m","messages":[]}"#),
        1 => (
            Route::ChatCompletions,
            br#"{"model":"m","messages":[],"continue_final_message":true}"#,
        ),
        2 => (Route::Completions, br#"{"model":"m","prompt":"p"}"#),
        3 => (Route::Messages, br#"{"model":"m","messages":[]}"#),
        _ => (Route::Responses, br#"{"model":"m","input":"p"}"#),
    };
    let config = DigestConfig::new(b"0123456789abcdef", 16, 4_096);
    let envelope = Envelope::new(route, None);
    let digest = digest(&envelope, body, &config, &mut Scratch::default());
    let digest = digest.expect("a body that is accepted");
    AnswerStart::behind(&digest, &config).expect("an answer that can be learned")
}
