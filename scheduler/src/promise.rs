//! What becomes of the promises of runners: L(b) as they announced it.
//!
//! A promise is made by measuring under a grant and by nothing else. Whoever breaks it stands behind
//! those that want the same device; where there are none, nobody is harmed and it goes on as it can.
//! A promise that no frame could be answered with in time is measured again unasked: it may have been
//! made in a bad hour, and nothing is launched on it that would show how fast the runner is now.

use base::Instant;
use std::time::Duration;

/// A runner that can answer nothing in time is measured so long after it was measured or launched on
/// last (docs/wire.md promises it: the trouble of a start is over in seconds) ...
const CHECK_FIRST: Duration = Duration::from_secs(10);
/// ... then after twice as long each time, up to this (one run of a batch that takes half a
/// second is then 0.2 % of the time of the others on its device; always 10 s: beside a model 100 times slower
/// p99 +47 %; docs/wire.md promises it).
const CHECK_LAST: Duration = Duration::from_secs(320);
/// A promise that leaves less of the deadline than this share of itself is one that no frame is
/// answered with in time (what can be launched only when it is looked at at once; 1, 1.2 and 2: the same;
/// never: a model that was slow when it was measured is never served).
const MARGIN: f64 = 1.1;

/// When a runner is measured unasked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checks {
    /// Not before this.
    at: Instant,
    /// From the last such measurement to this.
    wait: Duration,
    /// One was asked for that is not known to have changed anything.
    open: bool,
}

/// What is to be done about a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Nothing.
    Stands,
    /// No frame could be answered with in time: what a single one takes is measured.
    Doubtful,
    /// A single one takes less by now: the other sizes are measured.
    Restored,
}

impl Default for Checks {
    fn default() -> Checks {
        Checks { at: Instant::ZERO, wait: CHECK_FIRST, open: false }
    }
}

impl Checks {
    /// A size was measured, whoever asked for it.
    pub fn measured(&mut self, now: Instant) {
        self.at = self.at.max(now + CHECK_FIRST);
    }

    /// What is to be done now, when a single frame is promised to take `single` and has `room` for it; the
    /// runner was launched on last at `launched_at`.
    pub fn look(
        &mut self,
        now: Instant,
        launched_at: Instant,
        single: Duration,
        room: Duration,
    ) -> Promise {
        if single.mul_f64(MARGIN) <= room {
            return if self.closed() { Promise::Restored } else { Promise::Stands };
        }
        let doubtful = now - launched_at >= CHECK_FIRST && self.due(now);
        if doubtful { Promise::Doubtful } else { Promise::Stands }
    }

    /// Whether a measurement is due. Then the next one is later.
    fn due(&mut self, now: Instant) -> bool {
        let due = now >= self.at;
        if due {
            self.wait = (self.wait * 2).min(CHECK_LAST);
            self.at = now + self.wait;
            self.open = true;
        }
        due
    }

    /// Frames can be answered in time. True = since a measurement that was due.
    fn closed(&mut self) -> bool {
        self.wait = CHECK_FIRST;
        std::mem::take(&mut self.open)
    }
}
