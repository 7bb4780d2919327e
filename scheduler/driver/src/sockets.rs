//! All sockets: finds runners and serve, waits for what they send or for the core's next instant, reads
//! and checks it, and notices who is gone. It never writes anything but the first greeting.

use crate::pending::Pending;
use base::limits::{HANG_LIMIT, PROTOCOL_VERSION};
use base::log_gate::LogGate;
use base::{DeviceId, InstanceId, ModelId};
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
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What happened at a socket.
pub(crate) enum Event {
    RunnerUp { runner: RunnerKey, hello: Box<Hello>, stream: Arc<UnixStream> },
    Runner { runner: RunnerKey, message: RunnerMessage },
    RunnerDown { runner: RunnerKey },
    RunnerGone { instance: InstanceId },
    ServeUp { stream: Arc<UnixStream> },
    ServeDown,
}

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The process should end.
    Stop,
    /// Events may be there: see [`Sockets::next`].
    Go,
}

/// How often the runtime directory is looked through. A restarted runner or serve is found within
/// this time.
const SCAN: Duration = Duration::from_millis(250);
/// A socket that gave no sound greeting is left alone for this long.
const RETRY: Duration = Duration::from_secs(2);
/// Bytes per read.
const READ_BYTES: usize = 256 * 1024;

struct Peer {
    stream: Arc<UnixStream>,
    name: String,
    model: ModelId,
    device: DeviceId,
    reassembly: Reassembly,
    /// `None` until Hello.
    key: Option<RunnerKey>,
    since: base::Instant,
}

pub(crate) struct Sockets {
    directories: Directories,
    instance: InstanceId,
    peers: Vec<Peer>,
    serve: Option<Arc<UnixStream>>,
    /// Events that are not of a peer's bytes, until they are taken.
    events: VecDeque<Event>,
    /// Places of the peers that have something to read, ascending. The last one goes first: removing it
    /// moves none of the others.
    ready: Vec<usize>,
    /// Whether the last of them was read since it became ready. Each gets one read, so that none
    /// keeps the others waiting.
    was_read: bool,
    refused: BTreeMap<InstanceId, (ModelId, DeviceId)>,
    /// Sockets to leave alone until then.
    later: BTreeMap<String, base::Instant>,
    /// Problems of each socket that is there, of watching them all, and of finding more.
    told: BTreeMap<String, LogGate>,
    unwatched: LogGate,
    unfound: LogGate,
    next_key: u64,
    next_scan: base::Instant,
    buffer: Vec<u8>,
}

impl Sockets {
    pub fn new(directories: Directories, instance: InstanceId) -> Sockets {
        Sockets {
            directories,
            instance,
            peers: Vec::new(),
            serve: None,
            events: VecDeque::new(),
            ready: Vec::new(),
            was_read: false,
            refused: BTreeMap::new(),
            later: BTreeMap::new(),
            told: BTreeMap::new(),
            unwatched: LogGate::default(),
            unfound: LogGate::default(),
            next_key: 1,
            next_scan: base::Instant::ZERO,
            buffer: vec![0; READ_BYTES],
        }
    }

    /// This instance is refused from now on: its lock is watched, and it is said when the process is gone.
    pub fn refuse(&mut self, instance: InstanceId, model: ModelId, device: DeviceId) {
        self.refused.insert(instance, (model, device));
    }

    /// Waits for input, a desired state or `until`. What was ready before must have been taken.
    pub fn wait(&mut self, stop: &Stop, pending: &Pending, until: base::Instant) -> Woken {
        let now = clock::monotonic();
        if now >= self.next_scan {
            self.next_scan = now + SCAN;
            self.scan(now);
        }
        let wait =
            if self.events.is_empty() { self.next_scan.min(until) - now } else { Duration::ZERO };
        let mut fds = Vec::with_capacity(3 + self.peers.len());
        fds.push(PollFd::new(stop, PollFlags::IN));
        fds.push(PollFd::new(pending, PollFlags::IN));
        fds.extend(self.peers.iter().map(|p| PollFd::new(p.stream.as_ref(), PollFlags::IN)));
        fds.extend(self.serve.iter().map(|s| PollFd::new(s.as_ref(), PollFlags::IN)));
        let timeout =
            Timespec { tv_sec: wait.as_secs() as _, tv_nsec: i64::from(wait.subsec_nanos()) };
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Woken::Go,
            Ok(_) => {}
            // More sockets than the limit of descriptors, or no memory: nothing to hurry for.
            Err(error) => {
                drop(fds);
                say(
                    &mut self.unwatched,
                    format!(
                        "{} runner sockets can't be watched: {error}; raise the limits of the \
                         scheduler (ulimit -n, LimitNOFILE)",
                        self.peers.len()
                    ),
                );
                return if stop.wait(wait) { Woken::Stop } else { Woken::Go };
            }
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        if ready(&fds[0]) {
            return Woken::Stop;
        }
        let (peers, serve) = fds[2..].split_at(self.peers.len());
        self.ready.extend(peers.iter().enumerate().filter(|(_, fd)| ready(fd)).map(|(at, _)| at));
        if serve.first().is_some_and(ready) {
            drop(fds);
            self.read_serve();
        }
        Woken::Go
    }

