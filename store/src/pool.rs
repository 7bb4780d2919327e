//! The day files of one directory: which exist, which are open, and how long they stay.

use crate::database::{Database, Disk, patiently, sync_directory_of};
use crate::day::Day;
use crate::error::StoreError;
use crate::held::{self, Held, Place};
use crate::tables;
use crate::writer::EventOptions;
use base::UtcNanos;
use base::clock_trust::{Clocks, Rest};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Suffix of day files.
const SUFFIX: &str = ".redb";

/// The directory of the events beneath a state directory.
pub(crate) fn events_directory(state: &Path) -> PathBuf {
    state.join("events")
}

#[derive(Debug)]
pub(crate) struct Pool {
    dir: PathBuf,
    options: EventOptions,
    disk: Arc<dyn Disk>,
    inner: Mutex<Inner>,
    /// Held for life: one store per directory. `None` while there is no room to make it.
    lock: Mutex<Option<Held>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Days that have a file.
    days: BTreeSet<Day>,
    /// Files in use or lately used.
    open: BTreeMap<Day, Open>,
    /// Counts uses, to find the file that was used longest ago.
    uses: u64,
    /// Days whose last read failed, and why.
    unread: BTreeMap<Day, String>,
    /// Why nothing is deleted for its age.
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Open {
    file: Arc<Database>,
    used: u64,
}

/// Takes the lock of an events directory, making both when they are missing.
pub(crate) fn lock_directory(dir: &Path) -> Result<Held, StoreError> {
    let path = lock_path(dir);
    held::make_directory_of(&path).map_err(|e| StoreError::io(dir, "creating the directory", e))?;
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = open.map_err(|e| StoreError::io(&path, "opening the lock", e))?;
    patiently(|| match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.clone() }),
        Err(TryLockError::Error(e)) => Err(StoreError::io(&path, "locking", e)),
    })?;
    Held::new(lock).map_err(|e| StoreError::io(&path, "opening the lock", e))
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// The day files of a directory.
pub(crate) fn days_in(dir: &Path) -> Result<BTreeSet<Day>, StoreError> {
    let failed = |e| StoreError::io(dir, "listing the directory", e);
    let mut days = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(day) = name.to_str().and_then(|n| n.strip_suffix(SUFFIX)).and_then(Day::parse) {
            days.insert(day);
        }
    }
    Ok(days)
}

/// The file of a day.
pub(crate) fn day_path(dir: &Path, day: Day) -> PathBuf {
    dir.join(format!("{day}{SUFFIX}"))
}

impl Pool {
    pub(crate) fn open(
        dir: PathBuf,
        options: EventOptions,
        disk: Arc<dyn Disk>,
    ) -> Result<Pool, StoreError> {
        let lock = match lock_directory(&dir) {
            Err(error) if error.is_full() => {
                tracing::error!("{error}; events are stored as soon as there is room");
                None
            }
            locked => Some(locked?),
        };
        let days = if dir.is_dir() { days_in(&dir)? } else { BTreeSet::new() };
        let inner = Mutex::new(Inner { days, ..Inner::default() });
        Ok(Pool { dir, options, disk, inner, lock: Mutex::new(lock) })
    }

    /// Takes the lock again when there was no room for it, or when somebody moved the directory away.
    fn keep_lock(&self) -> Result<(), StoreError> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let path = lock_path(&self.dir);
        let here = |held: &Held| matches!(held.place(&path), Ok(Place::Here | Place::Cut { .. }));
        if !lock.as_ref().is_some_and(here) {
            *lock = Some(lock_directory(&self.dir)?);
        }
        Ok(())
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn options(&self) -> &EventOptions {
        &self.options
    }

    pub(crate) fn now(&self) -> UtcNanos {
        (self.options.clock)()
    }

