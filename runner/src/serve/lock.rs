//! The lock that a runner holds for life: one runner per model and device.
//!
//! The file is removed at the end, so that nothing is left behind. Whoever opened it before that
//! and locks it after holds a file that has no name any more; [`Lock::take`] notices and starts
//! over.

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A held lock. Dropping it removes the file and gives it up.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: OwnedFd,
}

impl Lock {
    /// Takes the lock at `path`; `Ok(None)` = another process holds it.
    pub fn take(path: &Path) -> std::io::Result<Option<Lock>> {
        loop {
            let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = open(path, flags, Mode::RUSR | Mode::WUSR)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            let ours = fstat(&file)?;
            match stat(path) {
                Ok(named) if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino) => {
                    return Ok(Some(Lock { path: path.to_owned(), _file: file }));
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is still held: nobody else can have taken it by this name.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "lock file not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let first = Lock::take(&path).unwrap().unwrap();
        assert!(Lock::take(&path).unwrap().is_none());
        drop(first);
        assert!(!path.exists());
        let second = Lock::take(&path).unwrap();
        assert!(second.is_some());
        // A file that was left by a kill is no obstacle.
        std::fs::write(dir.path().join("b.lock"), "").unwrap();
        assert!(Lock::take(&dir.path().join("b.lock")).unwrap().is_some());
    }
}
