//! The control file: every row decodes, and the pairs are those of the assignments.

use super::{FileReport, Finding, Opened, finish, guard, open_verified};
use crate::control::row::{Row, json_from_bytes};
use crate::control::{Assignment, Bookmark, Device, Model, OfCamera, Snapshot};
use crate::database::check_format;
use crate::error::{Fault, StoreError};
use crate::record::RecordError;
use crate::tables::make_control;
use crate::tables::{ASSIGNMENTS, CONTROL_FORMAT, DAMAGED_ROWS, DEVICES, LABELS, MODELS, PAIRS};
use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(super) fn check(path: &Path) -> Result<FileReport, StoreError> {
    let mut report = FileReport { path: path.to_owned(), records: 0, findings: Vec::new() };
    // Left where it is: what people entered through the API is in it and nowhere else.
    let unreadable = |mut report: FileReport, detail: String| {
        let detail = format!(
            "{detail}; restore it from a backup, or move it away to start with the rows of the configuration"
        );
        report.findings.push(Finding::Unreadable { detail });
        Ok(report)
    };
    let db = match open_verified(path)? {
        Opened::Open(db, false) => db,
        Opened::Open(db, true) => {
            report.findings.push(Finding::Repaired);
            db
        }
        Opened::Corrupt(detail) => return unreadable(report, detail),
    };
    let work = || -> Result<(), Fault> {
        check_format(&db.get().begin_read()?, path, CONTROL_FORMAT)?;
        let mut write = db.get().begin_write()?;
        write.set_quick_repair(true);
        let before = report.findings.len();
        check_tables(&write, &mut report)?;
        finish(write, &mut report, before)
    };
    match guard(path, work) {
        Ok(()) => Ok(report),
        Err(Fault::Store(error @ StoreError::Format { .. })) => {
            report.findings.push(Finding::Unreadable { detail: error.to_string() });
            Ok(report)
        }
        Err(Fault::Store(StoreError::Corrupt { detail, .. })) => unreadable(report, detail),
        Err(Fault::Store(error)) => Err(error),
        Err(Fault::Redb(error)) => match StoreError::redb(path, "checking the file", error) {
            StoreError::Corrupt { detail, .. } => unreadable(report, detail),
            other => Err(other),
        },
    }
}

/// Rows that can't be read: where they are moved to, and why.
#[derive(Default)]
struct Bad {
    rows: Vec<(String, Vec<u8>)>,
    first: String,
    newer: u64,
}

impl Bad {
    /// Notes a row that does not decode; true when it is to be taken out of its table.
    fn note(&mut self, name: String, bytes: &[u8], error: RecordError) -> bool {
        if matches!(error, RecordError::Version(version) if version > 1) {
            self.newer += 1;
            return false;
        }
        if self.rows.is_empty() {
            self.first = format!("{name}: {error}");
        }
        self.rows.push((name, bytes.to_vec()));
        true
    }
}

fn check_tables(write: &WriteTransaction, report: &mut FileReport) -> Result<(), Fault> {
    make_control(write)?;
    let mut bad = Bad::default();
    check_rows::<Device>(write, DEVICES, report, &mut bad)?;
    check_rows::<Model>(write, MODELS, report, &mut bad)?;
    let assignments = check_rows::<Assignment>(write, ASSIGNMENTS, report, &mut bad)?;
    let snapshots = check_rows::<Snapshot>(write, Snapshot::ROWS, report, &mut bad)?;
    let bookmarks = check_rows::<Bookmark>(write, Bookmark::ROWS, report, &mut bad)?;
    check_labels(write, report, &mut bad)?;
    if bad.newer > 0 {
        report.findings.push(Finding::Newer { records: bad.newer });
        return Ok(());
    }
    if !bad.rows.is_empty() {
        let mut aside = write.open_table(DAMAGED_ROWS)?;
        for (name, bytes) in &bad.rows {
            aside.insert(name.as_str(), bytes.as_slice())?;
        }
        let records = bad.rows.len() as u64;
        report.findings.push(Finding::Damaged { records, first: bad.first });
    }
    check_pairs(write, &assignments, report)?;
    check_index(write, &snapshots, "snapshots_by_camera", report)?;
    check_index(write, &bookmarks, "bookmarks_by_camera", report)
}

