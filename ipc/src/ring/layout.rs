//! The bytes of `frame.meta` and the checks a reader makes before it believes them. The table is in
//! docs/ring.md; the test at the end pins every offset.
//!
//! All of the file is read and written as little-endian 64-bit words; a 32-bit field is one half.

use super::seqlock::{Guarded, Word};
use base::limits::{RING_SLOTS_MAX, RING_SLOTS_MIN};
use base::{
    ColourMatrix, ColourRange, FrameFlags, FrameId, FrameInfo, Generation, Instant, MediaTime,
    Picture, Size, UtcNanos,
};

#[cfg(target_endian = "big")]
compile_error!("frame.meta is little-endian and this code reads it natively");

/// Version in the first four bytes.
pub(super) const VERSION: u32 = 2;
/// NV12 in `pixel_format`.
const NV12: u32 = 0;
/// Slots start at multiples of this in frame.data, whatever the page size of the machine.
pub(super) const SLOT_ALIGN: u64 = 4096;

/// Bytes of the header; the records follow.
pub(super) const HEADER_BYTES: usize = 192;
/// Bytes of one record: two cache lines, so that neighbours share none.
pub(super) const RECORD_BYTES: usize = 128;
/// Longest frame.meta.
pub(super) const META_BYTES_MAX: usize = meta_bytes(RING_SLOTS_MAX);

/// Word index of each field of the header (byte offset / 8). `A_B` = A in the low half, B above.
mod header {
    pub const VERSION_ZERO: usize = 0;
    pub const FRAME_ID: usize = 1;
    pub const TIMESTAMP: usize = 2;
    pub const WIDTH_HEIGHT: usize = 3;
    pub const FORMAT_STRIDE: usize = 4;
    pub const DATA_SIZE: usize = 5;
    pub const OFFSET: usize = 6;
    pub const SEQUENCE: usize = 7;
    pub const SLOTS_RECORD: usize = 8;
    pub const SLOT_STRIDE: usize = 9;
    pub const GENERATION: usize = 10;
    pub const INODE: usize = 11;
    pub const FILE_BYTES: usize = 12;
    pub const FIRST_FRAME_ID: usize = 13;
    pub const MEDIA_BEFORE: usize = 14;
    // Own cache line: written once a second, and by whoever replaces the ring.
    pub const HEARTBEAT: usize = 16;
    pub const RETIRED: usize = 17;
}

/// Word index of each field of a record.
mod record {
    pub const SEQUENCE: usize = 0;
    pub const FRAME_ID: usize = 1;
    pub const MEDIA: usize = 2;
    pub const CAPTURE: usize = 3;
    pub const CAPTURE_UTC: usize = 4;
    pub const DECODE_START: usize = 5;
    pub const PUBLISHED: usize = 6;
    pub const WIDTH_HEIGHT: usize = 7;
    pub const COLOUR_FLAGS: usize = 8;
}

/// Words of a record that its sequence guards.
pub(super) const RECORD_WORDS: usize = 8;

/// Bytes of frame.meta for a number of slots.
pub(super) const fn meta_bytes(slots: u32) -> usize {
    HEADER_BYTES + slots as usize * RECORD_BYTES
}

/// Bytes from slot to slot for a picture.
pub(super) const fn slot_stride(size: Size) -> u64 {
    (size.nv12_bytes() as u64).next_multiple_of(SLOT_ALIGN)
}

const fn halves(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

const fn low(word: u64) -> u32 {
    word as u32
}

const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// What does not change during a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Size of every picture.
    pub size: Size,
    /// Slots.
    pub slots: u32,
    /// Bytes from slot to slot.
    pub slot_stride: u64,
    /// Generation.
    pub generation: Generation,
    /// Inode of frame.data.
    pub inode: u64,
    /// Bytes of frame.data.
    pub file_bytes: u64,
    /// Id that the first frame of the generation gets, at least 1.
    pub first: FrameId,
    /// Media time of the last frame before the generation, meaningless while `first` is 1.
    pub media_before: MediaTime,
}

