//! What a camera session should do next. Pure: `now` and the jitter come in, decisions come out.
//!
//! The session itself (sockets, packets) is in `rtsp.rs`; it tells what happened and does what
//! [`Supervision::step`] says.

use crate::backoff::{Backoff, LONGEST};
use base::Instant;
use ipc::ingest_message::StreamState;
use std::time::Duration;

/// How long a camera may take from the first byte to its answer to PLAY (chosen: slow cameras
/// take 2 to 4 s).
pub const CONNECT: Duration = Duration::from_secs(10);
/// How long the first picture may take after that (chosen: many cameras begin at their next key
/// frame, and groups of pictures of 10 s exist).
pub const FIRST_UNIT: Duration = Duration::from_secs(12);
/// No access unit for this long is a stall (design section 7).
pub const STALL: Duration = Duration::from_secs(3);
/// A camera slower than one picture in this time may be silent for three of its periods.
const SLOW: Duration = Duration::from_secs(1);
/// But not for longer, whatever rate it declares (chosen: a picture in ten seconds is the slowest
/// that cameras can be set to).
const PATIENCE_MAX: Duration = Duration::from_secs(30);
/// First pause after refused credentials: cameras lock accounts after a few wrong passwords.
pub const AUTH_FIRST: Duration = Duration::from_secs(60);
/// Longest pause after refused credentials (chosen).
pub const AUTH_LONGEST: Duration = Duration::from_secs(15 * 60);

/// Why a session ended or did not come about. Texts are for people and hold no credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The camera refused the credentials, or wants some.
    Unauthorized {
        /// It had accepted them a moment ago in the same session: its challenge may have expired.
        late: bool,
        /// What to do.
        why: String,
    },
    /// Anything else.
    Other(String),
    /// Packets of a dead session come on new connections: nothing works before it expires.
    StaleSession {
        /// What happened.
        why: String,
        /// How long until it has expired.
        wait: Duration,
    },
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Open a session and say [`Supervision::connecting`].
    Connect,
    /// Nothing before this moment.
    Wait(Instant),
    /// Close the session and report its end with this failure.
    GiveUp(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No session.
    Pausing { until: Instant },
    /// Being opened.
    Opening { since: Instant },
    /// Playing, nothing came yet.
    Opened { since: Instant },
    /// Pictures came.
    Playing { first: Instant, last: Instant },
}

/// State of one stream's sessions.
#[derive(Debug)]
pub struct Supervision {
    phase: Phase,
    state: StreamState,
    reason: String,
    backoff: Backoff,
    /// Pause after the next refusal of credentials.
    auth_pause: Duration,
    /// The last session ended with a late refusal.
    late_refusal: bool,
    /// Longest silence that is no stall.
    patience: Duration,
}

impl Supervision {
    /// Begins with a session at once.
    pub fn new(now: Instant) -> Supervision {
        Supervision {
            phase: Phase::Pausing { until: now },
            state: StreamState::Connecting,
            reason: String::new(),
            backoff: Backoff::default(),
            auth_pause: AUTH_FIRST,
            late_refusal: false,
            patience: STALL,
        }
    }

    /// State as people see it, and why it is not live.
    pub fn state(&self) -> (StreamState, &str) {
        (self.state, &self.reason)
    }

    /// What to do at `now`.
    pub fn step(&mut self, now: Instant) -> Step {
        let (deadline, failure) = match self.phase {
            Phase::Pausing { until } if now >= until => return Step::Connect,
            Phase::Pausing { until } => return Step::Wait(until),
            Phase::Opening { since } => (since + CONNECT, "the camera does not answer"),
            Phase::Opened { since } => {
                (since + FIRST_UNIT.max(self.patience), "the camera plays, but sends no picture")
            }
            Phase::Playing { last, .. } => (last + self.patience, "the camera stopped sending"),
        };
        if now < deadline {
            return Step::Wait(deadline);
        }
        let limit = match self.phase {
            Phase::Opening { .. } => CONNECT,
            Phase::Opened { .. } => FIRST_UNIT.max(self.patience),
            _ => self.patience,
        };
        if !matches!(self.phase, Phase::Opening { .. }) {
            self.state = StreamState::Stalled;
            self.reason = format!("{failure} for {} s", limit.as_secs());
        }
        Step::GiveUp(Failure::Other(format!("{failure} for {} s", limit.as_secs())))
    }

