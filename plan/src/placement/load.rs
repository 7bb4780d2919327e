//! What becomes of the models on one device: batches, launch intervals, ages, shares.
//!
//! The square-root rule of the study (2.2) with clamps, its bounds for the ages (B2, B3), and the
//! fair share under overload (2.5).

use super::cost::Cost;
use super::terms::{Placed, PlacementDevice, PlacementModel};
use crate::square_root::{relative_interval, weight};
use base::LatencyTable;
use std::time::Duration;

/// Halvings of the interval in which the multiplier of the square-root rule is looked for.
const STEPS: u32 = 64;
/// Rounding of sums over models is not overload.
const SLACK: f64 = 1e-9;

/// A model, or a part of it, on a device.
#[derive(Debug, Clone)]
pub(super) struct Load<'a> {
    pub model: &'a PlacementModel,
    /// Frames per second.
    pub rate: f64,
    table: &'a LatencyTable,
    cost: Cost,
    fixed: bool,
    /// It gets less than it asks for: a batch takes whatever frame is the newest by then.
    starved: bool,
}

/// A device's models after [`predict`].
#[derive(Debug)]
pub(super) struct Loaded {
    /// Seconds of execution per second at the batch limits.
    pub occupancy: f64,
    pub members: Vec<Placed>,
}

impl<'a> Load<'a> {
    /// `None` when the table is empty.
    pub fn new(
        model: &'a PlacementModel,
        table: &'a LatencyTable,
        rate: f64,
        fixed: bool,
    ) -> Option<Load<'a>> {
        let cost = Cost::fit(table, model.batch_max)?;
        Some(Load { model, rate, table, cost, fixed, starved: false })
    }

    /// Seconds of execution per second in batches of `batch`.
    pub fn occupancy(&self, batch: u32) -> f64 {
        self.rate * self.cost.per_frame(f64::from(batch))
    }

    fn p50(&self, batch: u32) -> f64 {
        self.table.p50(batch).unwrap_or_default().as_secs_f64()
    }

    fn p99(&self, batch: u32) -> f64 {
        self.table.p99(batch).unwrap_or_default().as_secs_f64()
    }

    /// Longest wait of a frame for the launch of a batch, seconds: while the batch fills, and no
    /// longer than until the camera's next frame takes its place. A batch of one does not fill, but
    /// may come while another is executed.
    fn wait(&self, batch: u32) -> f64 {
        let period = self.model.frame_period.as_secs_f64();
        if self.starved {
            period
        } else if batch > 1 {
            (self.model.wait_share * f64::from(batch) / self.rate).min(period)
        } else if self.model.streams > 1 {
            self.p99(1)
        } else {
            0.0
        }
    }

    /// Largest age of a result, seconds, when another batch of `blocking` seconds is in the way.
    fn worst(&self, batch: u32, blocking: f64, delivery: Duration) -> f64 {
        delivery.as_secs_f64() + self.wait(batch) + blocking + self.p99(batch)
    }

    /// Largest batch up to `most` whose results are in time behind `blocking` seconds; 0 = none.
    fn in_time(&self, most: u32, blocking: f64, delivery: Duration) -> u32 {
        let deadline = self.model.deadline.as_secs_f64();
        (1..=most).rev().find(|b| self.worst(*b, blocking, delivery) <= deadline).unwrap_or(0)
    }

    /// Largest batch that pays, has that many streams, and is in time on an idle device; at least 1.
    pub fn batch_limit(&self, delivery: Duration) -> u32 {
        let most = self.cost.batch_max.min(self.model.streams.max(1));
        self.in_time(most, 0.0, delivery).max(1)
    }

    /// Age of a single frame's result on an idle device, 99th percentile.
    pub fn single_age(&self, delivery: Duration) -> Duration {
        delivery + seconds(self.p99(1))
    }
}

