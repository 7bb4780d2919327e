//! How many frames a subscription was granted of late.

use base::Instant;
use std::ops::Range;
use std::time::Duration;

/// Seconds over which granted fps is measured (0.5 fps still gives five frames; judged by hand).
const WINDOW_S: u32 = 10;

/// Frames bound, by the second of the clock: the last ones, and the one that runs.
#[derive(Debug, Default)]
pub(super) struct Granted {
    newest: u32,
    ring: [u16; WINDOW_S as usize + 1],
}

impl Granted {
    const SLOTS: u32 = WINDOW_S + 1;

    /// Starts the measure anew.
    pub fn begin(&mut self, now: Instant) {
        self.ring.fill(0);
        self.newest = second_of(now);
    }

    /// A frame was bound.
    pub fn count(&mut self, now: Instant) {
        let second = second_of(now);
        if second != self.newest {
            if second - self.newest >= Granted::SLOTS {
                self.ring.fill(0);
            } else {
                for s in self.newest + 1..=second {
                    self.ring[(s % Granted::SLOTS) as usize] = 0;
                }
            }
            self.newest = second;
        }
        let here = &mut self.ring[(second % Granted::SLOTS) as usize];
        *here = here.saturating_add(1);
    }

    /// One that was bound at `bound` is taken back.
    pub fn uncount(&mut self, bound: Instant) {
        let second = second_of(bound);
        if self.newest.checked_sub(second).is_some_and(|ago| ago < Granted::SLOTS) {
            let there = &mut self.ring[(second % Granted::SLOTS) as usize];
            *there = there.saturating_sub(1);
        }
    }

    /// Frames bound in the last full seconds, and the length of these; before there is a full second,
    /// those bound since it is served, `since`, and a second.
    pub fn lately(&self, now: Instant, since: Instant) -> (u64, Duration) {
        let second = second_of(now);
        let begun = second_of(since) + 1;
        let in_ring = |s: u32| s <= self.newest && self.newest - s < Granted::SLOTS;
        let bound = |seconds: Range<u32>| -> u64 {
            let seconds = seconds.filter(|s| in_ring(*s));
            seconds.map(|s| u64::from(self.ring[(s % Granted::SLOTS) as usize])).sum()
        };
        let from = second.saturating_sub(WINDOW_S).max(begun);
        if second > from {
            return (bound(from..second), Duration::from_secs(u64::from(second - from)));
        }
        (bound(begun - 1..second + 1), (now - since).max(Duration::from_secs(1)))
    }
}

/// The second of the clock that an instant lies in.
fn second_of(at: Instant) -> u32 {
    (at.0 / base::time::NANOS_PER_SEC) as u32
}
