//! How a stream is doing, as the control server answers it.
//!
//! One small mutex per stream, held for a few instructions: by the stream's thread once per access
//! unit, by the control threads when somebody asks.

use crate::unit::{AccessUnit, Codec};
use base::time::NANOS_PER_SEC;
use base::{Instant, MediaTime, Size, UtcNanos};
use ipc::clock;
use ipc::ingest_message::{StreamState, StreamStatus};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whole seconds over which rates are measured (chosen).
const WINDOW: u64 = 5;
/// A file that has not answered for so long hangs (chosen: a disk that wakes up takes less).
const FILE_HANGS: Duration = Duration::from_secs(3);

/// The health of one stream. Any thread reads; the stream's thread and its outlets write.
#[derive(Debug, Default)]
pub struct Health(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: StreamState,
    reason: String,
    since: UtcNanos,
    codec: Option<Codec>,
    size: Option<Size>,
    last_unit: UtcNanos,
    media: MediaTime,
    connects: u64,
    meter: Meter,
    /// The file that is waited for, and since when.
    file: Option<(String, Instant)>,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole between statements, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the stream does now, and why it is not live. `reason` holds no credentials.
    pub fn set(&self, state: StreamState, reason: &str) {
        let mut inner = self.lock();
        if inner.state != state {
            inner.state = state;
            inner.since = clock::utc();
            if state != StreamState::Live {
                inner.meter = Meter::default();
            }
        }
        if inner.reason != reason {
            reason.clone_into(&mut inner.reason);
        }
    }

    /// The stream was opened.
    pub fn connected(&self) {
        self.lock().connects += 1;
    }

    /// Does what may have to wait for a file, and says so meanwhile: a disk or share that hangs
    /// can't be left, not even to stop.
    pub fn wait_for<T>(&self, file: &Path, work: impl FnOnce() -> T) -> T {
        self.lock().file = Some((file.display().to_string(), clock::monotonic()));
        let done = work();
        self.lock().file = None;
        done
    }

    /// Whether it waits for a file that hangs.
    pub fn stuck(&self, now: Instant) -> bool {
        self.lock().hangs(now).is_some()
    }

    /// What is known of its pictures.
    pub fn describe(&self, codec: Codec, size: Option<Size>) {
        let mut inner = self.lock();
        inner.codec = Some(codec);
        inner.size = size.or(inner.size);
    }

    /// A unit goes out.
    pub fn unit(&self, unit: &AccessUnit) {
        let mut inner = self.lock();
        inner.last_unit = unit.capture_utc;
        inner.media = inner.media.max(unit.media);
        inner.meter.unit(unit.data.len() as u64, unit.capture);
    }

    /// Pictures per second of the last seconds, once it is known.
    pub fn fps(&self, now: Instant) -> Option<f64> {
        self.lock().meter.rates(now).map(|(fps, _)| fps)
    }

    /// Fills in what is known here.
    pub fn fill(&self, status: &mut StreamStatus, now: Instant) {
        let mut inner = self.lock();
        let (fps, bits) = inner.meter.rates(now).unwrap_or_default();
        status.state = inner.state;
        status.reason.clone_from(&inner.reason);
        status.since = inner.since;
        status.codec = inner.codec.map_or("", Codec::as_str).to_owned();
        status.size = inner.size.unwrap_or(Size { width: 0, height: 0 });
        status.fps = fps;
        status.bits_per_second = bits;
        status.last_unit = inner.last_unit;
        status.media = inner.media;
        status.connects = inner.connects;
        if let Some((file, lasted)) = inner.hangs(now) {
            status.state = StreamState::Stalled;
            status.reason =
                format!("waits for {file}, which does not answer; check its disk or share");
            status.since = UtcNanos(clock::utc().0.saturating_sub(base::time::nanos(lasted)));
        }
    }
}

impl Inner {
    /// The file that hangs, and for how long already.
    fn hangs(&self, now: Instant) -> Option<(&str, Duration)> {
        let (file, since) = self.file.as_ref()?;
        let lasted = now.since(*since);
        (lasted >= FILE_HANGS).then_some((file.as_str(), lasted))
    }
}

/// Units and bytes of the last whole seconds.
#[derive(Debug, Default)]
struct Meter {
    /// Second, units, bytes; the last one is not over.
    seconds: VecDeque<(u64, u64, u64)>,
    /// The second of the first unit.
    first: Option<u64>,
}

