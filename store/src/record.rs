//! The value of one event as bytes: docs/store.md has the table. What is read is foreign until it
//! is checked: every length is bounded by the bytes that are there, every number by its meaning.

use crate::event::NewEvent;
use crate::json::Json;
use base::{Detection, FrameDetections, FrameId, Generation, Keypoint, Mask, MediaTime, Rect};
use base::{Size, Stages, TrackId, UtcNanos};
use std::time::Duration;

/// Version that is written.
pub const VERSION: u8 = 1;
/// Largest record (chosen: what one message can carry, spec P4.1.3).
pub const RECORD_BYTES_MAX: usize = base::limits::MESSAGE_BYTES_MAX;

const FLAG_TRACKS: u8 = 1;
const FLAG_KEYPOINTS: u8 = 2;
const FLAG_MASKS: u8 = 4;
const FLAG_METADATA: u8 = 8;
const FLAGS: u8 = FLAG_TRACKS | FLAG_KEYPOINTS | FLAG_MASKS | FLAG_METADATA;
const STAGES: usize = Stages::NAMES.len();
/// Where the stages begin: everything before is of fixed size.
pub(crate) const FIXED_BYTES: usize = 60;
const DETECTION_BYTES: usize = 22;
const KEYPOINT_BYTES: usize = 18;

/// Why a record can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A newer program wrote it.
    #[error("record has version {0}, this program reads {VERSION}")]
    Version(u8),
    /// It ends too early.
    #[error("record of {bytes} bytes ends within {field}")]
    Short {
        /// What was being read.
        field: &'static str,
        /// Size of the record.
        bytes: usize,
    },
    /// A value makes no sense.
    #[error("{field} of the record is {value}")]
    Value {
        /// Which.
        field: &'static str,
        /// What it is.
        value: u64,
    },
    /// It goes on after its end.
    #[error("record has {0} bytes too many")]
    Long(usize),
    /// The stored JSON is none.
    #[error("metadata of the record is not JSON: {0}")]
    Metadata(String),
    /// A row of the control file is not as this program writes it.
    #[error("row is not readable: {0}")]
    Row(String),
}

/// Texts that the file's dictionary holds, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Camera id.
    pub camera: u32,
    /// Model id.
    pub model: u32,
    /// Model version.
    pub version: u32,
    /// Device id.
    pub device: u32,
}

/// A decoded record, its texts still numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Camera, model, version and device.
    pub numbers: Numbers,
    /// When it was committed.
    pub created_at: UtcNanos,
    /// Generation of the ring.
    pub generation: Generation,
    /// The frame.
    pub frame_id: FrameId,
    /// Place on the media timeline.
    pub media: MediaTime,
    /// Size of the frame.
    pub frame: Size,
    /// The age, taken apart.
    pub stages: Stages,
    /// What was found.
    pub detections: FrameDetections,
    /// Whatever else was kept.
    pub metadata: Option<Json>,
}

