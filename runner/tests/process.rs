//! The shipped model through the whole process: frames of the clip in a real ring, a scheduler on
//! the socket. And models that are not what they say.
#![allow(clippy::unwrap_used)]

use base::limits::PROTOCOL_VERSION;
use base::{CameraId, FrameFlags, FrameInfo, InstanceId, MediaTime, Picture, Rect, UtcNanos};
use ingest::clip::ClipFrames;
use ipc::directories::Directories;
use ipc::framing::{read_message, write_message};
use ipc::ring::{RingReader, RingSpec, RingWriter};
use ipc::runner_message::{Encoder, Member, Prepare, RunnerMessage, Welcome};
use ipc::stop::Stop;
use runner::{
    ClipFrame, DevicePolicy, EngineOptions, Options, default_cache_dir, model_check, model_run,
    model_yaml, serve,
};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn engine() -> EngineOptions {
    let cache_dir = default_cache_dir().expect("HOME is set");
    EngineOptions { onnxruntime: None, cache_dir, threads: 1 }
}

fn options(dir: &Path, model_dir: PathBuf) -> Options {
    // Latencies go to the test's own folder; the library is found where the user has it.
    let library = engine().cache_dir.join("onnxruntime");
    let onnxruntime = match std::env::var_os("ORT_DYLIB_PATH") {
        Some(_) => None,
        None => std::fs::read_dir(library).unwrap().map(|e| e.unwrap().path()).max(),
    };
    Options {
        model_dir,
        device: "cpu".parse().unwrap(),
        policy: DevicePolicy::Cpu,
        directories: Directories {
            shm: dir.join("shm"),
            runtime: dir.join("run"),
            state: dir.join("state"),
        },
        engine: EngineOptions { onnxruntime, cache_dir: dir.join("cache"), threads: 1 },
    }
}

fn send(stream: &mut UnixStream, message: &RunnerMessage) {
    write_message(stream, message.encode(&mut Encoder::default())).unwrap();
}

fn next(stream: &mut UnixStream) -> RunnerMessage {
    let mut bytes = Vec::new();
    assert!(read_message(stream, &mut bytes).unwrap(), "the runner closed");
    RunnerMessage::decode(&bytes).unwrap()
}

#[test]
fn frames_of_the_ring_give_what_the_clip_gives() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), root("models/nanodet_g_416"));
    let spec = model_yaml::load(&options.model_dir).unwrap();
    let socket = options.directories.runner_socket(&spec.model_id, &options.device);
    let (trigger, stop) = Stop::pair().unwrap();
    let runner = {
        let options = options.clone();
        std::thread::spawn(move || serve(options, stop))
    };

    let frames: Vec<ClipFrame> = ClipFrames::open(&root("assets/pedestrians.mp4"))
        .unwrap()
        .take(4)
        .map(|frame| {
            let f = frame.unwrap();
            let picture = Picture { size: f.size, matrix: f.matrix, range: f.range };
            ClipFrame { index: f.index as usize, picture, pixels: f.pixels }
        })
        .collect();
    let mut expected = Vec::new();
    let clip = frames.iter().cloned().map(Ok::<_, String>);
    model_run(&spec, &engine(), clip, |_, found| expected.push(found.clone())).unwrap();
    assert!(expected.iter().all(|found| found.detections.len() >= 3));

    // The ring holds the four frames.
    let camera: CameraId = "street".parse().unwrap();
    let ring = RingSpec { camera: camera.clone(), picture: frames[0].picture, slots: 8 };
    let mut writer = RingWriter::create(&options.directories.shm, &ring).unwrap();
    let mut reader = RingReader::new(&options.directories.shm, &camera);
    let mut members = Vec::new();
    for frame in &frames {
        let mut slot = writer.begin();
        slot.pixels().copy_from_slice(&frame.pixels);
        let now = ipc::clock::monotonic();
        slot.publish(&FrameInfo {
            media: MediaTime(1),
            capture: now,
            capture_utc: UtcNanos(1),
            decode_start: now,
            flags: FrameFlags::default(),
        });
        let base::Newest::Frame(stamp) = reader.newest(now) else { panic!("no frame") };
        members.push(Member {
            camera: 0,
            generation: stamp.generation,
            frame_id: stamp.frame_id,
            slot: stamp.slot,
            region: Rect::WHOLE,
            parent: 0,
            parameters: None,
        });
    }

    let deadline = std::time::Instant::now() + PATIENCE;
    let mut stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        assert!(!runner.is_finished(), "{:?}", runner.join());
        std::thread::yield_now();
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let RunnerMessage::Hello(hello) = next(&mut stream) else { panic!("no Hello") };
    assert_eq!((hello.labels.len(), hello.labels[0].as_str()), (80, "person"));
    assert!(hello.runtime.starts_with("onnxruntime 1."), "{}", hello.runtime);
    let welcome = Welcome { protocol: PROTOCOL_VERSION, instance: InstanceId(1) };
    send(&mut stream, &RunnerMessage::Welcome(welcome));
    assert!(matches!(next(&mut stream), RunnerMessage::ProfileRequest { .. }));

    // One by one, as one batch, and on the two-step path: the same boxes.
    let prepare = |batch, members: &[Member], lease| {
        RunnerMessage::Prepare(Prepare {
            batch,
            cameras: vec![camera.clone()],
            members: members.to_vec(),
            parameters: vec![],
            lease,
        })
    };
    let lease = Some(Duration::from_secs(1));
    let mut found = Vec::new();
    for (i, member) in members.iter().enumerate() {
        send(&mut stream, &prepare(i as u64, &[*member], lease));
        let RunnerMessage::Reply(reply) = next(&mut stream) else { panic!("no reply") };
        assert!(reply.times.ordered());
        assert!(reply.times.executed > reply.times.preprocessed);
        found.extend(reply.outcomes.into_iter().map(Result::unwrap));
    }
    assert_eq!(found, expected);
    send(&mut stream, &prepare(10, &members, None));
    assert!(matches!(next(&mut stream), RunnerMessage::Prepared { batch: 10, .. }));
    send(&mut stream, &RunnerMessage::Grant { batch: 10, lease: Duration::from_secs(1) });
    assert!(matches!(next(&mut stream), RunnerMessage::Executed { batch: 10, .. }));
    let RunnerMessage::Reply(reply) = next(&mut stream) else { panic!("no reply") };
    for (found, expected) in reply.outcomes.iter().zip(&expected) {
        let found = &found.as_ref().unwrap().detections;
        assert_eq!(found.len(), expected.detections.len());
        for (a, b) in found.iter().zip(&expected.detections) {
            // Kernels of another batch size may round otherwise.
            assert!(a.class_id == b.class_id && a.bbox.iou(b.bbox) > 0.99);
            assert!((a.score - b.score).abs() < 1e-3);
        }
    }

    drop(trigger);
    runner.join().unwrap().unwrap();
    assert_eq!(std::fs::read_dir(&options.directories.runtime).unwrap().count(), 0);
}

