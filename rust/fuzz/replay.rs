//! Every fuzz target over its seeds and its stored corpus; `make fuzz` looks for more.

mod targets;

use std::path::{Path, PathBuf};

use targets::TARGETS;

fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("rust/fuzz/corpus")
        .join(target)
}

#[test]
fn every_stored_input_passes_its_target() {
    for target in TARGETS {
        for seed in (target.seeds)() {
            (target.run)(&seed);
        }
        let entries = std::fs::read_dir(directory(target.name)).expect("a corpus");
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        assert!(!paths.is_empty(), "{}: the corpus is empty", target.name);
        for path in paths {
            let input = std::fs::read(&path).expect("an input");
            let passes = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(passes.is_ok(), "{} fails", path.display());
        }
    }
}

#[test]
fn every_target_has_seeds_that_it_reads() {
    for target in TARGETS {
        assert!((target.seeds)().len() > 2, "{}", target.name);
    }
}
