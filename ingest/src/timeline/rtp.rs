//! RTP time of a camera on its media timeline.
//!
//! Media time keeps the camera's spacing of pictures, but follows their arrival: a camera that
//! stamps 25 pictures a second and sends 21, or whose clock is wrong by parts in a million, is
//! re-anchored slowly, by a second-order loop with a small dead band, so that a sound camera keeps
//! its exact spacing. What its clock does apart from that (equal times, times that go back, steps)
//! is an outcome, never an error: such a unit is placed by its arrival, and when the next one goes
//! on from there, the camera's clock was set, and is followed from there.
//!
//! Order of decoding is not order of presentation: a picture that the stream may show before one
//! that was sent earlier is placed between those it was stamped between.

use super::{Timeline, ticks_of_utc};
use base::time::NANOS_PER_SEC;
use base::{Instant, MediaTime, UtcNanos};
use std::collections::VecDeque;
#[cfg(test)]
use std::time::Duration;

const RATE: f64 = MediaTime::RATE as f64;
const SECOND: i64 = MediaTime::RATE as i64;

/// A unit that is stamped this much later than it can be is a step of the camera's clock (chosen:
/// more than any network holds back in a settled stream).
const STEP: i64 = SECOND;
/// A line that is ahead of UTC by more than this stays there: UTC was set back (chosen).
const UTC_SET_BACK: u64 = 10 * MediaTime::RATE;
/// Pictures are shown at most this much earlier than one that was sent before (16 pictures, the
/// most that both standards allow, at 8 a second).
const REORDER: i64 = 2 * SECOND;
/// Pictures in order that are remembered, for those that go between (both standards allow 16).
const REMEMBERED: usize = 17;
/// Bandwidth of the loop, per second (chosen: a camera that sends 21 for 25 is off by 60 ms at
/// most, and 20 ms of jitter move a picture by 2 ms).
const BANDWIDTH: f64 = 1.2;
/// Differences from arrival up to this are jitter, seconds (chosen).
const DEAD_BAND: f64 = 0.015;
/// Differences beyond this say nothing about the camera's rate, and count as this much, seconds.
const RATE_BAND: f64 = 0.5;
/// A camera second lasts at least and at most this long.
const RATES: (f64, f64) = (0.5, 2.0);
/// After a second beyond [`RATE_BAND`] the rate goes to that of the arrivals, by so much per second
/// (chosen: a burst of two seconds moves it less than half of the way).
const RELEARN: f64 = 0.5;
/// The distance of two pictures is shrunk or stretched by this part of it at most to get back in
/// step.
const SLEW: (f64, f64) = (0.25, 0.25);
/// The same after a second beyond [`RATE_BAND`]: enough for the widest of [`RATES`].
const SLEW_FAR: (f64, f64) = (0.6, 1.2);

/// A unit that did not continue the camera's line.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    position: i64,
    media: u64,
    arrival: Instant,
}

/// The line of one session after another.
#[derive(Debug)]
pub struct RtpLine {
    /// Where arrival and media time meet.
    reference: (Instant, u64),
    /// RTP time and media time of the newest pictures in order, the newest last.
    highs: VecDeque<(i64, u64)>,
    /// Arrival of the newest of them.
    high_arrival: Instant,
    /// Largest media time of the session.
    last: u64,
    /// RTP time of the unit before.
    before: Option<i64>,
    /// Pictures before this RTP time lean on what came before the session.
    beginning: Option<i64>,
    /// Media ticks per tick of the camera.
    rate: f64,
    /// Seconds that it has been beyond [`RATE_BAND`].
    far: f64,
    candidate: Option<Candidate>,
    steps: u64,
}

impl Default for RtpLine {
    fn default() -> Self {
        RtpLine {
            reference: (Instant::ZERO, 0),
            highs: VecDeque::new(),
            high_arrival: Instant::ZERO,
            last: 0,
            before: None,
            beginning: None,
            rate: 1.0,
            far: 0.0,
            candidate: None,
            steps: 0,
        }
    }
}

impl RtpLine {
    /// A session begins with a key unit of this RTP time (90 kHz, not wrapping), which arrived at
    /// `arrival`, `utc`. Returns its media time.
    pub fn begin(
        &mut self,
        timeline: &mut Timeline,
        position: i64,
        arrival: Instant,
        utc: UtcNanos,
    ) -> MediaTime {
        let utc = ticks_of_utc(utc);
        let media = timeline.last().map_or(utc, |last| utc.max(last.0.saturating_add(1)));
        let reference = if media - utc > UTC_SET_BACK { media } else { utc };
        self.reference = (arrival, reference);
        (self.rate, self.far) = (1.0, 0.0);
        self.highs.clear();
        self.candidate = None;
        self.high(position, media, arrival);
        self.last = media;
        self.before = Some(position);
        self.beginning = Some(position);
        timeline.note(MediaTime(media));
        MediaTime(media)
    }

    /// Media time of the next unit in order of decoding. `reorders`: it may be shown before one
    /// that was sent earlier. `None` for a picture that leads the session's first key frame: it
    /// leans on what was never sent.
    ///
    /// Call [`RtpLine::begin`] first.
    pub fn place(
        &mut self,
        timeline: &mut Timeline,
        position: i64,
        reorders: bool,
        arrival: Instant,
    ) -> Option<MediaTime> {
        let before = self.before.replace(position);
        let (high, _) = *self.highs.back()?;
        let media = if position > high {
            match self.advance(position, arrival) {
                Some(media) => media,
                None => self.stray(position, arrival),
            }
        } else if reorders && before != Some(position) && high.saturating_sub(position) <= REORDER {
            match self.between(position) {
                Some(media) => media,
                None if self.leads(position) => return None,
                None => self.stray(position, arrival),
            }
        } else {
            self.stray(position, arrival)
        };
        self.last = self.last.max(media);
        timeline.note(MediaTime(media));
        Some(MediaTime(media))
    }

