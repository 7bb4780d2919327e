//! What does it cost to turn one NV12 frame into the input of the shipped detector?
//!
//! `cargo run -p benches --bin preprocess [ROUNDS]`: thread CPU time per frame on one thread, the
//! vector and the portable arithmetic interleaved, over frames that rotate through more memory
//! than the second-level cache holds. Prints median, lowest and highest of the rounds.

use base::model::{ColourOrder, DType, InputSpec, Layout, Resize};
use base::{ColourMatrix, ColourRange, Picture, Rect, Size};
use benches::thread_cpu;
use kernels::{BatchTensor, Preprocessor};

/// Frames that are rotated through.
const FRAMES: usize = 8;
/// Conversions per round and side.
const RUNS: usize = 24;

fn input(layout: Layout, dtype: DType) -> InputSpec {
    InputSpec {
        tensor: "images".into(),
        size: Size { width: 416, height: 416 },
        layout,
        dtype,
        colour: ColourOrder::Bgr,
        resize: Resize::Letterbox { pad: 114 },
        mean: [103.53, 116.28, 123.675],
        std: [57.375, 57.12, 58.395],
    }
}

/// Milliseconds per frame of every round.
struct Side {
    name: String,
    preprocessor: Preprocessor,
    batch: BatchTensor,
    rounds: Vec<f64>,
}

impl Side {
    fn new(name: String, input: &InputSpec, preprocessor: Preprocessor) -> Side {
        let mut batch = BatchTensor::new(input);
        batch.resize(1);
        Side { name, preprocessor, batch, rounds: Vec::new() }
    }

    fn round(&mut self, picture: &Picture, frames: &[Vec<u8>]) {
        let start = thread_cpu();
        for i in 0..RUNS {
            let frame = &frames[i % frames.len()];
            self.preprocessor
                .run(picture, Rect::WHOLE, frame, &mut self.batch, 0)
                .expect("the picture is valid");
        }
        self.rounds.push((thread_cpu() - start).as_secs_f64() * 1e3 / RUNS as f64);
    }
}

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(61);
    println!(
        "to 416x416, letterbox, BGR, ms of thread CPU time per frame, {rounds} rounds of {RUNS}"
    );
    for (width, height) in [(1920, 1080), (768, 576), (3840, 2160)] {
        let size = Size { width, height };
        let picture = Picture { size, matrix: ColourMatrix::Bt601, range: ColourRange::Limited };
        let frames: Vec<Vec<u8>> = (0..FRAMES)
            .map(|f| (0..size.nv12_bytes()).map(|i| (i * 7 + i / 977 + f * 31) as u8).collect())
            .collect();
        let mut sides = Vec::new();
        for (layout, dtype) in
            [(Layout::Nchw, DType::F32), (Layout::Nchw, DType::F16), (Layout::Nhwc, DType::U8)]
        {
            let input = input(layout, dtype);
            let name = |what: &str| format!("{width}x{height} {layout:?} {dtype:?} {what}");
            sides.push(Side::new(name("vector"), &input, Preprocessor::new(&input)));
            sides.push(Side::new(name("portable"), &input, Preprocessor::portable(&input)));
        }
        for _ in 0..rounds {
            for side in &mut sides {
                side.round(&picture, &frames);
            }
        }
        for mut side in sides {
            side.rounds.sort_by(f64::total_cmp);
            let (low, high) = (side.rounds[0], side.rounds[side.rounds.len() - 1]);
            let median = side.rounds[side.rounds.len() / 2];
            println!("{:36} median {median:.3}  lowest {low:.3}  highest {high:.3}", side.name);
        }
    }
}
