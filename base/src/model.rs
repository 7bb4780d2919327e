//! What a model is: the contents of a `model.yaml`, checked. The parser lives in `runner`.

mod synthetic;

pub use synthetic::{Finds, Synthetic, SyntheticFault, SyntheticFaultKind};

use crate::geometry::Size;
use crate::id::ModelId;
use std::path::PathBuf;
use std::time::Duration;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// Unsigned byte, values 0..255, not normalised.
    U8,
}

/// Order of the axes of an image batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[N, 3, H, W]`.
    Nchw,
    /// `[N, H, W, 3]`.
    Nhwc,
}

/// Order of the colour channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColourOrder {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}

/// How a frame is fitted to the model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resize {
    /// Keep the aspect ratio, centred, the rest filled with `pad` (0..255 on every channel).
    Letterbox {
        /// Grey value of the bars.
        pad: u8,
    },
    /// Fill the input, aspect ratio lost.
    Stretch,
    /// Keep the aspect ratio, fill the input, cut off what sticks out, centred.
    Crop,
}

/// The model's image input: name, shape `[N, 3, H, W]` or `[N, H, W, 3]`, and how pixels become
/// numbers: `(value_0_255 - mean[c]) / std[c]`, `c` in the order of `colour`.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSpec {
    /// Name of the tensor in the graph.
    pub tensor: String,
    /// Width and height of the input in pixels.
    pub size: Size,
    /// Order of the axes.
    pub layout: Layout,
    /// Element type.
    pub dtype: DType,
    /// Order of the channels.
    pub colour: ColourOrder,
    /// Fit.
    pub resize: Resize,
    /// Subtracted per channel, in units of 0..255.
    pub mean: [f32; 3],
    /// Divided by per channel, in units of 0..255.
    pub std: [f32; 3],
}

/// How the output tensors become detections.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoder {
    /// Two tensors: scores `[N, A, C]` f32 0..1 and boxes `[N, A, 4]` f32 x1 y1 x2 y2 in pixels of
    /// the input; threshold per class, then NMS per class.
    BoxesScores {
        /// Name of the score tensor.
        scores: String,
        /// Name of the box tensor.
        boxes: String,
    },
}

/// Which engine runs the weights.
#[derive(Debug, Clone, PartialEq)]
pub enum Backend {
    /// ONNX Runtime on the CPU.
    Onnx,
    /// No weights and no execution: it waits.
    Synthetic(Synthetic),
}

/// Where a model may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ResourceRequirements {
    /// Refuse to start without a GPU.
    pub gpu_required: bool,
    /// Hint for placement, MiB.
    pub gpu_memory_mb: Option<u32>,
    /// Start on the CPU when there is no GPU.
    pub cpu_fallback_allowed: bool,
}

/// A checked `model.yaml`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Id.
    pub model_id: ModelId,
    /// Name for people.
    pub name: String,
    /// Version of the weights.
    pub version: String,
    /// Free text.
    pub description: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// SPDX expression.
    pub license: Option<String>,
    /// For example `object_detection`.
    pub supported_tasks: Vec<String>,
    /// Engine.
    pub backend: Backend,
    /// Weights, absolute, beneath the model's folder; of a synthetic model its `model.yaml`.
    pub weights: PathBuf,
    /// The input.
    pub input: InputSpec,
    /// The output.
    pub decoder: Decoder,
    /// Class names, index = class id.
    pub labels: Vec<String>,
    /// Scores at or below are dropped, `0..=1`.
    pub confidence_threshold: f32,
    /// NMS drops boxes that overlap a better one of the class by more, `0..=1`.
    pub nms_iou_threshold: f32,
    /// Largest batch that the engine takes.
    pub batch_max: u32,
    /// Age above which a result is worthless.
    pub deadline: Duration,
    /// Where it may run.
    pub resources: ResourceRequirements,
    /// JSON Schema of an assignment's parameters, as text.
    pub config_schema: Option<String>,
}

impl ModelSpec {
    /// Whether this version has an engine that executes the model on a GPU.
    pub fn has_gpu_engine(&self) -> bool {
        matches!(&self.backend, Backend::Synthetic(synthetic) if synthetic.gpu)
    }
}
