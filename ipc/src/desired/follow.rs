//! Following the file: [`follow`].

use super::{DesiredState, LoadError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How often a follower looks although it would be told of a change (chosen: not every change is told,
/// for example that of a directory above).
const TOLD: Duration = Duration::from_secs(30);
/// How often it looks while nobody tells it (chosen: a change waits no longer than people do).
const UNTOLD: Duration = Duration::from_secs(1);

/// Follows the file on the calling thread: hands every new state to `apply` and every new problem to
/// `problem`, until `apply` returns false. Nothing else ends it.
///
/// A state is new when the file says anything else than what was applied last, whatever its revision:
/// a registry that was restored goes on from a lower one. States that come while `apply` works are
/// one, the newest. The same problem is told once.
///
/// inotify brings a change at once; without it (there are 128 instances per user, over all containers)
/// the follower looks once a second.
pub fn follow(
    path: &Path,
    apply: impl FnMut(DesiredState) -> bool,
    problem: impl FnMut(&LoadError),
) {
    follow_by(Announcer::default(), path, apply, problem);
}

fn follow_by(
    mut announcer: Announcer,
    path: &Path,
    mut apply: impl FnMut(DesiredState) -> bool,
    mut problem: impl FnMut(&LoadError),
) {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut applied: Option<Vec<u8>> = None;
    let mut told = String::new();
    loop {
        // Before the look: what changes after it is announced.
        announcer.watch(directory);
        match DesiredState::text(path) {
            Ok(text) if applied.as_ref() == Some(&text) => told.clear(),
            read => match read.and_then(|text| Ok((DesiredState::parse(path, &text)?, text))) {
                Ok((state, text)) => {
                    applied = Some(text);
                    told.clear();
                    if !apply(state) {
                        return;
                    }
                }
                Err(error) => {
                    let text = error.to_string();
                    if text != told {
                        problem(&error);
                        told = text;
                    }
                }
            },
        }
        announcer.wait();
    }
}

/// Says that something changed in a directory, if the kernel lets it.
struct Announcer {
    make: fn() -> io::Result<OwnedFd>,
    /// [`TOLD`].
    look_after: Duration,
    /// With what is watched: device and inode.
    watch: Option<(OwnedFd, (u64, u64))>,
}

impl Default for Announcer {
    fn default() -> Announcer {
        use inotify::CreateFlags;
        let make = || Ok(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
        Announcer { make, look_after: TOLD, watch: None }
    }
}

impl Announcer {
    /// Watches what the directory's name leads to now; it may come later, or be replaced.
    fn watch(&mut self, directory: &Path) {
        let place = fs::metadata(directory).ok().map(|found| (found.dev(), found.ino()));
        if self.watch.as_ref().map(|(_, watched)| *watched) == place {
            return;
        }
        self.watch = None;
        let (Some(place), Ok(descriptor)) = (place, (self.make)()) else { return };
        let of_the_file = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
        let of_the_directory = WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF;
        if inotify::add_watch(&descriptor, directory, of_the_file | of_the_directory).is_ok() {
            self.watch = Some((descriptor, place));
        }
    }

    /// Until something changed, or it is time to look.
    fn wait(&mut self) {
        let Some((descriptor, _)) = &self.watch else { return std::thread::sleep(UNTOLD) };
        let mut descriptors = [PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: self.look_after.as_secs() as _,
            tv_nsec: i64::from(self.look_after.subsec_nanos()),
        };
        match poll(&mut descriptors, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => {
                self.watch = None;
                return std::thread::sleep(UNTOLD);
            }
        }
        let mut scratch = [0; 4096];
        while rustix::io::read(descriptor, &mut scratch).is_ok_and(|n| n > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::FORMAT;
    use super::*;
    use base::Epoch;
    use std::path::PathBuf;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::JoinHandle;

    fn state(revision: u64) -> DesiredState {
        DesiredState {
            format: FORMAT,
            epoch: Epoch(1),
            revision,
            written_utc: String::new(),
            cameras: vec![],
            subscriptions: vec![],
        }
    }

    /// What must come comes sooner; what does not come fails.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Looks only when it is told, and then at once.
    fn told() -> Announcer {
        Announcer { look_after: 100 * PATIENCE, ..Announcer::default() }
    }

    fn untold() -> Announcer {
        Announcer { make: || Err(Errno::MFILE.into()), ..told() }
    }

    /// A follower on a thread of its own; it ends with revision 99.
    struct Follower {
        _root: tempfile::TempDir,
        path: PathBuf,
        applied: Receiver<DesiredState>,
        problems: Receiver<String>,
        /// One for every state that may be applied.
        go: Sender<()>,
        thread: JoinHandle<()>,
    }

    impl Follower {
        fn start(announcer: Announcer) -> Follower {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join("state/desired.json");
            fs::create_dir(path.parent().unwrap()).unwrap();
            let (send, applied) = channel();
            let (bad, problems) = channel();
            let (go, may) = channel();
            let followed = path.clone();
            let thread = std::thread::spawn(move || {
                let apply = |state: DesiredState| {
                    let last = state.revision == 99;
                    send.send(state).unwrap();
                    may.recv().is_ok() && !last
                };
                let problem = |error: &LoadError| bad.send(error.to_string()).unwrap();
                follow_by(announcer, &followed, apply, problem);
            });
            Follower { _root: root, path, applied, problems, go, thread }
        }

        #[track_caller]
        fn applies(&self, expected: &DesiredState) {
            assert_eq!(self.applied.recv_timeout(PATIENCE).as_ref(), Ok(expected));
            self.go.send(()).unwrap();
        }

        #[track_caller]
        fn tells(&self, part: &str) {
            let problem = self.problems.recv_timeout(PATIENCE).unwrap();
            assert!(problem.contains(part), "{problem}");
        }

        /// Everything that was applied and told was looked at.
        fn end(self) {
            state(99).store(&self.path).unwrap();
            self.applies(&state(99));
            self.thread.join().unwrap();
            assert_eq!(self.applied.iter().count(), 0);
            assert_eq!(self.problems.iter().count(), 0);
        }
    }

    #[test]
    fn every_state_that_differs_is_applied_and_corruption_changes_nothing() {
        let follower = Follower::start(told());
        follower.tells("does not exist yet");
        let path = &follower.path;
        state(5).store(path).unwrap();
        follower.applies(&state(5));
        fs::write(path.with_extension("half"), "{").unwrap();
        fs::rename(path.with_extension("half"), path).unwrap();
        follower.tells("corrupt");
        // The state that is in force, again: nothing to do.
        state(5).store(path).unwrap();
        // Restored from a copy.
        state(4).store(path).unwrap();
        follower.applies(&state(4));
        // Made anew, and as far as the one before.
        let other = DesiredState { epoch: Epoch(2), ..state(4) };
        other.store(path).unwrap();
        follower.applies(&other);
        // Restored, and changed before anybody looked.
        let same = DesiredState { written_utc: "later".into(), ..other };
        same.store(path).unwrap();
        follower.applies(&same);
        follower.end();
    }

    #[test]
    fn states_that_come_in_a_burst_are_one() {
        let follower = Follower::start(told());
        follower.tells("does not exist yet");
        state(1).store(&follower.path).unwrap();
        assert_eq!(follower.applied.recv_timeout(PATIENCE), Ok(state(1)));
        // It is at work now.
        (2..=50).for_each(|revision| state(revision).store(&follower.path).unwrap());
        follower.go.send(()).unwrap();
        follower.applies(&state(50));
        follower.end();
    }

    #[test]
    fn a_directory_that_is_replaced_is_followed() {
        let follower = Follower::start(told());
        follower.tells("does not exist yet");
        let directory = follower.path.parent().unwrap();
        state(1).store(&follower.path).unwrap();
        follower.applies(&state(1));
        for revision in 2..4 {
            let aside = directory.with_extension(revision.to_string());
            fs::rename(directory, aside).unwrap();
            follower.tells("does not exist yet");
            fs::create_dir(directory).unwrap();
            state(revision).store(&follower.path).unwrap();
            follower.applies(&state(revision));
        }
        follower.end();
    }

    #[test]
    fn without_inotify_it_looks_by_itself() {
        let follower = Follower::start(untold());
        follower.tells("does not exist yet");
        for revision in [3, 2] {
            state(revision).store(&follower.path).unwrap();
            follower.applies(&state(revision));
        }
        follower.end();
    }
}
