//! ONNX Runtime on the CPU, through `ort` and a library loaded at run time.
//!
//! Inputs go in as borrowed views of the packed batch (no copy), outputs stay in ONNX Runtime's
//! memory until they are decoded. `IoBinding` is not used: binding a borrowed input deadlocks in
//! ort 2.0.0-rc.15.

use super::{Engine, EngineError, EngineInfo, Finished, Frame, OutputTensor, Ticket};
use super::{library, one_line, output_names};
use crate::options::EngineOptions;
use base::model::{DType, Decoder, Layout, ModelSpec};
use ipc::clock;
use kernels::{BatchTensor, Preprocessor, TensorData};
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef, ValueType};

/// Batches held: one executing, one prepared.
const SLOTS: usize = 2;

/// A session on the CPU. [`Engine::submit`] executes on the calling thread.
pub struct OnnxEngine {
    session: Session,
    info: EngineInfo,
    input_name: String,
    output_names: Vec<String>,
    batch_max: usize,
    preprocessor: Preprocessor,
    batch: BatchTensor,
    slots: [Option<Vec<Frame>>; SLOTS],
    finished: Option<(u64, Finished)>,
    tickets: u64,
}

impl OnnxEngine {
    /// Loads the library, the weights, and checks the graph against the spec.
    ///
    /// # Errors
    /// [`EngineError`] says which of the three failed.
    pub fn load(spec: &ModelSpec, options: &EngineOptions) -> Result<OnnxEngine, EngineError> {
        let library = library::load(options)?;
        let threads = options.threads.max(1);
        let session = build(&library.environment, spec, threads).map_err(|why| {
            EngineError::Load { file: spec.weights.display().to_string(), why: one_line(&why) }
        })?;
        check(spec, session.inputs(), session.outputs()).map_err(EngineError::Mismatch)?;
        let runtime = format!("onnxruntime {}", library.version);
        let s = if threads == 1 { "" } else { "s" };
        let info = EngineInfo {
            summary: format!("{runtime}, cpu, {threads} thread{s}, frames copied from the ring"),
            runtime,
            gpu: false,
        };
        Ok(OnnxEngine {
            session,
            info,
            input_name: spec.input.tensor.clone(),
            output_names: output_names(spec).into_iter().map(str::to_owned).collect(),
            batch_max: spec.batch_max as usize,
            preprocessor: Preprocessor::new(&spec.input),
            batch: BatchTensor::new(&spec.input),
            slots: [None, None],
            finished: None,
            tickets: 0,
        })
    }

    fn execute(&mut self, frames: Vec<Frame>) -> Result<Finished, EngineError> {
        let members = frames.len();
        self.batch.resize(members);
        let mut fits = Vec::with_capacity(members);
        for (member, frame) in frames.iter().enumerate() {
            let Frame { picture, region, pixels } = frame;
            fits.push(self.preprocessor.run(picture, *region, pixels, &mut self.batch, member));
        }
        let preprocessed = clock::monotonic();
        let outputs = self
            .run()
            .map_err(|why| EngineError::Run { members, why: one_line(&why.to_string()) })?;
        let executed = clock::monotonic();
        let outputs = outputs
            .into_iter()
            .zip(&self.output_names)
            .map(|(value, name)| Output::boxed(value, name, members))
            .collect::<Result<Vec<_>, String>>()
            .map_err(|why| EngineError::Run { members, why })?;
        Ok(Finished { frames, fits, outputs, preprocessed, executed })
    }

    fn run(&mut self) -> Result<Vec<DynValue>, ort::Error> {
        let shape = self.batch.shape();
        let input: SessionInputValue<'_> = match self.batch.data() {
            TensorData::F32(v) => TensorRef::from_array_view((shape, v.as_slice()))?.into(),
            TensorData::F16(v) => TensorRef::from_array_view((shape, v.as_slice()))?.into(),
            TensorData::U8(v) => TensorRef::from_array_view((shape, v.as_slice()))?.into(),
        };
        let mut outputs = self.session.run(ort::inputs![self.input_name.as_str() => input])?;
        let take = |name: &String| {
            let missing = || ort::Error::new(format!("output `{name}` is missing"));
            outputs.remove(name).ok_or_else(missing)
        };
        self.output_names.iter().map(take).collect()
    }
}

fn build(
    environment: &ort::environment::Environment,
    spec: &ModelSpec,
    threads: usize,
) -> Result<Session, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    Session::builder(environment)
        .map_err(|e| text(&e))?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(|e| text(&e))?
        .with_intra_threads(threads)
        .map_err(|e| text(&e))?
        .with_inter_threads(1)
        .map_err(|e| text(&e))?
        // Spinning threads take the core that the decoders need.
        .with_intra_op_spinning(false)
        .map_err(|e| text(&e))?
        .commit_from_file(&spec.weights)
        .map_err(|e| text(&e))
}

