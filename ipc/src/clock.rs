//! The clocks of this machine, read through the vDSO: no system call.

use base::{Instant, UtcNanos};
use rustix::time::{ClockId, clock_gettime};

fn nanos(id: ClockId) -> u64 {
    let t = clock_gettime(id);
    u64::try_from(t.tv_sec).unwrap_or(0) * base::time::NANOS_PER_SEC
        + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// CLOCK_MONOTONIC now.
pub fn monotonic() -> Instant {
    Instant(nanos(ClockId::Monotonic))
}

/// UTC now.
pub fn utc() -> UtcNanos {
    UtcNanos(nanos(ClockId::Realtime))
}
