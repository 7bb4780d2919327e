//! A lock file: one holder at a time, for as long as a process lives.
//!
//! It is flock(2) on a file of its own. The kernel frees it when the process ends, however it ends, so
//! a free lock means "gone". What a process leaves beside its lock (a ring, a socket) is removed by
//! whoever holds that lock, and by nobody else.
//!
//! The holder has the file to itself; who looks whether there is one shares it for a moment. So a lock
//! that is only shared is not held, whoever takes it waits those moments out, and looking can't make a
//! process that starts refuse.

use rustix::fs::{Mode, OFlags};
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often and how far apart a lock is tried while somebody holds it: a process that was just
/// killed, or one that removes leftovers, holds it for a moment (chosen: 100 ms).
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);
/// How often it is tried while others only look, which takes each of them microseconds (chosen: 10 s
/// of looks without a gap).
const LOOKS_MAX: u32 = 2000;
/// The owner's alone: whoever can open a file can lock it.
const FILE_MODE: u32 = 0o600;

/// The held lock. Dropping it, or the end of the process, frees it; the file stays until
/// [`Lock::remove`].
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock, making its file; `None` when somebody else holds it, also 100 ms later.
    ///
    /// # Errors
    /// Those of the file system; a link is not followed.
    pub fn take(path: &Path) -> io::Result<Option<Lock>> {
        Lock::take_with_pauses(path, PAUSE)
    }

    fn take_with_pauses(path: &Path, pause: Duration) -> io::Result<Option<Lock>> {
        let (mut tries, mut looks) = (0, 0);
        while tries < TRIES && looks < LOOKS_MAX {
            if tries + looks > 0 {
                std::thread::sleep(pause);
            }
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(FILE_MODE))?);
            hook::opened();
            match file.try_lock() {
                Ok(()) => {}
                // Shared: those who have it only look.
                Err(TryLockError::WouldBlock) if file.try_lock_shared().is_ok() => {
                    looks += 1;
                    continue;
                }
                Err(TryLockError::WouldBlock) => {
                    tries += 1;
                    continue;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // A holder removes the file before it lets go: a lock on a file without a name is worth
            // nothing.
            let named = std::fs::symlink_metadata(path).map(|named| named.ino()).ok();
            if named == Some(file.metadata()?.ino()) {
                return Ok(Some(Lock { file, path: path.to_owned() }));
            }
            tries += 1;
        }
        Ok(None)
    }

    /// Whether somebody holds the lock. Disturbs nobody; a lock that this user may not read counts as
    /// free.
    pub fn held(path: &Path) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::open(path, flags, Mode::empty())
            .map(File::from)
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Writes who holds it, for people.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sign(&self, text: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(text.as_bytes(), 0)
    }

    /// Removes the file, then frees the lock.
    ///
    /// # Errors
    /// Those of the file system; the lock is free all the same.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

#[cfg(not(test))]
mod hook {
    #[inline(always)]
    pub(super) fn opened() {}
}

/// Lets a test come between the opening of a lock's file and the lock.
#[cfg(test)]
mod hook {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    type Act = Box<dyn FnOnce()>;

    thread_local! {
        /// What is done at the next openings, one each.
        pub(super) static NEXT: RefCell<VecDeque<Act>> = RefCell::default();
    }

    pub(super) fn opened() {
        let act = NEXT.with_borrow_mut(VecDeque::pop_front);
        if let Some(act) = act {
            act();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        (directory, path)
    }

    fn next(act: impl FnOnce() + 'static) {
        hook::NEXT.with_borrow_mut(|next| next.push_back(Box::new(act)));
    }

    #[test]
    fn one_holds_it_and_says_so_until_it_ends() {
        let (_directory, path) = place();
        assert!(!Lock::held(&path));
        let first = Lock::take(&path).unwrap().unwrap();
        first.sign("longer than the second\n").unwrap();
        first.sign("7\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "7\n");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        let begun = std::time::Instant::now();
        assert!(Lock::held(&path) && Lock::take(&path).unwrap().is_none());
        assert!(begun.elapsed() >= PAUSE * (TRIES - 1), "tried over a while");
        drop(first);
        assert!(!Lock::held(&path) && path.exists());
        Lock::take(&path).unwrap().unwrap().remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_link_is_no_lock() {
        let (directory, path) = place();
        let victim = directory.path().join("victim");
        std::fs::write(&victim, "").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let _held = Lock::take(&victim).unwrap().unwrap();
        assert!(Lock::take(&path).is_err() && !Lock::held(&path));
    }

    /// A stand-in for scheduler, `vas ring` and a starting process at once.
    #[test]
    fn whoever_looks_makes_nobody_refuse() {
        let (_directory, path) = place();
        drop(Lock::take(&path).unwrap());
        let (over, looks) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        Lock::held(&path);
                        looks.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let mut refused = 0;
            while looks.load(Ordering::Relaxed) < 20_000 {
                refused += u32::from(Lock::take(&path).unwrap().is_none());
            }
            over.store(true, Ordering::Relaxed);
            assert_eq!(refused, 0);
        });
    }

    /// One that looks may be stopped, by a debugger or a busy machine, with the file open.
    #[test]
    fn a_look_that_takes_long_is_waited_for() {
        let (_directory, path) = place();
        drop(Lock::take(&path).unwrap());
        let look = File::open(&path).unwrap();
        look.try_lock_shared().unwrap();
        (0..3 * TRIES).for_each(|_| next(|| {}));
        next(move || drop(look));
        assert!(Lock::take(&path).unwrap().is_some());
    }

    /// Between opening the lock's file and locking it, its holder removes it and another one comes: a
    /// lock on the removed file is worth nothing.
    #[test]
    fn a_lock_on_a_file_without_a_name_is_no_lock() {
        let (_directory, path) = place();
        let first = Lock::take(&path).unwrap().unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        let at = path.clone();
        next(move || {
            first.remove().unwrap();
            send.send(Lock::take(&at).unwrap().expect("nobody holds it")).unwrap();
        });
        let third = Lock::take(&path).unwrap();
        let second = receive.recv().unwrap();
        assert!(third.is_none(), "two hold the lock");
        assert!(Lock::held(&path));
        drop(second);
        assert!(!Lock::held(&path));
    }

    #[test]
    fn neither_looks_nor_files_without_a_name_are_waited_for_without_end() {
        let (_directory, path) = place();
        let take = || Lock::take_with_pauses(&path, Duration::ZERO).unwrap();
        drop(Lock::take(&path).unwrap());
        let look = File::open(&path).unwrap();
        look.try_lock_shared().unwrap();
        assert!(take().is_none(), "somebody looks for ever");
        drop(look);
        for _ in 0..2 * TRIES {
            let path = path.clone();
            next(move || std::fs::remove_file(path).unwrap());
        }
        assert!(take().is_none(), "somebody removes it each time");
        hook::NEXT.with_borrow_mut(VecDeque::clear);
    }

    #[test]
    fn one_that_is_held_for_a_moment_is_waited_for() {
        let (_directory, path) = place();
        let held = Lock::take(&path).unwrap();
        next(|| {});
        next(move || drop(held));
        assert!(Lock::take(&path).unwrap().is_some());
    }
}
