//! What `vas model run` and `vas model check` do, without a socket or a ring.

use crate::engine::{self, Engine, Frame};
use crate::model_yaml;
use crate::options::EngineOptions;
use crate::parameters::Parameters;
use crate::pipeline;
use crate::{EngineError, ModelError};
use base::limits::HANG_LIMIT;
use base::model::{Backend, ModelSpec};
use base::{ColourMatrix, ColourRange, FrameDetections, MemberError, Picture, Rect, Size};
use latency::batch_sizes;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// A decoded picture of a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipFrame {
    /// Number in the clip, from 0.
    pub index: usize,
    /// Size and colour.
    pub picture: Picture,
    /// NV12 without padding between rows.
    pub pixels: Vec<u8>,
}

/// Why a clip could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ModelRunError<E> {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The clip.
    #[error("{0}")]
    Frame(E),
    /// One frame.
    #[error("frame {index}: {}", error.as_str())]
    Member {
        /// Number in the clip.
        index: usize,
        /// Why it has no detections.
        error: MemberError,
    },
}

/// Runs a model over frames, one at a time, with the model's own parameters. Returns the frames
/// seen.
///
/// # Errors
/// [`ModelRunError`]; what was found before was handed out.
pub fn model_run<E>(
    spec: &ModelSpec,
    options: &EngineOptions,
    frames: impl IntoIterator<Item = Result<ClipFrame, E>>,
    mut out: impl FnMut(usize, &FrameDetections),
) -> Result<usize, ModelRunError<E>> {
    let mut engine = engine::load(spec, options)?;
    let parameters = Parameters::defaults(spec);
    let mut count = 0;
    for frame in frames {
        let ClipFrame { index, picture, pixels } = frame.map_err(ModelRunError::Frame)?;
        let found = look(spec, engine.as_mut(), &parameters, picture, pixels)?
            .map_err(|error| ModelRunError::Member { index, error })?;
        out(index, &found);
        count += 1;
    }
    Ok(count)
}

/// One whole frame through the engine.
fn look(
    spec: &ModelSpec,
    engine: &mut dyn Engine,
    parameters: &Parameters,
    picture: Picture,
    pixels: Vec<u8>,
) -> Result<Result<FrameDetections, MemberError>, EngineError> {
    let pixels = Arc::new(pixels);
    engine.prepare(0, vec![Frame { picture, region: Rect::WHOLE, pixels }])?;
    let finished = pipeline::execute(engine, 0, 1)?;
    Ok(pipeline::outcome(spec, &finished, 0, parameters))
}

/// `{"frame":n,"detections":[[class_id,score,x1,y1,x2,y2],...]}`, numbers with five decimals.
pub fn jsonl_line(index: usize, found: &FrameDetections) -> String {
    let mut line = format!("{{\"frame\":{index},\"detections\":[");
    for (i, d) in found.detections.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let b = d.bbox;
        write!(
            line,
            "{comma}[{},{:.5},{:.5},{:.5},{:.5},{:.5}]",
            d.class_id, d.score, b.x1, b.y1, b.x2, b.y2
        )
        .expect("writing to a string");
    }
    line.push_str("]}");
    line
}

/// What `vas model check` found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is in order, a line each.
    pub facts: Vec<String>,
    /// What is wrong, a line each; empty = the model can be used.
    pub problems: Vec<String>,
}

/// Reads the model, loads it, runs it on a grey picture at batch sizes 1, 2, 4 ... `batch_max`.
/// Never fails: what is wrong is in the report.
pub fn model_check(folder: &Path, options: &EngineOptions) -> Report {
    let mut report = Report::default();
    let spec = match model_yaml::load(folder) {
        Ok(spec) => spec,
        Err(error) => {
            report.problems = ModelError::lines(&error);
            return report;
        }
    };
    let size = spec.input.size;
    report.facts.push(format!(
        "{} {} ({}): input `{}` {}x{} {:?} {:?}, {} classes, threshold {}, NMS {}, batch up to {}",
        spec.model_id,
        spec.version,
        spec.name,
        spec.input.tensor,
        size.width,
        size.height,
        spec.input.layout,
        spec.input.dtype,
        spec.labels.len(),
        spec.confidence_threshold,
        spec.nms_iou_threshold,
        spec.batch_max
    ));
    let started = Instant::now();
    let mut engine = match engine::load(&spec, options) {
        Ok(engine) => engine,
        Err(error) => {
            report.problems.push(error.to_string());
            return report;
        }
    };
    let took = started.elapsed().as_millis();
    report.facts.push(format!("loaded in {took} ms: {}", engine.info().summary));
    check_engine(&spec, engine.as_mut(), &mut report);
    report
}

