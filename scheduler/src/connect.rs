//! Runners come and go.

use crate::RunnerKey;
use crate::input::RunnerInfo;
use crate::invariant::Invariant;
use crate::output::CloseReason;
use crate::place::{DeviceIx, RunnerIx};
use crate::runner::{Hung, Phase, Runner};
use crate::serving::end_members;
use crate::state::Scheduler;
use crate::status::{RunnerReport, RunnerState};
use crate::subscription::End;
use base::InstanceId;
use std::time::Duration;

impl Scheduler {
    pub(crate) fn runner_up(&mut self, key: RunnerKey, info: RunnerInfo) {
        if self.hung.contains_key(&info.instance) {
            return self.close(key, CloseReason::RefusedInstance);
        }
        let model = self.model_ix(&info.model);
        let device = self.device_ix(&info.device);
        let of_model = |ix: &&RunnerIx| self.runners.get(**ix).is_some_and(|r| r.model == model);
        let before = self.devices[device.0].runners().iter().find(of_model).copied();
        if let Some((before, runner)) = before.and_then(|ix| Some((ix, self.runners.get(ix)?.key)))
        {
            self.close(runner, CloseReason::Replaced);
            self.lose_runner(before);
        }
        // Two processes can't have one place: a hung one of it has ended.
        self.hung.retain(|_, h| (h.model, h.device) != (model, device));
        let ix = self.runners.insert(Runner::new(key, info, model, device));
        self.devices[device.0].add_runner(ix, model);
        self.models[model.0].add_runner(ix, device);
        self.rebase_tags(model);
        self.refresh_suspect(device);
        self.refresh_states(model);
        self.devices[device.0].touch();
        self.plan_soon(model);
    }

    pub(crate) fn runner_down(&mut self, key: RunnerKey) {
        if let Some(ix) = self.runners.ix(key) {
            self.lose_runner(ix);
        }
    }

    pub(crate) fn runner_gone(&mut self, instance: InstanceId) {
        let Some(Hung { model, device, .. }) = self.hung.remove(&instance) else { return };
        self.refresh_suspect(device);
        self.refresh_states(model);
    }

    /// The connection of a runner that owes an answer for too long is closed, and it is refused.
    pub(crate) fn hang(&mut self, ix: RunnerIx) {
        let Some(runner) = self.runners.get(ix) else { return };
        let (key, instance) = (runner.key, runner.info.instance);
        let steered = self.models[runner.model.0].cohorts().is_some();
        let report = RunnerReport { state: RunnerState::Hung, ..runner.report(steered) };
        let hung = Hung { model: runner.model, device: runner.device, report };
        self.hung.insert(instance, hung);
        self.close(key, CloseReason::Hung);
        self.lose_runner(ix);
    }

    /// The connection of a runner that broke the protocol is closed.
    pub(crate) fn protocol_error(&mut self, key: RunnerKey, what: &'static str) {
        self.close(key, CloseReason::Protocol(what));
        self.runner_down(key);
    }

    /// Takes a runner out: settles everything it owes and frees its tokens.
    fn lose_runner(&mut self, ix: RunnerIx) {
        let Some(runner) = self.runners.remove(ix) else { return };
        let (model, device) = (runner.model, runner.device);
        self.devices[device.0].remove_runner(ix);
        self.models[model.0].remove_runner(ix, device);
        let (measured, tokens) = (runner.measures(), runner.tokens());
        for batch in runner.into_batches() {
            if batch.phase() != Phase::Late {
                let (subscriptions, invariants) = (&mut self.subscriptions, &mut self.invariants);
                end_members(subscriptions, invariants, &batch.members, End::LostWithRunner);
            }
            self.give_back_members(batch.members);
        }
        for _ in 0..tokens {
            let back = self.devices[device.0].give_back(Duration::ZERO);
            self.invariants.hold(Invariant::Token, back);
        }
        if measured && !self.measuring(device) {
            self.begin_serving_on(device);
        }
        // Its model may be ordered by the clock of another device from here on, and those that
        // stay divide the device anew.
        self.rebase_tags(model);
        self.refresh_suspect(device);
        self.refresh_states(model);
        self.plan_soon(model);
        for i in 0..self.devices[device.0].models().len() {
            self.plan_soon(self.devices[device.0].models()[i]);
        }
    }

    fn refresh_suspect(&mut self, device: DeviceIx) {
        let suspect = self.hung.values().any(|h| h.device == device);
        self.devices[device.0].set_suspect(suspect);
    }
}
