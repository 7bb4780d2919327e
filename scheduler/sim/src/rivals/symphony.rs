//! Symphony: a batch is deferred until one request more would make it late.
//!
//! With d the deadline of its first request, a batch of b starts between d - L(b + 1) and
//! d - L(b). Requests that would make the batch of the staggered optimum for one device,
//! `2 L(b)` within the deadline, late are dropped from the front. Made for many devices: on one
//! it spends the whole deadline as age.

use super::rule::{Next, Rule};
use super::server::Server;
use base::Instant;
use std::time::Duration;

pub(super) struct Symphony;

fn target(server: &Server, runner: usize) -> usize {
    let deadline = server.runners[runner].info.deadline;
    let fits = |b: &usize| server.length(runner, *b) * 2 <= deadline;
    (2..=server.batch_max(runner)).rev().find(fits).unwrap_or(1)
}

impl Rule for Symphony {
    const TOKENS: bool = true;

    fn next(&mut self, server: &mut Server, now: Instant) -> Next {
        let free: Vec<usize> = server.free_runners().collect();
        let mut first: Option<(Instant, usize, usize)> = None;
        for runner in free {
            let target = target(server, runner);
            server.drop_hopeless(runner, now, target, Duration::ZERO);
            let queue = &server.models[server.runners[runner].model].queue;
            let Some(head) = queue.front() else { continue };
            let most = queue.len().min(server.batch_max(runner));
            let in_time = |b: &usize| now + server.length(runner, *b) <= head.deadline;
            let Some(batch) = (1..=most).rev().find(in_time) else { continue };
            // A batch that can't grow has nothing to wait for.
            let full = batch < most || batch == server.batch_max(runner);
            let start = head.deadline.back(server.length(runner, batch + 1));
            let start = if full { now } else { start.max(now) };
            if first.is_none_or(|(at, ..)| start < at) {
                first = Some((start, runner, batch));
            }
        }
        match first {
            Some((start, runner, batch)) if start <= now => {
                let model = server.runners[runner].model;
                Next::Launch(runner, server.take(model, batch))
            }
            Some((start, ..)) => Next::Wait(start),
            None => Next::Wait(Instant::FAR),
        }
    }
}
