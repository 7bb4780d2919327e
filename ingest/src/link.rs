//! The link from a camera to its decode worker: queue, process, watchdog, restarts.
//!
//! Sources call [`Link::push`], which never waits. A thread of the link's own starts the worker,
//! writes to it as fast as it reads, listens to it, ends it when it does not move, and starts it
//! again with backoff. The thread lives as long as its worker: the kernel ends a worker whose
//! parent *thread* ends (PR_SET_PDEATHSIG).

use crate::backoff::{Backoff, LogGate};
use crate::counters::Counters;
use crate::queue::UnitQueue;
use crate::unit::AccessUnit;
use crate::watchdog::Watchdog;
use crate::worker_message::{Configuration, HEADER, Progress, Said, ToWorker, UnitHeader};
use base::limits::DECODER_DATA_BYTES_MAX;
use base::told::plain;
use base::{CameraId, Instant};
use ipc::child::{Bounds, Memory, restrain};
use ipc::clock;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use signal_hook::consts::{SIGABRT, SIGKILL};
use std::ffi::OsString;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// After a refusal (shared memory full, odd pictures) the next attempt (chosen).
pub const REFUSED: Duration = Duration::from_secs(30);
/// How long a worker may take to stop in order (chosen).
const STOP: Duration = Duration::from_secs(2);
/// What a worker may take: its ring is shared and does not count.
const BOUNDS: Bounds = Bounds { memory: Memory::Private(DECODER_DATA_BYTES_MAX), nice: 0 };

