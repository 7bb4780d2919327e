//! `events.sock`: takes the scheduler's messages, one scheduler at a time, the newest wins.
//!
//! One thread polls the stop, the listener and the connection. Nothing it does can wait: the live
//! view is a short lock, the commit channel drops what does not fit. A connection that sends what
//! is not a message is closed.

use crate::commit::{Commit, CommitLimits, EventCounters};
use crate::http::events::rounded;
use crate::live::Live;
use crate::publish::KnownCameras;
use base::log_gate::LogGate;
use base::{CameraId, InstanceId, Rect};
use ipc::clock;
use ipc::events_message::{EventsMessage, ResultItem, Results};
use ipc::framing::Reassembly;
use ipc::stop::Stop;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Serialize, Serializer};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::{Json, NewEvent};
use tracing::{info, warn};

/// Bytes per read: several batches of a usual size.
const READ_BYTES: usize = 256 * 1024;
/// Full reads of one connection before the listener is looked at again, so that a flood can't keep a
/// newer scheduler out.
const READS_IN_A_ROW: u32 = 16;

/// While several messages come in so long, they are taken together: waking up costs more than taking one
/// (`result_cost`: a sixth of all CPU per result at 16 cameras, a quarter at 200), and what a commit gathers
/// waits five times as long.
const GATHER: Duration = Duration::from_millis(20);
/// As long as a read brings less than this: what fits the socket's buffer must not fill it.
const GATHER_BYTES: usize = 64 * 1024;

/// Binds the socket, mode 0600. The caller holds the instance lock: what lies there is left over.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Where messages go.
#[derive(Debug)]
pub struct Intake {
    /// The live view.
    pub live: Arc<Live>,
    /// The way into the store.
    pub commit: Commit,
    /// What became of results.
    pub counters: Arc<EventCounters>,
    /// Configured cameras; results of others are dropped.
    pub cameras: Arc<KnownCameras>,
    /// Whether results without detections are stored.
    pub store_empty: bool,
}

/// The intake with nothing behind it, for benchmarks: results are counted and shown as ever, events are
/// dropped where the store would take them.
#[derive(Debug)]
pub struct BareIntake {
    intake: Intake,
    listener: UnixListener,
}

impl BareIntake {
    /// Listens at `path` for results of these cameras.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn bind(path: &Path, cameras: impl IntoIterator<Item = CameraId>) -> io::Result<Self> {
        let counters = Arc::<EventCounters>::default();
        let (commit, _) = Commit::channel(CommitLimits::default(), counters.clone());
        let cameras = Arc::new(KnownCameras::of(cameras.into_iter().collect()));
        let live = Arc::default();
        let intake = Intake { live, commit, counters, cameras, store_empty: false };
        Ok(BareIntake { intake, listener: bind(path)? })
    }

    /// Tells how many results came, and the mean age of those of the last 30 to 60 s.
    pub fn taken(&self) -> impl Fn() -> (u64, Duration) + Send + use<> {
        let live = self.intake.live.clone();
        move || {
            let views = live.subscriptions(clock::monotonic());
            let ages = views.iter().filter_map(|view| {
                Some(view.stage_means?.age().as_secs_f64() * view.window_results as f64)
            });
            let window: u64 = views.iter().map(|view| view.window_results).sum();
            let age = Duration::from_secs_f64(ages.sum::<f64>() / window.max(1) as f64);
            (views.iter().map(|view| view.results).sum(), age)
        }
    }

    /// Takes messages for ever.
    ///
    /// # Errors
    /// When the listener or poll itself fails.
    pub fn run(self) -> io::Result<()> {
        let (_never, stop) = Stop::pair()?;
        self.intake.run(&self.listener, &stop)
    }
}

struct Connection {
    stream: UnixStream,
    reassembly: Reassembly,
}

impl Intake {
    /// Takes messages until `stop`.
    ///
    /// # Errors
    /// When the listener or poll itself fails.
    pub fn run(self, listener: &UnixListener, stop: &Stop) -> io::Result<()> {
        let mut connection: Option<Connection> = None;
        let mut gate = LogGate::default();
        let mut buffer = vec![0; READ_BYTES];
        let mut last = base::Instant::ZERO;
        loop {
            let watched = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
            // Without a connection the listener takes its place, and is asked once only.
            let beside = connection.as_ref().map_or(listener.as_fd(), |c| c.stream.as_fd());
            let mut fds = [stop.as_fd(), listener.as_fd(), beside].map(watched);
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = fds.map(|fd| !fd.revents().is_empty());
            if ready[0] {
                return Ok(());
            }
            if ready[1]
                && let Some(stream) = accept(listener, stop, &mut gate)?
            {
                if connection.is_some() {
                    info!("another scheduler connected, the older connection is closed");
                } else {
                    info!("scheduler connected");
                }
                connection = Some(Connection { stream, reassembly: Reassembly::default() });
                self.live.connected(true);
                continue;
            }
            let Some(open) = connection.as_mut().filter(|_| ready[2]) else { continue };
            match self.read(open, &mut buffer) {
                Ok(Taken { messages, bytes }) => {
                    let now = clock::monotonic();
                    let several = messages > 1 || now - last < GATHER;
                    last = now;
                    if several && bytes < GATHER_BYTES && stop.wait(GATHER) {
                        return Ok(());
                    }
                }
                Err(reason) => {
                    match reason {
                        Closed::End => info!("scheduler disconnected"),
                        Closed::Error(error) => {
                            warn!("connection to the scheduler failed: {error}")
                        }
                        Closed::Malformed(error) => {
                            warn!("closing the connection to the scheduler: {error}");
                            self.live.refused_message();
                        }
                    }
                    connection = None;
                    self.live.connected(false);
                }
            }
        }
    }

