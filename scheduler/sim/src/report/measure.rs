//! The figures of one run.

use super::{ModelReport, RunReport};
use crate::bounds::Bounds;
use crate::checker::Violation;
use crate::policy::Policy;
use crate::workload::{Outcome, Play, Workload};
use base::{Instant, time::nanos};
use std::collections::BTreeMap;
use std::time::Duration;

/// A frame more or less in a window is no loss: from this share of its rate on an assignment counts
/// as having its ceiling (design: at its ceiling means 98 % of it).
const AT_CEILING: f64 = 0.98;
/// Assignments that were there for less than this say nothing about their share.
const PRESENT_MIN_S: f64 = 2.0;
/// Points of an age distribution.
const POINTS: usize = 200;
/// Length of a timeline.
const TIMELINE: Duration = Duration::from_millis(400);

/// What a picture needs of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plots {
    /// Quantiles of the age in milliseconds, at even steps from 0 to 1.
    pub ages_ms: Vec<f64>,
    /// Executions in the first 400 ms that were measured.
    pub launches: Vec<Launch>,
    /// Quantiles of `x / r` over the assignments, at even steps from 0 to 1.
    pub shares: Vec<f64>,
}

/// One bar of a timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Device.
    pub device: String,
    /// Model.
    pub model: String,
    /// Milliseconds since the timeline began.
    pub start_ms: f64,
    /// Its end.
    pub end_ms: f64,
    /// Members.
    pub batch: u32,
}

