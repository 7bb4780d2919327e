//! The policy: which batch is launched when, on which device, with which frames.
//!
//! Work-conserving and late-binding: a free token goes to a model with ready subscriptions, and
//! their frames are read again at that moment, so the newest is bound. While a device has time
//! enough, the model whose subscriptions are due first goes first, and launches keep the timetable
//! where one exists. Once more is wanted than there is, the fair order decides.

use crate::invariant::Invariant;
use crate::outlook::Outlook;
use crate::output::{Binding, Output};
use crate::place::{DeviceIx, RunnerIx};
use crate::state::Scheduler;
use crate::{BatchId, FrameIndex, RunnerKey};
use std::time::Duration;

/// What a step decided.
enum Action {
    Prepare(RunnerIx),
    Grant(RunnerKey, BatchId, Duration),
    Revoke(RunnerKey, BatchId),
    Profile(RunnerKey, u32, Duration),
}

impl Scheduler {
    /// The next thing to do on any device, else how long to wait.
    pub(crate) fn step(&mut self, index: &mut dyn FrameIndex) -> Output<'_> {
        for device in (0..self.devices.len()).map(DeviceIx) {
            let now = self.now();
            if !self.devices[device.0].begin_step(now) {
                continue;
            }
            let outlook = self.outlook(device);
            let action = self
                .step_prepared(device, &outlook)
                .or_else(|| self.step_token(device, &outlook, index))
                .or_else(|| self.step_ahead(device, &outlook, index));
            match action {
                Some(Action::Prepare(runner)) => return self.launched(runner),
                Some(Action::Grant(runner, batch, lease)) => {
                    return Output::Grant { runner, batch, lease };
                }
                Some(Action::Revoke(runner, batch)) => return Output::Revoke { runner, batch },
                Some(Action::Profile(runner, batch_size, lease)) => {
                    return Output::ProfileGrant { runner, batch_size, lease };
                }
                None => {
                    let next_at = self.next_step(device, &outlook);
                    self.devices[device.0].end_step(next_at);
                }
            }
        }
        self.wait()
    }

    fn launched(&self, ix: RunnerIx) -> Output<'_> {
        let r = self.runners.get(ix).expect("it was just launched on");
        let batch = r.batches().last().expect("a batch was just pushed");
        let lease = batch.lease();
        Output::Prepare { runner: r.key, batch: batch.id, lease, members: &batch.members }
    }

    /// A prepared batch gets the free token, or is taken back when none of its frames can be
    /// answered in time any more.
    fn step_prepared(&mut self, device: DeviceIx, outlook: &Outlook) -> Option<Action> {
        let ix = outlook.prepared?;
        let runner = self.runners.get(ix)?;
        let batch = runner.prepared()?;
        let now = self.now();
        let (key, id, size) = (runner.key, batch.id, batch.size());
        // It is prepared: only what has no hope at all is taken back. In overload there are newer
        // frames for whatever the execution before has made too old.
        let overloaded = self.devices[device.0].overloaded_alone();
        let needed = match runner.watch().p50(size) {
            Some(p50) if overloaded && size > 1 => p50,
            _ => runner.watch().least(size),
        };
        let timely = |m: &Binding| {
            let s = self.subscriptions.get(m.subscription);
            s.is_some_and(|s| {
                let deadline = s.deadline_or(runner.info.deadline);
                m.stamp.info.capture + deadline >= now + needed
            })
        };
        let in_time = match overloaded {
            true if size > 1 => batch.members.iter().all(timely),
            _ => batch.members.iter().any(timely),
        };
        if !in_time {
            self.take_back(ix, id);
            return Some(Action::Revoke(key, id));
        }
        if !self.devices[device.0].free() {
            return None;
        }
        let lease = self.runners.get_mut(ix)?.grant(id, now)?;
        self.invariants.hold(Invariant::Token, self.devices[device.0].lend());
        self.rebound(ix);
        Some(Action::Grant(key, id, lease))
    }

    /// The free token of a device: a batch or one size to measure, in turn.
    fn step_token(
        &mut self,
        device: DeviceIx,
        outlook: &Outlook,
        index: &mut dyn FrameIndex,
    ) -> Option<Action> {
        if !self.devices[device.0].free() {
            return None;
        }
        if self.devices[device.0].profiled_last() {
            let action =
                self.launch(device, outlook, index, true).or_else(|| self.profile(device, outlook));
            let measured = matches!(action, Some(Action::Profile(..)));
            self.devices[device.0].note_turn(measured || action.is_none());
            return action;
        }
        let action = self.profile(device, outlook);
        self.devices[device.0].note_turn(action.is_some());
        action.or_else(|| self.launch(device, outlook, index, true))
    }

    /// The next size that a runner of this device wants to measure.
    fn profile(&mut self, device: DeviceIx, outlook: &Outlook) -> Option<Action> {
        let ix = outlook.measures_next?;
        let now = self.now();
        let runner = self.runners.get_mut(ix)?;
        let (size, lease) = runner.measure(now)?;
        let key = runner.key;
        self.invariants.hold(Invariant::Token, self.devices[device.0].lend());
        self.rebound(ix);
        Some(Action::Profile(key, size, lease))
    }

    /// On a GPU whose token is about to be free, the next batch is copied in the meantime.
    fn step_ahead(
        &mut self,
        device: DeviceIx,
        outlook: &Outlook,
        index: &mut dyn FrameIndex,
    ) -> Option<Action> {
        if self.devices[device.0].free() || outlook.ahead_at()? > self.now() {
            return None;
        }
        // The next turn is a measurement's: what is prepared ahead would take it.
        if !self.devices[device.0].profiled_last() && outlook.measures_next.is_some() {
            return None;
        }
        self.launch(device, outlook, index, false)
    }

    /// Launches the batch that comes first. Runners that overran come after all others.
    fn launch(
        &mut self,
        device: DeviceIx,
        outlook: &Outlook,
        index: &mut dyn FrameIndex,
        with_token: bool,
    ) -> Option<Action> {
        loop {
            let candidate = self.first_candidate(device, index, with_token)?;
            if self.launch_on(&candidate, outlook, index, with_token) {
                return Some(Action::Prepare(candidate.ix));
            }
            // The foremost subscription turned out to have nothing to bind. It left the ready set, so
            // this ends.
        }
    }
}
