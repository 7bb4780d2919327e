//! What a model found in a frame, and why it could not look.

use crate::geometry::Rect;

/// Number that a tracker gave to an object; 0 = not tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TrackId(pub u32);

/// One object. The class name stays in the model's label list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Box relative to the whole frame, also when the model saw only a region of it.
    pub bbox: Rect,
    /// Confidence, `0..=1`.
    pub score: f32,
    /// Index into the model's label list.
    pub class_id: u16,
    /// Track, 0 when there is none.
    pub track: TrackId,
}

/// One keypoint of one detection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keypoint {
    /// Index into the detections of the same result.
    pub detection: u32,
    /// Index into the model's keypoint names.
    pub kind: u16,
    /// Relative to the frame, `0..=1`.
    pub x: f32,
    /// Relative to the frame, `0..=1`.
    pub y: f32,
    /// Confidence, `0..=1`.
    pub score: f32,
}

/// A mask of one detection: `width * height` bytes, row-major, 0..255, spread over its box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Index into the detections of the same result.
    pub detection: u32,
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
    /// Coverage, 0 = outside, 255 = inside.
    pub data: Vec<u8>,
}

/// All that a model found in one frame or region. Empty = looked and found nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FrameDetections {
    /// Objects, best score first.
    pub detections: Vec<Detection>,
    /// Keypoints, each pointing at a detection.
    pub keypoints: Vec<Keypoint>,
    /// Masks, each pointing at a detection.
    pub masks: Vec<Mask>,
}

/// Why a member of a batch has no detections. The request is over; nobody retries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberError {
    /// The slot was overwritten while or before it was copied.
    Torn,
    /// The ring or its generation is gone or unreadable.
    Frame,
    /// The engine failed or refused the input.
    Engine,
    /// The engine's output could not be decoded.
    Postprocess,
    /// The parameters are not those of this model.
    Parameters,
    /// The request contradicts itself (region outside the frame, too many members).
    Request,
}

impl MemberError {
    /// Every variant, in the order of their counters.
    pub const ALL: [MemberError; 6] = [
        MemberError::Torn,
        MemberError::Frame,
        MemberError::Engine,
        MemberError::Postprocess,
        MemberError::Parameters,
        MemberError::Request,
    ];

    /// The word that status and logs use.
    pub const fn as_str(self) -> &'static str {
        match self {
            MemberError::Torn => "torn",
            MemberError::Frame => "frame",
            MemberError::Engine => "engine",
            MemberError::Postprocess => "postprocess",
            MemberError::Parameters => "parameters",
            MemberError::Request => "request",
        }
    }
}
