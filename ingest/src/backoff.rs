//! Pauses between attempts: 0.25 s doubling to 30 s, from the start again after 10 good seconds.

use base::Instant;
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

/// The same line again is said only after this time.
pub const REPEAT: Duration = Duration::from_secs(600);

/// Keeps a line that would be logged at every retry to one, until it changes.
#[derive(Debug, Default)]
pub struct LogGate {
    said: Option<(String, Instant)>,
}

impl LogGate {
    /// Whether `line` should be logged at `now`.
    pub fn allows(&mut self, line: &str, now: Instant) -> bool {
        if self.said.as_ref().is_some_and(|(said, at)| said == line && now - *at < REPEAT) {
            return false;
        }
        self.said = Some((line.to_owned(), now));
        true
    }

    /// The trouble is over: the next line is new. Returns whether there was any.
    pub fn clear(&mut self) -> bool {
        self.said.take().is_some()
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

    #[test]
    fn a_line_is_said_once_until_it_changes_or_ten_minutes_passed() {
        let mut gate = LogGate::default();
        let at = |s| Instant::ZERO + Duration::from_secs(s);
        assert!(gate.allows("a", at(0)) && !gate.allows("a", at(1)) && !gate.allows("a", at(599)));
        assert!(
            gate.allows("a", at(600)) && gate.allows("b", at(601)) && gate.allows("a", at(602))
        );
        assert!(gate.clear() && !gate.clear());
        assert!(gate.allows("a", at(603)));
    }
}
