//! Where a subscription waits: ready with a frame to bind, overdue for one that may be there, or until
//! an instant.

use super::{Subscription, SubscriptionState};
use crate::camera::{Camera, Expected};
use base::Instant;

impl Subscription {
    pub fn ready(&self) -> bool {
        self.ready
    }

    /// Whether an entry of its model's ready set counts.
    pub fn ready_with(&self, tag: u64) -> bool {
        self.ready && self.tag == tag
    }

    /// It has a frame to bind. Returns when that was due, and whether it was taken for a launch of
    /// the timetable.
    pub fn become_ready(&mut self, now: Instant) -> (Instant, bool) {
        self.ready = true;
        let due = if self.on_time { self.awaits } else { now };
        self.awaits = Instant::FAR;
        (due, std::mem::take(&mut self.on_time))
    }

    /// It has none. False = it had none before.
    pub fn become_unready(&mut self) -> bool {
        std::mem::take(&mut self.ready)
    }

    /// Whether it awaits that instant, in nanoseconds.
    pub fn awaits(&self, at: u64) -> bool {
        self.awaits.0 == at
    }

    /// It is examined then. False = that was known.
    pub fn wait_until(&mut self, at: Instant) -> bool {
        std::mem::replace(&mut self.awaits, at) != at
    }

    /// Its next frame is taken for a launch of the timetable, or not.
    pub fn take_on_time(&mut self, on_time: bool) {
        self.on_time = on_time;
    }

    /// Whether its next frame, which is `expected`, may be there although the last look did not show it.
    fn may_come(&self, camera: &Camera, expected: Option<Expected>, now: Instant) -> bool {
        self.state == SubscriptionState::Active
            && expected.is_some_and(|e| e.earliest <= now)
            && !camera.pauses(now)
    }

    /// Whether its next frame, which is `expected`, may be there although the last look did not show
    /// it, and that is news.
    pub fn becomes_overdue(
        &mut self,
        camera: &Camera,
        expected: Option<Expected>,
        now: Instant,
    ) -> bool {
        let news = !self.overdue && self.may_come(camera, expected, now);
        self.overdue |= news;
        news
    }

    /// Whether that is so still, after another look.
    pub fn stays_overdue(&mut self, camera: &Camera, now: Instant) -> bool {
        self.overdue = !self.ready && self.may_come(camera, camera.expect(self.gate), now);
        self.overdue
    }
}
