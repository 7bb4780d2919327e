//! When the units of a looped clip are due. Pure: time comes in as a number.
//!
//! Every unit has an absolute due time, computed from the start and the exact position in whole
//! ticks of the clip, so that no error adds up, whatever the loop.

use base::time::NANOS_PER_SEC;
use base::{Instant, MediaTime};
use std::time::Duration;

/// A unit that is later than this is skipped, and all up to the next key frame that is not
/// (chosen: twice the default deadline; nobody wants older frames, and catching up in a burst
/// would cost what others need).
pub const LATE: Duration = Duration::from_secs(1);

/// Shortest mean distance of units in a loop (chosen: 1/240 s), so that a clip of one picture
/// without duration can't spin.
const PERIOD_MIN_NANOS: i128 = NANOS_PER_SEC as i128 / 240;

/// Seconds per tick of a clip, as a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickLength {
    /// Numerator, positive.
    pub numerator: i32,
    /// Denominator, positive.
    pub denominator: i32,
}

impl TickLength {
    /// `ticks` in units of `1 / rate` seconds, rounded to the nearest.
    fn rescale(self, ticks: i128, rate: i128) -> i64 {
        let denominator = i128::from(self.denominator);
        let scaled = ticks * i128::from(self.numerator) * rate;
        let nearest = (2 * scaled + denominator).div_euclid(2 * denominator);
        i64::try_from(nearest).unwrap_or(if nearest < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whole ticks in `duration`, rounded down.
    pub fn ticks_in(self, duration: Duration) -> i64 {
        let nanos = i128::from(base::time::nanos(duration));
        let ticks =
            nanos * i128::from(self.denominator) / (i128::from(self.numerator) * NANOS as i128);
        i64::try_from(ticks).unwrap_or(i64::MAX)
    }

    /// `ticks` as nanoseconds, rounded to the nearest.
    pub fn nanos(self, ticks: i64) -> i64 {
        self.rescale(i128::from(ticks), NANOS as i128)
    }
}

const NANOS: u64 = NANOS_PER_SEC;

/// Unrolls the loops of a clip into one line that starts at 0 where the camera starts.
#[derive(Debug)]
pub struct ClipClock {
    tick: TickLength,
    /// Position in the clip where the camera starts.
    start: i64,
    /// Ticks of all loops before this one.
    before: i128,
    /// Where this loop ends, as far as it was seen.
    end: i64,
    units: u64,
}

impl ClipClock {
    /// A clip whose positions count from 0 at its first picture, entered at `start`.
    pub fn new(tick: TickLength, start: i64) -> ClipClock {
        ClipClock { tick, start, before: 0, end: 0, units: 0 }
    }

    /// Notes a unit of this loop that ends at `end`.
    pub fn saw(&mut self, end: i64) {
        self.end = self.end.max(end);
        self.units += 1;
    }

    /// The clip has ended and begins again. Returns false when it held no unit at all.
    pub fn turn(&mut self) -> bool {
        let shortest =
            i128::from(self.units) * PERIOD_MIN_NANOS * i128::from(self.tick.denominator)
                / (i128::from(self.tick.numerator) * i128::from(NANOS));
        // The first time round only a part was played, but the loop is as long as the whole clip.
        self.before += i128::from(self.end).max(shortest).max(1);
        let any = self.units > 0;
        (self.end, self.units) = (0, 0);
        any
    }

    fn line(&self, position: i64) -> i128 {
        self.before + i128::from(position) - i128::from(self.start)
    }

    /// Time from the start of the camera to `position` of this loop in nanoseconds, negative
    /// before it.
    pub fn nanos(&self, position: i64) -> i64 {
        self.tick.rescale(self.line(position), i128::from(NANOS))
    }

    /// The same in 90 kHz ticks.
    pub fn media_ticks(&self, position: i64) -> i64 {
        self.tick.rescale(self.line(position), i128::from(MediaTime::RATE))
    }
}

/// A clip's times that go further than this from where the unit before ended are a jump, not a gap
/// (chosen: longer than any distance of pictures, shorter than anybody waits).
pub const JUMP: Duration = Duration::from_secs(10);

/// Joins the parts of a clip whose times jump (recordings put together, clocks that were set, time
/// stamps that wrapped), so that each begins where the one before ended.
#[derive(Debug)]
pub struct Joints {
    limit: i64,
    shift: i64,
    end: Option<i64>,
}

impl Joints {
    /// For a clip that is read from its first unit on, or from wherever it was entered.
    pub fn new(tick: TickLength) -> Joints {
        Joints { limit: tick.ticks_in(JUMP), shift: 0, end: None }
    }

    /// How far to shift the next unit, which lasts from `sent` to `end` by its own times, and
    /// whether they jumped before it.
    pub fn join(&mut self, sent: i64, end: i64) -> (i64, bool) {
        let placed = sent.saturating_add(self.shift);
        let before = self.end.unwrap_or(placed);
        let jumped = placed.abs_diff(before) > self.limit.unsigned_abs();
        if jumped {
            self.shift = before.saturating_sub(sent);
        }
        self.end = Some(end.saturating_add(self.shift));
        (self.shift, jumped)
    }

    /// The clip begins again.
    pub fn rewind(&mut self) {
        (self.shift, self.end) = (0, None);
    }
}

/// What to do with a unit now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing before this moment.
    Wait(Instant),
    /// Send it.
    Emit {
        /// Units before it were skipped.
        after_skip: bool,
    },
    /// It is late, or depends on one that was.
    Skip,
}

/// Paces the units of one playing clip.
#[derive(Debug)]
pub struct Pacing {
    origin: Instant,
    skipping: bool,
}

impl Pacing {
    /// The unit at 0 ns is due at `origin`.
    pub fn new(origin: Instant) -> Pacing {
        Pacing { origin, skipping: false }
    }