fn check_rows<T: Row>(
    write: &WriteTransaction,
    table: TableDefinition<'static, &'static str, &'static [u8]>,
    report: &mut FileReport,
    bad: &mut Bad,
) -> Result<Vec<T>, Fault> {
    let mut table = write.open_table(table)?;
    let (mut good, mut out) = (Vec::new(), Vec::new());
    for entry in table.iter()? {
        let (key, bytes) = entry?;
        match T::from_bytes(key.value(), bytes.value()) {
            Ok(row) => good.push(row),
            Err(error) => {
                if bad.note(format!("{} {}", T::WHAT, key.value()), bytes.value(), error) {
                    out.push(key.value().to_owned());
                }
            }
        }
    }
    for key in out {
        table.remove(key.as_str())?;
    }
    report.records += good.len() as u64;
    Ok(good)
}

fn check_labels(
    write: &WriteTransaction,
    report: &mut FileReport,
    bad: &mut Bad,
) -> Result<(), Fault> {
    let mut table = write.open_table(LABELS)?;
    let mut out = Vec::new();
    for entry in table.iter()? {
        let (key, bytes) = entry?;
        let (model, version) = key.value();
        match json_from_bytes::<Vec<String>>(bytes.value()) {
            Ok(_) => report.records += 1,
            Err(error) => {
                if bad.note(format!("labels {model} {version}"), bytes.value(), error) {
                    out.push((model.to_owned(), version.to_owned()));
                }
            }
        }
    }
    for (model, version) in out {
        table.remove((model.as_str(), version.as_str()))?;
    }
    Ok(())
}

fn check_pairs(
    write: &WriteTransaction,
    assignments: &[Assignment],
    report: &mut FileReport,
) -> Result<(), Fault> {
    let mut expected = BTreeMap::new();
    for row in assignments {
        // Of two rows with one pair the first id is found by its pair; both stay listed.
        expected
            .entry((row.camera.to_string(), row.model.to_string()))
            .or_insert_with(|| row.id.to_string());
    }
    let mut pairs = write.open_table(PAIRS)?;
    let mut found = BTreeMap::new();
    for entry in pairs.iter()? {
        let (key, id) = entry?;
        let (camera, model) = key.value();
        found.insert((camera.to_owned(), model.to_owned()), id.value().to_owned());
    }
    let missing = expected.iter().filter(|(pair, id)| found.get(*pair) != Some(*id));
    let surplus = found.keys().filter(|pair| !expected.contains_key(*pair));
    let (missing, surplus) = (missing.count() as u64, surplus.count() as u64);
    if missing + surplus == 0 {
        return Ok(());
    }
    for (camera, model) in found.keys() {
        pairs.remove((camera.as_str(), model.as_str()))?;
    }
    for ((camera, model), id) in &expected {
        pairs.insert((camera.as_str(), model.as_str()), id.as_str())?;
    }
    report.findings.push(Finding::Index { table: "pairs", missing, surplus });
    Ok(())
}

fn check_index<T: OfCamera>(
    write: &WriteTransaction,
    rows: &[T],
    table: &'static str,
    report: &mut FileReport,
) -> Result<(), Fault> {
    let key = |row: &T| (row.camera().to_string(), row.key().to_owned());
    let expected: BTreeSet<(String, String)> = rows.iter().map(key).collect();
    let mut index = write.open_table(T::INDEX)?;
    let mut found = BTreeSet::new();
    for entry in index.iter()? {
        let (key, _) = entry?;
        let (camera, id) = key.value();
        found.insert((camera.to_owned(), id.to_owned()));
    }
    let missing = expected.difference(&found).count() as u64;
    let surplus = found.difference(&expected).count() as u64;
    if missing + surplus == 0 {
        return Ok(());
    }
    for (camera, id) in found.difference(&expected) {
        index.remove((camera.as_str(), id.as_str()))?;
    }
    for (camera, id) in expected.difference(&found) {
        index.insert((camera.as_str(), id.as_str()), ())?;
    }
    report.findings.push(Finding::Index { table, missing, surplus });
    Ok(())
}
