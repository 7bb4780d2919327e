//! A node of its own in temporary directories.

use crate::watch::wait_until;
use ingest::Options;
use ingest::live::WebrtcOptions;
use ipc::desired::{DecodeMode, DesiredCamera, DesiredState, DesiredStream, FORMAT};
use ipc::directories::Directories;
use ipc::ingest_message::{Answer, Request, StreamState, StreamStatus, call};
use ipc::stop::Stop;
use rustix::process::{Pid, Signal, kill_process};
use std::cell::Cell;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// Set to `decode` or `ingest` in the processes that this program starts of itself.
pub const ENTRY: &str = "VAS_INGEST_TEST_ENTRY";
const ROOT: &str = "VAS_INGEST_TEST_ROOT";

pub fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/assets").join(name)
}

pub fn pedestrians() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/pedestrians.mp4")
}

/// A row of the desired state.
pub struct Row(DesiredCamera);

pub fn camera(id: &str, clip: &Path) -> Row {
    camera_at(id, &format!("file://{}", clip.display()))
}

pub fn camera_at(id: &str, url: &str) -> Row {
    Row(DesiredCamera {
        id: id.into(),
        enabled: true,
        streams: vec![DesiredStream {
            name: "main".into(),
            url: url.into(),
            transport: String::new(),
            roles: vec![],
            any_file: true,
        }],
        loop_offset_ms: 0,
        record: false,
        live: false,
        decode: DecodeMode::Full,
        deadline_ms: 500,
    })
}

impl Row {
    pub fn offset(mut self, ms: u64) -> Row {
        self.0.loop_offset_ms = ms;
        self
    }

    pub fn decode(mut self, mode: DecodeMode) -> Row {
        self.0.decode = mode;
        self
    }

    /// Its address came over HTTP.
    pub fn not_named(mut self) -> Row {
        self.0.streams[0].any_file = false;
        self
    }

    pub fn udp(mut self) -> Row {
        self.0.streams[0].transport = "udp".into();
        self
    }

    /// A second stream, with its roles.
    pub fn sub(mut self, url: &str, roles: &[&str]) -> Row {
        self.0.streams.push(DesiredStream {
            name: "sub".into(),
            url: url.into(),
            transport: String::new(),
            roles: roles.iter().map(|&role| role.into()).collect(),
            any_file: true,
        });
        self
    }

    pub fn record(mut self) -> Row {
        self.0.record = true;
        self
    }

    pub fn deadline(mut self, ms: u64) -> Row {
        self.0.deadline_ms = ms;
        self
    }
}

pub struct Node {
    pub root: TempDir,
    /// Rings belong into memory where there is a place for them.
    _memory: Option<TempDir>,
    pub directories: Directories,
    revision: Cell<u64>,
}

fn directories(root: &Path, memory: &Path) -> Directories {
    Directories { shm: memory.join("vas"), runtime: root.join("run"), state: root.join("state") }
}

impl Node {
    pub fn new() -> Node {
        let root = tempfile::tempdir().unwrap();
        let memory = tempfile::tempdir_in("/dev/shm").ok();
        let at = memory.as_ref().map_or(root.path(), TempDir::path).to_owned();
        let directories = directories(root.path(), &at);
        std::fs::create_dir(&directories.state).unwrap();
        Node { root, _memory: memory, directories, revision: Cell::new(0) }
    }

    pub fn desire(&self, rows: impl IntoIterator<Item = Row>) {
        self.revision.set(self.revision.get() + 1);
        let state = DesiredState {
            format: FORMAT,
            epoch: base::Epoch(1),
            revision: self.revision.get(),
            written_utc: "2026-01-01T00:00:00Z".into(),
            cameras: rows.into_iter().map(|row| row.0).collect(),
            subscriptions: vec![],
        };
        state.store(&self.directories.desired()).unwrap();
    }

    pub fn options(&self) -> Options {
        Options {
            directories: self.directories.clone(),
            export_enabled: true,
            decode_command: again("decode"),
            file_roots: vec![],
            recording: ingest::RecordingOptions::new(self.directories.recordings()),
            // Tests run side by side.
            webrtc: WebrtcOptions { udp_port: 0, ..WebrtcOptions::default() },
        }
    }

    /// Ingest in this process.
    pub fn start(&self) -> Running {
        Running::new(self.options())
    }

    pub fn start_with<const N: usize>(&self, command: [&str; N]) -> Running {
        let decode_command = command.map(OsString::from).to_vec();
        Running::new(Options { decode_command, ..self.options() })
    }

    /// Ingest whose workers are this program as something else.
    pub fn start_again(&self, entry: &str) -> Running {
        Running::new(Options { decode_command: again(entry), ..self.options() })
    }

    pub fn start_with_roots(&self, file_roots: Vec<PathBuf>) -> Running {
        Running::new(Options { file_roots, ..self.options() })
    }

