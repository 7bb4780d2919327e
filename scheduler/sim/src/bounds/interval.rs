//! B2 and the square-root rule: the launch intervals with the smallest mean age.

use super::{Demand, Load};

/// Launch interval and mean batch of one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// g, milliseconds.
    pub interval_ms: f64,
    /// `b = lambda g`.
    pub batch: f64,
}

/// Steps of the bisection: more than the bits of an `f64`.
const STEPS: u32 = 200;

impl Load {
    /// Least and largest launch interval, milliseconds: a batch holds at least one frame and at
    /// most `b^D`. `None` when nothing can be in time.
    fn interval_limits(&self) -> Option<(f64, f64)> {
        let most = self.batch_in_time();
        (most > 0).then(|| (1e3 / self.lambda(), f64::from(most) * 1e3 / self.lambda()))
    }

    /// What a millisecond of launch interval costs: `c = lambda (kappa / 2 + beta lambda)`, summed
    /// age per unit of time.
    fn age_per_interval(&self) -> f64 {
        let lambda = self.lambda() / 1e3;
        lambda * (self.kappa() / 2.0 + self.beta_ms * lambda)
    }
}

impl Demand {
    /// The square-root rule: the intervals that minimise `sum c g` subject to
    /// `sum (alpha + turn) / g <= S`, `S = U K - rho_b`, and to the limits of each batch. Unclamped
    /// they are `g = sqrt(alpha / c) Z / S` with `Z = sum sqrt(alpha c)`; with the clamps the rest
    /// is solved again, that is, `Z / S` gives way to the smallest factor at which all fits. `None`
    /// for every model of a group of devices that is in overload at that share.
    pub fn plans(&self, usable_share: f64) -> Vec<Option<Plan>> {
        let mut plans = vec![None; self.loads.len()];
        for (members, capacity) in self.groups() {
            for (member, plan) in
                members.iter().zip(self.plan_group(&members, capacity * usable_share))
            {
                plans[*member] = Some(plan);
            }
        }
        plans
    }

    fn plan_group(&self, members: &[usize], usable: f64) -> Vec<Plan> {
        let loads: Vec<&Load> = members.iter().map(|i| &self.loads[*i]).collect();
        let spare = usable - loads.iter().map(|l| l.lambda() * l.beta_ms / 1e3).sum::<f64>();
        let Some(limits) = loads.iter().map(|l| l.interval_limits()).collect::<Option<Vec<_>>>()
        else {
            return Vec::new();
        };
        let fixed = |l: &Load| l.alpha_ms + l.turn_ms;
        let at = |factor: f64| -> Vec<f64> {
            let interval = |(l, (low, high)): (&&Load, &(f64, f64))| {
                ((fixed(l) / l.age_per_interval()).sqrt() * factor).clamp(*low, *high)
            };
            loads.iter().zip(&limits).map(interval).collect()
        };
        let fits = |intervals: &[f64]| {
            let used: f64 = loads.iter().zip(intervals).map(|(l, g)| fixed(l) / g).sum();
            used <= spare * (1.0 + 1e-12)
        };
        let longest: Vec<f64> = limits.iter().map(|(_, high)| *high).collect();
        if spare <= 0.0 || !fits(&longest) {
            return Vec::new();
        }
        let (mut low, mut high) = (0.0, 1.0);
        while !fits(&at(high)) {
            high *= 2.0;
        }
        for _ in 0..STEPS {
            let middle = f64::midpoint(low, high);
            if fits(&at(middle)) { high = middle } else { low = middle }
        }
        let plan = |(l, g): (&&Load, f64)| Plan { interval_ms: g, batch: l.lambda() * g / 1e3 };
        loads.iter().zip(at(high)).map(plan).collect()
    }

    /// B2: no non-preemptive policy that delivers every rate has a smaller mean age over the
    /// results, for cameras with uniform phases:
    /// `delta + path + [sum lambda alpha + sum c g - sum kappa / 2] / sum lambda`
    /// with the intervals of the square-root rule at U = 1. Without clamps `sum c g = Z^2 / S`.
    ///
    /// Why: a result sees the batch that it is in, so larger batches count more, and by Jensen its
    /// mean execution is at least `alpha + beta lambda g`; the b freshest of N frames with phases
    /// uniform on tau wait `0, tau/N .. (b-1) tau/N`, `kappa g / 2` on the mean less half a step,
    /// which is the correction for finite N, `sum kappa / 2`; Cauchy-Schwarz under
    /// `sum alpha / g <= S` gives the rest. The clamps hold for every policy too: a batch holds one
    /// frame or more, and one above `b^D` has members that are late. Several devices count as one of
    /// their joint capacity, which is never worse. Collisions between models are ignored: what can
    /// be reached with several models is higher. Never below the mean of B1, which is the better
    /// bound where a line lies far below a table. `None` in overload: no policy delivers every rate.
    pub fn b2_ms(&self) -> Option<f64> {
        if self.rho() > 1.0 {
            return None;
        }
        let plans = self.plans(1.0).into_iter().collect::<Option<Vec<Plan>>>()?;
        let (mut sum, mut lambda, mut alone) = (0.0, 0.0, 0.0);
        for (load, plan) in self.loads.iter().zip(&plans) {
            let rate = load.lambda() / 1e3;
            sum += rate * (load.delay_ms + load.path_ms + load.alpha_ms);
            sum += load.age_per_interval() * plan.interval_ms - load.kappa() / 2.0;
            alone += rate * load.b1_ms();
            lambda += rate;
        }
        (lambda > 0.0).then(|| sum.max(alone) / lambda)
    }

    /// B2 as published: no clamps and no correction for finite N,
    /// `delta + [sum lambda alpha + Z^2 / S] / sum lambda`, of one group of devices. It may lie
    /// above what can be reached when cameras are few (the interval it asks for may be shorter than
    /// the time between two frames).
    pub fn b2_published_ms(&self) -> Option<f64> {
        let capacity: f64 = self.capacity.iter().sum();
        let mut spare = capacity;
        let (mut sum, mut lambda, mut z) = (0.0, 0.0, 0.0);
        for load in &self.loads {
            let rate = load.lambda() / 1e3;
            spare -= rate * load.beta_ms;
            sum += rate * (load.delay_ms + load.path_ms + load.alpha_ms);
            z += (load.alpha_ms * load.age_per_interval()).sqrt();
            lambda += rate;
        }
        (spare > 0.0).then(|| (sum + z * z / spare) / lambda)
    }
}
