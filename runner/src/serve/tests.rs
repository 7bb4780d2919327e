//! A scheduler talks to a runner over its socket, with real rings and a small engine whose steps
//! the test controls.

use super::*;
use crate::engine::{EngineInfo, Finished, Frame, SyntheticEngine, Ticket};
use crate::options::EngineOptions;
use crate::test_model;
use base::limits::PROTOCOL_VERSION;
use base::model::Synthetic;
use base::{CameraId, ColourMatrix, ColourRange, FrameFlags, FrameInfo, Generation};
use base::{FrameId, MediaTime, MemberError, Picture, Rect, Size, UtcNanos};
use ipc::directories::Directories;
use ipc::framing::{read_message, write_message};
use ipc::ring::{RingSpec, RingWriter};
use ipc::runner_message::{
    Encoder, Hello, Member, ParameterSet, Prepare, Reply, RunnerMessage, Welcome,
};
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: Option<Duration> = Some(Duration::from_secs(1));

/// Luma values that make the engine fail.
const FAILS: u8 = 13;
const PANICS: u8 = 14;
/// The engine panics when it is to take it.
const UNPREPARED: u8 = 15;

/// The synthetic engine, that answers at once with one box per member, class 0, score = luma of the
/// first pixel / 255; and what a test wants of it besides.
struct StubEngine {
    inner: SyntheticEngine,
    /// When set, each batch waits here; said before it waits.
    gate: Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>,
    /// What each member of a batch seems to take.
    per_member: Duration,
    /// Larger batches fail.
    members_max: usize,
    /// Batches that were submitted.
    runs: u32,
    /// The last of them was told of, and was let go.
    begun: bool,
    goes: bool,
    /// What the slots hold: the luma of the first pixels.
    slots: [Vec<u8>; 2],
    /// How many different pictures the last batch held, and how many batches were prepared.
    pictures: Arc<AtomicUsize>,
    prepared: Arc<AtomicUsize>,
}

impl StubEngine {
    /// Synchronous, as on a CPU.
    fn new() -> StubEngine {
        StubEngine::of(&test_model::synthetic())
    }

    /// Asynchronous, as on a GPU.
    fn asynchronous() -> StubEngine {
        StubEngine::of(&Synthetic { gpu: true, ..test_model::synthetic() })
    }

    fn of(synthetic: &Synthetic) -> StubEngine {
        StubEngine {
            inner: SyntheticEngine::new(&test_model::spec(), synthetic),
            gate: None,
            per_member: Duration::ZERO,
            members_max: usize::MAX,
            runs: 0,
            begun: false,
            goes: false,
            slots: Default::default(),
            pictures: Arc::default(),
            prepared: Arc::default(),
        }
    }

    /// The asynchronous engine, what it says when a batch begins, and what lets the batch end. The first
    /// run is not gated and the second is let through: they are the warm-up.
    fn gated() -> (StubEngine, mpsc::Receiver<()>, mpsc::Sender<()>) {
        StubEngine::asynchronous().with_gate()
    }

    fn with_gate(self) -> (StubEngine, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (begun, begins) = mpsc::channel();
        let (go, goes) = mpsc::channel();
        go.send(()).unwrap();
        (StubEngine { gate: Some((begun, goes)), ..self }, begins, go)
    }

    /// Whether the batch that runs may end.
    fn passes(&mut self, patience: Duration) -> bool {
        let (Some((begun, goes)), 2..) = (&self.gate, self.runs) else { return true };
        if !std::mem::replace(&mut self.begun, true) {
            let _ = begun.send(());
        }
        self.goes = self.goes || goes.recv_timeout(patience).is_ok();
        self.goes
    }

    fn seeming(&self, mut finished: Finished) -> Finished {
        finished.executed += self.per_member * finished.frames.len() as u32;
        finished
    }
}

impl Engine for StubEngine {
    fn info(&self) -> &EngineInfo {
        self.inner.info()
    }
    fn slots(&self) -> usize {
        self.inner.slots()
    }
    fn synchronous(&self) -> bool {
        self.inner.synchronous()
    }
    fn prepare(&mut self, slot: usize, frames: Vec<Frame>) -> Result<(), EngineError> {
        let pictures: BTreeSet<_> = frames.iter().map(|f| Arc::as_ptr(&f.pixels)).collect();
        self.pictures.store(pictures.len(), Ordering::SeqCst);
        self.prepared.fetch_add(1, Ordering::SeqCst);
        self.slots[slot] = frames.iter().map(|f| f.pixels[0]).collect();
        assert!(!self.slots[slot].contains(&UNPREPARED), "asked to");
        self.inner.prepare(slot, frames)
    }
    fn submit(&mut self, slot: usize) -> Result<Ticket, EngineError> {
        let first = std::mem::take(&mut self.slots[slot]);
        (self.runs, self.begun, self.goes) = (self.runs + 1, false, false);
        if first.contains(&FAILS) || first.len() > self.members_max {
            return Err(EngineError::Run { members: first.len(), why: "asked to".into() });
        }
        assert!(!first.contains(&PANICS), "asked to");
        assert!(!self.synchronous() || self.passes(PATIENCE), "nobody lets it go");
        self.inner.submit(slot)
    }
    fn poll(&mut self, ticket: &Ticket) -> Result<Option<Finished>, EngineError> {
        if !self.passes(Duration::ZERO) {
            return Ok(None);
        }
        Ok(self.inner.poll(ticket)?.map(|finished| self.seeming(finished)))
    }
    fn wait(&mut self, ticket: Ticket) -> Result<Finished, EngineError> {
        assert!(self.passes(PATIENCE), "nobody lets it go");
        let finished = self.inner.wait(ticket)?;
        Ok(self.seeming(finished))
    }
}

