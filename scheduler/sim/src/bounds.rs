//! What no policy can beat: bounds on age and goodput as functions of a workload's numbers.
//!
//! Written down once, apart from any policy, so that a table can say "within x % of the bound".
//! Notation: model m costs `L(b) = alpha + beta b` for a batch of b, is asked for `lambda` frames
//! per second, its cameras deliver `Phi` frames per second in all; `kappa = lambda / Phi` is the
//! share of frames that must be taken, g its launch interval (`b = lambda g`), D its deadline,
//! delta the time from capture to the ring, K the capacity of the devices, U the share of it that
//! the planner gives away. Times are milliseconds, rates per second.
//!
//! Two kinds of fixed delay are kept apart. [`Load::delay_ms`] is delta, [`Load::path_ms`] is what
//! this world adds to any policy's result (two ways over a socket, copy, postprocessing);
//! [`Demand::without_path`] gives the bounds of the bare model, as papers state them.
//!
//! Executions are taken at their mean: noise has mean 1, and a share s of batches that take twice as
//! long makes alpha and beta `1 + s` times as large.
#![allow(clippy::cast_precision_loss, reason = "batch sizes and counts are far below 2^52")]

mod fair;
mod interval;

pub use fair::Fair;
pub use interval::Plan;

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Subscriptions of one model that are alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// How many.
    pub count: f64,
    /// Ceiling of each.
    pub max_fps: f64,
    /// Weight of each in the fair order.
    pub weight: f64,
    /// Frames per second of their cameras.
    pub camera_fps: f64,
    /// Their cameras capture at the same instants: nothing is known about phases.
    pub aligned: bool,
}

impl Class {
    /// What one subscription can get at most: its ceiling, or every frame.
    pub fn rate(&self) -> f64 {
        self.max_fps.min(self.camera_fps)
    }
}

/// One model as the bounds see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Its name.
    pub name: String,
    /// Measured `(b, L(b))`, sizes rising; empty: `alpha + beta b`.
    pub table: Vec<(u32, f64)>,
    /// Fixed cost of a batch. With a table: of a line that lies nowhere above it.
    pub alpha_ms: f64,
    /// Cost of a member, above 0.
    pub beta_ms: f64,
    /// The line that a planner works with: `alpha_ms` and `beta_ms`, with a table its least squares.
    pub fit_ms: (f64, f64),
    /// Largest batch of the engine.
    pub batch_max: u32,
    /// Indices of the devices that run it.
    pub devices: BTreeSet<usize>,
    /// Deadline D.
    pub deadline_ms: f64,
    /// Capture to published, delta.
    pub delay_ms: f64,
    /// What else every result of this model passes through.
    pub path_ms: f64,
    /// Time that a device idles between two batches while its token changes hands.
    pub turn_ms: f64,
    /// Who asks for it.
    pub classes: Vec<Class>,
}

impl Load {
    /// Frames per second asked for.
    pub fn lambda(&self) -> f64 {
        self.classes.iter().map(|c| c.count * c.rate()).sum()
    }

    /// Frames per second that its cameras deliver, `Phi`; infinite when some are aligned: the b
    /// freshest of N frames that land at one instant are all new.
    pub fn frames_per_s(&self) -> f64 {
        if self.classes.iter().any(|c| c.aligned) {
            return f64::INFINITY;
        }
        self.classes.iter().map(|c| c.count * c.camera_fps).sum()
    }

    /// Share of frames that must be taken, `kappa = lambda / Phi`. At uniform phases the b freshest
    /// frames of all cameras span `b / Phi`, so a batch waits `kappa g / 2` on the mean and its
    /// oldest member `kappa g`. (For equal cameras this is the mean of r/F; for mixed ones the mean
    /// of r/F is larger and no bound.)
    pub fn kappa(&self) -> f64 {
        self.lambda() / self.frames_per_s()
    }

    /// `L(b)`.
    pub fn latency_ms(&self, batch: f64) -> f64 {
        let after = self.table.partition_point(|(b, _)| f64::from(*b) < batch);
        match (after.checked_sub(1).and_then(|i| self.table.get(i)), self.table.get(after)) {
            (None, None) => self.alpha_ms + self.beta_ms * batch,
            (None, Some((_, first))) => *first,
            (Some((b, last)), None) => last * batch / f64::from(*b),
            (Some((b0, l0)), Some((b1, l1))) => {
                let share = (batch - f64::from(*b0)) / f64::from(b1 - b0);
                l0 + (l1 - l0) * share
            }
        }
    }

