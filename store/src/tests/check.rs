//! What [`check`](crate::check) finds, mends and leaves.

use super::damage::{altered, filled, only_file};
use super::{Clock, NOON};
use crate::check::Finding;
use crate::control::{Assignment, AssignmentId, Control, Device, JobState, Model, Source};
use crate::tables::{
    BOOKMARKS_BY_CAMERA, BY_CAMERA, BY_CLASS, BY_MODEL, DEVICES, EVENTS, NUMBERS, PAIRS,
    SNAPSHOTS_BY_CAMERA, TEXTS,
};
use crate::{EventQuery, EventStore, StoreError};
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata};
use std::path::{Path, PathBuf};

#[test]
fn check_rebuilds_what_is_derived() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path(), 50);
    assert_eq!(only_file(directory.path()).findings, []);
    let clock = Clock::at(NOON);
    let lists = || {
        let (_writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
        let by = |query: EventQuery| reader.list(&query).unwrap().events;
        let any = EventQuery::default;
        [
            by(EventQuery { camera: Some(super::camera(1)), ..any() }),
            by(EventQuery { model: Some(super::model(1)), ..any() }),
            by(EventQuery { class_id: Some(1), ..any() }),
            by(any()),
        ]
    };
    let before = lists();
    assert!(before.iter().all(|list| !list.is_empty()));
    altered(&path, |write| {
        let mut by_camera = write.open_table(BY_CAMERA).unwrap();
        by_camera.pop_first().unwrap();
        by_camera.pop_last().unwrap();
        let mut by_model = write.open_table(BY_MODEL).unwrap();
        by_model.insert((1, 5), ()).unwrap();
        write.delete_table(BY_CLASS).unwrap();
        let mut numbers = write.open_table(NUMBERS).unwrap();
        numbers.remove("cam1").unwrap();
        let mut texts = write.open_table(TEXTS).unwrap();
        texts.pop_last().unwrap();
    });
    let report = only_file(directory.path());
    let text = report.to_string();
    assert!(text.contains("index by_camera rebuilt (2 rows missing, 0 too many)"), "{text}");
    assert!(text.contains("index by_model rebuilt (0 rows missing, 1 too many)"), "{text}");
    assert!(text.contains("index by_class rebuilt"), "{text}");
    assert!(text.contains("index numbers rebuilt (2 rows missing, 0 too many)"), "{text}");
    assert_eq!((report.records, report.findings.len()), (50, 4));
    assert_eq!(only_file(directory.path()).findings, [], "repaired once and for all");
    assert_eq!(lists(), before);
}

#[test]
fn a_file_that_was_not_closed_is_repaired_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path(), 3);
    let copy = path.with_extension("copy");
    let db = redb::Database::open(&path).unwrap();
    // Without quick repair, as other programs write.
    let write = db.begin_write().unwrap();
    write.open_table(TEXTS).unwrap().insert(9, "x").unwrap();
    write.open_table(NUMBERS).unwrap().insert("x", 9).unwrap();
    write.commit().unwrap();
    std::fs::copy(&path, &copy).unwrap();
    drop(db);
    std::fs::rename(&copy, &path).unwrap();
    let report = crate::check(directory.path()).unwrap();
    assert_eq!(report.files[0].findings, [Finding::Repaired]);
    assert!(!report.clean() && !report.lossy(), "{report}");
    let text = report.to_string();
    assert!(text.contains("2026-03-01.redb: 3 records; structure repaired\n"), "{text}");
    let report = crate::check(directory.path()).unwrap();
    assert!(report.clean() && report.to_string().ends_with("3 records, ok\n"), "{report}");
}

#[test]
fn a_day_with_records_of_a_newer_program_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path(), 5);
    altered(&path, |write| {
        let mut events = write.open_table(EVENTS).unwrap();
        let ids: Vec<u128> = events.iter().unwrap().map(|e| e.unwrap().0.value()).collect();
        let (newer, junk): (&[u8], &[u8]) = (&[2, 0, 0], &[1, 255, 3]);
        events.insert(ids[0], newer).unwrap();
        events.insert(ids[1], newer).unwrap();
        events.insert(ids[2], junk).unwrap();
        write.open_table(NUMBERS).unwrap().pop_first().unwrap();
    });
    for _ in 0..2 {
        let report = only_file(directory.path());
        assert_eq!((report.records, report.findings), (2, vec![Finding::Newer { records: 2 }]));
    }
    let db = redb::Database::open(&path).unwrap();
    let read = db.begin_read().unwrap();
    assert_eq!(read.open_table(EVENTS).unwrap().len().unwrap(), 5);
    assert_eq!(
        read.open_table(NUMBERS).unwrap().len().unwrap() + 1,
        read.open_table(TEXTS).unwrap().len().unwrap()
    );
}

#[test]
fn a_text_that_has_the_number_of_another_is_taken_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path(), 3);
    altered(&path, |write| {
        write.open_table(NUMBERS).unwrap().insert("stray", 1).unwrap();
    });
    let text = only_file(directory.path()).to_string();
    assert!(
        text.ends_with("3 records; index numbers rebuilt (0 rows missing, 1 too many)"),
        "{text}"
    );
    assert_eq!(only_file(directory.path()).findings, []);
}