impl Geometry {
    /// Writes a fresh header: no frame yet, heartbeat now. For a file that no reader can see yet.
    pub fn write<W: Word>(&self, words: &[W], heartbeat: Instant) {
        let put = |at: usize, value: u64| {
            words[at].store(value, std::sync::atomic::Ordering::Relaxed);
        };
        put(header::VERSION_ZERO, halves(VERSION, 0));
        put(header::FRAME_ID, self.first.0 - 1);
        put(header::WIDTH_HEIGHT, halves(self.size.width, self.size.height));
        put(header::FORMAT_STRIDE, halves(NV12, self.size.width));
        put(header::DATA_SIZE, self.size.nv12_bytes() as u64);
        put(header::SLOTS_RECORD, halves(self.slots, RECORD_BYTES as u32));
        put(header::SLOT_STRIDE, self.slot_stride);
        put(header::GENERATION, self.generation.0);
        put(header::INODE, self.inode);
        put(header::FILE_BYTES, self.file_bytes);
        put(header::FIRST_FRAME_ID, self.first.0);
        put(header::MEDIA_BEFORE, self.media_before.0);
        put(header::HEARTBEAT, heartbeat.0);
    }

    /// Reads and checks the header of a frame.meta of `words.len() * 8` bytes. `Err` says what is
    /// wrong with which number.
    pub fn read<W: Word>(words: &[W]) -> Result<Geometry, String> {
        let get = |at: usize| words[at].load(std::sync::atomic::Ordering::Relaxed);
        if words.len() * 8 < HEADER_BYTES {
            return Err(format!("{} bytes, a header has {HEADER_BYTES}", words.len() * 8));
        }
        let version = low(get(header::VERSION_ZERO));
        if version != VERSION {
            return Err(format!("version {version}, this reader knows {VERSION}"));
        }
        let geometry = Geometry {
            size: Size {
                width: low(get(header::WIDTH_HEIGHT)),
                height: high(get(header::WIDTH_HEIGHT)),
            },
            slots: low(get(header::SLOTS_RECORD)),
            slot_stride: get(header::SLOT_STRIDE),
            generation: Generation(get(header::GENERATION)),
            inode: get(header::INODE),
            file_bytes: get(header::FILE_BYTES),
            first: FrameId(get(header::FIRST_FRAME_ID)),
            media_before: MediaTime(get(header::MEDIA_BEFORE)),
        };
        let format_stride = get(header::FORMAT_STRIDE);
        let data_size = get(header::DATA_SIZE);
        let record_bytes = high(get(header::SLOTS_RECORD));
        geometry.check(format_stride, data_size, record_bytes, words.len() * 8)?;
        Ok(geometry)
    }

    fn check(
        &self,
        format_stride: u64,
        data_size: u64,
        record_bytes: u32,
        meta: usize,
    ) -> Result<(), String> {
        let Size { width, height } = self.size;
        if !self.size.valid_nv12() {
            return Err(format!("size {width}x{height} is not one of NV12"));
        }
        if low(format_stride) != NV12 || high(format_stride) != width {
            return Err(format!(
                "pixel format {} with stride {}, known is NV12 (0) with stride {width}",
                low(format_stride),
                high(format_stride)
            ));
        }
        if data_size != self.size.nv12_bytes() as u64 {
            return Err(format!("data size {data_size} for {width}x{height}"));
        }
        if !(RING_SLOTS_MIN..=RING_SLOTS_MAX).contains(&self.slots) {
            return Err(format!(
                "{} slots, limits are {RING_SLOTS_MIN} and {RING_SLOTS_MAX}",
                self.slots
            ));
        }
        if record_bytes as usize != RECORD_BYTES || meta != meta_bytes(self.slots) {
            return Err(format!(
                "{meta} bytes of header with {} records of {record_bytes}, expected {} with \
                 records of {RECORD_BYTES}",
                self.slots,
                meta_bytes(self.slots)
            ));
        }
        if self.slot_stride != slot_stride(self.size)
            || self.file_bytes != self.slot_stride * u64::from(self.slots)
        {
            return Err(format!(
                "slots of {} bytes in {} bytes of frame.data, expected {} of {}",
                self.slot_stride,
                self.file_bytes,
                self.slots,
                slot_stride(self.size)
            ));
        }
        // Half of the range: no id of the generation can overflow.
        if self.first.0 == 0 || self.first.0 > u64::MAX / 2 || self.media_before.0 > u64::MAX / 2 {
            return Err(format!(
                "first frame id {} after media time {}",
                self.first.0, self.media_before.0
            ));
        }
        Ok(())
    }

