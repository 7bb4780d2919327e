//! The policy: which batch is launched when, on which device, with which frames.
//!
//! Eager and work-conserving: a free token goes at once to the model whose foremost ready
//! subscription comes first in the fair order, with as many ready subscriptions as the batch size
//! that pays. Frames are read again at that moment, so the newest is bound.

use crate::device::DeviceIx;
use crate::machine::Scheduler;
use crate::output::{Output, WaitReason};
use crate::runner::{Batch, Phase, RunnerState};
use crate::{BatchId, FrameIndex, RunnerKey};
use base::{Instant, Rect};
use std::time::Duration;

/// What a step decided.
enum Action {
    Prepare(RunnerKey),
    Grant(RunnerKey, BatchId, Duration),
    Revoke(RunnerKey, BatchId),
    Profile(RunnerKey, u32, Duration),
}

impl Scheduler {
    /// The next thing to do on any device, else how long to wait.
    pub(crate) fn step(&mut self, index: &mut dyn FrameIndex) -> Output<'_> {
        for device in (0..self.devices.len()).map(DeviceIx) {
            let action = self
                .step_prepared(device)
                .or_else(|| self.step_token(device, index))
                .or_else(|| self.step_ahead(device, index));
            match action {
                Some(Action::Prepare(runner)) => return self.launched(runner),
                Some(Action::Grant(runner, batch, lease)) => {
                    return Output::Grant { runner, batch, lease };
                }
                Some(Action::Revoke(runner, batch)) => return Output::Revoke { runner, batch },
                Some(Action::Profile(runner, batch_size, lease)) => {
                    return Output::ProfileGrant { runner, batch_size, lease };
                }
                None => {}
            }
        }
        self.wait()
    }

    fn launched(&self, runner: RunnerKey) -> Output<'_> {
        let r = &self.runners[&runner];
        let batch = r.batches.last().expect("a batch was just pushed");
        let lease = (batch.phase == Phase::Executing).then(|| batch.lease_end - batch.since);
        Output::Prepare { runner, batch: batch.id, lease, members: &batch.members }
    }

    /// A prepared batch gets the free token, or is taken back when none of its frames can be
    /// answered in time any more.
    fn step_prepared(&mut self, device: DeviceIx) -> Option<Action> {
        let prepared = self.devices[device.0].runners.iter().find_map(|key| {
            let r = self.runners.get(key)?;
            let batch = r.batches.iter().find(|b| b.phase == Phase::Prepared)?;
            Some((*key, batch.id))
        });
        let (key, id) = prepared?;
        let now = self.now;
        let runner = &self.runners[&key];
        let batch = runner.batches.iter().find(|b| b.id == id)?;
        let size = batch.members.len() as u32;
        let needed = runner.table.p99(size).unwrap_or_default();
        let in_time = batch.members.iter().any(|m| {
            let s = self.subscriptions.get(&m.subscription);
            let deadline = s.and_then(|s| s.spec.deadline).unwrap_or(runner.info.deadline);
            s.is_some() && m.stamp.info.capture + deadline >= now + needed
        });
        let lease = runner.lease(size);
        if !in_time {
            self.take_back(key, id);
            return Some(Action::Revoke(key, id));
        }
        if !self.devices[device.0].free()
            || runner.batches.iter().any(|b| b.phase == Phase::Executing)
        {
            return None;
        }
        self.devices[device.0].lent += 1;
        let runner = self.runners.get_mut(&key)?;
        let batch = runner.batches.iter_mut().find(|b| b.id == id)?;
        batch.phase = Phase::Executing;
        batch.since = now;
        batch.lease_end = now + lease;
        Some(Action::Grant(key, id, lease))
    }

    /// The free token of a device: a batch or one size to measure, in turn.
    fn step_token(&mut self, device: DeviceIx, index: &mut dyn FrameIndex) -> Option<Action> {
        if !self.devices[device.0].free() {
            return None;
        }
        if self.devices[device.0].profiled_last {
            let action = self.launch(device, index, true).or_else(|| self.profile(device));
            self.devices[device.0].profiled_last = matches!(action, Some(Action::Profile(..)))
                || (action.is_none() && self.devices[device.0].profiled_last);
            return action;
        }
        let action = self.profile(device);
        self.devices[device.0].profiled_last = action.is_some();
        action.or_else(|| self.launch(device, index, true))
    }

    /// The next size that a runner of this device wants to measure.
    fn profile(&mut self, device: DeviceIx) -> Option<Action> {
        let wants = |k: &&RunnerKey| {
            let r = self.runners.get(k);
            r.is_some_and(|r| {
                !r.profile_queue.is_empty()
                    && r.profiling.is_none()
                    && r.batches.is_empty()
                    && matches!(r.state, RunnerState::Ready | RunnerState::Demoted)
            })
        };
        let key = *self.devices[device.0].runners.iter().find(wants)?;
        let now = self.now;
        let runner = self.runners.get_mut(&key)?;
        let size = runner.profile_queue.pop_front()?;
        let lease = runner.profile_lease(size);
        runner.state = RunnerState::Profiling;
        runner.profiling = Some((size, now, now + lease));
        self.devices[device.0].lent += 1;
        Some(Action::Profile(key, size, lease))
    }

    /// On a GPU whose token is about to be free, the next batch is copied in the meantime.
    fn step_ahead(&mut self, device: DeviceIx, index: &mut dyn FrameIndex) -> Option<Action> {
        if self.devices[device.0].free()
            || self.free_at(device)? > self.now + self.config.prepare_ahead
        {
            return None;
        }
        self.launch(device, index, false)
    }

    /// When the first token of a GPU should come back. `None` for a CPU, where preparing ahead
    /// would take the very cores that execute, and while a batch is prepared already.
    fn free_at(&self, device: DeviceIx) -> Option<Instant> {
        let mut free: Option<Instant> = None;
        for key in &self.devices[device.0].runners {
            let Some(r) = self.runners.get(key) else { continue };
            if !r.info.gpu {
                return None;
            }
            for b in &r.batches {
                match b.phase {
                    Phase::Prepared => return None,
                    Phase::Executing => {
                        let length = r.table.p50(b.members.len() as u32).unwrap_or_default();
                        let at = b.since + length;
                        free = Some(free.map_or(at, |f| f.min(at)));
                    }
                    Phase::Executed | Phase::Late => {}
                }
            }
        }
        free
    }

    /// Launches the batch that comes first in the fair order. Runners that overran a lease come
    /// after all others.
    fn launch(
        &mut self,
        device: DeviceIx,
        index: &mut dyn FrameIndex,
        with_token: bool,
    ) -> Option<Action> {
        loop {
            let virtual_now = self.devices[device.0].virtual_now;
            let measure_next = !self.devices[device.0].profiled_last;
            let foremost = self.devices[device.0]
                .runners
                .iter()
                .filter_map(|key| {
                    let r =
                        self.runners.get(key).filter(|r| r.accepts(with_token, measure_next))?;
                    let (tag, subscription) = *self.models[r.model.0].ready.first()?;
                    let demoted = r.state == RunnerState::Demoted;
                    Some((demoted, tag.max(virtual_now), tag, subscription, *key))
                })
                .min();
            let key = foremost?.4;
            if self.launch_on(key, index, with_token) {
                return Some(Action::Prepare(key));
            }
            // Every foremost subscription turned out to have nothing to bind; each left the ready
            // set, so this ends.
        }
    }

    /// Binds what is ready for this runner. False when nothing could be bound.
    fn launch_on(&mut self, key: RunnerKey, index: &mut dyn FrameIndex, with_token: bool) -> bool {
        let now = self.now;
        let runner = &self.runners[&key];
        let (model, device, size_max) = (runner.model, runner.device, runner.batch_size);
        let deadline = runner.info.deadline;
        let wait = if with_token {
            Duration::ZERO
        } else {
            self.free_at(device).map_or(Duration::ZERO, |at| at - now)
        };
        let virtual_now = self.devices[device.0].virtual_now;
        let mut members = self.spare_members();
        let mut smallest = u64::MAX;
        while (members.len() as u32) < size_max {
            let Some(&(_, subscription)) = self.models[model.0].ready.first() else { break };
            let needed = {
                let table = &self.runners[&key].table;
                table.p99(members.len() as u32 + 1).unwrap_or_default()
            };
            let camera = self.subscriptions[&subscription].camera;
            self.look(camera, index);
            // The look may have shown that there is nothing to bind any more.
            if !self.subscriptions[&subscription].ready {
                self.schedule_look(camera);
                continue;
            }
            let agent = &self.cameras[camera.0 as usize];
            let stamp = agent.newest.expect("a ready subscription's camera has a frame");
            let s = self.subscriptions.get_mut(&subscription).expect("ready subscriptions exist");
            self.models[model.0].ready.remove(&(s.tag, subscription));
            s.ready = false;
            let limit = s.spec.deadline.unwrap_or(deadline);
            if stamp.info.capture + limit < now + wait + needed {
                s.expire(&stamp, agent.period());
            } else {
                let start = s.bind(now, &stamp, agent, virtual_now);
                smallest = smallest.min(start);
                let parameters = s.spec.parameters;
                members.push(crate::Binding {
                    subscription,
                    camera,
                    stamp,
                    region: Rect::WHOLE,
                    parent: 0,
                    parameters,
                });
            }
            self.schedule_look(camera);
        }
        if members.is_empty() {
            self.give_back_members(members);
            return false;
        }
        let id = self.next_batch_id();
        let device = &mut self.devices[device.0];
        device.virtual_now = device.virtual_now.max(smallest);
        device.lent += u32::from(with_token);
        let runner = self.runners.get_mut(&key).expect("chosen among the runners");
        let lease = runner.lease(members.len() as u32);
        runner.batches.push(Batch {
            id,
            members,
            phase: if with_token { Phase::Executing } else { Phase::Prepared },
            since: now,
            lease_end: now + lease,
        });
        true
    }

    /// The earliest moment at which anything can change by itself.
    fn wait(&mut self) -> Output<'_> {
        let mut until = (Instant::FAR, WaitReason::Idle);
        let mut consider = |at: Instant, reason: WaitReason| {
            if at < until.0 {
                until = (at, reason);
            }
        };
        while let Some(&std::cmp::Reverse((at, key))) = self.looks.peek() {
            if self.cameras[key.0 as usize].look_at == at {
                consider(at, WaitReason::Frame(key));
                break;
            }
            self.looks.pop();
        }
        for (key, r) in &self.runners {
            if r.batches.is_empty() && r.profiling.is_none() {
                continue;
            }
            let (at, bound) = r.next_bound(self.config.hang_limit);
            let reason = match bound {
                crate::runner::Bound::Lease(batch) => WaitReason::Lease(batch),
                _ => WaitReason::Hang(*key),
            };
            consider(at, reason);
        }
        for device in (0..self.devices.len()).map(DeviceIx) {
            if let Some(free) = self.free_at(device) {
                let at = free.back(self.config.prepare_ahead);
                if at > self.now {
                    consider(at, WaitReason::PrepareAhead);
                }
            }
        }
        self.wake_at = until.0;
        Output::Wait { until: until.0, reason: until.1 }
    }
}
