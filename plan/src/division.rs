//! A device divided among its models: how often each is launched, and how large its batches are. Seconds.

use crate::square_root::{relative_interval, weight};

/// What one model asks of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Fixed cost of a batch, seconds.
    pub alpha: f64,
    /// Cost of a member, seconds.
    pub beta: f64,
    /// Frames per second.
    pub rate: f64,
    /// Mean of max fps / source fps: 1 = every frame must be taken, near 0 = free choice of frames.
    pub freedom: f64,
    /// Whether frames are chosen to land before a launch; otherwise they wait half an interval.
    pub steered: bool,
    /// Seconds that are left of the deadline once a frame is published and its way is paid.
    pub patience: f64,
    /// Largest batch that pays.
    pub batch_max: u32,
}

/// What one model gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Seconds between two launches.
    pub interval: f64,
    /// Members of a batch.
    pub batch: f64,
    /// The largest batch that can be answered within the deadline.
    pub batch_max: u32,
}

impl Demand {
    /// Device time per second with batches of `batch`.
    pub fn load(&self, batch: f64) -> f64 {
        self.rate * (self.alpha / batch.max(1.0) + self.beta)
    }

    /// The largest batch that meets the deadline: a frame may have to wait for a launch, by its
    /// freedom, and then executes. Twice the freedom: the fair order must have a choice.
    pub fn batch_in_time(&self) -> u32 {
        let wait_per_member = 2.0 * self.freedom.min(1.0) / self.rate.max(1e-9);
        let room = (self.patience - self.alpha) / (self.beta + wait_per_member).max(1e-9);
        (room.max(1.0) as u32).clamp(1, self.batch_max.max(1))
    }
}

/// A device divided among its models. Its memory is used again.
#[derive(Debug, Default)]
pub struct Division {
    /// In the order of the demands.
    pub shares: Vec<Share>,
    /// Device time per second with the largest batches in time.
    pub load: f64,
    /// Whose interval is bound by the deadline.
    bound: Vec<bool>,
}

impl Division {
    /// Divides `usable` (device time per second: share times capacity) among the models. A load
    /// above `usable` is overload, and then everyone launches batches as large as is in time.
    pub fn divide(&mut self, demands: &[Demand], usable: f64) {
        let Division { shares, load, bound } = self;
        shares.clear();
        shares.extend(demands.iter().map(|d| {
            let batch_max = d.batch_in_time();
            let batch = f64::from(batch_max);
            Share { interval: batch / d.rate.max(1e-9), batch, batch_max }
        }));
        *load = demands.iter().zip(&*shares).map(|(d, s)| d.load(s.batch)).sum();
        if *load > usable {
            return;
        }
        let weight = |d: &Demand| weight(d.rate, if d.steered { d.freedom } else { 1.0 }, d.beta);
        // Models whose interval is bound by the deadline keep theirs; the others share what is left.
        bound.clear();
        bound.resize(demands.len(), false);
        loop {
            let mut left = usable;
            let mut z = 0.0;
            for (i, d) in demands.iter().enumerate().filter(|(_, d)| d.rate > 0.0) {
                left -= d.rate * d.beta;
                if bound[i] {
                    left -= d.alpha / shares[i].interval;
                } else {
                    z += (d.alpha * weight(d)).sqrt();
                }
            }
            if left <= 0.0 {
                return;
            }
            let mut again = false;
            for (i, d) in demands.iter().enumerate().filter(|(_, d)| d.rate > 0.0) {
                if bound[i] {
                    continue;
                }
                let interval = relative_interval(d.alpha, weight(d)) * z / left;
                let longest = f64::from(shares[i].batch_max) / d.rate;
                bound[i] = interval >= longest;
                again |= bound[i];
                shares[i].interval = if bound[i] { longest } else { interval };
                shares[i].batch = (d.rate * shares[i].interval).max(1.0);
            }
            if !again {
                return;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn divide(demands: &[Demand], usable: f64) -> (Vec<Share>, f64) {
        let mut division = Division::default();
        division.divide(demands, usable);
        (division.shares, division.load)
    }

    /// ResNet-50 on a T4 on `cameras` of 25 fps at 5 fps each, within 100 ms.
    pub(crate) fn t4(cameras: f64) -> Demand {
        Demand {
            alpha: 2.30e-3,
            beta: 0.81e-3,
            rate: 5.0 * cameras,
            freedom: 0.2,
            steered: true,
            patience: 0.08,
            batch_max: 64,
        }
    }

    #[test]
    fn one_model_launches_as_often_as_the_device_bears() {
        let (shares, load) = divide(&[t4(190.0)], 0.99);
        let left = 0.99 - 950.0 * 0.81e-3;
        assert!((shares[0].interval - 2.3e-3 / left).abs() < 1e-9, "{shares:?}");
        assert!((shares[0].batch - 950.0 * shares[0].interval).abs() < 1e-9);
        assert!((0.75..0.82).contains(&load), "{load}");
    }

    #[test]
    fn the_rule_finds_the_least_mean_age() {
        let models = [
            t4(60.0),
            Demand { alpha: 0.58e-3, beta: 0.40e-3, ..t4(100.0) },
            Demand { alpha: 1.63e-3, beta: 0.30e-3, steered: false, ..t4(80.0) },
        ];
        let (shares, _) = divide(&models, 0.95);
        let busy: f64 =
            models.iter().zip(&shares).map(|(d, s)| d.alpha / s.interval + d.rate * d.beta).sum();
        assert!((busy - 0.95).abs() < 1e-9, "all that may be used is used: {busy}");
        let age = |intervals: [f64; 3]| -> f64 {
            models
                .iter()
                .zip(intervals)
                .map(|(d, g)| {
                    let wait = if d.steered { d.freedom } else { 1.0 };
                    d.rate * (wait * g / 2.0 + d.beta * d.rate * g)
                })
                .sum()
        };
        let best = [shares[0].interval, shares[1].interval, shares[2].interval];
        // Moving device time from one model to another never helps.
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            let mut other = best;
            let moved = 0.01;
            other[from] = 1.0 / (1.0 / best[from] - moved / models[from].alpha);
            other[to] = 1.0 / (1.0 / best[to] + moved / models[to].alpha);
            assert!(age(other) > age(best), "{from} to {to}");
        }
    }

    #[test]
    fn overload_takes_the_largest_batches_in_time() {
        let (shares, load) = divide(&[t4(400.0)], 0.95);
        assert_eq!(shares[0].batch_max, 64);
        assert!((1.6..1.75).contains(&load), "{load}");
        let hurried = Demand { patience: 0.02, ..t4(400.0) };
        let (shares, _) = divide(&[hurried], 0.95);
        let latest = 2.3e-3 + 0.81e-3 * f64::from(shares[0].batch_max);
        assert!(latest < 0.02 && shares[0].batch_max > 10, "{shares:?}");
    }

    #[test]
    fn a_cpu_without_fixed_cost_runs_single_frames() {
        let cpu = Demand { alpha: 0.0, beta: 20e-3, rate: 10.0, batch_max: 16, ..t4(1.0) };
        let (shares, _) = divide(&[cpu], 0.95);
        assert!(shares[0].batch <= 1.0, "{shares:?}");
        let (shares, load) = divide(&[Demand { rate: 0.0, ..cpu }], 0.95);
        assert_eq!((shares[0].batch_max, load), (1, 0.0));
    }
}
