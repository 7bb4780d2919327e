//! Where the access units of one stream go: decode worker, recorder, live view.
//!
//! Called on the stream's thread. Nothing here waits: every outlet takes a unit or drops it.

use crate::backoff::LogGate;
use crate::counters::Counters;
use crate::link::{Link, LinkOptions};
use crate::live::{Feed, Hub};
use crate::recorder::{Recorder, Storage};
use crate::stream::StreamId;
use crate::unit::{AccessUnit, Codec};
use crate::worker_message::{Configuration, Hints};
use base::Instant;
use ipc::clock;
use ipc::desired::DecodeMode;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// After a worker's thread could not be started, the next attempt (chosen).
const LINK_RETRY: Duration = Duration::from_secs(3);

/// Who wants the units of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    /// How much is decoded; off also when frame export is off altogether, and for a stream that is
    /// not the one to detect on.
    pub decode: DecodeMode,
    /// Longest deadline of the camera's subscriptions, milliseconds.
    pub deadline_ms: u64,
    /// Recording.
    pub record: bool,
    /// Live view.
    pub live: bool,
}

impl Wants {
    /// Whether anybody wants them at all: without, the source is not even opened.
    pub fn any(self) -> bool {
        self.decode != DecodeMode::Off || self.record || self.live
    }
}

/// What all streams have in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// Root of the rings.
    pub shm: PathBuf,
    /// Program and arguments of a decode worker.
    pub decode_command: Vec<OsString>,
    /// Where recordings go.
    pub storage: Arc<Storage>,
    /// Viewers of all streams; none when live view can't run.
    pub live: Option<Hub>,
}

/// What is known of a stream before its first picture is decoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Description {
    /// Codec.
    pub codec: Codec,
    /// Pictures per second as declared or measured.
    pub fps: f64,
    /// What the container or the session says, for what the stream leaves open.
    pub hints: Hints,
}

/// The outlets of one stream.
pub struct Outlets {
    id: StreamId,
    common: Common,
    counters: Arc<Counters>,
    wants: Wants,
    description: Option<Description>,
    live: Option<Feed>,
    link: Option<Link>,
    /// The link before, while it stops.
    leaving: Option<JoinHandle<()>>,
    /// When to try again to start a link, after it failed.
    link_retry: Option<Instant>,
    link_gate: LogGate,
    recorder: Option<Recorder>,
    /// When to try again to start a recorder.
    recorder_retry: Option<Instant>,
    /// Recorders that still write what they have.
    recorders_leaving: Vec<JoinHandle<()>>,
}

impl Outlets {
    /// Closed ones.
    pub fn new(id: StreamId, wants: Wants, common: Common, counters: Arc<Counters>) -> Outlets {
        Outlets {
            id,
            common,
            counters,
            wants,
            description: None,
            live: None,
            link: None,
            leaving: None,
            link_retry: None,
            link_gate: LogGate::default(),
            recorder: None,
            recorder_retry: None,
            recorders_leaving: vec![],
        }
    }

    /// Opens, tells or closes outlets as they are wanted from now on.
    pub fn set(&mut self, wants: Wants) {
        self.wants = wants;
        self.keep_link();
        self.keep_recorder();
        self.keep_live();
    }

    /// The source says what its stream is. Before that no outlet opens.
    pub fn describe(&mut self, description: Description) {
        self.description = Some(description);
        self.keep_link();
        self.keep_recorder();
    }

    /// Hands a unit to everyone who wants it.
    pub fn emit(&mut self, unit: AccessUnit) {
        if self.link_retry.is_some_and(|due| unit.capture >= due) {
            self.keep_link();
        }
        if self.recorder_retry.is_some_and(|due| unit.capture >= due) {
            self.keep_recorder();
        }
        if self.recorder_retry.is_none()
            && unit.key()
            && self.recorder.as_ref().is_some_and(Recorder::broken)
        {
            // Not at once: what broke it may break the next one.
            self.recorder_retry = Some(unit.capture + LINK_RETRY);
        }
        let unit = Arc::new(unit);
        if let Some(recorder) = &self.recorder {
            recorder.push(&unit);
        }
        if let Some(link) = &self.link
            && (self.wants.decode == DecodeMode::Full || unit.key())
        {
            link.push(&unit);
        }
        if let Some(live) = &mut self.live
            && !live.push(&unit)
        {
            self.counters.unwatched.add(1);
        }
    }

