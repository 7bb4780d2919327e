//! A stream agent: one camera as the scheduler sees it, and when its next frame may come.

use crate::SubscriptionKey;
use base::{Absent, CameraId, Instant, Newest, Stamp};
use std::time::Duration;

/// Life of an agent: created with its first subscription, stopped with its last. A logical entity,
/// not a thread. A camera that is wanted again gets a new agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentState {
    /// Known, not started.
    Created,
    /// Frames are looked at.
    Running,
    /// No subscription is left.
    Stopped,
}

/// Weight of a new period sample (chosen: settles in about ten frames, smooths jitter).
const PERIOD_GAIN: f64 = 1.0 / 8.0;
/// Arrivals further ahead say more of the period's error than of their own (chosen).
const PREDICTED_FRAMES_MAX: u64 = 16;
/// Two stamps further apart say nothing about the period.
const PERIOD_SPAN_MAX: Duration = Duration::from_secs(60);
/// Looks at a camera without frames: as often as a reader tries to open a ring.
pub(crate) const ABSENT_INTERVAL: Duration = Duration::from_millis(100);
/// Looks at a camera whose period is not known yet, in the first second after its newest frame.
const UNKNOWN_INTERVAL: Duration = Duration::from_millis(5);
/// How long such a camera is looked at that often.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Camera {
    pub id: CameraId,
    pub state: AgentState,
    /// In the order in which they were added.
    pub subscriptions: Vec<SubscriptionKey>,
    pub newest: Option<Stamp>,
    pub absent: Option<Absent>,
    /// Estimated frame period in nanoseconds, 0 = unknown.
    period_ns: f64,
    /// Mean distance of arrivals from their prediction, nanoseconds.
    deviation_ns: f64,
    /// When to look next; the heap entry with this instant is the valid one.
    pub look_at: Instant,
    /// The poll in which `newest` was read.
    pub read_in: u64,
}

impl Camera {
    pub fn new(id: CameraId) -> Camera {
        Camera {
            id,
            state: AgentState::Created,
            subscriptions: Vec::new(),
            newest: None,
            absent: Some(Absent::NoRing),
            period_ns: 0.0,
            deviation_ns: 0.0,
            look_at: Instant::FAR,
            read_in: 0,
        }
    }

    /// Created to running. Any other start is a mistake of the caller.
    pub fn start(&mut self) {
        assert_eq!(self.state, AgentState::Created, "an agent starts once");
        self.state = AgentState::Running;
    }

    /// Running to stopped. Any other stop is a mistake of the caller.
    pub fn stop(&mut self) {
        assert_eq!(self.state, AgentState::Running, "an agent stops once, after it was started");
        self.state = AgentState::Stopped;
        self.look_at = Instant::FAR;
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
        let before = self.newest.replace(stamp);
        let Some(before) = before else { return Seen::Frame { first: true, returned } };
        let key = |s: &Stamp| (s.generation, s.frame_id);
        if key(&before) == key(&stamp) {
            return if returned { Seen::Frame { first: false, returned } } else { Seen::Nothing };
        }
        self.learn(&before, &stamp);
        // Ids that fall back belong to a ring that lost its memory: a new beginning.
        Seen::Frame { first: stamp.frame_id <= before.frame_id, returned }
    }

    fn learn(&mut self, before: &Stamp, after: &Stamp) {
        let frames = after.frame_id.0.saturating_sub(before.frame_id.0);
        let span = after.published - before.published;
        if frames == 0 || span.is_zero() || span > PERIOD_SPAN_MAX {
            return;
        }
        let sample = base::time::nanos(span) as f64 / frames as f64;
        if self.period_ns > 0.0 && frames <= PREDICTED_FRAMES_MAX {
            let missed = (sample - self.period_ns).abs() * frames as f64;
            self.deviation_ns += (missed - self.deviation_ns) * PERIOD_GAIN;
        }
        // A stall is no new rate: a slower camera is learned step by step.
        let sample = if self.period_ns > 0.0 { sample.min(2.0 * self.period_ns) } else { sample };
        // Several frames at once average their jitter out: they count for more.
        let gain = 1.0 - (1.0 - PERIOD_GAIN).powi(frames.min(64) as i32);
        self.period_ns = if self.period_ns == 0.0 {
            sample
        } else {
            self.period_ns + (sample - self.period_ns) * gain
        };
    }

    /// Estimated period, `None` = unknown.
    pub fn period(&self) -> Option<Duration> {
        (self.period_ns > 0.0).then(|| Duration::from_nanos(self.period_ns as u64))
    }

    /// Estimated rate in frames per second, 0 = unknown.
    pub fn fps(&self) -> f64 {
        if self.period_ns > 0.0 { 1e9 / self.period_ns } else { 0.0 }
    }

