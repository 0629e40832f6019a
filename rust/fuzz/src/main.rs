//! Runs one target of `../targets` under libFuzzer.
//!
//! `FUZZ_TARGET` names it; `scale` stands for the growth of the work with the input ([`scale`]). With `FUZZ_SEEDS`, a directory, its seeds are written there first.
#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

mod scale;

use std::sync::OnceLock;

use targets::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

fn start() {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    if name == "scale" {
        std::process::exit(i32::from(!scale::holds()));
    }
    let known = targets::TARGETS.iter().find(|target| target.name == name);
    let Some(target) = known else {
        let names: Vec<_> = targets::TARGETS.iter().map(|target| target.name).collect();
        eprintln!("FUZZ_TARGET: expected one of {}", names.join(", "));
        std::process::exit(2);
    };
    if let Some(directory) = std::env::var_os("FUZZ_SEEDS") {
        let directory = std::path::PathBuf::from(directory);
        std::fs::create_dir_all(&directory).expect("FUZZ_SEEDS: a directory that can be made");
        for (index, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{index}")), seed)
                .expect("FUZZ_SEEDS: room");
        }
    }
    TARGET.get_or_init(|| *target);
}

libfuzzer_sys::fuzz_target!(init: start(), |data: &[u8]| {
    if let Some(target) = TARGET.get() {
        (target.run)(data);
    }
});
