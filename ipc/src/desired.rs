//! The desired state: which cameras exist and which models watch them.
//!
//! One versioned JSON file in the state directory, written by serve (temp + rename, 0600), followed
//! by ingest and scheduler (inotify, and every 30 s). A missing or corrupt file means: keep what
//! you have. Unknown keys are ignored, an unknown format is corrupt.

use rustix::fs::inotify;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The format this program writes and reads.
pub const FORMAT: u32 = 1;

/// Everything that should run on a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredState {
    /// [`FORMAT`].
    pub format: u32,
    /// Rises with every change.
    pub revision: u64,
    /// When it was written, RFC 3339.
    pub written_utc: String,
    /// Cameras, enabled or not.
    pub cameras: Vec<DesiredCamera>,
    /// Subscriptions, enabled or not.
    pub subscriptions: Vec<DesiredSubscription>,
}

/// One camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredCamera {
    /// Camera id.
    pub id: String,
    /// Whether it should run at all.
    pub enabled: bool,
    /// Configured streams, the main one first.
    pub streams: Vec<DesiredStream>,
    /// File cameras: where in the loop the camera starts, milliseconds.
    #[serde(default)]
    pub loop_offset_ms: u64,
    /// Recording wanted.
    #[serde(default)]
    pub record: bool,
    /// Live view wanted.
    #[serde(default)]
    pub live: bool,
    /// How much to decode into the ring.
    #[serde(default)]
    pub decode: DecodeMode,
    /// Slots of the ring: `ceil(fps * (deadline + second stage + 150 ms)) + 2` needs the longest
    /// deadline over this camera's subscriptions, milliseconds.
    #[serde(default = "deadline_default_ms")]
    pub deadline_ms: u64,
}

fn deadline_default_ms() -> u64 {
    base::limits::DEADLINE_DEFAULT.as_millis() as u64
}

/// One stream of a camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredStream {
    /// `main` or `sub`.
    pub name: String,
    /// `rtsp://...` or `file:///path`.
    pub url: String,
    /// `tcp` or `udp`; without meaning for files.
    #[serde(default)]
    pub transport: String,
    /// `record`, `live`, `detect`.
    #[serde(default)]
    pub roles: Vec<String>,
    /// `vas.toml` itself names this URL for this camera: a file may lie anywhere, others below
    /// `[cameras] file_roots` only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_file: bool,
}

/// How much of a camera is decoded into its ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecodeMode {
    /// No worker, no shared memory, no decode.
    #[default]
    Off,
    /// Key frames only.
    Keyframes,
    /// Every frame.
    Full,
}

/// One model on one camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredSubscription {
    /// Assignment id.
    pub id: String,
    /// Camera id.
    pub camera: String,
    /// Model id.
    pub model: String,
    /// The model whose detections it looks at; null = whole frames.
    #[serde(default)]
    pub parent_model: Option<String>,
    /// Ceiling in frames per second; null = every frame.
    pub max_fps: Option<f64>,
    /// 0..100, 50 = normal.
    #[serde(default = "priority_default")]
    pub priority: u8,
    /// Second stage: regions of one frame that are looked at at most, 1..64, the best scores first.
    #[serde(default = "max_regions_default")]
    pub max_regions: u32,
    /// Overrides the model's deadline, milliseconds.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// Model parameters, a JSON object or null.
    #[serde(default)]
    pub parameters: serde_json::Value,
    /// sha256 of the canonical JSON of `parameters`, hex; empty without parameters.
    #[serde(default)]
    pub parameters_id: String,
    /// Whether frames should be bound.
    pub enabled: bool,
}

fn priority_default() -> u8 {
    50
}

fn max_regions_default() -> u32 {
    base::limits::MAX_REGIONS_DEFAULT
}

/// The weight of a priority: `2^((priority - 50) / 25)`, 0.25 to 4.
pub fn weight(priority: u8) -> f64 {
    ((f64::from(priority.min(100)) - 50.0) / 25.0).exp2()
}

/// Why there is no desired state. In every case: keep what you have.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nobody wrote it yet.
    #[error("desired state {0} does not exist yet; `vas serve` writes it")]
    Missing(PathBuf),
    /// It can't be read.
    #[error("desired state {path} can't be read: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not of this format.
    #[error("desired state {path} is corrupt: {detail}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column where known.
        detail: String,
    },
}

