//! What can go wrong with the files, told so that an operator can act.

use crate::query::QueryError;
use crate::record::RecordError;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A call on the store failed. Nothing of the call is acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the file.
    #[error("{} is in use by another process; stop the other `vas serve` or `vas check` first", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file system refuses to write.
    #[error("{} can't be written: {source}; check its owner and mode, and that its file system is not read-only", path.display())]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No space.
    #[error("{} can't grow: {source}; free some space or shorten events.retention", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// Why: disk or quota.
        source: io::Error,
    },
    /// Less space than is to be kept free. Writing goes on when there is more.
    #[error(
        "{} has {} MiB free, events are written above {} MiB; free some space, shorten `retention` or lower `keep_free` in [events]",
        dir.display(), free_bytes >> 20, floor_bytes >> 20
    )]
    SpaceLow {
        /// The directory of the events.
        dir: PathBuf,
        /// What is free.
        free_bytes: u64,
        /// The floor.
        floor_bytes: u64,
    },
    /// Somebody deleted the file, or put another one in its place, while it was in use.
    #[error(
        "{} was deleted or replaced by another program while it was in use, and {}",
        path.display(), unrestored(source.as_ref())
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// Why it can't be written again; `None` = nobody tried yet.
        source: Option<io::Error>,
    },
    /// Somebody shortened the file while it was in use.
    #[error(
        "{} was cut from {left} to {bytes} bytes by another program while it was in use; stop serve, then put a \
         backup in its place or run `vas check`",
        path.display()
    )]
    Cut {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// Its length when it was last written.
        left: u64,
    },
    /// The file contradicts itself.
    #[error("{} is corrupt: {detail}; stop serve and run `vas check`", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file was written by a program with another format.
    #[error("{} has format {found}, this program reads {known}; use the version of vas that wrote it or a newer one", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The format of this program.
        known: u64,
    },
    /// One record can't be read; the others can.
    #[error("{what} in {} can't be read: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Which record, for example `event 0190...`.
        what: String,
        /// Why.
        source: RecordError,
    },
    /// Any other failure of the file system.
    #[error("{action} failed on {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The query is out of bounds.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl StoreError {
    /// Sorts an error of the file system into its kind.
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> StoreError {
        let path = path.to_owned();
        match source.kind() {
            _ if no_room(&source) => StoreError::DiskFull { path, source },
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                StoreError::Unwritable { path, source }
            }
            _ => StoreError::Io { path, action, source },
        }
    }

    /// Sorts an error of redb into its kind.
    pub(crate) fn redb(path: &Path, action: &'static str, error: redb::Error) -> StoreError {
        let owned = path.to_owned();
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                StoreError::Locked { path: owned }
            }
            // "Not a redb database", a file that ends too early, an offset that no file has.
            redb::Error::Io(e)
                if matches!(
                    e.kind(),
                    ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::InvalidInput
                ) =>
            {
                StoreError::Corrupt { path: owned, detail: e.to_string() }
            }
            redb::Error::Io(e) => StoreError::io(path, action, e),
            redb::Error::Corrupted(detail) => StoreError::Corrupt { path: owned, detail },
            redb::Error::UpgradeRequired(found) => {
                StoreError::Corrupt { path: owned, detail: format!("redb file format {found}") }
            }
            redb::Error::TableDoesNotExist(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. } => {
                StoreError::Corrupt { path: owned, detail: error.to_string() }
            }
            other => StoreError::Io { path: owned, action, source: io::Error::other(other) },
        }
    }

    /// Whether it fails for want of room, and would not with more of it.
    pub fn is_full(&self) -> bool {
        match self {
            StoreError::DiskFull { .. } => true,
            StoreError::Lost { source: Some(source), .. } => no_room(source),
            _ => false,
        }
    }

    /// Whether the file is not there (dropped by retention meanwhile).
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, StoreError::Io { source, .. } if source.kind() == ErrorKind::NotFound)
    }
}

/// Whether disk, quota or the limit of a file's size is used up.
pub fn no_room(error: &io::Error) -> bool {
    let kinds = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
    kinds.contains(&error.kind())
}

fn unrestored(source: Option<&io::Error>) -> String {
    match source {
        None => "is written again before the next change".to_owned(),
        Some(error) => format!(
            "can't be written again: {error}; nothing is changed until it can be, and what it held is lost when \
             serve ends: make room or correct the directory"
        ),
    }
}

/// What a closure over a database returns: an error of redb, to be told with file and action, or
/// one that is complete already.
#[derive(Debug)]
pub(crate) enum Fault {
    Redb(redb::Error),
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Store(error)
    }
}

macro_rules! fault_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Fault {
                Fault::Redb(error.into())
            }
        })*
    };
}

fault_from!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);
