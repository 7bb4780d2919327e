//! Pictures of a container as Annex B access units (ITU-T H.264 and H.265, annex B), each key
//! unit led by its parameter sets. Pure.
//!
//! MP4 and Matroska store NAL units behind length fields and parameter sets apart, in the `avcC`
//! or `hvcC` record (ISO/IEC 14496-15, 5.3.3.1 and 8.3.3.1); MPEG-TS and elementary streams are
//! Annex B already.

use crate::unit::Codec;

const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// What is wrong with a record or a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnnexBError {
    /// The record with the parameter sets ends early.
    #[error("its avcC or hvcC record is cut short")]
    Record,
    /// A length field reaches beyond the picture.
    #[error("a NAL unit of {length} bytes reaches beyond its picture of {picture} bytes")]
    Length {
        /// Announced.
        length: usize,
        /// Available.
        picture: usize,
    },
}

/// Converts the pictures of one stream.
#[derive(Debug)]
pub struct AnnexB {
    codec: Codec,
    /// Bytes of a length field; `None` = Annex B already.
    length_bytes: Option<usize>,
    /// Parameter sets of the record, with start codes.
    stored: Vec<u8>,
    /// Those of the last key unit.
    current: Vec<u8>,
}

impl AnnexB {
    /// From the container's record, or from Annex B parameter sets, or from nothing when they come
    /// in the stream.
    ///
    /// # Errors
    /// [`AnnexBError::Record`].
    pub fn new(codec: Codec, record: &[u8]) -> Result<AnnexB, AnnexBError> {
        let mut new = AnnexB { codec, length_bytes: None, stored: vec![], current: vec![] };
        let annex_b = record.starts_with(&[0, 0, 1]) || record.starts_with(&START_CODE);
        if record.is_empty() || annex_b {
            new.stored = record.to_vec();
            return Ok(new);
        }
        let mut rest = Bytes(record);
        match codec {
            Codec::H264 => {
                rest.take(4)?;
                new.length_bytes = Some(usize::from(rest.byte()? & 3) + 1);
                // Sequence parameter sets, then picture parameter sets.
                for mask in [0x1f, 0xff] {
                    for _ in 0..rest.byte()? & mask {
                        new.store(&mut rest)?;
                    }
                }
            }
            Codec::H265 => {
                rest.take(21)?;
                new.length_bytes = Some(usize::from(rest.byte()? & 3) + 1);
                for _ in 0..rest.byte()? {
                    rest.byte()?;
                    for _ in 0..rest.u16()? {
                        new.store(&mut rest)?;
                    }
                }
            }
        }
        Ok(new)
    }

    fn store(&mut self, rest: &mut Bytes<'_>) -> Result<(), AnnexBError> {
        let length = rest.u16()?;
        let set = rest.take(length)?;
        self.stored.extend(START_CODE);
        self.stored.extend(set);
        Ok(())
    }

    /// Writes `picture` to `out` as an access unit. Returns whether it is a key unit whose
    /// parameter sets differ from those before.
    ///
    /// # Errors
    /// [`AnnexBError::Length`]: the picture is damaged, `out` is of no use.
    pub fn convert(
        &mut self,
        picture: &[u8],
        key: bool,
        out: &mut Vec<u8>,
    ) -> Result<bool, AnnexBError> {
        out.clear();
        out.reserve(picture.len() + 16 + if key { self.stored.len() } else { 0 });
        match self.length_bytes {
            None => out.extend(picture),
            Some(length_bytes) => {
                let mut rest = picture;
                while let Some((prefix, behind)) = rest.split_at_checked(length_bytes) {
                    let length = prefix.iter().fold(0, |n, &b| n << 8 | usize::from(b));
                    let nal = behind
                        .get(..length)
                        .ok_or(AnnexBError::Length { length, picture: picture.len() })?;
                    if !nal.is_empty() {
                        out.extend(START_CODE);
                        out.extend(nal);
                    }
                    rest = &behind[length..];
                }
                if !rest.is_empty() {
                    let (length, picture) = (length_bytes, rest.len());
                    return Err(AnnexBError::Length { length, picture });
                }
            }
        }
        if !key {
            return Ok(false);
        }
        let mut sets = Vec::new();
        let mut has_sequence = false;
        for nal in nals(out) {
            match self.kind(nal) {
                Kind::Sequence => has_sequence = true,
                Kind::OtherSet => {}
                Kind::Picture => break,
                Kind::Other => continue,
            }
            sets.extend(START_CODE);
            sets.extend(nal);
        }
        if !has_sequence {
            out.splice(0..0, self.stored.iter().copied());
            let in_band = std::mem::replace(&mut sets, self.stored.clone());
            sets.extend(in_band);
        }
        let new = sets != self.current;
        self.current = sets;
        Ok(new)
    }

    fn kind(&self, nal: &[u8]) -> Kind {
        let Some(&first) = nal.first() else { return Kind::Other };
        match self.codec {
            Codec::H264 => match first & 0x1f {
                1..=5 => Kind::Picture,
                7 => Kind::Sequence,
                8 | 13 | 15 => Kind::OtherSet,
                _ => Kind::Other,
            },
            Codec::H265 => match first >> 1 & 0x3f {
                0..=31 => Kind::Picture,
                33 => Kind::Sequence,
                32 | 34 => Kind::OtherSet,
                _ => Kind::Other,
            },
        }
    }
}

