//! Bookmarks: clips cut from the recording, by jobs that are asked for here and run elsewhere.

use super::devices::device;
use super::message::{Answer, Failure, Request};
use super::query::Query;
use super::snapshots::{failure, file, names, protected, source, time};
use crate::media::files::Kind;
use crate::moment;
use crate::services::Services;
use base::time::NANOS_PER_SEC;
use base::{CameraId, UtcNanos};
use ipc::clock;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use store::control::{Bookmark, JobState, MediaId, Moment};

/// Seconds of a clip when nobody says (spec V10).
const SECONDS_DEFAULT: u64 = 6;
/// Longest clip.
pub const SECONDS_MAX: u64 = base::limits::CLIP_MAX.as_secs();

/// POST /api/v1/bookmarks/devices/{id}/capture/live
pub fn capture_live(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let device = device(services, request.captured(0))?;
    let camera = &device.id;
    if !device.record {
        return Err(Failure::new(
            409,
            format!(
                "camera `{camera}` is not recorded; set record to true with PUT /api/v1/devices/{camera}"
            ),
        ));
    }
    let view = services.ingest.streams();
    let refused = view.of(camera).find(|s| !s.recording && !s.recording_reason.is_empty());
    if let Some(status) = refused {
        let reason = &status.recording_reason;
        return Err(Failure::new(409, format!("camera `{camera}` is not recorded now: {reason}")));
    }
    let end = clock::utc();
    let start = UtcNanos(end.0.saturating_sub(seconds(request) * NANOS_PER_SEC));
    ask(services, request, camera, Moment::Live, (start, end), None)
}

/// POST /api/v1/bookmarks/devices/{id}/capture/historical
pub fn capture_historical(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let device = device(services, request.captured(0))?;
    let either = |long: &'static str, short: &'static str| match time(request, long)? {
        Some(at) => Ok::<_, Failure>(Some(at)),
        None => time(request, short),
    };
    let center = time(request, "center_timestamp")?;
    let start = either("start_timestamp", "start")?;
    let end = either("end_timestamp", "end")?;
    let half = seconds(request) * NANOS_PER_SEC / 2;
    let (start, end) = match (center, start, end) {
        (None, Some(start), Some(end)) => (start, end),
        (Some(at), None, None) => {
            (UtcNanos(at.0.saturating_sub(half)), UtcNanos(at.0.saturating_add(half)))
        }
        _ => {
            let message = "give either center_timestamp, or start_timestamp and end_timestamp";
            return Err(Failure::wrong("center_timestamp", "", message));
        }
    };
    let shown = |at| moment::text(at);
    if end <= start {
        return Err(Failure::wrong("end_timestamp", &shown(end), "is not after the start"));
    }
    let length = (end.0 - start.0).div_ceil(NANOS_PER_SEC);
    if length > SECONDS_MAX {
        let message = format!("makes a clip of {length} s, allowed are {SECONDS_MAX}");
        return Err(Failure::wrong("end_timestamp", &shown(end), message));
    }
    if end > clock::utc() {
        return Err(Failure::wrong("end_timestamp", &shown(end), "lies in the future"));
    }
    ask(services, request, &device.id, Moment::Historical, (start, end), center)
}

fn seconds(request: &Request) -> u64 {
    request.body["duration"].as_f64().map_or(SECONDS_DEFAULT, |seconds| seconds as u64)
}

fn ask(
    services: &Services,
    request: &Request,
    camera: &CameraId,
    source: Moment,
    (start, end): (UtcNanos, UtcNanos),
    center: Option<UtcNanos>,
) -> Result<Answer, Failure> {
    let middle = UtcNanos(start.0 + (end.0 - start.0) / 2);
    let bookmark = Bookmark {
        id: MediaId::random(),
        camera: camera.clone(),
        center: center.unwrap_or(middle),
        start,
        end,
        label: label(request),
        source,
        state: JobState::Pending,
        file_size: 0,
        gaps_ms: 0,
        thumbnail: false,
        protected: protected(request).unwrap_or(false),
        created_at: UtcNanos(0),
        updated_at: None,
    };
    let row = services.media.clips.ask(&services.control, bookmark).map_err(failure)?;
    let shown = shown(&row, &names(services)?);
    let mut answer = Answer::json_with(202, &json!({"status": "success", "bookmark": shown}));
    answer.headers.push(("location", format!("/api/v1/bookmarks/{}", row.id)));
    Ok(answer)
}

fn label(request: &Request) -> Option<String> {
    request.body["label"].as_str().filter(|label| !label.is_empty()).map(str::to_owned)
}

