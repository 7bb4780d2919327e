//! One camera: its source, its timeline, and who gets its access units.
//!
//! A thread per camera reads and paces the source; a [`Link`] has the decode worker. Everything
//! that concerns one camera happens on these two threads, so cameras can't touch one another.

use crate::backoff::{Backoff, LogGate};
use crate::clip::ClipError;
use crate::container::{ClipReader, ClipUnit, StreamInfo};
use crate::counters::Counters;
use crate::link::{Link, LinkOptions};
use crate::pacing::{ClipClock, Joints, LATE, Pacing, Verdict};
use crate::source::Source;
use crate::timeline::Timeline;
use crate::unit::{AccessUnit, Codec, UnitFlags};
use crate::worker_message::Configuration;
use base::{CameraId, Instant, MediaTime, UtcNanos};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use ipc::clock;
use ipc::desired::DecodeMode;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// After a worker's thread could not be started, the next attempt (chosen).
const LINK_RETRY: Duration = Duration::from_secs(3);

/// What a camera is to do. Equal settings change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the video comes from.
    pub source: Source,
    /// Where in a clip the camera starts.
    pub offset: Duration,
    /// How much is decoded; off also when frame export is off altogether.
    pub decode: DecodeMode,
    /// Longest deadline of its subscriptions, milliseconds.
    pub deadline_ms: u64,
}

/// What all cameras have in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// Root of the rings.
    pub shm: PathBuf,
    /// Program and arguments of a decode worker.
    pub decode_command: Vec<OsString>,
    /// Held by every camera thread until its end.
    pub running: Sender<()>,
}

enum Control {
    /// Other settings, to be in force from then on.
    Change(Settings, Instant),
    Stop,
}

/// A running camera.
pub struct Camera {
    control: Sender<Control>,
    thread: JoinHandle<()>,
    settings: Settings,
    /// What happened to its units.
    pub counters: Arc<Counters>,
}

impl Camera {
    /// Starts a camera whose clip is due from `origin` on. `after`: the thread of the camera with
    /// this id that was stopped before, which may still be stopping.
    ///
    /// # Errors
    /// When the process has no threads left.
    pub fn start(
        id: CameraId,
        settings: Settings,
        origin: Instant,
        common: Common,
        after: Option<JoinHandle<()>>,
    ) -> std::io::Result<Camera> {
        let (control, inbox) = unbounded();
        let counters = Arc::new(Counters::default());
        let mut actor = Actor {
            settings: settings.clone(),
            origin,
            inbox,
            counters: Arc::clone(&counters),
            timeline: Timeline::default(),
            link: None,
            leaving: None,
            link_retry: None,
            link_gate: LogGate::default(),
            info: None,
            stopped: false,
            id,
            common,
        };
        let running = actor.common.running.clone();
        let thread = thread::Builder::new().name(format!("cam:{}", actor.id)).spawn(move || {
            if let Some(after) = after {
                // A panic there has been printed and concerns nobody any more.
                let _ = after.join();
            }
            actor.run();
            drop(running);
        })?;
        Ok(Camera { control, thread, settings, counters })
    }

    /// Puts other settings in force; equal ones change nothing.
    pub fn change(&mut self, settings: Settings, now: Instant) {
        if settings != self.settings {
            self.settings = settings.clone();
            // A thread that is gone has nothing to change.
            let _ = self.control.send(Control::Change(settings, now));
        }
    }

    /// Stops source and worker; the thread ends when nothing is left of the camera.
    pub fn stop(self) -> JoinHandle<()> {
        let _ = self.control.send(Control::Stop);
        self.thread
    }
}

struct Actor {
    id: CameraId,
    settings: Settings,
    /// When the unit at the camera's offset is due.
    origin: Instant,
    inbox: Receiver<Control>,
    common: Common,
    counters: Arc<Counters>,
    timeline: Timeline,
    link: Option<Link>,
    /// The link before, while it stops.
    leaving: Option<JoinHandle<()>>,
    /// When to try again to start a link, after it failed.
    link_retry: Option<Instant>,
    link_gate: LogGate,
    info: Option<StreamInfo>,
    stopped: bool,
}

/// Why a clip is not played any further.
enum Ended {
    /// The camera stops or has other settings.
    Changed,
    Failed(ClipError),
}

