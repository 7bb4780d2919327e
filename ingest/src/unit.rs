//! Access units: one compressed picture of a camera, as sources make them and sinks take them.

use base::{Instant, MediaTime, UtcNanos};
use serde::{Deserialize, Serialize};

/// Video codec of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    H265,
}

impl Codec {
    /// `h264` or `h265`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Codec::H264 => "h264",
            Codec::H265 => "h265",
        }
    }
}

/// What is known of an access unit, as bits. They travel to the worker as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnitFlags(pub u16);

impl UnitFlags {
    /// Decoding can begin here: parameter sets and an intra picture.
    pub const KEY: UnitFlags = UnitFlags(1);
    /// The media timeline or the content has a gap before this unit.
    pub const DISCONTINUITY: UnitFlags = UnitFlags(2);
    /// The parameter sets differ from those of the key frame before.
    pub const NEW_PARAMETERS: UnitFlags = UnitFlags(4);
    /// Decode, but show nobody: it leads to the point where the camera starts.
    pub const PREROLL: UnitFlags = UnitFlags(8);
    /// Packets are missing before or inside this unit.
    pub const LOSS: UnitFlags = UnitFlags(16);
    /// Another unit follows at once. Set on the wire only.
    pub const MORE: UnitFlags = UnitFlags(32);
    /// The container does not say when it is shown: the time is that of its decoding, and pictures
    /// take the times in the order in which they come out.
    pub const DECODING_TIME: UnitFlags = UnitFlags(64);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: UnitFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: UnitFlags) -> UnitFlags {
        UnitFlags(self.0 | other.0)
    }

    /// `flag` when `on`, else nothing.
    pub const fn when(on: bool, flag: UnitFlags) -> UnitFlags {
        if on { flag } else { UnitFlags(0) }
    }
}

/// One access unit. Sinks share it; nobody changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessUnit {
    /// Codec.
    pub codec: Codec,
    /// Annex B; a key unit begins with its parameter sets.
    pub data: Vec<u8>,
    /// Presentation time on the camera's media timeline.
    pub media: MediaTime,
    /// When it was complete, CLOCK_MONOTONIC.
    pub capture: Instant,
    /// The same moment in UTC.
    pub capture_utc: UtcNanos,
    /// Flags.
    pub flags: UnitFlags,
}

impl AccessUnit {
    /// Whether decoding can begin here.
    pub fn key(&self) -> bool {
        self.flags.has(UnitFlags::KEY)
    }
}
