//! Snapshots and bookmarks: rows that older programs wrote, and rows from the oldest on.

use crate::control::{Bookmark, Control, JobState, MediaId, Moment, Snapshot};
use crate::tables::SNAPSHOTS;
use base::UtcNanos;
use std::path::Path;

pub(super) fn snapshot() -> Snapshot {
    Snapshot {
        id: MediaId::random(),
        camera: "front".parse().unwrap(),
        timestamp: UtcNanos(1),
        source: Moment::Live,
        width: 2,
        height: 3,
        file_size: 4,
        protected: false,
        created_at: UtcNanos(0),
        updated_at: None,
    }
}

pub(super) fn bookmark(state: JobState) -> Bookmark {
    Bookmark {
        id: MediaId::random(),
        camera: "front".parse().unwrap(),
        center: UtcNanos(2),
        start: UtcNanos(1),
        end: UtcNanos(3),
        label: None,
        source: Moment::Historical,
        state,
        file_size: 0,
        gaps_ms: 0,
        thumbnail: false,
        protected: true,
        created_at: UtcNanos(0),
        updated_at: None,
    }
}

/// Puts bytes where a row of a snapshot should be; nobody may have the file open.
fn put_bytes(directory: &Path, id: &MediaId, bytes: &[u8]) {
    let db = redb::Database::open(directory.join("control.redb")).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(SNAPSHOTS).unwrap().insert(id.as_str(), bytes).unwrap();
    write.commit().unwrap();
}

#[test]
fn protection_is_kept_and_what_older_programs_wrote_has_none() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::open(directory.path()).unwrap();
    let row = control.write(|write| write.put_snapshot(snapshot())).unwrap();
    let changed =
        control.write(|write| write.update_snapshot(&row.id, |row| row.protected = true)).unwrap();
    assert!(changed.unwrap().protected);
    assert!(control.snapshot(&row.id).unwrap().unwrap().protected);
    let clip = control.write(|write| write.put_bookmark(bookmark(JobState::Done))).unwrap();
    assert!(control.bookmark(&clip.id).unwrap().unwrap().protected);
    assert_eq!(
        control.write(|write| write.update_snapshot(&MediaId::random(), |_| ())).unwrap(),
        None
    );
    let old = MediaId::random();
    let text = r#"{"camera":"front","timestamp":1,"source":"live","file_size":4,"created_at":5,"updated_at":null}"#;
    drop(control);
    put_bytes(directory.path(), &old, &[&[1], text.as_bytes()].concat());
    let control = Control::open(directory.path()).unwrap();
    assert!(!control.snapshot(&old).unwrap().unwrap().protected);
}

#[test]
fn rows_are_visited_from_the_oldest_on_past_those_that_can_not_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::open(directory.path()).unwrap();
    let rows: Vec<Snapshot> =
        (0..5).map(|_| control.write(|w| w.put_snapshot(snapshot())).unwrap()).collect();
    drop(control);
    put_bytes(directory.path(), &rows[1].id, b"\x07nonsense");
    let control = Control::open(directory.path()).unwrap();
    let visited = |most: usize| {
        let mut seen = Vec::new();
        let each = |row: Snapshot| {
            seen.push(row.id);
            seen.len() < most
        };
        control.read(|read| read.visit_snapshots(each)).unwrap();
        seen
    };
    let ids = |order: &[usize]| order.iter().map(|at| rows[*at].id.clone()).collect::<Vec<_>>();
    assert_eq!(visited(9), ids(&[0, 2, 3, 4]));
    assert_eq!(visited(2), ids(&[0, 2]), "no further than it is wanted");
}

#[test]
fn clips_that_are_not_cut_yet_are_told_the_oldest_first() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::open(directory.path()).unwrap();
    let states = [
        JobState::Running,
        JobState::Done,
        JobState::Pending,
        JobState::Failed("x".into()),
        JobState::Pending,
    ];
    let rows: Vec<Bookmark> = states
        .map(|state| control.write(|write| write.put_bookmark(bookmark(state))).unwrap())
        .to_vec();
    let open: Vec<MediaId> =
        control.open_bookmarks().unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(open, [0, 2, 4].map(|at: usize| rows[at].id.clone()));
}
