//! Framing of messages on stream sockets: u32 big-endian length, then that many bytes.
//!
//! [`Reassembly`] takes bytes as they come, [`OutBuffer`] is the bounded way out of a process that
//! must never wait, [`write_message`] and [`read_message`] serve processes that may.

use base::limits::MESSAGE_BYTES_MAX;
use std::collections::VecDeque;
use std::io::{self, Read, Write};

/// A peer announced a message that is empty or larger than allowed. The connection is useless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("peer announced a message of {0} bytes, allowed are 1 to {MESSAGE_BYTES_MAX}")]
pub struct LengthError(pub u32);

impl From<LengthError> for io::Error {
    fn from(error: LengthError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// What a message takes on a socket, with its prefix.
pub fn framed_bytes(message: &[u8]) -> u64 {
    4 + message.len() as u64
}

fn length(prefix: [u8; 4]) -> Result<usize, LengthError> {
    let announced = u32::from_be_bytes(prefix);
    if announced == 0 || announced as usize > MESSAGE_BYTES_MAX {
        return Err(LengthError(announced));
    }
    Ok(announced as usize)
}

/// Puts a message together from whatever pieces a non-blocking read returns.
#[derive(Debug, Default)]
pub struct Reassembly {
    buffer: Vec<u8>,
    start: usize,
}

impl Reassembly {
    /// Appends bytes that were read.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Hands the next whole message to `take`; `None` when there is none yet.
    ///
    /// # Errors
    /// [`LengthError`] when the announced length is not allowed; close the connection.
    pub fn next<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, LengthError> {
        let rest = &self.buffer[self.start..];
        let Some(prefix) = rest.first_chunk::<4>() else { return Ok(self.compact()) };
        let size = length(*prefix)?;
        let Some(message) = rest[4..].get(..size) else { return Ok(self.compact()) };
        let value = take(message);
        self.start += 4 + size;
        Ok(Some(value))
    }

    /// Bytes held.
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn compact<T>(&mut self) -> Option<T> {
        self.buffer.drain(..self.start);
        self.start = 0;
        None
    }
}

/// What an [`OutBuffer`] did with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It will go out.
    Queued,
    /// The buffer is full: the whole message was dropped before its first byte.
    Dropped,
}

/// Bounded bytes on their way to a peer that may be slow. Whole messages are dropped at the bound;
/// what has begun is always finished.
#[derive(Debug)]
pub struct OutBuffer {
    bytes: VecDeque<u8>,
    bytes_max: usize,
    dropped: u64,
}

impl OutBuffer {
    /// An empty buffer that holds at most `bytes_max` bytes, prefixes included.
    pub fn new(bytes_max: usize) -> Self {
        OutBuffer { bytes: VecDeque::new(), bytes_max, dropped: 0 }
    }

    /// Whether [`OutBuffer::push`] would queue this message now.
    pub fn has_room(&self, message: &[u8]) -> bool {
        let sendable = (1..=MESSAGE_BYTES_MAX).contains(&message.len());
        sendable && self.bytes.len() + 4 + message.len() <= self.bytes_max
    }

    /// Queues a message with its prefix, or drops it whole.
    pub fn push(&mut self, message: &[u8]) -> Pushed {
        if !self.has_room(message) {
            self.dropped += 1;
            return Pushed::Dropped;
        }
        self.bytes.extend((message.len() as u32).to_be_bytes());
        self.bytes.extend(message);
        Pushed::Queued
    }

    /// Writes what the non-blocking `peer` takes. Returns the bytes written; 0 when it would block.
    ///
    /// # Errors
    /// Any but `WouldBlock` and `Interrupted`; the connection is dead.
    pub fn flush(&mut self, peer: &mut impl Write) -> io::Result<usize> {
        let mut written = 0;
        while !self.bytes.is_empty() {
            let (front, _) = self.bytes.as_slices();
            match peer.write(front) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.bytes.drain(..n);
                    written += n;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(written)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that wait, prefixes included.
    pub fn waiting(&self) -> usize {
        self.bytes.len()
    }

    /// Messages dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Writes one message, waiting as long as the peer needs.
///
/// # Errors
/// Those of the socket; `InvalidInput` for a message that is empty or larger than allowed, of which
/// nothing is written.
pub fn write_message(peer: &mut impl Write, message: &[u8]) -> io::Result<()> {
    if !(1..=MESSAGE_BYTES_MAX).contains(&message.len()) {
        let text =
            format!("message of {} bytes, allowed are 1 to {MESSAGE_BYTES_MAX}", message.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    // One write for small messages: prefix and body in one segment.
    let mut framed = Vec::with_capacity(4 + message.len());
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    peer.write_all(&framed)
}

/// Reads one message into `buffer`, waiting for it. `Ok(false)` = the peer closed between messages.
///
/// # Errors
/// Those of the socket, `InvalidData` for a length that is not allowed.
pub fn read_message(peer: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut prefix = [0; 4];
    let mut got = 0;
    while got < 4 {
        match peer.read(&mut prefix[got..]) {
            Ok(0) if got == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    buffer.clear();
    buffer.resize(length(prefix)?, 0);
    peer.read_exact(buffer)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_any_cut() {
        let mut stream = Vec::new();
        for message in [&b"a"[..], &[7; 300], b"last"] {
            write_message(&mut stream, message).unwrap();
        }
        for step in 1..stream.len() {
            let mut reassembly = Reassembly::default();
            let mut lengths = Vec::new();
            for piece in stream.chunks(step) {
                reassembly.extend(piece);
                while let Some(n) = reassembly.next(<[u8]>::len).unwrap() {
                    lengths.push(n);
                }
            }
            assert_eq!(lengths, [1, 300, 4], "step {step}");
            assert_eq!(reassembly.buffered(), 0);
        }
    }

    #[test]
    fn lengths_outside_the_bound_are_refused() {
        for announced in [0, MESSAGE_BYTES_MAX as u32 + 1, u32::MAX] {
            let bytes = announced.to_be_bytes();
            let mut reassembly = Reassembly::default();
            reassembly.extend(&bytes);
            assert_eq!(reassembly.next(|_| ()), Err(LengthError(announced)));
            let error = read_message(&mut &bytes[..], &mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_full_buffer_drops_whole_messages_and_finishes_begun_ones() {
        struct OneByte(Vec<u8>, bool);
        impl Write for OneByte {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    self.0.push(bytes[0]);
                    Ok(1)
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = OutBuffer::new(20);
        let mut peer = OneByte(Vec::new(), false);
        assert_eq!(out.push(b"0123456789"), Pushed::Queued);
        out.flush(&mut peer).unwrap();
        assert_eq!(out.push(b"too long"), Pushed::Dropped);
        assert_eq!(out.push(b"ok"), Pushed::Queued);
        while !out.is_empty() {
            out.flush(&mut peer).unwrap();
        }
        let mut reassembly = Reassembly::default();
        reassembly.extend(&peer.0);
        assert_eq!(reassembly.next(<[u8]>::to_vec).unwrap().unwrap(), b"0123456789");
        assert_eq!(reassembly.next(<[u8]>::to_vec).unwrap().unwrap(), b"ok");
        assert_eq!(out.dropped(), 1);
    }

    #[test]
    fn end_of_stream_between_messages_is_not_an_error() {
        assert!(!read_message(&mut &b""[..], &mut Vec::new()).unwrap());
        assert!(read_message(&mut &[0, 0][..], &mut Vec::new()).is_err());
        assert!(read_message(&mut &[0, 0, 0, 9, 1][..], &mut Vec::new()).is_err());
    }
}
