//! A `vas` process of a test, and the folder it lives in.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for a state; a machine under load must not fail a test.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Top of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("vas lies beneath the root")
}

/// The NanoDet model folder.
pub fn model() -> PathBuf {
    root().join("models/nanodet_g_416")
}

/// The clip with pedestrians.
pub fn clip() -> PathBuf {
    root().join("assets/pedestrians.mp4")
}

/// `vas` with these arguments, to its end.
pub fn vas(arguments: &[&str]) -> Output {
    command(arguments).output().expect("vas starts")
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program whose standard output has no reader any more, to its end.
pub fn unread(command: &mut Command) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

/// `vas` with these arguments.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vas"));
    command.args(arguments).stdin(Stdio::null());
    // What the surroundings of a test run say must not matter.
    for variable in ["AI_FRAME_EXPORT_ENABLED", "XDG_RUNTIME_DIR", "VAS_LOG", "RUST_BACKTRACE"] {
        command.env_remove(variable);
    }
    command
}

/// Directories and port of one node.
pub struct Place {
    pub folder: TempDir,
    pub shm: TempDir,
    pub port: u16,
}

impl Place {
    /// A node with these extra lines in its configuration.
    pub fn new(extra: &str) -> Place {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let shm = tempfile::Builder::new().prefix("vas-test.").tempdir_in("/dev/shm").unwrap();
        let place = Place { folder, shm, port };
        place.configure(extra);
        place
    }

    /// Two cameras out of phase, the NanoDet model on both, export on. The deadline is one that a busy
    /// machine keeps: what these tests are about is not how fast it is.
    pub fn with_people() -> Place {
        let camera = |id: &str, offset: u32| {
            format!(
                "[[camera]]\nid = \"{id}\"\nmain_url = \"{}\"\nloop_offset_ms = {offset}\n\
                 [[assignment]]\ncamera = \"{id}\"\nmodel = \"nanodet_g_416\"\ndesired_fps = 5\n\
                 deadline_ms = 2000\n",
                clip().display()
            )
        };
        Place::new(&format!(
            "[frame_export]\nenabled = true\n[[model]]\ndir = \"{}\"\n{}{}",
            model().display(),
            camera("one", 0),
            camera("two", 15_000)
        ))
    }

    /// Writes the configuration anew.
    pub fn configure(&self, extra: &str) {
        let text = format!(
            "[http]\nbind = \"127.0.0.1:{}\"\n[dirs]\nshm = \"{}\"\nruntime = \"run\"\nstate = \"state\"\n\
             [webrtc]\nudp_port = 0\n{extra}",
            self.port,
            self.rings().display()
        );
        fs::write(self.config(), text).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("vas.toml")
    }

    pub fn config_text(&self) -> String {
        self.config().to_str().unwrap().to_owned()
    }

    pub fn runtime(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn rings(&self) -> PathBuf {
        self.shm.path().join("rings")
    }

    /// `vas COMMAND --config ...`, to its end.
    pub fn vas(&self, arguments: &[&str]) -> Output {
        let config = self.config_text();
        vas(&[arguments, &["--config", &config]].concat())
    }

    /// Starts `vas up`.
    pub fn up(&self, arguments: &[&str]) -> Process {
        let config = self.config_text();
        Process::start(&[&["up", "--config", &config], arguments].concat())
    }

    /// Starts `vas up` and waits until it serves.
    pub fn up_serving(&self) -> Process {
        let up = self.up(&[]);
        up.wait_for("the node runs: http://");
        up
    }

    /// The body of a GET, without its head.
    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())
    }

    /// Waits until a GET's body satisfies `state`.
    #[track_caller]
    pub fn get_until(&self, path: &str, state: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let body = self.get(path);
            if state(&body) {
                return body;
            }
            assert!(start.elapsed() < PATIENCE, "{path} stays {body}");
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Nothing of a node is left in shared memory and in the runtime directory.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        for path in [self.rings(), self.runtime()] {
            let left: Vec<_> = fs::read_dir(&path)
                .map(|entries| entries.map(|e| e.unwrap().file_name()).collect())
                .unwrap_or_default();
            assert!(left.is_empty(), "{} holds {left:?}", path.display());
        }
    }
}

/// A process whose standard error is read as it comes. Killed when dropped.
pub struct Process {
    child: Child,
    log: Arc<(Mutex<Log>, Condvar)>,
}

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    ended: bool,
}

impl Process {
    /// Starts `vas` with these arguments.
    pub fn start(arguments: &[&str]) -> Process {
        Process::of(&mut command(arguments))
    }

    /// Starts a line of shell.
    pub fn shell(line: &str) -> Process {
        Process::of(Command::new("sh").args(["-c", &format!("exec {line}")]).stdin(Stdio::null()))
    }

    fn of(command: &mut Command) -> Process {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Arc::<(Mutex<Log>, Condvar)>::default();
        let (stderr, shared) = (child.stderr.take().unwrap(), log.clone());
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                shared.0.lock().unwrap().lines.push(line);
                shared.1.notify_all();
            }
            shared.0.lock().unwrap().ended = true;
            shared.1.notify_all();
        });
        Process { child, log }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The first line that holds `text`, waiting for it.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let mut log = self.log.0.lock().unwrap();
        let start = Instant::now();
        loop {
            if let Some(line) = log.lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let over = log.ended || start.elapsed() > PATIENCE;
            assert!(!over, "no `{text}` in:\n{}", log.lines.join("\n"));
            log = self.log.1.wait_timeout(log, Duration::from_secs(1)).unwrap().0;
        }
    }

    /// All of the log so far.
    pub fn text(&self) -> String {
        self.log.0.lock().unwrap().lines.join("\n")
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, and for the end of its log.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = self.log.0.lock().unwrap();
                drop(self.log.1.wait_timeout_while(log, PATIENCE, |log| !log.ended).unwrap());
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "does not end:\n{}", self.text());
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// SIGTERM, then its end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.end()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.runs() {
            self.signal("KILL");
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal by name.
pub fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), process.to_string()]).status();
    assert!(sent.unwrap().success(), "kill -{name} {process}");
}

/// Children of a process, by their first argument (`serve`, `runner`, ...).
pub fn child_of(parent: u32, name: &str) -> Option<u32> {
    let tasks = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    tasks.split(' ').filter_map(|id| id.parse::<u32>().ok()).find(|id| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).nth(1) == Some(name.as_bytes())
    })
}

/// Waits until `state` holds.
#[track_caller]
pub fn until(what: &str, mut state: impl FnMut() -> bool) {
    let start = Instant::now();
    while !state() {
        assert!(start.elapsed() < PATIENCE, "{what} does not come");
        thread::park_timeout(Duration::from_millis(20));
    }
}