    /// When to look for a frame that is published at or after `gate`: the first arrival that may
    /// pass it, plus the mean deviation, at most `slack`, so that one look mostly suffices; every
    /// `interval` once that has passed, more rarely the longer it is overdue.
    pub fn next_look(
        &self,
        now: Instant,
        gate: Instant,
        slack: Duration,
        interval: Duration,
    ) -> Instant {
        if self.absent.is_some() {
            return now + ABSENT_INTERVAL;
        }
        let Some(newest) = self.newest else { return now + ABSENT_INTERVAL };
        if self.period_ns <= 0.0 {
            let fresh = now - newest.published < UNKNOWN_PATIENCE;
            let interval = if fresh { UNKNOWN_INTERVAL } else { ABSENT_INTERVAL };
            return gate.max(now + interval);
        }
        // A frame predicted up to half a period before the gate may come late enough to pass it: it
        // is awaited too, or it would be noticed a whole period after its publication.
        let wanted = gate.0.saturating_sub(newest.published.0) as f64;
        let periods = (wanted / self.period_ns - 0.5).ceil().max(1.0);
        let arrival = newest.published + Duration::from_nanos((periods * self.period_ns) as u64);
        let late = Duration::from_nanos(self.deviation_ns as u64).min(slack);
        let first = (arrival + late).max(gate);
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
        now + every.min(ABSENT_INTERVAL)
    }
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
        /// The camera had no frames at the last look.
        returned: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{FrameFlags, FrameId, FrameInfo, Generation, MediaTime, Size, UtcNanos};

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
        let mut camera = Camera::new("a".parse().unwrap());
        let mut seen = Vec::new();
        for id in [0, 1, 5, 6, 20] {
            let at = Instant(1000 * MS + id * 40 * MS);
            seen.push(camera.read(at, Newest::Frame(stamp(id, at))));
        }
        assert_eq!(seen[0], Seen::Frame { first: true, returned: true });
        assert!((camera.fps() - 25.0).abs() < 0.01, "{}", camera.fps());
        let last = camera.newest.unwrap().published;
        let (slack, interval) = (Duration::from_millis(1), Duration::from_millis(1));
        let look = |now, gate| camera.next_look(now, gate, slack, interval);
        // No gate: the very next frame.
        assert_eq!(look(last, Instant::ZERO), last + Duration::from_millis(40));
        // Gate 110 ms ahead: the third frame from now.
        let gate = last + Duration::from_millis(110);
        assert_eq!(look(last, gate), last + Duration::from_millis(120));
        // Gate 90 ms ahead: the second frame may come late and pass it; not before the gate.
        let gate = last + Duration::from_millis(90);
        assert_eq!(look(last, gate), gate);
        // Awaited: every millisecond; long overdue: rarely.
        let late = last + Duration::from_millis(41);
        assert_eq!(look(late, Instant::ZERO), late + interval);
        let very_late = last + Duration::from_secs(3);
        assert_eq!(look(very_late, Instant::ZERO), very_late + Duration::from_millis(50));
    }

    #[test]
    fn frames_of_the_future_and_known_frames_are_no_news() {
        let mut camera = Camera::new("a".parse().unwrap());
        let at = Instant(MS);
        assert_eq!(camera.read(Instant(0), Newest::Frame(stamp(0, at))), Seen::Nothing);
        assert!(matches!(camera.read(at, Newest::Frame(stamp(0, at))), Seen::Frame { .. }));
        assert_eq!(camera.read(at, Newest::Frame(stamp(0, at))), Seen::Nothing);
        assert_eq!(camera.read(at, Newest::Absent(Absent::Stale)), Seen::Nothing);
        let back = camera.read(at, Newest::Frame(stamp(0, at)));
        assert_eq!(back, Seen::Frame { first: false, returned: true });
    }

    #[test]
    fn the_look_is_as_late_as_the_camera_mostly_is_and_no_later_than_the_slack() {
        let first_look = |jitter: u64| {
            let mut camera = Camera::new("a".parse().unwrap());
            for id in 0..200 {
                let at = Instant(1000 * MS + id * 40 * MS + (id % 2) * jitter);
                camera.read(at, Newest::Frame(stamp(id, at)));
            }
            let last = camera.newest.unwrap().published;
            let ms = Duration::from_millis(1);
            camera.next_look(last, Instant::ZERO, ms, ms) - last
        };
        let micros = |jitter| (first_look(jitter).as_micros() as i64 - 40_000).abs();
        assert!(micros(0) < 10, "{}", micros(0));
        let some = first_look(MS / 2).as_micros();
        assert!((40_300..40_700).contains(&some), "{some}");
        assert!(first_look(20 * MS) <= Duration::from_millis(45));
    }

    #[test]
    fn a_stall_hardly_moves_the_period_and_a_new_rate_is_learned() {
        let mut camera = Camera::new("a".parse().unwrap());
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
        (0..60).for_each(|_| step(&mut camera, 200));
        assert!((camera.fps() - 5.0).abs() < 0.1, "{}", camera.fps());
    }

    #[test]
    #[should_panic(expected = "an agent starts once")]
    fn a_running_agent_can_not_start() {
        let mut camera = Camera::new("a".parse().unwrap());
        camera.start();
        camera.start();
    }
}
