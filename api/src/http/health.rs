//! Is it alive.

use super::message::{Answer, Failure, Request};
use super::observability::scheduler_state;
use super::query::Query;
use crate::media::room::Taken;
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
    let (media, media_reason, taken) = media(services);
    let ingest_reason = services.ingest.streams().fault().map(ToString::to_string);
    let ingest = if ingest_reason.is_none() { "healthy" } else { "degraded" };
    let degraded =
        [store, media, scheduler, ingest, desired].iter().any(|state| *state != "healthy");
    Ok(Answer::json(&json!({
        "status": if degraded { "degraded" } else { "healthy" },
        "service": "vas",
        "version": services.version,
        "uptime_seconds": now.since(services.started).as_secs(),
        "checks": {
            "store": {"status": store, "reason": store_reason},
            "media": {
                "status": media, "reason": media_reason,
                "bytes": taken.map(|taken| taken.bytes), "bytes_max": taken.map(|taken| taken.most),
            },
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
    let recorded = || services.published.get().1.cameras.iter().any(|camera| camera.record);
    let unwanted = || services.media.room.contradiction().filter(|_| recorded());
    let rest = || Some(format!("events: {}", services.events.rest()?));
    let control = services.control.fault();
    control.or_else(unwritten).or_else(unread).or_else(rest).or_else(unwanted)
}

/// How snapshots and clips are, why not well, and how much they take.
fn media(services: &Services) -> (&'static str, Option<String>, Option<Taken>) {
    let (reason, taken) = match services.media.room.taken() {
        Ok(taken) => {
            let room = &services.media.room;
            (room.refused().or_else(|| room.resting()), Some(taken))
        }
        Err(error) => (Some(error.to_string()), None),
    };
    (if reason.is_none() { "healthy" } else { "degraded" }, reason, taken)
}

/// Why the desired state is not what configuration and registry say.
fn desired_fault(services: &Services, rejected: usize) -> Option<String> {
    let rejections = || (rejected > 0).then(|| format!("{rejected} assignments are rejected"));
    services.configuration.fault().or_else(|| services.published.fault()).or_else(rejections)
}