    /// A session is being opened.
    pub fn connecting(&mut self, now: Instant) {
        self.phase = Phase::Opening { since: now };
        if self.state != StreamState::AuthFailed {
            self.state = StreamState::Connecting;
        }
    }

    /// The camera plays. `fps` as it declares it, if it does.
    pub fn opened(&mut self, fps: Option<f64>, now: Instant) {
        self.phase = Phase::Opened { since: now };
        self.state = StreamState::Connecting;
        let period = fps.filter(|fps| (0.001..1000.0).contains(fps)).map(|fps| 1.0 / fps);
        let period = period.map_or(Duration::ZERO, Duration::from_secs_f64);
        self.patience = if period > SLOW { (period * 3).clamp(STALL, PATIENCE_MAX) } else { STALL };
    }

    /// An access unit came.
    pub fn unit(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Playing { last, .. } => *last = now,
            phase => {
                *phase = Phase::Playing { first: now, last: now };
                self.late_refusal = false;
                self.auth_pause = AUTH_FIRST;
            }
        }
        if self.state != StreamState::Live {
            self.state = StreamState::Live;
            self.reason.clear();
        }
    }

    /// The session ended. `jitter` from 0 to 1, so that cameras that failed together do not come
    /// back together. Returns the pause before the next one.
    pub fn ended(&mut self, failure: Failure, now: Instant, jitter: f64) -> Duration {
        let lasted = match self.phase {
            Phase::Playing { first, last } => last - first,
            _ => Duration::ZERO,
        };
        let spread = 0.8 + 0.4 * jitter.clamp(0.0, 1.0);
        let usual = |backoff: &mut Backoff| backoff.pause(lasted).mul_f64(spread).min(LONGEST);
        let (state, reason, pause) = match failure {
            Failure::Unauthorized { late: true, why } if !self.late_refusal => {
                self.late_refusal = true;
                (StreamState::BackingOff, why, usual(&mut self.backoff))
            }
            Failure::Unauthorized { why, .. } => {
                let pause = self.auth_pause;
                self.auth_pause = (pause * 2).min(AUTH_LONGEST);
                // Never shorter than said.
                (StreamState::AuthFailed, why, pause.mul_f64(1.0 + 0.2 * jitter.clamp(0.0, 1.0)))
            }
            Failure::Other(why) if self.state == StreamState::Stalled => {
                (StreamState::Stalled, why, usual(&mut self.backoff))
            }
            Failure::Other(why) => (StreamState::BackingOff, why, usual(&mut self.backoff)),
            Failure::StaleSession { why, wait } => {
                (StreamState::BackingOff, why, usual(&mut self.backoff).max(wait))
            }
        };
        (self.state, self.reason) = (state, reason);
        self.phase = Phase::Pausing { until: now + pause };
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::{FIRST, GOOD};

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn other(why: &str) -> Failure {
        Failure::Other(why.to_owned())
    }

    fn refused(late: bool) -> Failure {
        Failure::Unauthorized { late, why: "wrong password".into() }
    }

    /// Plays pictures every 40 ms from `from` for `ms`.
    fn play(s: &mut Supervision, from: u64, ms: u64) -> u64 {
        s.connecting(at(from));
        s.opened(Some(25.0), at(from));
        for t in (from..=from + ms).step_by(40) {
            assert!(matches!(s.step(at(t)), Step::Wait(_)));
            s.unit(at(t));
        }
        from + ms
    }

    #[test]
    fn a_camera_that_goes_silent_is_given_up_after_three_seconds_and_tried_at_once() {
        let mut s = Supervision::new(at(0));
        assert_eq!(s.step(at(0)), Step::Connect);
        s.connecting(at(0));
        assert_eq!(s.state(), (StreamState::Connecting, ""));
        assert_eq!(s.step(at(1)), Step::Wait(at(10_000)));
        s.opened(None, at(500));
        assert_eq!(s.step(at(500)), Step::Wait(at(12_500)), "a key frame may be far");
        s.unit(at(2_000));
        assert_eq!(s.state(), (StreamState::Live, ""));
        s.unit(at(2_040));
        assert_eq!(s.step(at(5_039)), Step::Wait(at(5_040)));
        let Step::GiveUp(why) = s.step(at(5_040)) else { panic!() };
        assert_eq!(s.state(), (StreamState::Stalled, "the camera stopped sending for 3 s"));
        assert_eq!(s.ended(why, at(5_040), 0.5), FIRST);
        assert_eq!(s.state().0, StreamState::Stalled);
        assert_eq!(s.step(at(5_289)), Step::Wait(at(5_290)));
        assert_eq!(s.step(at(5_290)), Step::Connect);
        s.connecting(at(5_290));
        assert_eq!(s.state().0, StreamState::Connecting);
    }

    #[test]
    fn pauses_double_with_jitter_up_to_thirty_seconds_and_start_again_after_ten_good_seconds() {
        let mut s = Supervision::new(at(0));
        let mut pauses = Vec::new();
        for n in 0..10u32 {
            s.connecting(at(0));
            let jitter = f64::from(n % 3) / 2.0;
            pauses.push(s.ended(other("refused"), at(0), jitter).as_millis());
        }
        assert_eq!(pauses, [200, 500, 1200, 1600, 4000, 9600, 12_800, 30_000, 30_000, 24_000]);
        assert_eq!(s.state(), (StreamState::BackingOff, "refused"));
        // A camera that sends for less than ten seconds is not good.
        let end = play(&mut s, 100_000, 9_960);
        assert!(s.ended(other("reset"), at(end), 0.5) > Duration::from_secs(20));
        let end = play(&mut s, 200_000, GOOD.as_millis() as u64);
        assert_eq!(s.ended(other("reset"), at(end), 0.5), FIRST);
    }

    #[test]
    fn refused_credentials_are_tried_again_slowly() {
        let mut s = Supervision::new(at(0));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            s.connecting(at(0));
            pauses.push(s.ended(refused(false), at(0), 0.0).as_secs());
            assert_eq!(s.state(), (StreamState::AuthFailed, "wrong password"));
        }
        assert_eq!(pauses, [60, 120, 240, 480, 900, 900]);
        assert!(s.ended(refused(false), at(0), 1.0) >= AUTH_LONGEST);
        assert_eq!(s.step(at(1)), Step::Wait(at(1_080_000)));
        s.connecting(at(0));
        assert_eq!(s.state().0, StreamState::AuthFailed, "until it is let in");
    }

    #[test]
    fn a_challenge_that_expired_is_tried_again_at_once_but_only_once() {
        let mut s = Supervision::new(at(0));
        s.connecting(at(0));
        assert_eq!(s.ended(refused(true), at(0), 0.5), FIRST);
        assert_eq!(s.state().0, StreamState::BackingOff);
        s.connecting(at(250));
        assert_eq!(s.ended(refused(true), at(300), 0.0), AUTH_FIRST);
        assert_eq!(s.state().0, StreamState::AuthFailed);
        let end = play(&mut s, 60_300, 400);
        assert!(s.ended(refused(true), at(end), 0.5) < Duration::from_secs(1), "it had played");
    }

    #[test]
    fn a_camera_of_one_picture_in_five_seconds_is_not_stalled() {
        let mut s = Supervision::new(at(0));
        s.connecting(at(0));
        s.opened(Some(0.2), at(0));
        s.unit(at(1_000));
        assert_eq!(s.step(at(1_000)), Step::Wait(at(16_000)));
        s.opened(Some(0.002), at(0));
        s.unit(at(1_000));
        assert_eq!(s.step(at(1_000)), Step::Wait(at(31_000)), "a wrong rate turns it off");
        for odd in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            s.opened(Some(odd), at(0));
            s.unit(at(1_000));
            assert_eq!(s.step(at(1_000)), Step::Wait(at(4_000)));
        }
    }

    #[test]
    fn a_stale_session_is_waited_for() {
        let mut s = Supervision::new(at(0));
        s.connecting(at(0));
        let wait = Duration::from_secs(65);
        let stale = Failure::StaleSession { why: "packets of another session".into(), wait };
        assert_eq!(s.ended(stale, at(0), 0.5), wait);
    }

    #[test]
    fn a_camera_that_does_not_answer_or_sends_nothing_is_given_up() {
        let mut s = Supervision::new(at(0));
        s.connecting(at(0));
        assert_eq!(s.step(at(10_000)), Step::GiveUp(other("the camera does not answer for 10 s")));
        assert_eq!(s.state().0, StreamState::Connecting);
        s.opened(None, at(0));
        let Step::GiveUp(why) = s.step(at(12_000)) else { panic!() };
        assert_eq!(why, other("the camera plays, but sends no picture for 12 s"));
        assert_eq!(s.state().0, StreamState::Stalled);
    }
}
