//! Who is served: states and tags follow from the runners that are here, and bound frames end.

use crate::BatchId;
use crate::invariant::{Invariant, Invariants};
use crate::output::Binding;
use crate::place::{DeviceIx, ModelIx, RunnerIx};
use crate::slab::Subscriptions;
use crate::state::Scheduler;
use crate::subscription::{End, SubscriptionState};

/// Ends bound frames that get no answer.
pub(crate) fn end_members(
    subscriptions: &mut Subscriptions,
    invariants: &mut Invariants,
    members: &[Binding],
    how: End,
) {
    for binding in members {
        if let Some(s) = subscriptions.get_mut(binding.subscription) {
            invariants.hold(Invariant::InFlight, s.end(how));
        }
    }
}

impl Scheduler {
    /// Brings the state of a model's subscriptions in line with its runners.
    pub(crate) fn refresh_states(&mut self, model: ModelIx) {
        let serving = !self.models[model.0].runners().is_empty();
        let hung = self.hung.values().any(|h| h.model == model);
        let now = self.now();
        for i in 0..self.models[model.0].subscriptions().len() {
            let key = self.models[model.0].subscriptions()[i];
            let Some(s) = self.subscriptions.get_mut(key) else { continue };
            let state = if !s.wanted() {
                SubscriptionState::Paused
            } else if serving {
                SubscriptionState::Active
            } else if hung {
                SubscriptionState::Parked
            } else {
                SubscriptionState::NoRunner
            };
            if s.enter_state(state, now) {
                self.examine(key);
            }
        }
    }

    /// Tags that ran ahead by another clock are worth nothing by this one: none lies further ahead
    /// of the virtual time that orders its model now than one of its own steps.
    pub(crate) fn rebase_tags(&mut self, model: ModelIx) {
        let runners = self.models[model.0].runners();
        let Some(virtual_now) = runners.iter().map(|ix| self.virtual_now(*ix)).min() else {
            return;
        };
        for i in 0..self.models[model.0].subscriptions().len() {
            let key = self.models[model.0].subscriptions()[i];
            let Some(s) = self.subscriptions.get_mut(key) else { continue };
            if let Some(tag) = s.rebase(virtual_now)
                && s.ready()
            {
                self.models[model.0].ready.enqueue(tag, key);
            }
        }
    }

    /// What is granted on this device is measured anew.
    pub(crate) fn begin_serving_on(&mut self, device: DeviceIx) {
        let now = self.now();
        for model in self.devices[device.0].models() {
            for key in self.models[model.0].subscriptions() {
                if let Some(s) = self.subscriptions.get_mut(*key) {
                    s.begin_serving(now);
                }
            }
        }
    }

    /// Settles a prepared batch that is not granted.
    pub(crate) fn take_back(&mut self, ix: RunnerIx, id: BatchId) {
        let Some(runner) = self.runners.get_mut(ix) else { return };
        let Some((batch, bound)) = runner.take_back(id) else { return };
        let (model, device) = (runner.model, runner.device);
        self.devices[device.0].touch();
        let (subscriptions, invariants) = (&mut self.subscriptions, &mut self.invariants);
        end_members(subscriptions, invariants, &batch.members, End::Revoked);
        // Whoever was not served has its turn again.
        for m in batch.members.iter().filter(|m| m.first) {
            let Some(s) = self.subscriptions.get_mut(m.subscription) else { continue };
            s.unbind(bound);
            if s.ready() {
                self.models[model.0].ready.enqueue(s.tag(), m.subscription);
            }
        }
        self.give_back_members(batch.members);
    }
}
