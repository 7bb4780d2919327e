//! How large and how full a file system is, and whether what is asked of it can be had together.
//!
//! Shares are of what `df` takes for the whole: what is used, and what this user may still use.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All that this user can use, used or not.
    pub size: u64,
    /// What this user may still use.
    pub free: u64,
}

/// A disk. All but tests use [`Disk::default`].
#[derive(Debug, Clone, Default)]
pub struct Disk {
    told: Option<Arc<Mutex<Space>>>,
}

impl Disk {
    /// A disk of which a test says how large and how full it is.
    pub fn told(space: Arc<Mutex<Space>>) -> Disk {
        Disk { told: Some(space) }
    }

    /// The file system of a directory, or of the nearest one above it that is there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn space(&self, path: &Path) -> io::Result<Space> {
        if let Some(told) = &self.told {
            return Ok(*told.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let stat = rustix::fs::statvfs(there(path))?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        // What only root may use does not count.
        let size = used.saturating_add(stat.f_bavail).saturating_mul(stat.f_frsize);
        Ok(Space { size, free: stat.f_bavail.saturating_mul(stat.f_frsize) })
    }
}

fn there(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// Whether two directories, there or not yet, lie on one file system.
pub fn same(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| there(path).metadata().ok().map(|told| told.dev());
    device(one) == device(other)
}

/// What the configuration asks of the disk of the state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demands {
    /// `[events] keep_free`: bytes below which no event is stored.
    pub keep_free: u64,
    /// `[recording] disk_high_percent`, when recordings are on that disk.
    pub high_percent: Option<u64>,
}

/// `percent` of `bytes`.
pub fn share(bytes: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

impl Demands {
    /// Bytes of a disk that recordings leave to others once they have filled it.
    fn left(&self, size: u64) -> u64 {
        self.high_percent.map_or(size, |high| share(size, 100_u64.saturating_sub(high)))
    }

    /// Why events would never be stored on a disk of this size once recordings have filled it; `None`
    /// when they would.
    pub fn contradiction(&self, size: u64) -> Option<String> {
        let Demands { keep_free, high_percent } = *self;
        let left = self.left(size);
        if keep_free == 0 || left > keep_free {
            return None;
        }
        let mib = |bytes: u64| bytes >> 20;
        let (kept, size_mib, left) = (mib(keep_free), mib(size), mib(left));
        Some(match high_percent {
            Some(high) => format!(
                "events are stored while `keep_free` of [events], {kept} MiB, is free, and recordings may \
                 fill this disk of {size_mib} MiB up to `disk_high_percent` of [recording], {high} %, which \
                 leaves {left} MiB: then events are not stored; lower one of them, or give recordings a \
                 disk of their own with `dir` in [recording]"
            ),
            None => format!(
                "events are stored while `keep_free` of [events], {kept} MiB, is free, and this disk has \
                 {size_mib} MiB in all: events are not stored; lower it, or set `state` in [dirs] to a \
                 larger disk"
            ),
        })
    }

    /// Bytes that stay free whatever people ask for: what the emptying of recordings takes for urgent,
    /// and what events need, where they can have it.
    pub fn reserve(&self, size: u64) -> u64 {
        // Half of what recordings leave (docs/recording.md: 95 % is urgent where 90 % is high).
        let urgent = self.high_percent.map_or(0, |_| self.left(size) / 2);
        if self.contradiction(size).is_some() { urgent } else { urgent.max(self.keep_free) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn demands(keep_free: u64, high: u64) -> Demands {
        Demands { keep_free, high_percent: Some(high) }
    }

    #[test]
    fn a_disk_is_asked_even_when_the_directory_is_not_there_yet() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let here = disk.space(directory.path()).unwrap();
        let below = disk.space(&directory.path().join("not/yet")).unwrap();
        assert_eq!(here.size, below.size);
        assert!(here.size > 0 && here.free <= here.size);
        assert!(same(directory.path(), &directory.path().join("not/yet")));
        assert!(!same(directory.path(), Path::new("/proc/self")));
        let told = Space { size: 10, free: 3 };
        assert_eq!(Disk::told(Arc::new(Mutex::new(told))).space(Path::new("/")).unwrap(), told);
    }

    #[test]
    fn events_and_recordings_exclude_each_other_on_a_small_disk() {
        let text = demands(GIB, 90).contradiction(8 * GIB).unwrap();
        for part in ["1024 MiB", "8192 MiB", "90 %", "819 MiB", "keep_free", "disk_high_percent"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // Just as much as is to be kept is too little: the next byte of a recording ends it.
        assert!(demands(GIB, 90).contradiction(10 * GIB).is_some());
        assert_eq!(demands(GIB, 90).contradiction(10 * GIB + 10), None);
        assert!(demands(GIB, 95).contradiction(10 * GIB + 10).is_some());
        assert_eq!(demands(0, 90).contradiction(0), None, "nothing is to be kept free");
        assert_eq!(demands(1, 90).contradiction(20), None);
        let alone = Demands { keep_free: GIB, high_percent: None };
        assert_eq!(alone.contradiction(GIB + 1), None, "recordings have a disk of their own");
        let text = alone.contradiction(GIB).unwrap();
        assert!(text.contains("1024 MiB in all") && !text.contains("disk_high_percent"), "{text}");
    }

    #[test]
    fn what_stays_free_is_what_is_urgent_or_what_events_need() {
        assert_eq!(demands(GIB, 90).reserve(100 * GIB), 5 * GIB);
        assert_eq!(demands(GIB, 90).reserve(15 * GIB), GIB);
        assert_eq!(demands(GIB, 90).reserve(1000 * MIB), 50 * MIB, "events give way there");
        assert_eq!(demands(0, 80).reserve(1000 * MIB), 100 * MIB);
        assert_eq!(Demands { keep_free: GIB, high_percent: None }.reserve(100 * GIB), GIB);
        assert_eq!(Demands { keep_free: GIB, high_percent: None }.reserve(GIB), 0);
        assert_eq!(share(u64::MAX, 100), u64::MAX);
        assert_eq!((share(1000, 10), share(199, 1)), (100, 1));
    }
}
