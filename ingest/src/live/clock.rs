//! The same moment on our clock and on that of the standard library, which WebRTC wants. Both are
//! CLOCK_MONOTONIC; the standard library does not say what its moments are.

use base::Instant;
use std::time;

/// One moment, read on both.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    ours: Instant,
    theirs: time::Instant,
}

impl Clock {
    /// Reads both.
    pub fn new() -> Clock {
        Clock { ours: ipc::clock::monotonic(), theirs: time::Instant::now() }
    }

    /// As the standard library has it.
    pub fn theirs(&self, ours: Instant) -> time::Instant {
        match ours >= self.ours {
            true => self.theirs + (ours - self.ours),
            false => self.theirs.checked_sub(self.ours - ours).unwrap_or(self.theirs),
        }
    }

    /// As ours; what is before the reading counts as the reading.
    pub fn ours(&self, theirs: time::Instant) -> Instant {
        self.ours + theirs.saturating_duration_since(self.theirs)
    }
}
