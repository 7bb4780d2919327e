//! Starts the threads of serve and stops them.
//!
//! | thread | waits on | never waits on |
//! |---|---|---|
//! | intake | `events.sock` | disk, HTTP |
//! | commit | its channel, the disk | |
//! | clips-1, clips-2 | clips that are due, one `vas media` at a time | |
//! | media | the disk, ten minutes | |
//! | stills | its channel | the ring's writer |
//! | upkeep | the disk, once a second | |
//! | http (tokio, 2 + at most 40) | clients, disk, stills | intake |

use crate::commit::{Commit, CommitLimits, Committed, Committer, EventCounters};
use crate::config_rows::NamedFiles;
use crate::configuration::Configuration;
use crate::disk::{self, Demands};
use crate::http::listener;
use crate::http::routes::Router;
use crate::ingest_link::IngestLink;
use crate::intake::{self, Intake};
use crate::limits::{HANDLERS_MAX, HttpLimits};
use crate::live::Live;
use crate::media::probe::Probes;
use crate::media::{Media, Setup};
use crate::options::{Options, ServeError};
use crate::publish::{PublishError, Published};
use crate::registry::Registry;
use crate::services::Services;
use crate::stills::Stills;
use crate::upkeep;
use base::limits::CLIPS_AT_ONCE;
use base::log_gate::LogGate;
use ipc::clock;
use ipc::instance::InstanceLock;
use ipc::recording::Recordings;
use ipc::stop::Stop;
use std::cell::RefCell;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use store::{Control, EventOptions, EventStore, EventWriter, NewEvent};
use tokio::sync::watch;
use tracing::{error, info, warn};

/// Threads that have clips cut.
const CLIPS: [&str; CLIPS_AT_ONCE] = ["clips-1", "clips-2"];

/// Bounds that an operator does not set.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Clients.
    pub http: HttpLimits,
    /// Groups of events.
    pub commit: CommitLimits,
}

/// A running serve. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop_http: watch::Sender<bool>,
    stop_wait: Duration,
    runtime: Option<tokio::runtime::Runtime>,
    http: Option<tokio::task::JoinHandle<()>>,
    /// Ends the intake when it is dropped.
    stop_intake: Option<std::os::unix::net::UnixStream>,
    /// Ends the upkeep when it is dropped.
    stop_upkeep: Option<Sender<()>>,
    /// Ends media jobs.
    stopping: Arc<AtomicBool>,
    threads: Vec<(&'static str, JoinHandle<()>)>,
    events_socket: std::path::PathBuf,
    /// Held as long as this serve lives.
    _lock: InstanceLock,
}

/// Serves until `stop`.
///
/// # Errors
/// [`ServeError`] says why it could not start or why it ended.
pub fn serve(options: Options, stop: Stop) -> Result<(), ServeError> {
    let server = Server::start(options, Limits::default())?;
    info!("serving on http://{}", server.address());
    while !stop.wait(Duration::from_secs(1)) {
        if let Some(part) = server.ended() {
            return Err(ServeError::PartEnded(part));
        }
    }
    server.stop();
    Ok(())
}

