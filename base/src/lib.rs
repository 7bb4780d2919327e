//! The vocabulary that every part of VAS shares: ids, time, frames, geometry, detections, model
//! descriptions, limits, secrets of addresses, lines that are said once.
//!
//! No I/O, no clock, no unsafe code, no dependency. The types of the wire (`ipc`), of the disk
//! (`store`) and of the HTTP interface (`api`) are their own and convert to and from these.
#![forbid(unsafe_code)]

pub mod address;
pub mod clock_trust;
pub mod detection;
pub mod frame;
pub mod geometry;
pub mod guard;
pub mod id;
pub mod latency;
pub mod limits;
pub mod log_gate;
pub mod model;
pub mod stage;
pub mod time;
pub mod told;

pub use detection::{Detection, FrameDetections, Keypoint, Mask, MemberError, TrackId};
pub use frame::{
    Absent, ColourMatrix, ColourRange, FrameFlags, FrameId, FrameInfo, Generation, MediaTime,
    Newest, Picture, Stamp,
};
pub use geometry::{Rect, Size};
pub use id::{CameraId, DeviceId, Epoch, IdError, InstanceId, ModelId};
pub use latency::{LatencyEntry, LatencyTable};
pub use stage::{StageTimes, Stages};
pub use time::{Instant, UtcNanos};
