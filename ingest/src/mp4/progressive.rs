//! Progressive MP4 with its index in front: what people download and send to others.

use super::boxed::Boxes;
use super::fragmented::{media_header, media_information, movie_header, track_header};

/// One sample of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipSample {
    /// Its length.
    pub bytes: u32,
    /// Until the next one is decoded, 90 kHz.
    pub duration: u32,
    /// Presentation is so much later than decoding.
    pub composition: i32,
    /// Decoding can begin here.
    pub key: bool,
    /// Which of the sample entries decodes it, from 0.
    pub entry: u32,
}

/// A clip but for its pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    /// Sample entries, whole boxes.
    pub entries: Vec<Vec<u8>>,
    /// Pixels of the first one.
    pub size: (u16, u16),
    /// In decoding order. Decoding begins at time 0.
    pub samples: Vec<ClipSample>,
    /// The presentation time that is shown first, 90 kHz.
    pub start: u64,
    /// How long it is shown.
    pub duration: u64,
}

impl Clip {
    /// Everything in front of the pictures, the header of `mdat` included.
    pub fn head(&self) -> Vec<u8> {
        let pictures: u64 = self.samples.iter().map(|s| u64::from(s.bytes)).sum();
        // The length of the tables does not depend on the offsets in them.
        let draft = self.tables(0).len() as u64;
        let mut out = Boxes(self.tables(draft + 16));
        out.u32(1);
        out.bytes(b"mdat");
        out.u64(pictures + 16);
        out.0
    }

    fn tables(&self, pictures_at: u64) -> Vec<u8> {
        let mut out = Boxes::default();
        out.boxed(b"ftyp", |b| b.bytes(b"isom\0\0\x02\0isomiso2mp41"));
        let media: u64 = self.samples.iter().map(|s| u64::from(s.duration)).sum();
        out.boxed(b"moov", |b| {
            movie_header(b, self.duration);
            b.boxed(b"trak", |b| {
                track_header(b, self.duration, self.size);
                b.boxed(b"edts", |b| {
                    b.full(b"elst", 1, 0, |b| {
                        b.u32(1);
                        b.u64(self.duration);
                        b.u64(self.start);
                        b.u32(0x1_0000);
                    });
                });
                b.boxed(b"mdia", |b| {
                    media_header(b, media);
                    b.boxed(b"minf", |b| {
                        media_information(b);
                        b.boxed(b"stbl", |b| self.sample_tables(b, pictures_at));
                    });
                });
            });
        });
        out.0
    }

    fn sample_tables(&self, b: &mut Boxes, pictures_at: u64) {
        b.full(b"stsd", 0, 0, |b| {
            b.u32(self.entries.len() as u32);
            for entry in &self.entries {
                b.bytes(entry);
            }
        });
        runs(b, b"stts", 0, self.samples.iter().map(|sample| sample.duration));
        if self.samples.iter().any(|sample| sample.composition != 0) {
            runs(b, b"ctts", 1, self.samples.iter().map(|sample| sample.composition as u32));
        }
        b.full(b"stss", 0, 0, |b| {
            let keys: Vec<u32> =
                (1..).zip(&self.samples).filter(|(_, s)| s.key).map(|(n, _)| n).collect();
            b.u32(keys.len() as u32);
            keys.iter().for_each(|number| b.u32(*number));
        });
        // A chunk per run of samples with the same entry.
        let mut chunks: Vec<(u32, u32, u64)> = Vec::new();
        let mut at = pictures_at;
        for sample in &self.samples {
            match chunks.last_mut() {
                Some((entry, count, _)) if *entry == sample.entry => *count += 1,
                _ => chunks.push((sample.entry, 1, at)),
            }
            at += u64::from(sample.bytes);
        }
        b.full(b"stsc", 0, 0, |b| {
            b.u32(chunks.len() as u32);
            for (number, (entry, count, _)) in (1..).zip(&chunks) {
                b.u32(number);
                b.u32(*count);
                b.u32(entry + 1);
            }
        });
        b.full(b"stsz", 0, 0, |b| {
            b.u32(0);
            b.u32(self.samples.len() as u32);
            self.samples.iter().for_each(|sample| b.u32(sample.bytes));
        });
        b.full(b"co64", 0, 0, |b| {
            b.u32(chunks.len() as u32);
            chunks.iter().for_each(|(_, _, at)| b.u64(*at));
        });
    }
}

/// A table of how often a value repeats.
fn runs(b: &mut Boxes, kind: &[u8; 4], version: u8, values: impl Iterator<Item = u32>) {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((count, last)) if *last == value => *count += 1,
            _ => runs.push((1, value)),
        }
    }
    b.full(kind, version, 0, |b| {
        b.u32(runs.len() as u32);
        for (count, value) in runs {
            b.u32(count);
            b.u32(value);
        }
    });
}
