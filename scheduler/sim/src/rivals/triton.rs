//! Triton's dynamic batcher: one instance per model, a FIFO, a static delay.
//!
//! A batch goes out when the instance is free and either the largest batch is there or the oldest
//! request waits for the delay; it takes all that waits by then.

use super::rule::{Next, Rule};
use super::server::{Request, Server};
use base::Instant;
use std::time::Duration;

pub(super) struct Triton {
    /// `max_queue_delay_microseconds`.
    delay: Duration,
    /// `max_queue_size`: requests beyond it are rejected.
    queue_max: usize,
}

impl Triton {
    pub fn new(delay: Duration, queue_max: usize) -> Triton {
        Triton { delay, queue_max }
    }
}

impl Rule for Triton {
    const TOKENS: bool = false;

    fn request(&mut self, server: &mut Server, request: Request) {
        let model = server.subscriptions[request.subscription.0 as usize].model;
        let queue = &mut server.models[model].queue;
        if queue.len() < self.queue_max {
            queue.push_back(request);
        }
    }

    fn next(&mut self, server: &mut Server, now: Instant) -> Next {
        let mut wait = Instant::FAR;
        let mut ready = None;
        for runner in server.free_runners() {
            let model = server.runners[runner].model;
            let queue = &server.models[model].queue;
            let Some(oldest) = queue.front() else { continue };
            let due = oldest.arrived() + self.delay;
            if due <= now || queue.len() >= server.batch_max(runner) {
                ready = Some((runner, model));
                break;
            }
            wait = wait.min(due);
        }
        let Some((runner, model)) = ready else { return Next::Wait(wait) };
        let count = server.batch_max(runner);
        Next::Launch(runner, server.take(model, count))
    }
}
