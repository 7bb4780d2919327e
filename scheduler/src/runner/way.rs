//! How long messages are on their way to a runner and back: of a Prepare, of a token beyond its
//! execution, of a Reply.

use std::time::Duration;

/// Added to the measured way of a Prepare, so that most are in time (none: `s2` p99 +7 %;
/// half: +6 %; twice: p99 of `s2` +2 %, mean of `s4` -2 %).
const LEAD_MARGIN: Duration = Duration::from_micros(100);
/// Share by which a remembered longest way fades per sample (where ways last 0.3 ms more at random and
/// one in a hundred 2 ms: at once, `s2` mean +6 %; never, `s8` mean +4 %).
const FADE: u32 = 64;

#[derive(Debug, Default)]
pub(crate) struct Way {
    /// The longest way of a Prepare to its Prepared of late.
    lead: Option<Duration>,
    /// The longest way from the end of an execution to its handled Reply of late.
    tail: Duration,
    /// Mean time that a token is out beyond the execution.
    turnaround: Duration,
}

impl Way {
    /// The way of a Prepare took this long.
    pub fn note_lead(&mut self, took: Duration) {
        let faded = self.lead.map_or(took, |l| l - l / FADE);
        self.lead = Some(faded.max(took));
    }

    /// How long before the token comes back the next batch is prepared, at most `longest`.
    pub fn lead(&self, longest: Duration) -> Duration {
        self.lead.map_or(longest, |l| (l + LEAD_MARGIN).min(longest))
    }

    /// The same as it was measured, zero before that.
    pub fn copy(&self) -> Duration {
        self.lead.unwrap_or_default()
    }

    /// A token was out for this long beyond its execution.
    pub fn note_turnaround(&mut self, beyond: Duration) {
        self.turnaround = (self.turnaround * 15 + beyond) / 16;
    }

    pub fn turnaround(&self) -> Duration {
        self.turnaround
    }

    /// The reply came this long after the execution ended.
    pub fn note_tail(&mut self, took: Duration) {
        self.tail = (self.tail - self.tail / FADE).max(took);
    }

    pub fn tail(&self) -> Duration {
        self.tail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn the_longest_way_of_a_prepare_counts_and_fades() {
        let mut way = Way::default();
        assert_eq!((way.lead(us(3_000)), way.copy()), (us(3_000), us(0)), "not measured yet");
        way.note_lead(us(1_000));
        way.note_lead(us(10));
        assert!(way.copy() > us(950) && way.copy() < us(1_000));
        assert_eq!(way.lead(us(3_000)), way.copy() + LEAD_MARGIN);
        assert_eq!(way.lead(us(500)), us(500));
        (0..1_000).for_each(|_| way.note_lead(us(10)));
        assert_eq!(way.copy(), us(10));
    }

    #[test]
    fn of_replies_the_longest_of_late_counts_of_tokens_the_mean() {
        let mut way = Way::default();
        way.note_tail(us(800));
        way.note_tail(us(100));
        assert!(way.tail() > us(700) && way.tail() < us(800));
        (0..200).for_each(|n| way.note_turnaround(us(100 + 100 * (n % 2))));
        assert!(way.turnaround() > us(130) && way.turnaround() < us(170));
    }
}
