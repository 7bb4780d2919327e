//! Snapshots: pictures taken on request, kept until somebody deletes them.

use super::devices::device;
use super::message::{Answer, Failure, MediaFile, Request};
use super::query::Query;
use super::streams::refused;
use crate::media::MediaError;
use crate::media::files::Kind;
use crate::media::job::JobError;
use crate::moment;
use crate::services::Services;
use crate::stills::StillError;
use base::time::NANOS_PER_SEC;
use base::{CameraId, UtcNanos};
use ipc::clock;
use ipc::desired::DecodeMode;
use ipc::ingest_message::Request as Ask;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::time::Duration;
use store::control::{MediaId, Moment, Snapshot};

/// A frame of the ring is what the camera shows when it is not older (chosen: the ring of a camera
/// with one frame a second still counts).
const FRESH: Duration = Duration::from_millis(1500);

/// Nanoseconds after which a picture is in the recording (fragments last at most 0.8 s, and the
/// recorder looks every 0.15 s).
const ON_DISK: u64 = NANOS_PER_SEC;

/// POST /api/v1/snapshots/devices/{id}/capture/live
pub fn capture_live(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let protect = protected(request).unwrap_or(false);
    let camera = device(services, request.captured(0))?.id;
    let published = services.published.get();
    let decoded = |c: &&ipc::desired::DesiredCamera| c.id == camera.as_str();
    let planned = published.1.cameras.iter().find(decoded);
    if planned.is_some_and(|c| c.decode == DecodeMode::Full) {
        match services.stills.newest(camera.clone(), Some(FRESH)) {
            Ok(still) => {
                let kept = services.media.keep_still(&camera, &still, protect).map_err(failure)?;
                return taken(services, &kept);
            }
            // Ingest may have a picture all the same.
            Err(StillError::Absent { .. } | StillError::TooOld { .. }) => {}
            Err(error) => tracing::warn!("{error}; asking ingest for a picture"),
        }
    }
    let stream = String::new();
    let answer = services.ingest.call(&Ask::Pictures { camera: camera.clone(), stream })?;
    let nothing = !(200..300).contains(&answer.status) || answer.pictures.is_empty();
    if nothing && planned.is_some_and(|c| c.record) {
        // Nobody watches it live: the recording has what was just shown.
        let at = UtcNanos(clock::utc().0.saturating_sub(ON_DISK));
        match services.media.keep_just_recorded(&camera, at, protect) {
            Ok(kept) => return taken(services, &kept),
            Err(error @ MediaError::NoRoom(_)) => return Err(failure(error)),
            Err(_) => {}
        }
    }
    if !(200..300).contains(&answer.status) {
        return Err(refused(&answer));
    }
    if answer.pictures.is_empty() {
        return Err(Failure::not_found(format!(
            "camera `{camera}` has shown no picture yet; see GET /api/v1/devices/{camera}/status"
        )));
    }
    let kept = services.media.keep_newest(&camera, &answer.codec, &answer.pictures, protect);
    taken(services, &kept.map_err(failure)?)
}

/// POST /api/v1/snapshots/devices/{id}/capture/historical
pub fn capture_historical(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let camera = device(services, request.captured(0))?.id;
    let at = time(request, "timestamp")?
        .ok_or_else(|| Failure::wrong("timestamp", "", "is required and missing"))?;
    let protect = protected(request).unwrap_or(false);
    let kept = services.media.keep_at(&camera, at, protect).map_err(failure)?;
    taken(services, &kept)
}

/// What the body says of protection from retention.
pub fn protected(request: &Request) -> Option<bool> {
    request.body["protected"].as_bool()
}

/// A time of the body.
pub fn time(request: &Request, key: &str) -> Result<Option<UtcNanos>, Failure> {
    let Some(text) = request.body[key].as_str() else { return Ok(None) };
    moment::parse(text).map(Some).map_err(|error| Failure::wrong(key, text, error.to_string()))
}

