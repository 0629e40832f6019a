//! Exemplars: for each bucket of a histogram the latest request whose trace is exported.

use super::histogram::Histogram;

/// A request whose spans go to a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// The id of its trace.
    pub trace_id: u128,
    /// Its end, by the wall clock.
    pub unix_ns: u64,
}

/// One request of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    /// The number of the bucket.
    pub bucket: usize,
    /// The value.
    pub value_ns: u64,
    /// The request.
    pub traced: Traced,
}

/// The latest exemplar of each bucket of one histogram. Without any it takes no memory.
#[derive(Debug, Default)]
pub(super) struct Exemplars(Vec<Exemplar>);

impl Exemplars {
    /// A value that `histogram` has counted belongs to an exported request.
    pub(super) fn keep(&mut self, histogram: &Histogram, value_ns: u64, traced: Traced) {
        let exemplar = Exemplar {
            bucket: histogram.bucket(value_ns),
            value_ns,
            traced,
        };
        let known = self.0.iter_mut().find(|of| of.bucket == exemplar.bucket);
        match known {
            Some(known) => *known = exemplar,
            None => self.0.push(exemplar),
        }
    }

    /// In no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Exemplar> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::histogram::TTFT_BOUNDS_NS;
    use super::*;

    #[test]
    fn each_bucket_keeps_its_latest_exemplar() {
        let histogram = Histogram::new(TTFT_BOUNDS_NS);
        let mut exemplars = Exemplars::default();
        for (value_ns, trace_id) in [(900_000, 1), (1_000_000, 2), (1_000_001, 3), (u64::MAX, 4)] {
            let unix_ns = 7;
            exemplars.keep(&histogram, value_ns, Traced { trace_id, unix_ns });
        }
        let kept = exemplars.iter();
        let kept: Vec<_> = kept.map(|of| (of.bucket, of.traced.trace_id)).collect();
        assert_eq!(kept, [(0, 2), (1, 3), (TTFT_BOUNDS_NS.len(), 4)]);
    }
}
