//! The answer to a path that is not in the list.

use super::ROUTES;
use crate::http::error::RequestError;

/// Bytes of a path that the message of a 404 repeats at most.
const PATH_NAMED_LEN_MAX: usize = 128;

/// The 404 for a path that is not in the list: it names the list, and the path that was meant where
/// that can be told.
pub(super) fn unknown_path(path: &[u8]) -> RequestError {
    let named = &path[..path.len().min(PATH_NAMED_LEN_MAX)];
    let asked = String::from_utf8_lossy(named);
    let hint = meant(path).map_or_else(String::new, |meant| format!(" Did you mean {meant}?"));
    let paths: Vec<&str> = ROUTES.iter().map(|row| row.path).collect();
    let list = paths.join(", ");
    let message = format!("There is no path {asked} here.{hint} The paths are: {list}.");
    RequestError::new("unknown_path", message)
}

/// The path whose end this one has, or the other way round: of a base URL with `/v1` twice or not at
/// all, with a doubled slash or with a prefix.
fn meant(path: &[u8]) -> Option<&'static str> {
    let segments = |path: &[u8]| -> Vec<Vec<u8>> {
        let parts = path
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty());
        parts.map(<[u8]>::to_ascii_lowercase).collect()
    };
    let asked = segments(&path[..path.len().min(PATH_NAMED_LEN_MAX)]);
    let fits = |known: &[Vec<u8>]| asked.ends_with(known) || known.ends_with(&asked);
    let rows = ROUTES
        .iter()
        .filter(|row| !asked.is_empty() && fits(&segments(row.path.as_bytes())));
    rows.map(|row| row.path).max_by_key(|path| path.len())
}

#[cfg(test)]
mod tests {
    use crate::http::route::Route;

    #[test]
    fn a_404_names_the_list_and_what_was_meant() {
        let message = |path: &str| Route::of(b"POST", path.as_bytes()).map_err(|e| e.message);
        for (path, meant) in [
            ("/v1/v1/chat/completions", "/v1/chat/completions"),
            ("/chat/completions", "/v1/chat/completions"),
            ("/v1//messages", "/v1/messages"),
            ("/api/v1/embeddings", "/v1/embeddings"),
        ] {
            let text = message(path).unwrap_err();
            assert!(text.contains(&format!("Did you mean {meant}?")), "{text}");
            assert!(text.contains("/inference/v1/generate, "), "{text}");
        }
        let long = message(&format!("/{}", "x".repeat(8_000))).unwrap_err();
        assert!(
            long.len() < 2_000 && !long.contains("mean"),
            "{}",
            long.len()
        );
    }
}
