//! The index made again from the segments.

use super::index::{HEADER_BYTES, Header, IndexError, ROW_BYTES, Row, RowFlags, read_index};
use super::segment::{self, Scanned};
use super::{Day, INDEX_NAME, Recordings, SegmentName};
use base::{CameraId, UtcNanos};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

/// The rows of a day from its segments alone; numbers go on from `before`.
///
/// # Errors
/// Those of the file system. A segment that is no segment has no rows.
pub fn rows_of_segments(
    recordings: &Recordings,
    camera: &CameraId,
    day: Day,
    before: Option<&Row>,
) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in recordings.segments(camera, day)? {
        match segment::scan(&recordings.segment(camera, name)) {
            Ok(scanned) => append(&mut rows, before, name, &scanned),
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(rows)
}

/// Adds the rows of a segment.
fn append(rows: &mut Vec<Row>, before: Option<&Row>, segment: SegmentName, scanned: &Scanned) {
    let Some(init) = &scanned.init else { return };
    let parameters = segment::parameters_id(&init.sample_entry);
    for fragment in &scanned.fragments {
        let (Ok(offset), Ok(bytes)) =
            (u32::try_from(fragment.offset), u32::try_from(fragment.bytes))
        else {
            return;
        };
        let last = rows.last().or(before);
        let discontinuity = fragment.sequence == 1;
        let flag = |on, flag| if on { flag } else { RowFlags::default() };
        rows.push(Row {
            start_utc: fragment.start_utc,
            start_media: fragment.start_media,
            segment,
            parameters,
            offset,
            bytes,
            duration: u32::try_from(fragment.duration()).unwrap_or(u32::MAX),
            frames: u32::try_from(fragment.samples.len()).unwrap_or(u32::MAX),
            flags: flag(fragment.key(), RowFlags::KEY)
                .with(flag(discontinuity, RowFlags::DISCONTINUITY)),
            number: last.map_or(0, |row| row.number.wrapping_add(1)),
            discontinuities: last
                .map_or(0, |row| row.discontinuities)
                .wrapping_add(u32::from(discontinuity)),
        });
    }
}

/// What a recovery did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The newest row of the camera.
    pub last: Option<Row>,
    /// Days whose index was made again.
    pub indexes: u32,
    /// Segments whose torn end was cut off.
    pub torn: u32,
    /// Files without a whole fragment, removed.
    pub empty: u32,
}

/// Puts the recordings of a camera in order after whatever ended the last recorder: torn ends of
/// segments are cut off, and every index says what its segments say. Nobody may write meanwhile.
///
/// A day whose index fits its newest segment is taken as whole: it costs two looks.
///
/// # Errors
/// Those of the file system. What was done till then holds.
pub fn recover(recordings: &Recordings, camera: &CameraId) -> io::Result<Recovered> {
    let mut done = Recovered::default();
    for day in recordings.days(camera)? {
        recover_day(recordings, camera, day, &mut done)?;
    }
    Ok(done)
}

fn recover_day(
    recordings: &Recordings,
    camera: &CameraId,
    day: Day,
    done: &mut Recovered,
) -> io::Result<()> {
    let path = recordings.day(camera, day).join(INDEX_NAME);
    let names = recordings.segments(camera, day)?;
    let index = match read_index(&path, UtcNanos(0)) {
        Ok(index) => Some(index),
        Err(IndexError::Io(error)) => return Err(error),
        Err(IndexError::Missing | IndexError::Damaged(_)) => None,
    };
    if index.is_none() && names.is_empty() {
        return Ok(());
    }
    let before = done.last;
    let header = index.as_ref().map(|index| index.header);
    let mut rows = match &index {
        Some(index) => {
            let last = index.rows.last();
            let known: BTreeSet<SegmentName> = index.rows.iter().map(|row| row.segment).collect();
            let fits = |row: &Row| -> io::Result<bool> {
                let whole = u64::from(row.offset) + u64::from(row.bytes);
                let there = names.binary_search(&row.segment);
                let newest = there.is_ok_and(|at| names[at..].iter().all(|n| known.contains(n)));
                let path = recordings.segment(camera, row.segment);
                Ok(newest && fs::metadata(path)?.len() == whole)
            };
            let in_order = match last {
                Some(row) => fits(row)?,
                None => names.is_empty(),
            };
            if in_order && !index.torn {
                done.last = last.copied().or(before);
                return Ok(());
            }
            index.rows.clone()
        }
        None => vec![],
    };
    // The rows before those of the newest segment that has any are whole.
    let from = rows.last().map(|row| row.segment);
    if let Some(from) = from {
        rows.retain(|row| row.segment != from);
    }
    // After a step back of the clock, names behind the newest have their rows already.
    let known: BTreeSet<SegmentName> = rows.iter().map(|row| row.segment).collect();
    let unknown =
        |name: &SegmentName| from.is_none_or(|from| *name >= from) && !known.contains(name);
    for name in names.into_iter().filter(unknown) {
        let path = recordings.segment(camera, name);
        let scanned = segment::scan(&path)?;
        if scanned.fragments.is_empty() {
            fs::remove_file(&path)?;
            done.empty += 1;
            continue;
        }
        if scanned.whole_bytes != scanned.file_bytes {
            OpenOptions::new().write(true).open(&path)?.set_len(scanned.whole_bytes)?;
            done.torn += 1;
        }
        append(&mut rows, before.as_ref(), name, &scanned);
    }
    store(&path, header.unwrap_or_default(), &rows)?;
    done.indexes += 1;
    done.last = rows.last().copied().or(before);
    Ok(())
}

/// Puts an index in place of the one that is there.
fn store(path: &std::path::Path, header: Header, rows: &[Row]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + rows.len() * ROW_BYTES);
    bytes.extend(header.encode());
    bytes.extend(rows.iter().flat_map(Row::encode));
    let temporary = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
    let written = file.write_all(&bytes).and_then(|()| file.sync_data());
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // Of no use to anyone; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(path.parent().unwrap_or(path))?.sync_all()
}
