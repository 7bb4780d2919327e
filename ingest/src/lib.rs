//! Cameras in, access units out, frames decoded into the ring: the video path of VAS.
//!
//! `vas ingest` calls [`run`]: it follows the desired state, reads every camera, and
//! hands access units to one decode worker process per camera (`vas decode` calls
//! [`decode_main`]), which writes pictures into the camera's ring. Of the AI it knows nothing but
//! `decode: off | keyframes | full`; it runs on when every other process is dead.
//!
//! docs/ingest.md describes threads, bounds and the format between ingest and worker.

mod annexb;
mod backoff;
mod bits;
mod camera;
pub mod clip;
mod clip_file;
mod clip_source;
mod container;
mod control;
mod counters;
mod decode;
mod decoder;
mod export_state;
mod health;
mod link;
pub mod live;
pub mod media;
mod mp4;
mod nv12;
mod outlets;
mod pacing;
mod queue;
mod recorder;
mod rtsp;
mod run;
mod source;
mod stream;
mod supervision;
mod timeline;
pub mod unit;
mod watchdog;
mod worker_message;

pub use decode::decode_main;
pub use media::media_main;
pub use recorder::{Disk, LimitedDisk, RecordingOptions, Retention};
pub use run::{IngestError, Options, run};
