//! `vas.toml`: read once into checked types. The rest of the program can't see an invalid
//! configuration.
//!
//! Not the desired state: serve turns the cameras and assignments found here into it.

mod disk;
mod section;
mod show;
mod size;
mod source_url;

pub use section::Problem;
pub use show::quoted;

use base::limits;
use base::model::ModelSpec;
use base::{CameraId, DeviceId, ModelId};
use ipc::directories::Directories;
use scheduler::Steering;
use section::{At, Section, Source};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the file that is read when none is given.
pub const FILE_NAME: &str = "vas.toml";
/// Environment variable that overrides `[frame_export] enabled`.
pub const EXPORT_VARIABLE: &str = "AI_FRAME_EXPORT_ENABLED";

/// Longest name of a camera, in bytes (spec V1).
const NAME_BYTES_MAX: usize = 255;
/// Days that events are kept where the file does not say it (chosen).
const RETENTION_DAYS_DEFAULT: u64 = 30;
/// Most days that events may be kept: ten years.
const RETENTION_DAYS_MAX: u64 = 3_650;
/// Days that recordings are kept where the file does not say it (spec V8).
const RECORDING_DAYS_DEFAULT: u64 = 7;
/// Days that snapshots and clips are kept where the file does not say it (chosen).
const MEDIA_DAYS_DEFAULT: u64 = 30;
/// Share of the disk, percent, that snapshots and clips can't exceed (chosen).
const MEDIA_PERCENT_DEFAULT: u64 = 10;
/// Bytes of the disk that are left to events where the file does not say it (chosen: a day of a large
/// node).
const KEEP_FREE_DEFAULT: u64 = 1 << 30;
/// Use of the recordings' disk, percent, at which the oldest go, and down to which (spec V8).
const DISK_PERCENT: (u64, u64) = (90, 85);
/// Age up to which recordings stay where others fill the disk (chosen: what happened just now can
/// still be looked at).
const KEEP_AT_LEAST: Duration = Duration::from_secs(2 * 3600);
/// UDP port of all viewers where the file does not say it (chosen).
const WEBRTC_PORT: u16 = 8189;
/// Most threads of one inference (chosen).
const THREADS_MAX: u64 = 256;
/// Most batches at a time on a device (chosen).
const CAPACITY_MAX: u64 = 256;
/// Most memory of a device, MiB: 16 TiB.
const MEMORY_MIB_MAX: u64 = 1 << 24;
/// Least and most of a device that is given away (chosen: below half of it another machine is
/// cheaper, above 99 % nothing absorbs what can't be foreseen).
const USABLE_SHARE: RangeInclusive<f64> = 0.5..=0.99;
/// The device that there is when the file names none; devices on the processor begin with it.
pub const CPU: &str = "cpu";
/// Longest deadline that may be asked for: a ring holds at most 10 s of 25 fps.
const DEADLINE_MS_MAX: u64 = 8_000;
/// Longest way into its clip that a file camera starts: a day.
const LOOP_OFFSET_MS_MAX: u64 = 86_400_000;

/// Everything `vas.toml` says, with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file, absolute; `None` = built-in defaults.
    pub file: Option<PathBuf>,
    /// Where serve listens. Default 127.0.0.1:8080.
    pub bind: SocketAddr,
    /// Roots of shared memory, sockets and state.
    pub directories: Directories,
    /// Whether decoded frames are put into shared memory. Default false.
    pub frame_export: bool,
    /// Whether results without detections are stored too. Default false.
    pub store_empty: bool,
    /// Age at which whole days of events are dropped. Default 30 days.
    pub retention_days: u64,
    /// Below these lie the files that cameras may be made of over HTTP, absolute. Default: none.
    /// `cameras` may name any file.
    pub file_roots: Vec<PathBuf>,
    /// Bytes of the state directory's disk below which no event is stored. Default 1 GiB.
    pub keep_free: u64,
    /// Snapshots and clips: how long and how much.
    pub media: Media,
    /// Recordings: where and how long.
    pub recording: Recording,
    /// Live view: where viewers reach it.
    pub webrtc: Webrtc,
    /// ONNX Runtime's shared library. Default: `ORT_DYLIB_PATH`, then the cache folder.
    pub onnxruntime: Option<PathBuf>,
    /// Threads of one inference on a CPU, 1..256. Default: half the cores, at least 1; the other
    /// half decodes.
    pub threads: usize,
    /// Batches that the CPU executes at a time, 1..256. Default: as many as half the cores have
    /// threads for, at least 1.
    pub cpu_capacity: u32,
    /// Share of every device that the scheduler plans with, 0.5..0.99. Default 0.99.
    pub usable_share: f64,
    /// Whether cameras are steered into cohorts. Default: where it was measured to gain.
    pub steering: Steering,
    /// Devices, in the order of the file; never empty. Default: `cpu` alone.
    pub devices: Vec<Device>,
    /// Cameras, in the order of the file.
    pub cameras: Vec<Camera>,
    /// Model folders, in the order of the file.
    pub models: Vec<Model>,
    /// Which model watches which camera.
    pub assignments: Vec<Assignment>,
}

