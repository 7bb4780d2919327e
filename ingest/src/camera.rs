//! One camera: its streams, and which of them serves whom.

use crate::clip_file::Places;
use crate::health::Health;
use crate::outlets::{Common, Wants};
use crate::source::Source;
use crate::stream::{Gone, Settings, Stream, StreamId};
use base::{CameraId, Instant};
use crossbeam_channel::unbounded;
use ipc::desired::{DecodeMode, DesiredCamera, DesiredStream};
use ipc::ingest_message::StreamStatus;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What the streams of a camera are to do, by name.
pub type Streams = Vec<(String, Settings)>;

/// What a row of the desired state means for each of its streams: the first with a role serves it,
/// without one the first of all. `file_roots`: where clips lie that vas.toml does not name itself.
pub fn streams(row: &DesiredCamera, export_enabled: bool, file_roots: &Arc<[PathBuf]>) -> Streams {
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
        let places = match stream.any_file {
            true => Places::Anywhere,
            false => Places::Below(Arc::clone(file_roots)),
        };
        let settings = Settings {
            source: Source::parse(&stream.url, &stream.transport, &places),
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

    /// Stops everything.
    pub fn stop(self) -> Leaving {
        let Camera { streams, gone, .. } = self;
        streams.iter().for_each(|(_, stream)| stream.stop());
        let healths = streams.into_iter().map(|(name, stream)| (name, stream.health));
        Leaving { gone, healths: healths.collect() }
    }
}

/// A camera that was told to stop.
pub struct Leaving {
    /// Gone when nothing is left of it.
    pub gone: Gone,
    healths: Vec<(String, Arc<Health>)>,
}

impl Leaving {
    /// One of whose streams nothing is known.
    #[cfg(test)]
    pub fn of(gone: Gone) -> Leaving {
        Leaving { gone, healths: vec![] }
    }

    /// What its streams wait for that do not end because of it.
    pub fn stuck(&self, id: &CameraId, now: Instant) -> impl Iterator<Item = StreamStatus> {
        let stuck = self.healths.iter().filter(move |(_, health)| health.stuck(now));
        stuck.map(move |(name, health)| {
            let mut status = StreamStatus::stopped(id.clone(), name);
            health.fill(&mut status, now);
            status
        })
    }
}

fn decoded(streams: &Streams) -> Option<usize> {
    streams.iter().position(|(_, settings)| settings.wants.decode != DecodeMode::Off)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::clock;
    use ipc::ingest_message::StreamState;
    use std::path::Path;

    #[test]
    fn a_camera_that_can_not_end_says_which_file_it_waits_for() {
        let (_held, gone) = unbounded();
        let (main, sub) = (Arc::new(Health::default()), Arc::new(Health::default()));
        let healths = vec![("main".into(), Arc::clone(&main)), ("sub".into(), sub)];
        let leaving = Leaving { gone, healths };
        let id: CameraId = "a".parse().unwrap();
        let told = |ahead| {
            let stuck = leaving.stuck(&id, clock::monotonic() + Duration::from_secs(ahead));
            stuck.map(|s| (s.stream, s.state, s.reason)).collect::<Vec<_>>()
        };
        main.wait_for(Path::new("/share/a.mp4"), || {
            assert_eq!(told(0), [], "it may be just slow");
            let [(stream, StreamState::Stalled, reason)] = &told(60)[..] else { panic!() };
            assert!(stream == "main" && reason.contains("/share/a.mp4"), "{reason}");
        });
        assert_eq!(told(60), []);
    }
}
