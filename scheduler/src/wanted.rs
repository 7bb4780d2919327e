//! What a model's subscriptions need, and whether their frames can be chosen.

use crate::camera::Camera;
use std::time::Duration;

/// `F / r` may be this far from a whole number for frames to land at the same places in each period
/// (a frame slips into the next cohort after a hundred periods at most; half, twice: the same; 0.5:
/// `dropouts` p99 +9 %).
const WHOLE: f64 = 0.01;
/// Of the frames of a model at least these must be steerable (any: `s8+sync` mean +3 %,
/// `s8` p99 -6 %; nearly all: within 1 %).
const STEERED_SHARE_MIN: f64 = 0.5;

/// What a model's subscriptions need.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// Frames per second at the ceiling.
    pub rate: f64,
    /// Mean of max fps / source fps, by rate.
    pub freedom: f64,
    /// Mean seconds from capture to publication, by rate.
    pub delay: f64,
    /// Mean seconds by which arrivals are in doubt, by rate, and the same in frame periods.
    pub doubt: f64,
    pub blindness: f64,
    /// Shortest deadline, seconds.
    pub deadline: f64,
    /// The interval that most steerable frames share, nanoseconds; 0 = none can be steered.
    pub period: u64,
    /// Frames that a camera gives in it.
    pub frames: u32,
}

impl Wanted {
    /// Time from a frame's publication to its deadline, for the frame that has the least.
    pub fn room(&self) -> Duration {
        Duration::from_secs_f64((self.deadline - self.delay).max(0.0))
    }

    /// Whether there are frames to choose from.
    pub fn steerable(&self) -> bool {
        self.period != 0 && self.frames >= 2 && self.rate > 0.0
    }
}

/// Sums over the subscriptions of a model. Its memory is used again.
#[derive(Debug, Default)]
pub(crate) struct Measure {
    sums: Wanted,
    /// Interval, frames in it, frames per second.
    classes: Vec<(u64, u32, f64)>,
}

impl Measure {
    /// Begins with nobody.
    pub fn clear(&mut self) {
        self.sums = Wanted { deadline: f64::MAX, ..Wanted::default() };
        self.classes.clear();
    }

    /// Counts a subscription of a camera with a known rate: frames per second, time between two at
    /// the ceiling, deadline.
    pub fn add(
        &mut self,
        camera: &Camera,
        rate: f64,
        interval: Option<Duration>,
        deadline: Duration,
    ) {
        let (fps, sums) = (camera.fps(), &mut self.sums);
        sums.rate += rate;
        sums.freedom += rate * rate / fps;
        sums.delay += rate * camera.delay().as_secs_f64();
        sums.doubt += rate * camera.guard_ns() as f64 / 1e9;
        sums.blindness += rate * camera.guard_ns() as f64 / 1e9 * fps;
        sums.deadline = sums.deadline.min(deadline.as_secs_f64());
        let Some((interval, frames)) = class_of(interval, fps) else { return };
        match self.classes.iter_mut().find(|(i, f, _)| (*i, *f) == (interval, frames)) {
            Some((.., sum)) => *sum += rate,
            None => self.classes.push((interval, frames, rate)),
        }
    }

    /// What all of them need.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = self.sums;
        if wanted.rate > 0.0 {
            wanted.freedom /= wanted.rate;
            wanted.delay /= wanted.rate;
            wanted.doubt /= wanted.rate;
            wanted.blindness /= wanted.rate;
        }
        let largest = self.classes.iter().max_by(|a, b| a.2.total_cmp(&b.2));
        if let Some((period, frames, rate)) = largest
            && *rate >= STEERED_SHARE_MIN * wanted.rate
        {
            wanted.period = *period;
            wanted.frames = *frames;
        }
        wanted
    }
}

/// The interval of a subscription and the frames that its camera gives in it, when these are a
/// whole number.
pub(crate) fn class_of(interval: Option<Duration>, fps: f64) -> Option<(u64, u32)> {
    let interval = interval?;
    let frames = interval.as_secs_f64() * fps;
    let whole = frames.round();
    let fits = whole >= 1.0 && (frames / whole - 1.0).abs() <= WHOLE;
    fits.then(|| (base::time::nanos(interval), whole as u32))
}
