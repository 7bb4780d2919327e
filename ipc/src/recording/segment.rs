//! A segment: `ftyp`, `moov`, then fragments of `prft`, `moof`, `mdat` (ISO/IEC 14496-12), one
//! video track of 90 kHz whose decoding times are the camera's media time.
//!
//! The `prft` box (8.16.5) ties the fragment's first picture to UTC; the sequence number of `mfhd`
//! is 1 where something is missing before the fragment and else one more than before, also from
//! segment to segment. So the rows of the index follow from the segments exactly.

use super::boxes::{self, Fields};
use super::files::{Files, OpenFile};
use base::time::NANOS_PER_SEC;
use base::{MediaTime, UtcNanos};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Most bytes of a `moov` or `moof` (chosen: hundreds of times a large one).
const HEAD_BYTES_MAX: u64 = 16 << 20;
/// Seconds from 1900, where NTP begins, to 1970.
const NTP_OF_1970: u64 = 2_208_988_800;

/// What decodes a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// Bytes of `ftyp` and `moov`.
    pub bytes: u64,
    /// The sample entry of `stsd`, whole.
    pub sample_entry: Vec<u8>,
}

impl Init {
    /// `avc1`, `hvc1`, or what else it is.
    pub fn kind(&self) -> [u8; 4] {
        boxes::head(&self.sample_entry).map_or(*b"    ", |(kind, ..)| kind)
    }

    /// Pixels.
    pub fn size(&self) -> (u16, u16) {
        let mut fields = Fields(self.sample_entry.get(32..36).unwrap_or_default());
        (fields.u16().unwrap_or(0), fields.u16().unwrap_or(0))
    }

    /// The configuration record: `avcC` or `hvcC`.
    pub fn record(&self) -> &[u8] {
        let inner = self.sample_entry.get(86..).unwrap_or_default();
        let found = boxes::boxes(inner).find(|atom| matches!(&atom.kind, b"avcC" | b"hvcC"));
        found.map_or(&[], |atom| atom.body)
    }
}

/// The parameters of a row: FNV-1a, 64 bits, of the sample entry.
pub fn parameters_id(sample_entry: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    sample_entry.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// One picture of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Where it begins, from the start of the segment.
    pub offset: u64,
    /// Its length.
    pub bytes: u32,
    /// Decoding time, 90 kHz.
    pub decode: u64,
    /// Until the next one is decoded.
    pub duration: u32,
    /// Presentation is so much later than decoding.
    pub composition: i32,
    /// Decoding can begin here.
    pub key: bool,
}

impl Sample {
    /// When it is shown.
    pub const fn media(&self) -> MediaTime {
        MediaTime(self.decode.saturating_add_signed(self.composition as i64))
    }
}

/// A fragment as its segment says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Where its first box begins.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// Capture time of its first picture in the order of presentation.
    pub start_utc: UtcNanos,
    /// Media time of that picture.
    pub start_media: MediaTime,
    /// 1 = something is missing before it.
    pub sequence: u32,
    /// In decoding order.
    pub samples: Vec<Sample>,
}

impl Fragment {
    /// Ticks that its pictures last.
    pub fn duration(&self) -> u64 {
        self.samples.iter().map(|s| u64::from(s.duration)).sum()
    }

    /// Whether it begins with a key picture.
    pub fn key(&self) -> bool {
        self.samples.first().is_some_and(|s| s.key)
    }
}

/// A segment as it is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scanned {
    /// What decodes it; `None` when it ends before.
    pub init: Option<Init>,
    /// Its whole fragments.
    pub fragments: Vec<Fragment>,
    /// Bytes up to the end of the last whole fragment, or of the initialisation.
    pub whole_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Whether what is behind the whole bytes is the beginning of more, as a kill leaves it, or
    /// zeros, as a loss of power does. Else it is something that was not written by us.
    pub torn: bool,
}

/// UTC as NTP has it, 32 bits of seconds and 32 of fraction; the era is dropped.
pub const fn ntp_of_utc(utc: UtcNanos) -> u64 {
    let (seconds, nanos) = (utc.0 / NANOS_PER_SEC, utc.0 % NANOS_PER_SEC);
    let fraction = (nanos << 32).div_ceil(NANOS_PER_SEC);
    (seconds.wrapping_add(NTP_OF_1970) << 32).wrapping_add(fraction)
}

