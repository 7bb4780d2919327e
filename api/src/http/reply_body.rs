//! The body of a reply: bytes that are there, or a file that is read chunk by chunk.
//!
//! Between two chunks a file holds no thread and one chunk of memory, so a slow client costs a
//! descriptor and nothing else.

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// Bytes read at a time (chosen: many times what a socket takes at once).
const CHUNK_BYTES: u64 = 128 * 1024;

/// Either kind.
#[derive(Debug)]
pub enum ReplyBody {
    /// In memory.
    Bytes(Full<Bytes>),
    /// On disk.
    File(FileBody),
}

/// A part of a file.
#[derive(Debug)]
pub struct FileBody {
    file: Arc<File>,
    at: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    /// `bytes` bytes from `first` on.
    pub fn new(file: File, first: u64, bytes: u64) -> FileBody {
        FileBody { file: Arc::new(file), at: first, left: bytes, reading: None }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let (file, at, size) = (&self.file, self.at, self.left.min(CHUNK_BYTES));
        let reading = self.reading.get_or_insert_with(|| {
            let file = Arc::clone(file);
            tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; size as usize];
                // A file that became shorter ends the connection: a part must not pass for all.
                file.read_exact_at(&mut chunk, at)?;
                Ok(chunk.into())
            })
        });
        let chunk = match Pin::new(reading).poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(chunk)) => chunk,
            Poll::Ready(Err(error)) => Err(io::Error::other(error)),
        };
        self.reading = None;
        if let Ok(chunk) = &chunk {
            self.at += chunk.len() as u64;
            self.left -= chunk.len() as u64;
        }
        Poll::Ready(Some(chunk.map(Frame::data)))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            ReplyBody::Bytes(bytes) => {
                Pin::new(bytes).poll_frame(cx).map(|frame| Some(frame?.map_err(|e| match e {})))
            }
            ReplyBody::File(file) => file.poll_chunk(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ReplyBody::Bytes(bytes) => bytes.is_end_stream(),
            ReplyBody::File(file) => file.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Bytes(bytes) => bytes.size_hint(),
            ReplyBody::File(file) => SizeHint::with_exact(file.left),
        }
    }
}
