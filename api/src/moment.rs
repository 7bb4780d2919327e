//! UTC as text and back.

use base::UtcNanos;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// RFC 3339 in UTC with all nine digits, so that a printed time used as a filter finds its event
/// again, and texts sort as times do.
pub fn text(utc: UtcNanos) -> String {
    Timestamp::from_nanosecond(i128::from(utc.0))
        .map_or_else(|_| "invalid".into(), |t| format!("{t:.9}"))
}

/// Reads ISO 8601. A time without an offset is UTC, a date is its midnight. A `+` of an offset
/// that arrived unescaped in a query, and so as a space, is understood.
pub fn parse(text: &str) -> Option<UtcNanos> {
    let mut fixed = text.to_owned();
    if let Some(space) = fixed.rfind(' ').filter(|&at| at > "2026-01-01T".len()) {
        fixed.replace_range(space..=space, "+");
    }
    let stamp: Timestamp = match fixed.parse() {
        Ok(stamp) => stamp,
        Err(_) => fixed.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp(),
    };
    u64::try_from(stamp.as_nanosecond()).ok().map(UtcNanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_times_are_read_back_exactly() {
        let utc = UtcNanos(1_767_225_600_123_456_789);
        assert_eq!(text(utc), "2026-01-01T00:00:00.123456789Z");
        assert_eq!(parse(&text(utc)), Some(utc));
        assert_eq!(text(UtcNanos(0)), "1970-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn offsets_dates_and_naive_times() {
        let midnight = Some(UtcNanos(1_767_225_600_000_000_000));
        for text in [
            "2026-01-01T00:00:00Z",
            "2026-01-01T02:00:00+02:00",
            "2026-01-01T02:00:00 02:00",
            "2025-12-31T22:30:00-01:30",
            "2026-01-01T00:00:00",
            "2026-01-01 00:00:00",
            "2026-01-01",
        ] {
            assert_eq!(parse(text), midnight, "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "1969-01-01T00:00:00Z", "1767225600"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
