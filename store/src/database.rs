//! One redb file: opened when needed, closed and opened again after any error of the storage.
//!
//! redb refuses all further writes after an I/O error until the file is opened anew, and a file
//! that was altered by others may make it panic. Both stay inside [`Database::with`]: the caller
//! gets an error, and the next call begins with a fresh handle.

use crate::error::{Fault, StoreError};
use crate::tables::META;
use redb::{DatabaseError, ReadableDatabase};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// How files are opened: `true` creates what is missing. Tests put a failing disk beneath.
pub(crate) type Opener =
    Arc<dyn Fn(&redb::Builder, &Path, bool) -> Result<redb::Database, DatabaseError> + Send + Sync>;

/// Opens files as redb does.
pub(crate) fn plain_opener() -> Opener {
    Arc::new(|builder, path, create| if create { builder.create(path) } else { builder.open(path) })
}

/// What `meta` says of a file's format.
pub(crate) const META_FORMAT: &str = "format";

#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    cache_bytes: usize,
    format: u64,
    opener: OpenerDebug,
    handle: RwLock<Option<redb::Database>>,
    /// Set by whoever saw an error; the next user closes and opens the file.
    suspect: AtomicBool,
}

struct OpenerDebug(Opener);

impl std::fmt::Debug for OpenerDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
}

impl Database {
    /// A file that exists or will be made by [`Database::create`]; nothing is opened yet.
    pub(crate) fn new(path: PathBuf, format: u64, cache_bytes: usize, opener: Opener) -> Database {
        Database {
            path,
            cache_bytes,
            format,
            opener: OpenerDebug(opener),
            handle: RwLock::new(None),
            suspect: AtomicBool::new(false),
        }
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
            let mut builder = redb::Builder::new();
            builder.set_cache_size(1 << 20);
            let db = (self.opener.0)(&builder, temporary, true)
                .map_err(|e| Fault::Redb(redb::Error::from(e)))?;
            let mut write = db.begin_write()?;
            write.set_quick_repair(true);
            write.open_table(META)?.insert(META_FORMAT, self.format)?;
            make_tables(&write)?;
            write.commit()?;
            db.close().map_err(|e| Fault::Redb(redb::Error::from(e)))
        };
        make().map_err(|fault| self.told(ACTION, fault))?;
        let sync = || -> std::io::Result<()> {
            fs::rename(temporary, &self.path)?;
            sync_directory_of(&self.path)
        };
        sync().map_err(|e| StoreError::io(&self.path, ACTION, e))
    }

    /// Runs `work` on the open file. After an error or a panic in it the file is opened anew
    /// before it is used again.
    ///
    /// Many may be inside at once; opening waits until all are out.
    pub(crate) fn with<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&redb::Database) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        loop {
            {
                let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
                if let (Some(db), false) = (&*handle, self.suspect.load(Ordering::Acquire)) {
                    let result = self.guarded(action, || work(db));
                    if result.as_ref().is_err_and(is_of_the_storage) {
                        self.distrust();
                    }
                    return result;
                }
            }
            let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
            if handle.is_none() || self.suspect.load(Ordering::Acquire) {
                // The old handle holds redb's lock on the file: it goes first.
                *handle = None;
                *handle = Some(self.open()?);
                self.suspect.store(false, Ordering::Release);
            }
        }
    }

    /// Has the file opened anew before its next use.
    pub(crate) fn distrust(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    fn open(&self) -> Result<redb::Database, StoreError> {
        const ACTION: &str = "opening the file";
        self.guarded(ACTION, || {
            let mut builder = redb::Builder::new();
            builder.set_cache_size(self.cache_bytes);
            let db = (self.opener.0)(&builder, &self.path, false)
                .map_err(|e| Fault::Redb(redb::Error::from(e)))?;
            check_format(&db, &self.path, self.format)?;
            Ok(db)
        })
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
pub(crate) fn check_format(db: &redb::Database, path: &Path, known: u64) -> Result<(), Fault> {
    let read = db.begin_read()?;
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
