//! A clip decoded in this process, frame by frame, without pacing: for tools and tests.

use base::{ColourMatrix, ColourRange, Size};
use std::path::{Path, PathBuf};

/// One decoded picture of a clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipFrame {
    /// Number in presentation order, from 0.
    pub index: u64,
    /// Size in pixels, both even.
    pub size: Size,
    /// Colour matrix of the stream.
    pub matrix: ColourMatrix,
    /// Sample range of the stream.
    pub range: ColourRange,
    /// NV12: `w * h` bytes of Y, then `w * h / 2` bytes of interleaved CbCr.
    pub pixels: Vec<u8>,
}

/// Why a clip can't be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("clip {}: {detail}", path.display())]
pub struct ClipError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong and what to do.
    pub detail: String,
}

/// The frames of a clip in presentation order, decoded by the code of the decode worker.
pub struct ClipFrames {}

impl ClipFrames {
    /// Opens a clip that holds H.264 or H.265.
    ///
    /// # Errors
    /// [`ClipError`] when the file can't be read or holds no such video.
    pub fn open(path: &Path) -> Result<ClipFrames, ClipError> {
        Err(ClipError { path: path.to_owned(), detail: String::new() })
    }
}

impl Iterator for ClipFrames {
    type Item = Result<ClipFrame, ClipError>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}
