//! Foreign bytes: records that were tampered with, files that are none, and what `check` makes of
//! them.

use super::{Clock, NOON, event, json, seeded};
use crate::check::{FileReport, Finding};
use crate::database::{Database, PlainDisk, sync_directory_of};
use crate::pool::{day_path, events_directory};
use crate::record::{self, Numbers, RecordError};
use crate::tables::{BY_CAMERA, DAMAGED, EVENTS, META, TEXTS};
use crate::{Day, EventQuery, EventStore, StoreError};
use base::UtcNanos;
use fastrand::Rng;
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const NUMBERS_1: Numbers = Numbers { camera: 1, model: 2, version: 3, device: 4 };

fn encoded(rng: &mut Rng) -> (crate::NewEvent, Vec<u8>) {
    let event = event(rng, NOON);
    let mut bytes = Vec::new();
    record::encode(&event, NUMBERS_1, UtcNanos(77), &mut bytes).unwrap();
    (event, bytes)
}

#[test]
fn records_round_trip() {
    let mut rng = seeded("records_round_trip");
    for _ in 0..2000 {
        let (event, bytes) = encoded(&mut rng);
        let record = record::decode(&bytes).unwrap();
        assert_eq!(record.numbers, NUMBERS_1);
        assert_eq!(record.created_at, UtcNanos(77));
        assert_eq!(
            (record.generation, record.frame_id, record.media, record.frame),
            (event.generation, event.frame_id, event.media, event.frame)
        );
        assert_eq!(record.stages, event.stages);
        assert_eq!(record.detections, event.detections);
        assert_eq!(record.metadata, event.metadata);
    }
}

/// The byte table of docs/store.md.
#[test]
fn offsets_are_as_documented() {
    let mut event = event(&mut Rng::with_seed(1), NOON);
    event.generation.0 = 0x1111_1111_1111_1111;
    event.frame_id.0 = 0x2222_2222_2222_2222;
    event.media.0 = 0x3333_3333_3333_3333;
    event.frame = base::Size { width: 1920, height: 1080 };
    let nanos = [0, 127, 128, 300, 0, 0, 0, 0, 1 << 35];
    event.stages = base::Stages::from_array(nanos.map(std::time::Duration::from_nanos));
    let bbox = base::Rect { x1: 0.25, y1: 0.5, x2: 0.75, y2: 1.0 };
    let detection =
        base::Detection { bbox, score: 0.125, class_id: 0x0102, track: base::TrackId(9) };
    event.detections = Default::default();
    event.detections.detections = vec![detection];
    event.detections.keypoints =
        vec![base::Keypoint { detection: 0, kind: 5, x: 0.5, y: 0.25, score: 1.0 }];
    event.detections.masks =
        vec![base::Mask { detection: 0, width: 2, height: 1, data: vec![7, 8] }];
    event.metadata = Some(json(serde_json::json!({})));
    let mut bytes = Vec::new();
    let numbers = Numbers { camera: 1, model: 2, version: 3, device: 4 };
    record::encode(&event, numbers, UtcNanos(0x4444_4444_4444_4444), &mut bytes).unwrap();
    let f = |v: f32| v.to_le_bytes().to_vec();
    let fields: &[(usize, Vec<u8>)] = &[
        (0, vec![1]),
        (1, vec![15]),
        (2, vec![1, 0, 0, 0]),
        (6, vec![2, 0, 0, 0]),
        (10, vec![3, 0, 0, 0]),
        (14, vec![4, 0, 0, 0]),
        (18, vec![0x44; 8]),
        (26, vec![0x11; 8]),
        (34, vec![0x22; 8]),
        (42, vec![0x33; 8]),
        (50, vec![0x80, 7, 0, 0]),
        (54, vec![0x38, 4, 0, 0]),
        (58, vec![1, 0]),
        (60, vec![0, 127, 0x80, 1, 0xac, 2, 0, 0, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 1]),
        (76, [f(0.25), f(0.5), f(0.75), f(1.0), f(0.125), vec![2, 1]].concat()),
        (98, vec![9, 0, 0, 0]),
        (102, vec![1, 0, 0, 0]),
        (106, [vec![0, 0, 0, 0, 5, 0], f(0.5), f(0.25), f(1.0)].concat()),
        (124, vec![1, 0, 0, 0]),
        (128, vec![0, 0, 0, 0, 2, 0, 1, 0, 7, 8]),
        (138, vec![2, 0, 0, 0, b'{', b'}']),
    ];
    let mut end = 0;
    for (offset, field) in fields {
        assert_eq!(*offset, end, "fields follow each other");
        assert_eq!(&bytes[*offset..offset + field.len()], field, "at {offset}");
        end = offset + field.len();
    }
    assert_eq!(bytes.len(), end);
}

