//! Devices and models as the core numbers them.

use crate::{RunnerKey, SubscriptionKey};
use base::{DeviceId, ModelId};
use std::collections::BTreeSet;
use std::time::Duration;

/// Index into the core's models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ModelIx(pub usize);

/// Index into the core's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeviceIx(pub usize);

/// One token domain: at most `capacity` batches execute at a time.
#[derive(Debug)]
pub(crate) struct Device {
    pub id: DeviceId,
    pub capacity: u32,
    /// Tokens lent: batches executing and sizes being measured.
    pub lent: u32,
    /// Virtual time of the fair order; stalls under overload.
    pub virtual_now: u64,
    pub runners: Vec<RunnerKey>,
    /// A runner hung on it.
    pub suspect: bool,
    pub busy: Duration,
    /// The last token went to a measurement: the next one goes to a batch when there is one.
    pub profiled_last: bool,
}

impl Device {
    pub fn free(&self) -> bool {
        self.lent < self.capacity
    }

    /// A token comes back after it was used for this long.
    pub fn take_token(&mut self, busy: Duration) {
        self.busy += busy;
        self.lent -= 1;
    }
}

/// A model and who wants it.
#[derive(Debug)]
pub(crate) struct Model {
    pub id: ModelId,
    pub runners: Vec<RunnerKey>,
    pub subscriptions: Vec<SubscriptionKey>,
    /// Subscriptions with a frame to bind, by tag.
    pub ready: BTreeSet<(u64, SubscriptionKey)>,
    /// How many groups of subscriptions began so far: places the next one between the others.
    pub begun: u64,
}

/// Fractional part of `n` times the golden ratio: any number of consecutive values lies nearly
/// evenly in 0..1 (Steinhaus, three-gap theorem).
pub(crate) fn golden_share(n: u64) -> f64 {
    (n as f64 * 0.618_033_988_749_894_9).fract()
}