impl Actor {
    fn run(&mut self) {
        // What an ingest before this one wrote last: media time goes on from there.
        self.timeline = Timeline::resume(last_media(&self.common.shm, &self.id));
        let (mut backoff, mut gate) = (Backoff::default(), LogGate::default());
        while !self.stopped {
            self.keep_link();
            if self.settings.decode == DecodeMode::Off {
                // Nobody wants its units: the source is not even opened.
                self.wait(None);
                continue;
            }
            let path = match &self.settings.source {
                Source::File(path) => path.clone(),
                Source::Unusable(why) => {
                    if gate.allows(why, clock::monotonic()) {
                        tracing::error!(camera = %self.id, "no video: {why}");
                    }
                    self.wait(None);
                    continue;
                }
            };
            let start = clock::monotonic();
            let Ended::Failed(error) = self.play(&path, &mut gate) else { continue };
            let now = clock::monotonic();
            let pause = backoff.pause(now - start);
            let line = error.to_string();
            if gate.allows(&line, now) {
                tracing::error!(camera = %self.id, "no video: {line}; trying again from {:.2} s \
                    up to every {} s", pause.as_secs_f64(), crate::backoff::LONGEST.as_secs());
            }
            self.counters.source_failures.add(1);
            self.wait(Some(now + pause));
        }
        self.close_link();
        if let Some(leaving) = self.leaving.take() {
            let _ = leaving.join();
        }
    }

