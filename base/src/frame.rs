//! Frames as the ring publishes them: identity, times, colour.

use crate::geometry::Size;
use crate::time::{Instant, UtcNanos};

/// Frame id: counts up by one per published frame of a camera, across generations, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FrameId(pub u64);

/// Generation of a ring: UTC nanoseconds at its creation, raised above the previous one. A frame's
/// key is (camera, generation, frame id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u64);

/// Position on the camera's one unbroken media timeline, in ticks of 90 kHz, anchored once to UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MediaTime(pub u64);

impl MediaTime {
    /// Ticks per second.
    pub const RATE: u64 = 90_000;
}

/// Matrix that turns Y'CbCr into R'G'B'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum ColourMatrix {
    /// The stream does not say: BT.601 below 720 lines, else BT.709.
    #[default]
    Unspecified = 0,
    /// ITU-R BT.601.
    Bt601 = 1,
    /// ITU-R BT.709.
    Bt709 = 2,
    /// ITU-R BT.2020, non-constant luminance.
    Bt2020 = 3,
}

/// Range of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum ColourRange {
    /// The stream does not say: limited.
    #[default]
    Unspecified = 0,
    /// Y 16..235, CbCr 16..240.
    Limited = 1,
    /// 0..255.
    Full = 2,
}

/// What else is known of a frame, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FrameFlags(pub u32);

impl FrameFlags {
    /// Decoded from a key frame (IDR).
    pub const KEY: FrameFlags = FrameFlags(1);
    /// Loss or decoder error since the last key frame.
    pub const CORRUPT: FrameFlags = FrameFlags(2);
    /// The media timeline has a gap before this frame (reconnect, loop, skipped units).
    pub const DISCONTINUITY: FrameFlags = FrameFlags(4);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: FrameFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: FrameFlags) -> FrameFlags {
        FrameFlags(self.0 | other.0)
    }
}

/// Size and colour of the pictures of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Picture {
    /// Size in pixels, both even.
    pub size: Size,
    /// Colour matrix of the stream.
    pub matrix: ColourMatrix,
    /// Sample range of the stream.
    pub range: ColourRange,
}

/// What the writer knows of a frame when it publishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// Position on the media timeline.
    pub media: MediaTime,
    /// When the frame's last packet arrived, CLOCK_MONOTONIC.
    pub capture: Instant,
    /// The same moment in UTC.
    pub capture_utc: UtcNanos,
    /// When the decoder got it, CLOCK_MONOTONIC.
    pub decode_start: Instant,
    /// Flags.
    pub flags: FrameFlags,
}

/// The newest frame of a camera as a reader of the ring's header sees it. All a scheduler ever
/// holds of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Generation of the ring.
    pub generation: Generation,
    /// Id of the frame.
    pub frame_id: FrameId,
    /// Slot that holds its pixels.
    pub slot: u32,
    /// Slots of the ring. The slot is live while `newest id - frame id < slots - 1`.
    pub slots: u32,
    /// Size in pixels.
    pub size: Size,
    /// When the frame was published, CLOCK_MONOTONIC.
    pub published: Instant,
    /// What the writer said of the frame.
    pub info: FrameInfo,
}

/// Why a camera has no newest frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Absent {
    /// No ring: export off, camera unknown, or nothing decoded yet.
    NoRing,
    /// The ring's heartbeat is older than [`crate::limits::RING_STALE`].
    Stale,
    /// The generation was replaced and the new one could not be opened yet.
    Retired,
    /// The ring's header contradicts itself or its version is not ours.
    Invalid,
    /// There is a ring and this process can't open it: no descriptors are left, or it may not.
    Unreadable,
}

impl Absent {
    /// The word that status and logs use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Absent::NoRing => "no_ring",
            Absent::Stale => "stale",
            Absent::Retired => "retired",
            Absent::Invalid => "invalid",
            Absent::Unreadable => "unreadable",
        }
    }
}

/// Answer to "what is the newest frame of this camera".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newest {
    /// This one.
    Frame(Stamp),
    /// None, and why.
    Absent(Absent),
}
