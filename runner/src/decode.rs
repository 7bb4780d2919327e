//! Output tensors to detections: pure functions, one member at a time.

use crate::parameters::Parameters;
use base::limits::DETECTIONS_MAX;
use base::{Detection, FrameDetections, TrackId};
use kernels::Fit;

/// Best candidates that enter NMS; it is quadratic, and a network that answers everywhere must not
/// hold the runner (chosen: 4 x what may travel).
pub const CANDIDATES_MAX: usize = 4 * DETECTIONS_MAX;

/// Why an output could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The tensors do not belong together.
    #[error("{scores} scores and {boxes} box corners do not make anchors of {classes} classes")]
    Shape {
        /// Scores of the member.
        scores: usize,
        /// Box corners of the member.
        boxes: usize,
        /// Classes of the model.
        classes: usize,
    },
}

/// Decodes [`base::model::Decoder::BoxesScores`].
///
/// `scores` = `[A, C]` row-major, 0..1; `boxes` = `[A, 4]` x1 y1 x2 y2 in pixels of the input.
/// Score > threshold; NMS per class, best first, drops boxes whose IoU with a kept one is above the
/// threshold (in input pixels, before clipping); then boxes relative to the whole frame, clipped,
/// best score first, at most [`DETECTIONS_MAX`]. Scores and boxes that are not finite are skipped.
/// Cost: one pass over the scores, then quadratic in the candidates of a class.
///
/// # Errors
/// [`DecodeError`] when the lengths do not fit together.
pub fn boxes_scores(
    scores: &[f32],
    boxes: &[f32],
    classes: usize,
    fit: &Fit,
    parameters: &Parameters,
) -> Result<FrameDetections, DecodeError> {
    let anchors = boxes.len() / 4;
    if classes == 0 || boxes.len() != 4 * anchors || scores.len() != anchors * classes {
        let (scores, boxes) = (scores.len(), boxes.len());
        return Err(DecodeError::Shape { scores, boxes, classes });
    }
    let mut candidates = candidates(scores, boxes, classes, parameters);
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.anchor.cmp(&b.anchor)));
    candidates.truncate(CANDIDATES_MAX);

    // Best first over all classes: a box only competes with kept ones of its own class.
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        let beaten = kept.iter().any(|k| {
            k.class == candidate.class && k.iou(&candidate) > parameters.nms_iou_threshold
        });
        if !beaten {
            kept.push(candidate);
        }
    }
    let detections = kept.iter().filter_map(|candidate| {
        Some(Detection {
            bbox: fit.box_to_frame(candidate.corners.map(f64::from))?,
            score: candidate.score.min(1.0),
            class_id: candidate.class,
            track: TrackId(0),
        })
    });
    Ok(FrameDetections {
        detections: detections.take(DETECTIONS_MAX).collect(),
        ..FrameDetections::default()
    })
}

struct Candidate {
    score: f32,
    anchor: u32,
    class: u16,
    corners: [f32; 4],
}

impl Candidate {
    fn iou(&self, other: &Candidate) -> f32 {
        let rect = |[x1, y1, x2, y2]: [f32; 4]| base::Rect { x1, y1, x2, y2 };
        rect(self.corners).iou(rect(other.corners))
    }
}

