//! Clips that wait, and which is next: those that are due, the longest due first. A clip whose end is not
//! recorded yet holds up no other. Times are of the monotonic clock: nothing waits for a clock on the wall.

use base::{Instant, UtcNanos};
use std::collections::BTreeMap;
use std::time::Duration;
use store::control::Bookmark;

/// What is recorded is on disk so long after it was captured: fragments last at most a second.
pub const RECORDED_AFTER: Duration = Duration::from_millis(1500);

/// When a clip that ends at `end` can be cut, asked for now: at most [`RECORDED_AFTER`] from now.
pub fn due(now: Instant, utc: UtcNanos, end: UtcNanos) -> Instant {
    let since = Duration::from_nanos(utc.0.saturating_sub(end.0));
    now + RECORDED_AFTER.saturating_sub(since)
}

/// Clips by the time at which they are due; those of one time in the order in which they came.
#[derive(Debug, Default)]
pub struct Due {
    waiting: BTreeMap<(Instant, u64), Bookmark>,
    count: u64,
}

impl Due {
    /// One more.
    pub fn push(&mut self, due: Instant, row: Bookmark) {
        self.waiting.insert((due, self.count), row);
        self.count += 1;
    }

    /// The next one, if it is due.
    pub fn pop(&mut self, now: Instant) -> Option<Bookmark> {
        if self.next()? > now {
            return None;
        }
        self.waiting.pop_first().map(|(_, row)| row)
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Those that wait, the next one first.
    pub fn iter(&self) -> impl Iterator<Item = &Bookmark> {
        self.waiting.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const SECOND: u64 = base::time::NANOS_PER_SEC;

    #[test]
    fn a_clip_is_due_when_its_end_is_recorded_whatever_the_clock_on_the_wall_does() {
        let (now, utc) = (Instant(77), UtcNanos(1_000_000 * SECOND));
        let wait = |end: u64| due(now, utc, UtcNanos(end)).since(now);
        assert_eq!(wait(utc.0), RECORDED_AFTER);
        assert_eq!(wait(utc.0 - SECOND), Duration::from_millis(500));
        assert_eq!(wait(utc.0 - 2 * SECOND), Duration::ZERO);
        assert_eq!(wait(0), Duration::ZERO);
        // The clock was set back by an hour between the request and this.
        assert_eq!(wait(utc.0 + 3600 * SECOND), RECORDED_AFTER);
    }

    #[test]
    fn the_longest_due_is_first_and_one_that_is_not_due_holds_up_no_other() {
        let mut waiting = Due::default();
        let rows: Vec<Bookmark> = (0..4).map(|_| testing::bookmark()).collect();
        let due = [30, 10, 20, 10].map(Instant);
        for (due, row) in due.into_iter().zip(&rows) {
            waiting.push(due, row.clone());
        }
        let order = [1, 3, 2, 0].map(|at: usize| &rows[at]);
        assert_eq!(waiting.iter().collect::<Vec<_>>(), order);
        assert_eq!((waiting.len(), waiting.next()), (4, Some(Instant(10))));
        assert_eq!(waiting.pop(Instant(9)), None);
        let mut popped = Vec::new();
        for now in [10, 10, 19, 20, 29, 30, 40] {
            popped.push(waiting.pop(Instant(now)).and_then(|p| rows.iter().position(|r| *r == p)));
        }
        assert_eq!(popped, [Some(1), Some(3), None, Some(2), None, Some(0), None]);
        assert_eq!((waiting.len(), waiting.iter().count(), waiting.next()), (0, 0, None));
    }
}
