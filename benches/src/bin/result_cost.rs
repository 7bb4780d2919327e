//! CPU per result outside copy, preprocess, inference and storage: looking at rings, deciding,
//! sockets, encoding and decoding on both sides.
//!
//! usage: result_cost [--cameras N] [--fps F] [--seconds S]
//!
//! Four processes as in production: the real scheduler loop; a runner that speaks the real
//! protocol and answers at once with seven detections per frame; a serve that reads and decodes
//! results; and this one, which publishes small frames into real rings. CPU is user + system time
//! of each process over the measured seconds, divided by the results of that time.

use base::{
    CameraId, Detection, FrameDetections, FrameFlags, FrameInfo, InstanceId, LatencyEntry,
    LatencyTable, MediaTime, Picture, Rect, Size, StageTimes, TrackId, limits,
};
use ipc::desired::{DecodeMode, DesiredCamera, DesiredState, DesiredSubscription, FORMAT};
use ipc::directories::Directories;
use ipc::events_message::EventsMessage;
use ipc::framing::{read_message, write_message};
use ipc::ring::{RingSpec, RingWriter};
use ipc::runner_message::{Encoder, Hello, Reply, RunnerMessage};
use ipc::{clock, stop::Stop};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("as-scheduler") => scheduler(&directories(&arguments[1])),
        Some("as-runner") => runner(&directories(&arguments[1])),
        Some("as-serve") => serve(&directories(&arguments[1])),
        _ => measure(&arguments),
    }
}

fn directories(root: &str) -> Directories {
    let root = PathBuf::from(root);
    Directories { shm: root.join("shm"), runtime: root.join("run"), state: root.join("state") }
}

fn option(arguments: &[String], name: &str, default: f64) -> Fallible<f64> {
    match arguments.iter().position(|a| a == name) {
        Some(at) => Ok(arguments.get(at + 1).ok_or("a value is missing")?.parse()?),
        None => Ok(default),
    }
}

fn scheduler(directories: &Directories) -> Fallible<()> {
    let (_trigger, stop) = Stop::pair()?;
    let directories = directories.clone();
    let options = scheduler_driver::Options {
        directories,
        capacities: Vec::new(),
        usable_share: 0.99,
        steering: scheduler_driver::Steering::default(),
        trace: None,
    };
    Ok(scheduler_driver::run(options, stop)?)
}

/// Answers every Prepare at once.
fn runner(directories: &Directories) -> Fallible<()> {
    let (model_id, device) = ("bench".parse()?, "cpu".parse()?);
    let listener = UnixListener::bind(directories.runner_socket(&model_id, &device))?;
    let (mut stream, _) = listener.accept()?;
    let mut encoder = Encoder::default();
    let ms = Duration::from_millis(1);
    let hello = RunnerMessage::Hello(Hello {
        protocol: limits::PROTOCOL_VERSION,
        instance: InstanceId(1),
        model_id,
        model_version: "1".into(),
        device,
        gpu: false,
        input: Size { width: 416, height: 416 },
        batch_max: 1,
        deadline: Duration::from_millis(500),
        labels: vec!["person".into()],
        latency: LatencyTable::new([LatencyEntry { batch: 1, p50: ms, p99: ms }]),
        runtime: "answers at once".into(),
    });
    write_message(&mut stream, hello.encode(&mut encoder))?;
    let detection = |i: u8| Detection {
        bbox: Rect { x1: 0.1, y1: 0.1, x2: 0.2, y2: 0.1 + f32::from(i) * 0.1 },
        score: 0.9,
        class_id: 0,
        track: TrackId(0),
    };
    let found = FrameDetections {
        detections: (1..8).map(detection).collect(),
        ..FrameDetections::default()
    };
    let mut buffer = Vec::new();
    while read_message(&mut stream, &mut buffer)? {
        let RunnerMessage::Prepare(prepare) = RunnerMessage::decode(&buffer)? else { continue };
        let now = clock::monotonic();
        let times = StageTimes {
            received: now,
            copied: now,
            granted: now,
            preprocessed: now,
            executed: now,
            postprocessed: now,
        };
        let outcomes = prepare.members.iter().map(|_| Ok(found.clone())).collect();
        let reply = RunnerMessage::Reply(Reply { batch: prepare.batch, times, outcomes });
        write_message(&mut stream, reply.encode(&mut encoder))?;
    }
    Ok(())
}

