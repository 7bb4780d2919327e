//! Stored events: lists and single ones.

use super::message::{Answer, Failure, Request};
use super::query::Query;
use crate::limits::LIST_BYTES_MAX;
use crate::moment;
use crate::services::{ClassNames, Services};
use base::{CameraId, Detection, FrameDetections, ModelId, Stages};
use serde_json::{Map, Value, json};
use std::time::Duration;
use store::query::{LIMIT_MAX, OFFSET_MAX};
use store::{Cursor, Event, EventId, EventQuery, Page, StoreError};

/// Events of a page without `limit`.
const LIMIT_DEFAULT: u32 = 100;

/// GET /api/v1/ai-events
pub fn list(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let mut query = Query::of(request);
    let camera = query.parse("camera_id");
    page(services, query, camera)
}

/// GET /api/v1/ai-events/cameras/{camera_id}/events
pub fn of_camera(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let text = request.captured(0);
    let camera: Option<CameraId> = text.parse().ok();
    let known = camera.as_ref().map(|id| services.control.device(id)).transpose();
    let Some(device) = known.map_err(store_failure)?.flatten() else {
        return Err(Failure::not_found(format!("there is no camera `{text}`")));
    };
    page(services, Query::of(request), Some(device.id))
}

/// GET /api/v1/ai-events/{id}
pub fn one(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let text = request.captured(0);
    let missing = || Failure::not_found(format!("there is no event `{text}`"));
    let id: EventId = text.parse().map_err(|_| missing())?;
    let event = services.events.get(id).map_err(store_failure)?.ok_or_else(missing)?;
    let event = shown(&event, &mut ClassNames::new(services)).map_err(store_failure)?;
    Ok(Answer::json(&event))
}

fn page(
    services: &Services,
    mut query: Query<'_>,
    camera: Option<CameraId>,
) -> Result<Answer, Failure> {
    let mut model: Option<ModelId> = query.parse("model_id");
    let start = query.time("start_time");
    let end = query.end_time("end_time");
    let by_id = query.number("class_id", 0..=u64::from(u16::MAX));
    let by_name = query.text("class");
    let limit = query.number("limit", 1..=u64::from(LIMIT_MAX)).map_or(LIMIT_DEFAULT, |n| n as u32);
    let offset = query.number("offset", 0..=u64::from(OFFSET_MAX)).map(|n| n as u32);
    let cursor = query.parse("cursor");
    if let (Some(offset), Some(_)) = (offset, cursor) {
        query.refuse("offset", &offset.to_string(), "can't be given together with cursor");
    }
    if let (Some(start), Some(end)) = (start, end)
        && start > end
    {
        query.refuse("start_time", &moment::text(start), "is after end_time");
    }
    let mut class_id = by_id.map(|n| n as u16);
    if let Some(name) = by_name {
        match class_named(services, name, model.as_ref()) {
            Ok((id, of)) if class_id.is_none_or(|given| given == id) => {
                class_id = Some(id);
                model = model.or(of);
            }
            Ok((id, _)) => {
                query.refuse("class", name, format!("is class {id}, not the given class_id"));
            }
            Err(message) => query.refuse("class", name, message),
        }
    }
    query.finish()?;
    let page = match (cursor, offset) {
        (Some(cursor), _) => Page::After(cursor),
        (None, Some(offset)) if offset > 0 => Page::Offset(offset),
        _ => Page::First,
    };
    let filter = EventQuery { camera, model, start, end, class_id, limit, page };
    let found = services.events.list(&filter).map_err(store_failure)?;
    let mut names = ClassNames::new(services);
    // One event after the other becomes text: the list is never in memory as values.
    let mut list = String::new();
    let mut next = found.next;
    let mut before: Option<EventId> = None;
    for event in &found.events {
        let text = shown(event, &mut names).map_err(store_failure)?.to_string();
        if let Some(before) = before.filter(|_| list.len() + text.len() > LIST_BYTES_MAX) {
            next = Some(Cursor::after(before));
            break;
        }
        if before.is_some() {
            list.push(',');
        }
        list.push_str(&text);
        before = Some(event.id);
    }
    let rest = json!({
        "next_cursor": next.map(|cursor| cursor.to_string()),
        "limit": limit,
        "offset": offset.unwrap_or(0),
        "total": found.total,
    })
    .to_string();
    let rest = rest.trim_start_matches('{');
    Ok(Answer::json_text(format!("{{\"events\":[{list}],{rest}")))
}

