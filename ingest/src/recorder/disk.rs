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
    /// Bytes of it.
    pub size: AtomicU64,
    /// Used, in thousandths.
    pub used_permille: AtomicU64,
    /// How often it was asked for its use.
    pub looks: AtomicU64,
}

/// How full a disk is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Used.
    pub used: u64,
    /// Used or usable.
    pub size: u64,
}

impl Space {
    /// The share that is used, 0 to 1.
    pub fn share(self) -> f64 {
        self.share_of(self.used)
    }

    /// The share that so many bytes are.
    pub fn share_of(self, bytes: u64) -> f64 {
        if self.size == 0 { 0.0 } else { bytes as f64 / self.size as f64 }
    }

    /// The bytes that a share is.
    pub fn bytes_of(self, share: f64) -> u64 {
        (self.size as f64 * share) as u64
    }
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

    /// How much of the file system of `path` is used, as `df` says it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn space(&self, path: &Path) -> io::Result<Space> {
        if let Some(limits) = &self.limited {
            let size = limits.size.load(Ordering::SeqCst);
            let used = size * limits.used_permille.load(Ordering::SeqCst) / 1000;
            limits.looks.fetch_add(1, Ordering::SeqCst);
            return Ok(Space { used, size });
        }
        let stat = rustix::fs::statvfs(path)?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize);
        // What only root may use does not count as free.
        Ok(Space { used, size: used.saturating_add(stat.f_bavail.saturating_mul(stat.f_frsize)) })
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
