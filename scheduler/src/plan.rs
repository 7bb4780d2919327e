//! How often each model of a device is launched, and how large its batches are: the square-root
//! rule.
//!
//! Pure arithmetic in seconds. A batch of `b` takes `alpha + beta b`. With a launch every `g`
//! seconds a model that gets `rate` frames per second has batches of `rate g`; its frames wait
//! `freedom g / 2` on the mean and execute for `alpha + beta rate g`. The intervals that minimise
//! the mean age over all frames while the device has `usable` of its time to give are
//! `g = sqrt(alpha / c) Z / S` with `c = rate (freedom / 2 + beta rate)`, `Z = sum sqrt(alpha c)`
//! and `S = usable - sum rate beta` (Lagrange; docs/adr/0019-fresh-aligned-batching.md).

/// Costs below this are taken for this (chosen: a batch without any fixed cost has no best size).
const ALPHA_MIN: f64 = 1e-6;

/// Another number of launches must make frames younger by this (chosen: a change costs every
/// subscription a frame).
const CLEARLY: f64 = 0.9;
/// Share of the device by which launches may exceed the plan before they are changed (chosen: what
/// a plan is off by while it learns).
const OVERDRAFT: f64 = 0.002;
/// The usable share that leaves nothing for what executions differ by.
const FULL: f64 = 0.99;
/// Launches per period beyond this make no frame wait noticeably less (chosen).
const LAUNCHES_MAX: u32 = 512;

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
    pub(crate) fn batch_in_time(&self) -> u32 {
        let wait_per_member = 2.0 * self.freedom.min(1.0) / self.rate.max(1e-9);
        let room = (self.patience - self.alpha) / (self.beta + wait_per_member).max(1e-9);
        (room.max(1.0) as u32).clamp(1, self.batch_max.max(1))
    }
}

/// Weight of a second between two launches in the mean age over all frames: `rate` frames per second
/// wait for `wait` of it on the mean of 0 to 1, halved, and execute with what gathers meanwhile.
pub(crate) fn weight(rate: f64, wait: f64, beta: f64) -> f64 {
    rate * (wait / 2.0 + beta * rate)
}

/// The square-root rule: a model's interval relative to those of the others on its device.
pub(crate) fn relative_interval(alpha: f64, weight: f64) -> f64 {
    (alpha / weight).sqrt()
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
                    left -= d.alpha.max(ALPHA_MIN) / shares[i].interval;
                } else {
                    z += (d.alpha.max(ALPHA_MIN) * weight(d)).sqrt();
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
                let interval = relative_interval(d.alpha.max(ALPHA_MIN), weight(d)) * z / left;
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

/// A model whose frames are taken in cohorts, for [`Launches`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cyclic {
    /// Seconds after which its launches repeat.
    pub period: f64,
    /// Frames that a camera gives in a period.
    pub frames: u32,
    /// What it asks for.
    pub demand: Demand,
    /// The largest batch that can be answered in time.
    pub batch_max: u32,
    /// Launches per period so far.
    pub current: Option<u32>,
}

impl Cyclic {
    /// Mean wait and execution of a frame with `launches` per period, without the fixed cost.
    fn age(&self, launches: u32) -> f64 {
        let places = crate::cohort::places(launches, self.frames);
        let batch = (self.demand.rate * self.period / f64::from(launches)).max(1.0);
        let frame_period = self.period / f64::from(self.frames);
        frame_period / (2.0 * f64::from(places)) + self.demand.beta * batch
    }

    /// Device time per second that its launches stand for in the timetable, also those that nobody
    /// is taken for.
    fn reserved(&self, launches: u32) -> f64 {
        let batch = (self.demand.rate * self.period / f64::from(launches)).max(1.0);
        let length = self.demand.alpha.max(ALPHA_MIN) + self.demand.beta * batch;
        f64::from(launches) * length / self.period
    }

    /// Variance of its executions, seconds squared per second: cohorts differ by one member.
    fn variance(&self, launches: u32) -> f64 {
        let mean = self.demand.rate * self.period / f64::from(launches);
        let part = mean.fract().max(0.5);
        f64::from(launches) * self.demand.beta.powi(2) * part * (1.0 - part).max(0.25) / self.period
    }

    /// Launches that the largest batch demands.
    fn least(&self) -> u32 {
        let frames = self.demand.rate * self.period;
        ((frames / f64::from(self.batch_max.max(1))).ceil() as u32).clamp(1, LAUNCHES_MAX)
    }

    /// The next number of launches that makes frames younger.
    fn better(&self, launches: u32) -> Option<u32> {
        let now = self.age(launches);
        let reach = launches + launches / 2 + self.frames + 2;
        (launches + 1..=reach.min(LAUNCHES_MAX)).find(|k| self.age(*k) < now)
    }
}

/// One more launch of a model, or as many as make its frames younger.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Seconds of age that are saved per second.
    gain: f64,
    launches: u32,
    /// Device time per second.
    cost: f64,
}

