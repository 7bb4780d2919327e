//! A camera as the scheduler sees it: its newest frame, and when the next one may come.

use base::{
    Absent, FrameFlags, FrameId, FrameInfo, Generation, Instant, MediaTime, Newest, Size, Stamp,
    UtcNanos,
};
use std::time::Duration;

/// Samples that the filter averages over (two seconds at 15 looks per second, and a clock that is
/// 200 ppm off is followed within 2 us; 8: `faulty` p99 +39 %; 16: within the noise; 64 fails a test).
const MEMORY: u8 = 32;
/// Weight of a new period sample while arrivals are nowhere near their prediction (settles in
/// about ten frames; never or at once: `faulty` p99 +14 %; twice fails a test).
const PERIOD_GAIN: f64 = 1.0 / 8.0;
/// Weight of a new sample of the deviation and of the delay (at once fails the test of
/// random worlds; half, twice: within the noise).
const DEVIATION_GAIN: f64 = 1.0 / 16.0;
/// Mean deviations within which an arrival stays (2.06 of a normal distribution hold 90 % on both
/// sides, 95 % on the late one).
const GUARD_DEVIATIONS: f64 = 2.06;
/// Two stamps further apart say nothing about the period.
const PERIOD_SPAN_MAX_NS: u64 = 60_000_000_000;
/// Looks at a camera without frames: as often as a reader tries to open a ring.
pub(crate) const ABSENT_INTERVAL: Duration = Duration::from_millis(100);
/// A hole in the frames that is no jitter any more (shorter than the 7 % of ten seconds by which
/// granted fps may miss what is wanted before that is called overload; none, twice and any fail tests).
const PAUSE_NS: f64 = 0.5e9;
/// Looks at a camera whose period is not known yet, in the first second after its newest frame.
const UNKNOWN_INTERVAL: Duration = Duration::from_millis(5);
/// How long such a camera is looked at that often.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(1);

/// The next multiple of `interval` after `now`: what has no hurry is looked at together.
pub(crate) fn next_multiple(now: Instant, interval: Duration) -> Instant {
    let interval = base::time::nanos(interval).max(1);
    Instant((now.0 / interval + 1) * interval)
}

/// What was seen of a camera, and what of that can be predicted: all that a look touches, in two
/// cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Camera {
    newest: Stamp,
    /// Whether `newest` is a frame.
    known: bool,
    absent: Option<Absent>,
    /// Estimated frame period in nanoseconds, 0 = unknown.
    period_ns: f64,
    /// When the newest frame would have been published without jitter.
    phase: Instant,
    /// Samples behind the phase and behind the period, at most [`MEMORY`].
    samples: u8,
    period_samples: u8,
    /// Mean distance of arrivals from their prediction, nanoseconds.
    deviation_ns: f64,
    /// Mean time from capture to publication, nanoseconds.
    delay_ns: f64,
    /// The epoch in which `newest` was read.
    read_in: u64,
}

const _: () = assert!(size_of::<Camera>() == 128);

/// Stands for no frame.
const NO_FRAME: Stamp = Stamp {
    generation: Generation(0),
    frame_id: FrameId(0),
    slot: 0,
    slots: 0,
    size: Size { width: 0, height: 0 },
    published: Instant::ZERO,
    info: FrameInfo {
        media: MediaTime(0),
        capture: Instant::ZERO,
        capture_utc: UtcNanos(0),
        decode_start: Instant::ZERO,
        flags: FrameFlags(0),
    },
};

/// The next whole number, for what is not negative: without instructions that not every processor
/// has, `f64::ceil` is a call.
fn whole_up(x: f64) -> f64 {
    let whole = x as u64 as f64;
    if whole < x { whole + 1.0 } else { whole }
}

/// `at`, so many nanoseconds later.
fn later(at: Instant, ns: u64) -> Instant {
    Instant(at.0.saturating_add(ns))
}

impl Camera {
    pub fn new() -> Camera {
        Camera {
            newest: NO_FRAME,
            known: false,
            absent: Some(Absent::NoRing),
            period_ns: 0.0,
            phase: Instant::ZERO,
            samples: 0,
            period_samples: 0,
            deviation_ns: 0.0,
            delay_ns: 0.0,
            read_in: 0,
        }
    }

    /// Why it has no frames, as of the last look.
    pub fn absent(&self) -> Option<Absent> {
        self.absent
    }

    /// Whether it was not read in this epoch yet; from here on it was.
    pub fn begin_look(&mut self, epoch: u64) -> bool {
        std::mem::replace(&mut self.read_in, epoch) != epoch
    }

    /// The newest frame, also while the camera is absent.
    pub fn newest(&self) -> Option<&Stamp> {
        self.known.then_some(&self.newest)
    }

