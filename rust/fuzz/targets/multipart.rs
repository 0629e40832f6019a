//! Uploads: [`digest`] of forms, against a reader that goes by the words of RFC 2046 and 7578.

use skylb_core::http::error::RequestError;
use skylb_core::http::route::Route;
use skylb_core::http::steer;
use skylb_core::prompt::{Digest, DigestConfig, Envelope, Scratch, digest};

const PLAIN: &[u8] = b"multipart/form-data; boundary=x";

pub fn seeds() -> Vec<Vec<u8>> {
    let part = |name: &str, value: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let file = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a;b.wav\"\r\nContent-Type: audio/wav\r\n\r\n\0\r\n--\u{ff}\r\n";
    let bodies = [
        format!("{}{}--x--\r\n", part("model", "m"), part("stream", "true")),
        format!("preamble\r\n{file}{}--x--", part("model", "m")),
        format!("{}{}--x--", part("model", "m"), part("model", "n")),
        format!("{}{}--x--", part("model", ""), part("vllm_xargs[rid]", "1")),
        format!("--x \t\r\n\r\nno head\r\n{}--x--", part("model", "m")),
        "--x\r\nContent-Disposition: form-data;\r\n name=\"model\"\r\n\r\nm\r\n--x--".to_owned(),
        "--x\r\nContent-Disposition: form-data; name*=utf-8''model\r\n\r\nm\r\n--x--".to_owned(),
        "--x--".to_owned(),
    ];
    let types: [&[u8]; 4] = [
        PLAIN,
        b"Multipart/Form-Data; charset=\"a;b\" ; BOUNDARY=\"x\"",
        b"multipart/form-data",
        b"multipart/form-data; boundary=\"\"",
    ];
    let mut seeds = Vec::new();
    for (index, body) in bodies.iter().enumerate() {
        let kind = types[index % types.len()];
        for kind in [PLAIN, kind] {
            let len = u8::try_from(kind.len()).expect("a short type");
            seeds.push([&[0, len], kind, body.as_bytes()].concat());
        }
    }
    seeds
}

pub fn run(data: &[u8]) {
    let Some((&[flags, len], rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let Some((content_type, body)) = rest.split_at_checked(usize::from(len)) else {
        return;
    };
    let route = [Route::Transcriptions, Route::Translations][usize::from(flags & 1)];
    let envelope = Envelope {
        trusted: flags & 2 != 0,
        only_model: (flags & 4 != 0).then_some("only"),
        ..Envelope::new(route, Some(content_type))
    };
    let read = read(&envelope, body);
    if let Ok(digest) = &read {
        check_accepted(&envelope, digest, body);
    }
    // Where the boundary is known, the form is read by the oracle as well.
    if content_type == PLAIN {
        check_form(&envelope, &read, body);
    }
}

fn read(envelope: &Envelope<'_>, body: &[u8]) -> Result<Digest, RequestError> {
    let config = DigestConfig::new(b"0123456789abcdef", 16, 1 << 16);
    digest(envelope, body, &config, &mut Scratch::default())
}

/// Behind the closing boundary anything may stand; before it nothing may be missing.
fn check_accepted(envelope: &Envelope<'_>, digest: &Digest, body: &[u8]) {
    assert!(!digest.model.is_empty() && digest.blocks.is_empty());
    let longer = [body, b"\r\nepilogue"].concat();
    assert_eq!(read(envelope, &longer).as_ref(), Ok(digest));
    let stride = body.len() / 32 + 1;
    for cut in (0..body.len()).step_by(stride) {
        if let Ok(part) = read(envelope, &body[..cut]) {
            assert_eq!(part, *digest, "cut at {cut}");
        }
    }
}

/// Names and contents of the parts; `None`: the form is malformed.
fn parts(body: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    // A line break before the body makes the first delimiter look like the others.
    let mut found = Vec::new();
    let is_at = |at: usize| body[at..].starts_with(b"\r\n--x");
    let mut at = if body.starts_with(b"--x") {
        3
    } else {
        (0..body.len()).find(|at| is_at(*at))? + 5
    };
    while !body[at..].starts_with(b"--") {
        while matches!(body.get(at), Some(b' ' | b'\t')) {
            at += 1;
        }
        let start = at + body[at..].starts_with(b"\r\n").then_some(2)?;
        let end = (start..body.len()).find(|at| is_at(*at))?;
        let part = &body[start..end];
        found.push(if let Some(content) = part.strip_prefix(b"\r\n") {
            (&b""[..], content)
        } else {
            let len = part.windows(4).position(|window| window == b"\r\n\r\n")?;
            (&part[..len], &part[len + 4..])
        });
        at = end + 5;
    }
    Some(found)
}

/// Whose model a form names is what any reader of forms finds.
fn check_form(envelope: &Envelope<'_>, read: &Result<Digest, RequestError>, body: &[u8]) {
    let Some(parts) = parts(body) else {
        assert!(read.is_err(), "malformed, but accepted");
        return;
    };
    let Ok(digest) = read else {
        return;
    };
    let mut model = None;
    for (head, content) in parts {
        let head = String::from_utf8_lossy(head);
        // The readers that engines use take this spelling, whatever else they take.
        let plain = |name: &str| {
            let line = format!("Content-Disposition: form-data; name=\"{name}\"");
            head.split("\r\n").any(|found| found == line)
        };
        if plain("model") {
            assert!(model.is_none_or(|first| first == content), "two models");
            model = Some(content);
        }
        if plain("stream") {
            let is_true = matches!(content, b"true" | b"1");
            assert!(!is_true || digest.stream);
        }
        let steers = steer::FIELDS
            .iter()
            .any(|rule| rule.fate == steer::Fate::Refused && plain(rule.name));
        assert!(envelope.trusted || !steers, "accepted from anybody");
    }
    if let Some(model) = model.filter(|model| !model.is_empty()) {
        assert_eq!(digest.model.as_bytes(), model);
    }
}
