//! A ring as plain data, for people who look at one.

use super::directory::{Names, entries};
use super::layout::{self, Record};
use super::reader::OpenRing;
use super::{FrameRecord, RingError};
use crate::lock::Lock;
use base::{CameraId, FrameId, Generation, Instant, MediaTime, Size, Stamp};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// One slot as [`inspect`] saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotReport {
    /// Sequence, odd while the slot is written or after it was abandoned.
    pub sequence: u64,
    /// The frame in it, `None` when there is none or it is being written.
    pub frame: Option<(FrameId, FrameRecord)>,
}

/// A ring as [`inspect`] saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingReport {
    /// Whose ring.
    pub camera: CameraId,
    /// Where it is.
    pub directory: PathBuf,
    /// Version of the format.
    pub version: u32,
    /// Size of the pictures.
    pub size: Size,
    /// Generation: UTC nanoseconds at its creation.
    pub generation: Generation,
    /// Bytes from slot to slot.
    pub slot_stride: u64,
    /// Bytes of shared memory, header and pixels.
    pub memory_bytes: u64,
    /// Sequence of the header, odd while it is written and once the ring is retired.
    pub header_sequence: u64,
    /// Newest frame, `None` when the generation has none yet or the writer is at the header.
    pub newest: Option<Stamp>,
    /// Id of the first frame of the generation.
    pub first_frame_id: FrameId,
    /// Media time of the last frame before the generation.
    pub media_before: Option<MediaTime>,
    /// Frames published in this generation.
    pub published: u64,
    /// Last heartbeat, CLOCK_MONOTONIC.
    pub heartbeat: Instant,
    /// Time since the last heartbeat.
    pub heartbeat_age: Duration,
    /// Whether the generation is over.
    pub retired: bool,
    /// Whether a writer holds the camera's lock.
    pub writer: bool,
    /// Every slot.
    pub slots: Vec<SlotReport>,
}

/// Looks at a camera's ring without touching it.
pub fn inspect(shm: &Path, camera: &CameraId) -> Result<RingReport, RingError> {
    let names = Names::of(shm, camera.as_str());
    let mut ring = OpenRing::open(&names.ring, None)
        .map_err(|source| RingError::Io {
            action: "read the ring at",
            path: names.ring.clone(),
            source,
        })?
        .expect("no ring was excepted");
    let newest = ring.look();
    let geometry = ring.geometry;
    let words = ring.meta().words();
    let heartbeat = Instant(layout::heartbeat(words).load(Ordering::Relaxed));
    let slots = (0..geometry.slots)
        .map(|slot| {
            let guarded = layout::record(words, slot);
            let frame = guarded.read().and_then(|(_, values)| {
                let record = Record::decode(&values).ok()?;
                let Record { id, picture, info, published } = record;
                geometry.slot_of(id)?;
                Some((id, FrameRecord { picture, info, published }))
            });
            SlotReport { sequence: guarded.sequence.load(Ordering::Relaxed), frame }
        })
        .collect::<Vec<_>>();
    let last = slots.iter().filter_map(|slot| slot.frame.as_ref().map(|(id, _)| *id)).max();
    Ok(RingReport {
        camera: camera.clone(),
        directory: names.ring,
        version: layout::VERSION,
        size: geometry.size,
        generation: geometry.generation,
        slot_stride: geometry.slot_stride,
        memory_bytes: geometry.file_bytes + layout::meta_bytes(geometry.slots) as u64,
        header_sequence: layout::sequence(words).load(Ordering::Relaxed),
        newest,
        first_frame_id: geometry.first,
        media_before: geometry.last_before().map(|(_, media)| media),
        published: last.map_or(0, |id| id.0 - geometry.first.0 + 1),
        heartbeat,
        heartbeat_age: crate::clock::monotonic().since(heartbeat),
        retired: layout::retired(words).load(Ordering::Relaxed) != 0,
        writer: Lock::held(&names.lock),
        slots,
    })
}

/// Cameras that have a ring directory, sorted. A missing root has none.
pub fn list(shm: &Path) -> io::Result<Vec<CameraId>> {
    let cameras = entries(shm)?
        .into_iter()
        .filter(|(name, _)| !name.starts_with('.') && shm.join(name).is_dir())
        .map(|(_, camera)| camera);
    Ok(cameras.collect())
}
