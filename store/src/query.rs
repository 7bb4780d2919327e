//! What can be asked of the events, and the pages that come back.

use crate::event::{Event, EventId};
use base::{CameraId, ModelId, UtcNanos};
use std::fmt;
use std::str::FromStr;

/// Most events of one page (spec P5.3.1).
pub const LIMIT_MAX: u32 = 1000;
/// Largest offset; further back there are cursors (interfaces).
pub const OFFSET_MAX: u32 = 10_000;
/// Totals are exact up to here (interfaces).
pub const TOTAL_MAX: u64 = 10_000;

/// Which events. Fields that are `None` do not restrict.
#[derive(Debug, Clone, PartialEq)]
pub struct EventQuery {
    /// Only of this camera.
    pub camera: Option<CameraId>,
    /// Only of this model.
    pub model: Option<ModelId>,
    /// Not before, inclusive.
    pub start: Option<UtcNanos>,
    /// Not after, inclusive.
    pub end: Option<UtcNanos>,
    /// Only with at least one detection of this class. Classes are numbered per model.
    pub class_id: Option<u16>,
    /// Most events of the page, 1 to [`LIMIT_MAX`].
    pub limit: u32,
    /// Where the page begins.
    pub page: Page,
}

impl Default for EventQuery {
    fn default() -> Self {
        EventQuery {
            camera: None,
            model: None,
            start: None,
            end: None,
            class_id: None,
            limit: 100,
            page: Page::First,
        }
    }
}

/// Where a page begins. The order is (timestamp, id) descending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// At the newest event.
    First,
    /// After the last event of an earlier page: stable while events are inserted.
    After(Cursor),
    /// After this many events, at most [`OFFSET_MAX`]. Shifts when events are inserted.
    Offset(u32),
}

/// A query is out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The limit.
    #[error("limit is {0}, it must be 1 to {LIMIT_MAX}")]
    Limit(u32),
    /// The offset.
    #[error("offset is {0}, it must be at most {OFFSET_MAX}; go further back with next_cursor")]
    Offset(u32),
}

impl EventQuery {
    /// Checks limit and offset.
    ///
    /// # Errors
    /// [`QueryError`] names the bound.
    pub fn validate(&self) -> Result<(), QueryError> {
        if !(1..=LIMIT_MAX).contains(&self.limit) {
            return Err(QueryError::Limit(self.limit));
        }
        match self.page {
            Page::Offset(offset) if offset > OFFSET_MAX => Err(QueryError::Offset(offset)),
            _ => Ok(()),
        }
    }
}

/// Events of one page, newest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventPage {
    /// The events.
    pub events: Vec<Event>,
    /// Where the next page begins; `None` = there is none. A page may be short of its limit and
    /// still have a next one, when the filters match so rarely that looking took long.
    pub next: Option<Cursor>,
    /// Events that the filters match, whatever the page; `None` = more than [`TOTAL_MAX`], or too
    /// long to count.
    pub total: Option<u64>,
    /// Records within the page that could not be decoded and were left out; `vas check` tells more.
    pub unreadable: u32,
}

/// A place between two events. Its text is opaque, valid across restarts, and may be used with
/// other filters than those it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor(EventId);

impl Cursor {
    /// The place right after an event.
    pub const fn after(id: EventId) -> Cursor {
        Cursor(id)
    }

    /// The event it comes after, in the order of lists: older ones follow.
    pub const fn event(self) -> EventId {
        self.0
    }
}

/// First letter of a cursor's text: its form.
const FORM: char = 'a';

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORM}{:032x}", self.0.as_u128())
    }
}

/// A text is not a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cursor `{text}` is not one that a list gave; begin again without a cursor")]
pub struct CursorError {
    /// The text, cut to 80 characters.
    pub text: String,
}

impl FromStr for Cursor {
    type Err = CursorError;
    fn from_str(text: &str) -> Result<Cursor, CursorError> {
        let digits = text
            .strip_prefix(FORM)
            .filter(|d| d.len() == 32 && d.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        digits
            .and_then(|d| u128::from_str_radix(d, 16).ok())
            .and_then(EventId::from_u128)
            .map(Cursor)
            .ok_or_else(|| CursorError { text: text.chars().take(80).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_refuse_what_is_foreign() {
        let cursor = Cursor::after(EventId::new(UtcNanos(1_767_225_599_123_456_789), 77));
        let text = cursor.to_string();
        assert_eq!(text.parse(), Ok(cursor));
        let mut bad = vec![String::new(), text.to_uppercase(), text[1..].to_owned()];
        bad.push(format!("{text}0"));
        bad.push(format!("a+{}", &text[2..]));
        bad.push(format!("a{:032x}", 0));
        bad.push("\u{20ac}".repeat(11));
        for text in bad {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn bounds_are_checked() {
        let query = EventQuery::default();
        assert_eq!(query.validate(), Ok(()));
        for limit in [0, 1001, u32::MAX] {
            let query = EventQuery { limit, ..query.clone() };
            assert_eq!(query.validate(), Err(QueryError::Limit(limit)));
        }
        assert!(EventQuery { page: Page::Offset(10_000), ..query.clone() }.validate().is_ok());
        assert!(EventQuery { page: Page::Offset(10_001), ..query }.validate().is_err());
    }
}
