//! The frame ring: the newest pictures of one camera in shared memory, one writer, any number of
//! readers.
//!
//! The decode worker writes each picture once, straight into a slot, overwriting the oldest;
//! scheduler, runners and serve poll the header and copy what they want. The writer makes no system
//! call per frame and knows no reader, so no reader can slow, block or damage it; readers take what
//! they see for hostile until a sequence proves it whole. docs/ring.md has the bytes, the protocol
//! and what happens when a process dies in the middle.
//!
//! Not here: who decodes (`ingest`), which frame is worth reading (`scheduler`), what a picture
//! becomes (`runner`). There is no queue, no acknowledgement and no doorbell.
//!
//! ```
//! use base::{CameraId, ColourMatrix, ColourRange, Picture, Size};
//! use ipc::ring::{RingReader, RingSpec, RingWriter};
//!
//! let shm = tempfile::tempdir()?;
//! let picture = Picture {
//!     size: Size { width: 64, height: 64 },
//!     matrix: ColourMatrix::Bt709,
//!     range: ColourRange::Limited,
//! };
//! let camera = CameraId::new("front-door")?;
//! let spec = RingSpec { camera: camera.clone(), picture, slots: 8 };
//! let mut writer = RingWriter::create(shm.path(), &spec)?;
//! let mut slot = writer.begin();
//! slot.luma().fill(16);
//! slot.chroma().fill(128);
//! let id = slot.publish(&base::FrameInfo {
//!     media: base::MediaTime(90_000),
//!     capture: ipc::clock::monotonic(),
//!     capture_utc: ipc::clock::utc(),
//!     decode_start: ipc::clock::monotonic(),
//!     flags: base::FrameFlags::KEY,
//! });
//!
//! let mut reader = RingReader::new(shm.path(), &camera);
//! let base::Newest::Frame(stamp) = reader.newest(ipc::clock::monotonic()) else { panic!() };
//! assert_eq!(stamp.frame_id, id);
//! let mut pixels = Vec::new();
//! let record = reader.copy(stamp.generation, stamp.frame_id, stamp.slot, &mut pixels)?;
//! assert_eq!((record.picture, pixels.len()), (picture, 64 * 64 * 3 / 2));
//! writer.remove()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod copy;
mod directory;
mod layout;
mod memory;
mod reader;
mod report;
mod seqlock;
mod writer;

#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod model_tests;

use base::limits::{CAMERA_FPS_MAX, RING_BYTES_MAX, RING_MARGIN, RING_SLOTS_MAX, RING_SLOTS_MIN};
use base::{Absent, CameraId, FrameId, FrameInfo, Instant, MediaTime, Picture, Size};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use reader::RingReader;
pub use report::{RingReport, SlotReport, inspect, list};
pub use writer::{RingWriter, SlotMut};

/// What a ring is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingSpec {
    /// Whose pictures.
    pub camera: CameraId,
    /// Size and colour of every picture of the generation.
    pub picture: Picture,
    /// Slots, [`RING_SLOTS_MIN`] to [`RING_SLOTS_MAX`]; see [`slots_for`].
    pub slots: u32,
}

impl RingSpec {
    /// Shared memory that the ring takes, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        layout::slot_stride(self.picture.size) * u64::from(self.slots)
            + layout::meta_bytes(self.slots) as u64
    }
}

/// Slots that keep every frame of a camera of `fps` readable until `deadline` and the longest
/// second stage are over: `ceil(fps * (deadline + second_stage + 150 ms)) + 2` within the limits.
/// A rate that is not a positive number counts as 0, one above [`CAMERA_FPS_MAX`] as that.
pub fn slots_for(fps: f64, deadline: Duration, second_stage: Duration) -> u32 {
    let kept = deadline.saturating_add(second_stage).saturating_add(RING_MARGIN);
    let fps = if fps.is_finite() { fps.clamp(0.0, CAMERA_FPS_MAX) } else { 0.0 };
    let frames = (fps * kept.as_secs_f64()).ceil();
    // `as` saturates, and a product that is not a number becomes 0.
    (frames as u32).saturating_add(2).clamp(RING_SLOTS_MIN, RING_SLOTS_MAX)
}

