//! A camera's media timeline: 90 kHz ticks, anchored to UTC, that never break or go back.
//!
//! Pure. Sources have clocks of their own (positions in a clip, RTP time); each time a source
//! begins, its clock is tied to the timeline at one point, and from there both run alike. A camera's
//! clock is not to be trusted as a clip's is: see [`RtpLine`].

mod rtp;

pub use rtp::RtpLine;

use base::time::NANOS_PER_SEC;
use base::{MediaTime, UtcNanos};

/// A point of UTC in 90 kHz ticks.
pub fn ticks_of_utc(utc: UtcNanos) -> u64 {
    let ticks = u128::from(utc.0) * u128::from(MediaTime::RATE) / u128::from(NANOS_PER_SEC);
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// The timeline of one camera.
#[derive(Debug, Default)]
pub struct Timeline {
    last: Option<MediaTime>,
    /// Position of the source and the media time that it was tied to.
    epoch: Option<(i64, u64)>,
}

impl Timeline {
    /// A timeline that goes on after `last`, the newest media time known from before.
    pub fn resume(last: Option<MediaTime>) -> Timeline {
        Timeline { last, epoch: None }
    }

    /// A source begins: its `position` (90 kHz, of its own clock) is `utc`, or the first tick
    /// after the last one if that is later.
    pub fn begin(&mut self, position: i64, utc: UtcNanos) {
        let after_last = self.last.map_or(0, |last| last.0 + 1);
        self.epoch = Some((position, ticks_of_utc(utc).max(after_last)));
    }

    /// The newest media time that was given.
    pub fn last(&self) -> Option<MediaTime> {
        self.last
    }

    /// `media` was given, by somebody else's reckoning.
    pub fn note(&mut self, media: MediaTime) {
        self.last = self.last.max(Some(media));
    }

    /// Media time of a `position` of the source. `None` before its beginning (pictures that lead
    /// the first key frame refer to what was never sent).
    ///
    /// # Panics
    /// Before the first [`Timeline::begin`].
    pub fn stamp(&mut self, position: i64) -> Option<MediaTime> {
        let (start, media) = self.epoch.expect("begin() comes before stamp()");
        let ahead = u64::try_from(position.checked_sub(start)?).ok()?;
        let stamp = MediaTime(media.checked_add(ahead)?);
        self.last = self.last.max(Some(stamp));
        Some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTC: UtcNanos = UtcNanos(1_700_000_000 * NANOS_PER_SEC);

    #[test]
    fn anchored_to_utc_and_counts_with_the_source() {
        let mut timeline = Timeline::default();
        timeline.begin(-45_000, UTC);
        let anchor = 1_700_000_000 * 90_000;
        assert_eq!(timeline.stamp(-45_000), Some(MediaTime(anchor)));
        assert_eq!(timeline.stamp(0), Some(MediaTime(anchor + 45_000)));
        // Decode order is not presentation order.
        assert_eq!(timeline.stamp(-9_000), Some(MediaTime(anchor + 36_000)));
        assert_eq!(timeline.stamp(-45_001), None);
    }

    #[test]
    fn goes_on_after_the_last_tick_when_utc_went_back() {
        let mut timeline = Timeline::default();
        timeline.begin(0, UTC);
        let last = timeline.stamp(900_000).unwrap();
        timeline.begin(500, UTC);
        assert_eq!(timeline.stamp(500), Some(MediaTime(last.0 + 1)));
        // A new process that read the last media time from the ring.
        let mut timeline = Timeline::resume(Some(MediaTime(last.0 + 7)));
        timeline.begin(0, UTC);
        assert_eq!(timeline.stamp(0), Some(MediaTime(last.0 + 8)));
        // UTC is ahead: it is followed.
        timeline.begin(0, UtcNanos(UTC.0 + 3600 * NANOS_PER_SEC));
        assert_eq!(timeline.stamp(0), Some(MediaTime((1_700_000_000 + 3600) * 90_000)));
    }

    #[test]
    fn extreme_positions_do_not_overflow() {
        let mut timeline = Timeline::default();
        timeline.begin(i64::MIN, UtcNanos(u64::MAX));
        assert_eq!(timeline.stamp(i64::MAX), None);
        assert!(timeline.stamp(i64::MIN).is_some());
        timeline.begin(i64::MAX, UTC);
        assert_eq!(timeline.stamp(i64::MIN), None);
    }
}