    /// `b^D`: the largest batch whose members can all be in time, 0 when not even a single frame
    /// can: `delta + path + kappa g + L(b) <= D` with `g = b / lambda`, hence for a linear L
    /// `b <= (D - delta - path - alpha) / (beta + kappa / lambda)`, and at most the engine's.
    /// `kappa / lambda = 1 / Phi`, so it is the same at any served rate.
    pub fn batch_in_time(&self) -> u32 {
        let room = self.deadline_ms - self.delay_ms - self.path_ms;
        let span_ms = 1e3 / self.frames_per_s();
        let fits = |b: u32| f64::from(b) * span_ms + self.latency_ms(f64::from(b)) <= room + 1e-9;
        (1..=self.batch_max).take_while(|b| fits(*b)).last().unwrap_or(0)
    }

    /// Least device time per frame among batches that are in time: `alpha / b^D + beta` for a linear
    /// L. `None` = no frame can be in time.
    pub fn cost_ms(&self) -> Option<f64> {
        let per_frame = |b: u32| self.latency_ms(f64::from(b)) / f64::from(b);
        (1..=self.batch_in_time()).map(per_frame).min_by(f64::total_cmp)
    }

    /// B1: no result is younger than one frame alone, `delta + path + L(1)` (with a table, its
    /// smallest L).
    pub fn b1_ms(&self) -> f64 {
        let rows = self.table.iter().map(|(_, l)| *l);
        self.delay_ms + self.path_ms + rows.fold(self.latency_ms(1.0), f64::min)
    }

    /// The line through the rows of a table by least squares: alpha and beta.
    pub fn line_through(table: &[(u32, f64)]) -> (f64, f64) {
        let n = table.len() as f64;
        let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
            table.iter().map(|(b, l)| f(f64::from(*b), *l)).sum()
        };
        let (x, y) = (sum(&|b, _| b), sum(&|_, l| l));
        let (xx, xy) = (sum(&|b, _| b * b), sum(&|b, l| b * l));
        let beta = if table.len() > 1 { (n * xy - x * y) / (n * xx - x * x) } else { 0.0 };
        let beta = beta.max(1e-6);
        (((y - beta * x) / n).max(1e-6), beta)
    }

    /// The same line lowered until it lies nowhere above a row: bounds stay bounds with it.
    pub fn line_below(table: &[(u32, f64)]) -> (f64, f64) {
        let (_, beta) = Load::line_through(table);
        let above = |(b, l): &(u32, f64)| l - beta * f64::from(*b);
        let alpha = table.iter().map(above).min_by(f64::total_cmp).unwrap_or(0.0);
        (alpha.max(0.0), beta)
    }
}

/// Everything that the bounds depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// The models.
    pub loads: Vec<Load>,
    /// Capacity of each device: batches that execute at a time.
    pub capacity: Vec<f64>,
    /// U.
    pub usable_share: f64,
}

/// The bounds of a workload. `None` where a bound says nothing: B2 and B3 in overload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bounds {
    /// Full-batch load `sum lambda (alpha / b^D + beta) / K`, of the fullest set of devices.
    pub rho: f64,
    /// B1, the smallest over the models.
    pub b1_ms: f64,
    /// B2, see [`Demand::b2_ms`], with the path of this world.
    pub b2_ms: Option<f64>,
    /// B2 without the path: delta and executions only.
    pub b2_bare_ms: Option<f64>,
    /// B2 with the path and the idle time between two batches of a device.
    pub b2_token_ms: Option<f64>,
    /// B3, the largest over the models: largest age in the steady state, with the path.
    pub b3_ms: Option<f64>,
    /// B4, see [`Demand::eager_cycle_ms`].
    pub b4_cycle_ms: Option<f64>,
    /// B6: results per second at weighted max-min fairness, all in time.
    pub b6_per_s: f64,
    /// Scale of the fair rates where they are smallest, `None` when nothing is short.
    pub theta: Option<f64>,
    /// By model.
    pub models: BTreeMap<String, ModelBounds>,
}

/// One model's part of [`Bounds`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelBounds {
    /// Frames per second asked for.
    pub lambda: f64,
    /// Largest batch in time, `b^D`.
    pub batch_in_time: u32,
    /// Mean batch of the plan that B3 belongs to; `b^D` in overload.
    pub batch_planned: f64,
    /// Its launch interval, milliseconds.
    pub interval_ms: Option<f64>,
    /// B3: `delta + path + kappa g + L(b) + B_m`.
    pub b3_ms: Option<f64>,
    /// `delta + path + 0.99 kappa g + L(b) + B_m`.
    pub b3_p99_ms: Option<f64>,
    /// `B_m`: the longest batch of another model on a shared device.
    pub blocking_ms: f64,
    /// B6 of this model, results per second.
    pub b6_per_s: f64,
    /// Scale of its fair rates, `x_i = min(r_i, theta w_i r_i)`; `None` when nothing is short.
    pub theta: Option<f64>,
}

impl Demand {
    /// The same with nothing but delta and executions.
    pub fn without_path(&self) -> Demand {
        self.changed(|load| (load.path_ms, load.turn_ms) = (0.0, 0.0))
    }

