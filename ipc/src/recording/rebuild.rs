//! A day put in order: the index made again from what is whole of it and from the segments.
//!
//! The new index is written beside the old one ([`put_in_order`]) and takes its place later
//! ([`Prepared::adopt`]): so a day that is being recorded can be put in order too, and the recorder
//! adopts the index between two segments.

use super::files::of_the_file;
use super::index::{HEADER_BYTES, Header, IndexError, ROW_BYTES, Row, RowFlags};
use super::index::{Size, open_index, read_header, read_rows};
use super::look::{self, look};
use super::segment::{self, Scanned};
use super::{Day, INDEX_DAMAGED, INDEX_NAME, INDEX_NEW, Recordings, SegmentName};
use base::CameraId;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// Faults that are kept to be told; more are counted (chosen: a screen full).
const FAULTS_MAX: usize = 16;
/// Damaged indexes that are kept beside the good one (chosen: somebody may look at them; the segments
/// have what they had).
const DAMAGED_MAX: u32 = 8;
/// Rows read at once.
const CHUNK_ROWS: u64 = 4096;
/// The same where that fails: a block of a disk.
const BLOCK_ROWS: u64 = 64;

/// The rows of a day from its segments alone; numbers go on from `before`. What can't be read of a
/// segment is left out.
///
/// # Errors
/// Those that are of no single segment.
pub fn rows_of_segments(
    recordings: &Recordings,
    camera: &CameraId,
    day: Day,
    before: Option<&Row>,
) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in recordings.segments(camera, day)? {
        match scan(recordings, camera, name) {
            Ok(scanned) => {
                let last = rows.last().or(before).copied();
                rows.extend(rows_of(last.as_ref(), name, &scanned));
            }
            // Removed meanwhile, or unreadable.
            Err(error) if of_the_file(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(rows)
}

pub(super) fn scan(
    recordings: &Recordings,
    camera: &CameraId,
    name: SegmentName,
) -> io::Result<Scanned> {
    segment::scan_file(&recordings.files().open(&recordings.segment(camera, name))?)
}

/// The rows of a segment that follow `before`.
pub(super) fn rows_of(before: Option<&Row>, segment: SegmentName, scanned: &Scanned) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let Some(init) = &scanned.init else { return rows };
    let parameters = segment::parameters_id(&init.sample_entry);
    for fragment in &scanned.fragments {
        let (Ok(offset), Ok(bytes)) =
            (u32::try_from(fragment.offset), u32::try_from(fragment.bytes))
        else {
            break;
        };
        let discontinuity = fragment.sequence == 1;
        let flag = |on, flag| if on { flag } else { RowFlags::default() };
        let mut row = Row {
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
            number: 0,
            discontinuities: 0,
        };
        count_on(rows.last().or(before), &mut row);
        rows.push(row);
    }
    rows
}

/// Number and discontinuities go on from the row before.
pub(super) fn count_on(before: Option<&Row>, row: &mut Row) {
    row.number = before.map_or(0, |row| row.number.wrapping_add(1));
    let breaks = u32::from(row.flags.has(RowFlags::DISCONTINUITY));
    row.discontinuities = before.map_or(0, |row| row.discontinuities).wrapping_add(breaks);
}

/// What a recovery did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The newest row that can be read.
    pub last: Option<Row>,
    /// Days whose index was made again or mended.
    pub indexes: u32,
    /// Segments whose torn end was cut off.
    pub torn: u32,
    /// Files without a whole fragment, removed.
    pub empty: u32,
    /// What could not be put in order: which file, and why.
    pub faults: Vec<String>,
    /// Faults beyond those.
    pub more_faults: u32,
}

impl Recovered {
    /// Whether anything was changed.
    pub fn changed(&self) -> bool {
        [self.indexes, self.torn, self.empty] != [0; 3]
    }

    pub(super) fn fault(&mut self, path: &Path, what: impl std::fmt::Display) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(format!("{} {what}", path.display()));
        } else {
            self.more_faults += 1;
        }
    }
}

/// Puts all recordings of a camera in order after whatever ended the last recorder: torn ends of
/// segments are cut off, and every index says what its segments say. Nobody may write meanwhile.
/// What can't be read or mended is left as it is and told.
///
/// # Errors
/// When its days can't be listed.
pub fn recover(recordings: &Recordings, camera: &CameraId) -> io::Result<Recovered> {
    let mut done = Recovered::default();
    for day in recordings.days(camera)? {
        let prepared = put_in_order(recordings, camera, day, &|| Writing::Nobody, &mut done);
        if let Err(error) = prepared.and_then(|p| p.map_or(Ok(()), |p| p.adopt(recordings))) {
            done.fault(
                &recordings.day(camera, day),
                format_args!("can't be put in order: {error}"),
            );
        }
    }
    done.last = recordings.last_row(camera)?;
    Ok(done)
}

