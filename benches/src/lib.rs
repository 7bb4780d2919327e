//! What several benchmarks measure with.

pub mod counting_allocator;
pub mod node;
pub mod ticks;

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// CPU time of this thread so far.
pub fn thread_cpu() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}
