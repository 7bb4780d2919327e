//! The production loop around the scheduling core: clock, rings and sockets in, messages out.
//!
//! No decision is made here. One loop ([`run`]) waits for sockets and for the core's next instant: it
//! finds runners, reads and checks their messages, hands them to the core, and writes what the core wants
//! without ever waiting for a peer. A second thread follows the desired state.

mod convert;
mod core_loop;
mod links;
mod parameters;
mod pending;
mod recorder;
mod rings;
mod sockets;

use base::DeviceId;
use ipc::directories::Directories;
use ipc::stop::Stop;
use std::io;
use std::path::PathBuf;

pub use scheduler::Steering;

/// What a scheduler process is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the node lives.
    pub directories: Directories,
    /// Batches that each device executes at a time; 1 where it is not listed.
    pub capacities: Vec<(DeviceId, u32)>,
    /// Share of every device that is planned with.
    pub usable_share: f64,
    /// Whether cameras are steered into cohorts.
    pub steering: Steering,
    /// Records every input and answer to this file, for `vas replay`.
    pub trace: Option<PathBuf>,
}

/// Why a scheduler can't run.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Another one runs, or the lock can't be made.
    #[error(transparent)]
    Instance(#[from] ipc::instance::InstanceError),
    /// The kernel refused something basic.
    #[error("scheduler can't {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The trace file can't be written.
    #[error("trace file {path} can't be written: {source}")]
    Trace {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs the scheduler until `stop`.
///
/// # Errors
/// At the start: another instance, no descriptors, an unwritable trace file. Later none.
pub fn run(options: Options, stop: Stop) -> Result<(), DriverError> {
    let lock = options.directories.instance_lock("scheduler");
    let _lock = ipc::instance::InstanceLock::take(&lock, "vas scheduler")?;
    core_loop::run(&options, &stop)
}
