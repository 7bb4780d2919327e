//! Everything that can happen to the core.

use crate::{BatchId, RunnerKey};
use base::{
    CameraId, DeviceId, FrameDetections, InstanceId, Instant, LatencyTable, MemberError, ModelId,
    StageTimes,
};
use std::time::Duration;

/// What a runner says of one member.
pub type Outcome = Result<FrameDetections, MemberError>;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The desired state changed. Replaces the whole set of subscriptions; those that stay keep
    /// their counters, gates and tags.
    Desired(Desired),
    /// A runner said hello and was welcomed.
    RunnerUp {
        /// The connection.
        runner: RunnerKey,
        /// What it said.
        info: RunnerInfo,
    },
    /// The connection is gone, for whatever reason, also after [`crate::Output::Close`].
    RunnerDown {
        /// The connection.
        runner: RunnerKey,
    },
    /// The process of a hung instance has ended: its lock is free.
    RunnerGone {
        /// The instance.
        instance: InstanceId,
    },
    /// A prepared-ahead batch is the runner's own.
    Prepared {
        /// The connection.
        runner: RunnerKey,
        /// The batch.
        batch: BatchId,
    },
    /// The device is free again; postprocess goes on.
    Executed {
        /// The connection.
        runner: RunnerKey,
        /// The batch.
        batch: BatchId,
        /// When the runner began with the token in hand.
        granted: Instant,
        /// When the engine was done.
        executed: Instant,
    },
    /// The one response to a Prepare.
    Reply {
        /// The connection.
        runner: RunnerKey,
        /// The batch.
        batch: BatchId,
        /// Stage boundaries.
        times: StageTimes,
        /// One per member, in their order.
        outcomes: Vec<Outcome>,
    },
    /// The runner asks to measure these batch sizes under the token.
    ProfileRequest {
        /// The connection.
        runner: RunnerKey,
        /// Sizes.
        sizes: Vec<u32>,
    },
    /// One size was measured; the token is free.
    ProfileDone {
        /// The connection.
        runner: RunnerKey,
        /// The size.
        batch_size: u32,
        /// Device time of each run.
        samples: Vec<Duration>,
    },
    /// The runner's latency table, measured or updated.
    Table {
        /// The connection.
        runner: RunnerKey,
        /// L(b).
        table: LatencyTable,
    },
}

/// What a runner says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct RunnerInfo {
    /// This life of the process.
    pub instance: InstanceId,
    /// The model it holds.
    pub model: ModelId,
    /// The device it executes on.
    pub device: DeviceId,
    /// Whether the device is a GPU: shorter lease floor, batches are prepared ahead.
    pub gpu: bool,
    /// Largest batch of the engine.
    pub batch_max: u32,
    /// The model's deadline.
    pub deadline: Duration,
    /// L(b), empty = not measured yet: batches of one until it is.
    pub latency: LatencyTable,
}

/// The subscriptions that should exist.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// Revision of the desired state.
    pub revision: u64,
    /// All of them, also the disabled ones.
    pub subscriptions: Vec<SubscriptionSpec>,
}

/// One model on one camera.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscriptionSpec {
    /// Id of the assignment.
    pub id: String,
    /// Camera.
    pub camera: CameraId,
    /// Model.
    pub model: ModelId,
    /// The model whose detections it looks at, `None` = whole frames.
    pub parent: Option<ModelId>,
    /// Ceiling in frames per second, `None` = every frame.
    pub max_fps: Option<f64>,
    /// Share relative to others under overload, 1 = normal.
    pub weight: f64,
    /// Overrides the model's deadline.
    pub deadline: Option<Duration>,
    /// Number of its parameter set, given by the driver; 0 = none.
    pub parameters: u32,
    /// Second stage: regions of one frame that are looked at at most, the best scores first.
    pub regions_max: u32,
    /// False = paused: frames are counted, none is bound.
    pub enabled: bool,
}

#[cfg(test)]
impl SubscriptionSpec {
    /// Whole frames, 5 per second at most, nothing special.
    pub(crate) fn plain(id: &str, camera: &str, model: &str) -> SubscriptionSpec {
        SubscriptionSpec {
            id: id.into(),
            camera: camera.parse().unwrap(),
            model: model.parse().unwrap(),
            parent: None,
            max_fps: Some(5.0),
            weight: 1.0,
            deadline: None,
            parameters: 0,
            regions_max: 16,
            enabled: true,
        }
    }
}
