//! Time as VAS counts it: CLOCK_MONOTONIC and UTC in nanoseconds, two types that do not mix.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A point on CLOCK_MONOTONIC of this machine, in nanoseconds. Shared by all processes of a node;
/// in the simulator it starts at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The start of virtual time.
    pub const ZERO: Instant = Instant(0);
    /// Later than everything: "never".
    pub const FAR: Instant = Instant(u64::MAX);

    /// Nanoseconds since the origin of the clock.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`, zero when `earlier` is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `self - duration`, not before the origin.
    pub fn back(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(nanos(duration)))
    }
}

/// A duration in whole nanoseconds, saturating at 584 years.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos(rhs)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, rhs: Instant) -> Duration {
        self.since(rhs)
    }
}

/// Nanoseconds since 1970-01-01T00:00:00 UTC, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UtcNanos(pub u64);

impl UtcNanos {
    /// Later than everything.
    pub const FAR: UtcNanos = UtcNanos(u64::MAX);
}

/// Nanoseconds per second.
pub const NANOS_PER_SEC: u64 = 1_000_000_000;
