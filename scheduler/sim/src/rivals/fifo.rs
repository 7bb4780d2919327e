//! Frigate: one queue, batches of one, a producer that waits for its answer.
//!
//! A source has one frame in the queue or executing; what comes meanwhile is skipped.

use super::rule::{Next, Rule};
use super::server::{Request, Server};
use base::Instant;
use scheduler::{Binding, SubscriptionKey};
use std::collections::BTreeSet;

#[derive(Default)]
pub(super) struct Fifo {
    /// Sources that wait for an answer.
    asked: BTreeSet<SubscriptionKey>,
}

impl Rule for Fifo {
    const TOKENS: bool = false;

    fn request(&mut self, server: &mut Server, request: Request) {
        if self.asked.insert(request.subscription) {
            server.enqueue(request);
        }
    }

    fn next(&mut self, server: &mut Server, _: Instant) -> Next {
        let waits = |r: &usize| !server.models[server.runners[*r].model].queue.is_empty();
        let Some(runner) = server.free_runners().find(waits) else {
            return Next::Wait(Instant::FAR);
        };
        let model = server.runners[runner].model;
        Next::Launch(runner, server.take(model, 1))
    }

    fn ended(&mut self, _: &mut Server, members: &[Binding]) {
        for member in members {
            self.asked.remove(&member.subscription);
        }
    }
}