    /// Closes everything and waits until nothing is left of it.
    pub fn close(&mut self) {
        self.live = None;
        self.close_link();
        if let Some(leaving) = self.leaving.take() {
            // A panic there has been printed and concerns nobody any more.
            let _ = leaving.join();
        }
        self.close_recorder();
        for leaving in self.recorders_leaving.drain(..) {
            let _ = leaving.join();
        }
    }

    fn keep_recorder(&mut self) {
        if !self.wants.record {
            return self.close_recorder();
        }
        if self.recorder.as_ref().is_some_and(|recorder| !recorder.broken())
            || self.description.is_none()
        {
            return;
        }
        let (storage, counters) = (Arc::clone(&self.common.storage), Arc::clone(&self.counters));
        match Recorder::start(self.id.camera.clone(), storage, counters) {
            Ok(recorder) => (self.recorder, self.recorder_retry) = (Some(recorder), None),
            Err(e) => {
                let now = clock::monotonic();
                self.recorder_retry = Some(now + LINK_RETRY);
                let line = format!("recording stands still: no thread is left: {e}");
                if self.link_gate.allows(&line, now) {
                    tracing::error!(stream = %self.id, "{line}; raise the limits of the \
                        process; trying again every {} s", LINK_RETRY.as_secs());
                }
            }
        }
    }

    fn close_recorder(&mut self) {
        self.recorder_retry = None;
        self.recorders_leaving.retain(|leaving| !leaving.is_finished());
        self.recorders_leaving.extend(self.recorder.take().and_then(Recorder::stop));
    }

    /// Viewers may come before the first picture.
    fn keep_live(&mut self) {
        if !self.wants.live {
            self.live = None;
        } else if self.live.is_none() {
            let StreamId { camera, name } = &self.id;
            self.live = self.common.live.as_ref().map(|hub| hub.feed(camera, name));
        }
    }

    fn keep_link(&mut self) {
        if self.wants.decode == DecodeMode::Off {
            return self.close_link();
        }
        // Before the source was opened once, nobody knows what to tell the worker.
        let Some(description) = self.description else { return };
        let configuration = self.configuration(description);
        if let Some(link) = &self.link {
            return link.configure(configuration);
        }
        let options = LinkOptions {
            camera: self.id.camera.clone(),
            command: self.common.decode_command.clone(),
            configuration,
            counters: Arc::clone(&self.counters),
        };
        self.link_retry = None;
        match Link::start(options, &mut self.leaving) {
            Ok(link) => {
                self.link = Some(link);
                if self.link_gate.clear() {
                    tracing::info!(camera = %self.id.camera, "frame export is on again");
                }
            }
            Err(e) => {
                let now = clock::monotonic();
                self.link_retry = Some(now + LINK_RETRY);
                let line = format!("frame export is off: no thread or descriptor is left: {e}");
                if self.link_gate.allows(&line, now) {
                    tracing::error!(camera = %self.id.camera, "{line}; raise the limits of the \
                        process; trying again every {} s", LINK_RETRY.as_secs());
                }
            }
        }
    }

    fn close_link(&mut self) {
        self.link_retry = None;
        if let Some(link) = self.link.take() {
            self.leaving = Some(link.stop());
        }
    }

