//! Is it alive.

use super::message::{Answer, Failure, Request};
use super::observability::scheduler_state;
use super::query::Query;
use crate::live::SchedulerView;
use crate::media::room::Taken;
use crate::moment;
use crate::services::Services;
use base::Instant;
use ipc::clock;
use ipc::desired::Version;
use serde_json::{Value, json};
use std::time::Duration;

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
    let view = services.live.scheduler();
    let (scheduler, scheduler_reason) = scheduler_state(&view, now);
    let streams = services.ingest.streams();
    let followers = [("scheduler", scheduler_desired(&view, now)), ("ingest", streams.desired)];
    let store_reason = store_fault(services);
    let store = if store_reason.is_none() { "healthy" } else { "degraded" };
    let published = services.published.get();
    let desired_reason = desired_fault(services, published.1.rejected.len()).or_else(|| {
        let since = services.published.since();
        unfollowed(services.published.version(), now - since, &followers)
    });
    let desired = if desired_reason.is_none() { "healthy" } else { "degraded" };
    let (media, media_reason, taken) = media(services);
    let ingest_reason = streams.fault().map(ToString::to_string);
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
            "desired_state": {
                "status": desired, "reason": desired_reason, "revision": published.0,
                "epoch": services.published.version().epoch.to_string(),
                "followers": followers.map(|(part, version)| shown_follower(part, version)),
            },
        },
        "timestamp": moment::text(clock::utc()),
    })))
}

/// How long a follower may take to have a new desired state and to say so (chosen: it looks once a
/// second at worst, and status comes once a second).
const FOLLOW: Duration = Duration::from_secs(5);

/// The desired state that the scheduler follows; `None` while nothing is known.
fn scheduler_desired(view: &SchedulerView, now: Instant) -> Option<Version> {
    let status = view.fresh_status(now)?;
    Some(Version { epoch: status.desired_epoch, revision: status.desired_revision })
}

fn shown_follower(part: &str, version: Option<Version>) -> Value {
    json!({
        "part": part,
        "epoch": version.map(|version| version.epoch.to_string()),
        "revision": version.map(|version| version.revision),
    })
}

/// Who follows another desired state than `published`, which has been in force for `time`.
fn unfollowed(
    published: Version,
    time: Duration,
    followers: &[(&str, Option<Version>)],
) -> Option<String> {
    if published.revision == 0 || time < FOLLOW {
        return None;
    }
    let other = |version: Option<Version>| version.filter(|version| *version != published);
    let (part, version) = followers.iter().find_map(|(part, v)| Some((part, other(*v)?)))?;
    Some(format!(
        "{part} follows {version}, in force is {published}; its log has the reason: it may have \
         another state directory"
    ))
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

#[cfg(test)]
mod tests {
    use super::*;
    use base::Epoch;

    #[test]
    fn a_follower_of_another_state_is_told_once_it_had_time() {
        let version = |epoch, revision| Version { epoch: Epoch(epoch), revision };
        let (published, long) = (version(0xa, 7), FOLLOW);
        let of = |scheduler, ingest, time| {
            unfollowed(published, time, &[("scheduler", scheduler), ("ingest", ingest)])
        };
        let same = Some(published);
        assert_eq!((of(same, same, long), of(None, None, long)), (None, None));
        for (other, told) in [
            (version(0xa, 6), "revision 6 of epoch 000000000000000a"),
            (version(0xa, 8), "revision 8 of epoch 000000000000000a"),
            (version(0xb, 7), "revision 7 of epoch 000000000000000b"),
            (Version::default(), "none"),
        ] {
            let why = of(same, Some(other), long).unwrap();
            let expected = format!(
                "ingest follows {told}, in force is revision 7 of epoch 000000000000000a; "
            );
            assert!(why.starts_with(&expected), "{why}");
            assert!(of(Some(other), None, long).unwrap().starts_with("scheduler follows "));
            assert_eq!(of(Some(other), same, FOLLOW / 2), None);
        }
        // Nothing was published yet: nobody can follow it.
        assert_eq!(unfollowed(Version::default(), long, &[("ingest", same)]), None);
    }
}
