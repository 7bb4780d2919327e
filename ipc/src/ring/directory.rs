//! Directories and locks of rings: how one is built, takes the place of another, and goes.
//!
//! ```text
//! <shm>/<camera>/frame.meta, frame.data   the ring that readers open
//! <shm>/.<camera>.new/                    one that is being built, or that was just replaced
//! <shm>/.<camera>.lock                    flock of the writer; outside, so that it survives swaps
//! ```
//! Camera ids hold no dot, so the names can't meet.

use super::layout::{Geometry, Record, record};
use super::memory::{Data, Meta};
use super::{RingError, RingSpec};
use crate::lock::Lock;
use base::{CameraId, FrameId, Generation, MediaTime};
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Header file.
pub(super) const META: &str = "frame.meta";
/// Pixel file.
pub(super) const DATA: &str = "frame.data";

const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

/// The names of one camera in the shared-memory root.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// The ring.
    pub ring: PathBuf,
    /// The ring that is built, or was replaced.
    pub new: PathBuf,
    /// The lock.
    pub lock: PathBuf,
}

impl Names {
    /// The names of a camera.
    pub fn of(shm: &Path, camera: &str) -> Names {
        Names {
            ring: shm.join(camera),
            new: shm.join(format!(".{camera}.new")),
            lock: shm.join(format!(".{camera}.lock")),
        }
    }
}

/// The camera a name in the root belongs to, `None` for what is not ours.
pub(super) fn camera_of(name: &str) -> Option<CameraId> {
    let plain = match name.strip_prefix('.') {
        Some(hidden) => hidden.strip_suffix(".new").or_else(|| hidden.strip_suffix(".lock"))?,
        None => name,
    };
    CameraId::new(plain).ok()
}

/// What a new generation takes over from the directory it replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Before {
    /// Generation, 0 when there was none.
    pub generation: Generation,
    /// Last frame id and its media time.
    pub last: Option<(FrameId, MediaTime)>,
}

impl Before {
    /// Reads it from a ring without a writer. The newest complete record counts, announced in the
    /// header or not, so that no id is given twice whatever step the writer died at.
    pub fn read(meta: &Meta) -> Result<Before, String> {
        let words = meta.words();
        let geometry = Geometry::read(words)?;
        let newest = (0..geometry.slots)
            .filter_map(|slot| {
                let (_, values) = record(words, slot).read()?;
                let record = Record::decode(&values).ok()?;
                // Half of the range, as for the header: ids that go on can't overflow.
                let sane = record.id.0 <= u64::MAX / 2 && record.info.media.0 <= u64::MAX / 2;
                (sane && geometry.slot_of(record.id) == Some(slot))
                    .then_some((record.id, record.info.media))
            })
            .max();
        Ok(Before { generation: geometry.generation, last: newest.or(geometry.last_before()) })
    }
}

/// The ring a camera has now, if any.
pub(super) struct Current {
    meta: Option<Meta>,
    exists: bool,
    /// What the next generation goes on from.
    pub before: Before,
}

impl Current {
    /// Looks at `<shm>/<camera>`. Something that is no ring is refused, since it would be deleted;
    /// a ring that can't be read is replaced, and nothing goes on from it.
    pub fn look(names: &Names) -> Result<Current, RingError> {
        let none = Current { meta: None, exists: false, before: Before::default() };
        match holds_ring(&names.ring) {
            Ok(Some(true)) => {}
            Ok(None) => return Ok(none),
            Ok(Some(false)) => return Err(RingError::Foreign { path: names.ring.clone() }),
            Err(source) => {
                return Err(RingError::Io { action: "list", path: names.ring.clone(), source });
            }
        }
        let meta = open(&names.ring.join(META), true).and_then(|file| Meta::map(&file, true)).ok();
        let before = meta.as_ref().and_then(|meta| Before::read(meta).ok()).unwrap_or_default();
        Ok(Current { meta, exists: true, before })
    }

