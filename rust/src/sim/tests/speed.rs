//! How fast it is: `cargo test --release sim::tests::speed -- --ignored --nocapture` under a tool
//! that measures time and memory. The figures of the runs themselves are printed as test failures
//! would be: through the assertion that each run did what it should.

use super::*;

/// Chat like that of `chat_arenalike_b64`: prompts of 1,500 tokens, answers of 340, one to four
/// turns, a common beginning.
fn chat(users: u64) -> Value {
    let mut rng = crate::engine::rng::Rng::new(5);
    let mut draw = |below: usize| rng.below(below) as u64;
    let names = [
        "id", "t", "after", "think", "region", "user", "session", "in", "out", "block", "runs",
    ];
    let mut columns: Vec<Vec<Value>> = vec![Vec::new(); names.len()];
    let mut id = 0_u64;
    for session in 0..users * 8 {
        let (own, turns) = (1_000 + session * 1_000, 1 + draw(3));
        let mut input = 100 + draw(2_000);
        for turn in 0..turns {
            let after = (turn > 0).then(|| id - 1);
            let output = 40 + draw(600);
            let runs = json!([[1, 1], [own, input / 64 + 1]]);
            let row = [
                json!(id),
                json!(0.0),
                json!(after),
                json!(1.0),
                json!("us"),
                json!(session / 8),
                json!(session),
                json!(input),
                json!(output),
                json!(64),
                runs,
            ];
            for (column, value) in columns.iter_mut().zip(row) {
                column.push(value);
            }
            id += 1;
            input += output + 100;
        }
    }
    names
        .into_iter()
        .zip(columns.into_iter().map(Value::Array))
        .map(|(k, v)| (k.to_owned(), v))
        .collect()
}

fn paper(replicas: u32) -> Report {
    let users = replicas * 20;
    let long = json!({"duration_s": 600.0, "check": false});
    report(&scenario(replicas, users, &long), &chat(u64::from(users)))
}

#[test]
#[ignore = "a measurement"]
fn twelve_replicas_for_ten_minutes() {
    let report = paper(12);
    assert!(
        report.total.completed > 5_000,
        "{:?}",
        report.total.completed
    );
    assert_eq!(report.total.lost, 0);
}

#[test]
#[ignore = "a measurement"]
fn a_thousand_replicas_for_ten_minutes() {
    let report = paper(1_000);
    assert!(
        report.total.completed > 400_000,
        "{:?}",
        report.total.completed
    );
    assert_eq!(report.total.lost, 0);
}
