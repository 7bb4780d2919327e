//! Files around [`base::clock_trust`]: the offset that somebody accepted with `vas clock accept`,
//! and what a [`ClockTrust`] remembers over a restart.
//!
//! The accepted offset is one file in the state directory, which ingest and serve read at each
//! look. It holds for one run of the machine (its boot id) and one offset between UTC and
//! CLOCK_MONOTONIC: whoever sets the clock by more than a minute has to accept it again.

use crate::clock;
use base::clock_trust::{ClockOffset, ClockTrust, Clocks, MEMORY_NAME, Memory, Rest, SAVE_EVERY};
use base::{Instant, UtcNanos};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where the kernel says which run of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file with the accepted offset, in a state directory.
pub fn accepted_in(state: &Path) -> PathBuf {
    state.join("clock.accepted")
}

/// Both clocks now.
pub fn clocks() -> Clocks {
    Clocks { utc: clock::utc(), monotonic: clock::monotonic() }
}

/// The offset that was accepted in this run of the machine, if any was.
pub fn accepted(file: &Path) -> Option<ClockOffset> {
    let text = fs::read_to_string(file).ok()?;
    read(&text, &boot_id().ok()?)
}

/// Accepts the clock as it is now, until it is set or the machine starts again.
///
/// # Errors
/// Those of the file system.
pub fn accept(file: &Path) -> io::Result<()> {
    put(file, &written(&boot_id()?, clocks().offset()))
}

/// `1 <boot id> <ns>`.
fn written(boot: &str, ClockOffset(offset): ClockOffset) -> String {
    format!("1 {boot} {offset}\n")
}

fn read(text: &str, boot: &str) -> Option<ClockOffset> {
    let words: Vec<&str> = text.strip_suffix('\n')?.split(' ').collect();
    match words[..] {
        ["1", of, offset] if of == boot => offset.parse().ok().map(ClockOffset),
        _ => None,
    }
}

fn boot_id() -> io::Result<String> {
    fs::read_to_string(BOOT_ID).map(|text| text.trim_end().to_owned())
}

/// A [`ClockTrust`] with its memory beside what is deleted.
#[derive(Debug)]
pub struct ClockKeeper {
    trust: ClockTrust,
    memory: PathBuf,
    accepted: PathBuf,
    saved: Option<(Memory, Instant)>,
}

impl ClockKeeper {
    /// For what lies in `directory`, which need not exist. `newest` is asked for the UTC of the
    /// newest row before this run where nothing is remembered.
    pub fn open(
        directory: &Path,
        accepted: PathBuf,
        newest: impl FnOnce() -> Option<UtcNanos>,
    ) -> ClockKeeper {
        let path = directory.join(MEMORY_NAME);
        let memory = fs::read_to_string(&path).ok().as_deref().and_then(Memory::parse);
        let newest = if memory.is_none() { newest() } else { None };
        ClockKeeper { trust: ClockTrust::new(memory, newest), memory: path, accepted, saved: None }
    }

    /// Looks at the clocks: `Some` = nothing may be deleted for its age.
    pub fn look(&mut self, now: Clocks) -> Option<Rest> {
        let rest = self.trust.look(now, accepted(&self.accepted));
        if let Some(memory) = self.trust.memory().filter(|memory| self.due(memory, now.monotonic))
            // Where nothing is stored yet, or no room, the next look tries again.
            && put(&self.memory, &memory.to_string()).is_ok()
        {
            self.saved = Some((memory, now.monotonic));
        }
        rest
    }

    /// See [`ClockTrust::believed`].
    pub fn believed(&self, now: Clocks) -> UtcNanos {
        self.trust.believed(now)
    }

    fn due(&self, memory: &Memory, now: Instant) -> bool {
        self.saved.is_none_or(|(saved, at)| {
            saved.rested.is_some() != memory.rested.is_some() || now - at >= SAVE_EVERY
        })
    }
}