/// Who writes to a day that is put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// Nobody.
    Nobody,
    /// A recorder that found its end in order and appends to it, with this segment open.
    Recorder(Option<SegmentName>),
}

/// An index that was made again and lies beside the one in whose place it belongs.
#[derive(Debug, PartialEq, Eq)]
pub struct Prepared {
    camera: CameraId,
    day: Day,
    /// So many rows of the old one are in it. Those behind them came later.
    rows: u64,
    /// Nothing is kept of the old one but a copy.
    damaged: bool,
}

/// Rows of one segment, as they lie in an index.
#[derive(Debug)]
struct Part {
    name: SegmentName,
    rows: Vec<Row>,
    /// Rows of it may be missing.
    doubtful: bool,
    /// Its rows are not those that were there: they have no numbers yet.
    new: bool,
}

impl Part {
    /// Takes the rows that the segment has, unless it is what it had.
    fn say(&mut self, rows: Vec<Row>) {
        let same = |(a, b): (&Row, &Row)| {
            Row { number: 0, discontinuities: 0, ..*a }
                == Row { number: 0, discontinuities: 0, ..*b }
        };
        if self.rows.len() != rows.len() || !self.rows.iter().zip(&rows).all(same) {
            (self.rows, self.new) = (rows, true);
        }
    }
}

