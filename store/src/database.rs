//! One redb file: opened when needed, closed and opened again after any error of the storage.
//!
//! redb refuses all further writes after an I/O error until the file is opened anew, and a file
//! that was altered by others may make it panic. Both stay inside [`Database::read`] and
//! [`Database::write`]: the caller gets an error, and the next call begins with a fresh handle.
//!
//! A file that is only read is opened read-only: redb writes and syncs when it opens and closes a
//! file for writing.

use crate::error::{Fault, StoreError};
use crate::tables::META;
use redb::{Builder, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase};
use std::fmt;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How files are opened. Tests put a failing disk beneath.
pub(crate) trait Disk: fmt::Debug + Send + Sync {
    /// Opens for writing what is there, also an empty file.
    fn open(&self, builder: &Builder, path: &Path) -> Result<redb::Database, DatabaseError>;
    /// Opens for reading.
    fn open_read_only(
        &self,
        builder: &Builder,
        path: &Path,
    ) -> Result<ReadOnlyDatabase, DatabaseError>;
}

/// The disk of this machine.
#[derive(Debug)]
pub(crate) struct PlainDisk;

impl Disk for PlainDisk {
    fn open(&self, builder: &Builder, path: &Path) -> Result<redb::Database, DatabaseError> {
        // `Builder::open` refuses an empty file, `create` would make a missing one.
        fs::metadata(path)?;
        builder.create(path)
    }

    fn open_read_only(
        &self,
        builder: &Builder,
        path: &Path,
    ) -> Result<ReadOnlyDatabase, DatabaseError> {
        builder.open_read_only(path)
    }
}

/// What `meta` says of a file's format.
pub(crate) const META_FORMAT: &str = "format";

#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    cache_bytes: usize,
    format: u64,
    disk: Arc<dyn Disk>,
    handle: RwLock<Handle>,
    /// Set by whoever saw an error; the next user closes and opens the file.
    suspect: AtomicBool,
}

enum Handle {
    Closed,
    ReadOnly(Closing<ReadOnlyDatabase>),
    Writable(Closing<redb::Database>),
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
            Handle::ReadOnly(_) => "ReadOnly",
            Handle::Writable(_) => "Writable",
        })
    }
}

impl Database {
    /// A file that exists or will be made by [`Database::create`]; nothing is opened yet.
    pub(crate) fn new(
        path: PathBuf,
        format: u64,
        cache_bytes: usize,
        disk: Arc<dyn Disk>,
    ) -> Database {
        let handle = RwLock::new(Handle::Closed);
        let suspect = AtomicBool::new(false);
        Database { path, cache_bytes, format, disk, handle, suspect }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// Makes the file with all its tables and its format, durably, under a name of its own first:
    /// a file of the right name is always complete.
    pub(crate) fn create(
        &self,
        make_tables: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::TableError>,
    ) -> Result<(), StoreError> {
        let temporary = self.path.with_extension("redb.new");
        let made = self.create_at(&temporary, make_tables);
        if made.is_err() {
            // What is left of it is of no use; the first error is the one to tell.
            let _ = fs::remove_file(&temporary);
        }
        made
    }

    fn create_at(
        &self,
        temporary: &Path,
        make_tables: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::TableError>,
    ) -> Result<(), StoreError> {
        const ACTION: &str = "creating the file";
        match fs::remove_file(temporary) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io(temporary, ACTION, e));
            }
            _ => {}
        }
        let make = || -> Result<(), Fault> {
            // Rows hold camera URLs with passwords: nobody else reads them.
            let mut empty = fs::File::options();
            empty.write(true).create_new(true).mode(0o600);
            empty.open(temporary).map_err(|e| StoreError::io(temporary, ACTION, e))?;
            let mut builder = Builder::new();
            builder.set_cache_size(1 << 20);
            let db = self.disk.open(&builder, temporary)?;
            let mut write = db.begin_write()?;
            write.set_quick_repair(true);
            write.open_table(META)?.insert(META_FORMAT, self.format)?;
            make_tables(&write)?;
            write.commit()?;
            Ok(db.close()?)
        };
        make().map_err(|fault| self.told(ACTION, fault))?;
        let sync = || -> std::io::Result<()> {
            fs::rename(temporary, &self.path)?;
            sync_directory_of(&self.path)
        };
        sync().map_err(|e| StoreError::io(&self.path, ACTION, e))
    }

    /// Runs `work` in a read transaction. After an error or a panic in it the file is opened anew
    /// before it is used again. Many may be inside at once.
    pub(crate) fn read<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.with(action, false, |handle| match handle {
            Handle::ReadOnly(db) => work(&db.get().begin_read()?),
            Handle::Writable(db) => work(&db.get().begin_read()?),
            Handle::Closed => Err(closed()),
        })
    }

    /// Runs `work` on the file opened for writing; otherwise like [`Database::read`].
    pub(crate) fn write<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&redb::Database) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.with(action, true, |handle| match handle {
            Handle::Writable(db) => work(db.get()),
            Handle::ReadOnly(_) | Handle::Closed => Err(closed()),
        })
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
            if !self.usable(&handle, writing) {
                // The old handle holds redb's lock on the file: it goes first.
                *handle = Handle::Closed;
                *handle = self.open(writing)?;
                self.suspect.store(false, Ordering::Release);
            }
        }
    }

    fn usable(&self, handle: &Handle, writing: bool) -> bool {
        let open = match handle {
            Handle::Closed => false,
            Handle::ReadOnly(_) => !writing,
            Handle::Writable(_) => true,
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
                match self.disk.open_read_only(&builder, &self.path) {
                    Ok(db) => Ok(Some(Closing::new(db))),
                    // It was not closed and has to be repaired, which writes.
                    Err(DatabaseError::RepairAborted) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            })?;
            if let Some(db) = opened {
                self.guarded(ACTION, || {
                    check_format(&db.get().begin_read()?, &self.path, self.format)
                })?;
                return Ok(Handle::ReadOnly(db));
            }
        }
        let db =
            self.guarded(ACTION, || Ok(Closing::new(self.disk.open(&builder, &self.path)?)))?;
        self.guarded(ACTION, || check_format(&db.get().begin_read()?, &self.path, self.format))?;
        Ok(Handle::Writable(db))
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
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_else(|| "redb panicked".to_owned());
        tracing::error!(path = %path.display(), panic = text, "panic while using a store file");
        text
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
