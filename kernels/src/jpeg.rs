//! NV12 pictures as JPEG.
//!
//! JFIF means BT.601 at full range, so samples of other matrices and ranges are converted. Primaries
//! and transfer curves are left as they are, as browsers do for video.

use base::{ColourMatrix, ColourRange, Picture, Size};
pub use jpeg_encoder::EncodingError;
use jpeg_encoder::{Encoder, ImageBuffer, JpegColorType};

/// Quality for a picture that is looked at and thrown away (chosen: artefacts are hard to see).
const QUALITY: u8 = 80;
/// Fixed point of the conversion.
const SHIFT: u32 = 14;

/// Encodes `pixels`, `w * h` bytes of Y and `w * h / 2` of interleaved CbCr without padding, into
/// `jpeg`, which is cleared first. 4:2:0 stays 4:2:0.
///
/// # Errors
/// Those of the encoder: sizes that JPEG can't express.
pub fn encode(picture: &Picture, pixels: &[u8], jpeg: &mut Vec<u8>) -> Result<(), EncodingError> {
    assert!(pixels.len() >= picture.size.nv12_bytes(), "a picture lacks pixels");
    jpeg.clear();
    let mut encoder = Encoder::new(jpeg, QUALITY);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
    encoder.encode_image(Nv12 { size: picture.size, pixels, to_jfif: Conversion::new(picture) })
}

struct Nv12<'a> {
    size: Size,
    pixels: &'a [u8],
    to_jfif: Conversion,
}

/// `Y' = scale_y (Y - black) + y_cb Cb + y_cr Cr` and so on, with Cb and Cr around zero.
#[derive(Debug, Clone, Copy)]
struct Conversion {
    identity: bool,
    black: i32,
    y: i32,
    y_cb: i32,
    y_cr: i32,
    cb_cb: i32,
    cb_cr: i32,
    cr_cb: i32,
    cr_cr: i32,
}

/// Shares of red and blue in luma (ITU-R BT.601, BT.709, BT.2020).
fn shares(picture: &Picture) -> (f64, f64) {
    match picture.matrix {
        ColourMatrix::Bt601 => (0.299, 0.114),
        ColourMatrix::Bt709 => (0.2126, 0.0722),
        ColourMatrix::Bt2020 => (0.2627, 0.0593),
        ColourMatrix::Unspecified if picture.size.height < 720 => (0.299, 0.114),
        ColourMatrix::Unspecified => (0.2126, 0.0722),
    }
}

impl Conversion {
    fn new(picture: &Picture) -> Conversion {
        let (kr, kb) = shares(picture);
        let full = picture.range == ColourRange::Full;
        let (black, luma, chroma) =
            if full { (0, 1.0, 1.0) } else { (16, 255.0 / 219.0, 255.0 / 224.0) };
        // What one unit of Cb and of Cr adds to R, G and B.
        let kg = 1.0 - kr - kb;
        let cb = [0.0, -2.0 * kb * (1.0 - kb) / kg, 2.0 * (1.0 - kb)];
        let cr = [2.0 * (1.0 - kr), -2.0 * kr * (1.0 - kr) / kg, 0.0];
        let jfif = |[r, g, b]: [f64; 3]| {
            let y = 0.299 * r + 0.587 * g + 0.114 * b;
            [y, (b - y) / 1.772, (r - y) / 1.402]
        };
        let fixed = |v: f64| (v * f64::from(1u32 << SHIFT)).round() as i32;
        let [y_cb, cb_cb, cr_cb] = jfif(cb).map(|v| fixed(v * chroma));
        let [y_cr, cb_cr, cr_cr] = jfif(cr).map(|v| fixed(v * chroma));
        let identity = full && kr == 0.299 && kb == 0.114;
        Conversion { identity, black, y: fixed(luma), y_cb, y_cr, cb_cb, cb_cr, cr_cb, cr_cr }
    }
}

fn rounded(value: i32) -> u8 {
    ((value + (1 << (SHIFT - 1))) >> SHIFT).clamp(0, 255) as u8
}

