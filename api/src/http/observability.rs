//! What happens now: everything the live table shows, and the health of cameras and models.

use super::devices::{decode_word, export, streaming};
use super::events::{detections, milliseconds, stages};
use super::message::{Answer, Failure, Request};
use super::models::runner_state;
use super::query::Query;
use crate::commit::EventCounters;
use crate::live::{DeviceUse, SchedulerView, SubscriptionView};
use crate::moment;
use crate::plan::Plan;
use crate::services::{ClassNames, Services};
use base::{Instant, LatencyEntry, MemberError, ModelId, Stages};
use ipc::clock;
use ipc::desired::DesiredSubscription;
use ipc::events_message::{
    CameraStatus, INVARIANTS, Ledger, RunnerState, RunnerStatus, Status, SubscriptionState,
    SubscriptionStatus,
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// GET /ai/observability/status
pub fn status(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let now = clock::monotonic();
    let scheduler = services.live.scheduler();
    let fresh = scheduler.fresh_status(now);
    let published = services.published.get();
    Ok(Answer::json(&json!({
        "timestamp": moment::text(clock::utc()),
        "version": services.version,
        "uptime_seconds": now.since(services.started).as_secs(),
        "scheduler": shown_scheduler(&scheduler, now),
        "desired_state": {
            "revision": published.0,
            "rejected_assignments": published.1.rejected.len(),
        },
        "cameras": cameras(services, fresh),
        "subscriptions": subscriptions(services, fresh, now),
        "runners": runners(&scheduler, fresh),
        "devices": devices(fresh, &services.live.device_use()),
        "store": store(&services.counters),
    })))
}

/// GET /ai/observability/health
pub fn health(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let now = clock::monotonic();
    let scheduler = services.live.scheduler();
    let fresh = scheduler.fresh_status(now);
    let published = services.published.get();
    let views = services.live.subscriptions(now);
    let cameras: Vec<Value> = published
        .1
        .cameras
        .iter()
        .map(|camera| {
            let status = fresh.and_then(|s| s.cameras.iter().find(|c| c.id.as_str() == camera.id));
            let of_this = |s: &&SubscriptionStatus| s.camera.as_str() == camera.id;
            let subscriptions: Vec<Value> =
                fresh.iter().flat_map(|s| &s.subscriptions).filter(of_this).map(counters).collect();
            json!({
                "camera_id": camera.id,
                "state": match status {
                    None => "unknown",
                    Some(status) if status.absent.is_empty() => "healthy",
                    Some(_) => "degraded",
                },
                "absent": status.map(|s| s.absent.as_str()).filter(|absent| !absent.is_empty()),
                "fps": status.map(|s| two_decimals(s.fps)),
                "subscription_count": subscriptions.len(),
                "subscriptions": subscriptions,
            })
        })
        .collect();
    let models: Vec<(&'static str, Value)> = services
        .registry
        .iter()
        .map(|model| model_health(&model.id, model.spec.is_ok(), fresh, &scheduler, &views))
        .collect();
    let overall = match models.as_slice() {
        [] => "unknown",
        all if all.iter().all(|(state, _)| *state == "healthy") => "healthy",
        all if all.iter().all(|(state, _)| *state == "unknown") => "unknown",
        _ => "degraded",
    };
    let models: Vec<Value> = models.into_iter().map(|(_, shown)| shown).collect();
    Ok(Answer::json(&json!({
        "status": overall,
        "timestamp": moment::text(clock::utc()),
        "camera_count": cameras.len(),
        "model_count": models.len(),
        "cameras": cameras,
        "models": models,
    })))
}

/// State of the scheduler and, when it is not healthy, why.
pub fn scheduler_state(view: &SchedulerView, now: Instant) -> (&'static str, Option<String>) {
    match &view.status {
        _ if !view.connected && view.connections == 0 => {
            ("unknown", Some("no scheduler has connected yet; start `vas scheduler`".into()))
        }
        _ if !view.connected => ("degraded", Some("the scheduler is not connected".into())),
        None => ("unknown", Some("the scheduler has sent no status yet".into())),
        Some((at, _)) if view.fresh_status(now).is_none() => {
            let age = now.since(*at).as_secs();
            ("degraded", Some(format!("the last status is {age} s old")))
        }
        Some(_) => ("healthy", None),
    }
}

fn shown_scheduler(view: &SchedulerView, now: Instant) -> Value {
    let (state, reason) = scheduler_state(view, now);
    let last = view.status.as_ref();
    json!({
        "status": state,
        "reason": reason,
        "connected": view.connected,
        "connections": view.connections,
        "refused_messages": view.refused_messages,
        "status_age_ms": last.map(|(at, _)| milliseconds(now.since(*at))),
        "instance": last.map(|(_, s)| s.instance.to_string()),
        "desired_epoch": last.map(|(_, s)| s.desired_epoch.to_string()),
        "desired_revision": last.map(|(_, s)| s.desired_revision),
        "results_dropped": last.map(|(_, s)| s.results_dropped),
        "broken_invariants": last.map(|(_, s)| broken(s)),
    })
}

/// What the scheduler found wrong with itself, by the name of the invariant; nothing = all is well.
fn broken(status: &Status) -> Map<String, Value> {
    let all = INVARIANTS.iter().zip(status.broken);
    all.filter(|(_, n)| *n > 0).map(|(name, n)| ((*name).to_owned(), n.into())).collect()
}

fn cameras(services: &Services, fresh: Option<&Status>) -> Vec<Value> {
    // Without the registry there are no names and reasons, and the table is still of use.
    let rows = services.control.devices().unwrap_or_default();
    let rows: BTreeMap<&str, _> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    let published = services.published.get();
    let by_id: BTreeMap<&str, &CameraStatus> =
        fresh.iter().flat_map(|s| &s.cameras).map(|c| (c.id.as_str(), c)).collect();
    let view = services.ingest.streams();
    let one = |camera: &ipc::desired::DesiredCamera| {
        let row = rows.get(camera.id.as_str());
        let streaming = row.map_or(Value::Null, |row| streaming(row, &view, None));
        let streams = || row.iter().flat_map(|row| view.of(&row.id));
        let halted = streams().map(|s| &s.recording_reason).find(|reason| !reason.is_empty());
        let reason = row.and_then(|row| export(row, services, &published.1, &view).1);
        let status = by_id.get(camera.id.as_str());
        let frames = status.filter(|status| status.absent.is_empty());
        json!({
            "id": camera.id,
            "name": row.map_or(camera.id.as_str(), |row| row.name.as_str()),
            "enabled": camera.enabled,
            "decode": decode_word(camera.decode),
            "decode_reason": reason,
            "stream_state": streaming["state"].as_str().unwrap_or("unknown"),
            "stream_reason": streaming["reason"],
            "live": camera.live,
            "record": camera.record,
            "recording": streams().any(|s| s.recording),
            "recording_reason": halted,
            "viewers": streams().map(|s| s.viewers).sum::<u32>(),
            "state": match status {
                None => "unknown",
                Some(_) if frames.is_some() => "frames",
                Some(_) => "no_frames",
            },
            "absent": status.map(|s| s.absent.as_str()).filter(|absent| !absent.is_empty()),
            "fps": frames.map(|s| two_decimals(s.fps)),
            "generation": status.map(|s| s.generation.0.to_string()),
            "newest_frame_id": status.map(|s| s.newest.0.to_string()),
        })
    };
    published.1.cameras.iter().map(one).collect()
}

/// Assignments that are planned, those that are rejected, and what the scheduler or results still
/// speak of although it is neither.
fn subscriptions(services: &Services, fresh: Option<&Status>, now: Instant) -> Vec<Value> {
    let published = services.published.get();
    let plan = &published.1;
    let rows = services.control.assignments().unwrap_or_default();
    let rows: BTreeMap<&str, _> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    let planned: BTreeMap<&str, _> =
        plan.subscriptions.iter().map(|s| (s.id.as_str(), s)).collect();
    let views = services.live.subscriptions(now);
    let views: BTreeMap<&str, &SubscriptionView> =
        views.iter().map(|v| (v.id.as_str(), v)).collect();
    let status: BTreeMap<&str, &SubscriptionStatus> =
        fresh.iter().flat_map(|s| &s.subscriptions).map(|s| (s.id.as_str(), s)).collect();
    let mut ids: BTreeSet<&str> = planned.keys().copied().collect();
    ids.extend(plan.rejected.keys().map(String::as_str));
    ids.extend(status.keys());
    ids.extend(views.keys());
    let mut names = ClassNames::new(services);
    let mut shown = Vec::with_capacity(ids.len());
    for id in ids {
        let (status, view) = (status.get(id).copied(), views.get(id).copied());
        let (row, planned) = (rows.get(id), planned.get(id));
        let camera = row.map(|r| r.camera.as_str());
        let camera = camera.or(status.map(|s| s.camera.as_str()));
        let model = row.map(|r| r.model.as_str()).or(status.map(|s| s.model_id.as_str()));
        let parent = row.and_then(|r| r.parent_model.as_ref());
        let (state, reason) = match (plan.rejected.get(id), status, planned) {
            (Some(reason), ..) => ("rejected", reason.clone()),
            (None, _, Some(planned)) if let Some(reason) = waits(plan, planned, fresh) => {
                ("waiting", reason)
            }
            (None, Some(status), _) => (subscription_state(status.state), status.reason.clone()),
            (None, None, Some(planned)) if !planned.enabled => ("paused", String::new()),
            (None, None, _) => ("unknown", "no fresh status from the scheduler".into()),
        };
        let mut one = json!({
            "id": id,
            "camera_id": camera.or(view.map(|v| v.camera.as_str())),
            "model_id": model.or(view.map(|v| v.model.as_str())),
            "parent_model_id": parent.map(ModelId::as_str),
            "state": state,
            "reason": Some(reason).filter(|reason| !reason.is_empty()),
            "max_fps": status.map_or(planned.and_then(|p| p.max_fps), |s| s.max_fps),
            "granted_fps": status.map(|s| two_decimals(s.granted_fps)),
            "ledger": status.map(|s| ledger(&s.ledger)),
        });
        add_results(&mut one, view, &mut names, now);
        shown.push(one);
    }
    shown
}

/// Why a second stage has nothing to look at although it could: its parent does not run.
fn waits(plan: &Plan, child: &DesiredSubscription, fresh: Option<&Status>) -> Option<String> {
    let parent = child.parent_model.as_ref().filter(|_| child.enabled)?;
    if let Some(reason) = plan.waiting.get(&child.id) {
        return Some(reason.clone());
    }
    let subscriptions = &fresh?.subscriptions;
    let of_child = subscriptions.iter().find(|s| s.id == child.id)?;
    if of_child.reason == "no_parent" {
        return Some(format!("the scheduler runs no parent model `{parent}` on this camera"));
    }
    if of_child.state != SubscriptionState::Active {
        return None; // It has a reason of its own.
    }
    let of_parent = plan
        .subscriptions
        .iter()
        .find(|s| s.camera == child.camera && s.model == *parent && s.parent_model.is_none())?;
    let state = subscriptions.iter().find(|s| s.id == of_parent.id)?.state;
    (state != SubscriptionState::Active)
        .then(|| format!("parent model `{parent}` is {}", subscription_state(state)))
}

fn add_results(
    shown: &mut Value,
    view: Option<&SubscriptionView>,
    names: &mut ClassNames<'_>,
    now: Instant,
) {
    let latest = view.and_then(|v| v.latest.as_ref());
    let labels = match (view, latest) {
        (Some(view), Some(latest)) => {
            names.of(&view.model, &latest.model_version).unwrap_or_default()
        }
        _ => &[],
    };
    let errors: Map<String, Value> = MemberError::ALL
        .iter()
        .enumerate()
        .map(|(i, e)| (e.as_str().to_owned(), view.map_or(0, |v| v.errors[i]).into()))
        .collect();
    let class = |(id, count): (&u16, &u64)| {
        let results = view.map_or(1, |v| v.results.max(1));
        json!({
            "class_id": id,
            "class_name": labels.get(usize::from(*id)),
            "count": count,
            "per_frame": two_decimals(*count as f64 / results as f64),
        })
    };
    shown["device"] = view.map(|v| v.device.as_str()).into();
    shown["results"] = view.map_or(0, |v| v.results).into();
    shown["empties"] = view.map_or(0, |v| v.empties).into();
    shown["errors"] = errors.into();
    shown["classes"] = view.iter().flat_map(|v| &v.classes).map(class).collect();
    shown["age"] = json!({
        "window": "last 30 to 60 s",
        "results": view.map_or(0, |v| v.window_results),
        "p50_ms": view.and_then(|v| v.age_p50).map(milliseconds),
        "p99_ms": view.and_then(|v| v.age_p99).map(milliseconds),
    });
    shown["stages"] = view.and_then(|v| v.stage_means).map_or(Value::Null, |s| stages(&s));
    shown["latest"] = latest.map_or(Value::Null, |latest| {
        let item = &latest.item;
        json!({
            "generation": item.generation.0.to_string(),
            "frame_id": item.frame_id.0.to_string(),
            "media": item.media.0.to_string(),
            "timestamp": moment::text(item.capture_utc),
            "frame": {"width": item.size.width, "height": item.size.height},
            "age_ms": milliseconds(item.received.since(item.capture)),
            "since_ms": milliseconds(now.since(item.received)),
            "detections": item.outcome.as_ref().map_or(Value::Null, |f| detections(f, labels)),
        })
    });
}

fn ledger(l: &Ledger) -> Value {
    let [frame, engine, postprocess, parameters, request] = l.errors;
    json!({
        "observed": l.observed, "pending": l.pending, "gated": l.gated,
        "superseded": l.superseded, "unserved_parked": l.unserved_parked,
        "unserved_no_runner": l.unserved_no_runner, "unserved_paused": l.unserved_paused,
        "unserved_gap": l.unserved_gap, "expired": l.expired, "crowded": l.crowded,
        "bound": l.bound,
        "sampled": l.sampled, "torn": l.torn, "error_frame": frame, "error_engine": engine,
        "error_postprocess": postprocess, "error_parameters": parameters,
        "error_request": request, "revoked": l.revoked, "expired_late": l.expired_late,
        "lost_with_runner": l.lost_with_runner, "in_flight": l.in_flight,
        "balanced": l.balanced(),
    })
}

fn runners(scheduler: &SchedulerView, fresh: Option<&Status>) -> Vec<Value> {
    let described = scheduler.models.as_ref().map(|(_, models)| models.as_slice());
    let one = |r: &RunnerStatus| {
        let of_this =
            |m: &&ipc::events_message::ModelInfo| m.model_id == r.model_id && m.device == r.device;
        let described = described.unwrap_or_default().iter().find(of_this);
        let members = u32::try_from(r.members).ok().filter(|n| *n > 0);
        let means = members.map(|n| stages(&Stages::from_array(r.stage_sums.map(|sum| sum / n))));
        let entry = |e: &LatencyEntry| json!({"batch": e.batch, "p50_ms": milliseconds(e.p50), "p99_ms": milliseconds(e.p99)});
        let size = (r.batches > 0).then(|| two_decimals(r.members as f64 / r.batches as f64));
        json!({
            "model_id": r.model_id.as_str(),
            "device": r.device.as_str(),
            "instance": r.instance.to_string(),
            "state": runner_state(r.state),
            "version": described.map(|d| d.model_version.as_str()),
            "runtime": described.map(|d| d.runtime.as_str()),
            "batches": r.batches,
            "members": r.members,
            "mean_batch": size,
            "batch_size": r.batch_size,
            "batch_planned": two_decimals(r.batch_planned),
            "interval_ms": milliseconds(r.interval),
            "steered": r.steered,
            "busy_ms": milliseconds(r.busy),
            "stages": means,
            "latency": r.latency.entries().iter().map(entry).collect::<Vec<_>>(),
        })
    };
    fresh.iter().flat_map(|s| &s.runners).map(one).collect()
}

fn devices(fresh: Option<&Status>, shares: &DeviceUse) -> Vec<Value> {
    let one = |d: &ipc::events_message::DeviceStatus| {
        json!({
            "id": d.id.as_str(),
            "suspect": d.suspect,
            "busy_ms": milliseconds(d.busy),
            "load": two_decimals(d.load),
            "overloaded": d.overloaded,
            "busy_share": shares.get(&d.id).map(|share| two_decimals(*share)),
        })
    };
    fresh.iter().flat_map(|s| &s.devices).map(one).collect()
}

fn store(counters: &EventCounters) -> Value {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    json!({
        "stored": read(&counters.stored),
        "dropped": read(&counters.dropped),
        "failed": read(&counters.failed),
        "rejected": read(&counters.rejected),
        "empty": read(&counters.empty),
        "errors": read(&counters.errors),
        "unknown_camera": read(&counters.unknown_camera),
        "commits": read(&counters.commits),
        "failing": counters.failure().is_some(),
    })
}

fn counters(s: &SubscriptionStatus) -> Value {
    let l = &s.ledger;
    let unserved = l.unserved_parked + l.unserved_no_runner + l.unserved_paused + l.unserved_gap;
    json!({
        "subscription_id": s.id,
        "model_id": s.model_id.as_str(),
        "camera_id": s.camera.as_str(),
        "active": s.state == SubscriptionState::Active,
        "state": subscription_state(s.state),
        "dispatch_count": l.bound,
        "drop_count": l.gated + l.superseded + l.expired + l.crowded + unserved,
    })
}

fn model_health(
    id: &str,
    available: bool,
    fresh: Option<&Status>,
    scheduler: &SchedulerView,
    views: &[SubscriptionView],
) -> (&'static str, Value) {
    let of_this = |r: &&RunnerStatus| r.model_id.as_str() == id;
    let runners: Vec<&RunnerStatus> =
        fresh.iter().flat_map(|s| &s.runners).filter(of_this).collect();
    let works = |r: &&RunnerStatus| matches!(r.state, RunnerState::Ready | RunnerState::Profiling);
    let state = match (available, fresh) {
        (false, _) => "degraded",
        (true, None) => "unknown",
        (true, Some(_)) if !runners.is_empty() && runners.iter().all(works) => "healthy",
        (true, Some(_)) => "degraded",
    };
    let views = || views.iter().filter(|v| v.model.as_str() == id);
    let errors: u64 = views().flat_map(|v| v.errors).sum();
    let requests: u64 = views().map(|v| v.results).sum::<u64>() + errors;
    let weighted = |v: &SubscriptionView| {
        v.stage_means.map(|s| (s.age() * v.window_results as u32, v.window_results))
    };
    let (ages, counted) = views()
        .filter_map(weighted)
        .fold((std::time::Duration::ZERO, 0), |(a, n), (age, count)| (a + age, n + count));
    let mean = u32::try_from(counted).ok().filter(|n| *n > 0).map(|n| ages / n);
    let heartbeat = scheduler.status.as_ref().map(|(at, _)| {
        let age = base::time::nanos(clock::monotonic().since(*at));
        moment::text(base::UtcNanos(clock::utc().0.saturating_sub(age)))
    });
    let share = if requests > 0 { errors as f64 / requests as f64 } else { 0.0 };
    let shown = json!({
        "model_id": id,
        "status": state,
        "last_heartbeat": heartbeat,
        "runner_count": runners.len(),
        "total_requests": requests,
        "total_errors": errors,
        "error_rate": (share * 1e4).round() / 1e4,
        "avg_latency_ms": mean.map(|m| two_decimals(m.as_secs_f64() * 1e3)),
    });
    (state, shown)
}

fn subscription_state(state: SubscriptionState) -> &'static str {
    match state {
        SubscriptionState::Active => "active",
        SubscriptionState::NoFrames => "no_frames",
        SubscriptionState::NoRunner => "no_runner",
        SubscriptionState::Parked => "parked",
        SubscriptionState::Paused => "paused",
    }
}

fn two_decimals(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
