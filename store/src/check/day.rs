//! A day file: every record decodes and belongs to the day, the dictionary is whole, the indexes
//! are those of the records.

use super::{FileReport, Finding, Opened, finish, guard, open_verified, set_aside};
use crate::database::check_format;
use crate::day::Day;
use crate::error::{Fault, StoreError};
use crate::event::EventId;
use crate::record::{self, Record, RecordError};
use crate::tables::make_day;
use crate::tables::{BY_CAMERA, BY_CLASS, BY_MODEL, DAMAGED, DAY_FORMAT, EVENTS, NUMBERS, TEXTS};
use redb::{
    ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableHandle,
    WriteTransaction,
};
use std::path::Path;

type IndexTable = TableDefinition<'static, (u32, u128), ()>;
const INDEXES: [IndexTable; 3] = [BY_CAMERA, BY_MODEL, BY_CLASS];

pub(super) fn check(path: &Path, day: Day) -> Result<FileReport, StoreError> {
    let (db, repaired) = match open_verified(path)? {
        Opened::Open(db, repaired) => (db, repaired),
        Opened::Corrupt(detail) => return set_aside(path, detail),
    };
    let mut report = FileReport { path: path.to_owned(), records: 0, findings: Vec::new() };
    if repaired {
        report.findings.push(Finding::Repaired);
    }
    let work = || -> Result<(), Fault> {
        check_format(&db.get().begin_read()?, path, DAY_FORMAT)?;
        let mut write = db.get().begin_write()?;
        write.set_quick_repair(true);
        let before = report.findings.len();
        check_tables(&write, day, &mut report)?;
        finish(write, &mut report, before)
    };
    match guard(path, work) {
        Ok(()) => Ok(report),
        Err(Fault::Store(error @ StoreError::Format { .. })) => {
            report.findings.push(Finding::Unreadable { detail: error.to_string() });
            Ok(report)
        }
        Err(fault) => {
            let error = match fault {
                Fault::Store(error) => error,
                Fault::Redb(error) => StoreError::redb(path, "checking the file", error),
            };
            let StoreError::Corrupt { detail, .. } = error else { return Err(error) };
            drop(db);
            set_aside(path, detail)
        }
    }
}

/// What the records say of one index.
#[derive(Default, Clone, Copy)]
struct Tally {
    expected: u64,
    missing: u64,
}

fn check_tables(write: &WriteTransaction, day: Day, report: &mut FileReport) -> Result<(), Fault> {
    // A table that is missing altogether is an empty one.
    make_day(write)?;
    check_dictionary(write, report)?;
    let mut tallies = [Tally::default(); 3];
    let mut damaged: Vec<u128> = Vec::new();
    let mut first = String::new();
    let mut newer = 0;
    {
        let events = write.open_table(EVENTS)?;
        let texts = write.open_table(TEXTS)?;
        let [camera, model, class] = INDEXES;
        let tables =
            [write.open_table(camera)?, write.open_table(model)?, write.open_table(class)?];
        for entry in events.iter()? {
            let (key, value) = entry?;
            let id = key.value();
            match readable(id, value.value(), day, &texts)? {
                Ok(record) => {
                    report.records += 1;
                    for (index, key) in index_rows(&record, id) {
                        tallies[index].expected += 1;
                        if tables[index].get(key)?.is_none() {
                            tallies[index].missing += 1;
                        }
                    }
                }
                Err(RecordError::Version(version)) if version > record::VERSION => newer += 1,
                Err(error) => {
                    if damaged.is_empty() {
                        first = format!("{id:032x}: {error}");
                    }
                    damaged.push(id);
                }
            }
        }
    }
    if newer > 0 {
        report.findings.push(Finding::Newer { records: newer });
        return Ok(());
    }
    if !damaged.is_empty() {
        let mut events = write.open_table(EVENTS)?;
        let mut aside = write.open_table(DAMAGED)?;
        for &id in &damaged {
            if let Some(bytes) = events.remove(id)? {
                aside.insert(id, bytes.value())?;
            }
        }
        report.findings.push(Finding::Damaged { records: damaged.len() as u64, first });
    }
    for (index, tally) in tallies.into_iter().enumerate() {
        let rows = write.open_table(INDEXES[index])?.len()?;
        let surplus = (rows + tally.missing).saturating_sub(tally.expected);
        if tally.missing > 0 || surplus > 0 {
            rebuild(write, index)?;
            let table = INDEXES[index];
            let (missing, table) = (tally.missing, static_name(table));
            report.findings.push(Finding::Index { table, missing, surplus });
        }
    }
    Ok(())
}

