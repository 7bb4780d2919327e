//! `model.yaml` to [`ModelSpec`]: the single truth about a model (docs/model-yaml.md).
//!
//! Strict: unknown keys, missing and impossible values are errors, all of them at once, each with
//! its line. Files are resolved beneath the model's folder only, ONNX external data too. Called by
//! the runner, `vas model`, and by whoever lists models; loads no engine.

mod files;
mod node;
mod synthetic;

pub use node::Problem;

use crate::onnx_file;
use base::limits::{BATCH_MAX, CLASSES_MAX, DEADLINE_DEFAULT, FRAME_SIDE_MAX};
use base::model::{
    Backend, ColourOrder, DType, Decoder, InputSpec, Layout, ModelSpec, Resize,
    ResourceRequirements,
};
use base::{ModelId, Size};
use files::{FileProblem, beneath};
use node::{Node, Section};
use serde_saphyr::Spanned;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the file in a model's folder.
pub const FILE_NAME: &str = "model.yaml";

/// Largest `model.yaml` and class name file, bytes (chosen).
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Why a model's folder is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No `model.yaml`.
    #[error("no model at {}: it has no readable model.yaml ({why}); give the folder that holds one", folder.display())]
    MissingModelYaml {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The file is there and wrong.
    #[error("{}: {}", path.display(), first(problems))]
    InvalidModelYaml {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong, at least one.
        problems: Vec<Problem>,
    },
    /// The weights are missing, unreadable, outside the folder or not what `model_type` says.
    #[error(
        "weights of model {model}: {why}; fetch or rebuild the file (the folder's rebuild.py, if \
         there is one, makes it), or name another in model.yaml"
    )]
    Weights {
        /// The model.
        model: ModelId,
        /// What is wrong with which file.
        why: String,
    },
}

impl ModelError {
    /// The word that status and API use.
    pub const fn reason(&self) -> &'static str {
        match self {
            ModelError::MissingModelYaml { .. } => "missing_model_yaml",
            ModelError::InvalidModelYaml { .. } => "invalid_model_yaml",
            ModelError::Weights { .. } => "invalid_weights",
        }
    }

    /// Each problem as one line.
    pub fn lines(&self) -> Vec<String> {
        match self {
            ModelError::InvalidModelYaml { path, problems } => {
                problems.iter().map(|p| format!("{}: {p}", path.display())).collect()
            }
            other => vec![other.to_string()],
        }
    }
}

fn first(problems: &[Problem]) -> String {
    match problems {
        [] => "invalid".to_owned(),
        [one] => one.to_string(),
        [one, rest @ ..] => format!("{one} (and {} more)", rest.len()),
    }
}

/// Reads and checks the model in `folder`.
///
/// # Errors
/// [`ModelError`] with everything that is wrong.
pub fn load(folder: &Path) -> Result<ModelSpec, ModelError> {
    let path = folder.join(FILE_NAME);
    let text = read_text(&path)
        .map_err(|why| ModelError::MissingModelYaml { folder: folder.to_owned(), why })?;
    let invalid = |problems| ModelError::InvalidModelYaml { path: path.clone(), problems };
    let (spec, weights) = parse(folder, &text).map_err(invalid)?;
    if let Backend::Synthetic(_) = spec.backend {
        // What is not executed has no weights: all that it is stands in the file.
        let path = path.canonicalize().unwrap_or(path);
        return Ok(ModelSpec { weights: path, ..spec });
    }
    let why = match check_weights(folder, &weights) {
        Ok(path) => return Ok(ModelSpec { weights: path, ..spec }),
        Err(why) => why,
    };
    Err(ModelError::Weights { model: spec.model_id, why })
}

