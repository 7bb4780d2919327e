//! Recordings on disk: names, the index of a day, segments, and what was recorded when.
//!
//! `<root>/<camera>/<YYYYMMDD>/` holds the segments that began on that day (UTC), each named by its
//! start, and `index`, a row per fragment. Ingest writes; serve and `vas media` read at the same
//! time, without locks: files grow by whole rows and whole fragments, and what is torn is ignored.
//! Segments alone say everything: an index that is missing or damaged is made again from them.
//! docs/recording.md has the byte tables.

pub mod boxes;
mod civil;
mod files;
mod index;
mod look;
mod ready;
mod rebuild;
mod segment;
mod window;

pub use civil::{Day, SegmentName};
pub use files::{Call, Files, OpenFile, Probe};
pub use index::{HEADER_BYTES, Header, Index, IndexError, ROW_BYTES, Row, RowFlags, read_index};
pub use ready::{Ready, ready};
pub use rebuild::{Prepared, Recovered, Writing, put_in_order, recover, rows_of_segments};
pub use segment::{
    Fragment, Init, Sample, Scanned, ntp_of_utc, parameters_id, read_fragment, scan, utc_of_ntp,
};
pub use window::{GAP, Gap, Range, connected, ranges};

use base::{CameraId, UtcNanos};
use std::io;
use std::path::{Path, PathBuf};

/// The index of a day, in its directory.
pub const INDEX_NAME: &str = "index";
/// One that is being made again.
const INDEX_NEW: &str = "index.new";
/// One that was damaged, kept for who wants to look at it; others get a number behind it.
const INDEX_DAMAGED: &str = "index.damaged";

/// How far back a picture is looked for that decoding can begin with (chosen: longer than any group
/// of pictures that a camera can be set to).
const KEY_BEFORE: u64 = 120 * base::time::NANOS_PER_SEC;
/// So much after now, a row is of the future (chosen: more than clocks and smoothing are off).
const AHEAD: u64 = 5 * base::time::NANOS_PER_SEC;

/// The recordings of a node.
#[derive(Debug, Clone)]
pub struct Recordings {
    root: PathBuf,
    files: Files,
}

