//! The shipped detector over the pedestrian clip against an independent float64 reference
//! (`assets/pedestrians.reference.json`: NumPy path, ONNX Runtime, per-class NMS).
//!
//! Found: a reference detection with score >= 0.5 has one of ours of its class with IoU >= 0.9 and
//! a score within 0.03. Unfounded: one of ours with score >= 0.5 has no reference box (score > 0.4)
//! of its class at IoU >= 0.5. At least 99 % found, at most 1 % unfounded; the same run with a
//! wrong colour range, channel order or fit has to fail.
#![allow(clippy::unwrap_used)]

use base::model::{ColourOrder, ModelSpec, Resize};
use base::{ColourRange, Detection, FrameDetections, Picture, Rect};
use ingest::clip::ClipFrames;
use runner::{ClipFrame, EngineOptions, default_cache_dir, model_run, model_yaml};
use std::path::{Path, PathBuf};

/// Frames between two that a wrong path looks at: enough to see it fail, at an eighth of the cost.
const STRIDE: usize = 8;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn options() -> EngineOptions {
    let cache_dir = default_cache_dir().expect("HOME is set");
    EngineOptions { onnxruntime: None, cache_dir, threads: 1 }
}

fn reference() -> Vec<Vec<Detection>> {
    let text = std::fs::read_to_string(root("assets/pedestrians.reference.json")).unwrap();
    let frames: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let detection = |d: &serde_json::Value| {
        let n = |i: usize| d[i].as_f64().unwrap() as f32;
        let bbox = Rect { x1: n(2), y1: n(3), x2: n(4), y2: n(5) };
        Detection { bbox, score: n(1), class_id: n(0) as u16, track: Default::default() }
    };
    let all =
        |f: &serde_json::Value| f["detections"].as_array().unwrap().iter().map(detection).collect();
    frames.iter().map(all).collect()
}

fn clip(
    stride: usize,
    range: Option<ColourRange>,
) -> impl Iterator<Item = Result<ClipFrame, String>> {
    let frames = ClipFrames::open(&root("assets/pedestrians.mp4")).unwrap();
    frames.step_by(stride).map(move |frame| {
        let frame = frame.map_err(|e| e.to_string())?;
        let range = range.unwrap_or(frame.range);
        let picture = Picture { size: frame.size, matrix: frame.matrix, range };
        Ok(ClipFrame { index: frame.index as usize, picture, pixels: frame.pixels })
    })
}

#[derive(Debug, Default)]
struct Tally {
    frames: usize,
    wanted: usize,
    found: usize,
    ours: usize,
    unfounded: usize,
}

impl Tally {
    fn add(&mut self, ours: &FrameDetections, reference: &[Detection]) {
        self.frames += 1;
        for want in reference.iter().filter(|d| d.score >= 0.5) {
            self.wanted += 1;
            self.found += usize::from(ours.detections.iter().any(|d| {
                d.class_id == want.class_id
                    && d.bbox.iou(want.bbox) >= 0.9
                    && (d.score - want.score).abs() <= 0.03
            }));
        }
        for mine in ours.detections.iter().filter(|d| d.score >= 0.5) {
            self.ours += 1;
            self.unfounded += usize::from(!reference.iter().any(|d| {
                d.class_id == mine.class_id && d.score > 0.4 && d.bbox.iou(mine.bbox) >= 0.5
            }));
        }
    }

    fn passes(&self) -> bool {
        assert!(self.frames > 0 && self.wanted > 0, "{self:?}");
        self.found as f64 >= 0.99 * self.wanted as f64
            && self.unfounded as f64 <= 0.01 * self.ours as f64
    }

    fn text(&self) -> String {
        let percent = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
        format!(
            "{} frames: {:.2} % of {} found, {:.2} % of {} unfounded",
            self.frames,
            percent(self.found, self.wanted),
            self.wanted,
            percent(self.unfounded, self.ours),
            self.ours
        )
    }
}

fn run(
    what: &str,
    stride: usize,
    range: Option<ColourRange>,
    change: impl FnOnce(&mut ModelSpec),
) -> Tally {
    let mut spec = model_yaml::load(&root("models/nanodet_g_416")).unwrap();
    change(&mut spec);
    let reference = reference();
    let mut tally = Tally::default();
    let count = model_run(&spec, &options(), clip(stride, range), |index, found| {
        tally.add(found, &reference[index]);
    })
    .unwrap();
    assert_eq!((count, count), (tally.frames, reference.len().div_ceil(stride)));
    println!("{what}: {}", tally.text());
    tally
}

#[test]
fn the_clip_gives_the_reference_detections() {
    let tally = run("as shipped", 1, None, |_| {});
    assert!(tally.passes(), "{}", tally.text());
}

#[test]
fn a_wrong_colour_range_fails() {
    let tally = run("full range", STRIDE, Some(ColourRange::Full), |_| {});
    assert!(!tally.passes(), "{}", tally.text());
}

#[test]
fn a_wrong_channel_order_fails() {
    let tally = run("RGB", STRIDE, None, |spec| {
        spec.input.colour = ColourOrder::Rgb;
        spec.input.mean.reverse();
        spec.input.std.reverse();
    });
    assert!(!tally.passes(), "{}", tally.text());
}

#[test]
fn a_wrong_fit_fails() {
    let tally = run("stretched", STRIDE, None, |spec| spec.input.resize = Resize::Stretch);
    assert!(!tally.passes(), "{}", tally.text());
    // Even the grey of the bars counts.
    let tally = run("black bars", STRIDE, None, |spec| {
        spec.input.resize = Resize::Letterbox { pad: 0 };
    });
    assert!(!tally.passes(), "{}", tally.text());
}
