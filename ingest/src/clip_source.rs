//! A clip as the source of a stream: played in real time, looped, times from its container.

use crate::backoff::LogGate;
use crate::clip::ClipError;
use crate::container::{ClipReader, ClipUnit, StreamInfo};
use crate::outlets::Description;
use crate::pacing::{ClipClock, Joints, LATE, Pacing, Verdict};
use crate::source::ClipPath;
use crate::stream::Actor;
use crate::unit::{AccessUnit, Codec, UnitFlags};
use base::{Instant, UtcNanos};
use ipc::clock;
use ipc::ingest_message::StreamState;
use std::sync::Arc;
use std::time::Duration;

/// Why a clip is not played any further.
pub enum Ended {
    /// The stream stops or has other settings.
    Changed,
    /// It can't be read.
    Failed(ClipError),
}

/// Plays a clip until something changes or it can't be read.
pub fn play(actor: &mut Actor, file: &ClipPath, gate: &mut LogGate) -> Ended {
    let ClipPath { path, places } = file;
    let (source, offset) = (actor.settings.source.clone(), actor.settings.offset);
    actor.health.set(StreamState::Connecting, "");
    let health = Arc::clone(&actor.health);
    let mut clip = match health.wait_for(path, || ClipReader::open_in(path, places)) {
        Ok(clip) => clip,
        Err(error) => return Ended::Failed(error),
    };
    if gate.clear() {
        tracing::info!(stream = %actor.id, "clip {} can be played again", path.display());
    }
    let info = clip.info();
    let StreamInfo { codec, fps, hints, .. } = info;
    actor.describe(Description { codec, fps, hints }, info.size);
    actor.health.connected();
    actor.health.set(StreamState::Live, "");
    let (start, origin) = entry(info, offset, actor.origin, clock::monotonic());
    // Without an index the clip is decoded from its first picture up to the start.
    let sought = health.wait_for(path, || if clip.seek(start) { Ok(()) } else { clip.rewind() });
    if let Err(error) = sought {
        return Ended::Failed(error);
    }
    let mut loops = ClipClock::new(info.tick, start);
    let mut pacing = Pacing::new(origin);
    let mut joints = Joints::new(info.tick);
    let mut told = false;
    let mut begin = Some(origin);
    let mut discontinuity = true;
    loop {
        let mut unit = match health.wait_for(path, || clip.next()) {
            Ok(Some(unit)) => unit,
            Ok(None) => {
                if !loops.turn() {
                    let detail = "it has no picture left; check the file".to_owned();
                    return Ended::Failed(ClipError { path: path.clone(), detail });
                }
                if let Err(error) = health.wait_for(path, || clip.rewind()) {
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
            tracing::warn!(stream = %actor.id, "clip {}: its times jump at {:.1} s; it is \
                played on without the jump, remux it to be rid of it", path.display(),
                info.tick.nanos(unit.sent) as f64 / 1e9);
        }
        discontinuity |= jumped;
        unit.shift(shift);
        loops.saw(unit.end);
        actor.counters.units.add(1);
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
                    actor.counters.skipped.add(1);
                    break false;
                }
            };
            if actor.wait(until) && actor.leave(&source, offset) {
                return Ended::Changed;
            }
        };
        // Without a pause before it, a change is seen here.
        while actor.changes() {
            if actor.wait(None) && actor.leave(&source, offset) {
                return Ended::Changed;
            }
        }
        if emit {
            send(actor, unit, &mut begin, &mut discontinuity, &loops, info.codec);
        }
    }
}

/// Puts times and flags on a unit and hands it on.
fn send(
    actor: &mut Actor,
    unit: ClipUnit,
    begin: &mut Option<Instant>,
    discontinuity: &mut bool,
    loops: &ClipClock,
    codec: Codec,
) {
    let (capture, capture_utc) = (clock::monotonic(), clock::utc());
    let position = loops.media_ticks(unit.shown);
    if let Some(origin) = begin.take() {
        // Due times and UTC meet at the origin, not where this thread happened to wake up.
        let utc = utc_at(capture_utc, capture, origin);
        let ahead = loops.nanos(unit.shown);
        actor.timeline.begin(position, UtcNanos(utc.0.saturating_add_signed(ahead)));
    }
    // A picture that leads the first key frame can't be decoded and has no time.
    let Some(media) = actor.timeline.stamp(position) else { return };
    let flags = UnitFlags::when(unit.key, UnitFlags::KEY)
        .with(UnitFlags::when(std::mem::take(discontinuity), UnitFlags::DISCONTINUITY))
        .with(UnitFlags::when(unit.new_parameters, UnitFlags::NEW_PARAMETERS))
        .with(UnitFlags::when(unit.loss, UnitFlags::LOSS))
        .with(UnitFlags::when(unit.decoding_time, UnitFlags::DECODING_TIME))
        .with(UnitFlags::when(loops.nanos(unit.shown) < 0, UnitFlags::PREROLL));
    let data = unit.data;
    actor.emit(AccessUnit { codec, data, media, capture, capture_utc, flags });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pacing::TickLength;
    use crate::worker_message::Hints;

    #[test]
    fn a_camera_that_comes_late_is_where_it_would_be() {
        let tick = TickLength { numerator: 1, denominator: 10_240 };
        let (codec, hints) = (Codec::H264, Hints::default());
        let (size, duration) = (None, Some(307_200));
        let info = StreamInfo { codec, fps: 10.0, hints, tick, duration, size };
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

    #[test]
    fn utc_is_carried_to_another_moment() {
        let at = |then| utc_at(UtcNanos(1000), Instant(500), Instant(then)).0;
        assert_eq!((at(400), at(500), at(650)), (900, 1000, 1150));
    }
}