#[test]
fn hostile_records_are_errors_not_panics() {
    let mut rng = seeded("hostile_records_are_errors_not_panics");
    let mut refused = 0;
    for _ in 0..3000 {
        let (_, good) = encoded(&mut rng);
        for cut in [0, 1, rng.usize(0..good.len()), good.len() - 1] {
            assert!(record::decode(&good[..cut]).is_err(), "cut at {cut}");
        }
        let mut bytes = good.clone();
        bytes.push(0);
        assert!(record::decode(&bytes).is_err());
        for _ in 0..20 {
            let mut bytes = good.clone();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(0..bytes.len());
                bytes[at] = if rng.bool() { 0xff } else { rng.u8(..) };
            }
            refused += usize::from(record::decode(&bytes).is_err());
        }
        let noise: Vec<u8> = (0..rng.usize(0..300)).map(|_| rng.u8(..)).collect();
        let mut noise_with_version = vec![1, rng.u8(0..16)];
        noise_with_version.extend(&noise);
        let _ = record::decode(&noise);
        let _ = record::decode(&noise_with_version);
    }
    assert!(refused > 10_000);
    assert_eq!(record::decode(&[2; 200]), Err(RecordError::Version(2)));
    // A count of what can't be there makes no room for it.
    let (_, mut bytes) = encoded(&mut Rng::with_seed(1));
    bytes[58..60].copy_from_slice(&u16::MAX.to_le_bytes());
    assert!(matches!(record::decode(&bytes), Err(RecordError::Short { field: "detections", .. })));
}

/// A store with some events on one day; returns the day's file and how many there are.
pub(super) fn filled(state: &Path, count: usize) -> PathBuf {
    let clock = Clock::at(NOON);
    let (mut writer, _reader) = EventStore::open(state, clock.options()).unwrap();
    let mut rng = Rng::with_seed(9);
    let events: Vec<_> = (0..count)
        .map(|_| {
            let utc = UtcNanos(NOON.0 - rng.u64(0..1000));
            let mut event = event(&mut rng, utc);
            if event.detections.detections.is_empty() {
                event.detections.detections.push(super::detection(&mut rng));
            }
            event
        })
        .collect();
    writer.append(&events).unwrap();
    day_path(&events_directory(state), Day::of(NOON))
}

pub(super) fn altered(path: &Path, alter: impl FnOnce(&redb::WriteTransaction)) {
    let db = redb::Database::open(path).unwrap();
    let write = db.begin_write().unwrap();
    alter(&write);
    write.commit().unwrap();
}

pub(super) fn only_file(state: &Path) -> FileReport {
    let mut report = crate::check(state).unwrap();
    assert_eq!(report.files.len(), 1, "{report}");
    report.files.remove(0)
}

#[test]
fn an_empty_file_is_refused_and_no_database_is_made_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("2026-03-01.redb");
    std::fs::write(&path, "").unwrap();
    let file = Database::new(path.clone(), &crate::tables::DAY, 1 << 20, Arc::new(PlainDisk));
    let error = file.write("writing", |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("it is empty"), "{error}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_directory_that_can_not_be_synced_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    sync_directory_of(&directory.path().join("file")).unwrap();
    assert!(sync_directory_of(&directory.path().join("missing/file")).is_err());
}