/// `[recording]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The root, absolute. Default `recordings` beneath the state directory.
    pub dir: PathBuf,
    /// Age at which segments go. Default 7 days.
    pub retention_days: u64,
    /// Use of the disk in percent at which the oldest segments go. Default 90.
    pub disk_high_percent: u64,
    /// Down to which they go, below the former. Default 85.
    pub disk_low_percent: u64,
    /// Segments younger than this stay where others fill the disk. Default 2 hours.
    pub keep_at_least: Duration,
}

/// `[media]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Age at which snapshots and clips go. Default 30 days.
    pub retention_days: u64,
    /// Share of the state directory's disk in percent that they can't exceed; 0 = there
    /// are none. Default 10.
    pub max_percent: u64,
}

/// `[webrtc]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webrtc {
    /// UDP port of all viewers; 0 = any that is free. Default 8189.
    pub udp_port: u16,
    /// Addresses that viewers are told. Default: none, which means those of every interface.
    pub announce: Vec<IpAddr>,
}

/// One `[[camera]]`. What is `None` is not named: what the API set stays, else the default holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Camera {
    /// Unique.
    pub id: CameraId,
    /// For people. Default: the id.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Where it hangs.
    pub location: Option<String>,
    /// `rtsp://...`, perhaps with credentials, or `file:///...`; the file need not exist yet.
    pub main_url: String,
    /// A smaller stream of the same camera. Default: none.
    pub sub_url: Option<String>,
    /// What the smaller stream is for, of `record`, `live`, `detect`. Default `detect`; the main
    /// stream has the rest.
    pub sub_roles: Option<Vec<String>>,
    /// `tcp` or `udp` for RTSP. Default `tcp`.
    pub transport: Option<String>,
    /// Whether it is recorded. Default false.
    pub record: Option<bool>,
    /// Whether it can be watched live. Default true.
    pub live: Option<bool>,
    /// Whether its frames may be decoded for models, while frame export is on. Default true.
    pub export: Option<bool>,
    /// Where in the clip a file camera starts, milliseconds. Default 0.
    pub loop_offset_ms: Option<u64>,
    /// Whether it should run at all. Default true.
    pub enabled: Option<bool>,
}

impl Camera {
    /// The clip of a camera that is a file.
    pub fn file(&self) -> Option<PathBuf> {
        source_url::file_of(&self.main_url)
    }
}

/// One `[[device]]`: a CPU, a GPU or a MIG instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Unique; `cpu...` runs on the processor.
    pub id: DeviceId,
    /// Batches that it executes at a time, 1..256. Default: `cpu_capacity` of [scheduler] for
    /// `cpu`, else 1.
    pub capacity: u32,
    /// What its runners may take together, MiB. Default: not checked.
    pub memory_mib: Option<u64>,
    /// Share of it that `vas plan` gives away, 0.5..0.99. Default: that of [scheduler].
    pub usable_share: Option<f64>,
}

/// One `[[model]]`; a model on two devices has two.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The folder with `model.yaml`, absolute.
    pub dir: PathBuf,
    /// Where it runs, one of the devices. Default: the first; `vas plan` may choose another.
    pub device: Option<DeviceId>,
}