fn candidates(
    scores: &[f32],
    boxes: &[f32],
    classes: usize,
    parameters: &Parameters,
) -> Vec<Candidate> {
    let threshold = parameters.confidence_threshold;
    let mut candidates = Vec::new();
    for (anchor, (row, corners)) in
        scores.chunks_exact(classes).zip(boxes.chunks_exact(4)).enumerate()
    {
        // Most anchors hold nothing: one pass without branches says so.
        if !row.iter().fold(false, |any, score| any | (*score > threshold)) {
            continue;
        }
        let corners: [f32; 4] = corners.try_into().expect("a chunk of four");
        if !corners.iter().all(|c| c.is_finite()) {
            continue;
        }
        for (class, score) in row.iter().enumerate() {
            let wanted = parameters.classes.as_ref().is_none_or(|wanted| wanted[class]);
            if *score > threshold && score.is_finite() && wanted {
                let (anchor, class, score) = (anchor as u32, class as u16, *score);
                candidates.push(Candidate { score, anchor, class, corners });
            }
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::model::Resize;
    use base::{Rect, Size};

    fn fit() -> Fit {
        let size = |width, height| Size { width, height };
        // 200x100 in 100x100: bars of 25 rows above and below, scale 1/2.
        let resize = Resize::Letterbox { pad: 114 };
        Fit::new(size(200, 100), Rect::WHOLE, size(100, 100), resize).unwrap()
    }

    fn parameters() -> Parameters {
        Parameters { confidence_threshold: 0.4, nms_iou_threshold: 0.6, classes: None }
    }

    /// Each: scores of two classes, box.
    fn decode(anchors: &[([f32; 2], [f32; 4])], parameters: &Parameters) -> Vec<(u16, f32, Rect)> {
        let scores: Vec<f32> = anchors.iter().flat_map(|(s, _)| *s).collect();
        let boxes: Vec<f32> = anchors.iter().flat_map(|(_, b)| *b).collect();
        let found = boxes_scores(&scores, &boxes, 2, &fit(), parameters).unwrap();
        found.detections.iter().map(|d| (d.class_id, d.score, d.bbox)).collect()
    }

    const A: [f32; 4] = [0.0, 25.0, 50.0, 75.0];
    /// IoU with A: 40 / 60 = 0.667.
    const NEAR: [f32; 4] = [10.0, 25.0, 60.0, 75.0];
    /// IoU with A: 35 / 65 = 0.538.
    const FAR: [f32; 4] = [15.0, 25.0, 65.0, 75.0];

    #[test]
    fn boxes_come_back_to_the_frame_best_first() {
        let found =
            decode(&[([0.0, 0.5], A), ([0.9, 0.0], [50.0, 50.0, 100.0, 75.0])], &parameters());
        let rect = |x1, y1, x2, y2| Rect { x1, y1, x2, y2 };
        assert_eq!(found, [(0, 0.9, rect(0.5, 0.5, 1.0, 1.0)), (1, 0.5, rect(0.0, 0.0, 0.5, 1.0))]);
    }

    #[test]
    fn the_threshold_itself_is_below() {
        assert!(decode(&[([0.4, 0.0], A)], &parameters()).is_empty());
        assert_eq!(decode(&[([0.400_001, 0.0], A)], &parameters()).len(), 1);
        // Also beside a class that is above it.
        assert_eq!(decode(&[([0.4, 0.9], A)], &parameters()).len(), 1);
    }

    #[test]
    fn nms_is_per_class_and_keeps_the_better() {
        let near = [([0.6, 0.0], A), ([0.8, 0.0], NEAR)];
        let found = decode(&near, &parameters());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, 0.8);
        assert_eq!(decode(&[([0.6, 0.0], A), ([0.8, 0.0], FAR)], &parameters()).len(), 2);
        assert_eq!(decode(&[([0.6, 0.0], A), ([0.0, 0.8], NEAR)], &parameters()).len(), 2);
        let strict = Parameters { nms_iou_threshold: 0.5, ..parameters() };
        assert_eq!(decode(&[([0.6, 0.0], A), ([0.8, 0.0], FAR)], &strict).len(), 1);
        // A beaten box beats nobody: C overlaps only the dropped B.
        let c = [20.0, 25.0, 70.0, 75.0];
        let chain = [([0.9, 0.0], A), ([0.8, 0.0], NEAR), ([0.7, 0.0], c)];
        assert_eq!(decode(&chain, &parameters()).len(), 2);
    }

    #[test]
    fn unwanted_classes_are_left_out() {
        let wanted = Parameters { classes: Some(vec![false, true]), ..parameters() };
        let found = decode(&[([0.9, 0.8], A)], &wanted);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, 1);
    }

    #[test]
    fn numbers_that_are_none_are_skipped_and_the_others_stay() {
        let bad = [
            ([f32::NAN, 0.9], A),
            ([f32::INFINITY, 0.0], A),
            ([0.9, 0.0], [f32::NAN, 0.0, 1.0, 1.0]),
            ([0.9, 0.0], [60.0, 30.0, 50.0, 40.0]),
            ([0.9, 0.0], [0.0, 0.0, 100.0, 20.0]),
        ];
        let found = decode(&bad, &parameters());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, found[0].1), (1, 0.9));
    }

    #[test]
    fn the_best_travel_when_there_are_too_many() {
        let anchors = DETECTIONS_MAX + 50;
        let side = 100.0 / anchors as f32;
        let scores: Vec<f32> =
            (0..anchors).map(|i| 0.5 + 0.4 * i as f32 / anchors as f32).collect();
        let boxes: Vec<f32> = (0..anchors)
            .flat_map(|i| [i as f32 * side, 30.0, (i + 1) as f32 * side, 60.0])
            .collect();
        let found = boxes_scores(&scores, &boxes, 1, &fit(), &parameters()).unwrap();
        assert_eq!(found.detections.len(), DETECTIONS_MAX);
        assert_eq!(found.detections[0].score, scores[anchors - 1]);
        assert!(found.detections.iter().all(|d| d.score > scores[49]));
    }

    #[test]
    fn tensors_that_do_not_belong_together_are_refused() {
        for (scores, boxes, classes) in [(4, 4, 2), (2, 3, 2), (2, 4, 0), (0, 4, 2)] {
            let (s, b) = (vec![0.0; scores], vec![0.0; boxes]);
            assert!(boxes_scores(&s, &b, classes, &fit(), &parameters()).is_err());
        }
        let nothing = boxes_scores(&[], &[], 2, &fit(), &parameters()).unwrap();
        assert!(nothing.detections.is_empty());
    }
}
