//! Is it alive.

use super::message::{Answer, Failure, Request};
use super::observability::scheduler_state;
use super::query::Query;
use crate::moment;
use crate::services::Services;
use ipc::clock;
use serde_json::json;
use std::sync::atomic::Ordering;

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
    let (store, store_reason) = match services.control.devices() {
        Ok(_) if services.counters.failing.load(Ordering::Relaxed) => {
            ("degraded", Some("events can't be written; the log of serve has the reason".into()))
        }
        Ok(_) => ("healthy", None),
        Err(error) => ("degraded", Some(error.to_string())),
    };
    let published = services.published.get();
    let rejected = published.1.rejected.len();
    let desired = if rejected == 0 { "healthy" } else { "degraded" };
    let rejected = (rejected > 0).then(|| format!("{rejected} assignments are rejected"));
    let degraded = [store, scheduler, desired].iter().any(|state| *state != "healthy");
    Ok(Answer::json(&json!({
        "status": if degraded { "degraded" } else { "healthy" },
        "service": "vas",
        "version": services.version,
        "uptime_seconds": now.since(services.started).as_secs(),
        "checks": {
            "store": {"status": store, "reason": store_reason},
            "scheduler": {"status": scheduler, "reason": scheduler_reason},
            "desired_state": {"status": desired, "reason": rejected, "revision": published.0},
        },
        "timestamp": moment::text(clock::utc()),
    })))
}
