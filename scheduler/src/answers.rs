//! Runners: who is here, what they answer, and what passes when they do not.

use crate::device::{DeviceIx, ModelIx};
use crate::input::{Outcome, RunnerInfo};
use crate::invariant::{Invariant, Invariants};
use crate::ledger::Ledger;
use crate::machine::{Replied, Scheduler};
use crate::output::{Binding, CloseReason, Output};
use crate::runner::{Batch, Bound, Hung, Phase, Runner, RunnerIx, RunnerState};
use crate::slab::Subscriptions;
use crate::status::RunnerReport;
use crate::{BatchId, RunnerKey};
use base::{InstanceId, Instant, LatencyEntry, StageTimes, Stages, Stamp};
use std::time::Duration;

/// Leases of a late execution that count as its length (chosen: a runner that became twelve times
/// slower is known at once, one that was stopped for seconds is not taken for a thousand times).
const OVERRUN_COUNTED: u32 = 4;

/// Ends bound frames that get no answer: `count` names where the ledger keeps them.
fn end_members(
    subscriptions: &mut Subscriptions,
    invariants: &mut Invariants,
    members: &[Binding],
    count: impl Fn(&mut Ledger),
) {
    for binding in members {
        if let Some(s) = subscriptions.get_mut(binding.subscription) {
            invariants.hold(Invariant::InFlight, s.land());
            count(&mut s.details.ledger);
        }
    }
}

impl Replied {
    /// The age of a member, taken apart, and the same in nanoseconds.
    fn stages(&self, stamp: &Stamp) -> (Stages, [u64; 9]) {
        let (info, times) = (&stamp.info, &self.times);
        let instants =
            [info.capture, info.decode_start, stamp.published, times.received, self.received];
        if !instants.is_sorted() {
            // A stamp is wrong: boundary by boundary.
            let [capture, decode_start, published, ..] = instants;
            let stages = Stages::new(capture, decode_start, published, times, self.received);
            return (stages, stages.as_array().map(base::time::nanos));
        }
        let mut ns = self.since_received_ns;
        for (stage, between) in ns.iter_mut().zip(instants.windows(2)).take(3) {
            *stage = between[1].0 - between[0].0;
        }
        let [transport, decode, wait, ..] = ns.map(Duration::from_nanos);
        (Stages { transport, decode, wait, ..self.since_received }, ns)
    }
}

impl Scheduler {
    pub(crate) fn runner_up(&mut self, key: RunnerKey, info: RunnerInfo) {
        if self.hung.contains_key(&info.instance) {
            self.queue
                .push_back(Output::Close { runner: key, reason: CloseReason::RefusedInstance });
            return;
        }
        let model = self.model_ix(&info.model);
        let device = self.device_ix(&info.device);
        let of_model = |ix: &&RunnerIx| self.runner(**ix).is_some_and(|r| r.model == model);
        let before = self.devices[device.0].runners.iter().find(of_model).copied();
        if let Some((before, runner)) = before.and_then(|ix| Some((ix, self.runner(ix)?.key))) {
            self.queue.push_back(Output::Close { runner, reason: CloseReason::Replaced });
            self.lose_runner(before);
        }
        // Two processes can't have one place: a hung one of it has ended.
        self.hung.retain(|_, h| (h.model, h.device) != (model, device));
        let ix = match self.runners.iter().position(Option::is_none) {
            Some(free) => RunnerIx(free),
            None => {
                self.runners.push(None);
                RunnerIx(self.runners.len() - 1)
            }
        };
        self.devices[device.0].runners.push(ix);
        self.devices[device.0].models.push(model);
        self.models[model.0].runners.push(ix);
        self.models[model.0].devices.push(device);
        self.runner_keys.insert(key, ix);
        self.runners[ix.0] = Some(Runner::new(key, info, model, device));
        self.rebase_tags(model);
        self.refresh_suspect(device);
        self.refresh_states(model);
        self.devices[device.0].dirty = true;
        self.plan_soon(model);
    }