    /// Times that the camera's clock was set.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    fn leads(&self, position: i64) -> bool {
        // As long as no unit was forgotten, the first one is the beginning.
        self.highs.len() < REMEMBERED && self.beginning.is_some_and(|begin| position < begin)
    }

    fn high(&mut self, position: i64, media: u64, arrival: Instant) {
        if self.highs.len() == REMEMBERED {
            self.highs.pop_front();
        }
        self.highs.push_back((position, media));
        self.high_arrival = arrival;
    }

    /// Media time of now, had every picture arrived at once.
    fn arrival_ticks(&self, arrival: Instant) -> i64 {
        let (at, ticks) = self.reference;
        signed(ticks).saturating_add(ticks_between(at, arrival))
    }

    /// A unit whose time is later than all before. `None` when it can't be.
    fn advance(&mut self, position: i64, arrival: Instant) -> Option<u64> {
        let (high, high_media) = *self.highs.back()?;
        let ahead = position.saturating_sub(high);
        let passed = ticks_between(self.high_arrival, arrival);
        let predicted =
            signed(high_media).saturating_add((ahead as f64 * self.rate).round() as i64);
        let arrived = self.arrival_ticks(arrival);
        if ahead.saturating_sub(passed) > STEP && predicted.saturating_sub(arrived) > STEP {
            return None;
        }
        self.candidate = None;
        let late = (arrived.saturating_sub(predicted)) as f64 / RATE;
        let stuck = self.far > 1.0;
        let counted = if stuck { f64::MAX } else { RATE_BAND };
        let beyond = late.signum() * (late.abs() - DEAD_BAND).clamp(0.0, counted);
        // Of pictures that come in a burst only the first says something.
        let elapsed = ahead.min(passed).max(0) as f64 / RATE;
        let (shrink, stretch) = if stuck { SLEW_FAR } else { SLEW };
        let distance = ahead as f64 / RATE;
        let shift = (beyond * (2.0 * BANDWIDTH * elapsed).min(0.5))
            .clamp(-shrink * distance, stretch * distance);
        if late.abs() < RATE_BAND {
            let gain = (BANDWIDTH * BANDWIDTH * elapsed).min(0.25);
            self.rate = (self.rate + beyond * gain).clamp(RATES.0, RATES.1);
            self.far = 0.0;
        } else {
            self.far += elapsed;
            if stuck {
                // Out of step for so long, the rate itself is wrong: that of the arrivals leads back.
                let seen = (passed as f64 / ahead as f64).clamp(RATES.0, RATES.1);
                self.rate += (seen - self.rate) * (RELEARN * elapsed).min(0.25);
            }
        }
        let placed = predicted.saturating_add((shift * RATE).round() as i64);
        let media = unsigned(placed).max(self.last.saturating_add(1));
        self.high(position, media, arrival);
        Some(media)
    }

    /// Between the pictures that it was stamped between.
    fn between(&self, position: i64) -> Option<u64> {
        let at = self.highs.iter().position(|(p, _)| *p >= position)?;
        let (next, next_media) = self.highs[at];
        let (before, before_media) = *self.highs.get(at.checked_sub(1)?)?;
        if next == position {
            return None;
        }
        let part = (position - before) as f64 / (next - before) as f64;
        Some(before_media + (part * (next_media - before_media) as f64).round() as u64)
    }

    /// A unit that does not fit: placed by its arrival. When it fits to the stray one before, the
    /// clock was set.
    fn stray(&mut self, position: i64, arrival: Instant) -> u64 {
        if let Some(candidate) = self.candidate.take() {
            let ahead = position.saturating_sub(candidate.position);
            let passed = ticks_between(candidate.arrival, arrival);
            if ahead > 0 && ahead.saturating_sub(passed) <= STEP {
                self.steps += 1;
                self.highs.clear();
                self.beginning = None;
                self.high(candidate.position, candidate.media, candidate.arrival);
                if let Some(media) = self.advance(position, arrival) {
                    return media;
                }
            }
        }
        let (_, high_media) = self.highs.back().copied().unwrap_or((position, self.last));
        let passed = unsigned(ticks_between(self.high_arrival, arrival));
        let media = high_media.saturating_add(passed).max(self.last.saturating_add(1));
        self.candidate = Some(Candidate { position, media, arrival });
        media
    }
}

fn ticks_between(from: Instant, to: Instant) -> i64 {
    let ticks = |from: Instant, to: Instant| {
        let nanos = u128::from(to.0.saturating_sub(from.0));
        i64::try_from(nanos * u128::from(MediaTime::RATE) / u128::from(NANOS_PER_SEC))
            .unwrap_or(i64::MAX)
    };
    if to >= from { ticks(from, to) } else { -ticks(to, from) }
}

fn signed(ticks: u64) -> i64 {
    i64::try_from(ticks).unwrap_or(i64::MAX)
}

fn unsigned(ticks: i64) -> u64 {
    u64::try_from(ticks).unwrap_or(0)
}

/// How far a media time is from the arrival of its unit, for those who measure it.
#[cfg(test)]
fn apart(media: MediaTime, utc: UtcNanos) -> Duration {
    let ticks = media.0.abs_diff(ticks_of_utc(utc));
    Duration::from_secs_f64(ticks as f64 / RATE)
}

#[cfg(test)]
mod tests;