/// Reads and decodes; prints the number of results when told to on standard input.
fn serve(directories: &Directories) -> Fallible<()> {
    let listener = UnixListener::bind(directories.events_socket())?;
    let (mut stream, _) = listener.accept()?;
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let ages = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (counted, summed) = (count.clone(), ages.clone());
    std::thread::spawn(move || {
        for _ in std::io::stdin().lines() {
            let relaxed = std::sync::atomic::Ordering::Relaxed;
            println!("{} {}", counted.load(relaxed), summed.load(relaxed));
        }
    });
    let mut buffer = Vec::new();
    while read_message(&mut stream, &mut buffer)? {
        if let EventsMessage::Results(results) = EventsMessage::decode(&buffer)? {
            for result in &results.results {
                let age = result.received - result.capture;
                assert_eq!(result.stages.age(), age, "stages add up to the age");
                let relaxed = std::sync::atomic::Ordering::Relaxed;
                count.fetch_add(1, relaxed);
                ages.fetch_add(base::time::nanos(age), relaxed);
            }
        }
    }
    Ok(())
}

/// CPU time of a wake-up that does nothing: what the machine asks for each of the about three
/// wake-ups of a result (timer, reply at the sockets thread, reply at the core's thread).
fn bare_wake() -> Fallible<f64> {
    let spent = || -> Fallible<f64> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
        Ok(text.split(' ').next().unwrap_or("0").parse::<f64>()? / 1e3)
    };
    const WAKES: u32 = 300;
    let before = spent()?;
    for _ in 0..WAKES {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok((spent()? - before) / f64::from(WAKES))
}

/// Children that end with this process.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn measure(arguments: &[String]) -> Fallible<()> {
    let cameras = option(arguments, "--cameras", 16.0)? as u32;
    let fps = option(arguments, "--fps", 10.0)?;
    let seconds = option(arguments, "--seconds", 20.0)?;
    let shm = Path::new("/dev/shm");
    let root = tempfile::tempdir_in(if shm.exists() { shm } else { Path::new("/tmp") })?;
    let places = directories(root.path().to_str().ok_or("the directory's name is not text")?);
    for directory in [&places.shm, &places.runtime, &places.state] {
        std::fs::create_dir(directory)?;
    }
    let ids: Vec<CameraId> =
        (0..cameras).map(|i| CameraId::new(&format!("c{i:03}"))).collect::<Result<_, _>>()?;
    desired(&ids, fps).store(&places.desired())?;
    let exe = std::env::current_exe()?;
    let start = |role: &str| -> std::io::Result<Child> {
        let mut command = Command::new(&exe);
        command.arg(role).arg(root.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
    };
    let serve = start("as-serve")?;
    let mut children = Children(vec![serve, start("as-runner")?, start("as-scheduler")?]);
    let names = ["serve", "runner", "scheduler"];

    let size = Size { width: 64, height: 64 };
    let picture = Picture { size, matrix: Default::default(), range: Default::default() };
    let mut writers = Vec::new();
    for id in &ids {
        let spec = RingSpec { camera: id.clone(), picture, slots: 30 };
        writers.push(RingWriter::create(&places.shm, &spec)?);
    }
    let warm_up = 3.0;
    let begin = Instant::now();
    let mut before: Option<(f64, Vec<f64>, (u64, u64))> = None;
    let mut frame = 0u64;
    loop {
        let elapsed = begin.elapsed().as_secs_f64();
        if before.is_none() && elapsed >= warm_up {
            let spent = cpu_of(&children.0)?;
            before = Some((elapsed, spent, count(&mut children.0[0])?));
        }
        if elapsed >= warm_up + seconds {
            break;
        }
        // 25 fps per camera, the cameras spread evenly.
        let camera = (frame % u64::from(cameras)) as usize;
        let due = frame as f64 / (25.0 * f64::from(cameras));
        if due > elapsed {
            std::thread::sleep(Duration::from_secs_f64(due - elapsed));
        }
        frame += 1;
        let now = clock::monotonic();
        let writer = &mut writers[camera];
        if frame.is_multiple_of(25) {
            writer.heartbeat();
        }
        writer.begin().publish(&FrameInfo {
            media: MediaTime(frame * 3600),
            capture: now,
            capture_utc: clock::utc(),
            decode_start: now,
            flags: FrameFlags::default(),
        });
    }
    let (from, spent_before, (count_before, ages_before)) = before.ok_or("it was too short")?;
    let spent = cpu_of(&children.0)?;
    let (count_after, ages_after) = count(&mut children.0[0])?;
    let results = (count_after - count_before) as f64;
    if results < 1.0 {
        return Err("no result arrived".into());
    }
    let length = begin.elapsed().as_secs_f64() - from;
    println!("{cameras} cameras at 25 fps, {fps} fps wanted each, {length:.1} s");
    println!("results {results}, {:.1} per second", results / length);
    println!("mean age {:.3} ms", (ages_after - ages_before) as f64 / results / 1e6);
    let mut sum = 0.0;
    for ((name, after), before) in names.iter().zip(&spent).zip(&spent_before) {
        let each = (after - before) / results * 1e6;
        sum += each;
        println!("{name:<10} {each:6.1} us CPU per result");
    }
    println!("{:<10} {sum:6.1} us CPU per result", "sum");
    println!("a thread that only wakes, every 5 ms: {:.1} us CPU per wake-up", bare_wake()?);
    Ok(())
}