    /// The newest frame, unless the camera is absent.
    pub fn current(&self) -> Option<&Stamp> {
        (self.known && self.absent.is_none()).then_some(&self.newest)
    }

    /// Takes an answer of the frame index in. Returns what changed.
    pub fn read(&mut self, now: Instant, answer: Newest) -> Seen {
        let stamp = match answer {
            Newest::Absent(reason) => {
                self.absent = Some(reason);
                return Seen::Nothing;
            }
            // No writer gets there: the header is damaged, and ids are counted on from here.
            Newest::Frame(stamp) if stamp.frame_id.0 == u64::MAX => {
                self.absent = Some(Absent::Invalid);
                return Seen::Nothing;
            }
            // Not published yet at `now`: it does not exist.
            Newest::Frame(stamp) if stamp.published > now => return Seen::Nothing,
            Newest::Frame(stamp) => stamp,
        };
        let returned = self.absent.take().is_some();
        let Stamp { generation, frame_id, published, .. } = self.newest;
        self.newest = stamp;
        if !std::mem::replace(&mut self.known, true) {
            return Seen::Frame { first: true, resumed: true, returned };
        }
        if (generation, frame_id) == (stamp.generation, stamp.frame_id) {
            let still = Seen::Frame { first: false, resumed: true, returned };
            return if returned { still } else { Seen::Nothing };
        }
        let frames = stamp.frame_id.0.saturating_sub(frame_id.0);
        let missing =
            (stamp.published - published).as_nanos() as f64 - self.period_ns * frames as f64;
        self.learn(frame_id, published, &stamp);
        // Ids that fall back belong to a ring that lost its memory: a new beginning.
        let first = stamp.frame_id <= frame_id;
        let resumed = first || returned || missing > self.pause_ns();
        Seen::Frame { first, resumed, returned }
    }

    /// Whether frames that should have come do not.
    pub fn pauses(&self, now: Instant) -> bool {
        let since = (now - self.newest.published).as_nanos() as f64;
        self.known && self.period_ns > 0.0 && since > self.period_ns + self.pause_ns()
    }

    /// Without frames for longer than this a camera pauses.
    fn pause_ns(&self) -> f64 {
        PAUSE_NS.max(2.0 * self.period_ns)
    }

    /// An alpha-beta filter over the publication times: a growing memory of up to [`MEMORY`]
    /// samples, then a fixed one (Brookner, "Tracking and Kalman Filtering Made Easy", 1998, 1.2.10).
    fn learn(&mut self, id_before: FrameId, published_before: Instant, after: &Stamp) {
        let delay = after.published.0.saturating_sub(after.info.capture.0) as f64;
        if self.delay_ns == 0.0 {
            self.delay_ns = delay;
        }
        self.delay_ns += (delay - self.delay_ns) * DEVIATION_GAIN;
        let frames = after.frame_id.0.saturating_sub(id_before.0);
        let span = after.published.0.saturating_sub(published_before.0);
        if frames == 0 || span == 0 || span > PERIOD_SPAN_MAX_NS {
            self.restart(after.published);
            return;
        }
        let span_ns = span as f64;
        if self.period_ns == 0.0 {
            self.period_ns = span_ns / frames as f64;
            self.restart(after.published);
            return;
        }
        let ahead = self.period_ns * frames as f64;
        let since = after.published.0 as f64 - self.phase.0 as f64;
        let missed = since - ahead;
        if missed.abs() > self.period_ns / 2.0 {
            // A stall is no new rate: a slower camera is learned step by step.
            let sample = (span_ns / frames as f64).min(2.0 * self.period_ns);
            let gain = 1.0 - (1.0 - PERIOD_GAIN).powi(frames.min(64) as i32);
            self.period_ns += (sample - self.period_ns) * gain;
            self.period_samples = (self.period_samples + 1).min(MEMORY);
            self.restart(after.published);
            return;
        }
        if self.samples > 2 {
            self.deviation_ns += (missed.abs() - self.deviation_ns) * DEVIATION_GAIN;
        }
        self.samples = (self.samples + 1).min(MEMORY);
        self.period_samples = (self.period_samples + 1).min(MEMORY);
        let n = f64::from(self.samples + 1);
        let phase_gain = 2.0 * (2.0 * n - 1.0) / (n * (n + 1.0));
        let n = f64::from(self.period_samples + 1);
        let period_gain = 6.0 / (n * (n + 1.0));
        self.phase = later(self.phase, (ahead + phase_gain * missed) as u64);
        self.period_ns += period_gain * missed / frames as f64;
    }

    /// Forgets the phase and, of the period, how sure it was.
    fn restart(&mut self, published: Instant) {
        self.phase = published;
        self.samples = 0;
        self.period_samples = self.period_samples.min(MEMORY / 4);
    }

