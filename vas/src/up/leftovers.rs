//! What children that were killed left behind in shared memory and in the runtime directory.
//!
//! Called when all children have ended. What a process that was started by hand still holds stays, and
//! one that starts meanwhile loses nothing: what lies beside a lock is removed by its holder alone.

use super::screen::Screen;
use ipc::directories::Directories;
use ipc::lock::Lock;
use ipc::ring;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Removes rings without a writer, sockets nobody listens on and locks nobody holds.
pub fn remove(directories: &Directories, screen: &Screen) {
    let swept = match ring::sweep(&directories.shm, |_| false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(|_| ()),
    };
    for result in [swept, runtime(directories)] {
        if let Err(error) = result {
            screen.note(&format!("left something behind: {error}"));
        }
    }
}

fn runtime(directories: &Directories) -> io::Result<()> {
    // Every lock, with the sockets that are its holder's.
    let mut places: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir(&directories.runtime)? {
        let entry = entry?;
        let Some(lock) = entry.file_name().to_str().and_then(|name| directories.lock_of(name))
        else {
            continue;
        };
        let sockets = places.entry(lock).or_default();
        if entry.path().extension().is_some_and(|extension| extension == "sock") {
            sockets.push(entry.path());
        }
    }
    // Held by this process, for as long as it lives.
    places.remove(&directories.instance_lock("up"));
    for (path, sockets) in places {
        let Some(lock) = Lock::take(&path)? else { continue };
        for socket in sockets.iter().filter(|socket| is_dead(socket)) {
            fs::remove_file(socket)?;
        }
        lock.remove()?;
    }
    Ok(())
}

fn is_dead(socket: &Path) -> bool {
    UnixStream::connect(socket).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn place() -> (tempfile::TempDir, Directories) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let directories = Directories { shm: at("shm"), runtime: at("run"), state: at("state") };
        fs::create_dir(&directories.runtime).unwrap();
        (directory, directories)
    }

    fn left(directories: &Directories) -> Vec<String> {
        let entries = fs::read_dir(&directories.runtime).unwrap();
        let mut left: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        left
    }

    #[test]
    fn what_lives_stays_and_what_died_goes() {
        let (_directory, directories) = place();
        let at = |name: &str| directories.runtime.join(name);
        for dead in ["events.sock", "runner.n.cpu.sock"] {
            drop(UnixListener::bind(at(dead)).unwrap());
        }
        let _living = UnixListener::bind(at("runner.m.cpu.sock")).unwrap();
        for free in ["serve.lock", "up.lock", "notes.txt"] {
            fs::write(at(free), "").unwrap();
        }
        let _held = Lock::take(&at("ingest.lock")).unwrap().unwrap();
        runtime(&directories).unwrap();
        assert_eq!(
            left(&directories),
            ["ingest.lock", "notes.txt", "runner.m.cpu.sock", "up.lock"]
        );
    }

    #[test]
    fn rings_go_and_so_does_what_lies_in_the_runtime_directory() {
        let (_directory, directories) = place();
        let screen = Screen::new(false);
        // Also when nobody ever made shared memory.
        for shm in [false, true] {
            drop(UnixListener::bind(directories.runtime.join("events.sock")).unwrap());
            if shm {
                fs::create_dir_all(directories.shm.join("cam")).unwrap();
                fs::write(directories.shm.join("cam/frame.meta"), "").unwrap();
            }
            remove(&directories, &screen);
            assert_eq!(left(&directories), [""; 0]);
            assert!(!directories.shm.join("cam").exists());
        }
    }

    /// It has its lock, and its socket is bound and does not listen yet, or its name is about to be.
    #[test]
    fn what_belongs_to_a_process_that_starts_is_left_alone() {
        let (_directory, directories) = place();
        let at = |name: &str| directories.runtime.join(name);
        let _starting =
            ["serve.lock", "runner.m.cpu.lock"].map(|name| Lock::take(&at(name)).unwrap());
        for not_listening in ["events.sock", "runner.m.cpu.sock"] {
            drop(UnixListener::bind(at(not_listening)).unwrap());
        }
        runtime(&directories).unwrap();
        let all = ["events.sock", "runner.m.cpu.lock", "runner.m.cpu.sock", "serve.lock"];
        assert_eq!(left(&directories), all);
    }

    /// Whoever removes a lock file that it does not hold lets two processes hold one lock.
    #[test]
    fn no_two_ever_hold_a_lock_that_is_cleaned_up() {
        let (_directory, directories) = place();
        let path = directories.instance_lock("ingest");
        let over = std::sync::atomic::AtomicBool::new(false);
        let holders = std::sync::atomic::AtomicU32::new(0);
        use std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    runtime(&directories).unwrap();
                }
            });
            let start = || {
                for _ in 0..50 {
                    if let Some(lock) = Lock::take(&path).unwrap() {
                        assert_eq!(holders.fetch_add(1, SeqCst), 0, "two hold the lock");
                        std::thread::yield_now();
                        holders.fetch_sub(1, SeqCst);
                        drop(lock);
                    }
                }
            };
            let starts = [scope.spawn(start), scope.spawn(start)];
            let ended = starts.map(|thread| thread.join());
            over.store(true, SeqCst);
            assert!(ended.iter().all(Result::is_ok));
        });
    }
}