impl Server {
    /// Starts everything, or nothing: on an error all that was begun has ended.
    ///
    /// # Errors
    /// [`ServeError`] names the thing and the remedy.
    pub fn start(options: Options, limits: Limits) -> Result<Server, ServeError> {
        if !options.bind.ip().is_loopback() {
            return Err(ServeError::NotLoopback(options.bind));
        }
        let directories = options.directories.clone();
        directory("runtime", &directories.runtime)?;
        directory("state", &directories.state)?;
        let lock = InstanceLock::take(&directories.instance_lock("serve"), "vas serve")?;
        let listen = |source| ServeError::Listen { address: options.bind, source };
        let http = listener::bind(options.bind).map_err(listen)?;
        let address = http.local_addr().map_err(listen)?;

        let accepted = ipc::clock_trust::accepted_in(&directories.state);
        let disk = options.disk.clone();
        let event_options = EventOptions {
            retention: options.retention,
            free_space_floor_bytes: options.keep_free,
            free_space: Arc::new(move |dir| Ok(disk.space(dir)?.free)),
            accepted: Arc::new(move || ipc::clock_trust::accepted(&accepted)),
            ..EventOptions::default()
        };
        let (writer, events) = EventStore::open(&directories.state, event_options)?;
        let control = Control::open(&directories.state)?;
        let registry = Registry::new(options.models);
        let named = NamedFiles::of(&options.cameras);
        let published = Published::before(directories.desired(), options.export_enabled, named);
        let configuration = Configuration::new(options.cameras, options.assignments);
        match configuration.apply::<ServeError>(&control, &registry, &published) {
            // Ingest makes room as long as it runs, and it runs as long as this does.
            Err(error) if error.is_full() => {
                error!("{error}; serving what was published before until there is room");
            }
            applied => applied?,
        }

        let stopping = Arc::new(AtomicBool::new(false));
        let (command, roots) = (options.media_command.clone(), options.file_roots);
        let probes = Probes::new(command, roots, stopping.clone());
        let together = disk::same(&directories.state, &options.recordings);
        let demands = Demands {
            keep_free: options.keep_free,
            high_percent: together.then_some(options.disk_high_percent),
        };
        let setup = Setup {
            state: directories.state.clone(),
            holds: directories.holds(),
            recordings: options.recordings.clone(),
            command: options.media_command,
            disk: options.disk,
            options: options.media,
            demands,
            stopping: stopping.clone(),
        };
        let (media, clips, keeper) = Media::start(setup, &control)?;
        if let Some(contradiction) = media.room.contradiction() {
            warn!("{contradiction}");
        }
        let counters = Arc::new(EventCounters::default());
        let (commit, committer) = Commit::channel(limits.commit, counters.clone());
        let (stills, stills_worker) = Stills::channel(directories.shm.clone());
        let live = Arc::new(Live::default());
        let intake = Intake {
            live: live.clone(),
            commit,
            counters: counters.clone(),
            cameras: published.cameras(),
            store_empty: options.store_empty,
        };
        let events_socket = directories.events_socket();
        let socket_error =
            |source| ServeError::EventsSocket { path: events_socket.clone(), source };
        let socket = intake::bind(&events_socket).map_err(socket_error)?;
        let (stop_intake, intake_stop) = Stop::pair().map_err(socket_error)?;
        let services = Arc::new(Services {
            version: options.version,
            started: clock::monotonic(),
            export_enabled: options.export_enabled,
            registry,
            control,
            events,
            live,
            counters,
            stills,
            recordings: Recordings::new(options.recordings),
            published,
            configuration,
            ingest: IngestLink::new(directories.ingest_socket()),
            media,
            probes,
        });

        let start = |source| ServeError::Start { what: "the http runtime", source };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(HANDLERS_MAX)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(start)?;
        let (stop_http, http_stop) = watch::channel(false);
        let (stop_upkeep, upkeep_stop) = channel();
        let mut server = Server {
            address,
            stop_http,
            stop_wait: limits.http.stop_wait,
            runtime: None,
            http: None,
            stop_intake: Some(stop_intake),
            stop_upkeep: Some(stop_upkeep),
            stopping,
            threads: vec![],
            events_socket,
            _lock: lock,
        };
        server.thread("commit", move || commit_thread(committer, writer))?;
        server.thread("stills", move || stills_worker.run())?;
        for name in CLIPS {
            let clips = clips.clone();
            server.thread(name, move || clips.run())?;
        }
        server.thread("media", move || keeper.run())?;
        server.thread("intake", move || {
            if let Err(error) = intake.run(&socket, &intake_stop) {
                error!("results of the scheduler can't be taken any more: {error}");
            }
        })?;
        let looked_after = services.clone();
        server.thread("upkeep", move || upkeep::run(&looked_after, &upkeep_stop))?;
        let router = Arc::new(Router::new(services, &limits.http));
        let entered = runtime.enter();
        let http = tokio::net::TcpListener::from_std(http).map_err(start)?;
        drop(entered);
        server.http = Some(runtime.spawn(listener::run(http, router, limits.http, http_stop)));
        server.runtime = Some(runtime);
        Ok(server)
    }

