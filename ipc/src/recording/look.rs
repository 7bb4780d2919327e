//! Whether a day is in order, as far as its header, its first and its newest rows and the names
//! beside it say. At most 64 KiB are read, and the names are listed once.
//!
//! In order means: every row that was read is whole, the newest ends where its segment does, no name
//! comes after that segment, and none before that of the first row. So a torn end, a segment without
//! rows at the end and an index that was begun late are found. Rows are only appended and synced with
//! each segment: damage further inside is of the disk, and readers find it by the checksums. After a
//! step back of the clock a day that is in order does not look so; reading it whole shows it.

use super::files::of_the_file;
use super::index::{Size, open_index, read_header, read_rows};
use super::{Day, Header, INDEX_NAME, INDEX_NEW, IndexError, Recordings, Row, SegmentName};
use base::CameraId;
use std::io;

/// The newest rows that are read: four minutes, and longer than what can be without a sync (chosen;
/// half of the 64 KiB).
const TAIL_ROWS: u64 = 512;

/// A day, looked at.
#[derive(Debug)]
pub(super) struct Look {
    /// Its segments, the oldest first.
    pub names: Vec<SegmentName>,
    /// What was read of its index.
    pub tail: Result<Tail, IndexError>,
    /// The newest row that can be read, also of an index that is damaged.
    pub last: Option<Row>,
    /// An index that was not finished lies there.
    pub unfinished: bool,
}

/// The ends of an index.
#[derive(Debug)]
pub(super) struct Tail {
    pub header: Header,
    pub size: Size,
    /// The first row.
    pub first: Option<Row>,
    /// The newest rows.
    pub rows: Vec<Row>,
}

/// Looks at a day.
///
/// # Errors
/// When its names can't be listed, or with an error that says nothing of the index.
pub(super) fn look(recordings: &Recordings, camera: &CameraId, day: Day) -> io::Result<Look> {
    let mut names = Vec::new();
    let mut unfinished = false;
    for name in recordings.files().list(&recordings.day(camera, day))? {
        names.extend(SegmentName::parse(&name).filter(|segment| segment.day() == day));
        unfinished |= name == INDEX_NEW;
    }
    names.sort();
    let (tail, last) = read_tail(recordings, camera, day);
    match tail {
        Err(IndexError::Io(error)) if !of_the_file(&error) => Err(error),
        tail => Ok(Look { names, tail, last, unfinished }),
    }
}

/// The newest row of a day that can be read.
pub(super) fn newest_row(recordings: &Recordings, camera: &CameraId, day: Day) -> Option<Row> {
    read_tail(recordings, camera, day).1
}

fn read_tail(
    recordings: &Recordings,
    camera: &CameraId,
    day: Day,
) -> (Result<Tail, IndexError>, Option<Row>) {
    let path = recordings.day(camera, day).join(INDEX_NAME);
    let (file, size) = match open_index(recordings.files(), &path) {
        Ok(opened) => opened,
        Err(error) => return (Err(error), None),
    };
    let header = read_header(&file);
    let rows = match read_rows(&file, size.rows.saturating_sub(TAIL_ROWS), size.rows) {
        Ok(rows) => rows,
        Err(error) => return (Err(error), None),
    };
    let last = rows.iter().rev().flatten().next().copied();
    let whole = || -> Result<Tail, IndexError> {
        let rows: Option<Vec<Row>> = rows.into_iter().collect();
        let rows = rows.ok_or(super::index::DAMAGED_ROW)?;
        let first = read_rows(&file, 0, size.rows.min(1))?.first().copied();
        let first = first.map(|row| row.ok_or(super::index::DAMAGED_ROW)).transpose()?;
        Ok(Tail { header: header?, size, first, rows })
    };
    (whole(), last)
}

/// Whether fragments follow one another in their segments.
pub(super) fn connected(rows: &[Row]) -> bool {
    rows.windows(2).all(|pair| {
        pair[0].segment != pair[1].segment
            || u64::from(pair[1].offset) == u64::from(pair[0].offset) + u64::from(pair[0].bytes)
    })
}

impl Look {
    /// Whether the index has rows of the oldest segment.
    pub fn begins(&self) -> bool {
        let Ok(tail) = &self.tail else { return false };
        let Some(oldest) = self.names.first() else { return true };
        tail.first.is_some_and(|first| first.segment <= *oldest)
    }

    /// Whether the day is in order.
    ///
    /// # Errors
    /// Those that say nothing of the day.
    pub fn in_order(&self, recordings: &Recordings, camera: &CameraId) -> io::Result<bool> {
        let Ok(tail) = &self.tail else { return Ok(false) };
        let last = tail.rows.last().filter(|row| row.segment.utc() >= tail.header.removed_before);
        let whole = !tail.size.torn && self.begins() && connected(&tail.rows);
        match last {
            Some(row) if whole && self.names.last() == Some(&row.segment) => {
                ends_there(recordings, camera, row)
            }
            Some(_) => Ok(false),
            None => Ok(whole && self.names.is_empty()),
        }
    }
}

/// Whether a row's fragment is the last of its segment.
pub(super) fn ends_there(
    recordings: &Recordings,
    camera: &CameraId,
    row: &Row,
) -> io::Result<bool> {
    match recordings.files().length(&recordings.segment(camera, row.segment)) {
        Ok(length) => Ok(length == u64::from(row.offset) + u64::from(row.bytes)),
        Err(error) if of_the_file(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
