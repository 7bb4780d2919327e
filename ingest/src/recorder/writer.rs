//! Fragments to files: a segment is open at a time, a row of the index follows each fragment.

use super::cutter::Fragment;
use super::disk::Disk;
use super::storage::{Claim, Writing};
use crate::mp4::fragmented::{FragmentHead, initialisation, write_head};
use ipc::recording::{
    HEADER_BYTES, Header, INDEX_NAME, Recordings, Row, RowFlags, SegmentName, recover,
};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
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
}

struct Segment {
    name: SegmentName,
    file: File,
    bytes: u64,
    index: File,
    index_bytes: u64,
}

impl<'c> Writer<'c> {
    /// Puts in order what is there, to go on behind it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(claim: &'c Claim) -> io::Result<Writer<'c>> {
        let recordings = &claim.storage.recordings;
        claim.announce(Writing::PuttingInOrder);
        let done = recover(recordings, &claim.camera);
        // Also after a failure: a disk that is full must be emptied.
        claim.announce(Writing::Between);
        let done = done?;
        if done.torn + done.empty + done.indexes > 0 {
            tracing::info!(camera = %claim.camera, "recordings put in order: {} indexes made \
                again, {} segments cut to their last whole fragment, {} empty ones removed",
                done.indexes, done.torn, done.empty);
        }
        Ok(Writer { claim, segment: None, last: done.last, sequence: 0, buffer: vec![] })
    }

    /// Writes a fragment and its row.
    ///
    /// # Errors
    /// Those of the file system. What is on the disk is whole; call [`Writer::abandon`].
    pub fn write(&mut self, fragment: &Fragment) -> io::Result<()> {
        if fragment.begins_segment {
            self.close()?;
            self.begin(fragment)?;
        }
        let Some(segment) = &mut self.segment else {
            return Err(io::Error::other("no segment is open"));
        };
        let disk = &self.claim.storage.options.disk;
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
        segment.append(disk, &self.buffer)?;
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
        if let Err(error) = segment.append_row(disk, &row) {
            // A fragment without a row would be found only by a recovery.
            let _ = segment.file.set_len(segment.bytes);
            return Err(error);
        }
        segment.bytes += bytes as u64;
        (self.last, self.sequence) = (Some(row), sequence);
        Ok(())
    }

    fn begin(&mut self, fragment: &Fragment) -> io::Result<()> {
        let Claim { camera, storage } = self.claim;
        let (recordings, disk) = (&storage.recordings, &storage.options.disk);
        let mut name = SegmentName::at(fragment.start_utc);
        // From here on the sweep leaves alone what is made below.
        self.claim.announce(Writing::Open(name));
        let directory = recordings.day(camera, name.day());
        DirBuilder::new().recursive(true).mode(0o750).create(&directory)?;
        let (index, index_bytes, header) = open_index(&directory.join(INDEX_NAME), disk)?;
        // What is named before is removed for every reader: after a step back of the clock names
        // go on behind it.
        let least = SegmentName::at(header.removed_before);
        if least.day() == name.day() {
            name = name.max(least);
        }
        let file = create(recordings, self.claim, &mut name)?;
        let initialisation = initialisation(&fragment.entry);
        let path = recordings.segment(camera, name);
        if let Err(error) = disk.write(&file, &initialisation) {
            // Without a picture it is of no use.
            let _ = std::fs::remove_file(path);
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
        let synced = segment.file.sync_data().and_then(|()| segment.index.sync_data());
        self.claim.announce(Writing::Between);
        synced
    }

    /// Leaves the open segment as it is after a failure, whole up to its last fragment.
    pub fn abandon(&mut self) {
        if let Some(segment) = self.segment.take() {
            let whole = segment.bytes;
            // What can't be cut off now, the next start cuts off.
            let _ = segment.file.set_len(whole);
            if self.last.is_none_or(|row| row.segment != segment.name) {
                let path = self.claim.storage.recordings.segment(&self.claim.camera, segment.name);
                let _ = std::fs::remove_file(path);
            }
        }
        self.claim.announce(Writing::Between);
    }
}

impl Segment {
    fn append(&mut self, disk: &Disk, bytes: &[u8]) -> io::Result<()> {
        let written = disk.write(&self.file, bytes);
        if written.is_err() {
            let _ = self.file.set_len(self.bytes);
        }
        written
    }

    fn append_row(&mut self, disk: &Disk, row: &Row) -> io::Result<()> {
        let row = row.encode();
        let written = disk.write(&self.index, &row);
        match written {
            Ok(()) => self.index_bytes += row.len() as u64,
            Err(_) => drop(self.index.set_len(self.index_bytes)),
        }
        written
    }
}

fn create(recordings: &Recordings, claim: &Claim, name: &mut SegmentName) -> io::Result<File> {
    for _ in 0..NAMES_MAX {
        let path = recordings.segment(&claim.camera, *name);
        match options().create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => *name = name.next(),
            opened => return opened,
        }
    }
    Err(io::Error::other(format!("{NAMES_MAX} segments begin at the same moment")))
}

/// Appending: what was cut off by `set_len` leaves no hole.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).mode(0o640);
    options
}

fn open_index(path: &Path, disk: &Disk) -> io::Result<(File, u64, Header)> {
    let file = options().read(true).create(true).open(path)?;
    let bytes = file.metadata()?.len();
    if bytes >= HEADER_BYTES as u64 {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        // A damaged one is recovery's; readers then go by the segments alone.
        return Ok((file, bytes, Header::decode(&header).unwrap_or_default()));
    }
    file.set_len(0)?;
    let header = Header::default();
    if let Err(error) = disk.write(&file, &header.encode()) {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok((file, HEADER_BYTES as u64, header))
}
