//! The cheapest clock for intervals of some ten nanoseconds: the time-stamp counter of x86-64, else
//! `std::time::Instant`.
//!
//! Readings are fenced: what is measured lies whole between two of them. What the pair itself costs
//! is measured at the start and subtracted by whoever counts ([`Clock::ns`]).

use std::time::{Duration, Instant};

/// A reading.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn ticks() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_lfence() };
    // SAFETY: RDTSC is part of x86-64; an operating system that forbids it is none we know.
    let ticks = unsafe { _rdtsc() };
    // SAFETY: as above.
    unsafe { _mm_lfence() };
    ticks
}

/// A reading.
#[cfg(not(target_arch = "x86_64"))]
pub fn ticks() -> u64 {
    use std::sync::OnceLock;
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// How long a tick is, and what two readings cost.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Nanoseconds of one tick.
    pub ns_per_tick: f64,
    /// Ticks between two readings with nothing between them: the median of many.
    pub overhead: u64,
}

impl Clock {
    /// Measures the clock against the system's for a tenth of a second.
    pub fn calibrate() -> Clock {
        let (begin, first) = (Instant::now(), ticks());
        while begin.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        let (last, elapsed) = (ticks(), begin.elapsed());
        let mut pairs: Vec<u64> = (0..10_001)
            .map(|_| {
                let begin = ticks();
                ticks() - begin
            })
            .collect();
        pairs.sort_unstable();
        Clock {
            ns_per_tick: elapsed.as_nanos() as f64 / (last - first) as f64,
            overhead: pairs[pairs.len() / 2],
        }
    }

    /// Nanoseconds of an interval between two readings, less the cost of the pair.
    pub fn ns(&self, ticks: u64) -> f64 {
        ticks.saturating_sub(self.overhead) as f64 * self.ns_per_tick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_as_long_as_the_system_says() {
        let clock = Clock::calibrate();
        let (begin, first) = (Instant::now(), ticks());
        while begin.elapsed() < Duration::from_millis(20) {}
        let (by_ticks, by_system) = (clock.ns(ticks() - first), begin.elapsed().as_nanos() as f64);
        // The thread may be put aside between the two readings, never made faster.
        assert!(by_ticks > 19e6 && by_ticks < by_system * 1.05, "{by_ticks} and {by_system} ns");
    }
}
