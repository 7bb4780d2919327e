//! Sizes in pixels and rectangles relative to a frame.

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Size {
    /// Bytes of an NV12 picture of this size without padding: `w * h * 3 / 2`.
    pub const fn nv12_bytes(self) -> usize {
        self.width as usize * self.height as usize * 3 / 2
    }

    /// Whether NV12 can hold it: positive, even, within [`crate::limits::FRAME_SIDE_MAX`].
    pub const fn valid_nv12(self) -> bool {
        self.width > 0
            && self.height > 0
            && self.width.is_multiple_of(2)
            && self.height.is_multiple_of(2)
            && self.width <= crate::limits::FRAME_SIDE_MAX
            && self.height <= crate::limits::FRAME_SIDE_MAX
    }
}

/// A rectangle relative to the frame: origin top left, `0..1` in both directions, corners
/// `x1 <= x2`, `y1 <= y2`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    /// Left.
    pub x1: f32,
    /// Top.
    pub y1: f32,
    /// Right.
    pub x2: f32,
    /// Bottom.
    pub y2: f32,
}

impl Rect {
    /// The whole frame.
    pub const WHOLE: Rect = Rect { x1: 0.0, y1: 0.0, x2: 1.0, y2: 1.0 };

    /// Whether all corners are finite, within `0..=1` and in order.
    pub fn valid(self) -> bool {
        let unit = |v: f32| (0.0..=1.0).contains(&v);
        unit(self.x1)
            && unit(self.y1)
            && unit(self.x2)
            && unit(self.y2)
            && self.x1 <= self.x2
            && self.y1 <= self.y2
    }

    /// Area, in the square of the unit of the corners.
    pub fn area(self) -> f32 {
        (self.x2 - self.x1).max(0.0) * (self.y2 - self.y1).max(0.0)
    }

    /// Intersection over union with `other`, 0 when both are empty.
    pub fn iou(self, other: Rect) -> f32 {
        let width = (self.x2.min(other.x2) - self.x1.max(other.x1)).max(0.0);
        let height = (self.y2.min(other.y2) - self.y1.max(other.y1)).max(0.0);
        let intersection = width * height;
        let union = self.area() + other.area() - intersection;
        if union > 0.0 { intersection / union } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iou_of_half_overlap() {
        let a = Rect { x1: 0.0, y1: 0.0, x2: 0.5, y2: 1.0 };
        let b = Rect { x1: 0.25, y1: 0.0, x2: 0.75, y2: 1.0 };
        assert!((a.iou(b) - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(a.iou(a), 1.0);
        assert_eq!(a.iou(Rect { x1: 0.5, y1: 0.0, x2: 1.0, y2: 1.0 }), 0.0);
    }

    #[test]
    fn nan_and_reversed_rectangles_are_invalid() {
        assert!(Rect::WHOLE.valid());
        assert!(!Rect { x1: f32::NAN, ..Rect::WHOLE }.valid());
        assert!(!Rect { x1: 0.6, x2: 0.5, y1: 0.0, y2: 1.0 }.valid());
        assert!(!Rect { x2: 1.1, ..Rect::WHOLE }.valid());
    }
}