/// One `[[assignment]]`. `None` is not named, as for cameras.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// Id of a camera, of this file or made by the API.
    pub camera: CameraId,
    /// Id of a model as its `model.yaml` says it.
    pub model: ModelId,
    /// The model whose detections it looks at. Default: none, it looks at whole frames.
    pub parent_model: Option<ModelId>,
    /// Ceiling in frames per second, 0.1..30. Default: every frame.
    pub desired_fps: Option<f64>,
    /// 0..100. Default 50.
    pub priority: Option<u8>,
    /// Second stage: regions of one frame that are looked at at most, 1..64. Default 16.
    pub max_regions: Option<u32>,
    /// Overrides the model's deadline, milliseconds.
    pub deadline_ms: Option<u64>,
    /// Parameters of the model, a JSON object. Default: the model's.
    pub parameters: Option<serde_json::Map<String, serde_json::Value>>,
    /// Whether it should run. Default true.
    pub enabled: Option<bool>,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file can't be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is wrong, in at least one place.
    Invalid {
        /// The file.
        file: PathBuf,
        /// What is wrong, by line.
        problems: Vec<Problem>,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { file, source } => write!(
                f,
                "configuration {} can't be read: {source}; name another with --config FILE",
                file.display()
            ),
            ConfigError::Invalid { file, problems } => {
                for (i, problem) in problems.iter().enumerate() {
                    let separator = if i == 0 { "" } else { "\n" };
                    match problem.line {
                        0 => write!(f, "{separator}{}: {}", file.display(), problem.text)?,
                        n => write!(f, "{separator}{}:{n}: {}", file.display(), problem.text)?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// What the process's environment has to say.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `AI_FRAME_EXPORT_ENABLED`.
    pub frame_export: Option<String>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// Cores this process may use.
    pub cores: usize,
}

impl Environment {
    /// Of this process.
    pub fn current() -> Environment {
        Environment {
            frame_export: std::env::var(EXPORT_VARIABLE).ok(),
            runtime_dir: std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl Config {
    /// Reads `file`, or `vas.toml` of the working directory.
    ///
    /// # Errors
    /// [`ConfigError`], with every problem of the file at once.
    pub fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
        let given = file.unwrap_or(Path::new(FILE_NAME));
        let unreadable = |source| ConfigError::Unreadable { file: given.to_owned(), source };
        let text = fs::read_to_string(given).map_err(unreadable)?;
        let absolute = std::path::absolute(given).map_err(unreadable)?;
        Config::parse(&text, &absolute, &Environment::current()).map_err(|problems| {
            // People know the file by the name they gave.
            ConfigError::Invalid { file: given.to_owned(), problems }
        })
    }

    /// Like [`Config::load`], but the defaults when no file was named and none is there.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_or_default(file: Option<&Path>) -> Result<Config, ConfigError> {
        if file.is_some() || Path::new(FILE_NAME).exists() {
            return Config::load(file);
        }
        let directory = std::path::absolute(".").unwrap_or_else(|_| PathBuf::from("."));
        let nowhere = directory.join(FILE_NAME);
        let parsed = Config::parse("", &nowhere, &Environment::current());
        let config = parsed.map_err(|problems| ConfigError::Invalid { file: nowhere, problems })?;
        Ok(Config { file: None, ..config })
    }

    /// Checks the text of a configuration file. `file` is absolute; relative paths inside resolve
    /// against its directory.
    ///
    /// # Errors
    /// Every problem found, by line.
    pub fn parse(
        text: &str,
        file: &Path,
        environment: &Environment,
    ) -> Result<Config, Vec<Problem>> {
        let directory = file.parent().unwrap_or(Path::new("/"));
        let (source, top) = Source::parse(text, directory);
        let Some(top) = top else { return Err(source.problems()) };
        let config = read(top, file, directory, environment, &source);
        let problems = source.problems();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// Where a model runs.
    pub fn device_of<'a>(&'a self, model: &'a Model) -> &'a DeviceId {
        model.device.as_ref().unwrap_or(&self.devices[0].id)
    }

    /// What is legal but probably not meant, for `vas config check`.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for assignment in &self.assignments {
            if !self.cameras.iter().any(|camera| camera.id == assignment.camera) {
                warnings.push(format!(
                    "assignment of model `{}` names camera `{}`, which this file does not have; serve \
                     rejects it unless the API made that camera",
                    assignment.model, assignment.camera
                ));
            }
        }
        if !self.frame_export && !self.assignments.is_empty() {
            warnings.push(format!(
                "frame export is off: no assignment gets a frame; set [frame_export] enabled = true or \
                 {EXPORT_VARIABLE}=true"
            ));
        }
        let mut seen: BTreeMap<String, &CameraId> = BTreeMap::new();
        for camera in &self.cameras {
            for url in [Some(&camera.main_url), camera.sub_url.as_ref()].into_iter().flatten() {
                let Some(identity) = api::camera_url::identity(url) else { continue };
                if let Some(first) = seen.insert(identity, &camera.id) {
                    warnings.push(format!(
                        "camera `{}` reads {}, as camera `{first}` does: two sessions to one stream",
                        camera.id,
                        source_url::shown(url)
                    ));
                }
            }
            if let Some(path) = camera.file()
                && !path.is_file()
            {
                warnings.push(format!("camera `{}`: {} is not a file", camera.id, path.display()));
            }
        }
        for root in self.file_roots.iter().filter(|root| !root.is_dir()) {
            let root = root.display();
            warnings.push(format!("[cameras] file_roots: {root} is not a directory"));
        }
        self.warn_of_models(&mut warnings);
        warnings
    }
}

impl Config {
    fn warn_of_models(&self, warnings: &mut Vec<String>) {
        let mut provided: BTreeMap<String, &Path> = BTreeMap::new();
        for model in &self.models {
            let (dir, device) = (&model.dir, self.device_of(model));
            let spec = runner::model_yaml::load(dir);
            let has_engine = spec.as_ref().is_ok_and(ModelSpec::has_gpu_engine);
            if !device.as_str().starts_with(CPU) && !has_engine {
                warnings.push(format!(
                    "model of {} is to run on `{device}`: this build runs models on CPUs only, its \
                     runner does not start",
                    dir.display()
                ));
            }
            let id = match spec {
                Ok(spec) => {
                    let socket = self.directories.runner_socket(&spec.model_id, device);
                    warnings.extend(long_socket(&socket));
                    spec.model_id.to_string()
                }
                Err(error) => {
                    warnings.extend(error.lines());
                    // serve lists it under the name of its folder.
                    dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned()
                }
            };
            if let Some(first) = provided.get(&id) {
                if *first == dir {
                    // The same model on another device.
                    continue;
                }
                warnings.push(format!(
                    "model `{id}` of {} is also provided by {}; serve uses the latter: give one another \
                     model_id or remove it",
                    dir.display(),
                    first.display()
                ));
            } else {
                provided.insert(id, dir);
            }
        }
        for Assignment { camera, model, parent_model, .. } in &self.assignments {
            let has = |parent: &ModelId| {
                self.assignments.iter().any(|a| a.camera == *camera && a.model == *parent)
            };
            if let Some(parent) = parent_model.as_ref().filter(|parent| !has(parent)) {
                warnings.push(format!(
                    "assignment of camera `{camera}` names parent model `{parent}`, which this file does not \
                     assign to that camera; serve rejects it unless the API did"
                ));
            }
            if !provided.contains_key(model.as_str()) {
                warnings.push(format!(
                    "assignment of camera `{camera}` names model `{model}`, which no [[model]] provides; serve \
                     rejects it"
                ));
            }
        }
    }
}

/// Why a socket can't have this path, if that is so.
fn long_socket(path: &Path) -> Option<String> {
    let (bytes, most) = (path.as_os_str().len(), limits::SOCKET_PATH_BYTES_MAX);
    (bytes > most).then(|| {
        format!(
            "socket {} has {bytes} bytes, at most {most} are possible: name a shorter [dirs] runtime, \
             or give model or device a shorter id; the runner does not start",
            path.display()
        )
    })
}

fn read(
    mut top: Section<'_>,
    file: &Path,
    directory: &Path,
    environment: &Environment,
    source: &Source,
) -> Config {
    let mut http = top.section("http");
    let bind = http.parsed("bind", |text| {
        text.parse::<SocketAddr>()
            .map_err(|_| "must be an address and a port such as 127.0.0.1:8080".to_owned())
    });
    if let Some(at) = &bind
        && !at.value.ip().is_loopback()
    {
        http.wrong(
            at.line,
            "bind",
            format_args!(
                "is {}, must be a loopback address: requests are not authenticated",
                at.value
            ),
        );
    }
    if let Some(at) = &bind
        && at.value.port() == 0
    {
        let text = format_args!(
            "is {}, must have a port from 1 to 65535: others have to know where serve answers",
            at.value
        );
        http.wrong(at.line, "bind", text);
    }
    http.finish();

    let mut dirs = top.section("dirs");
    let runtime = environment.runtime_dir.as_ref().map_or("/run/vas".into(), |d| d.join("vas"));
    let directories = Directories {
        shm: dirs.path("shm").map_or("/dev/shm/vas".into(), |at| at.value),
        runtime: dirs.path("runtime").map_or(runtime, |at| at.value),
        state: dirs.path("state").map_or(directory.join("vas-data"), |at| at.value),
    };
    dirs.finish();

    let mut export = top.section("frame_export");
    let configured = export.boolean("enabled").is_some_and(|at| at.value);
    export.finish();
    let frame_export = match environment.frame_export.as_deref() {
        None => configured,
        Some("true" | "1") => true,
        Some("false" | "0") => false,
        Some(other) => {
            source.problem(
                0,
                format_args!("{EXPORT_VARIABLE} is \"{other}\", must be true or false"),
            );
            configured
        }
    };

    let mut events = top.section("events");
    let store_empty = events.boolean("store_empty").is_some_and(|at| at.value);
    let retention_days = events.parsed("retention", days);
    let keep_free = events.parsed("keep_free", size::parse);
    events.finish();

    let mut files = top.section("cameras");
    let file_roots = files.list("file_roots", |text| match text {
        "" => Err("a path can't be empty"),
        path => Ok(directory.join(path)),
    });
    files.finish();

    let recording = recording(&mut top, &directories.state);
    let media = media(&mut top, &recording);
    let mut webrtc = top.section("webrtc");
    let udp_port = webrtc.integer("udp_port", 0..=u64::from(u16::MAX));
    let announce = webrtc.list("announce", |text| {
        text.parse::<IpAddr>().map_err(|_| "must be an IP address such as 192.0.2.7")
    });
    webrtc.finish();
    let webrtc = Webrtc {
        udp_port: udp_port.and_then(|at| u16::try_from(at.value).ok()).unwrap_or(WEBRTC_PORT),
        announce: announce.map(|at| at.value).unwrap_or_default(),
    };

    let mut runner = top.section("runner");
    let onnxruntime = runner.path("onnxruntime").map(|at| at.value);
    let threads = runner.integer("threads", 1..=THREADS_MAX).map(|at| at.value);
    let threads = threads.and_then(|n| usize::try_from(n).ok());
    runner.finish();
    let half = (environment.cores / 2).max(1);
    let threads = threads.unwrap_or(half);

    let mut scheduler = top.section("scheduler");
    let capacity = scheduler.integer("cpu_capacity", 1..=CAPACITY_MAX);
    let usable_share = scheduler.number("usable_share", USABLE_SHARE).map(|at| at.value);
    let steering = scheduler.parsed("steering", |text| match text {
        "off" => Ok(Steering::Off),
        "auto" => Ok(Steering::Auto),
        "on" => Ok(Steering::On),
        _ => Err("must be off, auto or on"),
    });
    scheduler.finish();
    let capacity_default = u32::try_from((half / threads).max(1)).unwrap_or(u32::MAX);
    let devices = devices(&mut top, capacity.as_ref(), capacity_default);
    let cpu = devices.iter().find(|device| device.id.as_str() == CPU);
    let cpu_capacity = cpu.map_or_else(
        || capacity.as_ref().map_or(capacity_default, |at| narrow(at.value)),
        |cpu| cpu.capacity,
    );

    let config = Config {
        file: Some(file.to_owned()),
        bind: bind.map_or(SocketAddr::from(([127, 0, 0, 1], 8080)), |at| at.value),
        directories,
        frame_export,
        store_empty,
        retention_days: retention_days.map_or(RETENTION_DAYS_DEFAULT, |at| at.value),
        file_roots: file_roots.map(|at| at.value).unwrap_or_default(),
        keep_free: keep_free.map_or(KEEP_FREE_DEFAULT, |at| at.value),
        media,
        recording,
        webrtc,
        onnxruntime,
        threads,
        cpu_capacity,
        usable_share: usable_share.unwrap_or(scheduler::Config::default().usable_share),
        steering: steering.map_or(Steering::default(), |at| at.value),
        cameras: cameras(&mut top, directory),
        models: models(&mut top, &devices),
        devices,
        assignments: assignments(&mut top),
    };
    top.finish();
    config
}

fn recording(top: &mut Section<'_>, state: &Path) -> Recording {
    let mut section = top.section("recording");
    let dir = section.path("dir").map(|at| at.value);
    let days = section.parsed("retention", days);
    let high = section.integer("disk_high_percent", 2..=99);
    let low = section.integer("disk_low_percent", 1..=98);
    let keep = section.parsed("keep_at_least", duration);
    let (high_default, low_default) = DISK_PERCENT;
    let recording = Recording {
        dir: dir.unwrap_or_else(|| state.join("recordings")),
        retention_days: days.map_or(RECORDING_DAYS_DEFAULT, |at| at.value),
        disk_high_percent: high.as_ref().map_or(high_default, |at| at.value),
        disk_low_percent: low.as_ref().map_or_else(
            || low_default.min(high.as_ref().map_or(high_default, |at| at.value) - 1),
            |at| at.value,
        ),
        keep_at_least: keep.map_or(KEEP_AT_LEAST, |at| at.value),
    };
    if let Some(at) = &low
        && at.value >= recording.disk_high_percent
    {
        let text = format_args!(
            "is {}, must be below disk_high_percent, which is {}",
            at.value, recording.disk_high_percent
        );
        section.wrong(at.line, "disk_low_percent", text);
    }
    section.finish();
    recording
}

fn media(top: &mut Section<'_>, recording: &Recording) -> Media {
    let mut section = top.section("media");
    let days = section.parsed("retention", days);
    let percent = section.integer("max_percent", 0..=97);
    let low = recording.disk_low_percent;
    let media = Media {
        retention_days: days.map_or(MEDIA_DAYS_DEFAULT, |at| at.value),
        max_percent: percent
            .as_ref()
            .map_or_else(|| MEDIA_PERCENT_DEFAULT.min(low.saturating_sub(1)), |at| at.value),
    };
    if let Some(at) = &percent
        && at.value >= low
    {
        let text = format_args!(
            "is {}, must be below disk_low_percent of [recording], which is {low}: recordings would be \
             removed down to nothing for it",
            at.value
        );
        section.wrong(at.line, "max_percent", text);
    }
    section.finish();
    media
}

/// Whole days, `1d` to ten years.
fn days(text: &str) -> Result<u64, String> {
    let days = text.strip_suffix('d').and_then(|n| n.parse::<u64>().ok());
    days.filter(|days| (1..=RETENTION_DAYS_MAX).contains(days))
        .ok_or_else(|| format!("must be whole days, \"1d\" to \"{RETENTION_DAYS_MAX}d\""))
}

/// A whole number of seconds, minutes, hours or days, up to ten years.
fn duration(text: &str) -> Result<Duration, String> {
    let read = || {
        let (at, unit) = text.char_indices().next_back()?;
        let (_, seconds) = UNITS.into_iter().find(|(of, _)| *of == unit)?;
        let number = &text[..at];
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = digits.then(|| number.parse::<u64>().ok()?.checked_mul(seconds))??;
        (seconds <= RETENTION_DAYS_MAX * 86_400).then(|| Duration::from_secs(seconds))
    };
    read().ok_or_else(|| {
        format!(
            "must be whole seconds, minutes, hours or days, \"0s\" to \"{RETENTION_DAYS_MAX}d\""
        )
    })
}

/// Units of a duration, and their seconds.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// The address of a stream; what is wrong with it is told without credentials.
fn address(section: &mut Section<'_>, key: &'static str, directory: &Path) -> Option<At<String>> {
    let At { line, value: text } = section.text(key)?;
    match source_url::parse(&text, directory) {
        Ok(value) => Some(At { line, value }),
        Err(error) => {
            let shown = source_url::shown(&text);
            section.wrong(line, key, format_args!("is \"{shown}\": {error}"));
            None
        }
    }
}

fn word(text: &str, allowed: &[&str]) -> Result<String, String> {
    if allowed.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("must be one of {}", allowed.join(", ")))
}

fn cameras(top: &mut Section<'_>, directory: &Path) -> Vec<Camera> {
    let mut cameras = Vec::new();
    let mut seen = BTreeMap::new();
    for mut section in top.sections("camera") {
        let id = section.parsed("id", CameraId::new);
        let name = section.parsed("name", |text| short(text, 1));
        let description = section.parsed("description", |text| short(text, 0));
        let location = section.parsed("location", |text| short(text, 0));
        let url = address(&mut section, "main_url", directory);
        let sub = address(&mut section, "sub_url", directory);
        let sub_roles = section.list("sub_roles", |text| word(text, &["record", "live", "detect"]));
        let transport = section.parsed("transport", |text| word(text, &["tcp", "udp"]));
        let record = section.boolean("record").map(|at| at.value);
        let live = section.boolean("live").map(|at| at.value);
        let export = section.boolean("export").map(|at| at.value);
        let offset = section.integer("loop_offset_ms", 0..=LOOP_OFFSET_MS_MAX);
        let enabled = section.boolean("enabled").map(|at| at.value);
        if let Some(at) = &id {
            unique(&section, &mut seen, "id", at.line, at.value.to_string());
        }
        if let (Some(main), Some(at)) = (&url, &sub)
            && main.value == at.value
        {
            section.wrong(at.line, "sub_url", "is main_url itself, must be another stream");
        }
        if let (None, Some(at)) = (&sub, &sub_roles) {
            section.wrong(at.line, "sub_roles", "needs sub_url, which this camera does not have");
        }
        section.require("id");
        section.require("main_url");
        if let (Some(id), Some(url)) = (id, url) {
            cameras.push(Camera {
                id: id.value,
                name: name.map(|at| at.value),
                description: description.map(|at| at.value),
                location: location.map(|at| at.value),
                main_url: url.value,
                sub_url: sub.map(|at| at.value),
                sub_roles: sub_roles.map(|at| at.value),
                transport: transport.map(|at| at.value),
                record,
                live,
                export,
                loop_offset_ms: offset.map(|at| at.value),
                enabled,
            });
        }
        section.finish();
    }
    cameras
}

fn short(text: &str, least: usize) -> Result<String, String> {
    if (least..=NAME_BYTES_MAX).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!("has {} bytes, must be {least} to {NAME_BYTES_MAX}", text.len()))
    }
}

