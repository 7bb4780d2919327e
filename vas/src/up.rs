//! `vas up`: every process of a node, started and stopped together.
//!
//! Starts serve, ingest, the scheduler and one runner per configured model as children, passes
//! their log on, and stops them in order. Restarts nothing: a child that ends is reported once, with
//! the command that starts it again by hand, and the others go on. Looks at the node only through
//! serve's HTTP interface.

mod leftovers;
mod part;
mod screen;
mod status;
mod view;

use crate::cmd::Failure;
use crate::config::Config;
use crate::{get, output, signals};
use ipc::directories::Directories;
use ipc::instance::InstanceLock;
use ipc::stop::Stop;
use part::Part;
use screen::Screen;
use status::Status;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often children and the clock are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often the table is drawn on a terminal, and printed elsewhere.
const REFRESH_TERMINAL: Duration = Duration::from_secs(1);
const REFRESH_PLAIN: Duration = Duration::from_secs(5);
/// A serve that answers is taken for ours only when our child has lived this long: a child that
/// lost its port to another program ends well before.
const SETTLED: Duration = Duration::from_secs(1);
/// Longest wait for serve's first answer, and for the first result before the clock of `--seconds`
/// starts.
const WARM_UP: Duration = Duration::from_secs(60);
/// Longest that a child may take to stop before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What the command line asks of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    /// Show a table of what happens.
    pub table: bool,
    /// Stop by itself, this long after the first result.
    pub run_for: Option<Duration>,
    /// Print a summary at the end; fail when nobody was found or nothing is stored.
    pub summary: bool,
}

/// Runs the node until a signal, or as long as asked.
///
/// # Errors
/// Why it did not start.
pub fn run(config: &Config, wishes: Wishes) -> Result<ExitCode, Failure> {
    let stop = signals::stop()?;
    let screen = Screen::new(wishes.table);
    // Dropped last, when the lock in it is gone.
    let _made = MadeHere::before(&config.directories, &screen);
    prepare(config)?;
    let _lock = InstanceLock::take(&config.directories.instance_lock("up"), "another `vas up`")?;
    let parts = Part::all(config)?;
    let mut node = Node { config, wishes, screen, parts, started: Instant::now(), serving: false };
    let result = node.start().and_then(|()| node.watch(&stop));
    node.stop();
    leftovers::remove(&config.directories, &node.screen);
    result
}

/// Directories that are not there at the start. Removed when dropped, as far as they are empty.
struct MadeHere {
    /// Inner ones first.
    directories: Vec<PathBuf>,
    screen: Screen,
}

impl MadeHere {
    fn before(directories: &Directories, screen: &Screen) -> MadeHere {
        let Directories { runtime, shm, state, .. } = directories;
        let missing = |path: &PathBuf| {
            path.ancestors()
                .take_while(|path| !path.exists())
                .map(Path::to_owned)
                .collect::<Vec<_>>()
        };
        let directories = [runtime, shm, state].into_iter().flat_map(missing).collect();
        MadeHere { directories, screen: screen.clone() }
    }
}

impl Drop for MadeHere {
    fn drop(&mut self) {
        for directory in &self.directories {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Events, or something that was started by hand, live there.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) => self.screen.note(&format!("{}: {error}", directory.display())),
                Ok(()) => {}
            }
        }
    }
}

/// The directories that the processes meet in.
fn prepare(config: &Config) -> Result<(), Failure> {
    let told = |purpose, path| move |source: io::Error| unusable(purpose, path, &source);
    let Directories { runtime, state, .. } = &config.directories;
    config.directories.prepare()?;
    probe(runtime).map_err(told("runtime", runtime))?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(state);
    match made.and_then(|()| probe(state)) {
        // Ingest makes room, and serve runs until there is some.
        Err(error) if store::no_room(&error) => Ok(()),
        usable => usable.map_err(told("state", state)),
    }
}

fn probe(path: &Path) -> io::Result<()> {
    let probe = path.join(format!(".probe.{}", std::process::id()));
    fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe))
}

fn unusable(purpose: &str, path: &Path, source: &io::Error) -> Failure {
    format!(
        "{purpose} directory {} is not writable: {source}; make it writable for this user or set [dirs] \
         {purpose} in vas.toml",
        path.display()
    )
    .into()
}

/// The running node.
struct Node<'a> {
    config: &'a Config,
    wishes: Wishes,
    screen: Screen,
    /// In the order in which they start.
    parts: Vec<Part>,
    started: Instant,
    /// serve has answered.
    serving: bool,
}

