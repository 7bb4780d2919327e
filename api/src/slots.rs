//! How many handlers of one kind work at once: what takes long, or much memory, can't take the
//! threads of what is quick. A slot is waited for without a thread.

use crate::limits::{CALLS_MAX, CAPTURES_MAX, LISTS_MAX, OFFERS_MAX, PICTURES_MAX, PROBES_MAX};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a handler needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, not even a thread: it reads no file, takes no lock that is held for long, and waits
    /// for nobody. Always answered.
    Immediate,
    /// A thread for a short time.
    Quick,
    /// It reads much and makes a long answer.
    List,
    /// It waits for a picture to be encoded.
    Picture,
    /// It waits for ingest to answer a viewer's offer.
    Offer,
    /// It waits for a camera to answer.
    Probe,
    /// It waits for a process that decodes.
    Capture,
    /// It waits for ingest.
    Call,
}

impl Kind {
    /// How many there may be, and what they are called; `None` = any number.
    pub const fn bound(self) -> Option<(usize, &'static str)> {
        match self {
            Kind::Immediate | Kind::Quick => None,
            Kind::List => Some((LISTS_MAX, "lists, playlists or timelines are being made")),
            Kind::Picture => Some((PICTURES_MAX, "newest pictures are being encoded")),
            Kind::Offer => Some((OFFERS_MAX, "viewers are being answered")),
            Kind::Probe => Some((PROBES_MAX, "addresses are being tried")),
            Kind::Capture => Some((CAPTURES_MAX, "pictures are being taken")),
            Kind::Call => Some((CALLS_MAX, "requests wait for ingest")),
        }
    }
}

/// Every kind that has a bound.
const BOUNDED: [Kind; 6] =
    [Kind::List, Kind::Picture, Kind::Offer, Kind::Probe, Kind::Capture, Kind::Call];

/// The slots of one serve.
#[derive(Debug)]
pub struct Slots {
    kinds: [(Kind, Arc<Semaphore>); 6],
    wait: Duration,
}

/// Held as long as the handler works and its answer has no room yet.
#[derive(Debug, Default)]
pub struct Slot(
    #[expect(dead_code, reason = "given back when dropped")] Option<OwnedSemaphorePermit>,
);

impl Slots {
    /// All free; each is waited for so long.
    pub fn new(wait: Duration) -> Slots {
        let free = |kind: Kind| {
            let most = kind.bound().map_or(0, |(most, _)| most);
            (kind, Arc::new(Semaphore::new(most)))
        };
        Slots { kinds: BOUNDED.map(free), wait }
    }

    /// Takes a slot, first come first served.
    ///
    /// # Errors
    /// What to tell whoever waited in vain.
    pub async fn take(&self, kind: Kind) -> Result<Slot, String> {
        let Some((most, what)) = kind.bound() else { return Ok(Slot::default()) };
        let Some((_, slots)) = self.kinds.iter().find(|(of, _)| *of == kind) else {
            return Ok(Slot::default());
        };
        match tokio::time::timeout(self.wait, Arc::clone(slots).acquire_owned()).await {
            Ok(Ok(slot)) => Ok(Slot(Some(slot))),
            _ => Err(format!("{most} {what}; try again later")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::table::{Verb, routes};
    use std::collections::BTreeSet;

    #[test]
    fn each_kind_has_its_own_slots_and_one_that_is_given_back_is_free() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let wait = Duration::from_millis(10);
        runtime.block_on(async {
            let slots = Slots::new(wait);
            let mut held = Vec::new();
            for kind in BOUNDED {
                let (most, what) = kind.bound().unwrap();
                for _ in 0..most {
                    held.push((kind, slots.take(kind).await.unwrap()));
                }
                let begun = tokio::time::Instant::now();
                let told = slots.take(kind).await.unwrap_err();
                assert_eq!(told, format!("{most} {what}; try again later"));
                assert!(begun.elapsed() >= wait, "it waits first");
            }
            for kind in [Kind::Immediate, Kind::Quick] {
                for _ in 0..1000 {
                    held.push((kind, slots.take(kind).await.unwrap()));
                }
            }
            for kind in BOUNDED {
                held.remove(held.iter().position(|(of, _)| *of == kind).unwrap());
                held.push((kind, slots.take(kind).await.unwrap()));
                assert!(slots.take(kind).await.is_err());
            }
        });
    }

    #[test]
    fn what_costs_has_slots_and_what_must_be_answered_needs_none() {
        let of = |kind: Kind| -> BTreeSet<&str> {
            let routes = routes().filter(|route| route.kind == kind);
            routes.map(|route| route.path).collect()
        };
        assert_eq!(of(Kind::Immediate), BTreeSet::from(["/", "/health", "/whep.js"]));
        let lists = [
            "/api/v1/ai-events",
            "/api/v1/ai-events/cameras/{camera_id}/events",
            "/api/v1/bookmarks",
            "/api/v1/recordings/devices/{id}/dates",
            "/api/v1/recordings/devices/{id}/playlist",
            "/api/v1/recordings/devices/{id}/timeline",
            "/api/v1/snapshots",
        ];
        assert_eq!(of(Kind::List), BTreeSet::from(lists));
        assert_eq!(of(Kind::Picture), BTreeSet::from(["/api/v1/devices/{id}/frame.jpg"]));
        assert_eq!(of(Kind::Probe), BTreeSet::from(["/api/v1/devices/validate"]));
        assert_eq!(of(Kind::Offer), BTreeSet::from(["/api/v1/devices/{id}/whep"]));
        assert_eq!(of(Kind::Capture).len(), 2);
        assert_eq!(of(Kind::Call).len(), 2);
        for route in routes().filter(|route| route.kind == Kind::Immediate) {
            assert_eq!(route.verb, Verb::Get, "{}: a body is read by a handler", route.path);
        }
    }
}
