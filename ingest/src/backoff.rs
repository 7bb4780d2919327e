//! Pauses between attempts: 0.25 s doubling to 30 s, from the start again after 10 good seconds.

pub use base::log_gate::LogGate;
use std::time::Duration;

/// First pause (chosen: a restarted camera or worker is back before anybody looks).
pub const FIRST: Duration = Duration::from_millis(250);
/// Longest pause (chosen).
pub const LONGEST: Duration = Duration::from_secs(30);
/// An attempt that lasted this long was good.
pub const GOOD: Duration = Duration::from_secs(10);

/// State of one retried thing.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next: FIRST }
    }
}

impl Backoff {
    /// The pause after an attempt that went well for `lasted` before it failed.
    pub fn pause(&mut self, lasted: Duration) -> Duration {
        if lasted >= GOOD {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_longest_and_starts_again_after_a_good_time() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..10).map(|_| backoff.pause(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(backoff.pause(GOOD - Duration::from_nanos(1)), LONGEST);
        assert_eq!(backoff.pause(GOOD), FIRST);
        assert_eq!(backoff.pause(Duration::ZERO), 2 * FIRST);
    }
}
