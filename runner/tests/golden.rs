//! The shipped detector over the pedestrian clip against an independent float64 reference
//! (`assets/pedestrians.reference.json`: NumPy path, ONNX Runtime, per-class NMS).
//!
//! Found: a reference detection with score >= 0.5 has one of ours of its class with IoU >= 0.9 and
//! a score within 0.03. Unfounded: one of ours with score >= 0.5 has no reference box (score > 0.4)
//! of its class at IoU >= 0.5. At least 99 % found, at most 1 % unfounded; the same run with a
//! wrong colour range, channel order or fit has to fail.
//!
//! A region of a frame is held to the same rule, with a frame that holds nothing but that region as
//! its reference.
#![allow(clippy::unwrap_used)]

use base::model::{ColourOrder, ModelSpec, Resize};
use base::{ColourRange, Detection, FrameDetections, Picture, Rect, Size};
use ingest::clip::ClipFrames;
use runner::engine::{self, Engine, Frame};
use runner::parameters::Parameters;
use runner::{ClipFrame, EngineOptions, decode, default_cache_dir, model_run, model_yaml};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// Pixels `x..x + width`, `y..y + height` of a frame, all even.
#[derive(Debug, Clone, Copy)]
struct Crop {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

impl Crop {
    /// A box with a quarter of its sides around it.
    fn around(bbox: Rect, size: Size) -> Crop {
        let side = |low: f32, high: f32, pixels: u32| {
            let margin = (high - low) / 4.0;
            let even = |v: f32| (v.clamp(0.0, 1.0) * pixels as f32 / 2.0).round() as usize * 2;
            let (low, high) = (even(low - margin), even(high + margin));
            (low, high - low)
        };
        let (x, width) = side(bbox.x1, bbox.x2, size.width);
        let (y, height) = side(bbox.y1, bbox.y2, size.height);
        Crop { x, y, width, height }
    }

    fn region(self, size: Size) -> Rect {
        let (w, h) = (size.width as f32, size.height as f32);
        let (right, bottom) = (self.x + self.width, self.y + self.height);
        let (x1, y1) = (self.x as f32 / w, self.y as f32 / h);
        Rect { x1, y1, x2: right as f32 / w, y2: bottom as f32 / h }
    }

    /// A frame that holds nothing else.
    fn alone(self, frame: &ClipFrame) -> Frame {
        let (w, h) = (frame.picture.size.width as usize, frame.picture.size.height as usize);
        let (luma, chroma) = frame.pixels.split_at(w * h);
        let rows = |plane: &[u8], y: usize, height: usize| -> Vec<u8> {
            let row = |row: usize| &plane[row * w + self.x..][..self.width];
            (y..y + height).flat_map(|r| row(r).iter().copied()).collect()
        };
        let mut pixels = rows(luma, self.y, self.height);
        pixels.extend(rows(chroma, self.y / 2, self.height / 2));
        let size = Size { width: self.width as u32, height: self.height as u32 };
        let picture = Picture { size, ..frame.picture };
        Frame { picture, region: Rect::WHOLE, pixels: Arc::new(pixels) }
    }
}

/// What the model finds in each frame, as one batch.
fn batch(engine: &mut dyn Engine, spec: &ModelSpec, frames: Vec<Frame>) -> Vec<FrameDetections> {
    let members = frames.len();
    engine.prepare(0, frames).unwrap();
    let ticket = engine.submit(0).unwrap();
    let finished = engine.wait(ticket).unwrap();
    let parameters = Parameters::defaults(spec);
    let part = |output: usize, member: usize| {
        let values = finished.outputs[output].values();
        let len = values.len() / members;
        &values[member * len..(member + 1) * len]
    };
    let one = |member: usize| {
        let fit = finished.fits[member].as_ref().unwrap();
        let (scores, boxes) = (part(0, member), part(1, member));
        decode::boxes_scores(scores, boxes, spec.labels.len(), fit, &parameters).unwrap()
    };
    (0..members).map(one).collect()
}

/// A detection of a cropped frame where it lies in the whole one.
fn placed(found: &Detection, region: Rect) -> Detection {
    let x = |v: f32| region.x1 + v * (region.x2 - region.x1);
    let y = |v: f32| region.y1 + v * (region.y2 - region.y1);
    let b = found.bbox;
    Detection { bbox: Rect { x1: x(b.x1), y1: y(b.y1), x2: x(b.x2), y2: y(b.y2) }, ..*found }
}

#[test]
fn a_region_gives_what_a_frame_of_nothing_else_gives() {
    let spec = model_yaml::load(&root("models/nanodet_g_416")).unwrap();
    let mut engine = engine::load(&spec, &options()).unwrap();
    let reference = reference();
    let (mut tally, mut unplaced) = (Tally::default(), Tally::default());
    for frame in clip(3 * STRIDE, None) {
        let frame = frame.unwrap();
        let size = frame.picture.size;
        let of_frame = reference[frame.index].iter().filter(|d| d.score >= 0.5).take(5);
        let mut crops: Vec<Crop> = of_frame.map(|d| Crop::around(d.bbox, size)).collect();
        // Half the frame: several people in it.
        let (w, h) = (size.width as usize, size.height as usize);
        crops.push(Crop { x: w / 8 * 2, y: 0, width: w / 4 * 2, height: h });
        let pixels = Arc::new(frame.pixels.clone());
        let picture = frame.picture;
        let regions = crops.iter().map(|crop| {
            let region = crop.region(size);
            Frame { picture, region, pixels: Arc::clone(&pixels) }
        });
        let ours = batch(engine.as_mut(), &spec, regions.collect());
        let alone = crops.iter().map(|crop| crop.alone(&frame)).collect();
        let alone = batch(engine.as_mut(), &spec, alone);
        for ((crop, ours), alone) in crops.iter().zip(&ours).zip(&alone) {
            let region = crop.region(size);
            let wanted: Vec<Detection> =
                alone.detections.iter().map(|d| placed(d, region)).collect();
            tally.add(ours, &wanted);
            unplaced.add(ours, &alone.detections);
            let inside = |d: &Detection| {
                let b = d.bbox;
                b.x1 >= region.x1 && b.y1 >= region.y1 && b.x2 <= region.x2 && b.y2 <= region.y2
            };
            assert!(ours.detections.iter().all(inside), "{region:?}: {ours:?}");
        }
    }
    println!("regions: {}", tally.text());
    assert!(tally.wanted > 50 && tally.passes(), "{}", tally.text());
    assert!(!unplaced.passes(), "boxes left in the crop have to be seen: {}", unplaced.text());
}
