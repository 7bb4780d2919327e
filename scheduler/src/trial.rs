//! Whether steering helps a device: measured, not assumed.
//!
//! Models of a device pay for each other, so all of them are steered or none, and both ways are judged
//! by the results of all. First the even spread is measured, then steering; what was found holds until
//! the device's load or the cameras' doubt is another one.

use base::Instant;
use std::time::Duration;

/// How long a way of choosing frames is measured at least (study: 10 s).
const MEASURE: Duration = Duration::from_secs(10);
/// And at most: what has too few results by then is left as it is.
const MEASURE_MAX: Duration = Duration::from_secs(60);
/// Before that, what changed settles: cohorts are formed, and the timetable made again for them.
const SETTLE: Duration = Duration::from_secs(3);
/// Results below which a 99th percentile says nothing (ten beyond it).
const RESULTS_MIN: u64 = 1000;
/// By how much mean and p99 may exceed those of the other way (targets of docs/simulator.md): where each way
/// is better in one of them, the lesser excess decides.
const MEAN_MAX: f64 = 1.02;
const P99_MAX: f64 = 1.05;
/// What was found holds for loads within this share of the load that it was found at.
const SAME_LOAD: f64 = 0.15;
/// Doubts of cameras within this factor are the same, and those below [`DOUBT_MIN`] are none.
const SAME_DOUBT: f64 = 1.5;
const DOUBT_MIN: f64 = 0.5e-3;
/// Another try no sooner than this after the last one: each costs frames.
const REST: Duration = Duration::from_secs(120);

/// What a verdict holds for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Circumstances {
    /// Wanted device time per second.
    pub load: f64,
    /// Mean guard of the cameras, seconds.
    pub doubt: f64,
    /// Runners that serve.
    pub runners: usize,
    /// Whether it makes sense to steer at all: no overload, cameras that can be predicted.
    pub possible: bool,
}

impl Circumstances {
    fn like(&self, other: &Circumstances) -> bool {
        let (a, b) = (self.doubt.max(DOUBT_MIN), other.doubt.max(DOUBT_MIN));
        self.runners == other.runners
            && (self.load - other.load).abs() <= SAME_LOAD * other.load
            && a.max(b) <= SAME_DOUBT * a.min(b)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Gates are evenly spread; nothing is known of steering.
    Even,
    /// Steered on trial.
    Tried,
    /// Steered, for it was better.
    Better,
    /// It was not better.
    Worse,
}

/// The state of a device's trial.
#[derive(Debug)]
pub(crate) struct Trial {
    phase: Phase,
    /// Results count from here on.
    since: Instant,
    ages: Ages,
    /// Mean and p99 of the even spread, nanoseconds.
    even: (f64, f64),
    /// What the phase began with.
    found_at: Circumstances,
    /// The next try begins no earlier.
    rest_until: Instant,
}

impl Trial {
    pub fn new(now: Instant) -> Trial {
        let (ages, found_at) = (Ages::default(), Circumstances::default());
        Trial { phase: Phase::Even, since: now, ages, even: (0.0, 0.0), found_at, rest_until: now }
    }

    /// A result of the device is this old, nanoseconds.
    pub fn count(&mut self, now: Instant, age: u64) {
        if now >= self.since && matches!(self.phase, Phase::Even | Phase::Tried) {
            self.ages.count(age);
        }
    }

    pub fn steers(&self) -> bool {
        matches!(self.phase, Phase::Tried | Phase::Better)
    }

    fn enter(&mut self, phase: Phase, now: Instant, at: Circumstances) {
        self.phase = phase;
        self.since = now + SETTLE;
        self.ages = Ages::default();
        self.found_at = at;
    }

    /// Draws the conclusion once enough was measured. Returns whether the device is steered from now on
    /// and was not, or the other way round.
    pub fn conclude(&mut self, now: Instant, at: Circumstances) -> bool {
        let steered = self.steers();
        self.step(now, at);
        self.steers() != steered
    }

    fn step(&mut self, now: Instant, at: Circumstances) {
        if !at.possible {
            if self.phase != Phase::Even || self.ages.count > 0 {
                self.enter(Phase::Even, now, at);
            }
            return;
        }
        if matches!(self.phase, Phase::Better | Phase::Worse) {
            if !at.like(&self.found_at) && now >= self.rest_until {
                self.enter(Phase::Even, now, at);
            }
            return;
        }
        if !at.like(&self.found_at) && (now < self.since || self.phase == Phase::Even) {
            // Still settling: both ways must see the same world.
            return self.enter(Phase::Even, now, at);
        }
        if self.phase == Phase::Even && now < self.rest_until {
            return self.enter(Phase::Even, now, at);
        }
        let measured = now - self.since;
        if now < self.since || measured < MEASURE {
            return;
        }
        if self.ages.count < RESULTS_MIN {
            if measured > MEASURE_MAX {
                self.rest(Phase::Worse, now, at);
            }
            return;
        }
        let (mean, p99) = (self.ages.mean(), self.ages.p99());
        match self.phase {
            Phase::Even => {
                self.even = (mean, p99);
                self.enter(Phase::Tried, now, at);
            }
            Phase::Tried => {
                let better = pays(mean / self.even.0, p99 / self.even.1);
                self.rest(if better { Phase::Better } else { Phase::Worse }, now, at);
            }
            Phase::Better | Phase::Worse => {}
        }
    }

