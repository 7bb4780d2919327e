//! The model process.
//!
//! Start: lock, weights, warm-up, socket, in this order: who can connect finds a runner that
//! answers. Then one thread reads messages, copies frames and drives the engine; an asynchronous engine has
//! a thread of its own, so that the next frames are copied while it executes. Another one ends the
//! process when the engine hangs. Stop: no new connections, the batch that runs is
//! answered, socket and lock are removed.

mod cap;
mod listen;
mod peer;
mod shared;
mod watchdog;
mod work;

pub use watchdog::EXIT_HUNG;

use crate::engine::{self, Engine, EngineError};
use crate::latency_cache::{FOLDER, LatencyCache};
use crate::model_yaml;
use crate::options::{DevicePolicy, Options, RunnerError};
use crate::tools::warm_up;
use base::InstanceId;
use base::limits::{HANG_LIMIT, PROFILE_GRACE, SOCKET_PATH_BYTES_MAX};
use base::model::ModelSpec;
use ipc::instance::InstanceLock;
use ipc::stop::Stop;
use latency::{LatencyBook, batch_sizes};
use listen::{Drive, Listen, listen};
use shared::Shared;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use watchdog::Watchdog;
use work::Work;

/// Runs the model process until `stop`. At the return nothing of it is left in the runtime
/// directory.
///
/// # Errors
/// [`RunnerError`] when it could not start; one line each.
pub fn serve(options: Options, stop: Stop) -> Result<(), RunnerError> {
    let spec = model_yaml::load(&options.model_dir)?;
    serve_with(&options, &spec, &stop, || engine::load(&spec, &options.engine))
}

/// [`serve`] with an engine of the caller's.
fn serve_with(
    options: &Options,
    spec: &ModelSpec,
    stop: &Stop,
    load: impl FnOnce() -> Result<Box<dyn Engine>, EngineError>,
) -> Result<(), RunnerError> {
    device(options, spec)?;
    let directories = &options.directories;
    make_runtime(&directories.runtime)?;
    let path = directories.runner_socket(&spec.model_id, &options.device);
    socket_path_fits(&path)?;
    let lock = directories.runner_lock(&spec.model_id, &options.device);
    let part = format!("vas runner of {} on {}", spec.model_id, options.device);
    let _lock = InstanceLock::take(&lock, &part)?;

    let mut engine = load()?;
    warm_up(spec, engine.as_mut())?;
    let info = engine.info().clone();
    let (cache, book) = latencies(options, spec, &info.runtime);
    let shared = Shared::new(book, spec.batch_max, engine.slots());
    let watchdog = Watchdog::default();

    let socket = Socket::bind(path)?;
    let instance = instance();
    tracing::info!(
        model = %spec.model_id, device = %options.device, policy = options.policy.as_str(),
        %instance, runtime = info.summary, socket = %socket.path.display(), "runner is ready"
    );

    let system = |what| move |source| RunnerError::System { what, source };
    let about = Listen {
        spec,
        info: &info,
        device: &options.device,
        instance,
        directories,
        shared: &shared,
    };
    let work = Work {
        spec,
        engine,
        shared: &shared,
        watchdog: &watchdog,
        cache,
        logged: None,
        capped: false,
    };
    let listened = std::thread::scope(|scope| {
        let watching = std::thread::Builder::new().name("watchdog".into());
        let watch = || watchdog.watch(|members| hung(spec, &socket.path, members));
        watching.spawn_scoped(scope, watch).map_err(system("cannot start a thread"))?;
        let listened = if work.engine.synchronous() {
            let mut work = work;
            listen(about, &socket.listener, stop, &mut Drive::Here(&mut work))
                .map_err(system("cannot wait for messages"))
        } else {
            beside(scope, work, |gone| {
                let listened = listen(about, &socket.listener, stop, &mut Drive::Beside(gone));
                socket.unlink();
                shared.stop();
                listened.map_err(system("cannot wait for messages"))
            })
        };
        socket.unlink();
        watchdog.finish();
        listened
    });
    if listened.is_ok() {
        tracing::info!(model = %spec.model_id, device = %options.device, "runner stopped");
    }
    listened
}

/// Drives the engine on a thread of its own while `listen` runs, which is to return soon after its
/// argument is set: the thread has ended then.
fn beside<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    work: Work<'scope>,
    listen: impl FnOnce(&Stop) -> Result<(), RunnerError>,
) -> Result<(), RunnerError> {
    let system = |what| move |source| RunnerError::System { what, source };
    let (running, gone) = Stop::pair().map_err(system("no descriptors left"))?;
    let work = move || {
        // Dropped when the thread ends, however it ends.
        let _running = running;
        work.run();
    };
    let worker = std::thread::Builder::new().name("engine".into());
    let worker = worker.spawn_scoped(scope, work).map_err(system("cannot start a thread"))?;
    let listened = listen(&gone);
    if worker.join().is_err() {
        let source = io::Error::other("the engine thread panicked");
        return Err(RunnerError::System { what: "the runner ends", source });
    }
    listened
}