/// Appends the record of `event` to `out`. Its timestamp is in its id, its texts in `numbers`.
///
/// # Errors
/// [`RecordError::Value`] for detections that the decoder would refuse: the caller's fault.
pub fn encode(
    event: &NewEvent,
    numbers: Numbers,
    created_at: UtcNanos,
    out: &mut Vec<u8>,
) -> Result<(), RecordError> {
    let found = &event.detections;
    let tracked = found.detections.iter().any(|d| d.track != TrackId(0));
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    let flags = flag(tracked, FLAG_TRACKS)
        | flag(!found.keypoints.is_empty(), FLAG_KEYPOINTS)
        | flag(!found.masks.is_empty(), FLAG_MASKS)
        | flag(event.metadata.is_some(), FLAG_METADATA);
    let many = |field, n: usize| {
        u32::try_from(n).map_err(|_| RecordError::Value { field, value: n as u64 })
    };
    let count = u16::try_from(found.detections.len()).map_err(|_| RecordError::Value {
        field: "detections",
        value: found.detections.len() as u64,
    })?;

    let start = out.len();
    out.reserve(FIXED_BYTES + STAGES * 4 + found.detections.len() * (DETECTION_BYTES + 4));
    out.extend_from_slice(&[VERSION, flags]);
    for n in [numbers.camera, numbers.model, numbers.version, numbers.device] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    for n in [created_at.0, event.generation.0, event.frame_id.0, event.media.0] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.extend_from_slice(&event.frame.width.to_le_bytes());
    out.extend_from_slice(&event.frame.height.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    debug_assert_eq!(out.len() - start, FIXED_BYTES);
    for stage in event.stages.as_array() {
        put_varint(out, base::time::nanos(stage));
    }
    for (i, d) in found.detections.iter().enumerate() {
        check_detection(d, i)?;
        for v in [d.bbox.x1, d.bbox.y1, d.bbox.x2, d.bbox.y2, d.score] {
            out.extend_from_slice(&v.to_le_bytes());
        }
        out.extend_from_slice(&d.class_id.to_le_bytes());
    }
    if tracked {
        for d in &found.detections {
            out.extend_from_slice(&d.track.0.to_le_bytes());
        }
    }
    if !found.keypoints.is_empty() {
        out.extend_from_slice(&many("keypoints", found.keypoints.len())?.to_le_bytes());
        for k in &found.keypoints {
            check_keypoint(k, found.detections.len())?;
            out.extend_from_slice(&k.detection.to_le_bytes());
            out.extend_from_slice(&k.kind.to_le_bytes());
            for v in [k.x, k.y, k.score] {
                out.extend_from_slice(&v.to_le_bytes());
            }
        }
    }
    if !found.masks.is_empty() {
        out.extend_from_slice(&many("masks", found.masks.len())?.to_le_bytes());
        for m in &found.masks {
            check_mask(m.detection, found.detections.len())?;
            if m.data.len() != usize::from(m.width) * usize::from(m.height) {
                return Err(RecordError::Value { field: "mask.data", value: m.data.len() as u64 });
            }
            out.extend_from_slice(&m.detection.to_le_bytes());
            out.extend_from_slice(&m.width.to_le_bytes());
            out.extend_from_slice(&m.height.to_le_bytes());
            out.extend_from_slice(&m.data);
        }
    }
    if let Some(metadata) = &event.metadata {
        let text = metadata.text();
        out.extend_from_slice(&many("metadata", text.len())?.to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    Ok(())
}

/// Checks and converts the record of an event.
///
/// # Errors
/// [`RecordError`]; never panics, never allocates more than a small multiple of `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    let mut input = Input { bytes, at: 0 };
    let [version] = input.take("version")?;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    let [flags] = input.take("flags")?;
    if flags & !FLAGS != 0 {
        return Err(RecordError::Value { field: "flags", value: flags.into() });
    }
    let numbers = Numbers {
        camera: input.u32("camera")?,
        model: input.u32("model")?,
        version: input.u32("version")?,
        device: input.u32("device")?,
    };
    let created_at = UtcNanos(input.u64("created_at")?);
    let generation = Generation(input.u64("generation")?);
    let frame_id = FrameId(input.u64("frame_id")?);
    let media = MediaTime(input.u64("media")?);
    let frame = Size { width: input.u32("frame.width")?, height: input.u32("frame.height")? };
    let count = usize::from(input.u16("detections")?);
    let mut stages = [Duration::ZERO; STAGES];
    for stage in &mut stages {
        *stage = Duration::from_nanos(input.varint("stages")?);
    }
    let mut found = FrameDetections::default();
    input.expect("detections", count, DETECTION_BYTES)?;
    found.detections.reserve_exact(count);
    for i in 0..count {
        let field = "detection";
        let bbox = Rect {
            x1: input.f32(field)?,
            y1: input.f32(field)?,
            x2: input.f32(field)?,
            y2: input.f32(field)?,
        };
        let detection = Detection {
            bbox,
            score: input.f32(field)?,
            class_id: input.u16(field)?,
            track: TrackId(0),
        };
        check_detection(&detection, i)?;
        found.detections.push(detection);
    }
    if flags & FLAG_TRACKS != 0 {
        for d in &mut found.detections {
            d.track = TrackId(input.u32("tracks")?);
        }
    }
    if flags & FLAG_KEYPOINTS != 0 {
        let keypoints = input.u32("keypoints")? as usize;
        input.expect("keypoints", keypoints, KEYPOINT_BYTES)?;
        found.keypoints.reserve_exact(keypoints);
        for _ in 0..keypoints {
            let field = "keypoint";
            let keypoint = Keypoint {
                detection: input.u32(field)?,
                kind: input.u16(field)?,
                x: input.f32(field)?,
                y: input.f32(field)?,
                score: input.f32(field)?,
            };
            check_keypoint(&keypoint, count)?;
            found.keypoints.push(keypoint);
        }
    }
    if flags & FLAG_MASKS != 0 {
        let masks = input.u32("masks")?;
        for _ in 0..masks {
            let field = "mask";
            let detection = input.u32(field)?;
            check_mask(detection, count)?;
            let (width, height) = (input.u16(field)?, input.u16(field)?);
            let data = input.slice(field, usize::from(width) * usize::from(height))?.to_vec();
            found.masks.push(Mask { detection, width, height, data });
        }
    }
    let mut metadata = None;
    if flags & FLAG_METADATA != 0 {
        let length = input.u32("metadata")? as usize;
        let text = input.slice("metadata", length)?;
        metadata = Some(Json::parse(text).map_err(RecordError::Metadata)?);
    }
    match bytes.len() - input.at {
        0 => Ok(Record {
            numbers,
            created_at,
            generation,
            frame_id,
            media,
            frame,
            stages: Stages::from_array(stages),
            detections: found,
            metadata,
        }),
        rest => Err(RecordError::Long(rest)),
    }
}

/// The classes of an event, each once, ascending: what `by_class` holds of it.
pub(crate) fn classes(found: &FrameDetections) -> Vec<u16> {
    let mut classes: Vec<u16> = found.detections.iter().map(|d| d.class_id).collect();
    classes.sort_unstable();
    classes.dedup();
    classes
}

fn check_detection(d: &Detection, index: usize) -> Result<(), RecordError> {
    if d.bbox.valid() && (0.0..=1.0).contains(&d.score) {
        Ok(())
    } else {
        Err(RecordError::Value { field: "index of a detection out of range", value: index as u64 })
    }
}

fn check_keypoint(k: &Keypoint, detections: usize) -> Result<(), RecordError> {
    if k.detection as usize >= detections {
        return Err(RecordError::Value { field: "keypoint.detection", value: k.detection.into() });
    }
    if k.x.is_finite() && k.y.is_finite() && k.score.is_finite() {
        Ok(())
    } else {
        Err(RecordError::Value { field: "kind of a keypoint out of range", value: k.kind.into() })
    }
}

fn check_mask(detection: u32, detections: usize) -> Result<(), RecordError> {
    if (detection as usize) < detections {
        Ok(())
    } else {
        Err(RecordError::Value { field: "mask.detection", value: detection.into() })
    }
}

/// LEB128: seven bits a byte, the lowest first, the top bit set on all but the last.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn slice(&mut self, field: &'static str, length: usize) -> Result<&[u8], RecordError> {
        let short = RecordError::Short { field, bytes: self.bytes.len() };
        let end = self.at.checked_add(length).ok_or_else(|| short.clone())?;
        let slice = self.bytes.get(self.at..end).ok_or(short)?;
        self.at = end;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], RecordError> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(field, N)?);
        Ok(out)
    }

    /// Whether `count` items of `size` bytes can follow: asked before room for them is made.
    fn expect(&self, field: &'static str, count: usize, size: usize) -> Result<(), RecordError> {
        let there = self.bytes.len() - self.at;
        match count.checked_mul(size) {
            Some(bytes) if bytes <= there => Ok(()),
            _ => Err(RecordError::Short { field, bytes: self.bytes.len() }),
        }
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, RecordError> {
        self.take(field).map(u16::from_le_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, RecordError> {
        self.take(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, RecordError> {
        self.take(field).map(u64::from_le_bytes)
    }

    fn f32(&mut self, field: &'static str) -> Result<f32, RecordError> {
        self.take(field).map(f32::from_le_bytes)
    }

    fn varint(&mut self, field: &'static str) -> Result<u64, RecordError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take(field)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(RecordError::Value { field, value: byte.into() });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Value { field, value })
    }
}