/// Of so many slots as many as pictures of `size` may have: [`RING_BYTES_MAX`] in all.
/// [`RING_SLOTS_MIN`] always fit.
pub fn slots_within(size: Size, slots: u32) -> u32 {
    let most = RING_BYTES_MAX / layout::slot_stride(size).max(1);
    slots.min(u32::try_from(most).unwrap_or(u32::MAX))
}

/// Why a ring could not be made or looked at.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// NV12 can't hold pictures of this size.
    #[error(
        "camera {camera}: pictures of {}x{} can't be exported, both sides must be even, positive \
         and at most {}", size.width, size.height, base::limits::FRAME_SIDE_MAX
    )]
    Geometry {
        /// Whose ring.
        camera: CameraId,
        /// The size.
        size: Size,
    },
    /// The number of slots is out of bounds.
    #[error(
        "camera {camera}: a ring of {slots} slots, limits are {RING_SLOTS_MIN} and {RING_SLOTS_MAX}"
    )]
    Slots {
        /// Whose ring.
        camera: CameraId,
        /// The number.
        slots: u32,
    },
    /// Its pictures would take too much of shared memory.
    #[error(
        "camera {camera}: a ring of {slots} slots for pictures of {}x{} takes {bytes} bytes, limit \
         is {RING_BYTES_MAX}; set the camera to smaller pictures", size.width, size.height
    )]
    Bytes {
        /// Whose ring.
        camera: CameraId,
        /// The size.
        size: Size,
        /// The number.
        slots: u32,
        /// What they take.
        bytes: u64,
    },
    /// Another writer lives.
    #[error(
        "camera {camera}: another process writes its ring and holds {}; stop it, or give this one \
         another shm directory", path.display()
    )]
    InUse {
        /// Whose ring.
        camera: CameraId,
        /// The lock.
        path: PathBuf,
    },
    /// Shared memory is full.
    #[error(
        "no room for {}: {bytes} bytes wanted, {free} free; enlarge the file system (docker: \
         --shm-size, else mount -o remount,size=) or export fewer cameras", path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// What it was to hold.
        bytes: u64,
        /// What the file system has.
        free: u64,
    },
    /// The ring's place is taken by something that must not be deleted.
    #[error("{} is no ring and is left alone; move it away or set another shm directory", path.display())]
    Foreign {
        /// The place.
        path: PathBuf,
    },
    /// The shm directory is not this user's own.
    #[error(transparent)]
    Root(#[from] crate::roots::RootError),
    /// An operation on a file failed.
    #[error(
        "cannot {action} {}: {source}; check that the shm directory exists, is a tmpfs and belongs \
         to this user", path.display()
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What a copy brings beside the pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRecord {
    /// Size and colour.
    pub picture: Picture,
    /// What the writer said of the frame.
    pub info: FrameInfo,
    /// When it was published, CLOCK_MONOTONIC.
    pub published: Instant,
}

/// Why a copy brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// The slot was overwritten, before or while it was copied.
    #[error("the frame was overwritten before it was copied")]
    Torn,
    /// There is no usable ring.
    #[error("the camera has no usable ring ({})", .0.as_str())]
    Gone(Absent),
    /// The ring there is of another generation.
    #[error("the ring is of another generation")]
    Generation,
    /// The ring has no such slot, or the frame can't be in it.
    #[error("the frame can't be in that slot")]
    Slot,
}

/// What a reader counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReaderStats {
    /// Frames copied whole.
    pub copies: u64,
    /// Copies that were refused because the slot was overwritten.
    pub torn: u64,
    /// Times that a ring was opened after the first.
    pub reopened: u64,
}

