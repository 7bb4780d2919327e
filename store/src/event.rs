//! Events as callers see them: what is stored, what comes back, and the id that orders them.

use crate::day::Day;
use crate::json::Json;
use base::{CameraId, DeviceId, FrameDetections, FrameId, Generation, MediaTime, ModelId};
use base::{Size, Stages, UtcNanos};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// One result to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// The camera.
    pub camera: CameraId,
    /// The model.
    pub model: ModelId,
    /// Version of the model.
    pub model_version: String,
    /// The device that executed it.
    pub device: DeviceId,
    /// When the frame was captured: the event's timestamp.
    pub capture_utc: UtcNanos,
    /// Generation of the ring.
    pub generation: Generation,
    /// The frame.
    pub frame_id: FrameId,
    /// The frame's place on the camera's media timeline.
    pub media: MediaTime,
    /// Size of the frame in pixels.
    pub frame: Size,
    /// What was found.
    pub detections: FrameDetections,
    /// The age of the result, taken apart. They add up to the age.
    pub stages: Stages,
    /// Whatever else the caller wants to keep with it, any JSON value.
    pub metadata: Option<Json>,
}

/// One stored result. Never changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Id, unique on this node; holds the timestamp.
    pub id: EventId,
    /// When it was committed.
    pub created_at: UtcNanos,
    /// What was stored.
    pub content: NewEvent,
}

impl Event {
    /// When the frame was captured.
    pub fn timestamp(&self) -> UtcNanos {
        self.content.capture_utc
    }

    /// Best score, `None` without detections.
    pub fn confidence(&self) -> Option<f32> {
        self.content.detections.detections.iter().map(|d| d.score).reduce(f32::max)
    }

    /// From capture to the scheduler having the result.
    pub fn age(&self) -> Duration {
        self.content.stages.age()
    }
}

/// Id of an event: a UUID of version 7 (RFC 9562) whose time is the event's timestamp to the
/// nanosecond, so that the order of ids is the order of (timestamp, arrival) and an id names its
/// day. Bits, from the top:
///
/// ```text
/// 48  milliseconds since 1970
///  4  version, 7
/// 12  nanoseconds within the millisecond, upper 12 of 20 bits
///  2  variant, binary 10
///  8  nanoseconds within the millisecond, lower 8 bits
/// 22  counter of the writer, rises with every event, wraps
/// 32  drawn at random when the writer is opened
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(u128);

const NANOS_PER_MILLI: u64 = 1_000_000;
const FIXED: u128 = (7 << 76) | (0b10 << 62);
const FIXED_MASK: u128 = (0xf << 76) | (0b11 << 62);
/// Bits below the time.
pub(crate) const TAIL_BITS: u32 = 54;
const TAIL_MASK: u128 = (1 << TAIL_BITS) - 1;

impl EventId {
    /// The id of `utc` with the lower 54 bits of `tail`.
    pub(crate) const fn new(utc: UtcNanos, tail: u64) -> EventId {
        let millis = (utc.0 / NANOS_PER_MILLI) as u128;
        let nanos = (utc.0 % NANOS_PER_MILLI) as u128;
        let time = (millis << 80) | ((nanos >> 8) << 64) | ((nanos & 0xff) << TAIL_BITS);
        EventId(time | FIXED | (tail as u128 & TAIL_MASK))
    }

    /// The smallest id of a moment.
    pub(crate) const fn first_of(utc: UtcNanos) -> EventId {
        EventId::new(utc, 0)
    }

    /// The largest id of a moment.
    pub(crate) const fn last_of(utc: UtcNanos) -> EventId {
        EventId::new(utc, u64::MAX)
    }

    /// Takes a number as an id when it could be one of ours: version 7, RFC variant, a time that
    /// exists.
    pub const fn from_u128(number: u128) -> Option<EventId> {
        if number & FIXED_MASK != FIXED {
            return None;
        }
        let nanos = Self::nanos_part(number);
        let millis = number >> 80;
        let fits = millis * (NANOS_PER_MILLI as u128) + nanos <= u64::MAX as u128;
        if nanos < NANOS_PER_MILLI as u128 && fits { Some(EventId(number)) } else { None }
    }

    const fn nanos_part(number: u128) -> u128 {
        ((number >> 64) & 0xfff) << 8 | (number >> TAIL_BITS) & 0xff
    }

