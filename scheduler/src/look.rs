//! Looking at cameras: when, and what a new frame changes.
//!
//! Nobody looks at a camera unless a device could use what it shows: subscriptions wait in their
//! model's `awaited` heap by the instant at which their next frame may be there, and are examined
//! when a device asks what it could launch.

use crate::camera::{Seen, next_multiple};
use crate::place::ModelIx;
use crate::readiness::enter;
use crate::state::Scheduler;
use crate::{CameraKey, FrameIndex, SubscriptionKey};
use base::Instant;
use std::time::Duration;

/// How often a subscription that nobody serves looks at its camera, only to count.
const UNSERVED_LOOK: Duration = Duration::from_secs(1);

impl Scheduler {
    /// Examines the subscriptions of a model whose next frame may be there.
    pub(crate) fn collect(&mut self, model: ModelIx, index: &mut dyn FrameIndex) {
        self.look_again(model, index);
        while let Some((at, key)) = self.models[model.0].awaited.peek() {
            if at > self.now().0 {
                return;
            }
            self.models[model.0].awaited.pop();
            let Some(s) = self.subscriptions.get(key) else { continue };
            if s.awaits(at) && !s.ready() && s.model == model {
                self.look(s.camera, index);
                self.examine(key);
            }
        }
    }

    /// Looks for the frames that may be there and were not at the last look. A header is one word in
    /// shared memory: what a launch misses would wait for the next one.
    fn look_again(&mut self, model: ModelIx, index: &mut dyn FrameIndex) {
        let now = self.now();
        let mut overdue = self.models[model.0].take_overdue();
        overdue.retain(|key| {
            let Some(s) = self.subscriptions.get(*key) else { return false };
            if !s.ready() {
                self.look(s.camera, index);
                self.examine(*key);
            }
            let Some(s) = self.subscriptions.get_mut(*key) else { return false };
            s.stays_overdue(&self.cameras[s.camera], now)
        });
        // A look may have told others of the same camera.
        self.models[model.0].give_back_overdue(overdue);
    }

    /// Counts the frames of subscriptions that nobody serves.
    pub(crate) fn look_unserved(&mut self, index: &mut dyn FrameIndex) {
        while let Some((at, key)) = self.unserved.peek() {
            if at > self.now().0 {
                return;
            }
            self.unserved.pop();
            let Some(s) = self.subscriptions.get(key) else { continue };
            if s.awaits(at) && !s.active() {
                self.look(s.camera, index);
                self.examine(key);
            }
        }
    }

    /// Reads the newest frame of a camera, once per epoch.
    pub(crate) fn look(&mut self, key: CameraKey, index: &mut dyn FrameIndex) {
        let (now, epoch) = (self.now(), self.epoch());
        let camera = &mut self.cameras[key];
        if !camera.begin_look(epoch) {
            return;
        }
        let was_absent = camera.absent();
        let seen = camera.read(now, index.newest(key));
        let gone = camera.absent().is_some() && was_absent.is_none();
        let (first, resumed, returned) = match seen {
            Seen::Frame { first, resumed, returned } => (first, resumed, returned),
            Seen::Nothing => (false, false, false),
        };
        if resumed {
            for subscription in self.cameras.agent(key).subscriptions() {
                if let Some(s) = self.subscriptions.get_mut(*subscription) {
                    s.begin_serving(now);
                }
            }
        }
        if gone || first || returned {
            self.tell_all(key, first, returned);
        }
    }

    /// A camera went, came back or began anew: every subscription of it is concerned.
    fn tell_all(&mut self, key: CameraKey, first: bool, returned: bool) {
        let now = self.now();
        for i in 0..self.cameras.agent(key).subscriptions().len() {
            let subscription = self.cameras.agent(key).subscriptions()[i];
            let camera = &self.cameras[key];
            let Some(s) = self.subscriptions.get_mut(subscription) else { continue };
            if s.child {
                continue; // Its frames are those of its parent.
            }
            if let Some(stamp) = camera.current() {
                s.observe_return(stamp.frame_id.0, first);
                if returned {
                    s.reopen(now);
                }
            }
            self.examine(subscription);
        }
    }

    /// Brings a subscription in line with what is known of its camera: ready, or awaiting.
    pub(crate) fn examine(&mut self, key: SubscriptionKey) {
        let now = self.now();
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        if s.child {
            // Crops that nobody looks at are not kept.
            if !s.active() {
                s.give_up_crops();
                self.unready(key);
            }
            return;
        }
        let camera = &self.cameras[s.camera];
        let mut ready = false;
        if let Some(stamp) = camera.current() {
            s.observe(stamp.frame_id.0);
            ready = s.eligible(stamp);
            if !ready {
                s.settle(stamp);
            }
        }
        if ready {
            if !s.ready() {
                enter(s, &mut self.models[s.model.0], &mut self.devices, now);
            }
        } else {
            self.unready(key);
            self.schedule(key);
        }
    }

    /// Says when a subscription that is not ready is examined next.
    pub(crate) fn schedule(&mut self, key: SubscriptionKey) {
        let now = self.now();
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        if s.child {
            s.wait_until(Instant::FAR);
            return;
        }
        if !s.active() {
            let at = next_multiple(now, UNSERVED_LOOK);
            if s.wait_until(at) {
                self.unserved.push(at.0, key);
            }
            return;
        }
        let (camera, model) = (&self.cameras[s.camera], &mut self.models[s.model.0]);
        let cohort = s.cohort().zip(model.cohorts());
        let commit = cohort.and_then(|(launch, c)| c.commit_for(launch, camera, s.gate(), now));
        let at = commit.unwrap_or_else(|| {
            let (slack, interval) = (self.config.arrival_slack, self.config.poll_interval);
            let expected = camera.expect(s.gate());
            if s.becomes_overdue(camera, expected, now) {
                model.add_overdue(key);
            }
            camera.next_look(now, s.gate(), expected, slack, interval)
        });
        // Always in the future: what is examined now can't be examined again now.
        let at = at.max(Instant(now.0 + 1));
        s.take_on_time(commit.is_some());
        if !s.wait_until(at) {
            return;
        }
        model.awaited.push(at.0, key);
        for device in model.devices() {
            self.devices[device.0].step_by(at);
        }
        // Entries that no longer count are dropped before they pile up.
        if model.awaits_many() {
            let subscriptions = &self.subscriptions;
            model.awaited.retain(|at, key| {
                subscriptions.get(key).is_some_and(|s| s.awaits(at) && !s.ready())
            });
        }
    }
}