/// A running link.
pub struct Link {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What every link needs to know.
pub struct LinkOptions {
    /// Whose frames.
    pub camera: CameraId,
    /// Program and arguments of a worker.
    pub command: Vec<OsString>,
    /// What to tell the worker.
    pub configuration: Configuration,
    /// Where to count.
    pub counters: Arc<Counters>,
}

struct Shared {
    state: Mutex<State>,
    /// Readable when the state has changed.
    wake: OwnedFd,
    camera: CameraId,
    command: Vec<OsString>,
    counters: Arc<Counters>,
}

struct State {
    queue: UnitQueue,
    /// A worker lives: units are of use.
    open: bool,
    configuration: Configuration,
    /// Counts the changes of the configuration.
    version: u64,
    stop: bool,
    /// The link before, until it was waited for.
    after: Option<JoinHandle<()>>,
}

/// What was logged of a link's workers.
#[derive(Default)]
struct Gates {
    /// Why there are no frames.
    trouble: LogGate,
    /// Why they are less than wanted.
    remarks: LogGate,
}

/// How a worker's life ended.
enum End {
    /// As it was told to.
    Stopped,
    /// By itself, or it was ended.
    Died(String),
    /// It said why it can't do its work.
    Refused(String),
}

impl Link {
    /// Starts the thread, which starts the worker. `after`: the link before this one, which may
    /// still be stopping its worker; taken when the start succeeds.
    ///
    /// # Errors
    /// When the process has no descriptors or threads left.
    pub fn start(options: LinkOptions, after: &mut Option<JoinHandle<()>>) -> io::Result<Link> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let LinkOptions { camera, command, configuration, counters } = options;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queue: UnitQueue::default(),
                // From the start on: what comes while the worker starts is kept for it.
                open: true,
                configuration,
                version: 0,
                stop: false,
                after: None,
            }),
            wake: eventfd(0, flags)?,
            camera,
            command,
            counters,
        });
        let its = Arc::clone(&shared);
        // The thread begins with this lock.
        let mut state = shared.lock();
        let thread = thread::Builder::new()
            .name(format!("link:{}", shared.camera))
            .spawn(move || its.run())?;
        state.after = after.take();
        drop(state);
        Ok(Link { shared, thread })
    }

    /// Takes a unit or drops it. Never waits for the worker.
    pub fn push(&self, unit: &Arc<AccessUnit>) {
        let mut state = self.shared.lock();
        if !state.open {
            drop(state);
            self.shared.counters.unserved.add(1);
            return;
        }
        let pushed = state.queue.push(Arc::clone(unit));
        drop(state);
        self.shared.counters.overflowed.add(pushed.overflowed);
        if pushed.queued {
            self.shared.wake();
        } else if pushed.overflowed == 0 {
            self.shared.counters.unserved.add(1);
        }
    }

    /// Tells the worker something new. After a refusal it is tried again at once.
    pub fn configure(&self, configuration: Configuration) {
        let mut state = self.shared.lock();
        if state.configuration != configuration {
            state.configuration = configuration;
            state.version += 1;
            drop(state);
            self.shared.wake();
        }
    }

    /// Stops the worker in order and removes the ring; the thread ends when that is done.
    pub fn stop(self) -> JoinHandle<()> {
        self.shared.lock().stop = true;
        self.shared.wake();
        self.thread
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked with the lock held has left a state that is whole between statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Full means that it is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Waits for a change of the state, or for `deadline`.
    fn wait(&self, socket: Option<(&UnixStream, PollFlags)>, deadline: Option<Instant>) {
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        fds.extend(socket.map(|(socket, flags)| PollFd::new(socket, flags)));
        let wait = deadline.map(|deadline| deadline.since(clock::monotonic()));
        let wait = wait.map(|wait| Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        // Interrupted or not: the caller looks at everything again.
        let _ = poll(&mut fds, wait.as_ref());
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
    }

    fn run(&self) {
        let after = self.lock().after.take();
        if let Some(after) = after {
            // A panic there has been printed; its worker died with its thread.
            let _ = after.join();
        }
        let camera = &self.camera;
        let (mut backoff, mut gates) = (Backoff::default(), Gates::default());
        loop {
            let start = clock::monotonic();
            let (end, version) = self.life(&mut gates);
            let now = clock::monotonic();
            let (line, pause) = match end {
                End::Stopped => break,
                End::Refused(why) => (format!("frame export is off: {why}"), REFUSED),
                End::Died(why) => (format!("decode worker {why}"), backoff.pause(now - start)),
            };
            self.counters.export.set(&line);
            if gates.trouble.allows(&line, now) {
                tracing::error!(%camera, "{line}; trying again in {:.2} s", pause.as_secs_f64());
            }
            let stopped = self.pause(now + pause, version);
            if stopped {
                break;
            }
            self.counters.restarts.add(1);
            let mut state = self.lock();
            state.queue.reset();
            state.open = true;
        }
        // Nobody wants its frames any more.
        self.counters.export.set("");
        // Whatever became of the worker: a camera without export has no ring.
        let shm = self.lock().configuration.shm.clone();
        if let Err(e) = ipc::ring::sweep(&shm, |name| name != camera.as_str()) {
            tracing::warn!(%camera, "can't remove the ring in {}: {e}", shm.display());
        }
    }

    /// Waits between two lives until `deadline`, or until the configuration is another one; true =
    /// stop.
    fn pause(&self, deadline: Instant, version: u64) -> bool {
        loop {
            let mut state = self.lock();
            state.open = false;
            state.queue.reset();
            if state.stop {
                return true;
            }
            if state.version != version || clock::monotonic() >= deadline {
                return false;
            }
            drop(state);
            self.wait(None, Some(deadline));
        }
    }

    /// One life of one worker, and the version of the configuration that it knew.
    fn life(&self, gates: &mut Gates) -> (End, u64) {
        let version = self.lock().version;
        let (child, socket) = match self.spawn() {
            Ok(started) => started,
            Err(why) => return (End::Died(why), version),
        };
        let mut conversation = Conversation {
            shared: self,
            socket,
            child: child.id(),
            outgoing: Outgoing {
                header: [0; HEADER],
                payload: Payload::None,
                written: 0,
                pending: false,
            },
            incoming: Vec::new(),
            sequence: 0,
            version: None,
            stopping: false,
            watchdog: Watchdog::new(clock::monotonic()),
            known: Progress::default(),
            remark: String::new(),
        };
        let end = conversation.hold(gates);
        let version = conversation.version.unwrap_or(version);
        (finish(child, end), version)
    }

    fn spawn(&self) -> Result<(Child, UnixStream), String> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err("has no command to start it".into());
        };
        let sockets = UnixStream::pair().and_then(|(ours, its)| {
            ours.set_nonblocking(true)?;
            Ok((ours, its))
        });
        let (ours, its) = sockets.map_err(|e| format!("got no socket: {e}"))?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(its)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("`{}` can't be started: {e}", program.display()))?;
        if let Err(e) = restrain(child.id(), BOUNDS) {
            // One that has ended already says so itself.
            tracing::debug!(camera = %self.camera, "can't bound decode worker {}: {e}", child.id());
        }
        Ok((child, ours))
    }
}

