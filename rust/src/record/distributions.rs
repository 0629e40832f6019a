//! Distributions of times, by model and class.

use super::ended::Ended;
use super::exemplars::{Exemplar, Exemplars, Traced};
use super::histogram::{
    GAP_BOUNDS_NS, HOLD_BOUNDS_NS, Histogram, REQUEST_BOUNDS_NS, TTFT_BOUNDS_NS, WORST_BOUNDS_NS,
};
use super::labels::{Key, Labels, OTHER_ID, at};
use super::window::Window;

/// The distributions that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Accept to first body byte, of answers below 400.
    Ttft,
    /// Accept to completion.
    Request,
    /// Time in the hold, of requests that were held.
    Hold,
    /// Mean time between two tokens of a stream.
    InterToken,
    /// Longest time between two events of a stream.
    InterTokenWorst,
}

impl Distribution {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Ttft,
        Self::Request,
        Self::Hold,
        Self::InterToken,
        Self::InterTokenWorst,
    ];

    /// The name that Python uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ttft => "ttft_seconds",
            Self::Request => "request_seconds",
            Self::Hold => "hold_seconds",
            Self::InterToken => "inter_token_seconds",
            Self::InterTokenWorst => "inter_token_worst_seconds",
        }
    }

    /// By that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|which| which.name() == name)
    }

    fn bounds_ns(self) -> &'static [u64] {
        match self {
            Self::Ttft => TTFT_BOUNDS_NS,
            Self::Request => REQUEST_BOUNDS_NS,
            Self::Hold => HOLD_BOUNDS_NS,
            Self::InterToken => GAP_BOUNDS_NS,
            Self::InterTokenWorst => WORST_BOUNDS_NS,
        }
    }

    /// Its page shows exemplars.
    fn has_exemplars(self) -> bool {
        matches!(self, Self::Ttft | Self::Request)
    }

    /// The time of a request that counts, if one does.
    fn of(self, ended: &Ended<'_>) -> Option<u64> {
        match self {
            Self::Ttft => ended.ttft_ns().filter(|_| ended.status < 400),
            Self::Request => Some(ended.total_ns()),
            Self::Hold => Some(ended.life.held_ns).filter(|held_ns| *held_ns > 0),
            Self::InterToken => ended.mean_gap_ns(),
            Self::InterTokenWorst => ended.worst_gap_ns(),
        }
    }
}

/// Models and classes that have a histogram of their own, in each distribution. A page has some 20
/// lines for each.
pub const SERIES_MAX: usize = 96;

/// One model and class.
#[derive(Debug)]
struct OfClass {
    histogram: Histogram,
    exemplars: Exemplars,
    /// Time in the hold, of the requests that count.
    held_ns: u128,
}

/// Histograms since the start, and the recent values of all for quantiles.
#[derive(Debug)]
struct Series {
    bounds_ns: &'static [u64],
    by_class: Vec<Option<OfClass>>,
    len: usize,
    window: Window,
}

impl Series {
    fn new(which: Distribution) -> Self {
        Self {
            bounds_ns: which.bounds_ns(),
            by_class: Vec::new(),
            len: 0,
            window: Window::default(),
        }
    }

    fn observe(&mut self, key: Key, value_ns: u64, held_ns: u64, exemplar: Option<Traced>) {
        let known = self.by_class.get(key.by_class());
        let is_new = known.is_none_or(Option::is_none);
        let key = if is_new && self.len >= SERIES_MAX {
            Key {
                model: OTHER_ID,
                ..key
            }
        } else {
            key
        };
        let of = at(&mut self.by_class, key.by_class());
        if of.is_none() {
            self.len += 1;
        }
        let of = of.get_or_insert_with(|| OfClass {
            histogram: Histogram::new(self.bounds_ns),
            exemplars: Exemplars::default(),
            held_ns: 0,
        });
        of.histogram.observe(value_ns);
        of.held_ns += u128::from(held_ns);
        if let Some(traced) = exemplar {
            of.exemplars.keep(&of.histogram, value_ns, traced);
        }
        self.window.push(value_ns);
    }

    /// What each model and class has, with their names.
    fn of_classes<'a>(
        &'a self,
        labels: &'a Labels,
    ) -> impl Iterator<Item = ([&'a str; 2], &'a OfClass)> {
        let series = self.by_class.iter().enumerate();
        series.filter_map(|(number, of)| Some((labels.of_class(number).into(), of.as_ref()?)))
    }
}

/// Cumulative buckets `(upper bound in seconds, count)`, and the sum in seconds.
pub type Cumulative = (Vec<(f64, u64)>, f64);

/// All distributions.
#[derive(Debug)]
pub(super) struct Distributions([Series; Distribution::ALL.len()]);

impl Distributions {
    pub(super) fn new() -> Self {
        Self(Distribution::ALL.map(Series::new))
    }

    /// A request for inference ended.
    pub(super) fn add(&mut self, key: Key, ended: &Ended<'_>, exemplar: Option<Traced>) {
        for which in Distribution::ALL {
            if let Some(value_ns) = which.of(ended) {
                let exemplar = exemplar.filter(|_| which.has_exemplars());
                self.0[which as usize].observe(key, value_ns, ended.life.held_ns, exemplar);
            }
        }
    }

