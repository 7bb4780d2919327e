//! B6: the largest goodput at weighted max-min fairness.

use super::{Demand, Load};

/// Weighted max-min fair rates.
#[derive(Debug, Clone, PartialEq)]
pub struct Fair {
    /// The smallest scale: `x_i = min(r_i, theta w_i r_i)` where the bottleneck is. Infinite when
    /// nothing is short.
    pub theta: f64,
    /// Results per second by load.
    pub per_load: Vec<f64>,
    /// Scale by load; a load behind no bottleneck has infinity.
    pub theta_by_load: Vec<f64>,
}

/// Groups with more devices than this are taken as one device (sets are enumerated).
const DEVICES_MAX: usize = 12;

impl Demand {
    /// B6: weighted max-min fair rates when every batch is as large as its deadline allows, so that
    /// a frame costs [`super::Load::cost_ms`]. `x_i = min(r_i, theta w_i r_i)` by water filling:
    /// `theta` rises until a device is full; who runs only there keeps its scale, the others go on.
    ///
    /// With models on several devices a set of rates can be served exactly if for every set of
    /// devices the models that run nowhere else fit into it (max-flow min-cut), so the next
    /// bottleneck is the set whose `theta` is smallest. Models that can't be in time get 0.
    pub fn fair(&self) -> Fair {
        let sets = self.sets();
        let within = |load: usize, set: u32| self.within(load, set);
        let cost: Vec<Option<f64>> = self.loads.iter().map(Load::cost_ms).collect();
        let mut scale: Vec<Option<f64>> = cost.iter().map(|c| c.is_none().then_some(0.0)).collect();
        let mut first = f64::INFINITY;
        while scale.iter().any(Option::is_none) {
            let mut next = (f64::INFINITY, 0);
            for &set in &sets {
                let mut open = Vec::new();
                let mut spare = self.capacity_of(set);
                for (load, frozen) in scale.iter().enumerate().filter(|(l, _)| within(*l, set)) {
                    match frozen {
                        Some(s) => spare -= self.used(load, *s, cost[load]),
                        None => open.push(load),
                    }
                }
                if !open.is_empty() {
                    let theta = self.fill(&open, &cost, spare.max(0.0));
                    if theta < next.0 {
                        next = (theta, set);
                    }
                }
            }
            if next.0.is_infinite() {
                break;
            }
            first = first.min(next.0);
            for load in (0..self.loads.len()).filter(|l| within(*l, next.1)) {
                scale[load].get_or_insert(next.0);
            }
        }
        let theta_by_load: Vec<f64> = scale.iter().map(|s| s.unwrap_or(f64::INFINITY)).collect();
        let per_load = (0..self.loads.len()).map(|l| self.rate(l, theta_by_load[l])).collect();
        Fair { theta: first, per_load, theta_by_load }
    }

    /// Full-batch load `sum lambda (alpha / b^D + beta) / K` of the fullest set of devices and the
    /// models that run nowhere else: above 1 not everything can be served. Infinite when a model
    /// can't be in time.
    pub fn rho(&self) -> f64 {
        let cost = |l: &Load| l.cost_ms().map_or(f64::INFINITY, |c| l.lambda() * c / 1e3);
        let share = |set: &u32| {
            let inside = self.loads.iter().enumerate().filter(|(l, _)| self.within(*l, *set));
            inside.map(|(_, l)| cost(l)).sum::<f64>() / self.capacity_of(*set)
        };
        self.sets().iter().map(share).fold(0.0, f64::max)
    }

    /// Sets of devices, as bits; `u32::MAX` = all.
    fn sets(&self) -> Vec<u32> {
        let devices = self.capacity.len();
        if devices <= DEVICES_MAX { (1..1 << devices).collect() } else { vec![u32::MAX] }
    }

    fn within(&self, load: usize, set: u32) -> bool {
        set == u32::MAX || self.loads[load].devices.iter().all(|d| set & (1 << d) != 0)
    }

    fn capacity_of(&self, set: u32) -> f64 {
        let inside = |(d, _): &(usize, &f64)| set == u32::MAX || set & (1 << d) != 0;
        self.capacity.iter().enumerate().filter(inside).map(|(_, c)| *c).sum()
    }

    fn rate(&self, load: usize, theta: f64) -> f64 {
        let share = |weight: f64| (theta * weight).min(1.0);
        self.loads[load].classes.iter().map(|c| c.count * c.rate() * share(c.weight)).sum()
    }

    /// Device time per time of a load at a scale.
    fn used(&self, load: usize, theta: f64, cost_ms: Option<f64>) -> f64 {
        self.rate(load, theta) * cost_ms.unwrap_or(0.0) / 1e3
    }

    /// The scale at which these loads fill `spare`: device time grows piecewise linearly in theta,
    /// with a bend where a weight reaches its ceilings.
    fn fill(&self, loads: &[usize], cost: &[Option<f64>], spare: f64) -> f64 {
        let mut bends: Vec<f64> = loads
            .iter()
            .flat_map(|l| self.loads[*l].classes.iter().map(|c| 1.0 / c.weight))
            .collect();
        bends.sort_by(f64::total_cmp);
        let total =
            |theta: f64| -> f64 { loads.iter().map(|l| self.used(*l, theta, cost[*l])).sum() };
        let (mut from, mut used) = (0.0, 0.0);
        for bend in bends {
            let next = total(bend);
            if next > spare {
                return from + (bend - from) * (spare - used) / (next - used);
            }
            (from, used) = (bend, next);
        }
        f64::INFINITY
    }
}
