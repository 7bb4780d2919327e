//! The policy: which batch is launched when, on which device, with which frames.
//!
//! Work-conserving and late-binding: a free token goes to a model with ready subscriptions, and
//! their frames are read again at that moment, so the newest is bound. While a device has time
//! enough, the model whose subscriptions are due first goes first, and launches keep the timetable
//! where one exists. Once more is wanted than there is, the fair order decides.

use crate::device::DeviceIx;
use crate::invariant::Invariant;
use crate::machine::Scheduler;
use crate::output::{Binding, Output, WaitReason};
use crate::runner::{Batch, Bound, Phase, RunnerIx, RunnerState};
use crate::{BatchId, FrameIndex, RunnerKey, SubscriptionKey};
use base::{Instant, Rect};
use std::time::Duration;

/// A launch may take this many times the planned batch: what a delayed launch has gathered
/// (chosen: cohorts are filled to 1.15).
const CROWDED: f64 = 1.3;
/// The same where launches keep no timetable (chosen: between single batches of all that came at
/// once, which age, and many small ones, which cost the device).
const CHANCE: f64 = 2.0;
/// And never fewer than this (chosen: at light load a batch of one is planned, and two may meet).
const FEW: f64 = 4.0;
/// After a delay, what has gathered is launched in so many parts (chosen: the first ones are
/// answered early, and the device still catches up).
const PARTS: u32 = 3;
/// A subscription that fell behind by this many of its own steps is not passed over again.
const PASSED_OVER: u64 = 2;

/// How long a demoted runner waits for a gap that is long enough (chosen: a frame per second is
/// served even where there is none).
const GAP_PATIENCE: Duration = Duration::from_secs(1);

/// What a step decided.
enum Action {
    Prepare(RunnerIx),
    Grant(RunnerKey, BatchId, Duration),
    Revoke(RunnerKey, BatchId),
    Profile(RunnerKey, u32, Duration),
}

/// What the runners of a device hold.
#[derive(Debug, Clone, Copy)]
struct Outlook {
    /// Who holds a prepared batch.
    prepared: Option<RunnerIx>,
    /// When the first token should come back; [`Instant::FAR`] = none is lent to a batch.
    executing_until: Instant,
    /// Whether all runners execute on a GPU.
    gpu: bool,
    /// The longest way of a Prepare.
    lead: Duration,
    /// The runner that wants to measure a size and is first to do so.
    measures_next: Option<RunnerIx>,
}

impl Outlook {
    /// When the first token of a GPU should come back. `None` for a CPU, where preparing ahead
    /// would take the very cores that execute, and while a batch is prepared already.
    fn free_at(&self) -> Option<Instant> {
        let waits = self.gpu && self.prepared.is_none() && self.executing_until != Instant::FAR;
        waits.then_some(self.executing_until)
    }

    /// When the next batch of a GPU is prepared: as late as its preparation allows.
    fn ahead_at(&self) -> Option<Instant> {
        Some(self.free_at()?.back(self.lead))
    }
}

/// A runner that could be launched on.
#[derive(Clone, Copy)]
struct Candidate {
    ix: RunnerIx,
    demoted: bool,
    due: Instant,
    start: u64,
    tag: u64,
    subscription: SubscriptionKey,
}

