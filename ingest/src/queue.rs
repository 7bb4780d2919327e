//! Access units on their way to one decode worker: bounded, lossy, decodable after every loss.
//!
//! Pure. At the bound the oldest units go, up to the next key frame, so that what is left is the
//! newest and begins where decoding can begin.

use crate::unit::{AccessUnit, UnitFlags};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bound of a queue, or one group of pictures if that is larger (design: 4 MB).
pub const BYTES: usize = 4 << 20;
/// Bound whatever the camera sends (chosen: a group of pictures of 4K at 20 Mb/s and 10 s).
pub const BYTES_MAX: usize = 32 << 20;
/// Most units, so that tiny ones are bounded also (chosen: 10 s at 100 fps).
pub const UNITS_MAX: usize = 1000;

const _: () = assert!(BYTES <= BYTES_MAX);

/// What happened to a unit, and to others because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Whether it waits in the queue now.
    pub queued: bool,
    /// Units lost at the bound, this one included.
    pub overflowed: u64,
}

/// The queue of one worker.
#[derive(Debug)]
pub struct UnitQueue {
    units: VecDeque<Arc<AccessUnit>>,
    bytes: usize,
    /// Nothing is of use before the next key frame.
    awaiting_key: bool,
    /// The next unit that leaves comes after a loss.
    lossy: bool,
    gop_bytes: usize,
    gop_bytes_max: usize,
}

impl Default for UnitQueue {
    fn default() -> Self {
        UnitQueue {
            units: VecDeque::new(),
            bytes: 0,
            awaiting_key: true,
            lossy: false,
            gop_bytes: 0,
            gop_bytes_max: 0,
        }
    }
}

impl UnitQueue {
    /// Bytes that may wait.
    pub fn bytes_max(&self) -> usize {
        self.gop_bytes_max.clamp(BYTES, BYTES_MAX)
    }

    /// Takes a unit or drops it; at the bound drops older ones. Never waits.
    pub fn push(&mut self, unit: Arc<AccessUnit>) -> Pushed {
        let bytes = unit.data.len();
        if unit.key() {
            self.gop_bytes_max = self.gop_bytes_max.max(self.gop_bytes);
            self.gop_bytes = 0;
        }
        self.gop_bytes = self.gop_bytes.saturating_add(bytes);
        if self.awaiting_key && !unit.key() {
            let overflowed = u64::from(self.lossy);
            return Pushed { queued: false, overflowed };
        }
        self.awaiting_key = false;
        self.bytes += bytes;
        self.units.push_back(unit);
        let before = self.units.len();
        while self.bytes > self.bytes_max() || self.units.len() > UNITS_MAX {
            self.drop_to_next_key();
        }
        let overflowed = (before - self.units.len()) as u64;
        Pushed { queued: !self.units.is_empty(), overflowed }
    }

    fn drop_to_next_key(&mut self) {
        self.lossy = true;
        while let Some(unit) = self.units.pop_front() {
            self.bytes -= unit.data.len();
            if self.units.front().is_some_and(|next| next.key()) {
                return;
            }
        }
        self.awaiting_key = true;
    }

    /// The oldest unit and its flags as they go out: the first after a loss says so.
    pub fn pop(&mut self) -> Option<(Arc<AccessUnit>, UnitFlags)> {
        let unit = self.units.pop_front()?;
        self.bytes -= unit.data.len();
        let lossy = std::mem::take(&mut self.lossy);
        let flags = unit
            .flags
            .with(UnitFlags::when(lossy, UnitFlags::DISCONTINUITY))
            .with(UnitFlags::when(!self.units.is_empty(), UnitFlags::MORE));
        Some((unit, flags))
    }