impl Meter {
    fn unit(&mut self, bytes: u64, at: Instant) {
        let second = at.0 / NANOS_PER_SEC;
        self.first.get_or_insert(second);
        match self.seconds.back_mut() {
            Some((last, units, sum)) if *last >= second => {
                *units += 1;
                *sum += bytes;
            }
            _ => {
                self.seconds.push_back((second, 1, bytes));
                self.forget(second);
            }
        }
    }

    fn forget(&mut self, now: u64) {
        while self.seconds.front().is_some_and(|(second, ..)| second + WINDOW < now) {
            self.seconds.pop_front();
        }
    }

    /// Units and bits per second over the whole seconds that are known; `None` before there is one.
    fn rates(&mut self, now: Instant) -> Option<(f64, u64)> {
        let now = now.0 / NANOS_PER_SEC;
        self.forget(now);
        self.seconds.front()?;
        // The first second may have begun before the first unit, the last is not over.
        let begin = (self.first? + 1).max(now.saturating_sub(WINDOW));
        let whole = now.checked_sub(begin).filter(|&whole| whole > 0)?;
        let counted = self.seconds.iter().filter(|(second, ..)| (begin..now).contains(second));
        let (units, bytes) =
            counted.fold((0, 0), |(units, bytes), &(_, u, b)| (units + u, bytes + b));
        Some((units as f64 / whole as f64, bytes * 8 / whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn rates_are_those_of_the_last_whole_seconds() {
        let mut meter = Meter::default();
        assert_eq!(meter.rates(at(100)), None);
        for n in 0..300 {
            meter.unit(10_000, at(1_500 + n * 40));
        }
        assert_eq!(meter.rates(at(13_499)), Some((25.0, 2_000_000)));
        // Nothing for two seconds, then nothing at all.
        let (fps, _) = meter.rates(at(15_499)).unwrap();
        assert!((15.0..20.0).contains(&fps), "{fps}");
        assert_eq!(meter.rates(at(60_000)), None);
        meter.unit(1, at(60_000));
        assert_eq!(meter.rates(at(60_999)), Some((0.0, 0)), "it came in a second that is not over");
    }

    #[test]
    fn rates_are_known_after_a_second_and_slow_cameras_are_measured() {
        let mut meter = Meter::default();
        (0..60).for_each(|n| meter.unit(1, at(900 + n * 40)));
        assert_eq!(meter.rates(at(2_100)), Some((25.0, 200)));
        let mut slow = Meter::default();
        (0..9).for_each(|n| slow.unit(1, at(n * 2_000)));
        let (fps, _) = slow.rates(at(16_500)).unwrap();
        assert!((0.4..=0.6).contains(&fps), "{fps}");
    }

    #[test]
    fn a_file_that_hangs_is_named_and_one_that_is_slow_is_not() {
        let health = Health::default();
        let status = |now: Instant| {
            let mut status = StreamStatus::stopped("a".parse().unwrap(), "main");
            health.fill(&mut status, now);
            (health.stuck(now), status.state, status.reason)
        };
        health.set(StreamState::Live, "");
        let fine = (false, StreamState::Live, String::new());
        health.wait_for(Path::new("/share/a.mp4"), || {
            let now = clock::monotonic();
            assert_eq!(status(now), fine);
            assert_eq!(status(now + (FILE_HANGS - Duration::from_millis(500))), fine);
            let (stuck, state, reason) = status(now + FILE_HANGS);
            assert_eq!((stuck, state), (true, StreamState::Stalled));
            assert!(reason.contains("waits for /share/a.mp4"), "{reason}");
        });
        assert_eq!(status(clock::monotonic() + FILE_HANGS), fine, "it has answered");
    }

    #[test]
    fn a_state_keeps_its_beginning_and_its_reason() {
        let health = Health::default();
        let status = |health: &Health| {
            let camera = "a".parse().unwrap();
            let mut status = StreamStatus::stopped(camera, "main");
            health.fill(&mut status, at(0));
            status
        };
        health.set(StreamState::Connecting, "");
        let since = status(&health).since;
        health.set(StreamState::Connecting, "refused");
        let now = status(&health);
        assert_eq!((now.since, now.reason.as_str()), (since, "refused"));
        health.describe(Codec::H265, Some(Size { width: 4, height: 2 }));
        health.describe(Codec::H265, None);
        assert_eq!(status(&health).size, Size { width: 4, height: 2 });
        assert_eq!(status(&health).codec, "h265");
    }
}