    /// The slot a frame id lives in, `None` for an id from before the generation.
    pub fn slot_of(&self, id: FrameId) -> Option<u32> {
        let nth = id.0.checked_sub(self.first.0)?;
        Some((nth % u64::from(self.slots)) as u32)
    }

    /// The last frame id before the generation.
    pub fn last_before(&self) -> Option<(FrameId, MediaTime)> {
        (self.first.0 > 1).then(|| (FrameId(self.first.0 - 1), self.media_before))
    }
}

/// The words that name the newest frame: id, capture time, offset in frame.data.
pub(super) fn newest<W: Word>(words: &[W]) -> Guarded<'_, W, 3> {
    Guarded {
        sequence: &words[header::SEQUENCE],
        words: [&words[header::FRAME_ID], &words[header::TIMESTAMP], &words[header::OFFSET]],
    }
}

/// The record of a slot. Panics when there is no such slot.
pub(super) fn record<W: Word>(words: &[W], slot: u32) -> Guarded<'_, W, RECORD_WORDS> {
    let at = (HEADER_BYTES + slot as usize * RECORD_BYTES) / 8;
    let words = &words[at..at + RECORD_BYTES / 8];
    Guarded {
        sequence: &words[record::SEQUENCE],
        words: std::array::from_fn(|n| &words[record::FRAME_ID + n]),
    }
}

/// The header's sequence, which changes with everything that a reader must look at again.
pub(super) fn sequence<W>(words: &[W]) -> &W {
    &words[header::SEQUENCE]
}

/// CLOCK_MONOTONIC of the last heartbeat.
pub(super) fn heartbeat<W>(words: &[W]) -> &W {
    &words[header::HEARTBEAT]
}

/// Not zero once the generation was replaced or removed.
pub(super) fn retired<W>(words: &[W]) -> &W {
    &words[header::RETIRED]
}

/// A frame as its record describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// Id.
    pub id: FrameId,
    /// Size and colour.
    pub picture: Picture,
    /// Times and flags.
    pub info: FrameInfo,
    /// When it was published.
    pub published: Instant,
}

impl Record {
    /// The guarded words of the record.
    pub fn encode(&self) -> [u64; RECORD_WORDS] {
        let mut words = [0; RECORD_WORDS];
        let mut put = |at: usize, value: u64| words[at - record::FRAME_ID] = value;
        put(record::FRAME_ID, self.id.0);
        put(record::MEDIA, self.info.media.0);
        put(record::CAPTURE, self.info.capture.0);
        put(record::CAPTURE_UTC, self.info.capture_utc.0);
        put(record::DECODE_START, self.info.decode_start.0);
        put(record::PUBLISHED, self.published.0);
        put(record::WIDTH_HEIGHT, halves(self.picture.size.width, self.picture.size.height));
        let colour = self.picture.matrix as u32 | (self.picture.range as u32) << 8;
        put(record::COLOUR_FLAGS, halves(colour, self.info.flags.0));
        words
    }

