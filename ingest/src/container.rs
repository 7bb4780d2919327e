//! libavformat: the pictures of a clip's video stream, as Annex B access units.
//!
//! Knows neither time nor loops; [`crate::pacing`] does.

use crate::annexb::AnnexB;
use crate::clip::ClipError;
use crate::clip_file::{self, Places};
use crate::decoder;
use crate::pacing::TickLength;
use crate::unit::Codec;
use crate::worker_message::{Hints, PAYLOAD_MAX};
use base::Size;
use ff::format::context::Input;
use ffmpeg_next as ff;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Containers that may hold a clip. Playlists and the like are not among them: they would make a
/// file open other files and hosts.
const FORMATS: &str = "mov,matroska,mpegts,mpeg,avi,flv,h264,hevc";
/// Those with an index that leads back to any picture; the others are opened anew.
const INDEXED: [&str; 2] = ["mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"];
/// Pictures per second where the container does not say.
const FPS_DEFAULT: f64 = 25.0;
/// Unreadable packets in a row after which a clip is given up (chosen).
const UNREADABLE_MAX: u32 = 1000;

/// What a container says of its video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StreamInfo {
    /// Codec.
    pub codec: Codec,
    /// Pictures per second.
    pub fps: f64,
    /// For what the stream leaves open.
    pub hints: Hints,
    /// Unit of the positions.
    pub tick: TickLength,
    /// Length of the whole clip in ticks, where the container says it.
    pub duration: Option<i64>,
    /// Pixels, where the container says it.
    pub size: Option<Size>,
}

/// One picture of a clip. Positions are in ticks and count from the clip's first decoding time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipUnit {
    /// Decoding position: when it is sent.
    pub sent: i64,
    /// Presentation position.
    pub shown: i64,
    /// Where it ends, decoding.
    pub end: i64,
    /// Decoding can begin here.
    pub key: bool,
    /// Its parameter sets differ from those before.
    pub new_parameters: bool,
    /// Something before it could not be read.
    pub loss: bool,
    /// The container does not say when pictures are shown: `shown` is `sent`.
    pub decoding_time: bool,
    /// Annex B.
    pub data: Vec<u8>,
}

impl ClipUnit {
    /// Moves it by so many ticks.
    pub fn shift(&mut self, ticks: i64) {
        for position in [&mut self.sent, &mut self.shown, &mut self.end] {
            *position = position.saturating_add(ticks);
        }
    }
}

/// Reads a clip.
pub struct ClipReader {
    path: PathBuf,
    places: Places,
    input: Input,
    stream: usize,
    info: StreamInfo,
    annex_b: AnnexB,
    /// Decoding time of the first picture, in ticks.
    first: i64,
    /// Ticks from picture to picture, where the container does not say.
    period: i64,
    /// Where the next picture begins if it does not say.
    next_sent: i64,
    loss: bool,
    /// A picture without a presentation time was seen (AVI, elementary streams). Then none is
    /// believed: some containers have one for every other picture.
    decoding_time: bool,
}

impl ClipReader {
    /// Opens a clip, wherever it lies.
    ///
    /// # Errors
    /// [`ClipError`].
    pub fn open(path: &Path) -> Result<ClipReader, ClipError> {
        ClipReader::open_in(path, &Places::Anywhere)
    }

    /// Opens a clip when it lies in one of `places`.
    ///
    /// # Errors
    /// [`ClipError`].
    pub fn open_in(path: &Path, places: &Places) -> Result<ClipReader, ClipError> {
        let error = |detail: String| ClipError { path: path.to_owned(), detail };
        let input = open_input(path, places)?;
        let stream = input
            .streams()
            .best(ff::media::Type::Video)
            .ok_or_else(|| error("it has no video; use a clip with H.264 or H.265".into()))?;
        let parameters = stream.parameters();
        let codec = match parameters.id() {
            ff::codec::Id::H264 => Codec::H264,
            ff::codec::Id::HEVC => Codec::H265,
            other => {
                let name = other.name();
                return Err(error(format!("its video is {name}; convert it to H.264 or H.265")));
            }
        };
        let base = stream.time_base();
        if base.numerator() <= 0 || base.denominator() <= 0 {
            return Err(error("its video has no time base; remux it".into()));
        }
        let tick = TickLength { numerator: base.numerator(), denominator: base.denominator() };
        let fps = [stream.avg_frame_rate(), stream.rate()]
            .into_iter()
            .filter(|r| r.numerator() > 0 && r.denominator() > 0)
            .map(f64::from)
            .find(|fps| (0.01..=1000.0).contains(fps))
            .unwrap_or(FPS_DEFAULT);
        let duration = match (stream.duration(), input.duration()) {
            (ticks, _) if ticks > 0 => Some(ticks),
            (_, micros) if micros > 0 => {
                Some(tick.ticks_in(Duration::from_micros(micros.unsigned_abs())))
            }
            _ => None,
        };
        let (record, hints, size) = read_parameters(&parameters);
        let annex_b = AnnexB::new(codec, &record)
            .map_err(|e| error(format!("{e}; remux it or make it anew")))?;
        let mut reader = ClipReader {
            path: path.to_owned(),
            places: places.clone(),
            stream: stream.index(),
            info: StreamInfo { codec, fps, hints, tick, duration, size },
            annex_b,
            first: 0,
            period: tick.ticks_in(Duration::from_secs_f64(1.0 / fps)).max(1),
            next_sent: 0,
            loss: false,
            decoding_time: false,
            input,
        };
        let first = reader.next()?;
        let first = first.ok_or_else(|| error("it holds no picture; use another clip".into()))?;
        reader.first = first.sent;
        reader.rewind()?;
        Ok(reader)
    }

