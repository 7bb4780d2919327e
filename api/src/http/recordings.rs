//! Recordings: what days there are, playlists, segments, and what was recorded when.

use super::events::store_failure;
use super::message::{Answer, Body, Failure, MediaFile, Request};
use super::query::Query;
use crate::moment;
use crate::recordings::{self, Part};
use crate::services::Services;
use base::time::NANOS_PER_SEC;
use base::{CameraId, UtcNanos};
use ipc::clock;
use ipc::recording::{Day, Init, SegmentName};
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

/// The playlist without a window goes back so far (chosen: enough to look at what just happened).
const LIVE: u64 = 600 * NANOS_PER_SEC;
/// The longest window of a playlist.
const PLAYLIST_MAX: u64 = 86_400 * NANOS_PER_SEC;
/// The longest window of a timeline.
const TIMELINE_MAX: u64 = 31 * 86_400 * NANOS_PER_SEC;
/// A segment that grew within this time may be the one that is written.
const SETTLED: u64 = 60 * NANOS_PER_SEC;

/// GET /api/v1/recordings/devices/{id}/dates
pub fn dates(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let camera = camera(services, request.captured(0))?;
    let days = services.recordings.days(&camera).map_err(unreadable)?;
    let mut dates = Vec::new();
    for day in days.into_iter().rev() {
        let count = services.recordings.segments(&camera, day).map_err(unreadable)?.len();
        if count > 0 {
            let (year, month, number) = day.civil();
            dates.push(json!({
                "date": day.to_string(),
                "formatted": format!("{year:04}-{month:02}-{number:02}"),
                "segments_count": count,
            }));
        }
    }
    Ok(Answer::json(&json!({
        "status": "success",
        "device_id": camera.as_str(),
        "dates": dates,
    })))
}

/// GET /api/v1/recordings/devices/{id}/playlist
pub fn playlist(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let mut query = Query::of(request);
    let date = query.read("date", "a day as YYYYMMDD", Day::parse);
    let of_day = "a time of day as HH:MM:SS";
    let start_time = query.read("start_time", of_day, time_of_day);
    let end_time = query.read("end_time", of_day, time_of_day);
    let start = query.time("start");
    let end = query.end_time("end");
    let mut window = None;
    let in_a_day = date.is_some() || start_time.is_some() || end_time.is_some();
    match (start, end) {
        (None, None) if in_a_day => {
            let midnight = date.unwrap_or_else(|| Day::of(clock::utc())).start().0;
            let from = start_time.map_or(0, |(nanos, _)| nanos);
            // The last second is meant whole.
            let to = end_time.map_or(86_400 * NANOS_PER_SEC, |(nanos, whole)| {
                if whole { nanos + NANOS_PER_SEC } else { nanos }
            });
            window = Some((UtcNanos(midnight + from), UtcNanos(midnight + to)));
            if from >= to {
                query.refuse(
                    "end_time",
                    "",
                    "is not after start_time; for a window through \
                    midnight give start and end",
                );
            }
        }
        (None, None) => {}
        _ if in_a_day => query.refuse("date", "", "is given together with start or end"),
        (start, end) => {
            let (start, end) = open_window(start, end, LIVE, PLAYLIST_MAX);
            window = Some((start, end));
            check_window(&mut query, start, end, PLAYLIST_MAX);
        }
    }
    query.finish()?;
    let camera = camera(services, request.captured(0))?;
    let store = &services.recordings;
    let text = match window {
        Some((start, end)) => {
            let rows = store.playable(&camera, start, end).map_err(unreadable)?;
            recordings::on_demand(&rows, start).ok_or_else(|| {
                format!(
                    "nothing of camera {camera} was recorded from {} to {}",
                    moment::text(start),
                    moment::text(end)
                )
            })
        }
        None => {
            let rows = store.recent(&camera, clock::utc(), LIVE).map_err(unreadable)?;
            recordings::live(&rows).ok_or_else(|| {
                let minutes = LIVE / NANOS_PER_SEC / 60;
                format!("nothing of camera {camera} was recorded in the last {minutes} minutes")
            })
        }
    };
    let text = text.map_err(|why| {
        let path = format!("/api/v1/recordings/devices/{camera}/dates");
        Failure::not_found(format!("{why}; {path} lists the days there are"))
    })?;
    let body = Body::Owned(text.into_bytes());
    let content_type = "application/vnd.apple.mpegurl";
    Ok(Answer { status: 200, content_type, headers: vec![], body })
}

/// GET /api/v1/recordings/devices/{id}/{segment}
pub fn segment(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let camera = camera(services, request.captured(0))?;
    let asked = request.captured(1);
    let absent = || Failure::not_found(format!("camera {camera} has no segment `{asked}`"));
    let (name, part) = recordings::part(asked).ok_or_else(absent)?;
    let path = services.recordings.segment(&camera, name);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
        opened => opened.map_err(unreadable)?,
    };
    let told = file.metadata().map_err(unreadable)?;
    let range = match part {
        Part::Whole => 0..told.len(),
        Part::Initialisation => {
            let init = Init::read(&file).map_err(unreadable)?.ok_or_else(absent)?;
            0..init.bytes
        }
        Part::Fragments(from, to) if to <= told.len() => from..to,
        Part::Fragments(..) => return Err(absent()),
    };
    let (first, bytes) = (range.start, range.end - range.start);
    // A segment only grows: its parts stay what they are, the whole of an open one does not.
    let settled = part != Part::Whole || settled(services, &camera, name).map_err(unreadable)?;
    let tag = settled.then(|| format!("\"{:x}-{first:x}-{bytes:x}\"", told.ino()));
    Ok(Answer::file("video/mp4", MediaFile { file, first, bytes, tag }))
}

