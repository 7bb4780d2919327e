//! The newest desired state, from the thread that follows the file to the core's.

use ipc::desired::DesiredState;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// The newest desired state, until the core takes it. One that was not taken yet is replaced: a burst
/// of changes is one.
#[derive(Debug)]
pub(crate) struct Pending {
    state: Mutex<Option<Box<DesiredState>>>,
    /// Readable while a state waits.
    signal: OwnedFd,
}

impl Pending {
    /// With nothing in it.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new() -> io::Result<Pending> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Pending { state: Mutex::default(), signal })
    }

    /// Leaves a state.
    pub fn put(&self, state: DesiredState) {
        let mut waits = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if waits.replace(Box::new(state)).is_none() {
            // The count was taken with the state before: it can't be full.
            let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
        }
    }

    /// Takes what waits.
    pub fn take(&self) -> Option<Box<DesiredState>> {
        let mut waits = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = waits.take()?;
        let _ = rustix::io::read(&self.signal, &mut [0; 8]);
        Some(state)
    }
}

impl AsFd for Pending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    fn state(revision: u64) -> DesiredState {
        let json = format!(
            r#"{{"format": 1, "revision": {revision}, "written_utc": "", "cameras": [],
                "subscriptions": []}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn states_that_nobody_took_are_one_and_seen_until_they_are_taken() {
        let pending = Pending::new().unwrap();
        let seen = || {
            let mut fds = [PollFd::new(&pending, PollFlags::IN)];
            poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
        };
        assert!(!seen() && pending.take().is_none());
        [1, 2, 3].into_iter().for_each(|revision| pending.put(state(revision)));
        assert!(seen());
        assert_eq!(pending.take().map(|state| state.revision), Some(3));
        assert!(!seen() && pending.take().is_none());
        pending.put(state(4));
        assert!(seen() && pending.take().is_some() && !seen());
    }
}
