//! Workloads: small TOML files that say which cameras, models and faults a world has.
//!
//! `docs/simulator.md` lists every key. A workload may carry variants, addressed as `name+variant`:
//! see [`Workload::built_in`].

mod catalog;
mod demand;
mod play;
mod variant;

pub use catalog::{ALIASES, BUILT_IN, names, split};
pub use play::{Outcome, Play, Share};

use base::Instant;
use scheduler::{Config, Steering};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Why a workload can't be used.
#[derive(Debug, PartialEq, Eq)]
pub struct WorkloadError(String);

impl std::fmt::Display for WorkloadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WorkloadError {}

fn wrong<T>(text: String) -> Result<T, WorkloadError> {
    Err(WorkloadError(text))
}

/// A world's description.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// What it shows.
    pub description: String,
    /// Length in virtual seconds.
    pub seconds: f64,
    /// Results before this second are not reported: the start is measured apart.
    #[serde(default)]
    pub warm_up_s: f64,
    /// Seed, when the caller gives none.
    #[serde(default = "seed_default")]
    pub seed: u64,
    /// How the subscriptions begin.
    #[serde(default)]
    pub start: Start,
    /// With a random start: the subscriptions begin within this many seconds.
    #[serde(default = "start_default")]
    pub start_s: f64,
    /// Settings of the production policy; what is not named is as in production.
    #[serde(default)]
    pub scheduler: SchedulerGroup,
    /// Changes of assignments per second: adds, removals and moves to another model.
    #[serde(default)]
    pub churn_per_s: f64,
    /// The same world without the fault, to show what the fault does to the other models.
    #[serde(default)]
    pub beside: Option<String>,
    /// Groups of cameras.
    pub camera: Vec<CameraGroup>,
    /// Models with their runners.
    pub model: Vec<ModelGroup>,
    /// Variants that `--list` names, for example `noisy` and `sync+noisy`.
    #[serde(default)]
    pub variants: Vec<String>,
    /// What each variant replaces, beside the variants that every workload has.
    #[serde(default)]
    pub variant: BTreeMap<String, toml::Table>,
}

/// How the subscriptions begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// All at once, as after a boot or a reload.
    #[default]
    Aligned,
    /// Each at an instant of its own, uniform over [`Workload::start_s`].
    Random,
}

/// Settings of the production policy.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulerGroup {
    /// Share of a device that the planner gives away.
    pub usable_share: Option<f64>,
    /// Whether cameras are steered.
    pub steering: Option<SteeringName>,
    /// Batches that a device executes at a time.
    pub capacity: Option<u32>,
}

/// [`Steering`] as a workload writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SteeringName {
    /// Never.
    Off,
    /// Where it was measured to be better.
    Auto,
    /// Wherever the rates allow it.
    On,
}

/// Cameras of one kind.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraGroup {
    /// How many.
    pub count: u32,
    /// Frames per second.
    pub fps: f64,
    /// Capture to published, milliseconds.
    #[serde(default = "delay_default")]
    pub delay_ms: f64,
    /// Largest lateness of a capture, milliseconds.
    #[serde(default)]
    pub jitter_ms: f64,
    /// Clock error, parts per million.
    #[serde(default)]
    pub drift_ppm: f64,
    /// All cameras of the group capture at the same instants.
    #[serde(default)]
    pub aligned: bool,
    /// From and to, seconds: the cameras are away.
    #[serde(default)]
    pub outages_s: Vec<(f64, f64)>,
    /// Share of the cameras that drop out in every minute, at random instants.
    #[serde(default)]
    pub dropouts_per_min: f64,
    /// Those come back together, at the next multiple of this many seconds that is 2 s away.
    #[serde(default = "storm_default")]
    pub storm_s: f64,
    /// Which models watch it and at how many frames per second.
    pub watch: Vec<Watch>,
}

/// One model on the cameras of a group.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Model name.
    pub model: String,
    /// Ceiling.
    pub fps: f64,
    /// Weight.
    #[serde(default = "weight_default")]
    pub weight: f64,
    /// Share of the group's cameras that begin with it; churn may give it to the others.
    #[serde(default = "share_default")]
    pub share: f64,
    /// Mean seconds that all of these are there and away, exponential: a class that comes and goes.
    #[serde(default)]
    pub present_s: Option<(f64, f64)>,
}

