//! From Y'CbCr samples to R'G'B' in 0..255.

use base::{ColourMatrix, ColourRange, Picture};

/// Lines from which a stream that does not name its matrix is taken for BT.709 (chosen, as players
/// do: high definition is 709).
pub const BT709_LINES: u32 = 720;

/// Linear conversion: `l = luma * (Y - offset)`, `R = l + red_v * V`, `G = l + green_u * U +
/// green_v * V`, `B = l + blue_u * U`, with `U = Cb - 128`, `V = Cr - 128`, all in 0..255.
/// Source: ITU-R BT.601, BT.709, BT.2020 (non-constant luminance); ranges by ITU-T H.273.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conversion {
    /// Sample value of black.
    pub offset: f64,
    /// Gain of luma.
    pub luma: f64,
    /// Cr to red.
    pub red_v: f64,
    /// Cb to green.
    pub green_u: f64,
    /// Cr to green.
    pub green_v: f64,
    /// Cb to blue.
    pub blue_u: f64,
}

impl Conversion {
    /// What a picture says of itself; unspecified = limited range, BT.601 below
    /// [`BT709_LINES`] lines, else BT.709.
    pub fn of(picture: &Picture) -> Conversion {
        let (kr, kb) = match picture.matrix {
            ColourMatrix::Bt601 => (0.299, 0.114),
            ColourMatrix::Bt709 => (0.2126, 0.0722),
            ColourMatrix::Bt2020 => (0.2627, 0.0593),
            ColourMatrix::Unspecified if picture.size.height < BT709_LINES => (0.299, 0.114),
            ColourMatrix::Unspecified => (0.2126, 0.0722),
        };
        let (offset, luma, chroma) = match picture.range {
            ColourRange::Full => (0.0, 1.0, 1.0),
            ColourRange::Limited | ColourRange::Unspecified => (16.0, 255.0 / 219.0, 255.0 / 224.0),
        };
        let kg = 1.0 - kr - kb;
        Conversion {
            offset,
            luma,
            red_v: 2.0 * (1.0 - kr) * chroma,
            green_u: -2.0 * (1.0 - kb) * kb / kg * chroma,
            green_v: -2.0 * (1.0 - kr) * kr / kg * chroma,
            blue_u: 2.0 * (1.0 - kb) * chroma,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Size;

    fn conversion(matrix: ColourMatrix, range: ColourRange, height: u32) -> Conversion {
        Conversion::of(&Picture { size: Size { width: 64, height }, matrix, range })
    }

    #[test]
    fn bt601_limited_is_the_textbook_matrix() {
        let c = conversion(ColourMatrix::Bt601, ColourRange::Limited, 576);
        for (is, book) in [
            (c.luma, 1.164383),
            (c.red_v, 1.596027),
            (c.green_u, -0.391762),
            (c.green_v, -0.812968),
            (c.blue_u, 2.017232),
        ] {
            assert!((is - book).abs() < 1e-6, "{is} is not {book}");
        }
        let c = conversion(ColourMatrix::Bt601, ColourRange::Full, 576);
        assert!((c.red_v - 1.402).abs() < 1e-9 && (c.blue_u - 1.772).abs() < 1e-9);
        let c = conversion(ColourMatrix::Bt709, ColourRange::Limited, 576);
        assert!((c.red_v - 1.792741).abs() < 1e-6 && (c.blue_u - 2.112402).abs() < 1e-6);
    }

    #[test]
    fn unspecified_is_limited_and_goes_by_lines() {
        let (matrix, range) = (ColourMatrix::Unspecified, ColourRange::Unspecified);
        let sd = conversion(ColourMatrix::Bt601, ColourRange::Limited, 718);
        let hd = conversion(ColourMatrix::Bt709, ColourRange::Limited, 720);
        assert_eq!(conversion(matrix, range, 718), sd);
        assert_eq!(conversion(matrix, range, 720), hd);
    }
}
