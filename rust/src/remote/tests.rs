use proptest::prelude::*;

use super::down::Down;
use super::frame::{Bytes, FRAME_BYTES_MAX, FrameError, Hashes, Inbox, put, read, split};
use super::kept::{Journey, Submitted};
use super::mail::Mail;
use super::submitted::{Body, Course, Failed, Head, Submit};
use super::up::{Told, Up};
use super::*;
use crate::engine::fleet::failure::Failure;
use crate::engine::router::{Part, Report, Usage};
use crate::http::route::Route;
use crate::prompt::class::Class;
use crate::tenant::Tenant;

#[test]
fn the_number_of_a_request_names_its_worker() {
    let id = id_of(3, 77);
    assert_eq!((worker_of(id), number_of(id)), (3, 77));
    assert_eq!(worker_of(RequestId(12)), 0);
}

fn submit<'a>(number: u64, name: &'a str, blocks: &'a [u8]) -> Up<'a> {
    Up::Submit(Submit {
        number,
        request_id: name,
        start_ns: 1,
        waited_ns: 2,
        head: Head {
            route: Route::ChatCompletions,
            path: b"",
            key: Some(b"session"),
            class: None,
            trusted: true,
            credential: None,
            body_bytes: 2_000,
            tenant: Tenant::Named("acme"),
        },
        body: Body {
            model: "m",
            stream: true,
            max_tokens: Some(7),
            choices: 1,
            event_tokens: 1,
            key: None,
            class: Class::Low,
            retry_safe: true,
            may_go_on: true,
            unstored: false,
            previous_response_id: None,
            prompt_bytes: 1_900,
            has_media: false,
            prompt_blocks: 2,
            blocks: Hashes::new(blocks),
        },
        course: None,
    })
}

fn failures() -> impl Strategy<Value = Failure> {
    (any::<u16>(), 0..4).prop_map(|(status, kind)| match kind {
        0 => Failure::Reset,
        1 => Failure::Withdrawn,
        2 => Failure::Full,
        _ => Failure::Status(status),
    })
}

fn usages() -> impl Strategy<Value = Usage> {
    let tokens = || any::<Option<u32>>();
    (tokens(), tokens(), tokens()).prop_map(|(prompt_tokens, cached_tokens, completion_tokens)| {
        Usage {
            prompt_tokens,
            cached_tokens,
            completion_tokens,
        }
    })
}

prop_compose! {
    fn courses()(
        named in any::<bool>(),
        attempts in any::<u32>(),
        started in any::<bool>(),
        failed in prop::option::of((failures(), any::<bool>(), any::<u64>())),
        given in prop::option::of((any::<u32>(), usages(), any::<u64>())),
    ) -> Course<'static> {
        Course {
            replica: named.then_some("http://replica-7"),
            attempts,
            started,
            failed: failed.map(|(failure, sent, at_ns)| Failed { failure, sent, at_ns }),
            given: given.map(|(continuations, usage, events)| Part { continuations, usage, events }),
        }
    }
}

/// The bytes of some frames, and how many each has.
fn written<T: serde::Serialize>(values: &[T]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let lens = values.iter().map(|value| {
        let before = bytes.len();
        assert!(put(&mut bytes, value));
        bytes.len() - before - 4
    });
    let lens = lens.collect();
    (bytes, lens)
}

