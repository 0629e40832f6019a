//! What workers and the engine process send each other: frames in any pieces, and the messages in them.

use serde::Serialize;
use skylb_core::engine::fleet::failure::Failure;
use skylb_core::engine::router::{Report, Usage};
use skylb_core::remote::down::Down;
use skylb_core::remote::frame::{Bytes, FrameError, Inbox, put, read};
use skylb_core::remote::up::{Told, Up};

use super::pieces;

pub fn seeds() -> Vec<Vec<u8>> {
    let report = Report {
        usage: Usage {
            prompt_tokens: Some(9),
            cached_tokens: None,
            completion_tokens: Some(300),
        },
        sent: true,
        streamed: true,
        events: 300,
        ..Report::default()
    };
    let ups = [
        Up::FirstByte {
            number: 7,
            response_id: Some("resp_1"),
            at_ns: 1 << 50,
        },
        Up::Retry {
            number: 7,
            failure: Failure::Status(502),
            sent: true,
            at_ns: 1 << 50,
        },
        Up::Resume {
            number: 300,
            failure: Failure::Reset,
            given: Told::of(&report, &[1; 16], 200),
            at_ns: 1,
        },
        Up::Heard(vec![1, 300]),
        Up::Note(Bytes(b"note")),
        Up::Records(Bytes(b"")),
    ];
    let downs = [
        Down::Push {
            number: 7,
            replica: 1,
            attempt: 2,
            match_blocks: 3,
            predicted_ttft_ns: Some(4),
            context_len: Some(5),
            guessed: true,
        },
        Down::Hold(7),
        Down::Reject {
            number: 1,
            code: "engine_away",
            message: "away",
            retry_after_s: None,
        },
        Down::Unknown(9),
        Down::Note(Bytes(b"note")),
    ];
    let mut mails = vec![written(&ups), written(&downs)];
    mails.extend(ups.iter().map(|up| written(&[up])));
    super::behind(&[3, 1], mails)
}

fn written<T: Serialize>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        assert!(put(&mut bytes, value));
    }
    bytes
}

pub fn run(data: &[u8]) {
    let Some((how, bytes)) = data.split_first_chunk::<2>() else {
        return;
    };
    let whole = frames(&[bytes]);
    let cut: Vec<&[u8]> = pieces(bytes, *how).collect();
    assert_eq!(frames(&cut), whole);
    let ones: Vec<&[u8]> = pieces(bytes, [1, 0]).collect();
    assert_eq!(frames(&ones), whole);
    for frame in whole.0 {
        if let Ok(up) = read::<Up<'_>>(&frame) {
            let again = written(&[&up]);
            assert_eq!(read::<Up<'_>>(&again[4..]), Ok(up));
        }
        if let Ok(down) = read::<Down<'_>>(&frame) {
            let again = written(&[&down]);
            assert_eq!(read::<Down<'_>>(&again[4..]), Ok(down));
        }
    }
}

/// The frames that are read of these pieces, and why no more are.
fn frames(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut inbox, mut found) = (Inbox::default(), Vec::new());
    for piece in pieces {
        let read = inbox.feed(piece, |frame| {
            found.push(frame.to_vec());
            Ok::<(), FrameError>(())
        });
        if let Err(fault) = read {
            return (found, Some(fault));
        }
    }
    (found, None)
}