    /// The first predicted publication at or after `at`, not before that of the newest frame. Needs
    /// a known period.
    pub fn arrival_from(&self, at: Instant) -> Instant {
        let period = self.period_ns.max(1.0);
        let wanted = at.0.saturating_sub(self.phase.0) as f64 / period;
        later(self.phase, (whole_up(wanted) * period) as u64)
    }

    /// The last predicted publication at or before `at`; it may be that of a frame long ago.
    pub fn arrival_until(&self, at: Instant) -> Instant {
        let period = self.period_ns.max(1.0);
        if at >= self.phase {
            let wanted = ((at.0 - self.phase.0) as f64 / period).floor();
            later(self.phase, (wanted * period) as u64)
        } else {
            let before = whole_up((self.phase.0 - at.0) as f64 / period);
            Instant(self.phase.0.saturating_sub((before * period) as u64))
        }
    }

    /// How late an arrival may be against its prediction, 95th percentile, nanoseconds.
    pub fn guard_ns(&self) -> u64 {
        (self.deviation_ns * GUARD_DEVIATIONS) as u64
    }

    /// The first prediction at which a frame that is surely published at or after `gate` is there.
    pub fn arrival_past(&self, gate: Instant) -> Instant {
        self.arrival_from(later(gate, self.guard_ns()))
    }

    /// Whether arrivals are predicted well enough to be steered by.
    pub fn predictable(&self) -> bool {
        self.period_ns > 0.0 && self.samples >= MEMORY / 8 && self.absent.is_none()
    }

    /// Mean time from capture to publication.
    pub fn delay(&self) -> Duration {
        Duration::from_nanos(self.delay_ns as u64)
    }

    /// Estimated period in nanoseconds, 0 = unknown.
    pub fn period_ns(&self) -> f64 {
        self.period_ns
    }

    /// Estimated rate in frames per second, 0 = unknown.
    pub fn fps(&self) -> f64 {
        if self.period_ns > 0.0 { 1e9 / self.period_ns } else { 0.0 }
    }

    /// The first frame that may pass `gate`, as it is predicted. `None` = the camera is absent or its
    /// period is not known.
    pub fn expect(&self, gate: Instant) -> Option<Expected> {
        if self.absent.is_some() || self.period_ns <= 0.0 {
            return None;
        }
        // A frame predicted shortly before the gate may come late enough to pass it: it is awaited
        // too, or it would be noticed a whole period after its publication.
        let doubt = (2.0 * self.deviation_ns + 5e5).min(self.period_ns / 2.0);
        let after_newest = later(self.phase, self.period_ns as u64 / 2);
        let from = Instant(gate.0.saturating_sub(doubt as u64)).max(after_newest);
        let arrival = self.arrival_from(from);
        let earliest = arrival.back(Duration::from_nanos(self.guard_ns())).max(gate);
        Some(Expected { arrival, earliest })
    }

    /// When to look for a frame that is published at or after `gate`, which is `expected`. Where arrivals
    /// are surer than `interval`, at the first one that may pass the gate plus the mean deviation, at most
    /// `slack`, so that one look mostly suffices; else as early as it may come, at multiples of `interval`
    /// that all cameras share. Then every `interval`, more rarely the longer it is overdue.
    pub fn next_look(
        &self,
        now: Instant,
        gate: Instant,
        expected: Option<Expected>,
        slack: Duration,
        interval: Duration,
    ) -> Instant {
        let Some(newest) = self.current() else {
            return next_multiple(now, ABSENT_INTERVAL);
        };
        let Some(Expected { arrival, earliest }) = expected else {
            let fresh = now - newest.published < UNKNOWN_PATIENCE;
            let interval = if fresh { UNKNOWN_INTERVAL } else { ABSENT_INTERVAL };
            return gate.max(now + interval);
        };
        let doubtful = 2.0 * self.deviation_ns > base::time::nanos(interval) as f64;
        let first = if doubtful {
            next_multiple(earliest, interval)
        } else {
            let late = (self.deviation_ns as u64).min(base::time::nanos(slack));
            later(arrival, late).max(gate)
        };
        if first > now {
            return first;
        }
        let overdue = (now - arrival).as_secs_f64() * 1e9 / self.period_ns;
        let every = if overdue < 2.0 {
            interval
        } else if overdue < 20.0 {
            interval * 5
        } else {
            interval * 50
        };
        let every = every.min(ABSENT_INTERVAL);
        if doubtful { next_multiple(now, every) } else { now + every }
    }
}

/// The first frame that may pass a gate, as it is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    /// When it should be published.
    arrival: Instant,
    /// As early as it may be there.
    pub earliest: Instant,
}

