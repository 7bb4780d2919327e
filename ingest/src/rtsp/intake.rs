//! Pictures as the RTSP library gives them, made into access units on the camera's timeline.
//!
//! No input ends a session: what can't be used is counted and dropped, and what leans on it is
//! flagged.

use super::syntax::{PictureKind, reorders};
use crate::counters::Counters;
use crate::timeline::{RtpLine, Timeline};
use crate::unit::{AccessUnit, Codec, UnitFlags};
use crate::worker_message::PAYLOAD_MAX;
use base::{Instant, UtcNanos};
use retina::codec::{VideoFrame, VideoParameters, VideoParametersCodec};

/// What becomes of the pictures of one stream, session after session.
#[derive(Debug, Default)]
pub struct Intake {
    line: RtpLine,
    /// The key frame of the session came.
    begun: bool,
    /// Something before the next unit is missing.
    loss: bool,
    /// Annex B parameter sets of the last key frame.
    parameters: Vec<u8>,
    /// H.265: pictures may be shown in another order than they are sent.
    reorders: bool,
    steps: u64,
}

impl Intake {
    /// A session begins: nothing leads to its first pictures.
    pub fn session(&mut self) {
        (self.begun, self.loss) = (false, false);
    }

    /// A packet could not be understood.
    pub fn unreadable(&mut self, counters: &Counters) {
        counters.unreadable.add(1);
        self.loss = true;
    }

    /// The access unit of a picture that came at `capture`, `capture_utc`; `None` when it is of no
    /// use.
    pub fn take(
        &mut self,
        (timeline, counters): (&mut Timeline, &Counters),
        codec: Codec,
        frame: VideoFrame,
        parameters: Option<&VideoParameters>,
        (capture, capture_utc): (Instant, UtcNanos),
    ) -> Option<AccessUnit> {
        counters.units.add(1);
        counters.packets_lost.add(u64::from(frame.loss()));
        self.loss |= frame.loss() > 0;
        let (random, position) = (frame.is_random_access_point(), frame.timestamp().timestamp());
        let data = frame.into_data();
        let kind = PictureKind::of(codec, &data).filter(|_| data.len() <= PAYLOAD_MAX);
        // Parameter sets or nonsense alone, or more than any picture.
        let Some(kind) = kind else {
            self.unreadable(counters);
            return None;
        };
        let key = random && kind.random_access && parameters.is_some();
        let mut flags = UnitFlags::when(key, UnitFlags::KEY);
        if let Some(parameters) = parameters.filter(|_| key) {
            flags = flags.with(self.keep(parameters));
        }
        if !self.begun && !key {
            counters.before_key.add(1);
            return None;
        }
        // What is missing before a key frame that begins where it should does not concern it.
        let loss = std::mem::take(&mut self.loss) && !(key && kind.whole);
        flags = flags.with(UnitFlags::when(loss, UnitFlags::LOSS));
        let media = if std::mem::replace(&mut self.begun, true) {
            let reorders = kind.bidirectional || codec == Codec::H265 && self.reorders;
            let placed = self.line.place(timeline, position, reorders, capture);
            let steps = self.line.steps();
            counters.clock_steps.add(steps - std::mem::replace(&mut self.steps, steps));
            let Some(media) = placed else {
                counters.before_key.add(1);
                return None;
            };
            media
        } else {
            flags = flags.with(UnitFlags::DISCONTINUITY);
            self.line.begin(timeline, position, capture, capture_utc)
        };
        Some(AccessUnit { codec, data, media, capture, capture_utc, flags })
    }

    /// Keeps the parameter sets of a key frame; says whether they are new.
    fn keep(&mut self, parameters: &VideoParameters) -> UnitFlags {
        let sets = parameters.extra_data();
        if sets == self.parameters {
            return UnitFlags::default();
        }
        self.parameters = sets.to_vec();
        if let VideoParametersCodec::H265 { sps, .. } = parameters.codec_params() {
            self.reorders = reorders(sps).unwrap_or(true);
        }
        UnitFlags::NEW_PARAMETERS
    }
}
