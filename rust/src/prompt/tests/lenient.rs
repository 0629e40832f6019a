//! What engines take, though no API has it, passes: the engine is the judge.

use super::*;

#[test]
fn numbers_and_switches_within_quotes_are_read_as_engines_read_them() {
    for (written, expected) in [
        (r#""100""#, Some(100)),
        (r#"" 100 ""#, Some(100)),
        (r#""100.0""#, Some(100)),
        ("100.0", Some(100)),
        ("1e2", Some(100)),
        ("true", Some(1)),
        ("99999999999999999999", Some(u32::MAX)),
        ("-1", None),
        ("null", None),
    ] {
        let body = format!(r#"{{"model":"m","max_tokens":{written}}}"#);
        assert_eq!(chat(&body).unwrap().max_tokens, expected, "{written}");
    }
    for (written, expected) in [
        ("true", true),
        (r#""true""#, true),
        (r#""Yes""#, true),
        ("1", true),
        ("0", false),
        (r#""off""#, false),
    ] {
        let body = format!(r#"{{"model":"m","stream":{written}}}"#);
        assert_eq!(chat(&body).unwrap().stream, expected, "{written}");
    }
}

#[test]
fn hints_of_another_type_say_nothing() {
    for member in [
        r#""metadata":[]"#,
        r#""metadata":"x""#,
        r#""metadata":{"user_id":7}"#,
        r#""user":{}"#,
        r#""prompt_cache_key":5"#,
        r#""service_tier":[]"#,
    ] {
        let digest = chat(&format!(r#"{{"model":"m",{member}}}"#)).unwrap();
        assert_eq!(
            (digest.key, digest.class),
            (None, Class::Normal),
            "{member}"
        );
    }
}

#[test]
fn what_decides_the_prompt_is_hashed_whatever_its_type() {
    let of = |member: &str| {
        let body = format!(
            r#"{{"model":"m",{member}"messages":[{{"role":"user","content":"0123456789abcdef"}}]}}"#
        );
        chat(&body).unwrap().blocks
    };
    let salts = [
        of(""),
        of(r#""cache_salt":5,"#),
        of(r#""cache_salt":"5","#),
        of(r#""cache_salt":[5],"#),
    ];
    for (index, one) in salts.iter().enumerate() {
        assert!(salts[..index].iter().all(|other| other != one));
    }
}

#[test]
fn a_key_that_is_there_again_with_the_same_value_is_not_ambiguous() {
    let plain =
        chat(r#"{"model":"a","messages":[{"role":"user","content":"hi"}],"stream":true}"#).unwrap();
    let twice = chat(
        r#"{"model":"a","stream":true,"mod\u0065l":"\u0061","messages":[{"role":"user","content":"hi"}],
            "stream": true,"messages": [ {"role":"us\u0065r","content":"hi"} ]}"#,
    )
    .unwrap();
    let within = r#"{"model":"a","messages":[{"role":"user","content":"hi","content":"hi"}]}"#;
    assert!(chat(within).is_ok());
    assert_eq!(
        (twice.model, twice.blocks, twice.tail, twice.stream),
        ("a".to_owned(), plain.blocks, plain.tail, true)
    );
}

#[test]
fn the_one_model_that_is_served_is_meant_by_a_body_that_names_none() {
    let with = |only: Option<&str>, body: &str| {
        let envelope = Envelope {
            only_model: only,
            ..Envelope::new(Route::ChatCompletions, None)
        };
        let digest = digest(
            &envelope,
            body.as_bytes(),
            &config(),
            &mut Scratch::default(),
        )?;
        let edits = digest.model_edits.iter().collect();
        Ok::<_, RequestError>((
            digest.model.clone(),
            String::from_utf8(edited(body.as_bytes(), edits)).unwrap(),
            digest.blocks,
        ))
    };
    for (body, expected) in [
        ("{}", r#"{"model":"a\"b"}"#),
        (
            r#" { "stream":true}"#,
            r#" {"model":"a\"b", "stream":true}"#,
        ),
        (r#"{"model":null}"#, r#"{"model":"a\"b"}"#),
        (r#"{"model": "","n":1}"#, r#"{"model": "a\"b","n":1}"#),
        (
            r#"{"model":"","n":1,"model":""}"#,
            r#"{"model":"a\"b","n":1,"model":"a\"b"}"#,
        ),
        (r#"{"model":"c"}"#, r#"{"model":"c"}"#),
    ] {
        let (model, sent, _) = with(Some("a\"b"), body).unwrap();
        assert_eq!(sent, expected);
        assert_eq!(
            serde_json::from_str::<Value>(&sent).unwrap()["model"],
            model
        );
    }
    let text = r#""messages":[{"role":"user","content":"0123456789abcdef"}]"#;
    let named = with(None, &format!(r#"{{"model":"m",{text}}}"#)).unwrap();
    let unnamed = with(Some("m"), &format!("{{{text}}}")).unwrap();
    assert_eq!(
        named.2, unnamed.2,
        "its prompts share their blocks with those of others"
    );
    assert_eq!(with(Some(""), "{}").unwrap().1, "{}", "not known yet");
    assert_eq!(with(None, "{}").unwrap_err().code, "missing_model");
}

#[test]
fn two_million_token_ids_and_more_pass() {
    let ids = vec!["123"; 3_000_000].join(",");
    let body = format!(r#"{{"model":"m","prompt":[{ids}]}}"#);
    let digest = read(Route::Completions, body.as_bytes()).unwrap();
    assert_eq!(digest.prompt_bytes, 1 + 4 * 3_000_000);
}

#[test]
fn what_is_no_token_id_is_the_engine_s_to_judge() {
    let of = |prompt: &str| {
        read(
            Route::Completions,
            format!(r#"{{"model":"m","prompt":{prompt}}}"#).as_bytes(),
        )
        .unwrap()
    };
    let pads = "1,".repeat(8);
    let odd = [
        of(&format!("[{pads}2]")),
        of(&format!("[{pads}2.0]")),
        of(&format!("[{pads}-2]")),
        of(&format!(r#"[{pads}"2"]"#)),
    ];
    for (index, one) in odd.iter().enumerate() {
        assert!(
            odd[..index]
                .iter()
                .all(|other| (&other.blocks, &other.tail) != (&one.blocks, &one.tail))
        );
    }
}

#[test]
fn a_batch_of_chats_is_read_as_one_prompt() {
    let chat = |text: &str| json!([{"role": "user", "content": text}]);
    let body = json!({"model": "m", "messages": [chat("0123456789abcdef"), chat("other")]});
    let digest = read_value(Route::ChatBatch, &body);
    let first = read_value(
        Route::ChatCompletions,
        &json!({"model": "m", "messages": chat("0123456789abcdef")}),
    );
    assert!(!first.blocks.is_empty() && digest.blocks.starts_with(&first.blocks));
    assert_eq!(digest.answer, None);
    let wrong = json!({"model": "m", "messages": [{"role": "user"}]});
    let error = read(Route::ChatBatch, wrong.to_string().as_bytes()).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("messages[0]"));
}

#[test]
fn the_other_routes_read_their_prompts() {
    let text = "0123456789abcdef0123456789abcdef";
    for (route, body) in [
        (
            Route::RerankRoot,
            json!({"query": text, "documents": [text]}),
        ),
        (Route::RerankV2, json!({"query": text, "documents": [text]})),
        (Route::ScoreRoot, json!({"data_1": text, "data_2": [text]})),
        (Route::EmbedV2, json!({"texts": [text]})),
        (
            Route::Invocations,
            json!({"messages": [{"role": "user", "content": text}]}),
        ),
        (Route::Invocations, json!({"prompt": text})),
        (Route::Invocations, json!({"input": [text]})),
        (
            Route::GenerativeScore,
            json!({"query": text, "items": [text]}),
        ),
        (Route::Decisions, json!({"state": text, "questions": {}})),
        (
            Route::CohereChat,
            json!({"messages": [{"role": "user", "content": text}]}),
        ),
    ] {
        let mut body = body;
        body["model"] = json!("m");
        assert!(!read_value(route, &body).blocks.is_empty(), "{body}");
    }
}