/// Ends what is left of the process, and says how it ended.
fn finish(mut child: Child, end: End) -> End {
    // Its socket is closed or of no use. One that has exited already does not notice.
    let _ = child.kill();
    let status = child.wait();
    match (end, status) {
        (End::Died(why), Ok(status)) if why.is_empty() => End::Died(died_of(status)),
        (end, _) => end,
    }
}

/// How a worker ended that said nothing, and what it most likely died of.
fn died_of(status: ExitStatus) -> String {
    let most = DECODER_DATA_BYTES_MAX >> 20;
    let cause = match status.signal() {
        // What the allocator does when it gets nothing.
        Some(SIGABRT) => {
            format!(": it may have needed more than the {most} MiB of memory that a worker has")
        }
        Some(SIGKILL) => ": the system may have had no memory left".to_owned(),
        _ => String::new(),
    };
    format!("ended: {status}{cause}")
}

/// Bytes on their way: a header and its payload, partly written.
struct Outgoing {
    header: [u8; HEADER],
    payload: Payload,
    written: usize,
    pending: bool,
}

enum Payload {
    None,
    Text(Vec<u8>),
    Unit(Arc<AccessUnit>),
}

impl Payload {
    fn bytes(&self) -> &[u8] {
        match self {
            Payload::None => &[],
            Payload::Text(text) => text,
            Payload::Unit(unit) => &unit.data,
        }
    }
}

impl Outgoing {
    fn begin(&mut self, message: ToWorker, payload: Payload) {
        self.header = message.encode(payload.bytes().len());
        (self.payload, self.written, self.pending) = (payload, 0, true);
    }