impl Node<'_> {
    fn start(&mut self) -> Result<(), Failure> {
        let width = self.parts.iter().map(|part| part.name().len()).max().unwrap_or_default();
        for part in &mut self.parts {
            part.start(&self.screen, width)?;
        }
        Ok(())
    }

    /// Until a signal, the end of the asked time, or a failed start.
    fn watch(&mut self, stop: &Stop) -> Result<ExitCode, Failure> {
        let refresh = if self.screen.is_terminal() { REFRESH_TERMINAL } else { REFRESH_PLAIN };
        let mut drawn = Instant::now();
        let mut asked = Instant::now();
        let mut first_result = None;
        loop {
            if stop.wait(LOOK) {
                break;
            }
            self.report_ended()?;
            if !self.serving {
                self.look_for_serve();
                if !self.serving && self.started.elapsed() >= WARM_UP {
                    return Err(format!(
                        "serve does not answer at {} after {} s; its log stands above, and something else \
                         may hold that port",
                        self.config.bind,
                        WARM_UP.as_secs()
                    )
                    .into());
                }
                continue;
            }
            if let Some(run_for) = self.wishes.run_for {
                if first_result.is_none() && asked.elapsed() >= Duration::from_millis(250) {
                    asked = Instant::now();
                    let waited = self.started.elapsed() >= WARM_UP;
                    let seen = self.status().is_ok_and(|status| status.results() > 0);
                    first_result = (seen || waited).then(Instant::now);
                }
                if first_result.is_some_and(|first| first.elapsed() >= run_for) {
                    break;
                }
            }
            if self.wishes.table && drawn.elapsed() >= refresh {
                drawn = Instant::now();
                self.draw();
            }
        }
        if self.wishes.summary { self.summary() } else { Ok(ExitCode::SUCCESS) }
    }

    /// Reports children that ended since the last look.
    ///
    /// # Errors
    /// When serve ended before it answered: the node did not start.
    fn report_ended(&mut self) -> Result<(), Failure> {
        for part in &mut self.parts {
            let Some(status) = part.ended()? else { continue };
            let name = part.name();
            if part.is_serve() && !self.serving {
                return Err(
                    format!("serve did not start ({status}); its reason stands above").into()
                );
            }
            self.screen.note(&format!(
                "{name} ended ({status}); nothing restarts it, the others go on; start it again with: {}",
                part.command_line()
            ));
        }
        Ok(())
    }

    fn look_for_serve(&mut self) {
        if self.started.elapsed() < SETTLED || get::json(self.config.bind, "/health").is_err() {
            return;
        }
        self.serving = true;
        self.screen.note(&format!("the node runs: http://{}/", self.config.bind));
    }

    fn status(&self) -> io::Result<Status> {
        get::json(self.config.bind, "/ai/observability/status").and_then(Status::parse)
    }

    fn draw(&self) {
        let ended = self.parts.iter().filter(|part| !part.runs()).map(Part::name);
        let ended: Vec<_> = ended.collect();
        let table = match self.status() {
            Ok(status) => view::table(&status, self.started.elapsed(), &ended),
            Err(error) => format!("no status from serve: {error}\n"),
        };
        self.screen.table(&table);
    }

    fn summary(&self) -> Result<ExitCode, Failure> {
        let status =
            self.status().map_err(|e| format!("no summary, serve does not answer: {e}"))?;
        self.screen.end_table();
        output::print(view::summary(&status, self.started.elapsed()))?;
        let Some(failure) = status.failure() else { return Ok(ExitCode::SUCCESS) };
        output::print(format_args!("{failure}\n"))?;
        Ok(ExitCode::FAILURE)
    }

    /// Stops the children: those that make work first, the store last, so that what is under way
    /// is still written.
    fn stop(&mut self) {
        self.screen.end_table();
        let order = part::STOP_ORDER;
        for kind in order {
            let (screen, parts) = (&self.screen, &mut self.parts);
            let mut group: Vec<_> = parts.iter_mut().filter(|p| p.kind() == kind).collect();
            for part in &group {
                part.terminate();
            }
            let patience = Instant::now() + STOP_PATIENCE;
            for part in &mut group {
                if !part.wait_until(patience) {
                    screen.note(&format!(
                        "{} did not stop within {} s and is killed",
                        part.name(),
                        STOP_PATIENCE.as_secs()
                    ));
                    part.kill();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use std::net::TcpListener;

    #[test]
    fn a_serve_that_never_answers_ends_the_start() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = free.local_addr().unwrap();
        drop(free);
        let text = format!("[http]\nbind = \"{bind}\"\n");
        let config = Config::parse(&text, Path::new("/v.toml"), &Environment::default()).unwrap();
        let wishes = Wishes { run_for: Some(Duration::from_secs(1)), ..Wishes::default() };
        let started = Instant::now().checked_sub(WARM_UP).unwrap();
        let screen = Screen::new(false);
        let mut node =
            Node { config: &config, wishes, screen, parts: Vec::new(), started, serving: false };
        let (_trigger, stop) = Stop::pair().unwrap();
        let error = node.watch(&stop).unwrap_err().to_string();
        assert!(error.contains(&format!("serve does not answer at {bind} after 60 s")), "{error}");
    }
}
