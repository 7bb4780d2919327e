//! The thread that has clips cut, one after the other, from a bounded queue. How far each is stands in
//! its row; a restart fails what was not done.

use super::MediaError;
use super::files::{Files, Kind};
use super::job::{JobError, Jobs};
use base::UtcNanos;
use ipc::clock;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use store::control::{Bookmark, JobState, MediaId};
use store::{Control, StoreError};
use tracing::error;

/// Clips that wait at most (chosen: ten minutes of the slowest).
pub const WAITING_MAX: usize = 32;
/// What is recorded is on disk so long after it was captured: fragments last at most a second.
const RECORDED_AFTER: Duration = Duration::from_millis(1500);
/// How often a waiting thread looks whether serve stops.
const LOOK: Duration = Duration::from_millis(50);

/// The end that asks for clips.
#[derive(Debug, Clone)]
pub struct ClipQueue(SyncSender<MediaId>);

impl ClipQueue {
    /// The two ends.
    pub fn channel() -> (ClipQueue, Receiver<MediaId>) {
        let (send, receive) = sync_channel(WAITING_MAX);
        (ClipQueue(send), receive)
    }

    /// Stores a bookmark and has its clip cut. Does not wait for it.
    ///
    /// # Errors
    /// [`MediaError::Full`], or those of the registry; then there is no row.
    pub fn ask(&self, control: &Control, bookmark: Bookmark) -> Result<Bookmark, MediaError> {
        let row = control.write(|write| write.put_bookmark(bookmark))?;
        match self.0.try_send(row.id.clone()) {
            Ok(()) => Ok(row),
            Err(error) => {
                control.write(|write| write.delete_bookmark(&row.id))?;
                Err(match error {
                    TrySendError::Full(_) => MediaError::Full,
                    TrySendError::Disconnected(_) => JobError::Stopping.into(),
                })
            }
        }
    }
}

/// The end that cuts.
#[derive(Debug)]
pub struct Clips {
    pub(super) waiting: Receiver<MediaId>,
    pub(super) control: Control,
    pub(super) files: Files,
    pub(super) jobs: Jobs,
    pub(super) recordings: PathBuf,
    pub(super) stopping: Arc<AtomicBool>,
}

impl Clips {
    /// Cuts until every [`ClipQueue`] is gone or serve stops.
    pub fn run(self) {
        while let Ok(id) = self.waiting.recv() {
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            if let Err(fault) = self.cut(&id) {
                error!("clip {id} stays as it is: {fault}");
            }
        }
    }

    fn cut(&self, id: &MediaId) -> Result<(), StoreError> {
        let running = |row: &mut Bookmark| row.state = JobState::Running;
        let Some(row) = self.control.write(|write| write.update_bookmark(id, running))? else {
            // Deleted before its turn.
            return Ok(());
        };
        self.wait_until_recorded(row.end);
        let made = self.make(&row);
        if matches!(made, Err(MediaError::Job(JobError::Stopping))) {
            // The next start fails it, with that reason.
            return Ok(());
        }
        let written = self.control.write(|write| {
            write.update_bookmark(id, |row| match &made {
                Ok(made) => {
                    row.state = JobState::Done;
                    (row.start, row.end) = (made.start, made.end);
                    row.file_size = made.bytes;
                    row.gaps_ms = made.gaps_ms;
                    row.thumbnail = made.thumbnail;
                }
                Err(fault) => row.state = JobState::Failed(fault.to_string()),
            })
        })?;
        let camera = &row.camera;
        match made {
            Ok(made) if written.is_some() => {
                let kinds = if made.thumbnail { &["mp4", "jpg"][..] } else { &["mp4"][..] };
                for extension in kinds {
                    if let Err(fault) = self.files.settle(Kind::Bookmarks, camera, id, extension) {
                        error!("can't name the {extension} of clip {id}: {fault}");
                    }
                }
            }
            _ => self.files.forget(Kind::Bookmarks, camera, id),
        }
        Ok(())
    }

    fn wait_until_recorded(&self, end: UtcNanos) {
        let there = end.0.saturating_add(RECORDED_AFTER.as_nanos() as u64);
        // An end far ahead is refused where it comes in.
        while clock::utc().0 < there && !self.stopping.load(Ordering::Acquire) {
            std::thread::sleep(LOOK);
        }
    }

    fn make(&self, row: &Bookmark) -> Result<Made, MediaError> {
        let (kind, camera, id) = (Kind::Bookmarks, &row.camera, &row.id);
        let path = |extension| self.files.new_path(kind, camera, id, extension);
        let kept = |source| MediaError::File { path: path("mp4"), source };
        self.files.make_folder(kind, camera).map_err(kept)?;
        let job = json!({
            "job": "clip", "recordings": self.recordings, "camera": camera.as_str(),
            "start_utc_ns": row.start.0, "end_utc_ns": row.end.0,
            "output": path("mp4"), "thumbnail": path("jpg"),
        });
        let done = self.jobs.run(&job, vec![])?;
        let bytes = self.files.sync_new(kind, camera, id, "mp4").map_err(kept)?;
        let thumbnail = self.files.sync_new(kind, camera, id, "jpg").is_ok();
        let number = |key: &str| done[key].as_u64();
        Ok(Made {
            start: UtcNanos(number("start_utc_ns").unwrap_or(row.start.0)),
            end: UtcNanos(number("end_utc_ns").unwrap_or(row.end.0)),
            bytes,
            gaps_ms: gaps(&done),
            thumbnail,
        })
    }
}

struct Made {
    start: UtcNanos,
    end: UtcNanos,
    bytes: u64,
    gaps_ms: u64,
    thumbnail: bool,
}

fn gaps(done: &Value) -> u64 {
    done["gaps_ms"].as_u64().unwrap_or(0)
}
