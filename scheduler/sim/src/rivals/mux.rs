//! DeepStream's nvstreammux, old and new, one pipeline per model.
//!
//! A batch holds at most one frame of each source. A source holds one frame for the next batch; a
//! newer one takes its place, as with a leaky queue before the muxer (without it the decoder is
//! held up, and the age of what waits there grows).

use super::rule::{Next, Rule};
use super::server::{Request, Server};
use base::Instant;
use scheduler::SubscriptionKey;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// `batched-push-timeout`: one frame interval at 30 fps, the documentation's advice.
const PUSH_TIMEOUT: Duration = Duration::from_millis(33);
/// `overall-max-fps`, the default of 120: no batch sooner after the last.
const WINDOW_SHORTEST: Duration = Duration::from_nanos(8_333_333);

pub(super) struct Mux {
    /// The new muxer's `overall-min-fps` as an interval: a batch at least this often.
    window: Option<Duration>,
    pipelines: BTreeMap<usize, Pipeline>,
}

#[derive(Default)]
struct Pipeline {
    /// Sources with a frame, and since when, in that order.
    filled: VecDeque<(Instant, SubscriptionKey)>,
    /// The frame of each of them.
    pads: BTreeMap<SubscriptionKey, Request>,
    /// When the last batch was pushed.
    pushed: Instant,
}

impl Mux {
    /// Pushes when every source has contributed or a time after the first frame.
    pub fn old() -> Mux {
        Mux { window: None, pipelines: BTreeMap::new() }
    }

    /// Pushes when every source has contributed or a time after the last batch.
    pub fn new(fps_min: u32) -> Mux {
        let window = Some(Duration::from_secs(1) / fps_min);
        Mux { window, pipelines: BTreeMap::new() }
    }
}

impl Rule for Mux {
    const TOKENS: bool = false;

    fn request(&mut self, server: &mut Server, request: Request) {
        let key = request.subscription;
        let model = server.subscriptions[key.0 as usize].model;
        let pipeline = self.pipelines.entry(model).or_default();
        if pipeline.pads.insert(key, request).is_none() {
            pipeline.filled.push_back((request.arrived(), key));
        }
    }

    fn next(&mut self, server: &mut Server, now: Instant) -> Next {
        let mut wait = Instant::FAR;
        for runner in server.free_runners() {
            let model = server.runners[runner].model;
            let Some(pipeline) = self.pipelines.get_mut(&model) else { continue };
            pipeline.filled.retain(|(_, key)| server.subscriptions[key.0 as usize].active);
            let Some(&(first, _)) = pipeline.filled.front() else { continue };
            let size = server.models[model].sources.min(server.batch_max(runner));
            let full = pipeline.filled.len() >= size;
            let due = match self.window {
                None if full => now,
                None => first + PUSH_TIMEOUT,
                Some(_) if full => pipeline.pushed + WINDOW_SHORTEST,
                Some(longest) => pipeline.pushed + longest,
            };
            if due <= now {
                pipeline.pushed = now;
                let count = size.min(pipeline.filled.len());
                let taken = pipeline.filled.drain(..count);
                let requests = taken.filter_map(|(_, key)| pipeline.pads.remove(&key));
                return Next::Launch(runner, requests.collect());
            }
            wait = wait.min(due);
        }
        Next::Wait(wait)
    }
}
