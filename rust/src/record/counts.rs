//! Counters with bounded label sets.

use std::borrow::Cow;

use hashbrown::HashMap;

use super::ended::Ended;
use super::labels::{Key, Labels, OTHER, OTHER_ID};

/// Labels of the requests' counter. A label is a name here, a field of [`Series`] with its value, and
/// that value's text in [`Requests::iter`].
pub const LABELS: [&str; 4] = ["route", "model", "status", "from"];

/// The text of each label, in the order of [`LABELS`].
pub type Values<'a> = [Cow<'a, str>; LABELS.len()];

/// Distinct series at most. 20 routes, 64 models, the dozen statuses that occur and two kinds of senders stay far
/// below.
const SERIES_MAX: usize = 8192;

/// Statuses that are counted as they are: those that engines, their frameworks and this proxy answer.
const STATUSES: [u16; 40] = [
    200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 408,
    409, 410, 411, 413, 414, 415, 417, 418, 421, 422, 424, 425, 429, 431, 499, 500, 501, 502, 503,
    504, 529,
];

/// A status as it is counted: one that nobody knows counts as the first of its class, as clients treat it
/// (RFC 9110, 15), so that a replica that answers with every status there is adds a handful of series.
fn counted(status: u16) -> u16 {
    if STATUSES.contains(&status) {
        return status;
    }
    match status {
        100..=599 => status / 100 * 100,
        _ => 500,
    }
}

#[derive(Debug, PartialEq, Eq, Hash, Clone, Copy)]
struct Series {
    route: &'static str,
    model: u16,
    status: u16,
    from: &'static str,
}

const SERIES_OVERFLOW: Series = Series {
    route: OTHER,
    model: OTHER_ID,
    status: 0,
    from: OTHER,
};

/// Requests by route, model, status and sender.
#[derive(Debug, Default)]
pub struct Requests {
    counts: HashMap<Series, u64>,
}

impl Requests {
    /// Counts one request.
    pub(super) fn add(&mut self, key: Key, ended: &Ended<'_>) {
        self.count(Series {
            route: ended.route(),
            model: key.model,
            status: counted(ended.status),
            from: ended.from(),
        });
    }

    fn count(&mut self, series: Series) {
        if let Some(count) = self.counts.get_mut(&series) {
            *count += 1;
        } else {
            let series = if self.counts.len() < SERIES_MAX {
                series
            } else {
                SERIES_OVERFLOW
            };
            *self.counts.entry(series).or_insert(0) += 1;
        }
    }

    /// Labels and count of every series.
    pub(super) fn iter<'a>(
        &'a self,
        labels: &'a Labels,
    ) -> impl Iterator<Item = (Values<'a>, u64)> {
        self.counts.iter().map(|(series, count)| {
            let model = labels.models.name(series.model);
            let status = series.status.to_string();
            let from = series.from.into();
            (
                [series.route.into(), model.into(), status.into(), from],
                *count,
            )
        })
    }
}

/// What an attempt at a replica came to; `stale` is a reused connection that was already dead, which
/// is no attempt.
pub const OUTCOMES: [&str; 13] = [
    "ok",
    "connect",
    "reset",
    "timeout",
    "full",
    "limited",
    "status",
    "bad_response",
    "absent",
    "unauthorized",
    "client_left",
    "withdrawn",
    "stale",
];

/// The number of an outcome; `None` for an unknown one.
#[must_use]
pub fn number_of(outcome: &str) -> Option<u8> {
    let at = OUTCOMES.iter().position(|known| *known == outcome)?;
    u8::try_from(at).ok()
}

/// Attempts by outcome.
#[derive(Debug, Default)]
pub struct Attempts {
    counts: [u64; OUTCOMES.len()],
}

impl Attempts {
    /// Counts one attempt with the outcome of this number; one beyond [`OUTCOMES`] is not counted.
    pub fn add_number(&mut self, number: u8) {
        if let Some(count) = self.counts.get_mut(usize::from(number)) {
            *count += 1;
        }
    }

    /// `(outcome, count)` of every outcome.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OUTCOMES.into_iter().zip(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ended::tests::Parts;
    use super::*;

    struct Counted {
        labels: Labels,
        requests: Requests,
    }

    impl Counted {
        fn new(models_max: usize) -> Self {
            Self {
                labels: Labels::new(models_max),
                requests: Requests::default(),
            }
        }

        fn add(&mut self, parts: &Parts, status: u16) {
            let ended = parts.ended(status);
            let key = self.labels.key(&ended);
            self.requests.add(key, &ended);
        }

        fn iter(&self) -> impl Iterator<Item = (Values<'_>, u64)> {
            self.requests.iter(&self.labels)
        }
    }

    /// One request more.
    fn add(requests: &mut Counted, path: &str, model: Option<&str>, served: bool, status: u16) {
        let mut parts = Parts::new(path, model);
        parts.life.attempts = u32::from(served);
        requests.add(&parts, status);
    }