/// Whether a segment grows no more: another one follows it, or it is long ago.
fn settled(services: &Services, camera: &CameraId, name: SegmentName) -> io::Result<bool> {
    let last = services.recordings.segments(camera, name.day())?.last().copied();
    let grown = std::fs::metadata(services.recordings.segment(camera, name))?.modified()?;
    let since = grown.elapsed().unwrap_or_default();
    Ok(last != Some(name) || base::time::nanos(since) > SETTLED)
}

/// GET /api/v1/recordings/devices/{id}/timeline
pub fn timeline(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let mut query = Query::of(request);
    let start = query.time("start");
    let end = query.end_time("end");
    let (start, end) = open_window(start, end, 86_400 * NANOS_PER_SEC, TIMELINE_MAX);
    check_window(&mut query, start, end, TIMELINE_MAX);
    query.finish()?;
    let camera = camera(services, request.captured(0))?;
    let (ranges, gaps) = services.recordings.timeline(&camera, start, end).map_err(unreadable)?;
    let span = |start: UtcNanos, end: UtcNanos| {
        let duration_ms = (end.0 - start.0) / 1_000_000;
        json!({
            "start": moment::text(start), "end": moment::text(end), "duration_ms": duration_ms,
        })
    };
    let shown = ranges.iter().map(|range| {
        let mut value = span(range.start, range.end);
        value["frames"] = range.frames.into();
        value["bytes"] = range.bytes.into();
        value
    });
    Ok(Answer::json(&json!({
        "device_id": camera.as_str(),
        "start": moment::text(start),
        "end": moment::text(end),
        "ranges": shown.collect::<Vec<Value>>(),
        "gaps": gaps.iter().map(|gap| span(gap.start, gap.end)).collect::<Vec<Value>>(),
    })))
}

/// A window of which an end may be missing: it goes on until now, or as far as it may; it begins as
/// long before its end as is usual.
fn open_window(
    start: Option<UtcNanos>,
    end: Option<UtcNanos>,
    usual: u64,
    longest: u64,
) -> (UtcNanos, UtcNanos) {
    let furthest = start.map_or(UtcNanos::FAR, |start| UtcNanos(start.0.saturating_add(longest)));
    let end = end.unwrap_or_else(|| clock::utc().min(furthest));
    (start.unwrap_or(UtcNanos(end.0.saturating_sub(usual))), end)
}

fn check_window(query: &mut Query<'_>, start: UtcNanos, end: UtcNanos, longest: u64) {
    if end <= start {
        query.refuse("end", &moment::text(end), "is not after start");
    } else if end.0 - start.0 > longest {
        let hours = longest / NANOS_PER_SEC / 3600;
        query.refuse("end", &moment::text(end), format!("is more than {hours} hours after start"));
    }
}

/// A camera that there is, or that there was: its recordings outlive it.
fn camera(services: &Services, text: &str) -> Result<CameraId, Failure> {
    let absent = || Failure::not_found(format!("there is no camera `{text}`"));
    let id: CameraId = text.parse().map_err(|_| absent())?;
    let known = services.control.device(&id).map_err(store_failure)?.is_some()
        || !services.recordings.days(&id).map_err(unreadable)?.is_empty();
    if known { Ok(id) } else { Err(absent()) }
}

fn unreadable(error: io::Error) -> Failure {
    tracing::error!("recordings can't be read: {error}");
    Failure::unavailable(format!("the recordings can't be read: {error}"))
}

/// Nanoseconds since midnight, and whether they are whole seconds.
fn time_of_day(text: &str) -> Option<(u64, bool)> {
    let (clock, fraction) = text.split_once('.').map_or((text, ""), |(c, f)| (c, f));
    let mut parts = clock.split(':');
    let mut number = |most: u64| -> Option<u64> {
        let part = parts.next()?;
        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse().ok().filter(|value| digits && *value <= most)
    };
    let seconds = (number(23)? * 60 + number(59)?) * 60 + number(59)?;
    let digits = fraction.len() <= 9 && fraction.bytes().all(|b| b.is_ascii_digit());
    let done = parts.next().is_none() && digits && (text.len() == 8 || !fraction.is_empty());
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    done.then_some((seconds * NANOS_PER_SEC + nanos, fraction.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day() {
        assert_eq!(time_of_day("14:30:05"), Some((52_205 * NANOS_PER_SEC, true)));
        assert_eq!(time_of_day("14:30:05.25"), Some((52_205_250_000_000, false)));
        for text in [
            "",
            "14:30",
            "24:00:00",
            "14:60:00",
            "14:30:5",
            "1:30:05",
            "14:30:05.",
            "14:30:05Z",
            "14:30:05:07",
            "14:30:+5",
            "14:30:05.1234567890",
        ] {
            assert_eq!(time_of_day(text), None, "{text}");
        }
    }
}
