//! Runs workloads and says how it went, beside the bounds.

mod measure;
mod seeds;
mod streams;
mod table;

pub use measure::Plots;
pub use seeds::{Seeds, Spread};

use crate::bounds::Bounds;
use crate::policy::Policy;
use crate::rivals::{FAIR, RIVALS, rival};
use crate::workload::Workload;
use base::Instant;
use scheduler::{Config, Scheduler, Steering};
use serde::Serialize;
use std::collections::BTreeMap;

/// The production policy with the settings that the workload names.
pub const FAB: &str = "fab";
/// The production policy as production sets it.
pub const FAB_DEFAULTS: &str = "fab-defaults";
/// The same, never steered.
pub const FAB_OFF: &str = "fab-off";
/// The same, steered wherever the rates allow it.
pub const FAB_ON: &str = "fab-on";

/// A workload under one or several policies. Holds no wall-clock figure: same workload and seed,
/// same bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Name of the workload.
    pub workload: String,
    /// What it shows.
    pub description: String,
    /// Seed.
    pub seed: u64,
    /// Virtual seconds that were measured.
    pub seconds: f64,
    /// Virtual seconds before.
    pub warm_up_s: f64,
    /// What no policy can beat; `None` for a world that never becomes steady.
    pub bounds: Option<Bounds>,
    /// Name of the same world without the fault.
    pub beside: Option<String>,
    /// Its bounds: `B_m` is what a fault may add to the p99 of other models.
    pub beside_bounds: Option<Bounds>,
    /// One for each policy.
    pub rows: Vec<RunReport>,
}

/// What a run gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// Name of the policy.
    pub policy: String,
    /// Results in the measured time.
    pub results: u64,
    /// Of them within their deadline, per second.
    pub goodput: f64,
    /// Share of the results that were older than their deadline.
    pub late_share: f64,
    /// Mean age, milliseconds.
    pub age_mean_ms: f64,
    /// Median.
    pub age_p50_ms: f64,
    /// 99th percentile.
    pub age_p99_ms: f64,
    /// Largest.
    pub age_max_ms: f64,
    /// Share of the measured time that devices executed, mean over the devices.
    pub device_busy: f64,
    /// Mean batch size.
    pub batch_mean: f64,
    /// Mean batch over the planned one, mean over the models by results.
    pub batch_fill: Option<f64>,
    /// Jain's index over `x / (w r)` of the assignments that can't all have their ceiling: x are the
    /// results per second in time, w the weight, r the most that it can get. `None` when all have.
    pub jain: Option<f64>,
    /// Smallest `x / r`.
    pub share_min: f64,
    /// Smallest `x / r` of those that the fair bound gives their ceiling.
    pub share_min_at_ceiling: Option<f64>,
    /// Mean age over B2. For a policy whose copies are free, over the B2 of a world where they are.
    pub over_b2: Option<f64>,
    /// 99th percentile over B3, of the model where that is largest.
    pub over_b3: Option<f64>,
    /// Goodput over B6.
    pub over_b6: Option<f64>,
    /// Assignments per device up to which every model's 99th percentile is within its deadline.
    pub streams: Option<f64>,
    /// By model.
    pub models: BTreeMap<String, ModelReport>,
    /// Broken invariants, none in a sound run.
    pub violations: Vec<String>,
    /// What a picture needs.
    #[serde(skip)]
    pub plots: Plots,
}

/// One model's part of a [`RunReport`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelReport {
    /// Results per second.
    pub results_per_s: f64,
    /// Mean age, milliseconds.
    pub age_mean_ms: f64,
    /// 99th percentile, milliseconds.
    pub age_p99_ms: f64,
    /// Largest, milliseconds.
    pub age_max_ms: f64,
    /// Mean batch size.
    pub batch_mean: f64,
    /// It is the one that misbehaves.
    pub faulty: bool,
    /// 99th percentile less that of the same world without the fault.
    pub p99_rise_ms: Option<f64>,
    /// Largest age less that of the same world without the fault.
    pub max_rise_ms: Option<f64>,
}

