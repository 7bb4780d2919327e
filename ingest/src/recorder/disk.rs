//! The disk below the recordings: how full it is, and the calls by which it is written.

use ipc::recording::{Call, Files, Probe};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A disk. All but tests use [`Disk::default`].
#[derive(Debug, Clone, Default)]
pub struct Disk {
    limited: Option<Arc<Limited>>,
    files: Files,
}

/// A disk of which a test says how large and how full it is.
#[derive(Debug, Default)]
pub struct Limited {
    /// Bytes that can still be written; then writing fails as on a full disk.
    pub left: AtomicU64,
    /// Used, in thousandths.
    pub used_permille: AtomicU64,
}

impl Disk {
    /// The disk that a test makes.
    pub fn limited(limits: Arc<Limited>) -> Disk {
        Disk { files: Files::probed(Arc::clone(&limits) as Arc<dyn Probe>), limited: Some(limits) }
    }

    /// A disk of which a test hears every call.
    #[cfg(test)]
    pub fn probed(probe: Arc<dyn Probe>) -> Disk {
        Disk { files: Files::probed(probe), limited: None }
    }

    /// The calls by which it is written.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Share of the file system of `path` that is used, as `df` says it, 0 to 1.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn used(&self, path: &Path) -> io::Result<f64> {
        if let Some(limits) = &self.limited {
            return Ok(limits.used_permille.load(Ordering::SeqCst) as f64 / 1000.0);
        }
        let stat = rustix::fs::statvfs(path)?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        // What only root may use does not count as free.
        let usable = used + stat.f_bavail;
        Ok(if usable == 0 { 0.0 } else { used as f64 / usable as f64 })
    }
}

impl Probe for Limited {
    fn ask(&self, call: Call, _: &Path) -> io::Result<()> {
        let Call::Write(bytes) = call else { return Ok(()) };
        let take = |left: u64| left.checked_sub(bytes as u64);
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(_) => Ok(()),
            Err(_) => Err(rustix::io::Errno::NOSPC.into()),
        }
    }
}
