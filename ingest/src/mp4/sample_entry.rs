//! What decodes a track: the sample entry with its `avcC` or `hvcC` record, made from the parameter
//! sets that lead a key unit (ISO/IEC 14496-15, 5.3.3 and 8.3.3).
//!
//! Parameter sets go into the record and nowhere else (`avc1`, `hvc1`: what every player takes), so
//! other sets mean another entry.

use super::boxed::Boxes;
use super::sequence_parameters::{self, SequenceParameters, unescaped};
use crate::annexb::nals;
use crate::unit::Codec;
use std::collections::HashSet;

/// What a NAL unit is to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NalKind {
    /// Video, sequence or picture parameter set: goes into the record.
    Set(u8),
    /// Delimiters and filling, which a container has no use for.
    Waste,
    /// Everything else.
    Content,
}

/// What a NAL unit is.
pub fn kind(codec: Codec, nal: &[u8]) -> NalKind {
    let Some(&first) = nal.first() else { return NalKind::Waste };
    match codec {
        Codec::H264 => match first & 0x1f {
            number @ (7 | 8 | 13) => NalKind::Set(number),
            9..=12 => NalKind::Waste,
            _ => NalKind::Content,
        },
        Codec::H265 => match first >> 1 & 0x3f {
            number @ 32..=34 => NalKind::Set(number),
            35..=38 => NalKind::Waste,
            _ => NalKind::Content,
        },
    }
}

/// Most parameter sets of a key unit: what the record has room for (ISO/IEC 14496-15, 5.3.3.1.2: 31
/// sequence and 255 picture parameter sets; with more, units are no more compared than written).
const SETS_MAX: usize = 31 + 255;

/// Why there is no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A key unit is not led by them.
    #[error("a key picture came without its parameter sets; set the camera to repeat them")]
    Missing,
    /// They can't be read.
    #[error("the camera's sequence parameter set can't be read; update its firmware")]
    Damaged,
    /// They are more than a record can have.
    #[error(
        "a key picture came with more than {SETS_MAX} parameter sets; update the camera's firmware"
    )]
    TooMany,
}

/// What decodes a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleEntry {
    /// The parameter sets that it was made of.
    sets: Vec<Vec<u8>>,
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
    /// The entry as a box.
    pub bytes: Vec<u8>,
    /// [`ipc::recording::parameters_id`] of it.
    pub id: u64,
}

impl SampleEntry {
    /// From a key unit in Annex B.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn of(codec: Codec, key_unit: &[u8]) -> Result<SampleEntry, EntryError> {
        let given = sets_of(codec, key_unit).take(SETS_MAX + 1);
        let sets: Vec<Vec<u8>> = given.map(<[u8]>::to_vec).collect();
        if sets.len() > SETS_MAX {
            return Err(EntryError::TooMany);
        }
        let of = |number: u8| -> Vec<&[u8]> {
            let wanted = |nal: &&Vec<u8>| kind(codec, nal) == NalKind::Set(number);
            sets.iter().filter(wanted).map(Vec::as_slice).collect()
        };
        let (name, record_name, record, parameters) = match codec {
            Codec::H264 => {
                let (sequence, picture) = (of(7), of(8));
                let first = *sequence.first().ok_or(EntryError::Missing)?;
                let parameters =
                    sequence_parameters::read(codec, first).ok_or(EntryError::Damaged)?;
                let record = avcc(first, &parameters, [&sequence, &picture], &of(13));
                (b"avc1", b"avcC", record.ok_or(EntryError::Damaged)?, parameters)
            }
            Codec::H265 => {
                let (video, sequence, picture) = (of(32), of(33), of(34));
                let first = *sequence.first().ok_or(EntryError::Missing)?;
                let parameters =
                    sequence_parameters::read(codec, first).ok_or(EntryError::Damaged)?;
                let lists = [(32, &video), (33, &sequence), (34, &picture)];
                let record = hvcc(first, &parameters, &lists);
                (b"hvc1", b"hvcC", record.ok_or(EntryError::Damaged)?, parameters)
            }
        };
        let mut out = Boxes::default();
        out.boxed(name, |b| {
            b.zeros(6);
            b.u16(1);
            b.zeros(16);
            b.u16(parameters.width);
            b.u16(parameters.height);
            // 72 dpi, one picture a sample, no name, no alpha.
            b.u32(0x48_0000);
            b.u32(0x48_0000);
            b.zeros(4);
            b.u16(1);
            b.zeros(32);
            b.u16(0x18);
            b.u16(0xffff);
            b.boxed(record_name, |b| b.bytes(&record));
        });
        let SequenceParameters { width, height, .. } = parameters;
        let id = ipc::recording::parameters_id(&out.0);
        Ok(SampleEntry { sets, width, height, bytes: out.0, id })
    }

    /// Whether a key unit is led by these sets, or by none.
    pub fn fits(&self, codec: Codec, key_unit: &[u8]) -> bool {
        let mut given = sets_of(codec, key_unit).peekable();
        let codec_of = |name: &[u8]| if name == b"avc1" { Codec::H264 } else { Codec::H265 };
        codec_of(&self.bytes[4..8]) == codec
            && (given.peek().is_none() || given.eq(self.sets.iter().map(Vec::as_slice)))
    }
}

