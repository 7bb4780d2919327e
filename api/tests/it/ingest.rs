//! An ingest of tests: answers on `ingest.sock` what it is told to.

use base::{CameraId, Size, UtcNanos};
use ipc::framing;
use ipc::ingest_message::{Answer, Request, StreamState, StreamStatus};
use ipc::runner_message::Encoder;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

type Reaction = Box<dyn FnMut(&Request) -> Option<Answer> + Send>;

/// Ends with the process; a socket of a directory of its own.
#[derive(Clone)]
pub struct FakeIngest {
    /// Every request but status, in order.
    pub asked: Arc<Mutex<Vec<Request>>>,
    /// What status tells.
    pub streams: Arc<Mutex<Vec<StreamStatus>>>,
    reaction: Arc<Mutex<Reaction>>,
}

impl FakeIngest {
    /// Listens; every request but status gets a plain 200.
    pub fn start(socket: &Path) -> FakeIngest {
        let listener = UnixListener::bind(socket).unwrap();
        let ingest = FakeIngest {
            asked: Arc::default(),
            streams: Arc::default(),
            reaction: Arc::new(Mutex::new(Box::new(|_| Some(Answer::done())))),
        };
        let shared = ingest.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, shared) = (stream.unwrap(), shared.clone());
                std::thread::spawn(move || {
                    let mut bytes = Vec::new();
                    while framing::read_message(&mut stream, &mut bytes).unwrap_or(false) {
                        let request = Request::decode(&bytes).unwrap();
                        let Some(answer) = shared.answer(request) else { return };
                        let mut encoder = Encoder::default();
                        let bytes = answer.encode(&mut encoder);
                        framing::write_message(&mut stream, bytes).unwrap();
                    }
                });
            }
        });
        ingest
    }

    /// What further requests but status are answered with; `None` = the connection ends.
    pub fn react(&self, reaction: impl FnMut(&Request) -> Option<Answer> + Send + 'static) {
        *self.reaction.lock().unwrap() = Box::new(reaction);
    }

    fn answer(&self, request: Request) -> Option<Answer> {
        if request == Request::Status {
            let streams = self.streams.lock().unwrap().clone();
            return Some(Answer { streams, ..Answer::done() });
        }
        self.asked.lock().unwrap().push(request.clone());
        (self.reaction.lock().unwrap())(&request)
    }

    /// Replaces what is known of streams.
    pub fn tell(&self, streams: Vec<StreamStatus>) {
        *self.streams.lock().unwrap() = streams;
    }
}

/// A stream that runs.
pub fn live(camera: &str, stream: &str) -> StreamStatus {
    let camera: CameraId = camera.parse().unwrap();
    StreamStatus {
        state: StreamState::Live,
        since: UtcNanos(1_767_225_600_000_000_000),
        codec: "h264".into(),
        size: Size { width: 1280, height: 720 },
        fps: 24.987,
        bits_per_second: 2_000_000,
        last_unit: UtcNanos(1_767_225_700_000_000_000),
        connects: 3,
        viewers: 2,
        counters: vec![("units".into(), 2500), ("gaps".into(), 1)],
        ..StreamStatus::stopped(camera, stream)
    }
}

/// A stream that does not, and why.
pub fn down(camera: &str, stream: &str, state: StreamState, reason: &str) -> StreamStatus {
    let camera: CameraId = camera.parse().unwrap();
    StreamStatus { state, reason: reason.into(), ..StreamStatus::stopped(camera, stream) }
}