fn read_text(path: &Path) -> Result<String, String> {
    let metadata = path.metadata().map_err(|e| e.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    if metadata.len() > TEXT_BYTES_MAX {
        return Err(format!("{} bytes, at most {TEXT_BYTES_MAX} are read", metadata.len()));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}

fn check_weights(folder: &Path, name: &str) -> Result<PathBuf, String> {
    let path = beneath(folder, name).map_err(FileProblem::into_text)?;
    let external = onnx_file::external_files(&path).map_err(|e| format!("file `{name}`: {e}"))?;
    let inner = path.parent().expect("a file has a folder");
    for location in external {
        // Names are relative to the folder of the weights, which lies in the model's.
        beneath(inner, &location)
            .map_err(|why| format!("external data of `{name}`: {}", why.into_text()))?;
    }
    Ok(path)
}

/// The checked spec, its weights not resolved yet, and the name of the weights.
fn parse(folder: &Path, text: &str) -> Result<(ModelSpec, String), Vec<Problem>> {
    let document: Spanned<Node> = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |l| l.line());
        let message = error.without_snippet().to_string();
        // The place stands in front already.
        let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
        vec![Problem { line, message: format!("not valid YAML: {what}") }]
    })?;
    let problems = RefCell::default();
    let found = read(folder, &document, &problems);
    let problems = problems.into_inner();
    match found {
        Some(found) if problems.is_empty() => Ok(found),
        _ => Err(problems),
    }
}

fn text(node: &Node) -> Option<&str> {
    match node {
        Node::Text(v) if !v.trim().is_empty() => Some(v),
        _ => None,
    }
}

fn flag(node: &Node) -> Option<bool> {
    if let Node::Bool(v) = node { Some(*v) } else { None }
}

fn whole(node: &Node, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    if let Node::Int(v) = node {
        u32::try_from(*v).ok().filter(|v| range.contains(v))
    } else {
        None
    }
}

fn number(node: &Node) -> Option<f64> {
    match node {
        Node::Int(v) => Some(*v as f64),
        Node::Float(v) if v.is_finite() => Some(*v),
        _ => None,
    }
}

fn share(node: &Node) -> Option<f32> {
    number(node).filter(|v| (0.0..=1.0).contains(v)).map(|v| v as f32)
}

fn triple(node: &Node) -> Option<[f32; 3]> {
    let Node::List(list) = node else { return None };
    let numbers: Option<Vec<f32>> =
        list.iter().map(|v| number(&v.value).map(|v| v as f32)).collect();
    numbers?.try_into().ok()
}

fn one_of<T: Copy>(node: &Node, words: &[(&str, T)]) -> Option<T> {
    let word = text(node)?;
    words.iter().find(|(w, _)| *w == word).map(|(_, v)| *v)
}

/// The words of `model_type`.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Onnx,
    Synthetic,
}

const TEXT: &str = "has to be text (put numbers in quotes)";
const SHARE: &str = "has to be a number from 0 to 1";

