//! The reader: opens a camera's ring by its path, polls its header, copies its frames.

use super::directory::{DATA, META, open};
use super::layout::{self, Geometry, Record, newest, record};
use super::memory::{Data, Meta, refused, regular_bytes};
use super::seqlock::Word;
use super::{CopyError, FrameRecord, ReaderStats};
use base::limits::RING_STALE;
use base::{Absent, CameraId, FrameId, Generation, Instant, Newest, Stamp};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Least time between two attempts to open a ring that was not there or not usable.
pub(super) const REOPEN_PERIOD: Duration = Duration::from_millis(100);

/// Attempts at a consistent header before the last known answer is given again. A writer needs
/// some ten nanoseconds for the header, so more than a few are needed only when it was interrupted
/// there, and then many would not help.
const ATTEMPTS: u32 = 16;

/// Reader of one camera's ring. Any number of them may exist, in any process.
///
/// What it maps stays allocated until it reopens or is dropped, also when the camera is gone: drop
/// readers of cameras that are no longer wanted.
pub struct RingReader {
    directory: PathBuf,
    ring: Option<OpenRing>,
    /// Why there is no ring, while there is none.
    absent: Absent,
    refusal: Option<io::Error>,
    /// When the next attempt to open is due.
    reopen_at: Instant,
    /// The generation that `copy` last asked for and did not find.
    missed: Option<Generation>,
    opened: u64,
    stats: ReaderStats,
}

impl std::fmt::Debug for RingReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingReader")
            .field("directory", &self.directory)
            .field("geometry", &self.ring.as_ref().map(|ring| ring.geometry))
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// A ring whose header was checked.
pub(super) struct OpenRing {
    directory: PathBuf,
    meta: Meta,
    pub geometry: Geometry,
    /// Inode of frame.meta: tells whether a path still leads here.
    inode: u64,
    /// Who owns frame.meta and frame.data.
    owners: [u32; 2],
    /// frame.data, mapped when the first frame is copied: who looks at headers only never pays.
    data: Option<(File, Data)>,
    /// Header sequence of what follows.
    seen: Option<u64>,
    heartbeat: Instant,
    answer: Answer,
}

/// What the header said when it was last read.
#[derive(Clone, Copy)]
enum Answer {
    /// No frame in this generation yet.
    Nothing,
    Frame(Stamp),
    /// A consistent header that contradicts itself.
    Invalid,
}

impl RingReader {
    /// A reader of a camera below `shm`. Opens nothing yet and never fails.
    pub fn new(shm: &Path, camera: &CameraId) -> RingReader {
        RingReader {
            directory: shm.join(camera.as_str()),
            ring: None,
            absent: Absent::NoRing,
            refusal: None,
            reopen_at: Instant::ZERO,
            missed: None,
            opened: 0,
            stats: ReaderStats::default(),
        }
    }

    /// The newest frame at `now` (CLOCK_MONOTONIC).
    ///
    /// Reads one cache line while nothing has changed, three or four when a frame came, and makes no
    /// system call. Only when the ring is missing, stale or retired does it look at the path, at
    /// once when it notices and then every 100 ms.
    pub fn newest(&mut self, now: Instant) -> Newest {
        let retired = match &mut self.ring {
            Some(ring) => match ring.refresh() {
                Ok(()) if !ring.stale(now) => return ring.newest(),
                Ok(()) => false,
                Err(Retired) => true,
            },
            None => false,
        };
        if retired && self.absent != Absent::Retired {
            self.absent = Absent::Retired;
            self.reopen_at = now;
        }
        if now >= self.reopen_at {
            self.reopen(now);
        }
        match &mut self.ring {
            None => Newest::Absent(self.absent),
            Some(ring) => match ring.refresh() {
                Err(Retired) => Newest::Absent(Absent::Retired),
                Ok(()) if ring.stale(now) => Newest::Absent(Absent::Stale),
                Ok(()) => ring.newest(),
            },
        }
    }

