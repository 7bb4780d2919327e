//! The writer: one per camera, in its decode worker.

use super::directory::{self, Built, Current, Names, Step, step};
use super::layout::{Geometry, Record, heartbeat, newest, record, sequence, slot_stride};
use super::memory::{Data, Meta};
use super::{RingError, RingSpec};
use crate::lock::Lock;
use base::limits::{RING_BYTES_MAX, RING_SLOTS_MAX, RING_SLOTS_MIN};
use base::{FrameId, FrameInfo, Generation, MediaTime};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Id and media time of a last frame, if there was one.
type Last = Option<(FrameId, MediaTime)>;

/// Writer of one camera's ring. Holds the camera's lock for life.
///
/// Between [`RingWriter::begin`] and [`SlotMut::publish`] there is no system call, no lock, no
/// allocation and no page fault; readers can't be noticed, let alone waited for.
///
/// Dropping a writer leaves its ring where it is, so that the camera's next writer goes on with its
/// frame ids; readers find it stale after [`base::limits::RING_STALE`].
pub struct RingWriter {
    shm: PathBuf,
    spec: RingSpec,
    geometry: Geometry,
    meta: Meta,
    data: Data,
    last: Last,
    lock: Lock,
}

impl std::fmt::Debug for RingWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingWriter")
            .field("spec", &self.spec)
            .field("geometry", &self.geometry)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl RingWriter {
    /// Makes the camera's ring, with all of its memory, in the place of the one it may have. Frame
    /// id and media time go on from that one; its readers are told to reopen.
    ///
    /// When there is no room beside the ring of a writer that died, that one is retired and its
    /// pixels go first. Fails without leaving anything behind but that ring's header: another writer
    /// lives, the picture or the number of slots is out of bounds, shared memory is full, or the
    /// file system refuses.
    pub fn create(shm: &Path, spec: &RingSpec) -> Result<RingWriter, RingError> {
        check(spec)?;
        directory::make_root(shm)?;
        let names = Names::of(shm, spec.camera.as_str());
        let lock = directory::lock(&names, &spec.camera)?;
        let published = match publish_generation(&names, spec, None) {
            Err(full @ RingError::Full { .. }) => publish_instead(&names, spec, None, full),
            other => other,
        };
        match published {
            Ok((built, last)) => Ok(RingWriter {
                shm: shm.to_owned(),
                spec: spec.clone(),
                geometry: built.geometry,
                meta: built.meta,
                data: built.data,
                last,
                lock,
            }),
            Err(error) => {
                if !names.ring.exists() {
                    // Nothing to guard: the lock's file would be all that is left.
                    let _ = lock.remove();
                }
                Err(error)
            }
        }
    }

    /// Generation of the ring.
    pub fn generation(&self) -> Generation {
        self.geometry.generation
    }

    /// What the ring was made for.
    pub fn spec(&self) -> &RingSpec {
        &self.spec
    }

    /// Id of the last frame, of this generation or of one before it.
    pub fn last_frame_id(&self) -> Option<FrameId> {
        self.last.map(|(id, _)| id)
    }

    /// Media time of the last frame, of this generation or of one before it.
    pub fn last_media(&self) -> Option<MediaTime> {
        self.last.map(|(_, media)| media)
    }

    /// Opens the slot of the next frame, which takes the oldest frame from the readers. Dropping
    /// the slot unpublished abandons it: the oldest frame is gone, nothing else has changed.
    pub fn begin(&mut self) -> SlotMut<'_> {
        let id = FrameId(self.last.map_or(1, |(id, _)| id.0.saturating_add(1)));
        let slot = self.geometry.slot_of(id).expect("ids go on from the generation's first");
        record(self.meta.words(), slot).open();
        step(Step::SlotOpened);
        SlotMut { writer: self, id, slot }
    }

    /// Tells readers that the writer lives. Once a second, also while no frame comes.
    pub fn heartbeat(&mut self) {
        let words = self.meta.words();
        heartbeat(words).store(crate::clock::monotonic().0, Ordering::Relaxed);
        // A reader looks at nothing while the sequence stands still; Release: who sees the new
        // sequence sees the heartbeat.
        let sequence = sequence(words);
        let value = sequence.load(Ordering::Relaxed);
        sequence.store(value.wrapping_add(2), Ordering::Release);
    }

    /// Starts a new generation, for example with another size. Frame id and media time go on.
    ///
    /// When there is no room for both generations, another number of slots is not worth the
    /// pictures: the writer goes on with the old generation, as [`RingWriter::spec`] tells. Pictures
    /// of another kind can't be written into the old one: it is retired and its pixels go first.
    ///
    /// After an error the writer is gone. The old generation stays where it is, to become stale, or
    /// its header does, from which the next writer goes on.
    pub fn replace(self, spec: &RingSpec) -> Result<RingWriter, RingError> {
        assert_eq!(self.spec.camera, spec.camera, "a ring stays with its camera");
        check(spec)?;
        let names = Names::of(&self.shm, spec.camera.as_str());
        let (built, last) = match publish_generation(&names, spec, self.last) {
            Err(RingError::Full { .. }) if spec.picture == self.spec.picture => return Ok(self),
            Err(full @ RingError::Full { .. }) => {
                // While it is mapped here, its memory stays allocated.
                drop(self.data);
                publish_instead(&names, spec, self.last, full)?
            }
            other => other?,
        };
        let RingWriter { shm, lock, .. } = self;
        Ok(RingWriter {
            shm,
            spec: spec.clone(),
            geometry: built.geometry,
            meta: built.meta,
            data: built.data,
            last,
            lock,
        })
    }

    /// Clean stop: the ring is marked, its directory and lock are gone.
    pub fn remove(self) -> io::Result<()> {
        self.meta.retire();
        let names = Names::of(&self.shm, self.spec.camera.as_str());
        let removed = directory::remove(&names);
        self.lock.remove().and(removed.map(|_| ()))
    }
}

