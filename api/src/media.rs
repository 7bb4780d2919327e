//! Snapshots and clips: files beneath `<state>/media`, their rows, and the jobs that make them.
//!
//! Pictures and clips are made from what the ring, ingest and the recording have. Nothing here ever
//! opens a session to a camera, and nothing decodes: that is done by `vas media`, one process a job.

pub mod clips;
pub mod files;
pub mod job;
pub mod probe;

use crate::stills::Still;
use base::{CameraId, UtcNanos};
use clips::{ClipQueue, Clips};
use files::{Files, Kind};
use ipc::ingest_message::Picture;
use job::{JobError, Jobs};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use store::control::{MediaId, Moment, Snapshot};
use store::{Control, StoreError};

/// Why there is no picture or clip.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The job could not be done.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The disk.
    #[error("can't keep the file {}: {source}; make room or correct its owner and mode", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too many clips wait.
    #[error("{} clips wait already; try again later", clips::WAITING_MAX)]
    Full,
}

/// Everything about snapshots and bookmarks.
#[derive(Debug)]
pub struct Media {
    /// Where the files are.
    pub files: Files,
    control: Control,
    recordings: PathBuf,
    jobs: Jobs,
    /// Clips that are to be made.
    pub clips: ClipQueue,
}

/// A picture that a job made.
#[derive(Debug, Clone, Copy)]
struct Made {
    at: UtcNanos,
    width: u32,
    height: u32,
}

impl Media {
    /// Mends what a crash left behind, and makes the two ends. `command` starts one `vas media`.
    ///
    /// # Errors
    /// Those of the registry.
    pub fn start(
        root: PathBuf,
        recordings: PathBuf,
        command: Vec<OsString>,
        control: &Control,
        stopping: Arc<AtomicBool>,
    ) -> Result<(Media, Clips), StoreError> {
        let files = Files::new(root);
        let interrupted = match control.fail_interrupted_bookmarks(
            "serve was restarted before the clip was cut; take it again",
        ) {
            // They stay as they are: a full disk does not keep serve from starting.
            Err(error) if error.is_full() => {
                tracing::error!("{error}");
                0
            }
            failed => failed?,
        };
        if interrupted > 0 {
            tracing::warn!("{interrupted} clips were not cut before serve ended; they are failed");
        }
        match files.mend(control) {
            Err(error) if error.is_full() => tracing::error!("{error}"),
            mended => mended?,
        }
        let jobs = Jobs::new(command, Arc::clone(&stopping));
        let (queue, waiting) = ClipQueue::channel();
        let clips = Clips {
            waiting,
            control: control.clone(),
            files: files.clone(),
            jobs: jobs.clone(),
            recordings: recordings.clone(),
            stopping,
        };
        let control = control.clone();
        Ok((Media { files, control, recordings, jobs, clips: queue }, clips))
    }

    /// Keeps a picture of the ring.
    ///
    /// # Errors
    /// [`MediaError`]; then there is neither file nor row.
    pub fn keep_still(&self, camera: &CameraId, still: &Still) -> Result<Snapshot, MediaError> {
        let id = MediaId::random();
        let path = self.output(camera, &id)?;
        std::fs::write(&path, &still.jpeg).map_err(|source| self.failed(camera, &id, source))?;
        let (at, size) = (still.stamp.info.capture_utc, still.size);
        let made = Made { at, width: size.width, height: size.height };
        self.keep(camera, id, Moment::Live, made)
    }

    /// Decodes the newest of some pictures, led by a key picture, and keeps it.
    ///
    /// # Errors
    /// As [`Media::keep_still`].
    pub fn keep_newest(
        &self,
        camera: &CameraId,
        codec: &str,
        pictures: &[Picture],
    ) -> Result<Snapshot, MediaError> {
        let told: Vec<Value> = pictures
            .iter()
            .map(|p| json!({"bytes": p.data.len(), "utc_ns": p.capture_utc.0}))
            .collect();
        let bytes: Vec<u8> = pictures.iter().flat_map(|p| p.data.iter().copied()).collect();
        let job = json!({"job": "still_of", "codec": codec, "pictures": told});
        self.job(camera, Moment::Live, job, bytes)
    }