enum Kind {
    Picture,
    Sequence,
    OtherSet,
    Other,
}

/// The NAL units of an Annex B byte stream, without start codes.
pub fn nals(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Positions just behind each start code, and the end.
    let mut starts =
        stream.windows(3).enumerate().filter(|(_, code)| *code == [0, 0, 1]).map(|(at, _)| at + 3);
    let mut next = starts.next();
    std::iter::from_fn(move || {
        let start = next?;
        next = starts.next();
        let end = next.map_or(stream.len(), |next| next - 3);
        let nal = &stream[start..end];
        // A fourth byte of the next start code, and trailing zeros.
        let zeros = nal.iter().rev().take_while(|&&b| b == 0).count();
        Some(&nal[..nal.len() - zeros])
    })
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], AnnexBError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(AnnexBError::Record)?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, AnnexBError> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<usize, AnnexBError> {
        let bytes = self.take(2)?;
        Ok(usize::from(bytes[0]) << 8 | usize::from(bytes[1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVCC: [u8; 16] = [1, 77, 0, 31, 0xff, 0xe1, 0, 3, 0x67, 1, 2, 1, 0, 2, 0x68, 9];
    const SETS: [u8; 13] = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 9];

    #[test]
    fn length_fields_become_start_codes_and_key_units_get_parameter_sets() {
        let mut stream = AnnexB::new(Codec::H264, &AVCC).unwrap();
        let mut out = Vec::new();
        let key = [0, 0, 0, 2, 0x06, 5, 0, 0, 0, 3, 0x65, 7, 8];
        assert_eq!(stream.convert(&key, true, &mut out), Ok(true));
        let body = [0, 0, 0, 1, 0x06, 5, 0, 0, 0, 1, 0x65, 7, 8];
        assert_eq!(out, [&SETS[..], &body].concat());
        assert_eq!(stream.convert(&key, true, &mut out), Ok(false), "the same sets again");
        assert_eq!(stream.convert(&[0, 0, 0, 2, 0x41, 3], false, &mut out), Ok(false));
        assert_eq!(out, [0, 0, 0, 1, 0x41, 3]);
    }

    #[test]
    fn parameter_sets_in_the_stream_win_and_a_change_is_told() {
        let mut stream = AnnexB::new(Codec::H264, &AVCC).unwrap();
        let mut out = Vec::new();
        let with = |sps| [0, 0, 0, 3, 0x67, sps, 4, 0, 0, 0, 2, 0x68, 9, 0, 0, 0, 2, 0x65, 7];
        assert_eq!(stream.convert(&with(1), true, &mut out), Ok(true));
        assert_eq!(out[4..7], [0x67, 1, 4]);
        assert_eq!(stream.convert(&with(1), true, &mut out), Ok(false));
        assert_eq!(stream.convert(&with(2), true, &mut out), Ok(true));
    }

    #[test]
    fn annex_b_passes_through() {
        let mut stream = AnnexB::new(Codec::H264, &[]).unwrap();
        let mut out = Vec::new();
        let unit = [0, 0, 1, 0x67, 3, 0, 0, 0, 1, 0x68, 4, 0, 0, 1, 0x65, 5];
        assert_eq!(stream.convert(&unit, true, &mut out), Ok(true));
        assert_eq!(out, unit);
        // Sets that came apart are put before a key unit that has none.
        let mut stream = AnnexB::new(Codec::H264, &SETS).unwrap();
        assert_eq!(stream.convert(&[0, 0, 1, 0x65, 5], true, &mut out), Ok(true));
        assert_eq!(out, [&SETS[..], &[0, 0, 1, 0x65, 5]].concat());
    }

    #[test]
    fn hvcc_records_are_read() {
        let mut record = vec![1; 21];
        record.extend([0xff, 2, 0xa0, 0, 1, 0, 2, 0x40, 1, 0xa1, 0, 1, 0, 2, 0x42, 1]);
        let mut stream = AnnexB::new(Codec::H265, &record).unwrap();
        let mut out = Vec::new();
        assert_eq!(stream.convert(&[0, 0, 0, 2, 0x26, 1], true, &mut out), Ok(true));
        let expected = [0, 0, 0, 1, 0x40, 1, 0, 0, 0, 1, 0x42, 1, 0, 0, 0, 1, 0x26, 1];
        assert_eq!(out, expected);
    }

    #[test]
    fn damaged_records_and_pictures_are_refused_at_every_cut() {
        for cut in 1..AVCC.len() {
            assert!(AnnexB::new(Codec::H264, &AVCC[..cut]).is_err(), "cut at {cut}");
        }
        let mut stream = AnnexB::new(Codec::H264, &AVCC).unwrap();
        let picture = [0, 0, 0, 2, 0x41, 3, 0, 0, 0, 1, 0x41];
        let mut out = Vec::new();
        for cut in 1..picture.len() {
            let whole = cut == 6;
            assert_eq!(stream.convert(&picture[..cut], false, &mut out).is_ok(), whole, "{cut}");
        }
        assert!(stream.convert(&[0xff; 9], false, &mut out).is_err());
    }
}
