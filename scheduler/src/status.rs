//! What the core says of itself.

use crate::invariant::Invariant;
use crate::ledger::Ledger;
use crate::subscription::SubscriptionState;
use base::{Absent, CameraId, DeviceId, FrameId, Generation, InstanceId, LatencyTable, ModelId};
use std::time::Duration;

/// One subscription.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "fields are those of the subscription and of the ledger")]
pub struct SubscriptionReport {
    pub id: String,
    pub camera: CameraId,
    pub model: ModelId,
    pub state: SubscriptionState,
    pub max_fps: Option<f64>,
    /// Frames bound per second over the last ten seconds.
    pub granted_fps: f64,
    /// Why that is below the ceiling; empty = it is not.
    pub reason: &'static str,
    pub ledger: Ledger,
    pub in_flight: u64,
    /// Observed ids without an end yet.
    pub pending: u64,
}

impl SubscriptionReport {
    /// Whether every observed and every bound frame is in exactly one place.
    pub fn balanced(&self) -> bool {
        self.ledger.observed == self.ledger.decided() + self.pending
            && self.ledger.bound == self.ledger.ended() + self.in_flight
    }
}

/// One camera with subscriptions.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "fields are those of the agent")]
pub struct CameraReport {
    pub id: CameraId,
    pub absent: Option<Absent>,
    pub generation: Generation,
    pub newest: FrameId,
    /// Measured frames per second, 0 = unknown.
    pub fps: f64,
}

/// One runner: connected, or hung.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "fields are those of the runner")]
pub struct RunnerReport {
    pub model: ModelId,
    pub device: DeviceId,
    pub instance: InstanceId,
    pub state: RunnerState,
    pub batches: u64,
    pub members: u64,
    /// Time the device was its own.
    pub busy: Duration,
    /// Sums over all answered members, in the order of [`base::Stages::NAMES`].
    pub stage_sums: [Duration; 9],
    pub latency: LatencyTable,
    /// Largest batch that pays.
    pub batch_size: u32,
    /// Members of a batch as planned.
    pub batch_planned: f64,
    /// Planned time between two launches.
    pub interval: Duration,
    /// Whether frames are chosen to land before a launch.
    pub steered: bool,
}

/// What a runner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerState {
    /// Takes batches.
    Ready,
    /// Measures L(b) under the token.
    Profiling,
    /// Overran a lease: no Prepare until its late answer has come.
    Late,
    /// Overran a lease before: served after all others.
    Demoted,
    /// Overran the hang limit: its connection is closed, this instance is refused. No runner of the
    /// core is in this state, only the status of one that was.
    Hung,
}

/// One device.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "fields are those of the device")]
pub struct DeviceReport {
    pub id: DeviceId,
    pub suspect: bool,
    pub busy: Duration,
    /// Wanted share of the device with the largest batches in time; above 1 is overload for sure.
    pub load: f64,
    /// More is wanted than there is.
    pub overloaded: bool,
}

/// All of the above, or a part of it.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "fields are documented with their types")]
pub struct Report {
    pub revision: u64,
    /// How often each [`Invariant`] was broken, in their order.
    pub broken: [u64; Invariant::COUNT],
    pub subscriptions: Vec<SubscriptionReport>,
    pub cameras: Vec<CameraReport>,
    pub runners: Vec<RunnerReport>,
    pub devices: Vec<DeviceReport>,
}
