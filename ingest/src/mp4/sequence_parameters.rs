//! What an MP4 wants to know of sequence parameter sets: size, chroma, bit depths (ITU-T H.264,
//! 7.3.2.1.1; H.265, 7.3.2.2).

use crate::bits::Bits;
use crate::unit::Codec;

/// From a sequence parameter set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceParameters {
    /// Pixels shown.
    pub width: u16,
    /// Pixels shown.
    pub height: u16,
    /// 0 grey, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma: u8,
    /// Bits of a luma sample.
    pub luma_bits: u8,
    /// Bits of a chroma sample.
    pub chroma_bits: u8,
    /// H.265: layers in time, 1 to 7.
    pub temporal_layers: u8,
    /// H.265: whether one may switch up between them anywhere.
    pub temporal_nesting: bool,
}

/// The payload of a NAL unit without the bytes that keep start codes out of it.
pub fn unescaped(nal: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

/// Reads a sequence parameter set, a NAL unit without start code; `None` when it is damaged.
pub fn read(codec: Codec, nal: &[u8]) -> Option<SequenceParameters> {
    match codec {
        Codec::H264 => h264(Bits::new(nal.get(1..)?)),
        Codec::H265 => h265(Bits::new(nal.get(2..)?)),
    }
}

fn h264(mut bits: Bits<'_>) -> Option<SequenceParameters> {
    let profile = bits.take(8)?;
    bits.take(16)?;
    bits.unsigned()?;
    let (mut chroma, mut luma_bits, mut chroma_bits, mut planes) = (1, 8, 8, false);
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        chroma = bits.unsigned()?;
        if chroma == 3 {
            planes = bits.flag()?;
        }
        luma_bits = bits.unsigned()?.saturating_add(8);
        chroma_bits = bits.unsigned()?.saturating_add(8);
        bits.bit()?;
        if bits.flag()? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.flag()? {
                    scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.unsigned()?;
    match bits.unsigned()? {
        0 => drop(bits.unsigned()?),
        1 => {
            bits.bit()?;
            bits.signed()?;
            bits.signed()?;
            for _ in 0..bits.unsigned()?.min(256) {
                bits.signed()?;
            }
        }
        _ => {}
    }
    bits.unsigned()?;
    bits.bit()?;
    let macroblocks = bits.unsigned()?.checked_add(1)?;
    let map_units = bits.unsigned()?.checked_add(1)?;
    let fields = 2 - bits.bit()?;
    if fields == 2 {
        bits.bit()?;
    }
    bits.bit()?;
    let mut crop = [0; 4];
    if bits.flag()? {
        for side in &mut crop {
            *side = bits.unsigned()?;
        }
    }
    let (unit_x, unit_y) = match chroma {
        0 => (1, fields),
        _ if planes => (1, fields),
        1 => (2, 2 * fields),
        2 => (2, fields),
        _ => (1, fields),
    };
    let side = |units: u32, unit: u32, crop: [u32; 2], scale: u32| {
        let whole = u64::from(units) * u64::from(unit);
        let cut = (u64::from(crop[0]) + u64::from(crop[1])) * u64::from(scale);
        u16::try_from(whole.checked_sub(cut)?).ok()
    };
    Some(SequenceParameters {
        width: side(macroblocks, 16, [crop[0], crop[1]], unit_x)?,
        height: side(map_units, 16 * fields, [crop[2], crop[3]], unit_y)?,
        chroma: small(chroma, 3)?,
        luma_bits: small(luma_bits, 15)?,
        chroma_bits: small(chroma_bits, 15)?,
        temporal_layers: 1,
        temporal_nesting: false,
    })
}

fn small(value: u32, most: u8) -> Option<u8> {
    u8::try_from(value).ok().filter(|v| *v <= most)
}

fn scaling_list(bits: &mut Bits<'_>, count: u32) -> Option<()> {
    let (mut last, mut next) = (8, 8);
    for _ in 0..count {
        if next != 0 {
            next = (last + bits.signed()? + 256).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

fn h265(mut bits: Bits<'_>) -> Option<SequenceParameters> {
    bits.take(4)?;
    let sub_layers = bits.take(3)?;
    let temporal_nesting = bits.flag()?;
    bits.skip_profile_tier_level(sub_layers)?;
    bits.unsigned()?;
    let chroma = bits.unsigned()?;
    if chroma == 3 {
        bits.bit()?;
    }
    let (width, height) = (bits.unsigned()?, bits.unsigned()?);
    let mut crop = [0; 4];
    if bits.flag()? {
        for side in &mut crop {
            *side = bits.unsigned()?;
        }
    }
    let (luma_bits, chroma_bits) =
        (bits.unsigned()?.saturating_add(8), bits.unsigned()?.saturating_add(8));
    let (unit_x, unit_y) = match chroma {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let side = |whole: u32, crop: [u32; 2], scale: u32| {
        let cut = (u64::from(crop[0]) + u64::from(crop[1])) * u64::from(scale);
        u16::try_from(u64::from(whole).checked_sub(cut)?).ok()
    };
    Some(SequenceParameters {
        width: side(width, [crop[0], crop[1]], unit_x)?,
        height: side(height, [crop[2], crop[3]], unit_y)?,
        chroma: small(chroma, 3)?,
        luma_bits: small(luma_bits, 15)?,
        chroma_bits: small(chroma_bits, 15)?,
        temporal_layers: small(sub_layers + 1, 7)?,
        temporal_nesting,
    })
}