impl Recordings {
    /// Those below `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Recordings {
        Recordings::through(root, Files::default())
    }

    /// As [`Recordings::new`], all calls through `files`.
    pub fn through(root: impl Into<PathBuf>, files: Files) -> Recordings {
        Recordings { root: root.into(), files }
    }

    /// What all calls go through.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a day of a camera lies.
    pub fn day(&self, camera: &CameraId, day: Day) -> PathBuf {
        self.root.join(camera.as_str()).join(day.to_string())
    }

    /// Where a segment lies.
    pub fn segment(&self, camera: &CameraId, name: SegmentName) -> PathBuf {
        self.day(camera, name.day()).join(name.to_string())
    }

    /// Cameras with a directory, by id.
    ///
    /// # Errors
    /// Those of the file system; a missing root has none.
    pub fn cameras(&self) -> io::Result<Vec<CameraId>> {
        self.names(&self.root, |name| CameraId::new(name).ok())
    }

    /// Days of a camera, the oldest first.
    ///
    /// # Errors
    /// Those of the file system; a camera without recordings has none.
    pub fn days(&self, camera: &CameraId) -> io::Result<Vec<Day>> {
        self.names(&self.root.join(camera.as_str()), Day::parse)
    }

    /// Segments of a day, the oldest first.
    ///
    /// # Errors
    /// Those of the file system; a day without recordings has none.
    pub fn segments(&self, camera: &CameraId, day: Day) -> io::Result<Vec<SegmentName>> {
        self.names(&self.day(camera, day), |name| {
            SegmentName::parse(name).filter(|s| s.day() == day)
        })
    }

    /// The rows of a day in the order of recording, without those of removed segments.
    ///
    /// # Errors
    /// As [`Recordings::rows_since`].
    pub fn rows(&self, camera: &CameraId, day: Day) -> io::Result<Vec<Row>> {
        self.rows_since(camera, day, UtcNanos(0))
    }

    /// As [`Recordings::rows`], but may leave out rows that end before `since`. Reads from the end
    /// of the index, so that recent rows cost little.
    ///
    /// # Errors
    /// Those of the file system. An index that is missing, damaged or can't be read is no error: its
    /// rows are made from the segments, which takes a moment for a long day.
    pub fn rows_since(&self, camera: &CameraId, day: Day, since: UtcNanos) -> io::Result<Vec<Row>> {
        let directory = self.day(camera, day);
        match index::read_since(&self.files, &directory.join(INDEX_NAME), since) {
            Ok(index) => return Ok(index.rows),
            Err(IndexError::Io(error)) if !files::of_the_file(&error) => return Err(error),
            Err(IndexError::Missing) if !directory.exists() => return Ok(vec![]),
            Err(_) => {}
        }
        let before = self.last_row_before(camera, day)?;
        rows_of_segments(self, camera, day, before.as_ref())
    }

    /// The newest row of the days before `day`, which numbers go on from. Days that can't be read are
    /// left out.
    ///
    /// # Errors
    /// When the days can't be listed.
    pub fn last_row_before(&self, camera: &CameraId, day: Day) -> io::Result<Option<Row>> {
        let mut earlier = self.days(camera)?.into_iter().rev().filter(|earlier| *earlier < day);
        Ok(earlier.find_map(|day| look::newest_row(self, camera, day)))
    }

    /// The newest row of a camera, as [`Recordings::last_row_before`].
    ///
    /// # Errors
    /// When the days can't be listed.
    pub fn last_row(&self, camera: &CameraId) -> io::Result<Option<Row>> {
        self.last_row_before(camera, Day::of(UtcNanos::FAR))
    }

    /// The fragments that overlap `[start, end)`, in the order of recording, with all that is known
    /// of them: no segment is opened. A segment that began on the day before is found.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn window(
        &self,
        camera: &CameraId,
        start: UtcNanos,
        end: UtcNanos,
    ) -> io::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for day in self.days_of(camera, start, end)? {
            let of_day = self.rows_since(camera, day, start)?;
            rows.extend(
                of_day.into_iter().filter(|row| row.start_utc < end && row.end_utc() > start),
            );
        }
        Ok(rows)
    }

    /// The days that fragments of `[start, end)` may lie in: a segment lies in the day in which it
    /// begins.
    fn days_of(&self, camera: &CameraId, start: UtcNanos, end: UtcNanos) -> io::Result<Vec<Day>> {
        let (first, last) = (Day::of(start).before(), Day::of(end));
        let mut days = self.days(camera)?;
        days.retain(|day| (first..=last).contains(day));
        Ok(days)
    }

    /// What was recorded in `[start, end)` and what not. Each day is read once, and the rows of one
    /// are in memory at a time; every fragment counts once, also one over midnight.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn timeline(
        &self,
        camera: &CameraId,
        start: UtcNanos,
        end: UtcNanos,
    ) -> io::Result<(Vec<Range>, Vec<Gap>)> {
        let mut pieces = Vec::new();
        for day in self.days_of(camera, start, end)? {
            pieces.extend(window::pieces(&self.rows_since(camera, day, start)?, start, end));
        }
        Ok(window::join(pieces, start, end))
    }
}

impl Recordings {
    /// The rows that a player needs to show `[start, end)`: those of the window, and before them
    /// those from the key picture on that they lean on.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn playable(
        &self,
        camera: &CameraId,
        start: UtcNanos,
        end: UtcNanos,
    ) -> io::Result<Vec<Row>> {
        let before = UtcNanos(start.0.saturating_sub(KEY_BEFORE));
        let mut rows = self.window(camera, before, end)?;
        let Some(mut first) = rows.iter().position(|row| row.end_utc() > start) else {
            return Ok(vec![]);
        };
        // Segments begin with a key picture, and inside of one no picture is missing, whatever the
        // clocks did.
        let leans = |before: &Row, row: &Row| {
            before.segment == row.segment && row.number == before.number.wrapping_add(1)
        };
        while first > 0
            && !rows[first].flags.has(RowFlags::KEY)
            && leans(&rows[first - 1], &rows[first])
        {
            first -= 1;
        }
        Ok(rows.split_off(first))
    }

    /// The newest rows in the order of recording, without a hole in their numbers: those of the last
    /// `nanos` before `now`. What a clock that was ahead recorded in the future is not among them.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn recent(&self, camera: &CameraId, now: UtcNanos, nanos: u64) -> io::Result<Vec<Row>> {
        let start = UtcNanos(now.0.saturating_sub(nanos));
        let end = UtcNanos(now.0.saturating_add(AHEAD));
        let mut rows = self.window(camera, start, end)?;
        let hole = |pair: &[Row]| pair[1].number != pair[0].number.wrapping_add(1);
        let begins = rows.windows(2).rposition(hole).map_or(0, |at| at + 1);
        Ok(rows.split_off(begins))
    }
}

impl Recordings {
    /// The names in a directory that `read` understands, sorted. No directory is an empty one.
    fn names<T: Ord>(
        &self,
        directory: &Path,
        read: impl Fn(&str) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let names = self.files.list(directory)?;
        let mut found: Vec<T> = names.iter().filter_map(|name| read(name)).collect();
        found.sort();
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
