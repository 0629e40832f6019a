//! Moments and lengths of time, which the compiler tells apart. All arithmetic saturates: a moment is
//! never before the clock's zero, and no length is negative.

use std::ops::{Add, AddAssign, Div, Mul, Sub, SubAssign};

use serde::{Deserialize, Serialize};

/// A driver's timer may be early by so much: loops count whole milliseconds.
pub(crate) const EARLY: Span = Span::from_ms(1);

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// A moment of the driver's monotonic clock, in nanoseconds since its zero.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Instant(u64);

/// A length of time in nanoseconds.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Span(u64);

impl Instant {
    /// The clock's zero: before everything.
    pub const ZERO: Self = Self(0);
    /// After everything: never.
    pub const MAX: Self = Self(u64::MAX);

    /// So many nanoseconds after the clock's zero.
    #[must_use]
    #[inline]
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the clock's zero.
    #[must_use]
    #[inline]
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// The moment so long before; `None` where the clock had not begun.
    #[must_use]
    #[inline]
    pub fn checked_sub(self, span: Span) -> Option<Self> {
        self.0.checked_sub(span.0).map(Self)
    }

    /// The same moment by a clock that is ahead of this one by so many nanoseconds.
    #[must_use]
    #[inline]
    pub fn shifted(self, ahead_ns: i64) -> Self {
        Self(self.0.saturating_add_signed(ahead_ns))
    }
}

impl Span {
    /// No time.
    pub const ZERO: Self = Self(0);
    /// For ever.
    pub const MAX: Self = Self(u64::MAX);

    /// So many nanoseconds.
    #[must_use]
    #[inline]
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// So many milliseconds.
    #[must_use]
    #[inline]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// So many seconds.
    #[must_use]
    #[inline]
    pub const fn from_secs(s: u64) -> Self {
        Self(s.saturating_mul(SECOND_NS))
    }

    /// So many seconds, rounded to a nanosecond; none where it is negative or no number.
    #[must_use]
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates"
    )]
    pub fn from_secs_f64(s: f64) -> Self {
        Self((s * 1e9).round() as u64)
    }

    /// So many nanoseconds, rounded down; none where it is negative or no number.
    #[must_use]
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates"
    )]
    pub fn from_ns_f64(ns: f64) -> Self {
        Self(ns as u64)
    }

    /// Nanoseconds.
    #[must_use]
    #[inline]
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// Nanoseconds, as a float.
    #[must_use]
    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "exact below 104 days")]
    pub fn ns_f64(self) -> f64 {
        self.0 as f64
    }

    /// Seconds.
    #[must_use]
    #[inline]
    pub fn as_secs_f64(self) -> f64 {
        self.ns_f64() / 1e9
    }

    /// How far apart two lengths are.
    #[must_use]
    #[inline]
    pub fn abs_diff(self, other: Self) -> Self {
        Self(self.0.abs_diff(other.0))
    }

    /// Whether it is no time at all.
    #[must_use]
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl Sub for Instant {
    type Output = Span;

    #[inline]
    fn sub(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

macro_rules! saturating {
    ($($left:ident $trait:ident::$method:ident $assign:ident::$assign_method:ident $saturating:ident),* $(,)?) => {$(
        impl $trait<Span> for $left {
            type Output = Self;

            #[inline]
            fn $method(self, span: Span) -> Self {
                Self(self.0.$saturating(span.0))
            }
        }

        impl $assign<Span> for $left {
            #[inline]
            fn $assign_method(&mut self, span: Span) {
                self.0 = self.0.$saturating(span.0);
            }
        }
    )*};
}

saturating! {
    Instant Add::add AddAssign::add_assign saturating_add,
    Instant Sub::sub SubAssign::sub_assign saturating_sub,
    Span Add::add AddAssign::add_assign saturating_add,
    Span Sub::sub SubAssign::sub_assign saturating_sub,
}

impl Mul<u64> for Span {
    type Output = Self;

    #[inline]
    fn mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

impl Mul<Span> for u64 {
    type Output = Span;

    #[inline]
    fn mul(self, span: Span) -> Span {
        span * self
    }
}

impl Div<u64> for Span {
    type Output = Self;

    #[inline]
    fn div(self, parts: u64) -> Self {
        Self(self.0 / parts)
    }
}

impl Div for Span {
    type Output = u64;

    /// How often `other` fits.
    #[inline]
    fn div(self, other: Self) -> u64 {
        self.0 / other.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let (early, late) = (Instant::from_ns(3), Instant::from_ns(10));
        assert_eq!(late - early, Span::from_ns(7));
        assert_eq!(early - late, Span::ZERO);
        assert_eq!(early - Span::from_ns(4), Instant::ZERO);
        assert_eq!(late + Span::MAX, Instant::MAX);
        assert_eq!(Span::MAX * 2_u64, Span::MAX);
        assert_eq!(3 * Span::from_ms(2) / 4, Span::from_ns(1_500_000));
        assert_eq!(early.checked_sub(Span::from_ns(4)), None);
        assert_eq!(late.shifted(-20), Instant::ZERO);
    }

    #[test]
    fn seconds_are_converted_to_the_nanosecond() {
        assert_eq!(Span::from_secs_f64(0.25), Span::from_ms(250));
        assert_eq!(Span::from_secs_f64(-1.0), Span::ZERO);
        assert_eq!(Span::from_secs_f64(f64::INFINITY), Span::MAX);
        assert!((Span::from_secs(3).as_secs_f64() - 3.0).abs() < 1e-12);
    }
}
