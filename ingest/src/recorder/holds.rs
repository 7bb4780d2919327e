//! Recordings that clips still need. Serve says which windows ([`ipc::holds`]); here it is decided how
//! long that counts: [`HOLD_TIME_MAX`] from when a hold was first seen, by the monotonic clock.
//!
//! The sweep asks [`Held::keeps`] of what it would remove for its age or for room. When a recording finds
//! no space at all, holds do not count. Of a camera with a hold everything from the window on is kept:
//! readers take what is before the newest removed segment of a day for removed.

use base::limits::HOLD_TIME_MAX;
use base::{CameraId, Instant, UtcNanos};
use ipc::holds::Hold;
use ipc::recording::SegmentName;
use std::collections::BTreeMap;

/// So long before the window, the segment may begin that its first picture lies in (a clip looks back
/// 120 s for a key picture, and a segment ends at the first one after 6 s).
const LEAD: u64 = 130 * base::time::NANOS_PER_SEC;

/// Knows since when each hold is there.
#[derive(Debug, Default)]
pub struct Holds {
    seen: BTreeMap<String, Instant>,
}

/// What is held now: of each camera, from where on.
#[derive(Debug, Default)]
pub struct Held(BTreeMap<CameraId, UtcNanos>);

impl Holds {
    /// What counts of the holds that are told at `now`.
    pub fn look(&mut self, told: &[Hold], now: Instant) -> Held {
        self.seen.retain(|id, _| told.iter().any(|hold| hold.id == *id));
        let mut held = Held::default();
        for hold in told {
            let since = *self.seen.entry(hold.id.clone()).or_insert(now);
            if now.since(since) > HOLD_TIME_MAX {
                continue;
            }
            let from = UtcNanos(hold.start.0.saturating_sub(LEAD));
            let first = held.0.entry(hold.camera.clone()).or_insert(from);
            *first = from.min(*first);
        }
        held
    }
}

impl Held {
    /// Whether a segment is not to be removed.
    pub fn keeps(&self, camera: &CameraId, name: SegmentName) -> bool {
        self.0.get(camera).is_some_and(|from| name.utc() >= *from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::time::NANOS_PER_SEC;
    use std::time::Duration;

    const START: u64 = 1_770_000_000 * NANOS_PER_SEC;

    fn hold(id: &str, camera: &str, start: u64) -> Hold {
        let camera = camera.parse().unwrap();
        Hold { id: id.into(), camera, start: UtcNanos(start), end: UtcNanos(start + 1) }
    }

    fn kept(held: &Held, camera: &str, utc: u64) -> bool {
        held.keeps(&camera.parse().unwrap(), SegmentName::at(UtcNanos(utc)))
    }

    #[test]
    fn from_the_segment_of_the_oldest_window_on_a_camera_is_kept_and_others_are_not() {
        let mut holds = Holds::default();
        let later = START + 500 * NANOS_PER_SEC;
        for told in [
            [hold("a", "front", START), hold("b", "front", later)],
            [hold("b", "front", later), hold("a", "front", START)],
        ] {
            let held = holds.look(&told, Instant(5));
            assert!(kept(&held, "front", START - LEAD) && kept(&held, "front", later * 2));
            assert!(!kept(&held, "front", START - LEAD - 1000));
            assert!(!kept(&held, "yard", START));
        }
        let held = holds.look(&[hold("b", "front", later)], Instant(6));
        assert!(!kept(&held, "front", START) && kept(&held, "front", later), "`a` was cut");
        assert!(!kept(&holds.look(&[], Instant(7)), "front", later));
        assert!(kept(&holds.look(&[hold("z", "front", 0)], Instant(8)), "front", 0));
    }

    #[test]
    fn a_hold_counts_for_an_hour_of_this_machine_and_a_new_one_from_its_own_begin() {
        let mut holds = Holds::default();
        let (a, b) = (hold("a", "front", START), hold("b", "yard", START));
        let begun = Instant(7);
        assert!(kept(&holds.look(std::slice::from_ref(&a), begun), "front", START));
        let both = [a, b];
        let last = begun + HOLD_TIME_MAX;
        assert!(kept(&holds.look(&both, last), "front", START));
        let over = last + Duration::from_nanos(1);
        let held = holds.look(&both, over);
        assert!(!kept(&held, "front", START) && kept(&held, "yard", START));
        assert!(!kept(&holds.look(&both, over), "front", START), "it does not begin anew");
        assert!(!kept(&holds.look(&both, last + HOLD_TIME_MAX * 2), "yard", START));
    }
}
