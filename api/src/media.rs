//! Snapshots and clips: files beneath `<state>/media`, their rows, and the jobs that make them.
//!
//! Pictures and clips are made from what the ring, ingest and the recording have. Nothing here ever
//! opens a session to a camera, and nothing decodes: that is done by `vas media`, one process a job.

pub mod clips;
mod due;
pub mod files;
pub mod job;
pub mod keeper;
pub mod probe;
pub mod room;

use crate::disk::{Demands, Disk};
use crate::stills::Still;
use base::limits::CLIPS_WAITING_MAX;
use base::{CameraId, UtcNanos};
use clips::{ClipQueue, Clips, Work};
use files::{Files, Kind, Owner};
use ipc::ingest_message::Picture;
use ipc::recording::Recordings;
use job::{JobError, Jobs, limit};
use keeper::Keeper;
use room::{MediaOptions, NoRoom, Place, Room};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{SyncSender, sync_channel};
use store::control::{Bookmark, MediaId, Moment, Snapshot};
use store::{Control, StoreError};

/// What a picture that is yet to be decoded may take (chosen: 4K of a busy scene).
const STILL_BYTES: u64 = 2 << 20;

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
    #[error("{CLIPS_WAITING_MAX} clips wait already; try again later")]
    Full,
    /// The disk.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}

/// Everything about snapshots and bookmarks.
#[derive(Debug)]
pub struct Media {
    /// Where the files are.
    pub files: Files,
    /// What they may take.
    pub room: Arc<Room>,
    control: Control,
    recordings: PathBuf,
    jobs: Jobs,
    /// Clips that are to be made.
    pub clips: ClipQueue,
    /// Ends the keeper when it is dropped.
    _keeper: SyncSender<()>,
}

/// What [`Media::start`] needs to know.
#[derive(Debug)]
pub struct Setup {
    /// The state directory: files are beneath `media` in it.
    pub state: PathBuf,
    /// Where ingest learns what clips need.
    pub holds: PathBuf,
    /// Where ingest records.
    pub recordings: PathBuf,
    /// Starts one `vas media`.
    pub command: Vec<OsString>,
    /// The disk of the state directory.
    pub disk: Disk,
    /// How long they stay, and how much they take.
    pub options: MediaOptions,
    /// What others need of the disk.
    pub demands: Demands,
    /// Serve stops.
    pub stopping: Arc<AtomicBool>,
}

/// A picture that a job made.
#[derive(Debug, Clone, Copy)]
struct Made {
    at: UtcNanos,
    width: u32,
    height: u32,
}

impl Media {
    /// Mends what a crash left behind, and makes the ends. One [`Clips`] cuts one clip at a time.
    ///
    /// # Errors
    /// Those of the registry.
    pub fn start(setup: Setup, control: &Control) -> Result<(Media, Clips, Keeper), StoreError> {
        let Setup { state, holds, recordings, command, disk, options, demands, stopping } = setup;
        let root = state.join("media");
        let files = Files::new(root.clone());
        match files.mend(control) {
            // What is not mended now is at the next start: a full disk does not keep this one.
            Err(error) if error.is_full() => tracing::error!("{error}"),
            mended => mended?,
        }
        let jobs = Jobs::new(command, Arc::clone(&stopping));
        let shared = (files.clone(), control.clone());
        let room = Room::new((state, disk), options, demands, shared, Arc::clone(&stopping));
        let work = Work {
            control: control.clone(),
            files: files.clone(),
            jobs: jobs.clone(),
            recordings: Recordings::new(&recordings),
            room: Arc::clone(&room),
            stopping,
        };
        let (clips, cutter) = ClipQueue::start(work, holds)?;
        let (stop, stopped) = sync_channel(0);
        let keeper = Keeper::new(Arc::clone(&room), &root, control, stopped);
        let media =
            Media { files, room, control: control.clone(), recordings, jobs, clips, _keeper: stop };
        Ok((media, cutter, keeper))
    }

    /// Keeps a picture of the ring.
    ///
    /// # Errors
    /// [`MediaError`]; then there is neither file nor row.
    pub fn keep_still(
        &self,
        camera: &CameraId,
        still: &Still,
        protected: bool,
    ) -> Result<Snapshot, MediaError> {
        let place = self.room.admit(still.jpeg.len() as u64)?;
        let id = MediaId::random();
        let path = self.output(camera, &id)?;
        std::fs::write(&path, &still.jpeg).map_err(|source| self.failed(camera, &id, source))?;
        let (at, size) = (still.stamp.info.capture_utc, still.size);
        let made = Made { at, width: size.width, height: size.height };
        self.keep(camera, id, (Moment::Live, protected), made, place)
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
        protected: bool,
    ) -> Result<Snapshot, MediaError> {
        let told: Vec<Value> = pictures
            .iter()
            .map(|p| json!({"bytes": p.data.len(), "utc_ns": p.capture_utc.0}))
            .collect();
        let bytes: Vec<u8> = pictures.iter().flat_map(|p| p.data.iter().copied()).collect();
        let job = json!({"job": "still_of", "codec": codec, "pictures": told});
        self.job(camera, (Moment::Live, protected), job, bytes)
    }

