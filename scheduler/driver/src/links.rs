//! The core's side of its sockets: bounded, never waited for.

use base::Instant;
use base::limits::HANG_LIMIT;
use ipc::framing::{OutBuffer, Pushed};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// A connection whose other half is read by the sockets thread.
pub(crate) struct Link {
    stream: Arc<UnixStream>,
    out: OutBuffer,
    /// Since when bytes wait without one being taken.
    stuck: Option<Instant>,
    closed: bool,
}

impl Link {
    pub fn new(stream: Arc<UnixStream>, bytes_max: usize) -> Link {
        Link { stream, out: OutBuffer::new(bytes_max), stuck: None, closed: false }
    }

    /// Sends a message, or drops it whole when the peer is too far behind.
    pub fn send(&mut self, now: Instant, message: &[u8]) -> Pushed {
        if self.closed {
            return Pushed::Dropped;
        }
        let pushed = self.out.push(message);
        self.flush(now);
        pushed
    }

    /// Gives the peer what it takes. A peer that takes nothing for the hang limit is closed.
    pub fn flush(&mut self, now: Instant) {
        if self.closed || self.out.is_empty() {
            return;
        }
        match self.out.flush(&mut &*self.stream) {
            Ok(_) if self.out.is_empty() => self.stuck = None,
            Ok(0) => {
                let since = *self.stuck.get_or_insert(now);
                if now - since > HANG_LIMIT {
                    self.close();
                }
            }
            Ok(_) => self.stuck = Some(now),
            Err(_) => self.close(),
        }
    }

    /// Whether bytes wait.
    pub fn waits(&self) -> bool {
        !self.closed && !self.out.is_empty()
    }

    /// Messages dropped so far.
    pub fn dropped(&self) -> u64 {
        self.out.dropped()
    }

    /// Ends the connection; the sockets thread reports it.
    pub fn close(&mut self) {
        self.closed = true;
        // A peer that is gone already has ended the connection itself.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}