pub(super) fn check(spec: &RingSpec) -> Result<(), RingError> {
    let size = spec.picture.size;
    if !size.valid_nv12() {
        return Err(RingError::Geometry { camera: spec.camera.clone(), size });
    }
    if !(RING_SLOTS_MIN..=RING_SLOTS_MAX).contains(&spec.slots) {
        return Err(RingError::Slots { camera: spec.camera.clone(), slots: spec.slots });
    }
    let bytes = slot_stride(size) * u64::from(spec.slots);
    if bytes > RING_BYTES_MAX {
        let (camera, slots) = (spec.camera.clone(), spec.slots);
        return Err(RingError::Bytes { camera, size, slots, bytes });
    }
    Ok(())
}

/// Builds and swaps in a generation. `last` overrides what the current directory says.
fn publish_generation(
    names: &Names,
    spec: &RingSpec,
    last: Last,
) -> Result<(Built, Last), RingError> {
    directory::clear_leftover(names).map_err(|source| RingError::Io {
        action: "clear",
        path: names.new.clone(),
        source,
    })?;
    let mut current = Current::look(names)?;
    current.before.last = last.or(current.before.last);
    let before = current.before;
    let built = directory::build(names, spec, before)?;
    current.swap(names)?;
    Ok((built, before.last))
}

/// After a first try found `full`: once more, in the room that the pixels of the current ring took.
fn publish_instead(
    names: &Names,
    spec: &RingSpec,
    last: Last,
    full: RingError,
) -> Result<(Built, Last), RingError> {
    if directory::vacate(names) { publish_generation(names, spec, last) } else { Err(full) }
}

/// A slot that is being written. Its pixels are whatever was there before.
pub struct SlotMut<'a> {
    writer: &'a mut RingWriter,
    id: FrameId,
    slot: u32,
}

impl SlotMut<'_> {
    /// The Y plane: `w * h` bytes, rows of `w` without padding.
    pub fn luma(&mut self) -> &mut [u8] {
        self.planes().0
    }

    /// The CbCr plane: `w * h / 2` bytes, rows of `w` without padding, Cb and Cr interleaved.
    pub fn chroma(&mut self) -> &mut [u8] {
        self.planes().1
    }

    /// Both planes, Y and CbCr.
    pub fn planes(&mut self) -> (&mut [u8], &mut [u8]) {
        let size = self.writer.geometry.size;
        self.pixels().split_at_mut(size.width as usize * size.height as usize)
    }

    /// The picture as NV12: `w * h * 3 / 2` bytes, Y then CbCr.
    pub fn pixels(&mut self) -> &mut [u8] {
        let geometry = &self.writer.geometry;
        let bytes = geometry.size.nv12_bytes();
        let start = self.writer.data.at(geometry.slot_stride * u64::from(self.slot), bytes);
        // SAFETY: `at` checked that the bytes are inside the mapping, which lives as long as the
        // writer; `&mut self` makes this the only slice of the slot in this process. The camera's
        // lock makes it the only writer of any process; other processes read the bytes, through
        // read-only mappings and knowing that they may change (see `copy`).
        unsafe { std::slice::from_raw_parts_mut(start, bytes) }
    }

    /// Stamps the frame as published now and announces it. No system call: the clock is read
    /// through the vDSO.
    pub fn publish(self, info: &FrameInfo) -> FrameId {
        let SlotMut { writer, id, slot } = self;
        let words = writer.meta.words();
        let published = crate::clock::monotonic();
        let picture = writer.spec.picture;
        record(words, slot).close(Record { id, picture, info: *info, published }.encode());
        step(Step::SlotClosed);
        let header = newest(words);
        header.open();
        step(Step::HeaderOpened);
        header.close([id.0, info.capture.0, writer.geometry.slot_stride * u64::from(slot)]);
        step(Step::Announced);
        writer.last = Some((id, info.media));
        id
    }
}
