//! One camera: its streams, and which of them serves whom.

use crate::outlets::{Common, Wants};
use crate::source::Source;
use crate::stream::{Gone, Settings, Stream, StreamId};
use base::{CameraId, Instant};
use crossbeam_channel::unbounded;
use ipc::desired::{DecodeMode, DesiredCamera, DesiredStream};
use std::io;
use std::time::Duration;

/// What the streams of a camera are to do, by name.
pub type Streams = Vec<(String, Settings)>;

/// What a row of the desired state means for each of its streams: the first with a role serves it,
/// without one the first of all.
pub fn streams(row: &DesiredCamera, export_enabled: bool) -> Streams {
    let with = |role: &str| {
        let has = |stream: &DesiredStream| stream.roles.iter().any(|r| r == role);
        row.streams.iter().position(has)
    };
    let (record, live) = (with("record").unwrap_or(0), with("live").unwrap_or(0));
    let detect = with("detect").unwrap_or(0);
    let settings = |(at, stream): (usize, &DesiredStream)| {
        let decode = match export_enabled && at == detect {
            true => row.decode,
            false => DecodeMode::Off,
        };
        let settings = Settings {
            source: Source::parse(&stream.url, &stream.transport),
            offset: Duration::from_millis(row.loop_offset_ms),
            wants: Wants {
                decode,
                deadline_ms: row.deadline_ms,
                record: row.record && at == record,
                live: row.live && at == live,
            },
        };
        (stream.name.clone(), settings)
    };
    row.streams.iter().enumerate().map(settings).collect()
}

/// A running camera.
pub struct Camera {
    streams: Vec<(String, Stream)>,
    decoded: Option<usize>,
    gone: Gone,
}

impl Camera {
    /// Starts a camera whose clips are due from `origin` on. It begins when `after` is gone.
    ///
    /// # Errors
    /// When the process has no threads left; then nothing runs.
    pub fn start(
        id: &CameraId,
        wanted: Streams,
        origin: Instant,
        common: &Common,
        after: Option<&Gone>,
    ) -> io::Result<Camera> {
        let (held, gone) = unbounded();
        let decoded = decoded(&wanted);
        let mut camera = Camera { streams: Vec::new(), decoded, gone };
        for (name, settings) in wanted {
            let stream = StreamId { camera: id.clone(), name: name.clone() };
            let (common, after, held) = (common.clone(), after.cloned(), held.clone());
            match Stream::start(stream, settings, origin, common, after, held) {
                Ok(stream) => camera.streams.push((name, stream)),
                Err(error) => {
                    camera.stop();
                    return Err(error);
                }
            }
        }
        Ok(camera)
    }

    /// Whether the streams can be changed as they run: same names, and the same one is decoded. A
    /// ring has one writer, so the one before must be gone when another stream begins to decode.
    pub fn can_change(&self, wanted: &Streams) -> bool {
        let decoded = decoded(wanted);
        let same = |((a, _), (b, _)): (&(String, Stream), &(String, Settings))| a == b;
        self.streams.len() == wanted.len()
            && self.streams.iter().zip(wanted).all(same)
            && (self.decoded.is_none() || decoded.is_none() || self.decoded == decoded)
    }

    /// Puts other settings in force; equal ones change nothing.
    pub fn change(&mut self, wanted: Streams, now: Instant) {
        self.decoded = decoded(&wanted).or(self.decoded);
        for ((_, stream), (_, settings)) in self.streams.iter_mut().zip(wanted) {
            stream.change(settings, now);
        }
    }

    /// Its streams by name.
    pub fn streams(&self) -> impl Iterator<Item = (&str, &Stream)> {
        self.streams.iter().map(|(name, stream)| (name.as_str(), stream))
    }

    /// Stops everything; what is returned is gone when nothing is left of the camera.
    pub fn stop(self) -> Gone {
        for (_, stream) in &self.streams {
            stream.stop();
        }
        self.gone
    }
}

fn decoded(streams: &Streams) -> Option<usize> {
    streams.iter().position(|(_, settings)| settings.wants.decode != DecodeMode::Off)
}