    /// Puts the ring built under `.new` in its place and deletes this one.
    pub fn swap(self, names: &Names) -> Result<(), RingError> {
        let flags = if self.exists { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        rustix::fs::renameat_with(CWD, &names.new, CWD, &names.ring, flags).map_err(|error| {
            RingError::Io {
                action: "put a new generation at",
                path: names.ring.clone(),
                source: error.into(),
            }
        })?;
        step(Step::Swapped);
        if let Some(meta) = &self.meta {
            meta.retire();
        }
        step(Step::Retired);
        if self.exists {
            // The new ring is published: a leftover is no reason to fail, the next one clears it.
            let _ = delete(&names.new);
        }
        Ok(())
    }
}

/// Opens a file without following a link and without waiting for a writer of a pipe.
pub(super) fn open(path: &Path, writable: bool) -> io::Result<File> {
    let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Whether a path is a directory with nothing but files of a ring in it; `None` when it is missing.
fn holds_ring(path: &Path) -> io::Result<Option<bool>> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_dir() => return Ok(Some(false)),
        Ok(_) => {}
    }
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        if name != META && name != DATA {
            return Ok(Some(false));
        }
    }
    Ok(Some(true))
}

/// Deletes a ring directory: its two files and itself, nothing else.
fn delete(path: &Path) -> io::Result<()> {
    for name in [META, DATA] {
        match std::fs::remove_file(path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => step(Step::Deleting),
        }
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Marks a ring that nobody writes as retired, if it can be read at all.
fn retire(path: &Path) {
    if let Ok(meta) = open(&path.join(META), true).and_then(|file| Meta::map(&file, true))
        && Geometry::read(meta.words()).is_ok()
    {
        meta.retire();
    }
}

/// Deletes a leftover `.new`: a ring that was never published, or a replaced one whose writer died
/// before it was marked.
pub(super) fn clear_leftover(names: &Names) -> io::Result<bool> {
    if holds_ring(&names.new)? != Some(true) {
        return Ok(false);
    }
    retire(&names.new);
    delete(&names.new)?;
    Ok(true)
}

/// Takes a ring away at once and deletes it. For the holder of the lock.
pub(super) fn remove(names: &Names) -> io::Result<bool> {
    let leftover = clear_leftover(names)?;
    if holds_ring(&names.ring)? != Some(true) {
        return Ok(leftover);
    }
    retire(&names.ring);
    step(Step::Retired);
    std::fs::rename(&names.ring, &names.new)?;
    step(Step::Swapped);
    delete(&names.new)?;
    Ok(true)
}

/// Retires the current ring and deletes its pixels, for want of room; true when there were any.
/// Its header stays, for ids and media time to go on from. For the holder of the lock.
pub(super) fn vacate(names: &Names) -> bool {
    if !matches!(holds_ring(&names.ring), Ok(Some(true))) {
        return false;
    }
    retire(&names.ring);
    step(Step::Retired);
    std::fs::remove_file(names.ring.join(DATA)).is_ok()
}

/// Id and media time of the last frame in a ring, of which the header is enough.
pub(super) fn last(ring: &Path) -> Option<(FrameId, MediaTime)> {
    let meta = open(&ring.join(META), false).and_then(|file| Meta::map(&file, false)).ok()?;
    Before::read(&meta).ok()?.last
}

/// The two files of a fresh ring, mapped.
pub(super) struct Built {
    /// Header.
    pub meta: Meta,
    /// Pixels.
    pub data: Data,
    /// What the header says.
    pub geometry: Geometry,
}

/// Builds a ring under `.new`, complete and with all its memory. On failure nothing is left.
pub(super) fn build(names: &Names, spec: &RingSpec, before: Before) -> Result<Built, RingError> {
    let built = build_files(names, spec, before);
    if built.is_err() {
        // The first error is the one to report.
        let _ = delete(&names.new);
    }
    built
}

fn build_files(names: &Names, spec: &RingSpec, before: Before) -> Result<Built, RingError> {
    let io = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| RingError::Io { action, path, source }
    };
    let directory = names.new.as_path();
    DirBuilder::new()
        .mode(DIRECTORY_MODE)
        .create(directory)
        .and_then(|()| std::fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE)))
        .map_err(io("make directory", directory))?;
    step(Step::DirectoryMade);

    let size = spec.picture.size;
    let slot_stride = super::layout::slot_stride(size);
    let file_bytes = slot_stride * u64::from(spec.slots);
    let meta_bytes = super::layout::meta_bytes(spec.slots) as u64;
    let data_path = directory.join(DATA);
    let meta_path = directory.join(META);
    let data_file = create_file(&data_path, file_bytes)?;
    step(Step::DataMade);
    let meta_file = create_file(&meta_path, meta_bytes)?;
    step(Step::MetaMade);
    let inode = data_file.metadata().map_err(io("stat", &data_path))?.ino();
    let data = Data::map_writable(&data_file, file_bytes).map_err(io("map", &data_path))?;
    let meta = Meta::map(&meta_file, true).map_err(io("map", &meta_path))?;
    let (first, media_before) = match before.last {
        Some((id, media)) => (FrameId(id.0.saturating_add(1)), media),
        None => (FrameId(1), MediaTime(0)),
    };
    let geometry = Geometry {
        size,
        slots: spec.slots,
        slot_stride,
        generation: Generation(crate::clock::utc().0.max(before.generation.0.saturating_add(1))),
        inode,
        file_bytes,
        first,
        media_before,
    };
    geometry.write(meta.words(), crate::clock::monotonic());
    step(Step::HeaderMade);
    Ok(Built { meta, data, geometry })
}

