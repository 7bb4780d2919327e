//! The sockets thread: finds runners and serve, reads and checks what they send, notices who is
//! gone. It never writes anything but the first greeting.

use crate::inbox::Backlog;
use base::limits::{HANG_LIMIT, PROTOCOL_VERSION};
use base::log_gate::LogGate;
use base::{DeviceId, InstanceId, ModelId};
use crossbeam_channel::{Receiver, Sender};
use ipc::clock;
use ipc::descriptors;
use ipc::directories::Directories;
use ipc::framing::{self, Reassembly};
use ipc::instance::InstanceLock;
use ipc::runner_message::{Encoder, Hello, RunnerMessage, Welcome};
use ipc::stop::Stop;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use scheduler::RunnerKey;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the core's thread is told.
pub(crate) enum Event {
    /// The process should end.
    Stop,
    /// A new desired state waits.
    Desired,
    RunnerUp {
        runner: RunnerKey,
        hello: Box<Hello>,
        stream: Arc<UnixStream>,
    },
    Runner {
        runner: RunnerKey,
        message: Box<RunnerMessage>,
        /// What it adds to the backlog.
        bytes: usize,
    },
    RunnerDown {
        runner: RunnerKey,
    },
    RunnerGone {
        instance: InstanceId,
    },
    ServeUp {
        stream: Arc<UnixStream>,
    },
    ServeDown,
}

/// What the core's thread tells the sockets thread.
pub(crate) enum ToSockets {
    /// This instance is refused; watch its lock and say when the process is gone.
    Refused { instance: InstanceId, model: ModelId, device: DeviceId },
}

/// How often the runtime directory is looked through. A restarted runner or serve is found within
/// this time.
const SCAN: Duration = Duration::from_millis(250);
/// A socket that gave no sound greeting is left alone for this long.
const RETRY: Duration = Duration::from_secs(2);
/// Bytes per read.
const READ_BYTES: usize = 256 * 1024;
/// While the core is behind with what was read, it gets so much time before the next look (chosen: it
/// handles a message in microseconds).
const BEHIND: Duration = Duration::from_millis(2);

struct Peer {
    stream: Arc<UnixStream>,
    name: String,
    model: ModelId,
    device: DeviceId,
    reassembly: Reassembly,
    /// `None` until Hello.
    key: Option<RunnerKey>,
    since: Instant,
}

pub(crate) struct Sockets {
    pub directories: Directories,
    pub instance: InstanceId,
    pub events: Sender<Event>,
    pub orders: Receiver<ToSockets>,
    backlog: Arc<Backlog>,
    peers: Vec<Peer>,
    serve: Option<Arc<UnixStream>>,
    refused: BTreeMap<InstanceId, (ModelId, DeviceId)>,
    /// Sockets to leave alone until then.
    later: BTreeMap<String, Instant>,
    /// Problems of each socket that is there, of watching them all, and of finding more.
    told: BTreeMap<String, LogGate>,
    unwatched: LogGate,
    unfound: LogGate,
    next_key: u64,
    buffer: Vec<u8>,
}