/// Runs the production policy over a workload with the settings that it names.
pub fn run(name: &str, workload: &Workload, seed: u64) -> Comparison {
    compare(name, workload, seed, &[FAB]).expect("the production policy is known")
}

/// Names of the policies, the production policy first.
pub fn policies() -> Vec<&'static str> {
    [&[FAB, FAB_DEFAULTS, FAB_OFF, FAB_ON][..], &RIVALS].concat()
}

/// Names of the rivals that pay as production does.
pub fn fair_rivals() -> Vec<String> {
    RIVALS.iter().map(|name| format!("{name}{FAIR}")).collect()
}

/// Runs policies over a workload, each in a world of the same seed. `None` for an unknown policy.
pub fn compare(
    name: &str,
    workload: &Workload,
    seed: u64,
    policies: &[&str],
) -> Option<Comparison> {
    let bounds = workload.steady().then(|| workload.demand().bounds());
    let beside = workload.beside.as_deref().and_then(Workload::built_in).and_then(Result::ok);
    let mut rows = Vec::new();
    for policy in policies {
        let mut row = one(workload, seed, policy)?;
        if let Some(sound) = &beside {
            row.set_beside(&one(sound, seed, policy)?);
        }
        rows.push(row);
    }
    Some(Comparison {
        workload: name.to_owned(),
        description: workload.description.clone(),
        seed,
        seconds: workload.seconds,
        warm_up_s: workload.warm_up_s,
        bounds,
        beside: workload.beside.clone(),
        beside_bounds: beside.map(|sound| sound.demand().bounds()),
        rows,
    })
}

fn one(workload: &Workload, seed: u64, policy: &str) -> Option<RunReport> {
    windows(workload, seed, policy, &[workload.warm_up_s]).map(|mut reports| reports.remove(0))
}

/// One world, measured for the workload's time from each of `begins` on (seconds, rising, at least that
/// far apart). `None` for an unknown policy.
pub fn windows(
    workload: &Workload,
    seed: u64,
    policy: &str,
    begins: &[f64],
) -> Option<Vec<RunReport>> {
    let default = workload.default_config();
    let config = match policy {
        FAB => workload.config(),
        FAB_OFF => Config { steering: Steering::Off, ..default },
        FAB_ON => Config { steering: Steering::On, ..default },
        _ => default,
    };
    let made: Box<dyn Policy> = match policy {
        FAB | FAB_DEFAULTS | FAB_OFF | FAB_ON => Box::new(Scheduler::new(config.clone())),
        _ => rival(policy)?,
    };
    let demand = match made.privileges().free_copies {
        true => workload.demand_without_copies(),
        false => workload.demand(),
    };
    let bounds = workload.steady().then(|| demand.bounds());
    let last = begins.last().copied().unwrap_or(workload.warm_up_s);
    let lasting = Workload { warm_up_s: last, ..workload.clone() };
    let mut play = lasting.play_policy(made, config, seed);
    let report = |begin: &f64| {
        let start = Instant::ZERO + std::time::Duration::from_secs_f64(*begin);
        measure::measure(policy, workload, bounds.as_ref(), &mut play, start)
    };
    Some(begins.iter().map(report).collect())
}

impl RunReport {
    fn set_beside(&mut self, sound: &RunReport) {
        for (name, model) in &mut self.models {
            let Some(before) = sound.models.get(name) else { continue };
            let rise = |now: f64, before: f64| Some(measure::thousandths(now - before));
            model.p99_rise_ms = rise(model.age_p99_ms, before.age_p99_ms);
            model.max_rise_ms = rise(model.age_max_ms, before.age_max_ms);
        }
    }
}

impl Comparison {
    /// Whether no invariant was broken.
    pub fn sound(&self) -> bool {
        self.rows.iter().all(|row| row.violations.is_empty())
    }
}

#[cfg(test)]
mod tests;
