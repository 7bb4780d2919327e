//! What all recorders of a node share: where and how long, who writes where, and the thread that
//! makes room.

use super::disk::Disk;
use super::retention::{Retention, Sweeper};
use super::room::{Refusal, Room};
use base::clock_trust::Clocks;
use base::{CameraId, Instant};
use ipc::clock_trust::{accepted_in, clocks};
use ipc::holds::holds_in;
use ipc::recording::{Day, Recordings, SegmentName};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// The first look for what is to be removed.
const FIRST_SWEEP: Duration = Duration::from_secs(10);
/// Then as often: a disk fills at most some hundred megabytes meanwhile.
const SWEEP: Duration = Duration::from_secs(10);

/// Where recordings lie and how long they stay.
#[derive(Debug, Clone)]
pub struct RecordingOptions {
    /// The root; made when the first camera is recorded.
    pub root: PathBuf,
    /// What is removed when.
    pub retention: Retention,
    /// The disk below.
    pub disk: Disk,
    /// The file with the offset of UTC that `vas clock accept` accepted.
    pub accepted_clock: PathBuf,
    /// The file with what clips still need.
    pub holds: PathBuf,
}

impl RecordingOptions {
    /// With the defaults for everything but the place: a directory of the state directory.
    pub fn new(root: PathBuf) -> RecordingOptions {
        let state = root.parent().unwrap_or(&root);
        let (accepted_clock, holds) = (accepted_in(state), holds_in(state));
        let (retention, disk) = (Retention::default(), Disk::default());
        RecordingOptions { root, retention, disk, accepted_clock, holds }
    }
}

/// The recordings of a node, as those who write them share them.
#[derive(Debug)]
pub struct Storage {
    /// What is on the disk.
    pub recordings: Recordings,
    pub(super) options: RecordingOptions,
    shared: Mutex<Shared>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Shared {
    /// Cameras that somebody has claimed, and what is done there.
    writing: BTreeMap<CameraId, Writing>,
    /// What is being removed at this moment, without the lock.
    removing: Option<(CameraId, Removal)>,
    room: Room,
    told: Told,
    sweep_now: bool,
}

/// What the last sweep found that recorders tell of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Told {
    /// What is wrong although recording goes on; empty when nothing is.
    pub warning: String,
    /// Why there is no space, where writing found none.
    pub full: String,
}

/// What the owner of a claim does. What may be removed follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// Segments are cut and indexes made again: nothing goes.
    PuttingInOrder,
    /// Nothing is open: all that there is may go.
    Between,
    /// This segment is open or about to be made, together with its day and its index. Names only
    /// rise: it and all behind it stay.
    Open(SegmentName),
}

/// What the sweep is about to remove of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// One segment.
    Segment(SegmentName),
    /// The directory of a day that has none.
    Day(Day),
}

impl Writing {
    /// Whether this may be removed meanwhile.
    fn allows(self, removal: Removal) -> bool {
        match (self, removal) {
            (Writing::PuttingInOrder, _) => false,
            (Writing::Between, _) => true,
            (Writing::Open(open), Removal::Segment(name)) => name < open,
            (Writing::Open(open), Removal::Day(day)) => day != open.day(),
        }
    }
}

/// The right to write the recordings of a camera, for as long as it lives.
#[derive(Debug)]
pub struct Claim {
    /// The camera.
    pub camera: CameraId,
    /// Where.
    pub storage: Arc<Storage>,
}

