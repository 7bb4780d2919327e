//! Workloads: small TOML files that say which cameras, models and faults a world has.

use crate::camera::CameraModel;
use crate::random::Random;
use crate::runner::{Fault, RunnerModel};
use crate::world::World;
use base::Instant;
use scheduler::Config;
use serde::Deserialize;
use std::time::Duration;

/// The workloads that come with the program: name and text.
pub const BUILT_IN: [(&str, &str); 6] = [
    ("demo", include_str!("../workloads/demo.toml")),
    ("uniform", include_str!("../workloads/uniform.toml")),
    ("sync", include_str!("../workloads/sync.toml")),
    ("share", include_str!("../workloads/share.toml")),
    ("overload", include_str!("../workloads/overload.toml")),
    ("faulty", include_str!("../workloads/faulty.toml")),
];

/// Why a workload can't be used.
#[derive(Debug, PartialEq, Eq)]
pub struct WorkloadError(String);

impl std::fmt::Display for WorkloadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WorkloadError {}

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
    /// Groups of cameras.
    pub camera: Vec<CameraGroup>,
    /// Models with their runner.
    pub model: Vec<ModelGroup>,
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
    /// From and to, seconds: the camera is away.
    #[serde(default)]
    pub outages_s: Vec<(f64, f64)>,
    /// Which models watch it and at how many frames per second.
    pub watch: Vec<Watch>,
}

/// One model on every camera of a group.
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
}

/// A model and its runner.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelGroup {
    /// Name.
    pub name: String,
    /// Device.
    #[serde(default = "device_default")]
    pub device: String,
    /// Whether the device is a GPU.
    #[serde(default = "gpu_default")]
    pub gpu: bool,
    /// Fixed cost of a batch, milliseconds.
    pub alpha_ms: f64,
    /// Cost of a member, milliseconds.
    pub beta_ms: f64,
    /// Largest batch.
    #[serde(default = "batch_default")]
    pub batch_max: u32,
    /// Deadline, milliseconds.
    #[serde(default = "deadline_default")]
    pub deadline_ms: f64,
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
    /// Hello carries no table: it is measured under the token first.
    #[serde(default)]
    pub unmeasured: bool,
}

fn delay_default() -> f64 {
    20.0
}
fn weight_default() -> f64 {
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

fn ms(value: f64) -> Duration {
    Duration::from_secs_f64(value.max(0.0) / 1e3)
}

fn at(seconds: f64) -> Instant {
    Instant::ZERO + Duration::from_secs_f64(seconds.max(0.0))
}

impl Workload {
    /// Parses a workload file.
    ///
    /// # Errors
    /// With line and key of what is wrong.
    pub fn parse(text: &str) -> Result<Workload, WorkloadError> {
        let workload: Workload = toml::from_str(text).map_err(|e| WorkloadError(e.to_string()))?;
        for watch in workload.camera.iter().flat_map(|c| &c.watch) {
            if !workload.model.iter().any(|m| m.name == watch.model) {
                let text =
                    format!("a camera watches model `{}`, which the file lacks", watch.model);
                return Err(WorkloadError(text));
            }
        }
        let positive = |what: &str, value: f64| {
            if value > 0.0 && value.is_finite() {
                Ok(())
            } else {
                Err(WorkloadError(format!("{what} is {value}, must be above 0")))
            }
        };
        positive("seconds", workload.seconds)?;
        for camera in &workload.camera {
            positive("camera fps", camera.fps)?;
            for watch in &camera.watch {
                positive("watch fps", watch.fps)?;
                positive("watch weight", watch.weight)?;
            }
        }
        for model in &workload.model {
            positive("batch cost", model.alpha_ms + model.beta_ms)?;
            if !(1..=base::limits::BATCH_MAX).contains(&model.batch_max) {
                return Err(WorkloadError(format!(
                    "batch_max is {}, must be 1 to 256",
                    model.batch_max
                )));
            }
            for (what, id) in [("model", &model.name), ("device", &model.device)] {
                if base::ModelId::new(id).is_err() {
                    return Err(WorkloadError(format!("{what} name `{id}` is not an id")));
                }
            }
        }
        Ok(workload)
    }

    /// The built-in workload of that name.
    pub fn built_in(name: &str) -> Option<Result<Workload, WorkloadError>> {
        let (_, text) = BUILT_IN.iter().find(|(n, _)| *n == name)?;
        Some(Workload::parse(text))
    }

    /// Builds the world.
    pub fn world(&self, seed: u64) -> World {
        let mut world = World::new(Config::default(), seed);
        let mut random = Random::new(seed, 0);
        let mut subscriptions = Vec::new();
        let mut number = 0;
        for group in &self.camera {
            for _ in 0..group.count {
                let id = format!("c{number:05}");
                number += 1;
                let period = Duration::from_secs_f64(1.0 / group.fps);
                let share = random.unit();
                let drift = random.range(-1.0, 1.0) * group.drift_ppm;
                world.camera(
                    &id,
                    CameraModel {
                        fps: group.fps,
                        phase: if group.aligned { Duration::ZERO } else { period.mul_f64(share) },
                        delay: ms(group.delay_ms),
                        jitter: ms(group.jitter_ms),
                        drift_ppm: drift,
                        slots: 30,
                        outages: group.outages_s.iter().map(|(f, t)| (at(*f), at(*t))).collect(),
                    },
                );
                for watch in &group.watch {
                    let mut spec = World::subscription(&id, &watch.model, Some(watch.fps));
                    spec.weight = watch.weight;
                    subscriptions.push(spec);
                }
            }
        }
        for model in &self.model {
            let mut faults = Vec::new();
            faults.extend(model.hang_at_s.map(|s| Fault::Hang(at(s))));
            faults.extend(model.slow_s.map(|(f, t, n)| Fault::Slow(at(f), at(t), n)));
            let crash = model.crash_s;
            faults.extend(
                crash.map(|(s, back)| Fault::Crash(at(s), Some(Duration::from_secs_f64(back)))),
            );
            let runner = RunnerModel {
                model: model.name.parse().expect("checked by parse"),
                device: model.device.parse().expect("checked by parse"),
                gpu: model.gpu,
                alpha: ms(model.alpha_ms),
                beta: ms(model.beta_ms),
                batch_max: model.batch_max,
                deadline: ms(model.deadline_ms),
                noise: model.noise,
                spikes: model.spikes,
                measured: !model.unmeasured,
                faults,
                ..RunnerModel::default()
            };
            world.runner(Instant::ZERO, runner);
        }
        world.subscribe(subscriptions);
        world
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_workload_parses() {
        for (name, _) in BUILT_IN {
            Workload::built_in(name).unwrap().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        assert!(Workload::built_in("nothing").is_none());
    }

    #[test]
    fn mistakes_are_named() {
        let good = BUILT_IN[0].1;
        for (from, to, says) in [
            ("seconds", "secnods", "secnods"),
            ("model = \"nanodet\"", "model = \"other\"", "`other`"),
            ("fps = 10.0", "fps = -1.0", "-1"),
        ] {
            let error = Workload::parse(&good.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
