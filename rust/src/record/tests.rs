use super::ended::tests::Parts;
use super::*;
use crate::tenant::Tenant;

const OFFSET_NS: i64 = 1_767_225_600_000_000_000; // 2026-01-01T00:00:00Z
const QUEUE_BYTES_MAX: usize = 64 << 10;

fn recorder(format: Format) -> Recorder {
    Recorder::new(format, QUEUE_BYTES_MAX, "prefix", OFFSET_NS, 8)
}

const CHAT: &str = "/v1/chat/completions";

fn parts() -> Parts {
    let mut parts = Parts::new(CHAT, Some("m")).answered(4096);
    parts.life = Life {
        request_id: "r-1".into(),
        attempts: 1,
        target: Some(Target::Replica("http://127.0.0.1:8101".into())),
        match_blocks: 30,
        predicted_ttft_ns: Some(400_000_000),
        start_ns: 1_000_000_000,
        held_ns: 2_000_000,
        first_byte_ns: 1_500_000_000,
        bytes_in: 2048,
        ..Life::default()
    };
    parts
}

fn lines(recorder: &mut Recorder) -> String {
    recorder.take_log(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

#[test]
fn a_json_line_has_every_field_of_the_access_log_in_order() {
    let mut recorder = recorder(Format::Json);
    recorder.complete(&parts().ended(200));
    assert_eq!(
        lines(&mut recorder),
        concat!(
            r#"{"ts":"2026-01-01T00:00:03.000001Z","type":"access","request_id":"r-1","#,
            r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","tenant":null,"client":"127.0.0.1:50000","#,
            r#""method":"POST","route":"/v1/chat/completions","model":"m","status":200,"error_code":null,"#,
            r#""replica":"http://127.0.0.1:8101","peer":null,"policy":"prefix","attempts":1,"#,
            r#""prompt_blocks":32,"match_blocks":30,"held_s":0.002000,"predicted_ttft_s":0.400000,"ttft_s":0.500000,"#,
            r#""total_s":2.000001,"bytes_in":2048,"bytes_out":4096}"#,
            "\n"
        )
    );
}

#[test]
fn a_logfmt_line_has_the_same_fields() {
    let mut recorder = recorder(Format::Logfmt);
    let mut parts = parts();
    parts.life.first_byte_ns = 0;
    parts.life.target = None;
    recorder.complete(&parts.ended(200));
    assert_eq!(
        lines(&mut recorder),
        "ts=2026-01-01T00:00:03.000001Z request_id=r-1 trace_id=4bf92f3577b34da6a3ce929d0e0e4736 tenant=- \
         client=127.0.0.1:50000 method=POST route=/v1/chat/completions model=m status=200 error_code=- \
         replica=- peer=- policy=prefix attempts=1 prompt_blocks=32 match_blocks=30 held_s=0.002000 predicted_ttft_s=0.400000 ttft_s=- \
         total_s=2.000001 bytes_in=2048 bytes_out=4096\n"
    );
}

#[test]
fn a_short_line_has_what_people_read() {
    let mut recorder = recorder(Format::Text);
    recorder.complete(&parts().ended(200));
    assert_eq!(
        lines(&mut recorder),
        "2026-01-01T00:00:03.000Z 200 POST /v1/chat/completions m 127.0.0.1:8101 ttft=0.500s total=2.000s held=0.002s\n"
    );
    let mut away = parts();
    away.life.target = Some(Target::Peer("eu".into()));
    away.life.attempts = 2;
    away.life.tenant = Tenant::Named("acme".into());
    away.life.held_ns = 0;
    recorder.complete(&Ended {
        error_code: Some("upstream_failed"),
        ..away.ended(502)
    });
    assert_eq!(
        lines(&mut recorder),
        "2026-01-01T00:00:03.000Z 502 POST /v1/chat/completions m peer=eu ttft=0.500s total=2.000s attempts=2 \
         tenant=acme error=upstream_failed id=r-1\n"
    );
    recorder.complete(&Ended {
        head: None,
        refused: true,
        digest: None,
        ..parts().ended(400)
    });
    assert!(lines(&mut recorder).starts_with("2026-01-01T00:00:03.000Z 400 - - - 127.0.0.1:8101 "));
}

#[test]
fn nobody_and_an_unknown_tenant_are_told_apart() {
    let of = |tenant| {
        let mut recorder = recorder(Format::Logfmt);
        let mut parts = parts();
        parts.life.tenant = tenant;
        recorder.complete(&parts.ended(200));
        let line = lines(&mut recorder);
        let named = line.split(' ').filter(|field| field.starts_with("tenant"));
        named.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(of(Tenant::Named("acme".into())), "tenant=acme");
    assert_eq!(of(Tenant::Nobody), "tenant=-");
    assert_eq!(of(Tenant::Unknown), "tenant=- tenant_known=false");
}

#[test]
fn a_refused_head_is_counted_and_logged() {
    let mut recorder = recorder(Format::Logfmt);
    let mut parts = Parts::new("/v1/v1/chat/completions", None);
    parts.life.request_id = "r-9".into();
    recorder.complete(&Ended {
        refused: true,
        error_code: Some("head_too_large"),
        ..parts.ended(431)
    });
    let counted: Vec<_> = recorder.requests().collect();
    let values = ["invalid", "", "431", "client"];
    assert_eq!(counted, [(values.map(Into::into), 1)]);
    let line = lines(&mut recorder);
    assert!(
        line.contains(" request_id=r-9 ")
            && line.contains(" method=GET route=invalid path=/v1/v1/chat/completions model=- "),
        "{line}"
    );
    assert!(
        line.contains(" status=431 error_code=head_too_large "),
        "{line}"
    );
}

#[test]
fn the_queue_holds_whole_lines_within_its_bound_and_counts_the_rest() {
    let mut recorder = recorder(Format::Json);
    for _ in 0..1000 {
        recorder.complete(&parts().ended(200));
    }
    let text = lines(&mut recorder);
    let kept = text.lines().count() as u64;
    assert!(text.len() <= QUEUE_BYTES_MAX && text.ends_with("}\n"));
    assert!(recorder.log_dropped() > 0);
    assert_eq!(kept + recorder.log_dropped(), 1000);

    recorder.complete(&parts().ended(200));
    assert_eq!(
        lines(&mut recorder).lines().count(),
        1,
        "room again once taken"
    );
    assert_eq!(lines(&mut recorder), "");
}

#[test]
fn switched_off_it_counts_and_logs_nothing() {
    let mut recorder = recorder(Format::Off);
    recorder.complete(&parts().ended(200));
    assert_eq!(lines(&mut recorder), "");
    assert_eq!(recorder.log_dropped(), 0);
    assert_eq!(recorder.requests().count(), 1);
    recorder.set_format(Format::Logfmt);
    recorder.complete(&parts().ended(200));
    assert_eq!(lines(&mut recorder).lines().count(), 1);
}

fn count(recorder: &Recorder, which: Distribution) -> u64 {
    recorder.histogram(which).0.last().unwrap().1
}

#[test]
fn each_distribution_takes_the_requests_it_is_about() {
    let mut recorder = recorder(Format::Off);
    let mut parts = parts();
    recorder.complete(&parts.ended(200));
    recorder.complete(&parts.ended(400));
    parts.life.held_ns = 0;
    recorder.complete(&parts.ended(200));
    parts.life.held_ns = 1;
    parts.life.first_byte_ns = 0;
    recorder.complete(&parts.ended(503));
    recorder.complete(&Parts::new("/health", None).ended(200));
    assert_eq!(count(&recorder, Distribution::Request), 4);
    assert_eq!(count(&recorder, Distribution::Ttft), 2);
    assert_eq!(count(&recorder, Distribution::Hold), 3);
    assert_eq!(recorder.quantile(Distribution::Ttft, 0.5), Some(0.5));
    assert_eq!(recorder.requests().map(|series| series.1).sum::<u64>(), 5);
}
