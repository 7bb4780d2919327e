//! Every fast path against the f64 oracle, over sizes, regions, layouts, types, colours.
#![allow(clippy::unwrap_used)]

use base::model::{ColourOrder, DType, InputSpec, Layout, Resize};
use base::{ColourMatrix, ColourRange, Picture, Rect, Size};
use kernels::preprocess::{PreprocessError, TOLERANCE};
use kernels::{BatchTensor, Preprocessor, oracle};

/// Deterministic noise with smooth parts, so that both edges and gradients occur.
fn frame(size: Size, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..size.nv12_bytes())
        .map(|i| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let smooth = (i as u32 % size.width).wrapping_mul(255) / size.width;
            if state & 3 == 0 { (state >> 8) as u8 } else { smooth as u8 }
        })
        .collect()
}

fn spec() -> InputSpec {
    InputSpec {
        tensor: "images".into(),
        size: Size { width: 416, height: 416 },
        layout: Layout::Nchw,
        dtype: DType::F32,
        colour: ColourOrder::Bgr,
        resize: Resize::Letterbox { pad: 114 },
        mean: [103.53, 116.28, 123.675],
        std: [57.375, 57.12, 58.395],
    }
}

fn picture(width: u32, height: u32) -> Picture {
    Picture {
        size: Size { width, height },
        matrix: ColourMatrix::Bt601,
        range: ColourRange::Limited,
    }
}

/// Largest difference in grey levels, checked against what the type allows.
fn hold(input: &InputSpec, picture: &Picture, region: Rect) -> f64 {
    let nv12 = frame(picture.size, picture.size.width * 31 + picture.size.height);
    let expected = oracle::preprocess(input, picture, region, &nv12).unwrap();
    let mut results = Vec::new();
    for mut preprocessor in [Preprocessor::new(input), Preprocessor::portable(input)] {
        let mut batch = BatchTensor::new(input);
        batch.resize(3);
        preprocessor.run(picture, region, &nv12, &mut batch, 1).unwrap();
        results.push(batch);
    }
    assert_eq!(results[0], results[1], "vector and portable arithmetic differ");
    let got = results[0].member_f64(1);
    assert_eq!(got.len(), expected.len());
    let channels = input.size.width as usize * input.size.height as usize;
    let mut worst = 0f64;
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let channel = match input.layout {
            Layout::Nchw => i / channels,
            Layout::Nhwc => i % 3,
        };
        let (std, rounding) = match input.dtype {
            DType::F32 => (f64::from(input.std[channel]), 0.0),
            DType::F16 => (f64::from(input.std[channel]), expected.abs() / 2048.0 + 1e-7),
            DType::U8 => (1.0, 0.5),
        };
        let off = ((got - expected).abs() - rounding).max(0.0) * std;
        assert!(
            off <= TOLERANCE,
            "{input:?} {picture:?} {region:?}: number {i} is {got}, not {expected}"
        );
        worst = worst.max(off);
    }
    // The members beside it are untouched.
    assert!(results[0].member_f64(0).iter().chain(&results[0].member_f64(2)).all(|v| *v == 0.0));
    worst
}

const SIZES: [(u32, u32); 10] = [
    (768, 576),
    (1920, 1080),
    (640, 360),
    (416, 416),
    (4, 4),
    (6, 1000),
    (1000, 6),
    (354, 290),
    (322, 242),
    (130, 98),
];

#[test]
fn sizes_and_fits() {
    let mut worst = 0f64;
    for (width, height) in SIZES {
        for resize in [Resize::Letterbox { pad: 114 }, Resize::Stretch, Resize::Crop] {
            let input = InputSpec { resize, ..spec() };
            worst = worst.max(hold(&input, &picture(width, height), Rect::WHOLE));
        }
    }
    for (width, height) in [(33, 65), (1, 1), (7, 3), (320, 192)] {
        let input = InputSpec { size: Size { width, height }, ..spec() };
        worst = worst.max(hold(&input, &picture(354, 290), Rect::WHOLE));
    }
    println!("largest difference {worst:.2e} grey levels, allowed {TOLERANCE:.0e}");
    assert!(worst > 0.0, "an oracle that shares the code proves nothing");
}

