//! The threads that have clips cut, each one at a time, from a bounded queue: those that are due first.
//!
//! How far each is stands in its row, and what is still needed of the recordings in a file that ingest
//! reads ([`ipc::holds`]). Clips that were not cut when serve ended are cut when it is back.

use super::MediaError;
use super::due::{Due, due};
use super::files::{Files, Kind, Owner};
use super::job::{JobError, Jobs, limit};
use super::room::{Place, Room};
use base::UtcNanos;
use base::limits::CLIPS_WAITING_MAX;
use ipc::clock;
use ipc::holds::{self, Hold};
use ipc::recording::Recordings;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::control::{Bookmark, JobState, MediaId};
use store::{Control, StoreError};
use tracing::{error, warn};

/// How often a waiting thread looks whether serve stops.
const LOOK: Duration = Duration::from_millis(50);
/// How often a registry that refused is asked again, and after how long (chosen: a disk that was full
/// for a moment is waited for; the clips behind can't be stored meanwhile either).
const RETRIES: u32 = 6;
const RETRY: Duration = Duration::from_secs(2);
/// What a clip has besides its pictures: a head, and the small picture (chosen; the head has some bytes a
/// picture, see [`HEAD_BYTES`]).
const BESIDE: u64 = 256 << 10;
/// Bytes of the head per picture (derived: what the tables of `ingest::mp4` take at most, beyond what a
/// recording has for it).
const HEAD_BYTES: u64 = 16;

/// The end that asks for clips. Dropping it ends the threads.
#[derive(Debug)]
pub struct ClipQueue {
    shared: Arc<Shared>,
    room: Arc<Room>,
    recordings: Recordings,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Where ingest learns what is needed.
    holds: PathBuf,
}

#[derive(Debug, Default)]
struct State {
    due: Due,
    running: Vec<Bookmark>,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what is needed of the recordings.
    fn tell(&self, state: &State) {
        let hold = |row: &Bookmark| Hold {
            id: row.id.to_string(),
            camera: row.camera.clone(),
            start: row.start,
            end: row.end,
        };
        let held: Vec<Hold> = state.running.iter().chain(state.due.iter()).map(hold).collect();
        if let Err(fault) = holds::write(&self.holds, &held) {
            let path = self.holds.display();
            warn!("recordings of {} clips may go before they are cut: {path}: {fault}", held.len());
        }
    }
}

/// Bytes that a clip takes at most: its pictures are those of the recording, of which the index says how
/// large they are.
pub fn estimate(recordings: &Recordings, row: &Bookmark) -> u64 {
    // What can't be read is told by the job.
    let rows = recordings.playable(&row.camera, row.start, row.end).unwrap_or_default();
    let bytes = |row: &ipc::recording::Row| {
        u64::from(row.bytes).saturating_add(u64::from(row.frames).saturating_mul(HEAD_BYTES))
    };
    rows.iter().map(bytes).fold(BESIDE, u64::saturating_add)
}

impl ClipQueue {
    /// The two ends, with the clips that were not cut yet. `holds` is the file for ingest.
    ///
    /// # Errors
    /// Those of the registry.
    pub fn start(work: Work, holds: PathBuf) -> Result<(ClipQueue, Clips), StoreError> {
        let mut state = State::default();
        for row in work.control.open_bookmarks()? {
            state.due.push(due(clock::monotonic(), clock::utc(), row.end), row);
        }
        if state.due.len() > 0 {
            tracing::info!(
                "{} clips were not cut before serve ended; now they are",
                state.due.len()
            );
        }
        let shared = Shared { state: Mutex::new(state), changed: Condvar::new(), holds };
        shared.tell(&shared.lock());
        let shared = Arc::new(shared);
        let (room, recordings) = (Arc::clone(&work.room), work.recordings.clone());
        let queue = ClipQueue { shared: Arc::clone(&shared), room, recordings };
        Ok((queue, Clips { shared, work }))
    }

    /// Stores a bookmark and has its clip cut. Does not wait for it.
    ///
    /// # Errors
    /// [`MediaError::Full`], [`MediaError::NoRoom`], or those of the registry; then there is no row.
    pub fn ask(&self, control: &Control, bookmark: Bookmark) -> Result<Bookmark, MediaError> {
        self.room.look(estimate(&self.recordings, &bookmark))?;
        let mut state = self.shared.lock();
        if state.due.len() >= CLIPS_WAITING_MAX {
            return Err(MediaError::Full);
        }
        let row = control.write(|write| write.put_bookmark(bookmark))?;
        state.due.push(due(clock::monotonic(), clock::utc(), row.end), row.clone());
        self.shared.tell(&state);
        self.shared.changed.notify_one();
        Ok(row)
    }
}

impl Drop for ClipQueue {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

/// What it takes to cut.
#[derive(Debug, Clone)]
pub struct Work {
    /// Rows.
    pub control: Control,
    /// Files.
    pub files: Files,
    /// Who cuts.
    pub jobs: Jobs,
    /// What is cut.
    pub recordings: Recordings,
    /// What there is room for.
    pub room: Arc<Room>,
    /// Serve stops.
    pub stopping: Arc<AtomicBool>,
}

/// The end that cuts; a thread has one.
#[derive(Debug, Clone)]
pub struct Clips {
    shared: Arc<Shared>,
    work: Work,
}

/// Changes a row; `None` when there is none.
type Change<'c> =
    &'c dyn Fn(&MediaId, &dyn Fn(&mut Bookmark)) -> Result<Option<Bookmark>, StoreError>;

impl Clips {
    /// Cuts until the [`ClipQueue`] is gone or serve stops.
    pub fn run(self) {
        let change: Change<'_> =
            &|id, work| self.work.control.write(|write| write.update_bookmark(id, work));
        while let Some(row) = self.next() {
            self.work.cut(&row.id, change, RETRY);
            let mut state = self.shared.lock();
            state.running.retain(|other| other.id != row.id);
            // What was not cut is still needed when serve is back.
            if !self.work.stopping.load(Ordering::Acquire) {
                self.shared.tell(&state);
            }
        }
    }