#[test]
fn the_registry_is_checked_row_by_row() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.redb");
    let control = Control::open(directory.path()).unwrap();
    let (camera, model) = (super::camera(1), super::model(1));
    control
        .write(|w| {
            w.put_device(Device::new(camera.clone(), Source::Api))?;
            w.put_device(Device::new(super::camera(2), Source::Api))?;
            w.put_model(Model::new(model.clone(), Source::Api))?;
            let id: AssignmentId = "a".parse().unwrap();
            w.create_assignment(Assignment::new(id, camera.clone(), model.clone(), Source::Api))?;
            w.set_labels(&model, "1", &["person".to_owned()])
        })
        .unwrap();
    drop(control);
    let report = only_file(directory.path());
    assert_eq!((report.records, report.findings), (5, vec![]));
    altered(&path, |write| {
        let junk: &[u8] = b"\x01{\"name\": 5}";
        write.open_table(DEVICES).unwrap().insert("cam2", junk).unwrap();
        let mut pairs = write.open_table(PAIRS).unwrap();
        pairs.pop_first().unwrap();
        pairs.insert(("cam9", "model9"), "nobody").unwrap();
    });
    let control = Control::open(directory.path()).unwrap();
    let error = control.devices().unwrap_err();
    assert!(error.to_string().contains("device cam2"), "{error}");
    drop(control);
    let text = only_file(directory.path()).to_string();
    assert!(text.contains("4 records"), "{text}");
    assert!(text.contains("1 unreadable records moved to table damaged"), "{text}");
    assert!(text.contains("index pairs rebuilt (1 rows missing, 1 too many)"), "{text}");
    assert_eq!(only_file(directory.path()).findings, []);
    let control = Control::open(directory.path()).unwrap();
    assert_eq!(control.devices().unwrap().len(), 1);
    assert!(control.write(|w| w.assignment_of(&camera, &model)).unwrap().is_some());
    drop(control);
    std::fs::write(&path, "not a database at all").unwrap();
    let error = Control::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    let report = only_file(directory.path());
    assert!(report.to_string().contains("backup") && path.exists(), "{report}");
}

/// A registry with a row of each kind that has an index, closed.
fn registered(state: &Path) -> PathBuf {
    let (snapshot, bookmark) = (super::media::snapshot(), super::media::bookmark(JobState::Done));
    let (camera, model) = (super::camera(1), super::model(1));
    let put = |w: &mut crate::ControlWrite<'_>| -> Result<(), StoreError> {
        for n in 1..=3 {
            w.put_device(Device::new(super::camera(n), Source::Api))?;
        }
        w.put_model(Model::new(model.clone(), Source::Api))?;
        let id: AssignmentId = "a".parse().unwrap();
        w.create_assignment(Assignment::new(id, camera.clone(), model.clone(), Source::Api))?;
        w.put_snapshot(snapshot)?;
        w.put_bookmark(bookmark).map(drop)
    };
    Control::open(state).unwrap().write(put).unwrap();
    state.join("control.redb")
}

#[test]
fn an_index_of_the_registry_that_lacks_a_row_or_has_one_too_many_is_made_anew() {
    type Alter = fn(&redb::WriteTransaction);
    let cases: [(&str, Alter); 6] = [
        ("pairs rebuilt (1 rows missing, 0", |w| {
            w.open_table(PAIRS).unwrap().pop_first().unwrap();
        }),
        ("pairs rebuilt (0 rows missing, 1", |w| {
            w.open_table(PAIRS).unwrap().insert(("cam9", "model9"), "nobody").unwrap();
        }),
        ("snapshots_by_camera rebuilt (1 rows missing, 0", |w| {
            w.open_table(SNAPSHOTS_BY_CAMERA).unwrap().pop_first().unwrap();
        }),
        ("snapshots_by_camera rebuilt (0 rows missing, 1", |w| {
            w.open_table(SNAPSHOTS_BY_CAMERA).unwrap().insert(("front", "none"), ()).unwrap();
        }),
        ("bookmarks_by_camera rebuilt (1 rows missing, 0", |w| {
            w.open_table(BOOKMARKS_BY_CAMERA).unwrap().pop_first().unwrap();
        }),
        ("bookmarks_by_camera rebuilt (0 rows missing, 1", |w| {
            w.open_table(BOOKMARKS_BY_CAMERA).unwrap().insert(("front", "none"), ()).unwrap();
        }),
    ];
    let directory = tempfile::tempdir().unwrap();
    let path = registered(directory.path());
    for (told, alter) in cases {
        altered(&path, alter);
        let report = only_file(directory.path());
        assert!(report.to_string().contains(told), "{told}: {report}");
        assert_eq!((report.records, report.findings.len()), (7, 1), "{report}");
        assert_eq!(only_file(directory.path()).findings, [], "{told}: once and for all");
    }
}

#[test]
fn a_registry_with_rows_of_a_newer_program_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = registered(directory.path());
    let rows = || {
        let db = redb::Database::open(&path).unwrap();
        let read = db.begin_read().unwrap();
        let devices = read.open_table(DEVICES).unwrap();
        let bytes = |entry: Result<_, _>| -> Vec<u8> {
            let (_, bytes): (_, redb::AccessGuard<'_, &[u8]>) = entry.unwrap();
            bytes.value().to_vec()
        };
        let devices: Vec<Vec<u8>> = devices.iter().unwrap().map(bytes).collect();
        (devices, read.open_table(PAIRS).unwrap().len().unwrap())
    };
    altered(&path, |write| {
        let mut devices = write.open_table(DEVICES).unwrap();
        devices.insert("cam1", &b"\x02of tomorrow"[..]).unwrap();
        devices.insert("cam2", &b"\x01{\"name\": 5}"[..]).unwrap();
        devices.insert("cam3", &b"\x02of tomorrow"[..]).unwrap();
        write.open_table(PAIRS).unwrap().pop_first().unwrap();
    });
    let before = rows();
    for _ in 0..2 {
        assert_eq!(only_file(directory.path()).findings, [Finding::Newer { records: 2 }]);
        assert!(rows() == before, "a row that nobody can read is nowhere");
    }
}
