//! Whether a runner that is slower than it promised costs the models beside it more than one of its
//! batches, with real processes.
//!
//! usage: isolation [--minutes N]
//!
//! The real scheduler loop, three real runners of synthetic models on one GPU that does not exist, and
//! this process, which publishes small frames into real rings and reads the results. In every other
//! minute one of the models takes three times as long. Of each healthy model the 99th percentile of
//! the ages of a minute with the fault, less that of the minute before, is held against its `B_m`
//! (docs/simulator.md): the median over the pairs of minutes. It ends with an error when one is above.
//! The times are eight times those of the simulator's workload `isolation`, the rates an eighth: a
//! machine with two cores wakes its processes late by a millisecond now and then.

use base::{CameraId, FrameFlags, FrameInfo, MediaTime, Picture, Size, time::nanos};
use ipc::desired::{DecodeMode, DesiredCamera, DesiredState, DesiredSubscription, FORMAT};
use ipc::directories::Directories;
use ipc::events_message::{EventsMessage, RunnerState};
use ipc::framing::read_message;
use ipc::ring::{RingSpec, RingWriter};
use ipc::{clock, stop::Stop};
use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Name, alpha and beta in milliseconds; the first is the one that becomes slow.
const MODELS: [(&str, f64, f64); 3] =
    [("slow", 3.8, 6.1), ("steady", 4.6, 3.2), ("other", 13.0, 2.4)];
const SLOWER: f64 = 3.0;
const CAMERAS: usize = 5;
const CAMERA_FPS: f64 = 25.0;
const WANTED_FPS: f64 = 5.0;
const DEVICE: &str = "gpu0";
const MINUTE: f64 = 60.0;
/// Minutes before the first that counts: runners are measured, gates find their places.
const WARM_UP: usize = 1;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["as-scheduler", root] => scheduler(directories(root)),
        ["as-runner", root, model] => runner(Path::new(root), model),
        ["--minutes", minutes] => measure(minutes.parse()?),
        [] => measure(10),
        _ => Err("usage: isolation [--minutes N]".into()),
    }
}

fn directories(root: &str) -> Directories {
    let root = PathBuf::from(root);
    Directories { shm: root.join("shm"), runtime: root.join("run"), state: root.join("state") }
}

fn scheduler(directories: Directories) -> Fallible<()> {
    let (_trigger, stop) = Stop::pair()?;
    let options = scheduler_driver::Options {
        directories,
        capacities: Vec::new(),
        usable_share: 0.95,
        steering: scheduler_driver::Steering::default(),
        trace: None,
    };
    Ok(scheduler_driver::run(options, stop)?)
}

fn runner(root: &Path, model: &str) -> Fallible<()> {
    let (_trigger, stop) = Stop::pair()?;
    let options = runner::Options {
        model_dir: root.join(model),
        device: DEVICE.parse()?,
        policy: runner::DevicePolicy::Auto,
        directories: directories(root.to_str().ok_or("the directory's name is not text")?),
        engine: runner::EngineOptions {
            onnxruntime: None,
            cache_dir: root.join("cache"),
            threads: 1,
        },
    };
    Ok(runner::serve(options, stop)?)
}

/// The `model.yaml` of a model; the slow one is slow in every other minute that counts.
fn model_yaml(name: &str, alpha: f64, beta: f64) -> String {
    let from = MINUTE * (WARM_UP + 1) as f64;
    let faults = format!(
        "  faults:\n    - {{fault: slower, factor: {SLOWER}, from_s: {from}, for_s: {MINUTE}, \
         every_s: {}}}\n",
        2.0 * MINUTE
    );
    format!(
        "model_id: {name}\nmodel_name: {name}\nmodel_version: \"1\"\nmodel_type: synthetic\n\
         expected_resolution: [64, 64]\nbatch_max: 16\nsynthetic:\n  alpha_ms: {alpha}\n  \
         beta_ms: {beta}\n  gpu: true\n{}",
        if name == MODELS[0].0 { &faults } else { "" }
    )
}

fn desired(ids: &[CameraId]) -> DesiredState {
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
    let of_camera = |id: &CameraId| {
        MODELS.map(|(model, ..)| DesiredSubscription {
            id: format!("{id}-{model}"),
            camera: id.to_string(),
            model: model.into(),
            parent_model: None,
            max_fps: Some(WANTED_FPS),
            priority: 50,
            max_regions: base::limits::MAX_REGIONS_DEFAULT,
            deadline_ms: None,
            parameters: serde_json::Value::Null,
            parameters_id: String::new(),
            enabled: true,
        })
    };
    DesiredState {
        format: FORMAT,
        epoch: base::Epoch(1),
        revision: 1,
        written_utc: String::new(),
        cameras: cameras.collect(),
        subscriptions: ids.iter().flat_map(of_camera).collect(),
    }
}

