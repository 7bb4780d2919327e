//! The cheapest clock for intervals of some ten nanoseconds: the time-stamp counter of x86-64, else
//! `std::time::Instant`.
//!
//! Readings are fenced: what is measured lies whole between two of them. What the pair itself costs
//! changes with the processor's frequency: who counts measures it again and again in between
//! ([`empty_pair`]) and subtracts the median. The fences also keep a short call from overlapping with
//! its neighbours, so that times of some ten nanoseconds come out high, never low.

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

/// Ticks between two readings with nothing between them.
#[inline(always)]
pub fn empty_pair() -> u64 {
    let begin = ticks();
    ticks() - begin
}

/// Nanoseconds of one tick, measured against the system's clock for a tenth of a second.
pub fn ns_per_tick() -> f64 {
    let (begin, first) = (Instant::now(), ticks());
    while begin.elapsed() < Duration::from_millis(100) {
        std::hint::spin_loop();
    }
    let (last, elapsed) = (ticks(), begin.elapsed());
    elapsed.as_nanos() as f64 / (last - first) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_as_long_as_the_system_says() {
        let ns_per_tick = ns_per_tick();
        let (begin, first) = (Instant::now(), ticks());
        while begin.elapsed() < Duration::from_millis(20) {}
        let by_ticks = (ticks() - first) as f64 * ns_per_tick;
        let by_system = begin.elapsed().as_nanos() as f64;
        // The thread may be put aside between the two readings, never made faster.
        assert!(by_ticks > 19e6 && by_ticks < by_system * 1.05, "{by_ticks} and {by_system} ns");
    }
}