fn desired(ids: &[CameraId], fps: f64) -> DesiredState {
    let cameras = ids.iter().map(|id| DesiredCamera {
        id: id.to_string(),
        enabled: true,
        streams: Vec::new(),
        loop_offset_ms: 0,
        record: false,
        live: false,
        decode: DecodeMode::Full,
        deadline_ms: 500,
    });
    let subscriptions = ids.iter().map(|id| DesiredSubscription {
        id: format!("{id}-bench"),
        camera: id.to_string(),
        model: "bench".into(),
        parent_model: None,
        max_fps: Some(fps),
        priority: 50,
        max_regions: base::limits::MAX_REGIONS_DEFAULT,
        deadline_ms: None,
        parameters: serde_json::Value::Null,
        parameters_id: String::new(),
        enabled: true,
    });
    DesiredState {
        format: FORMAT,
        epoch: base::Epoch(1),
        revision: 1,
        written_utc: String::new(),
        cameras: cameras.collect(),
        subscriptions: subscriptions.collect(),
    }
}

/// CPU time of each child, seconds (proc(5), schedstat of its threads).
fn cpu_of(children: &[Child]) -> Fallible<Vec<f64>> {
    let mut spent = Vec::new();
    for child in children {
        // sum_exec_runtime of every thread, nanoseconds: clock ticks are too coarse.
        let mut total = 0u64;
        for task in std::fs::read_dir(format!("/proc/{}/task", child.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            total += text.split(' ').next().unwrap_or("0").parse::<u64>()?;
        }
        spent.push(total as f64 / 1e9);
    }
    Ok(spent)
}

/// Asks serve for its count of results and the sum of their ages in nanoseconds.
fn count(serve: &mut Child) -> Fallible<(u64, u64)> {
    use std::io::{Read, Write};
    serve.stdin.as_mut().ok_or("serve has no input")?.write_all(b"\n")?;
    let output = serve.stdout.as_mut().ok_or("serve has no output")?;
    let mut line = Vec::new();
    let mut byte = [0];
    while output.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    let text = String::from_utf8(line)?;
    let (results, ages) = text.split_once(' ').ok_or("serve gave no count")?;
    Ok((results.parse()?, ages.parse()?))
}
