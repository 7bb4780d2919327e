//! Clockwork: one batch per device, the strategy that has to start first, no late work.
//!
//! Batch sizes are powers of two and those halfway between (the original: powers of two). The deadline is shaved by 5 ms as in the original. Its limits of
//! 16 frames and 25 ms a batch are left out: they would hold it back here.

use super::rule::{Next, Rule};
use super::server::Server;
use base::Instant;
use std::time::Duration;

/// The original's safety margin.
const SHAVE: Duration = Duration::from_millis(5);

pub(super) struct Clockwork;

/// The largest size with enough requests that can still be in time, and where it begins in the
/// queue: requests before that are too late for a batch of that size.
fn strategy(server: &Server, runner: usize, now: Instant) -> Option<(usize, usize)> {
    let queue = &server.models[server.runners[runner].model].queue;
    let powers = (0..).map(|e| 1usize << e).take_while(|b| *b <= server.batch_max(runner));
    let sizes = powers.flat_map(|p| [p / 2 + p / 4, p].into_iter().skip(usize::from(p < 4)));
    let mut best = None;
    for size in sizes.take_while(|b| *b <= queue.len()) {
        let end = now + server.length(runner, size) + SHAVE;
        let begin = queue.iter().position(|r| r.deadline >= end);
        if let Some(begin) = begin.filter(|begin| queue.len() - begin >= size) {
            best = Some((begin, size));
        }
    }
    best
}

impl Rule for Clockwork {
    const TOKENS: bool = true;

    fn next(&mut self, server: &mut Server, now: Instant) -> Next {
        let free: Vec<usize> = server.free_runners().collect();
        let mut first: Option<(Instant, usize, usize, usize)> = None;
        for runner in free {
            server.drop_hopeless(runner, now, 1, SHAVE);
            let Some((begin, size)) = strategy(server, runner, now) else { continue };
            let queue = &server.models[server.runners[runner].model].queue;
            let start = queue[begin].deadline.back(server.length(runner, size));
            if first.is_none_or(|(at, ..)| start < at) {
                first = Some((start, runner, begin, size));
            }
        }
        let Some((_, runner, begin, size)) = first else { return Next::Wait(Instant::FAR) };
        let model = server.runners[runner].model;
        server.take(model, begin);
        Next::Launch(runner, server.take(model, size))
    }
}
