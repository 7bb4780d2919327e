//! What a batch of one size takes, by running it: the loop that the runner's measurements under the
//! scheduler's grants and `vas model profile` share.

use crate::engine::{EngineError, Finished, Frame};
use crate::tools::grey_frame;
use ipc::clock;
use std::time::Duration;

/// Runs before the first sample: the first pays for memory.
const WARM: usize = 2;
/// Frames that are measured with: what preprocessing costs depends on their size.
const FRAME: (u32, u32) = (1280, 720);

/// Runs batches of `size` frames until there are `count` samples; within `budget`, after which no
/// further one is begun, but at least one, whatever it takes.
///
/// # Errors
/// That of the first `execute` that fails.
pub fn sample(
    size: u32,
    count: usize,
    budget: Duration,
    mut execute: impl FnMut(Vec<Frame>) -> Result<Finished, EngineError>,
) -> Result<Vec<Duration>, EngineError> {
    let start = clock::monotonic();
    let (width, height) = FRAME;
    // Each in memory of its own, as frames of different cameras are.
    let mut frames: Vec<_> = (0..size).map(|_| grey_frame(width, height)).collect();
    let mut samples = Vec::new();
    let mut warm = 0;
    while samples.len() < count {
        let begun = clock::monotonic();
        let finished = execute(frames)?;
        let took = finished.executed - begun;
        frames = finished.frames;
        let over = clock::monotonic() - start + took >= budget;
        if warm < WARM && !over {
            warm += 1;
            continue;
        }
        samples.push(took);
        if over {
            break;
        }
    }
    Ok(samples)
}
