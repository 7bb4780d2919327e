//! The way to ingest: one request on one connection over `ingest.sock`, and the state of the streams,
//! asked for at most once a second whoever wants to know.
//!
//! Calls wait: how many there are at once is bounded by the slots of the routes that make them.

use crate::limits::FOLLOWS_MAX;
use base::CameraId;
use ipc::desired::Version;
use ipc::ingest_message::{self, Answer, Request, StreamStatus};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How old the shown state may be.
const STATUS_AGE: Duration = Duration::from_secs(1);
/// How long ingest may take to say what its streams do: it only reads counters.
const STATUS_WAIT: Duration = Duration::from_millis(800);
/// How long anything else may take.
const CALL_WAIT: Duration = Duration::from_secs(4);
/// How often a handler that follows the streams looks (chosen: people do not notice it).
const LOOK: Duration = Duration::from_millis(200);

/// Why ingest did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// Nobody listens.
    #[error("ingest does not run; start `vas ingest` or `vas up`")]
    NotRunning,
    /// It is there and says nothing, or nonsense.
    #[error("ingest does not answer: {0}")]
    NoAnswer(String),
}

/// What ingest last said of its streams.
#[derive(Debug, Clone)]
pub struct StreamsView {
    /// Every configured stream, or why nothing is known.
    pub streams: Result<Vec<StreamStatus>, IngestError>,
    /// The desired state that it follows; `None` while nothing is known.
    pub desired: Option<Version>,
}

impl StreamsView {
    /// One stream of a camera.
    pub fn stream(&self, camera: &CameraId, name: &str) -> Option<&StreamStatus> {
        let known = self.streams.iter().flatten();
        let mut of_camera = known.filter(|status| status.camera == *camera);
        of_camera.find(|status| status.stream == name)
    }

    /// The streams of a camera.
    pub fn of<'s>(&'s self, camera: &'s CameraId) -> impl Iterator<Item = &'s StreamStatus> {
        self.streams.iter().flatten().filter(move |status| status.camera == *camera)
    }

    /// Why nothing is known.
    pub fn fault(&self) -> Option<&IngestError> {
        self.streams.as_ref().err()
    }
}

#[derive(Debug, Default)]
struct Cached {
    view: Option<(Instant, Arc<StreamsView>)>,
    asking: bool,
}

/// The client's end.
#[derive(Debug)]
pub struct IngestLink {
    socket: PathBuf,
    cached: Mutex<Cached>,
    follows: AtomicUsize,
}

impl IngestLink {
    /// To the ingest that listens on `socket`.
    pub fn new(socket: PathBuf) -> IngestLink {
        IngestLink { socket, cached: Mutex::default(), follows: AtomicUsize::new(0) }
    }

    /// What the streams do, at most a second old; older while another asks.
    pub fn streams(&self) -> Arc<StreamsView> {
        self.streams_within(STATUS_AGE)
    }

    fn streams_within(&self, age: Duration) -> Arc<StreamsView> {
        {
            let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, view)) = &cached.view
                && (cached.asking || at.elapsed() < age)
            {
                return Arc::clone(view);
            }
            cached.asking = true;
        }
        self.ask()
    }

    /// Follows what the streams do from now on, until `there` or for so long. When
    /// [`FOLLOWS_MAX`] others do so already, it is what they do now.
    pub fn follow(&self, wait: Duration, there: impl Fn(&StreamsView) -> bool) -> Arc<StreamsView> {
        let Some(_follower) = Follower::among(&self.follows) else { return self.streams() };
        let deadline = Instant::now() + wait;
        // What was known before says nothing of what was changed just now.
        let mut view = self.ask();
        while !there(&view) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
            view = self.streams_within(LOOK);
        }
        view
    }

    fn ask(&self) -> Arc<StreamsView> {
        let answer = self.exchange(&Request::Status, STATUS_WAIT);
        let told = answer.and_then(|answer| match answer.status {
            200 => Ok((answer.streams, answer.desired)),
            _ => Err(IngestError::NoAnswer(answer.message)),
        });
        let (streams, desired) = match told {
            Ok((streams, desired)) => (Ok(streams), Some(desired)),
            Err(error) => (Err(error), None),
        };
        let view = Arc::new(StreamsView { streams, desired });
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.view = Some((Instant::now(), Arc::clone(&view)));
        cached.asking = false;
        view
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`IngestError`]; an answer that says no is not one.
    pub fn call(&self, request: &Request) -> Result<Answer, IngestError> {
        self.exchange(request, CALL_WAIT)
    }

    fn exchange(&self, request: &Request, wait: Duration) -> Result<Answer, IngestError> {
        ingest_message::call(&self.socket, request, wait).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => IngestError::NotRunning,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                IngestError::NoAnswer(format!("not within {} s", wait.as_secs_f64()))
            }
            _ => IngestError::NoAnswer(error.to_string()),
        })
    }
}

/// One of [`FOLLOWS_MAX`], until it is dropped.
#[derive(Debug)]
struct Follower<'s>(&'s AtomicUsize);

impl<'s> Follower<'s> {
    fn among(followers: &'s AtomicUsize) -> Option<Follower<'s>> {
        let more = |count| (count < FOLLOWS_MAX).then_some(count + 1);
        followers.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Follower(followers))
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_follow_at_once_and_each_gives_its_place_back() {
        let followers = AtomicUsize::new(0);
        let mut held: Vec<_> = (0..FOLLOWS_MAX).map(|_| Follower::among(&followers)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(Follower::among(&followers).is_none());
        held.pop();
        assert!(Follower::among(&followers).is_some(), "the free place, given back at once");
        assert!(Follower::among(&followers).is_some());
        held.clear();
        assert_eq!(followers.load(Ordering::Acquire), 0);
    }
}
