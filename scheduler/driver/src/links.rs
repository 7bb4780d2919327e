//! The core's side of its sockets: bounded, never waited for.

use base::Instant;
use base::limits::{HANG_LIMIT, SERVE_OUT_BYTES_MAX};
use ipc::framing::{OutBuffer, Pushed, framed_bytes};
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// The way out of a connection.
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

    /// Queues a message for the next flush, or drops it whole when the peer is too far behind.
    pub fn push(&mut self, now: Instant, message: &[u8]) -> Pushed {
        if !self.out.has_room(message) {
            // The peer may take some of what waits.
            self.flush(now);
        }
        if self.closed { Pushed::Dropped } else { self.out.push(message) }
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

    /// Ends the connection; its way in reports it.
    pub fn close(&mut self) {
        self.closed = true;
        // A peer that is gone already has ended the connection itself.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// The connection to serve, which knows what becomes of results.
pub(crate) struct ServeLink {
    link: Link,
    /// Bytes that were ever queued.
    queued: u64,
    /// Where in them each message with results ends, and how many it has.
    unsent: VecDeque<(u64, u64)>,
}

impl ServeLink {
    pub fn new(stream: Arc<UnixStream>) -> ServeLink {
        let link = Link::new(stream, SERVE_OUT_BYTES_MAX);
        ServeLink { link, queued: 0, unsent: VecDeque::new() }
    }

    /// Queues a message with so many results, or drops it whole.
    pub fn push(&mut self, now: Instant, message: &[u8], results: u64) -> Pushed {
        let pushed = self.link.push(now, message);
        if pushed == Pushed::Queued {
            self.queued += framed_bytes(message);
            if results > 0 {
                self.unsent.push_back((self.queued, results));
            }
        }
        pushed
    }

    /// See [`Link::flush`].
    pub fn flush(&mut self, now: Instant) {
        self.link.flush(now);
        let sent = self.queued - self.link.out.waiting() as u64;
        while self.unsent.front().is_some_and(|(end, _)| *end <= sent) {
            self.unsent.pop_front();
        }
    }

    /// Whether bytes wait.
    pub fn waits(&self) -> bool {
        self.link.waits()
    }

    /// Results that wait and will not go out when the connection ends now. What serve had not read yet
    /// is in the kernel and unknown.
    pub fn unsent_results(&self) -> u64 {
        self.unsent.iter().map(|(_, results)| results).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::limits::RUNNER_OUT_BYTES_MAX;
    use base::time::NANOS_PER_SEC;
    use ipc::framing::read_message;

    /// A peer that reads nothing until it is asked, and the link to it.
    fn pair() -> (UnixStream, Arc<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (theirs, Arc::new(ours))
    }

    fn after(limits: f64) -> Instant {
        Instant(NANOS_PER_SEC) + HANG_LIMIT.mul_f64(limits)
    }

    #[test]
    fn a_peer_that_takes_nothing_for_the_hang_limit_is_closed() {
        let (mut peer, ours) = pair();
        let mut link = Link::new(ours, RUNNER_OUT_BYTES_MAX);
        let message = vec![7; RUNNER_OUT_BYTES_MAX / 4];
        assert_eq!(link.push(after(0.0), &message), Pushed::Queued);
        link.flush(after(0.0));
        link.flush(after(0.5));
        assert!(link.waits());
        // It takes a little: that is life.
        std::io::Read::read_exact(&mut peer, &mut [0; 65_536]).unwrap();
        link.flush(after(0.9));
        link.flush(after(1.0));
        link.flush(after(1.8));
        assert!(link.waits());
        link.flush(after(2.1));
        assert!(!link.waits());
        assert_eq!(link.push(after(2.2), b"more"), Pushed::Dropped);
        // What began is cut off, and it sees the end.
        assert!(read_message(&mut peer, &mut Vec::new()).is_err());
    }

    #[test]
    fn results_are_counted_by_what_became_of_them() {
        let (mut peer, ours) = pair();
        let mut link = ServeLink::new(ours);
        let now = after(0.0);
        assert_eq!(link.push(now, b"status", 0), Pushed::Queued);
        assert_eq!(link.push(now, b"results", 3), Pushed::Queued);
        assert_eq!(link.unsent_results(), 3, "they go out together");
        link.flush(now);
        assert_eq!(link.unsent_results(), 0, "both are in the kernel");
        let large = vec![1; SERVE_OUT_BYTES_MAX / 4 * 3];
        assert_eq!(link.push(now, &large, 5), Pushed::Queued);
        assert_eq!(link.push(now, b"results", 7), Pushed::Queued);
        assert_eq!(link.unsent_results(), 12);
        assert_eq!(link.push(now, &large, 11), Pushed::Dropped, "beyond the bound, whole");
        assert_eq!(link.unsent_results(), 12);
        let reader = std::thread::spawn(move || {
            let mut buffer = Vec::new();
            let mut bytes = Vec::new();
            while read_message(&mut peer, &mut buffer).unwrap() {
                bytes.push(buffer.len());
            }
            bytes
        });
        while link.waits() {
            link.flush(now);
        }
        assert_eq!(link.unsent_results(), 0);
        drop(link);
        assert_eq!(reader.join().unwrap(), [6, 7, SERVE_OUT_BYTES_MAX / 4 * 3, 7]);
    }
}
