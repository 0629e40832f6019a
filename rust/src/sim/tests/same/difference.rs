//! In what two texts of results differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// By simulation and line: its words, `name=value` each or a lone value.
type Blocks<'a> = Vec<(&'a str, Vec<(&'a str, &'a str)>)>;

fn blocks(text: &str) -> Blocks<'_> {
    let mut blocks: Blocks = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            blocks.push((name, Vec::new()));
        } else if let Some((_, lines)) = blocks.last_mut() {
            lines.push(line.split_once(": ").unwrap_or((line, "")));
        }
    }
    blocks
}

/// The words of a line by their names; words without a name by their place.
fn words(line: &str) -> BTreeMap<String, &str> {
    let words = line.split(' ').filter(|word| !word.is_empty());
    words
        .enumerate()
        .map(|(place, word)| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), value),
            None => (format!("#{place}"), word),
        })
        .collect()
}

/// What changed in one line: `name 1 -> 2`, `-` where there is none.
fn changes(before: &str, after: &str) -> String {
    let (before, after) = (words(before), words(after));
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let word =
        |of: &BTreeMap<String, &str>, name| of.get(name).map_or("-", |word| *word).to_owned();
    let changed = names.into_iter().filter_map(|name| {
        let (old, new) = (word(&before, name), word(&after, name));
        (old != new).then(|| format!("{name} {old} -> {new}"))
    });
    changed.collect::<Vec<_>>().join(", ")
}

/// Every simulation that differs, line by line; empty if none does.
pub(in crate::sim::tests) fn differences(before: &str, after: &str) -> String {
    let (before, after) = (blocks(before), blocks(after));
    let mut text = String::new();
    for (name, old) in &before {
        let Some((_, new)) = after.iter().find(|(other, _)| other == name) else {
            let _ = writeln!(
                text,
                "[{name}]\n  is recorded, but no simulation of this name ran"
            );
            continue;
        };
        if old == new {
            continue;
        }
        let _ = writeln!(text, "[{name}]");
        let of = |lines: &[(&str, &str)], key: &str| {
            let line = lines.iter().find(|(other, _)| *other == key);
            line.map_or(String::new(), |(_, line)| (*line).to_owned())
        };
        let mut keys: Vec<_> = old.iter().chain(new).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let changed = changes(&of(old, key), &of(new, key));
            if !changed.is_empty() {
                let _ = writeln!(text, "  {key}: {changed}");
            }
        }
    }
    for (name, _) in after {
        if before.iter().all(|(other, _)| *other != name) {
            let _ = writeln!(text, "[{name}]\n  is not recorded");
        }
    }
    text
}

#[test]
fn what_differs_is_named_by_simulation_line_and_word() {
    let before = "[a]\nttft_s: p50=1 p99=2\nengine: x=1\n\n[b]\ntotal: 1 2\n";
    assert_eq!(differences(before, before), "");
    let after = "[a]\nttft_s: p50=1 p99=3\nengine: y=1\n\n[c]\ntotal: 1 2\n";
    assert_eq!(
        differences(before, after),
        "[a]\n  engine: x 1 -> -, y - -> 1\n  ttft_s: p99 2 -> 3\n\
         [b]\n  is recorded, but no simulation of this name ran\n[c]\n  is not recorded\n"
    );
}
