//! Fragments to files: a segment is open at a time, a row of the index follows each fragment.
//!
//! Before a day is appended to, its end is put in order; all else that is not in order is left to
//! [`super::recovery`], which comes after recording has begun.

use super::cutter::Fragment;
use super::storage::{Claim, Writing};
use crate::mp4::fragmented::{FragmentHead, initialisation, write_head};
use ipc::recording::{
    Day, Files, HEADER_BYTES, Header, INDEX_NAME, OpenFile, Recordings, Row, RowFlags, SegmentName,
    ready,
};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Names tried when one is taken: after a step back of the clock.
const NAMES_MAX: usize = 1000;

/// Writes the recordings of one camera.
pub struct Writer<'c> {
    claim: &'c Claim,
    segment: Option<Segment>,
    last: Option<Row>,
    sequence: u32,
    buffer: Vec<u8>,
    /// The day that can be appended to as it is.
    in_order: Option<Day>,
}

struct Segment {
    name: SegmentName,
    file: OpenFile,
    bytes: u64,
    index: OpenFile,
    index_bytes: u64,
}

impl<'c> Writer<'c> {
    /// To go on behind what is there. The newest day is put in order, as far as it can be.
    ///
    /// # Errors
    /// When the days can't be listed.
    pub fn open(claim: &'c Claim) -> io::Result<Writer<'c>> {
        let (camera, recordings) = (&claim.camera, &claim.storage.recordings);
        let mut writer = Writer {
            claim,
            segment: None,
            last: None,
            sequence: 0,
            buffer: vec![],
            in_order: None,
        };
        let days = recordings.days(camera);
        let days = days.map_err(of("list", &recordings.root().join(camera.as_str())))?;
        if let Some(newest) = days.last()
            && let Err(error) = writer.put_in_order(*newest)
        {
            // It may not be the one that is appended to.
            tracing::warn!(%camera, "{error}; numbers go on from what can be read");
        }
        if writer.last.is_none() {
            writer.last = recordings.last_row(camera)?;
        }
        Ok(writer)
    }

    /// Puts the end of a day in order, before it is appended to.
    fn put_in_order(&mut self, day: Day) -> io::Result<()> {
        let Claim { camera, storage } = self.claim;
        self.claim.announce(Writing::PuttingInOrder);
        storage.orders.begins(camera, day);
        let ready = ready(&storage.recordings, camera, day);
        storage.orders.ends(camera, day, ready.as_ref().is_ok_and(|ready| ready.lacking));
        // Also after a failure: a disk that is full must be emptied.
        self.claim.announce(Writing::Between);
        let ready = ready.map_err(of("put in order", &storage.recordings.day(camera, day)))?;
        super::recovery::tell(camera, day, &ready.done);
        self.in_order = Some(day);
        if self.last.is_none_or(|last| last.segment.day() == day) {
            self.last = ready.last.or(self.last);
        }
        Ok(())
    }

    /// Puts an index in its place that was made again meanwhile.
    fn adopt(&self, day: Day) {
        let Claim { camera, storage } = self.claim;
        let Some(prepared) = storage.orders.prepared(camera, day) else { return };
        self.claim.announce(Writing::PuttingInOrder);
        let adopted = prepared.adopt(&storage.recordings);
        self.claim.announce(Writing::Between);
        match adopted {
            Ok(()) => tracing::info!(%camera, "the index of {day} has all rows again"),
            Err(error) => {
                tracing::warn!(%camera, "the index of {day}, made again, can't be put in \
                place: {error}; the next start tries again")
            }
        }
    }

    /// Writes a fragment and its row.
    ///
    /// # Errors
    /// Those of the file system. Then call [`Writer::abandon`].
    pub fn write(&mut self, fragment: &Fragment) -> io::Result<()> {
        if fragment.begins_segment {
            self.close()?;
            self.begin(fragment)?;
        }
        let Some(segment) = &mut self.segment else {
            return Err(io::Error::other("no segment is open"));
        };
        let sequence =
            if fragment.discontinuity { 1 } else { self.sequence.saturating_add(1).max(2) };
        self.buffer.clear();
        let head = FragmentHead {
            sequence,
            start_utc: fragment.start_utc,
            start_media: fragment.start_media,
            decode: fragment.decode,
            key: fragment.key,
            samples: &fragment.samples,
        };
        write_head(&head, fragment.pictures.len(), &mut self.buffer);
        self.buffer.extend_from_slice(&fragment.pictures);
        segment.file.write(&self.buffer)?;
        let flag = |on, flag| if on { flag } else { RowFlags::default() };
        let bytes = self.buffer.len();
        let row = Row {
            start_utc: fragment.start_utc,
            start_media: fragment.start_media,
            segment: segment.name,
            parameters: fragment.entry.id,
            // The cutter ends segments long before 4 GiB.
            offset: u32::try_from(segment.bytes).unwrap_or(u32::MAX),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            duration: u32::try_from(fragment.duration()).unwrap_or(u32::MAX),
            frames: u32::try_from(fragment.samples.len()).unwrap_or(u32::MAX),
            flags: flag(fragment.key, RowFlags::KEY)
                .with(flag(fragment.discontinuity, RowFlags::DISCONTINUITY)),
            number: self.last.map_or(0, |row| row.number.wrapping_add(1)),
            discontinuities: self
                .last
                .map_or(0, |row| row.discontinuities)
                .wrapping_add(u32::from(fragment.discontinuity)),
        };
        let encoded = row.encode();
        segment.index.write(&encoded)?;
        segment.index_bytes += encoded.len() as u64;
        segment.bytes += bytes as u64;
        (self.last, self.sequence) = (Some(row), sequence);
        Ok(())
    }

    /// The row of the newest fragment that was written.
    #[cfg(test)]
    pub fn last(&self) -> Option<Row> {
        self.last
    }

    fn begin(&mut self, fragment: &Fragment) -> io::Result<()> {
        let Claim { camera, storage } = self.claim;
        let (recordings, files) = (&storage.recordings, storage.recordings.files());
        let mut name = SegmentName::at(fragment.start_utc);
        let day = name.day();
        let directory = recordings.day(camera, day);
        let first = self.in_order != Some(day);
        if first {
            self.put_in_order(day)?;
        } else {
            self.adopt(day);
        }
        // From here on the sweep leaves alone what is made below.
        self.claim.announce(Writing::Open(name));
        files.make_directories(&directory)?;
        if first {
            // Whoever made them may have ended before they were synced.
            let of_camera = directory.parent().unwrap_or(&directory);
            files.sync_directory(of_camera)?;
            files.sync_directory(recordings.root())?;
        }
        let (index, index_bytes, header) = open_index(&directory.join(INDEX_NAME), files)?;
        // What is named before is removed for every reader: after a step back of the clock names
        // go on behind it.
        let least = SegmentName::at(header.removed_before);
        if least.day() == name.day() {
            name = name.max(least);
        }
        let file = create(recordings, self.claim, &mut name)?;
        let initialisation = initialisation(&fragment.entry);
        // The names of segment and index are synced with the segment's beginning, their bytes at
        // its end.
        let begun = file.write(&initialisation).and_then(|()| files.sync_directory(&directory));
        if let Err(error) = begun {
            // Without a picture it is of no use.
            let _ = files.remove(file.path());
            return Err(error);
        }
        self.claim.announce(Writing::Open(name));
        let bytes = initialisation.len() as u64;
        self.segment = Some(Segment { name, file, bytes, index, index_bytes });
        Ok(())
    }

    /// Ends the open segment: it is on the disk when this returns.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn close(&mut self) -> io::Result<()> {
        let Some(segment) = self.segment.take() else { return Ok(()) };
        let synced = segment.file.sync().and_then(|()| segment.index.sync());
        self.claim.announce(Writing::Between);
        synced
    }