    /// What the container says.
    pub fn info(&self) -> StreamInfo {
        self.info
    }

    /// Goes back to the first picture.
    ///
    /// # Errors
    /// [`ClipError`] when the clip has become unreadable.
    pub fn rewind(&mut self) -> Result<(), ClipError> {
        if !self.seek(0) {
            self.input = open_input(&self.path, &self.places)?;
            self.loss = false;
            if self.input.stream(self.stream).is_none() {
                return Err(self.error("it changed while it was played"));
            }
        }
        self.next_sent = 0;
        Ok(())
    }

    /// Goes to the last key frame at or before `position`; false when the container has no index
    /// that leads there, and then the clip has to be wound back.
    pub fn seek(&mut self, position: i64) -> bool {
        if !INDEXED.contains(&self.input.format().name()) {
            return false;
        }
        let micros = self.info.tick.nanos(self.first.saturating_add(position)).div_euclid(1000);
        // The library takes the end of the range as the last allowed moment.
        if self.input.seek(micros, ..micros).is_err() {
            return false;
        }
        self.loss = false;
        self.next_sent = position;
        true
    }

    /// The next picture in decoding order; `None` at the end.
    ///
    /// # Errors
    /// [`ClipError`] when the clip can't be read on.
    #[allow(clippy::should_implement_trait)] // Not an iterator: it can be wound back.
    pub fn next(&mut self) -> Result<Option<ClipUnit>, ClipError> {
        let mut unreadable = 0;
        loop {
            let mut packet = ff::Packet::empty();
            match packet.read(&mut self.input) {
                Ok(()) => {}
                Err(ff::Error::Eof) => return Ok(None),
                Err(ff::Error::InvalidData) if unreadable < UNREADABLE_MAX => {
                    unreadable += 1;
                    self.loss = true;
                    continue;
                }
                Err(e) => return Err(self.error(&format!("{e}; check the file and its disk"))),
            }
            if packet.stream() != self.stream {
                continue;
            }
            let (key, bytes) = (packet.is_key(), packet.data().unwrap_or_default());
            let mut data = Vec::new();
            let converted = self.annex_b.convert(bytes, key, &mut data);
            // A damaged picture is missing, and those up to the next key frame lean on it.
            let new_parameters = match converted {
                Ok(new) if !data.is_empty() && data.len() <= PAYLOAD_MAX => new,
                _ => {
                    self.loss = true;
                    continue;
                }
            };
            let from_first = |t: i64| t.saturating_sub(self.first);
            let sent = packet.dts().or(packet.pts()).map_or(self.next_sent, from_first);
            self.decoding_time |= packet.pts().is_none();
            let decoding_time = self.decoding_time;
            let shown = packet.pts().filter(|_| !decoding_time).map_or(sent, from_first);
            let length = if packet.duration() > 0 { packet.duration() } else { self.period };
            let end = sent.saturating_add(length);
            self.next_sent = end;
            // A key frame leans on nothing before it.
            let loss = std::mem::take(&mut self.loss) && !key;
            return Ok(Some(ClipUnit {
                sent,
                shown,
                end,
                key,
                new_parameters,
                loss,
                decoding_time,
                data,
            }));
        }
    }

    fn error(&self, detail: &str) -> ClipError {
        ClipError { path: self.path.clone(), detail: detail.to_owned() }
    }
}

fn open_input(path: &Path, places: &Places) -> Result<Input, ClipError> {
    decoder::initialise();
    let error = |detail: String| ClipError { path: path.to_owned(), detail };
    let file = clip_file::open(path, places)?;
    // The library opens this very file, whatever the path has come to mean since.
    let text = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut options = ff::Dictionary::new();
    options.set("protocol_whitelist", "file");
    options.set("format_whitelist", FORMATS);
    // With the protocol named, no path is taken for another one.
    ff::format::input_with_dictionary(&format!("file:{text}"), options)
        .map_err(|e| error(format!("{e}; use MP4, Matroska or MPEG-TS with H.264 or H.265")))
}

/// The record with the parameter sets, the hints, and the size.
fn read_parameters(parameters: &ff::codec::Parameters) -> (Vec<u8>, Hints, Option<Size>) {
    // SAFETY: the pointer is only read, below, while `parameters` is borrowed.
    let raw = unsafe { parameters.as_ptr() };
    // SAFETY: never null; `parameters` keeps the stream that owns them alive, and nothing else
    // uses the input meanwhile (ClipReader::open holds it).
    let raw = unsafe { &*raw };
    let record = match usize::try_from(raw.extradata_size) {
        Ok(length) if length > 0 && !raw.extradata.is_null() => {
            // SAFETY: libavformat allocated `extradata_size` bytes there; see above for lifetime.
            unsafe { std::slice::from_raw_parts(raw.extradata, length) }.to_vec()
        }
        _ => vec![],
    };
    let hints = Hints {
        reorder: u8::try_from(raw.video_delay).unwrap_or(0),
        matrix: decoder::matrix(raw.color_space.into()) as u8,
        range: decoder::range(raw.color_range.into()) as u8,
    };
    let size = match (u32::try_from(raw.width), u32::try_from(raw.height)) {
        (Ok(width), Ok(height)) if width > 0 && height > 0 => Some(Size { width, height }),
        _ => None,
    };
    (record, hints, size)
}