proptest! {
    #[test]
    fn what_is_put_is_read_again(number in any::<u64>(), name in ".{0,40}", hashes in prop::collection::vec(any::<u64>(), 0..40)) {
        let blocks = Hashes::bytes_of(&hashes);
        prop_assert_eq!(Hashes::new(&blocks).get(), hashes);
        let up = submit(number, &name, &blocks);
        let mut bytes = Vec::new();
        prop_assert!(put(&mut bytes, &up));
        let whole = split(&bytes).unwrap().unwrap();
        prop_assert_eq!(read::<Up<'_>>(whole.0).unwrap(), up);
        prop_assert!(whole.1.is_empty());
        for end in 0..bytes.len() {
            prop_assert!(split(&bytes[..end]).unwrap().is_none(), "a part is no frame");
        }
        for end in 0..whole.0.len() {
            prop_assert!(read::<Up<'_>>(&whole.0[..end]).is_err(), "a frame that was cut is refused");
        }
    }

    #[test]
    fn a_request_that_was_placed_before_is_read_as_it_was_put(course in courses(), waited_ns in any::<u64>()) {
        let blocks = Hashes::bytes_of(&[1, 2, 3]);
        let mut first = Vec::new();
        put(&mut first, &submit(9, "r", &blocks));
        let kept = Submitted::new(first[4..].to_vec());
        let mut again = Vec::new();
        kept.put_again(&mut again, waited_ns, Some(course));
        let Up::Submit(found) = read::<Up<'_>>(&again[4..]).unwrap() else {
            return Err(TestCaseError::fail("no submit"));
        };
        prop_assert_eq!((found.waited_ns, found.course), (waited_ns, Some(course)));
        prop_assert!(found.body.may_go_on && found.body.digest().may_go_on());
    }

    #[test]
    fn what_a_client_has_of_a_stream_is_read_as_it_was_put(
        number in any::<u64>(),
        failure in failures(),
        usage in usages(),
        events in any::<u64>(),
    ) {
        let report = Report { usage, sent: true, streamed: true, events, ..Report::default() };
        let up = Up::Resume { number, failure, given: Told::of(&report, &[], 0), at_ns: 5 };
        let (bytes, _) = written(&[&up]);
        let found = read::<Up<'_>>(&bytes[4..]).unwrap();
        prop_assert_eq!(&found, &up);
        let Up::Resume { given, .. } = found else {
            return Err(TestCaseError::fail("no resume"));
        };
        prop_assert_eq!(given.report(&[]), report);
        for end in 0..bytes.len() - 4 {
            prop_assert!(read::<Up<'_>>(&bytes[4..4 + end]).is_err());
        }
    }

    #[test]
    fn frames_are_the_same_however_their_bytes_are_cut(
        notes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..12),
        pieces in prop::collection::vec(1_usize..40, 1..200),
    ) {
        let ups: Vec<_> = notes.iter().map(|note| Up::Note(Bytes(note))).collect();
        let (bytes, lens) = written(&ups);
        let (mut inbox, mut found, mut rest) = (Inbox::default(), Vec::new(), &bytes[..]);
        let mut pieces = pieces.into_iter().cycle();
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(pieces.next().unwrap().min(rest.len()));
            rest = behind;
            let read = inbox.feed(piece, |frame| {
                found.push(frame.to_vec());
                Ok::<(), FrameError>(())
            });
            prop_assert_eq!(read, Ok(()));
        }
        prop_assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), lens);
        for (frame, up) in found.iter().zip(&ups) {
            prop_assert_eq!(&read::<Up<'_>>(frame).unwrap(), up);
        }
    }

    #[test]
    fn garbage_is_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read::<Up<'_>>(&bytes).map(|up| format!("{up:?}"));
        let _ = read::<Down<'_>>(&bytes).map(|down| format!("{down:?}"));
        if let Ok(Some((frame, rest))) = split(&bytes) {
            prop_assert_eq!(4 + frame.len() + rest.len(), bytes.len());
        }
    }
}

#[test]
fn a_frame_that_says_it_is_endless_is_an_error_at_once() {
    let length = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
    assert_eq!(
        split(&length.to_le_bytes()),
        Err(FrameError::TooLong(FRAME_BYTES_MAX + 1))
    );
}

