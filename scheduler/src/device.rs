//! Devices and models as the core numbers them.

use crate::SubscriptionKey;
use crate::planning::Cohorts;
use crate::queue::Queue;
use crate::runner::RunnerIx;
use crate::trial::Trial;
use base::{DeviceId, Instant, ModelId};
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
    lent: u32,
    /// Virtual time of the fair order; stalls under overload.
    pub virtual_now: u64,
    pub runners: Vec<RunnerIx>,
    /// The model of each of them.
    pub models: Vec<ModelIx>,
    /// A runner hung on it.
    pub suspect: bool,
    pub busy: Duration,
    /// The last token went to a measurement: the next one goes to a batch when there is one.
    pub profiled_last: bool,
    /// Something happened to it: it is stepped at the next poll.
    pub dirty: bool,
    /// When it is stepped without that.
    pub next_at: Instant,
    /// Until when its first held launch waits, as of its last step.
    pub held_until: Instant,
    /// When the first lease or hang limit on it passes.
    pub bound_at: Instant,
    /// Wanted device time per second, as the planner sees it.
    pub load: f64,
    /// Whether its models are steered.
    pub trial: Trial,
    /// More is wanted than there is: the fair order decides, not the timetable.
    pub overloaded: bool,
}

impl Device {
    pub fn new(id: DeviceId, capacity: u32, now: Instant) -> Device {
        Device {
            id,
            capacity,
            lent: 0,
            virtual_now: 0,
            runners: Vec::new(),
            models: Vec::new(),
            suspect: false,
            busy: Duration::ZERO,
            profiled_last: false,
            dirty: true,
            next_at: Instant::FAR,
            held_until: Instant::FAR,
            bound_at: Instant::FAR,
            load: 0.0,
            trial: Trial::new(now),
            overloaded: false,
        }
    }

    pub fn free(&self) -> bool {
        self.lent < self.capacity
    }

    pub fn lent(&self) -> u32 {
        self.lent
    }

    /// A token goes out. False = there was none: [`crate::Invariant::Token`] is broken.
    #[must_use]
    pub fn lend(&mut self) -> bool {
        let free = self.free();
        self.lent += 1;
        free
    }

    /// A token comes back after it was used for this long. False = none was out.
    #[must_use]
    pub fn give_back(&mut self, busy: Duration) -> bool {
        self.busy += busy;
        self.dirty = true;
        let out = self.lent > 0;
        self.lent = self.lent.saturating_sub(1);
        out
    }
}

/// A model and who wants it.
#[derive(Debug)]
pub(crate) struct Model {
    pub id: ModelId,
    pub runners: Vec<RunnerIx>,
    pub devices: Vec<DeviceIx>,
    pub subscriptions: Vec<SubscriptionKey>,
    /// Subscriptions with a frame to bind, by tag. An entry counts while its subscription is ready
    /// with this tag.
    pub ready: Queue,
    /// How many are ready.
    pub ready_count: u32,
    /// When the first of the ready ones was due; [`Instant::FAR`] when none is ready.
    pub due: Instant,
    /// Whether one of the ready ones was taken for a launch of the timetable.
    pub on_time: bool,
    /// When subscriptions may have a frame to bind. An entry counts while its subscription awaits
    /// that instant.
    pub awaited: Queue,
    /// Subscriptions whose next frame may be there and was not at the last look: looked at again whenever
    /// a launch is considered.
    pub overdue: Vec<SubscriptionKey>,
    /// Whether some of its subscriptions look at another model's detections.
    pub crops: bool,
    /// How many groups of subscriptions began so far: places the next one between the others.
    pub begun: u64,
    /// Virtual time of its own launches.
    pub virtual_now: u64,
    /// What the planner found out about its subscriptions.
    pub wanted: crate::planning::Wanted,
    /// Its part of the timetable, while it is steered.
    pub cohorts: Option<Cohorts>,
    /// The last ones that ended: memory for the next.
    pub ended: Option<Cohorts>,
    /// When it is planned next.
    pub plan_at: Instant,
}

impl Model {
    /// Entries of `awaited` beyond which those that no longer count are dropped.
    pub fn awaited_max(&self) -> usize {
        64 + 4 * self.subscriptions.len()
    }

    /// Adds a subscription, and room for what is kept of it.
    pub fn add(&mut self, key: SubscriptionKey) {
        self.subscriptions.push(key);
        self.ready.reserve(self.subscriptions.len());
        self.awaited.reserve(self.awaited_max() + 1);
        self.overdue.reserve(self.subscriptions.len());
    }
}

/// Fractional part of `n` times the golden ratio: any number of consecutive values lies nearly
/// evenly in 0..1 (Steinhaus, three-gap theorem).
pub(crate) fn golden_share(n: u64) -> f64 {
    (n as f64 * 0.618_033_988_749_894_9).fract()
}
