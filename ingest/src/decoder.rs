//! libavcodec: access units in, pictures out, one thread, no delay of its own.

use crate::nv12::{self, Plane};
use crate::unit::{Codec, UnitFlags};
use crate::worker_message::Hints;
use base::{ColourMatrix, ColourRange, FrameFlags, Picture, Size};
use ff::format::Pixel;
use ffmpeg_next as ff;
use std::collections::VecDeque;
use std::sync::Once;

/// Pictures that may be inside the decoder (16 is the most that both standards allow).
const PENDING_MAX: usize = 32;

/// Before the first use of the libraries: they print nothing (what matters is counted and told by
/// us), and their errors have words.
pub fn initialise() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Can't fail with the FFmpeg versions in use; without it errors are empty texts.
        let _ = ff::init();
        ff::log::set_level(ff::log::Level::Quiet);
    });
}

/// Why a picture can't be exported. It will not get better by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecoderError {
    /// The library was built without the codec.
    #[error("libavcodec can't decode {0:?}: {1}; install a libavcodec with that decoder")]
    Codec(Codec, String),
    /// Samples that are not 4:2:0 of 8 or 10 bits.
    #[error("pictures are {0}; set the camera to 4:2:0 with 8 bits")]
    Format(String),
    /// A size that NV12 can't hold.
    #[error(
        "pictures are {}x{}; width and height must be even and at most {}",
        .0.width, .0.height, base::limits::FRAME_SIDE_MAX
    )]
    Size(Size),
    /// The library got no memory.
    #[error(
        "decoding takes more memory than this process has; set the camera to smaller pictures or \
         fewer pictures of reference"
    )]
    Memory,
}

/// A picture as it comes out, with what went in.
pub struct Decoded<'a, T> {
    frame: &'a ff::frame::Video,
    layout: Layout,
    /// Size and colour.
    pub picture: Picture,
    /// Key, corrupt, discontinuity.
    pub flags: FrameFlags,
    /// Decoded only to get to the next one.
    pub preroll: bool,
    /// What was given with its access unit.
    pub tag: T,
}

#[derive(Clone, Copy)]
enum Layout {
    Planar,
    Planar10,
    Nv12,
    Grey,
}

struct Pending {
    number: i64,
    flags: UnitFlags,
    corrupt: bool,
}

/// What goes with the time of a picture, not with its bytes.
struct Timed<T> {
    preroll: bool,
    tag: T,
}

/// A decoder of one stream. `T` goes in with each access unit and comes out with its picture.
pub struct Decoder<T> {
    video: ff::decoder::Video,
    frame: ff::frame::Video,
    codec: Codec,
    hints: Hints,
    number: i64,
    pending: VecDeque<Pending>,
    /// As many as `pending`, in the same order.
    timed: VecDeque<Timed<T>>,
    /// Something was lost or broken since the last key frame.
    corrupt: bool,
    errors: u64,
    /// The library got no memory for the last access unit.
    starved: bool,
}

impl<T> Decoder<T> {
    /// A decoder that waits for a key frame.
    ///
    /// # Errors
    /// [`DecoderError::Codec`].
    pub fn new(codec: Codec, hints: Hints) -> Result<Decoder<T>, DecoderError> {
        initialise();
        let error = |e: String| DecoderError::Codec(codec, e);
        let id = match codec {
            Codec::H264 => ff::codec::Id::H264,
            Codec::H265 => ff::codec::Id::HEVC,
        };
        let found = ff::decoder::find(id).ok_or_else(|| error("no such decoder".into()))?;
        let mut context = ff::codec::context::Context::new_with_codec(found);
        context.set_flags(ff::codec::flag::Flags::LOW_DELAY);
        context.set_threading(ff::threading::Config {
            kind: ff::threading::Type::Slice,
            count: 1,
            ..Default::default()
        });
        // SAFETY: the context was allocated just now and is not open; nobody else has the pointer.
        let raw = unsafe { context.as_mut_ptr() };
        // SAFETY: as above; a plain field that avcodec_open2 and the decoder read.
        unsafe { (*raw).has_b_frames = i32::from(hints.reorder.min(16)) };
        let video = context
            .decoder()
            .open_as(found)
            .and_then(|opened| opened.video())
            .map_err(|e| error(e.to_string()))?;
        Ok(Decoder {
            video,
            frame: ff::frame::Video::empty(),
            codec,
            hints,
            number: 0,
            pending: VecDeque::new(),
            timed: VecDeque::new(),
            corrupt: true,
            errors: 0,
            starved: false,
        })
    }

    /// The codec it decodes.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The hints it was made with.
    pub fn hints(&self) -> Hints {
        self.hints
    }

