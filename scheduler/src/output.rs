//! Everything the core can want.

use crate::input::Outcome;
use crate::{BatchId, CameraKey, RunnerKey, SubscriptionKey};
use base::{Instant, Rect, Stages, Stamp};
use std::time::Duration;

/// One frame bound to a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Binding {
    /// For whom.
    pub subscription: SubscriptionKey,
    /// The camera.
    pub camera: CameraKey,
    /// The frame.
    pub stamp: Stamp,
    /// What of it.
    pub region: Rect,
    /// Sequence of the parent result, 0 = none.
    pub parent: u64,
    /// Number of the parameter set, 0 = none.
    pub parameters: u32,
    /// The first of its frame to be bound, which is the one that the ceiling counts: of a frame with
    /// several regions one is.
    pub first: bool,
}

/// One thing to do.
#[allow(
    clippy::large_enum_variant,
    reason = "handed out one at a time and taken apart at once; a box would be an allocation per result"
)]
#[derive(Debug, PartialEq)]
pub enum Output<'a> {
    /// Launch: send a Prepare that names these frames. With a lease the token comes with it.
    Prepare {
        /// To whom.
        runner: RunnerKey,
        /// The batch.
        batch: BatchId,
        /// The token and for how long, when it is given at once.
        lease: Option<Duration>,
        /// The members, in order.
        members: &'a [Binding],
    },
    /// Send a Grant.
    Grant {
        /// To whom.
        runner: RunnerKey,
        /// A prepared batch.
        batch: BatchId,
        /// For how long.
        lease: Duration,
    },
    /// Send a Revoke.
    Revoke {
        /// To whom.
        runner: RunnerKey,
        /// A prepared batch.
        batch: BatchId,
    },
    /// Send a ProfileGrant.
    ProfileGrant {
        /// To whom.
        runner: RunnerKey,
        /// The size to measure.
        batch_size: u32,
        /// For how long.
        lease: Duration,
    },
    /// Close the connection, then report [`crate::Input::RunnerDown`].
    Close {
        /// Which.
        runner: RunnerKey,
        /// Why.
        reason: CloseReason,
    },
    /// A member was answered in time. Results of one batch come in a row; `last` ends the row.
    Result {
        /// Who answered.
        runner: RunnerKey,
        /// The batch.
        batch: BatchId,
        /// The frame and for whom.
        binding: Binding,
        /// Counts up by one per result of this scheduler.
        sequence: u64,
        /// When the reply was handled.
        received: Instant,
        /// The age, taken apart.
        stages: Stages,
        /// Detections or why there are none.
        outcome: Outcome,
        /// Whether the batch has no further results.
        last: bool,
    },
    /// Nothing to do before `until`, unless an input comes.
    Wait {
        /// When to poll again, [`Instant::FAR`] = never.
        until: Instant,
        /// What for.
        reason: WaitReason,
    },
}

/// What the core waits for: a busy loop can be explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// Nothing at all.
    Idle,
    /// Frames, or a launch of the timetable.
    Frames,
    /// The count of frames that nobody looks at.
    Unserved,
    /// The lease of a batch.
    Lease(BatchId),
    /// The hang limit of a runner.
    Hang(RunnerKey),
    /// The moment to prepare the next batch of a GPU.
    PrepareAhead,
}

/// Why a connection has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// It owes an answer for longer than the hang limit.
    Hung,
    /// This instance hung before; only a new instance is served.
    RefusedInstance,
    /// Another connection serves the same model on the same device.
    Replaced,
    /// It sent what the protocol does not allow at that moment.
    Protocol(&'static str),
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CloseReason::Hung => f.write_str("no answer within the hang limit; restart the runner"),
            CloseReason::RefusedInstance => {
                f.write_str("this instance hung before; restart the runner")
            }
            CloseReason::Replaced => f.write_str("a newer connection serves its model and device"),
            CloseReason::Protocol(what) => write!(f, "protocol error: {what}"),
        }
    }
}