    /// The record in the words, or which number makes no sense.
    pub fn decode(words: &[u64; RECORD_WORDS]) -> Result<Record, String> {
        let get = |at: usize| words[at - record::FRAME_ID];
        let colour = low(get(record::COLOUR_FLAGS));
        let matrix = match colour & 0xff {
            0 => ColourMatrix::Unspecified,
            1 => ColourMatrix::Bt601,
            2 => ColourMatrix::Bt709,
            3 => ColourMatrix::Bt2020,
            other => return Err(format!("colour matrix {other}, known are 0 to 3")),
        };
        let range = match colour >> 8 {
            0 => ColourRange::Unspecified,
            1 => ColourRange::Limited,
            2 => ColourRange::Full,
            other => return Err(format!("colour range {other}, known are 0 to 2")),
        };
        let size =
            Size { width: low(get(record::WIDTH_HEIGHT)), height: high(get(record::WIDTH_HEIGHT)) };
        Ok(Record {
            id: FrameId(get(record::FRAME_ID)),
            picture: Picture { size, matrix, range },
            info: FrameInfo {
                media: MediaTime(get(record::MEDIA)),
                capture: Instant(get(record::CAPTURE)),
                capture_utc: UtcNanos(get(record::CAPTURE_UTC)),
                decode_start: Instant(get(record::DECODE_START)),
                flags: FrameFlags(high(get(record::COLOUR_FLAGS))),
            },
            published: Instant(get(record::PUBLISHED)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    fn words(slots: u32) -> Vec<AtomicU64> {
        (0..meta_bytes(slots) / 8).map(|_| AtomicU64::new(0)).collect()
    }

    fn bytes(words: &[AtomicU64]) -> Vec<u8> {
        words.iter().flat_map(|w| w.load(Relaxed).to_le_bytes()).collect()
    }

    fn geometry() -> Geometry {
        let size = Size { width: 0x280, height: 0x1e0 };
        Geometry {
            size,
            slots: 9,
            slot_stride: slot_stride(size),
            generation: Generation(0x1112_1314_1516_1718),
            inode: 0x2122_2324_2526_2728,
            file_bytes: slot_stride(size) * 9,
            first: FrameId(0x3132_3334_3536_3739),
            media_before: MediaTime(0x4142_4344_4546_4748),
        }
    }

    fn full_record() -> Record {
        Record {
            id: FrameId(0x5152_5354_5556_5758),
            picture: Picture {
                size: geometry().size,
                matrix: ColourMatrix::Bt709,
                range: ColourRange::Limited,
            },
            info: FrameInfo {
                media: MediaTime(0x6162_6364_6566_6768),
                capture: Instant(0x7172_7374_7576_7778),
                capture_utc: UtcNanos(0x8182_8384_8586_8788),
                decode_start: Instant(0x9192_9394_9596_9798),
                flags: FrameFlags(0xb1b2_b3b4),
            },
            published: Instant(0xa1a2_a3a4_a5a6_a7a8),
        }
    }

    /// The byte table of docs/ring.md. A change here is a new version of the format.
    #[test]
    fn offsets_are_those_of_the_byte_table() {
        let words = words(9);
        geometry().write(&words, Instant(0xc1c2_c3c4_c5c6_c7c8));
        retired(&words).store(1, Relaxed);
        newest(&words).close([0x3132_3334_3536_3740, 0x7172_7374_7576_7778, 7 * 0x71000]);
        record(&words, 7).close(full_record().encode());
        let bytes = bytes(&words);
        assert_eq!(bytes.len(), 192 + 9 * 128);
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());

        assert_eq!(u32_at(0), 2, "version");
        assert_eq!(u32_at(4), 0, "padding");
        assert_eq!(u64_at(8), 0x3132_3334_3536_3740, "frame_id");
        assert_eq!(u64_at(16), 0x7172_7374_7576_7778, "timestamp_ns");
        assert_eq!(u32_at(24), 0x280, "width");
        assert_eq!(u32_at(28), 0x1e0, "height");
        assert_eq!(u32_at(32), 0, "pixel_format");
        assert_eq!(u32_at(36), 0x280, "stride");
        assert_eq!(u64_at(40), 0x280 * 0x1e0 * 3 / 2, "data_size");
        assert_eq!(u64_at(48), 7 * 0x71000, "offset of the newest slot");
        assert_eq!(u64_at(56), 2, "header sequence");

        assert_eq!(u32_at(64), 9, "slots");
        assert_eq!(u32_at(68), 128, "record bytes");
        assert_eq!(u64_at(72), 0x71000, "slot stride");
        assert_eq!(u64_at(80), 0x1112_1314_1516_1718, "generation");
        assert_eq!(u64_at(88), 0x2122_2324_2526_2728, "inode");
        assert_eq!(u64_at(96), 9 * 0x71000, "bytes of frame.data");
        assert_eq!(u64_at(104), 0x3132_3334_3536_3739, "first frame id");
        assert_eq!(u64_at(112), 0x4142_4344_4546_4748, "media before");
        assert_eq!(u64_at(120), 0, "spare");
        assert_eq!(u64_at(128), 0xc1c2_c3c4_c5c6_c7c8, "heartbeat");
        assert_eq!(u64_at(136), 1, "retired");
        assert!(bytes[144..192].iter().all(|b| *b == 0), "spare");

        let at = 192 + 7 * 128;
        assert_eq!(u64_at(at), 2, "sequence");
        assert_eq!(u64_at(at + 8), 0x5152_5354_5556_5758, "frame id");
        assert_eq!(u64_at(at + 16), 0x6162_6364_6566_6768, "media");
        assert_eq!(u64_at(at + 24), 0x7172_7374_7576_7778, "capture");
        assert_eq!(u64_at(at + 32), 0x8182_8384_8586_8788, "capture utc");
        assert_eq!(u64_at(at + 40), 0x9192_9394_9596_9798, "decode start");
        assert_eq!(u64_at(at + 48), 0xa1a2_a3a4_a5a6_a7a8, "published");
        assert_eq!(u32_at(at + 56), 0x280, "width");
        assert_eq!(u32_at(at + 60), 0x1e0, "height");
        assert_eq!(bytes[at + 64..at + 68], [2, 1, 0, 0], "matrix, range");
        assert_eq!(u32_at(at + 68), 0xb1b2_b3b4, "flags");
        assert!(bytes[at + 72..at + 128].iter().all(|b| *b == 0), "spare");
        assert!(bytes[192..at].iter().all(|b| *b == 0), "other records");
    }

    #[test]
    fn header_and_record_come_back() {
        let words = words(9);
        geometry().write(&words, Instant(5));
        assert_eq!(Geometry::read(&words), Ok(geometry()));
        assert_eq!(Record::decode(&full_record().encode()), Ok(full_record()));
    }

    #[test]
    fn every_wrong_number_is_refused_by_name() {
        let half = |value: u64, low: Option<u32>, high: Option<u32>| {
            halves(low.unwrap_or(value as u32), high.unwrap_or((value >> 32) as u32))
        };
        type Change = fn(&dyn Fn(u64, Option<u32>, Option<u32>) -> u64, u64) -> u64;
        let cases: [(usize, Change, &str); 17] = [
            (0, |h, v| h(v, Some(1), None), "version 1"),
            (0, |h, v| h(v, Some(3), None), "version 3"),
            (3, |h, v| h(v, Some(0), None), "size 0x480"),
            (3, |h, v| h(v, Some(641), None), "size 641x480"),
            (3, |h, v| h(v, None, Some(8194)), "size 640x8194"),
            (3, |h, v| h(v, None, Some(482)), "data size"),
            (4, |h, v| h(v, Some(1), None), "pixel format 1"),
            (4, |h, v| h(v, None, Some(704)), "stride 704"),
            (5, |_, v| v + 1, "data size"),
            (8, |h, v| h(v, Some(7), None), "7 slots"),
            (8, |h, v| h(v, Some(u32::MAX), None), "4294967295 slots"),
            (8, |h, v| h(v, Some(10), None), "10 records"),
            (8, |h, v| h(v, None, Some(64)), "records of 64"),
            (9, |_, v| v - 4096, "slots of"),
            (12, |_, v| v / 2, "bytes of frame.data"),
            (13, |_, _| 0, "first frame id 0"),
            (13, |_, _| u64::MAX, "first frame id 18446744073709551615"),
        ];
        for (at, change, says) in cases {
            let words = words(9);
            geometry().write(&words, Instant(5));
            let value = words[at].load(Relaxed);
            words[at].store(change(&half, value), Relaxed);
            let error = Geometry::read(&words).unwrap_err();
            assert!(error.contains(says), "word {at}: `{error}` lacks `{says}`");
        }
        let words = words(9);
        geometry().write(&words, Instant(5));
        assert!(Geometry::read(&words[..23]).unwrap_err().contains("184 bytes"));
        assert!(Geometry::read(&words[..40]).unwrap_err().contains("320 bytes"));
    }

    #[test]
    fn unknown_colour_is_refused() {
        for (colour, says) in [(4, "matrix 4"), (0x300, "range 3"), (0x1_0000, "range 256")] {
            let mut words = full_record().encode();
            words[7] = colour;
            let error = Record::decode(&words).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn slots_follow_from_ids() {
        let geometry = Geometry { first: FrameId(11), ..geometry() };
        assert_eq!(geometry.slot_of(FrameId(10)), None);
        assert_eq!(geometry.slot_of(FrameId(11)), Some(0));
        assert_eq!(geometry.slot_of(FrameId(19)), Some(8));
        assert_eq!(geometry.slot_of(FrameId(20)), Some(0));
    }
}