#[test]
fn unreadable_records_hurt_nobody_and_check_moves_them_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path(), 20);
    let clock = Clock::at(NOON);
    let (_, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    let all = reader.list(&EventQuery::default()).unwrap();
    let victim = all.events[3].id;
    drop(reader);
    let junk: &[u8] = &[1, 255, 3];
    altered(&path, |write| {
        let mut events = write.open_table(EVENTS).unwrap();
        events.insert(victim.as_u128(), junk).unwrap();
    });
    let (_, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    let page = reader.list(&EventQuery::default()).unwrap();
    assert_eq!((page.events.len(), page.unreadable, page.total), (19, 1, Some(20)));
    let error = reader.get(victim).unwrap_err();
    assert!(matches!(error, StoreError::Record { .. }), "{error:?}");
    assert!(error.to_string().contains(&victim.to_string()), "{error}");
    drop(reader);
    let report = only_file(directory.path());
    assert_eq!(report.records, 19);
    assert!(
        matches!(&report.findings[0], Finding::Damaged { records: 1, first } if first.contains("flags")),
        "{report}"
    );
    assert_eq!(only_file(directory.path()).findings, []);
    let db = redb::Database::open(&path).unwrap();
    let damaged = db.begin_read().unwrap().open_table(DAMAGED).unwrap();
    assert_eq!(damaged.get(victim.as_u128()).unwrap().unwrap().value(), junk);
    drop((damaged, db));
    // Of no version there ever was, and one that belongs to another day.
    let elsewhere = UtcNanos(NOON.0 - crate::day::DAY_NANOS);
    altered(&path, |write| {
        let mut events = write.open_table(EVENTS).unwrap();
        let good = events.first().unwrap().unwrap().1.value().to_vec();
        let id = crate::EventId::new(elsewhere, 7);
        events.insert(id.as_u128(), good.as_slice()).unwrap();
        events.insert(victim.as_u128(), &[0, 0, 0][..]).unwrap();
    });
    let report = only_file(directory.path());
    let milliseconds = (elsewhere.0 / 1_000_000).to_string();
    assert!(
        matches!(&report.findings[..], [Finding::Damaged { records: 2, first }]
            if first.contains("millisecond") && first.contains(&milliseconds)),
        "{report}"
    );
    assert_eq!((report.records, only_file(directory.path()).findings), (19, vec![]));
}

#[test]
fn files_of_another_format_are_refused_and_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path(), 3);
    altered(&path, |write| {
        write.open_table(META).unwrap().insert("format", 2).unwrap();
    });
    let clock = Clock::at(NOON);
    let (mut writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    let error = reader.list(&EventQuery::default()).unwrap_err();
    assert!(matches!(error, StoreError::Format { found: 2, known: 1, .. }), "{error:?}");
    assert!(writer.append(&[event(&mut Rng::with_seed(1), NOON)]).is_err());
    drop((writer, reader));
    let report = only_file(directory.path());
    assert!(report.to_string().contains("format 2"), "{report}");
    assert!(path.exists());
}

#[test]
fn a_file_that_is_none_is_told_and_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let path = filled(directory.path(), 3);
    let yesterday = day_path(&events_directory(directory.path()), Day(Day::of(NOON).0 - 1));
    std::fs::write(&yesterday, "this is no database, it is a letter".repeat(1000)).unwrap();
    let (mut writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    let error = reader.list(&EventQuery::default()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("2026-02-28") && text.contains("vas check"), "{text}");
    // The other day is well.
    let today = EventQuery { start: Some(Day::of(NOON).start()), ..EventQuery::default() };
    assert_eq!(reader.list(&today).unwrap().total, Some(3));
    writer.append(&[event(&mut Rng::with_seed(1), NOON)]).unwrap();
    drop((writer, reader));
    let report = crate::check(directory.path()).unwrap();
    assert!(report.lossy() && path.exists() && !yesterday.exists(), "{report}");
    assert!(yesterday.with_extension("redb.damaged").exists());
    let (_, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    assert_eq!(reader.list(&EventQuery::default()).unwrap().total, Some(4));
}

const APPENDS_TO: &str = "STORE_TEST_DAMAGED_DIRECTORY";

/// Not a test of its own: what the child does.
#[test]
fn child_that_appends_to_an_altered_file() {
    let Ok(directory) = std::env::var(APPENDS_TO) else { return };
    let clock = Clock::at(NOON);
    let (mut writer, _reader) = EventStore::open(Path::new(&directory), clock.options()).unwrap();
    if let Err(error) = writer.append(&[event(&mut Rng::with_seed(1), NOON)]) {
        println!("append failed: {error}");
    }
}

/// Bytes of a closed file are altered at random: readers get what can be read or an error, `check`
/// returns a report, and after it the store works.
///
/// The writer has a process of its own: redb trusts the list of free pages that a clean close
/// left, and over a forged one it may panic in a destructor while it panics, which ends a process.
#[test]
fn altered_files_end_in_errors_and_check_makes_the_store_usable() {
    let mut rng = seeded("altered_files_end_in_errors_and_check_makes_the_store_usable");
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path(), 300);
    let good = std::fs::read(&path).unwrap();
    let clock = Clock::at(NOON);
    let mut noticed = 0;
    for round in 0..40 {
        let mut bytes = good.clone();
        for _ in 0..rng.usize(1..40) {
            let at = rng.usize(0..bytes.len());
            bytes[at] = rng.u8(..);
        }
        if round % 5 == 0 {
            bytes.truncate(rng.usize(0..bytes.len()));
        }
        std::fs::write(&path, &bytes).unwrap();
        {
            let (_writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
            noticed += usize::from(reader.list(&EventQuery::default()).is_err());
            let filter = EventQuery { camera: Some(super::camera(1)), ..EventQuery::default() };
            noticed += usize::from(reader.list(&filter).is_err());
        }
        if round % 4 == 0 {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "tests::damage::child_that_appends_to_an_altered_file"]);
            let output = child.env(APPENDS_TO, directory.path()).output().unwrap();
            let aborted = output.status.signal() == Some(6);
            assert!(output.status.success() || aborted, "{output:?}");
        }
        crate::check(directory.path()).unwrap();
        let (mut writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
        let id = writer.append(&[event(&mut rng, NOON)]).unwrap().remove(0).unwrap();
        assert!(reader.get(id).unwrap().is_some());
        assert_eq!(reader.list(&EventQuery::default()).unwrap().unreadable, 0);
    }
    assert!(noticed > 0, "no alteration was noticed: the test proves nothing");
}