    /// Takes the picture that was shown at a moment from the recording, and keeps it.
    ///
    /// # Errors
    /// As [`Media::keep_still`].
    pub fn keep_at(&self, camera: &CameraId, at: UtcNanos) -> Result<Snapshot, MediaError> {
        self.keep_recorded(camera, at, Moment::Historical)
    }

    /// As [`Media::keep_at`], for somebody who asked for a picture of now.
    ///
    /// # Errors
    /// As [`Media::keep_still`].
    pub fn keep_just_recorded(
        &self,
        camera: &CameraId,
        at: UtcNanos,
    ) -> Result<Snapshot, MediaError> {
        self.keep_recorded(camera, at, Moment::Live)
    }

    fn keep_recorded(
        &self,
        camera: &CameraId,
        at: UtcNanos,
        source: Moment,
    ) -> Result<Snapshot, MediaError> {
        let recordings = &self.recordings;
        let job = json!({
            "job": "still_at", "recordings": recordings, "camera": camera.as_str(), "at_utc_ns": at.0,
        });
        self.job(camera, source, job, vec![])
    }

    fn job(
        &self,
        camera: &CameraId,
        source: Moment,
        mut job: Value,
        bytes: Vec<u8>,
    ) -> Result<Snapshot, MediaError> {
        let id = MediaId::random();
        let path = self.output(camera, &id)?;
        job["output"] = json!(path);
        let done = match self.jobs.run(&job, bytes) {
            Ok(done) => done,
            Err(error) => {
                self.files.forget(Kind::Snapshots, camera, &id);
                return Err(error.into());
            }
        };
        let number = |key: &str| done[key].as_u64().unwrap_or(0);
        let pixels = |key: &str| u32::try_from(number(key)).unwrap_or(0);
        let at = UtcNanos(number("at_utc_ns"));
        self.keep(camera, id, source, Made { at, width: pixels("width"), height: pixels("height") })
    }

    /// The name under which a picture is made.
    fn output(&self, camera: &CameraId, id: &MediaId) -> Result<PathBuf, MediaError> {
        let path = self.files.new_path(Kind::Snapshots, camera, id, "jpg");
        self.files
            .make_folder(Kind::Snapshots, camera)
            .map_err(|source| MediaError::File { path: path.clone(), source })?;
        Ok(path)
    }

    fn failed(&self, camera: &CameraId, id: &MediaId, source: io::Error) -> MediaError {
        self.files.forget(Kind::Snapshots, camera, id);
        let path = self.files.path(Kind::Snapshots, camera, id, "jpg");
        MediaError::File { path, source }
    }

    fn keep(
        &self,
        camera: &CameraId,
        id: MediaId,
        source: Moment,
        made: Made,
    ) -> Result<Snapshot, MediaError> {
        let bytes = self
            .files
            .sync_new(Kind::Snapshots, camera, &id, "jpg")
            .map_err(|source| self.failed(camera, &id, source))?;
        let row = Snapshot {
            id,
            camera: camera.clone(),
            timestamp: made.at,
            source,
            width: made.width,
            height: made.height,
            file_size: bytes,
            created_at: UtcNanos(0),
            updated_at: None,
        };
        let id = row.id.clone();
        let kept = self.control.write(|write| write.put_snapshot(row)).inspect_err(|_| {
            self.files.forget(Kind::Snapshots, camera, &id);
        })?;
        // The row is there: from here on a crash is mended at the next start.
        self.files
            .settle(Kind::Snapshots, camera, &id, "jpg")
            .map_err(|source| MediaError::File { path: self.output_name(camera, &id), source })?;
        Ok(kept)
    }

    fn output_name(&self, camera: &CameraId, id: &MediaId) -> PathBuf {
        self.files.path(Kind::Snapshots, camera, id, "jpg")
    }
}
