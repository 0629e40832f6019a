//! Time stamps of the log: RFC 3339 in UTC with microseconds.

use super::line::six_digits;

/// Length of `2026-01-02T03:04:05.678901Z`.
pub const STAMP_LEN: usize = 27;

const SECOND_NS: i64 = 1_000_000_000;
const DAY_S: i64 = 86_400;
/// 9999-12-31T23:59:59Z, the last second that four digits of year can name (RFC 3339 section 1).
const UNIX_S_MAX: i64 = 253_402_300_799;

/// Turns monotonic times into text; keeps the text of the current second.
#[derive(Debug)]
pub struct Stamp {
    unix_offset_ns: i64,
    second: i64,
    text: [u8; STAMP_LEN],
}

impl Stamp {
    /// `unix_offset_ns`: wall clock minus monotonic clock.
    #[must_use]
    pub fn new(unix_offset_ns: i64) -> Self {
        let mut stamp = Self {
            unix_offset_ns,
            second: 0,
            text: *b"1970-01-01T00:00:00.000000Z",
        };
        stamp.set_second(0);
        stamp
    }

    /// The text of a monotonic time. Times outside 1970 to 9999 show the nearest end.
    pub fn format(&mut self, monotonic_ns: u64) -> [u8; STAMP_LEN] {
        let monotonic_ns = i64::try_from(monotonic_ns).unwrap_or(i64::MAX);
        let unix_ns = self.unix_offset_ns.saturating_add(monotonic_ns).max(0);
        let second = unix_ns / SECOND_NS;
        if second != self.second {
            self.set_second(second);
        }
        let micros = u32::try_from(unix_ns % SECOND_NS / 1000).unwrap_or(0);
        self.text[20..26].copy_from_slice(&six_digits(micros));
        self.text
    }

    fn set_second(&mut self, second: i64) {
        self.second = second;
        let second = second.clamp(0, UNIX_S_MAX);
        let (year, month, day) = civil(second / DAY_S);
        let in_day = second % DAY_S;
        self.put(0, year / 100);
        self.put(2, year % 100);
        self.put(5, month);
        self.put(8, day);
        self.put(11, in_day / 3600);
        self.put(14, in_day / 60 % 60);
        self.put(17, in_day % 60);
    }

    /// Writes two digits at `at`.
    fn put(&mut self, at: usize, value: i64) {
        let value = u8::try_from(value).unwrap_or(0);
        self.text[at] = b'0' + value / 10;
        self.text[at + 1] = b'0' + value % 10;
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Year, month and day of a day counted from 1970-01-01. Counts up year by year: it runs once a
/// second, and this way it is plainly right.
fn civil(mut days: i64) -> (i64, i64, i64) {
    let mut year = 1970;
    loop {
        let year_days = if is_leap(year) { 366 } else { 365 };
        if days < year_days {
            break;
        }
        days -= year_days;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for month_days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < month_days {
            break;
        }
        days -= month_days;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(unix_ns: i64) -> String {
        let mut stamp = Stamp::new(unix_ns);
        String::from_utf8(stamp.format(0).to_vec()).unwrap()
    }

    #[test]
    fn known_moments_have_their_known_text() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(text(951_782_399_999_999_999), "2000-02-28T23:59:59.999999Z");
        assert_eq!(text(951_782_400_000_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(
            text(1_234_567_890_123_456_789),
            "2009-02-13T23:31:30.123456Z"
        );
        assert_eq!(
            text(4_107_542_400_000_000_000),
            "2100-03-01T00:00:00.000000Z"
        );
    }

    #[test]
    fn a_time_before_1970_shows_1970() {
        assert_eq!(text(-5), "1970-01-01T00:00:00.000000Z");
    }

    proptest! {
        #[test]
        fn text_order_is_time_order(a in 0..i64::MAX, b in 0..i64::MAX) {
            prop_assert_eq!((a / 1000).cmp(&(b / 1000)), text(a).cmp(&text(b)));
        }

        #[test]
        fn the_kept_second_does_not_show(times in prop::collection::vec(0..3_000_000_000u64, 1..20)) {
            let offset = 1_767_225_599_000_000_000;
            let mut kept = Stamp::new(offset);
            for time in times {
                prop_assert_eq!(kept.format(time), Stamp::new(offset).format(time));
            }
        }
    }
}