    fn without_turn(&self) -> Demand {
        self.changed(|load| load.turn_ms = 0.0)
    }

    fn changed(&self, change: impl Fn(&mut Load)) -> Demand {
        let mut demand = self.clone();
        demand.loads.iter_mut().for_each(change);
        demand
    }

    /// Groups of models that share devices, directly or through others: indices of the loads and
    /// the capacity of their devices together.
    pub(crate) fn groups(&self) -> Vec<(Vec<usize>, f64)> {
        let mut groups: Vec<(Vec<usize>, BTreeSet<usize>)> = Vec::new();
        for (i, load) in self.loads.iter().enumerate() {
            let mut merged = (vec![i], load.devices.clone());
            groups.retain(|(loads, devices)| {
                let apart = devices.is_disjoint(&merged.1);
                if !apart {
                    merged.0.extend(loads);
                    merged.1.extend(devices);
                }
                apart
            });
            merged.0.sort_unstable();
            groups.push(merged);
        }
        let capacity = |devices: &BTreeSet<usize>| devices.iter().map(|d| self.capacity[*d]).sum();
        groups.into_iter().map(|(loads, devices)| (loads, capacity(&devices))).collect()
    }

    /// B4: the cycle of eager launches, `T = sum alpha / (K - rho_b)`, the fixed point at which each
    /// model launches what gathered in one round of all. `b = lambda T`, at least 1 (no clamp to
    /// the engine). Of the slowest group of devices; `None` in overload.
    pub fn eager_cycle_ms(&self) -> Option<f64> {
        let cycle = |(loads, capacity): &(Vec<usize>, f64)| {
            let sum = |f: &dyn Fn(&Load) -> f64| loads.iter().map(|i| f(&self.loads[*i])).sum();
            let (alpha, rho): (f64, f64) =
                (sum(&|l| l.alpha_ms), sum(&|l| l.lambda() * l.beta_ms / 1e3));
            (*capacity > rho).then(|| alpha / (capacity - rho))
        };
        self.groups().iter().map(cycle).try_fold(0.0, |most, t| Some(f64::max(most, t?)))
    }

    /// All bounds.
    pub fn bounds(&self) -> Bounds {
        let timely = self.without_turn();
        let planner = timely.changed(|load| (load.alpha_ms, load.beta_ms) = load.fit_ms);
        let plans = match self.rho() <= self.usable_share {
            true => planner.plans(self.usable_share),
            false => vec![None; self.loads.len()],
        };
        let fair = timely.fair();
        let longest = |i: usize| -> f64 {
            let shared =
                |j: &usize| *j != i && !self.loads[*j].devices.is_disjoint(&self.loads[i].devices);
            let length = |j: usize| {
                let load = &self.loads[j];
                let planned = plans[j].as_ref().map(|p| p.batch.ceil());
                load.latency_ms(planned.unwrap_or_else(|| f64::from(load.batch_in_time().max(1))))
            };
            (0..self.loads.len()).filter(shared).map(length).fold(0.0, f64::max)
        };
        let of_model = |(i, load): (usize, &Load)| {
            let plan = plans[i].as_ref();
            let blocking = longest(i);
            let age = |share: f64| {
                plan.map(|p| {
                    let wait = share * load.kappa() * p.interval_ms;
                    load.delay_ms + load.path_ms + wait + load.latency_ms(p.batch) + blocking
                })
            };
            let bounds = ModelBounds {
                lambda: load.lambda(),
                batch_in_time: load.batch_in_time(),
                batch_planned: plan.map_or(f64::from(load.batch_in_time()), |p| p.batch),
                interval_ms: plan.map(|p| p.interval_ms),
                b3_ms: age(1.0),
                b3_p99_ms: age(0.99),
                blocking_ms: blocking,
                b6_per_s: fair.per_load[i],
                theta: Some(fair.theta_by_load[i]).filter(|t| t.is_finite()),
            };
            (load.name.clone(), bounds)
        };
        let models: BTreeMap<_, _> = self.loads.iter().enumerate().map(of_model).collect();
        let mut b3 = models.values().map(|m| m.b3_ms);
        Bounds {
            rho: self.rho(),
            b1_ms: self.loads.iter().map(Load::b1_ms).fold(f64::MAX, f64::min),
            b2_ms: timely.b2_ms(),
            b2_bare_ms: self.without_path().b2_ms(),
            b2_token_ms: self.b2_ms(),
            b3_ms: b3.try_fold(0.0, |most, b| Some(f64::max(most, b?))),
            b4_cycle_ms: self.eager_cycle_ms(),
            b6_per_s: fair.per_load.iter().sum(),
            theta: Some(fair.theta).filter(|t| t.is_finite()),
            models,
        }
    }
}

#[cfg(test)]
mod tests;
