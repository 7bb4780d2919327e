//! One process of a kind per node: a lock file in the runtime directory, held for life.
//!
//! The kernel frees the lock when the process ends, however it ends, so a free lock means "gone".

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another process holds it.
    #[error(
        "{part} is already running here (lock {path}, pid {pid}); stop it or use another runtime directory"
    )]
    Held {
        /// What the lock stands for, for example `vas ingest`.
        part: String,
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote of itself.
        pid: String,
    },
    /// The lock file can't be made.
    #[error(
        "lock {path} of {part} can't be made: {source}; check the runtime directory and its owner"
    )]
    Io {
        /// What the lock stands for.
        part: String,
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The held lock. Dropping it removes the file and frees the lock.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
    path: PathBuf,
}

/// Tries before a lock file that keeps vanishing is given up (chosen; each is a lost race with
/// another process that is ending).
const RACES_MAX: u32 = 10;

impl InstanceLock {
    /// Takes the lock for `part`, for example `vas ingest`.
    ///
    /// # Errors
    /// [`InstanceError`]; both name the file and the remedy.
    pub fn take(path: &Path, part: &str) -> Result<InstanceLock, InstanceError> {
        let failed = |source| {
            let (part, path) = (part.to_owned(), path.to_owned());
            InstanceError::Io { part, path, source }
        };
        for _ in 0..RACES_MAX {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let mut file = options.open(path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let pid = fs::read_to_string(path).unwrap_or_default();
                    let pid = pid.trim().to_owned();
                    return Err(InstanceError::Held {
                        part: part.to_owned(),
                        path: path.to_owned(),
                        pid,
                    });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            // A holder removes the file before it lets go: a lock on a file without a name is
            // worth nothing.
            let named = fs::metadata(path).map(|m| m.ino()).ok();
            if named != Some(file.metadata().map_err(failed)?.ino()) {
                continue;
            }
            let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            written.map_err(failed)?;
            return Ok(InstanceLock { _file: file, path: path.to_owned() });
        }
        Err(failed(io::Error::other("the file keeps vanishing")))
    }

    /// Whether a living process holds the lock.
    pub fn held(path: &Path) -> bool {
        File::open(path)
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        // The directory may be gone already; then so is the file.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_is_told_who_is_first_and_the_file_goes_with_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("part.lock");
        assert!(!InstanceLock::held(&path));
        let first = InstanceLock::take(&path, "vas part").unwrap();
        assert!(InstanceLock::held(&path));
        let error = InstanceLock::take(&path, "vas part").unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        assert!(!path.exists());
        InstanceLock::take(&path, "vas part").unwrap();
        let missing = directory.path().join("none").join("part.lock");
        assert!(matches!(InstanceLock::take(&missing, "x"), Err(InstanceError::Io { .. })));
    }
}