    /// Takes what is there.
    fn read(&self, connection: &mut Connection, buffer: &mut [u8]) -> Result<Taken, Closed> {
        let mut taken = Taken::default();
        for _ in 0..READS_IN_A_ROW {
            let got = match connection.stream.read(buffer) {
                Ok(0) => return Err(Closed::End),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Closed::Error(error)),
            };
            taken.bytes += got;
            connection.reassembly.extend(&buffer[..got]);
            loop {
                let message = connection.reassembly.next(EventsMessage::decode);
                match message.map_err(|e| Closed::Malformed(e.to_string()))? {
                    None => break,
                    Some(Ok(message)) => {
                        taken.messages += 1;
                        self.take(message);
                    }
                    Some(Err(error)) => return Err(Closed::Malformed(error.to_string())),
                }
            }
            if got < buffer.len() {
                break;
            }
        }
        Ok(taken)
    }

    fn take(&self, message: EventsMessage) {
        let now = clock::monotonic();
        match message {
            EventsMessage::Results(results) => {
                self.live.results(now, &results);
                self.store(results);
            }
            EventsMessage::Status(status) => self.live.status(now, status),
            EventsMessage::Models { models, .. } => self.live.models(now, models),
        }
    }

    fn store(&self, results: Results) {
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let Results { instance, model_id, model_version, device, batch, results } = results;
        let cameras = self.cameras.get();
        for item in results {
            let ResultItem { camera, outcome, .. } = item;
            let detections = match outcome {
                Err(_) => {
                    add(&self.counters.errors);
                    continue;
                }
                Ok(found) if found.detections.is_empty() && !self.store_empty => {
                    add(&self.counters.empty);
                    continue;
                }
                Ok(found) => found,
            };
            if !cameras.contains(&camera) {
                add(&self.counters.unknown_camera);
                continue;
            }
            let Rect { x1, y1, x2, y2 } = item.region;
            let region = (item.region != Rect::WHOLE).then(|| [x1, y1, x2, y2].map(rounded));
            // Sequences count per life of the scheduler: only with it they name a result.
            let metadata = Metadata {
                batch: Text(batch),
                parent: (item.parent != 0).then_some(Text(item.parent)),
                region,
                scheduler: Text(instance),
                sequence: Text(item.sequence),
                subscription: &item.subscription,
            };
            self.commit.offer(NewEvent {
                camera,
                model: model_id.clone(),
                model_version: model_version.clone(),
                device: device.clone(),
                capture_utc: item.capture_utc,
                generation: item.generation,
                frame_id: item.frame_id,
                media: item.media,
                frame: item.size,
                detections,
                stages: item.stages,
                metadata: Json::of(&metadata).ok(),
            });
        }
    }
}

/// What names the result that an event comes from (docs/http.md).
#[derive(Serialize)]
struct Metadata<'a> {
    batch: Text<u64>,
    parent: Option<Text<u64>>,
    region: Option<[f64; 4]>,
    scheduler: Text<InstanceId>,
    sequence: Text<u64>,
    subscription: &'a str,
}

/// Written as a string: a number in JSON has 53 bits.
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// What reading brought.
#[derive(Default)]
struct Taken {
    messages: usize,
    bytes: usize,
}

enum Closed {
    End,
    Error(io::Error),
    Malformed(String),
}

fn accept(
    listener: &UnixListener,
    stop: &Stop,
    gate: &mut LogGate,
) -> io::Result<Option<UnixStream>> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(true)?;
            Ok(Some(stream))
        }
        // The peer went away, or descriptors ran out: a pause keeps this from spinning.
        Err(error) => {
            if error.kind() != io::ErrorKind::WouldBlock {
                let line = format!("can't accept a scheduler: {error}");
                if gate.allows(&line, clock::monotonic()) {
                    warn!("{line}");
                }
                stop.wait(Duration::from_millis(100));
            }
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use ipc::framing::write_message;
    use ipc::runner_message::Encoder;
    use std::sync::mpsc;
    use std::time::Instant;

    /// How often a thread of this process went to sleep.
    fn sleeps(thread: i32) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    }

    #[test]
    fn many_messages_wake_it_seldom_and_each_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.sock");
        let intake = BareIntake::bind(&path, [testing::item(1, &[]).camera]).unwrap();
        let taken = intake.taken();
        let BareIntake { intake, listener } = intake;
        let (trigger, stop) = Stop::pair().unwrap();
        let (send, thread) = mpsc::channel();
        let running = std::thread::spawn(move || {
            send.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            intake.run(&listener, &stop)
        });
        let thread = thread.recv().unwrap();
        let mut stream = UnixStream::connect(&path).unwrap();
        let mut encoder = Encoder::default();
        let begun = Instant::now();
        for frame in 1..=300 {
            let results = testing::results(&[testing::item(frame, &[0])]);
            write_message(&mut stream, EventsMessage::Results(results).encode(&mut encoder))
                .unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        while taken().0 < 300 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", taken());
            std::thread::yield_now();
        }
        // Twice for each that was gathered, and to begin with.
        let most = 10 + 2 * (begun.elapsed().as_millis() / GATHER.as_millis()) as u64;
        assert!(sleeps(thread) <= most, "{} times, at most {most}", sleeps(thread));
        drop(trigger);
        running.join().unwrap().unwrap();
    }
}