    /// Writes what the socket takes; false when it would have to wait.
    fn write(&mut self, socket: &mut &UnixStream) -> io::Result<bool> {
        let payload = self.payload.bytes();
        while self.written < HEADER + payload.len() {
            let header = self.header.get(self.written..).unwrap_or_default();
            let rest = &payload[self.written.saturating_sub(HEADER)..];
            match socket.write_vectored(&[IoSlice::new(header), IoSlice::new(rest)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        (self.payload, self.pending) = (Payload::None, false);
        Ok(true)
    }
}

/// One life of one worker, as ingest sees it.
struct Conversation<'a> {
    shared: &'a Shared,
    socket: UnixStream,
    child: u32,
    outgoing: Outgoing,
    incoming: Vec<u8>,
    sequence: u64,
    /// The configuration that the worker has.
    version: Option<u64>,
    /// It was told to stop; nothing else will be said.
    stopping: bool,
    watchdog: Watchdog,
    known: Progress,
    /// What it could not have as configured.
    remark: String,
}

impl Conversation<'_> {
    fn hold(&mut self, gates: &mut Gates) -> End {
        let mut stop_by = None;
        loop {
            if stop_by.is_none() && self.shared.lock().stop {
                stop_by = Some(clock::monotonic() + STOP);
            }
            match self.listen(gates) {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(why) => return End::Died(why),
            }
            let blocked = match self.talk() {
                Ok(blocked) => blocked,
                // Its own words, if there are any, say more.
                Err(_) => match self.listen(gates) {
                    Ok(Some(end)) => return end,
                    _ => return End::Died(String::new()),
                },
            };
            let deadline = stop_by.or(self.watchdog.deadline());
            if deadline.is_some_and(|deadline| clock::monotonic() >= deadline) {
                let process = self.child;
                return match stop_by {
                    Some(_) => End::Stopped,
                    None => End::Died(format!("{process} made no progress and was ended")),
                };
            }
            let flags = if blocked { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            self.shared.wait(Some((&self.socket, flags)), deadline);
        }
    }

    /// Writes as much as the worker takes; true when it takes no more.
    fn talk(&mut self) -> io::Result<bool> {
        loop {
            if self.outgoing.pending && !self.outgoing.write(&mut &self.socket)? {
                return Ok(true);
            }
            if self.stopping {
                return Ok(false);
            }
            let mut state = self.shared.lock();
            if state.stop {
                state.open = false;
                state.queue.reset();
                self.outgoing.begin(ToWorker::Stop, Payload::None);
                self.stopping = true;
            } else if self.version != Some(state.version) {
                self.version = Some(state.version);
                let text = serde_json::to_vec(&state.configuration).map_err(io::Error::other)?;
                self.outgoing.begin(ToWorker::Configuration, Payload::Text(text));
            } else if let Some((unit, flags)) = state.queue.pop() {
                self.sequence += 1;
                let header = UnitHeader {
                    codec: unit.codec,
                    flags,
                    sequence: self.sequence,
                    media: unit.media,
                    capture: unit.capture,
                    capture_utc: unit.capture_utc,
                };
                self.outgoing.begin(ToWorker::Unit(header), Payload::Unit(unit));
                self.watchdog.sent(self.sequence, clock::monotonic());
            } else {
                return Ok(false);
            }
        }
    }

    /// Reads what the worker said. `Some` when it has ended.
    fn listen(&mut self, gates: &mut Gates) -> Result<Option<End>, String> {
        let mut bytes = [0; 4096];
        loop {
            match (&self.socket).read(&mut bytes) {
                Ok(0) => return Ok(Some(self.ended())),
                Ok(count) => self.incoming.extend(&bytes[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Ok(Some(self.ended())),
            }
            if let Some(end) = self.understand(gates)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    fn ended(&self) -> End {
        if self.shared.lock().stop { End::Stopped } else { End::Died(String::new()) }
    }

    fn understand(&mut self, gates: &mut Gates) -> Result<Option<End>, String> {
        while let Some(header) = self.incoming.first_chunk::<HEADER>() {
            let (progress, said) = Progress::decode(header).map_err(|e| format!("said: {e}"))?;
            let (Said::Refusal(text) | Said::Remark(text)) = said else {
                self.incoming.drain(..HEADER);
                self.heard(progress, gates);
                continue;
            };
            let Some(message) = self.incoming.get(HEADER..HEADER + text) else { break };
            let message = plain(&String::from_utf8_lossy(message));
            self.incoming.drain(..HEADER + text);
            self.heard(progress, gates);
            if matches!(said, Said::Refusal(_)) {
                return Ok(Some(End::Refused(message)));
            }
            let camera = &self.shared.camera;
            if !message.is_empty() && gates.remarks.allows(&message, clock::monotonic()) {
                tracing::warn!(%camera, "{message}");
            }
            self.shared.counters.export.set(&message);
            self.remark = message;
        }
        Ok(None)
    }

    /// Counts what the worker has done.
    fn heard(&mut self, progress: Progress, gates: &mut Gates) {
        self.watchdog.heard(progress.sequence, clock::monotonic());
        let (counters, known) = (&self.shared.counters, self.known);
        counters.exported.add(progress.exported.saturating_sub(known.exported));
        counters.unexported.add(progress.unexported.saturating_sub(known.unexported));
        counters.decode_errors.add(progress.errors.saturating_sub(known.errors));
        self.known = progress;
        if progress.exported == 0 {
            return;
        }
        if known.exported == 0 {
            // What an earlier life died of is over.
            counters.export.set(&self.remark);
        }
        if gates.trouble.clear() {
            tracing::info!(camera = %self.shared.camera, "frames are exported again");
        }
    }
}
