//! The model process: one model on one device, loaded once, serving every camera.
//!
//! [`serve`] is the process: it listens for the scheduler, copies the frames that a batch names out
//! of the rings, preprocesses, executes, decodes, replies. It knows no camera, no rate, no queue
//! and no retry; it never sees a path or pixels on a socket. [`model_yaml`] reads what a model is,
//! [`engine`] executes it, [`decode`] turns its output into detections. [`model_run`] and
//! [`model_check`] serve the command line.

pub mod decode;
pub mod engine;
mod hardware;
mod latency_cache;
pub mod model_yaml;
mod onnx_file;
mod options;
pub mod parameters;
mod pipeline;
mod profile;
mod sampling;
mod serve;
mod tools;

pub use engine::{Engine, EngineError};
pub use latency_cache::stored_latencies;
pub use model_yaml::ModelError;
pub use options::{DevicePolicy, EngineOptions, Options, RunnerError, default_cache_dir};
pub use profile::{ProfileError, model_profile};
pub use serve::{EXIT_HUNG, serve};
pub use tools::{ClipFrame, ModelRunError, Report, jsonl_line, model_check, model_run};

#[cfg(test)]
mod test_model;
