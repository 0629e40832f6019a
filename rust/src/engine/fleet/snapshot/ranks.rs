//! Figures that the ranks of one engine tell alike.
//!
//! `SGLang` runs a scheduler per rank. With all of them reporting, the ranks of tensor, pipeline
//! and expert parallelism repeat the figures of their data-parallel rank, up to a step late. With
//! data-parallel attention the schedulers of the ranks `tp_rank` 0 to n-1 belong to different
//! data-parallel ranks (`dp_rank`), each with a queue of its own. So the largest counts within a
//! data-parallel rank, and the sum over those.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::sample::Sample;
use super::value::Value;

/// Series of one page that are told apart at most; with more its figures are unknown.
const GROUPS_MAX: usize = 2_048;
/// Its series are added up, though its name ends as a repeating rank's does.
const DATA_PARALLEL: &[u8] = b"dp_rank";

/// The series of all names read so far, without those that repeat others.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    groups: Vec<(u64, Value)>,
    /// Places in `groups`.
    places: HashMap<u64, usize, FixedState>,
    overflows: bool,
}

impl Ranks {
    /// Takes a series of the name that `key` stands for.
    pub(super) fn take(&mut self, key: u8, line: &Sample, max: f64) {
        let group = (group(line) & !0xff) | u64::from(key);
        let known = self.places.get(&group).copied();
        if let Some((_, value)) = known.and_then(|place| self.groups.get_mut(place)) {
            value.join(line.value(), max, f64::max);
        } else if self.groups.len() < GROUPS_MAX {
            let mut value = Value::Missing;
            value.join(line.value(), max, f64::max);
            self.places.insert(group, self.groups.len());
            self.groups.push((group, value));
        } else {
            self.overflows = true;
        }
    }

    /// The sum of what the name's series say.
    pub(super) fn sum(&self, key: u8, max: f64) -> Value {
        let of = |group: &&(u64, Value)| group.0 & 0xff == u64::from(key);
        let mut sum = Value::Missing;
        for (_, value) in self.groups.iter().filter(of) {
            sum.join(value.ratio(), max, |a, b| a + b);
        }
        if self.overflows { Value::Absurd } else { sum }
    }
}

/// What tells a series from those that do not repeat it: all labels but the ranks, in any order.
fn group(line: &Sample) -> u64 {
    let distinct = line
        .labels()
        .filter(|(name, _)| *name == DATA_PARALLEL || !name.ends_with(b"_rank"));
    distinct.fold(0, |all, (name, value)| {
        let label = xxh3_64(name).rotate_left(17) ^ xxh3_64(value);
        all.wrapping_add(xxh3_64(&label.to_le_bytes()))
    })
}