/// A runner on a thread, with directories of its own.
struct Node {
    dir: tempfile::TempDir,
    options: Options,
    spec: ModelSpec,
    running: Option<(UnixStream, JoinHandle<Result<(), RunnerError>>)>,
}

impl Node {
    fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let directories = Directories {
            shm: dir.path().join("shm"),
            runtime: dir.path().join("run"),
            state: dir.path().join("state"),
        };
        let options = Options {
            model_dir: dir.path().join("model"),
            device: "cpu".parse().unwrap(),
            policy: DevicePolicy::Auto,
            directories,
            engine: EngineOptions {
                onnxruntime: None,
                cache_dir: dir.path().join("cache"),
                threads: 1,
            },
        };
        let weights = dir.path().join("tiny.onnx");
        std::fs::write(&weights, "weights").unwrap();
        let spec = ModelSpec { weights, ..test_model::spec() };
        Node { dir, options, spec, running: None }
    }

    fn with(engine: StubEngine) -> Node {
        let mut node = Node::new();
        node.start(engine);
        node
    }

    fn start(&mut self, engine: StubEngine) {
        let (trigger, stop) = Stop::pair().unwrap();
        let (options, spec) = (self.options.clone(), self.spec.clone());
        let run = move || serve_with(&options, &spec, &stop, || Ok(Box::new(engine)));
        self.running = Some((trigger, std::thread::spawn(run)));
    }

    fn socket(&self) -> PathBuf {
        self.options.directories.runner_socket(&self.spec.model_id, &self.options.device)
    }

    /// A connection that has read Hello.
    fn connect(&self) -> Scheduler {
        let deadline = std::time::Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => break stream,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
            std::thread::yield_now();
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut scheduler = Scheduler { stream, hello: None };
        let RunnerMessage::Hello(hello) = scheduler.next() else { panic!("not Hello") };
        scheduler.hello = Some(hello);
        scheduler
    }

    /// A connection that is the active one, with the measurements done.
    fn scheduler(&self) -> Scheduler {
        let mut scheduler = self.connect();
        scheduler.welcome();
        if scheduler.hello().latency.is_empty() {
            scheduler.profile();
        }
        scheduler
    }

    fn stop(&mut self) -> Result<(), RunnerError> {
        let (trigger, thread) = self.running.take().unwrap();
        drop(trigger);
        thread.join().unwrap()
    }

    fn camera(&self, name: &str) -> Camera {
        let camera: CameraId = name.parse().unwrap();
        let picture = Picture {
            size: Size { width: 32, height: 16 },
            matrix: ColourMatrix::Bt601,
            range: ColourRange::Limited,
        };
        let spec = RingSpec { camera: camera.clone(), picture, slots: 8 };
        let writer = RingWriter::create(&self.options.directories.shm, &spec).unwrap();
        Camera { camera, writer, shm: self.options.directories.shm.clone() }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.running.is_some() && !std::thread::panicking() {
            self.stop().unwrap();
            assert_eq!(names(&self.options.directories.runtime), [""; 0]);
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

struct Camera {
    camera: CameraId,
    writer: RingWriter,
    shm: PathBuf,
}

impl Camera {
    /// Publishes a frame of this luma.
    fn frame(&mut self, luma: u8) -> Member {
        let mut slot = self.writer.begin();
        slot.luma().fill(luma);
        slot.chroma().fill(128);
        let now = ipc::clock::monotonic();
        let frame_id = slot.publish(&FrameInfo {
            media: MediaTime(1),
            capture: now,
            capture_utc: UtcNanos(1),
            decode_start: now,
            flags: FrameFlags::default(),
        });
        let generation = self.writer.generation();
        let mut reader = ipc::ring::RingReader::new(&self.shm, &self.camera);
        let base::Newest::Frame(stamp) = reader.newest(now) else { panic!("no frame") };
        assert_eq!((stamp.generation, stamp.frame_id), (generation, frame_id));
        Member {
            camera: 0,
            generation,
            frame_id,
            slot: stamp.slot,
            region: Rect::WHOLE,
            parent: 0,
            parameters: None,
        }
    }
}

struct Scheduler {
    stream: UnixStream,
    hello: Option<Hello>,
}

impl Scheduler {
    fn hello(&self) -> &Hello {
        self.hello.as_ref().unwrap()
    }

    fn send(&mut self, message: &RunnerMessage) {
        write_message(&mut self.stream, message.encode(&mut Encoder::default())).unwrap();
    }

    fn welcome(&mut self) {
        let instance = InstanceId(7);
        self.send(&RunnerMessage::Welcome(Welcome { protocol: PROTOCOL_VERSION, instance }));
    }

    /// The next message; `None` = the runner closed.
    fn receive(&mut self) -> Option<RunnerMessage> {
        let mut bytes = Vec::new();
        match read_message(&mut self.stream, &mut bytes) {
            Ok(true) => Some(RunnerMessage::decode(&bytes).unwrap()),
            Ok(false) => None,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn next(&mut self) -> RunnerMessage {
        self.receive().expect("the runner closed")
    }

    fn closed(&mut self) {
        assert_eq!(self.receive(), None);
    }

    /// Grants what the runner asks to measure.
    fn profile(&mut self) {
        let RunnerMessage::ProfileRequest { sizes } = self.next() else { panic!("no request") };
        for batch_size in sizes {
            let lease = Duration::from_millis(100);
            self.send(&RunnerMessage::ProfileGrant { batch_size, lease });
            let RunnerMessage::ProfileDone { batch_size: done, samples } = self.next() else {
                panic!("not done")
            };
            assert_eq!(done, batch_size);
            assert!(!samples.is_empty());
        }
        assert!(matches!(self.next(), RunnerMessage::Table(_)));
    }

    fn prepare(
        &mut self,
        batch: u64,
        camera: &Camera,
        members: &[Member],
        lease: Option<Duration>,
    ) {
        self.send(&prepare(batch, camera, members, lease));
    }

    fn grant(&mut self, batch: u64) {
        self.send(&RunnerMessage::Grant { batch, lease: LEASE.unwrap() });
    }

    fn prepared(&mut self, batch: u64) {
        let message = self.next();
        let RunnerMessage::Prepared { batch: is, received, copied } = message else {
            panic!("{message:?}")
        };
        assert_eq!(is, batch);
        assert!(received <= copied);
    }

    fn reply(&mut self, batch: u64) -> Reply {
        let message = self.next();
        let RunnerMessage::Reply(reply) = message else { panic!("{message:?}") };
        assert_eq!(reply.batch, batch);
        assert!(reply.times.ordered(), "{:?}", reply.times);
        reply
    }
}

fn prepare(
    batch: u64,
    camera: &Camera,
    members: &[Member],
    lease: Option<Duration>,
) -> RunnerMessage {
    RunnerMessage::Prepare(Prepare {
        batch,
        cameras: vec![camera.camera.clone()],
        members: members.to_vec(),
        parameters: vec![],
        lease,
    })
}

/// Score of the one box of each member, or its error.
fn scores(reply: &Reply) -> Vec<Result<u8, MemberError>> {
    let score = |found: &base::FrameDetections| match found.detections.as_slice() {
        [] => 0,
        [one] => (one.score * 255.0).round() as u8,
        _ => panic!("{found:?}"),
    };
    reply.outcomes.iter().map(|o| o.as_ref().map(score).map_err(|e| *e)).collect()
}

#[test]
fn hello_says_who_it_is_and_the_socket_is_private() {
    let node = Node::with(StubEngine::new());
    let scheduler = node.connect();
    let hello = scheduler.hello();
    assert_eq!(hello.protocol, PROTOCOL_VERSION);
    assert_eq!((hello.model_id.as_str(), hello.device.as_str()), ("tiny", "cpu"));
    assert_eq!((hello.batch_max, hello.gpu), (4, false));
    assert_eq!(hello.labels, ["a", "b", "c"]);
    assert!(hello.runtime.starts_with("synthetic, as on a cpu"), "{}", hello.runtime);
    let mode = std::fs::metadata(node.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mode = node.options.directories.runtime.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // Another connection is another Hello of the same life.
    assert_eq!(node.connect().hello().instance, hello.instance);
}

#[test]
fn the_light_path_is_two_messages() {
    the_light_path_of(StubEngine::new());
    the_light_path_of(StubEngine::asynchronous());
}

fn the_light_path_of(engine: StubEngine) {
    let node = Node::with(engine);
    let mut camera = node.camera("front");
    let mut scheduler = node.scheduler();
    for batch in 1..50 {
        let members = [camera.frame(200), camera.frame(250), camera.frame(100)];
        let sent = ipc::clock::monotonic();
        scheduler.prepare(batch, &camera, &members, LEASE);
        let reply = scheduler.reply(batch);
        assert_eq!(
            scores(&reply),
            [Ok(200), Ok(250), Ok(0)],
            "below the threshold = found nothing"
        );
        assert!(reply.times.received >= sent);
        assert_eq!(reply.times.granted, reply.times.copied);
        let found = reply.outcomes[0].as_ref().unwrap();
        assert_eq!(found.detections[0].bbox, Rect::WHOLE);
    }
}

#[test]
fn the_two_step_path_answers_each_step() {
    let (engine, begun, go) = StubEngine::gated();
    let mut node = Node::new();
    node.spec.batch_max = 1;
    node.start(engine);
    let mut camera = node.camera("front");
    begun.recv_timeout(PATIENCE).unwrap();
    for _ in 0..100 {
        go.send(()).unwrap();
    }
    let mut scheduler = node.scheduler();
    // One executes, one is prepared: both are held at once.
    let (one, two) = (camera.frame(200), camera.frame(210));
    scheduler.prepare(1, &camera, &[one], None);
    scheduler.prepared(1);
    scheduler.prepare(2, &camera, &[two], None);
    scheduler.prepared(2);
    for (batch, score) in [(1, 200), (2, 210)] {
        let before = ipc::clock::monotonic();
        scheduler.grant(batch);
        let message = scheduler.next();
        let RunnerMessage::Executed { batch: is, granted, preprocessed, executed } = message else {
            panic!("{message:?}")
        };
        assert_eq!(is, batch);
        let reply = scheduler.reply(batch);
        assert_eq!(scores(&reply), [Ok(score)]);
        let times = reply.times;
        assert_eq!(
            (times.granted, times.preprocessed, times.executed),
            (granted, preprocessed, executed)
        );
        assert!(before <= granted);
    }
}

#[test]
fn the_next_batch_is_with_the_engine_before_its_grant() {
    let (engine, begun, go) = StubEngine::gated();
    let prepared = Arc::clone(&engine.prepared);
    let mut node = Node::new();
    node.start(engine);
    begun.recv_timeout(PATIENCE).unwrap();
    let mut camera = node.camera("front");
    let mut scheduler = node.connect();
    scheduler.welcome();
    assert!(matches!(scheduler.next(), RunnerMessage::ProfileRequest { .. }));
    let frames = [200, 210, 220, UNPREPARED].map(|luma| camera.frame(luma));
    let before = prepared.load(Ordering::SeqCst);
    scheduler.prepare(1, &camera, &frames[..1], None);
    scheduler.prepared(1);
    assert_eq!(prepared.load(Ordering::SeqCst), before + 1, "Prepared says so");
    scheduler.grant(1);
    begun.recv_timeout(PATIENCE).unwrap();
    // While it executes the next one goes into the other slot, is taken back, and makes room.
    scheduler.prepare(2, &camera, &frames[1..2], None);
    scheduler.prepared(2);
    scheduler.send(&RunnerMessage::Revoke { batch: 2 });
    scheduler.prepare(3, &camera, &frames[2..3], None);
    scheduler.prepared(3);
    assert_eq!(prepared.load(Ordering::SeqCst), before + 3);
    scheduler.grant(3);
    go.send(()).unwrap();
    assert!(matches!(scheduler.next(), RunnerMessage::Executed { batch: 1, .. }));
    assert_eq!(scores(&scheduler.reply(1)), [Ok(200)]);
    begun.recv_timeout(PATIENCE).unwrap();
    assert_eq!(prepared.load(Ordering::SeqCst), before + 3, "it was there");
    // What the engine does not take is answered without a token.
    scheduler.prepare(4, &camera, &frames[3..], None);
    assert_eq!(scores(&scheduler.reply(4)), [Err(MemberError::Engine)]);
    go.send(()).unwrap();
    assert!(matches!(scheduler.next(), RunnerMessage::Executed { batch: 3, .. }));
    assert_eq!(scores(&scheduler.reply(3)), [Ok(220)]);
}

#[test]
fn a_revoked_batch_is_forgotten() {
    a_revoked_batch_of(StubEngine::new());
    a_revoked_batch_of(StubEngine::asynchronous());
}

fn a_revoked_batch_of(engine: StubEngine) {
    let node = Node::with(engine);
    let mut camera = node.camera("front");
    let mut scheduler = node.scheduler();
    for batch in 1..10 {
        let member = camera.frame(200);
        scheduler.prepare(batch, &camera, &[member], None);
        scheduler.prepared(batch);
        scheduler.send(&RunnerMessage::Revoke { batch });
    }
    // Neither it nor a batch that never was takes a grant or a revoke.
    scheduler.grant(9);
    scheduler.send(&RunnerMessage::Revoke { batch: 77 });
    let member = camera.frame(220);
    scheduler.prepare(10, &camera, &[member], LEASE);
    assert_eq!(scores(&scheduler.reply(10)), [Ok(220)]);
}

#[test]
fn a_third_batch_is_refused_and_the_two_go_on() {
    let (engine, begun, go) = StubEngine::gated();
    let mut node = Node::new();
    node.start(engine);
    begun.recv_timeout(PATIENCE).unwrap();
    let mut camera = node.camera("front");
    let mut scheduler = node.connect();
    scheduler.welcome();
    assert!(matches!(scheduler.next(), RunnerMessage::ProfileRequest { .. }));
    let frames = [camera.frame(200), camera.frame(210), camera.frame(220), camera.frame(230)];
    scheduler.prepare(1, &camera, &frames[..1], LEASE);
    begun.recv_timeout(PATIENCE).unwrap();
    scheduler.prepare(2, &camera, &frames[1..2], None);
    scheduler.prepared(2);
    scheduler.prepare(3, &camera, &frames[2..3], None);
    assert_eq!(scores(&scheduler.reply(3)), [Err(MemberError::Request)]);
    go.send(()).unwrap();
    assert_eq!(scores(&scheduler.reply(1)), [Ok(200)]);
    scheduler.grant(2);
    begun.recv_timeout(PATIENCE).unwrap();
    // The granted one executes: there is room for one again.
    scheduler.prepare(4, &camera, &frames[3..], None);
    scheduler.prepared(4);
    go.send(()).unwrap();
    assert!(matches!(scheduler.next(), RunnerMessage::Executed { batch: 2, .. }));
    assert_eq!(scores(&scheduler.reply(2)), [Ok(210)]);
    // So is one that is larger than the model takes.
    let many = vec![frames[3]; 5];
    scheduler.prepare(5, &camera, &many, LEASE);
    assert_eq!(scores(&scheduler.reply(5)), [Err(MemberError::Request); 5]);
}

#[test]
fn a_member_that_fails_is_typed_and_the_rest_goes_on() {
    let node = Node::with(StubEngine::new());
    let mut camera = node.camera("front");
    let mut scheduler = node.scheduler();
    let old = camera.frame(150);
    for _ in 0..8 {
        camera.frame(1);
    }
    let good = camera.frame(200);
    let region = Rect { x1: 0.5, y1: 0.5, x2: 0.501, y2: 0.501 };
    scheduler.prepare(
        1,
        &camera,
        &[old, good, Member { region, ..good }, Member { slot: good.slot ^ 1, ..good }],
        LEASE,
    );
    let error = Err;
    assert_eq!(
        scores(&scheduler.reply(1)),
        [
            error(MemberError::Torn),
            Ok(200),
            error(MemberError::Request),
            error(MemberError::Request)
        ]
    );
    // Only failures: the answer needs no token, on either path.
    scheduler.prepare(2, &camera, &[old], None);
    assert_eq!(scores(&scheduler.reply(2)), [Err(MemberError::Torn)]);
    let other = Member { generation: Generation(good.generation.0 + 1), ..good };
    scheduler.prepare(3, &camera, &[other, Member { frame_id: FrameId(999), ..good }], LEASE);
    let reply = scores(&scheduler.reply(3));
    assert_eq!(reply[0], Err(MemberError::Frame));
    assert!(reply[1].is_err());

    let nobody = Camera { camera: "nobody".parse().unwrap(), ..node.camera("other") };
    scheduler.prepare(4, &nobody, &[good], LEASE);
    assert_eq!(scores(&scheduler.reply(4)), [Err(MemberError::Frame)]);
    scheduler.prepare(5, &camera, &[good], LEASE);
    assert_eq!(scores(&scheduler.reply(5)), [Ok(200)]);
}

#[test]
fn regions_of_a_frame_share_its_copy_and_answer_for_their_own_part() {
    let engine = StubEngine::new();
    let pictures = Arc::clone(&engine.pictures);
    let node = Node::with(engine);
    let mut camera = node.camera("front");
    let mut scheduler = node.scheduler();
    let rect = |x1, y1, x2, y2| Rect { x1, y1, x2, y2 };
    let regions = [rect(0.25, 0.0, 0.5, 1.0), rect(0.5, 0.5, 1.0, 0.75), rect(0.1, 0.3, 0.37, 0.9)];
    // The stub finds one object that fills its input: the region, also from odd edges.
    for batch in 1..20 {
        let (first, second) = (camera.frame(200), camera.frame(210));
        let of = |frame: Member, region| Member { region, parent: 9, ..frame };
        let members = [
            of(first, regions[0]),
            of(second, regions[1]),
            of(first, regions[1]),
            of(first, regions[2]),
        ];
        scheduler.prepare(batch, &camera, &members, LEASE);
        let reply = scheduler.reply(batch);
        assert_eq!(scores(&reply), [Ok(200), Ok(210), Ok(200), Ok(200)]);
        let boxes: Vec<Rect> =
            reply.outcomes.iter().map(|o| o.as_ref().unwrap().detections[0].bbox).collect();
        assert_eq!(boxes, members.map(|m| m.region));
        assert_eq!(pictures.load(Ordering::SeqCst), 2);
    }
}

#[test]
fn regions_that_show_nothing_are_refused_before_the_token() {
    let node = Node::with(StubEngine::new());
    let mut camera = node.camera("front");
    let mut scheduler = node.scheduler();
    let frame = camera.frame(200);
    let at = |x1, y1, x2, y2| Member { region: Rect { x1, y1, x2, y2 }, ..frame };
    // Of 32x16 pixels: nothing, a line, half a pixel, and one whole pixel.
    let none = [at(0.5, 0.5, 0.5, 0.5), at(0.0, 0.5, 1.0, 0.5), at(0.5, 0.5, 0.515, 1.0)];
    let pixel = at(0.5, 0.5, 0.53125, 0.5625);
    // Without a grant: what has no pixels needs no token.
    scheduler.prepare(1, &camera, &none, None);
    assert_eq!(scores(&scheduler.reply(1)), [Err(MemberError::Request); 3]);
    scheduler.prepare(2, &camera, &[none[0], pixel, frame], LEASE);
    assert_eq!(scores(&scheduler.reply(2)), [Err(MemberError::Request), Ok(200), Ok(200)]);
}

#[test]
fn parameters_apply_per_member() {
    let node = Node::with(StubEngine::new());
    let mut camera = node.camera("front");
    let mut scheduler = node.scheduler();
    let frame = camera.frame(200);
    let set = |json: &str| ParameterSet { id: "x".into(), json: json.into() };
    let member = |parameters| Member { parameters, ..frame };
    scheduler.send(&RunnerMessage::Prepare(Prepare {
        batch: 1,
        cameras: vec![camera.camera.clone()],
        members: vec![member(Some(0)), member(Some(1)), member(None)],
        parameters: vec![set(r#"{"confidence_threshold":0.9}"#), set(r#"{"confidnce":1}"#)],
        lease: LEASE,
    }));
    let reply = scheduler.reply(1);
    assert_eq!(scores(&reply), [Ok(0), Err(MemberError::Parameters), Ok(200)]);
}

#[test]
fn an_engine_that_fails_or_panics_is_a_typed_error() {
    fails_or_panics(StubEngine::new());
    fails_or_panics(StubEngine::asynchronous());
}

fn fails_or_panics(engine: StubEngine) {
    let node = Node::with(engine);
    let mut camera = node.camera("front");
    let mut scheduler = node.scheduler();
    for (batch, luma) in [(1, FAILS), (2, PANICS), (3, PANICS)] {
        let members = [camera.frame(200), camera.frame(luma)];
        scheduler.prepare(batch, &camera, &members, LEASE);
        assert_eq!(scores(&scheduler.reply(batch)), [Err(MemberError::Engine); 2]);
    }
    let member = camera.frame(200);
    scheduler.prepare(4, &camera, &[member], LEASE);
    assert_eq!(scores(&scheduler.reply(4)), [Ok(200)]);
}

#[test]
fn garbage_closes_its_own_connection_only() {
    let node = Node::with(StubEngine::new());
    let mut camera = node.camera("front");
    let mut scheduler = node.scheduler();
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0, 0, 0, 0],
        &[0xff; 4096],
    ];
    for bytes in garbage {
        let mut stranger = node.connect();
        stranger.stream.write_all(bytes).unwrap();
        stranger.closed();
    }
    // A stranger that says something valid but not Welcome, or another protocol.
    let mut stranger = node.connect();
    stranger.send(&RunnerMessage::Revoke { batch: 1 });
    stranger.closed();
    let mut stranger = node.connect();
    let welcome = Welcome { protocol: PROTOCOL_VERSION + 1, instance: InstanceId(3) };
    stranger.send(&RunnerMessage::Welcome(welcome));
    stranger.closed();
    // Many that say nothing push out each other, not the active one.
    let _silent: Vec<Scheduler> = (0..10).map(|_| node.connect()).collect();
    let member = camera.frame(200);
    scheduler.prepare(1, &camera, &[member], LEASE);
    assert_eq!(scores(&scheduler.reply(1)), [Ok(200)]);

    // The active one is closed for the same, and a new one is served.
    for bytes in garbage {
        scheduler.stream.write_all(bytes).unwrap();
        scheduler.closed();
        scheduler = node.scheduler();
    }
    scheduler.send(&RunnerMessage::ProfileDone { batch_size: 1, samples: vec![] });
    scheduler.closed();
    let mut scheduler = node.scheduler();
    scheduler.send(&RunnerMessage::ProfileGrant { batch_size: 99, lease: LEASE.unwrap() });
    scheduler.closed();
    let mut scheduler = node.scheduler();
    scheduler.prepare(7, &camera, &[member], LEASE);
    scheduler.reply(7);
    scheduler.prepare(7, &camera, &[member], LEASE);
    scheduler.closed();
}

#[test]
fn a_new_scheduler_replaces_the_old_one() {
    let (engine, begun, go) = StubEngine::gated();
    let mut node = Node::new();
    node.start(engine);
    begun.recv_timeout(PATIENCE).unwrap();
    let mut camera = node.camera("front");
    let frames = [camera.frame(200), camera.frame(210), camera.frame(220)];
    let mut old = node.connect();
    old.welcome();
    assert!(matches!(old.next(), RunnerMessage::ProfileRequest { .. }));
    old.prepare(1, &camera, &frames[..1], LEASE);
    begun.recv_timeout(PATIENCE).unwrap();
    old.prepare(2, &camera, &frames[1..2], None);
    old.prepared(2);

    let mut new = node.connect();
    new.welcome();
    assert!(matches!(new.next(), RunnerMessage::ProfileRequest { .. }));
    old.closed();
    // Ids are per connection; what the old one prepared is forgotten, what it runs is discarded.
    new.grant(2);
    new.prepare(1, &camera, &frames[2..], None);
    new.prepared(1);
    go.send(()).unwrap();
    go.send(()).unwrap();
    new.grant(1);
    assert!(matches!(new.next(), RunnerMessage::Executed { batch: 1, .. }));
    assert_eq!(scores(&new.reply(1)), [Ok(220)]);
}

#[test]
fn latencies_are_measured_under_grants_and_kept() {
    let mut node = Node::with(StubEngine::new());
    let mut scheduler = node.connect();
    assert!(scheduler.hello().latency.is_empty());
    scheduler.welcome();
    let message = scheduler.next();
    assert_eq!(message, RunnerMessage::ProfileRequest { sizes: vec![1, 2, 4] });
    let lease = Duration::from_secs(5);
    scheduler.send(&RunnerMessage::ProfileGrant { batch_size: 2, lease });
    let message = scheduler.next();
    let RunnerMessage::ProfileDone { batch_size: 2, samples } = message else {
        panic!("{message:?}")
    };
    assert!(samples.len() >= 7, "{samples:?}");
    // A lease that is over at once still brings a sample.
    let lease = Duration::from_nanos(1);
    scheduler.send(&RunnerMessage::ProfileGrant { batch_size: 1, lease });
    let message = scheduler.next();
    let RunnerMessage::ProfileDone { batch_size: 1, samples } = message else {
        panic!("{message:?}")
    };
    assert_eq!(samples.len(), 1);

    // What was measured survives the connection.
    let mut scheduler = node.connect();
    scheduler.welcome();
    assert_eq!(scheduler.next(), RunnerMessage::ProfileRequest { sizes: vec![4] });
    scheduler.send(&RunnerMessage::ProfileGrant { batch_size: 4, lease: LEASE.unwrap() });
    assert!(matches!(scheduler.next(), RunnerMessage::ProfileDone { batch_size: 4, .. }));
    let RunnerMessage::Table(table) = scheduler.next() else { panic!("no table") };
    let sizes: Vec<u32> = table.entries().iter().map(|e| e.batch).collect();
    assert_eq!(sizes, [1, 2, 4]);

    // And the process: Hello carries it, nothing is asked for.
    node.stop().unwrap();
    assert_eq!(names(&node.options.engine.cache_dir.join(FOLDER)).len(), 1);
    node.start(StubEngine::new());
    let mut camera = node.camera("front");
    let mut scheduler = node.connect();
    assert_eq!(scheduler.hello().latency, table);
    scheduler.welcome();
    let member = camera.frame(200);
    scheduler.prepare(1, &camera, &[member], LEASE);
    scheduler.reply(1);
    // Other weights are another model.
    node.stop().unwrap();
    std::fs::write(&node.spec.weights, "others").unwrap();
    node.start(StubEngine::new());
    assert!(node.connect().hello().latency.is_empty());
}

#[test]
fn batches_that_take_longer_change_no_promise() {
    let slower = Duration::from_millis(3);
    let slow = || StubEngine::of(&Synthetic { beta: slower, ..test_model::synthetic() });
    let mut node = Node::with(StubEngine::new());
    let mut scheduler = node.scheduler();
    let promised = node.connect().hello().latency.clone();
    drop(scheduler);
    node.stop().unwrap();
    // The same model, much slower than it was measured.
    node.start(slow());
    let mut camera = node.camera("front");
    scheduler = node.scheduler();
    assert_eq!(scheduler.hello().latency, promised);
    for batch in 1..50 {
        let member = camera.frame(200);
        scheduler.prepare(batch, &camera, &[member], LEASE);
        // The reply and nothing else.
        let reply = scheduler.reply(batch);
        assert!(reply.times.executed - reply.times.granted >= slower);
    }
    assert_eq!(node.connect().hello().latency, promised);
    // Neither what is kept: the next life promises the same.
    drop(scheduler);
    node.stop().unwrap();
    node.start(StubEngine::new());
    assert_eq!(node.connect().hello().latency, promised);
    // Measured anew, which nobody needs to have asked for, it promises what was found.
    node.stop().unwrap();
    node.start(slow());
    let mut scheduler = node.scheduler();
    scheduler.send(&RunnerMessage::ProfileGrant { batch_size: 1, lease: LEASE.unwrap() });
    assert!(matches!(scheduler.next(), RunnerMessage::ProfileDone { batch_size: 1, .. }));
    let RunnerMessage::Table(table) = scheduler.next() else { panic!("no table") };
    assert!(table.p50(1).unwrap() >= slower);
    assert_eq!(table.p50(2), promised.p50(2));
    node.stop().unwrap();
    node.start(StubEngine::new());
    assert_eq!(node.connect().hello().latency, table);
}

#[test]
fn sizes_that_fail_or_take_too_long_are_not_offered() {
    let lease = Duration::from_millis(100);
    // 0.7 s for two are measured, 1.4 s for four predicted; or an engine that refuses three.
    let slow = StubEngine { per_member: Duration::from_millis(350), ..StubEngine::new() };
    let failing = StubEngine { members_max: 2, ..StubEngine::new() };
    let node_of = |engine| {
        let mut node = Node::new();
        node.spec.batch_max = 8;
        node.start(engine);
        node
    };
    for engine in [slow, failing] {
        let node = node_of(engine);
        let mut scheduler = node.connect();
        scheduler.welcome();
        let sizes = vec![1, 2, 4, 8];
        assert_eq!(scheduler.next(), RunnerMessage::ProfileRequest { sizes });
        for batch_size in [1, 2, 4] {
            scheduler.send(&RunnerMessage::ProfileGrant { batch_size, lease });
            let RunnerMessage::ProfileDone { batch_size: done, samples } = scheduler.next() else {
                panic!("not done")
            };
            assert_eq!((done, samples.is_empty()), (batch_size, batch_size == 4));
        }
        let RunnerMessage::Table(table) = scheduler.next() else { panic!("no table") };
        assert_eq!(table.batch_max(), 2);
        // What was granted before the table came is answered too, without a run.
        scheduler.send(&RunnerMessage::ProfileGrant { batch_size: 8, lease });
        let none = RunnerMessage::ProfileDone { batch_size: 8, samples: vec![] };
        assert_eq!(scheduler.next(), none);
        let again = node.connect();
        assert_eq!(again.hello().latency, table);
    }
}

#[test]
fn ids_too_long_for_a_socket_are_told_before_the_weights_are_loaded() {
    let mut node = Node::new();
    let long = |start: &str| format!("{start}-{}", "x".repeat(base::limits::ID_CHARS_MAX - 4));
    (node.spec.model_id, node.options.device) =
        (long("abc").parse().unwrap(), long("cpu").parse().unwrap());
    let (_trigger, stop) = Stop::pair().unwrap();
    let refused = serve_with(&node.options, &node.spec, &stop, || panic!("must not load"));
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("the kernel takes 107") && error.contains("shorter id"), "{error}");
    assert_eq!(names(&node.options.directories.runtime), [""; 0]);
}

#[test]
fn one_runner_per_model_and_device() {
    let mut node = Node::with(StubEngine::new());
    node.connect();
    let (_trigger, stop) = Stop::pair().unwrap();
    let second = serve_with(&node.options, &node.spec, &stop, || panic!("must not load"));
    let error = second.unwrap_err().to_string();
    assert!(error.starts_with("vas runner of tiny on cpu is already running"), "{error}");
    assert!(error.contains("runner.tiny.cpu.lock"), "{error}");
    // The first is not disturbed, and what it leaves is nothing.
    node.connect();
    node.stop().unwrap();
    assert_eq!(names(&node.options.directories.runtime), [""; 0]);

    // What a killed runner leaves is no obstacle.
    std::fs::write(node.options.directories.runtime.join("runner.tiny.cpu.lock"), "").unwrap();
    drop(UnixListener::bind(node.socket()).unwrap());
    node.start(StubEngine::new());
    let deadline = std::time::Instant::now() + PATIENCE;
    while UnixStream::connect(node.socket()).is_err() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn a_stop_lets_the_running_batch_end() {
    let (engine, begun, go) = StubEngine::gated();
    let mut node = Node::new();
    node.start(engine);
    begun.recv_timeout(PATIENCE).unwrap();
    let mut camera = node.camera("front");
    let mut scheduler = node.connect();
    scheduler.welcome();
    assert!(matches!(scheduler.next(), RunnerMessage::ProfileRequest { .. }));
    let member = camera.frame(200);
    scheduler.prepare(1, &camera, &[member], LEASE);
    begun.recv_timeout(PATIENCE).unwrap();
    let (trigger, thread) = node.running.take().unwrap();
    drop(trigger);
    // Nobody can connect any more while the batch goes on.
    let deadline = std::time::Instant::now() + PATIENCE;
    while node.socket().exists() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    go.send(()).unwrap();
    assert_eq!(scores(&scheduler.reply(1)), [Ok(200)]);
    thread.join().unwrap().unwrap();
    scheduler.closed();
    assert_eq!(names(&node.options.directories.runtime), [""; 0]);
}

/// With a synchronous engine nobody listens while a batch executes: what was sent meanwhile waits, and
/// is answered or ended after it.
#[test]
fn what_comes_while_the_thread_executes_is_seen_after_the_batch() {
    let (engine, begun, go) = StubEngine::new().with_gate();
    let mut node = Node::with(engine);
    begun.recv_timeout(PATIENCE).unwrap();
    let mut camera = node.camera("front");
    let mut scheduler = node.connect();
    scheduler.welcome();
    assert!(matches!(scheduler.next(), RunnerMessage::ProfileRequest { .. }));
    let (one, two) = (camera.frame(200), camera.frame(210));
    scheduler.prepare(1, &camera, &[one], LEASE);
    begun.recv_timeout(PATIENCE).unwrap();
    scheduler.prepare(2, &camera, &[two], None);
    go.send(()).unwrap();
    assert_eq!(scores(&scheduler.reply(1)), [Ok(200)]);
    scheduler.prepared(2);
    scheduler.grant(2);
    begun.recv_timeout(PATIENCE).unwrap();
    let (trigger, thread) = node.running.take().unwrap();
    drop(trigger);
    go.send(()).unwrap();
    assert!(matches!(scheduler.next(), RunnerMessage::Executed { batch: 2, .. }));
    assert_eq!(scores(&scheduler.reply(2)), [Ok(210)]);
    thread.join().unwrap().unwrap();
    scheduler.closed();
    assert_eq!(names(&node.options.directories.runtime), [""; 0]);
}

#[test]
fn what_cannot_start_says_why_in_one_line() {
    let node = Node::new();
    let (_trigger, stop) = Stop::pair().unwrap();
    let refused = |options: &Options, spec: &ModelSpec| {
        let load = || Err(EngineError::Library("no library".into()));
        let error = serve_with(options, spec, &stop, load).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    };
    let mut required = node.spec.clone();
    required.resources.gpu_required = true;
    let error = refused(&node.options, &required);
    assert!(error.contains("gpu_required") && error.contains("looked for"), "{error}");
    let gpu = Options { policy: DevicePolicy::Gpu, ..node.options.clone() };
    assert!(refused(&gpu, &node.spec).contains("device: gpu is configured"));
    let gpu0 = Options { device: "gpu0".parse().unwrap(), ..node.options.clone() };
    assert!(refused(&gpu0, &node.spec).contains("`gpu0`"));
    assert_eq!(refused(&node.options, &node.spec), "no library");
    // The lock of a failed start is not left behind.
    assert_eq!(names(&node.options.directories.runtime), [""; 0]);

    let file = node.dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut blocked = node.options.clone();
    blocked.directories.runtime = file.join("run");
    let error = refused(&blocked, &node.spec);
    assert!(error.starts_with("cannot make the runtime directory"), "{error}");
    assert!(error.ends_with("that its user can write to"), "{error}");
    let mut long = node.options.clone();
    long.directories.runtime = node.dir.path().join("x".repeat(120));
    let error = serve_with(&long, &node.spec, &stop, || Ok(Box::new(StubEngine::new())));
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("cannot listen on") && error.contains("shorter runtime directory"),
        "{error}"
    );

    // A single run that looks hung; check says the same.
    let slow = || StubEngine { per_member: HANG_LIMIT, ..StubEngine::new() };
    let error = serve_with(&node.options, &node.spec, &stop, || Ok(Box::new(slow())));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("takes 2.0 s, the limit is 2 s: use a smaller input"), "{error}");
    let mut report = crate::tools::Report::default();
    crate::tools::check_engine(&node.spec, &mut slow(), &mut report);
    assert_eq!(report.problems, [error]);
    assert!(hang_line(8).contains("batch of 8 ") && hang_line(8).contains("2 s"));

    let missing = serve(node.options.clone(), stop).unwrap_err().to_string();
    assert!(missing.contains("it has no readable model.yaml"), "{missing}");
}

/// The half of the next test that ends.
#[test]
fn hung_child() {
    let Some(dir) = std::env::var_os("VAS_TEST_HUNG") else { return };
    let (engine, _begun, _go) = StubEngine::gated();
    let mut node = Node::new();
    let dir = PathBuf::from(dir);
    node.options.directories.runtime = dir.join("run");
    node.start(engine);
    let mut camera = node.camera("front");
    let mut scheduler = node.connect();
    scheduler.welcome();
    let member = camera.frame(200);
    scheduler.prepare(1, &camera, &[member], LEASE);
    // The engine never answers; nothing but the watchdog ends this.
    while scheduler.receive().is_some() {}
    panic!("the runner closed instead of ending");
}

#[test]
fn a_hung_engine_ends_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serve::tests::hung_child", "--test-threads=1"])
        .env("VAS_TEST_HUNG", dir.path())
        .output()
        .unwrap();
    assert_eq!(status.status.code(), Some(EXIT_HUNG), "{status:?}");
    // The lock file may stay, nobody holds it.
    let lock = dir.path().join("run/runner.tiny.cpu.lock");
    assert!(!InstanceLock::held(&lock));
    assert!(!dir.path().join("run/runner.tiny.cpu.sock").exists());
}