    pub(crate) fn clocks(&self) -> Clocks {
        Clocks { utc: self.now(), monotonic: (self.options.monotonic)() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The days that have a file, within `first..=last`, newest first.
    pub(crate) fn days(&self, first: Day, last: Day) -> Vec<Day> {
        if first > last {
            return Vec::new();
        }
        self.inner().days.range(first..=last).rev().copied().collect()
    }

    /// The file of a day, `None` when there is none. Not opened before it is used.
    pub(crate) fn get(&self, day: Day) -> Option<Arc<Database>> {
        let today = Day::of(self.now());
        let mut inner = self.inner();
        if !inner.days.contains(&day) {
            return None;
        }
        Some(self.enter(&mut inner, day, today))
    }

    /// The file of a day, and whether it was made now because there was none. Only the writer calls
    /// it.
    pub(crate) fn get_or_create(&self, day: Day) -> Result<(Arc<Database>, bool), StoreError> {
        self.keep_lock()?;
        self.keep(day)?;
        if let Some(file) = self.get(day) {
            return Ok((file, false));
        }
        // Made outside the lock: readers don't wait for the disk.
        self.database(day, Day::of(self.now())).create()?;
        let today = Day::of(self.now());
        let mut inner = self.inner();
        inner.days.insert(day);
        Ok((self.enter(&mut inner, day, today), true))
    }

    /// Has a day's file lie under its name again when somebody deleted or replaced it while it was
    /// open for writing. When nothing of it is left, the day has no file any more, and what that
    /// lost is told. Only the writer calls it.
    fn keep(&self, day: Day) -> Result<(), StoreError> {
        let written = |open: &Open| open.file.is_written();
        let idle = !self.inner().open.get(&day).is_some_and(written);
        if idle && self.inner().days.contains(&day) && is_empty(&day_path(&self.dir, day)) {
            // Nothing of it could be read; the next write replaces it.
            self.forget(day, "was emptied");
            return Ok(());
        }
        let Some(file) = self.inner().open.get(&day).map(|open| open.file.clone()) else {
            let gone = self.inner().days.contains(&day) && !exists(&day_path(&self.dir, day))?;
            if gone {
                self.forget(day, "was deleted");
            }
            return Ok(());
        };
        if file.is_gone() {
            self.forget(day, "was deleted");
            return Ok(());
        }
        match file.keep() {
            Err(StoreError::Cut { bytes, left, .. }) => {
                let failed = |e| StoreError::io(file.path(), "renaming", e);
                let to = held::set_aside(file.path(), "damaged").map_err(failed)?;
                let to = to.map_or_else(String::new, |to| format!(" and is now {}", to.display()));
                self.forget(day, &format!("was cut from {left} to {bytes} bytes{to}"));
                Ok(())
            }
            kept => kept,
        }
    }

    /// The file of a day is of no use any more.
    fn forget(&self, day: Day, what: &str) {
        let mut inner = self.inner();
        inner.days.remove(&day);
        inner.open.remove(&day);
        inner.unread.remove(&day);
        let path = day_path(&self.dir, day);
        tracing::error!(
            "{} {what} by another program: the events in it are lost, later ones go into a new file",
            path.display()
        );
    }

    /// [`Pool::keep`] for every file that is open for writing, and the lock. Only the writer calls it.
    pub(crate) fn keep_all(&self) -> Result<(), StoreError> {
        let written: Vec<Day> = {
            let inner = self.inner();
            inner
                .open
                .iter()
                .filter(|(_, open)| open.file.is_written())
                .map(|(day, _)| *day)
                .collect()
        };
        if written.is_empty() {
            return Ok(());
        }
        self.keep_lock()?;
        written.into_iter().try_for_each(|day| self.keep(day))
    }

    /// What somebody did to a file that is open for writing, the youngest first.
    pub(crate) fn lost(&self) -> Option<String> {
        let files: Vec<Arc<Database>> =
            self.inner().open.values().rev().map(|open| open.file.clone()).collect();
        files.iter().filter(|file| file.is_written()).find_map(|file| file.fault())
    }

    fn database(&self, day: Day, today: Day) -> Database {
        let cache = self.cache_bytes(day, today);
        Database::new(day_path(&self.dir, day), &tables::DAY, cache, self.disk.clone())
    }

    fn cache_bytes(&self, day: Day, today: Day) -> usize {
        if day == today { self.options.cache_today_bytes } else { self.options.cache_older_bytes }
    }

    /// Hands out a file and closes others beyond the limit. A file is closed under the lock, so
    /// that nobody opens it a second time while redb still holds it.
    fn enter(&self, inner: &mut Inner, day: Day, today: Day) -> Arc<Database> {
        inner.uses += 1;
        let used = inner.uses;
        // Nobody else has it when the map holds the only reference: others get theirs here.
        let idle = |open: &Open| Arc::strong_count(&open.file) == 1;
        // Yesterday's file gives back today's large cache.
        let wrong_cache = |open: &Open| open.file.cache_bytes() != self.cache_bytes(day, today);
        if inner.open.get(&day).is_some_and(|open| idle(open) && wrong_cache(open)) {
            inner.open.remove(&day);
        }
        let open = inner.open.entry(day).or_insert_with(|| {
            let file = Arc::new(self.database(day, today));
            Open { file, used }
        });
        open.used = used;
        let file = open.file.clone();
        while inner.open.len() > self.options.files_open.max(1) {
            let oldest = inner.open.iter().filter(|(_, o)| idle(o)).min_by_key(|(_, o)| o.used);
            let Some((&oldest, _)) = oldest else { break };
            inner.open.remove(&oldest);
        }
        file
    }

    /// Deletes the files of days that ended before retention began, never that of `today`.
    pub(crate) fn expire(&self, now: UtcNanos) -> Result<Vec<Day>, StoreError> {
        let kept = first_kept(now, self.options.retention);
        let expired: Vec<Day> = {
            let inner = self.inner();
            inner.days.range(..kept).copied().filter(|&day| day != Day::of(now)).collect()
        };
        for &day in &expired {
            {
                let mut inner = self.inner();
                inner.days.remove(&day);
                // Readers inside go on with the deleted file.
                inner.open.remove(&day);
                inner.unread.remove(&day);
            }
            let path = day_path(&self.dir, day);
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!(%day, "events of a day past retention deleted"),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => {
                    // Still there: known again, so that the next call tries again.
                    self.inner().days.insert(day);
                    return Err(StoreError::io(&path, "deleting", e));
                }
            }
        }
        if let Some(&day) = expired.first() {
            let path = day_path(&self.dir, day);
            sync_directory_of(&path).map_err(|e| StoreError::io(&self.dir, "syncing", e))?;
        }
        Ok(expired)
    }

    /// Remembers whether the clock is in doubt.
    pub(crate) fn set_rest(&self, rest: Option<Rest>) {
        self.inner().rest = rest;
    }

    /// Why nothing is deleted for its age, `None` while the clock is trusted.
    pub(crate) fn rest(&self) -> Option<Rest> {
        self.inner().rest
    }

    /// Remembers how the last read of a day ended.
    pub(crate) fn note_read(&self, day: Day, error: Option<&StoreError>) {
        let mut inner = self.inner();
        match error {
            Some(error) if inner.days.contains(&day) => {
                inner.unread.insert(day, error.to_string());
            }
            _ => {
                inner.unread.remove(&day);
            }
        }
    }

    /// Why the youngest day whose last read failed can't be read.
    pub(crate) fn unread(&self) -> Option<String> {
        self.inner().unread.values().next_back().cloned()
    }

    /// Today or, when it has no file yet, the newest day before it that has one.
    pub(crate) fn newest_day(&self) -> Option<Day> {
        let today = Day::of(self.now());
        self.inner().days.range(..=today).next_back().copied()
    }

    /// How many files are open; for tests.
    #[cfg(test)]
    pub(crate) fn open_count(&self) -> usize {
        self.inner().open.len()
    }
}

/// Whether a file without a byte lies there.
fn is_empty(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|told| told.is_file() && told.len() == 0)
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|e| StoreError::io(path, "looking for the file", e))
}