    /// Errors since it was made.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Decodes one access unit. Take all pictures with [`Decoder::next`] before the next one.
    pub fn submit(&mut self, packet: &mut ff::Packet, flags: UnitFlags, tag: T) {
        if flags.has(UnitFlags::KEY) {
            self.corrupt = false;
            packet.set_flags(ff::packet::Flags::KEY);
        }
        self.corrupt |= flags.has(UnitFlags::LOSS);
        // The decoder sorts by the stream's own order; the number only finds the tag again.
        self.number += 1;
        packet.set_pts(Some(self.number));
        packet.set_dts(Some(self.number));
        if self.pending.len() == PENDING_MAX {
            self.pending.pop_front();
            self.timed.pop_front();
        }
        self.pending.push_back(Pending { number: self.number, flags, corrupt: self.corrupt });
        self.timed.push_back(Timed { preroll: flags.has(UnitFlags::PREROLL), tag });
        if let Err(error) = self.video.send_packet(packet) {
            self.failed(error);
        }
    }

    /// No access unit will follow: the pictures held back come out.
    pub fn finish(&mut self) {
        // Fails only when it was told before.
        let _ = self.video.send_eof();
    }

    fn failed(&mut self, error: ff::Error) {
        self.starved |= matches!(error, ff::Error::Other { errno: ff::error::ENOMEM });
        self.broken();
    }

    fn broken(&mut self) {
        self.errors += 1;
        self.corrupt = true;
    }

    /// Takes out the unit at `at`, whose picture has come, with the time of the picture.
    fn take(&mut self, mut at: usize) -> Option<(Pending, Timed<T>)> {
        let flags = self.pending.get(at)?.flags;
        if !flags.has(UnitFlags::DECODING_TIME) {
            return self.pending.remove(at).zip(self.timed.remove(at));
        }
        // All pictures before a key picture have come out: what is left of them never will, and
        // its times must not shift those that follow.
        if flags.has(UnitFlags::KEY) {
            self.pending.drain(..at);
            self.timed.drain(..at);
            at = 0;
        }
        // Decoding times rise: the first is the smallest.
        self.pending.remove(at).zip(self.timed.pop_front())
    }

    /// The next picture, in presentation order.
    ///
    /// # Errors
    /// [`DecoderError`] when it has a size or samples that can't be exported, or there was no memory
    /// for it.
    #[allow(clippy::should_implement_trait)] // It lends.
    pub fn next(&mut self) -> Result<Option<Decoded<'_, T>>, DecoderError> {
        if std::mem::take(&mut self.starved) {
            return Err(DecoderError::Memory);
        }
        let (pending, timed) = loop {
            match self.video.receive_frame(&mut self.frame) {
                Ok(()) => {}
                Err(ff::Error::Eof | ff::Error::Other { errno: ff::error::EAGAIN }) => {
                    return Ok(None);
                }
                Err(error) => {
                    self.failed(error);
                    return match std::mem::take(&mut self.starved) {
                        true => Err(DecoderError::Memory),
                        false => Ok(None),
                    };
                }
            }
            let number = self.frame.pts();
            let at = self.pending.iter().position(|p| Some(p.number) == number);
            // Without its unit a picture has no time: it can't be shown.
            if let Some(taken) = at.and_then(|at| self.take(at)) {
                break taken;
            }
        };
        if self.frame.is_corrupt() || self.frame.has_decode_errors() {
            self.broken();
        }
        let key = pending.flags.has(UnitFlags::KEY);
        let flag = |on, flag| if on { flag } else { FrameFlags::default() };
        let (layout, picture) = describe(&self.frame, self.hints)?;
        Ok(Some(Decoded {
            layout,
            picture,
            flags: flag(key, FrameFlags::KEY)
                .with(flag(pending.corrupt || self.corrupt, FrameFlags::CORRUPT))
                .with(flag(pending.flags.has(UnitFlags::DISCONTINUITY), FrameFlags::DISCONTINUITY)),
            preroll: timed.preroll,
            tag: timed.tag,
            frame: &self.frame,
        }))
    }
}