    /// When the unit at `nanos` is due.
    pub fn due(&self, nanos: i64) -> Instant {
        match u64::try_from(nanos) {
            Ok(ahead) => Instant(self.origin.0.saturating_add(ahead)),
            Err(_) => Instant(self.origin.0.saturating_sub(nanos.unsigned_abs())),
        }
    }

    /// What to do at `now` with the unit at `nanos`. Ask again after a [`Verdict::Wait`].
    pub fn judge(&mut self, nanos: i64, key: bool, now: Instant) -> Verdict {
        let due = self.due(nanos);
        if self.skipping && !key {
            return Verdict::Skip;
        }
        if now - due > LATE {
            self.skipping = true;
            return Verdict::Skip;
        }
        if now < due {
            return Verdict::Wait(due);
        }
        Verdict::Emit { after_skip: std::mem::take(&mut self.skipping) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    /// The time base of the demo's clip.
    const TICK: TickLength = TickLength { numerator: 1, denominator: 10_240 };

    /// Plays a clip of `count` pictures, `period` ticks apart, a key frame every `gop`; the clock
    /// jumps as `stall` says. Returns (unit of the line, due, emitted, after a skip).
    fn play(
        tick: TickLength,
        (count, period, gop): (i64, i64, i64),
        loops: i64,
        stall: impl Fn(i64) -> u64,
    ) -> Vec<(i64, Instant, Instant, bool)> {
        let mut clock = ClipClock::new(tick, 0);
        let mut pacing = Pacing::new(Instant(5 * MS));
        let mut now = Instant(0);
        let mut out = Vec::new();
        for turn in 0..loops {
            for n in 0..count {
                let position = n * period;
                clock.saw(position + period);
                let nanos = clock.nanos(position);
                now = Instant(now.0 + stall(turn * count + n));
                loop {
                    match pacing.judge(nanos, n % gop == 0, now) {
                        Verdict::Wait(until) => now = until,
                        Verdict::Emit { after_skip } => {
                            let due = pacing.due(nanos);
                            out.push((turn * count + n, due, now, after_skip));
                            break;
                        }
                        Verdict::Skip => break,
                    }
                }
            }
            assert!(clock.turn());
        }
        out
    }

    #[test]
    fn every_unit_is_emitted_at_its_exact_time_over_many_loops() {
        let out = play(TICK, (300, 1024, 20), 1000, |_| 0);
        assert_eq!(out.len(), 300_000);
        for (n, due, emitted, after_skip) in out {
            assert_eq!(due, Instant(5 * MS + n as u64 * 100 * MS));
            assert!(emitted == due && !after_skip);
        }
        // 30000/1001 fps in ticks of 1/90000: an error per loop would show after a thousand.
        let odd = TickLength { numerator: 1, denominator: 90_000 };
        let (last, _, emitted, _) = play(odd, (299, 3003, 50), 1000, |_| 0).pop().unwrap();
        let exact = u128::from(last as u64) * 1001 * 1_000_000_000 / 30_000;
        assert!(u128::from(emitted.0 - 5 * MS).abs_diff(exact) <= 1);
    }

    #[test]
    fn a_short_stall_is_made_up_for_without_loss() {
        let stalled = |n| if n == 45 { 950 * MS } else { 0 };
        let out = play(TICK, (300, 1024, 20), 1, stalled);
        assert_eq!(out.len(), 300);
        assert!(out.iter().all(|(_, _, _, after_skip)| !after_skip));
        assert_eq!(out[299].2, out[299].1, "on time again at the end");
        assert!(out[45].2 > out[45].1);
    }

    #[test]
    fn a_long_stall_skips_up_to_the_next_key_frame_that_is_not_late() {
        let out = play(TICK, (300, 1024, 20), 1, |n| if n == 45 { 5_000 * MS } else { 0 });
        let units: Vec<i64> = out.iter().map(|u| u.0).collect();
        let expected: Vec<i64> = (0..45).chain(100..300).collect();
        assert_eq!(units, expected);
        assert_eq!(out.iter().filter(|u| u.3).map(|u| u.0).collect::<Vec<_>>(), [100]);
        assert!(out[45].2 >= out[45].1 && out[45].2 - out[45].1 <= LATE);
        assert!(out[60..].iter().all(|u| u.1 == u.2));
    }

    #[test]
    fn a_camera_that_starts_inside_the_clip_is_out_of_phase_by_its_offset() {
        let offset = TICK.ticks_in(Duration::from_millis(15_050));
        let mut clock = ClipClock::new(TICK, offset);
        // The key frame before, decoded at once.
        assert!(clock.nanos(150 * 1024 - 10 * 1024) < 0);
        let first = clock.nanos(151 * 1024);
        assert!((first - 50 * MS as i64).abs() < 100_000, "half a period after the start: {first}");
        assert_eq!(clock.media_ticks(offset), 0);
        (150..300).for_each(|n| clock.saw((n + 1) * 1024));
        assert!(clock.turn());
        // One period from the last picture of the clip to the first.
        let wrapped = clock.nanos(0) - (first + 148 * 100 * MS as i64);
        assert_eq!(wrapped, 100 * MS as i64);
    }

    #[test]
    fn times_that_jump_are_joined_and_gaps_stay_gaps() {
        let period = 1024;
        let second = 10_240;
        let mut joints = Joints::new(TICK);
        let mut join = |sent: i64| {
            let (shift, jumped) = joints.join(sent, sent + period);
            (sent + shift, jumped)
        };
        assert_eq!(join(500), (500, false), "wherever it begins");
        assert_eq!(join(500 + period), (500 + period, false));
        // Ten seconds after the end are a gap.
        let gap = 500 + 2 * period + 10 * second;
        assert_eq!(join(gap), (gap, false));
        // A tick more is a jump, and so is a clock that was set back, or one that wrapped.
        let mut end = gap + period;
        for start in [end + 10 * second + 1, 0, i64::MAX / 2, i64::MIN / 2, 7] {
            assert_eq!(join(start), (end, true), "{start}");
            assert_eq!(join(start + period), (end + period, false));
            end += 2 * period;
        }
        joints.rewind();
        assert_eq!(joints.join(9, 10), (0, false));
        assert!(joints.join(i64::MAX, i64::MAX).1 && joints.join(i64::MIN, i64::MIN).1);
    }

    #[test]
    fn a_clip_without_durations_does_not_spin_and_an_empty_one_is_noticed() {
        let mut clock = ClipClock::new(TICK, 0);
        clock.saw(0);
        assert!(clock.turn());
        assert!(clock.nanos(0) >= 4 * MS as i64);
        assert!(!clock.turn());
    }
}