/// The parameter sets before the first picture, each once.
fn sets_of(codec: Codec, key_unit: &[u8]) -> impl Iterator<Item = &[u8]> {
    let picture = move |nal: &[u8]| match codec {
        Codec::H264 => matches!(nal[0] & 0x1f, 1..=5),
        Codec::H265 => nal[0] >> 1 & 0x3f < 32,
    };
    let leading = nals(key_unit).filter(|nal| !nal.is_empty()).take_while(move |nal| !picture(nal));
    let mut seen: HashSet<&[u8]> = HashSet::new();
    leading.filter(move |nal| matches!(kind(codec, nal), NalKind::Set(_)) && seen.insert(nal))
}

fn list(out: &mut Boxes, nals: &[&[u8]]) -> Option<()> {
    for nal in nals {
        out.u16(u16::try_from(nal.len()).ok()?);
        out.bytes(nal);
    }
    Some(())
}

fn avcc(
    first: &[u8],
    parameters: &SequenceParameters,
    [sequence, picture]: [&[&[u8]]; 2],
    extensions: &[&[u8]],
) -> Option<Vec<u8>> {
    let mut out = Boxes::default();
    out.u8(1);
    out.bytes(first.get(1..4)?);
    out.u8(0xff);
    out.u8(0xe0 | u8::try_from(sequence.len()).ok().filter(|n| *n < 32)?);
    list(&mut out, sequence)?;
    out.u8(u8::try_from(picture.len()).ok()?);
    list(&mut out, picture)?;
    if !matches!(first[1], 66 | 77 | 88) {
        out.u8(0xfc | parameters.chroma);
        out.u8(0xf8 | (parameters.luma_bits - 8));
        out.u8(0xf8 | (parameters.chroma_bits - 8));
        out.u8(u8::try_from(extensions.len()).ok()?);
        list(&mut out, extensions)?;
    }
    Some(out.0)
}

fn hvcc(
    first: &[u8],
    parameters: &SequenceParameters,
    lists: &[(u8, &Vec<&[u8]>)],
) -> Option<Vec<u8>> {
    let mut out = Boxes::default();
    out.u8(1);
    // Profile space, tier, profile, compatibility, constraints, level: as they stand in the set.
    out.bytes(unescaped(first).get(3..15)?);
    out.u16(0xf000);
    out.u8(0xfc);
    out.u8(0xfc | parameters.chroma);
    out.u8(0xf8 | (parameters.luma_bits - 8));
    out.u8(0xf8 | (parameters.chroma_bits - 8));
    out.u16(0);
    out.u8(parameters.temporal_layers << 3 | u8::from(parameters.temporal_nesting) << 2 | 3);
    out.u8(lists.iter().filter(|(_, nals)| !nals.is_empty()).count() as u8);
    for (number, nals) in lists.iter().filter(|(_, nals)| !nals.is_empty()) {
        out.u8(0x80 | number);
        out.u16(u16::try_from(nals.len()).ok()?);
        list(&mut out, nals)?;
    }
    Some(out.0)
}

