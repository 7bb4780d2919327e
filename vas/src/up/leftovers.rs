//! What children that were killed left behind in shared memory and in the runtime directory.
//!
//! Called when all children have ended. What a process that was started by hand still holds stays.

use super::screen::Screen;
use ipc::directories::Directories;
use ipc::ring;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Removes rings without a writer, sockets nobody listens on and locks nobody holds.
pub fn remove(directories: &Directories, screen: &Screen) {
    let swept = match ring::sweep(&directories.shm, |_| false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(|_| ()),
    };
    for result in [swept, runtime(&directories.runtime)] {
        if let Err(error) = result {
            screen.note(&format!("left something behind: {error}"));
        }
    }
}

fn runtime(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let dead = match path.extension().and_then(|e| e.to_str()) {
            Some("sock") => UnixStream::connect(&path)
                .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused),
            Some("lock") if path.file_stem().is_some_and(|stem| stem != "up") => free(&path),
            _ => false,
        };
        if dead {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn free(path: &Path) -> bool {
    File::open(path)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_lives_stays_and_what_died_goes() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        drop(UnixListener::bind(at("events.sock")).unwrap());
        let _living = UnixListener::bind(at("runner.m.cpu.sock")).unwrap();
        fs::write(at("serve.lock"), "").unwrap();
        fs::write(at("up.lock"), "").unwrap();
        fs::write(at("notes.txt"), "").unwrap();
        let held = File::create(at("ingest.lock")).unwrap();
        flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        runtime(directory.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["ingest.lock", "notes.txt", "runner.m.cpu.sock", "up.lock"]);
    }
}
