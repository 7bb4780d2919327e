//! Launches per period where frames are taken in cohorts: the square-root rule in whole numbers.

use crate::division::Demand;

/// The usable share that leaves nothing for what executions differ by.
const FULL: f64 = 0.99;
/// Launches per period beyond this make no frame wait noticeably less (a bound: 64, half, twice and any
/// number are the same in all worlds).
const LAUNCHES_MAX: u32 = 512;

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
}

impl Cyclic {
    /// Mean wait and execution of a frame with `launches` per period, without the fixed cost.
    fn age(&self, launches: u32) -> f64 {
        let places = places(launches, self.frames);
        let batch = (self.demand.rate * self.period / f64::from(launches)).max(1.0);
        let frame_period = self.period / f64::from(self.frames);
        frame_period / (2.0 * f64::from(places)) + self.demand.beta * batch
    }

    /// Device time per second that its launches stand for in the timetable, also those that nobody
    /// is taken for.
    fn reserved(&self, launches: u32) -> f64 {
        let batch = (self.demand.rate * self.period / f64::from(launches)).max(1.0);
        let length = self.demand.alpha + self.demand.beta * batch;
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
    /// goes to whichever model makes frames younger by the most per time.
    pub fn choose(&mut self, models: &[Cyclic], spare: f64) {
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

/// How many of `launches` evenly spaced ones stand at different places between two frames, when
/// there are `frames` frames per period: all of them if the two numbers share no divisor.
fn places(launches: u32, frames: u32) -> u32 {
    let (mut a, mut b) = (launches, frames);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    launches / a.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::division::tests::t4;

    fn launches(models: &[Cyclic], spare: f64) -> Vec<u32> {
        let mut launches = Launches::default();
        launches.choose(models, spare);
        launches.chosen
    }

    #[test]
    fn whole_launches_follow_the_rule_and_avoid_common_divisors() {
        let cyclic =
            |demand: Demand, batch_max| Cyclic { period: 0.2, frames: 5, demand, batch_max };
        let spare = 0.99;
        let k = launches(&[cyclic(t4(190.0), 64)], spare)[0];
        assert!((17..=19).contains(&k), "{k}: one every 10.4 ms");
        // Batches of at most 12 need more than 10 launches, and 10 would waste the places.
        let small = Demand { alpha: 0.6e-3, beta: 0.4e-3, rate: 605.0, ..t4(121.0) };
        let k = launches(&[cyclic(small, 12)], 0.277)[0];
        assert_eq!(k, 11);
        assert_eq!((places(19, 5), places(20, 5)), (19, 4));
        // Without room it is the least.
        assert_eq!(launches(&[cyclic(t4(190.0), 64)], 0.0), [3]);
        // Few frames: a launch wherever one lands.
        assert!(launches(&[cyclic(t4(3.0), 64)], 0.9)[0] > 40);
    }
}
