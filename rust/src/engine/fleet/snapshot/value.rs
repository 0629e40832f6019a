//! A figure that several series of one name add up to.

/// Gauges above this are unknown: no engine runs or queues so many requests.
pub(super) const GAUGE_MAX: f64 = 1e9;
/// Counters (tokens since start) above this are unknown: floats are no longer exact there.
pub(super) const COUNTER_MAX: f64 = 9_007_199_254_740_992.0;

/// Sum or maximum over the series of one name.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Value {
    #[default]
    Missing,
    Known(f64),
    Absurd,
}

impl Value {
    pub(super) fn join(&mut self, value: Option<f64>, max: f64, join: impl Fn(f64, f64) -> f64) {
        let value = value.filter(|v| (0.0..=max).contains(v));
        *self = match (*self, value) {
            (Self::Absurd, _) | (_, None) => Self::Absurd,
            (Self::Missing, Some(v)) => Self::Known(v),
            (Self::Known(old), Some(v)) => Self::Known(join(old, v)),
        };
    }

    pub(super) fn add_gauge(&mut self, value: Option<f64>) {
        self.join(value, GAUGE_MAX, |a, b| a + b);
    }

    pub(super) fn add_counter(&mut self, value: Option<f64>) {
        self.join(value, COUNTER_MAX, |a, b| a + b);
    }

    pub(super) fn max_ratio(&mut self, value: Option<f64>) {
        self.join(value, 1.0, f64::max);
    }

    /// Without those that are counted apart.
    pub(super) fn less(self, apart: Option<u32>) -> Self {
        match (self.gauge(), apart) {
            (Some(all), Some(apart)) => Self::Known(f64::from(all.saturating_sub(apart))),
            _ => self,
        }
    }

    /// This name's value, or that of the name it had in older servers.
    pub(super) fn or(self, older: Self) -> Self {
        if self == Self::Missing { older } else { self }
    }

    pub(super) fn ratio(self) -> Option<f64> {
        if let Self::Known(v) = self {
            Some(v)
        } else {
            None
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within 0 and 2^53"
    )]
    pub(super) fn counter(self) -> Option<u64> {
        self.ratio().filter(|v| *v <= COUNTER_MAX).map(|v| v as u64)
    }

    pub(super) fn gauge(self) -> Option<u32> {
        self.ratio().filter(|v| *v <= GAUGE_MAX)?;
        self.counter().and_then(|v| u32::try_from(v).ok())
    }
}

/// A plain decimal number in a label.
pub(super) fn number(text: &[u8]) -> Option<f64> {
    super::sample::float(text).filter(|v| (0.0..=COUNTER_MAX).contains(v))
}

pub(super) fn whole(value: f64) -> Option<u32> {
    Value::Known(value).gauge()
}