/// Plans the models of a device as if nothing else ran on it.
pub(super) fn predict(loads: &[Load<'_>], device: &PlacementDevice, delivery: Duration) -> Loaded {
    let (limits, batches) = settle(loads, device, delivery);
    let given = shares(loads, &limits, device);
    if given.iter().all(|share| *share >= 1.0) {
        return describe(loads, &limits, &batches, &given, device, delivery);
    }
    // Starved models wait differently, so their batches may have to be smaller.
    let mut loads = loads.to_vec();
    for (load, share) in loads.iter_mut().zip(given) {
        load.starved = share < 1.0;
    }
    let (limits, batches) = settle(&loads, device, delivery);
    let given = shares(&loads, &limits, device);
    describe(&loads, &limits, &batches, &given, device, delivery)
}

/// Largest and planned batches.
fn settle(
    loads: &[Load<'_>],
    device: &PlacementDevice,
    delivery: Duration,
) -> (Vec<u32>, Vec<f64>) {
    let mut limits: Vec<u32> = loads.iter().map(|load| load.batch_limit(delivery)).collect();
    let mut batches = plan(loads, &limits, device);
    // Each round lowers a limit; two or three are usual.
    while relieve(loads, &batches, &mut limits, device, delivery) {
        batches = plan(loads, &limits, device);
    }
    (limits, batches)
}

fn describe(
    loads: &[Load<'_>],
    limits: &[u32],
    batches: &[f64],
    shares: &[f64],
    device: &PlacementDevice,
    delivery: Duration,
) -> Loaded {
    // What is left of a batch that is found executing, by its chance of being found.
    let residual = |at: usize| {
        let launches = loads[at].rate * shares[at] / batches[at];
        launches * loads[at].p50(whole(batches[at])).powi(2) / 2.0
    };
    let mut members = Vec::with_capacity(loads.len());
    for (at, load) in loads.iter().enumerate() {
        let (batch, size) = (batches[at], whole(batches[at]));
        let others = || (0..loads.len()).filter(move |o| *o != at && loads[*o].rate > 0.0);
        let behind = if others().count() < device.capacity as usize {
            0.0
        } else {
            others().map(residual).sum::<f64>() / f64::from(device.capacity.max(1))
        };
        let wait = if load.starved {
            load.wait(size) / 2.0
        } else {
            // While the others of its batch come, and behind a batch of its own model, which a
            // larger batch has in its interval.
            let fills =
                if batch > 1.0 { load.wait(size.max(2)) * (batch - 1.0) / batch } else { 0.0 };
            let own = if load.model.streams > 1 { residual(at) / batch } else { 0.0 };
            fills / 2.0 + own
        };
        let worst = load.worst(size, blocking(loads, batches, at, device), delivery);
        let mean = delivery.as_secs_f64() + wait + behind + load.p50(size);
        let rate = load.rate * shares[at];
        members.push(Placed {
            model: load.model.id.clone(),
            fixed: load.fixed,
            rate: load.rate,
            share: shares[at],
            occupancy: load.occupancy(limits[at]),
            memory_mib: load.model.memory_mib,
            cost: load.cost,
            batch_limit: limits[at],
            batch,
            interval: if rate > 0.0 { seconds(batch / rate) } else { Duration::ZERO },
            mean_age: seconds(mean.min(worst)),
            worst_age: seconds(worst),
            deadline: load.model.deadline,
        });
    }
    let occupancy = members.iter().map(|m| m.occupancy).fold(0.0, |sum, one| sum + one);
    Loaded { occupancy, members }
}

/// Mean batch sizes by the square-root rule: intervals g that make the mean age smallest,
/// sum lambda (kappa/2 + beta lambda) g, while sum alpha/g + sum lambda beta stays within the
/// usable share, each between the batch of one and its limit.
fn plan(loads: &[Load<'_>], limits: &[u32], device: &PlacementDevice) -> Vec<f64> {
    let spare = device.usable() - loads.iter().map(|l| l.rate * l.cost.beta).sum::<f64>();
    let batch = |at: usize, multiplier: f64| {
        let Load { model, rate, cost, .. } = &loads[at];
        let most = f64::from(limits[at]);
        // One runner has one token at most.
        let own = device.usable_share - rate * cost.beta;
        let least = if own > 0.0 { (rate * cost.alpha / own).clamp(1.0, most) } else { most };
        let weight = weight(*rate, model.wait_share, cost.beta);
        let root =
            if weight > 0.0 { relative_interval(cost.alpha, weight) * multiplier } else { 0.0 };
        (rate * root).clamp(least, most)
    };
    let needed = |multiplier: f64| {
        let launches = |at: usize| loads[at].rate * loads[at].cost.alpha / batch(at, multiplier);
        (0..loads.len()).map(launches).sum::<f64>()
    };
    let (mut low, mut high) = (0.0, 1.0);
    if needed(low) > spare {
        let loaded = |at: &usize| loads[*at].rate > 0.0 && loads[*at].cost.alpha > 0.0;
        let full = |multiplier: f64| {
            let at_limit = |at: usize| batch(at, multiplier) >= f64::from(limits[at]);
            (0..loads.len()).filter(loaded).all(at_limit)
        };
        while high < 1e12 && !full(high) {
            high *= 2.0;
        }
        for _ in 0..STEPS {
            let middle = f64::midpoint(low, high);
            if needed(middle) > spare { low = middle } else { high = middle }
        }
    } else {
        high = low;
    }
    (0..loads.len()).map(|at| batch(at, high)).collect()
}

/// Longest wait behind batches of other models: all tokens were taken at the same instant, and the
/// shortest of those batches ends first.
fn blocking(loads: &[Load<'_>], batches: &[f64], at: usize, device: &PlacementDevice) -> f64 {
    let others = (0..loads.len()).filter(|other| *other != at && loads[*other].rate > 0.0);
    let mut lengths: Vec<f64> = others.map(|o| loads[o].p99(whole(batches[o]))).collect();
    lengths.sort_by(|a, b| b.total_cmp(a));
    let token = device.capacity.max(1) as usize - 1;
    lengths.get(token).copied().unwrap_or_default()
}

/// Lowers the limits of a model that would be late, and of those that make it late. False = there
/// is nothing to lower.
fn relieve(
    loads: &[Load<'_>],
    batches: &[f64],
    limits: &mut [u32],
    device: &PlacementDevice,
    delivery: Duration,
) -> bool {
    let mut changed = false;
    for (at, load) in loads.iter().enumerate().filter(|(_, load)| load.rate > 0.0) {
        let behind = blocking(loads, batches, at, device);
        let deadline = load.model.deadline.as_secs_f64();
        if load.worst(whole(batches[at]), behind, delivery) <= deadline {
            continue;
        }
        let own = load.in_time(limits[at], behind, delivery).max(1);
        let lowered = own.min(whole(batches[at]).saturating_sub(1).max(1));
        changed |= lowered < limits[at];
        limits[at] = lowered.min(limits[at]);
        if load.worst(1, behind, delivery) <= deadline {
            continue;
        }
        let room = deadline - load.worst(1, 0.0, delivery);
        for (other, blocker) in loads.iter().enumerate().filter(|(other, _)| *other != at) {
            let short = (1..=limits[other]).rev().find(|b| blocker.p99(*b) <= room).unwrap_or(1);
            changed |= short < limits[other];
            limits[other] = short;
        }
    }
    changed
}

/// The share of its rate that each model gets: the same for all, except that one runner can't take
/// more than one token.
fn shares(loads: &[Load<'_>], limits: &[u32], device: &PlacementDevice) -> Vec<f64> {
    let needs: Vec<f64> =
        loads.iter().zip(limits).map(|(load, limit)| load.occupancy(*limit)).collect();
    let most = device.usable_share;
    let own = |need: f64| if need > most * (1.0 + SLACK) { most / need } else { 1.0 };
    let total = |fair: f64| needs.iter().map(|need| need * own(*need).min(fair)).sum::<f64>();
    let mut fair = 1.0;
    if total(fair) > device.usable() * (1.0 + SLACK) {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..STEPS {
            let middle = f64::midpoint(low, high);
            if total(middle) > device.usable() { high = middle } else { low = middle }
        }
        fair = low;
    }
    needs.iter().map(|need| own(*need).min(fair)).collect()
}

/// Members of a whole batch of this mean size.
fn whole(batch: f64) -> u32 {
    (batch - SLACK).ceil().max(1.0) as u32
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
