//! A line that would be logged at every retry, said once.

use crate::Instant;
use std::time::Duration;

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
