//! The contract between the model process and whatever executes the network.
//!
//! An engine owns one loaded model. Batches pass through it in three steps: [`Engine::prepare`]
//! makes the frames the engine's own (no device time), [`Engine::submit`] starts preprocess and
//! execution under the device token, [`Engine::wait`] or [`Engine::poll`] hand back the output.
//! Decoding the output is not the engine's business. One thread drives an engine.

pub mod library;
mod onnx;
mod synthetic;

pub use onnx::OnnxEngine;
pub use synthetic::SyntheticEngine;

use crate::options::EngineOptions;
use base::limits::HANG_LIMIT;
use base::model::{Backend, ModelSpec};
use base::{Instant, Picture, Rect};
use kernels::{Fit, PreprocessError};
use std::sync::Arc;
use std::time::Duration;

/// Why an engine refused. Each is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The library that executes the model cannot be loaded.
    #[error("{0}")]
    Library(String),
    /// The library refuses the weights.
    #[error("weights {file}: {why}")]
    Load {
        /// The file.
        file: String,
        /// What the library said.
        why: String,
    },
    /// The graph is not what `model.yaml` says.
    #[error("{0}")]
    Mismatch(String),
    /// A batch of one takes so long that it looks hung.
    #[error(
        "one run of the model takes {:.1} s, the limit is {} s: use a smaller input, or raise \
         runner.threads in the configuration",
        took.as_secs_f64(),
        HANG_LIMIT.as_secs()
    )]
    TooSlow {
        /// What one run took when the engine was warm.
        took: Duration,
    },
    /// A batch failed; the engine lives.
    #[error("batch of {members}: {why}")]
    Run {
        /// Members of the batch.
        members: usize,
        /// What the library said.
        why: String,
    },
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Library and version, for example `onnxruntime 1.31.1`: part of the key of measured
    /// latencies.
    pub runtime: String,
    /// Runtime, device, threads, how frames are copied: for people.
    pub summary: String,
    /// Whether it executes on a GPU.
    pub gpu: bool,
}

/// Pixels that are the runner's own, and what of them to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Size and colour.
    pub picture: Picture,
    /// What of the frame to look at.
    pub region: Rect,
    /// NV12 without padding between rows. Members that look at regions of one frame share it.
    pub pixels: Arc<Vec<u8>>,
}

/// A submitted batch. Only the engine that made it takes it back.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// An output tensor of a batch.
pub trait OutputTensor: Send {
    /// Extent of each axis; the first is the batch.
    fn shape(&self) -> &[usize];
    /// Row-major values.
    fn values(&self) -> &[f32];
}

/// A batch that went through.
pub struct Finished {
    /// The frames, for reuse of their memory, in the order of the batch.
    pub frames: Vec<Frame>,
    /// Per member where its region lies in the input, or why it could not be converted; such a
    /// member's share of the outputs means nothing.
    pub fits: Vec<Result<Fit, PreprocessError>>,
    /// Output tensors in the order of [`output_names`].
    pub outputs: Vec<Box<dyn OutputTensor>>,
    /// When the input tensor was complete.
    pub preprocessed: Instant,
    /// When the output was there.
    pub executed: Instant,
}

/// A loaded model that takes batches.
pub trait Engine: Send {
    /// What it is.
    fn info(&self) -> &EngineInfo;

    /// Batches that it can hold prepared at once, at least two.
    fn slots(&self) -> usize;

    /// Whether [`Engine::submit`] executes the batch before it returns. Then the thread that reads
    /// messages drives the engine too: another one would only be woken by it.
    fn synchronous(&self) -> bool;

    /// Takes frames, 1 to `batch_max`, into `slot`; what it held there is forgotten. Uses no device
    /// time.
    ///
    /// # Errors
    /// [`EngineError::Run`] when the frames do not fit; they are gone.
    fn prepare(&mut self, slot: usize, frames: Vec<Frame>) -> Result<(), EngineError>;

    /// Starts preprocess and execution of what `slot` holds; the slot is free again.
    ///
    /// # Errors
    /// [`EngineError::Run`] when it could not be started; the frames are gone.
    fn submit(&mut self, slot: usize) -> Result<Ticket, EngineError>;

    /// The result when it is there, else `None`; the ticket stays good.
    ///
    /// # Errors
    /// [`EngineError::Run`] when the batch failed; the ticket is spent.
    fn poll(&mut self, ticket: &Ticket) -> Result<Option<Finished>, EngineError>;

    /// The result, waiting for it.
    ///
    /// # Errors
    /// [`EngineError::Run`] when the batch failed.
    fn wait(&mut self, ticket: Ticket) -> Result<Finished, EngineError>;
}

/// Names of the output tensors that the decoder of a model reads, in its order.
pub fn output_names(spec: &ModelSpec) -> Vec<&str> {
    match &spec.decoder {
        base::model::Decoder::BoxesScores { scores, boxes } => vec![scores, boxes],
    }
}

/// Loads the model into the engine that its `model.yaml` names.
///
/// # Errors
/// [`EngineError`] when the library is missing, the weights are refused or the graph is not what
/// the spec says.
pub fn load(spec: &ModelSpec, options: &EngineOptions) -> Result<Box<dyn Engine>, EngineError> {
    match &spec.backend {
        Backend::Onnx => Ok(Box::new(OnnxEngine::load(spec, options)?)),
        Backend::Synthetic(synthetic) => Ok(Box::new(SyntheticEngine::new(spec, synthetic))),
    }
}

/// Foreign text as one line of at most 400 characters.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(400).collect()
}
