//! "Please stop", from a signal handler to every thread of a process that waits on something.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// The end that waits. Readable for ever once the process should stop; cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(Arc<UnixStream>);

impl Stop {
    /// A stop and its trigger: writing a byte to the trigger, or dropping it, stops.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn pair() -> io::Result<(UnixStream, Stop)> {
        let (trigger, stop) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        Ok((trigger, Stop(Arc::new(stop))))
    }

    /// Whether the process should stop.
    pub fn is_set(&self) -> bool {
        self.wait(std::time::Duration::ZERO)
    }

    /// Waits at most `timeout`; true = stop.
    pub fn wait(&self, timeout: std::time::Duration) -> bool {
        let mut fds = [rustix::event::PollFd::new(&self.0, rustix::event::PollFlags::IN)];
        let timeout = rustix::event::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        matches!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(n) if n > 0)
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_or_written_trigger_stops_for_ever() {
        let (trigger, stop) = Stop::pair().unwrap();
        assert!(!stop.is_set());
        drop(trigger);
        assert!(stop.is_set() && stop.clone().is_set() && stop.is_set());
    }
}
