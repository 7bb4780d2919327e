//! Cameras, and the newest picture of one.

use super::assignments::source;
use super::events::{milliseconds, store_failure};
use super::message::{Answer, Body, Failure, Request};
use super::query::Query;
use crate::camera_url::without_credentials;
use crate::ingest_link::StreamsView;
use crate::live::SchedulerView;
use crate::moment;
use crate::plan::Plan;
use crate::services::Services;
use crate::stills::StillError;

use base::CameraId;
use ipc::clock;
use ipc::desired::DecodeMode;
use ipc::ingest_message::{StreamState, StreamStatus};
use serde_json::{Value, json};
use std::time::Duration;
use store::control::Device;

/// GET /api/v1/devices
pub fn list(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let mut query = Query::of(request);
    let skip = query.number("skip", 0..=u64::from(u32::MAX)).unwrap_or(0);
    let limit = query.number("limit", 1..=1000).unwrap_or(100);
    query.finish()?;
    let rows = services.control.devices().map_err(store_failure)?;
    let published = services.published.get();
    let scheduler = services.live.scheduler();
    let streams = services.ingest.streams();
    let page = rows.iter().skip(skip as usize).take(limit as usize);
    let shown: Vec<Value> =
        page.map(|row| shown(row, services, &published.1, &scheduler, &streams)).collect();
    Ok(Answer::json(&shown.into()))
}

/// GET /api/v1/devices/{id}
pub fn one(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let row = device(services, request.captured(0))?;
    Ok(Answer::json(&shown_now(&row, services)))
}

/// GET /api/v1/devices/{id}/status
pub fn status(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let row = device(services, request.captured(0))?;
    let view = services.ingest.streams();
    let streams: Vec<Value> =
        row.streams.iter().map(|stream| super::streams::row(&row, stream, &view)).collect();
    Ok(Answer::json(&json!({
        "device_id": row.id.as_str(),
        "name": row.name,
        "description": row.description,
        "location": row.location,
        "rtsp_url": row.streams.first().map(|s| without_credentials(&s.url)),
        "is_active": row.enabled && !row.gone,
        "streaming": streaming(&row, &view, None),
        "streams": streams,
        "created_at": moment::text(row.created_at),
        "updated_at": row.updated_at.map(moment::text),
    })))
}

/// What a camera's streams do, in one: active while one of them is live, otherwise the worst state.
pub fn streaming(device: &Device, view: &StreamsView, frames: Option<bool>) -> Value {
    let rank = |state: StreamState| match state {
        StreamState::Stopped => 0,
        StreamState::Live => 1,
        StreamState::Connecting => 2,
        StreamState::Stalled => 3,
        StreamState::BackingOff => 4,
        StreamState::AuthFailed => 5,
    };
    let worst = view.of(&device.id).max_by_key(|status| rank(status.state));
    let live = view.of(&device.id).find(|status| status.state == StreamState::Live);
    let told = |status: &StreamStatus| Some(&status.reason).filter(|r| !r.is_empty()).cloned();
    // A stopped camera may have a thread that can't end.
    let stuck = worst.filter(|status| status.state == StreamState::Stalled);
    let (state, reason) = match (view.fault(), worst) {
        _ if (!device.enabled || device.gone) && stuck.is_some() => {
            (StreamState::Stalled.as_str(), stuck.and_then(told))
        }
        _ if !device.enabled || device.gone => ("stopped", None),
        (Some(fault), _) => ("unknown", Some(fault.to_string())),
        (None, Some(status)) => (status.state.as_str(), told(status)),
        (None, None) => ("unknown", Some("ingest does not know this camera yet".into())),
    };
    let active = live.is_some() || (view.fault().is_some() && frames == Some(true));
    json!({
        "active": active,
        "room_id": active.then(|| device.id.as_str()),
        "started_at": live.map(|status| moment::text(status.since)),
        "state": state,
        "reason": reason,
    })
}

