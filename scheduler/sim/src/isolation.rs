//! What a runner that is slower than it promised costs the models beside it on its device.
//!
//! The workload `isolation` with one of its three models three times slower, and the same world
//! without that, from the same seed. Two healthy models may wait for one batch of the slow one more
//! than they did: for what a single frame takes it now, which nobody can take back once it began.

use crate::report::run;
use crate::workload::{ModelGroup, Workload};
use std::collections::BTreeMap;

/// The world.
const WORKLOAD: &str = "isolation";
/// How many times slower.
const SLOWER: u32 = 3;
/// The slowness begins then, and so does what is measured, seconds: the planner has settled.
const BEGIN_S: f64 = 20.0;

/// A healthy model.
#[derive(Debug, Clone, PartialEq)]
pub struct Healthy {
    /// Its name.
    pub model: String,
    /// `B_m`: the longest planned batch of another healthy model, or a single frame of the slow one.
    pub bound_ms: f64,
    /// What the slow one added to the 99th percentile of its ages, by seed.
    pub rises_ms: Vec<f64>,
}

impl Healthy {
    /// Median over the seeds; of an even number of them the mean of the middle two.
    pub fn median_ms(&self) -> f64 {
        let mut rises = self.rises_ms.clone();
        rises.sort_by(f64::total_cmp);
        let middle = |at: usize| rises.get(at).copied().unwrap_or(f64::NAN);
        f64::midpoint(middle((rises.len().max(1) - 1) / 2), middle(rises.len() / 2))
    }

    /// Whether it was not made to wait for longer than the bound.
    pub fn kept(&self) -> bool {
        self.median_ms() <= self.bound_ms
    }
}

/// The healthy models beside one that is slow for so many seconds, over the seeds 1 to `seeds`.
/// `restates`: the slow one announces what its batches take, unasked, as a runner of the product does
/// not.
///
/// # Panics
/// When a world breaks an invariant, or the built-in workload is not what this is about.
pub fn isolation(seeds: u64, slow_s: f64, restates: bool) -> Vec<Healthy> {
    let mut sound = Workload::built_in(WORKLOAD).expect("it is built in").expect("it is tested");
    (sound.warm_up_s, sound.seconds) = (BEGIN_S, slow_s);
    let mut slow = sound.clone();
    let faulty = slow.model.first_mut().expect("it has three models");
    faulty.slow_s = Some((BEGIN_S, BEGIN_S + slow_s, SLOWER));
    faulty.restates = restates;
    let faulty = faulty.clone();

    let mut healthy = bounds(&sound, &faulty);
    for seed in 1..=seeds {
        let p99 = |workload: &Workload| -> BTreeMap<String, f64> {
            let row = run(WORKLOAD, workload, seed).rows.swap_remove(0);
            assert_eq!(row.violations, [""; 0], "seed {seed}");
            row.models.into_iter().map(|(name, model)| (name, model.age_p99_ms)).collect()
        };
        let (before, after) = (p99(&sound), p99(&slow));
        for h in &mut healthy {
            h.rises_ms.push(after[&h.model] - before[&h.model]);
        }
    }
    healthy
}

/// The healthy models with their bounds.
fn bounds(sound: &Workload, faulty: &ModelGroup) -> Vec<Healthy> {
    let demand = sound.demand();
    let plans = demand.bounds().models;
    let loads = demand.loads.iter().filter(|load| load.name != faulty.name);
    // How long others wait for a batch of each.
    let mut lengths: Vec<(String, f64)> = loads
        .map(|load| (load.name.clone(), load.latency_ms(plans[&load.name].batch_planned.ceil())))
        .collect();
    let names: Vec<String> = lengths.iter().map(|(name, _)| name.clone()).collect();
    let single = faulty.alpha_ms + faulty.beta_ms;
    lengths.push((faulty.name.clone(), f64::from(SLOWER) * single));
    let healthy = |model: String| {
        let others = lengths.iter().filter(|(name, _)| *name != model).map(|(_, ms)| *ms);
        Healthy { bound_ms: others.fold(0.0, f64::max), rises_ms: Vec::new(), model }
    };
    names.into_iter().map(healthy).collect()
}