#[test]
fn hashes_that_are_not_whole_are_refused() {
    let up = submit(1, "r", &[1; 8]);
    let mut bytes = Vec::new();
    put(&mut bytes, &up);
    let at = bytes
        .windows(9)
        .position(|of| of == [8, 1, 1, 1, 1, 1, 1, 1, 1])
        .unwrap();
    bytes[at] = 7;
    bytes.remove(at + 1);
    assert_eq!(read::<Up<'_>>(&bytes[4..]), Err(FrameError::Malformed));
}

#[test]
fn a_worker_gets_mail_from_its_joining_to_its_leaving() {
    let mut mail = Mail::default();
    assert!(!mail.put(1, &Down::Hold(4)), "it has not joined");
    assert!(!mail.join(0) && !mail.join(WORKERS_MAX + 1) && mail.join(1));
    assert!(mail.put(1, &Down::Hold(4)) && mail.put(1, &Down::Expire(5)));
    assert_eq!(mail.untold().collect::<Vec<_>>(), [1]);
    assert_eq!(mail.untold().count(), 0, "it is told once");
    assert!(mail.take(1, |bytes| !bytes.is_empty()));
    assert!(mail.take(1, <[u8]>::is_empty));
    mail.put(1, &Down::Hold(6));
    mail.leave(1);
    assert_eq!(
        (mail.untold().count(), mail.put(1, &Down::Hold(7))),
        (0, false)
    );
}

#[test]
fn a_fault_leaves_what_was_before_it() {
    let (mut bytes, _) = written(&[Up::Note(Bytes(b"a")), Up::Note(Bytes(b"b"))]);
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    for whole in [true, false] {
        let (mut inbox, mut found) = (Inbox::default(), 0);
        let mut count = |_: &[u8]| {
            found += 1;
            Ok::<(), FrameError>(())
        };
        let (first, rest) = bytes.split_at(if whole { 0 } else { bytes.len() - 2 });
        assert_eq!(inbox.feed(first, &mut count), Ok(()));
        let fault = inbox.feed(rest, &mut count);
        assert_eq!(fault, Err(FrameError::TooLong(u32::MAX as usize)));
        assert_eq!(found, 2);
    }
}

#[test]
fn what_is_shown_of_messages_has_no_secret_and_no_text() {
    let blocks = Hashes::bytes_of(&[0x1122_3344_5566_7788]);
    let Up::Submit(mut whole) = submit(1, "r", &blocks) else {
        return;
    };
    whole.head.credential = Some(b"sk-credential");
    whole.head.key = Some(b"session-key");
    let shown = format!("{:?}", Up::Submit(whole.clone()));
    let (bytes, _) = written(&[Up::Submit(whole)]);
    let kept = Submitted::new(bytes[4..].to_vec());
    let mut inbox = Inbox::default();
    inbox
        .feed(&bytes[..20], |_| Ok::<(), FrameError>(()))
        .unwrap();
    let note = Up::Note(Bytes(b"sk-credential"));
    for shown in [
        shown,
        format!("{kept:?}"),
        format!("{inbox:?}"),
        format!("{note:?}"),
        format!("{:?}", Down::Note(Bytes(b"sk-credential"))),
    ] {
        let bytes = |text: &str| format!("{:?}", text.as_bytes()).replace(['[', ']'], "");
        for secret in ["sk-credential", "session-key"] {
            assert!(
                !shown.contains(secret) && !shown.contains(&bytes(secret)),
                "{shown}"
            );
        }
        assert!(!shown.contains("136, 119"), "hashes: {shown}");
    }
}

#[test]
fn a_request_is_submitted_again_as_far_as_it_has_come() {
    let mut journey = Journey::default();
    assert_eq!(journey.course(None), None, "it was sent nowhere");
    journey.sent(1);
    journey.failed(Failure::Reset, true, 7);
    let course = journey.course(Some("r")).unwrap();
    assert_eq!((course.attempts, course.replica), (1, Some("r")));
    assert_eq!(course.failed.map(|of| of.sent), Some(true));
    journey.held();
    let course = journey.course(None).unwrap();
    assert_eq!((course.attempts, course.failed), (1, None));
    journey.sent(2);
    journey.failed(Failure::Full, true, 8);
    journey.held();
    let course = journey.course(None).unwrap();
    assert_eq!(course.attempts, 1, "nothing was begun there");
}

#[test]
fn the_replicas_that_were_tried_for_a_stream_are_counted() {
    let given = Report {
        events: 5,
        ..Report::default()
    };
    let mut journey = Journey::default();
    journey.sent(1);
    journey.first_byte();
    journey.cut(Failure::Reset, &given, 40, 7);
    assert!(journey.is_undecided());
    assert_eq!(journey.waited_ns(45), 5, "the wait before is another one");
    let tried = |journey: &Journey| journey.course(None).unwrap().given.unwrap().continuations;
    assert_eq!(tried(&journey), 0, "not decided yet");
    journey.sent(1);
    assert_eq!((tried(&journey), journey.is_undecided()), (1, false));
    journey.failed(Failure::Connect, false, 8);
    journey.held();
    assert_eq!(tried(&journey), 2);
    let course = journey.course(None).unwrap();
    assert!(!course.started, "nobody goes on with it");
    journey.sent(1);
    journey.first_byte();
    journey.cut(Failure::Reset, &given, 40, 9);
    assert_eq!(tried(&journey), 2);
    assert_eq!(journey.course(None).unwrap().given.unwrap().events, 5);
}

#[test]
fn hashes_are_kept_of_streams_that_may_go_on_and_of_no_other() {
    let blocks = Hashes::bytes_of(&[1, 2, 3]);
    for may_go_on in [true, false] {
        let Up::Submit(mut whole) = submit(1, "r", &blocks) else {
            return;
        };
        whole.body.may_go_on = may_go_on;
        let (bytes, _) = written(&[Up::Submit(whole)]);
        let mut kept = Submitted::new(bytes[4..].to_vec());
        kept.started();
        assert_eq!(kept.bytes() == bytes.len() - 4, may_go_on);
    }
}