    /// Copies frame `frame_id` of `generation` out of `slot` into `pixels`: `w * h * 3 / 2` bytes
    /// of NV12, in the vector's own memory. After an error `pixels` is empty.
    ///
    /// Costs the copy and one fstat. A generation other than the open one makes it look at the
    /// path.
    pub fn copy(
        &mut self,
        generation: Generation,
        frame_id: FrameId,
        slot: u32,
        pixels: &mut Vec<u8>,
    ) -> Result<FrameRecord, CopyError> {
        pixels.clear();
        let ring = self.ring_of(generation)?;
        if slot >= ring.geometry.slots || ring.geometry.slot_of(frame_id) != Some(slot) {
            return Err(CopyError::Slot);
        }
        if let Err(error) = ring.map_data() {
            // The path leads to another ring by now, or to a damaged one, or can't be opened.
            let absent = match absence(&error) {
                Absent::NoRing => Absent::Retired,
                other => other,
            };
            self.refusal = Some(error);
            return Err(CopyError::Gone(absent));
        }
        let copied = ring.copy(frame_id, slot, pixels);
        match copied {
            Ok(_) => self.stats.copies += 1,
            Err(CopyError::Torn) => self.stats.torn += 1,
            Err(_) => {}
        }
        copied
    }

    /// Why the ring could not be opened when that was last tried in vain; for people.
    pub fn refusal(&self) -> Option<&io::Error> {
        self.refusal.as_ref()
    }

    /// What was counted since the reader was made.
    pub fn stats(&self) -> ReaderStats {
        ReaderStats { reopened: self.opened.saturating_sub(1), ..self.stats }
    }

    /// The ring of a generation, reopened when another one is open. Numbers tell nothing of the
    /// order: UTC may have been set back while there was no ring.
    fn ring_of(&mut self, generation: Generation) -> Result<&mut OpenRing, CopyError> {
        if self.ring.as_ref().is_none_or(|ring| ring.geometry.generation != generation) {
            let now = crate::clock::monotonic();
            // A generation that was not asked for before is worth a look at once.
            if now >= self.reopen_at || self.missed != Some(generation) {
                self.reopen(now);
                let found = self.ring.as_ref().map(|ring| ring.geometry.generation);
                self.missed = (found != Some(generation)).then_some(generation);
            }
        }
        match &mut self.ring {
            None => Err(CopyError::Gone(self.absent)),
            Some(ring) if ring.geometry.generation != generation => Err(CopyError::Generation),
            Some(ring) => Ok(ring),
        }
    }

    /// Looks at the path and takes the ring there, unless it is the one that is open.
    fn reopen(&mut self, now: Instant) {
        self.reopen_at = now + REOPEN_PERIOD;
        let ring = self.ring.as_ref();
        let opened = OpenRing::open(&self.directory, ring.map(|ring| ring.inode));
        match opened.and_then(|opened| opened.map(OpenRing::of_this_user).transpose()) {
            Ok(Some(ring)) => {
                self.ring = Some(ring);
                self.absent = Absent::NoRing;
                self.opened += 1;
            }
            // Still the same: stale, or retired by a writer that did not get to the end.
            Ok(None) => {}
            Err(error) => {
                self.ring = None;
                self.absent = absence(&error);
                self.refusal = Some(error);
            }
        }
    }
}

/// What it means that a ring's file could not be opened.
fn absence(error: &io::Error) -> Absent {
    use rustix::io::Errno;
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => return Absent::NoRing,
        _ => {}
    }
    // Of this process or its rights, and nothing about the ring.
    let own = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ACCESS, Errno::PERM, Errno::IO];
    match Errno::from_io_error(error) {
        Some(errno) if own.contains(&errno) => Absent::Unreadable,
        _ => Absent::Invalid,
    }
}

/// The generation is over.
pub(super) struct Retired;

