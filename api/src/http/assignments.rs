//! Assignments: which model should watch which camera, and why one is rejected or waits.

use super::events::store_failure;
use super::message::{Answer, Failure, Request};
use super::query::Query;
use crate::moment;
use crate::plan::Plan;
use crate::services::Services;
use base::{CameraId, ModelId};
use serde_json::{Value, json};
use store::control::{Assignment, AssignmentId, Source};

/// GET /api/v1/ai-model-assignments
pub fn list(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let mut query = Query::of(request);
    let camera: Option<CameraId> = query.parse("camera_id");
    let model: Option<ModelId> = query.parse("model_id");
    let enabled = query.flag("enabled");
    let limit = query.number("limit", 1..=1000).unwrap_or(100);
    let offset = query.number("offset", 0..=u64::from(u32::MAX)).unwrap_or(0);
    query.finish()?;
    let mut rows = services.control.assignments().map_err(store_failure)?;
    rows.retain(|row| {
        camera.as_ref().is_none_or(|id| row.camera == *id)
            && model.as_ref().is_none_or(|id| row.model == *id)
            && enabled.is_none_or(|wanted| row.enabled == wanted)
    });
    let published = services.published.get();
    let page = rows.iter().skip(offset as usize).take(limit as usize);
    let shown: Vec<Value> = page.map(|row| shown(row, &published.1)).collect();
    Ok(Answer::json(&json!({
        "assignments": shown, "total": rows.len(), "limit": limit, "offset": offset,
    })))
}

/// GET /api/v1/ai-model-assignments/{id}
pub fn one(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let text = request.captured(0);
    let missing = || Failure::not_found(format!("there is no assignment `{text}`"));
    let id: AssignmentId = text.parse().map_err(|_| missing())?;
    let row = services.control.assignment(&id).map_err(store_failure)?.ok_or_else(missing)?;
    Ok(Answer::json(&shown(&row, &services.published.get().1)))
}

/// The word for where a row came from.
pub fn source(source: Source) -> &'static str {
    match source {
        Source::Config => "config",
        Source::Api => "api",
    }
}

fn shown(row: &Assignment, plan: &Plan) -> Value {
    let rejection = plan.rejected.get(row.id.as_str());
    let waits = plan.waiting.get(row.id.as_str()).filter(|_| row.enabled);
    let state = match rejection {
        _ if row.gone => "gone",
        Some(_) => "rejected",
        None if !row.enabled => "disabled",
        None if waits.is_some() => "waiting",
        None => "accepted",
    };
    json!({
        "id": row.id.as_str(),
        "camera_id": row.camera.as_str(),
        "model_id": row.model.as_str(),
        "parent_model_id": row.parent_model.as_ref().map(ModelId::as_str),
        "enabled": row.enabled,
        "desired_fps": row.desired_fps,
        "priority": row.priority,
        "max_regions": row.max_regions,
        "deadline_ms": row.deadline_ms,
        "parameters": row.parameters,
        "state": state,
        "rejection_reason": rejection,
        "waiting_reason": waits,
        "source": source(row.source),
        "created_at": moment::text(row.created_at),
        "updated_at": row.updated_at.map(moment::text),
    })
}
