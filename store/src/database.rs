//! One redb file: opened when needed, closed and opened again after any error of the storage.
//!
//! redb refuses all further writes after an I/O error until the file is opened anew, and a file
//! that was altered by others may make it panic. Both stay inside [`Database::read`] and
//! [`Database::write`]: the caller gets an error, and the next call begins with a fresh handle.
//!
//! A file that is only read is opened read-only: redb writes and syncs when it opens and closes a
//! file for writing.
//!
//! Before and after every write the name must lead to the file that is open. When somebody deleted
//! or replaced it, what the open file holds is copied to its name again ([`Database::keep`]): nothing
//! is acknowledged that a restart would not find.

use crate::error::{Fault, StoreError};
use crate::held::{self, Held, Place};
use crate::tables::{Kind, META};
use base::guard;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Builder, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase};
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// What lies beneath an open file. Tests put a failing disk there.
pub(crate) trait Disk: fmt::Debug + Send + Sync {
    /// Opens for writing what is there, also an empty file.
    fn open(&self, builder: &Builder, file: File) -> Result<redb::Database, DatabaseError>;
    /// Opens for reading.
    fn open_read_only(
        &self,
        builder: &Builder,
        file: File,
    ) -> Result<ReadOnlyDatabase, DatabaseError>;
}

/// The disk of this machine.
#[derive(Debug)]
pub(crate) struct PlainDisk;

impl Disk for PlainDisk {
    fn open(&self, builder: &Builder, file: File) -> Result<redb::Database, DatabaseError> {
        builder.create_with_backend(FileBackend::new(file)?)
    }

    fn open_read_only(
        &self,
        builder: &Builder,
        file: File,
    ) -> Result<ReadOnlyDatabase, DatabaseError> {
        builder.open_read_only_with_backend(FileBackend::new(file)?)
    }
}

/// What `meta` says of a file's format.
pub(crate) const META_FORMAT: &str = "format";

#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    cache_bytes: usize,
    kind: &'static Kind,
    disk: Arc<dyn Disk>,
    /// Held by whoever writes the file or moves it. Taken before `handle`.
    writer: Mutex<()>,
    handle: RwLock<Handle>,
    /// Set by whoever saw an error; the next user closes and opens the file.
    suspect: AtomicBool,
}

enum Handle {
    Closed,
    ReadOnly(Closing<ReadOnlyDatabase>, Held),
    Writable(Closing<redb::Database>, Held),
    /// There is no file yet and no room for one: empty tables for those who read, and why.
    StandIn(Closing<redb::Database>, String),
}

impl Handle {
    fn held(&self) -> Option<&Held> {
        match self {
            Handle::ReadOnly(_, held) | Handle::Writable(_, held) => Some(held),
            Handle::Closed | Handle::StandIn(..) => None,
        }
    }
}

/// An open database whose closing may panic when it panicked before: then that ends here.
#[derive(Debug)]
pub(crate) struct Closing<D>(Option<D>);

impl<D> Closing<D> {
    pub(crate) fn new(db: D) -> Closing<D> {
        Closing(Some(db))
    }

    pub(crate) fn get(&self) -> &D {
        self.0.as_ref().expect("taken only when dropped")
    }

    pub(crate) fn get_mut(&mut self) -> &mut D {
        self.0.as_mut().expect("taken only when dropped")
    }
}

impl<D> Drop for Closing<D> {
    fn drop(&mut self) {
        // Never while unwinding: every use of a database is inside `guarded`, this is outside.
        let _ = guarded(Path::new("a store file being closed"), || drop(self.0.take()));
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Handle::Closed => "Closed",
            Handle::ReadOnly(..) => "ReadOnly",
            Handle::Writable(..) => "Writable",
            Handle::StandIn(..) => "StandIn",
        })
    }
}

