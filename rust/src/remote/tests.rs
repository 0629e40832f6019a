use proptest::prelude::*;

use super::down::Down;
use super::frame::{FRAME_BYTES_MAX, FrameError, Hashes, put, read, split};
use super::mail::Mail;
use super::submitted::{Body, Head, Submit};
use super::up::Up;
use super::*;
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
            unstored: false,
            previous_response_id: None,
            prompt_bytes: 1_900,
            has_media: false,
            prompt_blocks: 2,
            blocks: Hashes::new(blocks),
        },
        at: None,
    })
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
