//! Engine output to outcomes: the part that [`crate::serve`] and the command line share.

use crate::decode;
use crate::engine::{Engine, EngineError, Finished};
use crate::parameters::Parameters;
use base::guard;
use base::model::{Decoder, ModelSpec};
use base::{FrameDetections, MemberError};

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
    guard::foreign(step).unwrap_or_else(|why| {
        Err(EngineError::Run { members, why: format!("the engine panicked: {why}") })
    })
}

/// Decodes one member of a finished batch. A panic over what a model's graph made is an error like any
/// other.
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
    guard::foreign(|| decoded(spec, finished, member, parameters)).unwrap_or_else(|why| {
        tracing::error!(model = %spec.model_id, "decoding panicked: {why}");
        Err(MemberError::Postprocess)
    })
}

fn decoded(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_model;
    use base::Instant;

    #[test]
    fn a_panic_over_an_output_is_an_error_of_the_member() {
        let spec = test_model::spec();
        let (preprocessed, executed) = (Instant(1), Instant(2));
        // An engine that answers for nobody: the member has no place.
        let finished =
            Finished { frames: vec![], fits: vec![], outputs: vec![], preprocessed, executed };
        let parameters = Parameters::defaults(&spec);
        assert_eq!(outcome(&spec, &finished, 0, &parameters), Err(MemberError::Postprocess));
    }
}
