//! A clip decoded in this process, frame by frame, without pacing: for tools and tests.

use crate::container::ClipReader;
use crate::decoder::Decoder;
use crate::unit::UnitFlags;
use base::{ColourMatrix, ColourRange, Size};
use ffmpeg_next as ff;
use std::collections::VecDeque;
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
#[error("clip {} can't be played: {detail}", path.display())]
pub struct ClipError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong and what to do.
    pub detail: String,
}

/// The frames of a clip in presentation order, decoded by the code of the decode worker.
pub struct ClipFrames {
    reader: ClipReader,
    path: PathBuf,
    decoder: Decoder<()>,
    ready: VecDeque<ClipFrame>,
    index: u64,
    ended: bool,
}

impl ClipFrames {
    /// Opens a clip that holds H.264 or H.265.
    ///
    /// # Errors
    /// [`ClipError`] when the file can't be read or holds no such video.
    pub fn open(path: &Path) -> Result<ClipFrames, ClipError> {
        let reader = ClipReader::open(path)?;
        let info = reader.info();
        let decoder = Decoder::new(info.codec, info.hints)
            .map_err(|e| ClipError { path: path.to_owned(), detail: e.to_string() })?;
        let path = path.to_owned();
        Ok(ClipFrames { reader, path, decoder, ready: VecDeque::new(), index: 0, ended: false })
    }

    /// Pictures per second of the clip.
    pub fn fps(&self) -> f64 {
        self.reader.info().fps
    }

    /// Feeds the decoder once and takes what comes out.
    fn step(&mut self) -> Result<(), ClipError> {
        match self.reader.next()? {
            Some(unit) => {
                let mut packet = ff::Packet::copy(&unit.data);
                let flags = UnitFlags::when(unit.key, UnitFlags::KEY)
                    .with(UnitFlags::when(unit.loss, UnitFlags::LOSS));
                self.decoder.submit(&mut packet, flags, ());
            }
            None => {
                self.decoder.finish();
                self.ended = true;
            }
        }
        let error = |e: crate::decoder::DecoderError| ClipError {
            path: self.path.clone(),
            detail: e.to_string(),
        };
        while let Some(decoded) = self.decoder.next().map_err(error)? {
            let picture = decoded.picture;
            let mut pixels = vec![0; picture.size.nv12_bytes()];
            let luma_bytes = picture.size.width as usize * picture.size.height as usize;
            let (luma, chroma) = pixels.split_at_mut(luma_bytes);
            decoded.write_nv12(luma, chroma);
            self.ready.push_back(ClipFrame {
                index: self.index,
                size: picture.size,
                matrix: picture.matrix,
                range: picture.range,
                pixels,
            });
            self.index += 1;
        }
        Ok(())
    }
}

impl Iterator for ClipFrames {
    type Item = Result<ClipFrame, ClipError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(Ok(frame));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.step() {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }
}