/// Tables that tests read stay as they are named in docs/store.md.
#[test]
fn a_new_file_has_every_table() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path(), 1);
    let db = redb::Database::open(path).unwrap();
    let read = db.begin_read().unwrap();
    assert_eq!(read.open_table(META).unwrap().get("format").unwrap().unwrap().value(), 1);
    assert_eq!(read.open_table(EVENTS).unwrap().len().unwrap(), 1);
    assert_eq!(read.open_table(BY_CAMERA).unwrap().len().unwrap(), 1);
    let texts = read.open_table(TEXTS).unwrap();
    let all: Vec<_> = texts.iter().unwrap().map(|e| e.unwrap().0.value()).collect();
    assert_eq!(all, [1, 2, 3, 4]);
}

#[test]
fn a_day_that_can_not_be_read_is_a_fault_until_it_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let yesterday = UtcNanos(NOON.0 - crate::day::DAY_NANOS);
    let mut rng = Rng::with_seed(1);
    let ids: Vec<_> = {
        let (mut writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
        assert_eq!(reader.fault(), None, "no file is no fault");
        let outcomes = writer.append(&[event(&mut rng, yesterday), event(&mut rng, NOON)]).unwrap();
        assert_eq!(reader.fault(), None);
        outcomes.into_iter().map(Result::unwrap).collect()
    };
    let dir = events_directory(directory.path());
    let path = |utc| day_path(&dir, Day::of(utc));
    let sound = [yesterday, NOON].map(|utc| std::fs::read(path(utc)).unwrap());
    let garbage = vec![0x5a; 64 * 1024];
    let (_writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();

    // Today's file is looked at without anybody reading it.
    std::fs::write(path(NOON), &garbage).unwrap();
    let fault = reader.fault().unwrap();
    assert!(fault.contains("2026-03-01.redb"), "{fault}");
    std::fs::write(path(NOON), &sound[1]).unwrap();
    assert_eq!(reader.fault(), None);

    // Another day is known once it was read.
    std::fs::write(path(yesterday), &garbage).unwrap();
    assert_eq!(reader.fault(), None);
    assert!(reader.get(ids[0]).is_err());
    reader.get(ids[1]).unwrap().unwrap();
    let fault = reader.fault().unwrap();
    assert!(fault.contains("2026-02-28.redb"), "a sound day does not excuse it: {fault}");
    assert!(reader.list(&EventQuery::default()).is_err());
    std::fs::write(path(yesterday), &sound[0]).unwrap();
    reader.get(ids[0]).unwrap().unwrap();
    assert_eq!(reader.fault(), None);

    // What retention deletes is no fault.
    std::fs::write(path(yesterday), &garbage).unwrap();
    drop((_writer, reader));
    let (mut writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    assert!(reader.get(ids[0]).is_err());
    assert!(reader.fault().is_some());
    clock.set(UtcNanos(NOON.0 + 10 * crate::day::DAY_NANOS));
    assert_eq!(writer.expire().unwrap(), [Day::of(yesterday)]);
    assert_eq!(reader.fault(), None);
}
