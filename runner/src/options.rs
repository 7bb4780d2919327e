//! What a runner is started with, and why it may refuse.

use crate::engine::EngineError;
use crate::model_yaml::ModelError;
use base::{DeviceId, ModelId};
use ipc::directories::Directories;
use ipc::instance::InstanceError;
use std::io;
use std::path::PathBuf;

/// What the operator asked for (a model that requires a GPU refuses to run without one, whatever
/// stands here).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DevicePolicy {
    /// A GPU when there is one, else the CPU.
    #[default]
    Auto,
    /// A GPU or nothing.
    Gpu,
    /// The CPU.
    Cpu,
}

impl DevicePolicy {
    /// The word of the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            DevicePolicy::Auto => "auto",
            DevicePolicy::Gpu => "gpu",
            DevicePolicy::Cpu => "cpu",
        }
    }
}

/// Where an engine finds its library and how many threads it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// The ONNX Runtime library or the folder that holds it; `None` = ORT_DYLIB_PATH, then the
    /// cache folder.
    pub onnxruntime: Option<PathBuf>,
    /// The cache folder of VAS: libraries that set-up fetched, measured latencies.
    pub cache_dir: PathBuf,
    /// Threads of one inference, at least 1.
    pub threads: usize,
}

/// How a runner is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The model's folder.
    pub model_dir: PathBuf,
    /// The device, as the scheduler knows it: `cpu`.
    pub device: DeviceId,
    /// What the operator asked for.
    pub policy: DevicePolicy,
    /// Where the processes of the node meet.
    pub directories: Directories,
    /// The engine.
    pub engine: EngineOptions,
}

/// The cache folder of VAS: `$XDG_CACHE_HOME/vas`, else `~/.cache/vas`. `None` when neither
/// variable holds an absolute path.
pub fn default_cache_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("vas"))
}

/// Why a runner does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The model's folder is not usable.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine does not take the model, or there is no engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A GPU is required or was asked for, and there is none.
    #[error("model {model}: {why}; looked for: {looked_for}; {remedy}")]
    Device {
        /// The model.
        model: ModelId,
        /// Who asked for what.
        why: String,
        /// Where a device was looked for.
        looked_for: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// Another runner of this model and device lives, or the lock can't be made.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// A file or directory could not be used.
    #[error("{what} {}: {source}; {remedy}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The system refused something without a name.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// How it failed.
        source: io::Error,
    },
}
