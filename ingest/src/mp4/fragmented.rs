//! Fragmented MP4: `ftyp` and `moov` once, then `prft`, `moof`, `mdat` for each fragment, as
//! `ipc::recording` reads them.

use super::boxed::Boxes;
use super::sample_entry::SampleEntry;
use base::{MediaTime, UtcNanos};
use ipc::recording::ntp_of_utc;

/// Flags of a sample that others can be decoded without and that leans on others.
const LEANS: u32 = 0x0101_0000;
/// Flags of a key sample.
const KEY: u32 = 0x0200_0000;

/// One picture of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Its length.
    pub bytes: u32,
    /// Until the next one is decoded, 90 kHz.
    pub duration: u32,
    /// Presentation is so much later than decoding.
    pub composition: i32,
}

/// A fragment but for its pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentHead<'a> {
    /// 1 = something is missing before it.
    pub sequence: u32,
    /// Capture time of the first picture shown.
    pub start_utc: UtcNanos,
    /// Media time of it.
    pub start_media: MediaTime,
    /// Decoding time of the first sample.
    pub decode: u64,
    /// Whether that is a key sample. No other one is.
    pub key: bool,
    /// In decoding order.
    pub samples: &'a [Sample],
}

/// What stands before the fragments.
pub fn initialisation(entry: &SampleEntry) -> Vec<u8> {
    let mut out = Boxes::default();
    out.boxed(b"ftyp", |b| {
        b.bytes(b"iso6\0\0\0\0iso6cmfcmp41");
    });
    out.boxed(b"moov", |b| {
        movie_header(b, 0);
        b.boxed(b"trak", |b| {
            track_header(b, 0, (entry.width, entry.height));
            b.boxed(b"mdia", |b| {
                media_header(b, 0);
                b.boxed(b"minf", |b| {
                    media_information(b);
                    b.boxed(b"stbl", |b| {
                        b.full(b"stsd", 0, 0, |b| {
                            b.u32(1);
                            b.bytes(&entry.bytes);
                        });
                        for empty in [b"stts", b"stsc", b"stco"] {
                            b.full(empty, 0, 0, |b| b.u32(0));
                        }
                        b.full(b"stsz", 0, 0, |b| b.zeros(8));
                    });
                });
            });
        });
        b.boxed(b"mvex", |b| {
            b.full(b"trex", 0, 0, |b| {
                for value in [1, 1, 0, 0, 0] {
                    b.u32(value);
                }
            });
        });
    });
    out.0
}

/// `mvhd`, durations in ticks of 90 kHz; 0 = fragments say it.
pub fn movie_header(b: &mut Boxes, duration: u64) {
    b.full(b"mvhd", 1, 0, |b| {
        b.zeros(16);
        b.u32(MediaTime::RATE as u32);
        b.u64(duration);
        b.u32(0x1_0000);
        b.u16(0x100);
        b.zeros(10);
        b.matrix();
        b.zeros(24);
        b.u32(2);
    });
}

/// `tkhd`.
pub fn track_header(b: &mut Boxes, duration: u64, (width, height): (u16, u16)) {
    b.full(b"tkhd", 1, 3, |b| {
        b.zeros(16);
        b.u32(1);
        b.zeros(4);
        b.u64(duration);
        b.zeros(16);
        b.matrix();
        b.u32(u32::from(width) << 16);
        b.u32(u32::from(height) << 16);
    });
}

/// `mdhd` and `hdlr`.
pub fn media_header(b: &mut Boxes, duration: u64) {
    b.full(b"mdhd", 1, 0, |b| {
        b.zeros(16);
        b.u32(MediaTime::RATE as u32);
        b.u64(duration);
        // Language undetermined.
        b.u32(0x55c4_0000);
    });
    b.full(b"hdlr", 0, 0, |b| {
        b.bytes(b"\0\0\0\0vide\0\0\0\0\0\0\0\0\0\0\0\0VAS\0");
    });
}

/// `vmhd` and `dinf`.
pub fn media_information(b: &mut Boxes) {
    b.full(b"vmhd", 0, 1, |b| b.zeros(8));
    b.boxed(b"dinf", |b| {
        b.full(b"dref", 0, 0, |b| {
            b.u32(1);
            b.full(b"url ", 0, 1, |_| {});
        });
    });
}

/// Writes everything of a fragment but the pictures, of `pictures` bytes, which follow at once.
///
/// # Panics
/// When the pictures are 4 GiB or more.
pub fn write_head(head: &FragmentHead<'_>, pictures: usize, out: &mut Vec<u8>) {
    let mut b = Boxes(std::mem::take(out));
    b.full(b"prft", 1, 24, |b| {
        b.u32(1);
        b.u64(ntp_of_utc(head.start_utc));
        b.u64(head.start_media.0);
    });
    let moof = b.0.len();
    let mut offset_at = 0;
    b.boxed(b"moof", |b| {
        b.full(b"mfhd", 0, 0, |b| b.u32(head.sequence));
        b.boxed(b"traf", |b| {
            // Default flags; offsets count from this moof.
            b.full(b"tfhd", 0, 0x2_0020, |b| {
                b.u32(1);
                b.u32(LEANS);
            });
            b.full(b"tfdt", 1, 0, |b| b.u64(head.decode));
            let composed = head.samples.iter().any(|sample| sample.composition != 0);
            let flags = 0x301 | u32::from(head.key) << 2 | u32::from(composed) << 11;
            b.full(b"trun", 1, flags, |b| {
                b.u32(u32::try_from(head.samples.len()).expect("samples of a second"));
                offset_at = b.0.len();
                b.u32(0);
                if head.key {
                    b.u32(KEY);
                }
                for sample in head.samples {
                    b.u32(sample.duration);
                    b.u32(sample.bytes);
                    if composed {
                        b.u32(sample.composition as u32);
                    }
                }
            });
        });
    });
    let offset = u32::try_from(b.0.len() - moof + 8).expect("a moof is small");
    b.0[offset_at..offset_at + 4].copy_from_slice(&offset.to_be_bytes());
    let length = pictures.checked_add(8).and_then(|n| u32::try_from(n).ok());
    b.u32(length.expect("a fragment is cut long before 4 GiB"));
    b.bytes(b"mdat");
    *out = b.0;
}