#[test]
fn colours() {
    let input = InputSpec { size: Size { width: 97, height: 61 }, ..spec() };
    let matrices =
        [ColourMatrix::Unspecified, ColourMatrix::Bt601, ColourMatrix::Bt709, ColourMatrix::Bt2020];
    for matrix in matrices {
        for range in [ColourRange::Unspecified, ColourRange::Limited, ColourRange::Full] {
            for (width, height) in [(160, 120), (160, 720)] {
                let size = Size { width, height };
                hold(&input, &Picture { size, matrix, range }, Rect::WHOLE);
            }
        }
    }
}

#[test]
fn layouts_types_and_orders() {
    for layout in [Layout::Nchw, Layout::Nhwc] {
        for dtype in [DType::F32, DType::F16, DType::U8] {
            for colour in [ColourOrder::Rgb, ColourOrder::Bgr] {
                for (mean, std) in [([0.0; 3], [255.0; 3]), ([127.5; 3], [127.5; 3])] {
                    let size = Size { width: 96, height: 64 };
                    let input = InputSpec { size, layout, dtype, colour, mean, std, ..spec() };
                    hold(&input, &picture(354, 290), Rect::WHOLE);
                }
            }
        }
    }
}

#[test]
fn regions() {
    let input = InputSpec { size: Size { width: 192, height: 160 }, ..spec() };
    let regions = [
        (0.0, 0.0, 0.5, 0.5),
        (0.5, 0.5, 1.0, 1.0),
        (0.101, 0.333, 0.345, 0.9),
        (0.0, 0.9, 1.0, 1.0),
        (0.2, 0.2, 0.2031, 0.2045),
    ];
    for (x1, y1, x2, y2) in regions {
        for resize in [Resize::Letterbox { pad: 0 }, Resize::Stretch, Resize::Crop] {
            let input = InputSpec { resize, ..input.clone() };
            hold(&input, &picture(768, 576), Rect { x1, y1, x2, y2 });
        }
    }
}

#[test]
fn one_preprocessor_serves_changing_frames() {
    let input = InputSpec { size: Size { width: 64, height: 48 }, ..spec() };
    let mut shared = Preprocessor::new(&input);
    let mut batch = BatchTensor::new(&input);
    batch.resize(1);
    let small = Rect { x1: 0.25, y1: 0.25, x2: 0.75, y2: 0.5 };
    // More sizes than tables are kept, twice over, with regions between.
    for round in 0..2 {
        for i in 0..20 {
            let picture = picture(40 + 2 * i, 60 - 2 * i);
            let nv12 = frame(picture.size, round * 100 + i);
            for region in [Rect::WHOLE, small] {
                let fit = shared.run(&picture, region, &nv12, &mut batch, 0).unwrap();
                let expected = oracle::preprocess(&input, &picture, region, &nv12).unwrap();
                assert_eq!(fit.frame, picture.size);
                for (got, expected) in batch.member_f64(0).iter().zip(&expected) {
                    assert!((got - expected).abs() * 58.0 <= TOLERANCE, "{got} {expected}");
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_converted_is_refused() {
    let input = spec();
    let mut preprocessor = Preprocessor::new(&input);
    let mut batch = BatchTensor::new(&input);
    batch.resize(1);
    let good = picture(64, 48);
    let nv12 = frame(good.size, 1);
    let mut run = |picture: &Picture, region: Rect, bytes: &[u8], member: usize| {
        preprocessor.run(picture, region, bytes, &mut batch, member).map(|_| ()).unwrap_err()
    };
    for (width, height) in [(0, 48), (65, 48), (2, 48), (64, 2), (16384, 48)] {
        let error = run(&picture(width, height), Rect::WHOLE, &nv12, 0);
        assert!(matches!(error, PreprocessError::Size(_)), "{error}");
    }
    let error = run(&good, Rect::WHOLE, &nv12[1..], 0);
    assert_eq!(error.to_string(), "frame buffer holds 4607 bytes, the picture has 4608");
    let error = run(&good, Rect { x1: 0.5, x2: 0.5, ..Rect::WHOLE }, &nv12, 0);
    assert!(matches!(error, PreprocessError::Fit(_)), "{error}");
    let error = run(&good, Rect::WHOLE, &nv12, 1);
    assert_eq!(error.to_string(), "batch of 1 has no member 1");
}
