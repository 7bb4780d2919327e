//! Looking at cameras: when, and what a new frame changes.
//!
//! Nobody looks at a camera unless a device could use what it shows: subscriptions wait in their
//! model's `awaited` heap by the instant at which their next frame may be there, and are examined
//! when a device asks what it could launch.

use crate::camera::{Seen, next_multiple};
use crate::device::{Device, Model, ModelIx};
use crate::machine::Scheduler;
use crate::subscription::{Subscription, SubscriptionState};
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
            if at > self.now.0 {
                return;
            }
            self.models[model.0].awaited.pop();
            let Some(s) = self.subscriptions.get(key) else { continue };
            if s.awaits.0 == at && !s.ready && s.model == model {
                self.look(s.camera, index);
                self.examine(key);
            }
        }
    }

    /// Looks for the frames that may be there and were not at the last look. A header is one word in
    /// shared memory: what a launch misses would wait for the next one.
    fn look_again(&mut self, model: ModelIx, index: &mut dyn FrameIndex) {
        let mut overdue = std::mem::take(&mut self.models[model.0].overdue);
        overdue.retain(|key| {
            let Some(s) = self.subscriptions.get(*key) else { return false };
            if !s.ready {
                self.look(s.camera, index);
                self.examine(*key);
            }
            let Some(s) = self.subscriptions.get_mut(*key) else { return false };
            let camera = &self.cameras[s.camera.0 as usize];
            s.overdue = !s.ready && s.may_come(camera, camera.expect(s.gate), self.now);
            s.overdue
        });
        // A look may have told others of the same camera.
        overdue.append(&mut self.models[model.0].overdue);
        self.models[model.0].overdue = overdue;
    }

    /// When the model's next subscription is to be examined, at most `before`.
    pub(crate) fn awaited_before(&mut self, model: ModelIx, before: Instant) -> Instant {
        while self.models[model.0].awaited.first() < before.0 {
            let Some((at, key)) = self.models[model.0].awaited.peek() else { break };
            let valid = |s: &Subscription| s.awaits.0 == at && !s.ready;
            if self.subscriptions.get(key).is_some_and(valid) {
                return Instant(at);
            }
            self.models[model.0].awaited.pop();
        }
        before
    }

    /// Counts the frames of subscriptions that nobody serves.
    pub(crate) fn look_unserved(&mut self, index: &mut dyn FrameIndex) {
        while let Some((at, key)) = self.unserved.peek() {
            if at > self.now.0 {
                return;
            }
            self.unserved.pop();
            let Some(s) = self.subscriptions.get(key) else { continue };
            if s.awaits.0 == at && s.state != SubscriptionState::Active {
                self.look(s.camera, index);
                self.examine(key);
            }
        }
    }

    /// Reads the newest frame of a camera, once per epoch.
    pub(crate) fn look(&mut self, key: CameraKey, index: &mut dyn FrameIndex) {
        let camera = &mut self.cameras[key.0 as usize];
        if camera.read_in == self.epoch {
            return;
        }
        camera.read_in = self.epoch;
        let was_absent = camera.absent;
        let seen = camera.read(self.now, index.newest(key));
        let gone = camera.absent.is_some() && was_absent.is_none();
        let (first, resumed, returned) = match seen {
            Seen::Frame { first, resumed, returned } => (first, resumed, returned),
            Seen::Nothing => (false, false, false),
        };
        if resumed {
            for subscription in &self.agents[key.0 as usize].subscriptions {
                if let Some(s) = self.subscriptions.get_mut(*subscription) {
                    s.begin_serving(self.now);
                }
            }
        }
        if gone || first || returned {
            self.tell_all(key, first, returned);
        }
    }

    /// A camera went, came back or began anew: every subscription of it is concerned.
    fn tell_all(&mut self, key: CameraKey, first: bool, returned: bool) {
        for i in 0..self.agents[key.0 as usize].subscriptions.len() {
            let subscription = self.agents[key.0 as usize].subscriptions[i];
            let camera = &self.cameras[key.0 as usize];
            let Some(s) = self.subscriptions.get_mut(subscription) else { continue };
            if s.child {
                continue; // Its frames are those of its parent.
            }
            if let Some(stamp) = camera.current() {
                s.observe_return(stamp.frame_id.0, first);
                if returned {
                    s.reopen(self.now);
                }
            }
            self.examine(subscription);
        }
    }

    /// Brings a subscription in line with what is known of its camera: ready, or awaiting.
    pub(crate) fn examine(&mut self, key: SubscriptionKey) {
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        if s.child {
            return self.examine_child(key);
        }
        let camera = &self.cameras[s.camera.0 as usize];
        let mut ready = false;
        if let Some(stamp) = camera.current() {
            s.observe(stamp.frame_id.0);
            ready = s.eligible(stamp);
            if !ready {
                s.settle(stamp);
            }
        }
        if ready {
            if !s.ready {
                enter(s, &mut self.models[s.model.0], &mut self.devices, self.now);
            }
        } else {
            self.unready(key);
            self.schedule(key);
        }
    }

    /// Puts a subscription into its model's ready set.
    pub(crate) fn make_ready(&mut self, key: SubscriptionKey) {
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        if !s.ready {
            enter(s, &mut self.models[s.model.0], &mut self.devices, self.now);
        }
    }

    /// Takes a subscription out of its model's ready set.
    pub(crate) fn unready(&mut self, key: SubscriptionKey) {
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        if !std::mem::take(&mut s.ready) {
            return;
        }
        let model = &mut self.models[s.model.0];
        model.ready_count -= 1;
        if model.ready_count == 0 {
            model.ready.clear();
            model.due = Instant::FAR;
            model.on_time = false;
        }
    }

    /// The foremost ready subscription of a model.
    pub(crate) fn foremost(&mut self, model: ModelIx) -> Option<(u64, SubscriptionKey)> {
        let m = &mut self.models[model.0];
        if m.ready_count == 0 {
            return None;
        }
        while let Some((tag, key)) = m.ready.peek() {
            let valid = |s: &Subscription| s.ready && s.tag == tag;
            if self.subscriptions.get(key).is_some_and(valid) {
                return Some((tag, key));
            }
            m.ready.pop();
        }
        None
    }

    /// Says when a subscription that is not ready is examined next.
    pub(crate) fn schedule(&mut self, key: SubscriptionKey) {
        let Some(s) = self.subscriptions.get(key) else { return };
        let commit = self.next_commit(s);
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        if s.child {
            s.awaits = Instant::FAR;
            return;
        }
        let camera = &self.cameras[s.camera.0 as usize];
        if s.state != SubscriptionState::Active {
            let at = next_multiple(self.now, UNSERVED_LOOK);
            if s.awaits != at {
                s.awaits = at;
                self.unserved.push(at.0, key);
            }
            return;
        }
        let at = commit.unwrap_or_else(|| {
            let (slack, interval) = (self.config.arrival_slack, self.config.poll_interval);
            let expected = camera.expect(s.gate);
            if !s.overdue && s.may_come(camera, expected, self.now) {
                s.overdue = true;
                self.models[s.model.0].overdue.push(key);
            }
            camera.next_look(self.now, s.gate, expected, slack, interval)
        });
        // Always in the future: what is examined now can't be examined again now.
        let at = at.max(Instant(self.now.0 + 1));
        s.on_time = commit.is_some();
        if s.awaits == at {
            return;
        }
        s.awaits = at;
        let model = &mut self.models[s.model.0];
        model.awaited.push(at.0, key);
        for device in &model.devices {
            let device = &mut self.devices[device.0];
            device.next_at = device.next_at.min(at);
        }
        // Entries that no longer count are dropped before they pile up.
        if model.awaited.len() > model.awaited_max() {
            let subscriptions = &self.subscriptions;
            model.awaited.retain(|at, key| {
                subscriptions.get(key).is_some_and(|s| s.awaits.0 == at && !s.ready)
            });
        }
    }
}

/// Puts a subscription that is not ready into its model's ready set.
fn enter(s: &mut Subscription, model: &mut Model, devices: &mut [Device], now: Instant) {
    s.ready = true;
    let due = if s.on_time { s.awaits } else { now };
    let on_time = std::mem::take(&mut s.on_time);
    s.awaits = Instant::FAR;
    model.ready.push(s.tag, s.key);
    model.ready_count += 1;
    model.due = model.due.min(due);
    model.on_time |= on_time;
    for device in &model.devices {
        devices[device.0].dirty = true;
    }
}
