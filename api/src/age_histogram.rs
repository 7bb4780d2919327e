//! How old results were: counts in buckets of a fixed relative width.

use std::time::Duration;

/// Ages below 2^7 us share the first bucket.
const FIRST_OCTAVE: u32 = 7;
/// Ages from 2^27 us (134 s) on share the last bucket.
const OCTAVES: u32 = 20;
const PER_OCTAVE: u32 = 16;
const BUCKETS: usize = 1 + (OCTAVES * PER_OCTAVE) as usize;

/// Log-linear: 16 buckets per doubling from 128 us to 134 s, so that a percentile is at most 3.2 %
/// from the truth. 1.3 kB, whatever it counts.
#[derive(Debug, Clone)]
pub struct AgeHistogram {
    counts: Box<[u32; BUCKETS]>,
    total: u64,
}

impl Default for AgeHistogram {
    fn default() -> Self {
        AgeHistogram { counts: Box::new([0; BUCKETS]), total: 0 }
    }
}

impl AgeHistogram {
    /// Counts one age.
    pub fn add(&mut self, age: Duration) {
        let bucket = &mut self.counts[bucket(age)];
        *bucket = bucket.saturating_add(1);
        self.total += 1;
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    /// Ages counted.
    pub fn total(&self) -> u64 {
        self.total
    }
}

/// The age that `share` (0..=1) of all ages in the histograms do not exceed; `None` when there are
/// none.
pub fn percentile(histograms: &[&AgeHistogram], share: f64) -> Option<Duration> {
    let total: u64 = histograms.iter().map(|h| h.total).sum();
    if total == 0 {
        return None;
    }
    let rank = ((total as f64 * share).ceil() as u64).clamp(1, total);
    let mut below = 0;
    for i in 0..BUCKETS {
        below += histograms.iter().map(|h| u64::from(h.counts[i])).sum::<u64>();
        if below >= rank {
            return Some(middle(i));
        }
    }
    Some(middle(BUCKETS - 1))
}

fn bucket(age: Duration) -> usize {
    let us = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
    if us < 1 << FIRST_OCTAVE {
        return 0;
    }
    let octave = us.ilog2();
    let within = (us >> (octave - PER_OCTAVE.ilog2())) as u32 & (PER_OCTAVE - 1);
    (1 + ((octave - FIRST_OCTAVE) * PER_OCTAVE + within) as usize).min(BUCKETS - 1)
}

fn middle(bucket: usize) -> Duration {
    if bucket == 0 {
        return Duration::from_micros(1 << (FIRST_OCTAVE - 1));
    }
    let at = bucket as u32 - 1;
    let width = 1u64 << (FIRST_OCTAVE + at / PER_OCTAVE - PER_OCTAVE.ilog2());
    let low = width * u64::from(PER_OCTAVE + at % PER_OCTAVE);
    Duration::from_micros(low + width / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_the_stated_error() {
        for us in (128..200_000u64).step_by(37).chain([1_000_000, 60_000_000, 134_000_000]) {
            let mut histogram = AgeHistogram::default();
            histogram.add(Duration::from_micros(us));
            let read = percentile(&[&histogram], 0.5).unwrap().as_secs_f64() * 1e6;
            assert!((read - us as f64).abs() / us as f64 <= 0.032, "{us} read as {read}");
        }
    }

    #[test]
    fn shares_of_several_histograms_are_counted_together() {
        let (mut a, mut b) = (AgeHistogram::default(), AgeHistogram::default());
        for _ in 0..98 {
            a.add(Duration::from_millis(10));
        }
        b.add(Duration::from_millis(500));
        b.add(Duration::from_secs(10_000));
        let ms = |share| percentile(&[&a, &b], share).unwrap().as_millis();
        assert_eq!(ms(0.5), 9 + u128::from(ms(0.5) == 10));
        assert_eq!(ms(0.98), ms(0.0));
        assert!((480..520).contains(&ms(0.99)), "{}", ms(0.99));
        assert!(ms(1.0) > 120_000);
        a.clear();
        assert_eq!((a.total(), percentile(&[&a], 0.5)), (0, None));
    }
}
