//! Whose request it is, by what it shows.

use sha2::{Digest, Sha256};

use super::Head;
use super::field::{Kind, trim};
use crate::http::route::Route;

impl Head {
    /// Value of `Authorization`, else of `X-Api-Key` or `Api-Key`: whose request it is.
    #[must_use]
    pub fn credential(&self) -> Option<&[u8]> {
        let kinds = [Kind::Authorization, Kind::ApiKey, Kind::BareApiKey];
        kinds.into_iter().find_map(|kind| self.first(kind))
    }

    /// The API key: of `Authorization: Bearer`, else of `X-Api-Key` or `Api-Key`; empty where there is none.
    #[must_use]
    pub fn api_key(&self) -> &[u8] {
        let bearer = self.first(Kind::Authorization).and_then(bearer);
        let key = bearer.or_else(|| self.first(Kind::ApiKey));
        key.or_else(|| self.first(Kind::BareApiKey))
            .unwrap_or_default()
    }

    /// SHA-256 of the API key, that of no text where there is none; `None`: the request needs no key, as it
    /// asks for an open route, or is a browser's preflight.
    #[must_use]
    pub fn api_key_digest(&self) -> Option<[u8; 32]> {
        let open = self.is_options() || self.route().is_some_and(Route::is_open);
        (!open).then(|| Sha256::digest(self.api_key()).into())
    }

    fn first(&self, kind: Kind) -> Option<&[u8]> {
        let field = self.fields.iter().find(|field| field.kind == kind)?;
        Some(field.value.of(&self.bytes))
    }
}

/// The token of a bearer (RFC 6750, 2.1), also an empty one; `None` for another scheme.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"bearer".len())?;
    let apart = rest.first().is_none_or(|b| *b == b' ' || *b == b'\t');
    (apart && scheme.eq_ignore_ascii_case(b"bearer")).then(|| trim(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::HeadParser;

    fn head(fields: &str) -> Head {
        let text = format!("GET /v1/models HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let parsed = HeadParser::new(None, false).parse(text.as_bytes());
        parsed.unwrap().unwrap()
    }

    #[test]
    fn a_key_comes_in_any_of_three_headers_and_a_bearers_goes_first() {
        for (fields, key) in [
            ("Authorization: Bearer k\r\n", "k"),
            ("authorization: bEARER \t k  \r\n", "k"),
            ("Authorization: Bearer k k\r\n", "k k"),
            ("X-Api-Key: k\r\n", "k"),
            ("api-key: k\r\n", "k"),
            ("Api-Key: b\r\nX-API-KEY: x\r\n", "x"),
            ("Api-Key: b\r\nAuthorization: Bearer k\r\n", "k"),
            ("Authorization: Basic dTpw\r\nX-Api-Key: x\r\n", "x"),
            ("Authorization: Bearerk\r\nX-Api-Key: x\r\n", "x"),
            ("Authorization: Bearer\r\nX-Api-Key: x\r\n", ""),
            ("Authorization: Bear\r\n", ""),
            ("Authorization: \r\n", ""),
            ("", ""),
        ] {
            assert_eq!(head(fields).api_key(), key.as_bytes(), "{fields}");
        }
    }

    #[test]
    fn a_digest_is_that_of_the_key_alone() {
        let abc = [
            0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae,
            0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61,
            0xf2, 0x00, 0x15, 0xad,
        ]; // FIPS 180-4, the example of one block
        assert_eq!(head("Api-Key: abc\r\n").api_key_digest(), Some(abc));
        let bearer = head("Authorization: Bearer abc\r\n");
        assert_eq!(bearer.api_key_digest(), Some(abc));
        assert_eq!(
            head("").api_key_digest(),
            head("X-Api-Key:\r\n").api_key_digest()
        );
    }
    #[test]
    fn health_and_preflights_need_no_key_and_everything_else_does() {
        let parser = HeadParser::new(None, true);
        for (line, needed) in [
            ("GET /health", false),
            ("HEAD /health", false),
            ("POST /ping", false),
            ("OPTIONS /v1/chat/completions", false),
            ("OPTIONS *", false),
            ("GET /v1/models", true),
            ("HEAD /v1/models/m", true),
            ("GET /version", true),
            ("POST /v1/responses/resp_1/cancel", true),
        ] {
            let text = format!("{line} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
            let head = parser.parse(text.as_bytes()).unwrap().unwrap();
            assert_eq!(head.api_key_digest().is_some(), needed, "{line}");
        }
    }
}
