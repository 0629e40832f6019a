//! Requests that ended with an error code.

use super::ended::Ended;
use super::labels::OTHER;

/// Distinct codes at most: the table of errors has fewer.
const CODES_MAX: usize = 128;

/// Requests by error code, in the order in which the codes first came.
#[derive(Debug, Default)]
pub(super) struct Errors(Vec<(Box<str>, u64)>);

impl Errors {
    /// Counts a request, if it ended with a code.
    pub(super) fn add(&mut self, ended: &Ended<'_>) {
        if let Some(code) = ended.error_code {
            self.count(code);
        }
    }

    fn count(&mut self, code: &str) {
        if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| **known == *code) {
            *count += 1;
        } else if self.0.len() < CODES_MAX || code == OTHER {
            self.0.push((code.into(), 1));
        } else {
            self.count(OTHER);
        }
    }

    /// Each code with its count.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(code, count)| (&**code, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_counted_and_bounded() {
        let mut errors = Errors::default();
        for number in 0..200 {
            errors.count(&format!("code_{number}"));
            errors.count("code_0");
        }
        assert_eq!(errors.iter().next(), Some(("code_0", 201)));
        assert_eq!(errors.iter().last(), Some((OTHER, 200 - 128)));
        assert_eq!(errors.iter().map(|(_, count)| count).sum::<u64>(), 400);
    }
}