/// D13: what may run where.
fn device(options: &Options, spec: &ModelSpec) -> Result<(), RunnerError> {
    let refuse = |why: String, remedy: &'static str| {
        Err(RunnerError::Device {
            model: spec.model_id.clone(),
            why,
            looked_for: "an engine for GPUs in this build (there is none)",
            remedy,
        })
    };
    if spec.has_gpu_engine() {
        return Ok(());
    }
    if spec.resources.gpu_required {
        let remedy = "run it on a machine with a GPU and a build that has its engine";
        return refuse("model.yaml says gpu_required".to_owned(), remedy);
    }
    if options.policy == DevicePolicy::Gpu {
        let remedy = "configure device: auto or cpu";
        return refuse("device: gpu is configured".to_owned(), remedy);
    }
    if !options.device.as_str().starts_with("cpu") {
        let why = format!("it was started for device `{}`", options.device);
        return refuse(why, "start it for device cpu");
    }
    Ok(())
}

fn make_runtime(path: &Path) -> Result<(), RunnerError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| RunnerError::File {
        what: "cannot make the runtime directory",
        path: path.to_owned(),
        source,
        remedy: "give VAS a runtime directory that its user can write to",
    })
}

/// Before the weights are loaded: ids of 64 characters each are longer than a socket's path.
fn socket_path_fits(path: &Path) -> Result<(), RunnerError> {
    let bytes = path.as_os_str().len();
    if bytes <= SOCKET_PATH_BYTES_MAX {
        return Ok(());
    }
    Err(RunnerError::File {
        what: "cannot listen on",
        path: path.to_owned(),
        source: io::Error::other(format!(
            "the path has {bytes} bytes, the kernel takes {SOCKET_PATH_BYTES_MAX}"
        )),
        remedy: "give the model or the device a shorter id, or VAS a shorter runtime directory",
    })
}

fn latencies(
    options: &Options,
    spec: &ModelSpec,
    runtime: &str,
) -> (Option<LatencyCache>, LatencyBook) {
    let folder = options.engine.cache_dir.join(FOLDER);
    let threads = options.engine.threads;
    let cache = LatencyCache::new(&folder, spec, &options.device, threads, runtime)
        .inspect_err(|error| tracing::warn!(%error, "measured latencies are not kept"))
        .ok();
    let cached = cache.as_ref().and_then(LatencyCache::load);
    (cache, LatencyBook::new(batch_sizes(spec.batch_max), cached))
}

/// A number that no other life has: never 0.
fn instance() -> InstanceId {
    let random = std::hash::RandomState::new().build_hasher().finish();
    let now = ipc::clock::utc().0;
    InstanceId((random ^ now).max(1))
}

/// The listening socket; its name goes when it is dropped.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds under another name and renames: whoever sees the name can connect, and the mode is
    /// 0600 from the first moment. A socket that a kill left behind is replaced; the lock says that
    /// nobody uses it.
    fn bind(path: PathBuf) -> Result<Socket, RunnerError> {
        let beside = path.with_extension("new");
        let bound = (|| {
            match std::fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&beside)?;
            listener.set_nonblocking(true)?;
            std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
            std::fs::rename(&beside, &path)?;
            Ok(listener)
        })();
        match bound {
            Ok(listener) => Ok(Socket { listener, path }),
            Err(source) => {
                let _ = std::fs::remove_file(&beside);
                let remedy = "give VAS a runtime directory that its user can write to";
                Err(RunnerError::File { what: "cannot listen on", path, source, remedy })
            }
        }
    }

    /// Nobody can connect from now on.
    fn unlink(&self) {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "socket not removed");
            }
            _ => {}
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.unlink();
    }
}

/// The engine does not come back. The kernel gives up lock and memory; destructors of a library
/// that hangs must not run.
fn hung(spec: &ModelSpec, socket: &Path, members: usize) {
    tracing::error!(model = %spec.model_id, "{}", hang_line(members));
    let _ = std::fs::remove_file(socket);
    // SAFETY: `_exit` takes a number and ends the process.
    unsafe { libc::_exit(EXIT_HUNG) }
}

/// What is said of a batch of `members` that hangs.
fn hang_line(members: usize) -> String {
    format!(
        "a batch of {members} has held the engine for longer than allowed (a batch {} s, a \
         measurement its lease and {} s), this runner ends; if it happens again, lower batch_max \
         in model.yaml, raise runner.threads in the configuration, or look for what else keeps \
         the machine busy",
        HANG_LIMIT.as_secs(),
        PROFILE_GRACE.as_secs()
    )
}

#[cfg(test)]
mod tests;