impl OpenRing {
    /// Opens the ring in a directory. `Ok(None)` when its header is `except`. Type and size of both
    /// files, their belonging together and the geometry are checked before anything is believed.
    pub fn open(directory: &Path, except: Option<u64>) -> io::Result<Option<OpenRing>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Through one directory handle, so that a swap can't mix two generations.
        let at = rustix::fs::openat(CWD, directory, flags, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(&at, META, flags, Mode::empty())?);
        let header = rustix::fs::fstat(&file)?;
        let inode = header.st_ino;
        if except == Some(inode) {
            return Ok(None);
        }
        let meta = Meta::map(&file, false)?;
        let geometry = Geometry::read(meta.words()).map_err(refused)?;
        let data = rustix::fs::statat(&at, DATA, AtFlags::SYMLINK_NOFOLLOW)?;
        geometry.belongs(&data)?;
        Ok(Some(OpenRing {
            directory: directory.to_owned(),
            meta,
            geometry,
            inode,
            owners: [header.st_uid, data.st_uid],
            data: None,
            seen: None,
            heartbeat: Instant::ZERO,
            answer: Answer::Nothing,
        }))
    }

    /// Refuses a ring that another user made: the directory above may be one in which everybody can
    /// make what a camera of ours has not made yet.
    fn of_this_user(self) -> io::Result<OpenRing> {
        let user = rustix::process::geteuid().as_raw();
        match self.owners.iter().find(|owner| **owner != user) {
            None => Ok(self),
            Some(owner) => Err(refused(format!(
                "the ring belongs to user {owner}, its reader is {user}; run all parts of a node as one user"
            ))),
        }
    }

    /// Reads the header again if its sequence moved.
    pub fn refresh(&mut self) -> Result<(), Retired> {
        let words = self.meta.words();
        for _ in 0..ATTEMPTS {
            // Acquire: pairs with the Release stores of heartbeat, announcement and retirement.
            let sequence = layout::sequence(words).acquire();
            if self.seen == Some(sequence) {
                return Ok(());
            }
            if layout::retired(words).load(Ordering::Relaxed) != 0 {
                return Err(Retired);
            }
            self.heartbeat = Instant(layout::heartbeat(words).load(Ordering::Relaxed));
            if let Some((sequence, answer)) = self.read() {
                self.answer = answer;
                self.seen = Some(sequence);
                return Ok(());
            }
            std::hint::spin_loop();
        }
        // The writer is at the header this moment, or died there: what was known stays known.
        Ok(())
    }

    /// A consistent header with the record of the frame it names; `None` when a write came between.
    fn read(&self) -> Option<(u64, Answer)> {
        let words = self.meta.words();
        let geometry = &self.geometry;
        let (sequence, [id, capture, offset]) = newest(words).read()?;
        let id = FrameId(id);
        let Some(slot) = geometry.slot_of(id) else {
            let before = id.0.checked_add(1) == Some(geometry.first.0);
            let answer = if before { Answer::Nothing } else { Answer::Invalid };
            return Some((sequence, answer));
        };
        // Half of the range, as for the first id: whoever counts on from it can't overflow.
        if id.0 > u64::MAX / 2 || offset != geometry.slot_stride * u64::from(slot) {
            return Some((sequence, Answer::Invalid));
        }
        let (_, values) = record(words, slot).read()?;
        let Ok(record) = Record::decode(&values) else {
            return Some((sequence, Answer::Invalid));
        };
        if record.id != id {
            // Overwritten since the header was read, unless the header has not moved.
            let moved = layout::sequence(words).acquire() != sequence;
            return if moved { None } else { Some((sequence, Answer::Invalid)) };
        }
        if record.picture.size != geometry.size || record.info.capture.0 != capture {
            return Some((sequence, Answer::Invalid));
        }
        let stamp = Stamp {
            generation: geometry.generation,
            frame_id: id,
            slot,
            slots: geometry.slots,
            size: geometry.size,
            published: record.published,
            info: record.info,
        };
        Some((sequence, Answer::Frame(stamp)))
    }

    /// Whether the last sign of life is further from `now` than a writer may be silent. A time that
    /// far ahead is no sign of life either.
    fn stale(&self, now: Instant) -> bool {
        let published = match self.answer {
            Answer::Frame(stamp) => stamp.published,
            _ => Instant::ZERO,
        };
        let sign = self.heartbeat.max(published);
        sign.0.abs_diff(now.0) > base::time::nanos(RING_STALE)
    }

    fn newest(&self) -> Newest {
        match self.answer {
            Answer::Frame(stamp) => Newest::Frame(stamp),
            Answer::Nothing => Newest::Absent(Absent::NoRing),
            Answer::Invalid => Newest::Absent(Absent::Invalid),
        }
    }

    /// Maps frame.data if that was not done yet, and checks that the file is still whole.
    fn map_data(&mut self) -> io::Result<()> {
        if self.data.is_none() {
            let file = open(&self.directory.join(DATA), false)?;
            let stat = rustix::fs::fstat(&file)?;
            if stat.st_ino != self.geometry.inode {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    "another ring is there by now",
                ));
            }
            self.geometry.belongs(&stat)?;
            let data = Data::map_read_only(&file, self.geometry.file_bytes)?;
            self.data = Some((file, data));
            return Ok(());
        }
        // No writer of ours shortens a file. Should somebody, an error is better than a bus error.
        let (file, _) = self.data.as_ref().expect("mapped above");
        self.geometry.belongs(&rustix::fs::fstat(file)?)
    }

    /// Copies a frame. The data is mapped and the slot exists.
    fn copy(
        &self,
        frame_id: FrameId,
        slot: u32,
        pixels: &mut Vec<u8>,
    ) -> Result<FrameRecord, CopyError> {
        let (_, data) = self.data.as_ref().expect("the caller mapped it");
        let bytes = self.geometry.size.nv12_bytes();
        let source = data.at(self.geometry.slot_stride * u64::from(slot), bytes);
        pixels.reserve_exact(bytes);
        let target = pixels.as_mut_ptr();
        let copied = record(self.meta.words(), slot).read_with(|values| {
            if values[0] != frame_id.0 {
                return None;
            }
            // SAFETY: `at` checked that `bytes` bytes at `source` are mapped, `map_data` that the
            // file still has them; the vector has room for as many and is private memory, so the
            // two don't overlap.
            unsafe { super::copy::copy(source, target, bytes) };
            Some(())
        });
        let (_, values, ()) = copied.ok_or(CopyError::Torn)?;
        let record = Record::decode(&values).map_err(|_| CopyError::Gone(Absent::Invalid))?;
        if record.picture.size != self.geometry.size {
            return Err(CopyError::Gone(Absent::Invalid));
        }
        // SAFETY: `bytes` bytes were reserved and written by the copy.
        unsafe { pixels.set_len(bytes) };
        Ok(FrameRecord { picture: record.picture, info: record.info, published: record.published })
    }

    /// The header, for reports.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Like [`OpenRing::refresh`], with the frame it found; retirement is no obstacle.
    pub fn look(&mut self) -> Option<Stamp> {
        match self.read() {
            Some((_, Answer::Frame(stamp))) => Some(stamp),
            _ => None,
        }
    }
}

impl Geometry {
    /// Whether a file can be the frame.data that the header describes.
    fn belongs(&self, data: &rustix::fs::Stat) -> io::Result<()> {
        let bytes = regular_bytes(data)?;
        if data.st_ino != self.inode || bytes != self.file_bytes {
            return Err(refused(format!(
                "{DATA} has inode {} and {bytes} bytes, its header says {} and {}",
                data.st_ino, self.inode, self.file_bytes
            )));
        }
        Ok(())
    }
}

/// An Acquire load by the rules of [`Word`].
trait AcquireLoad {
    fn acquire(&self) -> u64;
}

impl<W: Word> AcquireLoad for W {
    fn acquire(&self) -> u64 {
        self.load(Ordering::Acquire)
    }
}
