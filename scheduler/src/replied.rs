//! A reply whose results are handed out one by one.

use crate::input::Outcome;
use crate::output::{Binding, Output};
use crate::place::RunnerIx;
use crate::{BatchId, RunnerKey};
use base::{Instant, StageTimes, Stages, Stamp};
use std::time::Duration;

/// Whose reply it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    pub runner: RunnerKey,
    pub ix: RunnerIx,
    pub batch: BatchId,
    pub received: Instant,
    pub times: StageTimes,
    /// Sequence of the first result.
    pub sequence: u64,
}

/// A reply with as many outcomes as members, at least one of which is not handed out yet.
#[derive(Debug)]
pub(crate) struct Replied {
    of: Reply,
    /// What came after the runner had received the batch is the same for all members.
    since_received: Stages,
    since_received_ns: [u64; 9],
    members: Vec<Binding>,
    outcomes: std::vec::IntoIter<Outcome>,
    next: usize,
}

impl Replied {
    pub fn new(of: Reply, members: Vec<Binding>, outcomes: Vec<Outcome>) -> Replied {
        debug_assert!(members.len() == outcomes.len() && !members.is_empty());
        let Reply { times, received, .. } = &of;
        let since_received =
            Stages::new(times.received, times.received, times.received, times, *received);
        Replied {
            since_received,
            since_received_ns: since_received.as_array().map(base::time::nanos),
            of,
            members,
            outcomes: outcomes.into_iter(),
            next: 0,
        }
    }

    /// The next result, whose runner it is, and what its stages took, nanoseconds.
    pub fn next(&mut self) -> (Output<'static>, RunnerIx, [u64; 9]) {
        let outcome = self.outcomes.next().expect("a reply goes with its last result");
        let binding = self.members[self.next];
        let sequence = self.of.sequence + self.next as u64;
        self.next += 1;
        let last = self.done();
        let (stages, stages_ns) = self.stages(&binding.stamp);
        let Reply { runner, ix, batch, received, .. } = self.of;
        let result =
            Output::Result { runner, batch, binding, sequence, received, stages, outcome, last };
        (result, ix, stages_ns)
    }

    /// Whether its last result was handed out.
    pub fn done(&self) -> bool {
        self.next == self.members.len()
    }

    /// Whose reply it is.
    pub fn of(&self) -> &Reply {
        &self.of
    }

    /// Its memory.
    pub fn into_members(self) -> Vec<Binding> {
        self.members
    }

    /// The age of a member, taken apart, and the same in nanoseconds.
    fn stages(&self, stamp: &Stamp) -> (Stages, [u64; 9]) {
        let (info, Reply { times, received, .. }) = (&stamp.info, &self.of);
        let instants =
            [info.capture, info.decode_start, stamp.published, times.received, *received];
        if !instants.is_sorted() {
            // A stamp is wrong: boundary by boundary.
            let [capture, decode_start, published, ..] = instants;
            let stages = Stages::new(capture, decode_start, published, times, *received);
            return (stages, stages.as_array().map(base::time::nanos));
        }
        let mut ns = self.since_received_ns;
        for (stage, between) in ns.iter_mut().zip(instants.windows(2)).take(3) {
            *stage = between[1].0 - between[0].0;
        }
        let [transport, decode, wait, ..] = ns.map(Duration::from_nanos);
        (Stages { transport, decode, wait, ..self.since_received }, ns)
    }
}
