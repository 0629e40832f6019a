//! The relay against small oracles: what a client may see of a response, however it is cut.

mod continuing;
mod examples;
mod messages;
mod opening;
mod properties;
mod table;
mod usage;
mod verdict;
mod withholding;

use super::*;

const HTTP11: Options = Options {
    http11: true,
    keep_alive: true,
    is_head: false,
    anthropic: false,
    drop_usage: false,
    responses_api: false,
};
const HTTP10: Options = Options {
    http11: false,
    keep_alive: false,
    ..HTTP11
};

fn sse_head(framing: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n").into_bytes()
}

const CHUNKED_LINE: &str = "Transfer-Encoding: chunked\r\n";

fn chunk(payload: &[u8]) -> Vec<u8> {
    [
        format!("{:x}\r\n", payload.len()).as_bytes(),
        payload,
        b"\r\n",
    ]
    .concat()
}

/// A client: keeps what a relay tells it to write, and reads it strictly.
#[derive(Default, Clone)]
struct Client {
    bytes: Vec<u8>,
}

impl Client {
    fn write(&mut self, relay: &mut Relay, flags: u8, input: &[u8]) {
        assert_ne!(flags & 3, 3, "one source of bytes");
        if flags & FEED_WRITE_INPUT != 0 {
            self.bytes.extend_from_slice(input);
        }
        let buffer = relay.take();
        assert_eq!(buffer.is_empty(), flags & FEED_WRITE_BUFFER == 0);
        self.bytes.extend_from_slice(&buffer);
    }

    /// The head's lines, and the body's bytes as framed; `None` before the head.
    fn split(&self) -> Option<(String, &[u8])> {
        if self.bytes.is_empty() {
            return None;
        }
        let end = memchr::memmem::find(&self.bytes, b"\r\n\r\n").unwrap() + 4;
        let head = self.bytes[..end].iter().map(|b| char::from(*b)).collect();
        Some((head, &self.bytes[end..]))
    }

    /// The body without framing, and whether it has ended; panics unless it stands on a chunk's end.
    fn body(&self) -> (Vec<u8>, bool) {
        let Some((head, mut rest)) = self.split() else {
            return (Vec::new(), false);
        };
        if !head.contains("Transfer-Encoding: chunked\r\n") {
            return (rest.to_vec(), false);
        }
        let mut body = Vec::new();
        while !rest.is_empty() {
            let line = memchr::memmem::find(rest, b"\r\n").unwrap();
            let size =
                usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            let end = line + 2 + size;
            body.extend_from_slice(&rest[line + 2..end]);
            assert_eq!(&rest[end..end + 2], b"\r\n");
            rest = &rest[end + 2..];
            if size == 0 {
                assert!(rest.is_empty(), "bytes behind the last chunk");
                return (body, true);
            }
        }
        (body, false)
    }
}

/// Line ends as LF: the oracle of the boundary tests.
fn normalised(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload)
        .replace("\r\n", "\n")
        .replace('\r', "\n")
}

fn ends_on_event(payload: &[u8]) -> bool {
    let text = normalised(payload);
    text.ends_with("\n\n") || text.chars().all(|c| c == '\n')
}

/// Complete blocks with a line that is no comment.
fn event_count(payload: &[u8]) -> usize {
    let text = normalised(payload);
    let complete = text.rfind("\n\n").map_or("", |at| &text[..at]);
    complete
        .split("\n\n")
        .filter(|block| {
            block
                .lines()
                .any(|line| !line.is_empty() && !line.starts_with(':'))
        })
        .count()
}

/// What of a received payload a client may have.
fn releasable(payload: &[u8]) -> &[u8] {
    let end = (0..=payload.len())
        .rev()
        .find(|end| ends_on_event(&payload[..*end]))
        .unwrap_or(0);
    if event_count(&payload[..end]) == 0 {
        &[]
    } else {
        &payload[..end]
    }
}

/// A relay and its client behind the first event of a chunked stream.
fn begun(options: Options) -> (Relay, Client) {
    let mut relay = Relay::new(options, "id");
    let mut client = Client::default();
    let wire = [sse_head(CHUNKED_LINE), chunk(b"data: 1\n\n")].concat();
    let flags = relay.feed(&wire);
    assert_eq!(flags, FEED_WRITE_BUFFER | FEED_FIRST_BYTE);
    client.write(&mut relay, flags, &wire);
    (relay, client)
}
