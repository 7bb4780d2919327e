//! One target row: gather the taps, then straight-line arithmetic that the compiler vectorises.
//!
//! Gathering packs the four luma bytes of a target pixel into one u32, and two chroma samples of
//! one source row into another, so that the arithmetic reads contiguous memory only.

use crate::colour::Conversion;
use base::model::ColourOrder;

/// Where every target column (or row) takes its two samples: `index` and `index + 1`, weight of
/// the second. Edges are repeated by moving the index inwards with a weight of 0 or 1.
#[derive(Debug)]
pub(super) struct Axis {
    pub index: Vec<u32>,
    pub weight: Vec<f32>,
}

impl Axis {
    /// `source` pixels of the frame from `start`, spread over `target` places. `frame` = pixels of
    /// the whole frame along this axis; the chroma plane has half of them.
    pub fn new(start: f64, source: f64, target: u32, frame: u32, chroma: bool) -> Axis {
        let step = source / f64::from(target);
        let samples = if chroma { frame / 2 } else { frame };
        assert!(samples >= 2, "{samples} samples are too few for two taps");
        let last = samples - 2;
        let places = (0..target).map(|i| {
            let luma = start + (f64::from(i) + 0.5) * step - 0.5;
            let at = if chroma { (luma + 0.5) / 2.0 - 0.5 } else { luma };
            let floor = at.floor();
            if floor < 0.0 {
                (0, 0.0)
            } else if floor > f64::from(last) {
                (last, 1.0)
            } else {
                (floor as u32, (at - floor) as f32)
            }
        });
        let (index, weight) = places.unzip();
        Axis { index, weight }
    }
}

/// Coefficients in f32, channels in the order of the model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Colour {
    offset: f32,
    luma: f32,
    u: [f32; 3],
    v: [f32; 3],
    scale: [f32; 3],
    bias: [f32; 3],
}

impl Colour {
    pub fn new(c: &Conversion, order: ColourOrder, scale: [f32; 3], bias: [f32; 3]) -> Colour {
        let mut u = [0.0, c.green_u as f32, c.blue_u as f32];
        let mut v = [c.red_v as f32, c.green_v as f32, 0.0];
        if order == ColourOrder::Bgr {
            u.reverse();
            v.reverse();
        }
        Colour { offset: c.offset as f32, luma: c.luma as f32, u, v, scale, bias }
    }
}

/// The taps of one target row.
#[derive(Debug, Default)]
pub(super) struct Packed {
    /// Upper left, upper right, lower left, lower right luma, from the lowest byte.
    luma: Vec<u32>,
    luma_row: Option<usize>,
    /// Left Cb, left Cr, right Cb, right Cr of the upper source row.
    upper: Vec<u32>,
    /// The same of the lower source row.
    lower: Vec<u32>,
    chroma_row: Option<usize>,
}

impl Packed {
    /// Starts a frame whose rows have `width` target pixels.
    pub fn begin(&mut self, width: usize) {
        for taps in [&mut self.luma, &mut self.upper, &mut self.lower] {
            taps.resize(width, 0);
        }
        (self.luma_row, self.chroma_row) = (None, None);
    }

    /// Takes source rows `row` and `row + 1` of the luma plane.
    pub fn luma(&mut self, plane: &[u8], stride: usize, row: usize, x: &Axis) {
        if self.luma_row == Some(row) {
            return;
        }
        self.luma_row = Some(row);
        let (upper, lower) = plane[row * stride..(row + 2) * stride].split_at(stride);
        let pair = |row: &[u8], at: usize| {
            let two: [u8; 2] = row[at..at + 2].try_into().expect("a slice of two bytes");
            u32::from(u16::from_le_bytes(two))
        };
        for (taps, index) in self.luma.iter_mut().zip(&x.index) {
            let at = *index as usize;
            *taps = pair(upper, at) | pair(lower, at) << 16;
        }
    }

