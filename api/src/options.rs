//! What `vas serve` hands to [`crate::serve()`], and why serving can fail.

use crate::config_rows::{AssignmentRow, CameraRow};
use crate::disk::Disk;
use crate::media::room::MediaOptions;
use base::model::ModelSpec;
use ipc::directories::Directories;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything serve needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the processes of this node meet.
    pub directories: Directories,
    /// Where HTTP listens. Loopback only: other addresses need authentication, which this
    /// version does not have. Port 0 takes any free port.
    pub bind: SocketAddr,
    /// The model folders that were configured.
    pub models: Vec<ModelEntry>,
    /// Cameras of the configuration.
    pub cameras: Vec<CameraRow>,
    /// Assignments of the configuration.
    pub assignments: Vec<AssignmentRow>,
    /// `AI_FRAME_EXPORT_ENABLED`: off = nothing is decoded for models.
    pub export_enabled: bool,
    /// Whether results without detections are stored, not only counted.
    pub store_empty: bool,
    /// Age at which whole days of events are dropped.
    pub retention: Duration,
    /// Below these lie the files that cameras are made of over HTTP; those of `cameras` may lie
    /// anywhere.
    pub file_roots: Vec<PathBuf>,
    /// Bytes of the disk below which no event is stored.
    pub keep_free: u64,
    /// How long snapshots and clips stay, and how much they take.
    pub media: MediaOptions,
    /// Where ingest records.
    pub recordings: PathBuf,
    /// Use of the recordings' disk, percent, at which the oldest of them go.
    pub disk_high_percent: u64,
    /// The disk of the state directory.
    pub disk: Disk,
    /// Program and arguments that start one media job, normally `vas media`.
    pub media_command: Vec<OsString>,
    /// Version of the program, for /health.
    pub version: &'static str,
}

/// One configured model folder.
#[derive(Debug, Clone)]
pub struct ModelEntry {
    /// The model's id, or the folder's name when the id could not be read.
    pub name: String,
    /// False = listed, but not assignable; `None` = as stored, at first true.
    pub enabled: Option<bool>,
    /// The checked description, or why there is none.
    pub spec: Result<ModelSpec, Unavailable>,
}

/// Why a model folder can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// What kind of fault.
    pub kind: UnavailableKind,
    /// One line that names the thing and the remedy.
    pub reason: String,
}

/// Kinds of faults of a model folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnavailableKind {
    /// The folder or a file in it does not exist.
    Missing,
    /// A file is there but wrong: model.yaml, labels, weights.
    Invalid,
    /// The description is fine, but this machine or build can't run it.
    Unsupported,
}

impl UnavailableKind {
    /// The word that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            UnavailableKind::Missing => "missing",
            UnavailableKind::Invalid => "invalid",
            UnavailableKind::Unsupported => "unsupported",
        }
    }
}

/// Why serve does not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another serve runs on this runtime directory, or its lock can't be made.
    #[error(transparent)]
    Instance(#[from] ipc::instance::InstanceError),
    /// The address is not loopback.
    #[error(
        "refusing to listen on {0}: the HTTP interface has no authentication yet; set [http] bind to a loopback address such as 127.0.0.1:8080 and put a proxy that authenticates in front"
    )]
    NotLoopback(SocketAddr),
    /// The address can't be had.
    #[error("can't listen on {address}: {source}; set [http] bind in vas.toml to a free address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A directory can't be created or written.
    #[error(
        "{purpose} directory {path} is not writable: {source}; make it writable for this user or set [dirs] {purpose} in vas.toml"
    )]
    Directory {
        /// `state` or `runtime`.
        purpose: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket for the scheduler can't be made.
    #[error("can't listen on {path}: {source}")]
    EventsSocket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store can't be opened or written.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// The desired state can't be written.
    #[error("can't write {path}: {source}")]
    DesiredState {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refused a thread or a runtime.
    #[error("can't start {what}: {source}")]
    Start {
        /// Which part.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A thread of serve ended although nobody asked it to.
    #[error("the {0} thread of serve ended unexpectedly; the log has the reason")]
    PartEnded(&'static str),
}