/// The inverse of [`ntp_of_utc`], exact, for times from 1970 to 2106.
pub const fn utc_of_ntp(ntp: u64) -> UtcNanos {
    let seconds = ((ntp >> 32) as u32).wrapping_sub(NTP_OF_1970 as u32) as u64;
    UtcNanos(seconds * NANOS_PER_SEC + (((ntp & 0xffff_ffff) * NANOS_PER_SEC) >> 32))
}

/// Reads the boxes of a segment; `mdat` is skipped. What is cut off or malformed ends it.
///
/// # Errors
/// Those of the file system.
pub fn scan(path: &Path) -> io::Result<Scanned> {
    scan_file(&Files::default().open(path)?)
}

/// As [`scan`], of an open file.
pub(super) fn scan_file(file: &OpenFile) -> io::Result<Scanned> {
    let file_bytes = file.length()?;
    let mut scanned = Scanned { file_bytes, ..Scanned::default() };
    scanned.init = read_init(file, file_bytes)?;
    let mut at = 0;
    if let Some(init) = &scanned.init {
        at = init.bytes;
        while let Some(fragment) = read_at(file, at, file_bytes)? {
            at += fragment.bytes;
            scanned.fragments.push(fragment);
        }
    }
    scanned.whole_bytes = at;
    scanned.torn = is_torn(file, at, file_bytes)?;
    Ok(scanned)
}

/// Whether a file ends inside of boxes that begin at `at` and are not complete, or in zeros.
fn is_torn(file: &impl FileExt, mut at: u64, end: u64) -> io::Result<bool> {
    while at < end {
        let mut bytes = [0; 16];
        let available = (end - at).min(16) as usize;
        file.read_exact_at(&mut bytes[..available], at)?;
        if available < 8 || bytes == [0; 16] {
            return Ok(true);
        }
        let Some((kind, _, length)) = boxes::head(&bytes[..available]) else { return Ok(false) };
        // Behind pictures a fragment is complete: it could not be read.
        match &kind {
            b"ftyp" | b"moov" | b"prft" | b"moof" => {}
            b"mdat" => return Ok(length > end - at),
            _ => return Ok(false),
        }
        if length > end - at {
            return Ok(true);
        }
        at += length;
    }
    Ok(true)
}

/// Reads one fragment of an open segment; `None` when there is no whole one at `offset`.
///
/// # Errors
/// Those of the file system.
pub fn read_fragment(file: &File, offset: u64) -> io::Result<Option<Fragment>> {
    read_at(file, offset, file.metadata()?.len())
}

/// Reads what decodes a segment; `None` when it ends before that is whole.
fn read_init(file: &impl FileExt, end: u64) -> io::Result<Option<Init>> {
    let mut at = 0;
    loop {
        let Some((kind, header, length)) = head_at(file, at, end)? else { return Ok(None) };
        if kind == *b"moov" {
            let body = read(file, at + header as u64, length - header as u64)?;
            let path = [b"trak", b"mdia", b"minf", b"stbl", b"stsd"];
            let entry = boxes::descend(&body, &path).and_then(|stsd| {
                let entries = stsd.get(8..)?;
                let (_, _, length) = boxes::head(entries)?;
                entries.get(..usize::try_from(length).ok()?)
            });
            let bytes = at + length;
            return Ok(entry.map(|entry| Init { bytes, sample_entry: entry.to_vec() }));
        }
        if kind == *b"moof" || kind == *b"mdat" {
            return Ok(None);
        }
        at += length;
    }
}

impl Init {
    /// Reads what decodes a segment; `None` when it ends before that is whole.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(file: &File) -> io::Result<Option<Init>> {
        read_init(file, file.metadata()?.len())
    }
}

/// A box that is whole in the file, and of a sensible length unless it holds pictures.
fn head_at(file: &impl FileExt, at: u64, end: u64) -> io::Result<Option<([u8; 4], usize, u64)>> {
    let mut bytes = [0; 16];
    let available = end.saturating_sub(at).min(16) as usize;
    file.read_exact_at(&mut bytes[..available], at)?;
    let found = boxes::head(&bytes[..available]);
    Ok(found.filter(|(kind, _, length)| {
        *length <= end - at && (*kind == *b"mdat" || *length <= HEAD_BYTES_MAX)
    }))
}

