//! Looking at cameras: when, and what a new frame changes.

use crate::camera::Seen;
use crate::machine::Scheduler;
use crate::subscription::SubscriptionState;
use crate::{AgentState, CameraKey, FrameIndex, SubscriptionKey};
use base::Instant;
use std::cmp::Reverse;
use std::time::Duration;

/// How often a subscription that nobody serves looks at its camera, only to count.
const UNSERVED_LOOK: Duration = Duration::from_secs(1);

impl Scheduler {
    /// Looks at every camera whose time has come.
    pub(crate) fn look_at_due(&mut self, index: &mut dyn FrameIndex) {
        while let Some(&Reverse((at, key))) = self.looks.peek() {
            if at > self.now {
                break;
            }
            self.looks.pop();
            if self.cameras[key.0 as usize].look_at != at {
                continue; // A newer entry took its place.
            }
            self.look(key, index);
            self.schedule_look(key);
        }
    }

    /// Reads the newest frame of a camera, once per epoch, and tells its subscriptions.
    pub(crate) fn look(&mut self, key: CameraKey, index: &mut dyn FrameIndex) {
        let camera = &mut self.cameras[key.0 as usize];
        if camera.read_in == self.epoch {
            return;
        }
        camera.read_in = self.epoch;
        let seen = camera.read(self.now, index.newest(key));
        if camera.absent.is_some() {
            // Nothing of it can be bound until it is back.
            for i in 0..self.cameras[key.0 as usize].subscriptions.len() {
                let subscription = self.cameras[key.0 as usize].subscriptions[i];
                self.refresh_ready(subscription);
            }
            return;
        }
        let Seen::Frame { first, returned } = seen else { return };
        let Some(stamp) = camera.newest else { return };
        for i in 0..self.cameras[key.0 as usize].subscriptions.len() {
            let subscription = self.cameras[key.0 as usize].subscriptions[i];
            let Some(s) = self.subscriptions.get_mut(&subscription) else { continue };
            s.observe(stamp.frame_id.0, first, returned && !first);
            if returned {
                s.reopen(self.now);
            }
            s.settle(&stamp);
            self.refresh_ready(subscription);
        }
    }

    /// Puts a subscription into its model's ready set or takes it out.
    pub(crate) fn refresh_ready(&mut self, key: SubscriptionKey) {
        let Some(s) = self.subscriptions.get_mut(&key) else { return };
        let camera = &self.cameras[s.camera.0 as usize];
        let ready = camera.absent.is_none() && camera.newest.is_some_and(|n| s.eligible(&n));
        if let Some(newest) = camera.newest
            && !ready
        {
            s.settle(&newest);
        }
        if ready == s.ready {
            return;
        }
        s.ready = ready;
        let entry = (s.tag, key);
        if ready {
            self.models[s.model.0].ready.insert(entry);
        } else {
            self.models[s.model.0].ready.remove(&entry);
        }
    }

    /// When the camera could bring something to one of its subscriptions that waits for it.
    pub(crate) fn schedule_look(&mut self, key: CameraKey) {
        let camera = &self.cameras[key.0 as usize];
        let mut at = Instant::FAR;
        if camera.state == AgentState::Running {
            for s in camera.subscriptions.iter().filter_map(|k| self.subscriptions.get(k)) {
                if s.ready {
                    continue; // It waits for a device, and is read again at launch.
                }
                let look = if s.state == SubscriptionState::Active {
                    let (slack, interval) = (self.config.arrival_slack, self.config.poll_interval);
                    camera.next_look(self.now, s.gate, slack, interval)
                } else {
                    self.now + UNSERVED_LOOK
                };
                at = at.min(look);
            }
        }
        let camera = &mut self.cameras[key.0 as usize];
        if at != camera.look_at {
            camera.look_at = at;
            if at != Instant::FAR {
                self.looks.push(Reverse((at, key)));
            }
        }
    }
}
