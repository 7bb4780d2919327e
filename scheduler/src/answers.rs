//! Runners: who is here, what they answer, and what passes when they do not.

use crate::device::{DeviceIx, ModelIx};
use crate::input::{Outcome, RunnerInfo};
use crate::ledger::Ledger;
use crate::machine::Scheduler;
use crate::output::{Binding, CloseReason, Output};
use crate::runner::{Batch, Bound, Phase, Runner, RunnerState};
use crate::subscription::Subscription;
use crate::{BatchId, RunnerKey, SubscriptionKey};
use base::{InstanceId, Instant, LatencyEntry, StageTimes, Stages};
use std::collections::BTreeMap;
use std::time::Duration;

/// Ends bound frames that get no answer: `count` names where the ledger keeps them.
fn end_members(
    subscriptions: &mut BTreeMap<SubscriptionKey, Subscription>,
    members: &[Binding],
    count: impl Fn(&mut Ledger),
) {
    for binding in members {
        if let Some(s) = subscriptions.get_mut(&binding.subscription) {
            s.in_flight -= 1;
            count(&mut s.ledger);
        }
    }
}

impl Scheduler {
    pub(crate) fn runner_up(&mut self, key: RunnerKey, info: RunnerInfo) {
        if self.refused.contains(&info.instance) {
            self.queue
                .push_back(Output::Close { runner: key, reason: CloseReason::RefusedInstance });
            return;
        }
        let model = self.model_ix(&info.model);
        let device = self.device_ix(&info.device);
        // What is known of earlier lives of this runner goes; a live one is replaced.
        let before = self.devices[device.0].runners.iter().copied();
        let earlier: Vec<_> = before.filter(|k| self.runners[k].model == model).collect();
        for other in earlier {
            if self.runners[&other].connected() {
                self.queue
                    .push_back(Output::Close { runner: other, reason: CloseReason::Replaced });
                self.lose_runner(other, RunnerState::Gone);
            }
            self.runners.remove(&other);
            self.devices[device.0].runners.retain(|k| *k != other);
            self.models[model.0].runners.retain(|k| *k != other);
        }
        self.rebase_tags(model, device);
        self.devices[device.0].runners.push(key);
        self.models[model.0].runners.push(key);
        self.runners.insert(key, Runner::new(info, model, device));
        self.refresh_suspect(device);
        self.refresh_states(model);
    }

    /// Tags that ran ahead on another device are worth nothing on this one: none lies further
    /// ahead of the device's virtual time than one of its own steps.
    pub(crate) fn rebase_tags(&mut self, model: ModelIx, device: DeviceIx) {
        let virtual_now = self.devices[device.0].virtual_now;
        for i in 0..self.models[model.0].subscriptions.len() {
            let key = self.models[model.0].subscriptions[i];
            let Some(s) = self.subscriptions.get_mut(&key) else { continue };
            let furthest = virtual_now.saturating_add(s.step(&self.cameras[s.camera.0 as usize]));
            if s.tag > furthest {
                if s.ready {
                    self.models[model.0].ready.remove(&(s.tag, key));
                    self.models[model.0].ready.insert((furthest, key));
                }
                s.tag = furthest;
            }
        }
    }

    pub(crate) fn runner_down(&mut self, key: RunnerKey) {
        if self.runners.get(&key).is_some_and(Runner::connected) {
            self.lose_runner(key, RunnerState::Gone);
        }
    }

    pub(crate) fn runner_gone(&mut self, instance: InstanceId) {
        let hung = |r: &&mut Runner| r.info.instance == instance && r.state == RunnerState::Hung;
        let Some(runner) = self.runners.values_mut().find(hung) else { return };
        runner.state = RunnerState::Gone;
        let (model, device) = (runner.model, runner.device);
        self.refresh_suspect(device);
        self.refresh_states(model);
    }

    /// Settles everything a runner owes and frees its tokens.
    pub(crate) fn lose_runner(&mut self, key: RunnerKey, state: RunnerState) {
        let Some(runner) = self.runners.get_mut(&key) else { return };
        let (model, device) = (runner.model, runner.device);
        let mut tokens = u32::from(runner.state == RunnerState::Profiling);
        runner.state = state;
        runner.profiling = None;
        runner.profile_queue.clear();
        for batch in std::mem::take(&mut runner.batches) {
            tokens += u32::from(batch.phase == Phase::Executing);
            if batch.phase != Phase::Late {
                end_members(&mut self.subscriptions, &batch.members, |l| l.lost_with_runner += 1);
            }
            self.give_back_members(batch.members);
        }
        self.devices[device.0].lent -= tokens;
        self.refresh_suspect(device);
        self.refresh_states(model);
    }