/// A model and its runners.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelGroup {
    /// Name.
    pub name: String,
    /// Device.
    #[serde(default = "device_default")]
    pub device: String,
    /// Devices, a runner on each, instead of `device`.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Whether the device is a GPU.
    #[serde(default = "gpu_default")]
    pub gpu: bool,
    /// Fixed cost of a batch, milliseconds.
    #[serde(default)]
    pub alpha_ms: f64,
    /// Cost of a member, milliseconds.
    #[serde(default)]
    pub beta_ms: f64,
    /// Measured `[b, L(b) in milliseconds]` instead of `alpha_ms` and `beta_ms`.
    #[serde(default)]
    pub table_ms: Vec<(u32, f64)>,
    /// Largest batch.
    #[serde(default = "batch_default")]
    pub batch_max: u32,
    /// Deadline, milliseconds.
    #[serde(default = "deadline_default")]
    pub deadline_ms: f64,
    /// Copy of a batch to the device, milliseconds.
    #[serde(default = "copy_default")]
    pub copy_ms: f64,
    /// Decoding of a batch's answers, milliseconds.
    #[serde(default = "postprocess_default")]
    pub postprocess_ms: f64,
    /// Relative standard deviation of execution.
    #[serde(default)]
    pub noise: f64,
    /// Share of batches that take twice as long.
    #[serde(default)]
    pub spikes: f64,
    /// It hangs at this second.
    #[serde(default)]
    pub hang_at_s: Option<f64>,
    /// From, to, factor: it is slow.
    #[serde(default)]
    pub slow_s: Option<(f64, f64, u32)>,
    /// It dies at, and comes back after, seconds.
    #[serde(default)]
    pub crash_s: Option<(f64, f64)>,
    /// From the first crash on it dies again every so many seconds.
    #[serde(default)]
    pub crash_every_s: Option<f64>,
    /// Hello carries no table: it is measured under the token first.
    #[serde(default)]
    pub unmeasured: bool,
    /// It announces what its batches take, unasked: a runner of others, not the product's.
    #[serde(default)]
    pub restates: bool,
}

fn seed_default() -> u64 {
    1
}
fn start_default() -> f64 {
    1.0
}
fn delay_default() -> f64 {
    20.0
}
fn storm_default() -> f64 {
    15.0
}
fn weight_default() -> f64 {
    1.0
}
fn share_default() -> f64 {
    1.0
}
fn device_default() -> String {
    "gpu0".into()
}
fn gpu_default() -> bool {
    true
}
fn batch_default() -> u32 {
    64
}
fn deadline_default() -> f64 {
    100.0
}
fn copy_default() -> f64 {
    0.3
}
fn postprocess_default() -> f64 {
    0.2
}

pub(crate) fn ms(value: f64) -> Duration {
    Duration::from_secs_f64(value.max(0.0) / 1e3)
}

pub(crate) fn at(seconds: f64) -> Instant {
    Instant::ZERO + Duration::from_secs_f64(seconds.max(0.0))
}

impl ModelGroup {
    /// Whether it misbehaves at some time.
    pub fn faulty(&self) -> bool {
        self.hang_at_s.is_some() || self.slow_s.is_some() || self.crash_s.is_some()
    }

    /// The devices that run it.
    pub fn device_names(&self) -> Vec<&str> {
        if self.devices.is_empty() {
            vec![&self.device]
        } else {
            self.devices.iter().map(String::as_str).collect()
        }
    }
}

impl Workload {
    /// Parses a workload file.
    ///
    /// # Errors
    /// With line and key of what is wrong.
    pub fn parse(text: &str) -> Result<Workload, WorkloadError> {
        let workload: Workload = toml::from_str(text).map_err(|e| WorkloadError(e.to_string()))?;
        workload.check()?;
        Ok(workload)
    }

