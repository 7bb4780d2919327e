//! One scheduler connection: bytes in on the listening thread, messages out from any thread.

use base::limits::HANG_LIMIT;
use ipc::framing::{LengthError, Reassembly, write_message};
use ipc::runner_message::{Encoder, RunnerMessage};
use rustix::net::{RecvFlags, recv};
use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes read in one go.
const CHUNK: usize = 64 * 1024;

/// The way out to one scheduler. A peer that takes nothing for [`HANG_LIMIT`] is cut off: messages
/// may be lost with it, never delayed by it for longer.
#[derive(Debug)]
pub struct Peer {
    stream: UnixStream,
    /// Held while a message is written, so that messages of two threads do not mix.
    writing: Mutex<()>,
}

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::default();
}

impl Peer {
    /// Takes a fresh connection.
    pub fn new(stream: UnixStream) -> io::Result<Arc<Peer>> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(HANG_LIMIT))?;
        Ok(Arc::new(Peer { stream, writing: Mutex::new(()) }))
    }

    /// Sends a message, or closes the connection.
    pub fn send(&self, message: &RunnerMessage) {
        let sent = ENCODER.with_borrow_mut(|encoder| {
            let bytes = message.encode(encoder);
            let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            write_message(&mut &self.stream, bytes)
        });
        if let Err(error) = sent {
            tracing::debug!(%error, "scheduler does not take messages, connection closed");
            self.close();
        }
    }

    /// Closes both directions; the listening thread sees the end and forgets the connection.
    pub fn close(&self) {
        // Fails only when the peer closed first.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    /// The peer ended it.
    #[error("closed by the scheduler")]
    End,
    /// The system ended it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A length prefix that is not allowed.
    #[error("{0}")]
    Length(#[from] LengthError),
    /// Bytes that are no message.
    #[error("{0}")]
    Wire(#[from] ipc::WireError),
    /// A message that is not allowed here.
    #[error("{0}")]
    Protocol(String),
}

/// The way in from one scheduler.
#[derive(Debug)]
pub struct Inbox {
    reassembly: Reassembly,
    chunk: Box<[u8]>,
}

impl Default for Inbox {
    fn default() -> Self {
        Inbox { reassembly: Reassembly::default(), chunk: vec![0; CHUNK].into() }
    }
}

impl Inbox {
    /// Reads once without waiting, and hands out the whole messages that are there.
    pub fn read(&mut self, peer: &Peer) -> Result<Vec<RunnerMessage>, Closed> {
        let mut messages = Vec::new();
        match recv(peer, &mut self.chunk[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Closed::End),
            Ok((count, _)) => self.reassembly.extend(&self.chunk[..count]),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => return Ok(messages),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        while let Some(message) = self.reassembly.next(RunnerMessage::decode)? {
            messages.push(message?);
        }
        Ok(messages)
    }
}