    /// Takes source rows `row` and `row + 1` of the chroma plane. Rows that the last call took are
    /// not read again.
    pub fn chroma(&mut self, plane: &[u8], stride: usize, row: usize, x: &Axis) {
        if self.chroma_row == Some(row) {
            return;
        }
        if self.chroma_row.is_some_and(|last| last + 1 == row) {
            std::mem::swap(&mut self.upper, &mut self.lower);
        } else {
            pack_chroma(&mut self.upper, &plane[row * stride..][..stride], x);
        }
        pack_chroma(&mut self.lower, &plane[(row + 1) * stride..][..stride], x);
        self.chroma_row = Some(row);
    }
}

fn pack_chroma(taps: &mut [u32], row: &[u8], x: &Axis) {
    for (taps, index) in taps.iter_mut().zip(&x.index) {
        let at = 2 * *index as usize;
        let four: [u8; 4] = row[at..at + 4].try_into().expect("a slice of four bytes");
        *taps = u32::from_le_bytes(four);
    }
}

/// Which instructions the arithmetic may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// The baseline of the target.
    Portable,
    /// 256-bit integer and float vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Arithmetic {
    /// The best of this CPU.
    pub fn detect() -> Arithmetic {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            return Arithmetic::Avx2;
        }
        Arithmetic::Portable
    }

    /// Turns taps into three rows of normalised channels.
    pub fn row(
        self,
        packed: &Packed,
        x: [&[f32]; 2],
        y: [f32; 2],
        colour: &Colour,
        out: [&mut [f32]; 3],
    ) {
        match self {
            Arithmetic::Portable => row(packed, x, y, colour, out),
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Avx2 => {
                // SAFETY: `detect` is the only maker of this variant and saw that the CPU has AVX2.
                unsafe { row_avx2(packed, x, y, colour, out) }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn row_avx2(packed: &Packed, x: [&[f32]; 2], y: [f32; 2], colour: &Colour, out: [&mut [f32]; 3]) {
    row(packed, x, y, colour, out);
}

#[inline(always)]
fn row(packed: &Packed, x: [&[f32]; 2], y: [f32; 2], colour: &Colour, out: [&mut [f32]; 3]) {
    let [a, b, c] = out;
    let n = a.len();
    // One length for all, so that the loop below needs no bounds checks.
    let (b, c) = (&mut b[..n], &mut c[..n]);
    let (luma, upper, lower) = (&packed.luma[..n], &packed.upper[..n], &packed.lower[..n]);
    let (luma_x, chroma_x) = (&x[0][..n], &x[1][..n]);
    let [luma_y, chroma_y] = y;
    let byte = |taps: u32, shift: u32| ((taps >> shift) & 255) as i32 as f32;
    let lerp = |from: f32, to: f32, t: f32| from + (to - from) * t;
    for i in 0..n {
        let (l, top, bottom) = (luma[i], upper[i], lower[i]);
        let (tx, cx) = (luma_x[i], chroma_x[i]);
        let luma =
            lerp(lerp(byte(l, 0), byte(l, 8), tx), lerp(byte(l, 16), byte(l, 24), tx), luma_y);
        let u = lerp(
            lerp(byte(top, 0), byte(top, 16), cx),
            lerp(byte(bottom, 0), byte(bottom, 16), cx),
            chroma_y,
        ) - 128.0;
        let v = lerp(
            lerp(byte(top, 8), byte(top, 24), cx),
            lerp(byte(bottom, 8), byte(bottom, 24), cx),
            chroma_y,
        ) - 128.0;
        let grey = colour.luma * (luma - colour.offset);
        let channel = |k: usize| {
            let value = grey + colour.u[k] * u + colour.v[k] * v;
            // Not `clamp`: this order compiles to max and min without a branch.
            let value = if value > 0.0 { value } else { 0.0 };
            let value = if value < 255.0 { value } else { 255.0 };
            value * colour.scale[k] + colour.bias[k]
        };
        a[i] = channel(0);
        b[i] = channel(1);
        c[i] = channel(2);
    }
}

/// Three rows to one row of triples.
pub(super) fn interleave<T: Copy>(lines: [&[T]; 3], out: &mut [T]) {
    let [a, b, c] = lines;
    let n = a.len();
    let (b, c, out) = (&b[..n], &c[..n], &mut out[..3 * n]);
    for i in 0..n {
        out[3 * i] = a[i];
        out[3 * i + 1] = b[i];
        out[3 * i + 2] = c[i];
    }
}
