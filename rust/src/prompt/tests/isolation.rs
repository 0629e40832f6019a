//! What becomes of a prompt's hashes, of its session and of its body where owners are isolated.

use proptest::prelude::*;

use super::*;
use crate::http::route::{ROUTES, Serving};
use crate::prompt::isolation::{ISOLATION_KEY_BYTES, Isolation, Owner};

const KEY: [u8; ISOLATION_KEY_BYTES] = [9; ISOLATION_KEY_BYTES];
const OWNERS: [Owner<'static>; 4] = [
    Owner::Nobody,
    Owner::Tenant("a"),
    Owner::Tenant("b"),
    Owner::Credential(b"a"),
];

fn isolating() -> DigestConfig {
    let mut config = config();
    config.isolate(&KEY);
    config
}

fn read_for(owner: Owner<'_>, route: Route, body: &str, config: &DigestConfig) -> Digest {
    let envelope = Envelope {
        owner,
        only_model: Some("only"),
        ..Envelope::new(route, None)
    };
    digest(&envelope, body.as_bytes(), config, &mut Scratch::default()).unwrap()
}

fn chat_for(owner: Owner<'_>, fields: &str, config: &DigestConfig) -> Digest {
    let body = chat_body(fields);
    read_for(owner, Route::ChatCompletions, &body, config)
}