    fn rest(&mut self, phase: Phase, now: Instant, at: Circumstances) {
        self.enter(phase, now, at);
        self.rest_until = now + REST;
    }
}

/// Whether a way with these ratios to the other one is to be preferred.
fn pays(mean: f64, p99: f64) -> bool {
    let excess = |mean: f64, p99: f64| f64::max(mean / MEAN_MAX, p99 / P99_MAX);
    excess(mean, p99) < excess(1.0 / mean, 1.0 / p99)
}

/// Ages in sixteen buckets per power of two, at most 6 % wide; within one they are taken for evenly spread.
#[derive(Debug)]
struct Ages {
    count: u64,
    sum: u64,
    buckets: [u32; Ages::BUCKETS],
}

impl Default for Ages {
    fn default() -> Ages {
        Ages { count: 0, sum: 0, buckets: [0; Ages::BUCKETS] }
    }
}

impl Ages {
    /// Buckets per power of two.
    const PARTS: u64 = 16;
    /// From 2^16 ns (66 us) to 2^36 ns (69 s).
    const FIRST: u32 = 16;
    const BUCKETS: usize = 20 * Ages::PARTS as usize;

    fn bucket(age: u64) -> usize {
        let age = age.max(1 << Ages::FIRST);
        let power = age.ilog2();
        let part = (age >> (power - 4)) - Ages::PARTS;
        ((u64::from(power - Ages::FIRST) * Ages::PARTS + part) as usize).min(Ages::BUCKETS - 1)
    }

    fn bound(bucket: usize) -> f64 {
        let (power, part) = (bucket as u64 / Ages::PARTS, bucket as u64 % Ages::PARTS);
        (((Ages::PARTS + part) << (power + u64::from(Ages::FIRST))) >> 4) as f64
    }

    fn count(&mut self, age: u64) {
        self.count += 1;
        self.sum = self.sum.saturating_add(age);
        let bucket = &mut self.buckets[Ages::bucket(age)];
        *bucket = bucket.saturating_add(1);
    }

    fn mean(&self) -> f64 {
        self.sum as f64 / self.count.max(1) as f64
    }

    fn p99(&self) -> f64 {
        let wanted = self.count as f64 * 0.99;
        let mut below = 0.0;
        for (i, count) in self.buckets.iter().enumerate() {
            let count = f64::from(*count);
            if count > 0.0 && below + count >= wanted {
                let share = (wanted - below) / count;
                return Ages::bound(i) + share * (Ages::bound(i + 1) - Ages::bound(i));
            }
            below += count;
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const CALM: Circumstances = Circumstances { load: 0.7, doubt: 0.0, runners: 3, possible: true };

    /// Runs a trial for so long, with ages of the even spread and of steering.
    fn run(trial: &mut Trial, from: u64, seconds: u64, at: Circumstances, even: u64, steered: u64) {
        for second in from..from + seconds {
            for n in 0..500 {
                let now = Instant(second * 1000 * MS + n * 2 * MS);
                trial.count(now, if trial.steers() { steered } else { even });
            }
            trial.conclude(Instant((second + 1) * 1000 * MS), at);
        }
    }

    #[test]
    fn what_helps_stays_and_what_does_not_is_left() {
        let mut trial = Trial::new(Instant::ZERO);
        run(&mut trial, 0, 60, CALM, 30 * MS, 28 * MS);
        assert!(trial.steers());
        run(&mut trial, 60, 3600, CALM, 30 * MS, 28 * MS);
        assert!(trial.steers(), "nothing is tried again while nothing changes");

        let mut trial = Trial::new(Instant::ZERO);
        run(&mut trial, 0, 60, CALM, 30 * MS, 30 * MS);
        assert!(!trial.steers(), "no better is not better");
    }

    #[test]
    fn another_world_is_tried_anew_and_no_world_too_often() {
        let mut trial = Trial::new(Instant::ZERO);
        run(&mut trial, 0, 60, CALM, 30 * MS, 28 * MS);
        let busy = Circumstances { load: 0.9, ..CALM };
        run(&mut trial, 60, 60, busy, 40 * MS, 45 * MS);
        assert!(trial.steers(), "it rests after a try");
        run(&mut trial, 120, 90, busy, 40 * MS, 45 * MS);
        assert!(!trial.steers());
        run(&mut trial, 210, 5, Circumstances { possible: false, ..busy }, 1, 1);
        run(&mut trial, 215, 90, busy, 40 * MS, 36 * MS);
        assert!(trial.steers(), "what ends by itself begins anew");
    }

    #[test]
    fn the_lesser_excess_decides() {
        assert!(pays(0.97, 1.0) && pays(1.0, 0.9) && pays(0.885, 1.06) && pays(1.015, 0.9));
        assert!(!pays(0.98, 1.2) && !pays(1.1, 0.96) && !pays(1.0, 1.0));
    }

    #[test]
    fn few_results_end_it() {
        let mut trial = Trial::new(Instant::ZERO);
        for second in 0..200 {
            let now = Instant(second * 1000 * MS);
            trial.count(now, MS);
            assert!(!trial.conclude(now, CALM));
        }
        assert!(!trial.steers());
    }

    #[test]
    fn p99_is_found_within_a_bucket() {
        let mut ages = Ages::default();
        (1..=10_000).for_each(|n| ages.count(n * 10_000));
        assert!((ages.p99() / 99e6 - 1.0).abs() < 0.03, "{}", ages.p99());
        assert!((ages.mean() / 50.005e6 - 1.0).abs() < 1e-9);
        (0..64).for_each(|power| ages.count(1 << power));
    }
}
