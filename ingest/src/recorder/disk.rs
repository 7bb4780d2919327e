//! The disk below the recordings: how full it is, and writing to it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A disk. All but tests use [`Disk::default`].
#[derive(Debug, Clone, Default)]
pub struct Disk {
    limited: Option<Arc<Limited>>,
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
        Disk { limited: Some(limits) }
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

    /// Writes all of `bytes`, or a part and fails.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        if let Some(limits) = &self.limited {
            let take = |left: u64| left.checked_sub(bytes.len() as u64);
            if limits.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
                // As a full disk does: what fits is written.
                file.write_all(&bytes[..bytes.len() / 2])?;
                return Err(rustix::io::Errno::NOSPC.into());
            }
        }
        file.write_all(bytes)
    }
}
