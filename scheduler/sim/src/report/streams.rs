//! How many streams a device serves within the deadline: a binary search over the number of
//! cameras.

use super::{Comparison, RunReport, one};
use crate::workload::Workload;

/// Each probe runs this long after at most as long a warm-up, virtual seconds (chosen: at 50 results
/// per second the 99th percentile rests on the five oldest).
const PROBE_S: f64 = 10.0;
/// Frames that have to come in all: below it p99 was bought by dropping.
const SERVED_MIN: f64 = 0.98;
/// The search ends when the bracket is this narrow, relative.
const EXACT: f64 = 0.01;
/// What the search begins with, over the load that full batches allow.
const BEYOND: f64 = 1.05;

impl Workload {
    /// The same with `scale` times as many cameras in each group, at least one.
    fn scaled(&self, scale: f64) -> Workload {
        let mut workload = self.clone();
        for group in &mut workload.camera {
            group.count = ((f64::from(group.count) * scale).round() as u32).max(1);
        }
        workload.warm_up_s = workload.warm_up_s.min(PROBE_S);
        workload.seconds = PROBE_S;
        workload
    }

    fn streams(&self) -> f64 {
        self.demand().loads.iter().flat_map(|l| &l.classes).map(|c| c.count).sum()
    }
}

impl Comparison {
    /// Fills in the streams per device of every row: the largest number of assignments, cameras
    /// being added in the proportions of the workload, up to which the 99th percentile of every
    /// model is within its deadline and 98 % of the frames that were asked for are answered in time.
    /// Nothing is found for a world that does not become steady.
    pub fn search_streams(&mut self, workload: &Workload) {
        if !workload.steady() {
            return;
        }
        for row in &mut self.rows {
            row.streams = search(workload, self.seed, &row.policy);
        }
    }
}

fn search(workload: &Workload, seed: u64, policy: &str) -> Option<f64> {
    let devices = workload.demand().capacity.len() as f64;
    let served = |scale: f64| -> Option<bool> {
        let probe = workload.scaled(scale);
        let row = one(&probe, seed, policy)?;
        Some(serves(&probe, &row))
    };
    let (mut low, mut high) = (0.0, BEYOND / workload.demand().rho());
    if served(high)? {
        low = high;
    }
    while high - low > EXACT * high && workload.scaled(low).camera != workload.scaled(high).camera {
        let middle = f64::midpoint(low, high);
        if served(middle)? { low = middle } else { high = middle }
    }
    Some(if low == 0.0 { 0.0 } else { (workload.scaled(low).streams() / devices).floor() })
}

fn serves(workload: &Workload, row: &RunReport) -> bool {
    let asked: f64 = workload.demand().loads.iter().map(|l| l.lambda()).sum();
    let in_time = |(name, model): (&String, &super::ModelReport)| {
        model.age_p99_ms <= workload.deadline(name).as_secs_f64() * 1e3
    };
    row.models.iter().all(in_time) && row.goodput >= SERVED_MIN * asked
}