impl Database {
    /// A file that exists or will be made by [`Database::create`]; nothing is opened yet.
    pub(crate) fn new(
        path: PathBuf,
        kind: &'static Kind,
        cache_bytes: usize,
        disk: Arc<dyn Disk>,
    ) -> Database {
        let handle = RwLock::new(Handle::Closed);
        let suspect = AtomicBool::new(false);
        Database { path, cache_bytes, kind, disk, writer: Mutex::new(()), handle, suspect }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// Makes the file with all its tables and its format, durably, under a name of its own first:
    /// a file of the right name is always complete. Its directory is made when it is missing.
    pub(crate) fn create(&self) -> Result<(), StoreError> {
        let temporary = self.temporary();
        let made = self.create_at(&temporary);
        if made.is_err() {
            // What is left of it is of no use; the first error is the one to tell.
            let _ = fs::remove_file(&temporary);
        }
        made
    }

    /// The name under which the file is made.
    fn temporary(&self) -> PathBuf {
        self.path.with_extension("redb.new")
    }

    fn create_at(&self, temporary: &Path) -> Result<(), StoreError> {
        const ACTION: &str = "creating the file";
        let failed = |e| StoreError::io(temporary, ACTION, e);
        held::make_directory_of(temporary).map_err(failed)?;
        held::remove(temporary).map_err(failed)?;
        let make = || -> Result<(), Fault> {
            held::new_file(temporary).map_err(failed)?;
            let mut builder = Builder::new();
            builder.set_cache_size(1 << 20);
            let db = self.disk.open(&builder, open_file(temporary, true)?)?;
            self.make_tables(&db)?;
            Ok(db.close()?)
        };
        make().map_err(|fault| self.told(ACTION, fault))?;
        let sync = || -> std::io::Result<()> {
            fs::rename(temporary, &self.path)?;
            sync_directory_of(&self.path)
        };
        sync().map_err(|e| StoreError::io(&self.path, ACTION, e))
    }

    fn make_tables(&self, db: &redb::Database) -> Result<(), Fault> {
        let mut write = db.begin_write()?;
        write.set_quick_repair(true);
        write.open_table(META)?.insert(META_FORMAT, self.kind.format)?;
        (self.kind.make)(&write)?;
        Ok(write.commit()?)
    }

    /// Has those who read find empty tables as long as the file can't be made, which every write
    /// tries. `why` is told by [`Database::fault`].
    pub(crate) fn stand_in(&self, why: String) -> Result<(), StoreError> {
        let db = self.guarded("making tables in memory", || {
            let db = Builder::new().create_with_backend(InMemoryBackend::new())?;
            self.make_tables(&db)?;
            Ok(Closing::new(db))
        })?;
        *self.handle.write().unwrap_or_else(PoisonError::into_inner) = Handle::StandIn(db, why);
        Ok(())
    }

    /// Runs `work` in a read transaction. After an error or a panic in it the file is opened anew
    /// before it is used again. Many may be inside at once.
    pub(crate) fn read<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.with(action, false, |handle| match handle {
            Handle::ReadOnly(db, _) => work(&db.get().begin_read()?),
            Handle::Writable(db, _) | Handle::StandIn(db, _) => work(&db.get().begin_read()?),
            Handle::Closed => Err(closed()),
        })
    }