/// Writes a unit as a sample: NAL units behind their lengths, without parameter sets. Returns its
/// bytes, 0 when nothing is left of it.
pub fn write_sample(codec: Codec, unit: &[u8], key: bool, out: &mut Vec<u8>) -> usize {
    let before = out.len();
    for nal in nals(unit) {
        // Sets between pictures are rare and stay: without them what follows can't be decoded.
        let keep = match kind(codec, nal) {
            NalKind::Content => true,
            NalKind::Set(_) => !key,
            NalKind::Waste => false,
        };
        if keep && let Ok(length) = u32::try_from(nal.len()) {
            out.extend(length.to_be_bytes());
            out.extend_from_slice(nal);
        }
    }
    out.len() - before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::tests::units;
    use base::UtcNanos;

    #[test]
    fn entries_say_size_and_depth_and_know_their_sets() {
        for (clip, name, size, bits) in [
            ("pedestrians.mp4", b"avc1", (768, 576), 8),
            ("bframes.mp4", b"avc1", (128, 96), 8),
            ("hevc.mp4", b"hvc1", (128, 96), 8),
            ("ten_bits.mkv", b"hvc1", (128, 96), 10),
        ] {
            let units = units(clip, UtcNanos(1 << 60), 1, |_| 0);
            let (codec, data) = (units[0].codec, &units[0].data);
            let entry = SampleEntry::of(codec, data).unwrap();
            assert_eq!((entry.width, entry.height), size, "{clip}");
            assert_eq!(&entry.bytes[4..8], name);
            let sequence = if codec == Codec::H264 { NalKind::Set(7) } else { NalKind::Set(33) };
            let set = sets_of(codec, data).find(|nal| kind(codec, nal) == sequence).unwrap();
            assert_eq!(sequence_parameters::read(codec, set).unwrap().luma_bits, bits);
            assert!(entry.fits(codec, data) && entry.fits(codec, &units[1].data));
            assert_eq!(SampleEntry::of(codec, &units[1].data), Err(EntryError::Missing));
            let mut sample = Vec::new();
            write_sample(codec, data, true, &mut sample);
            assert!(!sample.windows(set.len()).any(|part| part == set), "sets are in the entry");
        }
    }

    /// A key unit led by `count` distinct sets of one kind.
    fn led_by(count: u32, header: u8) -> Vec<u8> {
        let mut unit = Vec::new();
        for n in 0..count {
            // No byte is 0: no start code and no emulation in the number.
            let digits = [n % 255, n / 255 % 255, n / 65_025].map(|digit| digit as u8 + 1);
            unit.extend([0, 0, 1, header]);
            unit.extend(digits);
        }
        unit.extend([0, 0, 1, 0x65, 1]);
        unit
    }

    #[test]
    fn more_sets_than_a_record_has_room_for_are_refused_in_linear_time() {
        let of = |count| SampleEntry::of(Codec::H264, &led_by(count, 8));
        assert_eq!(of(286), Err(EntryError::Missing), "no sequence parameter set");
        assert_eq!(of(287), Err(EntryError::TooMany));
        // 16 MiB of them: each with all before would be 10^12 comparisons.
        let flood = led_by((16 << 20) / 7, 13);
        assert_eq!(SampleEntry::of(Codec::H264, &flood), Err(EntryError::TooMany));
        assert_eq!(sets_of(Codec::H264, &flood).count(), (16 << 20) / 7, "each is looked at once");
    }

    #[test]
    fn damaged_parameter_sets_are_refused_or_read_but_never_more() {
        let mut seed = 22u64;
        let mut next = move |below: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for clip in ["pedestrians.mp4", "hevc.mp4"] {
            let units = units(clip, UtcNanos(1 << 60), 1, |_| 0);
            let whole = &units[0].data[..200];
            for _ in 0..20_000 {
                let mut bytes = whole.to_vec();
                for _ in 0..=next(6) {
                    let at = next(bytes.len());
                    bytes[at] = [0, 1, 0xff, next(256) as u8][next(4)];
                }
                bytes.truncate(next(bytes.len() + 1));
                for codec in [Codec::H264, Codec::H265] {
                    if let Ok(entry) = SampleEntry::of(codec, &bytes) {
                        entry.fits(codec, &bytes);
                    }
                }
            }
        }
    }
}
