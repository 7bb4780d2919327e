//! A node for benchmarks: its directories, processes as in production, and cameras that are this
//! process.

use base::{CameraId, FrameFlags, FrameInfo, MediaTime, Picture, Size};
use ipc::desired::{DecodeMode, DesiredCamera, DesiredState, DesiredSubscription, FORMAT};
use ipc::directories::Directories;
use ipc::ring::{RingSpec, RingWriter};
use ipc::{clock, stop::Stop};
use scheduler_driver::Steering;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a benchmark can't go on with.
pub type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Frames per second of every camera.
pub const CAMERA_FPS: f64 = 25.0;
/// Their size: copying and converting them costs next to nothing.
const SIZE: Size = Size { width: 64, height: 64 };

/// Directories of a node that go with it, in memory where there is room for files in it.
pub struct Root(TempDir);

impl Root {
    /// Makes them.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn make() -> Fallible<Root> {
        let shm = Path::new("/dev/shm");
        let root = tempfile::tempdir_in(if shm.exists() { shm } else { Path::new("/tmp") })?;
        let places = directories(root.path());
        for directory in [&places.shm, &places.runtime, &places.state] {
            std::fs::create_dir(directory)?;
        }
        Ok(Root(root))
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Each of them.
    pub fn directories(&self) -> Directories {
        directories(self.path())
    }

    /// Writes the `model.yaml` of a synthetic model that looks at pictures of the cameras' size;
    /// `synthetic` is what its section says.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn synthetic(&self, model: &str, batch_max: u32, synthetic: &str) -> Fallible<()> {
        let Size { width, height } = SIZE;
        let folder = self.path().join(model);
        std::fs::create_dir(&folder)?;
        let yaml = format!(
            "model_id: {model}\nmodel_name: {model}\nmodel_version: \"1\"\nmodel_type: synthetic\n\
             expected_resolution: [{width}, {height}]\nbatch_max: {batch_max}\nsynthetic:\n{synthetic}"
        );
        Ok(std::fs::write(folder.join("model.yaml"), yaml)?)
    }

    /// Starts this program again, in another role of the same node.
    ///
    /// # Errors
    /// Those of the system.
    pub fn start(&self, arguments: &[&str]) -> Fallible<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(&arguments[..1]).arg(self.path()).args(&arguments[1..]);
        Ok(Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }
}

/// The directories of the node below `root`.
pub fn directories(root: &Path) -> Directories {
    Directories { shm: root.join("shm"), runtime: root.join("run"), state: root.join("state") }
}

/// The production loop around the core, with every other setting at its default.
///
/// # Errors
/// Those of the loop.
pub fn scheduler(directories: Directories, steering: Steering) -> Fallible<()> {
    let (_trigger, stop) = Stop::pair()?;
    let options = scheduler_driver::Options {
        directories,
        capacities: Vec::new(),
        usable_share: scheduler::Config::default().usable_share,
        steering,
        trace: None,
    };
    Ok(scheduler_driver::run(options, stop)?)
}

/// The production runner of a model that [`Root::synthetic`] wrote.
///
/// # Errors
/// Those of the runner.
pub fn runner(root: &Path, model: &str, device: &str) -> Fallible<()> {
    let (_trigger, stop) = Stop::pair()?;
    let options = runner::Options {
        model_dir: root.join(model),
        device: device.parse()?,
        policy: runner::DevicePolicy::Auto,
        directories: directories(root),
        engine: runner::EngineOptions {
            onnxruntime: None,
            cache_dir: root.join("cache"),
            threads: 1,
        },
    };
    Ok(runner::serve(options, stop)?)
}

/// So many cameras.
///
/// # Errors
/// None that can be met.
pub fn cameras(count: usize) -> Fallible<Vec<CameraId>> {
    Ok((0..count).map(|i| CameraId::new(&format!("c{i:03}"))).collect::<Result<_, _>>()?)
}

/// Each of the models on each of the cameras.
pub fn desired(ids: &[CameraId], models: &[String], max_fps: f64) -> DesiredState {
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
    let subscription = |model: &String, id: &CameraId| DesiredSubscription {
        id: format!("{id}-{model}"),
        camera: id.to_string(),
        model: model.clone(),
        parent_model: None,
        max_fps: Some(max_fps),
        priority: 50,
        max_regions: base::limits::MAX_REGIONS_DEFAULT,
        deadline_ms: None,
        parameters: serde_json::Value::Null,
        parameters_id: String::new(),
        enabled: true,
    };
    let subscriptions = models.iter().flat_map(|m| ids.iter().map(move |id| subscription(m, id)));
    DesiredState {
        format: FORMAT,
        epoch: base::Epoch(1),
        revision: 1,
        written_utc: String::new(),
        cameras: cameras.collect(),
        subscriptions: subscriptions.collect(),
    }
}

/// Cameras at [`CAMERA_FPS`], spread evenly over the interval between two frames.
pub struct Cameras {
    writers: Vec<RingWriter>,
    begin: Instant,
    frame: u64,
}

impl Cameras {
    /// Makes their rings.
    ///
    /// # Errors
    /// Those of the rings.
    pub fn new(shm: &Path, ids: &[CameraId]) -> Fallible<Cameras> {
        let picture = Picture { size: SIZE, matrix: Default::default(), range: Default::default() };
        let ring = |camera: &CameraId| {
            let spec = RingSpec { camera: camera.clone(), picture, slots: 30 };
            RingWriter::create(shm, &spec)
        };
        let writers = ids.iter().map(ring).collect::<Result<Vec<_>, _>>()?;
        Ok(Cameras { writers, begin: Instant::now(), frame: 0 })
    }

    /// Waits for the next frame of any of them and publishes it.
    pub fn next(&mut self) {
        let count = self.writers.len() as u64;
        let due = Duration::from_secs_f64(self.frame as f64 / (CAMERA_FPS * count as f64));
        std::thread::sleep(due.saturating_sub(self.begin.elapsed()));
        let (round, writer) =
            (self.frame / count, &mut self.writers[(self.frame % count) as usize]);
        self.frame += 1;
        if round.is_multiple_of(CAMERA_FPS as u64) {
            writer.heartbeat();
        }
        let now = clock::monotonic();
        writer.begin().publish(&FrameInfo {
            media: MediaTime(self.frame * 3600),
            capture: now,
            capture_utc: clock::utc(),
            decode_start: now,
            flags: FrameFlags::default(),
        });
    }
}

/// A child, which ends with this process.
pub struct Process(pub Child);

/// What the threads of a process used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// User and system time.
    pub cpu: Duration,
    /// Times that a thread went to sleep: each is a wake-up.
    pub wakeups: u64,
    /// Times that a thread had to give way to another.
    pub preempted: u64,
}

impl Process {
    /// Since it began (proc(5): sum_exec_runtime of schedstat, for clock ticks are too coarse).
    ///
    /// # Errors
    /// When it is gone.
    pub fn used(&self) -> Fallible<Used> {
        let mut used = Used::default();
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let task = task?.path();
            used.cpu += on_cpu(&task.join("schedstat"))?;
            let status = std::fs::read_to_string(task.join("status"))?;
            let field = |name: &str| -> Option<u64> {
                let mut values = status.lines().filter_map(|line| line.strip_prefix(name));
                values.next()?.trim().parse().ok()
            };
            used.wakeups += field("voluntary_ctxt_switches:").unwrap_or(0);
            used.preempted += field("nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(used)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first number of a schedstat file.
fn on_cpu(path: &Path) -> Fallible<Duration> {
    let text = std::fs::read_to_string(path)?;
    let nanos = text.split(' ').next().ok_or("an empty schedstat")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}
