//! The registry: devices, models, assignments, class names, snapshots, bookmarks, and the revision of
//! the desired state.
//!
//! Every call is one durable transaction, all or nothing, one writer at a time.
//! [`Control::write`] runs a closure inside a transaction, so that a caller's checks (is the model
//! known, is the URL taken) hold when the row is written.

mod config;
mod media;
pub(crate) mod row;
mod transaction;

pub use config::{Changes, ConfigAssignment, ConfigDevice, ConfigModel, ConfigRows};
pub(crate) use media::OfCamera;
pub use media::{Bookmark, JobState, MediaId, MediaIdError, MediaPage, Moment, Snapshot};
pub use transaction::{ControlRead, ControlWrite};

use crate::database::{Database, Disk, PlainDisk};
use crate::error::StoreError;
use crate::tables;
use crate::writer::utc_now;
use base::limits::ASSIGNMENT_ID_CHARS_MAX;
use base::{CameraId, Epoch, ModelId, UtcNanos};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// redb's cache for the control file: it holds a few thousand small rows.
const CACHE_BYTES: usize = 4 << 20;

/// A JSON object.
pub type JsonObject = serde_json::Map<String, serde_json::Value>;

/// Where a row came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From the configuration file, which wins for the fields it names at each start.
    Config,
    /// Made through the API.
    Api,
}

/// One stream of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// `main` or `sub`.
    pub name: String,
    /// `rtsp://...` or `file:///path`.
    pub url: String,
    /// `tcp` or `udp`; empty for files.
    pub transport: String,
    /// `record`, `live`, `detect`.
    pub roles: Vec<String>,
}

/// A camera (spec V1 calls it a device).
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Id.
    pub id: CameraId,
    /// Name for people.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Where it hangs.
    pub location: Option<String>,
    /// Its streams, the main one first.
    pub streams: Vec<Stream>,
    /// File cameras: where in the loop they start, milliseconds.
    pub loop_offset_ms: u64,
    /// Recording wanted.
    pub record: bool,
    /// Live view wanted.
    pub live: bool,
    /// Export of frames wanted; the global switch must be on as well.
    pub export: bool,
    /// Whether it should run at all.
    pub enabled: bool,
    /// Where the row came from.
    pub source: Source,
    /// It came from the configuration and is in it no more.
    pub gone: bool,
    /// When the row was made. Set by the store.
    pub created_at: UtcNanos,
    /// When it was last changed. Set by the store.
    pub updated_at: Option<UtcNanos>,
}

impl Device {
    /// A device with default settings: enabled, live and exported, not recorded.
    pub fn new(id: CameraId, source: Source) -> Device {
        Device {
            name: id.to_string(),
            id,
            description: None,
            location: None,
            streams: Vec::new(),
            loop_offset_ms: 0,
            record: false,
            live: true,
            export: true,
            enabled: true,
            source,
            gone: false,
            created_at: UtcNanos(0),
            updated_at: None,
        }
    }
}

/// A model that may be assigned (spec P5.4.2). Declarative: no runner has to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Id.
    pub id: ModelId,
    /// Name for people.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Version last seen.
    pub version: Option<String>,
    /// For example `object_detection`.
    pub supported_tasks: Vec<String>,
    /// JSON Schema of an assignment's parameters; `None` = it takes none.
    pub config_schema: Option<JsonObject>,
    /// The model's deadline, milliseconds.
    pub deadline_ms: Option<u64>,
    /// May be assigned; running assignments do not care (spec P5.4.3).
    pub enabled: bool,
    /// Where the row came from.
    pub source: Source,
    /// It came from the configuration and is in it no more.
    pub gone: bool,
    /// When the row was made. Set by the store.
    pub created_at: UtcNanos,
    /// When it was last changed. Set by the store.
    pub updated_at: Option<UtcNanos>,
}

impl Model {
    /// A model with default settings: enabled.
    pub fn new(id: ModelId, source: Source) -> Model {
        Model {
            name: id.to_string(),
            id,
            description: None,
            version: None,
            supported_tasks: Vec::new(),
            config_schema: None,
            deadline_ms: None,
            enabled: true,
            source,
            gone: false,
            created_at: UtcNanos(0),
            updated_at: None,
        }
    }
}

/// Id of an assignment: 1 to 160 characters of `A-Z a-z 0-9 _ - .`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentId(Box<str>);

