//! The control server: answers serve over `<runtime>/ingest.sock`.
//!
//! One thread accepts, one per connection answers, both bounded in number and in time: a client
//! that is slow, silent or stopped holds nothing but its own connection. No video passes through
//! here but the cached pictures that [`LiveView`] hands out.

use base::{CameraId, Instant};
use ipc::clock;
use ipc::desired::Version;
use ipc::framing;
use ipc::ingest_message::{Answer, Request, StreamStatus};
use ipc::runner_message::Encoder;
use ipc::stop::Stop;
use rustix::event::{PollFd, PollFlags, poll};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Most connections at a time; others are closed at once (chosen: serve has a few).
const CONNECTIONS: usize = 32;
/// A request has to be whole this long after the answer before (chosen).
const REQUEST: Duration = Duration::from_secs(10);
/// An answer has to be taken within this time (chosen).
const ANSWER: Duration = Duration::from_secs(5);
/// After the process ran out of descriptors or threads, the next attempt (chosen).
const EXHAUSTED: Duration = Duration::from_millis(100);

/// The cameras, as a client may ask for them.
pub trait Cameras: Send + Sync {
    /// How every stream is doing.
    fn status(&self) -> Vec<StreamStatus>;
    /// The desired state that they follow.
    fn desired(&self) -> Version;
    /// Drops the sessions to a camera and connects at once; false when it does not run.
    fn reconnect(&self, camera: &CameraId) -> bool;
}

/// The live view, as a client may ask for it.
pub trait LiveView: Send + Sync {
    /// Answers a viewer's offer. `stream`: empty = the one for live view.
    fn offer(&self, camera: &CameraId, stream: &str, sdp: &str) -> Answer;
    /// Ends a viewer.
    fn close(&self, camera: &CameraId, session: &str) -> Answer;
    /// The newest cached group of pictures.
    fn pictures(&self, camera: &CameraId, stream: &str) -> Answer;
    /// How many watch a stream.
    fn viewers(&self, camera: &CameraId, stream: &str) -> u32;
}

/// What requests are answered from.
pub struct Control {
    /// The cameras.
    pub cameras: Arc<dyn Cameras>,
    /// The live view.
    pub live: Arc<dyn LiveView>,
}

impl Control {
    fn answer(&self, request: Request) -> Answer {
        let live = &*self.live;
        match request {
            Request::Status => {
                let mut streams = self.cameras.status();
                for status in &mut streams {
                    status.viewers = live.viewers(&status.camera, &status.stream);
                }
                Answer { streams, desired: self.cameras.desired(), ..Answer::done() }
            }
            Request::Reconnect { camera } => match self.cameras.reconnect(&camera) {
                true => Answer::done(),
                false => {
                    Answer::failed(404, format!("camera {camera} does not run; enable it first"))
                }
            },
            Request::Offer { camera, stream, sdp } => live.offer(&camera, &stream, &sdp),
            Request::Close { camera, session } => live.close(&camera, &session),
            Request::Pictures { camera, stream } => live.pictures(&camera, &stream),
        }
    }
}

/// A running server.
pub struct Server {
    path: PathBuf,
    thread: JoinHandle<()>,
}

impl Server {
    /// Listens at `path` until `stop`. Whoever calls holds the lock of the instance: what lies
    /// there is a left-over.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn start(path: &Path, control: Control, stop: Stop) -> io::Result<Server> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // The directory is 0700 already: nobody is faster than the next line.
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let control = Arc::new(control);
        let body = move || accept(&listener, &control, &stop);
        let thread = thread::Builder::new().name("control".into()).spawn(body)?;
        Ok(Server { path: path.to_owned(), thread })
    }

    /// After the stop: waits until nobody is let in any more and removes the socket.
    pub fn end(self) {
        // A panic there has been printed.
        let _ = self.thread.join();
        let _ = fs::remove_file(&self.path);
    }
}

fn accept(listener: &UnixListener, control: &Arc<Control>, stop: &Stop) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut fds = [PollFd::new(stop, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        let _ = poll(&mut fds, None);
        if stop.is_set() {
            return;
        }
        match listener.accept() {
            Ok((stream, _)) => serve(stream, control, &open),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if stop.wait(EXHAUSTED) => return,
            Err(_) => {}
        }
    }
}

/// Answers one client on a thread of its own, or not at all when there are too many.
fn serve(stream: UnixStream, control: &Arc<Control>, open: &Arc<AtomicUsize>) {
    let place = Place(Arc::clone(open));
    if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
        // Both are dropped: the client sees the end.
        return;
    }
    let control = Arc::clone(control);
    let body = move || {
        let _place = place;
        // How a conversation ends is the client's affair.
        let _ = converse(&stream, &control);
    };
    // Without a thread the client sees the end as well.
    let _ = thread::Builder::new().name("control-client".into()).spawn(body);
}