impl ImageBuffer for Nv12<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.size.width as u16
    }

    fn height(&self) -> u16 {
        self.size.height as u16
    }

    fn fill_buffers(&self, row: u16, buffers: &mut [Vec<u8>; 4]) {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let row = usize::from(row);
        let luma = &self.pixels[row * width..][..width];
        let chroma = &self.pixels[(height + row / 2) * width..][..width];
        let [out_y, out_cb, out_cr, _] = buffers;
        let pairs = luma.chunks_exact(2).zip(chroma.chunks_exact(2));
        if self.to_jfif.identity {
            out_y.extend_from_slice(luma);
            for (_, c) in pairs {
                out_cb.extend([c[0]; 2]);
                out_cr.extend([c[1]; 2]);
            }
            return;
        }
        let k = &self.to_jfif;
        for (l, c) in pairs {
            let (cb, cr) = (i32::from(c[0]) - 128, i32::from(c[1]) - 128);
            let tint = k.y_cb * cb + k.y_cr * cr;
            let y = |v: u8| rounded((i32::from(v) - k.black) * k.y + tint);
            out_y.extend([y(l[0]), y(l[1])]);
            let centre = 128 << SHIFT;
            out_cb.extend([rounded(centre + k.cb_cb * cb + k.cb_cr * cr); 2]);
            out_cr.extend([rounded(centre + k.cr_cb * cb + k.cr_cr * cr); 2]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(picture: Picture, yuv: [u8; 3]) -> [u8; 3] {
        let mut pixels = vec![yuv[0]; 4];
        pixels.extend([yuv[1], yuv[2]]);
        let image =
            Nv12 { size: picture.size, pixels: &pixels, to_jfif: Conversion::new(&picture) };
        let mut buffers = [vec![], vec![], vec![], vec![]];
        image.fill_buffers(1, &mut buffers);
        assert!(buffers[..3].iter().all(|b| b.len() == 2 && b[0] == b[1]));
        [buffers[0][0], buffers[1][0], buffers[2][0]]
    }

    /// R'G'B' in 0..=1 to the nearest code values of a matrix and range.
    fn coded(rgb: [f64; 3], kr: f64, kb: f64, range: ColourRange) -> [u8; 3] {
        let [r, g, b] = rgb;
        let y = kr * r + (1.0 - kr - kb) * g + kb * b;
        let (cb, cr) = ((b - y) / (2.0 * (1.0 - kb)), (r - y) / (2.0 * (1.0 - kr)));
        let (black, luma, chroma) = match range {
            ColourRange::Full => (0.0, 255.0, 255.0),
            _ => (16.0, 219.0, 224.0),
        };
        [black + luma * y, 128.0 + chroma * cb, 128.0 + chroma * cr].map(|v| v.round() as u8)
    }

    #[test]
    fn every_matrix_and_range_becomes_the_same_jfif_colour() {
        let size = Size { width: 2, height: 2 };
        let matrices = [
            (ColourMatrix::Bt601, 0.299, 0.114),
            (ColourMatrix::Bt709, 0.2126, 0.0722),
            (ColourMatrix::Bt2020, 0.2627, 0.0593),
            (ColourMatrix::Unspecified, 0.299, 0.114),
        ];
        let colours =
            [[0.0; 3], [1.0; 3], [0.5; 3], [0.8, 0.2, 0.1], [0.1, 0.7, 0.3], [0.2, 0.3, 0.9]];
        for (matrix, kr, kb) in matrices {
            for range in [ColourRange::Full, ColourRange::Limited, ColourRange::Unspecified] {
                for rgb in colours {
                    let want = coded(rgb, 0.299, 0.114, ColourRange::Full);
                    let got = row(Picture { size, matrix, range }, coded(rgb, kr, kb, range));
                    let close = got.iter().zip(want).all(|(a, b)| a.abs_diff(b) <= 2);
                    assert!(close, "{matrix:?} {range:?} {rgb:?}: {got:?}, expected {want:?}");
                }
            }
        }
    }

    #[test]
    fn unspecified_matrix_depends_on_the_lines() {
        let picture = |height| Picture {
            size: Size { width: 2, height },
            matrix: ColourMatrix::Unspecified,
            range: ColourRange::Unspecified,
        };
        assert_eq!(shares(&picture(576)), (0.299, 0.114));
        assert_eq!(shares(&picture(720)), (0.2126, 0.0722));
    }

    #[test]
    fn a_picture_becomes_a_jpeg_of_its_size() {
        let size = Size { width: 34, height: 18 };
        let picture = Picture { size, matrix: ColourMatrix::Bt709, range: ColourRange::Limited };
        let mut jpeg = vec![1, 2, 3];
        encode(&picture, &vec![90; size.nv12_bytes()], &mut jpeg).unwrap();
        assert_eq!((&jpeg[..2], &jpeg[jpeg.len() - 2..]), (&[0xff, 0xd8][..], &[0xff, 0xd9][..]));
        let start_of_frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        assert_eq!(jpeg[start_of_frame + 5..][..4], [0, 18, 0, 34]);
    }
}