impl Sockets {
    pub fn new(
        directories: Directories,
        instance: InstanceId,
        events: Sender<Event>,
        orders: Receiver<ToSockets>,
        backlog: Arc<Backlog>,
    ) -> Sockets {
        Sockets {
            directories,
            instance,
            events,
            orders,
            backlog,
            peers: Vec::new(),
            serve: None,
            refused: BTreeMap::new(),
            later: BTreeMap::new(),
            told: BTreeMap::new(),
            unwatched: LogGate::default(),
            unfound: LogGate::default(),
            next_key: 1,
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Runs until `stop`.
    pub fn run(mut self, stop: &Stop) {
        let mut scanned: Option<Instant> = None;
        loop {
            while let Ok(ToSockets::Refused { instance, model, device }) = self.orders.try_recv() {
                self.refused.insert(instance, (model, device));
            }
            if scanned.is_none_or(|at| at.elapsed() >= SCAN) {
                scanned = Some(Instant::now());
                self.scan();
            }
            let wait = SCAN.saturating_sub(scanned.map_or(SCAN, |at| at.elapsed()));
            let Some(ready) = self.poll(stop, wait) else {
                self.tell(Event::Stop);
                return;
            };
            // From the back: removing a peer does not move the ones before it.
            for at in ready.into_iter().rev() {
                self.read(at);
            }
        }
    }

    /// Waits for input. `None` = stop; else the peers to read, ascending.
    fn poll(&mut self, stop: &Stop, mut wait: Duration) -> Option<Vec<usize>> {
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        fds.extend(self.serve.iter().map(|s| PollFd::new(s.as_ref(), PollFlags::IN)));
        if self.backlog.is_full() {
            wait = wait.min(BEHIND);
        } else {
            fds.extend(self.peers.iter().map(|p| PollFd::new(p.stream.as_ref(), PollFlags::IN)));
        }
        let timeout =
            Timespec { tv_sec: wait.as_secs() as _, tv_nsec: i64::from(wait.subsec_nanos()) };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Some(Vec::new()),
            // More sockets than the limit of descriptors, or no memory: nothing to hurry for.
            Err(error) => {
                drop(fds);
                say(
                    &mut self.unwatched,
                    format!(
                        "{} runner sockets can't be watched: {error}; raise \
                    the limits of the scheduler (ulimit -n, LimitNOFILE)",
                        self.peers.len()
                    ),
                );
                return (!stop.wait(wait)).then(Vec::new);
            }
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let (first, mut rest) = ready.split_first()?;
        if *first {
            return None;
        }
        if self.serve.is_some() {
            let (serve, peers) = rest.split_first()?;
            rest = peers;
            if *serve {
                self.read_serve();
            }
        }
        Some((0..self.peers.len()).filter(|i| rest.get(*i) == Some(&true)).collect())
    }

    /// Serve sends nothing: whatever can be read is its end.
    fn read_serve(&mut self) {
        let Some(stream) = &self.serve else { return };
        let mut scratch = [0; 64];
        match (&mut stream.as_ref()).read(&mut scratch) {
            Ok(n) if n > 0 => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            _ => {
                self.serve = None;
                tracing::warn!("serve is gone; results are dropped until it is back");
                self.tell(Event::ServeDown);
            }
        }
    }

    fn tell(&self, event: Event) {
        // The core's thread ends only together with this one.
        let _ = self.events.send(event);
    }

    fn read(&mut self, at: usize) {
        let stream = self.peers[at].stream.clone();
        match (&mut stream.as_ref()).read(&mut self.buffer) {
            Ok(0) => self.drop_peer(at, None),
            Ok(n) => {
                self.peers[at].reassembly.extend(&self.buffer[..n]);
                if let Err(problem) = self.messages(at) {
                    self.drop_peer(at, Some(problem));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => self.drop_peer(at, Some(e.to_string())),
        }
    }

    /// Hands every whole message on.
    fn messages(&mut self, at: usize) -> Result<(), String> {
        loop {
            let peer = &mut self.peers[at];
            let decode = |bytes: &[u8]| (bytes.len(), RunnerMessage::decode(bytes));
            let decoded = peer.reassembly.next(decode).map_err(|e| e.to_string())?;
            let Some((bytes, message)) = decoded else { return Ok(()) };
            let message = message.map_err(|e| e.to_string())?;
            match (peer.key, message) {
                (Some(runner), message) => {
                    self.backlog.add(bytes);
                    self.tell(Event::Runner { runner, message: Box::new(message), bytes });
                }
                (None, RunnerMessage::Hello(hello)) => self.greet(at, hello)?,
                (None, _) => return Err("its first message is not Hello; is it a runner?".into()),
            }
        }
    }

    fn greet(&mut self, at: usize, hello: Hello) -> Result<(), String> {
        let peer = &mut self.peers[at];
        if hello.protocol != PROTOCOL_VERSION {
            let text = "runner speaks protocol version";
            let both = format!("{}, this scheduler {PROTOCOL_VERSION}", hello.protocol);
            return Err(format!("{text} {both}; install one version of vas"));
        }
        if hello.model_id != peer.model || hello.device != peer.device {
            return Err(format!("it says it is {} on {}", hello.model_id, hello.device));
        }
        if self.refused.contains_key(&hello.instance) {
            return Err("this instance hung before and is refused; restart the runner".into());
        }
        let mut encoder = Encoder::default();
        let welcome = Welcome { protocol: PROTOCOL_VERSION, instance: self.instance };
        let message = RunnerMessage::Welcome(welcome);
        // An empty socket buffer takes 40 bytes at once.
        framing::write_message(&mut peer.stream.as_ref(), message.encode(&mut encoder))
            .map_err(|e| e.to_string())?;
        let runner = RunnerKey(self.next_key);
        self.next_key += 1;
        peer.key = Some(runner);
        let stream = peer.stream.clone();
        self.tell(Event::RunnerUp { runner, hello: Box::new(hello), stream });
        Ok(())
    }

    fn drop_peer(&mut self, at: usize, problem: Option<String>) {
        let peer = self.peers.remove(at);
        // Both ends should know; the other one may be gone already.
        let _ = peer.stream.shutdown(std::net::Shutdown::Both);
        self.later.insert(
            peer.name.clone(),
            Instant::now() + if problem.is_some() { RETRY } else { SCAN },
        );
        if let Some(problem) = problem {
            let line = format!("runner socket {}: {problem}", peer.name);
            say(self.told.entry(peer.name).or_default(), line);
        }
        if let Some(runner) = peer.key {
            self.tell(Event::RunnerDown { runner });
        }
    }

    /// Looks for new sockets, silent peers and processes that are gone.
    fn scan(&mut self) {
        let gone: Vec<InstanceId> = self
            .refused
            .iter()
            .filter(|(_, (model, device))| {
                !InstanceLock::held(&self.directories.runner_lock(model, device))
            })
            .map(|(instance, _)| *instance)
            .collect();
        for instance in gone {
            self.refused.remove(&instance);
            self.tell(Event::RunnerGone { instance });
        }
        for at in (0..self.peers.len()).rev() {
            if self.peers[at].key.is_none() && self.peers[at].since.elapsed() > HANG_LIMIT {
                self.drop_peer(at, Some("it does not say Hello; is the runner stopped?".into()));
            }
        }
        if self.serve.is_none() {
            match connect(&self.directories.events_socket()) {
                Ok(stream) => {
                    let stream = Arc::new(stream);
                    self.serve = Some(stream.clone());
                    tracing::info!("connected to serve");
                    self.tell(Event::ServeUp { stream });
                }
                Err(error) => self.short_of_descriptors(&error),
            }
        }
        let entries = match std::fs::read_dir(&self.directories.runtime) {
            Ok(entries) => entries,
            Err(error) => return self.short_of_descriptors(&error),
        };
        let now = Instant::now();
        let mut there = BTreeSet::new();
        self.later.retain(|_, until| *until > now);
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((model, device)) = Directories::parse_runner_socket(&name) else { continue };
            there.insert(name.clone());
            let known = self.peers.iter().any(|p| p.name == name);
            if known || self.later.contains_key(&name) {
                continue;
            }
            match connect(&entry.path()) {
                Ok(stream) => self.peers.push(Peer {
                    stream: Arc::new(stream),
                    name,
                    model,
                    device,
                    reassembly: Reassembly::default(),
                    key: None,
                    since: now,
                }),
                // A dead runner's socket, or one that takes no more connections.
                Err(error) => {
                    self.short_of_descriptors(&error);
                    self.later.insert(name, now + RETRY);
                }
            }
        }
        self.told.retain(|name, _| there.contains(name));
    }

    /// Everything else that keeps a socket from being found is a matter of time.
    fn short_of_descriptors(&mut self, error: &io::Error) {
        if let Some(why) = descriptors::used_up(error) {
            say(&mut self.unfound, format!("runners and serve are not found: {why}"));
        }
    }
}

/// Logs a problem, once.
fn say(gate: &mut LogGate, line: String) {
    if gate.allows(&line, clock::monotonic()) {
        tracing::warn!("{line}");
    }
}

/// Connects without waiting: a listener that does not accept is an error.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}
