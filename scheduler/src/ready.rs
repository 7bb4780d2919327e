//! The subscriptions of a model that have a frame to bind.

use crate::SubscriptionKey;
use crate::queue::Queue;
use base::Instant;

/// By tag. An entry counts while its subscription is ready with this tag.
#[derive(Debug)]
pub(crate) struct Ready {
    queue: Queue,
    /// How many are ready.
    count: u32,
    /// When the first of them was due; [`Instant::FAR`] when none is ready.
    due: Instant,
    /// Whether one of them was taken for a launch of the timetable.
    on_time: bool,
}

impl Default for Ready {
    fn default() -> Ready {
        Ready { queue: Queue::default(), count: 0, due: Instant::FAR, on_time: false }
    }
}

impl Ready {
    /// One more, which was due then.
    pub fn enter(&mut self, tag: u64, key: SubscriptionKey, due: Instant, on_time: bool) {
        self.queue.push(tag, key);
        self.count += 1;
        self.due = self.due.min(due);
        self.on_time |= on_time;
    }

    /// One less. Its entry counts no longer.
    pub fn leave(&mut self) {
        self.count -= 1;
        if self.count == 0 {
            self.queue.clear();
            self.due = Instant::FAR;
            self.on_time = false;
        }
    }

    /// One that is ready has this tag, or stands here again.
    pub fn enqueue(&mut self, tag: u64, key: SubscriptionKey) {
        self.queue.push(tag, key);
    }

    /// Takes the foremost entry out.
    pub fn pop(&mut self) {
        self.queue.pop();
    }

    /// The foremost entry that `counts`; those before it are dropped.
    pub fn foremost(
        &mut self,
        counts: impl Fn(u64, SubscriptionKey) -> bool,
    ) -> Option<(u64, SubscriptionKey)> {
        if self.count == 0 {
            return None;
        }
        while let Some((tag, key)) = self.queue.peek() {
            if counts(tag, key) {
                return Some((tag, key));
            }
            self.queue.pop();
        }
        None
    }

    /// A launch took place: what it left behind was in time and goes on with the next one, whenever
    /// that is.
    pub fn launched(&mut self) {
        self.on_time &= self.count > 0;
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many are ready.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// When the first of them was due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Whether one of them was taken for a launch of the timetable.
    pub fn on_time(&self) -> bool {
        self.on_time
    }

    /// Room for `capacity` entries in all.
    pub fn reserve(&mut self, capacity: usize) {
        self.queue.reserve(capacity);
    }
}