/// Makes a file of `bytes` bytes, all of them allocated: a full tmpfs must be an error here, not a
/// bus error later.
fn create_file(path: &Path, bytes: u64) -> Result<File, RingError> {
    let io = |action: &'static str| {
        move |source: io::Error| RingError::Io { action, path: path.to_owned(), source }
    };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(FILE_MODE))
        .map(File::from)
        .map_err(|error| io("create")(error.into()))?;
    file.set_permissions(Permissions::from_mode(FILE_MODE)).map_err(io("set the mode of"))?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(file),
        Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::NOMEM) => {
            let free = rustix::fs::statvfs(path.parent().unwrap_or(path))
                .map_or(0, |root| root.f_bavail.saturating_mul(root.f_frsize));
            Err(RingError::Full { path: path.to_owned(), bytes, free })
        }
        Err(error) => Err(io("allocate")(error.into())),
    }
}

/// Makes the shared-memory root when it is missing. It goes with the last ring, and everybody may make
/// directories in /dev/shm: it is looked at each time.
pub(super) fn make_root(shm: &Path) -> Result<(), RingError> {
    crate::roots::check("shm", shm)?;
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(shm).map_err(|source| {
        RingError::Io { action: "make directory", path: shm.to_owned(), source }
    })?;
    Ok(crate::roots::check("shm", shm)?)
}

/// Takes the writer's lock of a camera.
pub(super) fn lock(names: &Names, camera: &CameraId) -> Result<Lock, RingError> {
    match Lock::take(&names.lock) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(RingError::InUse { camera: camera.clone(), path: names.lock.clone() }),
        Err(source) => Err(RingError::Io { action: "lock", path: names.lock.clone(), source }),
    }
}

/// The entries of the root that belong to cameras: name and camera. A missing root has none.
pub(super) fn entries(shm: &Path) -> io::Result<Vec<(String, CameraId)>> {
    let directory = match std::fs::read_dir(shm) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in directory {
        if let Ok(name) = entry?.file_name().into_string()
            && let Some(camera) = camera_of(&name)
        {
            found.push((name, camera));
        }
    }
    found.sort();
    Ok(found)
}

