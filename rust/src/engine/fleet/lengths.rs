//! How long answers are, learned per model and key.

use serde::{Deserialize, Serialize};

use crate::engine::generations::Generations;
use crate::id::ModelId;

/// A key's mean counts against its model's as so many answers.
const PRIOR_ANSWERS: u32 = 4;
/// From this many answers on, each newest one moves a key's mean by as large a part.
const ANSWERS_MAX: u32 = 16;

/// Mean length of a key's answers, in tokens, and how many it rests on.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(in crate::engine) struct Mean {
    tokens: u32,
    answers: u32,
}

/// Answer lengths of at most `len_max` keys; what was not learned from for longest goes.
#[derive(Debug)]
pub(in crate::engine) struct Lengths(Generations<(ModelId, u64), Mean>);

impl Lengths {
    pub(in crate::engine) fn new(len_max: usize) -> Self {
        Self(Generations::new(len_max))
    }

    /// All of them, those learned from longest ago first.
    pub(in crate::engine) fn entries(&self) -> impl Iterator<Item = (ModelId, u64, Mean)> {
        let entries = self.0.entries();
        entries.map(|((model, key), mean)| (model, key, mean))
    }

    /// Takes one over that was learned elsewhere.
    pub(in crate::engine) fn put(&mut self, model: ModelId, key: u64, mean: Mean) {
        let answers = mean.answers.min(ANSWERS_MAX);
        self.0.put((model, key), Mean { answers, ..mean });
    }

    /// An answer was so many tokens long.
    pub(in crate::engine) fn learn(&mut self, model: ModelId, key: u64, tokens: u32) {
        let place = (model, key);
        let mut mean = self.0.get(place).unwrap_or(Mean {
            tokens: 0,
            answers: 0,
        });
        mean.answers = (mean.answers + 1).min(ANSWERS_MAX);
        let (old, new) = (i64::from(mean.tokens), i64::from(tokens));
        let moved = old + (new - old) / i64::from(mean.answers);
        mean.tokens = u32::try_from(moved).unwrap_or(tokens);
        self.0.put(place, mean);
    }

    /// Expected length of the next answer: the key's mean, shrunk towards the model's, or the
    /// model's, or what is assumed.
    pub(in crate::engine) fn predict(
        &self,
        model: Option<ModelId>,
        key: Option<u64>,
        model_mean: Option<u32>,
        assumed: u32,
    ) -> u32 {
        let prior = model_mean.unwrap_or(assumed);
        let place = model.zip(key);
        let mean = place.and_then(|place| self.0.get(place));
        mean.map_or(prior, |mean| {
            let own = u64::from(mean.tokens) * u64::from(mean.answers);
            let rest = u64::from(prior) * u64::from(PRIOR_ANSWERS);
            let tokens = (own + rest) / u64::from(mean.answers + PRIOR_ANSWERS);
            u32::try_from(tokens).unwrap_or(prior)
        })
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ModelId = ModelId(3);

    #[test]
    fn a_key_starts_at_its_models_mean_and_comes_to_its_own() {
        let mut lengths = Lengths::new(100);
        let predict = |lengths: &Lengths| lengths.predict(Some(MODEL), Some(7), Some(200), 256);
        assert_eq!(predict(&lengths), 200);
        assert_eq!(lengths.predict(Some(MODEL), Some(7), None, 256), 256);
        lengths.learn(MODEL, 7, 20);
        assert_eq!(predict(&lengths), (20 + 4 * 200) / 5);
        for _ in 0..40 {
            lengths.learn(MODEL, 7, 20);
        }
        assert_eq!(predict(&lengths), (16 * 20 + 4 * 200) / 20);
        assert_eq!(
            lengths.predict(Some(ModelId(4)), Some(7), Some(200), 256),
            200
        );
        assert_eq!(lengths.predict(Some(MODEL), None, Some(200), 256), 200);
    }

    #[test]
    fn the_extremes_neither_overflow_nor_stick() {
        let mut lengths = Lengths::new(2);
        for tokens in [u32::MAX, 0, u32::MAX, 0, 0, 0] {
            lengths.learn(MODEL, 1, tokens);
        }
        for _ in 0..400 {
            lengths.learn(MODEL, 1, 5);
        }
        assert!(lengths.predict(Some(MODEL), Some(1), Some(5), 256) < 30);
    }

    #[test]
    fn keys_are_bounded_and_those_in_use_stay() {
        let mut lengths = Lengths::new(100);
        for key in 0..10_000 {
            lengths.learn(MODEL, key, 50);
            lengths.learn(MODEL, u64::MAX, 10);
            assert!(lengths.len() <= 100);
        }
        assert!(lengths.predict(Some(MODEL), Some(u64::MAX), Some(500), 256) < 150);
    }
}
