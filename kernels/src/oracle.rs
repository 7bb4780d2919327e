//! The same conversion as [`crate::Preprocessor`], one pixel at a time in f64, as the formulas read.
//!
//! Slow on purpose: no table, no SIMD, nothing shared with the fast path but [`Fit`] and
//! [`Conversion`]. Tests hold every fast path against it, and so can a new one on another device.

use crate::colour::Conversion;
use crate::fit::{Fit, FitError};
use base::model::{ColourOrder, DType, InputSpec, Layout, Resize};
use base::{Picture, Rect};

/// One image of the batch, `3 * H * W` numbers in the order of the layout. For u8 inputs the value
/// before rounding, 0..255.
///
/// # Errors
/// [`FitError`] when the region cannot be fitted.
///
/// # Panics
/// When `nv12` is shorter than the picture.
pub fn preprocess(
    input: &InputSpec,
    picture: &Picture,
    region: Rect,
    nv12: &[u8],
) -> Result<Vec<f64>, FitError> {
    let fit = Fit::new(picture.size, region, input.size, input.resize)?;
    let (width, height) = (picture.size.width as usize, picture.size.height as usize);
    let (luma, chroma) = nv12.split_at(width * height);
    let y_at = |x: usize, y: usize| f64::from(luma[y * width + x]);
    let u_at = |x: usize, y: usize| f64::from(chroma[y * width + 2 * x]);
    let v_at = |x: usize, y: usize| f64::from(chroma[y * width + 2 * x + 1]);
    let conversion = Conversion::of(picture);
    let pad = match input.resize {
        Resize::Letterbox { pad } => f64::from(pad),
        Resize::Stretch | Resize::Crop => 0.0,
    };

    let (columns, rows) = (input.size.width as usize, input.size.height as usize);
    let mut tensor = vec![0.0; 3 * columns * rows];
    for row in 0..rows {
        for column in 0..columns {
            let inside = (fit.x as usize..(fit.x + fit.width) as usize).contains(&column)
                && (fit.y as usize..(fit.y + fit.height) as usize).contains(&row);
            let rgb = if inside {
                let step_x = fit.source_width / f64::from(fit.width);
                let step_y = fit.source_height / f64::from(fit.height);
                let x = fit.source_x + (column as f64 - f64::from(fit.x) + 0.5) * step_x - 0.5;
                let y = fit.source_y + (row as f64 - f64::from(fit.y) + 0.5) * step_y - 0.5;
                // A chroma sample sits in the centre of four luma samples.
                let (cx, cy) = ((x + 0.5) / 2.0 - 0.5, (y + 0.5) / 2.0 - 0.5);
                let luma = bilinear(y_at, width, height, x, y);
                let u = bilinear(u_at, width / 2, height / 2, cx, cy) - 128.0;
                let v = bilinear(v_at, width / 2, height / 2, cx, cy) - 128.0;
                let l = conversion.luma * (luma - conversion.offset);
                [
                    l + conversion.red_v * v,
                    l + conversion.green_u * u + conversion.green_v * v,
                    l + conversion.blue_u * u,
                ]
                .map(|c| c.clamp(0.0, 255.0))
            } else {
                [pad; 3]
            };
            for channel in 0..3 {
                let value = match input.colour {
                    ColourOrder::Rgb => rgb[channel],
                    ColourOrder::Bgr => rgb[2 - channel],
                };
                let value = match input.dtype {
                    DType::U8 => value,
                    DType::F32 | DType::F16 => {
                        (value - f64::from(input.mean[channel])) / f64::from(input.std[channel])
                    }
                };
                let place = match input.layout {
                    Layout::Nchw => (channel * rows + row) * columns + column,
                    Layout::Nhwc => (row * columns + column) * 3 + channel,
                };
                tensor[place] = value;
            }
        }
    }
    Ok(tensor)
}

fn bilinear(at: impl Fn(usize, usize) -> f64, width: usize, height: usize, x: f64, y: f64) -> f64 {
    let clamp = |v: f64, len: usize| (v.max(0.0) as usize).min(len - 1);
    let (x0, y0) = (clamp(x.floor(), width), clamp(y.floor(), height));
    let (x1, y1) = (clamp(x.floor() + 1.0, width), clamp(y.floor() + 1.0, height));
    let (tx, ty) = (x - x.floor(), y - y.floor());
    let top = at(x0, y0) * (1.0 - tx) + at(x1, y0) * tx;
    let bottom = at(x0, y1) * (1.0 - tx) + at(x1, y1) * tx;
    top * (1.0 - ty) + bottom * ty
}