pub(super) fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn tenths_of_thousandths(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Sorted ages, nanoseconds.
struct Ages(Vec<u64>);

impl Ages {
    fn new(ages: impl Iterator<Item = Duration>) -> Ages {
        let mut ages: Vec<u64> = ages.map(nanos).collect();
        ages.sort_unstable();
        Ages(ages)
    }

    fn quantile_ms(&self, q: f64) -> f64 {
        let last = self.0.len().saturating_sub(1) as f64;
        let at = (last * q).round() as usize;
        thousandths(self.0.get(at).map_or(0.0, |ns| *ns as f64 / 1e6))
    }

    fn mean_ms(&self) -> f64 {
        let sum = self.0.iter().fold(0.0, |sum, ns| sum + *ns as f64);
        thousandths(sum / (self.0.len() as f64).max(1.0) / 1e6)
    }
}

/// Runs the play on and measures the workload's time from `start` on.
pub(super) fn measure<P: Policy>(
    policy: &str,
    workload: &Workload,
    bounds: Option<&Bounds>,
    play: &mut Play<P>,
    start: Instant,
) -> RunReport {
    let end = start + Duration::from_secs_f64(workload.seconds);
    play.run_until(start);
    play.outcomes();
    play.world.executions = Some(Vec::new());
    let busy_before: Duration = play.world.busy.iter().sum();
    let present_before = play.presence();
    play.run_until(end);
    let outcomes = play.outcomes();
    let present: Vec<f64> =
        play.presence().iter().zip(&present_before).map(|(now, before)| now - before).collect();
    if let Some(report) = play.world.scheduler.report(end) {
        play.world.checker.report(end, &report);
    }

    let seconds = workload.seconds;
    let deadlines: Vec<Duration> =
        play.shares.iter().map(|s| workload.deadline(s.spec.model.as_str())).collect();
    let in_time = |o: &&Outcome| o.age <= deadlines[o.assignment];
    let mut timely = vec![0u64; play.shares.len()];
    for outcome in outcomes.iter().filter(in_time) {
        timely[outcome.assignment] += 1;
    }
    let good = timely.iter().sum::<u64>();
    let busy = play.world.busy.iter().sum::<Duration>() - busy_before;
    let demand = workload.demand();
    let capacity: f64 = demand.capacity.iter().sum();
    let batches = batches(play);
    let models = models(workload, play, &outcomes, &batches);
    let ages = Ages::new(outcomes.iter().map(|o| o.age));
    let shares = shares(bounds, play, &timely, &present);
    let of_all = |some: &[f64]| some.iter().copied().min_by(f64::total_cmp);
    let goodput = good as f64 / seconds;
    let (frames, runs) =
        batches.values().fold((0, 0), |(f, r), (frames, runs)| (f + frames, r + runs));
    let mut report = RunReport {
        policy: policy.to_owned(),
        results: outcomes.len() as u64,
        goodput: thousandths(goodput),
        late_share: tenths_of_thousandths(
            (outcomes.len() as u64 - good) as f64 / (outcomes.len() as f64).max(1.0),
        ),
        age_mean_ms: ages.mean_ms(),
        age_p50_ms: ages.quantile_ms(0.5),
        age_p99_ms: ages.quantile_ms(0.99),
        age_max_ms: ages.quantile_ms(1.0),
        device_busy: tenths_of_thousandths(busy.as_secs_f64() / seconds / capacity.max(1.0)),
        batch_mean: thousandths(frames as f64 / (runs as f64).max(1.0)),
        batch_fill: None,
        jain: jain(&shares.scarce),
        share_min: tenths_of_thousandths(of_all(&shares.plain).unwrap_or(0.0)),
        share_min_at_ceiling: of_all(&shares.at_ceiling).map(tenths_of_thousandths),
        over_b2: None,
        over_b3: None,
        over_b6: None,
        streams: None,
        models,
        violations: play.world.checker.violations().iter().map(Violation::to_string).collect(),
        plots: Plots {
            ages_ms: (0..=POINTS).map(|n| ages.quantile_ms(n as f64 / POINTS as f64)).collect(),
            launches: launches(play, start),
            shares: shares.quantiles(),
        },
    };
    if let Some(bounds) = bounds {
        report.set_bounds(bounds, goodput);
    }
    report
}

impl RunReport {
    fn set_bounds(&mut self, bounds: &Bounds, goodput: f64) {
        self.over_b6 = Some(tenths_of_thousandths(goodput / bounds.b6_per_s));
        self.over_b2 = bounds.b2_ms.map(|b| tenths_of_thousandths(self.age_mean_ms / b));
        let over_b3 = |(name, m): (&String, &ModelReport)| {
            Some(m.age_p99_ms / bounds.models.get(name)?.b3_ms?)
        };
        self.over_b3 = self
            .models
            .iter()
            .filter_map(over_b3)
            .max_by(f64::total_cmp)
            .map(tenths_of_thousandths);
        let (mut sum, mut results) = (0.0, 0.0);
        for (name, model) in &self.models {
            if let Some(bound) = bounds.models.get(name) {
                sum += model.results_per_s * model.batch_mean / bound.batch_planned.max(1.0);
                results += model.results_per_s;
            }
        }
        self.batch_fill = (results > 0.0).then(|| tenths_of_thousandths(sum / results));
    }
}

/// Members and batches by model, of the measured time.
fn batches<P: Policy>(play: &Play<P>) -> BTreeMap<String, (u64, u64)> {
    let mut batches: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for execution in play.world.executions.iter().flatten() {
        let entry = batches.entry(execution.model.as_str().to_owned()).or_default();
        entry.0 += u64::from(execution.batch);
        entry.1 += 1;
    }
    batches
}

fn models<P: Policy>(
    workload: &Workload,
    play: &Play<P>,
    outcomes: &[Outcome],
    batches: &BTreeMap<String, (u64, u64)>,
) -> BTreeMap<String, ModelReport> {
    let mut by_model: BTreeMap<&str, Vec<Duration>> =
        workload.model.iter().map(|m| (m.name.as_str(), Vec::new())).collect();
    for outcome in outcomes {
        let model = play.shares[outcome.assignment].spec.model.as_str();
        by_model.entry(model).or_default().push(outcome.age);
    }
    let report = |(name, ages): (&str, Vec<Duration>)| {
        let ages = Ages::new(ages.into_iter());
        let (frames, runs) = batches.get(name).copied().unwrap_or_default();
        let report = ModelReport {
            results_per_s: thousandths(ages.0.len() as f64 / workload.seconds),
            age_mean_ms: ages.mean_ms(),
            age_p99_ms: ages.quantile_ms(0.99),
            age_max_ms: ages.quantile_ms(1.0),
            batch_mean: thousandths(frames as f64 / (runs as f64).max(1.0)),
            faulty: workload.model.iter().any(|m| m.name == name && m.faulty()),
            p99_rise_ms: None,
            max_rise_ms: None,
        };
        (name.to_owned(), report)
    };
    by_model.into_iter().map(report).collect()
}

struct Shares {
    /// `x / r`, rising.
    plain: Vec<f64>,
    /// `x / (w r)` of those that don't have their ceiling, or that fairness would not give it.
    scarce: Vec<f64>,
    /// `x / r` of those that fairness gives their ceiling.
    at_ceiling: Vec<f64>,
}

impl Shares {
    fn quantiles(&self) -> Vec<f64> {
        let last = self.plain.len().saturating_sub(1) as f64;
        let at = |n: usize| (last * n as f64 / POINTS as f64).round() as usize;
        (0..=POINTS).filter_map(|n| self.plain.get(at(n)).copied()).collect()
    }
}

fn shares<P: Policy>(
    bounds: Option<&Bounds>,
    play: &Play<P>,
    timely: &[u64],
    present: &[f64],
) -> Shares {
    let mut shares = Shares { plain: Vec::new(), scarce: Vec::new(), at_ceiling: Vec::new() };
    for (i, share) in play.shares.iter().enumerate() {
        // Slower than once in that time: a whole frame more or less is no injustice.
        if present[i] < PRESENT_MIN_S {
            continue;
        }
        let plain = timely[i] as f64 / (share.rate * present[i]);
        let weighted = plain / share.spec.weight;
        let fair = bounds.and_then(|b| b.models.get(share.spec.model.as_str()));
        let enough = fair.map(|f| f.theta.is_none_or(|theta| theta * share.spec.weight >= 1.0));
        shares.plain.push(plain);
        if enough == Some(true) {
            shares.at_ceiling.push(plain);
        }
        if plain < AT_CEILING || enough == Some(false) {
            shares.scarce.push(weighted);
        }
    }
    shares.plain.sort_by(f64::total_cmp);
    shares
}

/// Jain's index, `(sum x)^2 / (n sum x^2)`.
fn jain(shares: &[f64]) -> Option<f64> {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
    (squares > 0.0).then(|| tenths_of_thousandths(sum * sum / (shares.len() as f64 * squares)))
}

fn launches<P: Policy>(play: &Play<P>, from: Instant) -> Vec<Launch> {
    let to = from + TIMELINE;
    let since = |at: Instant| (at.0 as f64 - from.0 as f64) / 1e6;
    let shown = play.world.executions.iter().flatten().filter(|e| e.start < to && e.end > from);
    let launch = |e: &crate::world::Execution| Launch {
        device: e.device.as_str().to_owned(),
        model: e.model.as_str().to_owned(),
        start_ms: since(e.start).max(0.0),
        end_ms: since(e.end.min(to)),
        batch: e.batch,
    };
    shown.map(launch).collect()
}