/// A number that was read with an upper limit far below.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The devices; `cpu` when the file has none that is right.
fn devices(
    top: &mut Section<'_>,
    cpu_capacity: Option<&At<u64>>,
    capacity_default: u32,
) -> Vec<Device> {
    let mut devices = Vec::new();
    let mut seen = BTreeMap::new();
    let cpu = cpu_capacity.map_or(capacity_default, |at| narrow(at.value));
    for mut section in top.sections("device") {
        let id = section.parsed("id", DeviceId::new);
        let capacity = section.integer("capacity", 1..=CAPACITY_MAX);
        let memory_mib = section.integer("memory_mib", 1..=MEMORY_MIB_MAX).map(|at| at.value);
        let usable_share = section.number("usable_share", USABLE_SHARE).map(|at| at.value);
        section.require("id");
        if let Some(At { line, value: id }) = id {
            unique(&section, &mut seen, "id", line, id.to_string());
            let is_cpu = id.as_str() == CPU;
            if let (true, Some(here), Some(there)) = (is_cpu, &capacity, cpu_capacity)
                && here.value != there.value
            {
                let text = format_args!(
                    "is {}, but `cpu_capacity` in [scheduler] on line {} says {}: keep one of them",
                    here.value, there.line, there.value
                );
                section.wrong(here.line, "capacity", text);
            }
            let default = if is_cpu { cpu } else { 1 };
            let capacity = capacity.map_or(default, |at| narrow(at.value));
            devices.push(Device { id, capacity, memory_mib, usable_share });
        }
        section.finish();
    }
    if devices.is_empty() {
        let id = DeviceId::new(CPU).expect("`cpu` is a valid id");
        devices.push(Device { id, capacity: cpu, memory_mib: None, usable_share: None });
    }
    devices
}