/// See [`super::sweep`].
pub(super) fn sweep(shm: &Path, keep: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
    let mut cameras: Vec<CameraId> = Vec::new();
    for (name, camera) in entries(shm)? {
        // An empty directory with the name of a camera is not known to be ours.
        let ours = name.starts_with('.')
            || shm.join(&name).join(META).exists()
            || shm.join(&name).join(DATA).exists();
        if ours && !keep(camera.as_str()) {
            cameras.push(camera);
        }
    }
    cameras.sort();
    cameras.dedup();
    let mut removed = Vec::new();
    for camera in cameras {
        let names = Names::of(shm, camera.as_str());
        if let Some(lock) = Lock::take(&names.lock)? {
            let gone = remove(&names);
            lock.remove()?;
            if gone? {
                removed.push(camera.as_str().to_owned());
            }
        }
    }
    Ok(removed)
}

/// The points at which tests kill a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// `.new` exists, empty.
    DirectoryMade,
    /// frame.data is allocated.
    DataMade,
    /// frame.meta is allocated, all zero.
    MetaMade,
    /// The header is written.
    HeaderMade,
    /// The directories changed places.
    Swapped,
    /// The old generation is marked.
    Retired,
    /// One file of the old generation is gone.
    Deleting,
    /// The slot's sequence is odd.
    SlotOpened,
    /// Half of the pixels are written; reported by the tests themselves.
    #[cfg(test)]
    HalfWritten,
    /// The record is stored and the slot's sequence even.
    SlotClosed,
    /// The header's sequence is odd.
    HeaderOpened,
    /// The frame is announced.
    Announced,
}

#[cfg(not(test))]
#[inline(always)]
pub(super) fn step(_: Step) {}

#[cfg(test)]
pub(super) use super::kill_tests::step;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn ring(at: &Path) {
        fs::create_dir(at).unwrap();
        fs::write(at.join(META), "").unwrap();
        fs::write(at.join(DATA), "").unwrap();
    }

    #[test]
    fn only_a_directory_of_a_rings_files_is_a_ring() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        ring(&at("ring"));
        symlink(at("ring"), at("link")).unwrap();
        fs::write(at("file"), "").unwrap();
        assert_eq!(holds_ring(&at("ring")).unwrap(), Some(true));
        assert_eq!(holds_ring(&at("missing")).unwrap(), None);
        for other in ["link", "file"] {
            assert_eq!(holds_ring(&at(other)).unwrap(), Some(false), "{other}");
        }
        assert!(holds_ring(&at("file/below")).is_err());
    }

    #[test]
    fn what_can_not_be_deleted_is_told_and_nothing_after_it_is() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().join("ring");
        delete(&at).unwrap();
        ring(&at);
        delete(&at).unwrap();
        assert!(!at.exists());
        ring(&at);
        fs::write(at.join("notes"), "").unwrap();
        assert!(delete(&at).is_err() && at.join("notes").exists());
        ring(&root.path().join("other"));
        let at = root.path().join("other");
        fs::remove_file(at.join(META)).unwrap();
        fs::create_dir(at.join(META)).unwrap();
        assert!(delete(&at).is_err() && at.join(DATA).exists());
    }

    #[test]
    fn half_a_ring_is_swept_and_what_can_not_be_listed_is_told() {
        let root = tempfile::tempdir().unwrap();
        for (camera, file) in [("one", META), ("two", DATA)] {
            fs::create_dir(root.path().join(camera)).unwrap();
            fs::write(root.path().join(camera).join(file), "").unwrap();
        }
        fs::create_dir(root.path().join("empty")).unwrap();
        assert_eq!(sweep(root.path(), |_| false).unwrap(), ["one", "two"]);
        let left: Vec<_> =
            entries(root.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["empty"]);
        assert!(entries(&root.path().join("missing")).unwrap().is_empty());
        fs::write(root.path().join("file"), "").unwrap();
        assert!(entries(&root.path().join("file")).is_err());
    }
}
