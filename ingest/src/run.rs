//! The ingest process.

use ipc::directories::Directories;
use ipc::stop::Stop;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// What ingest needs to know beside the desired state.
#[derive(Debug, Clone)]
pub struct Options {
    /// Roots of shared memory, runtime and state.
    pub directories: Directories,
    /// `AI_FRAME_EXPORT_ENABLED`: false = no worker, no shared memory, no decode, whatever the
    /// desired state says.
    pub export_enabled: bool,
    /// Program and arguments that start a decode worker, normally `vas decode`.
    pub decode_command: Vec<OsString>,
}

/// Why ingest does not start.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Another one runs.
    #[error(
        "another ingest{holder} holds {}; stop it or set another runtime directory",
        lock.display()
    )]
    Locked {
        /// The lock file.
        lock: PathBuf,
        /// ` (process N)`, or empty when unknown.
        holder: String,
    },
    /// A directory or file of its own can't be used.
    #[error("can't {action} {}: {source}; {remedy}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The command that starts decode workers is empty.
    #[error("the decode command is empty; give the program and arguments of a decode worker")]
    DecodeCommand,
}

/// Runs ingest until `stop`.
///
/// # Errors
/// [`IngestError`] when it can't start. Afterwards nothing ends it but `stop`: what is wrong with
/// one camera is logged and retried for that camera.
pub fn run(options: Options, stop: Stop) -> Result<(), IngestError> {
    let _ = (options, stop);
    Ok(())
}
