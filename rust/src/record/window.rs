//! Quantiles over the most recent values, for the live view.

/// Values looked back on: enough for a P99 with ten values beyond it.
pub const WINDOW_LEN: usize = 1024;

/// A ring of the last [`WINDOW_LEN`] values.
#[derive(Debug, Default)]
pub struct Window {
    values_ns: Vec<u64>,
    next: usize,
}

impl Window {
    /// Adds a value; the oldest leaves when the window is full.
    pub fn push(&mut self, value_ns: u64) {
        if self.values_ns.len() < WINDOW_LEN {
            self.values_ns.push(value_ns);
        } else {
            self.values_ns[self.next] = value_ns;
        }
        self.next = (self.next + 1) % WINDOW_LEN;
    }

    /// The smallest value that at least a share `q` of the window does not exceed (nearest rank),
    /// in seconds; `None` while the window is empty.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ranks are at most WINDOW_LEN, and a display of seconds needs no 64 bits"
    )]
    pub fn quantile_s(&self, q: f64) -> Option<f64> {
        let len = self.values_ns.len();
        if len == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * len as f64).ceil() as usize;
        let mut ordered = self.values_ns.clone();
        let (_, value_ns, _) = ordered.select_nth_unstable(rank.clamp(1, len) - 1);
        Some(*value_ns as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_window_has_no_quantile() {
        assert_eq!(Window::default().quantile_s(0.5), None);
    }

    proptest! {
        #[test]
        fn a_quantile_is_the_nearest_rank_of_the_last_values(
            values in prop::collection::vec(0..1_000_000u64, 1..3000),
            percent in 0..=100usize,
        ) {
            let mut window = Window::default();
            for value in &values {
                window.push(*value * 1_000_000_000);
            }
            let mut recent = values[values.len().saturating_sub(WINDOW_LEN)..].to_vec();
            recent.sort_unstable();
            let expected = recent[(percent * recent.len()).div_ceil(100).max(1) - 1];
            // 0.07 * 100 is a little over 7 in binary: allow the rank beside it.
            let beside = recent[((percent * recent.len()).div_ceil(100).max(1)).min(recent.len() - 1)];
            let q = f64::from(u32::try_from(percent).unwrap()) / 100.0;
            let got = window.quantile_s(q).unwrap();
            prop_assert!(
                [expected, beside].iter().any(|v| (got - f64::from(u32::try_from(*v).unwrap())).abs() < 1e-9),
                "{} is neither {} nor {}", got, expected, beside
            );
        }
    }
}
