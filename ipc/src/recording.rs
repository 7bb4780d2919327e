//! Recordings on disk: names, the index of a day, segments, and what was recorded when.
//!
//! `<root>/<camera>/<YYYYMMDD>/` holds the segments that began on that day (UTC), each named by its
//! start, and `index`, a row per fragment. Ingest writes; serve and `vas media` read at the same
//! time, without locks: files grow by whole rows and whole fragments, and what is torn is ignored.
//! Segments alone say everything: an index that is missing or damaged is made again from them.
//! docs/recording.md has the byte tables.

pub mod boxes;
mod civil;
mod index;
mod rebuild;
mod segment;
mod window;

pub use civil::{Day, SegmentName};
pub use index::{HEADER_BYTES, Header, Index, IndexError, ROW_BYTES, Row, RowFlags, read_index};
pub use rebuild::{Recovered, recover, rows_of_segments};
pub use segment::{
    Fragment, Init, Sample, Scanned, ntp_of_utc, parameters_id, read_fragment, scan, utc_of_ntp,
};
pub use window::{GAP, Gap, Range, connected, ranges};

use base::{CameraId, UtcNanos};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The index of a day, in its directory.
pub const INDEX_NAME: &str = "index";

/// How far back a picture is looked for that decoding can begin with (chosen: longer than any group
/// of pictures that a camera can be set to).
const KEY_BEFORE: u64 = 120 * base::time::NANOS_PER_SEC;
/// So much after now, a row is of the future (chosen: more than clocks and smoothing are off).
const AHEAD: u64 = 5 * base::time::NANOS_PER_SEC;

/// The recordings of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recordings {
    root: PathBuf,
}

impl Recordings {
    /// Those below `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Recordings {
        Recordings { root: root.into() }
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
        names(&self.root, |name| CameraId::new(name).ok())
    }

    /// Days of a camera, the oldest first.
    ///
    /// # Errors
    /// Those of the file system; a camera without recordings has none.
    pub fn days(&self, camera: &CameraId) -> io::Result<Vec<Day>> {
        names(&self.root.join(camera.as_str()), Day::parse)
    }

    /// Segments of a day, the oldest first.
    ///
    /// # Errors
    /// Those of the file system; a day without recordings has none.
    pub fn segments(&self, camera: &CameraId, day: Day) -> io::Result<Vec<SegmentName>> {
        names(&self.day(camera, day), |name| SegmentName::parse(name).filter(|s| s.day() == day))
    }

    /// The rows of a day in the order of recording, without those of removed segments.
    ///
    /// # Errors
    /// Those of the file system. An index that is missing or damaged is no error: its rows are made
    /// from the segments, which takes a moment for a long day.
    pub fn rows(&self, camera: &CameraId, day: Day) -> io::Result<Vec<Row>> {
        self.rows_since(camera, day, UtcNanos(0))
    }

    /// As [`Recordings::rows`], but may leave out rows that end before `since`. Reads from the end
    /// of the index, so that recent rows cost little.
    ///
    /// # Errors
    /// As [`Recordings::rows`].
    pub fn rows_since(&self, camera: &CameraId, day: Day, since: UtcNanos) -> io::Result<Vec<Row>> {
        let directory = self.day(camera, day);
        match read_index(&directory.join(INDEX_NAME), since) {
            Ok(index) => Ok(index.rows),
            Err(IndexError::Io(error)) => Err(error),
            Err(IndexError::Missing) if !directory.exists() => Ok(vec![]),
            Err(IndexError::Missing | IndexError::Damaged(_)) => {
                let before = self.last_row_before(camera, day)?;
                rows_of_segments(self, camera, day, before.as_ref())
            }
        }
    }

    /// The newest row of the days before `day`, which numbers go on from.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn last_row_before(&self, camera: &CameraId, day: Day) -> io::Result<Option<Row>> {
        for earlier in self.days(camera)?.into_iter().rev().filter(|d| *d < day) {
            // A damaged one is of no help: numbers then begin again.
            if let Ok(index) =
                read_index(&self.day(camera, earlier).join(INDEX_NAME), UtcNanos::FAR)
                && let Some(row) = index.rows.last()
            {
                return Ok(Some(*row));
            }
        }
        Ok(None)
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
        let (first, last) = (Day::of(start).before(), Day::of(end));
        for day in self.days(camera)?.into_iter().filter(|day| (first..=last).contains(day)) {
            let of_day = self.rows_since(camera, day, start)?;
            rows.extend(
                of_day.into_iter().filter(|row| row.start_utc < end && row.end_utc() > start),
            );
        }
        Ok(rows)
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

/// The names in a directory that `read` understands, sorted. No directory is an empty one.
fn names<T: Ord>(directory: &Path, read: impl Fn(&str) -> Option<T>) -> io::Result<Vec<T>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry?.file_name().to_str().and_then(&read));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