    fn configuration(&self, description: Description) -> Configuration {
        let fps = match self.wants.decode {
            DecodeMode::Full => description.fps,
            // A group of pictures is rarely shorter than half a second.
            DecodeMode::Keyframes => description.fps.min(2.0),
            DecodeMode::Off => 0.0,
        };
        Configuration {
            camera: self.id.camera.as_str().to_owned(),
            shm: self.common.shm.clone(),
            parent: i32::try_from(std::process::id()).unwrap_or(0),
            fps,
            deadline_ms: self.wants.deadline_ms,
            hints: description.hints,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::WebrtcOptions;
    use crate::unit::UnitFlags;
    use base::{CameraId, MediaTime, UtcNanos};

    const NOBODY: Wants =
        Wants { decode: DecodeMode::Off, deadline_ms: 500, record: false, live: false };

    fn outlets(live: Option<Hub>) -> (tempfile::TempDir, Outlets) {
        let shm = tempfile::tempdir().unwrap();
        let storage = Storage::new(crate::RecordingOptions::new(shm.path().join("recordings")));
        let decode_command = vec!["true".into()];
        let common = Common { shm: shm.path().to_owned(), decode_command, storage, live };
        let camera = CameraId::new("cam").unwrap();
        let id = StreamId { camera, name: "main".into() };
        (shm, Outlets::new(id, NOBODY, common, Arc::default()))
    }

    fn description() -> Description {
        Description { codec: Codec::H264, fps: 10.0, hints: Hints::default() }
    }

    fn emit(outlets: &mut Outlets, capture: Instant, key: bool) {
        let (capture_utc, media, codec) = (UtcNanos(0), MediaTime(1), Codec::H264);
        let (flags, data) = (UnitFlags::when(key, UnitFlags::KEY), vec![0]);
        outlets.emit(AccessUnit { codec, data, media, capture, capture_utc, flags });
    }

    #[test]
    fn a_stream_is_wanted_by_whoever_wants_something_of_it() {
        assert!(!NOBODY.any());
        assert!(Wants { decode: DecodeMode::Keyframes, ..NOBODY }.any());
        assert!(Wants { record: true, ..NOBODY }.any());
        assert!(Wants { live: true, ..NOBODY }.any());
    }

    #[test]
    fn a_link_that_could_not_be_started_is_tried_again() {
        let (_shm, mut outlets) = outlets(None);
        outlets.describe(description());
        // What a failed start leaves.
        outlets.wants.decode = DecodeMode::Full;
        outlets.link_retry = Some(clock::monotonic() + Duration::from_secs(3600));
        emit(&mut outlets, clock::monotonic(), true);
        assert!(outlets.link.is_none(), "not before it is due");
        outlets.link_retry = Some(clock::monotonic());
        emit(&mut outlets, clock::monotonic(), true);
        assert!(outlets.link.is_some() && outlets.link_retry.is_none());
        outlets.close();
        assert!(outlets.link.is_none() && outlets.leaving.is_none());
    }

    #[test]
    fn a_recorder_is_there_while_it_is_wanted_and_is_waited_for_at_the_end() {
        let (_shm, mut outlets) = outlets(None);
        outlets.set(Wants { record: true, ..NOBODY });
        assert!(outlets.recorder.is_none(), "nothing is known of the stream");
        outlets.describe(description());
        assert!(outlets.recorder.is_some());
        outlets.set(NOBODY);
        assert!(outlets.recorder.is_none());
        // One that still writes stays known, one that is done does not.
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let written = std::thread::spawn(|| ());
        while !written.is_finished() {
            std::thread::yield_now();
        }
        let writes = std::thread::spawn(move || ended.recv().is_err());
        outlets.recorders_leaving = vec![written, std::thread::spawn(move || drop(writes.join()))];
        outlets.set(NOBODY);
        assert_eq!(outlets.recorders_leaving.len(), 1);
        assert!(!outlets.recorders_leaving[0].is_finished());
        drop(end);
        outlets.set(Wants { record: true, ..NOBODY });
        outlets.close();
        assert!(outlets.recorder.is_none() && outlets.recorders_leaving.is_empty());
    }

    #[test]
    fn a_recorder_that_broke_off_is_followed_by_another_after_a_while() {
        let (_shm, mut outlets) = outlets(None);
        outlets.describe(description());
        let record = Wants { record: true, ..NOBODY };
        outlets.set(record);
        let now = clock::monotonic();
        emit(&mut outlets, now, true);
        assert_eq!(outlets.recorder_retry, None);
        let broken = |outlets: &Outlets| outlets.recorder.as_ref().is_some_and(Recorder::broken);
        outlets.recorder = Some(Recorder::broken_off());
        emit(&mut outlets, now, false);
        assert_eq!(outlets.recorder_retry, None, "with a key unit");
        emit(&mut outlets, now, true);
        let due = now + LINK_RETRY;
        assert_eq!(outlets.recorder_retry, Some(due));
        emit(&mut outlets, now + LINK_RETRY / 2, true);
        assert!(broken(&outlets) && outlets.recorder_retry == Some(due), "not before it is due");
        emit(&mut outlets, due, true);
        assert!(!broken(&outlets) && outlets.recorder_retry.is_none());
        // Told anew, one is not waited for.
        outlets.recorder = Some(Recorder::broken_off());
        outlets.set(record);
        assert!(!broken(&outlets));
        outlets.close();
    }

    #[test]
    fn live_view_is_fed_while_it_is_wanted() {
        let options = WebrtcOptions { udp_port: 0, ..WebrtcOptions::default() };
        let (_shm, mut outlets) = outlets(Some(Hub::start(options).unwrap()));
        outlets.set(Wants { live: true, ..NOBODY });
        assert!(outlets.live.is_some());
        emit(&mut outlets, clock::monotonic(), true);
        assert_eq!(format!("{:?}", outlets.counters.unwatched), "Count(0)");
        outlets.set(NOBODY);
        assert!(outlets.live.is_none());
    }
}
