//! How a runner keeps L(b): what it offers, what it measures under the scheduler's grants, and the
//! table that it announces.
//!
//! Pure: no clock, no engine, no file. The runner runs batches and keeps the table in a file, the
//! simulator's runners do the same in virtual time; both ask this what to run and what to say. What
//! real batches take does not enter: a table is a promise, made by measuring alone, and what becomes
//! of it is the scheduler's to watch.
#![forbid(unsafe_code)]

mod book;
mod sampling;

pub use book::{LatencyBook, Profiled};
pub use sampling::Sampling;

use base::LatencyEntry;
use std::time::Duration;

/// 1, 2, 4, 8 ... and the largest itself: the sizes that are measured.
pub fn batch_sizes(batch_max: u32) -> Vec<u32> {
    let mut sizes: Vec<u32> =
        (0..).map(|power| 1 << power).take_while(|size| *size < batch_max).collect();
    sizes.push(batch_max);
    sizes
}

/// Median and 99th percentile of samples, nearest rank. `None` when there are none.
pub fn entry(batch: u32, samples: &[Duration]) -> Option<LatencyEntry> {
    let mut sorted = samples.to_vec();
    sorted.sort();
    let rank = |share: f64| {
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
    };
    Some(LatencyEntry { batch, p50: rank(0.5)?, p99: rank(0.99)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn sizes_double_up_to_the_largest() {
        assert_eq!(batch_sizes(1), [1]);
        assert_eq!(batch_sizes(2), [1, 2]);
        assert_eq!(batch_sizes(16), [1, 2, 4, 8, 16]);
        assert_eq!(batch_sizes(12), [1, 2, 4, 8, 12]);
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let samples: Vec<Duration> = (1..=100).rev().map(MS).collect();
        let e = entry(4, &samples).expect("there are samples");
        assert_eq!((e.batch, e.p50, e.p99), (4, MS(50), MS(99)));
        let e = entry(1, &[MS(7)]).expect("there is one");
        assert_eq!((e.p50, e.p99), (MS(7), MS(7)));
        assert_eq!(entry(1, &[]), None);
    }
}