    pub fn start_export_off<const N: usize>(&self, command: [OsString; N]) -> Running {
        let decode_command = command.to_vec();
        Running::new(Options { decode_command, export_enabled: false, ..self.options() })
    }

    pub fn start_recording(&self, recording: ingest::RecordingOptions) -> Running {
        Running::new(Options { recording, ..self.options() })
    }

    /// Ingest as a process of its own.
    pub fn start_process(&self) -> Child {
        let command = again("ingest");
        Command::new(&command[0])
            .args(&command[1..])
            .env(ROOT, format!("{}|{}", self.root.path().display(), self.directories.shm.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// The decode worker of a camera, of whichever ingest.
    pub fn worker(&self, camera: &str) -> Option<i32> {
        let name = format!("dec:{camera}");
        processes().into_iter().find(|pid| names(*pid).contains(&name))
    }

    /// Children of this process by name.
    pub fn children_named(&self, name: &str) -> Vec<i32> {
        let parent = format!(" {} ", std::process::id());
        let is_ours = |pid: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // After the name: state, parent.
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest[2..].starts_with(&parent))
        };
        let named = |pid: &i32| names(*pid).iter().any(|n| n == name);
        processes().into_iter().filter(|pid| named(pid) && is_ours(pid)).collect()
    }

    pub fn ask(&self, request: &Request) -> Answer {
        let socket = self.directories.ingest_socket();
        wait_until("ingest listens", || socket.exists());
        call(&socket, request, Duration::from_secs(60)).unwrap()
    }

    /// How the stream of a camera is doing, once it is known.
    pub fn status(&self, camera: &str, stream: &str) -> Option<StreamStatus> {
        let streams = self.ask(&Request::Status).streams;
        streams.into_iter().find(|s| s.camera.as_str() == camera && s.stream == stream)
    }

    /// Waits for a state of a camera's main stream.
    pub fn wait_for(&self, camera: &str, state: StreamState) -> StreamStatus {
        wait_until(&format!("{camera} is {}", state.as_str()), || {
            self.status(camera, "main").filter(|status| status.state == state)
        })
    }

    pub fn shm_entries(&self) -> Vec<OsString> {
        let entries = std::fs::read_dir(&self.directories.shm);
        entries.map(|all| all.map(|e| e.unwrap().file_name()).collect()).unwrap_or_default()
    }

    pub fn assert_nothing_left(&self) {
        assert_eq!(self.shm_entries(), Vec::<OsString>::new());
        assert!(!self.directories.shm.exists());
        assert_eq!(std::fs::read_dir(&self.directories.runtime).unwrap().count(), 0);
    }
}

/// Ingest on a thread of this process.
pub struct Running {
    trigger: UnixStream,
    thread: JoinHandle<()>,
}

impl Running {
    fn new(options: Options) -> Running {
        let (trigger, stop) = Stop::pair().unwrap();
        let thread = std::thread::spawn(move || ingest::run(options, stop).unwrap());
        Running { trigger, thread }
    }

    pub fn stop(self) {
        drop(self.trigger);
        self.thread.join().unwrap();
    }
}

/// This program once more, as something else.
pub fn again(entry: &str) -> Vec<OsString> {
    let mut command: Vec<OsString> = vec!["env".into(), format!("{ENTRY}={entry}").into()];
    command.push(std::env::current_exe().unwrap().into());
    command.extend(["entry", "--exact", "--test-threads=1"].map(OsString::from));
    command
}

/// Ingest until standard input ends.
pub fn ingest_process() -> ExitCode {
    let roots = std::env::var(ROOT).unwrap();
    let (root, shm) = roots.split_once('|').unwrap();
    let directories =
        Directories { shm: shm.into(), ..directories(Path::new(root), Path::new(root)) };
    let (trigger, stop) = Stop::pair().unwrap();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        drop(trigger);
    });
    let decode_command = again("decode");
    let recording = ingest::RecordingOptions::new(directories.recordings());
    let webrtc = WebrtcOptions { udp_port: 0, ..WebrtcOptions::default() };
    let (export_enabled, file_roots) = (true, vec![]);
    let options =
        Options { directories, export_enabled, decode_command, file_roots, recording, webrtc };
    ingest::run(options, stop).unwrap();
    ExitCode::SUCCESS
}

fn processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Names of the threads of a process.
fn names(pid: i32) -> Vec<String> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return vec![] };
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    tasks.filter_map(|task| name(task.ok()?)).map(|name| name.trim_end().to_owned()).collect()
}

/// Whether a process exists and is not just waiting to be reaped.
pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

pub fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}

pub fn suspend(pid: i32) {
    signal(pid, Signal::STOP);
}

pub fn resume(pid: i32) {
    signal(pid, Signal::CONT);
}
