//! What all recorders of a node share: where and how long, who writes where, and the thread that
//! makes room.

use super::disk::Disk;
use super::recovery::{self, Orders};
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
/// As often the thread that sweeps looks whether anybody is left to sweep for (chosen: as long a storage
/// that nobody uses any more stays).
const LOOK: Duration = Duration::from_secs(1);

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
    /// What is to be put in order.
    pub(super) orders: Orders,
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
            recordings: Recordings::through(&options.root, options.disk.files().clone()),
            options,
            orders: Orders::default(),
            shared: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Starts the threads that remove what is too old or too much, and put in order what is not. They
    /// end some time after the last other owner is gone.
    ///
    /// # Errors
    /// When the process has no threads left.
    pub fn keep(self: &Arc<Storage>) -> io::Result<()> {
        recovery::keep(self, recovery::FIRST, recovery::PAUSE)?;
        let (weak, start) = (Arc::downgrade(self), clocks());
        let sweep = move || sweep(&weak, start, LOOK);
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
            let shared = self.lock();
            // Of sweep and recovery one at a time.
            let waited = self.changed.wait_while(shared, |shared| shared.removing.is_some());
            let mut shared = waited.unwrap_or_else(PoisonError::into_inner);
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
            // It says itself what is wrong with what.
            _ if error.raw_os_error().is_none() => {
                return format!("{error}; check the disk and its permissions");
            }
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

fn sweep(weak: &Weak<Storage>, start: Clocks, look: Duration) {
    let Some(storage) = weak.upgrade() else { return };
    let mut sweeper = Sweeper::new(&storage, start);
    drop(storage);
    let mut pause = FIRST_SWEEP;
    loop {
        {
            // Waits on a lock of its own: this thread does not keep the storage.
            let Some(storage) = weak.upgrade() else { return };
            let shared = storage.lock();
            let short = pause.min(look);
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

#[cfg(test)]
mod tests {
    use super::super::tests::Rig;
    use super::*;
    use base::{UtcNanos, guard};
    use std::sync::atomic::{AtomicBool, Ordering};

    fn name(hours: u64) -> SegmentName {
        SegmentName::at(UtcNanos((10 * 24 + hours) * 3600 * base::time::NANOS_PER_SEC))
    }

    fn removed(rig: &Rig, removal: Removal) -> bool {
        rig.storage.remove(&rig.claim.camera, removal, || ()).is_some()
    }

    #[test]
    fn what_may_go_follows_from_what_is_done() {
        let rig = Rig::new();
        let (open, day) = (name(5), |hours| Removal::Day(name(hours).day()));
        for (writing, segments, days) in [
            (Writing::Between, [true, true, true], [true, true, true]),
            (Writing::PuttingInOrder, [false, false, false], [false, false, false]),
            (Writing::Open(open), [true, false, false], [true, false, true]),
        ] {
            rig.claim.announce(writing);
            let of = [name(4), name(5), name(6)].map(|name| removed(&rig, Removal::Segment(name)));
            assert_eq!(of, segments, "{writing:?}");
            // Yesterday, today, tomorrow.
            let of = [Removal::Day(name(0).day().before()), day(5), day(30)];
            assert_eq!(of.map(|day| removed(&rig, day)), days, "{writing:?}");
        }
        let other = CameraId::new("other").unwrap();
        assert!(rig.storage.remove(&other, day(5), || ()).is_some(), "nobody claims it");
    }

    #[test]
    fn who_comes_to_need_what_is_being_removed_waits_for_that() {
        for (writing, removal) in [
            (Writing::Open(name(5)), Removal::Segment(name(5))),
            (Writing::Open(name(5)), Removal::Day(name(5).day())),
            (Writing::PuttingInOrder, Removal::Segment(name(1))),
        ] {
            let rig = Rig::new();
            let gone = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let removing = rig.storage.remove(&rig.claim.camera, removal, || {
                    scope.spawn(|| {
                        rig.claim.announce(writing);
                        assert!(gone.load(Ordering::SeqCst), "{removal:?}");
                    });
                    while rig.storage.written(&rig.claim.camera) != Some(writing) {
                        std::thread::yield_now();
                    }
                    // Time enough for one that doesn't wait.
                    (0..1000).for_each(|_| std::thread::yield_now());
                    gone.store(true, Ordering::SeqCst);
                });
                assert!(removing.is_some());
            });
        }
    }

    #[test]
    fn who_needs_something_else_does_not_wait() {
        let rig = Rig::new();
        let other = rig.storage.claim(&CameraId::new("other").unwrap(), || false).unwrap();
        let done = rig.storage.remove(&rig.claim.camera, Removal::Segment(name(4)), || {
            rig.claim.announce(Writing::Open(name(5)));
            rig.claim.announce(Writing::Between);
            other.announce(Writing::PuttingInOrder);
        });
        assert!(done.is_some());
        // One that breaks off holds up nobody.
        let broken = guard::foreign(|| {
            rig.storage.remove(&rig.claim.camera, Removal::Segment(name(4)), || panic!("broken"))
        });
        assert!(broken.is_err());
        rig.claim.announce(Writing::PuttingInOrder);
    }

    #[test]
    fn what_finds_no_space_has_room_made_at_once_and_nobody_sweeps_for_nobody() {
        let Rig { _root, storage, claim, limits } = Rig::new();
        limits.size.store(1000, Ordering::SeqCst);
        let (weak, start) = (Arc::downgrade(&storage), clocks());
        let thread = thread::spawn(move || sweep(&weak, start, Duration::from_micros(100)));
        for hour in 0..5 {
            let old = storage.recordings.segment(&claim.camera, name(hour));
            std::fs::create_dir_all(old.parent().unwrap()).unwrap();
            std::fs::write(&old, "a segment").unwrap();
            claim.takes(true, 1);
            claim.refused(&rustix::io::Errno::NOSPC.into(), start.monotonic);
            super::super::tests::wait_until("it is gone", || !old.exists());
        }
        // Each asks at most twice, and the next one of itself is due ten seconds later, however often the
        // thread looks meanwhile.
        let sweeps = limits.looks.load(Ordering::SeqCst);
        assert!(sweeps <= 12, "{sweeps} sweeps");
        drop((claim, storage));
        thread.join().unwrap();
    }

    #[test]
    fn storage_that_is_kept_has_room_made() {
        let Rig { _root, storage, claim, limits } = Rig::new();
        limits.size.store(1000, Ordering::SeqCst);
        storage.keep().unwrap();
        let old = storage.recordings.segment(&claim.camera, name(0));
        std::fs::create_dir_all(old.parent().unwrap()).unwrap();
        std::fs::write(&old, "a segment").unwrap();
        claim.takes(true, 1);
        claim.refused(&rustix::io::Errno::NOSPC.into(), clocks().monotonic);
        super::super::tests::wait_until("it is gone", || !old.exists());
    }

    #[test]
    fn a_claim_that_is_given_back_leaves_nothing() {
        let Rig { _root, storage, claim, .. } = Rig::new();
        let camera = claim.camera.clone();
        claim.announce(Writing::PuttingInOrder);
        claim.takes(true, 100);
        assert!(storage.claim(&camera, || true).is_none());
        drop(claim);
        assert_eq!((storage.written(&camera), storage.written_bytes()), (None, 100));
        let claim = storage.claim(&camera, || true).unwrap();
        assert_eq!(storage.written(&camera), Some(Writing::Between));
        claim.refused(&rustix::io::Errno::NOSPC.into(), Instant(0));
        assert_eq!(storage.wanted(Instant(0), true).0, 0, "what another one took is forgotten");
        assert!(storage.lock().sweep_now);
    }
}