/// Makes the index of a day again from what is whole of it and from the segments that it lacks; cuts
/// torn ends of those off. `None` = it is in order. `writing` is asked after the names were listed.
///
/// What can't be read is left as it is and told in `done`.
///
/// # Errors
/// Those that are of no single file, and those of writing.
pub fn put_in_order(
    recordings: &Recordings,
    camera: &CameraId,
    day: Day,
    writing: &dyn Fn() -> Writing,
    done: &mut Recovered,
) -> io::Result<Option<Prepared>> {
    let look = look(recordings, camera, day)?;
    let writing = writing();
    let directory = recordings.day(camera, day);
    let new = directory.join(INDEX_NEW);
    if look.unfinished {
        recordings.files().remove(&new)?;
    }
    if writing == Writing::Nobody && look.in_order(recordings, camera)? {
        return Ok(None);
    }
    let path = directory.join(INDEX_NAME);
    let old = salvage(recordings, &path)?;
    if let Some(damage) = &old.damage {
        done.fault(&path, damage);
    }
    if look.names.is_empty() && old.rows.is_empty() {
        return Ok(None);
    }
    let mut parts = parts(&old.rows);
    if parts.first().is_none_or(|part| Some(part.name) > look.names.first().copied()) {
        // It was begun anew when it was damaged: the damaged one may have the rows before.
        let mut aside = names_aside(&directory).into_iter().rev();
        let earlier = aside.find(|path| recordings.files().length(path).is_ok());
        let earlier = earlier.map(|path| salvage(recordings, &path)).transpose()?;
        let known: BTreeSet<SegmentName> = parts.iter().map(|part| part.name).collect();
        let mut before = self::parts(&earlier.map(|old| old.rows).unwrap_or_default());
        before.retain(|part| !known.contains(&part.name));
        if let Some(part) = before.last_mut() {
            part.doubtful = true;
        }
        parts.splice(..0, before);
    }
    let kept = old.header.unwrap_or_default().removed_before;
    let mut gone = BTreeSet::new();
    for Part { name, .. } in &parts {
        let listed = look.names.binary_search(name).is_ok();
        if name.utc() < kept || !listed && is_gone(recordings, camera, *name)? {
            gone.insert(*name);
        }
    }
    parts.retain(|part| !gone.contains(&part.name));
    let newest = parts.last().map(|part| part.name);
    let mut written = Vec::new();
    match writing {
        // The end is what a kill leaves torn.
        Writing::Nobody => {
            if let Some(part) = parts.last_mut() {
                part.doubtful = true;
            }
        }
        Writing::Recorder(open) => written.extend(open),
    }
    let whole: BTreeSet<SegmentName> =
        parts.iter().filter(|part| !part.doubtful).map(|part| part.name).chain(written).collect();
    let before = recordings.last_row_before(camera, day)?;
    let lacking = look.names.iter().filter(|name| !whole.contains(name) && name.utc() >= kept);
    for &name in lacking {
        let Some(rows) = rows_of_whole(recordings, camera, name, done)? else { continue };
        let at = parts.iter().position(|part| part.name == name);
        match at {
            Some(at) => parts[at].say(rows),
            None => {
                let behind = |part: &Part| Some(name) < newest && part.name > name;
                let at = parts.iter().position(behind).unwrap_or(parts.len());
                parts.insert(at, Part { name, rows, doubtful: false, new: true });
            }
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for mut part in parts {
        if part.new {
            let mut last = rows.last().copied().or(before);
            for row in &mut part.rows {
                count_on(last.as_ref(), row);
                last = Some(*row);
            }
        }
        rows.extend(part.rows);
    }
    let before = old.rows.iter().flatten().filter(|row| row.segment.utc() >= kept);
    let unchanged = before.eq(&rows) && old.header.is_some();
    if unchanged && old.damage.is_none() && !old.size.torn {
        return Ok(None);
    }
    store(recordings, &new, old.header.unwrap_or_default(), &rows)?;
    done.indexes += 1;
    let damaged = old.damage.is_some();
    Ok(Some(Prepared { camera: camera.clone(), day, rows: old.size.rows, damaged }))
}

impl Prepared {
    /// Of which camera.
    pub fn camera(&self) -> &CameraId {
        &self.camera
    }

    /// Of which day.
    pub fn day(&self) -> Day {
        self.day
    }

    /// Puts it in its place, with the rows that were appended to the old one meanwhile. A damaged one
    /// is kept beside it. Nobody may have the old one open.
    ///
    /// # Errors
    /// Those of the file system; then it is gone, and the old one is there.
    pub fn adopt(self, recordings: &Recordings) -> io::Result<()> {
        let directory = recordings.day(&self.camera, self.day);
        let new = directory.join(INDEX_NEW);
        let adopted = self.take_place(recordings, &directory, &new);
        if adopted.is_err() {
            // Of no use to anyone; the first error is the one to tell.
            let _ = recordings.files().remove(&new);
        }
        adopted
    }

    fn take_place(&self, recordings: &Recordings, directory: &Path, new: &Path) -> io::Result<()> {
        let files = recordings.files();
        let path = directory.join(INDEX_NAME);
        if let Ok((old, size)) = open_index(files, &path) {
            if size.rows > self.rows {
                let mut bytes = vec![0; (size.rows - self.rows) as usize * ROW_BYTES];
                let from = Size { rows: self.rows, torn: false }.whole_bytes();
                std::os::unix::fs::FileExt::read_exact_at(&old, &mut bytes, from)?;
                files.append(new, false)?.write(&bytes)?;
            }
            // Segments may have been removed meanwhile.
            if let Ok(header) = read_header(&old) {
                files.overwrite(new, &header.encode())?;
            }
        }
        if self.damaged {
            put_aside(recordings, directory)?;
        }
        files.rename(new, &path)?;
        files.sync_directory(directory)
    }
}

/// Where damaged indexes of a day are kept, in the order in which they are used.
fn names_aside(directory: &Path) -> Vec<PathBuf> {
    let name = |n: u32| match n {
        1 => directory.join(INDEX_DAMAGED),
        n => directory.join(format!("{INDEX_DAMAGED}.{n}")),
    };
    (1..=DAMAGED_MAX).map(name).collect()
}

/// Gives the index of a day a name at which nobody takes it for one. It takes the place of no other;
/// where there are too many, it goes.
pub(super) fn put_aside(recordings: &Recordings, directory: &Path) -> io::Result<()> {
    let files = recordings.files();
    let path = directory.join(INDEX_NAME);
    for free in names_aside(directory) {
        match files.length(&free) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match files.rename(&path, &free) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    renamed => renamed,
                };
            }
            _ => {}
        }
    }
    files.remove(&path)
}

/// What is whole of an index.
#[derive(Debug)]
struct Salvaged {
    header: Option<Header>,
    /// `None` = damaged.
    rows: Vec<Option<Row>>,
    size: Size,
    /// What is wrong with it.
    damage: Option<String>,
}