    /// Ends the open segment after a failure, whole up to its last fragment that has a row.
    pub fn abandon(&mut self) {
        if let Some(segment) = self.segment.take() {
            let _ = segment.index.cut(segment.index_bytes);
            let _ = segment.file.cut(segment.bytes);
            if self.last.is_none_or(|row| row.segment != segment.name) {
                let _ = self.claim.storage.recordings.files().remove(segment.file.path());
            }
        }
        // What can't be cut off or removed now, the next attempt does before it appends.
        self.in_order = None;
        self.claim.announce(Writing::Between);
    }
}

/// Says in an error of the file system what could not be done to what.
fn of(what: &'static str, path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("can't {what} {}: {error}", path.display()))
}

fn create(recordings: &Recordings, claim: &Claim, name: &mut SegmentName) -> io::Result<OpenFile> {
    for _ in 0..NAMES_MAX {
        let path = recordings.segment(&claim.camera, *name);
        match recordings.files().append(&path, true) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => *name = name.next(),
            opened => return opened,
        }
    }
    Err(io::Error::other(format!("{NAMES_MAX} segments begin at the same moment")))
}

fn open_index(path: &Path, files: &Files) -> io::Result<(OpenFile, u64, Header)> {
    let file = files.append(path, false)?;
    let bytes = file.length()?;
    if bytes >= HEADER_BYTES as u64 {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        // A damaged one is recovery's; readers then go by the segments alone.
        return Ok((file, bytes, Header::decode(&header).unwrap_or_default()));
    }
    file.cut(0)?;
    let header = Header::default();
    if let Err(error) = file.write(&header.encode()) {
        let _ = files.remove(path);
        return Err(error);
    }
    Ok((file, HEADER_BYTES as u64, header))
}
