//! Which paths are routes, and which of them need what.

use super::*;

#[test]
fn a_path_matches_byte_for_byte_or_not_at_all() {
    for path in [
        "//v1/completions",
        "/v1//completions",
        "/v1/completions/",
        "/v1/completions//",
        "/v1/./completions",
        "/v1/x/../completions",
        "/v1/%63ompletions",
        "/V1/completions",
        "/v1/completions;x",
        "/v1/responses/..",
        "/v1/responses/%2e%2e",
        "/v1/responses/a/b",
        "/v1/responses/",
        "/v1/responses//cancel",
        "/v1/responses/a/cancel/",
        "/v1/models//",
        "/v1/models/..",
        "/v1/models/a/../b",
        "/v1/models/a%2F..%2Fb",
        "/v1/models/%2e%2e",
        "/v1/models/a//b",
        "/v1/models/a//",
        "/v1/models/%252e%252e",
        "/v1/models/a%2",
        "/v1/models/a%zz",
        "/v1/models/a%ff",
        "/metrics",
        "/reset_prefix_cache",
        "",
    ] {
        assert_eq!(Route::of_path(path.as_bytes()), None, "{path}");
    }
    let long = format!("/v1/responses/{}", "a".repeat(RESPONSE_ID_LEN_MAX + 1));
    assert_eq!(Route::of_path(long.as_bytes()), None);
}

#[test]
fn ids_match_their_template() {
    let route = |path: &str| Route::of_path(path.as_bytes());
    assert_eq!(
        route("/v1/responses/resp_01ab-x"),
        Some(Route::ResponseById)
    );
    assert_eq!(
        route("/v1/responses/resp_1/cancel"),
        Some(Route::ResponseCancel)
    );
    // `cancel` alone is an id like any other: vLLM would look it up and not find it.
    assert_eq!(route("/v1/responses/cancel"), Some(Route::ResponseById));
    for id in [
        "llama",
        "meta-llama/Llama-3.1-8B",
        "org%2Fm.x",
        "ft%3Agpt",
        "%6C%6Cama",
        "mod%C3%A8le",
        "100%25",
        "llama/",
        ".hidden",
        "...",
    ] {
        assert_eq!(
            route(&format!("/v1/models/{id}")),
            Some(Route::Models),
            "{id}"
        );
    }
}

#[test]
fn a_wrong_method_names_the_right_ones() {
    let allow =
        |method: &[u8], path: &[u8]| Route::of(method, path).map_err(|e| (e.status, e.allow));
    assert_eq!(allow(b"GET", b"/v1/messages"), Err((405, Some("POST"))));
    assert_eq!(allow(b"POST", b"/health"), Err((405, Some("GET, HEAD"))));
    assert_eq!(allow(b"post", b"/v1/messages"), Err((405, Some("POST"))));
    assert_eq!(allow(b"HEAD", b"/v1/models"), Ok(Route::Models));
    assert_eq!(allow(b"DELETE", b"/nowhere"), Err((404, None)));
}

#[test]
fn every_template_without_an_id_is_its_own_path() {
    for (number, row) in ROUTES.iter().enumerate() {
        assert_eq!(row.route as usize, number);
        if !row.path.contains('{') {
            assert_eq!(Route::of_path(row.path.as_bytes()), Some(row.route));
        }
    }
}

#[test]
fn one_slash_at_the_end_is_left_out_and_no_other() {
    for (path, expected) in [
        ("/v1/completions/", "/v1/completions"),
        ("/v1/completions", "/v1/completions"),
        ("/v1/completions//", "/v1/completions//"),
        ("/", "/"),
        ("//", "//"),
        ("", ""),
    ] {
        assert_eq!(
            without_slash(path.as_bytes()),
            expected.as_bytes(),
            "{path}"
        );
    }
}