    /// The next event that is there.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let at = *self.ready.last()?;
            match self.message(at) {
                Ok(Some(event)) => return Some(event),
                Ok(None) if self.was_read => self.leave(),
                Ok(None) => match self.read(at) {
                    Ok(()) => self.was_read = true,
                    Err(problem) => self.drop_peer(at, problem),
                },
                Err(problem) => self.drop_peer(at, Some(problem)),
            }
        }
    }

    /// The last of those that are ready has given what it had.
    fn leave(&mut self) {
        self.ready.pop();
        self.was_read = false;
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
                self.events.push_back(Event::ServeDown);
            }
        }
    }

    /// Reads once. An error ends the connection; without a text it was the peer that did.
    fn read(&mut self, at: usize) -> Result<(), Option<String>> {
        let peer = &mut self.peers[at];
        match (&mut peer.stream.as_ref()).read(&mut self.buffer) {
            Ok(0) => Err(None),
            Ok(n) => {
                peer.reassembly.extend(&self.buffer[..n]);
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(Some(e.to_string())),
        }
    }

    /// The next whole message of those that were read.
    fn message(&mut self, at: usize) -> Result<Option<Event>, String> {
        let peer = &mut self.peers[at];
        let decoded = peer.reassembly.next(RunnerMessage::decode).map_err(|e| e.to_string())?;
        let Some(message) = decoded else { return Ok(None) };
        match (peer.key, message.map_err(|e| e.to_string())?) {
            (Some(runner), message) => Ok(Some(Event::Runner { runner, message })),
            (None, RunnerMessage::Hello(hello)) => self.greet(at, hello).map(Some),
            (None, _) => Err("its first message is not Hello; is it a runner?".into()),
        }
    }

    fn greet(&mut self, at: usize, hello: Hello) -> Result<Event, String> {
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
        Ok(Event::RunnerUp { runner, hello: Box::new(hello), stream })
    }

    fn drop_peer(&mut self, at: usize, problem: Option<String>) {
        let peer = self.peers.remove(at);
        self.ready.retain(|other| *other < at);
        self.was_read = false;
        // Both ends should know; the other one may be gone already.
        let _ = peer.stream.shutdown(std::net::Shutdown::Both);
        self.later.insert(
            peer.name.clone(),
            clock::monotonic() + if problem.is_some() { RETRY } else { SCAN },
        );
        if let Some(problem) = problem {
            let line = format!("runner socket {}: {problem}", peer.name);
            say(self.told.entry(peer.name).or_default(), line);
        }
        if let Some(runner) = peer.key {
            self.events.push_back(Event::RunnerDown { runner });
        }
    }

    /// Looks for new sockets, silent peers and processes that are gone.
    fn scan(&mut self, now: base::Instant) {
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
            self.events.push_back(Event::RunnerGone { instance });
        }
        for at in (0..self.peers.len()).rev() {
            if self.peers[at].key.is_none() && now - self.peers[at].since > HANG_LIMIT {
                self.drop_peer(at, Some("it does not say Hello; is the runner stopped?".into()));
            }
        }
        if self.serve.is_none() {
            match connect(&self.directories.events_socket()) {
                Ok(stream) => {
                    let stream = Arc::new(stream);
                    self.serve = Some(stream.clone());
                    tracing::info!("connected to serve");
                    self.events.push_back(Event::ServeUp { stream });
                }
                Err(error) => self.short_of_descriptors(&error),
            }
        }
        let entries = match std::fs::read_dir(&self.directories.runtime) {
            Ok(entries) => entries,
            Err(error) => return self.short_of_descriptors(&error),
        };
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