    /// Model, class and histogram of each series that has values.
    pub(super) fn histograms<'a>(
        &'a self,
        which: Distribution,
        labels: &'a Labels,
    ) -> impl Iterator<Item = ([&'a str; 2], Cumulative)> {
        let series = self.0[which as usize].of_classes(labels);
        series.map(|(values, of)| (values, of.histogram.cumulative()))
    }

    /// Model, class and exemplar of each bucket that has one.
    pub(super) fn exemplars<'a>(
        &'a self,
        which: Distribution,
        labels: &'a Labels,
    ) -> impl Iterator<Item = ([&'a str; 2], Exemplar)> {
        let series = self.0[which as usize].of_classes(labels);
        series.flat_map(|(values, of)| of.exemplars.iter().map(move |found| (values, found)))
    }

    /// Model, class and time in the hold in seconds, of the requests that have a time to first byte.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
    pub(super) fn ttft_held<'a>(
        &'a self,
        labels: &'a Labels,
    ) -> impl Iterator<Item = ([&'a str; 2], f64)> {
        let series = self.0[Distribution::Ttft as usize].of_classes(labels);
        series.map(|(values, of)| (values, of.held_ns as f64 / 1e9))
    }

    /// All series of one together.
    pub(super) fn histogram(&self, which: Distribution) -> Cumulative {
        let series = &self.0[which as usize];
        let mut all = Histogram::new(series.bounds_ns);
        for of in series.by_class.iter().flatten() {
            all.add(&of.histogram);
        }
        all.cumulative()
    }

    /// The `q`-quantile of the recent values, in seconds.
    pub(super) fn quantile(&self, which: Distribution, q: f64) -> Option<f64> {
        self.0[which as usize].window.quantile_s(q)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ended::tests::Parts;
    use super::*;
    use crate::prompt::class::Class;

    fn observe(of: &mut Distributions, labels: &mut Labels, model: &str, class: Class) {
        let mut parts = Parts::new("/v1/chat/completions", Some(model));
        parts.life.attempts = 1;
        parts.life.class = class;
        parts.life.first_byte_ns = 5_000_000;
        let ended = parts.ended(200);
        of.add(labels.key(&ended), &ended, None);
    }

    fn shown(of: &Distributions, labels: &Labels, which: Distribution) -> Vec<(String, u64)> {
        let all = of.histograms(which, labels);
        all.map(|(values, (buckets, _))| (values.join(" "), buckets.last().unwrap().1))
            .collect()
    }

    #[test]
    fn each_model_and_class_that_occurred_has_a_histogram() {
        let (mut of, mut labels) = (Distributions::new(), Labels::new(1));
        observe(&mut of, &mut labels, "a", Class::High);
        observe(&mut of, &mut labels, "a", Class::Low);
        observe(&mut of, &mut labels, "a", Class::Low);
        observe(&mut of, &mut labels, "b", Class::Normal);
        let expected = [("other normal", 1), ("a high", 1), ("a low", 2)];
        let expected = expected.map(|(text, count)| (text.to_owned(), count));
        assert_eq!(shown(&of, &labels, Distribution::Ttft), expected);
        assert_eq!(shown(&of, &labels, Distribution::Hold), []);
        assert_eq!(of.histogram(Distribution::Request).0.last().unwrap().1, 4);
    }

    #[test]
    fn the_number_of_series_is_bounded_and_nothing_is_lost() {
        let (mut of, mut labels) = (Distributions::new(), Labels::new(10_000));
        for number in 0..500 {
            for class in Class::ALL {
                observe(&mut of, &mut labels, &number.to_string(), class);
            }
        }
        let series = shown(&of, &labels, Distribution::Ttft);
        assert!(series.len() <= SERIES_MAX + Class::ALL.len());
        assert_eq!(series.iter().map(|(_, count)| count).sum::<u64>(), 1_500);
    }

    #[test]
    fn of_the_hold_counts_beside_the_first_byte_what_led_to_one() {
        let (mut of, mut labels) = (Distributions::new(), Labels::new(1));
        let mut parts = Parts::new("/v1/chat/completions", Some("m"));
        parts.life.attempts = 1;
        parts.life.held_ns = 2_000_000_000;
        parts.life.first_byte_ns = 2_500_000_000;
        let answered = parts.ended(200);
        of.add(labels.key(&answered), &answered, None);
        parts.life.first_byte_ns = 0;
        let expired = parts.ended(503);
        of.add(labels.key(&expired), &expired, None);
        let held: Vec<_> = of.ttft_held(&labels).collect();
        assert_eq!(held, [(["m", "normal"], 2.0)]);
        assert!((of.histogram(Distribution::Ttft).1 - 2.5).abs() < 1e-9);
        assert!((of.histogram(Distribution::Hold).1 - 4.0).abs() < 1e-9);
    }

    #[test]
    fn exported_requests_are_exemplars_of_first_bytes_and_ends_alone() {
        let (mut of, mut labels) = (Distributions::new(), Labels::new(1));
        let mut parts = Parts::new("/v1/chat/completions", Some("m"));
        parts.life.held_ns = 1;
        parts.life.first_byte_ns = 5_000_000;
        let ended = parts.ended(200);
        let traced = Traced {
            trace_id: 7,
            unix_ns: 9,
        };
        for exemplar in [Some(traced), None] {
            of.add(labels.key(&ended), &ended, exemplar);
        }
        let kept = |which| of.exemplars(which, &labels).collect::<Vec<_>>();
        let [(labels_of, exemplar)] = kept(Distribution::Ttft)[..] else {
            panic!("expected one exemplar");
        };
        assert_eq!(labels_of, ["other", "normal"]);
        assert_eq!((exemplar.value_ns, exemplar.traced), (5_000_000, traced));
        assert_eq!(kept(Distribution::Request).len(), 1);
        assert_eq!(kept(Distribution::Hold), []);
    }

    #[test]
    fn a_distribution_is_found_by_the_name_of_its_metric() {
        for which in Distribution::ALL {
            assert_eq!(Distribution::by_name(which.name()), Some(which));
        }
        assert_eq!(Distribution::by_name("seconds"), None);
    }
}