/// One of the connections that may be open.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn converse(stream: &UnixStream, control: &Control) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let (mut bytes, mut encoder) = (Vec::new(), Encoder::default());
    loop {
        let mut patient = Patient { stream, until: clock::monotonic() + REQUEST };
        if !framing::read_message(&mut patient, &mut bytes)? {
            return Ok(());
        }
        let request =
            Request::decode(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let answer = control.answer(request);
        let mut patient = Patient { stream, until: clock::monotonic() + ANSWER };
        framing::write_message(&mut patient, answer.encode(&mut encoder))?;
    }
}

/// A stream whose reads and writes are over at one moment, however many there are.
struct Patient<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl Patient<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.since(clock::monotonic());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        let mut stream = self.stream;
        stream.read(buffer)
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        let mut stream = self.stream;
        stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Epoch;
    use ipc::ingest_message::call;

    struct Two;

    impl Cameras for Two {
        fn status(&self) -> Vec<StreamStatus> {
            let stream = |id: &str| StreamStatus::stopped(id.parse().unwrap(), "main");
            vec![stream("a"), stream("b")]
        }

        fn desired(&self) -> Version {
            Version { epoch: Epoch(3), revision: 4 }
        }

        fn reconnect(&self, camera: &CameraId) -> bool {
            camera.as_str() == "a"
        }
    }

    struct Watched;

    impl LiveView for Watched {
        fn offer(&self, camera: &CameraId, stream: &str, sdp: &str) -> Answer {
            Answer { session: format!("{camera}/{stream}/{sdp}"), ..Answer::done() }
        }
        fn close(&self, _: &CameraId, session: &str) -> Answer {
            Answer::failed(404, session)
        }
        fn pictures(&self, _: &CameraId, _: &str) -> Answer {
            Answer { codec: "h264".into(), ..Answer::done() }
        }
        fn viewers(&self, camera: &CameraId, _: &str) -> u32 {
            u32::from(camera.as_str() == "b") * 3
        }
    }

    struct Running {
        server: Server,
        path: PathBuf,
        trigger: UnixStream,
        _root: tempfile::TempDir,
    }

    fn start() -> Running {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("ingest.sock");
        // What a dead one left.
        fs::write(&path, "").unwrap();
        let control = Control { cameras: Arc::new(Two), live: Arc::new(Watched) };
        let (trigger, stop) = Stop::pair().unwrap();
        let server = Server::start(&path, control, stop).unwrap();
        Running { server, path, trigger, _root: root }
    }

    fn ask(path: &Path, request: Request) -> Answer {
        call(path, &request, Duration::from_secs(60)).unwrap()
    }

    fn camera(id: &str) -> CameraId {
        id.parse().unwrap()
    }

    #[test]
    fn requests_are_answered_and_nothing_is_left() {
        let running = start();
        let path = &running.path;
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let streams = ask(path, Request::Status).streams;
        let seen: Vec<_> = streams.iter().map(|s| (s.camera.as_str(), s.viewers)).collect();
        assert_eq!(seen, [("a", 0), ("b", 3)]);
        assert_eq!(ask(path, Request::Reconnect { camera: camera("a") }), Answer::done());
        let unknown = ask(path, Request::Reconnect { camera: camera("c") });
        assert_eq!(unknown.status, 404);
        assert!(unknown.message.contains("camera c does not run"), "{}", unknown.message);
        let (stream, sdp) = ("sub".to_owned(), "v=0".to_owned());
        let offer = Request::Offer { camera: camera("a"), stream: stream.clone(), sdp };
        assert_eq!(ask(path, offer).session, "a/sub/v=0");
        let close = Request::Close { camera: camera("a"), session: "7".into() };
        assert_eq!(ask(path, close).status, 404);
        let pictures = ask(path, Request::Pictures { camera: camera("a"), stream });
        assert_eq!(pictures.codec, "h264");
        drop(running.trigger);
        running.server.end();
        assert!(!running.path.exists());
    }

    #[test]
    fn clients_that_are_silent_slow_or_talk_nonsense_hold_up_nobody() {
        let running = start();
        let path = &running.path;
        let mut silent: Vec<_> =
            (0..CONNECTIONS - 2).map(|_| UnixStream::connect(path).unwrap()).collect();
        // Half a prefix, and a message that is none.
        silent[0].write_all(&[0, 0]).unwrap();
        silent[1].write_all(&[0, 0, 0, 4, 1, 2, 3, 4]).unwrap();
        assert_eq!(silent[1].read(&mut [0; 8]).unwrap(), 0, "closed");
        assert_eq!(ask(path, Request::Status).streams.len(), 2);
        // Too many: the last ones see the end, and those who are answered make room.
        let more: Vec<_> = (0..8).map(|_| UnixStream::connect(path).unwrap()).collect();
        let closed = more.iter().filter(|stream| {
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            matches!((&mut &**stream).read(&mut [0]), Ok(0))
        });
        assert!(closed.count() >= 5);
        drop((silent, more));
        let start = std::time::Instant::now();
        loop {
            match call(path, &Request::Status, Duration::from_secs(60)) {
                Ok(answer) => break assert_eq!(answer.status, 200),
                Err(_) => assert!(start.elapsed() < Duration::from_secs(60)),
            }
        }
    }
}