    fn check(&self) -> Result<(), WorkloadError> {
        let positive = |what: &str, value: f64| match value {
            v if v > 0.0 && v.is_finite() => Ok(()),
            _ => wrong(format!("{what} is {value}, must be above 0")),
        };
        let share = |what: &str, value: f64| match value {
            v if (0.0..=1.0).contains(&v) => Ok(()),
            _ => wrong(format!("{what} is {value}, must be 0 to 1")),
        };
        positive("seconds", self.seconds)?;
        positive("start_s", self.start_s)?;
        share("usable_share", self.scheduler.usable_share.unwrap_or(1.0))?;
        for camera in &self.camera {
            positive("camera fps", camera.fps)?;
            positive("storm_s", camera.storm_s)?;
            share("dropouts_per_min", camera.dropouts_per_min)?;
            for watch in &camera.watch {
                positive("watch fps", watch.fps)?;
                positive("watch weight", watch.weight)?;
                share("watch share", watch.share)?;
                let (there, away) = watch.present_s.unwrap_or((1.0, 1.0));
                positive("present_s", there.min(away))?;
                if !self.model.iter().any(|m| m.name == watch.model) {
                    let name = &watch.model;
                    return wrong(format!("a camera watches model `{name}`, which the file lacks"));
                }
            }
            let models: BTreeSet<_> = camera.watch.iter().map(|w| &w.model).collect();
            if models.len() < camera.watch.len() {
                return wrong("a group of cameras watches one model twice".into());
            }
        }
        self.model.iter().try_for_each(|model| model.check(&positive))
    }

    /// The settings of the production policy in this workload.
    pub fn config(&self) -> Config {
        let default = self.default_config();
        let steering = self.scheduler.steering.map(|s| match s {
            SteeringName::Off => Steering::Off,
            SteeringName::Auto => Steering::Auto,
            SteeringName::On => Steering::On,
        });
        Config {
            usable_share: self.scheduler.usable_share.unwrap_or(default.usable_share),
            steering: steering.unwrap_or(default.steering),
            ..default
        }
    }

    /// As production has them; the capacity of a device belongs to the world.
    pub fn default_config(&self) -> Config {
        let default = Config::default();
        Config { capacity: self.scheduler.capacity.unwrap_or(default.capacity), ..default }
    }

    /// Whether nothing changes once it has begun, so that bounds hold: no fault, no camera that
    /// goes away, no change of assignments.
    pub fn steady(&self) -> bool {
        let still = |c: &CameraGroup| {
            c.outages_s.is_empty()
                && c.dropouts_per_min == 0.0
                && c.watch.iter().all(|w| w.present_s.is_none())
        };
        let sound =
            |m: &ModelGroup| m.hang_at_s.is_none() && m.slow_s.is_none() && m.crash_s.is_none();
        self.churn_per_s == 0.0 && self.camera.iter().all(still) && self.model.iter().all(sound)
    }

    /// The deadline of a model.
    pub fn deadline(&self, model: &str) -> Duration {
        let found = self.model.iter().find(|m| m.name == model);
        found.map_or(Duration::MAX, |m| ms(m.deadline_ms))
    }
}

impl ModelGroup {
    fn check(
        &self,
        positive: &dyn Fn(&str, f64) -> Result<(), WorkloadError>,
    ) -> Result<(), WorkloadError> {
        let name = &self.name;
        if self.table_ms.is_empty() {
            positive(&format!("batch cost of model `{name}`"), self.alpha_ms + self.beta_ms)?;
        }
        let sizes: Vec<u32> = self.table_ms.iter().map(|(b, _)| *b).collect();
        if sizes.first() == Some(&0) || !sizes.is_sorted_by(|a, b| a < b) {
            return wrong(format!("table_ms of model `{name}` must rise in batch size from 1 on"));
        }
        for (_, cost) in &self.table_ms {
            positive(&format!("table_ms of model `{name}`"), *cost)?;
        }
        positive("deadline_ms", self.deadline_ms)?;
        positive("crash_every_s", self.crash_every_s.unwrap_or(1.0))?;
        if !(1..=base::limits::BATCH_MAX).contains(&self.batch_max) {
            return wrong(format!("batch_max is {}, must be 1 to 256", self.batch_max));
        }
        let ids = self.device_names().into_iter().map(|d| ("device", d));
        for (what, id) in ids.chain([("model", name.as_str())]) {
            if base::ModelId::new(id).is_err() {
                return wrong(format!("{what} name `{id}` is not an id"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
