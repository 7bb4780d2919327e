//! Days and segment names: UTC as the names of files.

use base::UtcNanos;
use base::time::NANOS_PER_SEC;
use std::fmt;

const DAY_NANOS: u64 = 86_400 * NANOS_PER_SEC;
const MICRO: u64 = 1000;

/// A day of UTC. Written `20260131`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u32);

impl Day {
    /// The day of a moment.
    pub const fn of(utc: UtcNanos) -> Day {
        // At most 213504.
        Day((utc.0 / DAY_NANOS) as u32)
    }

    /// Its midnight.
    pub const fn start(self) -> UtcNanos {
        UtcNanos(self.0 as u64 * DAY_NANOS)
    }

    /// The midnight that ends it.
    pub const fn end(self) -> UtcNanos {
        UtcNanos((self.0 as u64 + 1).saturating_mul(DAY_NANOS))
    }

    /// The day before; the first has none and is its own.
    #[must_use]
    pub const fn before(self) -> Day {
        Day(self.0.saturating_sub(1))
    }

    /// Year, month, day of the Gregorian calendar (H. Hinnant, chrono-compatible low-level date
    /// algorithms, `civil_from_days`).
    pub const fn civil(self) -> (u32, u32, u32) {
        let days = self.0 + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        (year_of_era + era * 400 + (month <= 2) as u32, month, day)
    }

    /// The day of a date of the Gregorian calendar from 1970 to 2500; `None` when there is no such.
    pub const fn from_civil(year: u32, month: u32, day: u32) -> Option<Day> {
        if year < 1970 || year > 2500 || month < 1 || month > 12 || day < 1 || day > 31 {
            return None;
        }
        let shifted_year = year - (month <= 2) as u32;
        let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
        let shifted = if month > 2 { month - 3 } else { month + 9 };
        let of_year = (153 * shifted + 2) / 5 + day - 1;
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        let found = Day(era * 146_097 + of_era - 719_468);
        // The thirtieth of February is the second of March: not what was asked for.
        let (y, m, d) = found.civil();
        if y == year && m == month && d == day { Some(found) } else { None }
    }

    /// Reads `YYYYMMDD`.
    pub fn parse(text: &str) -> Option<Day> {
        let number = |from: usize, to: usize| digits(text, from, to);
        if text.len() != 8 {
            return None;
        }
        Day::from_civil(number(0, 4)?, number(4, 6)?, number(6, 8)?)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}{month:02}{day:02}")
    }
}

fn digits(text: &str, from: usize, to: usize) -> Option<u32> {
    let part = text.get(from..to)?;
    part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
}

/// The name of a segment: its start in UTC to the microsecond, `20260131T143000.123456Z.mp4`.
/// Names sort as times do and say their day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName(u64);

impl SegmentName {
    /// The name for a segment that starts then; what is below a microsecond is dropped.
    pub const fn at(utc: UtcNanos) -> SegmentName {
        SegmentName(utc.0 / MICRO)
    }

    /// The moment in the name.
    pub const fn utc(self) -> UtcNanos {
        UtcNanos(self.0.saturating_mul(MICRO))
    }

    /// The next name, for when this one is taken.
    #[must_use]
    pub const fn next(self) -> SegmentName {
        SegmentName(self.0 + 1)
    }

    /// The day whose directory holds it.
    pub const fn day(self) -> Day {
        Day::of(self.utc())
    }

    /// Reads a name, with or without `.mp4`.
    pub fn parse(text: &str) -> Option<SegmentName> {
        let text = text.strip_suffix(".mp4").unwrap_or(text);
        let bytes = text.as_bytes();
        if bytes.len() != 23 || bytes[8] != b'T' || bytes[15] != b'.' || bytes[22] != b'Z' {
            return None;
        }
        let day = Day::parse(text.get(..8)?)?;
        let number = |from: usize, to: usize| digits(text, from, to).map(u64::from);
        let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let micros = ((hour * 60 + minute) * 60 + second) * 1_000_000 + number(16, 22)?;
        Some(SegmentName(day.start().0 / MICRO + micros))
    }

    /// The name without `.mp4`.
    pub fn stem(self) -> String {
        let micros = self.0 - self.day().start().0 / MICRO;
        let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        format!("{}T{hour:02}{minute:02}{second:02}.{rest:06}Z", self.day())
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.mp4", self.stem())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (text, days) in
            [("19700101", 0), ("20000229", 11_016), ("20260131", 20_484), ("21000301", 47_541)]
        {
            let day = Day::parse(text).unwrap();
            assert_eq!((day, day.to_string().as_str()), (Day(days), text));
        }
        for day in 0..190_000 {
            assert_eq!(Day::parse(&Day(day).to_string()), Some(Day(day)));
        }
        for text in ["", "20260230", "20261301", "2026013", "202601311", "2026013a", "20260100"] {
            assert_eq!(Day::parse(text), None, "{text}");
        }
        assert_eq!(Day::of(UtcNanos(DAY_NANOS - 1)), Day(0));
        assert_eq!(Day(1).start(), Day(0).end());
    }

    #[test]
    fn names_say_when_a_segment_begins_and_nothing_else_is_a_name() {
        let utc = UtcNanos(Day::parse("20260131").unwrap().start().0 + 52_200_123_456_789);
        let name = SegmentName::at(utc);
        assert_eq!(name.to_string(), "20260131T143000.123456Z.mp4");
        assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        assert_eq!(SegmentName::parse(&name.stem()), Some(name));
        assert_eq!(name.utc().0, utc.0 / 1000 * 1000);
        assert!(name < name.next() && name.to_string() < name.next().to_string());
        for text in [
            "",
            "index",
            "20260131T143000.123456Z.ts",
            "20260131T243000.123456Z.mp4",
            "20260131T143060.123456Z.mp4",
            "20260131T143000.12345\u{e9}.mp4",
            "20260131T143000.+23456Z.mp4",
            "../../../etc/passwd.mp4",
        ] {
            assert_eq!(SegmentName::parse(text), None, "{text}");
        }
    }
}