    /// The id as a number; its order is the order of events.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// The event's timestamp.
    pub const fn timestamp(self) -> UtcNanos {
        UtcNanos((self.0 >> 80) as u64 * NANOS_PER_MILLI + Self::nanos_part(self.0) as u64)
    }

    /// The day whose file holds the event.
    pub const fn day(self) -> Day {
        Day::of(self.timestamp())
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_u128(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not the id of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event id `{text}` is not a UUID of version 7 as events have")]
pub struct EventIdError {
    /// The text, cut to 80 characters.
    pub text: String,
}

impl FromStr for EventId {
    type Err = EventIdError;
    fn from_str(text: &str) -> Result<EventId, EventIdError> {
        uuid::Uuid::try_parse(text)
            .ok()
            .and_then(|uuid| EventId::from_u128(uuid.as_u128()))
            .ok_or_else(|| EventIdError { text: text.chars().take(80).collect() })
    }
}

/// Why one event was not stored while the others of its call were.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Its timestamp is too far ahead of this machine's clock.
    #[error(
        "event of camera {camera} is {} s ahead of this machine's clock, limit is {} s; check the clocks",
        ahead.as_secs(), limit.as_secs()
    )]
    Future {
        /// The camera.
        camera: CameraId,
        /// How far.
        ahead: Duration,
        /// How far is allowed.
        limit: Duration,
    },
    /// Its day has been or would at once be dropped by retention.
    #[error("event of camera {camera} is of {day}, which is past retention; check the clocks")]
    Expired {
        /// The camera.
        camera: CameraId,
        /// Its day.
        day: Day,
    },
    /// It contradicts itself, so that it could not be read back.
    #[error("event of camera {camera} can't be stored: {source}")]
    Invalid {
        /// The camera.
        camera: CameraId,
        /// What is wrong.
        source: crate::record::RecordError,
    },
    /// Its record would be larger than the limit.
    #[error("event of camera {camera} takes {bytes} bytes, limit is {limit}")]
    TooLarge {
        /// The camera.
        camera: CameraId,
        /// Size of the record.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTC: UtcNanos = UtcNanos(1_767_225_599_123_999_999);

    #[test]
    fn ids_are_version_7_and_hold_the_nanosecond() {
        let id = EventId::new(UTC, 0x2a_aaaa_bbbb_cccc);
        assert_eq!(id.timestamp(), UTC);
        assert_eq!(id.day().to_string(), "2025-12-31");
        let uuid = uuid::Uuid::from_u128(id.as_u128());
        assert_eq!(uuid.get_version(), Some(uuid::Version::SortRand));
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        let (seconds, nanos) = uuid.get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanos / 1_000_000), (1_767_225_599, 123));
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn the_order_of_ids_is_the_order_of_time_then_tail() {
        let random = |n: &mut fastrand::Rng| EventId::new(UtcNanos(n.u64(..)), n.u64(..));
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..100_000 {
            let (a, b) = (random(&mut rng), random(&mut rng));
            assert_eq!(a.cmp(&b), a.timestamp().cmp(&b.timestamp()), "{a} {b}");
            let near = EventId::new(UtcNanos(a.timestamp().0.saturating_add(1)), 0);
            assert!(near > a || a.timestamp().0 == u64::MAX);
            assert_eq!(EventId::from_u128(a.as_u128()), Some(a));
        }
        assert!(EventId::new(UTC, 1) < EventId::new(UTC, 2));
        assert!(EventId::first_of(UTC) <= EventId::new(UTC, 0));
        assert!(EventId::last_of(UTC) < EventId::first_of(UtcNanos(UTC.0 + 1)));
        assert_eq!(EventId::last_of(UtcNanos(u64::MAX)).timestamp(), UtcNanos(u64::MAX));
    }

    #[test]
    fn foreign_ids_are_refused() {
        let id = EventId::new(UTC, 1).as_u128();
        let version_4 = id ^ (3 << 76);
        let bad_nanos = id | (0xfff << 64);
        let far = id | (0xffff << 112);
        for number in [0, u128::MAX, version_4, bad_nanos, far, id ^ (1 << 63)] {
            assert_eq!(EventId::from_u128(number), None, "{number:x}");
            let error = uuid::Uuid::from_u128(number).to_string().parse::<EventId>().unwrap_err();
            assert!(error.to_string().contains("version 7"), "{error}");
        }
        assert!("".parse::<EventId>().is_err());
        assert!("x".repeat(10_000).parse::<EventId>().unwrap_err().text.len() == 80);
    }
}