/// The part of [`model_check`] that runs the model.
pub(crate) fn check_engine(spec: &ModelSpec, engine: &mut dyn Engine, report: &mut Report) {
    if let Err(error) = warm_up(spec, engine) {
        report.problems.push(error.to_string());
        return;
    }
    for members in batch_sizes(spec.batch_max) {
        match grey_batch(spec, engine, members as usize) {
            Ok(fact) => report.facts.push(fact),
            Err(problem) => report.problems.push(problem),
        }
    }
}

/// Two batches of one: the first allocates what later ones use, the second says whether the model
/// is fast enough to be told from a hung one.
///
/// # Errors
/// [`EngineError`] when the engine fails or the second run takes [`HANG_LIMIT`] or longer.
pub(crate) fn warm_up(spec: &ModelSpec, engine: &mut dyn Engine) -> Result<(), EngineError> {
    let size = spec.input.size;
    let even = |side: u32| side.next_multiple_of(2).max(kernels::preprocess::FRAME_SIDE_MIN);
    let mut frames = vec![grey_frame(even(size.width), even(size.height))];
    let mut took = std::time::Duration::ZERO;
    for _ in 0..2 {
        let begun = ipc::clock::monotonic();
        engine.prepare(0, frames)?;
        let finished = pipeline::execute(engine, 0, 1)?;
        took = finished.executed - begun;
        frames = finished.frames;
    }
    if took >= HANG_LIMIT {
        return Err(EngineError::TooSlow { took });
    }
    Ok(())
}

/// A picture of one grey in the middle of the range.
pub fn grey_frame(width: u32, height: u32) -> Frame {
    let size = Size { width, height };
    let (matrix, range) = (ColourMatrix::Unspecified, ColourRange::Unspecified);
    let picture = Picture { size, matrix, range };
    let pixels = Arc::new(vec![128; size.nv12_bytes()]);
    Frame { picture, region: Rect::WHOLE, pixels }
}

fn grey_batch(spec: &ModelSpec, engine: &mut dyn Engine, members: usize) -> Result<String, String> {
    let frames = vec![grey_frame(640, 480); members];
    let started = Instant::now();
    engine.prepare(0, frames).map_err(|e| e.to_string())?;
    let finished = pipeline::execute(engine, 0, members).map_err(|e| e.to_string())?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    let shapes: Vec<String> = engine::output_names(spec)
        .iter()
        .zip(&finished.outputs)
        .map(|(name, output)| format!("`{name}` {:?}", output.shape()))
        .collect();
    let parameters = Parameters::defaults(spec);
    for member in 0..members {
        let found = pipeline::outcome(spec, &finished, member, &parameters)
            .map_err(|e| format!("batch of {members}: member {member}: {}", e.as_str()))?;
        if !found.detections.is_empty() && matches!(spec.backend, Backend::Onnx) {
            return Err(format!(
                "batch of {members}: {} objects found in a grey picture; are mean, std and the \
                 decoder those of the model?",
                found.detections.len()
            ));
        }
    }
    Ok(format!("batch of {members}: {took:.1} ms, {}", shapes.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Detection, TrackId};

    #[test]
    fn lines_are_json() {
        let bbox = Rect { x1: 0.1, y1: 0.25, x2: 0.5, y2: 1.0 };
        let one = Detection { bbox, score: 0.987_654, class_id: 7, track: TrackId(0) };
        let found = FrameDetections { detections: vec![one, one], ..Default::default() };
        let line = jsonl_line(3, &found);
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["frame"], 3);
        assert_eq!(json["detections"][1][0], 7);
        assert_eq!(json["detections"][0][1], 0.98765);
        assert_eq!(jsonl_line(0, &FrameDetections::default()), r#"{"frame":0,"detections":[]}"#);
    }
}
