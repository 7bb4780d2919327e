//! A camera as the source of a stream: RTSP sessions, one after another, for as long as the stream
//! wants it.
//!
//! Everything happens on the stream's thread, in a current-thread runtime: the library's sockets,
//! the supervision's deadlines, and the wake of the stream's inbox. Units go straight to the
//! outlets, which never wait.

mod intake;
mod probe;
mod session;
mod syntax;

pub use probe::{Probed, probe};

use crate::backoff::LogGate;
use crate::outlets::Description;
use crate::source::{RtspSource, Source};
use crate::stream::Actor;
use crate::supervision::{Failure, Step, Supervision};
use crate::worker_message::Hints;
use base::{Instant, guard};
use futures_util::StreamExt;
use intake::Intake;
use ipc::clock;
use retina::client::SessionGroup;
use retina::codec::CodecItem;
use session::Playing;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

/// Pictures per second where neither the camera nor its pictures say it.
const FPS_DEFAULT: f64 = 25.0;
/// Rates that are believed.
const FPS: std::ops::RangeInclusive<f64> = 0.1..=240.0;
/// After so long the measured rate is better than the declared one.
const MEASURED: Duration = Duration::from_secs(8);
/// Packets in a row that can't be understood, after which the session is given up (chosen: more
/// than the largest picture has).
const UNREADABLE_MAX: u32 = 20_000;
/// Pause when the process has no descriptors for a runtime (chosen).
const NO_RUNTIME: Duration = Duration::from_secs(3);

/// How a session ended.
enum Ended {
    /// The stream stops, has another source, or is to be opened anew.
    Left,
    Failed(Failure),
}

/// Keeps a session to the camera until the stream wants something else.
pub fn run(actor: &mut Actor) {
    let Source::Rtsp(source) = actor.settings.source.clone() else { return };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            let why = format!("no descriptor is left: {e}; raise the limits of the process");
            actor.health.set(ipc::ingest_message::StreamState::BackingOff, &why);
            tracing::error!(stream = %actor.id, "no video: {why}");
            actor.wait(Some(clock::monotonic() + NO_RUNTIME));
            return;
        }
    };
    let mut sessions = Sessions {
        wake: Arc::clone(&actor.wake),
        group: Arc::new(SessionGroup::default().named(actor.id.to_string())),
        supervision: Supervision::new(clock::monotonic()),
        intake: Intake::default(),
        gate: LogGate::default(),
        fps: None,
        source,
    };
    sessions.keep(actor, &runtime);
    // It is over either way.
    let _ = guard::foreign(|| runtime.block_on(session::wait_for_teardown(&sessions.group)));
    // A name that is being resolved would hold up the end.
    runtime.shutdown_background();
}

/// The sessions to one camera: what outlives each.
struct Sessions {
    source: RtspSource,
    wake: Arc<Notify>,
    group: Arc<SessionGroup>,
    supervision: Supervision,
    intake: Intake,
    gate: LogGate,
    /// Measured, when the camera says something else.
    fps: Option<f64>,
}

impl Sessions {
    fn keep(&mut self, actor: &mut Actor, runtime: &Runtime) {
        loop {
            let ended = match self.supervision.step(clock::monotonic()) {
                Step::Connect => {
                    self.supervision.connecting(clock::monotonic());
                    self.show(actor);
                    // A panic of the library must not cost more than the session.
                    let session = || runtime.block_on(self.session(actor));
                    guard::foreign(session).unwrap_or_else(|_| {
                        let why = "the RTSP library failed over what the camera sent; the log of \
                            ingest names the place";
                        Ended::Failed(Failure::Other(why.to_owned()))
                    })
                }
                // Tasks of the library go on meanwhile: what is left of the session before.
                Step::Wait(until) => {
                    match guard::foreign(|| runtime.block_on(self.pause(actor, until))) {
                        Ok(true) => Ended::Left,
                        Ok(false) | Err(_) => continue,
                    }
                }
                Step::GiveUp(failure) => Ended::Failed(failure),
            };
            match ended {
                Ended::Left => return,
                Ended::Failed(failure) => self.failed(actor, failure),
            }
        }
    }

    fn failed(&mut self, actor: &mut Actor, failure: Failure) {
        let now = clock::monotonic();
        let random = RandomState::new().hash_one(now.0);
        let jitter = random as f64 / u64::MAX as f64;
        let pause = self.supervision.ended(failure, now, jitter);
        self.show(actor);
        let (_, reason) = self.supervision.state();
        if self.gate.allows(reason, now) {
            tracing::warn!(stream = %actor.id, "no video: {reason}; trying again in {:.2} s",
                pause.as_secs_f64());
        }
        actor.counters.source_failures.add(1);
    }

    fn show(&self, actor: &Actor) {
        let (state, reason) = self.supervision.state();
        actor.health.set(state, reason);
    }

    /// Looks at the stream's inbox; true when the source has to be left.
    fn left(&self, actor: &mut Actor) -> bool {
        while actor.changes() {
            let (source, offset) = (actor.settings.source.clone(), actor.settings.offset);
            if actor.wait(None) && actor.leave(&source, offset) {
                return true;
            }
        }
        false
    }

    /// True when the source has to be left before the pause is over.
    async fn pause(&self, actor: &mut Actor, until: Instant) -> bool {
        loop {
            if self.left(actor) {
                return true;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep_until(until) => return false,
            }
        }
    }

