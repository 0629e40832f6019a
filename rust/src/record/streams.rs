//! Streams that broke: those that went on at another replica, and those that did not.

use super::ended::Ended;
use super::life::REASONS;

/// Streams by why they were given up at a replica, and by why they ended there.
#[derive(Debug, Default)]
pub(super) struct Streams {
    continued: Vec<(&'static str, u64)>,
    ended: Vec<(&'static str, u64)>,
}

/// Words come from fixed tables, so that there are few.
fn add(counts: &mut Vec<(&'static str, u64)>, word: &'static str) {
    match counts.iter_mut().find(|(known, _)| *known == word) {
        Some((_, count)) => *count += 1,
        None => counts.push((word, 1)),
    }
}

impl Streams {
    /// Counts what became of a request's stream.
    pub(super) fn add(&mut self, ended: &Ended<'_>) {
        let continued = &ended.life.continued;
        for cause in &continued.causes {
            add(&mut self.continued, cause);
        }
        if let Some(reason) = continued.refusal {
            add(&mut self.ended, reason);
        }
    }

    /// Times that a stream went on elsewhere, by why it was given up.
    pub(super) fn continued(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.continued.iter().copied()
    }

    /// Streams that broke and did not go on, by every reason.
    pub(super) fn not_continued(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.iter().map(|reason| {
            let mut counts = self.ended.iter();
            let found = counts.find(|(known, _)| known == reason);
            (*reason, found.map_or(0, |(_, count)| *count))
        })
    }
}
