//! The index of a day: a header and a row per fragment, 64 bytes each, little-endian, with a CRC-32
//! each. Rows are only appended; the header alone is written over, when segments are removed.

use super::SegmentName;
use super::files::{Files, OpenFile};
use base::time::NANOS_PER_SEC;
use base::{MediaTime, UtcNanos};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of a row.
pub const ROW_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"VASINDEX";
const VERSION: u32 = 1;
/// Rows read at once, from the end (chosen: about an hour).
const CHUNK_ROWS: u64 = 4096;
/// Rows may be out of order by a clock step of so much, and are found all the same (chosen).
const STEP: u64 = 600 * NANOS_PER_SEC;

/// What begins an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Segments with a name before this moment were removed; their rows are still there.
    pub removed_before: UtcNanos,
}

/// What is known of a fragment, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowFlags(pub u32);

impl RowFlags {
    /// Begins with a key picture.
    pub const KEY: RowFlags = RowFlags(1);
    /// Pictures are missing before it, or it has other parameters than the fragment before: decoder
    /// and clock of a player begin anew.
    pub const DISCONTINUITY: RowFlags = RowFlags(2);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: RowFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: RowFlags) -> RowFlags {
        RowFlags(self.0 | other.0)
    }
}

/// A fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// When its first picture, in the order of presentation, was captured.
    pub start_utc: UtcNanos,
    /// The same on the camera's media timeline.
    pub start_media: MediaTime,
    /// The segment that holds it.
    pub segment: SegmentName,
    /// Which parameter sets decode it: [`super::parameters_id`].
    pub parameters: u64,
    /// Where it begins in its segment. That of a segment's first fragment is the length of the
    /// initialisation.
    pub offset: u32,
    /// Its length.
    pub bytes: u32,
    /// Ticks of 90 kHz.
    pub duration: u32,
    /// Pictures.
    pub frames: u32,
    /// Flags.
    pub flags: RowFlags,
    /// One more than the fragment before it, over days and restarts.
    pub number: u32,
    /// Fragments with [`RowFlags::DISCONTINUITY`] up to this one, this one included.
    pub discontinuities: u32,
}

impl Row {
    /// Its length in nanoseconds, rounded down.
    pub const fn duration_nanos(&self) -> u64 {
        self.duration as u64 * NANOS_PER_SEC / MediaTime::RATE
    }

    /// When its last picture ends.
    pub const fn end_utc(&self) -> UtcNanos {
        UtcNanos(self.start_utc.0.saturating_add(self.duration_nanos()))
    }

    /// The capture time of a moment of the media timeline, as far as this fragment knows.
    pub fn utc_of(&self, media: MediaTime) -> UtcNanos {
        let ticks = i128::from(media.0) - i128::from(self.start_media.0);
        let nanos = ticks * i128::from(NANOS_PER_SEC) / i128::from(MediaTime::RATE);
        UtcNanos(u64::try_from(i128::from(self.start_utc.0) + nanos).unwrap_or(0))
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; ROW_BYTES] {
        let mut bytes = [0; ROW_BYTES];
        let long =
            [self.start_utc.0, self.start_media.0, self.segment.utc().0 / 1000, self.parameters];
        let short = [
            self.offset,
            self.bytes,
            self.duration,
            self.frames,
            self.flags.0,
            self.number,
            self.discontinuities,
        ];
        for (at, value) in long.iter().enumerate() {
            bytes[at * 8..][..8].copy_from_slice(&value.to_le_bytes());
        }
        for (at, value) in short.iter().enumerate() {
            bytes[32 + at * 4..][..4].copy_from_slice(&value.to_le_bytes());
        }
        sealed(bytes)
    }

    /// Reads a row; `None` when it is damaged.
    pub fn decode(bytes: &[u8; ROW_BYTES]) -> Option<Row> {
        if sealed(*bytes) != *bytes {
            return None;
        }
        let long = |at: usize| u64::from_le_bytes(array(bytes, at));
        let short = |at: usize| u32::from_le_bytes(array(bytes, at));
        Some(Row {
            start_utc: UtcNanos(long(0)),
            start_media: MediaTime(long(8)),
            segment: SegmentName::at(UtcNanos(long(16).checked_mul(1000)?)),
            parameters: long(24),
            offset: short(32),
            bytes: short(36),
            duration: short(40),
            frames: short(44),
            flags: RowFlags(short(48)),
            number: short(52),
            discontinuities: short(56),
        })
    }
}

