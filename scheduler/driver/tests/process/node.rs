//! A scheduler on a thread, with directories of its own, and stand-ins for what is around it.

use base::limits::PROTOCOL_VERSION;
use base::{
    CameraId, ColourMatrix, ColourRange, Epoch, FrameDetections, FrameFlags, FrameInfo, InstanceId,
    LatencyEntry, LatencyTable, MediaTime, Picture, Size, StageTimes,
};
use ipc::clock;
use ipc::desired::DesiredState;
use ipc::directories::Directories;
use ipc::events_message::{EventsMessage, Status};
use ipc::framing::{read_message, write_message};
use ipc::ring::{RingSpec, RingWriter};
use ipc::runner_message::{Encoder, Hello, Prepare, Reply, RunnerMessage};
use ipc::stop::Stop;
use scheduler_driver::{DriverError, Options, Steering, run};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What must come comes sooner.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running scheduler.
pub struct Node {
    _home: tempfile::TempDir,
    pub directories: Directories,
    trigger: Option<UnixStream>,
    thread: Option<JoinHandle<Result<(), DriverError>>>,
}

impl Node {
    pub fn start() -> Node {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let directories = Directories { shm: at("shm"), runtime: at("run"), state: at("state") };
        for path in [&directories.runtime, &directories.state] {
            std::fs::create_dir(path).unwrap();
        }
        let options = Options {
            directories: directories.clone(),
            capacities: vec![],
            usable_share: 0.9,
            steering: Steering::Off,
            trace: None,
        };
        let (trigger, stop) = Stop::pair().unwrap();
        let thread = Some(std::thread::spawn(move || run(options, stop)));
        Node { _home: home, directories, trigger: Some(trigger), thread }
    }

    /// A socket in the runtime directory.
    pub fn listen(&self, path: &Path) -> UnixListener {
        let _ = std::fs::remove_file(path);
        UnixListener::bind(path).unwrap()
    }

    /// A runner's socket of that model on `cpu`.
    pub fn runner(&self, model: &str) -> UnixListener {
        let (model, device) = (model.parse().unwrap(), "cpu".parse().unwrap());
        self.listen(&self.directories.runner_socket(&model, &device))
    }

    /// Serve, where the scheduler finds it.
    pub fn serve(&self) -> Serve {
        Serve(accept(&self.listen(&self.directories.events_socket())))
    }

    /// Writes the desired state: `model` on the camera `front`.
    pub fn desire(&self, epoch: Epoch, revision: u64, model: &str) {
        let json = format!(
            r#"{{"format": 1, "epoch": "{epoch}", "revision": {revision}, "written_utc": "",
                "cameras": [{{"id": "front", "enabled": true, "streams": []}}],
                "subscriptions": [{{"id": "s", "camera": "front", "model": "{model}",
                    "max_fps": null, "enabled": true, "deadline_ms": 5000}}]}}"#
        );
        let state: DesiredState = serde_json::from_str(&json).unwrap();
        state.store(&self.directories.desired()).unwrap();
    }

    /// Stops it as a signal does.
    pub fn stop(&mut self) -> Result<(), DriverError> {
        drop(self.trigger.take());
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.stop();
        }
    }
}

/// The other end of a connection of the scheduler.
pub fn accept(listener: &UnixListener) -> UnixStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub fn send(mut stream: &UnixStream, message: &RunnerMessage) -> io::Result<()> {
    write_message(&mut stream, message.encode(&mut Encoder::default()))
}

/// The next message of the scheduler; `None` = it closed the connection.
pub fn next(mut stream: &UnixStream) -> Option<RunnerMessage> {
    let mut bytes = Vec::new();
    match read_message(&mut stream, &mut bytes) {
        Ok(true) => Some(RunnerMessage::decode(&bytes).unwrap()),
        Ok(false) => None,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{error}"),
    }
}

pub fn hello(model: &str) -> Hello {
    // More than a busy machine takes for nothing: a runner that is slower than it says is put back.
    let (p50, p99) = (Duration::from_millis(50), Duration::from_millis(200));
    let entry = LatencyEntry { batch: 1, p50, p99 };
    Hello {
        protocol: PROTOCOL_VERSION,
        instance: InstanceId(7),
        model_id: model.parse().unwrap(),
        model_version: "1".into(),
        device: "cpu".parse().unwrap(),
        gpu: false,
        input: Size { width: 32, height: 32 },
        batch_max: 1,
        deadline: Duration::from_secs(5),
        labels: vec!["a".into()],
        latency: LatencyTable::new([entry]),
        runtime: "a test".into(),
    }
}

/// A runner that says who it is and was welcomed.
pub fn welcomed(listener: &UnixListener, model: &str) -> UnixStream {
    let stream = accept(listener);
    send(&stream, &RunnerMessage::Hello(hello(model))).unwrap();
    assert!(matches!(next(&stream), Some(RunnerMessage::Welcome(_))));
    stream
}

/// The next batch.
pub fn prepared(stream: &UnixStream) -> Prepare {
    loop {
        match next(stream).expect("the scheduler stays") {
            RunnerMessage::Prepare(prepare) => return prepare,
            RunnerMessage::Revoke { .. } | RunnerMessage::Grant { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Answers a batch that came with the token: nothing was found.
pub fn reply(stream: &UnixStream, prepare: &Prepare) {
    let now = clock::monotonic();
    let times = StageTimes {
        received: now,
        copied: now,
        granted: now,
        preprocessed: now,
        executed: now,
        postprocessed: now,
    };
    let outcomes = prepare.members.iter().map(|_| Ok(FrameDetections::default())).collect();
    let batch = prepare.batch;
    let executed =
        RunnerMessage::Executed { batch, granted: now, preprocessed: now, executed: now };
    send(stream, &executed).unwrap();
    send(stream, &RunnerMessage::Reply(Reply { batch, times, outcomes })).unwrap();
}

/// Serve's end.
pub struct Serve(UnixStream);

impl Serve {
    pub fn next(&mut self) -> EventsMessage {
        let mut bytes = Vec::new();
        assert!(read_message(&mut self.0, &mut bytes).unwrap(), "the scheduler ended");
        EventsMessage::decode(&bytes).unwrap()
    }

    /// The first status that is as wanted.
    pub fn status(&mut self, wanted: impl Fn(&Status) -> bool) -> Status {
        let begun = std::time::Instant::now();
        loop {
            if let EventsMessage::Status(status) = self.next() {
                if wanted(&status) {
                    return status;
                }
                assert!(begun.elapsed() < PATIENCE, "{status:?}");
            }
        }
    }
}

/// The camera `front`: a frame every 20 ms.
pub struct Camera {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Camera {
    pub fn start(shm: &Path) -> Camera {
        let size = Size { width: 32, height: 32 };
        let (matrix, range) = (ColourMatrix::Bt709, ColourRange::Limited);
        let camera: CameraId = "front".parse().unwrap();
        let spec = RingSpec { camera, picture: Picture { size, matrix, range }, slots: 8 };
        let mut writer = RingWriter::create(shm, &spec).unwrap();
        let over = Arc::<AtomicBool>::default();
        let ends = over.clone();
        let thread = std::thread::spawn(move || {
            let mut media = 0;
            while !ends.load(Ordering::Relaxed) {
                media += 1800;
                let now = clock::monotonic();
                writer.begin().publish(&FrameInfo {
                    media: MediaTime(media),
                    capture: now,
                    capture_utc: clock::utc(),
                    decode_start: now,
                    flags: FrameFlags::default(),
                });
                writer.heartbeat();
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        Camera { over, thread: Some(thread) }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
