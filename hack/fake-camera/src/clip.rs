//! Elementary streams taken apart into access units.

use std::path::Path;
use std::sync::Arc;

/// Codec of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    H265,
}

/// One picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its NAL units, without start codes.
    pub nals: Vec<Vec<u8>>,
    /// Its place in the order of presentation, in pictures.
    pub shown: i64,
    /// Decoding can begin here.
    pub key: bool,
}

/// Pictures in order of decoding. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    /// Codec.
    pub codec: Codec,
    /// Its pictures.
    pub units: Arc<Vec<Unit>>,
}

impl Clip {
    /// Reads an elementary stream (Annex B): `.h264` or `.264`, else H.265.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn read(path: &Path) -> std::io::Result<Clip> {
        let h264 = path.extension().is_some_and(|e| e == "h264" || e == "264");
        let codec = if h264 { Codec::H264 } else { Codec::H265 };
        Ok(Clip::parse(codec, &std::fs::read(path)?))
    }

    /// Takes an elementary stream apart. Pictures are shown in the order in which they are decoded,
    /// unless [`Clip::shown`] says otherwise.
    pub fn parse(codec: Codec, stream: &[u8]) -> Clip {
        let mut units: Vec<Unit> = Vec::new();
        let mut leading: Vec<Vec<u8>> = Vec::new();
        for nal in nals(stream) {
            match kind(codec, nal) {
                // A slice that is not the first of its picture.
                Kind::Slice { first: false, .. } => {
                    if let Some(unit) = units.last_mut() {
                        unit.nals.append(&mut leading);
                        unit.nals.push(nal.to_vec());
                    }
                }
                Kind::Slice { key, .. } => {
                    leading.push(nal.to_vec());
                    let shown = units.len() as i64;
                    units.push(Unit { nals: std::mem::take(&mut leading), shown, key });
                }
                Kind::Other => leading.push(nal.to_vec()),
            }
        }
        Clip { codec, units: Arc::new(units) }
    }

    /// The same with the places of its pictures in the order of presentation.
    #[must_use]
    pub fn shown(mut self, places: &[i64]) -> Clip {
        let units = Arc::make_mut(&mut self.units);
        assert_eq!(units.len(), places.len(), "one place per picture");
        units.iter_mut().zip(places).for_each(|(unit, &shown)| unit.shown = shown);
        self
    }

    /// Only the pictures from `begin` to before `end`; the places count from the first.
    #[must_use]
    pub fn part(&self, begin: usize, end: usize) -> Clip {
        let mut units = self.units[begin..end].to_vec();
        let first = units.iter().map(|unit| unit.shown).min().unwrap_or(0);
        units.iter_mut().for_each(|unit| unit.shown -= first);
        Clip { codec: self.codec, units: Arc::new(units) }
    }

    /// The first parameter sets, by their NAL unit types.
    pub(crate) fn parameter_sets(&self) -> Vec<&[u8]> {
        let wanted: &[u8] = match self.codec {
            Codec::H264 => &[7, 8],
            Codec::H265 => &[32, 33, 34],
        };
        let all = || self.units.iter().flat_map(|unit| &unit.nals);
        let of = |kind: u8| all().find(|nal| nal_type(self.codec, nal) == kind);
        wanted.iter().filter_map(|&kind| of(kind)).map(Vec::as_slice).collect()
    }
}

enum Kind {
    Slice { first: bool, key: bool },
    Other,
}

fn nal_type(codec: Codec, nal: &[u8]) -> u8 {
    let first = nal.first().copied().unwrap_or(0);
    match codec {
        Codec::H264 => first & 0x1f,
        Codec::H265 => first >> 1 & 0x3f,
    }
}

fn kind(codec: Codec, nal: &[u8]) -> Kind {
    let number = nal_type(codec, nal);
    let bit = |at: usize| nal.get(at).is_some_and(|byte| byte & 0x80 != 0);
    match codec {
        // first_mb_in_slice = 0 is a single bit that is set.
        Codec::H264 if matches!(number, 1 | 5) => Kind::Slice { first: bit(1), key: number == 5 },
        Codec::H265 if number < 32 => {
            Kind::Slice { first: bit(2), key: (16..=23).contains(&number) }
        }
        _ => Kind::Other,
    }
}

fn nals(stream: &[u8]) -> Vec<&[u8]> {
    let codes = stream.windows(3).enumerate().filter(|(_, code)| *code == [0, 0, 1]);
    let starts: Vec<usize> = codes.map(|(at, _)| at + 3).collect();
    let ends = starts.iter().skip(1).map(|start| start - 3).chain([stream.len()]);
    let nal = |(&start, end): (&usize, usize)| {
        let nal = &stream[start..end];
        let zeros = nal.iter().rev().take_while(|&&byte| byte == 0).count();
        &nal[..nal.len() - zeros]
    };
    starts.iter().zip(ends).map(nal).collect()
}
