//! The thread that removes snapshots and clips which are too old or too much, at start and then again and
//! again. What goes and in which order is [`Room`]'s; whether the clock can be trusted with their ages is
//! decided as for recordings and events.

use super::MediaError;
use super::room::Room;
use base::UtcNanos;
use base::clock_trust::Clocks;
use ipc::clock_trust::{ClockKeeper, accepted_in, clocks};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use store::Control;
use tracing::{info, warn};

/// How often (chosen: ages are days, and what is new makes room for itself).
const EVERY: Duration = Duration::from_secs(600);

/// Removes what is to be removed.
#[derive(Debug)]
pub struct Keeper {
    room: Arc<Room>,
    clock: ClockKeeper,
    stopped: Receiver<()>,
    /// What was told last, so that it is told once.
    told: Option<String>,
}

/// When the newest row was made.
fn newest(control: &Control) -> Option<UtcNanos> {
    let picture = control.read(|read| read.snapshots(None, 0, 1)).ok()?.rows.pop();
    let clip = control.read(|read| read.bookmarks(None, 0, 1)).ok()?.rows.pop();
    picture.map(|row| row.created_at).max(clip.map(|row| row.created_at))
}

impl Keeper {
    /// Runs until the other end of `stopped` is gone. `media` is the directory of the files.
    pub fn new(room: Arc<Room>, media: &Path, control: &Control, stopped: Receiver<()>) -> Keeper {
        let accepted = accepted_in(&room.path);
        let clock = ClockKeeper::open(media, accepted, || newest(control));
        Keeper { room, clock, stopped, told: None }
    }

    /// Removes until nobody wants it any more.
    pub fn run(mut self) {
        self.keep(clocks());
        while let Err(RecvTimeoutError::Timeout) = self.stopped.recv_timeout(EVERY) {
            self.keep(clocks());
        }
    }

    /// One look. What fails is told and tried again with the next one.
    fn keep(&mut self, now: Clocks) {
        self.room.recount();
        let rest = self.clock.look(now);
        let expired = if rest.is_some() { Ok(0) } else { self.expire(now.utc) };
        let fitted = self.room.fit();
        if let Ok(removed @ 1..) = expired {
            info!("removed {removed} snapshots and clips past `retention` of [media]");
        }
        if let Ok(bytes @ 1..) = fitted {
            info!("removed {bytes} bytes of the oldest snapshots and clips: they were too much");
        }
        let rest = rest.map(|rest| rest.to_string());
        let fault = expired.err().or(fitted.err()).map(|error| error.to_string());
        let told = fault.or_else(|| rest.clone());
        self.room.rests(rest);
        if told != self.told
            && let Some(told) = &told
        {
            warn!("snapshots and clips stay beyond what they may: {told}");
        }
        self.told = told;
    }

