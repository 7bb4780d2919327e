//! Who has a frame to bind, and who is the next to be looked for.

use crate::SubscriptionKey;
use crate::device::Device;
use crate::model::Model;
use crate::place::ModelIx;
use crate::state::Scheduler;
use crate::subscription::Subscription;
use base::Instant;

/// Puts a subscription that is not ready into its model's ready set.
pub(crate) fn enter(s: &mut Subscription, model: &mut Model, devices: &mut [Device], now: Instant) {
    let (due, on_time) = s.become_ready(now);
    model.ready.enter(s.tag(), s.key, due, on_time);
    for device in model.devices() {
        devices[device.0].touch();
    }
}

impl Scheduler {
    /// Puts a subscription into its model's ready set.
    pub(crate) fn make_ready(&mut self, key: SubscriptionKey) {
        let now = self.now();
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        if !s.ready() {
            enter(s, &mut self.models[s.model.0], &mut self.devices, now);
        }
    }

    /// Takes a subscription out of its model's ready set.
    pub(crate) fn unready(&mut self, key: SubscriptionKey) {
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        if s.become_unready() {
            self.models[s.model.0].ready.leave();
        }
    }

    /// The foremost ready subscription of a model.
    pub(crate) fn foremost(&mut self, model: ModelIx) -> Option<(u64, SubscriptionKey)> {
        let subscriptions = &self.subscriptions;
        self.models[model.0]
            .ready
            .foremost(|tag, key| subscriptions.get(key).is_some_and(|s| s.ready_with(tag)))
    }

    /// When the model's next subscription is to be examined, at most `before`.
    pub(crate) fn awaited_before(&mut self, model: ModelIx, before: Instant) -> Instant {
        while self.models[model.0].awaited.first() < before.0 {
            let Some((at, key)) = self.models[model.0].awaited.peek() else { break };
            let valid = |s: &Subscription| s.awaits(at) && !s.ready();
            if self.subscriptions.get(key).is_some_and(valid) {
                return Instant(at);
            }
            self.models[model.0].awaited.pop();
        }
        before
    }
}
