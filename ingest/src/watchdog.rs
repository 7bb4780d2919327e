//! Whether a decode worker still moves. Pure.

use base::Instant;
use std::time::Duration;

/// A worker that owes something and makes no progress for this long is ended (design section 7).
pub const STALL: Duration = Duration::from_secs(3);
/// A worker that has not said a word since its start is ended after this (chosen: starting a
/// process takes long on a machine that is short of everything).
pub const START: Duration = Duration::from_secs(15);

/// Watches one life of one worker.
#[derive(Debug)]
pub struct Watchdog {
    since: Instant,
    sent: u64,
    done: u64,
    heard: bool,
}

impl Watchdog {
    /// The worker was started at `now`.
    pub fn new(now: Instant) -> Watchdog {
        Watchdog { since: now, sent: 0, done: 0, heard: false }
    }

    /// The worker is owed up to the unit `sequence`.
    pub fn sent(&mut self, sequence: u64, now: Instant) {
        if self.heard && self.sent == self.done {
            // It was idle until now.
            self.since = now;
        }
        self.sent = sequence;
    }

    /// The worker has dealt with the units up to `sequence`.
    pub fn heard(&mut self, sequence: u64, now: Instant) {
        if sequence > self.done || !self.heard {
            self.since = now;
        }
        self.done = self.done.max(sequence);
        self.heard = true;
    }

    /// When it is to be ended unless it is heard before; `None` while it owes nothing.
    pub fn deadline(&self) -> Option<Instant> {
        match self.heard {
            false => Some(self.since + START),
            true if self.sent > self.done => Some(self.since + STALL),
            true => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_worker_that_owes_and_does_not_move_is_ended_after_three_seconds() {
        let mut dog = Watchdog::new(at(0));
        assert_eq!(dog.deadline(), Some(at(15_000)));
        dog.sent(1, at(10));
        assert_eq!(dog.deadline(), Some(at(15_000)), "it is still starting");
        dog.heard(0, at(2_000));
        assert_eq!(dog.deadline(), Some(at(5_000)));
        dog.heard(1, at(2_100));
        assert_eq!(dog.deadline(), None, "an idle worker may be silent");
        // Idle for an hour: the time counts from the next unit.
        dog.sent(2, at(3_600_000));
        dog.sent(3, at(3_601_000));
        assert_eq!(dog.deadline(), Some(at(3_603_000)));
        dog.heard(1, at(3_602_000));
        assert_eq!(dog.deadline(), Some(at(3_603_000)), "a report without progress is none");
        dog.heard(2, at(3_602_500));
        assert_eq!(dog.deadline(), Some(at(3_605_500)));
    }
}
