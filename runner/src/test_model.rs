//! A spec for unit tests: three classes, 8x8 input.

use base::Size;
use base::model::{
    Backend, ColourOrder, DType, Decoder, Finds, InputSpec, Layout, ModelSpec, Resize,
    ResourceRequirements, Synthetic,
};
use std::time::Duration;

pub fn spec() -> ModelSpec {
    ModelSpec {
        model_id: "tiny".parse().expect("a valid id"),
        name: "Tiny".into(),
        version: "1".into(),
        description: None,
        author: None,
        license: None,
        supported_tasks: vec![],
        backend: Backend::Onnx,
        weights: "/nowhere/tiny.onnx".into(),
        input: InputSpec {
            tensor: "images".into(),
            size: Size { width: 8, height: 8 },
            layout: Layout::Nchw,
            dtype: DType::F32,
            colour: ColourOrder::Rgb,
            resize: Resize::Stretch,
            mean: [0.0; 3],
            std: [255.0; 3],
        },
        decoder: Decoder::BoxesScores { scores: "scores".into(), boxes: "boxes".into() },
        labels: ["a", "b", "c"].map(str::to_owned).to_vec(),
        confidence_threshold: 0.5,
        nms_iou_threshold: 0.5,
        batch_max: 4,
        deadline: Duration::from_millis(500),
        resources: ResourceRequirements::default(),
        config_schema: None,
    }
}

/// What a synthetic engine does at once, the answer saying which frame it is for.
pub fn synthetic() -> Synthetic {
    Synthetic {
        alpha: Duration::ZERO,
        beta: Duration::ZERO,
        noise: 0.0,
        gpu: false,
        finds: Finds::Luma,
        faults: Vec::new(),
    }
}
