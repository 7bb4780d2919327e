//! What waits for the core's thread. It is never held up, so what others leave here is bounded: events
//! in number by their channel, messages of runners in bytes, desired states by there being one.

use ipc::desired::DesiredState;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of messages that may wait (chosen: six of the largest; a usual reply has some kilobytes).
/// Beyond it the sockets thread reads no further ones, and runners wait.
const BYTES_MAX: usize = 64 << 20;

/// The newest desired state, until the core takes it. One that was not taken yet is replaced: a burst
/// of changes is one.
#[derive(Debug, Default)]
pub(crate) struct Pending(Mutex<Option<Box<DesiredState>>>);

impl Pending {
    /// Leaves a state; true when none was waiting: then the core has to be told.
    pub fn put(&self, state: DesiredState) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(Box::new(state)).is_none()
    }

    /// Takes what waits.
    pub fn take(&self) -> Option<Box<DesiredState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Bytes of messages on their way to the core.
#[derive(Debug, Default)]
pub(crate) struct Backlog(AtomicUsize);

impl Backlog {
    /// A message is on its way.
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The core has handled it.
    pub fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether no further message should come.
    pub fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(revision: u64) -> DesiredState {
        let json = format!(
            r#"{{"format": 1, "revision": {revision}, "written_utc": "", "cameras": [],
                "subscriptions": []}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn states_that_nobody_took_are_one_and_the_core_is_told_once() {
        let pending = Pending::default();
        assert!(pending.take().is_none());
        assert_eq!([1, 2, 3].map(|revision| pending.put(state(revision))), [true, false, false]);
        assert_eq!(pending.take().map(|state| state.revision), Some(3));
        assert!(pending.take().is_none() && pending.put(state(4)));
    }

    #[test]
    fn a_backlog_is_full_by_bytes_and_empties_as_it_is_handled() {
        let backlog = Backlog::default();
        backlog.add(BYTES_MAX - 1);
        assert!(!backlog.is_full());
        backlog.add(1);
        assert!(backlog.is_full());
        backlog.remove(1);
        assert!(!backlog.is_full());
    }
}