impl<T> Decoded<'_, T> {
    /// Writes the picture: `luma` takes `w * h` bytes, `chroma` half as many, CbCr interleaved.
    pub fn write_nv12(&self, luma: &mut [u8], chroma: &mut [u8]) {
        let Size { width, height } = self.picture.size;
        let (width, height) = (width as usize, height as usize);
        assert!(luma.len() == width * height && chroma.len() == width * height / 2);
        let plane = |n: usize| Plane { data: self.frame.data(n), stride: self.frame.stride(n) };
        let y = plane(0);
        match self.layout {
            Layout::Planar => {
                nv12::copy_plane(y.data, y.stride, width, luma);
                nv12::interleave(plane(1), plane(2), width / 2, chroma);
            }
            Layout::Planar10 => {
                nv12::copy_plane_10(y, width, luma);
                nv12::interleave_10(plane(1), plane(2), width / 2, chroma);
            }
            Layout::Nv12 => {
                nv12::copy_plane(y.data, y.stride, width, luma);
                nv12::copy_plane(plane(1).data, plane(1).stride, width, chroma);
            }
            Layout::Grey => {
                nv12::copy_plane(y.data, y.stride, width, luma);
                chroma.fill(128);
            }
        }
    }
}

fn describe(frame: &ff::frame::Video, hints: Hints) -> Result<(Layout, Picture), DecoderError> {
    let format = frame.format();
    let layout = match format {
        Pixel::YUV420P | Pixel::YUVJ420P => Layout::Planar,
        Pixel::YUV420P10LE => Layout::Planar10,
        Pixel::NV12 => Layout::Nv12,
        Pixel::GRAY8 => Layout::Grey,
        other => {
            let name = other.descriptor().map_or("of an unknown format", |d| d.name());
            return Err(DecoderError::Format(name.to_owned()));
        }
    };
    let size = Size { width: frame.width(), height: frame.height() };
    if !size.valid_nv12() {
        return Err(DecoderError::Size(size));
    }
    let range = match range(frame.color_range()) {
        _ if format == Pixel::YUVJ420P => ColourRange::Full,
        ColourRange::Unspecified => hints.range(),
        range => range,
    };
    let matrix = match matrix(frame.color_space()) {
        ColourMatrix::Unspecified => hints.matrix(),
        matrix => matrix,
    };
    Ok((layout, Picture { size, matrix, range }))
}

/// Our name for libav's matrix.
pub fn matrix(space: ff::color::Space) -> ColourMatrix {
    use ff::color::Space;
    match space {
        Space::BT470BG | Space::SMPTE170M | Space::FCC => ColourMatrix::Bt601,
        Space::BT709 => ColourMatrix::Bt709,
        Space::BT2020NCL | Space::BT2020CL => ColourMatrix::Bt2020,
        _ => ColourMatrix::Unspecified,
    }
}