/// The oldest day that retention keeps: a day is kept while any moment of it is young enough.
pub(crate) fn first_kept(now: UtcNanos, retention: std::time::Duration) -> Day {
    Day::of(UtcNanos(now.0.saturating_sub(base::time::nanos(retention))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::PlainDisk;

    const TODAY: Day = Day(20_000);

    fn pool(directory: &tempfile::TempDir) -> Pool {
        let options = EventOptions {
            files_open: 2,
            retention: std::time::Duration::from_secs(7 * 86_400),
            clock: Arc::new(|| TODAY.start()),
            ..EventOptions::default()
        };
        Pool::open(events_directory(directory.path()), options, Arc::new(PlainDisk)).unwrap()
    }

    fn open(pool: &Pool) -> Vec<u32> {
        pool.inner().open.keys().map(|day| day.0).collect()
    }

    #[test]
    fn the_file_that_was_used_longest_ago_is_closed_unless_somebody_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool(&directory);
        for day in 1..=3 {
            drop(pool.get_or_create(Day(day)).unwrap());
        }
        assert_eq!(open(&pool), [2, 3]);
        for day in [2, 1] {
            drop(pool.get(Day(day)).unwrap());
        }
        assert_eq!(open(&pool), [1, 2]);
        let used = [pool.get(Day(1)), pool.get(Day(2))];
        drop(pool.get(Day(3)).unwrap());
        assert_eq!(open(&pool), [1, 2, 3], "each is somebody's");
        drop(used);
        drop(pool.get(Day(3)).unwrap());
        assert_eq!(open(&pool), [2, 3]);
    }

    #[test]
    fn a_day_that_is_gone_already_expires_and_one_that_can_not_be_deleted_does_later() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool(&directory);
        for day in [1, 2, TODAY.0 - 7] {
            drop(pool.get_or_create(Day(day)).unwrap());
        }
        let path = |day: u32| day_path(pool.dir(), Day(day));
        fs::remove_file(path(1)).unwrap();
        fs::remove_file(path(2)).unwrap();
        fs::create_dir(path(2)).unwrap();
        assert!(matches!(pool.expire(TODAY.start()), Err(StoreError::Io { .. })));
        assert_eq!(pool.days(Day(0), TODAY), [Day(TODAY.0 - 7), Day(2)]);
        fs::remove_dir(path(2)).unwrap();
        assert_eq!(pool.expire(TODAY.start()).unwrap(), [Day(2)]);
        assert_eq!(pool.days(Day(0), TODAY), [Day(TODAY.0 - 7)]);
    }

    #[test]
    fn a_day_that_is_gone_is_not_one_that_can_not_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool(&directory);
        drop(pool.get_or_create(Day(1)).unwrap());
        let error = StoreError::Locked { path: "a day".into() };
        pool.note_read(Day(2), Some(&error));
        assert_eq!(pool.unread(), None);
        pool.note_read(Day(1), Some(&error));
        assert_eq!(pool.unread(), Some(error.to_string()));
        pool.note_read(Day(1), None);
        assert_eq!(pool.unread(), None);
    }
}