    /// Takes the picture that was shown at a moment from the recording, and keeps it.
    ///
    /// # Errors
    /// As [`Media::keep_still`].
    pub fn keep_at(
        &self,
        camera: &CameraId,
        at: UtcNanos,
        protected: bool,
    ) -> Result<Snapshot, MediaError> {
        self.keep_recorded(camera, at, (Moment::Historical, protected))
    }

    /// As [`Media::keep_at`], for somebody who asked for a picture of now.
    ///
    /// # Errors
    /// As [`Media::keep_still`].
    pub fn keep_just_recorded(
        &self,
        camera: &CameraId,
        at: UtcNanos,
        protected: bool,
    ) -> Result<Snapshot, MediaError> {
        self.keep_recorded(camera, at, (Moment::Live, protected))
    }

    fn keep_recorded(
        &self,
        camera: &CameraId,
        at: UtcNanos,
        taken: (Moment, bool),
    ) -> Result<Snapshot, MediaError> {
        let recordings = &self.recordings;
        let job = json!({
            "job": "still_at", "recordings": recordings, "camera": camera.as_str(), "at_utc_ns": at.0,
        });
        self.job(camera, taken, job, vec![])
    }

    fn job(
        &self,
        camera: &CameraId,
        taken: (Moment, bool),
        mut job: Value,
        bytes: Vec<u8>,
    ) -> Result<Snapshot, MediaError> {
        let place = self.room.admit(STILL_BYTES)?;
        let id = MediaId::random();
        let path = self.output(camera, &id)?;
        job["output"] = json!(path);
        let done = match self.jobs.run(&job, bytes, limit(0)) {
            Ok(done) => done,
            Err(error) => {
                self.files.forget(Kind::Snapshots, camera, &id);
                return Err(error.into());
            }
        };
        let number = |key: &str| done[key].as_u64().unwrap_or(0);
        let pixels = |key: &str| u32::try_from(number(key)).unwrap_or(0);
        let at = UtcNanos(number("at_utc_ns"));
        let made = Made { at, width: pixels("width"), height: pixels("height") };
        self.keep(camera, id, taken, made, place)
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
        (source, protected): (Moment, bool),
        made: Made,
        mut place: Place,
    ) -> Result<Snapshot, MediaError> {
        let bytes = self
            .files
            .sync_new(Kind::Snapshots, camera, &id, "jpg")
            .map_err(|source| self.failed(camera, &id, source))?;
        let forget = || self.files.forget(Kind::Snapshots, camera, &id);
        place.hold(bytes).inspect_err(|_| forget())?;
        let row = Snapshot {
            id: id.clone(),
            camera: camera.clone(),
            timestamp: made.at,
            source,
            width: made.width,
            height: made.height,
            file_size: bytes,
            protected,
            created_at: UtcNanos(0),
            updated_at: None,
        };
        let kept = self.control.write(|write| write.put_snapshot(row)).inspect_err(|_| forget())?;
        place.keep(bytes);
        // The row is there: from here on a crash is mended at the next start.
        self.files
            .settle(Kind::Snapshots, camera, &id, "jpg")
            .map_err(|source| MediaError::File { path: self.output_name(camera, &id), source })?;
        Ok(kept)
    }

    /// Deletes a snapshot and its file, protected or not.
    ///
    /// # Errors
    /// Those of the registry; then it is there.
    pub fn delete_snapshot(&self, row: &Snapshot) -> Result<(), StoreError> {
        let delete = || self.control.write(|write| write.delete_snapshot(&row.id)).map(drop);
        self.room.delete(Owner::of_snapshot(row), delete)
    }

    /// Deletes a bookmark and its files, protected or not.
    ///
    /// # Errors
    /// Those of the registry; then it is there.
    pub fn delete_bookmark(&self, row: &Bookmark) -> Result<(), StoreError> {
        let delete = || self.control.write(|write| write.delete_bookmark(&row.id)).map(drop);
        self.room.delete(Owner::of_bookmark(row), delete)
    }

    /// Changes a snapshot. `None` when there is none.
    ///
    /// # Errors
    /// Those of the registry.
    pub fn update_snapshot(
        &self,
        id: &MediaId,
        change: impl FnOnce(&mut Snapshot),
    ) -> Result<Option<Snapshot>, StoreError> {
        let row = self.control.write(|write| write.update_snapshot(id, change))?;
        self.room.changed();
        Ok(row)
    }

    /// Changes a bookmark. `None` when there is none.
    ///
    /// # Errors
    /// Those of the registry.
    pub fn update_bookmark(
        &self,
        id: &MediaId,
        change: impl FnOnce(&mut Bookmark),
    ) -> Result<Option<Bookmark>, StoreError> {
        let row = self.control.write(|write| write.update_bookmark(id, change))?;
        self.room.changed();
        Ok(row)
    }

    fn output_name(&self, camera: &CameraId, id: &MediaId) -> PathBuf {
        self.files.path(Kind::Snapshots, camera, id, "jpg")
    }
}
