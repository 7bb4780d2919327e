//! How a frame, or a region of it, lies in a model's input.

use base::model::Resize;
use base::{Rect, Size};

/// Why a region cannot be fitted.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum FitError {
    /// A side is zero.
    #[error("{what} of {}x{} pixels has no area", size.width, size.height)]
    Empty {
        /// Frame or input.
        what: &'static str,
        /// Its size.
        size: Size,
    },
    /// The region is not within the frame or smaller than one pixel.
    #[error("region {region:?} is not within the frame or smaller than one pixel of it")]
    Region {
        /// The region.
        region: Rect,
    },
}

/// A rectangle of the frame and the rectangle of the input that shows it. Copy it beside a batch
/// to bring boxes back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// The frame.
    pub frame: Size,
    /// The model's input.
    pub input: Size,
    /// What of the frame the model may speak of; with [`Resize::Crop`] it sees less.
    pub region: Rect,
    /// Left edge of what is shown, frame pixels.
    pub source_x: f64,
    /// Top edge of what is shown, frame pixels.
    pub source_y: f64,
    /// Width of what is shown, frame pixels.
    pub source_width: f64,
    /// Height of what is shown, frame pixels.
    pub source_height: f64,
    /// First column of the input that shows it; the columns before are padding.
    pub x: u32,
    /// First row of the input that shows it.
    pub y: u32,
    /// Columns that show it.
    pub width: u32,
    /// Rows that show it.
    pub height: u32,
}

impl Fit {
    /// Fits `region` of a frame into `input`.
    ///
    /// Letterbox: scale = min of both ratios, sides rounded half to even, centred, the odd pixel of
    /// padding goes right and below. Crop: scale = max of both ratios, the middle is kept.
    ///
    /// # Errors
    /// [`FitError`] when a side is zero or the region is outside or below one pixel.
    pub fn new(frame: Size, region: Rect, input: Size, resize: Resize) -> Result<Fit, FitError> {
        for (what, size) in [("frame", frame), ("input", input)] {
            if size.width == 0 || size.height == 0 {
                return Err(FitError::Empty { what, size });
            }
        }
        let (frame_w, frame_h) = (f64::from(frame.width), f64::from(frame.height));
        let (input_w, input_h) = (f64::from(input.width), f64::from(input.height));
        let (x1, y1) = (f64::from(region.x1) * frame_w, f64::from(region.y1) * frame_h);
        let (x2, y2) = (f64::from(region.x2) * frame_w, f64::from(region.y2) * frame_h);
        let (w, h) = (x2 - x1, y2 - y1);
        if !region.valid() || w < 1.0 || h < 1.0 {
            return Err(FitError::Region { region });
        }
        let mut fit = Fit {
            frame,
            input,
            region,
            source_x: x1,
            source_y: y1,
            source_width: w,
            source_height: h,
            x: 0,
            y: 0,
            width: input.width,
            height: input.height,
        };
        match resize {
            Resize::Stretch => {}
            Resize::Letterbox { .. } => {
                let scale = (input_w / w).min(input_h / h);
                fit.width = ((w * scale).round_ties_even() as u32).clamp(1, input.width);
                fit.height = ((h * scale).round_ties_even() as u32).clamp(1, input.height);
                fit.x = (input.width - fit.width) / 2;
                fit.y = (input.height - fit.height) / 2;
            }
            Resize::Crop => {
                let scale = (input_w / w).max(input_h / h);
                fit.source_width = (input_w / scale).min(w);
                fit.source_height = (input_h / scale).min(h);
                fit.source_x = x1 + (w - fit.source_width) / 2.0;
                fit.source_y = y1 + (h - fit.source_height) / 2.0;
            }
        }
        Ok(fit)
    }

    /// A point in pixels of the input, relative to the frame, not clipped.
    pub fn point_to_frame(&self, x: f64, y: f64) -> (f64, f64) {
        let u = (x - f64::from(self.x)) / f64::from(self.width);
        let v = (y - f64::from(self.y)) / f64::from(self.height);
        (
            (self.source_x + u * self.source_width) / f64::from(self.frame.width),
            (self.source_y + v * self.source_height) / f64::from(self.frame.height),
        )
    }