    /// Where HTTP listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A part that ended although nobody stopped it.
    pub fn ended(&self) -> Option<&'static str> {
        let thread = self.threads.iter().find(|(_, thread)| thread.is_finished());
        let http = self.http.as_ref().is_some_and(tokio::task::JoinHandle::is_finished);
        thread.map(|(name, _)| *name).or(http.then_some("http"))
    }

    /// Stops: answers under way are finished, events that wait are committed.
    pub fn stop(self) {
        drop(self);
    }

    fn thread(
        &mut self,
        name: &'static str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), ServeError> {
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(run)
            .map_err(|source| ServeError::Start { what: name, source })?;
        self.threads.push((name, thread));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // No more results; then no more clients, whose handlers hold the stills thread's channel;
        // then the threads find their channels closed.
        drop(self.stop_intake.take());
        drop(self.stop_upkeep.take());
        self.stopping.store(true, Ordering::Release);
        self.stop_http.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            if let Some(http) = self.http.take() {
                let _ = runtime.block_on(http);
            }
            runtime.shutdown_timeout(self.stop_wait);
        }
        for (name, thread) in self.threads.drain(..) {
            if thread.join().is_err() {
                error!("the {name} thread panicked");
            }
        }
        if let Err(error) = fs::remove_file(&self.events_socket) {
            warn!("can't remove {}: {error}", self.events_socket.display());
        }
    }
}

impl ServeError {
    /// Whether serve starts all the same: there is no room now, and there will be.
    fn is_full(&self) -> bool {
        match self {
            ServeError::Store(error) => error.is_full(),
            ServeError::DesiredState { source, .. } => store::no_room(source),
            _ => false,
        }
    }
}

impl From<PublishError> for ServeError {
    fn from(error: PublishError) -> ServeError {
        ServeError::DesiredState { path: error.path, source: error.source }
    }
}

fn directory(purpose: &'static str, path: &Path) -> Result<(), ServeError> {
    let made = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        // Only writing tells whether one can: modes, read-only mounts, quotas.
        let probe = path.join(format!(".serve.{}.probe", std::process::id()));
        File::create(&probe).and_then(|_| fs::remove_file(&probe))
    };
    match made() {
        // What belongs there is made when there is room.
        Err(error) if purpose == "state" && store::no_room(&error) => Ok(()),
        made => {
            made.map_err(|source| ServeError::Directory { purpose, path: path.to_owned(), source })
        }
    }
}

fn commit_thread(committer: Committer, writer: EventWriter) {
    // The closures run on this thread, one at a time.
    let writer = RefCell::new(writer);
    let append = |group: Vec<NewEvent>| {
        let each = writer.borrow_mut().append(&group).map_err(|error| error.to_string())?;
        let stored = each.iter().filter(|one| one.is_ok()).count();
        let rejected = each.iter().filter_map(|one| one.as_ref().err().map(ToString::to_string));
        Ok(Committed { stored, rejected: rejected.collect() })
    };
    let expire = || {
        if let Err(error) = writer.borrow_mut().expire() {
            warn!("events past retention stay until the next try: {error}");
        }
    };
    let mut gate = LogGate::default();
    let keep = || match writer.borrow_mut().keep() {
        Err(error) => {
            let line = error.to_string();
            if gate.allows(&line, clock::monotonic()) {
                error!("{line}");
            }
        }
        Ok(()) if gate.clear() => info!("the events are whole again"),
        Ok(()) => {}
    };
    committer.run(append, expire, keep);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn retention_works_while_nothing_is_appended() {
        let directory = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(clock::utc().0));
        // Both clocks go on by as much: UTC alone would be in doubt.
        let (read, start) = (now.clone(), now.load(Ordering::SeqCst));
        let passed = {
            let now = now.clone();
            move || base::Instant(now.load(Ordering::SeqCst) - start)
        };
        let options = EventOptions {
            retention: Duration::from_secs(86_400),
            free_space_floor_bytes: 0,
            clock: Arc::new(move || base::UtcNanos(read.load(Ordering::SeqCst))),
            monotonic: Arc::new(passed),
            ..EventOptions::default()
        };
        let (mut writer, events) = EventStore::open(directory.path(), options).unwrap();
        writer.append(&[testing::event(1)]).unwrap().remove(0).unwrap();
        let stored = || events.list(&store::EventQuery::default()).unwrap().events.len();
        assert_eq!(stored(), 1);
        let limits =
            CommitLimits { expire_every: Duration::from_millis(1), ..CommitLimits::default() };
        let (commit, committer) = Commit::channel(limits, Arc::default());
        let thread = std::thread::spawn(move || commit_thread(committer, writer));
        now.fetch_add(3 * 86_400 * base::time::NANOS_PER_SEC, Ordering::SeqCst);
        let begun = std::time::Instant::now();
        while stored() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the day is still there");
            std::thread::yield_now();
        }
        drop(commit);
        thread.join().unwrap();
    }
}
