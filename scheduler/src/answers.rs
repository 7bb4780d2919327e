//! What runners say: prepared, executed, answered, measured.

use crate::input::Outcome;
use crate::invariant::Invariant;
use crate::output::Binding;
use crate::place::DeviceIx;
use crate::replied::{Replied, Reply};
use crate::runner::{Answered, Phase};
use crate::state::Scheduler;
use crate::{BatchId, RunnerKey};
use base::{Instant, StageTimes};
use std::time::Duration;

impl Scheduler {
    /// Whether a message about `batch` came too late to matter: its connection is being closed, or
    /// the batch was taken back while the message was on its way.
    fn stale_message(&self, key: RunnerKey, batch: BatchId) -> bool {
        let runner = self.runners.ix(key).and_then(|ix| self.runners.get(ix));
        runner.is_none_or(|r| r.was_revoked(batch))
    }

    /// A token comes back after it was used for this long.
    fn take_token(&mut self, device: DeviceIx, busy: Duration) {
        let back = self.devices[device.0].give_back(busy);
        self.invariants.hold(Invariant::Token, back);
    }

    pub(crate) fn prepared(&mut self, key: RunnerKey, batch: BatchId) {
        if self.stale_message(key, batch) {
            return;
        }
        let now = self.now();
        let Some(runner) = self.runners.of_mut(key) else { return };
        match runner.note_prepared(batch, now) {
            Some(true) => self.devices[runner.device.0].touch(),
            Some(false) => {}
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
        let now = self.now();
        let Some(runner) = self.runners.of_mut(key) else { return };
        match runner.batch(batch).map(|b| b.phase()) {
            Some(Phase::Executing) => {}
            // The token was passed on already.
            Some(Phase::Late) => return,
            _ => return self.protocol_error(key, "executed a batch without the token"),
        }
        let device = runner.device;
        if let Some(busy) = runner.note_executed(batch, now, executed - granted) {
            self.take_token(device, busy);
        }
    }

    pub(crate) fn reply(
        &mut self,
        key: RunnerKey,
        batch: BatchId,
        times: &StageTimes,
        outcomes: Vec<Outcome>,
    ) {
        if self.stale_message(key, batch) {
            return;
        }
        let now = self.now();
        let Some(ix) = self.runners.ix(key) else { return };
        let Some(runner) = self.runners.get_mut(ix) else { return };
        let Some(b) = runner.batch(batch) else {
            return self.protocol_error(key, "replied to a batch that it does not hold");
        };
        if b.members.len() != outcomes.len() {
            return self.protocol_error(key, "replied with another number of outcomes");
        }
        // Without the token only: there was nothing to execute.
        if b.phase() == Phase::Prepared && outcomes.iter().any(Result::is_ok) {
            return self.protocol_error(key, "replied to a batch without the token");
        }
        let device = runner.device;
        let Some(Answered { members, late, token }) = runner.answer(batch, now, times) else {
            return;
        };
        self.devices[device.0].touch();
        if let Some(busy) = token {
            self.take_token(device, busy);
        }
        if late {
            // Its members have ended.
            return self.give_back_members(members);
        }
        let sequence = self.next_sequence();
        let (received, times) = (now, *times);
        let of = Reply { runner: key, ix, batch, received, times, sequence };
        self.settle(&of, device, members, outcomes);
    }

    /// Settles the members of a batch that was answered in time.
    fn settle(
        &mut self,
        of: &Reply,
        device: DeviceIx,
        mut members: Vec<Binding>,
        mut outcomes: Vec<Outcome>,
    ) {
        let now = of.received;
        let deadline = self.runners.get(of.ix).map_or(Duration::ZERO, |r| r.info.deadline);
        let (mut kept, mut late) = (0, 0);
        for i in 0..members.len() {
            let binding = &members[i];
            let capture = binding.stamp.info.capture;
            self.devices[device.0].count_age(now, now.0.saturating_sub(capture.0));
            let Some(s) = self.subscriptions.get_mut(binding.subscription) else { continue };
            late += usize::from(now - capture > s.deadline_or(deadline));
            self.invariants.hold(Invariant::InFlight, s.land());
            s.answer(outcomes[i].as_ref().err().copied());
            if let (true, Ok(found)) = (s.parent(), &outcomes[i]) {
                let at = of.sequence + kept as u64;
                self.offer_crops(binding.subscription, &binding.stamp, at, found);
            }
            if kept < i {
                members.swap(kept, i);
                outcomes.swap(kept, i);
            }
            kept += 1;
        }
        if let Some(r) = self.runners.get_mut(of.ix) {
            r.count_late(kept, late);
        }
        // A member whose subscription went meanwhile has nobody to be told.
        members.truncate(kept);
        outcomes.truncate(kept);
        if kept == 0 {
            return self.give_back_members(members);
        }
        self.hand_out(Replied::new(*of, members, outcomes), kept);
    }

    pub(crate) fn profile_request(&mut self, key: RunnerKey, sizes: Vec<u32>) {
        if let Some(r) = self.runners.of_mut(key) {
            r.ask(sizes);
            self.devices[r.device.0].touch();
        }
    }

    pub(crate) fn profile_done(&mut self, key: RunnerKey, batch_size: u32, samples: Vec<Duration>) {
        let now = self.now();
        let Some(runner) = self.runners.of_mut(key) else { return };
        let Some(measured) = runner.end_measuring(now) else { return };
        let device = runner.device;
        if let Some(busy) = measured.token {
            self.take_token(device, busy);
        }
        self.devices[device.0].touch();
        if !self.measuring(device) {
            self.begin_serving_on(device);
        }
        if measured.size == batch_size
            && !samples.is_empty()
            && let Some(runner) = self.runners.of_mut(key)
        {
            runner.expect(batch_size, samples);
        }
    }
}
