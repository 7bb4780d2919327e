//! The thread that has clips cut, one after the other, from a bounded queue. How far each is stands in
//! its row; a restart fails what was not done.

use super::MediaError;
use super::files::{Files, Kind};
use super::job::{JobError, Jobs};
use base::{CameraId, UtcNanos};
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
/// How often a registry that refused is asked again, and after how long (chosen: a disk that was full
/// for a moment is waited for; the clips behind can't be stored meanwhile either).
const RETRIES: u32 = 6;
const RETRY: Duration = Duration::from_secs(2);

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

/// Changes a row; `None` when there is none.
type Change<'c> =
    &'c dyn Fn(&MediaId, &dyn Fn(&mut Bookmark)) -> Result<Option<Bookmark>, StoreError>;

impl Clips {
    /// Cuts until every [`ClipQueue`] is gone or serve stops.
    pub fn run(self) {
        let change: Change<'_> =
            &|id, work| self.control.write(|write| write.update_bookmark(id, work));
        while let Ok(id) = self.waiting.recv() {
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            self.cut(&id, change, RETRY);
        }
    }

    /// Cuts one, and says in its row what came of it, however often the registry refuses at first.
    fn cut(&self, id: &MediaId, change: Change<'_>, pause: Duration) {
        let Err(fault) = self.try_cut(id, change) else { return };
        error!("clip {id} is failed: {fault}");
        let reason = format!("the registry refused what came of the clip: {fault}");
        let failed = |row: &mut Bookmark| row.state = JobState::Failed(reason.clone());
        for _ in 0..RETRIES {
            self.wait_until(clock::utc().0.saturating_add(base::time::nanos(pause)));
            match change(id, &failed) {
                Ok(_) => return,
                Err(again) => error!("clip {id} can't be failed yet: {again}"),
            }
        }
        error!("clip {id} stays as it is until serve starts again");
    }

    fn try_cut(&self, id: &MediaId, change: Change<'_>) -> Result<(), StoreError> {
        let Some(row) = change(id, &|row| row.state = JobState::Running)? else {
            // Deleted before its turn.
            return Ok(());
        };
        let recorded = row.end.0.saturating_add(base::time::nanos(RECORDED_AFTER));
        // An end far ahead is refused where it comes in.
        self.wait_until(recorded);
        let made = self.make(&row);
        if matches!(made, Err(MediaError::Job(JobError::Stopping))) {
            // The next start fails it, with that reason.
            return Ok(());
        }
        let forget = || self.files.forget(Kind::Bookmarks, &row.camera, id);
        let written = change(id, &|row| match &made {
            Ok(made) => {
                row.state = JobState::Done;
                (row.start, row.end) = (made.start, made.end);
                row.file_size = made.bytes;
                row.gaps_ms = made.gaps_ms;
                row.thumbnail = made.thumbnail;
            }
            Err(fault) => row.state = JobState::Failed(fault.to_string()),
        });
        // A full disk may be why: what is made takes no more of it.
        let written = written.inspect_err(|_| forget())?;
        match made {
            Ok(made) if written.is_some() => self.settle(&row.camera, id, made.thumbnail),
            _ => forget(),
        }
        Ok(())
    }

    /// Gives the files of a finished clip their names.
    fn settle(&self, camera: &CameraId, id: &MediaId, thumbnail: bool) {
        let kind = Kind::Bookmarks;
        let settle = |extension| self.files.settle(kind, camera, id, extension);
        let settled = settle("mp4").and_then(|()| if thumbnail { settle("jpg") } else { Ok(()) });
        match self.control.bookmark(id) {
            // Deleted after it was said to be done: what got its name since then goes too.
            Ok(None) => self.files.remove(kind, camera, id),
            _ => {
                if let Err(fault) = settled {
                    error!("can't name the files of clip {id}: {fault}; the next start does");
                }
            }
        }
    }

    /// Returns early when serve stops.
    fn wait_until(&self, utc_ns: u64) {
        while clock::utc().0 < utc_ns && !self.stopping.load(Ordering::Acquire) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::ffi::OsString;
    use std::io;
    use store::control::Moment;

    const DONE: &str = r#"read -r job; output=$(echo "$job" | sed 's/.*"output":"\([^"]*\)".*/\1/')
printf clip > "$output"; printf picture > "${output%mp4}jpg"; echo '{"status":"done"}'"#;

    struct Rig {
        clips: Clips,
        row: Bookmark,
        _root: tempfile::TempDir,
    }

    fn rig() -> Rig {
        let root = tempfile::tempdir().unwrap();
        let control = Control::open(root.path()).unwrap();
        let row = Bookmark {
            id: MediaId::random(),
            camera: "front".parse().unwrap(),
            center: UtcNanos(2),
            start: UtcNanos(1),
            end: UtcNanos(3),
            label: None,
            source: Moment::Historical,
            state: JobState::Pending,
            file_size: 0,
            gaps_ms: 0,
            thumbnail: false,
            created_at: UtcNanos(0),
            updated_at: None,
        };
        let row = control.write(|write| write.put_bookmark(row)).unwrap();
        let clips = Clips {
            waiting: ClipQueue::channel().1,
            control,
            files: Files::new(root.path().join("media")),
            jobs: Jobs::new(["/bin/sh", "-c", DONE].map(OsString::from).to_vec(), Arc::default()),
            recordings: root.path().join("recordings"),
            stopping: Arc::default(),
        };
        Rig { clips, row, _root: root }
    }

    impl Rig {
        fn names(&self) -> Vec<String> {
            let made =
                self.clips.files.new_path(Kind::Bookmarks, &self.row.camera, &self.row.id, "mp4");
            let files = std::fs::read_dir(made.parent().unwrap()).into_iter().flatten();
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
        }

        fn state(&self) -> JobState {
            self.clips.control.bookmark(&self.row.id).unwrap().unwrap().state
        }
    }

    #[test]
    fn a_clip_that_is_deleted_before_its_file_has_a_name_leaves_no_file() {
        let rig = rig();
        let change: Change<'_> = &|id, work| {
            let written = rig.clips.control.write(|write| write.update_bookmark(id, work))?;
            if written.as_ref().is_some_and(|row| row.state == JobState::Done) {
                rig.clips.control.write(|write| write.delete_bookmark(id))?;
            }
            Ok(written)
        };
        rig.clips.cut(&rig.row.id, change, Duration::ZERO);
        assert_eq!(rig.names(), [""; 0]);
    }

    #[test]
    fn a_registry_that_refuses_for_a_while_leaves_no_file_and_no_clip_that_never_ends() {
        // The first change says that it runs, the second what came of it.
        for refused in [0..3, 1..4] {
            let rig = rig();
            let calls = Cell::new(0);
            let change: Change<'_> = &|id, work| {
                calls.set(calls.get() + 1);
                if calls.get() > 2 {
                    assert_eq!(rig.names(), [""; 0], "files go first");
                }
                if refused.contains(&(calls.get() - 1)) {
                    let source = io::ErrorKind::StorageFull.into();
                    return Err(StoreError::DiskFull { path: "control".into(), source });
                }
                rig.clips.control.write(|write| write.update_bookmark(id, work))
            };
            rig.clips.cut(&rig.row.id, change, Duration::ZERO);
            assert_eq!(calls.get(), refused.end + 1);
            let JobState::Failed(reason) = rig.state() else { panic!("{:?}", rig.state()) };
            assert!(reason.contains("control can't grow"), "{reason}");
            assert_eq!(rig.names(), [""; 0]);
        }
    }
}