/// Removes the rings of cameras that `keep` does not name and that no writer locks, with leftovers
/// of writers that died; returns the cameras. For the start of ingest, before it starts workers.
/// What does not look like a ring is left alone.
pub fn sweep(shm: &Path, keep: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
    directory::sweep(shm, keep)
}

/// Id and media time of the last frame that a camera's writer, now gone, wrote; `None` when there is
/// no ring or no frame. Also from a ring whose pixels were given up for want of room.
pub fn last(shm: &Path, camera: &CameraId) -> Option<(FrameId, MediaTime)> {
    directory::last(&shm.join(camera.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_rate_and_deadline_within_limits() {
        let ms = Duration::from_millis;
        assert_eq!(slots_for(25.0, ms(500), ms(0)), 19, "ceil(16.25) + 2");
        assert_eq!(slots_for(30.0, ms(500), ms(200)), 28, "ceil(25.5) + 2");
        assert_eq!(slots_for(5.0, ms(500), ms(0)), RING_SLOTS_MIN);
        for nothing in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(slots_for(nothing, ms(500), ms(0)), RING_SLOTS_MIN);
        }
        assert_eq!(slots_for(30.0, Duration::MAX, Duration::MAX), RING_SLOTS_MAX);
        // A declared rate is believed up to a bound.
        assert_eq!(slots_for(100.0, ms(500), ms(0)), 67, "ceil(65) + 2");
        for declared in [120.0, 121.0, 240.0, 90_000.0, 1e30] {
            assert_eq!(slots_for(declared, ms(500), ms(0)), 80, "{declared}: ceil(120 * 0.65) + 2");
        }
    }

    #[test]
    fn a_ring_has_the_slots_that_fit_into_its_bytes_and_never_too_few() {
        let size = |width, height| Size { width, height };
        // 1 GiB / (w * h * 1.5), in whole pages.
        assert_eq!(slots_within(size(8192, 8192), 80), 10);
        assert_eq!(slots_within(size(8192, 8192), 10), 10);
        assert_eq!(slots_within(size(8192, 8192), 9), 9);
        assert_eq!(slots_within(size(8192, 4320), 19), 19, "8K as it is used");
        assert_eq!(slots_within(size(8192, 4320), 21), 20);
        assert_eq!(slots_within(size(1920, 1080), RING_SLOTS_MAX), RING_SLOTS_MAX);
        assert_eq!(slots_within(size(2, 2), RING_SLOTS_MAX), RING_SLOTS_MAX);
        // 4 MiB each: exactly 1 GiB.
        assert_eq!(slots_within(size(1364, 2050), 256), 256);
        let largest = size(base::limits::FRAME_SIDE_MAX, base::limits::FRAME_SIDE_MAX);
        assert!(slots_within(largest, RING_SLOTS_MIN) == RING_SLOTS_MIN);
        let picture = Picture {
            size: largest,
            matrix: base::ColourMatrix::Unspecified,
            range: base::ColourRange::Unspecified,
        };
        let shm = tempfile::tempdir().unwrap();
        let camera: CameraId = "large".parse().unwrap();
        let spec = RingSpec { camera, picture, slots: 11 };
        let error = RingWriter::create(shm.path(), &spec).unwrap_err();
        assert!(matches!(error, RingError::Bytes { slots: 11, .. }), "{error}");
        assert!(error.to_string().contains("8192x8192 takes 1107296256 bytes"), "{error}");
        assert_eq!(std::fs::read_dir(shm.path()).unwrap().count(), 0);
        let most = RingSpec { slots: 10, ..spec };
        assert!(writer::check(&most).is_ok(), "as many as fit are made");
        let exact = Picture { size: size(1364, 2050), ..picture };
        let exact = RingSpec { picture: exact, slots: 256, ..most };
        assert!(writer::check(&exact).is_ok());
    }
}