impl Storage {
    /// Of these options.
    pub fn new(options: RecordingOptions) -> Arc<Storage> {
        Arc::new(Storage {
            recordings: Recordings::new(&options.root),
            options,
            shared: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Starts the thread that removes what is too old or too much. It ends some time after the last
    /// other owner is gone.
    ///
    /// # Errors
    /// When the process has no threads left.
    pub fn keep(self: &Arc<Storage>) -> io::Result<()> {
        let (weak, start) = (Arc::downgrade(self), clocks());
        let sweep = move || sweep(&weak, start);
        thread::Builder::new().name("recordings".into()).spawn(sweep).map(drop)
    }

    /// The right to write a camera's recordings, as soon as nobody else has it; `None` when
    /// `given_up` says so first.
    pub fn claim(
        self: &Arc<Storage>,
        camera: &CameraId,
        given_up: impl Fn() -> bool,
    ) -> Option<Claim> {
        let mut shared = self.lock();
        while shared.writing.contains_key(camera) {
            if given_up() {
                return None;
            }
            let wait = Duration::from_millis(100);
            let waited = self.changed.wait_timeout(shared, wait);
            shared = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        shared.writing.insert(camera.clone(), Writing::Between);
        Some(Claim { camera: camera.clone(), storage: Arc::clone(self) })
    }

    /// What the owner of a camera's claim does; `None` when nobody has it.
    #[cfg(test)]
    pub(super) fn written(&self, camera: &CameraId) -> Option<Writing> {
        self.lock().writing.get(camera).copied()
    }

    /// Removes something of a camera by `remove`, unless its owner needs it: then `None`. An owner
    /// that comes to need it meanwhile waits.
    pub(super) fn remove<T>(
        &self,
        camera: &CameraId,
        removal: Removal,
        remove: impl FnOnce() -> T,
    ) -> Option<T> {
        /// Also when `remove` breaks off: nobody waits for ever.
        struct Over<'a>(&'a Storage);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.lock().removing = None;
                self.0.changed.notify_all();
            }
        }
        {
            let mut shared = self.lock();
            if !shared.writing.get(camera).is_none_or(|writing| writing.allows(removal)) {
                return None;
            }
            shared.removing = Some((camera.clone(), removal));
        }
        let _over = Over(self);
        Some(remove())
    }

    /// The bytes that new recordings need and have not, and why writing found no space of late; see
    /// [`Room::wanted`].
    pub(super) fn wanted(&self, now: Instant, pressed: bool) -> (u64, Option<Refusal>) {
        let mut shared = self.lock();
        (shared.room.wanted(now, pressed), shared.room.starving())
    }

    /// Bytes that were written, or tried.
    pub(super) fn written_bytes(&self) -> u64 {
        self.lock().room.written()
    }

    /// What the last sweep found.
    pub(super) fn tell(&self, told: Told) {
        self.lock().told = told;
    }

    /// What is wrong although recording goes on; empty when nothing is.
    pub(super) fn warning(&self) -> String {
        self.lock().told.warning.clone()
    }

    fn sweep_now(&self, mut shared: MutexGuard<'_, Shared>) {
        shared.sweep_now = true;
        drop(shared);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Says what is done from now on, before it is begun: when this returns, nothing of what it
    /// needs is being removed.
    pub fn announce(&self, writing: Writing) {
        let mut shared = self.storage.lock();
        shared.writing.insert(self.camera.clone(), writing);
        let needed = |removing: &(CameraId, Removal)| {
            removing.0 == self.camera && !writing.allows(removing.1)
        };
        while shared.removing.as_ref().is_some_and(needed) {
            let waited = self.storage.changed.wait(shared);
            shared = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Claim {
    /// A fragment of so many bytes is about to be written.
    pub fn takes(&self, begins_segment: bool, bytes: u64) {
        let mut shared = self.storage.lock();
        if shared.room.takes(&self.camera, begins_segment, bytes) {
            self.storage.sweep_now(shared);
        }
    }

    /// What can't be written, why, and what helps. Has room made where that was missing.
    pub fn refused(&self, error: &io::Error, now: Instant) -> String {
        let root = self.storage.options.root.display();
        let refusal = match error.kind() {
            io::ErrorKind::StorageFull => Refusal::Full,
            io::ErrorKind::QuotaExceeded => Refusal::Quota,
            _ => {
                return format!(
                    "can't write to {root}: {error}; check the disk and its permissions"
                );
            }
        };
        let mut shared = self.storage.lock();
        shared.room.refused(&self.camera, refusal, now);
        let told = match refusal {
            Refusal::Quota => {
                format!("the quota of {root} is full; raise it or shorten the retention")
            }
            Refusal::Full if shared.told.full.is_empty() => {
                format!("the disk of {root} is full; make room or shorten the retention")
            }
            Refusal::Full => shared.told.full.clone(),
        };
        self.storage.sweep_now(shared);
        told
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut shared = self.storage.lock();
        shared.writing.remove(&self.camera);
        shared.room.forget(&self.camera);
        drop(shared);
        self.storage.changed.notify_all();
    }
}

fn sweep(weak: &Weak<Storage>, start: Clocks) {
    let Some(storage) = weak.upgrade() else { return };
    let mut sweeper = Sweeper::new(&storage, start);
    drop(storage);
    let mut pause = FIRST_SWEEP;
    loop {
        {
            // Waits on a lock of its own: this thread does not keep the storage.
            let Some(storage) = weak.upgrade() else { return };
            let shared = storage.lock();
            let short = pause.min(Duration::from_secs(1));
            let waited =
                storage.changed.wait_timeout_while(shared, short, |shared| !shared.sweep_now);
            let (mut shared, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            shared.sweep_now = false;
            if timeout.timed_out() {
                pause = pause.saturating_sub(short);
                if !pause.is_zero() {
                    continue;
                }
            }
        }
        pause = SWEEP;
        let Some(storage) = weak.upgrade() else { return };
        sweeper.sweep(&storage, clocks());
    }
}
