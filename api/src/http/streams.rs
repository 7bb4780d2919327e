//! What the streams of cameras do, as ingest tells it.

use super::devices::device;
use super::message::{Answer, Failure, Request};
use super::query::Query;
use crate::camera_url::without_credentials;
use crate::ingest_link::StreamsView;
use crate::moment;
use crate::services::Services;
use base::UtcNanos;
use ipc::ingest_message::{Request as Ask, StreamState};
use serde_json::{Map, Value, json};
use store::control::{Device, Stream};

/// GET /api/v1/streams
pub fn list(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let mut query = Query::of(request);
    let camera: Option<base::CameraId> = query.parse("camera_id");
    query.finish()?;
    let view = services.ingest.streams();
    let devices = services.control.devices()?;
    let rows: Vec<Value> = devices
        .iter()
        .filter(|device| !device.gone && camera.as_ref().is_none_or(|id| device.id == *id))
        .flat_map(|device| device.streams.iter().map(|stream| row(device, stream, &view)))
        .collect();
    Ok(Answer::json(&json!({
        "total": rows.len(),
        "streams": rows,
        "ingest": {
            "status": if view.fault().is_none() { "healthy" } else { "degraded" },
            "reason": view.fault().map(ToString::to_string),
        },
    })))
}

/// One configured stream with what is known of it.
pub fn row(device: &Device, stream: &Stream, view: &StreamsView) -> Value {
    let status = view.stream(&device.id, &stream.name);
    let time = |utc: UtcNanos| (utc.0 > 0).then(|| moment::text(utc));
    let told = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let (state, reason) = match (view.fault(), status) {
        (Some(fault), _) => ("unknown", Some(fault.to_string())),
        (None, Some(status)) => (status.state.as_str(), told(&status.reason)),
        (None, None) if !device.enabled => ("stopped", None),
        (None, None) => ("unknown", Some("ingest does not know this stream yet".into())),
    };
    let size = status.map(|s| s.size).filter(|size| size.width > 0);
    let counters: Map<String, Value> = status
        .iter()
        .flat_map(|s| &s.counters)
        .map(|(name, value)| (name.clone(), (*value).into()))
        .collect();
    json!({
        "id": format!("{}.{}", device.id, stream.name),
        "device_id": device.id.as_str(),
        "name": stream.name,
        "url": without_credentials(&stream.url),
        "transport": stream.transport,
        "roles": stream.roles,
        "enabled": device.enabled,
        "state": state,
        "reason": reason,
        "since": status.and_then(|s| time(s.since)),
        "codec": status.and_then(|s| told(&s.codec)),
        "width": size.map(|size| size.width),
        "height": size.map(|size| size.height),
        "fps": status.map(|s| (s.fps * 100.0).round() / 100.0).filter(|fps| *fps > 0.0),
        "bits_per_second": status.map(|s| s.bits_per_second),
        "last_unit_at": status.and_then(|s| time(s.last_unit)),
        "connects": status.map(|s| s.connects),
        "viewers": status.map(|s| s.viewers),
        "recording": status.map(|s| s.recording),
        "recording_reason": status.and_then(|s| told(&s.recording_reason)),
        "counters": counters,
    })
}

/// GET /api/v1/rtsp/streams
pub fn active(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let view = services.ingest.streams();
    if let Some(fault) = view.fault() {
        return Err(fault.clone().into());
    }
    let mut ids: Vec<&str> = view
        .streams
        .iter()
        .flatten()
        .filter(|status| status.state == StreamState::Live)
        .map(|status| status.camera.as_str())
        .collect();
    ids.dedup();
    Ok(Answer::json(&json!({"status": "success", "active_streams": ids})))
}

/// The camera and stream that a path and `?stream=` name, with what ingest says of it.
fn named(
    services: &Services,
    request: &Request,
) -> Result<(Device, Stream, std::sync::Arc<StreamsView>), Failure> {
    let mut query = Query::of(request);
    let stream = stream_name(&mut query);
    query.finish()?;
    let device = device(services, request.captured(0))?;
    let found = match &stream {
        Some(name) => device.streams.iter().find(|stream| stream.name == *name),
        None => device.streams.first(),
    };
    let Some(found) = found.cloned() else {
        let name = stream.unwrap_or_else(|| "main".into());
        return Err(Failure::not_found(format!("camera `{}` has no {name} stream", device.id)));
    };
    Ok((device, found, services.ingest.streams()))
}

/// `?stream=main|sub`.
pub fn stream_name(query: &mut Query<'_>) -> Option<String> {
    query.read("stream", "main or sub", |text| {
        matches!(text, "main" | "sub").then(|| text.to_owned())
    })
}

/// GET /api/v1/rtsp/streams/{id}/health
pub fn health(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let (device, stream, view) = named(services, request)?;
    let row = row(&device, &stream, &view);
    Ok(Answer::json(&json!({
        "stream_id": device.id.as_str(),
        "stream": stream.name,
        "healthy": row["state"] == "live",
        "status": row["state"],
        "reason": row["reason"],
        "since": row["since"],
        "rtsp_url": row["url"],
        "last_unit_at": row["last_unit_at"],
    })))
}

/// GET /api/v1/rtsp/streams/{id}/stats
pub fn stats(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let (device, stream, view) = named(services, request)?;
    if let Some(fault) = view.fault() {
        return Err(fault.clone().into());
    }
    let row = row(&device, &stream, &view);
    let resolution = match (&row["width"], &row["height"]) {
        (Value::Null, _) | (_, Value::Null) => None,
        (width, height) => Some(format!("{width}x{height}")),
    };
    Ok(Answer::json(&json!({
        "stream_id": device.id.as_str(),
        "stream": stream.name,
        "state": row["state"],
        "codec": row["codec"],
        "resolution": resolution,
        "fps": row["fps"],
        "bitrate": row["bits_per_second"],
        "connects": row["connects"],
        "viewers": row["viewers"],
        "recording": row["recording"],
        "counters": row["counters"],
    })))
}

/// POST /api/v1/rtsp/streams/{id}/reconnect
pub fn reconnect(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let device = device(services, request.captured(0))?;
    if !device.enabled || device.gone {
        return Err(Failure::new(
            409,
            format!(
                "camera `{0}` is stopped; start it with POST /api/v1/devices/{0}/start-stream",
                device.id
            ),
        ));
    }
    let answer = services.ingest.call(&Ask::Reconnect { camera: device.id.clone() })?;
    if !(200..300).contains(&answer.status) {
        return Err(refused(&answer));
    }
    Ok(Answer::json(&json!({"status": "success", "stream_id": device.id.as_str()})))
}

/// What ingest answered, when it said no. Only statuses that are failures are passed on.
pub fn refused(answer: &ipc::ingest_message::Answer) -> Failure {
    let status = if (400..600).contains(&answer.status) { answer.status } else { 502 };
    Failure::new(status, answer.message.clone())
}