impl AssignmentId {
    /// A new one for a row made through the API: a UUID.
    pub fn random() -> AssignmentId {
        AssignmentId(uuid::Uuid::now_v7().to_string().into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text is not an assignment id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "assignment id `{text}` is not 1 to {ASSIGNMENT_ID_CHARS_MAX} characters of A-Z a-z 0-9 _ - ."
)]
pub struct AssignmentIdError {
    /// The text, cut to 80 characters.
    pub text: String,
}

impl FromStr for AssignmentId {
    type Err = AssignmentIdError;
    fn from_str(text: &str) -> Result<AssignmentId, AssignmentIdError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if (1..=ASSIGNMENT_ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(good) {
            Ok(AssignmentId(text.into()))
        } else {
            Err(AssignmentIdError { text: text.chars().take(80).collect() })
        }
    }
}

impl fmt::Display for AssignmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One model on one camera (spec P8.1.2). Intent only.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// Id.
    pub id: AssignmentId,
    /// The camera.
    pub camera: CameraId,
    /// The model.
    pub model: ModelId,
    /// The model whose detections it looks at; `None` = whole frames.
    pub parent_model: Option<ModelId>,
    /// Ceiling in frames per second; `None` = every frame.
    pub desired_fps: Option<f64>,
    /// 0 to 100; `None` = 50.
    pub priority: Option<u8>,
    /// Second stage: regions of one frame that are looked at at most, 1 to 64; `None` = 16.
    pub max_regions: Option<u32>,
    /// Overrides the model's deadline, milliseconds.
    pub deadline_ms: Option<u64>,
    /// Model parameters.
    pub parameters: Option<JsonObject>,
    /// Whether it should run.
    pub enabled: bool,
    /// Where the row came from.
    pub source: Source,
    /// It came from the configuration and is in it no more.
    pub gone: bool,
    /// When the row was made. Set by the store.
    pub created_at: UtcNanos,
    /// When it was last changed. Set by the store.
    pub updated_at: Option<UtcNanos>,
}

impl Assignment {
    /// An assignment with default settings: enabled, every frame.
    pub fn new(id: AssignmentId, camera: CameraId, model: ModelId, source: Source) -> Assignment {
        Assignment {
            id,
            camera,
            model,
            parent_model: None,
            desired_fps: None,
            priority: None,
            max_regions: None,
            deadline_ms: None,
            parameters: None,
            enabled: true,
            source,
            gone: false,
            created_at: UtcNanos(0),
            updated_at: None,
        }
    }
}

/// What creating an assignment came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Created {
    /// It is stored.
    New(Assignment),
    /// The camera has this model already: that row, unchanged.
    Existing(Assignment),
}

/// The registry of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    file: Arc<Database>,
}

/// The control file beneath a state directory.
pub(crate) fn control_path(state: &Path) -> PathBuf {
    state.join("control.redb")
}

impl Control {
    /// Opens the registry beneath a state directory, making both when they are missing. When there
    /// is no room for that, the registry is empty, and every write tries again to make it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it open, else those of the file system.
    pub fn open(state: &Path) -> Result<Control, StoreError> {
        Control::open_with(state, Arc::new(PlainDisk))
    }

    pub(crate) fn open_with(state: &Path, disk: Arc<dyn Disk>) -> Result<Control, StoreError> {
        let path = control_path(state);
        let file = Database::new(path.clone(), &tables::CONTROL, CACHE_BYTES, disk);
        let missing = |e| StoreError::io(&path, "looking for the file", e);
        if !path.try_exists().map_err(missing)? {
            match file.create() {
                Err(error) if error.is_full() => {
                    tracing::error!("{error}; the registry is empty until there is room");
                    file.stand_in(error.to_string())?;
                }
                made => made?,
            }
        }
        // Opened now: a second process must fail at its start, not at its first request. Tables that
        // came later than the file are made.
        let opened = file.write("opening the registry", |db| {
            let write = db.begin_write()?;
            tables::make_control(&write)?;
            write.commit()?;
            Ok(())
        });
        match opened {
            // What can be read is read; the next write tries again.
            Err(error) if error.is_full() => tracing::error!("{error}"),
            opened => opened?,
        }
        Ok(Control { file: Arc::new(file) })
    }

