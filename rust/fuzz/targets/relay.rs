//! Responses as they come from a replica, heads included: `Relay` and `ResponseReader`, however they
//! are cut.

use skylb_core::relay::ResponseReader;

use super::stream::Script;
use super::{behind, pieces, table};

pub fn seeds() -> Vec<Vec<u8>> {
    let responses = table(include_str!("../../../tests/data/http_responses.json"));
    let mut seeds = behind(&[3, 4, 9, 1], responses);
    let heads = [
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 62\r\n\r\n{\"id\":\"resp_1\",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nRetry-After: 3\r\nX-SkyLB-Refused: full\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nb\r\ndata: {}\n\n\r\n0\r\n\r\n",
        "HTTP/1.0 200\r\nConnection: x-a, close\r\nX-A: 1\r\n\r\nrest",
        "HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    ];
    for (index, head) in (0_u8..).zip(heads) {
        for options in [3, 0x13, 0x23, 0x2b, 7] {
            seeds.push([&[options, index, 5, 1], head.as_bytes()].concat());
        }
    }
    seeds
}

pub fn run(data: &[u8]) {
    let Some((&[options, flags, how @ ..], wire)) = data.split_first_chunk::<4>() else {
        return;
    };
    let script = Script::new(options, flags);
    let whole = script.play(wire, [0, 0], |_, _, _| {});
    let read = read(wire, [0, 0], &script);
    for how in [[1, 0], how] {
        let cut = script.play(wire, how, |_, _, _| {});
        if cut.failed && !whole.failed {
            // Some faults are known early where the line at fault is not complete.
            assert_eq!(whole.status, 0);
            let complete = [wire, b"\r\n\r\n"].concat();
            assert!(script.play(&complete, [0, 0], |_, _, _| {}).failed);
            return;
        }
        assert_eq!(script.comparable(cut, &whole), whole);
        assert_eq!(self::read(wire, how, &script), read);
    }
    if script.options.is_head || script.joins {
        return;
    }
    // Two readers of responses agree, but for a stream that is complete without its last line ends.
    assert!(whole.failed || whole.status == read.status);
    if !script.closes {
        assert_eq!((whole.failed, whole.done), (read.failed, read.done));
    }
    if whole.done && read.done && !script.options.drop_usage {
        assert_eq!(whole.body, read.body);
        assert_eq!(whole.reusable, read.reusable);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Read {
    status: u16,
    body: Vec<u8>,
    done: bool,
    reusable: bool,
    failed: bool,
}

fn read(wire: &[u8], how: [u8; 2], script: &Script) -> Read {
    let mut reader = ResponseReader::new(script.options.is_head);
    let mut body = Vec::new();
    for piece in pieces(wire, how) {
        body.extend_from_slice(&reader.feed(piece));
    }
    if script.closes {
        reader.eof();
    }
    let failed = reader.error().is_some();
    if failed {
        body.clear();
    }
    Read {
        status: if failed { 0 } else { reader.status() },
        body,
        done: reader.done(),
        reusable: reader.reusable(),
        failed,
    }
}