/// What a class name means: of the given model, else of the one model that has it, else the id on
/// which all models that use the id agree.
fn class_named(
    services: &Services,
    name: &str,
    model: Option<&ModelId>,
) -> Result<(u16, Option<ModelId>), String> {
    let specs = || {
        let specs = services.registry.iter().filter_map(|entry| entry.spec.as_ref().ok());
        specs.filter(|spec| model.is_none_or(|m| spec.model_id == *m))
    };
    let holders: Vec<(usize, &ModelId)> = specs()
        .filter_map(|spec| {
            Some((spec.labels.iter().position(|label| label == name)?, &spec.model_id))
        })
        .collect();
    let Some((id, first)) = holders.first() else {
        return Err("is no class of a configured model; see labels of /api/v1/ai-models".into());
    };
    let class_id = u16::try_from(*id).map_err(|_| "is beyond the largest class id".to_owned())?;
    if holders.len() == 1 {
        return Ok((class_id, Some((*first).clone())));
    }
    let users = specs().filter(|spec| spec.labels.len() > *id).count();
    if users == holders.len() && holders.iter().all(|(other, _)| other == id) {
        return Ok((class_id, None));
    }
    let each: Vec<String> = holders.iter().map(|(id, m)| format!("{m}: {id}")).collect();
    Err(format!("is numbered differently by models ({}), give model_id", each.join(", ")))
}

fn shown(event: &Event, names: &mut ClassNames<'_>) -> Result<Value, StoreError> {
    let content = &event.content;
    let names = names.of(&content.model, &content.model_version)?;
    Ok(json!({
        "id": event.id.to_string(),
        "camera_id": content.camera.as_str(),
        "model_id": content.model.as_str(),
        "model_version": content.model_version,
        "device": content.device.as_str(),
        "timestamp": moment::text(content.capture_utc),
        "generation": content.generation.0.to_string(),
        "frame_id": content.frame_id.0.to_string(),
        "media": content.media.0.to_string(),
        "frame": {"width": content.frame.width, "height": content.frame.height},
        "detections": detections(&content.detections, names),
        "confidence": event.confidence().map(rounded),
        "age_ms": milliseconds(event.age()),
        "stages": stages(&content.stages),
        "event_metadata": content.metadata.as_ref().map(store::Json::value),
        "created_at": moment::text(event.created_at),
    }))
}

/// Detections with their class names; null where nobody ever told the name.
pub fn detections(found: &FrameDetections, names: &[String]) -> Value {
    let point = |index: usize| {
        let of_this = found.keypoints.iter().filter(|k| k.detection as usize == index);
        let one = |k: &base::Keypoint| json!({"kind": k.kind, "x": rounded(k.x), "y": rounded(k.y), "confidence": rounded(k.score)});
        of_this.map(one).collect::<Vec<_>>()
    };
    let one = |(index, d): (usize, &Detection)| {
        let corners = [d.bbox.x1, d.bbox.y1, d.bbox.x2, d.bbox.y2].map(rounded);
        let mut shown = json!({
            "class_id": d.class_id,
            "class_name": names.get(usize::from(d.class_id)),
            "confidence": rounded(d.score),
            "bbox": corners,
        });
        if d.track.0 != 0 {
            shown["track_id"] = d.track.0.into();
        }
        let points = point(index);
        if !points.is_empty() {
            shown["keypoints"] = points.into();
        }
        shown
    };
    found.detections.iter().enumerate().map(one).collect()
}

/// Stages by name, milliseconds.
pub fn stages(stages: &Stages) -> Value {
    let pairs = Stages::NAMES.iter().zip(stages.as_array());
    let shown: Map<String, Value> =
        pairs.map(|(name, d)| (format!("{name}_ms"), milliseconds(d).into())).collect();
    shown.into()
}

/// Milliseconds with three decimals.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Six decimals: a thousandth of a pixel of the largest frame.
pub fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1e6).round() / 1e6
}

/// 503: the store can't be read or written now.
pub fn store_failure(error: StoreError) -> Failure {
    tracing::error!("store: {error}");
    Failure::unavailable(format!("the store can't be used now: {error}"))
}
