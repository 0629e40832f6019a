//! What tenants may use, and how much: what the keys file says of them.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;

use super::bucket::LIMIT_MAX;
use crate::prompt::class::Class;

/// Tenants with terms, at most.
pub const TENANTS_MAX: usize = 10_000;
/// Bytes of a tenant's name, at most.
pub const NAME_BYTES_MAX: usize = 128;
/// Models that one tenant's terms name, at most.
pub const MODELS_MAX: usize = 1_024;
/// The largest weight between waiting tenants.
pub const WEIGHT_MAX: u32 = 1_000;
/// The largest bound on concurrent requests.
pub const CONCURRENT_MAX: u32 = 1_000_000;

/// The terms of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) weight: u32,
    /// The most urgent class that its requests may have.
    pub(super) class: Option<Class>,
    /// In order; `None`: all.
    pub(super) models: Option<Vec<Box<str>>>,
    pub(super) requests: Option<u64>,
    pub(super) tokens: Option<u64>,
    pub(super) concurrent: Option<u32>,
    /// Its streams may go on elsewhere, where streams do.
    pub(super) continues: bool,
}

impl Terms {
    /// Of a tenant that the keys file does not have.
    pub(super) const NONE: Self = Self {
        weight: 1,
        class: None,
        models: None,
        requests: None,
        tokens: None,
        concurrent: None,
        continues: true,
    };

    /// It has a limit of some kind.
    pub(super) fn limited(&self) -> bool {
        self.requests.is_some() || self.tokens.is_some() || self.concurrent.is_some()
    }

    pub(super) fn allows(&self, model: &str) -> bool {
        let models = self.models.as_ref();
        models.is_none_or(|models| {
            models
                .binary_search_by(|known| (**known).cmp(model))
                .is_ok()
        })
    }
}

/// Why terms are refused: the field at fault, and what was expected there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TermsError(String);

impl fmt::Display for TermsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TermsError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tenants: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    weight: u32,
    class: Option<ClassName>,
    models: Option<Vec<String>>,
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
    concurrent: Option<u32>,
    continue_streams: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClassName {
    High,
    Normal,
    Low,
}

/// Reads the terms of all tenants, by name.
pub(super) fn read(json: &[u8]) -> Result<Vec<(String, Terms)>, TermsError> {
    let deserializer = &mut serde_json::Deserializer::from_slice(json);
    let file: File = serde_path_to_error::deserialize(deserializer)
        .map_err(|error| TermsError(format!("{}: {}", error.path(), error.inner())))?;
    let count = file.tenants.len();
    if count > TENANTS_MAX {
        return Err(TermsError(format!(
            "tenants: {count} of them, expected {TENANTS_MAX} at most"
        )));
    }
    let mut names = BTreeSet::new();
    let entries = file.tenants.into_iter().enumerate();
    let entries = entries.map(|(place, entry)| {
        let terms = entry.terms(place)?;
        if !names.insert(entry.name.clone()) {
            return Err(wrong(place, "name", "a name that no other tenant has"));
        }
        Ok((entry.name, terms))
    });
    entries.collect()
}

fn wrong(place: usize, field: &str, expected: &str) -> TermsError {
    TermsError(format!("tenants[{place}].{field}: expected {expected}"))
}