impl Header {
    /// As bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(ROW_BYTES as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.removed_before.0.to_le_bytes());
        sealed(bytes)
    }

    /// Reads a header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, &'static str> {
        if bytes[..8] != MAGIC {
            return Err("it does not begin with VASINDEX");
        }
        if sealed(*bytes) != *bytes {
            return Err("the checksum of its header is wrong");
        }
        if bytes[8..12] != VERSION.to_le_bytes()
            || bytes[12..16] != (ROW_BYTES as u32).to_le_bytes()
        {
            return Err("it is of another version");
        }
        Ok(Header { removed_before: UtcNanos(u64::from_le_bytes(array(bytes, 16))) })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// With the CRC-32 of the first 60 bytes in the last four.
fn sealed(mut bytes: [u8; 64]) -> [u8; 64] {
    // As in IEEE 802.3.
    let sum = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// An index as read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index {
    /// Its header.
    pub header: Header,
    /// Rows, without those of removed segments.
    pub rows: Vec<Row>,
    /// Bytes up to the end of the last whole row.
    pub whole_bytes: u64,
    /// Whether there are bytes behind that: an append that is under way, or was torn.
    pub torn: bool,
}

/// Why an index can't be used. In every case the segments have what it had.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// There is none, or none with a header.
    #[error("there is no index")]
    Missing,
    /// It is not what was written.
    #[error("the index is damaged: {0}")]
    Damaged(&'static str),
    /// It can't be read.
    #[error("the index can't be read: {0}")]
    Io(#[from] io::Error),
}

/// Reads an index from its end back to the rows that end before `since`, in chunks; of a chunk all
/// rows are given. With [`UtcNanos::FAR`]: the last chunk.
///
/// # Errors
/// [`IndexError`].
pub fn read_index(path: &Path, since: UtcNanos) -> Result<Index, IndexError> {
    read_since(&Files::default(), path, since)
}

/// As [`read_index`], through `files`.
pub(super) fn read_since(files: &Files, path: &Path, since: UtcNanos) -> Result<Index, IndexError> {
    let (file, size) = open_index(files, path)?;
    let header = read_header(&file)?;
    let mut chunks = Vec::new();
    let mut end = size.rows;
    while end > 0 {
        let start = end.saturating_sub(CHUNK_ROWS);
        let rows: Option<Vec<Row>> = read_rows(&file, start, end)?.into_iter().collect();
        let rows = rows.ok_or(DAMAGED_ROW)?;
        let reached =
            rows.first().is_some_and(|row| row.end_utc().0.saturating_add(STEP) < since.0);
        chunks.push(rows);
        end = start;
        if reached {
            break;
        }
    }
    let rows = chunks.into_iter().rev().flatten();
    let rows = rows.filter(|row| row.segment.utc() >= header.removed_before).collect();
    Ok(Index { header, rows, whole_bytes: size.whole_bytes(), torn: size.torn })
}

/// What the length of an index says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Whole rows.
    pub rows: u64,
    /// Whether there are bytes behind them.
    pub torn: bool,
}

impl Size {
    /// Bytes up to the end of the last whole row.
    pub fn whole_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.rows * ROW_BYTES as u64
    }
}

/// What a row is whose checksum is wrong.
pub(super) const DAMAGED_ROW: IndexError = IndexError::Damaged("the checksum of a row is wrong");

pub(super) fn open_index(files: &Files, path: &Path) -> Result<(OpenFile, Size), IndexError> {
    let file = match files.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(IndexError::Missing),
        opened => opened?,
    };
    let length = file.length()?;
    // A kill leaves it so where it was just made.
    let Some(behind) = length.checked_sub(HEADER_BYTES as u64) else {
        return Err(IndexError::Missing);
    };
    let row = ROW_BYTES as u64;
    Ok((file, Size { rows: behind / row, torn: behind % row > 0 }))
}

