//! A camera in virtual time: frames with phase, jitter, drift and outages.

use crate::random::Random;
use base::{
    Absent, FrameFlags, FrameId, FrameInfo, Generation, Instant, MediaTime, Newest, Size, Stamp,
    UtcNanos, limits,
};
use std::time::Duration;

/// How a camera behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraModel {
    /// Frames per second.
    pub fps: f64,
    /// First capture, after the start of the world.
    pub phase: Duration,
    /// Capture to published in the ring.
    pub delay: Duration,
    /// Each capture is late by a uniform share of this.
    pub jitter: Duration,
    /// Error of the camera's clock, parts per million.
    pub drift_ppm: f64,
    /// Slots of the ring.
    pub slots: u32,
    /// From and to: nothing is captured; the ring goes stale after three seconds.
    pub outages: Vec<(Instant, Instant)>,
}

impl Default for CameraModel {
    fn default() -> Self {
        CameraModel {
            fps: 25.0,
            phase: Duration::ZERO,
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            drift_ppm: 0.0,
            slots: 30,
            outages: Vec::new(),
        }
    }
}

/// A camera that plays its model.
#[derive(Debug)]
pub struct SimCamera {
    model: CameraModel,
    random: Random,
    /// Number of the next tick of the camera's clock.
    tick: u64,
    /// The next frame: capture and publication.
    next: (Instant, Instant),
    published: u64,
    newest: Option<Stamp>,
}

impl SimCamera {
    /// Starts with the first tick of the model.
    pub fn new(model: CameraModel, random: Random) -> SimCamera {
        let mut camera = SimCamera {
            model,
            random,
            tick: 0,
            next: (Instant::ZERO, Instant::ZERO),
            published: 0,
            newest: None,
        };
        camera.plan();
        camera
    }

    /// Frames published until `now`.
    pub fn published(&mut self, now: Instant) -> u64 {
        self.advance(now);
        self.published
    }

    /// When the first frame after `now` is published.
    pub fn next_publication(&mut self, now: Instant) -> Instant {
        self.advance(now);
        self.next.1
    }

    fn plan(&mut self) {
        let before = self.next.1;
        loop {
            let period = 1e9 / self.model.fps * (1.0 + self.model.drift_ppm * 1e-6);
            let late = self.random.unit() * self.model.jitter.as_nanos() as f64;
            let since = self.tick as f64 * period + late;
            let capture = Instant::ZERO + self.model.phase + Duration::from_nanos(since as u64);
            self.tick += 1;
            if self.model.outages.iter().any(|(from, to)| (*from..*to).contains(&capture)) {
                continue;
            }
            // Frames are published in order, never two at one instant.
            let published = (capture + self.model.delay).max(before + Duration::from_nanos(1));
            self.next = (capture, published);
            return;
        }
    }

    fn advance(&mut self, now: Instant) {
        while self.next.1 <= now {
            let (capture, published) = self.next;
            self.published += 1;
            let id = self.published;
            self.newest = Some(Stamp {
                generation: Generation(1),
                frame_id: FrameId(id),
                slot: (id % u64::from(self.model.slots)) as u32,
                slots: self.model.slots,
                size: Size { width: 1280, height: 720 },
                published,
                info: FrameInfo {
                    media: MediaTime(capture.0 / 1000 * 9 / 100),
                    capture,
                    capture_utc: UtcNanos(capture.0),
                    decode_start: capture,
                    flags: FrameFlags::default(),
                },
            });
            self.plan();
        }
    }

    /// What a reader of the ring sees at `now`.
    pub fn newest(&mut self, now: Instant) -> Newest {
        self.advance(now);
        let Some(stamp) = self.newest else { return Newest::Absent(Absent::NoRing) };
        let silent =
            |(from, to): &(Instant, Instant)| *from + limits::RING_STALE <= now && now < *to;
        if self.model.outages.iter().any(silent) {
            return Newest::Absent(Absent::Stale);
        }
        Newest::Frame(stamp)
    }
}