    /// Waits for a clip that is due.
    fn next(&self) -> Option<Bookmark> {
        let mut state = self.shared.lock();
        loop {
            if state.closed || self.work.stopping.load(Ordering::Acquire) {
                return None;
            }
            let now = clock::monotonic();
            if let Some(row) = state.due.pop(now) {
                state.running.push(row.clone());
                return Some(row);
            }
            let changed = &self.shared.changed;
            state = match state.due.next() {
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let waited = changed.wait_timeout(state, due.since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Work {
    /// Cuts one, and says in its row what came of it, however often the registry refuses at first.
    fn cut(&self, id: &MediaId, change: Change<'_>, pause: Duration) {
        let Err(fault) = self.try_cut(id, change) else { return };
        error!("clip {id} is failed: {fault}");
        let reason = format!("the registry refused what came of the clip: {fault}");
        let failed = |row: &mut Bookmark| row.state = JobState::Failed(reason.clone());
        for _ in 0..RETRIES {
            self.wait(pause);
            match change(id, &failed) {
                Ok(_) => return,
                Err(again) => error!("clip {id} can't be failed yet: {again}"),
            }
        }
        error!("clip {id} stays as it is until serve starts again, which cuts it");
    }

    fn try_cut(&self, id: &MediaId, change: Change<'_>) -> Result<(), StoreError> {
        let Some(row) = change(id, &|row| row.state = JobState::Running)? else {
            // Deleted before its turn.
            return Ok(());
        };
        let made = self.make(&row);
        if matches!(made, Err(MediaError::Job(JobError::Stopping))) {
            // The next start goes on.
            return Ok(());
        }
        let forget = || self.files.forget(Kind::Bookmarks, &row.camera, id);
        let written = change(id, &|row| match &made {
            Ok((made, _)) => {
                row.state = JobState::Done;
                (row.start, row.end) = (made.start, made.end);
                row.file_size = made.bytes;
                row.gaps_ms = made.gaps_ms;
                row.thumbnail = made.thumbnail.is_some();
            }
            Err(fault) => row.state = JobState::Failed(fault.to_string()),
        });
        // A full disk may be why: what is made takes no more of it.
        let written = written.inspect_err(|_| forget())?;
        match made {
            Ok((made, place)) if written.is_some() => {
                place.keep(made.all_bytes());
                self.settle(&row, made.thumbnail.is_some());
            }
            _ => forget(),
        }
        Ok(())
    }

    /// Gives the files of a finished clip their names.
    fn settle(&self, row: &Bookmark, thumbnail: bool) {
        let Owner { kind, camera, id } = &Owner::of_bookmark(row);
        let settle = |extension| self.files.settle(*kind, camera, id, extension);
        let settled = settle("mp4").and_then(|()| if thumbnail { settle("jpg") } else { Ok(()) });
        match self.control.bookmark(id) {
            // Deleted after it was said to be done: what got its name since then goes too.
            Ok(None) => {
                self.files.remove(*kind, camera, id);
                self.room.unsure();
            }
            _ => {
                if let Err(fault) = settled {
                    error!("can't name the files of clip {id}: {fault}; the next start does");
                }
            }
        }
    }

    /// Returns early when serve stops.
    fn wait(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stopping.load(Ordering::Acquire) {
            std::thread::sleep(LOOK);
        }
    }

    fn make(&self, row: &Bookmark) -> Result<(Made, Place), MediaError> {
        let (kind, camera, id) = (Kind::Bookmarks, &row.camera, &row.id);
        let path = |extension| self.files.new_path(kind, camera, id, extension);
        let kept = |source| MediaError::File { path: path("mp4"), source };
        // Now everything of the window is recorded.
        let expected = estimate(&self.recordings, row);
        let mut place = self.room.admit(expected)?;
        self.files.make_folder(kind, camera).map_err(kept)?;
        let job = json!({
            "job": "clip", "recordings": self.recordings.root(), "camera": camera.as_str(),
            "start_utc_ns": row.start.0, "end_utc_ns": row.end.0,
            "output": path("mp4"), "thumbnail": path("jpg"),
        });
        let done = self.jobs.run(&job, vec![], limit(expected))?;
        let number = |key: &str| done[key].as_u64();
        let made = Made {
            start: UtcNanos(number("start_utc_ns").unwrap_or(row.start.0)),
            end: UtcNanos(number("end_utc_ns").unwrap_or(row.end.0)),
            bytes: self.files.sync_new(kind, camera, id, "mp4").map_err(kept)?,
            gaps_ms: gaps(&done),
            thumbnail: self.files.sync_new(kind, camera, id, "jpg").ok(),
        };
        place.hold(made.all_bytes())?;
        Ok((made, place))
    }
}

struct Made {
    start: UtcNanos,
    end: UtcNanos,
    bytes: u64,
    gaps_ms: u64,
    /// Bytes of it.
    thumbnail: Option<u64>,
}

impl Made {
    fn all_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.thumbnail.unwrap_or(0))
    }
}

fn gaps(done: &Value) -> u64 {
    done["gaps_ms"].as_u64().unwrap_or(0)
}

#[cfg(test)]
mod tests;