/// A copy of the shipped model's folder.
fn copy_of_the_model(dir: &Path) -> PathBuf {
    let to = dir.join("model");
    std::fs::create_dir(&to).unwrap();
    for name in ["model.yaml", "labels.txt", "nanodet_g_416_f16w.onnx"] {
        std::fs::copy(root("models/nanodet_g_416").join(name), to.join(name)).unwrap();
    }
    to
}

/// The one line of a folder that is not usable; serve says the same as check.
fn refused(folder: &Path) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (_trigger, stop) = Stop::pair().unwrap();
    let error = serve(options(dir.path(), folder.to_owned()), stop).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    let report = model_check(folder, &engine());
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert_eq!(report.problems[0], error);
    let runtime = dir.path().join("run");
    assert!(!runtime.exists() || std::fs::read_dir(runtime).unwrap().next().is_none());
    error
}

#[test]
fn the_shipped_model_is_in_order() {
    let report = model_check(&root("models/nanodet_g_416"), &engine());
    assert_eq!(report.problems, [""; 0]);
    assert!(report.facts.iter().any(|f| f.starts_with("batch of 16: ")), "{report:?}");
}

#[test]
fn models_that_are_not_what_they_say_are_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let folder = copy_of_the_model(dir.path());
    let weights = folder.join("nanodet_g_416_f16w.onnx");
    let yaml = folder.join("model.yaml");
    let good = std::fs::read_to_string(&yaml).unwrap();

    for (from, to, expected) in [
        ("tensor: images", "tensor: image", "input.tensor is `image`, the graph has `images`"),
        ("[416, 416]", "[320, 320]", "model.yaml says [-1, 3, 320, 320]"),
        ("layout: nchw", "layout: nhwc", "model.yaml says [-1, 416, 416, 3]"),
        ("dtype: f32", "dtype: f16", "f16 is wanted"),
        ("scores: scores", "scores: score", "output.scores is `score`, the graph has"),
        ("boxes: boxes", "boxes: scores", "the decoder wants [-1, -1, 4]"),
    ] {
        std::fs::write(&yaml, good.replacen(from, to, 1)).unwrap();
        let error = refused(&folder);
        assert!(error.contains(expected), "{to}: {error}");
    }
    std::fs::write(&yaml, &good).unwrap();
    let labels = std::fs::read_to_string(folder.join("labels.txt")).unwrap();
    std::fs::write(folder.join("labels.txt"), labels.replacen("person\n", "", 1)).unwrap();
    let error = refused(&folder);
    assert!(error.contains("(the last is the number of class names)"), "{error}");
    std::fs::write(folder.join("labels.txt"), labels).unwrap();

    // A graph whose bytes are damaged inside, and one that is cut.
    let bytes = std::fs::read(&weights).unwrap();
    let op = bytes.windows(9).position(|w| w == b"LeakyRelu").unwrap();
    let mut damaged = bytes.clone();
    damaged[op..op + 9].copy_from_slice(b"NoSuchOp!");
    std::fs::write(&weights, &damaged).unwrap();
    assert!(refused(&folder).contains("NoSuchOp"), "{}", refused(&folder));
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    assert!(refused(&folder).contains("not an ONNX file, or damaged"));
    std::fs::remove_file(&weights).unwrap();
    assert!(refused(&folder).contains("is not in the model's folder"));
    std::fs::remove_file(&yaml).unwrap();
    assert!(refused(&folder).contains("it has no readable model.yaml"));
}
