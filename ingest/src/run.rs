//! The ingest process: one per node, follows the desired state, keeps the cameras.

use crate::camera::{Camera, Leaving, Streams, streams};
use crate::control::{Cameras, Control, Server};
use crate::counters::Counted;
use crate::live::{Hub, WebrtcOptions};
use crate::outlets::Common;
use crate::recorder::{RecordingOptions, Storage};
use base::{CameraId, Instant};
use crossbeam_channel::{RecvTimeoutError, TryRecvError};
use ipc::clock;
use ipc::desired::{self, DecodeMode, DesiredCamera, DesiredState, Version};
use ipc::directories::Directories;
use ipc::ingest_message::StreamStatus;
use ipc::instance::{InstanceError, InstanceLock};
use ipc::stop::Stop;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How often a camera's counters are logged at most (spec P1.7).
const COUNTERS: Duration = Duration::from_secs(10);
/// How long cameras may take to stop (chosen: more than the 2 s of a worker, less than the 5 s after
/// which `vas up` kills). A thread that waits for a file that hangs ends with the process.
const STOP: Duration = Duration::from_secs(4);

/// What ingest needs to know beside the desired state.
#[derive(Debug, Clone)]
pub struct Options {
    /// Roots of shared memory, runtime and state.
    pub directories: Directories,
    /// `AI_FRAME_EXPORT_ENABLED`: false = no worker, no shared memory, no decode, whatever the
    /// desired state says.
    pub export_enabled: bool,
    /// Program and arguments that start a decode worker, normally `vas decode`.
    pub decode_command: Vec<OsString>,
    /// Below these lie the clips of cameras that vas.toml does not name itself.
    pub file_roots: Vec<PathBuf>,
    /// Where recordings go and how long they stay.
    pub recording: RecordingOptions,
    /// How live view is offered.
    pub webrtc: WebrtcOptions,
}

/// Why ingest does not start.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Another one runs.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// A directory or file of its own can't be used.
    #[error("can't {action} {}: {source}; {remedy}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The command that starts decode workers is empty.
    #[error("the decode command is empty; give the program and arguments of a decode worker")]
    DecodeCommand,
    /// The process has no descriptors or threads left.
    #[error("can't start a thread: {0}; raise the limits of the process")]
    Thread(io::Error),
}

/// Runs ingest until `stop`.
///
/// # Errors
/// [`IngestError`] when it can't start. Afterwards nothing ends it but `stop`: what is wrong with
/// one camera is logged and retried for that camera.
pub fn run(options: Options, stop: Stop) -> Result<(), IngestError> {
    if options.decode_command.is_empty() {
        return Err(IngestError::DecodeCommand);
    }
    make_runtime(&options.directories.runtime)?;
    let lock = InstanceLock::take(&options.directories.instance_lock("ingest"), "vas ingest")?;
    let shm = options.directories.shm.clone();
    let storage = Storage::new(options.recording);
    storage.keep().map_err(IngestError::Thread)?;
    let hub = Hub::start(options.webrtc).map_err(IngestError::Thread)?;
    let common = Common {
        shm: shm.clone(),
        decode_command: options.decode_command,
        storage,
        live: Some(hub.clone()),
    };
    let fleet = Arc::new(Mutex::new(Some(Fleet {
        common,
        export_enabled: options.export_enabled,
        file_roots: options.file_roots.into(),
        cameras: BTreeMap::new(),
        leaving: BTreeMap::new(),
        swept: false,
        desired: Version::default(),
    })));
    if !options.export_enabled {
        // Whatever an ingest before this one left: with export off there is no shared memory.
        sweep(&shm, &|_| false);
        remove_root(&shm);
    }
    let socket = options.directories.ingest_socket();
    let cameras = Arc::new(Reached(Arc::clone(&fleet)));
    let control = Control { cameras, live: Arc::new(hub.clone()) };
    let server =
        Server::start(&socket, control, stop.clone()).map_err(|source| IngestError::Io {
            action: "listen at",
            path: socket,
            source,
            remedy: "set another runtime directory (socket paths have at most 107 bytes)",
        })?;
    tracing::info!(
        export = options.export_enabled,
        desired = %options.directories.desired().display(),
        "ingest runs"
    );
    follow(Arc::clone(&fleet), options.directories.desired()).map_err(IngestError::Thread)?;
    let mut logged = BTreeMap::new();
    let mut due = clock::monotonic() + COUNTERS;
    while !stop.wait(due.since(clock::monotonic())) {
        if clock::monotonic() < due {
            // Woken by a signal, whose stop follows.
            continue;
        }
        due = clock::monotonic() + COUNTERS;
        if let Some(fleet) = &*guard(&fleet) {
            fleet.log_counters(&mut logged);
        }
    }
    server.end();
    let last = guard(&fleet).take();
    if let Some(fleet) = last {
        fleet.stop(STOP);
    }
    hub.stop();
    remove_root(&shm);
    drop(lock);
    Ok(())
}

