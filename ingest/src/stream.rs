//! One stream of a camera: a thread that reads its source and hands the units to [`Outlets`].
//!
//! Everything that concerns one stream happens on this thread and those of its outlets, so that
//! streams can't touch one another.

use crate::backoff::{Backoff, LogGate};
use crate::clip_source;
use crate::counters::Counters;
use crate::health::Health;
use crate::outlets::{Common, Description, Outlets, Wants};
use crate::rtsp;
use crate::source::Source;
use crate::timeline::Timeline;
use crate::unit::AccessUnit;
use base::{CameraId, Instant, MediaTime, Size};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use ipc::clock;
use ipc::ingest_message::{StreamState, StreamStatus};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::Notify;

/// Which stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamId {
    /// The camera.
    pub camera: CameraId,
    /// `main` or `sub`.
    pub name: String,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.camera, self.name)
    }
}

/// Said of a camera that was stopped and is to run again before it has ended.
const BEFORE: &str = "what it did before has not ended yet: its worker, its recorder, or a file that \
                      does not answer";

/// What a stream is to do. Equal settings change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the video comes from.
    pub source: Source,
    /// Where in a clip the camera starts.
    pub offset: Duration,
    /// Who wants its units.
    pub wants: Wants,
}

enum Control {
    /// Other settings, to be in force from then on.
    Change(Settings, Instant),
    /// Open the source anew, now.
    Reconnect,
    Stop,
}

/// Readable as disconnected when nothing is left of what held the other end.
pub type Gone = Receiver<Infallible>;

/// A running stream.
pub struct Stream {
    control: Sender<Control>,
    /// Wakes a source that waits for its socket.
    wake: Arc<Notify>,
    settings: Settings,
    /// What happened to its units.
    pub counters: Arc<Counters>,
    /// How it is doing.
    pub health: Arc<Health>,
}

impl Stream {
    /// Starts a stream whose clip is due from `origin` on. It begins when `after` is gone; `gone`
    /// is dropped at its end.
    ///
    /// # Errors
    /// When the process has no threads left.
    pub fn start(
        id: StreamId,
        settings: Settings,
        origin: Instant,
        common: Common,
        after: Option<Gone>,
        gone: Sender<Infallible>,
    ) -> io::Result<Stream> {
        let (control, inbox) = unbounded();
        let counters = Arc::new(Counters::default());
        let health = Arc::new(Health::default());
        let wake = Arc::new(Notify::new());
        let shm = common.shm.clone();
        let mut actor = Actor {
            outlets: Outlets::new(id.clone(), settings.wants, common, Arc::clone(&counters)),
            settings: settings.clone(),
            origin,
            inbox,
            wake: Arc::clone(&wake),
            counters: Arc::clone(&counters),
            health: Arc::clone(&health),
            timeline: Timeline::default(),
            stopped: false,
            reconnect: false,
            id,
        };
        thread::Builder::new().name(format!("cam:{}", actor.id)).spawn(move || {
            if let Some(after) = after {
                actor.health.set(StreamState::Connecting, BEFORE);
                // Nothing is ever sent: this is the end of those before.
                let _ = after.recv();
                actor.health.set(StreamState::Stopped, "");
            }
            actor.run(&shm);
            drop(gone);
        })?;
        Ok(Stream { control, wake, settings, counters, health })
    }

    /// Puts other settings in force; equal ones change nothing.
    pub fn change(&mut self, settings: Settings, now: Instant) {
        if settings != self.settings {
            self.settings = settings.clone();
            self.tell(Control::Change(settings, now));
        }
    }

    /// Opens the source anew, now.
    pub fn reconnect(&self) {
        self.tell(Control::Reconnect);
    }

    /// How it is doing.
    pub fn status(&self, camera: &CameraId, name: &str, now: Instant) -> StreamStatus {
        let mut status = StreamStatus::stopped(camera.clone(), name);
        self.health.fill(&mut status, now);
        (status.recording, status.recording_reason) = self.counters.recording.get();
        status.export_reason = self.counters.export.get();
        status.counters = self.counters.list();
        status
    }

    /// Stops source and outlets.
    pub fn stop(&self) {
        self.tell(Control::Stop);
    }

