//! The pictures of a window of recordings, found and decoded.

use super::Failed;
use crate::annexb::AnnexB;
use crate::decoder::Decoder;
use crate::unit::{Codec, UnitFlags};
use crate::worker_message::{Hints, PAYLOAD_MAX};
use base::{CameraId, MediaTime, Picture, UtcNanos};
use ffmpeg_next as ff;
use ipc::recording::{self, Init, Recordings, Row, SegmentName, read_fragment};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

/// A picture that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shot {
    /// Which of the segments holds it.
    pub segment: usize,
    /// Which of the parameters decode it.
    pub init: usize,
    /// The sample.
    pub sample: recording::Sample,
    /// Capture time.
    pub utc: UtcNanos,
    /// Something is missing before it.
    pub after_gap: bool,
}

impl Shot {
    /// Media time.
    pub fn media(&self) -> MediaTime {
        self.sample.media()
    }

    /// How long it is shown.
    pub fn nanos(&self) -> u64 {
        u64::from(self.sample.duration) * base::time::NANOS_PER_SEC / MediaTime::RATE
    }
}

/// Pictures in decoding order, and what decodes them.
#[derive(Debug, Default)]
pub struct Take {
    /// The pictures.
    pub shots: Vec<Shot>,
    /// What decodes them.
    pub inits: Vec<Init>,
    files: Vec<File>,
}

impl Take {
    /// All pictures that show `[start, end)`, from the key picture before.
    ///
    /// # Errors
    /// [`Failed`] when the recordings can't be read.
    pub fn load(
        recordings: &Recordings,
        camera: &CameraId,
        start: UtcNanos,
        end: UtcNanos,
    ) -> Result<Take, Failed> {
        let rows = recordings.playable(camera, start, end).map_err(Failed::reading)?;
        let mut take = Take::default();
        let mut open: Option<(SegmentName, usize)> = None;
        let mut before: Option<Row> = None;
        for row in rows {
            let segment = match open {
                Some((name, _)) if name == row.segment => take.files.len() - 1,
                _ => match take.open(&recordings.segment(camera, row.segment)) {
                    Ok(Some(init)) => {
                        open = Some((row.segment, init));
                        take.files.len() - 1
                    }
                    // Removed or damaged: as if it had not been recorded.
                    Ok(None) => continue,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(Failed::reading(error)),
                },
            };
            let Some((_, init)) = open else { continue };
            let fragment = read_fragment(&take.files[segment], u64::from(row.offset));
            let Some(fragment) = fragment.map_err(Failed::reading)? else { continue };
            let gap = before.is_none_or(|before| !recording::connected(&before, &row));
            for (at, sample) in fragment.samples.iter().enumerate() {
                take.shots.push(Shot {
                    segment,
                    init,
                    sample: *sample,
                    utc: row.utc_of(sample.media()),
                    after_gap: gap && at == 0,
                });
            }
            before = Some(row);
        }
        Ok(take)
    }

    /// Opens a segment; returns which parameters it has, `None` when it has none.
    fn open(&mut self, path: &Path) -> io::Result<Option<usize>> {
        let file = File::open(path)?;
        let Some(init) = Init::read(&file)? else { return Ok(None) };
        self.files.push(file);
        let known = self.inits.iter().position(|i| i.sample_entry == init.sample_entry);
        Ok(Some(known.unwrap_or_else(|| {
            self.inits.push(init);
            self.inits.len() - 1
        })))
    }

    /// The bytes of a picture, as they lie on the disk.
    ///
    /// # Errors
    /// [`Failed`] when they can't be read.
    pub fn bytes(&self, shot: &Shot) -> Result<Vec<u8>, Failed> {
        if shot.sample.bytes as usize > PAYLOAD_MAX {
            return Err(Failed::reading(format_args!("a picture of {} bytes", shot.sample.bytes)));
        }
        let mut bytes = vec![0; shot.sample.bytes as usize];
        let read = self.files[shot.segment].read_exact_at(&mut bytes, shot.sample.offset);
        read.map_err(Failed::reading)?;
        Ok(bytes)
    }

