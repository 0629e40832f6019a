//! Which class is served next.

use crate::engine::config::{ClassRule, Config};
use crate::prompt::class::{CLASSES, Class};

/// Tokens are counted so much finer, so that a weight divides them well.
const FINE: u64 = 1 << 16;

/// What each class has been served, in tokens over its weight.
///
/// Deficit-weighted: of the classes that wait, the one that has had least for its weight is next.
/// A class saves nothing up while nobody of it waits: when it comes back, it starts level with the
/// one that has had least of those that waited. *Source: start-time fair queueing (Goyal, Vin,
/// Cheng, SIGCOMM 1996), with classes for flows and predicted tokens for packet lengths.*
#[derive(Debug, Clone, Default)]
pub(super) struct Served {
    had: [u64; CLASSES],
    /// Of which classes somebody waited when last looked.
    waiting: [bool; CLASSES],
}

impl Served {
    /// The order in which `class` is served: the smaller, the sooner.
    pub(super) fn rank(&self, class: Class, config: &Config) -> u64 {
        match config.class_rule {
            ClassRule::Weighted => self.had[class as usize],
            ClassRule::Strict => class as u64,
        }
    }

    /// A request of `class` that needs so many tokens was started.
    pub(super) fn charge(&mut self, class: Class, tokens: u32, config: &Config) {
        let weight = u64::from(weight(class, config).max(1));
        let had = &mut self.had[class as usize];
        *had = had.saturating_add(u64::from(tokens.max(1)).saturating_mul(FINE) / weight);
        self.settle(self.waiting);
    }

    /// Lets classes of which nobody waits keep no credit from before. Only differences matter: of
    /// those that wait, the one that has had least stands at zero.
    pub(super) fn settle(&mut self, waiting: [bool; CLASSES]) {
        self.waiting = waiting;
        let least = (0..CLASSES)
            .filter(|&class| waiting[class])
            .map(|class| self.had[class])
            .min();
        let Some(least) = least else {
            self.had = [0; CLASSES];
            return;
        };
        for had in &mut self.had {
            *had = had.saturating_sub(least);
        }
    }

    /// What each class has had beyond the one that had least, in tokens over its weight.
    pub(super) fn ahead(&self) -> [u64; CLASSES] {
        self.had.map(|had| had / FINE)
    }
}

/// The share of a class.
pub fn weight(class: Class, config: &Config) -> u32 {
    match class {
        Class::High => config.class_weight_high,
        Class::Normal => config.class_weight_normal,
        Class::Low => config.class_weight_low,
    }
}
