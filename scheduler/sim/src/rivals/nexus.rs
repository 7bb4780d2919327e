//! Nexus: batch sizes planned from rates and deadlines, models served in turn, early drop.
//!
//! A batch may be so large that `2 L(b)` meets the deadline; where the device can keep up, so small
//! that it is gathered and executed within the deadline, for the shortest such cycle of all models
//! of the device. Requests that would make the planned batch late are dropped from the front.

use super::rule::{Next, Rule};
use super::server::Server;
use base::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
pub(super) struct Nexus {
    /// Per device the runner whose turn comes next.
    turn: BTreeMap<usize, usize>,
}

/// Requests per second that one runner has to serve.
fn rate(server: &Server, runner: usize) -> f64 {
    let model = &server.models[server.runners[runner].model];
    model.rate / model.runners.len().max(1) as f64
}

/// The largest batch of 1 to the engine's maximum that satisfies `fits`, at least 1.
fn largest(server: &Server, runner: usize, fits: impl Fn(f64, f64) -> bool) -> usize {
    let length = |b: usize| server.length(runner, b).as_secs_f64();
    (2..=server.batch_max(runner)).rev().find(|b| fits(*b as f64, length(*b))).unwrap_or(1)
}

/// The planned batch of `runner` among those of its device.
fn planned(server: &Server, runner: usize) -> usize {
    let saturated = |r: usize| {
        let budget = server.runners[r].info.deadline.as_secs_f64();
        largest(server, r, |_, length| 2.0 * length <= budget)
    };
    let device = server.runners[runner].device;
    let beside: Vec<usize> = (server.models.iter().filter(|m| m.sources > 0))
        .flat_map(|m| m.runners.iter().copied())
        .filter(|r| server.runners[*r].device == device)
        .collect();
    let mut cycle = f64::MAX;
    for &r in &beside {
        let (budget, rate) = (server.runners[r].info.deadline.as_secs_f64(), rate(server, r));
        let batch = largest(server, r, |b, length| (b - 1.0) / rate + length <= budget);
        cycle = cycle.min(batch as f64 / rate);
    }
    let size = |r: usize| ((cycle * rate(server, r)).ceil() as usize).clamp(1, saturated(r));
    let busy: Duration = beside.iter().map(|&r| server.length(r, size(r))).sum();
    let keeps_up = busy.as_secs_f64() <= cycle;
    if keeps_up { size(runner) } else { saturated(runner) }
}

impl Rule for Nexus {
    const TOKENS: bool = true;

    fn next(&mut self, server: &mut Server, now: Instant) -> Next {
        let turn = |r: &usize| {
            let next = self.turn.get(&server.runners[*r].device).copied().unwrap_or(0);
            (*r < next, *r)
        };
        let mut free: Vec<usize> = server.free_runners().collect();
        free.sort_by_key(turn);
        for runner in free {
            let model = server.runners[runner].model;
            if server.models[model].queue.is_empty() {
                continue;
            }
            let batch = planned(server, runner);
            server.drop_hopeless(runner, now, batch, Duration::ZERO);
            let requests = server.take(model, batch);
            if !requests.is_empty() {
                self.turn.insert(server.runners[runner].device, runner + 1);
                return Next::Launch(runner, requests);
            }
        }
        Next::Wait(Instant::FAR)
    }
}