    pub(crate) fn refresh_suspect(&mut self, device: DeviceIx) {
        let hung =
            |k: &RunnerKey| self.runners.get(k).is_some_and(|r| r.state == RunnerState::Hung);
        let suspect = self.devices[device.0].runners.iter().any(hung);
        self.devices[device.0].suspect = suspect;
    }

    /// Passes the leases and hang limits whose time has come.
    pub(crate) fn pass_bounds(&mut self) {
        loop {
            let due = self
                .runners
                .iter()
                .filter(|(_, r)| !r.batches.is_empty() || r.profiling.is_some())
                .map(|(key, r)| (r.next_bound(self.config.hang_limit), *key))
                .filter(|((at, _), _)| *at <= self.now)
                .min_by_key(|((at, _), key)| (*at, *key));
            let Some(((_, bound), key)) = due else { return };
            match bound {
                Bound::Hang => self.hang(key),
                Bound::Lease(batch) => self.lease_passed(key, batch),
                Bound::ProfileLease => {
                    let Some(runner) = self.runners.get_mut(&key) else { return };
                    runner.state = RunnerState::Late;
                    self.devices[runner.device.0].lent -= 1;
                }
            }
        }
    }

    pub(crate) fn hang(&mut self, key: RunnerKey) {
        if let Some(runner) = self.runners.get(&key) {
            self.refused.insert(runner.info.instance);
        }
        self.queue.push_back(Output::Close { runner: key, reason: CloseReason::Hung });
        self.lose_runner(key, RunnerState::Hung);
    }

    pub(crate) fn lease_passed(&mut self, key: RunnerKey, batch: BatchId) {
        let Some(runner) = self.runners.get_mut(&key) else { return };
        let device = runner.device;
        runner.state = RunnerState::Late;
        // What it has prepared can't be granted to it now: another runner is not to wait for that.
        if let Some(prepared) = runner.batches.iter().find(|b| b.phase == Phase::Prepared) {
            let prepared = prepared.id;
            self.take_back(key, prepared);
            self.queue.push_back(Output::Revoke { runner: key, batch: prepared });
        }
        let Some(runner) = self.runners.get_mut(&key) else { return };
        for b in runner.batches.iter_mut().filter(|b| b.id == batch) {
            b.phase = Phase::Late;
            self.devices[device.0].lent -= 1;
            end_members(&mut self.subscriptions, &b.members, |l| l.expired_late += 1);
        }
    }

    /// Settles a prepared batch that is not granted.
    pub(crate) fn take_back(&mut self, key: RunnerKey, id: BatchId) {
        let Some(runner) = self.runners.get_mut(&key) else { return };
        let Some(at) = runner.batches.iter().position(|b| b.id == id) else { return };
        let batch = runner.batches.remove(at);
        runner.note_revoked(id);
        end_members(&mut self.subscriptions, &batch.members, |l| l.revoked += 1);
        self.give_back_members(batch.members);
    }

    /// Whether a message about `batch` came too late to matter: its connection is being closed, or
    /// the batch was taken back while the message was on its way.
    pub(crate) fn stale_message(&self, key: RunnerKey, batch: BatchId) -> bool {
        self.runners.get(&key).is_none_or(|r| !r.connected() || r.was_revoked(batch))
    }

    pub(crate) fn protocol_error(&mut self, key: RunnerKey, what: &'static str) {
        self.queue.push_back(Output::Close { runner: key, reason: CloseReason::Protocol(what) });
        self.lose_runner(key, RunnerState::Gone);
    }

    pub(crate) fn batch_mut(&mut self, key: RunnerKey, batch: BatchId) -> Option<&mut Batch> {
        self.runners.get_mut(&key)?.batches.iter_mut().find(|b| b.id == batch)
    }