/// Puts a text in place of a file: whole or not at all.
fn put(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
    let put = written.and_then(|()| fs::rename(&temporary, path));
    if put.is_err() {
        // Of no use to anyone; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    put
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::time::NANOS_PER_SEC as SECOND;

    const DAY: u64 = 86_400 * SECOND;

    fn at(utc: u64, monotonic: u64) -> Clocks {
        Clocks { utc: UtcNanos(utc), monotonic: Instant(monotonic) }
    }

    #[test]
    fn an_accepted_offset_is_of_this_run_of_the_machine() {
        let directory = tempfile::tempdir().unwrap();
        let file = accepted_in(directory.path());
        assert_eq!(accepted(&file), None);
        // One that broke off left more than there is now.
        fs::write(directory.path().join("clock.accepted.new"), [b'x'; 200]).unwrap();
        accept(&file).unwrap();
        let offset = accepted(&file).unwrap();
        assert!(clocks().offset().fits(offset));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let text = fs::read_to_string(&file).unwrap();
        let boot = boot_id().unwrap();
        assert_eq!(text, written(&boot, offset));
        fs::write(&file, written("another", offset)).unwrap();
        assert_eq!(accepted(&file), None);
        for text in ["", "1 b 7", "2 b 7\n", "1 b\n", "1 b x\n", "1 b 7 7\n"] {
            assert_eq!(read(text, "b"), None, "{text:?}");
        }
        assert_eq!(read("1 b -7\n", "b"), Some(ClockOffset(-7)));
    }

    #[test]
    fn a_rest_outlives_a_restart_and_acceptance_ends_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = accepted_in(directory.path());
        let open = |newest| ClockKeeper::open(directory.path(), file.clone(), || newest);
        let (utc, year) = (20_000 * DAY, 365 * DAY);
        let mut keeper = open(Some(UtcNanos(utc)));
        assert_eq!(keeper.look(at(utc, SECOND)), None);
        assert!(keeper.look(at(utc + year, SECOND)).is_some());
        assert_eq!(keeper.believed(at(utc + year, 3 * SECOND)), UtcNanos(utc + 2 * SECOND));
        // Rows of the wrong time are there by now: they are not asked for.
        let mut keeper = open(Some(UtcNanos(utc + year)));
        assert!(keeper.look(at(utc + year, 2 * SECOND)).is_some());
        let boot = boot_id().unwrap();
        fs::write(&file, written(&boot, at(utc + year, SECOND).offset())).unwrap();
        assert_eq!(keeper.look(at(utc + year, SECOND)), None);
        fs::remove_file(&file).unwrap();
        assert_eq!(keeper.look(at(utc + year + SECOND, 2 * SECOND)), None);
        assert_eq!(open(None).look(at(utc + year, SECOND)), None, "and that is remembered");
    }

    #[test]
    fn where_nothing_is_remembered_the_newest_row_speaks() {
        let directory = tempfile::tempdir().unwrap();
        let file = accepted_in(directory.path());
        for text in [None, Some("1 7"), Some("")] {
            if let Some(text) = text {
                fs::write(directory.path().join(MEMORY_NAME), text).unwrap();
            }
            let newest = || Some(UtcNanos(7 * DAY));
            let mut keeper = ClockKeeper::open(directory.path(), file.clone(), newest);
            assert!(keeper.look(at(9 * DAY, SECOND)).is_some(), "{text:?}");
        }
    }

    #[test]
    fn the_memory_is_written_at_a_change_and_now_and_then() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("later");
        let mut keeper = ClockKeeper::open(&path, accepted_in(&path), || None);
        assert_eq!(keeper.look(at(DAY, SECOND)), None);
        fs::create_dir(&path).unwrap();
        let text = || fs::read_to_string(path.join(MEMORY_NAME)).unwrap();
        let pass = |s: u64| at(DAY + s * SECOND, (1 + s) * SECOND);
        let mut look = |s| {
            let _ = keeper.look(pass(s));
            text()
        };
        assert_eq!(look(1), "1 86401 86401 -\n", "it was not there before");
        assert_eq!(look(600), "1 86401 86401 -\n");
        assert_eq!(look(601), "1 87001 87001 -\n");
        let _ = keeper.look(at(2 * DAY, 602 * SECOND));
        assert_eq!(text(), "1 87001 172800 0\n");
    }
}