    /// Copies pictures to `out`, runs of them at once.
    ///
    /// # Errors
    /// Those of the file systems.
    pub fn copy(&self, shots: &[Shot], out: &mut File) -> io::Result<()> {
        let mut rest = shots;
        while let Some(first) = rest.first() {
            let mut end = first.sample.offset;
            let run = rest.iter().take_while(|shot| {
                let next = shot.segment == first.segment && shot.sample.offset == end;
                end += u64::from(shot.sample.bytes);
                next
            });
            let count = run.count();
            let bytes: u64 = rest[..count].iter().map(|s| u64::from(s.sample.bytes)).sum();
            let mut file = &self.files[first.segment];
            file.seek(SeekFrom::Start(first.sample.offset))?;
            // Inside the kernel, where it can.
            let copied = io::copy(&mut io::Read::take(&mut file, bytes), out)?;
            if copied != bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            rest = &rest[count..];
        }
        Ok(())
    }

    /// The picture that is shown at a moment: the newest that is not later.
    pub fn shown_at(&self, at: UtcNanos) -> Option<usize> {
        let shown = self.shots.iter().enumerate().filter(|(_, shot)| shot.utc <= at);
        shown.max_by_key(|(_, shot)| shot.utc).map(|(index, _)| index)
    }

    /// Decodes a picture.
    ///
    /// # Errors
    /// [`Failed`] when it can't be read or decoded.
    pub fn decode(&self, target: usize) -> Result<(Picture, Vec<u8>), Failed> {
        self.decode_until(target, None)
    }

    /// Decodes a picture, and gives up when that is not done by a moment.
    ///
    /// # Errors
    /// As [`Take::decode`]; also when it takes too long.
    pub fn decode_until(
        &self,
        target: usize,
        deadline: Option<Instant>,
    ) -> Result<(Picture, Vec<u8>), Failed> {
        let shot = self.shots[target];
        // Pictures before a key picture in time lean on those before it.
        let begins = |at: &usize| {
            let candidate = &self.shots[*at];
            candidate.sample.key && candidate.media() <= shot.media()
        };
        let first = (0..=target).rev().find(begins).unwrap_or(0);
        let init = &self.inits[shot.init];
        let codec = match &init.kind() {
            b"avc1" => Codec::H264,
            b"hvc1" => Codec::H265,
            other => {
                let name = String::from_utf8_lossy(other);
                return Err(Failed::reading(format_args!("a track of {name}")));
            }
        };
        let mut annex_b = AnnexB::new(codec, init.record()).map_err(Failed::reading)?;
        let mut pictures = Pictures::new(codec)?;
        let mut unit = Vec::new();
        let same = |shot: &Shot| shot.init == self.shots[target].init;
        for (at, shot) in self.shots[first..].iter().enumerate().take_while(|(_, s)| same(s)) {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Failed::new(500, "decoding the picture takes too long"));
            }
            let bytes = self.bytes(shot)?;
            annex_b
                .convert(&bytes, shot.sample.key, &mut unit)
                .map_err(|error| Failed::reading(format_args!("a damaged picture: {error}")))?;
            pictures.submit(&unit, shot.sample.key, first + at);
            if let Some(found) = pictures.find(|tag| tag == target) {
                return Ok(found);
            }
        }
        pictures.decoder.finish();
        pictures
            .find(|tag| tag == target)
            .ok_or_else(|| Failed::reading("the picture can't be decoded"))
    }
}

/// Pictures out of a decoder.
pub struct Pictures {
    /// The decoder.
    pub decoder: Decoder<usize>,
}

impl Pictures {
    /// With a decoder of its own.
    ///
    /// # Errors
    /// [`Failed`] when there is none for the codec.
    pub fn new(codec: Codec) -> Result<Pictures, Failed> {
        let decoder = Decoder::new(codec, Hints::default());
        Ok(Pictures { decoder: decoder.map_err(|e| Failed::new(500, e.to_string()))? })
    }

    /// Decodes a unit.
    pub fn submit(&mut self, unit: &[u8], key: bool, tag: usize) {
        self.decoder.submit(&mut ff::Packet::copy(unit), UnitFlags::when(key, UnitFlags::KEY), tag);
    }

    /// The next picture that comes out and is wanted.
    pub fn find(&mut self, wanted: impl Fn(usize) -> bool) -> Option<(Picture, Vec<u8>)> {
        while let Ok(Some(decoded)) = self.decoder.next() {
            if wanted(decoded.tag) {
                let size = decoded.picture.size;
                let mut pixels = vec![0; size.nv12_bytes()];
                let luma = size.width as usize * size.height as usize;
                let (y, c) = pixels.split_at_mut(luma);
                decoded.write_nv12(y, c);
                return Some((decoded.picture, pixels));
            }
        }
        None
    }
}