/// GET /api/v1/snapshots
pub fn list(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let mut query = Query::of(request);
    let camera: Option<CameraId> = query.parse("device_id");
    let skip = query.number("skip", 0..=u64::from(u32::MAX)).unwrap_or(0) as usize;
    let limit = query.number("limit", 1..=1000).unwrap_or(100) as usize;
    query.finish()?;
    let page = services.control.read(|read| read.snapshots(camera.as_ref(), skip, limit))?;
    let names = names(services)?;
    let rows: Vec<Value> = page.rows.iter().map(|row| shown(row, &names)).collect();
    Ok(Answer::json(&json!({
        "status": "success", "count": rows.len(), "total": page.total, "snapshots": rows,
    })))
}

/// GET /api/v1/snapshots/{id}
pub fn one(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let row = snapshot(services, request)?;
    Ok(Answer::json(&shown(&row, &names(services)?)))
}

/// GET /api/v1/snapshots/{id}/image
pub fn image(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let row = snapshot(services, request)?;
    file("image/jpeg", services.media.files.open(Kind::Snapshots, &row.camera, &row.id, "jpg"))
}

/// PUT /api/v1/snapshots/{id}
pub fn update(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let row = snapshot(services, request)?;
    let Some(protect) = protected(request) else {
        return Ok(Answer::json(&shown(&row, &names(services)?)));
    };
    let row = services.media.update_snapshot(&row.id, |row| row.protected = protect)?;
    let row = row.ok_or_else(|| missing(request))?;
    Ok(Answer::json(&shown(&row, &names(services)?)))
}

/// DELETE /api/v1/snapshots/{id}
pub fn delete(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let row = snapshot(services, request)?;
    services.media.delete_snapshot(&row)?;
    Ok(Answer::nothing())
}

/// A file of the media folder.
pub fn file(content_type: &'static str, opened: io::Result<File>) -> Result<Answer, Failure> {
    match opened.and_then(MediaFile::of) {
        Ok(file) => Ok(Answer::file(content_type, file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::new(410, "the file is not there any more; somebody removed it"))
        }
        Err(error) => Err(Failure::unavailable(format!("the file can't be read: {error}"))),
    }
}

/// Names of the cameras that exist.
pub fn names(services: &Services) -> Result<BTreeMap<CameraId, String>, Failure> {
    let rows = services.control.devices()?;
    Ok(rows.into_iter().map(|row| (row.id, row.name)).collect())
}

/// The word for what a picture or clip was taken from.
pub fn source(moment: Moment) -> &'static str {
    match moment {
        Moment::Live => "live",
        Moment::Historical => "historical",
    }
}

/// What to answer when there is no picture or clip.
pub fn failure(error: MediaError) -> Failure {
    let text = error.to_string();
    match error {
        MediaError::Store(error) => error.into(),
        MediaError::NoRoom(_) => Failure::new(507, text),
        MediaError::Job(JobError::Refused { code, .. }) => Failure::new(code, text),
        MediaError::Job(JobError::Stopping) | MediaError::Full => Failure::unavailable(text),
        MediaError::Job(_) | MediaError::File { .. } => {
            tracing::error!("{text}");
            Failure::new(500, text)
        }
    }
}

fn taken(services: &Services, row: &Snapshot) -> Result<Answer, Failure> {
    let shown = shown(row, &names(services)?);
    Ok(Answer::json(&json!({"status": "success", "snapshot": shown})))
}

fn snapshot(services: &Services, request: &Request) -> Result<Snapshot, Failure> {
    let id: MediaId = request.captured(0).parse().map_err(|_| missing(request))?;
    services.control.snapshot(&id)?.ok_or_else(|| missing(request))
}

fn missing(request: &Request) -> Failure {
    Failure::not_found(format!("there is no snapshot `{}`", request.captured(0)))
}

fn shown(row: &Snapshot, names: &BTreeMap<CameraId, String>) -> Value {
    json!({
        "id": row.id.as_str(),
        "device_id": row.camera.as_str(),
        "device_name": names.get(&row.camera),
        "timestamp": moment::text(row.timestamp),
        "source": source(row.source),
        "format": "jpg",
        "width": row.width,
        "height": row.height,
        "file_size": row.file_size,
        "protected": row.protected,
        "url": format!("/api/v1/snapshots/{}/image", row.id),
        "created_at": moment::text(row.created_at),
    })
}