fn models(top: &mut Section<'_>, devices: &[Device]) -> Vec<Model> {
    let mut models = Vec::new();
    let mut seen = BTreeMap::new();
    for mut section in top.sections("model") {
        let dir = section.path("dir");
        let device = section.parsed("device", |text| {
            let id = DeviceId::new(text).map_err(|e| e.to_string())?;
            if devices.iter().any(|device| device.id == id) {
                return Ok(id);
            }
            let known: Vec<&str> = devices.iter().map(|device| device.id.as_str()).collect();
            Err(format!("no [[device]] has this id; known are {}", known.join(", ")))
        });
        let device = device.map(|at| at.value);
        section.require("dir");
        if let Some(dir) = dir {
            let shown = device.as_ref().unwrap_or(&devices[0].id);
            let shown = format!("{}` on `{shown}", dir.value.display());
            unique(&section, &mut seen, "dir", dir.line, shown);
            models.push(Model { dir: dir.value, device });
        }
        section.finish();
    }
    models
}

fn assignments(top: &mut Section<'_>) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    let mut seen = BTreeMap::new();
    for mut section in top.sections("assignment") {
        let camera = section.parsed("camera", CameraId::new);
        let model = section.parsed("model", ModelId::new);
        let parent = section.parsed("parent_model", ModelId::new);
        let (low, high) = limits::MAX_FPS_RANGE;
        let desired_fps = section.number("desired_fps", low..=high).map(|at| at.value);
        let priority = section.integer("priority", 0..=100);
        let priority = priority.and_then(|at| u8::try_from(at.value).ok());
        let (least, most) = limits::MAX_REGIONS_RANGE;
        let regions = section.integer("max_regions", least.into()..=most.into());
        if let (Some(at), None) = (&regions, &parent) {
            let text = format_args!("is for a second stage, which names its parent_model");
            section.wrong(at.line, "max_regions", text);
        }
        let max_regions = regions.and_then(|at| u32::try_from(at.value).ok());
        let deadline_ms = section.integer("deadline_ms", 1..=DEADLINE_MS_MAX).map(|at| at.value);
        let parameters = section.json("parameters");
        let enabled = section.boolean("enabled").map(|at| at.value);
        let most = limits::PARAMETERS_BYTES_MAX;
        let size = |at: &At<_>| serde_json::to_string(&at.value).map_or(usize::MAX, |t| t.len());
        if let Some(at) = &parameters
            && size(at) > most
        {
            let size = size(at);
            let text = format_args!("is {size} bytes of JSON, at most {most} are allowed");
            section.wrong(at.line, "parameters", text);
        }
        section.require("camera");
        section.require("model");
        if let (Some(model), Some(at)) = (&model, &parent)
            && model.value == at.value
        {
            let text = format_args!("is the model itself, must be another model");
            section.wrong(at.line, "parent_model", text);
        }
        if let (Some(camera), Some(model)) = (camera, model) {
            let shown = format!("{}` with model `{}", camera.value, model.value);
            unique(&section, &mut seen, "camera", camera.line, shown);
            assignments.push(Assignment {
                camera: camera.value,
                model: model.value,
                parent_model: parent.map(|at| at.value),
                desired_fps,
                priority,
                max_regions,
                deadline_ms,
                parameters: parameters.map(|at| at.value),
                enabled,
            });
        }
        section.finish();
    }
    assignments
}

fn unique(
    section: &Section<'_>,
    seen: &mut BTreeMap<String, usize>,
    key: &str,
    line: usize,
    value: String,
) {
    match seen.get(&value) {
        Some(first) => {
            let text = format_args!("`{value}` is already used on line {first}");
            section.wrong(line, key, text);
        }
        None => {
            seen.insert(value, line);
        }
    }
}

#[cfg(test)]
mod tests;