/// Whether the graph's inputs and outputs are those that the spec describes; `-1` = any extent.
fn check(spec: &ModelSpec, inputs: &[Outlet], outputs: &[Outlet]) -> Result<(), String> {
    let names = |outlets: &[Outlet]| {
        outlets.iter().map(|o| format!("`{}`", o.name())).collect::<Vec<_>>().join(", ")
    };
    let input = &spec.input;
    let Some(outlet) = inputs.iter().find(|o| o.name() == input.tensor) else {
        let has = names(inputs);
        return Err(format!("input.tensor is `{}`, the graph has {has}", input.tensor));
    };
    if inputs.len() > 1 {
        let has = names(inputs);
        return Err(format!("the graph wants {} inputs ({has}), one image is given", inputs.len()));
    }
    let (dtype, word) = match input.dtype {
        DType::F32 => (TensorElementType::Float32, "f32"),
        DType::F16 => (TensorElementType::Float16, "f16"),
        DType::U8 => (TensorElementType::Uint8, "u8"),
    };
    let (width, height) = (i64::from(input.size.width), i64::from(input.size.height));
    let wanted = match input.layout {
        Layout::Nchw => [-1, 3, height, width],
        Layout::Nhwc => [-1, height, width, 3],
    };
    let shape = tensor(outlet, dtype, word)?;
    if !fits(shape, &wanted) {
        return Err(format!(
            "the graph's input `{}` has shape {shape:?}, model.yaml says {wanted:?} (-1 = any)",
            input.tensor
        ));
    }
    let batch_max = i64::from(spec.batch_max);
    if shape[0] > 0 && (shape[0] != 1 || batch_max != 1) {
        return Err(format!(
            "batch_max is {batch_max}, but the graph takes batches of exactly {}; export it with \
             a dynamic batch{}",
            shape[0],
            if shape[0] == 1 { " or set batch_max: 1" } else { "" }
        ));
    }
    match &spec.decoder {
        Decoder::BoxesScores { scores, boxes } => {
            let classes = spec.labels.len() as i64;
            for (key, name, last) in [("scores", scores, classes), ("boxes", boxes, 4)] {
                let Some(outlet) = outputs.iter().find(|o| o.name() == name) else {
                    let has = names(outputs);
                    return Err(format!("output.{key} is `{name}`, the graph has {has}"));
                };
                let shape = tensor(outlet, TensorElementType::Float32, "f32")?;
                if !fits(shape, &[-1, -1, last]) {
                    let hint = match key {
                        "scores" => " (the last is the number of class names)",
                        _ => "",
                    };
                    return Err(format!(
                        "the graph's output `{name}` has shape {shape:?}, the decoder wants \
                         [-1, -1, {last}]{hint}"
                    ));
                }
            }
        }
    }
    Ok(())
}

fn fits(shape: &[i64], wanted: &[i64]) -> bool {
    shape.len() == wanted.len() && shape.iter().zip(wanted).all(|(a, b)| *a < 0 || *b < 0 || a == b)
}

fn tensor<'o>(
    outlet: &'o Outlet,
    dtype: TensorElementType,
    word: &str,
) -> Result<&'o [i64], String> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } if *ty == dtype => Ok(shape),
        ValueType::Tensor { ty, .. } => {
            Err(format!("the graph's `{}` is of {ty}, {word} is wanted", outlet.name()))
        }
        _ => Err(format!("the graph's `{}` is not a tensor", outlet.name())),
    }
}

impl Engine for OnnxEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn slots(&self) -> usize {
        SLOTS
    }

    fn synchronous(&self) -> bool {
        true
    }

    fn prepare(&mut self, slot: usize, frames: Vec<Frame>) -> Result<(), EngineError> {
        let members = frames.len();
        if members == 0 || members > self.batch_max {
            let why = format!("1 to {} members fit", self.batch_max);
            return Err(EngineError::Run { members, why });
        }
        self.slots[slot] = Some(frames);
        Ok(())
    }

    fn submit(&mut self, slot: usize) -> Result<Ticket, EngineError> {
        let frames = self.slots[slot].take().expect("the caller prepared this slot");
        let finished = self.execute(frames)?;
        self.tickets += 1;
        self.finished = Some((self.tickets, finished));
        Ok(Ticket(self.tickets))
    }

    fn poll(&mut self, ticket: &Ticket) -> Result<Option<Finished>, EngineError> {
        let finished = self.finished.take_if(|(id, _)| *id == ticket.0);
        Ok(finished.map(|(_, finished)| finished))
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Finished, EngineError> {
        let done = self.poll(&ticket)?;
        Ok(done.expect("this engine finishes in submit, and the ticket is its own"))
    }
}

/// A tensor in ONNX Runtime's memory, known to hold f32.
struct Output {
    value: DynValue,
    shape: Vec<usize>,
}

impl Output {
    /// Checks the tensor once.
    fn boxed(value: DynValue, name: &str, members: usize) -> Result<Box<dyn OutputTensor>, String> {
        let (shape, values) = value
            .try_extract_tensor::<f32>()
            .map_err(|e| format!("output `{name}`: {}", one_line(&e.to_string())))?;
        let shape: Vec<usize> = shape.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
        if shape.first() != Some(&members) || shape.iter().product::<usize>() != values.len() {
            return Err(format!("output `{name}` has shape {shape:?} for {members} members"));
        }
        Ok(Box::new(Output { value, shape }))
    }
}

impl OutputTensor for Output {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn values(&self) -> &[f32] {
        let (_, values) = self.value.try_extract_tensor::<f32>().expect("checked in `boxed`");
        values
    }
}