    /// Tags that ran ahead by another clock are worth nothing by this one: none lies further ahead
    /// of the virtual time that orders its model now than one of its own steps.
    pub(crate) fn rebase_tags(&mut self, model: ModelIx) {
        let runners = &self.models[model.0].runners;
        let Some(virtual_now) = runners.iter().map(|ix| self.virtual_now(*ix)).min() else {
            return;
        };
        for i in 0..self.models[model.0].subscriptions.len() {
            let key = self.models[model.0].subscriptions[i];
            let Some(s) = self.subscriptions.get_mut(key) else { continue };
            let furthest = virtual_now.saturating_add(s.step());
            if s.tag > furthest {
                s.tag = furthest;
                s.details.audited.set_back(s.gate, s.tag);
                if s.ready {
                    self.models[model.0].ready.push(furthest, key);
                }
            }
        }
    }

    pub(crate) fn runner_down(&mut self, key: RunnerKey) {
        if let Some(ix) = self.runner_ix(key) {
            self.lose_runner(ix);
        }
    }

    pub(crate) fn runner_gone(&mut self, instance: InstanceId) {
        let Some(Hung { model, device, .. }) = self.hung.remove(&instance) else { return };
        self.refresh_suspect(device);
        self.refresh_states(model);
    }

    /// Takes a runner out: settles everything it owes and frees its tokens.
    pub(crate) fn lose_runner(&mut self, ix: RunnerIx) {
        let Some(runner) = self.remove_runner(ix) else { return };
        let (model, device) = (runner.model, runner.device);
        let measured = runner.profiling.is_some() || !runner.profile_queue.is_empty();
        let tokens = runner.tokens();
        for batch in runner.batches {
            if batch.phase != Phase::Late {
                let (subscriptions, invariants) = (&mut self.subscriptions, &mut self.invariants);
                end_members(subscriptions, invariants, &batch.members, |l| l.lost_with_runner += 1);
            }
            self.give_back_members(batch.members);
        }
        let d = &mut self.devices[device.0];
        for _ in 0..tokens {
            self.invariants.hold(Invariant::Token, d.give_back(Duration::ZERO));
        }
        d.dirty = true;
        if d.runners.is_empty() {
            (d.load, d.overloaded) = (0.0, false);
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
        for i in 0..self.devices[device.0].models.len() {
            self.plan_soon(self.devices[device.0].models[i]);
        }
    }

    /// Forgets a runner wherever it is named.
    fn remove_runner(&mut self, ix: RunnerIx) -> Option<Runner> {
        let runner = self.runners[ix.0].take()?;
        self.runner_keys.remove(&runner.key);
        let d = &mut self.devices[runner.device.0];
        if let Some(at) = d.runners.iter().position(|other| *other == ix) {
            d.runners.remove(at);
            d.models.remove(at);
        }
        let m = &mut self.models[runner.model.0];
        m.runners.retain(|other| *other != ix);
        m.devices.retain(|device| *device != runner.device);
        Some(runner)
    }

    pub(crate) fn refresh_suspect(&mut self, device: DeviceIx) {
        self.devices[device.0].suspect = self.hung.values().any(|h| h.device == device);
    }

    /// A runner's bounds may have changed.
    pub(crate) fn rebound(&mut self, ix: RunnerIx) {
        let Some(r) = self.runner(ix) else { return };
        let (at, device) = (r.next_bound(self.config.hang_limit).0, r.device);
        let device = &mut self.devices[device.0];
        device.bound_at = device.bound_at.min(at);
    }

    /// Passes the leases and hang limits whose time has come.
    pub(crate) fn pass_bounds(&mut self) {
        for device in (0..self.devices.len()).map(DeviceIx) {
            while self.devices[device.0].bound_at <= self.now {
                let mut first = (Instant::FAR, Bound::Hang, RunnerIx(0));
                for ix in &self.devices[device.0].runners {
                    let Some(r) = self.runner(*ix) else { continue };
                    if r.batches.is_empty() && r.profiling.is_none() {
                        continue;
                    }
                    let (at, bound) = r.next_bound(self.config.hang_limit);
                    if at < first.0 {
                        first = (at, bound, *ix);
                    }
                }
                self.devices[device.0].bound_at = first.0;
                if first.0 > self.now {
                    break;
                }
                self.bound_passed(first.2, first.1);
                self.devices[device.0].bound_at = Instant::ZERO;
            }
        }
    }

    fn bound_passed(&mut self, ix: RunnerIx, bound: Bound) {
        match bound {
            Bound::Hang => self.hang(ix),
            Bound::Lease(batch) => self.lease_passed(ix, batch),
            Bound::ProfileLease => {
                let Some(runner) = self.runners[ix.0].as_mut() else { return };
                runner.state = RunnerState::Late;
                let back = self.devices[runner.device.0].give_back(Duration::ZERO);
                self.invariants.hold(Invariant::Token, back);
            }
        }
    }

    pub(crate) fn hang(&mut self, ix: RunnerIx) {
        let Some(runner) = self.runner(ix) else { return };
        let (key, instance) = (runner.key, runner.info.instance);
        let report = RunnerReport { state: RunnerState::Hung, ..self.runner_report(runner) };
        let hung = Hung { model: runner.model, device: runner.device, report };
        self.hung.insert(instance, hung);
        self.queue.push_back(Output::Close { runner: key, reason: CloseReason::Hung });
        self.lose_runner(ix);
    }

    pub(crate) fn lease_passed(&mut self, ix: RunnerIx, batch: BatchId) {
        let now = self.now;
        let Some(runner) = self.runners[ix.0].as_mut() else { return };
        let (key, device) = (runner.key, runner.device);
        runner.state = RunnerState::Late;
        // What it has prepared can't be granted to it now: another runner is not to wait for that.
        if let Some(prepared) = runner.batches.iter().find(|b| b.phase == Phase::Prepared) {
            let prepared = prepared.id;
            self.take_back(ix, prepared);
            self.queue.push_back(Output::Revoke { runner: key, batch: prepared });
        }
        let Some(runner) = self.runners[ix.0].as_mut() else { return };
        let mut lent = Duration::ZERO;
        for b in runner.batches.iter_mut().filter(|b| b.id == batch) {
            b.phase = Phase::Late;
            lent = now - b.since;
            let (subscriptions, invariants) = (&mut self.subscriptions, &mut self.invariants);
            end_members(subscriptions, invariants, &b.members, |l| l.expired_late += 1);
        }
        runner.spend(now, lent);
        self.invariants.hold(Invariant::Token, self.devices[device.0].give_back(lent));
    }

    /// Settles a prepared batch that is not granted.
    pub(crate) fn take_back(&mut self, ix: RunnerIx, id: BatchId) {
        let Some(runner) = self.runners[ix.0].as_mut() else { return };
        let Some(at) = runner.batches.iter().position(|b| b.id == id) else { return };
        let batch = runner.batches.remove(at);
        runner.note_revoked(id);
        self.devices[runner.device.0].dirty = true;
        // A runner holds one prepared batch at a time: it was the last one launched.
        let (model, bound) = (runner.model, runner.launched_at);
        let (subscriptions, invariants) = (&mut self.subscriptions, &mut self.invariants);
        end_members(subscriptions, invariants, &batch.members, |l| l.revoked += 1);
        // Whoever was not served has its turn again.
        for m in batch.members.iter().filter(|m| m.first) {
            let Some(s) = self.subscriptions.get_mut(m.subscription) else { continue };
            s.unbind(bound);
            if s.ready {
                self.models[model.0].ready.push(s.tag, m.subscription);
            }
        }
        self.give_back_members(batch.members);
    }

    /// Whether a message about `batch` came too late to matter: its connection is being closed, or
    /// the batch was taken back while the message was on its way.
    pub(crate) fn stale_message(&self, key: RunnerKey, batch: BatchId) -> bool {
        let runner = self.runner_ix(key).and_then(|ix| self.runner(ix));
        runner.is_none_or(|r| r.was_revoked(batch))
    }

    pub(crate) fn protocol_error(&mut self, key: RunnerKey, what: &'static str) {
        self.queue.push_back(Output::Close { runner: key, reason: CloseReason::Protocol(what) });
        if let Some(ix) = self.runner_ix(key) {
            self.lose_runner(ix);
        }
    }

    pub(crate) fn batch_mut(&mut self, key: RunnerKey, batch: BatchId) -> Option<&mut Batch> {
        self.runner_mut(key)?.batches.iter_mut().find(|b| b.id == batch)
    }

    pub(crate) fn prepared(&mut self, key: RunnerKey, batch: BatchId) {
        if self.stale_message(key, batch) {
            return;
        }
        let now = self.now;
        match self.batch_mut(key, batch) {
            // Preparing is done; from here on it waits for us, not we for it.
            Some(b) if b.phase == Phase::Prepared => {
                let took = now - b.since;
                b.since = now;
                if let Some(r) = self.runner_mut(key) {
                    r.note_lead(took);
                    let device = r.device;
                    self.devices[device.0].dirty = true;
                }
            }
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
        let Some(runner) = self.runner_mut(key) else { return };
        let device = runner.device;
        let Some(b) = runner.batches.iter_mut().find(|b| b.id == batch) else { return };
        let out = now - b.since;
        let busy = (executed - granted).min(out);
        let size = b.members.len() as u32;
        b.phase = Phase::Executed;
        b.since = now;
        runner.executed(size, busy);
        runner.note_turnaround(out - busy);
        runner.spend(now, busy);
        self.invariants.hold(Invariant::Token, self.devices[device.0].give_back(busy));
    }

    pub(crate) fn reply(
        &mut self,
        key: RunnerKey,
        batch: BatchId,
        times: &StageTimes,
        mut outcomes: Vec<Outcome>,
    ) {
        let now = self.now;
        if self.stale_message(key, batch) {
            return;
        }
        let Some(ix) = self.runner_ix(key) else { return };
        let Some(runner) = self.runners[ix.0].as_mut() else { return };
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
        let mut b = runner.batches.remove(at);
        let size = b.members.len() as u32;
        self.devices[runner.device.0].dirty = true;
        if b.phase == Phase::Executing {
            let out = now - b.since;
            let busy = (times.executed - times.granted).min(out);
            runner.executed(size, busy);
            runner.note_turnaround(out - busy);
            runner.spend(now, busy);
            let back = self.devices[runner.device.0].give_back(busy);
            self.invariants.hold(Invariant::Token, back);
        }
        if b.phase == Phase::Late {
            // Its members have ended; the answer is discarded, what it took is not forgotten.
            // Far beyond its lease it stood still, which says little of how slow it is.
            let most = (b.lease_end - b.since) * OVERRUN_COUNTED;
            let took = (times.executed - times.granted).min(most);
            runner.executed(size, took);
            runner.demote();
            return self.give_back_members(b.members);
        }
        runner.batch_count += 1;
        runner.member_count += u64::from(size);
        runner.count_in_time();
        runner.note_tail((now - times.executed).min(now - b.since));
        let (device, sequence) = (runner.device, self.next_sequence);
        let deadline = runner.info.deadline;
        let (mut kept, mut late) = (0, 0);
        for i in 0..b.members.len() {
            let binding = &b.members[i];
            let age = now.0.saturating_sub(binding.stamp.info.capture.0);
            self.devices[device.0].trial.count(now, age);
            let Some(s) = self.subscriptions.get_mut(binding.subscription) else { continue };
            late += usize::from(now - binding.stamp.info.capture > s.deadline.unwrap_or(deadline));
            self.invariants.hold(Invariant::InFlight, s.land());
            s.answer(outcomes[i].as_ref().err().copied());
            if let (true, Ok(found)) = (s.parent, &outcomes[i]) {
                let at = sequence + kept as u64;
                self.offer_crops(binding.subscription, &binding.stamp, at, found);
            }
            if kept < i {
                b.members.swap(kept, i);
                outcomes.swap(kept, i);
            }
            kept += 1;
        }
        if let Some(r) = self.runners[ix.0].as_mut() {
            r.count_late(kept, late);
        }
        // A member whose subscription went meanwhile has nobody to be told.
        b.members.truncate(kept);
        outcomes.truncate(kept);
        self.next_sequence += kept as u64;
        if kept == 0 {
            return self.give_back_members(b.members);
        }
        let since_received =
            Stages::new(times.received, times.received, times.received, times, now);
        self.replied.push_back(Replied {
            since_received,
            since_received_ns: since_received.as_array().map(base::time::nanos),
            runner: key,
            ix,
            batch,
            received: now,
            times: *times,
            sequence,
            members: b.members,
            outcomes: outcomes.into_iter(),
            next: 0,
        });
    }

    /// The next result of the oldest reply. There must be one.
    pub(crate) fn next_result(&mut self) -> Output<'static> {
        let reply = self.replied.front_mut().expect("the caller has seen a reply");
        let outcome = reply.outcomes.next().expect("a reply goes with its last result");
        let binding = reply.members[reply.next];
        let sequence = reply.sequence + reply.next as u64;
        reply.next += 1;
        let last = reply.next == reply.members.len();
        let (stages, stages_ns) = reply.stages(&binding.stamp);
        let (runner, ix, batch, received) = (reply.runner, reply.ix, reply.batch, reply.received);
        // Unless another runner has its place by now.
        if let Some(r) = self.runners[ix.0].as_mut().filter(|r| r.key == runner) {
            r.count_stages(&stages_ns);
        }
        if last && let Some(done) = self.replied.pop_front() {
            self.give_back_members(done.members);
        }
        Output::Result { runner, batch, binding, sequence, received, stages, outcome, last }
    }

    pub(crate) fn profile_done(
        &mut self,
        key: RunnerKey,
        batch_size: u32,
        mut samples: Vec<Duration>,
    ) {
        let now = self.now;
        let Some(runner) = self.runner_mut(key) else { return };
        let Some((size, since, _)) = runner.profiling.take() else { return };
        let device = runner.device;
        runner.measured = true;
        runner.checks.measured(now);
        if runner.state == RunnerState::Profiling {
            runner.resume();
            let back = self.devices[device.0].give_back(now - since);
            self.invariants.hold(Invariant::Token, back);
        } else {
            runner.demote();
        }
        self.devices[device.0].dirty = true;
        if !self.measuring(device) {
            self.begin_serving_on(device);
        }
        if size != batch_size || samples.is_empty() {
            return;
        }
        // A first idea of the larger sizes' leases until the runner sends its table.
        samples.sort_unstable();
        let p50 = samples[samples.len() / 2];
        let p99 = samples[samples.len() - 1];
        let Some(runner) = self.runner_mut(key) else { return };
        let mut table = runner.watch.announced().clone();
        table.set(LatencyEntry { batch: size, p50, p99 });
        runner.watch.announce(table);
    }

    /// Whether a runner on the device measures L(b) or is about to: that takes every other turn.
    pub(crate) fn measuring(&self, device: DeviceIx) -> bool {
        let mut runners = self.devices[device.0].runners.iter().filter_map(|ix| self.runner(*ix));
        runners.any(|r| r.profiling.is_some() || !r.profile_queue.is_empty())
    }

    /// Whether that is so on a device that serves this model.
    pub(crate) fn measured_now(&self, model: ModelIx) -> bool {
        self.models[model.0].devices.iter().any(|device| self.measuring(*device))
    }

    /// What is granted on this device is measured anew.
    fn begin_serving_on(&mut self, device: DeviceIx) {
        for model in &self.devices[device.0].models {
            for key in &self.models[model.0].subscriptions {
                if let Some(s) = self.subscriptions.get_mut(*key) {
                    s.begin_serving(self.now);
                }
            }
        }
    }
}
