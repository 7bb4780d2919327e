//! Engine output to outcomes: the part that [`crate::serve`] and the command line share.

use crate::decode;
use crate::engine::{Engine, EngineError, Finished};
use crate::parameters::Parameters;
use base::model::{Decoder, ModelSpec};
use base::{FrameDetections, MemberError};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what `slot` holds and waits for it. A panic inside the engine is an error like any other;
/// the process lives.
pub fn execute(
    engine: &mut dyn Engine,
    slot: usize,
    members: usize,
) -> Result<Finished, EngineError> {
    caught(members, || {
        let ticket = engine.submit(slot)?;
        engine.wait(ticket)
    })
}

/// What an engine does with a batch of `members`; when it panics, that as an error.
///
/// # Errors
/// Those of `step`, and [`EngineError::Run`].
pub fn caught<T>(
    members: usize,
    step: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let why = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (_, Some(text)) => text.clone(),
            _ => "unknown".to_owned(),
        };
        Err(EngineError::Run { members, why: format!("the engine panicked: {why}") })
    })
}

/// Decodes one member of a finished batch.
///
/// # Errors
/// [`MemberError::Frame`] when the frame could not be converted, [`MemberError::Postprocess`] when
/// the output makes no sense.
pub fn outcome(
    spec: &ModelSpec,
    finished: &Finished,
    member: usize,
    parameters: &Parameters,
) -> Result<FrameDetections, MemberError> {
    let fit = match &finished.fits[member] {
        Ok(fit) => fit,
        Err(kernels::PreprocessError::Fit(error)) => {
            tracing::debug!(%error, "region refused");
            return Err(MemberError::Request);
        }
        Err(error) => {
            tracing::debug!(%error, "frame refused");
            return Err(MemberError::Frame);
        }
    };
    let part = |index: usize| {
        let values = finished.outputs.get(index)?.values();
        let len = values.len() / finished.fits.len();
        values.get(member * len..(member + 1) * len)
    };
    match &spec.decoder {
        Decoder::BoxesScores { .. } => {
            let (Some(scores), Some(boxes)) = (part(0), part(1)) else {
                return Err(MemberError::Postprocess);
            };
            decode::boxes_scores(scores, boxes, spec.labels.len(), fit, parameters).map_err(|e| {
                tracing::debug!(error = %e, "output refused");
                MemberError::Postprocess
            })
        }
    }
}