/// GET /api/v1/bookmarks
pub fn list(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let mut query = Query::of(request);
    let camera: Option<CameraId> = query.parse("device_id");
    let skip = query.number("skip", 0..=u64::from(u32::MAX)).unwrap_or(0) as usize;
    let limit = query.number("limit", 1..=500).unwrap_or(100) as usize;
    query.finish()?;
    let page = services.control.read(|read| read.bookmarks(camera.as_ref(), skip, limit))?;
    let names = names(services)?;
    let rows: Vec<Value> = page.rows.iter().map(|row| shown(row, &names)).collect();
    Ok(Answer::json(&json!({
        "bookmarks": rows, "total": page.total, "page": skip / limit + 1, "page_size": limit,
    })))
}

/// GET /api/v1/bookmarks/{id}
pub fn one(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let row = bookmark(services, request)?;
    Ok(Answer::json(&shown(&row, &names(services)?)))
}

/// PUT /api/v1/bookmarks/{id}
pub fn update(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let id = bookmark(services, request)?.id;
    let given = request.body.get("label").is_some();
    let change = |row: &mut Bookmark| {
        if given {
            row.label = label(request);
        }
        row.protected = protected(request).unwrap_or(row.protected);
    };
    let row = services.media.update_bookmark(&id, change)?;
    let row = row.ok_or_else(|| missing(id.as_str()))?;
    Ok(Answer::json(&shown(&row, &names(services)?)))
}

/// DELETE /api/v1/bookmarks/{id}
pub fn delete(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let row = bookmark(services, request)?;
    services.media.delete_bookmark(&row)?;
    Ok(Answer::nothing())
}

/// GET /api/v1/bookmarks/{id}/video
pub fn video(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let row = bookmark(services, request)?;
    done(&row)?;
    file("video/mp4", services.media.files.open(Kind::Bookmarks, &row.camera, &row.id, "mp4"))
}

/// GET /api/v1/bookmarks/{id}/thumbnail
pub fn thumbnail(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let row = bookmark(services, request)?;
    done(&row)?;
    if !row.thumbnail {
        return Err(Failure::not_found(format!("bookmark `{}` has no thumbnail", row.id)));
    }
    file("image/jpeg", services.media.files.open(Kind::Bookmarks, &row.camera, &row.id, "jpg"))
}

fn done(row: &Bookmark) -> Result<(), Failure> {
    let told = match &row.state {
        JobState::Done => return Ok(()),
        JobState::Pending => "waits for its turn; ask again".to_owned(),
        JobState::Running => "is being cut; ask again".to_owned(),
        JobState::Failed(reason) => format!("has no clip: {reason}"),
    };
    Err(Failure::new(409, format!("bookmark `{}` {told}", row.id)))
}

fn missing(text: &str) -> Failure {
    Failure::not_found(format!("there is no bookmark `{text}`"))
}

fn bookmark(services: &Services, request: &Request) -> Result<Bookmark, Failure> {
    let text = request.captured(0);
    let id: MediaId = text.parse().map_err(|_| missing(text))?;
    services.control.bookmark(&id)?.ok_or_else(|| missing(text))
}

fn shown(row: &Bookmark, names: &BTreeMap<CameraId, String>) -> Value {
    let (state, reason) = match &row.state {
        JobState::Pending => ("pending", None),
        JobState::Running => ("running", None),
        JobState::Done => ("done", None),
        JobState::Failed(reason) => ("failed", Some(reason)),
    };
    let ready = row.state == JobState::Done;
    let duration = (row.end.0.saturating_sub(row.start.0)) as f64 / NANOS_PER_SEC as f64;
    json!({
        "id": row.id.as_str(),
        "device_id": row.camera.as_str(),
        "device_name": names.get(&row.camera),
        "center_timestamp": moment::text(row.center),
        "start_timestamp": moment::text(row.start),
        "end_timestamp": moment::text(row.end),
        "label": row.label,
        "protected": row.protected,
        "source": source(row.source),
        "state": state,
        "failure_reason": reason,
        "duration": (duration * 1000.0).round() / 1000.0,
        "gaps_ms": row.gaps_ms,
        "video_format": "mp4",
        "file_size": ready.then_some(row.file_size),
        "video_url": ready.then(|| format!("/api/v1/bookmarks/{}/video", row.id)),
        "thumbnail_url":
            (ready && row.thumbnail).then(|| format!("/api/v1/bookmarks/{}/thumbnail", row.id)),
        "created_at": moment::text(row.created_at),
        "updated_at": row.updated_at.map(moment::text),
    })
}