    /// Runs `work` in a read transaction: all it sees is of one moment.
    ///
    /// # Errors
    /// Those of `work` and of the file.
    pub fn read<T>(
        &self,
        work: impl FnOnce(&ControlRead<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.file.read("reading the registry", |read| {
            Ok(work(&ControlRead::new(read, self.file.path()))?)
        })
    }

    /// Runs `work` in a write transaction and commits it durably when it returns `Ok`; otherwise
    /// nothing has happened. Waits for other writers.
    ///
    /// # Errors
    /// Those of `work`, and those of the file as `E::from(StoreError)`.
    pub fn write<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(&mut ControlWrite<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let worked = self.file.write("writing the registry", |db| {
            let mut write = db.begin_write()?;
            write.set_quick_repair(true);
            let mut control = ControlWrite::new(&write, self.file.path(), utc_now());
            let result = work(&mut control);
            let (changed, failed) = (control.changed(), control.failed());
            if failed {
                // The error is in `result`, as the caller's type.
                self.file.distrust();
            }
            if result.is_ok() && changed {
                write.commit()?;
            } else {
                write.abort()?;
            }
            Ok(result)
        });
        worked.map_err(E::from)?
    }

    /// Puts the file back when somebody deleted or replaced it: to be called now and then, so that
    /// a crash before the next change loses nothing. Costs one `stat` when all is well.
    ///
    /// # Errors
    /// [`StoreError::Lost`] and [`StoreError::Cut`].
    pub fn keep(&self) -> Result<(), StoreError> {
        self.file.keep()
    }

    /// Why the registry can't be used, or what somebody did to its file; `None` when nothing is
    /// known to be wrong.
    pub fn fault(&self) -> Option<String> {
        let unread = || self.devices().err().map(|error| error.to_string());
        self.file.fault().or_else(unread)
    }

    /// All devices, by id.
    ///
    /// # Errors
    /// Those of the file.
    pub fn devices(&self) -> Result<Vec<Device>, StoreError> {
        self.read(|r| r.devices())
    }

    /// One device.
    ///
    /// # Errors
    /// Those of the file.
    pub fn device(&self, id: &CameraId) -> Result<Option<Device>, StoreError> {
        self.read(|r| r.device(id))
    }

    /// All models, the newest row first.
    ///
    /// # Errors
    /// Those of the file.
    pub fn models(&self) -> Result<Vec<Model>, StoreError> {
        self.read(|r| r.models())
    }

    /// One model.
    ///
    /// # Errors
    /// Those of the file.
    pub fn model(&self, id: &ModelId) -> Result<Option<Model>, StoreError> {
        self.read(|r| r.model(id))
    }

    /// All assignments, the newest row first.
    ///
    /// # Errors
    /// Those of the file.
    pub fn assignments(&self) -> Result<Vec<Assignment>, StoreError> {
        self.read(|r| r.assignments())
    }

    /// One assignment.
    ///
    /// # Errors
    /// Those of the file.
    pub fn assignment(&self, id: &AssignmentId) -> Result<Option<Assignment>, StoreError> {
        self.read(|r| r.assignment(id))
    }

    /// Class names of a model's version, `None` when they were never told.
    ///
    /// # Errors
    /// Those of the file.
    pub fn labels(
        &self,
        model: &ModelId,
        version: &str,
    ) -> Result<Option<Vec<String>>, StoreError> {
        self.read(|r| r.labels(model, version))
    }

    /// Keeps the class names of a model's version. Writes nothing when they are known.
    ///
    /// # Errors
    /// Those of the file.
    pub fn set_labels(
        &self,
        model: &ModelId,
        version: &str,
        labels: &[String],
    ) -> Result<(), StoreError> {
        if self.labels(model, version)?.as_deref() == Some(labels) {
            return Ok(());
        }
        self.write(|w| w.set_labels(model, version, labels))
    }

    /// Which registry this is: a random number that is drawn once and kept with it. One that was made
    /// anew is another one.
    ///
    /// # Errors
    /// Those of the file.
    pub fn epoch(&self) -> Result<Epoch, StoreError> {
        match self.read(|r| r.epoch())? {
            Some(kept) => Ok(kept),
            None => self.write(|w| w.epoch()),
        }
    }

    /// Takes the next revision of the desired state: above every one taken before, also by
    /// earlier processes.
    ///
    /// # Errors
    /// Those of the file.
    pub fn next_revision(&self) -> Result<u64, StoreError> {
        self.write(|w| w.next_revision())
    }
}
