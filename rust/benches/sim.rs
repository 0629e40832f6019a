//! How fast the simulator is: `cargo bench --bench sim` (`make bench-sim`).
//!
//! Virtual time is ten minutes each, the load the paper's for `ChatBot Arena`: twenty users a
//! replica in closed loop, prompts of about 1,500 tokens that begin alike, answers of about 340,
//! one to three turns.
#![expect(clippy::print_stdout, reason = "its figures are what it is for")]
#![expect(clippy::disallowed_types, reason = "it measures real time")]

use std::error::Error;
use std::time::Instant;

use serde_json::{Value, json};
use skylb_core::engine::config::Config;
use skylb_core::rng::Rng;
use skylb_core::sim::Simulator;
use skylb_core::sim::scenario::Scenario;

const DURATION_S: f64 = 600.0;
const USERS_PER_REPLICA: u32 = 20;
const SESSIONS_PER_USER: u64 = 8;

/// The requests of so many users in each of the regions.
fn chat(regions: &[&str], users: u32) -> Value {
    let names = [
        "id", "t", "after", "think", "region", "user", "session", "in", "out", "block", "runs",
    ];
    let mut columns: Vec<Vec<Value>> = vec![Vec::new(); names.len()];
    let mut rng = Rng::new(5);
    let mut id = 0_u64;
    let sessions = u64::from(users) * SESSIONS_PER_USER * regions.len() as u64;
    for (session, region) in (0..sessions).zip(regions.iter().cycle()) {
        let mut draw = |below: usize| rng.below(below) as u64;
        let (own, turns) = (1_000 + session * 1_000, 1 + draw(3));
        let user = session / regions.len() as u64 / SESSIONS_PER_USER;
        let mut input = 100 + draw(2_000);
        for turn in 0..turns {
            let output = 40 + draw(600);
            let row = json!([
                id,
                0.0,
                (turn > 0).then(|| id - 1),
                1.0,
                region,
                user,
                session,
                input,
                output,
                64,
                [[1, 1], [own, input / 64 + 1]],
            ]);
            for (column, value) in columns.iter_mut().zip(row.as_array().into_iter().flatten()) {
                column.push(value.clone());
            }
            id += 1;
            input += output + 100;
        }
    }
    let columns = columns.into_iter().map(Value::Array);
    names.map(str::to_owned).into_iter().zip(columns).collect()
}

/// `l4-8b` replicas and their users, evenly over the regions.
fn paper(regions: &[&str], replicas: u32) -> Value {
    let profile = json!({
        "block_size": 16, "kv_tokens": 25_000, "max_model_len": 16_384, "max_num_seqs": 256,
        "max_num_batched_tokens": 2048, "max_num_queued_reqs": null,
        "step_base_ps": 50_000_000_000_u64, "prefill_token_ps": 488_281_250,
        "decode_seq_ps": 200_000_000, "context_token_ps": 440_000,
    });
    let region =
        |name: &&str| json!({"name": name, "replicas": [{"count": replicas, "profile": profile}]});
    let users = replicas * USERS_PER_REPLICA;
    let rtt_ms =
        |row: usize| (0..regions.len()).map(move |column| if row == column { 0.5 } else { 120.0 });
    json!({
        "seed": 1, "duration_s": DURATION_S, "engine": null,
        "regions": regions.iter().map(region).collect::<Vec<_>>(),
        "network": {"rtt_ms": (0..regions.len()).map(|row| rtt_ms(row).collect::<Vec<_>>()).collect::<Vec<_>>()},
        "clients": {"mode": "closed", "repeat": true,
            "users": regions.iter().map(|name| ((*name).to_owned(), json!(users))).collect::<Value>()},
    })
}

/// Most memory that the process has had, in MiB.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

fn measure(regions: &[&str], replicas: u32) -> Result<(), Box<dyn Error>> {
    let scenario = paper(regions, replicas).to_string();
    let requests = chat(regions, replicas * USERS_PER_REPLICA).to_string();
    let scenario = Scenario::from_json(scenario.as_bytes())?;
    let start = Instant::now();
    let mut run = Simulator::with_config(scenario, requests.as_bytes(), Config::sample())?;
    run.advance(DURATION_S)?;
    let took_s = start.elapsed().as_secs_f64();
    let report = run.report();
    println!(
        "{:>5} replicas: {DURATION_S} s in {took_s:.2} s, {} requests, {} events, {} MiB at most",
        report.replicas.len(),
        report.total.completed,
        report.events,
        peak_mib().map_or_else(|| "?".to_owned(), |mib| mib.to_string()),
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    measure(&["us", "eu", "asia"], 4)?;
    measure(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"], 100)?;
    measure(&["us"], 1_000)
}
