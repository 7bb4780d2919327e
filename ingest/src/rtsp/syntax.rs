//! The few fields of H.264 and H.265 that say where a picture begins and in which order pictures
//! are shown. Pure; any bytes may come in.

use crate::annexb::nals;
use crate::bits::Bits;
use crate::unit::Codec;

/// What an access unit of Annex B says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureKind {
    /// All of it is intra coded and nothing before it is needed: IDR, or an IRAP of H.265.
    pub random_access: bool,
    /// Its first slice is the first of the picture: nothing is missing before it.
    pub whole: bool,
    /// Bidirectional: it may be shown before one that was sent earlier. H.264 only; in H.265 the
    /// sequence parameter set says it, see [`reorders`].
    pub bidirectional: bool,
}

impl PictureKind {
    /// Of the first slice in the unit; `None` when there is no slice.
    pub fn of(codec: Codec, unit: &[u8]) -> Option<PictureKind> {
        nals(unit).find_map(|nal| {
            let kind = *nal.first()?;
            match codec {
                Codec::H264 => {
                    let kind = kind & 0x1f;
                    // Slices, and slices of data partition A.
                    if !matches!(kind, 1 | 2 | 5) {
                        return None;
                    }
                    let mut bits = Bits::new(nal.get(1..)?);
                    // 7.3.3: first_mb_in_slice, slice_type.
                    let whole = bits.unsigned() == Some(0);
                    let bidirectional = bits.unsigned().is_some_and(|slice| slice % 5 == 1);
                    Some(PictureKind { random_access: kind == 5, whole, bidirectional })
                }
                Codec::H265 => {
                    let kind = kind >> 1 & 0x3f;
                    if kind > 31 {
                        return None;
                    }
                    // 7.3.6.1: first_slice_segment_in_pic_flag.
                    let whole = nal.get(2).is_some_and(|byte| byte & 0x80 != 0);
                    let random_access = (16..=23).contains(&kind);
                    Some(PictureKind { random_access, whole, bidirectional: false })
                }
            }
        })
    }
}

/// Whether pictures of an H.265 stream may be shown in another order than they are sent, by its
/// sequence parameter set (NAL unit without start code). `None` when it can't be read.
pub fn reorders(sps: &[u8]) -> Option<bool> {
    // 7.3.2.2.1
    let mut bits = Bits::new(sps.get(2..)?);
    bits.skip(4)?;
    let sub_layers = bits.take(3)?;
    bits.skip(1)?;
    bits.skip_profile_tier_level(sub_layers)?;
    bits.unsigned()?;
    if bits.unsigned()? == 3 {
        bits.skip(1)?;
    }
    // Width, height.
    bits.unsigned()?;
    bits.unsigned()?;
    if bits.take(1)? == 1 {
        for _ in 0..4 {
            bits.unsigned()?;
        }
    }
    // Bit depths, log2_max_pic_order_cnt_lsb_minus4.
    for _ in 0..3 {
        bits.unsigned()?;
    }
    let all = bits.take(1)? == 1;
    let mut reordered = 0;
    for _ in 0..if all { sub_layers + 1 } else { 1 } {
        bits.unsigned()?;
        reordered = bits.unsigned()?;
        bits.unsigned()?;
    }
    Some(reordered > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::ClipReader;
    use std::path::Path;

    fn units(name: &str) -> (Codec, Vec<(bool, i64, Vec<u8>)>) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/assets").join(name);
        let mut reader = ClipReader::open(&path).unwrap();
        let mut units = Vec::new();
        while let Some(unit) = reader.next().unwrap() {
            units.push((unit.key, unit.shown, unit.data));
        }
        (reader.info().codec, units)
    }

    #[test]
    fn kinds_of_pictures_are_what_the_container_says() {
        for name in ["bframes.mp4", "hevc.mp4", "two_sizes.h264"] {
            let (codec, units) = units(name);
            let mut shown_max = i64::MIN;
            for (key, shown, data) in units {
                let kind = PictureKind::of(codec, &data).unwrap();
                assert!(kind.whole, "{name}");
                assert_eq!(kind.random_access, key, "{name}");
                if shown < shown_max && codec == Codec::H264 {
                    assert!(kind.bidirectional, "{name}");
                }
                shown_max = shown_max.max(shown);
            }
        }
        assert_eq!(PictureKind::of(Codec::H264, &[0, 0, 1, 0x67, 1]), None);
        assert_eq!(PictureKind::of(Codec::H265, &[]), None);
    }

    #[test]
    fn the_sequence_parameter_set_says_whether_pictures_are_reordered() {
        let (_, units) = units("hevc.mp4");
        let sps = nals(&units[0].2).find(|nal| nal[0] >> 1 & 0x3f == 33).unwrap().to_vec();
        assert_eq!(reorders(&sps), Some(true));
        for cut in 0..sps.len().min(40) {
            let _ = reorders(&sps[..cut]);
        }
        // Any bytes: only no panic.
        let mut seed = 7u32;
        for length in 0..200 {
            let noise: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8 & (seed >> 16) as u8
                })
                .collect();
            let _ = reorders(&noise);
            for codec in [Codec::H264, Codec::H265] {
                let _ = PictureKind::of(codec, &[&[0, 0, 1], &noise[..]].concat());
            }
        }
    }
}
