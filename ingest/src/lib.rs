//! Cameras in, access units out, frames decoded into the ring: the video path of VAS.
//!
//! `vas ingest` calls [`run`]: it follows the desired state, demuxes and paces every camera, and
//! hands access units to one decode worker process per camera (`vas decode` calls
//! [`decode_main`]), which writes pictures into the camera's ring. Of the AI it knows nothing but
//! `decode: off | keyframes | full`; it runs on when every other process is dead.
//!
//! docs/ingest.md describes threads, bounds and the format between ingest and worker.

pub mod clip;
mod run;

pub use run::{IngestError, Options, run};

use std::process::ExitCode;

/// A decode worker: everything `vas decode` does.
///
/// Takes no arguments: its configuration and the access units come on standard input, a stream
/// socket whose other end is ingest. Started by hand it says so and fails.
pub fn decode_main() -> ExitCode {
    ExitCode::FAILURE
}