    /// Forgets everything and waits for a key frame: the worker at the other end is a new one.
    pub fn reset(&mut self) {
        self.units.clear();
        self.bytes = 0;
        self.awaiting_key = true;
        self.lossy = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Codec;
    use base::{Instant, MediaTime, UtcNanos};

    fn unit(n: u64, key: bool, bytes: usize) -> Arc<AccessUnit> {
        Arc::new(AccessUnit {
            codec: Codec::H264,
            data: vec![0; bytes],
            media: MediaTime(n),
            capture: Instant(n),
            capture_utc: UtcNanos(n),
            flags: UnitFlags::when(key, UnitFlags::KEY),
        })
    }

    fn drain(queue: &mut UnitQueue) -> Vec<(u64, bool)> {
        std::iter::from_fn(|| queue.pop())
            .map(|(u, f)| (u.media.0, f.has(UnitFlags::DISCONTINUITY)))
            .collect()
    }

    #[test]
    fn begins_at_a_key_frame() {
        let mut queue = UnitQueue::default();
        for n in 0..5 {
            queue.push(unit(n, n == 3, 10));
        }
        assert_eq!(drain(&mut queue), [(3, false), (4, false)]);
        queue.push(unit(5, false, 10));
        queue.reset();
        queue.push(unit(6, false, 10));
        queue.push(unit(7, true, 10));
        assert_eq!(drain(&mut queue), [(7, true)]);
    }

    #[test]
    fn overflow_drops_the_oldest_up_to_the_next_key_frame_and_flags_it() {
        let mut queue = UnitQueue::default();
        let mega = 1 << 20;
        // Key frames 0 and 3, 1 MiB each: the fifth does not fit.
        for n in 0..4 {
            assert_eq!(queue.push(unit(n, n % 3 == 0, mega)).overflowed, 0);
        }
        assert_eq!(queue.push(unit(4, false, mega)), Pushed { queued: true, overflowed: 3 });
        assert_eq!(drain(&mut queue), [(3, true), (4, false)]);
    }

    #[test]
    fn without_a_key_frame_to_fall_back_on_everything_goes_until_the_next() {
        let mut queue = UnitQueue::default();
        let mega = 1 << 20;
        for n in 0..4 {
            queue.push(unit(n, n == 0, mega));
        }
        assert_eq!(queue.push(unit(4, false, 1)), Pushed { queued: false, overflowed: 5 });
        assert_eq!(queue.push(unit(5, false, 1)), Pushed { queued: false, overflowed: 1 });
        assert_eq!(queue.push(unit(6, true, 1)), Pushed { queued: true, overflowed: 0 });
        assert_eq!(queue.push(unit(7, false, 1)), Pushed { queued: true, overflowed: 0 });
        assert_eq!(drain(&mut queue), [(6, true), (7, false)]);
    }

    #[test]
    fn holds_one_group_of_pictures_that_is_larger_but_never_without_bound() {
        let mut queue = UnitQueue::default();
        let mega = 1 << 20;
        for n in 0..20 {
            queue.push(unit(n, n % 10 == 0, mega));
            drain(&mut queue);
        }
        queue.push(unit(20, true, mega));
        assert_eq!(queue.bytes_max(), 10 * mega);
        for n in 21..30 {
            assert_eq!(queue.push(unit(n, false, mega)).overflowed, 0);
        }
        assert!(queue.push(unit(30, false, mega)).overflowed > 0);
        // A camera that sends one key frame and then none.
        let mut queue = UnitQueue::default();
        for n in 0..200 {
            queue.push(unit(n, n == 0, mega));
            assert!(queue.bytes <= BYTES_MAX);
        }
        let mut queue = UnitQueue::default();
        for n in 0..3000 {
            queue.push(unit(n, n == 0 || n == 700, 0));
        }
        assert!(queue.units.len() <= UNITS_MAX);
    }

    #[test]
    fn says_when_another_follows() {
        let mut queue = UnitQueue::default();
        queue.push(unit(0, true, 1));
        queue.push(unit(1, false, 1));
        assert!(queue.pop().unwrap().1.has(UnitFlags::MORE));
        assert!(!queue.pop().unwrap().1.has(UnitFlags::MORE));
    }
}