    fn expire(&self, now: UtcNanos) -> Result<usize, MediaError> {
        let age = base::time::nanos(self.room.options.retention);
        Ok(self.room.expire(UtcNanos(now.0.saturating_sub(age)))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Demands, Disk, Space};
    use crate::media::files::Files;
    use crate::media::room::MediaOptions;
    use crate::testing;
    use base::Instant;
    use base::time::NANOS_PER_SEC;
    use std::sync::Mutex;
    use store::control::MediaId;

    const DAY: u64 = 86_400 * NANOS_PER_SEC;

    /// A picture that was just taken, and ten days that such are kept.
    struct Rig {
        keeper: Keeper,
        control: Control,
        id: MediaId,
        now: Clocks,
        root: tempfile::TempDir,
    }

    fn rig() -> Rig {
        let root = tempfile::tempdir().unwrap();
        let control = Control::open(root.path()).unwrap();
        let row = control.write(|write| write.put_snapshot(testing::snapshot())).unwrap();
        std::fs::create_dir(root.path().join("media")).unwrap();
        let now = Clocks { utc: row.created_at, monotonic: Instant(NANOS_PER_SEC) };
        let keeper = keeper(&root, &control);
        Rig { keeper, control, id: row.id, now, root }
    }

    fn keeper(root: &tempfile::TempDir, control: &Control) -> Keeper {
        let media = root.path().join("media");
        let space = Arc::new(Mutex::new(Space { size: 1000, free: 1000 }));
        let room = Room::new(
            (root.path().to_owned(), Disk::told(space)),
            MediaOptions { retention: Duration::from_secs(10 * 86_400), max_percent: 10 },
            Demands { keep_free: 0, high_percent: None },
            (Files::new(media.clone()), control.clone()),
            Arc::default(),
        );
        Keeper::new(room, &media, control, std::sync::mpsc::sync_channel(0).1)
    }

    impl Rig {
        fn pass(&mut self, nanos: u64) -> &mut Rig {
            self.now.utc.0 += nanos;
            self.now.monotonic.0 += nanos;
            self
        }

        /// Whether the picture is still there after a look.
        fn kept(&mut self) -> bool {
            self.keeper.keep(self.now);
            self.control.snapshot(&self.id).unwrap().is_some()
        }
    }

    #[test]
    fn ages_are_kept_to_the_nanosecond() {
        let mut rig = rig();
        assert!(rig.kept());
        assert!(rig.pass(10 * DAY).kept());
        assert_eq!(rig.keeper.room.resting(), None);
        assert!(!rig.pass(1).kept());
    }

    #[test]
    fn a_clock_that_jumped_removes_nothing_until_it_has_run_for_a_day() {
        for ahead in [11 * DAY, 365 * DAY] {
            let mut rig = rig();
            assert!(rig.kept());
            rig.now.utc.0 += ahead;
            assert!(rig.pass(NANOS_PER_SEC).kept());
            assert!(rig.keeper.room.resting().unwrap().contains("the clock was set forward by"));
            assert!(rig.keeper.told.as_ref().unwrap().contains("vas clock accept"));
            // Also over a restart of serve.
            rig.keeper = keeper(&rig.root, &rig.control);
            assert!(rig.pass(NANOS_PER_SEC).kept());
            assert!(rig.keeper.room.resting().is_some());
            assert!(!rig.pass(DAY).kept(), "after a day of running");
            assert_eq!(rig.keeper.room.resting(), None);
        }
        let mut back = rig();
        back.pass(9 * DAY);
        assert!(back.kept());
        back.now.utc.0 -= DAY;
        assert!(back.kept() && back.keeper.room.resting().is_some());
        back.now.utc.0 += 3 * DAY;
        assert!(back.kept(), "and forward beyond the age");
    }

    #[test]
    fn a_machine_that_was_off_for_long_removes_nothing_at_first() {
        let mut rig = rig();
        rig.now.utc.0 += 14 * DAY;
        assert!(rig.kept());
        assert!(rig.keeper.room.resting().unwrap().contains("14 d ahead"));
        assert!(!rig.pass(DAY).kept());
    }

    /// A picture that is more than all of them may be.
    fn too_large(rig: &Rig) -> std::path::PathBuf {
        let owner = crate::media::files::Owner {
            kind: crate::media::files::Kind::Snapshots,
            camera: testing::CAMERA.parse().unwrap(),
            id: rig.id.clone(),
        };
        let files = Files::new(rig.root.path().join("media"));
        files.make_folder(owner.kind, &owner.camera).unwrap();
        let path = files.path(owner.kind, &owner.camera, &owner.id, "jpg");
        std::fs::write(&path, [0; 101]).unwrap();
        path
    }

    #[test]
    fn size_does_not_ask_the_clock() {
        let mut rig = rig();
        let path = too_large(&rig);
        rig.now.utc.0 += 14 * DAY;
        assert!(!rig.kept() && !path.exists());
        assert!(rig.keeper.room.resting().is_some());
    }

    #[test]
    fn it_looks_as_soon_as_it_runs_and_ends_when_nobody_wants_it() {
        let rig = rig();
        let path = too_large(&rig);
        rig.keeper.run();
        assert!(!path.exists());
    }
}