    /// One session from its opening to its end.
    async fn session(&mut self, actor: &mut Actor) -> Ended {
        let opened = {
            let (source, group) = (self.source.clone(), Arc::clone(&self.group));
            let mut opening = pin!(session::open(&source, &group));
            loop {
                if self.left(actor) {
                    return Ended::Left;
                }
                let deadline = match self.supervision.step(clock::monotonic()) {
                    Step::GiveUp(failure) => return Ended::Failed(failure),
                    Step::Wait(until) => until,
                    Step::Connect => clock::monotonic(),
                };
                tokio::select! {
                    opened = &mut opening => break opened,
                    () = self.wake.notified() => {}
                    () = sleep_until(deadline) => {}
                }
            }
        };
        let mut playing = match opened {
            Ok(playing) => playing,
            Err(failure) => return Ended::Failed(failure),
        };
        let now = clock::monotonic();
        self.supervision.opened(playing.fps, now);
        actor.health.connected();
        self.show(actor);
        self.intake.session();
        self.describe(actor, &playing);
        self.receive(actor, &mut playing).await
    }

    fn describe(&self, actor: &mut Actor, playing: &Playing) {
        let fps = self.fps.or(playing.fps).filter(|fps| FPS.contains(fps)).unwrap_or(FPS_DEFAULT);
        let description = Description { codec: playing.codec, fps, hints: Hints::default() };
        actor.describe(description, playing.size());
    }

    async fn receive(&mut self, actor: &mut Actor, playing: &mut Playing) -> Ended {
        let mut unreadable = 0;
        let mut why = None;
        let mut measure = Some(clock::monotonic() + MEASURED);
        loop {
            if self.left(actor) {
                return Ended::Left;
            }
            let deadline = match self.supervision.step(clock::monotonic()) {
                Step::GiveUp(Failure::Other(silence)) => {
                    let why = why.map_or(silence.clone(), |why| format!("{silence} ({why})"));
                    return Ended::Failed(Failure::Other(why));
                }
                Step::GiveUp(failure) => return Ended::Failed(failure),
                Step::Wait(until) => until,
                Step::Connect => clock::monotonic(),
            };
            let item = tokio::select! {
                item = playing.demuxed.next() => item,
                () = self.wake.notified() => continue,
                () = sleep_until(deadline) => continue,
            };
            match item {
                Some(Ok(CodecItem::VideoFrame(frame))) => {
                    unreadable = 0;
                    why = None;
                    let (now, utc) = (clock::monotonic(), clock::utc());
                    self.came(actor, now);
                    let new = frame.has_new_parameters();
                    let unit = self.intake.take(
                        (&mut actor.timeline, &actor.counters),
                        playing.codec,
                        frame,
                        playing.parameters(),
                        (now, utc),
                    );
                    if new {
                        self.describe(actor, playing);
                    }
                    if let Some(unit) = unit {
                        actor.emit(unit);
                    }
                    if measure.is_some_and(|due| now >= due) {
                        measure = None;
                        self.measured(actor, playing, now);
                    }
                }
                // Reports and sound.
                Some(Ok(_)) => {}
                Some(Err(error))
                    if session::concerns_one_packet(&error) && unreadable < UNREADABLE_MAX =>
                {
                    unreadable += 1;
                    self.intake.unreadable(&actor.counters);
                    why = Some(self.source.told(&error));
                }
                Some(Err(error)) if session::is_stale_session(&error) => {
                    return Ended::Failed(self.stale(&error));
                }
                Some(Err(error)) => {
                    return Ended::Failed(session::failure(&error, &self.source, true));
                }
                None => {
                    let why = why.map_or(String::new(), |why| format!(" ({why})"));
                    let why = format!("the camera closed the connection{why}");
                    return Ended::Failed(Failure::Other(why));
                }
            }
        }
    }

    /// A picture came, whatever it is worth.
    fn came(&mut self, actor: &Actor, now: Instant) {
        let before = self.supervision.state().0;
        self.supervision.unit(now);
        if self.supervision.state().0 != before {
            self.show(actor);
            if self.gate.clear() {
                tracing::info!(stream = %actor.id, "video comes again");
            }
        }
    }

    /// The rate that pictures come at, when it is not the declared one: the ring has its slots by
    /// it.
    fn measured(&mut self, actor: &mut Actor, playing: &Playing, now: Instant) {
        let Some(measured) = actor.health.fps(now).filter(|fps| FPS.contains(fps)) else { return };
        let told = self.fps.or(playing.fps).unwrap_or(FPS_DEFAULT);
        if !(0.8..=1.25).contains(&(measured / told)) {
            tracing::info!(stream = %actor.id, "the camera sends {measured:.1} pictures a second, \
                not {told:.1}");
            self.fps = Some(measured);
            self.describe(actor, playing);
        }
    }

    fn stale(&self, error: &retina::Error) -> Failure {
        let now = tokio::time::Instant::now();
        let expires = self.group.stale_sessions().max_expires;
        let wait = expires.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let line = self.source.told(error);
        let why = format!("packets of a session that ended came on the new one: {line}");
        Failure::StaleSession { why, wait }
    }
}

async fn sleep_until(at: Instant) {
    tokio::time::sleep(at.since(clock::monotonic())).await;
}
