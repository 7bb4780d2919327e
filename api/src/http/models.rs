//! The registry of models.

use super::events::{milliseconds, store_failure};
use super::message::{Answer, Failure, Request};
use super::query::Query;
use crate::live::SchedulerView;
use crate::moment;
use crate::parameters::ParametersSchema;
use crate::registry::Model;
use crate::services::Services;
use base::UtcNanos;
use ipc::clock;
use ipc::events_message::RunnerState;
use serde_json::{Value, json};
use std::collections::HashMap;

type Rows = HashMap<String, store::control::Model>;

/// GET /api/v1/ai-models
pub fn list(services: &Services, request: &Request) -> Result<Answer, Failure> {
    let mut query = Query::of(request);
    let enabled = query.flag("enabled");
    query.finish()?;
    let rows = rows(services)?;
    let scheduler = services.live.scheduler();
    let mut models: Vec<&Model> = services
        .registry
        .iter()
        .filter(|model| enabled.is_none_or(|wanted| model.enabled() == wanted))
        .collect();
    let created = |model: &Model| rows.get(&model.id).map_or(UtcNanos(0), |row| row.created_at);
    models.sort_by(|a, b| created(b).cmp(&created(a)).then_with(|| a.id.cmp(&b.id)));
    let shown: Vec<Value> = models.iter().map(|model| shown(model, &rows, &scheduler)).collect();
    Ok(Answer::json(&json!({"total": shown.len(), "models": shown})))
}

/// GET /api/v1/ai-models/{model_id}
pub fn one(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let id = request.captured(0);
    let Some(model) = services.registry.get(id) else {
        return Err(Failure::not_found(format!("there is no model `{id}`")));
    };
    Ok(Answer::json(&shown(model, &rows(services)?, &services.live.scheduler())))
}

fn rows(services: &Services) -> Result<Rows, Failure> {
    let rows = services.control.models().map_err(store_failure)?;
    Ok(rows.into_iter().map(|row| (row.id.to_string(), row)).collect())
}

fn shown(model: &Model, rows: &Rows, scheduler: &SchedulerView) -> Value {
    let row = rows.get(&model.id);
    let (availability, reason) = match &model.spec {
        Ok(_) => ("available", Value::Null),
        Err(u) => ("unavailable", json!({"kind": u.kind.as_str(), "message": u.reason})),
    };
    let spec = model.spec.as_ref().ok();
    json!({
        "model_id": model.id,
        "name": spec.map_or(model.id.as_str(), |s| s.name.as_str()),
        "version": spec.map(|s| s.version.as_str()),
        "description": spec.and_then(|s| s.description.as_deref()),
        "author": spec.and_then(|s| s.author.as_deref()),
        "license": spec.and_then(|s| s.license.as_deref()),
        "supported_tasks": spec.map_or(&[][..], |s| &s.supported_tasks),
        "config_schema": model.config_schema.as_ref().map(ParametersSchema::text),
        "labels": spec.map_or(&[][..], |s| &s.labels),
        "input": spec.map(|s| json!({"width": s.input.size.width, "height": s.input.size.height})),
        "confidence_threshold": spec.map(|s| super::events::rounded(s.confidence_threshold)),
        "batch_max": spec.map(|s| s.batch_max),
        "deadline_ms": spec.map(|s| milliseconds(s.deadline)),
        "enabled": model.enabled(),
        "availability": availability,
        "unavailable_reason": reason,
        "runners": runners(&model.id, scheduler),
        "created_at": row.map(|r| moment::text(r.created_at)),
        "updated_at": row.and_then(|r| r.updated_at).map(moment::text),
    })
}

/// The runners of a model as the scheduler described them; empty while no scheduler is connected.
fn runners(id: &str, scheduler: &SchedulerView) -> Vec<Value> {
    let status = scheduler.fresh_status(clock::monotonic());
    let Some((_, models)) = scheduler.models.as_ref().filter(|_| scheduler.connected) else {
        return vec![];
    };
    let of_this = models.iter().filter(|m| m.model_id.as_str() == id);
    let one = |m: &ipc::events_message::ModelInfo| {
        let newer = status.and_then(|s| {
            s.runners.iter().find(|r| r.model_id == m.model_id && r.device == m.device)
        });
        json!({
            "device": m.device.as_str(),
            "version": m.model_version,
            "state": runner_state(newer.map_or(m.state, |r| r.state)),
            "runtime": m.runtime,
            "batch_max": m.batch_max,
        })
    };
    of_this.map(one).collect()
}

/// The word for a runner's state.
pub fn runner_state(state: RunnerState) -> &'static str {
    match state {
        RunnerState::Ready => "ready",
        RunnerState::Profiling => "profiling",
        RunnerState::Late => "late",
        RunnerState::Demoted => "demoted",
        RunnerState::Hung => "hung",
    }
}