    fn tell(&self, control: Control) {
        // A thread that is gone has nothing to change.
        let _ = self.control.send(control);
        self.wake.notify_one();
    }
}

/// The thread's side of a stream.
pub struct Actor {
    /// Which stream.
    pub id: StreamId,
    /// What it is to do.
    pub settings: Settings,
    /// When the unit at the offset of a clip is due.
    pub origin: Instant,
    /// What happened to its units.
    pub counters: Arc<Counters>,
    /// How it is doing.
    pub health: Arc<Health>,
    /// Its media time.
    pub timeline: Timeline,
    /// Where its units go.
    pub outlets: Outlets,
    inbox: Receiver<Control>,
    /// Notified after each message to the inbox.
    pub wake: Arc<Notify>,
    stopped: bool,
    /// Somebody wants the source opened anew.
    reconnect: bool,
}

impl Actor {
    fn run(&mut self, shm: &Path) {
        // What an ingest before this one wrote last: media time goes on from there.
        self.timeline = Timeline::resume(last_media(shm, &self.id.camera));
        let (mut backoff, mut gate) = (Backoff::default(), LogGate::default());
        while !self.stopped {
            self.outlets.set(self.settings.wants);
            if !self.settings.wants.any() {
                // Nobody wants its units: the source is not even opened.
                self.health.set(StreamState::Stopped, "");
                self.wait(None);
                continue;
            }
            self.reconnect = false;
            let file = match &self.settings.source {
                Source::File(file) => file.clone(),
                Source::Rtsp(_) => {
                    rtsp::run(self);
                    continue;
                }
                Source::Unusable(why) => {
                    self.health.set(StreamState::Stopped, why);
                    if gate.allows(why, clock::monotonic()) {
                        tracing::error!(stream = %self.id, "no video: {why}");
                    }
                    self.wait(None);
                    continue;
                }
            };
            let start = clock::monotonic();
            let clip_source::Ended::Failed(error) = clip_source::play(self, &file, &mut gate)
            else {
                continue;
            };
            let now = clock::monotonic();
            let pause = backoff.pause(now - start);
            let line = error.to_string();
            self.health.set(StreamState::BackingOff, &line);
            if gate.allows(&line, now) {
                tracing::error!(stream = %self.id, "no video: {line}; trying again from {:.2} s \
                    up to every {} s", pause.as_secs_f64(), crate::backoff::LONGEST.as_secs());
            }
            self.counters.source_failures.add(1);
            self.wait(Some(now + pause));
        }
        self.outlets.close();
    }

    /// Waits for a change, at most until `deadline`; true when there was one.
    pub fn wait(&mut self, deadline: Option<Instant>) -> bool {
        let message = match deadline {
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => self.inbox.recv_timeout(deadline.since(clock::monotonic())),
        };
        match message {
            Ok(Control::Change(settings, now)) => {
                let moved = settings.source != self.settings.source
                    || settings.offset != self.settings.offset
                    || !self.settings.wants.any();
                if moved {
                    self.origin = now;
                }
                self.settings = settings;
            }
            Ok(Control::Reconnect) => self.reconnect = true,
            Ok(Control::Stop) | Err(RecvTimeoutError::Disconnected) => self.stopped = true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
        true
    }

    /// The source says what its stream is.
    pub fn describe(&mut self, description: Description, size: Option<Size>) {
        self.health.describe(description.codec, size);
        self.outlets.describe(description);
    }

    /// Hands a unit to everyone who wants it. Never waits.
    pub fn emit(&mut self, unit: AccessUnit) {
        self.health.unit(&unit);
        self.outlets.emit(unit);
    }

    /// Whether a change waits to be seen by [`Actor::wait`].
    pub fn changes(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// After a change: true when the source has to be left. The outlets hear what concerns them.
    pub fn leave(&mut self, source: &Source, offset: Duration) -> bool {
        if self.stopped
            || self.reconnect
            || !self.settings.wants.any()
            || self.settings.source != *source
            || self.settings.offset != offset
        {
            return true;
        }
        self.outlets.set(self.settings.wants);
        false
    }
}

/// The newest media time in the ring that an ingest before this one left.
fn last_media(shm: &Path, camera: &CameraId) -> Option<MediaTime> {
    ipc::ring::last(shm, camera).map(|(_, media)| media)
}