/// GET /api/v1/devices/{id}/frame.jpg
pub fn frame(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let mut query = Query::of(request);
    let max_age = query.number("max_age_ms", 1..=3_600_000).map(Duration::from_millis);
    query.finish()?;
    let row = device(services, request.captured(0))?;
    let still = services.stills.newest(row.id.clone(), max_age).map_err(|error| match error {
        StillError::Absent { .. } => {
            let published = services.published.get();
            match export(&row, services, &published.1, &services.ingest.streams()) {
                (_, Some(reason)) => Failure::not_found(format!("{error}; {reason}")),
                _ => Failure::not_found(error.to_string()),
            }
        }
        StillError::TooOld { .. } => Failure::not_found(error.to_string()),
        _ => Failure::unavailable(error.to_string()),
    })?;
    let stamp = still.stamp;
    let age = clock::monotonic().since(stamp.info.capture);
    let headers = vec![
        ("x-frame-id", stamp.frame_id.0.to_string()),
        ("x-generation", stamp.generation.0.to_string()),
        ("x-media", stamp.info.media.0.to_string()),
        ("x-age-ms", milliseconds(age).to_string()),
    ];
    Ok(Answer { status: 200, content_type: "image/jpeg", headers, body: Body::Still(still) })
}

/// A camera by the id in a path.
pub fn device(services: &Services, text: &str) -> Result<Device, Failure> {
    let id: Option<CameraId> = text.parse().ok();
    let row = id.map(|id| services.control.device(&id)).transpose().map_err(store_failure)?;
    row.flatten().ok_or_else(|| Failure::not_found(format!("there is no camera `{text}`")))
}

/// What is to be decoded of a camera, and when less than everything is, why.
pub fn export(
    device: &Device,
    services: &Services,
    plan: &Plan,
    view: &StreamsView,
) -> (DecodeMode, Option<String>) {
    let planned = plan.cameras.iter().find(|c| c.id == device.id.as_str());
    let decode = planned.map_or(DecodeMode::Off, |c| c.decode);
    let reason = match decode {
        // Wanted: what hinders it, ingest knows.
        DecodeMode::Full | DecodeMode::Keyframes => {
            let mut told = view.of(&device.id).map(|status| &status.export_reason);
            return (decode, told.find(|reason| !reason.is_empty()).cloned());
        }
        DecodeMode::Off if device.gone => Some("the camera is gone from the configuration"),
        DecodeMode::Off if !services.export_enabled => {
            Some("frame export is off on this node, set [frame_export] enabled = true")
        }
        DecodeMode::Off if !device.enabled => Some("the camera is disabled"),
        DecodeMode::Off if !device.export => Some("frame export is off for this camera"),
        DecodeMode::Off => Some("no enabled assignment watches this camera"),
    };
    (decode, reason.map(str::to_owned))
}

/// The word for a decode mode.
pub fn decode_word(mode: DecodeMode) -> &'static str {
    match mode {
        DecodeMode::Off => "off",
        DecodeMode::Keyframes => "keyframes",
        DecodeMode::Full => "full",
    }
}

/// A camera as it is now.
pub fn shown_now(device: &Device, services: &Services) -> Value {
    let published = services.published.get();
    let streams = services.ingest.streams();
    shown(device, services, &published.1, &services.live.scheduler(), &streams)
}

fn shown(
    device: &Device,
    services: &Services,
    plan: &Plan,
    scheduler: &SchedulerView,
    view: &StreamsView,
) -> Value {
    let (decode, reason) = export(device, services, plan, view);
    let status = scheduler
        .fresh_status(clock::monotonic())
        .and_then(|status| status.cameras.iter().find(|c| c.id == device.id));
    let frames = status.filter(|c| c.absent.is_empty());
    let streams: Vec<Value> = device
        .streams
        .iter()
        .map(|s| {
            let url = without_credentials(&s.url);
            json!({"name": s.name, "url": url, "transport": s.transport, "roles": s.roles})
        })
        .collect();
    let main = device.streams.first().map(|s| without_credentials(&s.url));
    json!({
        "id": device.id.as_str(),
        "name": device.name,
        "description": device.description,
        "rtsp_url": main,
        "streams": streams,
        "is_active": device.enabled && !device.gone,
        "location": device.location,
        "enabled": device.enabled,
        "record": device.record,
        "live": device.live,
        "streaming": streaming(device, view, Some(frames.is_some())),
        "export": {
            "wanted": device.export,
            "decode": decode_word(decode),
            "reason": reason,
            "absent": status.map(|c| c.absent.as_str()).filter(|absent| !absent.is_empty()),
            "fps": frames.map(|c| (c.fps * 100.0).round() / 100.0),
            "newest_frame_id": frames.map(|c| c.newest.0.to_string()),
        },
        "source": source(device.source),
        "created_at": moment::text(device.created_at),
        "updated_at": device.updated_at.map(moment::text),
    })
}
