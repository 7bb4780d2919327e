//! Clips: a window of recordings as one MP4, cut and not encoded again.
//!
//! It begins at the key picture at or before the window, and an edit list makes it show from where
//! the window begins. Time is real: where nothing was recorded, the last picture stays. Other
//! parameters inside the window are another sample entry.

use super::still;
use super::take::{Shot, Take};
use super::{Done, Failed, store};
use crate::mp4::progressive::{Clip, ClipSample};
use base::time::NANOS_PER_SEC;
use base::{CameraId, MediaTime, UtcNanos};
use ipc::recording::Recordings;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};
use tracing::warn;

/// The longest window: what 32 bits of 90 kHz can hold as one picture's duration, rounded.
const WINDOW_MAX: u64 = 12 * 3600 * NANOS_PER_SEC;
/// How long decoding the thumbnail may take (chosen: many times what a group of 4K pictures takes, and
/// a small part of what a job may).
const THUMBNAIL_WAIT: Duration = Duration::from_secs(5);

fn ticks(nanos: u64) -> u64 {
    let ticks = u128::from(nanos) * u128::from(MediaTime::RATE) / u128::from(NANOS_PER_SEC);
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// Cuts a clip, and makes a picture of its middle when that can be decoded in time.
pub fn cut(
    recordings: &Path,
    camera: &CameraId,
    window: Range<UtcNanos>,
    output: &Path,
    thumbnail: &Path,
) -> Result<Done, Failed> {
    let Range { start, end } = window;
    if end <= start || end.0 - start.0 > WINDOW_MAX {
        return Err(Failed::new(
            422,
            format!(
                "a clip is from 0 to {} hours long; {} to {} is not",
                WINDOW_MAX / NANOS_PER_SEC / 3600,
                still::iso(start),
                still::iso(end)
            ),
        ));
    }
    let recordings = Recordings::new(recordings);
    let mut take = Take::load(&recordings, camera, start, end)?;
    // Up to the last picture, in decoding order, that begins inside the window.
    let inside = take.shots.iter().rposition(|shot| shot.utc < end).map_or(0, |last| last + 1);
    take.shots.truncate(inside);
    let shows = |shot: &&Shot| shot.utc.0.saturating_add(shot.nanos()) > start.0 && shot.utc < end;
    let Some(first) = take.shots.iter().filter(shows).map(|shot| shot.utc).min() else {
        return Err(Failed::new(
            404,
            format!(
                "nothing of camera {camera} was recorded from {} to {}",
                still::iso(start),
                still::iso(end)
            ),
        ));
    };
    let last = take.shots.iter().map(|shot| shot.utc.0.saturating_add(shot.nanos())).max();
    let shown = start.max(first)..UtcNanos(last.unwrap_or(first.0)).min(end);
    let clip = clip(&take, &shown);
    let head = clip.head();
    let bytes = store(output, |file| {
        file.write_all(&head)?;
        take.copy(&take.shots, file)
    })?;
    let middle = UtcNanos(shown.start.0 + (shown.end.0 - shown.start.0) / 2);
    // The clip is good without it.
    let deadline = Instant::now() + THUMBNAIL_WAIT;
    let pictured = take
        .decode_until(take.shown_at(middle).unwrap_or(0), Some(deadline))
        .and_then(|(picture, pixels)| still::jpeg(&picture, &pixels, middle, thumbnail));
    if let Err(error) = pictured {
        warn!("clip {} has no thumbnail: {error}", output.display());
    }
    let rows = recordings.window(camera, start, end).map_err(Failed::reading)?;
    let (_, gaps) = ipc::recording::ranges(&rows, start, end);
    let missing: u64 = gaps.iter().map(|gap| gap.end.0 - gap.start.0).sum();
    Ok(Done::Clip {
        start_utc_ns: shown.start.0,
        end_utc_ns: shown.end.0,
        duration_ms: clip.duration * 1000 / MediaTime::RATE,
        bytes,
        gaps_ms: missing / 1_000_000,
    })
}

/// The tables of a clip.
fn clip(take: &Take, shown: &Range<UtcNanos>) -> Clip {
    // Each unbroken piece keeps its own media time, and begins where it belongs in real time.
    let mut times: Vec<u64> = Vec::with_capacity(take.shots.len());
    let (mut shift, mut least) = (0i128, 0);
    let origin = take.shots.first().map_or(UtcNanos(0), |shot| shot.utc);
    let mut delay = 0;
    for shot in &take.shots {
        let decode = i128::from(shot.sample.decode);
        if shot.after_gap {
            let place = ticks(shot.utc.0.saturating_sub(origin.0));
            if times.is_empty() {
                delay = i128::from(shot.sample.composition);
            }
            // The first picture is shown at `delay`, so that it can be decoded at 0.
            let place = i128::from(place) + delay - i128::from(shot.sample.composition);
            shift = place - decode;
        }
        let time = u64::try_from(decode + shift).unwrap_or(0).max(least);
        least = time + 1;
        times.push(time);
    }
    let samples: Vec<ClipSample> = take
        .shots
        .iter()
        .enumerate()
        .map(|(at, shot)| ClipSample {
            bytes: shot.sample.bytes,
            duration: times.get(at + 1).map_or(shot.sample.duration, |next| {
                u32::try_from(next - times[at]).unwrap_or(u32::MAX)
            }),
            composition: shot.sample.composition,
            key: shot.sample.key,
            entry: shot.init as u32,
        })
        .collect();
    let skipped = ticks(shown.start.0.saturating_sub(origin.0));
    let first = take.inits.first();
    Clip {
        entries: take.inits.iter().map(|init| init.sample_entry.clone()).collect(),
        size: first.map_or((0, 0), |init| init.size()),
        samples,
        start: u64::try_from(delay).unwrap_or(0) + skipped,
        duration: ticks(shown.end.0 - shown.start.0),
    }
}
