//! How long there is nothing to do.

use crate::outlook::Outlook;
use crate::output::{Output, WaitReason};
use crate::place::DeviceIx;
use crate::runner::Bound;
use crate::state::Scheduler;
use base::Instant;

impl Scheduler {
    /// When a device may have something to do by itself.
    pub(crate) fn next_step(&mut self, device: DeviceIx, outlook: &Outlook) -> Instant {
        let free = self.devices[device.0].free();
        let mut at = Instant::FAR;
        if !free {
            let Some(ahead) = outlook.ahead_at() else { return Instant::FAR };
            if ahead > self.now() {
                return ahead;
            }
            if !self.devices[device.0].profiled_last() && outlook.measures_next.is_some() {
                return Instant::FAR;
            }
        }
        let measure_next = !self.devices[device.0].profiled_last();
        for i in 0..self.devices[device.0].runners().len() {
            let model = self.devices[device.0].models()[i];
            if self.models[model.0].awaited.first() >= at.0 {
                continue;
            }
            let Some(r) = self.runners.get(self.devices[device.0].runners()[i]) else { continue };
            if !r.accepts(free, measure_next) || (!free && r.yields()) {
                continue;
            }
            at = self.awaited_before(model, at);
        }
        // Ready and yet not launched: held. Whatever else stands in its way ends with an input.
        at.min(self.devices[device.0].held_until())
    }

    /// The earliest moment at which anything can change by itself.
    pub(crate) fn wait(&mut self) -> Output<'_> {
        let mut until = (Instant::FAR, WaitReason::Idle);
        for device in (0..self.devices.len()).map(DeviceIx) {
            let d = &self.devices[device.0];
            if d.next_at() < until.0 {
                let reason = if d.free() { WaitReason::Frames } else { WaitReason::PrepareAhead };
                until = (d.next_at(), reason);
            }
            if d.bound_at() < until.0 {
                let (at, bound) = self.first_to_pass(device);
                self.devices[device.0].set_first_bound(at);
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
        self.sleep(until.0);
        Output::Wait { until: until.0, reason: until.1 }
    }

    /// When the first lease or hang limit on a device passes, and what that is.
    fn first_to_pass(&self, device: DeviceIx) -> (Instant, WaitReason) {
        let Some((at, bound, ix)) = self.first_bound(device) else {
            return (Instant::FAR, WaitReason::Idle);
        };
        let reason = match (bound, self.runners.get(ix)) {
            (Bound::Lease(batch), _) => WaitReason::Lease(batch),
            (Bound::ProfileLease | Bound::Hang, Some(r)) => WaitReason::Hang(r.key),
            (Bound::ProfileLease | Bound::Hang, None) => WaitReason::Idle,
        };
        (at, reason)
    }
}