fn static_name(table: IndexTable) -> &'static str {
    ["by_camera", "by_model", "by_class"]
        .into_iter()
        .find(|&name| name == table.name())
        .unwrap_or("index")
}

fn readable(
    id: u128,
    bytes: &[u8],
    day: Day,
    texts: &impl ReadableTable<u32, &'static str>,
) -> Result<Result<Record, RecordError>, Fault> {
    let record = match record::decode(bytes) {
        Ok(record) => record,
        Err(error) => return Ok(Err(error)),
    };
    if EventId::from_u128(id).is_none_or(|id| id.day() != day) {
        return Ok(Err(RecordError::Value { field: "millisecond", value: (id >> 80) as u64 }));
    }
    let numbers = record.numbers;
    let named = [
        ("camera", numbers.camera, true),
        ("model", numbers.model, true),
        ("model version", numbers.version, false),
        ("device", numbers.device, true),
    ];
    for (field, number, is_id) in named {
        let text = texts.get(number)?;
        // All three kinds of id have one alphabet.
        let good = text.is_some_and(|t| !is_id || base::CameraId::new(t.value()).is_ok());
        if !good {
            return Ok(Err(RecordError::Value { field, value: number.into() }));
        }
    }
    Ok(Ok(record))
}

/// The rows that the indexes must have of a record.
fn index_rows(record: &Record, id: u128) -> Vec<(usize, (u32, u128))> {
    let mut rows = vec![(0, (record.numbers.camera, id)), (1, (record.numbers.model, id))];
    let classes = record::classes(&record.detections);
    rows.extend(classes.into_iter().map(|class| (2, (u32::from(class), id))));
    rows
}

fn rebuild(write: &WriteTransaction, index: usize) -> Result<(), Fault> {
    write.delete_table(INDEXES[index])?;
    let mut table = write.open_table(INDEXES[index])?;
    let events = write.open_table(EVENTS)?;
    for entry in events.iter()? {
        let (key, value) = entry?;
        let id = key.value();
        // What does not decode was moved away before.
        let Ok(record) = record::decode(value.value()) else { continue };
        for (of, key) in index_rows(&record, id) {
            if of == index {
                table.insert(key, ())?;
            }
        }
    }
    Ok(())
}

/// Text -> number and number -> text hold the same pairs; each is completed from the other.
fn check_dictionary(write: &WriteTransaction, report: &mut FileReport) -> Result<(), Fault> {
    let mut numbers = write.open_table(NUMBERS)?;
    let mut texts = write.open_table(TEXTS)?;
    let mut pairs = Vec::new();
    for entry in texts.iter()? {
        let (number, text) = entry?;
        pairs.push((number.value(), text.value().to_owned()));
    }
    let mut missing = 0;
    for (number, text) in &pairs {
        if numbers.get(text.as_str())?.map(|n| n.value()) != Some(*number) {
            numbers.insert(text.as_str(), number)?;
            missing += 1;
        }
    }
    let mut others = Vec::new();
    for entry in numbers.iter()? {
        let (text, number) = entry?;
        let known = texts.get(number.value())?;
        if known.is_none_or(|known| known.value() != text.value()) {
            others.push((number.value(), text.value().to_owned()));
        }
    }
    let mut surplus = 0;
    for (number, text) in &others {
        let taken = texts.get(number)?.is_some();
        if taken {
            numbers.remove(text.as_str())?;
            surplus += 1;
        } else {
            texts.insert(number, text.as_str())?;
            missing += 1;
        }
    }
    if missing + surplus > 0 {
        report.findings.push(Finding::Index { table: "numbers", missing, surplus });
    }
    Ok(())
}