    fn sorted(requests: &Counted) -> Vec<(String, u64)> {
        let series = requests.iter();
        let mut all: Vec<_> = series
            .map(|(values, count)| (values.join(" "), count))
            .collect();
        all.sort_unstable();
        all
    }

    fn are(requests: &Counted, expected: &[(&str, u64)]) {
        let expected = expected.iter();
        let expected = expected.map(|(text, count)| ((*text).to_owned(), *count));
        assert_eq!(sorted(requests), expected.collect::<Vec<_>>());
    }

    const CHAT: &str = "/v1/chat/completions";
    const HEALTH: &str = "/health";

    #[test]
    fn requests_are_counted_by_route_model_and_status() {
        let mut requests = Counted::new(8);
        add(&mut requests, CHAT, Some("m"), true, 200);
        add(&mut requests, CHAT, Some("m"), true, 200);
        add(&mut requests, CHAT, Some("m"), true, 503);
        add(&mut requests, HEALTH, None, false, 200);
        are(
            &requests,
            &[
                ("/health  200 client", 1),
                ("/v1/chat/completions m 200 client", 2),
                ("/v1/chat/completions m 503 client", 1),
            ],
        );
    }

    #[test]
    fn a_request_counts_for_the_client_or_the_peer_that_sent_it() {
        let mut requests = Counted::new(8);
        let mut parts = Parts::new(CHAT, Some("m"));
        parts.life.attempts = 1;
        requests.add(&parts, 200);
        for (origin, status) in [("eu", 200), ("eu", 503), ("", 503)] {
            parts.origin = Some(origin);
            requests.add(&parts, status);
        }
        are(
            &requests,
            &[
                ("/v1/chat/completions m 200 client", 1),
                ("/v1/chat/completions m 200 peer", 1),
                ("/v1/chat/completions m 503 peer", 2),
            ],
        );
    }

    #[test]
    fn models_beyond_the_bound_are_counted_as_other() {
        let mut requests = Counted::new(2);
        for name in ["a", "b", "c", "d", "a"] {
            add(&mut requests, CHAT, Some(name), true, 200);
        }
        are(
            &requests,
            &[
                ("/v1/chat/completions a 200 client", 2),
                ("/v1/chat/completions b 200 client", 1),
                ("/v1/chat/completions other 200 client", 2),
            ],
        );
    }

    #[test]
    fn a_model_that_no_replica_serves_takes_no_label() {
        let mut requests = Counted::new(1);
        add(&mut requests, CHAT, Some("nonsense"), false, 404);
        add(&mut requests, CHAT, Some("real"), true, 200);
        add(&mut requests, CHAT, Some("real"), false, 429);
        are(
            &requests,
            &[
                ("/v1/chat/completions other 404 client", 1),
                ("/v1/chat/completions real 200 client", 1),
                ("/v1/chat/completions real 429 client", 1),
            ],
        );
    }

    #[test]
    fn a_model_called_other_shares_its_label() {
        let mut requests = Counted::new(8);
        add(&mut requests, CHAT, Some(OTHER), true, 200);
        add(&mut requests, CHAT, Some("x"), false, 200);
        are(&requests, &[("/v1/chat/completions other 200 client", 2)]);
    }

    #[test]
    fn a_replica_that_answers_with_every_status_adds_a_handful_of_series() {
        let mut requests = Counted::new(64);
        let mut parts = Parts::new(CHAT, Some("m"));
        parts.life.attempts = 1;
        for status in 0..=u16::MAX {
            requests.add(&parts, status);
        }
        assert!(requests.iter().count() <= STATUSES.len() + 5);
        assert_eq!(requests.iter().map(|series| series.1).sum::<u64>(), 65_536);
        let of = |wanted: &str| {
            let counts = requests.iter().filter(|(values, _)| values[2] == wanted);
            counts.map(|series| series.1).sum::<u64>()
        };
        assert_eq!((of("404"), of("499"), of("400")), (1, 1, 100 - 22));
    }

    #[test]
    fn the_number_of_series_is_bounded_and_nothing_is_lost() {
        let mut requests = Counted::new(10_000);
        for name in 0..9_000 {
            add(&mut requests, CHAT, Some(&name.to_string()), true, 200);
        }
        assert_eq!(requests.iter().count(), SERIES_MAX + 1);
        assert_eq!(requests.iter().map(|series| series.1).sum::<u64>(), 9_000);
    }

    #[test]
    fn an_unknown_outcome_is_told_and_not_counted() {
        let mut attempts = Attempts::default();
        attempts.add_number(number_of("full").unwrap());
        attempts.add_number(u8::MAX);
        assert_eq!(number_of("splendid"), None);
        assert_eq!(attempts.iter().map(|(_, count)| count).sum::<u64>(), 1);
    }
}
