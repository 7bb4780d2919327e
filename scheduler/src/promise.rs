//! What becomes of the promises of runners: L(b) as they announced it.
//!
//! A promise is made by measuring under a grant and by nothing else. Whoever breaks it stands behind
//! those that want the same device; where there are none, nobody is harmed and it goes on as it can.
//! A promise that no frame could be answered with in time is measured again unasked: it may have been
//! made in a bad hour, and nothing is launched on it that would show how fast the runner is now.

use crate::device::{DeviceIx, ModelIx};
use crate::machine::Scheduler;
use crate::runner::RunnerState;
use crate::subscription::SubscriptionState;
use base::Instant;
use std::time::Duration;

/// A runner that can answer nothing in time is measured so long after it was measured or launched on
/// last (chosen: the trouble of a start is over in seconds) ...
const CHECK_FIRST: Duration = Duration::from_secs(10);
/// ... then after twice as long each time, up to this (chosen: one run of a batch that takes half a
/// second is then 0.2 % of the time of the others on its device).
const CHECK_LAST: Duration = Duration::from_secs(320);
/// A promise that leaves less of the deadline than this share of itself is one that no frame is
/// answered with in time (chosen: what can be launched only when it is looked at at once).
const MARGIN: f64 = 1.1;

/// When a runner is measured unasked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checks {
    /// Not before this.
    at: Instant,
    /// From the last such measurement to this.
    wait: Duration,
    /// One was asked for that is not known to have changed anything.
    open: bool,
}

impl Default for Checks {
    fn default() -> Checks {
        Checks { at: Instant::ZERO, wait: CHECK_FIRST, open: false }
    }
}

impl Checks {
    /// A size was measured, whoever asked for it.
    pub fn measured(&mut self, now: Instant) {
        self.at = self.at.max(now + CHECK_FIRST);
    }

    /// Whether a measurement is due. Then the next one is later.
    fn due(&mut self, now: Instant) -> bool {
        let due = now >= self.at;
        if due {
            self.wait = (self.wait * 2).min(CHECK_LAST);
            self.at = now + self.wait;
            self.open = true;
        }
        due
    }

    /// Frames can be answered in time. True = since a measurement that was due.
    fn closed(&mut self) -> bool {
        self.wait = CHECK_FIRST;
        std::mem::take(&mut self.open)
    }
}

impl Scheduler {
    /// Asks the runners of a model that can answer no frame in time to measure what a single one
    /// takes, and the other sizes once that has come down.
    pub(crate) fn check_promises(&mut self, model: ModelIx) {
        let now = self.now;
        let wanted = &self.models[model.0].wanted;
        if wanted.rate <= 0.0 {
            return;
        }
        let room = Duration::from_secs_f64((wanted.deadline - wanted.delay).max(0.0));
        for i in 0..self.models[model.0].runners.len() {
            let ix = self.models[model.0].runners[i];
            let Some(r) = self.runners[ix.0].as_mut() else { continue };
            let idle = matches!(r.state, RunnerState::Ready | RunnerState::Demoted)
                && r.profiling.is_none()
                && r.profile_queue.is_empty();
            let Some(single) = r.watch.announced().p50(1).filter(|_| idle) else { continue };
            if single.mul_f64(MARGIN) > room {
                if now - r.launched_at < CHECK_FIRST || !r.checks.due(now) {
                    continue;
                }
                r.profile_queue.push_back(1);
            } else {
                if !r.checks.closed() {
                    continue;
                }
                // Those that the runner does not offer take no time.
                let doubled = (1..).map(|power| 1 << power);
                let largest = r.info.batch_max;
                r.profile_queue.extend(doubled.take_while(|size| *size < largest));
                r.profile_queue.extend(Some(largest).filter(|size| *size > 1));
            }
            self.devices[r.device.0].dirty = true;
        }
    }

    /// Takes note of whom the runners of a device have to mind: those that keep what they promised
    /// and are wanted.
    pub(crate) fn note_minded(&mut self, device: DeviceIx) {
        let keeps = |core: &Scheduler, at: usize| {
            core.runner(core.devices[device.0].runners[at]).is_some_and(|r| {
                let mut wanted = core.models[r.model.0].subscriptions.iter();
                r.state != RunnerState::Demoted
                    && wanted.any(|key| {
                        let s = core.subscriptions.get(*key);
                        s.is_some_and(|s| s.state == SubscriptionState::Active)
                    })
            })
        };
        let count = self.devices[device.0].runners.len();
        let keeping = (0..count).filter(|at| keeps(self, *at)).count();
        for at in 0..count {
            let others = keeping - usize::from(keeps(self, at));
            let ix = self.devices[device.0].runners[at];
            if let Some(r) = self.runners[ix.0].as_mut() {
                r.minded = others > 0;
            }
        }
    }
}
