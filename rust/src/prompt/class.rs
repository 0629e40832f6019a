//! How urgent a request is.

use serde::{Deserialize, Serialize};

/// The class of a request: which share of the room it competes for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[repr(u8)]
pub enum Class {
    /// Somebody waits for every token.
    High,
    /// All that say nothing.
    #[default]
    Normal,
    /// Nobody waits for it now.
    Low,
}

/// How many classes there are.
pub const CLASSES: usize = 3;

impl Class {
    /// All, the most urgent first.
    pub const ALL: [Self; CLASSES] = [Self::High, Self::Normal, Self::Low];

    /// The word for settings, header, counters and state.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// The class of this name, in any case.
    #[must_use]
    pub fn by_name(name: &[u8]) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|class| name.eq_ignore_ascii_case(class.name().as_bytes()))
    }

    /// The class of vLLM's `priority`: lower runs earlier, 0 is what everybody has.
    #[must_use]
    pub fn of_priority(priority: i64) -> Self {
        match priority {
            ..0 => Self::High,
            0 => Self::Normal,
            1.. => Self::Low,
        }
    }

    /// The class of `OpenAI`'s `service_tier`; tiers that say nothing of urgency are normal.
    #[must_use]
    pub fn of_service_tier(tier: &[u8]) -> Self {
        match tier {
            b"priority" => Self::High,
            b"flex" => Self::Low,
            _ => Self::Normal,
        }
    }

    /// What a front says in its header: a class by name, or a priority as in vLLM. What is neither
    /// is normal: the front is to be mended, not its clients refused.
    #[must_use]
    pub fn of_header(value: &[u8]) -> Self {
        let named = Self::by_name(value);
        let number = || str::from_utf8(value).ok()?.parse().ok();
        named
            .or_else(|| number().map(Self::of_priority))
            .unwrap_or_default()
    }

    /// Whether there is a class above the `highest` that a sender may have.
    #[must_use]
    pub fn is_bound(highest: Option<Self>) -> bool {
        highest.is_some_and(|highest| highest > Self::High)
    }

    /// The class, or the most urgent that its sender may have.
    #[must_use]
    pub fn bounded(self, highest: Option<Self>) -> Self {
        highest.map_or(self, |highest| self.max(highest))
    }

    /// The class `steps` steps more urgent.
    #[must_use]
    pub fn raised(self, steps: u64) -> Self {
        let steps = usize::try_from(steps).unwrap_or(usize::MAX);
        Self::ALL[(self as usize).saturating_sub(steps)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_a_class_or_a_priority() {
        for (value, class) in [
            (&b"high"[..], Class::High),
            (b"NORMAL", Class::Normal),
            (b"low", Class::Low),
            (b"-7", Class::High),
            (b"0", Class::Normal),
            (b"12", Class::Low),
            (b"", Class::Normal),
            (b"urgent", Class::Normal),
            (b"99999999999999999999", Class::Normal),
            (b"\xff", Class::Normal),
        ] {
            assert_eq!(Class::of_header(value), class, "{value:?}");
        }
    }

    #[test]
    fn nothing_is_raised_above_the_highest() {
        assert_eq!(Class::Low.raised(0), Class::Low);
        assert_eq!(Class::Low.raised(1), Class::Normal);
        assert_eq!(Class::Low.raised(u64::MAX), Class::High);
        assert_eq!(Class::High.raised(1), Class::High);
    }
}
