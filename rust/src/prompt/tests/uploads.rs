//! Uploads: model and settings in the parts of a form.

use super::*;

fn upload(content_type: &str, body: &[u8]) -> Result<Digest, RequestError> {
    digest(
        &Envelope::new(Route::Transcriptions, Some(content_type.as_bytes())),
        body,
        &config(),
        &mut Scratch::default(),
    )
}

const TYPE: &str = "multipart/form-data; boundary=\"xyz\"";

#[test]
fn model_and_stream_are_found_wherever_they_stand() {
    let body = b"preamble\r\n--xyz\r\nContent-Disposition: form-data; filename=\"; name=model\"; name=\"file\"\r\n\
        Content-Type: audio/wav\r\n\r\nRIFF\r\n--xy\r\nmodel\r\n--xyz  \r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n\
        whisper\r\n--xyz\r\nContent-Disposition: form-data; name=stream\r\n\r\nTrue\r\n--xyz--\r\n";
    let digest = upload(TYPE, body).unwrap();
    assert_eq!(
        (digest.model.as_str(), digest.stream, digest.blocks.len()),
        ("whisper", true, 0)
    );
    assert!(digest.retry_safe);
}

#[test]
fn what_is_no_upload_is_refused() {
    let part = |name: &str, value: &str| {
        format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let whole = part("model", "m") + "--xyz--";
    assert!(upload(TYPE, whole.as_bytes()).is_ok());
    for (content_type, body, expected) in [
        (
            "application/json",
            whole.clone(),
            (415, "unsupported_media_type"),
        ),
        (
            "multipart/form-data",
            whole.clone(),
            (400, "invalid_multipart"),
        ),
        (
            "multipart/form-data; boundary=other",
            whole.clone(),
            (400, "invalid_multipart"),
        ),
        (TYPE, part("model", "m"), (400, "invalid_multipart")),
        (TYPE, part("file", "m") + "--xyz--", (400, "missing_model")),
        (
            TYPE,
            part("model", "m") + &part("model", "n") + "--xyz--",
            (400, "duplicate_key"),
        ),
        (
            TYPE,
            part("model", "m") + &part("kv_transfer_params", "{}") + "--xyz--",
            (400, "untrusted_field"),
        ),
        (
            TYPE,
            part("model", "m") + &part("vllm_xargs[rid]", "1") + "--xyz--",
            (400, "untrusted_field"),
        ),
        (
            TYPE,
            part("x\"; name=\"rid", "1") + &part("model", "m") + "--xyz--",
            (400, "invalid_multipart"),
        ),
        (
            TYPE,
            part("x\"; name*=\"utf-8''rid", "1") + &part("model", "m") + "--xyz--",
            (400, "invalid_multipart"),
        ),
        (
            TYPE,
            part("r\\id", "1") + &part("model", "m") + "--xyz--",
            (400, "invalid_multipart"),
        ),
        (
            TYPE,
            part("x\"\r\n\t; name=\"rid", "1") + &part("model", "m") + "--xyz--",
            (400, "invalid_multipart"),
        ),
        (
            TYPE,
            part("model", "m") + &part("stream", "maybe") + "--xyz--",
            (400, "invalid_type"),
        ),
        (
            TYPE,
            part("x", "y").repeat(65) + "--xyz--",
            (400, "invalid_multipart"),
        ),
        (TYPE, String::new(), (400, "empty_body")),
    ] {
        let error = upload(content_type, body.as_bytes()).unwrap_err();
        assert_eq!(
            (error.status, error.code),
            expected,
            "{content_type} {body}"
        );
    }
}
