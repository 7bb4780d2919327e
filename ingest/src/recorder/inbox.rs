//! Units on their way to a recorder: bounded by bytes, never waits for the disk.
//!
//! At the bound it is the new unit that goes, and all after it up to a key unit that fits again:
//! what was recorded before a loss is whole.

use crate::unit::AccessUnit;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bound, unless a single unit is larger (chosen: 16 s of 4 Mb/s, longer than a disk takes to spin
/// up).
pub const BYTES_MAX: usize = 8 << 20;
const _: () = assert!(BYTES_MAX >= 16 * 4_000_000 / 8);

/// A unit as it comes out.
#[derive(Debug)]
pub struct Queued {
    /// The unit.
    pub unit: Arc<AccessUnit>,
    /// Units before it were dropped here.
    pub after_loss: bool,
}

/// The two ends.
#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<State>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    units: VecDeque<Queued>,
    bytes: usize,
    lossy: bool,
    closed: bool,
}

impl Inbox {
    /// Takes a unit or drops it; returns how many were dropped: 0 or 1.
    pub fn push(&self, unit: &Arc<AccessUnit>) -> u64 {
        let mut state = self.lock();
        let bytes = unit.data.len();
        let fits = state.units.is_empty() || state.bytes + bytes <= BYTES_MAX;
        if !fits || (state.lossy && !unit.key()) {
            state.lossy = true;
            return 1;
        }
        let after_loss = std::mem::take(&mut state.lossy);
        state.bytes += bytes;
        state.units.push_back(Queued { unit: Arc::clone(unit), after_loss });
        0
    }

    /// Waits so long, or until it is closed, and takes all. True = nothing will follow.
    pub fn take(&self, wait: Duration) -> (VecDeque<Queued>, bool) {
        let state = self.lock();
        let waited = self.closed.wait_timeout_while(state, wait, |state| !state.closed);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.bytes = 0;
        (std::mem::take(&mut state.units), state.closed)
    }

    /// Nothing will be pushed any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.closed.notify_all();
    }

    /// Whether it was closed.
    pub fn closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::{Codec, UnitFlags};
    use base::{Instant, MediaTime, UtcNanos};

    fn unit(key: bool, bytes: usize) -> Arc<AccessUnit> {
        Arc::new(AccessUnit {
            codec: Codec::H264,
            data: vec![0; bytes],
            media: MediaTime(0),
            capture: Instant(0),
            capture_utc: UtcNanos(0),
            flags: UnitFlags::when(key, UnitFlags::KEY),
        })
    }

    #[test]
    fn what_does_not_fit_goes_and_a_key_unit_goes_on() {
        let inbox = Inbox::default();
        let (half, small) = (BYTES_MAX / 2, 1);
        assert_eq!([inbox.push(&unit(true, half)), inbox.push(&unit(false, half))], [0, 0]);
        assert_eq!(inbox.push(&unit(false, small)), 1, "full");
        assert_eq!(inbox.push(&unit(true, small)), 1, "also for a key unit");
        let (taken, closed) = inbox.take(Duration::ZERO);
        assert_eq!((taken.len(), closed), (2, false));
        assert!(taken.iter().all(|queued| !queued.after_loss));
        assert_eq!(inbox.push(&unit(false, small)), 1, "leans on what was dropped");
        assert_eq!([inbox.push(&unit(true, small)), inbox.push(&unit(false, small))], [0, 0]);
        let (taken, _) = inbox.take(Duration::ZERO);
        let loss: Vec<_> = taken.iter().map(|queued| queued.after_loss).collect();
        assert_eq!(loss, [true, false]);
    }

    #[test]
    fn one_that_is_larger_than_the_bound_fits_alone_and_the_end_is_told() {
        let inbox = Inbox::default();
        assert_eq!(inbox.push(&unit(true, BYTES_MAX + 1)), 0);
        assert_eq!(inbox.push(&unit(false, 1)), 1);
        assert!(!inbox.closed());
        inbox.close();
        assert!(inbox.closed());
        let (taken, closed) = inbox.take(Duration::from_secs(3600));
        assert_eq!((taken.len(), closed), (1, true));
    }
}