pub(super) fn read_header(file: &OpenFile) -> Result<Header, IndexError> {
    let mut bytes = [0; HEADER_BYTES];
    let mut fault = "";
    // It may be written over at this moment.
    for _ in 0..3 {
        file.read_exact_at(&mut bytes, 0)?;
        match Header::decode(&bytes) {
            Ok(header) => return Ok(header),
            Err(what) => fault = what,
        }
        std::thread::yield_now();
    }
    Err(IndexError::Damaged(fault))
}

/// Rows `start` up to `end`; `None` for one that is damaged.
pub(super) fn read_rows(
    file: &OpenFile,
    start: u64,
    end: u64,
) -> Result<Vec<Option<Row>>, IndexError> {
    let mut bytes = vec![0; (end - start) as usize * ROW_BYTES];
    match file.read_exact_at(&mut bytes, HEADER_BYTES as u64 + start * ROW_BYTES as u64) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(IndexError::Damaged("it became shorter"));
        }
        read => read?,
    }
    let (rows, _) = bytes.as_chunks::<ROW_BYTES>();
    Ok(rows.iter().map(Row::decode).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn row() -> Row {
        Row {
            start_utc: UtcNanos(0x0102_0304_0506_0708),
            start_media: MediaTime(0x1112_1314_1516_1718),
            segment: SegmentName::at(UtcNanos(0x2122_2324_2526 * 1000)),
            parameters: 0x3132_3334_3536_3738,
            offset: 0x4142_4344,
            bytes: 0x5152_5354,
            duration: 0x6162_6364,
            frames: 0x7172_7374,
            flags: RowFlags::KEY.with(RowFlags::DISCONTINUITY),
            number: 0x8182_8384,
            discontinuities: 0x9192_9394,
        }
    }

    #[test]
    fn a_row_has_these_bytes() {
        let bytes = row().encode();
        let expected: [&[u8]; 11] = [
            &[8, 7, 6, 5, 4, 3, 2, 1],
            &[0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11],
            &[0x26, 0x25, 0x24, 0x23, 0x22, 0x21, 0, 0],
            &[0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31],
            &[0x44, 0x43, 0x42, 0x41],
            &[0x54, 0x53, 0x52, 0x51],
            &[0x64, 0x63, 0x62, 0x61],
            &[0x74, 0x73, 0x72, 0x71],
            &[3, 0, 0, 0],
            &[0x84, 0x83, 0x82, 0x81],
            &[0x94, 0x93, 0x92, 0x91],
        ];
        assert_eq!(bytes[..60], expected.concat());
        assert_eq!(bytes[60..], crc32fast::hash(&bytes[..60]).to_le_bytes());
        assert_eq!(Row::decode(&bytes), Some(row()));
        for at in 0..ROW_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert_eq!(Row::decode(&damaged), None, "byte {at}");
        }
    }

    #[test]
    fn a_header_has_these_bytes() {
        let header = Header { removed_before: UtcNanos(0x0102_0304_0506_0708) };
        let bytes = header.encode();
        assert_eq!(bytes[..16], *b"VASINDEX\x01\0\0\0\x40\0\0\0");
        assert_eq!(bytes[16..24], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[24..60], [0; 36]);
        assert_eq!(Header::decode(&bytes), Ok(header));
        for at in 0..HEADER_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert!(Header::decode(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_ethernet() {
        // As every list of checksums has it: index files of before stay what they are.
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn times_follow_the_media_line() {
        let row = Row {
            start_utc: UtcNanos(1_000_000_000),
            start_media: MediaTime(90_000),
            duration: 45_000,
            ..row()
        };
        assert_eq!(row.end_utc(), UtcNanos(1_500_000_000));
        assert_eq!(row.utc_of(MediaTime(99_000)), UtcNanos(1_100_000_000));
        assert_eq!(row.utc_of(MediaTime(81_000)), UtcNanos(900_000_000));
    }
}