/// What a look at a camera brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// No news.
    Nothing,
    /// A frame that was not seen before, or the camera is back.
    Frame {
        /// The first one of this camera or of a ring that starts its ids anew.
        first: bool,
        /// Frames are missing before it: what was granted is measured from here.
        resumed: bool,
        /// The camera had no frames at the last look.
        returned: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(id: u64, published: Instant) -> Stamp {
        Stamp {
            generation: Generation(1),
            frame_id: FrameId(id),
            slot: 0,
            slots: 8,
            size: Size { width: 2, height: 2 },
            published,
            info: FrameInfo {
                media: MediaTime(0),
                capture: published,
                capture_utc: UtcNanos(0),
                decode_start: published,
                flags: FrameFlags::default(),
            },
        }
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn the_period_is_learned_across_skipped_frames() {
        let mut camera = Camera::new();
        let mut seen = Vec::new();
        for id in [0, 1, 5, 6, 20] {
            let at = Instant(1000 * MS + id * 40 * MS);
            seen.push(camera.read(at, Newest::Frame(stamp(id, at))));
        }
        assert_eq!(seen[0], Seen::Frame { first: true, resumed: true, returned: true });
        assert!((camera.fps() - 25.0).abs() < 0.01, "{}", camera.fps());
        let last = camera.newest().unwrap().published;
        let (slack, interval) = (Duration::from_millis(1), Duration::from_millis(1));
        let look = |now, gate| camera.next_look(now, gate, camera.expect(gate), slack, interval);
        // No gate: the very next frame.
        assert_eq!(look(last, Instant::ZERO), last + Duration::from_millis(40));
        // Gate 90 ms ahead: the third frame from now.
        let gate = last + Duration::from_millis(90);
        assert_eq!(look(last, gate), last + Duration::from_millis(120));
        // Gate just after the second frame, which may come late enough to pass it.
        let gate = last + Duration::from_micros(80_200);
        assert_eq!(look(last, gate), gate);
        // Awaited: every millisecond; long overdue: rarely.
        let late = last + Duration::from_millis(41);
        assert_eq!(look(late, Instant::ZERO), late + interval);
        let very_late = last + Duration::from_secs(3);
        assert_eq!(look(very_late, Instant::ZERO), very_late + Duration::from_millis(50));
    }

    #[test]
    fn frames_of_the_future_and_known_frames_are_no_news() {
        let mut camera = Camera::new();
        let at = Instant(MS);
        assert_eq!(camera.read(Instant(0), Newest::Frame(stamp(0, at))), Seen::Nothing);
        assert!(matches!(camera.read(at, Newest::Frame(stamp(0, at))), Seen::Frame { .. }));
        assert_eq!(camera.read(at, Newest::Frame(stamp(0, at))), Seen::Nothing);
        assert_eq!(camera.read(at, Newest::Absent(Absent::Stale)), Seen::Nothing);
        let back = camera.read(at, Newest::Frame(stamp(0, at)));
        assert_eq!(back, Seen::Frame { first: false, resumed: true, returned: true });
    }

    #[test]
    fn the_look_is_as_late_as_the_camera_mostly_is_and_no_later_than_the_slack() {
        let first_look = |jitter: u64| {
            let mut camera = Camera::new();
            for id in 0..200 {
                let at = Instant(1000 * MS + id * 40 * MS + (id % 2) * jitter);
                camera.read(at, Newest::Frame(stamp(id, at)));
            }
            let last = camera.newest().unwrap().published;
            let ms = Duration::from_millis(1);
            camera.next_look(last, Instant::ZERO, camera.expect(Instant::ZERO), ms, ms) - last
        };
        let micros = |jitter| (first_look(jitter).as_micros() as i64 - 40_000).abs();
        assert!(micros(0) < 10, "{}", micros(0));
        // The last frame was one of the late ones: the next one, 39.5 ms later, is mostly there.
        let some = first_look(MS / 2).as_micros();
        assert!((39_700..40_300).contains(&some), "{some}");
        let most = first_look(15 * MS);
        assert!(most <= Duration::from_millis(45), "{most:?}");
    }

    #[test]
    fn a_stall_hardly_moves_the_period_and_a_new_rate_is_learned() {
        let mut camera = Camera::new();
        let mut at = Instant(1000 * MS);
        let mut id = 0;
        let mut step = |camera: &mut Camera, ms: u64| {
            id += 1;
            at += Duration::from_millis(ms);
            camera.read(at, Newest::Frame(stamp(id, at)));
        };
        (0..50).for_each(|_| step(&mut camera, 40));
        step(&mut camera, 2_500);
        assert!(camera.fps() > 20.0, "{}", camera.fps());
        (0..80).for_each(|_| step(&mut camera, 200));
        assert!((camera.fps() - 5.0).abs() < 0.1, "{}", camera.fps());
    }
}
