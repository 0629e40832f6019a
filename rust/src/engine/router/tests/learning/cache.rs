//! Predictions against an engine's cache, over long histories.

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

/// An engine's cache: blocks in order of use, evicted from the ends of the paths used longest ago.
#[derive(Default)]
struct Cache {
    capacity: usize,
    used: std::collections::BTreeMap<u64, (u64, usize)>,
    clock: u64,
}

impl Cache {
    /// Blocks found; the whole path is cached afterwards, as far as it fits.
    fn look(&mut self, path: &[u64], answer: &[u64]) -> usize {
        let found = path
            .iter()
            .take_while(|block| self.used.contains_key(block))
            .count();
        self.clock += 1;
        for (depth, block) in path.iter().chain(answer).enumerate() {
            self.used.insert(*block, (self.clock, depth));
        }
        while self.used.len() > self.capacity {
            let oldest = self
                .used
                .iter()
                .min_by_key(|(_, (used, depth))| (*used, usize::MAX - depth));
            let oldest = *oldest.unwrap().0;
            self.used.remove(&oldest);
        }
        found
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With the capacity told, a tree that learns answers predicts an undisturbed replica's cache to
    /// the block; with half of what was told, corrections keep the error small where there would be
    /// a wrong prediction for nearly every turn.
    #[test]
    fn predictions_are_what_the_engine_finds(seed: u64, halved: bool) {
        let mut drive = Drive::new(blind(), 1);
        let capacity = 600;
        drive.observe(0, told(16 * capacity as u64));
        let mut cache = Cache { capacity: if halved { capacity / 2 } else { capacity }, ..Cache::default() };
        let mut rng = Rng::new(seed);
        let mut conversations: Vec<Vec<u64>> = (0..12).map(|n| blocks(seed ^ n, 10)).collect();
        let (mut wrong, mut turns) = (0, 0);
        for turn in 0..400 {
            let picked = rng.below(conversations.len());
            let conversation = &mut conversations[picked];
            if conversation.len() > 150 {
                *conversation = blocks(rng.next_u64(), 10);
            }
            let prompt = conversation.clone();
            let answer: Vec<u64> = (0..=rng.below(12)).map(|_| rng.next_u64()).collect();
            let found = cache.look(&prompt, &answer);
            let (_, matched) = drive.serve(&prompt, Some(found), &answer);
            conversation.extend(&answer);
            conversation.extend((0..rng.below(4)).map(|_| rng.next_u64()));
            if turn >= 100 {
                turns += 1;
                wrong += u32::from(matched.abs_diff(u32::try_from(found).unwrap()) > 1);
            }
        }
        if halved {
            prop_assert!(wrong * 3 < turns, "{wrong} of {turns}");
        } else {
            prop_assert!(wrong * 20 < turns, "{wrong} of {turns}");
        }
    }
}
