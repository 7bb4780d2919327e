//! What recorders need of a disk that is full: bytes that found no space, and those that the
//! segments begun since will take. A ledger; who holds it has the lock, who sweeps pays.

use base::{CameraId, Instant};
use std::collections::BTreeMap;
use std::time::Duration;

/// After a refusal segments ask for their room in advance for so long, or as long as the disk is
/// full (chosen: many segments, so that a disk that stays full costs one gap and not one a segment).
const STARVING: Duration = Duration::from_secs(600);

/// Why a write found no space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The file system has none.
    Full,
    /// The user may not have more: the file system does not show it.
    Quota,
}

/// The ledger of a node.
#[derive(Debug, Default)]
pub struct Room {
    cameras: BTreeMap<CameraId, Taken>,
    /// Bytes that found no space since the last sweep.
    refused: u64,
    /// Bytes that segments begun since will take.
    ahead: u64,
    starving: Option<(Instant, Refusal)>,
    written: u64,
}

/// What a camera takes.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    /// Bytes of the segment that is open.
    open: u64,
    /// And of one before it.
    whole: u64,
    /// The open one was cut short.
    cut: bool,
    /// Bytes asked for in advance since the last sweep.
    asked: u64,
}

impl Room {
    /// A fragment of so many bytes is about to be written. True = room is asked for.
    pub fn takes(&mut self, camera: &CameraId, begins_segment: bool, bytes: u64) -> bool {
        let taken = self.cameras.entry(camera.clone()).or_default();
        let asks = begins_segment && self.starving.is_some();
        if begins_segment {
            taken.whole = if taken.cut { taken.whole.max(taken.open) } else { taken.open };
            (taken.open, taken.cut) = (0, false);
        }
        if asks {
            taken.asked = taken.whole.max(bytes);
            self.ahead = self.ahead.saturating_add(taken.asked);
        }
        taken.open = taken.open.saturating_add(bytes);
        self.written = self.written.saturating_add(bytes);
        asks
    }

    /// It found no space: as much as a segment of this camera takes is asked for.
    pub fn refused(&mut self, camera: &CameraId, refusal: Refusal, now: Instant) {
        let taken = self.cameras.entry(camera.clone()).or_default();
        taken.cut = true;
        // What was asked for in advance and did not come in time is asked for once.
        self.ahead = self.ahead.saturating_sub(std::mem::take(&mut taken.asked));
        self.refused = self.refused.saturating_add(taken.whole.max(taken.open));
        self.starving = Some((now, refusal));
    }

    /// Nobody writes this camera any more.
    pub fn forget(&mut self, camera: &CameraId) {
        self.cameras.remove(camera);
    }

    /// The bytes that are asked for since the last call; `pressed` = the disk shows that it is full.
    pub fn wanted(&mut self, now: Instant, pressed: bool) -> u64 {
        let (refused, ahead) = (std::mem::take(&mut self.refused), std::mem::take(&mut self.ahead));
        self.cameras.values_mut().for_each(|taken| taken.asked = 0);
        let Some((last, refusal)) = self.starving else { return refused };
        if !pressed && now - last >= STARVING {
            self.starving = None;
        }
        // Where the disk shows that there is room again, nothing goes in advance.
        let in_advance = pressed || refusal == Refusal::Quota;
        refused.saturating_add(if in_advance { ahead } else { 0 })
    }

    /// Why a write found no space of late, if one did.
    pub fn starving(&self) -> Option<Refusal> {
        self.starving.map(|(_, refusal)| refusal)
    }

    /// All bytes so far.
    pub fn written(&self) -> u64 {
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn camera(id: &str) -> CameraId {
        CameraId::new(id).unwrap()
    }

    #[test]
    fn nothing_is_asked_for_while_everything_finds_space() {
        let mut room = Room::default();
        for n in 0..10 {
            assert!(!room.takes(&camera("a"), n % 3 == 0, 100));
        }
        assert_eq!((room.wanted(at(0), true), room.starving(), room.written()), (0, None, 1000));
    }

    #[test]
    fn a_refusal_asks_for_a_segment_once() {
        let mut room = Room::default();
        let a = camera("a");
        for begins in [true, false, false, true] {
            room.takes(&a, begins, 100);
        }
        room.refused(&a, Refusal::Full, at(0));
        assert_eq!(room.wanted(at(0), true), 300, "the one before was larger");
        assert_eq!(room.wanted(at(0), true), 0);
        // The first one of a camera, and one that grew beyond the one before.
        let b = camera("b");
        room.takes(&b, true, 70);
        room.refused(&b, Refusal::Full, at(0));
        assert_eq!(room.wanted(at(0), true), 70);
        room.takes(&b, true, 40);
        room.takes(&b, false, 50);
        assert_eq!(room.wanted(at(0), true), 70, "in advance");
        room.refused(&b, Refusal::Full, at(0));
        assert_eq!(room.wanted(at(0), true), 90);
        // What was cut short says less of a segment than the one before it.
        room.takes(&b, true, 10);
        room.refused(&b, Refusal::Full, at(0));
        assert_eq!(room.wanted(at(0), true), 90);
        // Another one's is not touched by it.
        room.takes(&a, true, 10);
        room.takes(&b, true, 10);
        assert_eq!(room.wanted(at(0), true), 300 + 90);
        room.refused(&b, Refusal::Full, at(0));
        room.takes(&a, true, 10);
        assert_eq!(room.wanted(at(0), true), 90 + 10);
    }

    #[test]
    fn while_it_is_full_each_segment_asks_for_its_room_in_advance() {
        let (mut room, a) = (Room::default(), camera("a"));
        room.takes(&a, true, 100);
        room.refused(&a, Refusal::Full, at(0));
        assert_eq!(room.wanted(at(0), true), 100);
        for n in 1..50 {
            assert!(room.takes(&a, true, 60), "{n}");
            assert!(!room.takes(&a, false, 40), "{n}");
            assert_eq!(room.wanted(at(n * 100), true), 100, "{n}");
        }
    }

    #[test]
    fn where_there_is_room_again_nothing_goes_in_advance() {
        for (refusal, advance) in [(Refusal::Full, 0), (Refusal::Quota, 100)] {
            let (mut room, a) = (Room::default(), camera("a"));
            room.takes(&a, true, 100);
            room.refused(&a, refusal, at(5));
            assert_eq!(room.wanted(at(5), false), 100, "what found no space is paid for");
            assert!(room.takes(&a, true, 100));
            assert_eq!(room.wanted(at(604), false), advance);
            assert_eq!(room.starving(), Some(refusal));
            assert_eq!(room.wanted(at(605), false), 0);
            assert!(room.starving().is_none() && !room.takes(&a, true, 100));
        }
    }

    #[test]
    fn a_camera_that_is_gone_is_forgotten() {
        let (mut room, a) = (Room::default(), camera("a"));
        room.takes(&a, true, 100);
        room.forget(&a);
        room.takes(&a, true, 1);
        room.refused(&a, Refusal::Full, at(0));
        assert_eq!(room.wanted(at(0), true), 1);
    }
}