impl DesiredState {
    /// Reads the file.
    ///
    /// # Errors
    /// [`LoadError`]; an unknown format counts as corrupt.
    pub fn load(path: &Path) -> Result<DesiredState, LoadError> {
        let text = fs::read(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LoadError::Missing(path.to_owned()),
            _ => LoadError::Io { path: path.to_owned(), source },
        })?;
        let corrupt = |detail: String| LoadError::Corrupt { path: path.to_owned(), detail };
        #[derive(Deserialize)]
        struct Probe {
            format: u32,
        }
        let probe: Probe = serde_json::from_slice(&text).map_err(|e| corrupt(e.to_string()))?;
        if probe.format != FORMAT {
            return Err(corrupt(format!(
                "format is {}, this program reads {FORMAT}",
                probe.format
            )));
        }
        serde_json::from_slice(&text).map_err(|e| corrupt(e.to_string()))
    }

    /// Writes the file so that a reader sees the old or the new state, never a part, and a power
    /// cut leaves one of them.
    ///
    /// # Errors
    /// Those of the file system; the old file stays.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("json.new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
            // The half-written file is of no use to anyone; the first error is the one to tell.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// How often a follower looks even when nothing was announced.
pub const POLL: Duration = Duration::from_secs(30);

/// Follows the file on the calling thread: hands every new state to `apply` and every new problem
/// to `problem`, until `apply` returns false.
///
/// The first readable state is always applied; later ones only when their revision is higher. The
/// same problem is told once.
///
/// # Errors
/// When inotify itself can't be used.
pub fn follow(
    path: &Path,
    mut apply: impl FnMut(DesiredState) -> bool,
    mut problem: impl FnMut(&LoadError),
) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let mut watched = false;
    let mut applied: Option<u64> = None;
    let mut told = String::new();
    loop {
        if !watched {
            // The directory may appear later: start order does not matter.
            let events = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE;
            watched = inotify::add_watch(&watch, directory, events).is_ok();
        }
        match DesiredState::load(path) {
            Ok(state) if applied.is_none_or(|revision| state.revision > revision) => {
                applied = Some(state.revision);
                told.clear();
                if !apply(state) {
                    return Ok(());
                }
            }
            Ok(_) => told.clear(),
            Err(error) => {
                let text = error.to_string();
                if text != told {
                    problem(&error);
                    told = text;
                }
            }
        }
        let timeout = if watched { POLL } else { Duration::from_secs(1) };
        let mut descriptors =
            [rustix::event::PollFd::from_borrowed_fd(watch.as_fd(), rustix::event::PollFlags::IN)];
        let timeout = rustix::event::Timespec {
            tv_sec: timeout.as_secs() as _,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match rustix::event::poll(&mut descriptors, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut scratch = [0; 4096];
        while rustix::io::read(&watch, &mut scratch).is_ok_and(|n| n > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(revision: u64) -> DesiredState {
        DesiredState {
            format: FORMAT,
            revision,
            written_utc: "2026-01-01T00:00:00Z".into(),
            cameras: vec![],
            subscriptions: vec![],
        }
    }

    #[test]
    fn weights_double_every_25() {
        assert_eq!([0, 25, 50, 75, 100, 255].map(weight), [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]);
    }

    #[test]
    fn a_newer_program_may_add_keys_but_not_change_the_format() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("desired.json");
        assert!(matches!(DesiredState::load(&path), Err(LoadError::Missing(_))));
        state(3).store(&path).unwrap();
        assert_eq!(DesiredState::load(&path).unwrap(), state(3));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen('{', "{\"added_later\": [1],", 1)).unwrap();
        assert_eq!(DesiredState::load(&path).unwrap(), state(3));
        fs::write(&path, text.replacen("\"format\": 1", "\"format\": 2", 1)).unwrap();
        let error = DesiredState::load(&path).unwrap_err().to_string();
        assert!(error.contains("format is 2"), "{error}");
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(matches!(DesiredState::load(&path), Err(LoadError::Corrupt { .. })));
    }

    #[test]
    fn a_follower_applies_rising_revisions_and_survives_corruption() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state").join("desired.json");
        fs::create_dir(path.parent().unwrap()).unwrap();
        state(5).store(&path).unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        let (bad, problems) = std::sync::mpsc::channel();
        let followed = path.clone();
        let thread = std::thread::spawn(move || {
            follow(
                &followed,
                |s| send.send(s.revision).is_ok() && s.revision < 9,
                |e| bad.send(e.to_string()).unwrap_or(()),
            )
        });
        assert_eq!(receive.recv(), Ok(5));
        fs::write(&path, "{").unwrap();
        assert!(problems.recv().unwrap().contains("corrupt"));
        state(4).store(&path).unwrap();
        state(6).store(&path).unwrap();
        assert_eq!(receive.recv(), Ok(6));
        state(9).store(&path).unwrap();
        assert_eq!(receive.recv(), Ok(9));
        thread.join().unwrap().unwrap();
    }
}
