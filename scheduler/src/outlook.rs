//! What the runners of a device hold, as a step sees it.

use crate::place::{DeviceIx, RunnerIx};
use crate::runner::Phase;
use crate::state::Scheduler;
use base::Instant;
use std::time::Duration;

/// What the runners of a device hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outlook {
    /// Who holds a prepared batch.
    pub prepared: Option<RunnerIx>,
    /// When the first token should come back; [`Instant::FAR`] = none is lent to a batch.
    executing_until: Instant,
    /// Whether all runners execute on a GPU.
    gpu: bool,
    /// The longest way of a Prepare.
    lead: Duration,
    /// The runner that wants to measure a size and is first to do so.
    pub measures_next: Option<RunnerIx>,
}

impl Outlook {
    /// When the first token of a GPU should come back. `None` for a CPU, where preparing ahead
    /// would take the very cores that execute, and while a batch is prepared already.
    pub fn free_at(&self) -> Option<Instant> {
        let waits = self.gpu && self.prepared.is_none() && self.executing_until != Instant::FAR;
        waits.then_some(self.executing_until)
    }

    /// When the next batch of a GPU is prepared: as late as its preparation allows.
    pub fn ahead_at(&self) -> Option<Instant> {
        Some(self.free_at()?.back(self.lead))
    }
}

impl Scheduler {
    /// What the runners of a device hold. It stands until something is done.
    pub(crate) fn outlook(&self, device: DeviceIx) -> Outlook {
        let mut outlook = Outlook {
            prepared: None,
            executing_until: Instant::FAR,
            gpu: true,
            lead: Duration::ZERO,
            measures_next: None,
        };
        for ix in self.devices[device.0].runners() {
            let Some(r) = self.runners.get(*ix) else { continue };
            outlook.gpu &= r.info.gpu;
            outlook.lead = outlook.lead.max(r.lead(self.config.prepare_ahead));
            for b in r.batches() {
                if b.phase() == Phase::Prepared {
                    outlook.prepared = outlook.prepared.or(Some(*ix));
                }
                if let Some(until) = b.executing_until() {
                    outlook.executing_until = outlook.executing_until.min(until);
                }
            }
            let measures = r.would_measure();
            if measures && outlook.measures_next.is_none() {
                outlook.measures_next = Some(*ix);
            }
        }
        outlook
    }
}