fn salvage(recordings: &Recordings, path: &Path) -> io::Result<Salvaged> {
    let size = Size { rows: 0, torn: false };
    let mut found = Salvaged { header: None, rows: vec![], size, damage: None };
    let of_the_file = |error: IndexError| match error {
        IndexError::Io(error) if !of_the_file(&error) => Err(error),
        error => Ok(error),
    };
    let file = match open_index(recordings.files(), path) {
        Ok((file, size)) => {
            found.size = size;
            file
        }
        Err(IndexError::Missing) => return Ok(found),
        Err(error) => {
            found.damage = Some(of_the_file(error)?.to_string());
            return Ok(found);
        }
    };
    match read_header(&file) {
        Ok(header) => found.header = Some(header),
        Err(error) => found.damage = Some(of_the_file(error)?.to_string()),
    }
    let mut at = 0;
    while at < found.size.rows {
        let end = found.size.rows.min(at + CHUNK_ROWS);
        match read_rows(&file, at, end) {
            Ok(rows) => found.rows.extend(rows),
            Err(error) => {
                found.damage = Some(of_the_file(error)?.to_string());
                // A block of the disk that can't be read takes no others along.
                while at < end {
                    let block = end.min(at + BLOCK_ROWS);
                    let lost = || vec![None; (block - at) as usize];
                    found.rows.extend(read_rows(&file, at, block).unwrap_or_else(|_| lost()));
                    at = block;
                }
            }
        }
        at = end;
    }
    let damaged = found.rows.iter().filter(|row| row.is_none()).count();
    if damaged > 0 && found.damage.is_none() {
        found.damage = Some(format!("the index is damaged: {damaged} of its rows are"));
    }
    Ok(found)
}

/// The rows of an index, segment by segment.
fn parts(rows: &[Option<Row>]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut hole = false;
    for row in rows {
        let Some(row) = row else {
            hole = true;
            if let Some(part) = parts.last_mut() {
                part.doubtful = true;
            }
            continue;
        };
        let doubtful = std::mem::take(&mut hole);
        match parts.last_mut() {
            Some(part) if part.name == row.segment => {
                part.doubtful |=
                    doubtful || !look::connected(&[part.rows[part.rows.len() - 1], *row]);
                part.rows.push(*row);
            }
            _ => parts.push(Part { name: row.segment, rows: vec![*row], doubtful, new: false }),
        }
    }
    parts
}

fn is_gone(recordings: &Recordings, camera: &CameraId, name: SegmentName) -> io::Result<bool> {
    match recordings.files().length(&recordings.segment(camera, name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if !of_the_file(&error) => Err(error),
        _ => Ok(false),
    }
}

/// The rows of a segment that nobody writes, without numbers; its torn end is cut off, and a segment
/// without a whole fragment is removed. `None` when it can't be read, or is something else.
pub(super) fn rows_of_whole(
    recordings: &Recordings,
    camera: &CameraId,
    name: SegmentName,
    done: &mut Recovered,
) -> io::Result<Option<Vec<Row>>> {
    let path = recordings.segment(camera, name);
    let scanned = match scan(recordings, camera, name) {
        Ok(scanned) => scanned,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(vec![])),
        Err(error) if of_the_file(&error) => {
            done.fault(&path, format_args!("can't be read: {error}"));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let behind = scanned.file_bytes - scanned.whole_bytes;
    if !scanned.torn {
        // Nothing that a kill leaves: somebody may want to look at it.
        done.fault(&path, format_args!("holds {behind} bytes that are no fragment; left as it is"));
        let rows = rows_of(None, name, &scanned);
        return Ok((!rows.is_empty()).then_some(rows));
    }
    let files = recordings.files();
    let mended = if scanned.fragments.is_empty() {
        done.empty += 1;
        files.remove(&path)
    } else if behind > 0 {
        done.torn += 1;
        files.append(&path, false).and_then(|file| file.cut(scanned.whole_bytes))
    } else {
        Ok(())
    };
    if let Err(error) = mended {
        done.fault(&path, format_args!("can't be mended: {error}"));
    }
    Ok(Some(rows_of(None, name, &scanned)))
}

/// Writes an index that takes no place yet.
fn store(recordings: &Recordings, path: &Path, header: Header, rows: &[Row]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + rows.len() * ROW_BYTES);
    bytes.extend(header.encode());
    bytes.extend(rows.iter().flat_map(Row::encode));
    let files = recordings.files();
    files.remove(path)?;
    let file = files.append(path, true)?;
    let written = file.write(&bytes).and_then(|()| file.sync());
    if written.is_err() {
        // Of no use to anyone; the first error is the one to tell.
        let _ = files.remove(path);
    }
    written
}