impl Entry {
    fn terms(&self, place: usize) -> Result<Terms, TermsError> {
        let wrong = |field, expected: String| Err(wrong(place, field, &expected));
        if !(1..=NAME_BYTES_MAX).contains(&self.name.len()) {
            return wrong("name", format!("1 to {NAME_BYTES_MAX} bytes"));
        }
        if !(1..=WEIGHT_MAX).contains(&self.weight) {
            return wrong("weight", format!("1 to {WEIGHT_MAX}"));
        }
        for (field, limit) in [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
        ] {
            if limit.is_some_and(|limit| !(1..=LIMIT_MAX).contains(&limit)) {
                return wrong(field, format!("1 to {LIMIT_MAX}"));
            }
        }
        if self
            .concurrent
            .is_some_and(|most| !(1..=CONCURRENT_MAX).contains(&most))
        {
            return wrong("concurrent", format!("1 to {CONCURRENT_MAX}"));
        }
        let models = self.models.as_ref();
        if models.is_some_and(|models| models.len() > MODELS_MAX) {
            return wrong("models", format!("{MODELS_MAX} names at most"));
        }
        Ok(Terms {
            weight: self.weight,
            class: self.class.as_ref().map(|class| match class {
                ClassName::High => Class::High,
                ClassName::Normal => Class::Normal,
                ClassName::Low => Class::Low,
            }),
            models: models.map(|models| {
                let mut models: Vec<Box<str>> =
                    models.iter().map(|name| name.as_str().into()).collect();
                models.sort_unstable();
                models
            }),
            requests: self.requests_per_minute,
            tokens: self.tokens_per_minute,
            concurrent: self.concurrent,
            continues: self.continue_streams != Some(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(rest: &str) -> String {
        format!(
            r#"{{"tenants": [{{"name": "acme", "weight": 1, "class": null, "models": null,
            "requests_per_minute": null, "tokens_per_minute": null, "concurrent": null{rest}}}]}}"#
        )
    }

    fn fault(json: &str) -> String {
        read(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn terms_are_read_as_the_keys_file_has_them() {
        let json = r#"{"tenants": [{"name": "acme", "weight": 2, "class": "low", "models": ["m", "a"],
            "requests_per_minute": 600, "tokens_per_minute": null, "concurrent": 5}]}"#;
        let read = read(json.as_bytes()).unwrap();
        let (name, terms) = &read[0];
        assert_eq!((name.as_str(), terms.weight), ("acme", 2));
        assert_eq!(terms.class, Some(Class::Low));
        assert!(terms.allows("a") && terms.allows("m") && !terms.allows("b"));
        assert_eq!((terms.requests, terms.tokens), (Some(600), None));
        assert_eq!(terms.concurrent, Some(5));
        assert!(terms.continues);
        let ends = super::read(entry(r#", "continue_streams": false"#).as_bytes()).unwrap();
        assert!(!ends[0].1.continues);
        let open = &super::read(entry("").as_bytes()).unwrap()[0].1;
        assert!(open.allows("whatever") && !open.limited() && terms.limited());
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_its_field() {
        let replaced = |from: &str, to: &str| fault(&entry("").replace(from, to));
        assert_eq!(
            replaced(r#""weight": 1"#, r#""weight": 0"#),
            "tenants[0].weight: expected 1 to 1000"
        );
        assert_eq!(
            replaced(r#""tokens_per_minute": null"#, r#""tokens_per_minute": 0"#),
            "tenants[0].tokens_per_minute: expected 1 to 1000000000000"
        );
        assert_eq!(
            replaced(r#""concurrent": null"#, r#""concurrent": 0"#),
            "tenants[0].concurrent: expected 1 to 1000000"
        );
        assert_eq!(
            replaced("acme", ""),
            "tenants[0].name: expected 1 to 128 bytes"
        );
        assert!(
            replaced(r#""class": null"#, r#""class": "first""#).starts_with("tenants[0].class: ")
        );
        assert!(fault(&entry(r#", "burst": 3"#)).starts_with("tenants[0].burst: "));
        let twice = r#"{"name": "a", "weight": 1}"#;
        let twice = format!(r#"{{"tenants": [{twice}, {twice}]}}"#);
        assert_eq!(
            fault(&twice),
            "tenants[1].name: expected a name that no other tenant has"
        );
        let many: Vec<String> = (0..=TENANTS_MAX)
            .map(|n| format!(r#"{{"name": "{n}", "weight": 1}}"#))
            .collect();
        let many = format!(r#"{{"tenants": [{}]}}"#, many.join(","));
        assert_eq!(
            fault(&many),
            "tenants: 10001 of them, expected 10000 at most"
        );
    }
}