/// Our name for libav's range.
pub fn range(range: ff::color::Range) -> ColourRange {
    match range {
        ff::color::Range::MPEG => ColourRange::Limited,
        ff::color::Range::JPEG => ColourRange::Full,
        ff::color::Range::Unspecified => ColourRange::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{ClipReader, ClipUnit};
    use std::path::Path;

    /// The first 45 units of the demo clip: key frames at 0, 20 and 40, no B-frames.
    fn units() -> (Vec<ClipUnit>, Hints) {
        let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/pedestrians.mp4");
        let mut reader = ClipReader::open(&clip).unwrap();
        let units = (0..45).map(|_| reader.next().unwrap().unwrap()).collect();
        (units, reader.info().hints)
    }

    /// Decodes; `damage` may change a unit and add flags. Returns (tag, flags) per picture.
    fn decode(
        damage: impl Fn(usize, &mut Vec<u8>) -> UnitFlags,
    ) -> (Vec<(usize, FrameFlags)>, u64) {
        let (units, hints) = units();
        let mut decoder = Decoder::new(Codec::H264, hints).unwrap();
        let mut out = Vec::new();
        for (n, mut unit) in units.into_iter().enumerate() {
            let flags = damage(n, &mut unit.data).with(UnitFlags::when(unit.key, UnitFlags::KEY));
            if unit.data.is_empty() {
                continue;
            }
            decoder.submit(&mut ff::Packet::copy(&unit.data), flags, n);
            while let Some(decoded) = decoder.next().unwrap() {
                out.push((decoded.tag, decoded.flags));
            }
        }
        (out, decoder.errors())
    }

    fn numbers(out: &[(usize, FrameFlags)], flag: FrameFlags) -> Vec<usize> {
        out.iter().filter(|(_, flags)| flags.has(flag)).map(|(n, _)| *n).collect()
    }

    #[test]
    fn each_unit_comes_out_at_once_with_its_tag_and_key_flag() {
        let (units, hints) = units();
        let mut decoder = Decoder::new(Codec::H264, hints).unwrap();
        for (n, unit) in units.iter().enumerate() {
            let flags = UnitFlags::when(unit.key, UnitFlags::KEY)
                .with(UnitFlags::when(n == 7, UnitFlags::DISCONTINUITY))
                .with(UnitFlags::when(n < 3, UnitFlags::PREROLL));
            decoder.submit(&mut ff::Packet::copy(&unit.data), flags, n);
            let decoded = decoder.next().unwrap().expect("no delay without B-frames");
            assert_eq!((decoded.tag, decoded.preroll), (n, n < 3));
            assert_eq!(decoded.flags.has(FrameFlags::KEY), n % 20 == 0);
            assert_eq!(decoded.flags.has(FrameFlags::DISCONTINUITY), n == 7);
            assert!(!decoded.flags.has(FrameFlags::CORRUPT));
            assert!(decoder.next().unwrap().is_none());
        }
    }

    /// The tags of all pictures of a clip: when their units are shown. `spoiled`: a unit that is cut
    /// off, so that no picture comes of it.
    fn times(name: &str, spoiled: Option<usize>) -> Vec<i64> {
        let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/assets").join(name);
        let mut reader = ClipReader::open(&clip).unwrap();
        let info = reader.info();
        let mut decoder = Decoder::new(info.codec, info.hints).unwrap();
        let (mut out, mut n) = (Vec::new(), 0);
        loop {
            match reader.next().unwrap() {
                Some(mut unit) => {
                    if spoiled == Some(n) {
                        unit.data.truncate(5);
                    }
                    n += 1;
                    let flags = UnitFlags::when(unit.key, UnitFlags::KEY)
                        .with(UnitFlags::when(unit.decoding_time, UnitFlags::DECODING_TIME));
                    decoder.submit(&mut ff::Packet::copy(&unit.data), flags, unit.shown);
                }
                None => {
                    decoder.finish();
                    n = usize::MAX;
                }
            }
            while let Some(decoded) = decoder.next().unwrap() {
                out.push(decoded.tag);
            }
            if n == usize::MAX {
                return out;
            }
        }
    }

    #[test]
    fn pictures_have_rising_times_also_where_the_container_has_only_decoding_times() {
        for name in ["bframes.mp4", "bframes.avi", "bframes.h264", "bframes.hevc"] {
            let times = times(name, None);
            assert_eq!(times.len(), 50, "{name}");
            let period = times[1] - times[0];
            let even = times.windows(2).all(|pair| pair[1] - pair[0] == period);
            assert!(period > 0 && even, "{name}: {times:?}");
        }
        // A picture that never comes shifts times up to the next key frame, no further.
        let (whole, spoiled) = (times("bframes.avi", None), times("bframes.avi", Some(7)));
        assert!(spoiled.len() < 50 && spoiled.is_sorted_by(|a, b| a < b), "{spoiled:?}");
        assert_eq!(spoiled[spoiled.len() - 25..], whole[25..]);
    }

    #[test]
    fn loss_marks_frames_corrupt_up_to_the_next_key_frame() {
        let (out, errors) = decode(|n, _| UnitFlags::when(n == 5, UnitFlags::LOSS));
        assert_eq!(numbers(&out, FrameFlags::CORRUPT), (5..20).collect::<Vec<_>>());
        assert_eq!((out.len(), errors), (45, 0));
    }

    #[test]
    fn damaged_bytes_mark_frames_corrupt_up_to_the_next_key_frame() {
        let (out, errors) = decode(|n, data| {
            if n == 25 {
                let length = data.len();
                data[length / 3..].iter_mut().for_each(|byte| *byte ^= 0x5a);
            }
            UnitFlags::default()
        });
        let corrupt = numbers(&out, FrameFlags::CORRUPT);
        assert!(errors > 0);
        assert_eq!(corrupt.last(), Some(&39));
        assert!(matches!(corrupt[0], 25 | 26), "{corrupt:?}");
        assert_eq!(corrupt.len(), 40 - corrupt[0]);
    }

    #[test]
    fn nonsense_is_counted_and_the_next_key_frame_is_clean() {
        let (out, errors) = decode(|n, data| {
            if (1..20).contains(&n) {
                data.iter_mut().enumerate().for_each(|(i, b)| *b = (i * n * 31) as u8);
            }
            UnitFlags::default()
        });
        assert!(errors > 0);
        let clean = |n: &usize| *n == 0 || *n >= 20;
        assert!(numbers(&out, FrameFlags::CORRUPT).iter().all(|n| !clean(n)));
        assert_eq!(out.iter().filter(|(n, _)| clean(n)).count(), 26);
    }

    #[test]
    fn before_the_first_key_frame_everything_is_corrupt_or_nothing_comes() {
        let (out, _) = decode(|n, data| {
            if n == 0 {
                data.clear();
            }
            UnitFlags::default()
        });
        assert!(out.iter().all(|(n, flags)| *n >= 20 || flags.has(FrameFlags::CORRUPT)));
        assert_eq!(numbers(&out, FrameFlags::KEY), [20, 40]);
    }
}