impl Step {
    fn of(model: &Cyclic, launches: u32) -> Option<Step> {
        let next = model.better(launches)?;
        let gain = model.demand.rate * (model.age(launches) - model.age(next));
        let cost = (model.reserved(next) - model.reserved(launches)).max(1e-12);
        Some(Step { gain, launches: next, cost })
    }
}

/// Launches per period of each model: the square-root rule in whole numbers. Its memory is used
/// again.
#[derive(Debug, Default)]
pub struct Launches {
    /// In the order of the models.
    pub chosen: Vec<u32>,
    steps: Vec<Option<Step>>,
}

impl Launches {
    /// Beginning with the fewest that the largest batches allow, device time (`spare`, per second)
    /// goes to whichever model makes frames younger by the most per time. What is launched so far
    /// stays while it is possible and not clearly worse.
    pub fn choose(&mut self, models: &[Cyclic], spare: f64) {
        self.choose_best(models, spare);
        let running = || models.iter().filter_map(|m| Some((m, m.current?)));
        if running().count() < models.len() {
            return;
        }
        let age = |(m, k): (&Cyclic, u32)| m.demand.rate * m.age(k);
        let best: f64 = models.iter().zip(self.chosen.iter().copied()).map(age).sum();
        let now: f64 = running().map(age).sum();
        let reserved: f64 = running().map(|(m, k)| m.reserved(k)).sum();
        let possible = running().all(|(m, k)| k + k / 20 >= m.least());
        let worth = best < CLEARLY * now;
        if possible && reserved <= spare + OVERDRAFT && !worth {
            self.chosen.clear();
            self.chosen.extend(running().map(|(_, k)| k));
        }
    }

    fn choose_best(&mut self, models: &[Cyclic], spare: f64) {
        let Launches { chosen, steps } = self;
        chosen.clear();
        chosen.extend(models.iter().map(Cyclic::least));
        let mut left =
            spare - models.iter().zip(&*chosen).map(|(m, k)| m.reserved(*k)).sum::<f64>();
        let all: f64 = models.iter().map(|m| m.demand.rate).sum();
        let mut variance: f64 = models.iter().zip(&*chosen).map(|(m, k)| m.variance(*k)).sum();
        steps.clear();
        steps.extend(models.iter().zip(&*chosen).map(|(m, k)| Step::of(m, *k)));
        loop {
            // Less slack makes all frames wait longer for each other (Pollaczek-Khinchine).
            let queue =
                |variance: f64, left: f64| all * variance / (2.0 * (left + 1.0 - FULL).max(1e-3));
            let now = queue(variance, left);
            let affordable = steps.iter().enumerate().filter_map(|(i, step)| {
                let step = (*step)?;
                let longer = queue(variance, left - step.cost) - now;
                let pays = step.cost <= left && step.gain > longer;
                pays.then_some(((step.gain - longer) / step.cost, i, step))
            });
            let Some((_, i, step)) = affordable.max_by(|a, b| a.0.total_cmp(&b.0)) else { return };
            variance += models[i].variance(step.launches) - models[i].variance(chosen[i]);
            chosen[i] = step.launches;
            left -= step.cost;
            steps[i] = Step::of(&models[i], step.launches);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divide(demands: &[Demand], usable: f64) -> (Vec<Share>, f64) {
        let mut division = Division::default();
        division.divide(demands, usable);
        (division.shares, division.load)
    }

    fn launches(models: &[Cyclic], spare: f64) -> Vec<u32> {
        let mut launches = Launches::default();
        launches.choose(models, spare);
        launches.chosen
    }

    /// ResNet-50 on a T4 on `cameras` of 25 fps at 5 fps each, within 100 ms.
    fn t4(cameras: f64) -> Demand {
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

    #[test]
    fn whole_launches_follow_the_rule_and_avoid_common_divisors() {
        let cyclic = |demand: Demand, batch_max| Cyclic {
            period: 0.2,
            frames: 5,
            demand,
            batch_max,
            current: None,
        };
        let spare = 0.99;
        let k = launches(&[cyclic(t4(190.0), 64)], spare)[0];
        let k0 = k;
        assert!((17..=19).contains(&k), "{k}: one every 10.4 ms");
        // Batches of at most 12 need more than 10 launches, and 10 would waste the places.
        let small = Demand { alpha: 0.6e-3, beta: 0.4e-3, rate: 605.0, ..t4(121.0) };
        let k = launches(&[cyclic(small, 12)], 0.277)[0];
        assert_eq!(k, 11);
        // Without room it is the least.
        assert_eq!(launches(&[cyclic(t4(190.0), 64)], 0.0), [3]);
        // What runs is kept while it does.
        let running = |k| Cyclic { current: Some(k), ..cyclic(t4(190.0), 64) };
        assert_eq!(launches(&[running(18)], spare), [18]);
        assert_eq!(launches(&[running(12)], spare), [k0]);
        // Few frames: a launch wherever one lands.
        assert!(launches(&[cyclic(t4(3.0), 64)], 0.9)[0] > 40);
    }
}
