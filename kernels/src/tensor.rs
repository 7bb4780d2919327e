//! A batch of images as a model takes it.

use base::model::{DType, InputSpec, Layout};
use half::f16;

/// The numbers of a batch, packed, members one after the other.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// IEEE 754 binary32.
    F32(Vec<f32>),
    /// IEEE 754 binary16.
    F16(Vec<f16>),
    /// Unsigned bytes.
    U8(Vec<u8>),
}

/// A packed batch `[N, 3, H, W]` or `[N, H, W, 3]`. Memory grows to the largest batch seen and
/// stays.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchTensor {
    members: usize,
    width: usize,
    height: usize,
    layout: Layout,
    data: TensorData,
}

impl BatchTensor {
    /// An empty batch of the shape and type that `input` asks for.
    pub fn new(input: &InputSpec) -> BatchTensor {
        let data = match input.dtype {
            DType::F32 => TensorData::F32(Vec::new()),
            DType::F16 => TensorData::F16(Vec::new()),
            DType::U8 => TensorData::U8(Vec::new()),
        };
        BatchTensor {
            members: 0,
            width: input.size.width as usize,
            height: input.size.height as usize,
            layout: input.layout,
            data,
        }
    }

    /// Makes room for `members` images. Images below the old and the new count keep their numbers.
    pub fn resize(&mut self, members: usize) {
        self.members = members;
        let numbers = members * self.member_len();
        match &mut self.data {
            TensorData::F32(v) => v.resize(numbers, 0.0),
            TensorData::F16(v) => v.resize(numbers, f16::ZERO),
            TensorData::U8(v) => v.resize(numbers, 0),
        }
    }

    /// Images held.
    pub fn members(&self) -> usize {
        self.members
    }

    /// Numbers per image: `3 * H * W`.
    pub fn member_len(&self) -> usize {
        3 * self.width * self.height
    }

    /// `[N, 3, H, W]` or `[N, H, W, 3]`.
    pub fn shape(&self) -> [usize; 4] {
        match self.layout {
            Layout::Nchw => [self.members, 3, self.height, self.width],
            Layout::Nhwc => [self.members, self.height, self.width, 3],
        }
    }

    /// Order of the axes.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The numbers.
    pub fn data(&self) -> &TensorData {
        &self.data
    }

    pub(crate) fn data_mut(&mut self) -> &mut TensorData {
        &mut self.data
    }

    /// Image `member` as f64, in the order of its memory; for tests and inspection.
    ///
    /// # Panics
    /// When there is no such member.
    pub fn member_f64(&self, member: usize) -> Vec<f64> {
        let range = member * self.member_len()..(member + 1) * self.member_len();
        match &self.data {
            TensorData::F32(v) => v[range].iter().map(|v| f64::from(*v)).collect(),
            TensorData::F16(v) => v[range].iter().map(|v| f64::from(*v)).collect(),
            TensorData::U8(v) => v[range].iter().map(|v| f64::from(*v)).collect(),
        }
    }
}