/// What the scheduler said.
#[derive(Default)]
struct Heard {
    /// Model, when, age.
    results: Vec<(String, base::Instant, Duration)>,
    /// Results whose batch waited for its token with its pixels copied, and all.
    prepared_ahead: u64,
    /// Members and batches by model, as of the last status.
    batches: BTreeMap<String, (u64, u64)>,
    /// When the slow model stood behind the others.
    demoted: Vec<base::Instant>,
}

/// Plays serve: takes one connection of the scheduler's and reads it to its end.
fn listen(listener: &UnixListener, heard: &Mutex<Heard>) -> Fallible<()> {
    let (mut stream, _) = listener.accept()?;
    let mut buffer = Vec::new();
    while read_message(&mut stream, &mut buffer)? {
        let message = EventsMessage::decode(&buffer)?;
        let mut heard = heard.lock().map_err(|_| "the other thread panicked")?;
        match message {
            EventsMessage::Results(results) => {
                for result in results.results {
                    let age = result.received - result.capture;
                    heard.results.push((results.model_id.to_string(), result.received, age));
                    heard.prepared_ahead += u64::from(result.stages.grant > Duration::ZERO);
                }
            }
            EventsMessage::Status(status) => {
                for runner in status.runners {
                    let name = runner.model_id.to_string();
                    if name == MODELS[0].0 && runner.state == RunnerState::Demoted {
                        heard.demoted.push(status.now);
                    }
                    heard.batches.insert(name, (runner.members, runner.batches));
                }
            }
            _ => {}
        }
    }
    Ok(())
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

fn measure(minutes: usize) -> Fallible<()> {
    let shm = Path::new("/dev/shm");
    let root = tempfile::tempdir_in(if shm.exists() { shm } else { Path::new("/tmp") })?;
    let places = directories(root.path().to_str().ok_or("the directory's name is not text")?);
    for directory in [&places.shm, &places.runtime, &places.state] {
        std::fs::create_dir(directory)?;
    }
    for (name, alpha, beta) in MODELS {
        let folder = root.path().join(name);
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("model.yaml"), model_yaml(name, alpha, beta))?;
    }
    let ids: Vec<CameraId> =
        (0..CAMERAS).map(|i| CameraId::new(&format!("c{i}"))).collect::<Result<_, _>>()?;
    desired(&ids).store(&places.desired())?;
    let heard = Arc::<Mutex<Heard>>::default();
    let listener = UnixListener::bind(places.events_socket())?;
    let listening = Arc::clone(&heard);
    std::thread::spawn(move || {
        if let Err(error) = listen(&listener, &listening) {
            eprintln!("the scheduler is not heard any more: {error}");
        }
    });
    let exe = std::env::current_exe()?;
    let mut children = Children(Vec::new());
    for (model, ..) in MODELS {
        let child = Command::new(&exe).arg("as-runner").arg(root.path()).arg(model).spawn()?;
        children.0.push(child);
    }
    let socket = places.runner_socket(&MODELS[0].0.parse()?, &DEVICE.parse()?);
    while !socket.exists() {
        if children.0[0].try_wait()?.is_some() {
            return Err("a runner does not start".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // The faults count from the load of the model, a few batches ago.
    let begin = clock::monotonic();
    children.0.push(Command::new(&exe).arg("as-scheduler").arg(root.path()).spawn()?);

    println!(
        "{:<8} {:>6} {}",
        "minute",
        "",
        MODELS.map(|(name, ..)| format!("{name:>9}")).join("")
    );
    publish(&places, &ids, begin, WARM_UP + minutes, &heard)?;
    drop(children);
    let heard = heard.lock().map_err(|_| "the listening thread panicked")?;
    verdict(&heard, begin, minutes)
}

/// Publishes frames of all cameras, spread evenly, and prints each minute that is over.
fn publish(
    places: &Directories,
    ids: &[CameraId],
    begin: base::Instant,
    minutes: usize,
    heard: &Mutex<Heard>,
) -> Fallible<()> {
    let size = Size { width: 64, height: 64 };
    let picture = Picture { size, matrix: Default::default(), range: Default::default() };
    let mut writers = Vec::new();
    for id in ids {
        let spec = RingSpec { camera: id.clone(), picture, slots: 30 };
        writers.push(RingWriter::create(&places.shm, &spec)?);
    }
    let (mut frame, mut printed) = (0u64, 0);
    loop {
        let elapsed = (clock::monotonic() - begin).as_secs_f64();
        let minute = (elapsed / MINUTE) as usize;
        if minute > printed {
            let heard = heard.lock().map_err(|_| "the listening thread panicked")?;
            let fault = if slow_in(printed) { "slow" } else { "" };
            let p99 = MODELS.map(|(model, ..)| p99_ms(&heard, model, begin, printed));
            println!("{printed:<8} {fault:>6} {}", p99.map(|p| format!("{p:9.1}")).join(""));
            printed = minute;
        }
        if minute >= minutes {
            return Ok(());
        }
        let due = frame as f64 / (CAMERA_FPS * ids.len() as f64);
        if due > elapsed {
            std::thread::sleep(Duration::from_secs_f64(due - elapsed));
        }
        let now = clock::monotonic();
        let count = writers.len();
        let writer = &mut writers[(frame % count as u64) as usize];
        frame += 1;
        if (frame / count as u64).is_multiple_of(CAMERA_FPS as u64) {
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
}

/// Whether the slow model is slow in this minute.
fn slow_in(minute: usize) -> bool {
    minute > WARM_UP && (minute - WARM_UP) % 2 == 1
}

/// 99th percentile of the ages of a model in a minute, nearest rank.
fn p99_ms(heard: &Heard, model: &str, begin: base::Instant, minute: usize) -> f64 {
    let within = |at: base::Instant| ((at - begin).as_secs_f64() / MINUTE) as usize == minute;
    let of_model = heard.results.iter().filter(|(m, at, _)| m == model && within(*at));
    let mut ages: Vec<u64> = of_model.map(|(.., age)| nanos(*age)).collect();
    ages.sort_unstable();
    let rank = (ages.len() as f64 * 0.99).ceil() as usize;
    ages.get(rank.max(1) - 1).map_or(f64::NAN, |ns| *ns as f64 / 1e6)
}

fn verdict(heard: &Heard, begin: base::Instant, minutes: usize) -> Fallible<()> {
    let all = heard.results.len() as u64;
    println!(
        "{all} results, {:.1} % of them of batches that were prepared before their grant",
        100.0 * heard.prepared_ahead as f64 / all.max(1) as f64
    );
    let minute = |at: &base::Instant| ((*at - begin).as_secs_f64() / MINUTE) as usize;
    let (on, off): (Vec<usize>, Vec<usize>) =
        heard.demoted.iter().map(minute).partition(|minute| slow_in(*minute));
    println!(
        "the slow model stood behind the others in {} s of {} with the fault, {} s without",
        on.len(),
        (minutes / 2) * MINUTE as usize,
        off.len()
    );
    let length = |(model, alpha, beta): (&str, f64, f64)| {
        let (members, batches) = heard.batches.get(model).copied().unwrap_or((1, 1));
        alpha + beta * (members as f64 / batches.max(1) as f64).ceil()
    };
    let (slow, alpha, beta) = MODELS[0];
    let single = SLOWER * (alpha + beta);
    let mut broken = Vec::new();
    for (model, ..) in &MODELS[1..] {
        let others = MODELS.iter().filter(|(other, ..)| other != model && *other != slow);
        let bound = others.map(|other| length(*other)).fold(single, f64::max);
        let pairs = (WARM_UP..WARM_UP + minutes).filter(|minute| slow_in(*minute));
        let p99 = |minute| p99_ms(heard, model, begin, minute);
        let mut rises: Vec<f64> = pairs.map(|on| p99(on) - p99(on - 1)).collect();
        rises.sort_by(f64::total_cmp);
        let median = rises.get(rises.len() / 2).copied().unwrap_or(f64::NAN);
        println!(
            "{model:<8} p99 rises by {median:.1} ms (pairs of minutes: {rises:.1?}), B_m {bound:.1} ms"
        );
        if median.is_nan() || median > bound {
            broken.push(*model);
        }
    }
    match broken[..] {
        [] => Ok(()),
        _ => Err(format!("{} waits longer than its B_m", broken.join(" and ")).into()),
    }
}
