//! NV12 to a member of an image batch, on the CPU: crop, resize, colour, normalise, pack, in one
//! pass over the target rows.
//!
//! The runner calls it inside the device token. Values agree with [`crate::oracle`] within
//! [`TOLERANCE`] grey levels (before `/ std`), f16 within half a unit of its last place beyond
//! that, u8 rounded to the nearest. The AVX2 path and the portable one run the same operations in
//! the same order and give the same bits.

mod row;

use crate::colour::Conversion;
use crate::fit::{Fit, FitError};
use crate::tensor::{BatchTensor, TensorData};
use base::model::{ColourOrder, DType, InputSpec, Layout, Resize};
use base::{Picture, Rect, Size};
use half::slice::HalfFloatSliceExt;
use row::{Arithmetic, Axis};

/// Largest difference from the oracle in grey levels of 0..255 (measured: 1e-4 over the
/// conformance test; f32 has 24 bits, a grey level needs 8 of them).
pub const TOLERANCE: f64 = 5e-4;

/// Smallest side of a frame in pixels: two chroma samples, which the two taps of the filter need.
pub const FRAME_SIDE_MIN: u32 = 4;

/// Frame sizes whose tables are kept (chosen: distinct resolutions among the cameras of a node).
const TABLES_MAX: usize = 16;

/// Why a frame could not be converted. The other members of the batch are not touched.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PreprocessError {
    /// The size is not one that NV12 or the filter can hold.
    #[error(
        "frame of {}x{} pixels: both sides have to be even, {FRAME_SIDE_MIN} to {} pixels",
        .0.width, .0.height, base::limits::FRAME_SIDE_MAX
    )]
    Size(Size),
    /// The buffer is not of the size of the picture.
    #[error("frame buffer holds {got} bytes, the picture has {expected}")]
    Buffer {
        /// Bytes given.
        got: usize,
        /// Bytes of the picture.
        expected: usize,
    },
    /// The region cannot be fitted.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// The batch has no such member.
    #[error("batch of {members} has no member {member}")]
    Member {
        /// The member asked for.
        member: usize,
        /// Members of the batch.
        members: usize,
    },
}

/// Tables of one (frame size, region): where each target column and row takes its samples.
#[derive(Debug)]
struct Tables {
    fit: Fit,
    luma_x: Axis,
    luma_y: Axis,
    chroma_x: Axis,
    chroma_y: Axis,
}

impl Tables {
    fn new(fit: Fit) -> Tables {
        let x = |chroma| {
            let (start, len) = (fit.source_x, fit.source_width);
            Axis::new(start, len, fit.width, fit.frame.width, chroma)
        };
        let y = |chroma| {
            let (start, len) = (fit.source_y, fit.source_height);
            Axis::new(start, len, fit.height, fit.frame.height, chroma)
        };
        Tables { fit, luma_x: x(false), luma_y: y(false), chroma_x: x(true), chroma_y: y(true) }
    }
}

/// Converts frames to the input of one model. Keeps tables and scratch memory; one per thread.
///
/// Cost to 416x416 f32 on one thread of an Intel Xeon with AVX2: 0.65 ms for 1920x1080,
/// 0.45 ms for 768x576 (`cargo run -p benches --bin preprocess`); most of it is reading the frame.
#[derive(Debug)]
pub struct Preprocessor {
    size: Size,
    dtype: DType,
    order: ColourOrder,
    resize: Resize,
    scale: [f32; 3],
    bias: [f32; 3],
    pad: [f32; 3],
    arithmetic: Arithmetic,
    tables: Vec<Tables>,
    packed: row::Packed,
    line: [Vec<f32>; 3],
    interleaved: Vec<f32>,
}

impl Preprocessor {
    /// For the input of a model, with the fastest arithmetic that this CPU has.
    pub fn new(input: &InputSpec) -> Preprocessor {
        Preprocessor::with(input, Arithmetic::detect())
    }

    /// The same without any CPU extension beyond the target's baseline.
    pub fn portable(input: &InputSpec) -> Preprocessor {
        Preprocessor::with(input, Arithmetic::Portable)
    }

    fn with(input: &InputSpec, arithmetic: Arithmetic) -> Preprocessor {
        let (mean, std) = match input.dtype {
            DType::U8 => ([0.0; 3], [1.0; 3]),
            DType::F32 | DType::F16 => (input.mean, input.std),
        };
        let grey = match input.resize {
            Resize::Letterbox { pad } => f64::from(pad),
            Resize::Stretch | Resize::Crop => 0.0,
        };
        let channel = |f: &dyn Fn(f64, f64) -> f64| {
            [0, 1, 2].map(|c| f(f64::from(mean[c]), f64::from(std[c])) as f32)
        };
        Preprocessor {
            size: input.size,
            dtype: input.dtype,
            order: input.colour,
            resize: input.resize,
            scale: channel(&|_, std| 1.0 / std),
            bias: channel(&|mean, std| -mean / std),
            pad: channel(&|mean, std| (grey - mean) / std),
            arithmetic,
            tables: Vec::new(),
            packed: row::Packed::default(),
            line: Default::default(),
            interleaved: Vec::new(),
        }
    }

