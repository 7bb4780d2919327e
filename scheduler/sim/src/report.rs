//! Runs a workload and says how it went.

use crate::checker::Violation;
use crate::workload::Workload;
use base::{Instant, time::nanos};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a run gave. Holds no wall-clock figure: same workload and seed, same bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// Name of the workload.
    pub workload: String,
    /// Name of the policy.
    pub policy: String,
    /// Seed.
    pub seed: u64,
    /// Virtual seconds that were measured.
    pub seconds: f64,
    /// Results in that time.
    pub results: u64,
    /// Of them within their deadline, per second.
    pub goodput: f64,
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
    /// Jain's index over granted / (weight x max fps).
    pub jain: f64,
    /// Smallest granted / max fps.
    pub share_min: f64,
    /// Per model: results per second and mean age.
    pub models: BTreeMap<String, ModelReport>,
    /// Broken invariants, none in a sound run.
    pub violations: Vec<String>,
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
}

fn ms(ns: f64) -> f64 {
    (ns / 1e3).round() / 1e3
}

fn quantile(sorted: &[u64], q: f64) -> f64 {
    sorted
        .get(((sorted.len() as f64 - 1.0).max(0.0) * q).round() as usize)
        .map_or(0.0, |v| *v as f64)
}

fn mean(values: &[u64]) -> f64 {
    values.iter().map(|v| *v as f64).sum::<f64>() / (values.len() as f64).max(1.0)
}

/// Runs the production policy over a workload.
pub fn run(name: &str, workload: &Workload, seed: u64) -> RunReport {
    let mut world = workload.world(seed);
    let start = Instant::ZERO + Duration::from_secs_f64(workload.warm_up_s);
    let end = start + Duration::from_secs_f64(workload.seconds);
    world.run_until(start);
    let busy_before: Duration = world.busy.iter().sum();
    let batches_before: u64 = world.batches.iter().sum();
    let skip = world.delivered.len();
    world.run_until(end);
    let report = world.scheduler.report(end);
    world.checker.report(end, &report);

    let measured = &world.delivered[skip..];
    let mut ages: Vec<u64> = measured.iter().map(|d| nanos(d.age)).collect();
    ages.sort_unstable();
    let deadlines: BTreeMap<&str, Duration> = workload
        .model
        .iter()
        .map(|m| (m.name.as_str(), Duration::from_secs_f64(m.deadline_ms / 1e3)))
        .collect();
    let mut by_model: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut by_subscription: BTreeMap<String, u64> = BTreeMap::new();
    let mut in_time = 0u64;
    for delivered in measured {
        let key = delivered.binding.subscription;
        let id = world.scheduler.subscription_id(key).unwrap_or_default();
        let model = id.split('/').nth(1).unwrap_or_default();
        let deadline = deadlines.get(model).copied().unwrap_or(Duration::MAX);
        in_time += u64::from(delivered.age <= deadline);
        by_model.entry(model.to_owned()).or_default().push(nanos(delivered.age));
        *by_subscription.entry(id.to_owned()).or_default() += 1;
    }
    let seconds = workload.seconds;
    let shares: Vec<(f64, f64)> = world
        .desired()
        .iter()
        .map(|s| {
            let got = by_subscription.get(&s.id).copied().unwrap_or(0) as f64 / seconds;
            let share = got / s.max_fps.unwrap_or(1.0);
            (share / s.weight, share)
        })
        .collect();
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(s, q), (x, _)| (s + x, q + x * x));
    let devices: std::collections::BTreeSet<_> = workload.model.iter().map(|m| &m.device).collect();
    let busy = world.busy.iter().sum::<Duration>() - busy_before;
    let batches = world.batches.iter().sum::<u64>() - batches_before;
    RunReport {
        workload: name.to_owned(),
        policy: "fab-base".into(),
        seed,
        seconds,
        results: measured.len() as u64,
        goodput: (in_time as f64 / seconds * 1e3).round() / 1e3,
        age_mean_ms: ms(mean(&ages)),
        age_p50_ms: ms(quantile(&ages, 0.5)),
        age_p99_ms: ms(quantile(&ages, 0.99)),
        age_max_ms: ms(quantile(&ages, 1.0)),
        device_busy: (busy.as_secs_f64() / seconds / devices.len().max(1) as f64 * 1e4).round()
            / 1e4,
        batch_mean: (measured.len() as f64 / batches.max(1) as f64 * 1e3).round() / 1e3,
        jain: if squares > 0.0 { sum * sum / (shares.len() as f64 * squares) } else { 0.0 },
        share_min: shares.iter().map(|(_, s)| *s).fold(f64::MAX, f64::min),
        models: by_model
            .into_iter()
            .map(|(model, mut ages)| {
                ages.sort_unstable();
                let report = ModelReport {
                    results_per_s: (ages.len() as f64 / seconds * 1e3).round() / 1e3,
                    age_mean_ms: ms(mean(&ages)),
                    age_p99_ms: ms(quantile(&ages, 0.99)),
                };
                (model, report)
            })
            .collect(),
        violations: world.checker.violations().iter().map(Violation::to_string).collect(),
    }
}

impl RunReport {
    /// The report as a table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} ({}, seed {}, {} s)\n  results {}  within deadline {:.1}/s  batch {:.2}  device busy \
             {:.1} %\n  age ms: mean {:.1}  p50 {:.1}  p99 {:.1}  max {:.1}\n  fairness: Jain {:.4}  \
             smallest share {:.3}\n",
            self.workload,
            self.policy,
            self.seed,
            self.seconds,
            self.results,
            self.goodput,
            self.batch_mean,
            self.device_busy * 100.0,
            self.age_mean_ms,
            self.age_p50_ms,
            self.age_p99_ms,
            self.age_max_ms,
            self.jain,
            self.share_min,
        );
        for (model, m) in &self.models {
            text += &format!(
                "  {model}: {:.1} results/s  age mean {:.1}  p99 {:.1} ms\n",
                m.results_per_s, m.age_mean_ms, m.age_p99_ms
            );
        }
        for violation in &self.violations {
            text += &format!("  VIOLATION: {violation}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let workload = Workload::built_in("share").unwrap().unwrap();
        let json = |seed| serde_json::to_string(&run("share", &workload, seed)).unwrap();
        assert_eq!(json(7), json(7));
        assert_ne!(json(7), json(8));
    }

    #[test]
    fn built_in_workloads_break_no_invariant() {
        for (name, _) in crate::workload::BUILT_IN {
            let workload = Workload::built_in(name).unwrap().unwrap();
            let report = run(name, &workload, 1);
            assert_eq!(report.violations, Vec::<String>::new(), "{name}");
            assert!(report.results > 0, "{name}");
        }
    }
}