fn make_runtime(path: &Path) -> Result<(), IngestError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| IngestError::Io {
        action: "make the runtime directory",
        path: path.to_owned(),
        source,
        remedy: "make it writable for this user or set another runtime directory",
    })
}

fn guard(fleet: &Mutex<Option<Fleet>>) -> MutexGuard<'_, Option<Fleet>> {
    fleet.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cameras, as the control server reaches them.
struct Reached(Arc<Mutex<Option<Fleet>>>);

impl Cameras for Reached {
    fn status(&self) -> Vec<StreamStatus> {
        let now = clock::monotonic();
        let fleet = guard(&self.0);
        let cameras = fleet.iter().flat_map(|fleet| &fleet.cameras);
        let streams = cameras.flat_map(|(id, camera)| {
            camera.streams().map(move |(name, stream)| stream.status(id, name, now))
        });
        // One that has ended is not told, nor one that just takes its time.
        let leaving = fleet.iter().flat_map(|fleet| &fleet.leaving);
        let left = leaving.filter(|(id, leaving)| {
            leaving.gone.try_recv() != Err(TryRecvError::Disconnected)
                && fleet.as_ref().is_none_or(|fleet| !fleet.cameras.contains_key(id))
        });
        streams.chain(left.flat_map(|(id, leaving)| leaving.stuck(id, now))).collect()
    }

    fn desired(&self) -> Version {
        guard(&self.0).as_ref().map(|fleet| fleet.desired).unwrap_or_default()
    }

    fn reconnect(&self, id: &CameraId) -> bool {
        let fleet = guard(&self.0);
        let Some(camera) = fleet.as_ref().and_then(|fleet| fleet.cameras.get(id)) else {
            return false;
        };
        camera.streams().for_each(|(_, stream)| stream.reconnect());
        true
    }
}

/// Follows the desired state on a thread of its own, which ends with the process, or at the first
/// new state after the stop.
fn follow(fleet: Arc<Mutex<Option<Fleet>>>, file: PathBuf) -> io::Result<()> {
    let body = move || {
        let apply = |state: DesiredState| match &mut *guard(&fleet) {
            Some(fleet) => {
                fleet.reconcile(&state, clock::monotonic());
                true
            }
            None => false,
        };
        let problem = |error: &desired::LoadError| match error {
            desired::LoadError::Missing(_) => tracing::info!("{error}; waiting for it"),
            _ => tracing::error!("{error}; the cameras stay as they are"),
        };
        desired::follow(&file, apply, problem);
    };
    thread::Builder::new().name("desired".into()).spawn(body).map(|_| ())
}

/// All cameras of the node.
struct Fleet {
    common: Common,
    export_enabled: bool,
    cameras: BTreeMap<CameraId, Camera>,
    /// Stopped cameras, which may still be stopping.
    leaving: BTreeMap<CameraId, Leaving>,
    file_roots: Arc<[PathBuf]>,
    swept: bool,
    /// What they were made to follow last.
    desired: Version,
}