    /// Writes `region` of a frame into image `member` of `batch`, padding included.
    ///
    /// `nv12` is `H` rows of luma, then `H / 2` rows of interleaved CbCr, no padding between rows.
    /// Bilinear with half-pixel centres and no low-pass filter, chroma sited in the centre of four
    /// luma samples, edges repeated; then colour matrix and range of the picture, clipped to
    /// 0..255, `(value - mean) / std` in the channel order of the model.
    ///
    /// # Errors
    /// [`PreprocessError`]; the member's numbers are then undefined, the others are kept.
    ///
    /// # Panics
    /// When `batch` was made for another input.
    pub fn run(
        &mut self,
        picture: &Picture,
        region: Rect,
        nv12: &[u8],
        batch: &mut BatchTensor,
        member: usize,
    ) -> Result<Fit, PreprocessError> {
        let size = picture.size;
        if !size.valid_nv12() || size.width.min(size.height) < FRAME_SIDE_MIN {
            return Err(PreprocessError::Size(size));
        }
        if nv12.len() != size.nv12_bytes() {
            let (got, expected) = (nv12.len(), size.nv12_bytes());
            return Err(PreprocessError::Buffer { got, expected });
        }
        if member >= batch.members() {
            return Err(PreprocessError::Member { member, members: batch.members() });
        }
        let (layout, len) = (batch.layout(), batch.member_len());
        assert_eq!(len, 3 * self.size.width as usize * self.size.height as usize);
        let range = member * len..(member + 1) * len;
        let tables = self.tables(size, region)?;
        let colour = row::Colour::new(&Conversion::of(picture), self.order, self.scale, self.bias);
        let fit = match batch.data_mut() {
            TensorData::F32(data) => {
                assert_eq!(self.dtype, DType::F32);
                self.member(tables, &colour, nv12, layout, &mut data[range], |from, to| {
                    to.copy_from_slice(from);
                })
            }
            TensorData::F16(data) => {
                assert_eq!(self.dtype, DType::F16);
                self.member(tables, &colour, nv12, layout, &mut data[range], |from, to| {
                    to.convert_from_f32_slice(from);
                })
            }
            TensorData::U8(data) => {
                assert_eq!(self.dtype, DType::U8);
                self.member(tables, &colour, nv12, layout, &mut data[range], |from, to| {
                    // 2^23 has no bits below one: adding it rounds, and the low byte is the value.
                    // Unlike a saturating cast this compiles to vectors.
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = (from + 8_388_608.0).to_bits() as u8;
                    }
                })
            }
        };
        Ok(fit)
    }

    /// Index of the tables for this size and region, made when they are not there. Whole frames
    /// are kept, the oldest goes first; the one of a region is replaced by the next region.
    fn tables(&mut self, frame: Size, region: Rect) -> Result<usize, PreprocessError> {
        let fit = Fit::new(frame, region, self.size, self.resize)?;
        if let Some(index) = self.tables.iter().position(|t| t.fit == fit) {
            return Ok(index);
        }
        let whole = Fit::new(frame, Rect::WHOLE, self.size, self.resize)?;
        let stale =
            |t: &Tables| Fit::new(t.fit.frame, Rect::WHOLE, self.size, self.resize) != Ok(t.fit);
        let place = if fit == whole { None } else { self.tables.iter().position(stale) };
        match place {
            Some(index) => {
                self.tables[index] = Tables::new(fit);
                Ok(index)
            }
            None => {
                if self.tables.len() == TABLES_MAX {
                    self.tables.remove(0);
                }
                self.tables.push(Tables::new(fit));
                Ok(self.tables.len() - 1)
            }
        }
    }

    fn member<T: Copy + 'static>(
        &mut self,
        tables: usize,
        colour: &row::Colour,
        nv12: &[u8],
        layout: Layout,
        out: &mut [T],
        convert: impl Fn(&[f32], &mut [T]),
    ) -> Fit {
        let Preprocessor { tables: all, packed, line, interleaved, arithmetic, pad, .. } = self;
        let tables = &all[tables];
        let fit = tables.fit;
        let (columns, rows) = (fit.input.width as usize, fit.input.height as usize);
        let (left, width) = (fit.x as usize, fit.width as usize);
        let (top, height) = (fit.y as usize, fit.height as usize);
        let frame_width = fit.frame.width as usize;
        let (luma, chroma) = nv12.split_at(frame_width * fit.frame.height as usize);

        // The three lines hold a whole target row: bars left and right stay, the middle changes.
        for (line, pad) in line.iter_mut().zip(*pad) {
            line.clear();
            line.resize(columns, pad);
        }
        interleaved.resize(3 * columns, 0.0);
        packed.begin(width);
        let mut changed = true;
        for row in (0..top).chain(top + height..rows).chain(top..top + height) {
            if row >= top && row < top + height {
                let (luma_y, chroma_y) = (&tables.luma_y, &tables.chroma_y);
                let at = row - top;
                packed.luma(luma, frame_width, luma_y.index[at] as usize, &tables.luma_x);
                packed.chroma(chroma, frame_width, chroma_y.index[at] as usize, &tables.chroma_x);
                let [a, b, c] = &mut *line;
                arithmetic.row(
                    packed,
                    [&tables.luma_x.weight, &tables.chroma_x.weight],
                    [luma_y.weight[at], chroma_y.weight[at]],
                    colour,
                    [
                        &mut a[left..left + width],
                        &mut b[left..left + width],
                        &mut c[left..left + width],
                    ],
                );
                changed = true;
            }
            match layout {
                Layout::Nchw => {
                    for (channel, line) in line.iter().enumerate() {
                        let start = (channel * rows + row) * columns;
                        convert(line, &mut out[start..start + columns]);
                    }
                }
                Layout::Nhwc => {
                    if changed {
                        row::interleave(line.each_ref().map(Vec::as_slice), interleaved);
                        changed = false;
                    }
                    let start = row * columns * 3;
                    convert(interleaved, &mut out[start..start + 3 * columns]);
                }
            }
        }
        fit
    }
}
