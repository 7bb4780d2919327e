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
    /// Used, in thousandths.
    pub used_permille: AtomicU64,
}

impl Disk {
    /// The disk that a test makes.
    pub fn limited(limits: Arc<Limited>) -> Disk {
        Disk { limited: Some(limits) }
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