impl Scheduler {
    /// The next thing to do on any device, else how long to wait.
    pub(crate) fn step(&mut self, index: &mut dyn FrameIndex) -> Output<'_> {
        for device in (0..self.devices.len()).map(DeviceIx) {
            let d = &self.devices[device.0];
            if !d.dirty && d.next_at > self.now {
                continue;
            }
            self.devices[device.0].held_until = Instant::FAR;
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
                    self.devices[device.0].next_at = self.next_step(device, &outlook);
                    self.devices[device.0].dirty = false;
                }
            }
        }
        self.wait()
    }

    fn launched(&self, ix: RunnerIx) -> Output<'_> {
        let r = self.runner(ix).expect("it was just launched on");
        let batch = r.batches.last().expect("a batch was just pushed");
        let lease = (batch.phase == Phase::Executing).then(|| batch.lease_end - batch.since);
        Output::Prepare { runner: r.key, batch: batch.id, lease, members: &batch.members }
    }

    /// A prepared batch gets the free token, or is taken back when none of its frames can be
    /// answered in time any more.
    fn step_prepared(&mut self, device: DeviceIx, outlook: &Outlook) -> Option<Action> {
        let ix = outlook.prepared?;
        let runner = self.runner(ix)?;
        let batch = runner.batches.iter().find(|b| b.phase == Phase::Prepared)?;
        let now = self.now;
        let (key, id) = (runner.key, batch.id);
        let size = batch.members.len() as u32;
        // It is prepared: only what has no hope at all is taken back. In overload there are newer
        // frames for whatever the execution before has made too old.
        let overloaded = self.overloaded_alone(device);
        let needed = match runner.watch.p50(size) {
            Some(p50) if overloaded && size > 1 => p50,
            _ => runner.watch.least(size),
        };
        let timely = |m: &Binding| {
            let s = self.subscriptions.get(m.subscription);
            let deadline = s.and_then(|s| s.deadline).unwrap_or(runner.info.deadline);
            s.is_some() && m.stamp.info.capture + deadline >= now + needed
        };
        let in_time = match overloaded {
            true if size > 1 => batch.members.iter().all(timely),
            _ => batch.members.iter().any(timely),
        };
        if !in_time {
            self.take_back(ix, id);
            return Some(Action::Revoke(key, id));
        }
        if !self.devices[device.0].free()
            || runner.batches.iter().any(|b| b.phase == Phase::Executing)
        {
            return None;
        }
        let lease = runner.lease(size);
        self.invariants.hold(Invariant::Token, self.devices[device.0].lend());
        let runner = self.runners[ix.0].as_mut()?;
        let batch = runner.batches.iter_mut().find(|b| b.id == id)?;
        batch.phase = Phase::Executing;
        batch.since = now;
        batch.lease_end = now + lease;
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
        if self.devices[device.0].profiled_last {
            let action =
                self.launch(device, outlook, index, true).or_else(|| self.profile(device, outlook));
            self.devices[device.0].profiled_last = matches!(action, Some(Action::Profile(..)))
                || (action.is_none() && self.devices[device.0].profiled_last);
            return action;
        }
        let action = self.profile(device, outlook);
        self.devices[device.0].profiled_last = action.is_some();
        action.or_else(|| self.launch(device, outlook, index, true))
    }

    /// The next size that a runner of this device wants to measure.
    fn profile(&mut self, device: DeviceIx, outlook: &Outlook) -> Option<Action> {
        let ix = outlook.measures_next?;
        let now = self.now;
        let runner = self.runners[ix.0].as_mut().filter(|r| r.batches.is_empty())?;
        let size = runner.profile_queue.pop_front()?;
        let lease = runner.profile_lease(size);
        runner.state = RunnerState::Profiling;
        runner.profiling = Some((size, now, now + lease));
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
        if self.devices[device.0].free() || outlook.ahead_at()? > self.now {
            return None;
        }
        // The next turn is a measurement's: what is prepared ahead would take it.
        if !self.devices[device.0].profiled_last && outlook.measures_next.is_some() {
            return None;
        }
        self.launch(device, outlook, index, false)
    }

    /// What the runners of a device hold. It stands until something is done.
    fn outlook(&self, device: DeviceIx) -> Outlook {
        let mut outlook = Outlook {
            prepared: None,
            executing_until: Instant::FAR,
            gpu: true,
            lead: Duration::ZERO,
            measures_next: None,
        };
        for ix in &self.devices[device.0].runners {
            let Some(r) = self.runner(*ix) else { continue };
            outlook.gpu &= r.info.gpu;
            outlook.lead = outlook.lead.max(r.lead(self.config.prepare_ahead));
            for b in &r.batches {
                match b.phase {
                    Phase::Prepared => outlook.prepared = outlook.prepared.or(Some(*ix)),
                    Phase::Executing => {
                        outlook.executing_until = outlook.executing_until.min(b.since + b.length);
                    }
                    Phase::Executed | Phase::Late => {}
                }
            }
            let measures = !r.profile_queue.is_empty()
                && r.profiling.is_none()
                && matches!(r.state, RunnerState::Ready | RunnerState::Demoted);
            if measures && outlook.measures_next.is_none() {
                outlook.measures_next = Some(*ix);
            }
        }
        outlook
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

    /// Who is launched on now, if anyone.
    fn first_candidate(
        &mut self,
        device: DeviceIx,
        index: &mut dyn FrameIndex,
        with_token: bool,
    ) -> Option<Candidate> {
        let virtual_now = self.devices[device.0].virtual_now;
        let measure_next = !self.devices[device.0].profiled_last;
        let overloaded = self.devices[device.0].overloaded;
        let steered = !overloaded && self.steers(device);
        let mut first: Option<Candidate> = None;
        for i in 0..self.devices[device.0].runners.len() {
            let model = self.devices[device.0].models[i];
            let m = &self.models[model.0];
            let nothing = m.ready_count == 0 && m.overdue.is_empty();
            if nothing && m.awaited.first() > self.now.0 {
                continue;
            }
            let ix = self.devices[device.0].runners[i];
            let Some(r) = self.runner(ix) else { continue };
            let demoted = r.yields();
            // A slow runner is not prepared ahead: who becomes ready meanwhile goes before it.
            if !r.accepts(with_token, measure_next) || (demoted && !with_token) {
                continue;
            }
            self.collect(model, index);
            let Some((tag, subscription)) = self.foremost(model) else { continue };
            let m = &self.models[model.0];
            // On the device's clock: as far ahead of it as of the clock that orders the model.
            let start = virtual_now + tag.saturating_sub(self.virtual_now(ix));
            let (due, on_time) = (m.due, m.on_time);
            let candidate = Candidate { ix, demoted, due, start, tag, subscription };
            let missed = steered && !on_time && m.cohorts.is_some();
            if demoted || missed {
                let until = self.held_until(device, &candidate);
                if until > self.now {
                    let held = &mut self.devices[device.0].held_until;
                    *held = (*held).min(until);
                    continue;
                }
            }
            let rank = |c: &Candidate| {
                let order = if overloaded { c.start } else { c.due.0 };
                (c.demoted, order, c.tag, c.subscription, c.ix)
            };
            if first.as_ref().is_none_or(|f| rank(&candidate) < rank(f)) {
                first = Some(candidate);
            }
        }
        first
    }

    /// Whether a timetable is kept on a device.
    fn steers(&self, device: DeviceIx) -> bool {
        self.devices[device.0].models.iter().any(|m| self.models[m.0].cohorts.is_some())
    }

    /// Until when a launch of frames that missed their own launch waits for the timetable: it must
    /// not occupy the device when the next cohort is due, for at most one interval. A demoted
    /// runner waits for a gap between the others in the same way.
    fn held_until(&mut self, device: DeviceIx, candidate: &Candidate) -> Instant {
        if candidate.demoted && !self.may_spend(candidate.ix) {
            return self.runner(candidate.ix).map_or(Instant::FAR, |r| r.in_budget_at());
        }
        let Some(r) = self.runner(candidate.ix) else { return self.now };
        let patience = if candidate.demoted {
            GAP_PATIENCE
        } else {
            Duration::from_secs_f64(r.share.interval.clamp(0.0, 1.0))
        };
        let count = self.models[r.model.0].ready_count.min(self.most(candidate.ix)).max(1);
        let length = if candidate.demoted { r.watch.p99(count) } else { r.watch.p50(count) };
        let length = length.unwrap_or_default() + r.turnaround();
        let latest = candidate.due + patience;
        let mut next = Instant::FAR;
        for i in 0..self.devices[device.0].runners.len() {
            let ix = self.devices[device.0].runners[i];
            let Some(r) = self.runner(ix) else { continue };
            let model = r.model;
            if let Some(cohorts) = &self.models[model.0].cohorts {
                next = next.min(cohorts.next_commit(self.now));
            } else if candidate.demoted && ix != candidate.ix {
                next = self.awaited_before(model, next);
            }
        }
        if self.now + length > next { next.min(latest) } else { self.now }
    }

    /// Whether a demoted runner may use the device now: within what it was planned to need, or
    /// when nobody else wants the device.
    fn may_spend(&mut self, ix: RunnerIx) -> bool {
        let now = self.now;
        let Some(r) = self.runners.get_mut(ix.0).and_then(Option::as_mut) else { return false };
        if r.in_budget(now) {
            return true;
        }
        let (device, own) = (r.device, ix);
        let healthy = |ix: &RunnerIx| {
            *ix != own
                && self.runner(*ix).is_some_and(|r| {
                    r.state != RunnerState::Demoted && self.models[r.model.0].wanted.rate > 0.0
                })
        };
        !self.devices[device.0].runners.iter().any(healthy)
    }

    /// The largest batch that this runner may be given now.
    fn most(&self, ix: RunnerIx) -> u32 {
        let Some(r) = self.runner(ix) else { return 1 };
        let largest = r.share.batch_max.min(r.paying).max(1);
        if r.yields() {
            // As long as it was planned to occupy the device, no longer.
            return r.modest((r.share.batch.ceil() as u32).clamp(1, largest));
        }
        if self.overloaded_alone(r.device) {
            return if r.bold() { largest } else { r.careful_max.clamp(1, largest) };
        }
        if self.devices[r.device.0].overloaded {
            return largest;
        }
        let m = &self.models[r.model.0];
        // A cohort, not two: the next one has a launch of its own. Without a timetable arrivals
        // crowd by chance.
        let planned = m.cohorts.as_ref().map_or((r.share.batch * CHANCE).max(FEW), |cohorts| {
            r.share.batch.max(cohorts.crowd(m.wanted.rate)) * CROWDED
        });
        let gathered = m.ready_count.div_ceil(PARTS);
        (planned.ceil() as u32).max(gathered).clamp(1, largest)
    }

    /// Binds what is ready for this runner. False when nothing could be bound.
    ///
    /// All members must be answered in time by a batch of the intended size. Frames too old for
    /// that stay ready, for a newer one comes; frames too old even for a batch of one have expired.
    fn launch_on(
        &mut self,
        candidate: &Candidate,
        outlook: &Outlook,
        index: &mut dyn FrameIndex,
        with_token: bool,
    ) -> bool {
        let (ix, now) = (candidate.ix, self.now);
        let Some(runner) = self.runner(ix) else { return false };
        let (model, device, gpu) = (runner.model, runner.device, runner.info.gpu);
        let deadline = runner.info.deadline;
        let wait = if with_token {
            Duration::ZERO
        } else {
            outlook.free_at().map_or(Duration::ZERO, |at| at - now)
        };
        let copy = with_token && gpu;
        let virtual_now = self.virtual_now(ix);
        let overloaded = self.devices[device.0].overloaded;
        let alone_overloaded = self.overloaded_alone(device);
        let m = &self.models[model.0];
        let ready = if m.crops { u32::MAX } else { m.ready_count };
        let mut size = self.most(ix).min(ready).max(1);
        let mut members = self.spare_members();
        let mut aside = std::mem::take(&mut self.aside);
        aside.clear();
        let mut smallest = u64::MAX;
        // Members of one batch in the fair order lie within a step of the first.
        let mut furthest = u64::MAX;
        let promised = candidate.tag.max(virtual_now);
        // When a batch of this size is answered.
        let answered = |core: &Scheduler, size: u32| {
            now + core.runner(ix).map_or(Duration::ZERO, |r| {
                let time = if size > 1 && alone_overloaded {
                    r.answer_time_crowded(size, copy)
                } else if size > 1 {
                    r.answer_time(size, copy)
                } else {
                    r.answer_time_alone(now, copy)
                };
                wait + time
            })
        };
        let (mut answered_at, alone_at) = (answered(self, size), answered(self, 1));
        loop {
            if members.len() as u32 >= size {
                break;
            }
            let Some((tag, key)) = self.foremost(model) else {
                if !members.is_empty() || aside.is_empty() || size == 1 {
                    break;
                }
                // Nobody is fresh enough for this size: a smaller batch is answered sooner.
                size = size.div_ceil(2);
                answered_at = answered(self, size);
                for (tag, key) in aside.drain(..) {
                    self.models[model.0].ready.push(tag, key);
                }
                continue;
            };
            if overloaded && members.is_empty() && aside.is_empty() && tag > promised {
                // Who made this model the first has nothing to bind: others may come before it.
                break;
            }
            if overloaded && !members.is_empty() && tag > furthest {
                // Whoever is that far ahead would only take from the others.
                break;
            }
            self.models[model.0].ready.pop();
            let Some(s) = self.subscriptions.get(key) else { continue };
            let limit = s.deadline.unwrap_or(deadline);
            let step = s.step();
            if s.child {
                let room = (limit, answered_at, virtual_now, size);
                if let Some(start) = self.bind_crops(key, room, &mut members, index) {
                    if smallest == u64::MAX {
                        furthest = start.saturating_add(step);
                    }
                    smallest = smallest.min(start);
                }
                continue;
            }
            let camera = s.camera;
            self.look(camera, index);
            let agent = &self.cameras[camera.0 as usize];
            let Some(s) = self.subscriptions.get_mut(key) else { continue };
            let Some(stamp) = agent.current().copied().filter(|newest| {
                s.ready && {
                    s.observe(newest.frame_id.0);
                    s.eligible(newest)
                }
            }) else {
                // The look has shown that there is nothing to bind any more.
                if s.ready {
                    self.unready(key);
                    self.schedule(key);
                }
                continue;
            };
            let latest = stamp.info.capture + limit;
            if latest < answered_at {
                if latest < alone_at {
                    s.expire(&stamp, agent.period_ns());
                    self.unready(key);
                    self.schedule(key);
                    continue;
                }
                // Whoever was passed over long enough has the size made to its frame.
                let behind = virtual_now.saturating_sub(tag) > PASSED_OVER * step;
                if members.is_empty() && behind {
                    while size > 1 && latest < answered_at {
                        size -= 1;
                        answered_at = answered(self, size);
                    }
                } else {
                    aside.push((tag, key));
                    continue;
                }
            }
            let Some(s) = self.subscriptions.get_mut(key) else { continue };
            let agent = &self.cameras[camera.0 as usize];
            let start = s.bind(now, &stamp, agent, virtual_now);
            if members.is_empty() {
                furthest = start.saturating_add(step);
            }
            smallest = smallest.min(start);
            let parameters = s.parameters;
            members.push(Binding {
                subscription: key,
                camera,
                stamp,
                region: Rect::WHOLE,
                parent: 0,
                parameters,
                first: true,
            });
            self.unready(key);
            self.schedule(key);
        }
        for (tag, key) in aside.drain(..) {
            self.models[model.0].ready.push(tag, key);
        }
        self.aside = aside;
        if members.is_empty() {
            self.give_back_members(members);
            return false;
        }
        // What was left behind was in time; it goes on with the next launch, whenever that is.
        let m = &mut self.models[model.0];
        m.on_time &= m.ready_count > 0;
        let shared = self.shares_token(ix);
        let id = self.next_batch_id();
        let device = &mut self.devices[device.0];
        let runner = self.runners[ix.0].as_mut().expect("chosen among the runners");
        if smallest != u64::MAX {
            // What a demoted runner is behind is its own affair; it begins where the device is.
            let from = if shared { device.virtual_now } else { virtual_now };
            device.virtual_now += smallest.saturating_sub(from);
            let model = &mut self.models[model.0];
            let begins = candidate.demoted && !runner.left_behind;
            model.virtual_now = if begins { smallest } else { model.virtual_now.max(smallest) };
        }
        runner.left_behind = candidate.demoted;
        if with_token {
            self.invariants.hold(Invariant::Token, device.lend());
        }
        runner.launched_at = now;
        let count = members.len() as u32;
        let lease = runner.lease(count);
        let length = runner.watch.p50(count).unwrap_or_default() + runner.turnaround();
        runner.batches.push(Batch {
            id,
            members,
            phase: if with_token { Phase::Executing } else { Phase::Prepared },
            since: now,
            lease_end: now + lease,
            length,
        });
        self.rebound(ix);
        true
    }

    /// Whether one model alone wants more than its device has. Where several share it large batches of
    /// one are turns of the others, and sizes are bound by more than the deadline.
    pub(crate) fn overloaded_alone(&self, device: DeviceIx) -> bool {
        let d = &self.devices[device.0];
        d.overloaded && d.runners.len() == 1
    }

    /// The virtual time that a runner's model is ordered by. Where runners share one token it is the
    /// device's; where they do not, each model is a bottleneck of its own. So is a demoted runner: the
    /// device's time leaves it behind, and tags that are all raised to that would know no weights.
    pub(crate) fn virtual_now(&self, ix: RunnerIx) -> u64 {
        let Some(r) = self.runner(ix) else { return 0 };
        let device = &self.devices[r.device.0];
        let model = &self.models[r.model.0];
        if !self.shares_token(ix) {
            model.virtual_now
        } else if r.yields() && r.left_behind {
            device.virtual_now.min(model.virtual_now)
        } else {
            device.virtual_now
        }
    }

    /// Whether this runner has one token in common with others, and its model no other runner.
    fn shares_token(&self, ix: RunnerIx) -> bool {
        let Some(r) = self.runner(ix) else { return false };
        self.devices[r.device.0].capacity == 1 && self.models[r.model.0].runners.len() < 2
    }

    /// Binds as many crops of one frame as there is room for; what does not fit stays ready.
    /// Returns the start tag when its first crop was bound.
    fn bind_crops(
        &mut self,
        key: SubscriptionKey,
        (limit, answered_at, virtual_now, size): (Duration, Instant, u64, u32),
        members: &mut Vec<Binding>,
        index: &mut dyn FrameIndex,
    ) -> Option<u64> {
        let mut first = None;
        if self.crops_in_time(key, limit, answered_at, index) {
            while (members.len() as u32) < size {
                let now = self.now;
                let Some(s) = self.subscriptions.get_mut(key) else { break };
                let Some((crop, start)) = s.bind_crop(now, virtual_now) else { break };
                let opens = start.is_some();
                first = first.or(start);
                members.push(Binding {
                    subscription: key,
                    camera: s.camera,
                    stamp: crop.stamp,
                    region: crop.region,
                    parent: crop.parent,
                    parameters: s.parameters,
                    first: opens,
                });
            }
        }
        let s = self.subscriptions.get(key)?;
        let (left, tag, model) = (s.pending(), s.tag, s.model);
        if left == 0 {
            self.unready(key);
        } else {
            self.models[model.0].ready.push(tag, key);
        }
        first
    }

    /// When a device may have something to do by itself.
    fn next_step(&mut self, device: DeviceIx, outlook: &Outlook) -> Instant {
        let free = self.devices[device.0].free();
        let mut at = Instant::FAR;
        if !free {
            let Some(ahead) = outlook.ahead_at() else { return Instant::FAR };
            if ahead > self.now {
                return ahead;
            }
            if !self.devices[device.0].profiled_last && outlook.measures_next.is_some() {
                return Instant::FAR;
            }
        }
        let measure_next = !self.devices[device.0].profiled_last;
        for i in 0..self.devices[device.0].runners.len() {
            let model = self.devices[device.0].models[i];
            if self.models[model.0].awaited.first() >= at.0 {
                continue;
            }
            let Some(r) = self.runner(self.devices[device.0].runners[i]) else { continue };
            if !r.accepts(free, measure_next) || (!free && r.yields()) {
                continue;
            }
            at = self.awaited_before(model, at);
        }
        // Ready and yet not launched: held. Whatever else stands in its way ends with an input.
        at.min(self.devices[device.0].held_until)
    }

    /// The earliest moment at which anything can change by itself.
    fn wait(&mut self) -> Output<'_> {
        let mut until = (Instant::FAR, WaitReason::Idle);
        for device in (0..self.devices.len()).map(DeviceIx) {
            let d = &self.devices[device.0];
            if d.next_at < until.0 {
                let reason = if d.free() { WaitReason::Frames } else { WaitReason::PrepareAhead };
                until = (d.next_at, reason);
            }
            if self.devices[device.0].bound_at < until.0 {
                let (at, bound) = self.first_bound(device);
                self.devices[device.0].bound_at = at;
                if at < until.0 {
                    until = (at, bound);
                }
            }
        }
        if let Some((at, _)) = self.unserved.peek()
            && at < until.0.0
        {
            until = (Instant(at), WaitReason::Unserved);
        }
        self.wake_at = until.0;
        Output::Wait { until: until.0, reason: until.1 }
    }

    /// The first lease or hang limit on a device.
    fn first_bound(&self, device: DeviceIx) -> (Instant, WaitReason) {
        let mut first = (Instant::FAR, WaitReason::Idle);
        for ix in &self.devices[device.0].runners {
            let Some(r) = self.runner(*ix) else { continue };
            if r.batches.is_empty() && r.profiling.is_none() {
                continue;
            }
            let (at, bound) = r.next_bound(self.config.hang_limit);
            if at < first.0 {
                let reason = match bound {
                    Bound::Lease(batch) => WaitReason::Lease(batch),
                    Bound::ProfileLease | Bound::Hang => WaitReason::Hang(r.key),
                };
                first = (at, reason);
            }
        }
        first
    }
}