    /// A box `x1 y1 x2 y2` in pixels of the input, relative to the frame and clipped to the region.
    /// `None` when a corner is not finite or nothing of the box lies in the region.
    pub fn box_to_frame(&self, corners: [f64; 4]) -> Option<Rect> {
        if !corners.iter().all(|c| c.is_finite()) {
            return None;
        }
        let (x1, y1) = self.point_to_frame(corners[0], corners[1]);
        let (x2, y2) = self.point_to_frame(corners[2], corners[3]);
        let within = |v: f64, low: f32, high: f32| (v as f32).clamp(low, high);
        let region = self.region;
        let rect = Rect {
            x1: within(x1, region.x1, region.x2),
            y1: within(y1, region.y1, region.y2),
            x2: within(x2, region.x1, region.x2),
            y2: within(y2, region.y1, region.y2),
        };
        (rect.x1 < rect.x2 && rect.y1 < rect.y2).then_some(rect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAD: Resize = Resize::Letterbox { pad: 114 };
    const INPUT: Size = Size { width: 416, height: 416 };

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn letterbox_is_centred_and_boxes_come_back() {
        let fit = Fit::new(size(768, 576), Rect::WHOLE, INPUT, PAD).unwrap();
        assert_eq!((fit.x, fit.y, fit.width, fit.height), (0, 52, 416, 312));
        let rect = fit.box_to_frame([104.0, 52.0, 208.0, 208.0]).unwrap();
        assert_eq!(rect, Rect { x1: 0.25, y1: 0.0, x2: 0.5, y2: 0.5 });
        // What sticks out is cut, what lies in the bars or is no number is nothing.
        let rect = fit.box_to_frame([-10.0, 0.0, 500.0, 400.0]).unwrap();
        assert_eq!(rect, Rect::WHOLE);
        assert_eq!(fit.box_to_frame([0.0, 0.0, 416.0, 50.0]), None);
        assert_eq!(fit.box_to_frame([0.0, f64::NAN, 416.0, 200.0]), None);
        assert_eq!(fit.box_to_frame([200.0, 100.0, 100.0, 200.0]), None);
    }

    #[test]
    fn every_corner_of_the_shown_part_maps_to_itself() {
        let region = Rect { x1: 0.1, y1: 0.25, x2: 0.7, y2: 0.5 };
        for resize in [PAD, Resize::Stretch, Resize::Crop] {
            let fit = Fit::new(size(1920, 1080), region, size(320, 192), resize).unwrap();
            let (x, y) = fit.point_to_frame(f64::from(fit.x), f64::from(fit.y));
            assert!((x * 1920.0 - fit.source_x).abs() < 1e-9);
            assert!((y * 1080.0 - fit.source_y).abs() < 1e-9);
            let end = (f64::from(fit.x + fit.width), f64::from(fit.y + fit.height));
            let (x, y) = fit.point_to_frame(end.0, end.1);
            assert!((x * 1920.0 - fit.source_x - fit.source_width).abs() < 1e-9);
            assert!((y * 1080.0 - fit.source_y - fit.source_height).abs() < 1e-9);
        }
        let crop = Fit::new(size(1920, 1080), Rect::WHOLE, INPUT, Resize::Crop).unwrap();
        assert_eq!((crop.source_x, crop.source_width), (420.0, 1080.0));
    }

    #[test]
    fn boxes_end_where_the_region_does() {
        let region = Rect { x1: 0.25, y1: 0.5, x2: 0.75, y2: 0.75 };
        for resize in [PAD, Resize::Stretch, Resize::Crop] {
            let fit = Fit::new(size(800, 800), region, INPUT, resize).unwrap();
            assert_eq!(fit.box_to_frame([-9e3, -9e3, 9e3, 9e3]), Some(region));
            assert_eq!(fit.box_to_frame([-9e3, -9e3, -8e3, 9e3]), None);
        }
        // In the bars of the letterbox lies nothing, although the frame goes on there.
        let fit = Fit::new(size(800, 800), region, INPUT, PAD).unwrap();
        assert_eq!((fit.y, fit.height), (104, 208));
        assert_eq!(fit.box_to_frame([0.0, 0.0, 416.0, 100.0]), None);
        let rect = fit.box_to_frame([104.0, 52.0, 208.0, 208.0]).unwrap();
        assert_eq!(rect, Rect { x1: 0.375, y1: 0.5, x2: 0.5, y2: 0.625 });
    }

    #[test]
    fn impossible_regions_are_refused() {
        let none = Rect { x1: 0.5, y1: 0.5, x2: 0.5, y2: 0.9 };
        assert!(matches!(
            Fit::new(size(64, 64), none, INPUT, PAD),
            Err(FitError::Region { region }) if region == none
        ));
        let outside = Rect { x2: 1.5, ..Rect::WHOLE };
        assert!(Fit::new(size(64, 64), outside, INPUT, PAD).is_err());
        assert!(Fit::new(size(0, 64), Rect::WHOLE, INPUT, PAD).is_err());
    }
}
