//! UTC days: what an event file holds.

use base::UtcNanos;
use std::fmt;

/// Nanoseconds of a UTC day; UTC without leap seconds has no other length.
pub const DAY_NANOS: u64 = 86_400 * base::time::NANOS_PER_SEC;

/// A UTC day, counted from 1970-01-01. Shown as `2026-01-31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

impl Day {
    /// The day of a moment.
    pub const fn of(utc: UtcNanos) -> Day {
        Day((utc.0 / DAY_NANOS) as u32)
    }

    /// Its first nanosecond.
    pub const fn start(self) -> UtcNanos {
        UtcNanos((self.0 as u64).saturating_mul(DAY_NANOS))
    }

    /// Its last nanosecond.
    pub const fn end(self) -> UtcNanos {
        UtcNanos(self.start().0.saturating_add(DAY_NANOS - 1))
    }

    /// Takes `2026-01-31` apart. `None` for anything that [`Day`] would not print.
    pub fn parse(text: &str) -> Option<Day> {
        let b = text.as_bytes();
        if b.len() != 10 || b[4] != b'-' || b[7] != b'-' {
            return None;
        }
        let number = |range: std::ops::Range<usize>| -> Option<i64> {
            let digits = &text.get(range)?;
            digits.bytes().all(|c| c.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let days = days_from_civil(number(0..4)?, number(5..7)?, number(8..10)?);
        let day = Day(u32::try_from(days).ok()?);
        (day.to_string() == text).then_some(day)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(i64::from(self.0));
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar, after H. Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`], same source.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days - era * 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_print_and_parse() {
        assert_eq!(Day(0).to_string(), "1970-01-01");
        assert_eq!(Day::parse("2024-02-29"), Some(Day(19_782)));
        assert_eq!(Day::of(UtcNanos(1_767_225_599_999_999_999)).to_string(), "2025-12-31");
        assert_eq!(Day::of(UtcNanos(1_767_225_600_000_000_000)).to_string(), "2026-01-01");
        for day in 0..213_504 {
            assert_eq!(Day::parse(&Day(day).to_string()), Some(Day(day)));
        }
        assert_eq!(Day::of(Day(20_000).start()), Day(20_000));
        assert_eq!(Day::of(Day(20_000).end()), Day(20_000));
        assert_eq!(Day::of(UtcNanos(Day(20_000).end().0 + 1)), Day(20_001));
    }

    #[test]
    fn what_is_not_a_day_is_refused() {
        for text in ["", "2026-1-01", "2026-02-30", "2026-13-01", "2026-00-10", "1969-12-31"] {
            assert_eq!(Day::parse(text), None, "{text}");
        }
        for text in
            ["+026-01-01", "2026-01-01 ", "2026/01/01", "2026-01-0\u{e9}", "\u{20ac}26-01-01"]
        {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }
}