fn chat_body(fields: &str) -> String {
    let text = "x".repeat(64);
    format!(r#"{{{fields}"messages":[{{"role":"user","content":"{text}"}}]}}"#)
}

/// The body as an engine gets it.
fn salted(body: &str, digest: &Digest) -> Value {
    let edits = digest.salt_edits.iter().chain(&digest.model_edits);
    let sent = edited(body.as_bytes(), edits.collect());
    serde_json::from_slice(&sent).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn isolated_tenants_share_no_block() {
    let config = isolating();
    let of = |owner| chat_for(owner, r#""model":"m","#, &config).blocks;
    for (index, one) in OWNERS.into_iter().enumerate() {
        assert!(of(one).len() >= 4);
        assert_eq!(of(one), of(one));
        for other in &OWNERS[..index] {
            let others = of(*other);
            let shared = of(one).iter().any(|block| others.contains(block));
            assert!(!shared, "{one:?} {other:?}");
        }
    }
}

#[test]
fn without_isolation_nothing_depends_on_the_owner() {
    let config = config();
    for owner in OWNERS {
        let read = |owner| chat_for(owner, r#""model":"m","user":"u","#, &config);
        assert_eq!(read(owner), read(Owner::Nobody));
        assert!(read(owner).salt_edits.is_empty());
    }
}

#[test]
fn an_owners_own_salts_share_no_block_either() {
    let config = isolating();
    let of = |fields: &str| chat_for(Owner::Tenant("a"), fields, &config).blocks;
    let all = [
        of(r#""model":"m","#),
        of(r#""model":"m","cache_salt":"x","#),
        of(r#""model":"m","cache_salt":"y","#),
    ];
    for (index, one) in all.iter().enumerate() {
        for other in &all[..index] {
            assert!(one.iter().all(|block| !other.contains(block)));
        }
    }
    assert_eq!(of(r#""model":"m","cache_salt":null,"#), all[0]);
}

#[test]
fn a_session_of_one_owner_is_no_others() {
    let config = isolating();
    let of = |owner| chat_for(owner, r#""model":"m","user":"u","#, &config).key;
    for (index, one) in OWNERS.into_iter().enumerate() {
        assert_eq!(of(one), Some(config.session_key(one, b"u")));
        for other in &OWNERS[..index] {
            assert_ne!(of(one), of(*other), "{one:?} {other:?}");
        }
    }
}

#[test]
fn the_engine_gets_the_owners_salt_in_place_of_whatever_the_client_wrote() {
    let config = isolating();
    let isolation = Isolation::new(&KEY);
    let owner = Owner::Tenant("a");
    for (fields, client) in [
        (r#""model":"m","#, None),
        ("", None),
        (r#""cache_salt":null,"model":"m","#, None),
        (r#""model":"m","cache_salt":"own","#, Some("own")),
        (r#""cache_salt":"own", "cache_salt" : "own","#, Some("own")),
        (r#""cache_s\u0061lt":"o\u0077n","model":null,"#, Some("own")),
        (r#""cache_salt":"","#, Some("")),
    ] {
        let body = chat_body(fields);
        let digest = read_for(owner, Route::ChatCompletions, &body, &config);
        let sent = salted(&body, &digest);
        let salt = isolation.salt(owner, client.map(str::as_bytes)).text();
        assert_eq!(sent["cache_salt"], json!(salt), "{fields}");
        let mut plain: Value = serde_json::from_str(&body).unwrap();
        plain["cache_salt"] = json!(salt);
        plain["model"] = sent["model"].clone();
        assert_eq!(sent, plain, "all else is as it was");
        assert_eq!(
            edited(body.as_bytes(), digest.salt_edits.iter().collect())
                .windows(salt.len())
                .filter(|window| *window == salt.as_bytes())
                .count(),
            body.matches("salt").count().max(1),
            "no place keeps the client's own"
        );
    }
}

#[test]
fn a_salt_that_no_engine_takes_is_refused() {
    let mut config = config();
    for isolates in [false, true] {
        for salt in ["5", "true", "{}", r#"["x"]"#] {
            let body = chat_body(&format!(r#""model":"m","cache_salt":{salt},"#));
            let envelope = Envelope::new(Route::ChatCompletions, None);
            let read = digest(&envelope, body.as_bytes(), &config, &mut Scratch::default());
            let error = read.err().map(|error| (error.code, error.param));
            let refused = ("invalid_type", Some("cache_salt".to_owned()));
            assert_eq!(error, isolates.then_some(refused), "{salt}");
        }
        config.isolate(&KEY);
    }
}

#[test]
fn routes_whose_engine_knows_no_salt_get_none() {
    let config = isolating();
    let salted: Vec<&str> = ROUTES
        .iter()
        .filter(|row| row.body == BodyKind::Json)
        .filter(|row| {
            let body = r#"{"model":"m","state":"s"}"#;
            let read = read_for(Owner::Nobody, row.route, body, &config);
            !read.salt_edits.is_empty()
        })
        .map(|row| row.path)
        .collect();
    let unsalted = ["/cohere/v2/chat", "/v2/embed", "/v1/audio/speech"];
    let expected: Vec<&str> = ROUTES
        .iter()
        .filter(|row| row.body == BodyKind::Json && row.serving == Serving::Batch)
        .map(|row| row.path)
        .filter(|path| !unsalted.contains(path))
        .collect();
    assert_eq!(salted, expected);
}

#[test]
fn an_empty_body_stays_as_it_is() {
    let read = read_for(Owner::Nobody, Route::ChatCompletions, "{ }", &isolating());
    assert!(read.salt_edits.is_empty());
}

proptest! {
    #[test]
    fn the_salt_depends_on_owner_and_client_salt_alone(
        salt in proptest::option::of(".{0,20}"),
        before in 0..3_usize,
    ) {
        let config = isolating();
        let owner = Owner::Credential(b"c");
        let others = [r#""user":"u","#, r#""seed":1,"#, r#""temperature" : 0.5 ,"#];
        let mut fields: Vec<String> = others.iter().map(ToString::to_string).collect();
        if let Some(salt) = &salt {
            fields.insert(before, format!("\"cache_salt\":{},", Value::from(salt.as_str())));
        }
        let body = chat_body(&fields.concat());
        let digest = read_for(owner, Route::ChatCompletions, &body, &config);
        let expected = Isolation::new(&KEY).salt(owner, salt.as_deref().map(str::as_bytes));
        prop_assert_eq!(&salted(&body, &digest)["cache_salt"], &json!(expected.text()));
    }
}
