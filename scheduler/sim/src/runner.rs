//! A runner in virtual time: L(b) = alpha + beta b or a measured table, with noise and faults.

use crate::random::Random;
use base::{DeviceId, InstanceId, Instant, LatencyEntry, LatencyTable, ModelId};
use latency::batch_sizes;
use scheduler::RunnerInfo;
use std::time::Duration;

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// From then on it answers nothing.
    Hang(Instant),
    /// Between the two it takes this many times as long.
    Slow(Instant, Instant, u32),
    /// It dies then, and comes back as a new instance after the given time, if at all.
    Crash(Instant, Option<Duration>),
}

/// How a runner behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct RunnerModel {
    /// Its model.
    pub model: ModelId,
    /// Its device.
    pub device: DeviceId,
    /// A GPU: batches are prepared ahead, leases are short.
    pub gpu: bool,
    /// Fixed cost of a batch.
    pub alpha: Duration,
    /// Cost of a member.
    pub beta: Duration,
    /// Measured L(b) instead of alpha and beta: batch sizes with their times, read between two of
    /// them by straight line, beyond the last in proportion. Empty = alpha and beta.
    pub profile: Vec<(u32, Duration)>,
    /// Largest batch of the engine.
    pub batch_max: u32,
    /// The model's deadline.
    pub deadline: Duration,
    /// Copy of a batch before the token.
    pub copy: Duration,
    /// Decoding of a batch after the token.
    pub postprocess: Duration,
    /// Standard deviation of the execution time, relative.
    pub noise: f64,
    /// Share of batches that take twice as long.
    pub spikes: f64,
    /// Whether it keeps an undisturbed measurement from before; otherwise it asks to measure first.
    pub measured: bool,
    /// Not as the product's: it announces what its batches take, unasked, whenever that changes.
    pub restates: bool,
    /// Faults.
    pub faults: Vec<Fault>,
}

impl Default for RunnerModel {
    fn default() -> Self {
        let id = |text: &str| text.parse().expect("a literal id");
        RunnerModel {
            model: ModelId::new("m").expect("a literal id"),
            device: id("gpu0"),
            gpu: true,
            alpha: Duration::from_micros(2300),
            beta: Duration::from_micros(810),
            profile: Vec::new(),
            batch_max: 64,
            deadline: Duration::from_millis(100),
            copy: Duration::from_micros(300),
            postprocess: Duration::from_micros(200),
            noise: 0.0,
            spikes: 0.0,
            measured: true,
            restates: false,
            faults: Vec::new(),
        }
    }
}

impl RunnerModel {
    /// L(b) without noise.
    pub fn latency(&self, batch: u32) -> Duration {
        self.measurement().p50(batch).unwrap_or(self.alpha + self.beta * batch)
    }

    /// The profile as a table, empty without one.
    fn measurement(&self) -> LatencyTable {
        let entry = |&(batch, p50)| LatencyEntry { batch, p50, p99: p50 };
        LatencyTable::new(self.profile.iter().map(entry))
    }

    /// The table that an undisturbed measurement gives: p99 with the noise's 2.33 deviations.
    pub fn table(&self) -> LatencyTable {
        LatencyTable::new(batch_sizes(self.batch_max).into_iter().map(|batch| {
            let p50 = self.latency(batch);
            LatencyEntry { batch, p50, p99: p50.mul_f64(1.0 + 2.33 * self.noise) }
        }))
    }

    /// What it says when a scheduler connects.
    pub fn info(&self, instance: InstanceId, latency: LatencyTable) -> RunnerInfo {
        RunnerInfo {
            instance,
            model: self.model.clone(),
            device: self.device.clone(),
            gpu: self.gpu,
            batch_max: self.batch_max,
            deadline: self.deadline,
            latency,
        }
    }

    /// Whether it answers nothing at `now`.
    pub fn hung(&self, now: Instant) -> bool {
        self.faults.iter().any(|f| matches!(f, Fault::Hang(at) if *at <= now))
    }

    /// Execution of one batch that begins at `now`. `None` = never ends.
    pub fn execution(&self, now: Instant, batch: u32, random: &mut Random) -> Option<Duration> {
        if self.hung(now) {
            return None;
        }
        let mut length = self.latency(batch).mul_f64((1.0 + self.noise * random.normal()).max(0.2));
        if random.unit() < self.spikes {
            length *= 2;
        }
        Some(length * self.slower(now))
    }

    /// How many times as long batches take at `now`.
    pub fn slower(&self, now: Instant) -> u32 {
        let at = |f: &Fault| match f {
            Fault::Slow(from, to, times) if (*from..*to).contains(&now) => *times,
            _ => 1,
        };
        self.faults.iter().map(at).product()
    }
}
