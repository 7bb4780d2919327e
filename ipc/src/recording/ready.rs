//! What has to be in order before a day is appended to: its end. It takes a listing, a few reads and
//! at most some segments; all else waits until recording has begun ([`super::put_in_order`]).

use super::index::ROW_BYTES;
use super::look::{self, Look, Tail, look};
use super::rebuild::{self, Recovered, rows_of_whole};
use super::{Day, INDEX_NAME, INDEX_NEW, IndexError, Recordings, Row, SegmentName};
use base::CameraId;
use std::io;

/// Most segments that are read (chosen: a kill leaves one without rows, a loss of power those of the
/// last seconds).
const SCANS_MAX: usize = 8;

/// A day that can be appended to.
#[derive(Debug, Default)]
pub struct Ready {
    /// The newest row of the day, as far as it can be read.
    pub last: Option<Row>,
    /// Rows are missing before the end: [`super::put_in_order`] finds them.
    pub lacking: bool,
    /// What was done, and what was found.
    pub done: Recovered,
}

/// Puts the end of a day in order: the torn ends of its newest segments and of its index are cut off,
/// and the index has a row for each of their fragments. A damaged index, or one that can't be read,
/// is kept as `index.damaged`, and there is none then. Nobody may write to the day meanwhile.
///
/// # Errors
/// Those of writing, and when the day's names can't be listed.
pub fn ready(recordings: &Recordings, camera: &CameraId, day: Day) -> io::Result<Ready> {
    let look = look(recordings, camera, day)?;
    let directory = recordings.day(camera, day);
    if look.unfinished {
        recordings.files().remove(&directory.join(INDEX_NEW))?;
    }
    let mut ready = Ready { last: look.last, lacking: !look.begins(), done: Recovered::default() };
    match &look.tail {
        Ok(tail) => mend_end(recordings, camera, day, &look, tail, &mut ready)?,
        Err(IndexError::Missing) => ready.lacking = !look.names.is_empty(),
        Err(error) => {
            ready.done.fault(
                &directory.join(INDEX_NAME),
                format_args!("is put aside, and rows are made again from segments: {error}"),
            );
            rebuild::put_aside(recordings, &directory)?;
        }
    }
    Ok(ready)
}

/// Cuts and mends, where it is no more than an end.
fn mend_end(
    recordings: &Recordings,
    camera: &CameraId,
    day: Day,
    look: &Look,
    tail: &Tail,
    ready: &mut Ready,
) -> io::Result<()> {
    ready.lacking |= !look::connected(&tail.rows);
    let mut kept: &[Row] = &tail.rows;
    let mut again: Vec<SegmentName> = Vec::new();
    if let Some(last) = kept.last()
        && last.segment.utc() >= tail.header.removed_before
        && !look::ends_there(recordings, camera, last)?
    {
        let others = kept.iter().rposition(|row| row.segment != last.segment);
        let from = others.map_or(0, |at| at + 1);
        // Rows of it may be before those that were read.
        if from > 0 || kept.len() as u64 == tail.size.rows {
            again.push(last.segment);
            kept = &kept[..from];
        } else {
            ready.lacking = true;
        }
    }
    let newest = tail.rows.last().map(|row| row.segment);
    let behind = look.names.iter().filter(|name| Some(**name) > newest);
    let unknown: Vec<SegmentName> =
        behind.filter(|name| tail.rows.iter().all(|row| row.segment != **name)).copied().collect();
    if unknown.len() <= SCANS_MAX {
        // All there are: none is before.
        ready.lacking &= unknown.len() < look.names.len();
        again.extend(unknown);
    } else {
        ready.lacking = true;
    }
    let mut rows = kept.to_vec();
    let before = if rows.is_empty() { recordings.last_row_before(camera, day)? } else { None };
    for name in again {
        let found = match rows_of_whole(recordings, camera, name, &mut ready.done)? {
            Some(found) => found,
            // What it has now is all that is known of it.
            None => tail.rows.iter().filter(|row| row.segment == name).copied().collect(),
        };
        for mut row in found {
            rebuild::count_on(rows.last().or(before.as_ref()), &mut row);
            rows.push(row);
        }
    }
    let same = rows == tail.rows;
    if same && !tail.size.torn {
        return Ok(());
    }
    let path = recordings.day(camera, day).join(INDEX_NAME);
    let index = recordings.files().append(&path, false)?;
    let common = rows.iter().zip(&tail.rows).take_while(|(new, old)| new == old).count();
    let lost = (tail.rows.len() - common) as u64;
    index.cut(tail.size.whole_bytes() - lost * ROW_BYTES as u64)?;
    let bytes: Vec<u8> = rows[common..].iter().flat_map(Row::encode).collect();
    if !bytes.is_empty() {
        index.write(&bytes)?;
    }
    ready.done.indexes += 1;
    ready.last = rows.last().copied().or(before);
    Ok(())
}
