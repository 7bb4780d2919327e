//! `vas check`: verifies every file of the store and repairs what can be repaired.
//!
//! Nothing is destroyed: a record that can't be read is moved to the table `damaged` of its file,
//! a day file that can't be opened is renamed to `<name>.damaged`. Indexes are derived from the
//! records and are made anew when they disagree. Runs alone: refuses while serve holds the store.

mod control;
mod day;

use crate::control::control_path;
use crate::database::{Closing, guarded, patiently, sync_directory_of};
use crate::error::{Fault, StoreError};
use crate::held;
use crate::pool::{day_path, days_in, events_directory, lock_directory};
use redb::WriteTransaction;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What [`check`] found, file by file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// One per file, the control file first, then the days in order.
    pub files: Vec<FileReport>,
}

impl Report {
    /// Whether every file was as it should be.
    pub fn clean(&self) -> bool {
        self.files.iter().all(|file| file.findings.is_empty())
    }

    /// Whether something could not be repaired, so that data is missing or serve would not start.
    pub fn lossy(&self) -> bool {
        self.files.iter().flat_map(|file| &file.findings).any(Finding::is_loss)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            writeln!(f, "{file}")?;
        }
        Ok(())
    }
}

/// What was found in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// Events or rows that can be read.
    pub records: u64,
    /// What was wrong; empty = nothing.
    pub findings: Vec<Finding>,
}

impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} records", self.path.display(), self.records)?;
        if self.findings.is_empty() {
            return f.write_str(", ok");
        }
        self.findings.iter().try_for_each(|finding| write!(f, "; {finding}"))
    }
}

/// One thing that was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// redb found the file's structure damaged or not closed, and repaired it: every commit that
    /// was acknowledged is there.
    Repaired,
    /// Rows of an index were missing or named nothing; the index was made anew.
    Index {
        /// The table.
        table: &'static str,
        /// Rows that should have been there.
        missing: u64,
        /// Rows that should not.
        surplus: u64,
    },
    /// Records that can't be read were moved to the table `damaged`.
    Damaged {
        /// How many.
        records: u64,
        /// The first of them and why.
        first: String,
    },
    /// Records of a newer program; nothing of this file was changed.
    Newer {
        /// How many.
        records: u64,
    },
    /// The file can't be opened and was renamed, so that serve can start a new one.
    SetAside {
        /// Its new name.
        to: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The file can't be opened and was left where it is.
    Unreadable {
        /// What is wrong with it, and what to do.
        detail: String,
    },
}

impl Finding {
    fn is_loss(&self) -> bool {
        !matches!(self, Finding::Repaired | Finding::Index { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Repaired => f.write_str("structure repaired"),
            Finding::Index { table, missing, surplus } => {
                write!(f, "index {table} rebuilt ({missing} rows missing, {surplus} too many)")
            }
            Finding::Damaged { records, first } => {
                write!(f, "{records} unreadable records moved to table damaged, the first: {first}")
            }
            Finding::Newer { records } => {
                write!(f, "{records} records of a newer program left as they are")
            }
            Finding::SetAside { to, detail } => {
                write!(f, "can't be opened ({detail}), renamed to {}", to.display())
            }
            Finding::Unreadable { detail } => write!(f, "can't be opened: {detail}"),
        }
    }
}

/// Verifies and repairs all files beneath a state directory.
///
/// # Errors
/// [`StoreError::Locked`] while serve or another check runs; those of the file system when a
/// directory can't be read or written. What is wrong within a file is in the report.
pub fn check(state: &Path) -> Result<Report, StoreError> {
    fs::metadata(state).map_err(|e| StoreError::io(state, "looking for the state directory", e))?;
    let mut report = Report::default();
    let control = control_path(state);
    if exists(&control)? {
        report.files.push(control::check(&control)?);
    }
    let dir = events_directory(state);
    if exists(&dir)? {
        let _lock = lock_directory(&dir)?;
        for day in days_in(&dir)? {
            report.files.push(day::check(&day_path(&dir, day), day)?);
        }
    }
    Ok(report)
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|e| StoreError::io(path, "looking for the file", e))
}

/// A file as redb sees it.
enum Opened {
    /// Sound, or made so: then `true`.
    Open(Closing<redb::Database>, bool),
    /// Beyond repair, and why.
    Corrupt(String),
}

/// Opens a file and has redb verify every page of it.
fn open_verified(path: &Path) -> Result<Opened, StoreError> {
    patiently(|| open_verified_once(path))
}

fn open_verified_once(path: &Path) -> Result<Opened, StoreError> {
    let repaired = Arc::new(AtomicBool::new(false));
    let open = |verify_first: bool| -> Result<(Closing<redb::Database>, bool), StoreError> {
        let told = repaired.clone();
        let mut builder = redb::Builder::new();
        builder.set_cache_size(64 << 20);
        builder.set_check_integrity_on_open(verify_first);
        builder.set_repair_callback(move |_| told.store(true, Ordering::Relaxed));
        let mut db = verified(path, || Ok(Closing::new(builder.open(path)?)))?;
        let sound = verified(path, || db.get_mut().check_integrity())?;
        Ok((db, sound))
    };
    // A plain open trusts what a clean close wrote and tells whether it had to repair; on a file
    // that others altered it may panic, then the open that trusts nothing has a try.
    match open(false) {
        Ok((db, sound)) => {
            return Ok(Opened::Open(db, !sound || repaired.load(Ordering::Relaxed)));
        }
        Err(StoreError::Corrupt { .. }) => {}
        Err(other) => return Err(other),
    }
    match open(true) {
        Ok((db, _)) => Ok(Opened::Open(db, true)),
        Err(StoreError::Corrupt { detail, .. }) => Ok(Opened::Corrupt(detail)),
        Err(other) => Err(other),
    }
}

fn verified<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, redb::DatabaseError>,
) -> Result<T, StoreError> {
    match guarded(path, work) {
        Ok(result) => result.map_err(|e| StoreError::redb(path, "checking the file", e.into())),
        Err(detail) => Err(StoreError::Corrupt { path: path.to_owned(), detail }),
    }
}

/// Runs `work`; a panic of redb means that the file is corrupt.
fn guard(path: &Path, work: impl FnOnce() -> Result<(), Fault>) -> Result<(), Fault> {
    guarded(path, work)
        .unwrap_or_else(|detail| Err(StoreError::Corrupt { path: path.to_owned(), detail }.into()))
}

/// Ends the transaction of a check, in which everything behind `before` was found. What was mended is
/// kept, unless there are records of a newer program: of that file nothing is changed.
fn finish(write: WriteTransaction, report: &mut FileReport, before: usize) -> Result<(), Fault> {
    let found = report.findings.split_off(before);
    let newer = found.iter().find(|finding| matches!(finding, Finding::Newer { .. })).cloned();
    let mended = newer.is_none() && !found.is_empty();
    report.findings.extend(newer.map_or(found, |newer| vec![newer]));
    // An unchanged file is not written.
    if mended {
        write.commit()?;
    } else {
        write.abort()?;
    }
    Ok(())
}

/// Renames a file that can't be opened.
fn set_aside(path: &Path, detail: String) -> Result<FileReport, StoreError> {
    let failed = |e| StoreError::io(path, "renaming", e);
    let to = held::set_aside(path, "damaged").map_err(failed)?.unwrap_or_else(|| path.to_owned());
    sync_directory_of(path).map_err(failed)?;
    let findings = vec![Finding::SetAside { to, detail }];
    Ok(FileReport { path: path.to_owned(), records: 0, findings })
}
