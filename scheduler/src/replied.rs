//! A reply whose results are handed out one by one.

use crate::input::Outcome;
use crate::output::Binding;
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

    /// The next member, the sequence of its result, and what became of it.
    #[inline]
    pub fn next(&mut self) -> (Binding, u64, Outcome) {
        let outcome = self.outcomes.next().expect("a reply goes with its last result");
        let (binding, sequence) = (self.members[self.next], self.of.sequence + self.next as u64);
        self.next += 1;
        (binding, sequence, outcome)
    }

    /// Whether its last result was handed out.
    #[inline]
    pub fn done(&self) -> bool {
        self.next == self.members.len()
    }

    /// Whose reply it is.
    #[inline]
    pub fn of(&self) -> &Reply {
        &self.of
    }

    /// Its memory.
    pub fn into_members(self) -> Vec<Binding> {
        self.members
    }

    /// The age of a member, taken apart, and the same in nanoseconds.
    #[inline]
    pub fn stages(&self, stamp: &Stamp) -> (Stages, [u64; 9]) {
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
