//! What a batch of one size takes, by running it: the loop that the runner's measurements under the
//! scheduler's grants and `vas model profile` share. How often is run, [`Sampling`] says.

use crate::engine::{EngineError, Finished, Frame};
use crate::tools::grey_frame;
use ipc::clock;
use latency::Sampling;
use std::time::Duration;

/// Frames that are measured with: what preprocessing costs depends on their size.
const FRAME: (u32, u32) = (1280, 720);

/// Runs batches of `size` frames as often as `sampling` wants.
///
/// # Errors
/// That of the first `execute` that fails.
pub fn sample(
    size: u32,
    mut sampling: Sampling,
    mut execute: impl FnMut(Vec<Frame>) -> Result<Finished, EngineError>,
) -> Result<Vec<Duration>, EngineError> {
    let start = clock::monotonic();
    let (width, height) = FRAME;
    // Each in memory of its own, as frames of different cameras are.
    let mut frames: Vec<_> = (0..size).map(|_| grey_frame(width, height)).collect();
    loop {
        let begun = clock::monotonic();
        let finished = execute(frames)?;
        frames = finished.frames;
        if !sampling.ran(finished.executed - begun, clock::monotonic() - start) {
            return Ok(sampling.into_samples());
        }
    }
}