    /// Runs `work` on the file opened for writing; otherwise like [`Database::read`]. One writer at
    /// a time. What it wrote lies in the file that its name leads to, or there is an error.
    pub(crate) fn write<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&redb::Database) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let writer = self.writer();
        self.keep_as(&writer)?;
        let result = self.with(action, true, |handle| match handle {
            Handle::Writable(db, held) => {
                let result = work(db.get());
                held.note_length();
                result
            }
            Handle::ReadOnly(..) | Handle::StandIn(..) | Handle::Closed => Err(closed()),
        });
        let value = result?;
        self.keep_as(&writer)?;
        Ok(value)
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When somebody deleted the open file or put another one in its place, copies what it holds to
    /// its name, where the next use finds it. What lies there is renamed, never deleted.
    ///
    /// # Errors
    /// [`StoreError::Lost`] when that can't be done: the open file is kept, and who reads goes on.
    /// [`StoreError::Cut`] when the file was shortened: then nothing is left to copy.
    pub(crate) fn keep(&self) -> Result<(), StoreError> {
        self.keep_as(&self.writer())
    }

    fn keep_as(&self, _writer: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        let path = || self.path.clone();
        let place = {
            let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
            let Some(held) = handle.held() else { return Ok(()) };
            let place = held.place(&self.path).map_err(|error| self.unseen(error))?;
            if matches!(place, Place::Cut { .. }) {
                held.spoil();
            }
            place
        };
        match place {
            Place::Here => Ok(()),
            Place::Lost => {
                self.put_back().map_err(|e| StoreError::Lost { path: path(), source: Some(e) })
            }
            Place::Cut { bytes, left } => Err(StoreError::Cut { path: path(), bytes, left }),
            Place::Worthless => {
                self.distrust();
                Ok(())
            }
        }
    }

    fn put_back(&self) -> std::io::Result<()> {
        let temporary = self.temporary();
        let copied = match self.handle.read().unwrap_or_else(PoisonError::into_inner).held() {
            // Whoever reads meanwhile changes nothing, and nobody else writes.
            Some(held) => held.copy_to(&temporary),
            None => return Ok(()),
        };
        if let Err(error) = copied {
            // Half a copy is of no use; the first error is the one to tell.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        let found = held::set_aside(&self.path, "replaced")?;
        fs::rename(&temporary, &self.path)?;
        *handle = Handle::Closed;
        drop(handle);
        let path = self.path.display();
        match found {
            None => tracing::warn!("{path} was deleted while it was in use and is written again"),
            Some(found) => tracing::warn!(
                "{path} was replaced while it was in use and is written again; what lay there is {}",
                found.display()
            ),
        }
        sync_directory_of(&self.path)
    }

    fn unseen(&self, error: std::io::Error) -> StoreError {
        StoreError::io(&self.path, "looking for the file", error)
    }

    /// What [`Database::keep`] would have to mend, or why there is no file yet; `None` when all is
    /// well. Looks only, and waits for no writer.
    pub(crate) fn fault(&self) -> Option<String> {
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        let held = match &*handle {
            Handle::StandIn(_, why) => return Some(why.clone()),
            other => other.held()?,
        };
        let path = self.path.clone();
        // Who writes may shorten the file himself.
        let quiet = self.writer.try_lock();
        let error = match held.place(&self.path) {
            Ok(Place::Here | Place::Worthless) => return None,
            Ok(Place::Cut { .. }) if quiet.is_err() => return None,
            Ok(Place::Cut { bytes, left }) => StoreError::Cut { path, bytes, left },
            Ok(Place::Lost) => StoreError::Lost { path, source: None },
            Err(error) => self.unseen(error),
        };
        Some(error.to_string())
    }

    /// Whether it is not open and there is no file: somebody deleted it meanwhile.
    pub(crate) fn is_gone(&self) -> bool {
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        matches!(*handle, Handle::Closed) && !self.path.try_exists().unwrap_or(true)
    }

    /// Whether it is open for writing.
    pub(crate) fn is_written(&self) -> bool {
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        matches!(*handle, Handle::Writable(..))
    }

    /// Opening waits until everybody is out.
    fn with<T>(
        &self,
        action: &'static str,
        writing: bool,
        work: impl FnOnce(&Handle) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        loop {
            {
                let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
                if self.usable(&handle, writing) {
                    let result = self.guarded(action, || work(&handle));
                    if result.as_ref().is_err_and(is_of_the_storage) {
                        self.distrust();
                    }
                    return result;
                }
            }
            let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
            if self.usable(&handle, writing) {
                continue;
            }
            if let Handle::StandIn(_, why) = &mut *handle
                && let Err(error) = self.create_missing()
            {
                *why = error.to_string();
                return Err(error);
            }
            self.check_worth(&handle)?;
            // The old handle holds redb's lock on the file: it goes first.
            *handle = Handle::Closed;
            *handle = self.open(writing)?;
            self.suspect.store(false, Ordering::Release);
        }
    }

    /// Refuses to close the only descriptor of what was acknowledged; [`Database::keep`] saves that.
    fn check_worth(&self, handle: &Handle) -> Result<(), StoreError> {
        let Handle::Writable(_, held) = handle else { return Ok(()) };
        let path = self.path.clone();
        match held.place(&self.path).map_err(|error| self.unseen(error))? {
            Place::Here | Place::Worthless => Ok(()),
            Place::Lost => Err(StoreError::Lost { path, source: None }),
            Place::Cut { bytes, left } => {
                // Nobody is inside who could have shortened it.
                held.spoil();
                Err(StoreError::Cut { path, bytes, left })
            }
        }
    }

    /// Makes the file unless somebody put one there meanwhile.
    fn create_missing(&self) -> Result<(), StoreError> {
        match self.path.try_exists() {
            Ok(true) => Ok(()),
            _ => self.create(),
        }
    }

    fn usable(&self, handle: &Handle, writing: bool) -> bool {
        let open = match handle {
            Handle::Closed => false,
            Handle::StandIn(..) => return !writing,
            Handle::ReadOnly(..) => !writing,
            Handle::Writable(..) => true,
        };
        open && !self.suspect.load(Ordering::Acquire)
    }

    /// Has the file opened anew before its next use.
    pub(crate) fn distrust(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    fn open(&self, writing: bool) -> Result<Handle, StoreError> {
        patiently(|| self.open_once(writing))
    }

    fn open_once(&self, writing: bool) -> Result<Handle, StoreError> {
        const ACTION: &str = "opening the file";
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes);
        if !writing {
            let opened = self.guarded(ACTION, || {
                let file = open_file(&self.path, false)?;
                refuse_empty(&self.path, &file)?;
                let held = hold(&self.path, &file)?;
                match self.disk.open_read_only(&builder, file) {
                    Ok(db) => Ok(Some((Closing::new(db), held))),
                    // It was not closed and has to be repaired, which writes.
                    Err(DatabaseError::RepairAborted) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            })?;
            if let Some((db, held)) = opened {
                self.guarded(ACTION, || {
                    check_format(&db.get().begin_read()?, &self.path, self.kind.format)
                })?;
                return Ok(Handle::ReadOnly(db, held));
            }
        }
        let (db, held) = self.guarded(ACTION, || {
            let file = open_file(&self.path, true)?;
            refuse_empty(&self.path, &file)?;
            let held = hold(&self.path, &file)?;
            Ok((Closing::new(self.disk.open(&builder, file)?), held))
        })?;
        self.guarded(ACTION, || {
            check_format(&db.get().begin_read()?, &self.path, self.kind.format)
        })?;
        // Opening may have repaired it.
        held.note_length();
        Ok(Handle::Writable(db, held))
    }

    fn guarded<T>(
        &self,
        action: &'static str,
        work: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        guarded(&self.path, work)
            .unwrap_or_else(|detail| {
                Err(Fault::Store(StoreError::Corrupt { path: self.path.clone(), detail }))
            })
            .map_err(|fault| self.told(action, fault))
    }

    fn told(&self, action: &'static str, fault: Fault) -> StoreError {
        match fault {
            Fault::Redb(error) => StoreError::redb(&self.path, action, error),
            Fault::Store(error) => error,
        }
    }
}

fn open_file(path: &Path, writing: bool) -> Result<File, Fault> {
    let opened = File::options().read(true).write(writing).open(path);
    opened.map_err(|e| StoreError::io(path, "opening the file", e).into())
}

/// Refuses a file without a byte: redb would take it for a database that is to be made.
fn refuse_empty(path: &Path, file: &File) -> Result<(), Fault> {
    let told = file.metadata().map_err(|e| StoreError::io(path, "opening the file", e))?;
    if told.len() > 0 {
        return Ok(());
    }
    Err(StoreError::Corrupt { path: path.to_owned(), detail: "it is empty".to_owned() }.into())
}

/// Through the same opening: redb's lock is its, and there is one.
fn hold(path: &Path, file: &File) -> Result<Held, Fault> {
    let held = file.try_clone().and_then(Held::new);
    held.map_err(|e| StoreError::io(path, "opening the file", e).into())
}

/// How long a lock may outlive its holder (chosen: far above the time from fork to exec).
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Tries again for a while when a file is locked. A child process that is being started holds
/// every lock of its parent from fork to exec, also those that the parent gave up meanwhile; and a
/// successor may come a moment before its predecessor is gone.
pub(crate) fn patiently<T>(
    mut open: impl FnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let start = Instant::now();
    loop {
        match open() {
            Err(StoreError::Locked { .. }) if start.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// [`Database::with`] opened it; said in case that is ever wrong.
fn closed() -> Fault {
    Fault::Redb(redb::Error::DatabaseClosed)
}

/// Whether the handle can't be trusted any more. A record that does not decode says nothing of it.
fn is_of_the_storage(error: &StoreError) -> bool {
    !matches!(error, StoreError::Record { .. } | StoreError::Query(_) | StoreError::SpaceLow { .. })
}

/// Runs `work`; a panic of redb over a damaged file becomes `Err(what it said)`.
pub(crate) fn guarded<T>(path: &Path, work: impl FnOnce() -> T) -> Result<T, String> {
    guard::foreign(work).inspect_err(|text| {
        tracing::error!(path = %path.display(), panic = text, "panic while using a store file");
    })
}

/// Refuses a file whose `meta` names another format.
pub(crate) fn check_format(read: &ReadTransaction, path: &Path, known: u64) -> Result<(), Fault> {
    let found = read.open_table(META)?.get(META_FORMAT)?.map(|v| v.value());
    match found {
        Some(found) if found == known => Ok(()),
        Some(found) => Err(StoreError::Format { path: path.to_owned(), found, known }.into()),
        None => Err(StoreError::Corrupt {
            path: path.to_owned(),
            detail: "it has no format number".to_owned(),
        }
        .into()),
    }
}

/// Makes what happened to names in the directory of `path` durable.
pub(crate) fn sync_directory_of(path: &Path) -> std::io::Result<()> {
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
