//! Generated flatbuffers types to the types of `base` and back, shared by both protocols.

use crate::generated::vas::wire as fb;
use base::{Detection, FrameDetections, Keypoint, LatencyEntry, LatencyTable, Mask, MemberError};
use base::{Rect, TrackId};
use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, Vector, WIPOffset};
use std::time::Duration;

/// Why foreign bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The buffer is not a well-formed flatbuffer of this protocol.
    #[error("message is malformed: {0}")]
    Malformed(String),
    /// The file identifier is another one.
    #[error("message is of another protocol: identifier is not {expected}")]
    Identifier {
        /// The identifier of the protocol that was expected.
        expected: &'static str,
    },
    /// Well-formed, but a value is outside its bounds.
    #[error("message field {field} has value {value}, which is not allowed: {rule}")]
    Value {
        /// Table and field.
        field: &'static str,
        /// What it held.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
}

impl WireError {
    pub(crate) fn value(field: &'static str, value: impl ToString, rule: &'static str) -> Self {
        WireError::Value { field, value: value.to_string(), rule }
    }
}

pub(crate) fn verifier() -> flatbuffers::VerifierOptions {
    flatbuffers::VerifierOptions {
        max_tables: 200_000,
        // Tables may share parts; one that names the same megabytes again and again is refused.
        max_apparent_size: 2 * base::limits::MESSAGE_BYTES_MAX,
        ..Default::default()
    }
}

pub(crate) fn duration(ns: u64) -> Duration {
    Duration::from_nanos(ns)
}

pub(crate) fn id<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<T, WireError> {
    text.parse().map_err(|_| WireError::value(field, text, "1 to 64 characters of A-Z a-z 0-9 _ -"))
}

pub(crate) fn error_to_wire(error: MemberError) -> fb::MemberError {
    match error {
        MemberError::Torn => fb::MemberError::Torn,
        MemberError::Frame => fb::MemberError::Frame,
        MemberError::Engine => fb::MemberError::Engine,
        MemberError::Postprocess => fb::MemberError::Postprocess,
        MemberError::Parameters => fb::MemberError::Parameters,
        MemberError::Request => fb::MemberError::Request,
    }
}

/// `Ok(None)` = no error.
pub(crate) fn error_from_wire(error: fb::MemberError) -> Result<Option<MemberError>, WireError> {
    Ok(Some(match error {
        fb::MemberError::None => return Ok(None),
        fb::MemberError::Torn => MemberError::Torn,
        fb::MemberError::Frame => MemberError::Frame,
        fb::MemberError::Engine => MemberError::Engine,
        fb::MemberError::Postprocess => MemberError::Postprocess,
        fb::MemberError::Parameters => MemberError::Parameters,
        fb::MemberError::Request => MemberError::Request,
        other => return Err(WireError::value("error", other.0, "0 to 6")),
    }))
}

pub(crate) fn latency_to_wire(table: &LatencyTable) -> Vec<fb::LatencyEntry> {
    let entry = |e: &LatencyEntry| {
        fb::LatencyEntry::new(e.batch, 0, base::time::nanos(e.p50), base::time::nanos(e.p99))
    };
    table.entries().iter().map(entry).collect()
}

pub(crate) fn latency_from_wire(
    entries: Vector<'_, fb::LatencyEntry>,
) -> Result<LatencyTable, WireError> {
    if entries.len() > base::limits::BATCH_MAX as usize {
        return Err(WireError::value("latency", entries.len(), "at most 256 entries"));
    }
    for e in entries {
        if e.batch() == 0 || e.batch() > base::limits::BATCH_MAX {
            return Err(WireError::value("latency.batch", e.batch(), "1 to 256"));
        }
    }
    Ok(LatencyTable::new(entries.iter().map(|e| LatencyEntry {
        batch: e.batch(),
        p50: duration(e.p50_ns()),
        p99: duration(e.p99_ns()),
    })))
}

/// The three vectors of one outcome, `None` where empty.
pub(crate) struct Found<'a> {
    pub detections: Option<WIPOffset<Vector<'a, fb::Detection>>>,
    pub keypoints: Option<WIPOffset<Vector<'a, fb::Keypoint>>>,
    pub masks: Option<WIPOffset<Vector<'a, ForwardsUOffset<fb::Mask<'a>>>>>,
}

pub(crate) fn found_to_wire<'a>(
    builder: &mut FlatBufferBuilder<'a>,
    found: &FrameDetections,
) -> Found<'a> {
    let detections: Vec<_> = found
        .detections
        .iter()
        .map(|d| {
            let b = d.bbox;
            fb::Detection::new(b.x1, b.y1, b.x2, b.y2, d.score, d.class_id, 0, d.track.0)
        })
        .collect();
    let keypoints: Vec<_> = found
        .keypoints
        .iter()
        .map(|k| fb::Keypoint::new(k.detection, k.x, k.y, k.score, k.kind, 0))
        .collect();
    let masks: Vec<_> = found
        .masks
        .iter()
        .map(|m| {
            let data = Some(builder.create_vector(&m.data));
            let args =
                fb::MaskArgs { detection: m.detection, width: m.width, height: m.height, data };
            fb::Mask::create(builder, &args)
        })
        .collect();
    Found {
        detections: (!detections.is_empty()).then(|| builder.create_vector(&detections)),
        keypoints: (!keypoints.is_empty()).then(|| builder.create_vector(&keypoints)),
        masks: (!masks.is_empty()).then(|| builder.create_vector(&masks)),
    }
}

/// Converts one outcome. A malformed detection is skipped, the others stay (spec F); keypoints and
/// masks of a skipped detection go with it.
pub(crate) fn found_from_wire(
    detections: Option<Vector<'_, fb::Detection>>,
    keypoints: Option<Vector<'_, fb::Keypoint>>,
    masks: Option<Vector<'_, ForwardsUOffset<fb::Mask<'_>>>>,
) -> Result<FrameDetections, WireError> {
    let mut found = FrameDetections::default();
    let Some(detections) = detections else { return Ok(found) };
    if detections.len() > base::limits::DETECTIONS_MAX {
        return Err(WireError::value("detections", detections.len(), "at most 1000 per frame"));
    }
    // Where each wire detection went, to re-point the side vectors.
    let mut kept = Vec::with_capacity(detections.len());
    found.detections.reserve_exact(detections.len());
    for d in detections {
        let bbox = Rect { x1: d.x1(), y1: d.y1(), x2: d.x2(), y2: d.y2() };
        if !bbox.valid() || !(0.0..=1.0).contains(&d.score()) {
            kept.push(None);
            continue;
        }
        kept.push(Some(found.detections.len() as u32));
        found.detections.push(Detection {
            bbox,
            score: d.score(),
            class_id: d.class_id(),
            track: TrackId(d.track()),
        });
    }
    let place = |index: u32| kept.get(index as usize).copied().flatten();
    for k in keypoints.iter().flatten() {
        let finite = k.x().is_finite() && k.y().is_finite() && k.score().is_finite();
        if let (Some(detection), true) = (place(k.detection()), finite) {
            let (kind, x, y, score) = (k.kind(), k.x(), k.y(), k.score());
            found.keypoints.push(Keypoint { detection, kind, x, y, score });
        }
    }
    for m in masks.iter().flatten().take(found.detections.len()) {
        let size = usize::from(m.width()) * usize::from(m.height());
        if let (Some(detection), true) = (place(m.detection()), m.data().len() == size) {
            let (width, height) = (m.width(), m.height());
            found.masks.push(Mask { detection, width, height, data: m.data().bytes().to_vec() });
        }
    }
    Ok(found)
}