    /// Waits for a change, at most until `deadline`; true when there was one.
    fn wait(&mut self, deadline: Option<Instant>) -> bool {
        let message = match deadline {
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => self.inbox.recv_timeout(deadline.since(clock::monotonic())),
        };
        match message {
            Ok(Control::Change(settings, now)) => {
                let moved = settings.source != self.settings.source
                    || settings.offset != self.settings.offset
                    || self.settings.decode == DecodeMode::Off;
                if moved {
                    self.origin = now;
                }
                self.settings = settings;
            }
            Ok(Control::Stop) | Err(RecvTimeoutError::Disconnected) => self.stopped = true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
        true
    }

    /// Starts, tells or stops the decode worker, as the settings and the stream want it.
    fn keep_link(&mut self) {
        if self.settings.decode == DecodeMode::Off {
            return self.close_link();
        }
        // Before the source was opened once, nobody knows what to tell the worker.
        let Some(info) = self.info else { return };
        let configuration = self.configuration(info);
        if let Some(link) = &self.link {
            return link.configure(configuration);
        }
        let options = LinkOptions {
            camera: self.id.clone(),
            command: self.common.decode_command.clone(),
            configuration,
            counters: Arc::clone(&self.counters),
        };
        self.link_retry = None;
        match Link::start(options, &mut self.leaving) {
            Ok(link) => {
                self.link = Some(link);
                if self.link_gate.clear() {
                    tracing::info!(camera = %self.id, "frame export is on again");
                }
            }
            Err(e) => {
                let now = clock::monotonic();
                self.link_retry = Some(now + LINK_RETRY);
                let line = format!("frame export is off: no thread or descriptor is left: {e}");
                if self.link_gate.allows(&line, now) {
                    tracing::error!(camera = %self.id, "{line}; raise the limits of the process; \
                        trying again every {} s", LINK_RETRY.as_secs());
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

    fn configuration(&self, info: StreamInfo) -> Configuration {
        let fps = match self.settings.decode {
            DecodeMode::Full => info.fps,
            // A group of pictures is rarely shorter than half a second.
            DecodeMode::Keyframes => info.fps.min(2.0),
            DecodeMode::Off => 0.0,
        };
        Configuration {
            camera: self.id.as_str().to_owned(),
            shm: self.common.shm.clone(),
            parent: i32::try_from(std::process::id()).unwrap_or(0),
            fps,
            deadline_ms: self.settings.deadline_ms,
            hints: info.hints,
        }
    }

    /// Plays a clip until something changes or it can't be read.
    fn play(&mut self, path: &Path, gate: &mut LogGate) -> Ended {
        let (source, offset) = (self.settings.source.clone(), self.settings.offset);
        let mut clip = match ClipReader::open(path) {
            Ok(clip) => clip,
            Err(error) => return Ended::Failed(error),
        };
        if gate.clear() {
            tracing::info!(camera = %self.id, "clip {} can be played again", path.display());
        }
        let info = clip.info();
        self.info = Some(info);
        self.keep_link();
        let (start, origin) = entry(info, offset, self.origin, clock::monotonic());
        // Without an index the clip is decoded from its first picture up to the start.
        if !clip.seek(start)
            && let Err(error) = clip.rewind()
        {
            return Ended::Failed(error);
        }
        let mut loops = ClipClock::new(info.tick, start);
        let mut pacing = Pacing::new(origin);
        let mut joints = Joints::new(info.tick);
        let mut told = false;
        let mut begin = Some(origin);
        let mut discontinuity = true;
        loop {
            let mut unit = match clip.next() {
                Ok(Some(unit)) => unit,
                Ok(None) => {
                    if !loops.turn() {
                        let detail = "it has no picture left; check the file".to_owned();
                        return Ended::Failed(ClipError { path: path.to_owned(), detail });
                    }
                    if let Err(error) = clip.rewind() {
                        return Ended::Failed(error);
                    }
                    joints.rewind();
                    discontinuity = true;
                    continue;
                }
                Err(error) => return Ended::Failed(error),
            };
            let (shift, jumped) = joints.join(unit.sent, unit.end);
            if jumped && !std::mem::replace(&mut told, true) {
                tracing::warn!(camera = %self.id, "clip {}: its times jump at {:.1} s; it is \
                    played on without the jump, remux it to be rid of it", path.display(),
                    info.tick.nanos(unit.sent) as f64 / 1e9);
            }
            discontinuity |= jumped;
            unit.shift(shift);
            loops.saw(unit.end);
            self.counters.units.add(1);
            let due = loops.nanos(unit.sent);
            let emit = loop {
                // Up to the start there is nothing to wait for.
                let verdict = match due < 0 {
                    true => Verdict::Emit { after_skip: false },
                    false => pacing.judge(due, unit.key, clock::monotonic()),
                };
                let until = match verdict {
                    Verdict::Wait(until) => Some(until),
                    Verdict::Emit { after_skip } => {
                        discontinuity |= after_skip;
                        break true;
                    }
                    Verdict::Skip => {
                        self.counters.skipped.add(1);
                        break false;
                    }
                };
                if self.wait(until) && self.changed(&source, offset) {
                    return Ended::Changed;
                }
            };
            // Without a pause before it, a change is seen here.
            while !self.inbox.is_empty() {
                if self.wait(None) && self.changed(&source, offset) {
                    return Ended::Changed;
                }
            }
            if emit {
                self.emit(unit, &mut begin, &mut discontinuity, &loops, info.codec);
            }
        }
    }

    /// After a change: true when the clip has to be left. The worker hears what concerns it.
    fn changed(&mut self, source: &Source, offset: Duration) -> bool {
        if self.stopped
            || self.settings.decode == DecodeMode::Off
            || self.settings.source != *source
            || self.settings.offset != offset
        {
            return true;
        }
        self.keep_link();
        false
    }

    fn emit(
        &mut self,
        unit: ClipUnit,
        begin: &mut Option<Instant>,
        discontinuity: &mut bool,
        loops: &ClipClock,
        codec: Codec,
    ) {
        let (capture, capture_utc) = (clock::monotonic(), clock::utc());
        if self.link_retry.is_some_and(|due| capture >= due) {
            self.keep_link();
        }
        let position = loops.media_ticks(unit.shown);
        if let Some(origin) = begin.take() {
            // Due times and UTC meet at the origin, not where this thread happened to wake up.
            let utc = utc_at(capture_utc, capture, origin);
            let ahead = loops.nanos(unit.shown);
            self.timeline.begin(position, UtcNanos(utc.0.saturating_add_signed(ahead)));
        }
        // A picture that leads the first key frame can't be decoded and has no time.
        let Some(media) = self.timeline.stamp(position) else { return };
        let flags = UnitFlags::when(unit.key, UnitFlags::KEY)
            .with(UnitFlags::when(std::mem::take(discontinuity), UnitFlags::DISCONTINUITY))
            .with(UnitFlags::when(unit.new_parameters, UnitFlags::NEW_PARAMETERS))
            .with(UnitFlags::when(unit.loss, UnitFlags::LOSS))
            .with(UnitFlags::when(unit.decoding_time, UnitFlags::DECODING_TIME))
            .with(UnitFlags::when(loops.nanos(unit.shown) < 0, UnitFlags::PREROLL));
        if self.settings.decode == DecodeMode::Keyframes && !unit.key {
            return;
        }
        let data = unit.data;
        let unit = Arc::new(AccessUnit { codec, data, media, capture, capture_utc, flags });
        if let Some(link) = &self.link {
            link.push(&unit);
        }
    }
}

/// Where a clip is entered, in ticks, and when that position is due.
///
/// A camera that comes late (slow disk, clip unreadable for a while) is where it would be had it
/// played since its `origin`: cameras keep their phase to one another.
fn entry(info: StreamInfo, offset: Duration, origin: Instant, now: Instant) -> (i64, Instant) {
    let StreamInfo { tick, duration, .. } = info;
    let mut start = tick.ticks_in(offset);
    let mut due = origin;
    if now - origin > LATE / 2 {
        due = now;
        if duration.is_some() {
            let played = tick.ticks_in(now - origin);
            start = start.saturating_add(played);
            due = origin + Duration::from_nanos(tick.nanos(played).unsigned_abs());
        }
    }
    if let Some(duration) = duration.filter(|&ticks| ticks > 0) {
        start %= duration;
    }
    (start, due)
}

/// UTC at the moment `then`, when it is `utc` at `now`.
fn utc_at(utc: UtcNanos, now: Instant, then: Instant) -> UtcNanos {
    let ahead = base::time::nanos(then - now);
    let ago = base::time::nanos(now - then);
    UtcNanos(utc.0.saturating_add(ahead).saturating_sub(ago))
}

/// The newest media time in the ring that an ingest before this one left.
fn last_media(shm: &Path, camera: &CameraId) -> Option<MediaTime> {
    ipc::ring::last(shm, camera).map(|(_, media)| media)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pacing::TickLength;
    use crate::worker_message::Hints;

    #[test]
    fn a_camera_that_comes_late_is_where_it_would_be() {
        let tick = TickLength { numerator: 1, denominator: 10_240 };
        let (codec, hints) = (Codec::H264, Hints::default());
        let info = StreamInfo { codec, fps: 10.0, hints, tick, duration: Some(307_200) };
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        assert_eq!(entry(info, ms(0), at(1000), at(1020)), (0, at(1000)), "a moment is nothing");
        assert_eq!(entry(info, ms(15_000), at(1000), at(900)), (153_600, at(1000)));
        assert_eq!(entry(info, ms(75_000), at(1000), at(1000)), (153_600, at(1000)));
        // 100 s later: three loops and 10 s, plus the offset.
        assert_eq!(entry(info, ms(5_000), at(1000), at(101_000)), (153_600, at(101_000)));
        let unknown = StreamInfo { duration: None, ..info };
        assert_eq!(entry(unknown, ms(5_000), at(1000), at(101_000)), (51_200, at(101_000)));
    }

    /// An actor without a thread, on a clip.
    fn actor(shm: &Path) -> Actor {
        let tick = TickLength { numerator: 1, denominator: 10_240 };
        let (codec, hints) = (Codec::H264, Hints::default());
        let decode_command = vec!["true".into()];
        let (running, inbox) = (unbounded().0, unbounded().1);
        Actor {
            id: CameraId::new("cam").unwrap(),
            settings: Settings {
                source: Source::File("/clip.mp4".into()),
                offset: Duration::ZERO,
                decode: DecodeMode::Full,
                deadline_ms: 500,
            },
            origin: Instant::ZERO,
            inbox,
            common: Common { shm: shm.to_owned(), decode_command, running },
            counters: Arc::default(),
            timeline: Timeline::default(),
            link: None,
            leaving: None,
            link_retry: None,
            link_gate: LogGate::default(),
            info: Some(StreamInfo { codec, fps: 10.0, hints, tick, duration: None }),
            stopped: false,
        }
    }

    #[test]
    fn a_link_that_could_not_be_started_is_tried_again() {
        let shm = tempfile::tempdir().unwrap();
        let mut actor = actor(shm.path());
        let unit = || ClipUnit {
            sent: 0,
            shown: 0,
            end: 1024,
            key: true,
            new_parameters: false,
            loss: false,
            decoding_time: false,
            data: vec![0],
        };
        let loops = ClipClock::new(actor.info.unwrap().tick, 0);
        let emit = |actor: &mut Actor| {
            let begin = &mut Some(clock::monotonic());
            actor.emit(unit(), begin, &mut false, &loops, Codec::H264);
        };
        // What a failed start leaves.
        actor.link_retry = Some(clock::monotonic() + Duration::from_secs(3600));
        emit(&mut actor);
        assert!(actor.link.is_none(), "not before it is due");
        actor.link_retry = Some(clock::monotonic());
        emit(&mut actor);
        assert!(actor.link.is_some() && actor.link_retry.is_none());
        actor.close_link();
        actor.leaving.take().unwrap().join().unwrap();
    }

    #[test]
    fn utc_is_carried_to_another_moment() {
        let at = |then| utc_at(UtcNanos(1000), Instant(500), Instant(then)).0;
        assert_eq!((at(400), at(500), at(650)), (900, 1000, 1150));
    }
}