fn read(file: &impl FileExt, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

fn read_at(file: &impl FileExt, offset: u64, end: u64) -> io::Result<Option<Fragment>> {
    let mut at = offset;
    let (mut reference, mut moof) = (None, None);
    loop {
        let Some((kind, header, length)) = head_at(file, at, end)? else { return Ok(None) };
        let body = (at + header as u64, length - header as u64);
        match &kind {
            b"prft" => reference = producer_reference(&read(file, body.0, body.1)?),
            b"moof" => moof = Some((at, read(file, body.0, body.1)?)),
            b"mdat" => {
                let Some(((moof_at, moof), (start_utc, start_media))) = moof.zip(reference) else {
                    return Ok(None);
                };
                let bytes = at + length - offset;
                let pictures = body.0..body.0 + body.1;
                let read = movie_fragment(&moof, moof_at, &pictures);
                return Ok(read.map(|(sequence, samples)| Fragment {
                    offset,
                    bytes,
                    start_utc,
                    start_media,
                    sequence,
                    samples,
                }));
            }
            _ => {}
        }
        at += length;
    }
}

fn producer_reference(body: &[u8]) -> Option<(UtcNanos, MediaTime)> {
    let mut fields = Fields(body);
    let (version, _track, ntp) = (fields.u32()? >> 24, fields.u32()?, fields.u64()?);
    let media = if version == 0 { u64::from(fields.u32()?) } else { fields.u64()? };
    Some((utc_of_ntp(ntp), MediaTime(media)))
}

fn movie_fragment(
    moof: &[u8],
    moof_at: u64,
    pictures: &std::ops::Range<u64>,
) -> Option<(u32, Vec<Sample>)> {
    let sequence = Fields(boxes::find(moof, b"mfhd")?.get(4..)?).u32()?;
    let traf = boxes::find(moof, b"traf")?;
    let mut header = Fields(boxes::find(traf, b"tfhd")?);
    let flags = header.u32()? & 0xff_ffff;
    header.u32()?;
    // Base data offset, sample description, default duration, default size, default flags.
    if flags & 1 != 0 {
        header.u64()?;
    }
    let mut default = |bit: u32| if flags & bit == 0 { Some(0) } else { header.u32() };
    default(2)?;
    let (duration, size, sample_flags) = (default(8)?, default(16)?, default(32)?);
    let mut time = Fields(boxes::find(traf, b"tfdt")?);
    let mut decode = match time.u32()? >> 24 {
        0 => u64::from(time.u32()?),
        _ => time.u64()?,
    };
    let mut run = Fields(boxes::find(traf, b"trun")?);
    let flags = run.u32()? & 0xff_ffff;
    let count = run.u32()?;
    let offset = if flags & 1 == 0 { 0 } else { run.u32()? as i32 };
    let first_flags = if flags & 4 == 0 { None } else { Some(run.u32()?) };
    let mut at = moof_at.checked_add_signed(i64::from(offset))?;
    let mut samples = Vec::new();
    for number in 0..count {
        let mut field =
            |bit: u32, default| if flags & bit == 0 { Some(default) } else { run.u32() };
        let (duration, bytes) = (field(0x100, duration)?, field(0x200, size)?);
        let own = field(0x400, sample_flags)?;
        let composition = field(0x800, 0)? as i32;
        let flags = first_flags.filter(|_| number == 0).unwrap_or(own);
        let end = at.checked_add(u64::from(bytes))?;
        // Without a field of its own a sample costs no bytes of the run: the count alone could ask
        // for any amount of memory.
        if at < pictures.start || end > pictures.end || bytes == 0 {
            return None;
        }
        let key = flags & 0x1_0000 == 0;
        samples.push(Sample { offset: at, bytes, decode, duration, composition, key });
        (at, decode) = (end, decode.checked_add(u64::from(duration))?);
    }
    (!samples.is_empty()).then_some((sequence, samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_keeps_every_nanosecond_and_knows_the_next_era() {
        assert_eq!(ntp_of_utc(UtcNanos(0)), NTP_OF_1970 << 32);
        let mut seed = 7u64;
        for _ in 0..100_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let utc = UtcNanos(seed % (u64::from(u32::MAX) * NANOS_PER_SEC));
            assert_eq!(utc_of_ntp(ntp_of_utc(utc)), utc);
        }
        let in_2040 = UtcNanos(2_208_988_800 * NANOS_PER_SEC + 999_999_999);
        assert_eq!(utc_of_ntp(ntp_of_utc(in_2040)), in_2040);
    }
}