fn read(
    folder: &Path,
    document: &Spanned<Node>,
    problems: &RefCell<Vec<Problem>>,
) -> Option<(ModelSpec, String)> {
    let top = Section::document(document, problems);
    let model_id = top.required("model_id", "1 to 64 characters of A-Z a-z 0-9 _ -", |n| {
        ModelId::new(text(n)?).ok()
    });
    let name = top.required("model_name", TEXT, text);
    let version = top.required("model_version", TEXT, text);
    let description = top.optional("description", TEXT, text);
    let author = top.optional("author", TEXT, text);
    let license = top.optional("license", TEXT, text);
    let supported_tasks = top.optional("supported_tasks", "has to be a list of texts", |n| {
        let Node::List(list) = n else { return None };
        list.iter().map(|v| text(&v.value).map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    let kind = top.required("model_type", "has to be `onnx` or `synthetic`", |n| {
        one_of(n, &[("onnx", Kind::Onnx), ("synthetic", Kind::Synthetic)])
    });
    top.optional("input_format", "has to be `NV12`", |n| one_of(n, &[("NV12", ())]));
    let size = top
        .optional("expected_resolution", "has to be [width, height] in pixels, 1 to 8192", |n| {
            let Node::List(list) = n else { return None };
            let [width, height] = list.as_slice() else { return None };
            Some(Size {
                width: whole(&width.value, 1..=FRAME_SIDE_MAX)?,
                height: whole(&height.value, 1..=FRAME_SIDE_MAX)?,
            })
        })
        .unwrap_or(Size { width: 640, height: 640 });
    let confidence_threshold = top.optional("confidence_threshold", SHARE, share).unwrap_or(0.5);
    let nms_iou_threshold = top.optional("nms_iou_threshold", SHARE, share).unwrap_or(0.5);
    let batch_rule = "has to be a whole number from 1 to 256";
    let batch_max = top.optional("batch_max", batch_rule, |n| whole(n, 1..=BATCH_MAX)).unwrap_or(1);
    let deadline_rule = "has to be whole milliseconds from 1 to 60000";
    let deadline = top
        .optional("deadline_ms", deadline_rule, |n| whole(n, 1..=60_000))
        .map_or(DEADLINE_DEFAULT, |ms| Duration::from_millis(ms.into()));
    let labels = match kind {
        Some(Kind::Synthetic) if !top.has("class_names") => Some(vec![synthetic::LABEL.to_owned()]),
        _ => labels(folder, &top),
    };
    let config_schema =
        top.optional("config_schema", "has to be a JSON Schema of type object", |n| {
            let json = n.to_json();
            (json.get("type")? == "object").then(|| json.to_string())
        });
    top.optional("output_schema", "has to be a map", |n| matches!(n, Node::Map(_)).then_some(()));

    let resources = resources(&top);
    let (backend, weights, input, decoder) = match kind {
        Some(Kind::Synthetic) => {
            let backend = synthetic::read(&top).map(Backend::Synthetic);
            (backend, Some(""), Some(synthetic::input(size)), Some(synthetic::decoder()))
        }
        Some(Kind::Onnx) | None => {
            let rule = "has to name a file in the model's folder";
            let weights = top.required("model_weights", rule, text);
            (Some(Backend::Onnx), weights, input(&top, size), decoder(&top))
        }
    };
    top.finish();

    kind?;
    let weights = weights?.to_owned();
    let spec = ModelSpec {
        model_id: model_id?,
        name: name?.to_owned(),
        version: version?.to_owned(),
        description: description.map(str::to_owned),
        author: author.map(str::to_owned),
        license: license.map(str::to_owned),
        supported_tasks: supported_tasks.unwrap_or_default(),
        backend: backend?,
        weights: PathBuf::from(&weights),
        input: input?,
        decoder: decoder?,
        labels: labels?,
        confidence_threshold,
        nms_iou_threshold,
        batch_max,
        deadline,
        resources,
        config_schema,
    };
    Some((spec, weights))
}

fn input(top: &Section<'_>, size: Size) -> Option<InputSpec> {
    let section = top.section("input", true);
    let tensor = section.required("tensor", "has to name the input of the graph", text);
    let layout = section.required("layout", "has to be `nchw` or `nhwc`", |n| {
        one_of(n, &[("nchw", Layout::Nchw), ("nhwc", Layout::Nhwc)])
    });
    let dtype = section.required("dtype", "has to be `f32`, `f16` or `u8`", |n| {
        one_of(n, &[("f32", DType::F32), ("f16", DType::F16), ("u8", DType::U8)])
    });
    let colour = section.required("colour", "has to be `rgb` or `bgr`", |n| {
        one_of(n, &[("rgb", ColourOrder::Rgb), ("bgr", ColourOrder::Bgr)])
    });
    let resize_rule = "has to be `letterbox`, `stretch` or `crop`";
    let letterbox = Resize::Letterbox { pad: 114 };
    let resize = section.required("resize", resize_rule, |n| {
        let words =
            [("letterbox", letterbox), ("stretch", Resize::Stretch), ("crop", Resize::Crop)];
        one_of(n, &words)
    });
    let pad_rule = "has to be a grey value from 0 to 255, and only with `resize: letterbox`";
    let pad = section.optional("pad", pad_rule, |n| {
        let pad = whole(n, 0..=255)?;
        matches!(resize, Some(Resize::Letterbox { .. }) | None).then_some(pad as u8)
    });
    let resize = match (resize?, pad) {
        (Resize::Letterbox { .. }, Some(pad)) => Resize::Letterbox { pad },
        (resize, _) => resize,
    };
    let (mean_rule, std_rule) = (
        "has to be three numbers in units of 0..255, in the order of `colour`",
        "has to be three numbers above 0 in units of 0..255, in the order of `colour`",
    );
    let positive = |n: &Node| triple(n).filter(|v| v.iter().all(|v| *v > 0.0));
    let (mean, std) = if dtype == Some(DType::U8) {
        for key in ["mean", "std"] {
            if let Some(value) = section.get(key) {
                section.broken(key, value, "must not be given with `dtype: u8`, which is raw");
            }
        }
        (Some([0.0; 3]), Some([1.0; 3]))
    } else {
        (section.required("mean", mean_rule, triple), section.required("std", std_rule, positive))
    };
    section.finish();
    Some(InputSpec {
        tensor: tensor?.to_owned(),
        size,
        layout: layout?,
        dtype: dtype?,
        colour: colour?,
        resize,
        mean: mean?,
        std: std?,
    })
}

fn decoder(top: &Section<'_>) -> Option<Decoder> {
    let section = top.section("output", true);
    let kind = section
        .required("decoder", "has to be `boxes_scores`", |n| one_of(n, &[("boxes_scores", ())]));
    let scores = section.required("scores", "has to name the tensor of scores [N, A, C]", text);
    let boxes = section.required("boxes", "has to name the tensor of boxes [N, A, 4]", text);
    section.finish();
    kind?;
    Some(Decoder::BoxesScores { scores: scores?.to_owned(), boxes: boxes?.to_owned() })
}

fn resources(top: &Section<'_>) -> ResourceRequirements {
    let section = top.section("resource_requirements", false);
    let yes_no = "has to be true or false";
    let gpu_required = section.optional("gpu_required", yes_no, flag).unwrap_or(false);
    let memory_rule = "has to be whole MiB from 1 to 1048576";
    let gpu_memory_mb = section.optional("gpu_memory_mb", memory_rule, |n| whole(n, 1..=1 << 20));
    let fallback_rule = "has to be true or false, and not true beside `gpu_required: true`";
    let fallback = section.optional("cpu_fallback_allowed", fallback_rule, |n| {
        flag(n).filter(|fallback| !(gpu_required && *fallback))
    });
    section.finish();
    ResourceRequirements {
        gpu_required,
        gpu_memory_mb,
        cpu_fallback_allowed: fallback.unwrap_or(!gpu_required),
    }
}

fn labels(folder: &Path, top: &Section<'_>) -> Option<Vec<String>> {
    let rule = "has to name a file in the model's folder with one class name per line";
    let name = top.required("class_names", rule, text)?;
    let value = top.get("class_names").expect("it was read above");
    let content =
        beneath(folder, name).map_err(FileProblem::into_text).and_then(|path| read_text(&path));
    let content = match content {
        Ok(content) => content,
        Err(why) => {
            top.broken("class_names", value, &why);
            return None;
        }
    };
    let labels: Vec<String> = content.lines().map(|l| l.trim().to_owned()).collect();
    if let Some(line) = labels.iter().position(String::is_empty) {
        top.broken("class_names", value, &format!("line {} of the file is empty", line + 1));
        return None;
    }
    if labels.is_empty() || labels.len() > CLASSES_MAX {
        let rule = format!("the file holds {} names, 1 to {CLASSES_MAX} can be", labels.len());
        top.broken("class_names", value, &rule);
        return None;
    }
    Some(labels)
}

#[cfg(test)]
mod tests;
