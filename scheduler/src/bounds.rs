//! What passes when runners do not answer: leases and hang limits.

use crate::BatchId;
use crate::invariant::Invariant;
use crate::output::Output;
use crate::place::{DeviceIx, RunnerIx};
use crate::runner::Bound;
use crate::serving::end_members;
use crate::state::Scheduler;
use crate::subscription::End;
use base::Instant;
use std::time::Duration;

impl Scheduler {
    /// Passes the leases and hang limits whose time has come.
    pub(crate) fn pass_bounds(&mut self) {
        for device in (0..self.devices.len()).map(DeviceIx) {
            while self.devices[device.0].bound_at() <= self.now() {
                let first = self.first_bound(device);
                let at = first.map_or(Instant::FAR, |(at, ..)| at);
                self.devices[device.0].set_first_bound(at);
                let Some((_, bound, ix)) = first.filter(|_| at <= self.now()) else { break };
                self.bound_passed(ix, bound);
                self.devices[device.0].seek_bound();
            }
        }
    }

    fn bound_passed(&mut self, ix: RunnerIx, bound: Bound) {
        match bound {
            Bound::Hang => self.hang(ix),
            Bound::Lease(batch) => self.lease_passed(ix, batch),
            Bound::ProfileLease => {
                let Some(runner) = self.runners.get_mut(ix) else { return };
                runner.pass_profile_lease();
                let back = self.devices[runner.device.0].give_back(Duration::ZERO);
                self.invariants.hold(Invariant::Token, back);
            }
        }
    }

    fn lease_passed(&mut self, ix: RunnerIx, batch: BatchId) {
        let now = self.now();
        let Some(runner) = self.runners.get(ix) else { return };
        let (key, device) = (runner.key, runner.device);
        // What it has prepared can't be granted to it now: another runner is not to wait for that.
        if let Some(prepared) = runner.prepared().map(|b| b.id) {
            self.take_back(ix, prepared);
            self.tell(Output::Revoke { runner: key, batch: prepared });
        }
        let Some(runner) = self.runners.get_mut(ix) else { return };
        let (lent, members) = runner.pass_lease(batch, now);
        end_members(&mut self.subscriptions, &mut self.invariants, members, End::ExpiredLate);
        self.invariants.hold(Invariant::Token, self.devices[device.0].give_back(lent));
    }
}