    pub(crate) fn prepared(&mut self, key: RunnerKey, batch: BatchId) {
        if self.stale_message(key, batch) {
            return;
        }
        let now = self.now;
        match self.batch_mut(key, batch) {
            // Preparing is done; from here on it waits for us, not we for it.
            Some(b) if b.phase == Phase::Prepared => b.since = now,
            Some(_) => {}
            None => self.protocol_error(key, "prepared a batch that it does not hold"),
        }
    }

    pub(crate) fn executed(
        &mut self,
        key: RunnerKey,
        batch: BatchId,
        granted: Instant,
        executed: Instant,
    ) {
        if self.stale_message(key, batch) {
            return;
        }
        match self.batch_mut(key, batch).map(|b| b.phase) {
            Some(Phase::Executing) => {}
            // The token was passed on already.
            Some(Phase::Late) => return,
            _ => return self.protocol_error(key, "executed a batch without the token"),
        }
        let now = self.now;
        let Some(runner) = self.runners.get_mut(&key) else { return };
        let device = runner.device;
        let Some(b) = runner.batches.iter_mut().find(|b| b.id == batch) else { return };
        let busy = (executed - granted).min(now - b.since);
        b.phase = Phase::Executed;
        b.since = now;
        runner.busy += busy;
        self.devices[device.0].take_token(busy);
    }

    pub(crate) fn reply(
        &mut self,
        key: RunnerKey,
        batch: BatchId,
        times: &StageTimes,
        outcomes: Vec<Outcome>,
    ) {
        let now = self.now;
        if self.stale_message(key, batch) {
            return;
        }
        let Some(runner) = self.runners.get_mut(&key) else { return };
        let Some(at) = runner.batches.iter().position(|b| b.id == batch) else {
            return self.protocol_error(key, "replied to a batch that it does not hold");
        };
        if runner.batches[at].members.len() != outcomes.len() {
            return self.protocol_error(key, "replied with another number of outcomes");
        }
        // Without the token only: there was nothing to execute.
        if runner.batches[at].phase == Phase::Prepared && outcomes.iter().any(Result::is_ok) {
            return self.protocol_error(key, "replied to a batch without the token");
        }
        let b = runner.batches.remove(at);
        if b.phase == Phase::Executing {
            let busy = (times.executed - times.granted).min(now - b.since);
            runner.busy += busy;
            self.devices[runner.device.0].take_token(busy);
        }
        if b.phase == Phase::Late {
            // Its members have ended; the answer is discarded.
            runner.demote();
        } else {
            runner.batch_count += 1;
            runner.member_count += b.members.len() as u64;
            runner.count_in_time();
            let count = outcomes.len();
            for (i, (binding, outcome)) in b.members.iter().zip(outcomes).enumerate() {
                let info = &binding.stamp.info;
                let published = binding.stamp.published;
                let stages = Stages::new(info.capture, info.decode_start, published, times, now);
                runner.count_stages(&stages);
                let Some(s) = self.subscriptions.get_mut(&binding.subscription) else { continue };
                s.in_flight -= 1;
                s.ledger.answer(outcome.as_ref().err().copied());
                self.queue.push_back(Output::Result {
                    runner: key,
                    batch,
                    binding: *binding,
                    sequence: self.next_sequence,
                    received: now,
                    stages,
                    outcome,
                    last: i + 1 == count,
                });
                self.next_sequence += 1;
            }
            // A member whose subscription went meanwhile may have been the last one.
            if let Some(Output::Result { batch: of, last, .. }) = self.queue.back_mut()
                && *of == batch
            {
                *last = true;
            }
        }
        self.give_back_members(b.members);
    }

    pub(crate) fn profile_done(
        &mut self,
        key: RunnerKey,
        batch_size: u32,
        mut samples: Vec<Duration>,
    ) {
        let Some(runner) = self.runners.get_mut(&key) else { return };
        let Some((size, since, _)) = runner.profiling.take() else { return };
        let device = runner.device;
        if runner.state == RunnerState::Profiling {
            self.devices[device.0].take_token(self.now - since);
            runner.resume();
        } else if runner.connected() {
            runner.demote();
        }
        if size != batch_size || samples.is_empty() {
            return;
        }
        // A first idea of the larger sizes' leases until the runner sends its table.
        samples.sort_unstable();
        let p50 = samples[samples.len() / 2];
        let p99 = samples[samples.len() - 1];
        let mut table = runner.table.clone();
        table.set(LatencyEntry { batch: size, p50, p99 });
        runner.table = table;
    }
}
