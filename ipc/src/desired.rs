//! The desired state: which cameras exist and which models watch them.
//!
//! One versioned JSON file in the state directory, written by serve (temp + rename, 0600), followed
//! by ingest and scheduler ([`follow`]). A missing or corrupt file means: keep what you have. Unknown
//! keys are ignored, an unknown format is corrupt.

mod follow;

use base::Epoch;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use follow::follow;

/// The format this program writes and reads.
pub const FORMAT: u32 = 1;

/// Everything that should run on a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredState {
    /// [`FORMAT`].
    pub format: u32,
    /// The registry that it follows from.
    #[serde(default, with = "hexadecimal")]
    pub epoch: Epoch,
    /// Rises with every change within an epoch, unless the registry was restored from a copy.
    pub revision: u64,
    /// When it was written, RFC 3339.
    pub written_utc: String,
    /// Cameras, enabled or not.
    pub cameras: Vec<DesiredCamera>,
    /// Subscriptions, enabled or not.
    pub subscriptions: Vec<DesiredSubscription>,
}

/// Which desired state somebody has. [`Version::default`] = none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Version {
    /// The registry.
    pub epoch: Epoch,
    /// Its revision.
    pub revision: u64,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.revision {
            0 => f.write_str("none"),
            revision => write!(f, "revision {revision} of epoch {}", self.epoch),
        }
    }
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
    /// Which one it is.
    pub fn version(&self) -> Version {
        Version { epoch: self.epoch, revision: self.revision }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`LoadError`]; an unknown format counts as corrupt.
    pub fn load(path: &Path) -> Result<DesiredState, LoadError> {
        DesiredState::parse(path, &DesiredState::text(path)?)
    }

    fn text(path: &Path) -> Result<Vec<u8>, LoadError> {
        fs::read(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LoadError::Missing(path.to_owned()),
            _ => LoadError::Io { path: path.to_owned(), source },
        })
    }

    fn parse(path: &Path, text: &[u8]) -> Result<DesiredState, LoadError> {
        let corrupt = |detail: String| LoadError::Corrupt { path: path.to_owned(), detail };
        #[derive(Deserialize)]
        struct Probe {
            format: u32,
        }
        let probe: Probe = serde_json::from_slice(text).map_err(|e| corrupt(e.to_string()))?;
        if probe.format != FORMAT {
            return Err(corrupt(format!(
                "format is {}, this program reads {FORMAT}",
                probe.format
            )));
        }
        serde_json::from_slice(text).map_err(|e| corrupt(e.to_string()))
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

/// 16 hexadecimal digits: JSON has no number of 64 bits.
mod hexadecimal {
    use base::Epoch;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(epoch: &Epoch, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(epoch)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Epoch, D::Error> {
        let text = String::deserialize(from)?;
        let epoch = u64::from_str_radix(&text, 16).map(Epoch);
        epoch.map_err(|_| serde::de::Error::custom(format!("epoch `{text}` is not hexadecimal")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(revision: u64) -> DesiredState {
        DesiredState {
            format: FORMAT,
            epoch: Epoch(0xa),
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
        assert_eq!(state(3).version(), Version { epoch: Epoch(0xa), revision: 3 });
        assert_eq!(state(3).version().to_string(), "revision 3 of epoch 000000000000000a");
        assert_eq!(Version::default().to_string(), "none");
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
    fn what_an_older_program_did_not_name_has_its_default() {
        let text = r#"{"format": 1, "revision": 1, "written_utc": "", "cameras":
            [{"id": "c", "enabled": true, "streams": []}], "subscriptions": [{"id": "s",
            "camera": "c", "model": "m", "max_fps": null, "enabled": true}]}"#;
        let state = DesiredState::parse(Path::new("desired.json"), text.as_bytes()).unwrap();
        let (camera, subscription) = (&state.cameras[0], &state.subscriptions[0]);
        assert_eq!((camera.decode, camera.deadline_ms), (DecodeMode::Off, deadline_default_ms()));
        assert_eq!(camera.deadline_ms, base::limits::DEADLINE_DEFAULT.as_millis() as u64);
        let of = (subscription.priority, subscription.max_regions);
        assert_eq!(of, (50, base::limits::MAX_REGIONS_DEFAULT));
    }

    #[test]
    fn an_epoch_is_text_and_one_of_before_has_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("desired.json");
        let highest = DesiredState { epoch: Epoch(u64::MAX), ..state(1) };
        highest.store(&path).unwrap();
        assert_eq!(DesiredState::load(&path).unwrap(), highest);
        let text = fs::read_to_string(&path).unwrap();
        let line = "  \"epoch\": \"ffffffffffffffff\",\n";
        assert!(text.contains(line), "{text}");
        fs::write(&path, text.replace(line, "")).unwrap();
        assert_eq!(DesiredState::load(&path).unwrap().epoch, Epoch(0));
        fs::write(&path, text.replace("ffff\"", "fffg\"")).unwrap();
        let error = DesiredState::load(&path).unwrap_err().to_string();
        assert!(error.contains("`fffffffffffffffg` is not hexadecimal"), "{error}");
    }
}
