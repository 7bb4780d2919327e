//! Tests through the public contract, and the world they share: a clock that stands where it is
//! put, and events made from a seed.

mod check;
mod clocks;
mod control;
mod crash;
mod damage;
mod faults;
mod listing;
mod lost;
mod media;
mod time;

use crate::{EventOptions, Json, NewEvent};
use base::clock_trust::ClockOffset;
use base::{
    CameraId, Detection, DeviceId, FrameDetections, FrameId, Generation, Instant, Keypoint, Mask,
    MediaTime, ModelId, Rect, Size, Stages, TrackId, UtcNanos,
};
use fastrand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// 2026-03-01T12:00:00Z.
pub(crate) const NOON: UtcNanos = UtcNanos(1_772_366_400_000_000_000);
pub(crate) const SECOND: u64 = base::time::NANOS_PER_SEC;
pub(crate) const HOUR: u64 = 3600 * SECOND;

/// A machine's clocks, which only tests move.
#[derive(Clone)]
pub(crate) struct Clock {
    utc: Arc<AtomicU64>,
    monotonic: Arc<AtomicU64>,
    /// What somebody accepted; [`i64::MIN`] = nothing.
    accepted: Arc<AtomicI64>,
}

impl Clock {
    pub(crate) fn at(utc: UtcNanos) -> Clock {
        Clock {
            utc: Arc::new(utc.0.into()),
            monotonic: Arc::new(HOUR.into()),
            accepted: Arc::new(i64::MIN.into()),
        }
    }

    /// Time passes until then. Back it can't: that sets the clock.
    pub(crate) fn set(&self, utc: UtcNanos) {
        let passed = utc.0.saturating_sub(self.now().0);
        self.monotonic.fetch_add(passed, Ordering::SeqCst);
        self.jump(utc);
    }

    /// Somebody sets the clock.
    pub(crate) fn jump(&self, utc: UtcNanos) {
        self.utc.store(utc.0, Ordering::SeqCst);
    }

    /// The machine was off until then.
    pub(crate) fn restart(&self, utc: UtcNanos) {
        self.monotonic.store(SECOND, Ordering::SeqCst);
        self.jump(utc);
    }

    /// Somebody accepts the clock as it is.
    pub(crate) fn accept(&self) {
        let offset = self.now().0 as i64 - self.monotonic.load(Ordering::SeqCst) as i64;
        self.accepted.store(offset, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> UtcNanos {
        UtcNanos(self.utc.load(Ordering::SeqCst))
    }

    /// Options with this clock, plenty of space and small caches.
    pub(crate) fn options(&self) -> EventOptions {
        let (clock, accepted) = (self.clone(), self.accepted.clone());
        let monotonic = self.monotonic.clone();
        EventOptions {
            retention: Duration::from_secs(10 * 86_400),
            free_space_floor_bytes: 1,
            cache_today_bytes: 4 << 20,
            cache_older_bytes: 1 << 20,
            files_open: 3,
            list_steps_max: u64::MAX,
            clock: Arc::new(move || clock.now()),
            monotonic: Arc::new(move || Instant(monotonic.load(Ordering::SeqCst))),
            accepted: Arc::new(move || {
                let offset = accepted.load(Ordering::SeqCst);
                (offset != i64::MIN).then_some(ClockOffset(offset.into()))
            }),
            free_space: Arc::new(|_| Ok(u64::MAX)),
        }
    }
}

pub(crate) fn json(value: impl Into<serde_json::Value>) -> Json {
    Json::of(&value.into()).unwrap()
}

pub(crate) fn seeded(name: &str) -> Rng {
    let seed = std::env::var("STORE_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| Rng::new().u64(..));
    println!("{name}: STORE_SEED={seed}");
    Rng::with_seed(seed)
}

pub(crate) fn camera(n: usize) -> CameraId {
    CameraId::new(&format!("cam{n}")).unwrap()
}

pub(crate) fn model(n: usize) -> ModelId {
    ModelId::new(&format!("model{n}")).unwrap()
}

fn detection(rng: &mut Rng) -> Detection {
    let mut corner = || (rng.f32() * 0.5, 0.5 + rng.f32() * 0.5);
    let ((x1, x2), (y1, y2)) = (corner(), corner());
    Detection {
        bbox: Rect { x1, y1, x2, y2 },
        score: rng.f32(),
        class_id: rng.u16(0..4),
        track: TrackId(0),
    }
}

/// An event with anything an event may have.
pub(crate) fn event(rng: &mut Rng, capture_utc: UtcNanos) -> NewEvent {
    let mut found = FrameDetections::default();
    for _ in 0..rng.usize(0..12) {
        found.detections.push(detection(rng));
    }
    let n = found.detections.len();
    if n > 0 && rng.u8(..4) == 0 {
        found.detections.iter_mut().for_each(|d| d.track = TrackId(rng.u32(..)));
        for _ in 0..rng.usize(0..5) {
            let (detection, kind) = (rng.u32(..n as u32), rng.u16(..));
            let (x, y, score) = (rng.f32() * 3.0 - 1.0, rng.f32(), rng.f32());
            found.keypoints.push(Keypoint { detection, kind, x, y, score });
        }
        let (width, height) = (rng.u16(0..6), rng.u16(0..6));
        let data = (0..width * height).map(|_| rng.u8(..)).collect();
        found.masks.push(Mask { detection: rng.u32(..n as u32), width, height, data });
    }
    let metadata =
        (rng.u8(..4) == 0).then(|| json(serde_json::json!({"note": rng.u32(..), "x": [1.5]})));
    NewEvent {
        camera: camera(rng.usize(0..5)),
        model: model(rng.usize(0..3)),
        model_version: format!("1.{}", rng.u8(0..2)),
        device: DeviceId::new("cpu").unwrap(),
        capture_utc,
        generation: Generation(rng.u64(..)),
        frame_id: FrameId(rng.u64(..)),
        media: MediaTime(rng.u64(..)),
        frame: Size { width: rng.u32(..), height: rng.u32(..) },
        detections: found,
        stages: Stages::from_array(std::array::from_fn(|_| {
            let bits = rng.u32(0..64);
            Duration::from_nanos(rng.u64(..) >> bits)
        })),
        metadata,
    }
}
