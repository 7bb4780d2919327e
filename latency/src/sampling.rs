//! How often a batch of one size is run to measure it.

use std::time::Duration;

/// Runs before the first sample: the first pays for memory.
const WARM: usize = 2;
/// Samples of one size under a grant; p99 of so few is their largest.
const SAMPLES: usize = 9;
/// Share of the lease after which no further sample is begun.
const LEASE_SHARE: f64 = 0.6;

/// The runs of one size: two to warm up, then samples until there are enough or the time is used; at
/// least one, whatever it takes.
#[derive(Debug)]
pub struct Sampling {
    count: usize,
    budget: Duration,
    warm: usize,
    samples: Vec<Duration>,
}

impl Sampling {
    /// `count` samples; none is begun that would, by the one before, end after `budget`.
    pub fn new(count: usize, budget: Duration) -> Sampling {
        Sampling { count, budget, warm: 0, samples: Vec::new() }
    }

    /// What fits a lease of the scheduler's.
    pub fn granted(lease: Duration) -> Sampling {
        Sampling::new(SAMPLES, lease.mul_f64(LEASE_SHARE))
    }

    /// A run took this long and ended `elapsed` after the first one began. True = run it again.
    pub fn ran(&mut self, took: Duration, elapsed: Duration) -> bool {
        let over = elapsed + took >= self.budget;
        if self.warm < WARM && !over {
            self.warm += 1;
            return true;
        }
        self.samples.push(took);
        !over && self.samples.len() < self.count
    }

    /// The samples, in the order of the runs.
    pub fn into_samples(self) -> Vec<Duration> {
        self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Runs, and samples, of batches that take `took` under a lease of `lease` ms.
    fn runs(took: u64, lease: u64) -> (u32, usize) {
        let mut sampling = Sampling::granted(MS(lease));
        let mut runs = 1;
        while sampling.ran(MS(took), MS(took) * runs) {
            runs += 1;
        }
        (runs, sampling.into_samples().len())
    }

    #[test]
    fn a_lease_is_used_to_three_fifths_and_one_sample_is_always_taken() {
        assert_eq!(runs(1, 1000), (11, 9), "two to warm up");
        assert_eq!(runs(10, 100), (5, 3), "the sixth would end at the budget");
        assert_eq!(runs(100, 100), (1, 1));
        assert_eq!(runs(5000, 200), (1, 1));
    }
}