impl Fleet {
    /// Makes the cameras what the desired state says. Each on its own: what is wrong with one does
    /// not concern the others, and a camera whose row did not change is not touched.
    fn reconcile(&mut self, state: &DesiredState, now: Instant) {
        self.desired = state.version();
        let mut wanted = wanted(&state.cameras, self.export_enabled, &self.file_roots);
        if !std::mem::replace(&mut self.swept, true) {
            let exported = |name: &str| {
                let camera = CameraId::new(name).ok().and_then(|id| wanted.get(&id));
                camera.is_some_and(|streams| {
                    streams.iter().any(|(_, settings)| settings.wants.decode != DecodeMode::Off)
                })
            };
            sweep(&self.common.shm, &exported);
        }
        let remains =
            |leaving: &Leaving| leaving.gone.try_recv() != Err(TryRecvError::Disconnected);
        self.leaving.retain(|_, leaving| remains(leaving));
        let replaced = |id: &CameraId, camera: &Camera| {
            wanted.get(id).is_none_or(|streams| !camera.can_change(streams))
        };
        let gone: Vec<_> = self
            .cameras
            .iter()
            .filter(|(id, camera)| replaced(id, camera))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            if let Some(camera) = self.cameras.remove(&id) {
                tracing::info!(camera = %id, "camera stops");
                self.leaving.insert(id, camera.stop());
            }
        }
        for (id, camera) in &mut self.cameras {
            if let Some(streams) = wanted.remove(id) {
                camera.change(streams, now);
            }
        }
        for (id, streams) in wanted {
            let after = self.leaving.remove(&id).map(|leaving| leaving.gone);
            tracing::info!(camera = %id, "camera starts");
            match Camera::start(&id, streams, now, &self.common, after.as_ref()) {
                Ok(camera) => drop(self.cameras.insert(id, camera)),
                Err(e) => tracing::error!(camera = %id, "can't start a thread: {e}; raise the \
                    limits of the process"),
            }
        }
    }

    fn log_counters(&self, logged: &mut BTreeMap<(CameraId, String), Counted>) {
        logged.retain(|(id, _), _| self.cameras.contains_key(id));
        for (id, camera) in &self.cameras {
            for (name, stream) in camera.streams() {
                let counted = stream.counters.read();
                let before = logged.insert((id.clone(), name.to_owned()), counted);
                if before.unwrap_or_default() != counted {
                    tracing::info!(stream = %format_args!("{id}/{name}"), "since start: {counted}");
                }
            }
        }
    }

    /// Stops every camera and waits until they are gone, but not for ever: a source on a dead disk
    /// must not hold up the end.
    fn stop(self, wait: Duration) {
        let Fleet { cameras, leaving, .. } = self;
        let gone = cameras.into_values().map(Camera::stop).chain(leaving.into_values());
        let until = clock::monotonic() + wait;
        let late = gone.collect::<Vec<_>>().iter().any(|leaving| {
            leaving.gone.recv_timeout(until.since(clock::monotonic()))
                == Err(RecvTimeoutError::Timeout)
        });
        if late {
            tracing::warn!("some cameras did not stop within {} s", wait.as_secs());
        }
    }
}

/// The streams of every camera that should run.
fn wanted(
    rows: &[DesiredCamera],
    export_enabled: bool,
    file_roots: &Arc<[PathBuf]>,
) -> BTreeMap<CameraId, Streams> {
    let mut wanted = BTreeMap::new();
    for row in rows.iter().filter(|row| row.enabled) {
        let id = match CameraId::new(&row.id) {
            Ok(id) => id,
            Err(e) => {
                tracing::error!("desired state: {e}; the camera is left out");
                continue;
            }
        };
        if wanted.insert(id.clone(), streams(row, export_enabled, file_roots)).is_some() {
            tracing::error!(camera = %id, "desired state has this camera twice; the last row counts");
        }
    }
    wanted
}

fn sweep(shm: &Path, keep: &dyn Fn(&str) -> bool) {
    match ipc::ring::sweep(shm, keep) {
        Ok(gone) if gone.is_empty() => {}
        Ok(gone) => tracing::info!("removed left-over rings of {}", gone.join(", ")),
        Err(e) => tracing::warn!("can't remove left-over rings in {}: {e}", shm.display()),
    }
}

