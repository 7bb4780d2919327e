//! UTC as text and back.

use base::UtcNanos;
use jiff::Timestamp;
use jiff::civil::Time;
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

/// RFC 3339 in UTC with all nine digits, so that a printed time used as a filter finds its event
/// again, and texts sort as times do.
pub fn text(utc: UtcNanos) -> String {
    Timestamp::from_nanosecond(i128::from(utc.0))
        .map_or_else(|_| "invalid".into(), |t| format!("{t:.9}"))
}

/// Why a text is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    /// Something else.
    #[error("is not an ISO 8601 time such as 2026-01-31T12:00:00Z")]
    NoTime,
    /// Annotations (RFC 9557) would need a table of zones.
    #[error(
        "has the annotation {0}, which is not read; write the offset from UTC instead, such as 2026-01-31T12:00:00+01:00"
    )]
    Annotated(String),
    /// Nothing was recorded before there were times of this kind.
    #[error("is before 1970")]
    Early,
}

/// Reads ISO 8601. A time without an offset is UTC, a date is its midnight. A `+` of an offset
/// that arrived unescaped in a query, and so as a space, is understood. What is later than can be
/// told (the year 2554) is [`UtcNanos::FAR`]: people write 9999 for a time that never comes.
///
/// # Errors
/// [`MomentError`] says what to write instead.
pub fn parse(text: &str) -> Result<UtcNanos, MomentError> {
    let mut fixed = text.to_owned();
    if let Some(space) = fixed.rfind(' ').filter(|&at| at > "2026-01-01T".len()) {
        fixed.replace_range(space..=space, "+");
    }
    if let Some(at) = fixed.find('[') {
        return Err(MomentError::Annotated(fixed[at..].to_owned()));
    }
    let pieces = Pieces::parse(&fixed).map_err(|_| MomentError::NoTime)?;
    let clock = pieces.time().unwrap_or(Time::midnight());
    let offset = pieces.to_numeric_offset().unwrap_or(Offset::UTC);
    // The calendar ends with the year 9999, and what its last hours are in UTC it can't say.
    if pieces.date().year() > 9998 {
        return Ok(UtcNanos::FAR);
    }
    let moment = offset.to_timestamp(pieces.date().to_datetime(clock));
    let nanos = moment.map_err(|_| MomentError::NoTime)?.as_nanosecond();
    if nanos < 0 {
        return Err(MomentError::Early);
    }
    Ok(u64::try_from(nanos).map_or(UtcNanos::FAR, UtcNanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_times_are_read_back_exactly() {
        let utc = UtcNanos(1_767_225_600_123_456_789);
        assert_eq!(text(utc), "2026-01-01T00:00:00.123456789Z");
        assert_eq!(parse(&text(utc)), Ok(utc));
        assert_eq!(text(UtcNanos(0)), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(parse(&text(UtcNanos::FAR)), Ok(UtcNanos::FAR));
    }

    #[test]
    fn offsets_dates_and_naive_times() {
        let midnight = Ok(UtcNanos(1_767_225_600_000_000_000));
        for text in [
            "2026-01-01T00:00:00Z",
            "2026-01-01T02:00:00+02:00",
            "2026-01-01T02:00:00 02:00",
            "2025-12-31T22:30:00-01:30",
            "2026-01-01T00:00:00",
            "2026-01-01 00:00:00",
            "2026-01-01t00:00:00z",
            "20260101T000000Z",
            "2026-01-01",
            "2026-01-01T00:00",
        ] {
            assert_eq!(parse(text), midnight, "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-01-01T24:00:00",
            "2026-W01-1",
            "1767225600",
            "12:00",
            "2026-01-01T00:00:00Z trailing",
        ] {
            assert_eq!(parse(text), Err(MomentError::NoTime), "{text}");
        }
    }

    #[test]
    fn annotations_are_named_and_not_ignored() {
        for (text, annotation) in [
            ("2026-11-30T00:00:00[Europe/Berlin]", "[Europe/Berlin]"),
            ("2026-11-30T00:00:00+01:00[Europe/Berlin]", "[Europe/Berlin]"),
            ("2026-11-30T00:00:00Z[u-ca=hebrew]", "[u-ca=hebrew]"),
            ("2026-11-30[Europe/Berlin]", "[Europe/Berlin]"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error, MomentError::Annotated(annotation.into()), "{text}");
            assert!(error.to_string().contains(annotation), "{error}");
        }
    }

    #[test]
    fn times_beyond_what_can_be_told_are_never_and_those_before_1970_are_named() {
        for text in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999999-23:59",
            "9999-12-31",
            "9998-01-01T00:00:00Z",
            "2554-07-21T23:34:33.709551616Z",
        ] {
            assert_eq!(parse(text), Ok(UtcNanos::FAR), "{text}");
        }
        let last = "2554-07-21T23:34:33.709551614Z";
        assert_eq!(parse(last), Ok(UtcNanos(u64::MAX - 1)));
        assert_eq!(parse("1970-01-01T00:00:00Z"), Ok(UtcNanos(0)));
        for text in ["1969-12-31T23:59:59.999999999Z", "1970-01-01T00:00:00+00:01", "0001-01-01"] {
            assert_eq!(parse(text), Err(MomentError::Early), "{text}");
        }
    }
}
