//! Which model is launched first on a device, whose launch waits for another, and how large a batch may
//! be.

use crate::place::{DeviceIx, RunnerIx};
use crate::state::Scheduler;
use crate::{FrameIndex, SubscriptionKey};
use base::Instant;
use std::time::Duration;

/// A launch may take this many times the planned batch: what a delayed launch has gathered
/// (cohorts are filled to 1.15; any: `nexus+noisy` p99 +3 %;
/// 1: `s3+noisy` p99 +9 % with one seed).
const CROWDED: f64 = 1.3;
/// The same where launches keep no timetable (between single batches of all that came at once,
/// which age, and many small ones, which cost the device; 1: `s8` mean +6 %, p99 +20 %; twice: `sync` mean
/// +11 %).
const CHANCE: f64 = 2.0;
/// And never fewer than this (at light load a batch of one is planned, and two may meet; half, none:
/// `s3+noisy` p99 +5 %; twice: `s8` p99 -6 %, `s3+noisy` +1 %).
const FEW: f64 = 4.0;
/// How long a demoted runner waits for a gap that is long enough (a frame per second is
/// served even where there is none; forever: a model three times slower at 95 % load has 43 % fewer answers;
/// none fails a test of the contract; half: p99 beside one that is eight times slower +12 %).
const GAP_PATIENCE: Duration = Duration::from_secs(1);

/// A runner that could be launched on.
#[derive(Clone, Copy)]
pub(crate) struct Candidate {
    pub ix: RunnerIx,
    pub demoted: bool,
    due: Instant,
    start: u64,
    pub tag: u64,
    subscription: SubscriptionKey,
}

impl Scheduler {
    /// Who is launched on now, if anyone.
    pub(crate) fn first_candidate(
        &mut self,
        device: DeviceIx,
        index: &mut dyn FrameIndex,
        with_token: bool,
    ) -> Option<Candidate> {
        let virtual_now = self.devices[device.0].virtual_now();
        let measure_next = !self.devices[device.0].profiled_last();
        let overloaded = self.devices[device.0].overloaded();
        let steered = !overloaded && self.steers(device);
        let mut first: Option<Candidate> = None;
        for i in 0..self.devices[device.0].runners().len() {
            let model = self.devices[device.0].models()[i];
            if self.models[model.0].nothing_by(self.now()) {
                continue;
            }
            let ix = self.devices[device.0].runners()[i];
            let Some(r) = self.runners.get(ix) else { continue };
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
            let (due, on_time) = (m.ready.due(), m.ready.on_time());
            let candidate = Candidate { ix, demoted, due, start, tag, subscription };
            let missed = steered && !on_time && m.cohorts().is_some();
            if demoted || missed {
                let until = self.held_until(device, &candidate);
                if until > self.now() {
                    self.devices[device.0].hold(until);
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
        self.devices[device.0].models().iter().any(|m| self.models[m.0].cohorts().is_some())
    }

    /// Until when a launch of frames that missed their own launch waits for the timetable: it must
    /// not occupy the device when the next cohort is due, for at most one interval. A demoted
    /// runner waits for a gap between the others in the same way.
    fn held_until(&mut self, device: DeviceIx, candidate: &Candidate) -> Instant {
        if candidate.demoted && !self.may_spend(candidate.ix) {
            return self.runners.get(candidate.ix).map_or(Instant::FAR, |r| r.in_budget_at());
        }
        let Some(r) = self.runners.get(candidate.ix) else { return self.now() };
        let patience = if candidate.demoted {
            GAP_PATIENCE
        } else {
            Duration::from_secs_f64(r.share().interval.clamp(0.0, 1.0))
        };
        let count = self.models[r.model.0].ready.count().min(self.most(candidate.ix)).max(1);
        let length = if candidate.demoted { r.watch().p99(count) } else { r.watch().p50(count) };
        let length = length.unwrap_or_default() + r.turnaround();
        let latest = candidate.due + patience;
        let mut next = Instant::FAR;
        for i in 0..self.devices[device.0].runners().len() {
            let ix = self.devices[device.0].runners()[i];
            let Some(r) = self.runners.get(ix) else { continue };
            let model = r.model;
            if let Some(cohorts) = self.models[model.0].cohorts() {
                next = next.min(cohorts.next_commit(self.now()));
            } else if candidate.demoted && ix != candidate.ix {
                next = self.awaited_before(model, next);
            }
        }
        if self.now() + length > next { next.min(latest) } else { self.now() }
    }

    /// Whether a demoted runner may use the device now: within what it was planned to need, or
    /// when nobody else wants the device.
    fn may_spend(&mut self, ix: RunnerIx) -> bool {
        let now = self.now();
        let Some(r) = self.runners.get_mut(ix) else { return false };
        if r.in_budget(now) {
            return true;
        }
        let (device, own) = (r.device, ix);
        let healthy = |ix: &RunnerIx| {
            *ix != own
                && self
                    .runners
                    .get(*ix)
                    .is_some_and(|r| r.keeps() && self.models[r.model.0].wanted().rate > 0.0)
        };
        !self.devices[device.0].runners().iter().any(healthy)
    }

    /// The largest batch that this runner may be given now.
    pub(crate) fn most(&self, ix: RunnerIx) -> u32 {
        let Some(r) = self.runners.get(ix) else { return 1 };
        let (share, device) = (r.share(), &self.devices[r.device.0]);
        let largest = share.batch_max.min(r.paying()).max(1);
        if r.yields() {
            // As long as it was planned to occupy the device, no longer.
            return r.modest((share.batch.ceil() as u32).clamp(1, largest));
        }
        if device.overloaded_alone() {
            return if r.bold() { largest } else { r.careful_max().clamp(1, largest) };
        }
        if device.overloaded() {
            return largest;
        }
        let m = &self.models[r.model.0];
        // A cohort, not two: the next one has a launch of its own. Without a timetable arrivals
        // crowd by chance.
        let planned = m.cohorts().map_or((share.batch * CHANCE).max(FEW), |cohorts| {
            share.batch.max(cohorts.crowd(m.wanted().rate)) * CROWDED
        });
        (planned.ceil() as u32).clamp(1, largest)
    }
}