/// The root of the rings goes with the last of them.
fn remove_root(shm: &Path) {
    // Not empty, not there, or a mount: then it stays.
    let _ = fs::remove_dir(shm);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip_file::Places;
    use crate::outlets::Wants;
    use crate::source::{ClipPath, Source};
    use base::Epoch;

    fn row(id: &str, url: &str) -> DesiredCamera {
        DesiredCamera {
            id: id.into(),
            enabled: true,
            streams: vec![desired::DesiredStream {
                name: "main".into(),
                url: url.into(),
                transport: String::new(),
                roles: vec![],
                any_file: false,
            }],
            loop_offset_ms: 7,
            record: false,
            live: false,
            decode: DecodeMode::Full,
            deadline_ms: 500,
        }
    }

    #[test]
    fn rows_become_settings_and_a_bad_one_concerns_only_itself() {
        let rows = [
            row("a", "/clip.mp4"),
            row("b/../c", "/clip.mp4"),
            DesiredCamera { enabled: false, ..row("off", "/clip.mp4") },
            DesiredCamera { streams: vec![], ..row("none", "") },
            row("a", "/other.mp4"),
        ];
        let roots: Arc<[PathBuf]> = [PathBuf::from("/clips")].into();
        let on = wanted(&rows, true, &roots);
        assert_eq!(on.keys().map(CameraId::as_str).collect::<Vec<_>>(), ["a", "none"]);
        let (name, a) = &on[&CameraId::new("a").unwrap()][0];
        let file = |places| Source::File(ClipPath { path: "/other.mp4".into(), places });
        let below = Places::Below(Arc::clone(&roots));
        assert_eq!((name.as_str(), &a.source), ("main", &file(below)), "not named by vas.toml");
        let mut named = row("a", "/other.mp4");
        named.streams[0].any_file = true;
        assert_eq!(streams(&named, true, &roots)[0].1.source, file(Places::Anywhere));
        assert_eq!((a.offset, a.wants.decode), (Duration::from_millis(7), DecodeMode::Full));
        let off = wanted(&rows, false, &roots);
        assert!(off.values().flatten().all(|(_, s)| s.wants.decode == DecodeMode::Off));
    }

    #[test]
    fn the_first_stream_with_a_role_serves_it_else_the_first_of_all() {
        let stream = |name: &str, roles: &[&str]| desired::DesiredStream {
            name: name.into(),
            roles: roles.iter().map(|&role| role.into()).collect(),
            ..row("a", "/clip").streams.remove(0)
        };
        let of = |list: &[desired::DesiredStream]| {
            let row =
                DesiredCamera { streams: list.to_vec(), record: true, live: true, ..row("a", "") };
            let who = |f: &dyn Fn(Wants) -> bool| {
                let streams = streams(&row, true, &[].into());
                let names = streams.iter().filter(|(_, s)| f(s.wants)).map(|(n, _)| n.clone());
                names.collect::<Vec<_>>().join("+")
            };
            let decode = who(&|w| w.decode == DecodeMode::Full);
            (decode, who(&|w| w.record), who(&|w| w.live))
        };
        let all = |a: &str, b: &str, c: &str| (a.into(), b.into(), c.into());
        let (main, sub) = (stream("main", &["record"]), stream("sub", &["live", "detect"]));
        assert_eq!(of(&[main.clone(), sub]), all("sub", "main", "sub"));
        assert_eq!(of(&[main, stream("sub", &[])]), all("main", "main", "main"));
        assert_eq!(of(&[]), all("", "", ""));
    }

    #[test]
    fn a_worker_is_started_when_export_is_on_and_never_when_it_is_off() {
        let root = tempfile::tempdir().unwrap();
        let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/pedestrians.mp4");
        let mut named = row("a", clip);
        named.streams[0].any_file = true;
        let state = DesiredState {
            format: desired::FORMAT,
            epoch: Epoch(2),
            revision: 1,
            written_utc: String::new(),
            cameras: vec![named],
            subscriptions: vec![],
        };
        for export_enabled in [false, true] {
            let marker = root.path().join("worker-was-started");
            let shm = root.path().join("shm");
            let decode_command = vec!["touch".into(), marker.clone().into_os_string()];
            let storage = Storage::new(RecordingOptions::new(root.path().join("recordings")));
            let common = Common { shm: shm.clone(), decode_command, storage, live: None };
            let (cameras, leaving) = (BTreeMap::new(), BTreeMap::new());
            let (file_roots, swept) = ([].into(), false);
            let desired = Version::default();
            let mut fleet =
                Fleet { common, export_enabled, cameras, leaving, file_roots, swept, desired };
            fleet.reconcile(&state, clock::monotonic());
            assert_eq!(fleet.desired, state.version());
            for _ in 0..60_000 {
                if !export_enabled || marker.exists() {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
            fleet.stop(STOP);
            assert_eq!((marker.exists(), shm.exists()), (export_enabled, false));
        }
    }

    #[test]
    fn the_end_does_not_wait_for_a_camera_that_can_not_end() {
        let root = tempfile::tempdir().unwrap();
        let shm = root.path().join("shm");
        let storage = Storage::new(RecordingOptions::new(root.path().join("recordings")));
        let common = Common { shm, decode_command: vec![], storage, live: None };
        let mut leaving = BTreeMap::new();
        // What a thread that waits for a dead disk holds.
        let mut held = vec![];
        for id in ["a", "b"] {
            let (hold, gone) = crossbeam_channel::unbounded();
            leaving.insert(id.parse().unwrap(), Leaving::of(gone));
            held.push(hold);
        }
        let (cameras, file_roots) = (BTreeMap::new(), [].into());
        let (export_enabled, swept, desired) = (true, true, Version::default());
        let fleet = Fleet { common, export_enabled, cameras, leaving, file_roots, swept, desired };
        fleet.stop(Duration::from_millis(1));
        assert_eq!(held.len(), 2, "it came here although both are still there");
    }
}
