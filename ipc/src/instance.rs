//! One process of a kind per node: a [`Lock`] in the runtime directory, held for life.

use crate::lock::Lock;
use std::fs;
use std::io;
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
pub struct InstanceLock(Option<Lock>);

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
        let Some(lock) = Lock::take(path).map_err(failed)? else {
            let pid = fs::read_to_string(path).unwrap_or_default().trim().to_owned();
            let (part, path) = (part.to_owned(), path.to_owned());
            return Err(InstanceError::Held { part, path, pid });
        };
        lock.sign(&format!("{}\n", std::process::id())).map_err(failed)?;
        Ok(InstanceLock(Some(lock)))
    }

    /// Whether a living process holds the lock.
    pub fn held(path: &Path) -> bool {
        Lock::held(path)
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        // The directory may be gone already; then so is the file.
        let _ = self.0.take().map(Lock::remove);
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
