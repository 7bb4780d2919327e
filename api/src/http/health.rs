//! Is it alive.

use super::message::{Answer, Failure, Request};
use super::observability::scheduler_state;
use super::query::Query;
use crate::moment;
use crate::services::Services;
use ipc::clock;
use serde_json::json;

/// GET /health
pub fn simple(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    Ok(Answer::json(&json!({
        "status": "healthy", "service": "vas", "version": services.version,
    })))
}

/// GET /health/detailed
pub fn detailed(services: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    let now = clock::monotonic();
    let (scheduler, scheduler_reason) = scheduler_state(&services.live.scheduler(), now);
    let store_reason = store_fault(services);
    let store = if store_reason.is_none() { "healthy" } else { "degraded" };
    let published = services.published.get();
    let desired_reason = desired_fault(services, published.1.rejected.len());
    let desired = if desired_reason.is_none() { "healthy" } else { "degraded" };
    let ingest_reason = services.ingest.streams().fault().map(ToString::to_string);
    let ingest = if ingest_reason.is_none() { "healthy" } else { "degraded" };
    let degraded = [store, scheduler, ingest, desired].iter().any(|state| *state != "healthy");
    Ok(Answer::json(&json!({
        "status": if degraded { "degraded" } else { "healthy" },
        "service": "vas",
        "version": services.version,
        "uptime_seconds": now.since(services.started).as_secs(),
        "checks": {
            "store": {"status": store, "reason": store_reason},
            "scheduler": {"status": scheduler, "reason": scheduler_reason},
            "ingest": {"status": ingest, "reason": ingest_reason},
            "desired_state": {"status": desired, "reason": desired_reason, "revision": published.0},
        },
        "timestamp": moment::text(clock::utc()),
    })))
}

/// What is wrong with the store, `None` when nothing is known.
fn store_fault(services: &Services) -> Option<String> {
    let unwritten = || Some(format!("events can't be written: {}", services.counters.failure()?));
    let unread = || Some(format!("events can't be read: {}", services.events.fault()?));
    let rest = || Some(format!("events: {}", services.events.rest()?));
    services.control.fault().or_else(unwritten).or_else(unread).or_else(rest)
}

/// Why the desired state is not what configuration and registry say.
fn desired_fault(services: &Services, rejected: usize) -> Option<String> {
    let rejections = || (rejected > 0).then(|| format!("{rejected} assignments are rejected"));
    services.configuration.fault().or_else(|| services.published.fault()).or_else(rejections)
}
