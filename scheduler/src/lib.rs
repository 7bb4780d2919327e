//! The scheduling core: which frames of which cameras go to which model, when, on which device.
//!
//! A state machine without clock, thread, socket, file or random source. Whoever runs it (the
//! production driver, the simulator, a replay, a test) calls
//!
//! 1. [`Scheduler::handle`] with every [`Input`], then
//! 2. [`Scheduler::poll`] until it answers [`Output::Wait`], doing what each output says,
//!
//! and again at the instant that `Wait` names or at the next input, whichever comes first.
//! [`FrameIndex`] answers which frame of a camera is the newest; the core asks only when a
//! subscription could use one, and holds ids and stamps, never pixels. Frames are bound to a batch
//! at launch; nothing is queued.
//!
//! ```
//! use base::{Absent, Instant, Newest};
//! use scheduler::{CameraKey, Config, FrameIndex, Output, Scheduler};
//!
//! struct Empty;
//! impl FrameIndex for Empty {
//!     fn newest(&mut self, _: CameraKey) -> Newest {
//!         Newest::Absent(Absent::NoRing)
//!     }
//! }
//! let mut scheduler = Scheduler::new(Config::default());
//! let now = Instant::ZERO;
//! assert!(matches!(scheduler.poll(now, &mut Empty), Output::Wait { until: Instant::FAR, .. }));
//! ```
#![forbid(unsafe_code)]

mod agent;
mod answers;
mod audit;
mod bind;
mod bounds;
mod camera;
mod cameras;
mod cascade;
mod choose;
mod cohort;
mod cohorts;
mod config;
mod connect;
mod crops;
mod device;
mod input;
mod invariant;
mod latency_watch;
mod launch;
mod ledger;
mod look;
mod machine;
mod model;
mod outlook;
mod output;
mod place;
mod planning;
mod promise;
mod queue;
mod readiness;
mod ready;
mod reconcile;
mod replied;
mod report;
mod runner;
mod runners;
mod scratch;
mod serving;
mod slab;
mod state;
mod status;
mod steering;
mod subscription;
mod timetable;
pub mod trace;
mod trial;
mod wait;
mod wanted;

pub use config::{Config, Steering};
pub use input::{Desired, Input, Outcome, RunnerInfo, SubscriptionSpec};
pub use invariant::Invariant;
pub use ledger::Ledger;
pub use output::{Binding, CloseReason, Output, WaitReason};
pub use state::Scheduler;
pub use status::{
    CameraReport, DeviceReport, Report, RunnerReport, RunnerState, SubscriptionReport,
};
pub use subscription::SubscriptionState;

/// A camera as the core numbers it: a place, small and dense. It is the camera's while desired state
/// names it with a subscription; a later desired state may give it to another camera. Whoever keeps
/// something by it asks [`Scheduler::cameras`] after each one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CameraKey(pub u32);

/// A subscription as the core numbers it: a place in the lower half, how many had it before in the
/// upper half. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionKey(pub u64);

impl SubscriptionKey {
    /// The place, small and dense; a later subscription may have the same.
    pub const fn place(self) -> usize {
        (self.0 & u32::MAX as u64) as usize
    }
}

/// A connection to a runner as the driver numbers it. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunnerKey(pub u64);

/// Id of a batch, rising over all runners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// Answers which frame of a camera is the newest.
pub trait FrameIndex {
    /// The newest published frame. A frame whose `published` lies after the `now` of the poll does
    /// not exist yet for the core.
    fn newest(&mut self, camera: CameraKey) -> base::Newest;
}
