//! Each bound of a fragment and of a segment is met and passed, by a camera whose pictures have no
//! content. Times are in ticks of 90 kHz since its first picture.

use super::super::tests::{cut, units};
use super::*;
use crate::annexb::nals;
use crate::unit::Codec;

/// The media time of tick 0.
const START: u64 = 1000 * MediaTime::RATE;
/// Noon of some day.
const NOON: UtcNanos = UtcNanos((20_000 * 24 + 12) * 3600 * NANOS_PER_SEC);
/// Between two pictures: 20 per second, which is not what is taken while nothing is known.
const STEP: u64 = 4500;
const MILLISECOND: i64 = 1_000_000;

struct Camera {
    cutter: Cutter,
    key: Vec<u8>,
}

/// A moment of tick `at`, for those that are whole microseconds.
fn after(at: u64) -> Duration {
    Duration::from_nanos(at * 100_000 / 9)
}

impl Camera {
    fn new() -> Camera {
        let key = units("bframes.mp4", NOON, 1, |_| 0).remove(0).data;
        Camera { cutter: Cutter::default(), key }
    }

    fn unit(&self, at: u64, key: bool) -> AccessUnit {
        AccessUnit {
            codec: Codec::H264,
            data: if key { self.key.clone() } else { vec![0, 0, 0, 1, 0x41, 7] },
            media: MediaTime(START + at),
            capture: Instant(1000 * NANOS_PER_SEC) + after(at),
            capture_utc: UtcNanos(NOON.0 + base::time::nanos(after(at))),
            flags: UnitFlags::when(key, UnitFlags::KEY),
        }
    }

    fn push(&mut self, at: u64) -> Option<Fragment> {
        let unit = self.unit(at, false);
        cut(&mut self.cutter, &unit)
    }

    fn key(&mut self, at: u64) -> Option<Fragment> {
        let unit = self.unit(at, true);
        cut(&mut self.cutter, &unit)
    }

    /// A key picture at 0 and others at those times, all in one fragment so far.
    fn began(with: &[u64]) -> Camera {
        let mut camera = Camera::new();
        assert!(camera.key(0).is_none());
        assert!(with.iter().all(|at| camera.push(*at).is_none()));
        camera
    }

    fn end(&mut self) -> Option<Fragment> {
        self.cutter.flush(Instant::FAR, true)
    }

    /// A fragment of two pictures that arrive late, nanoseconds.
    fn pair(&mut self, at: u64, key: bool, late: i64) -> Fragment {
        for (at, key) in [(at, key), (at + STEP, false)] {
            let mut unit = self.unit(at, key);
            unit.capture_utc = UtcNanos(unit.capture_utc.0.strict_add_signed(late));
            assert!(cut(&mut self.cutter, &unit).is_none());
        }
        self.end().unwrap()
    }
}

fn durations(fragment: &Fragment) -> Vec<u32> {
    fragment.samples.iter().map(|sample| sample.duration).collect()
}

/// By how much playback has a fragment later than the camera's pictures are on time, nanoseconds.
fn late(fragment: &Fragment) -> i64 {
    let on_time = NOON.0 + base::time::nanos(after(fragment.start_media.0 - START));
    fragment.start_utc.0.cast_signed() - on_time.cast_signed()
}

#[test]
fn a_fragment_ends_before_the_first_picture_half_a_second_after_its_first() {
    let mut camera = Camera::began(&(1..10).map(|n| n * STEP).collect::<Vec<_>>());
    let first = camera.push(10 * STEP).unwrap();
    assert!(first.begins_segment && first.discontinuity && first.key);
    assert_eq!((first.samples.len(), first.duration()), (10, 10 * STEP));
    assert_eq!((first.start_media.0, first.decode, first.start_utc), (START, START, NOON));
    let bytes: u32 = first.samples.iter().map(|sample| sample.bytes).sum();
    assert_eq!(first.pictures.len(), bytes as usize);
    assert!(first.samples.iter().all(|s| (s.duration, s.composition) == (4500, 0)));
    // One without a picture is none.
    let mut delimiter = camera.unit(11 * STEP, false);
    delimiter.data = vec![0, 0, 0, 1, 9, 0x10];
    assert!(cut(&mut camera.cutter, &delimiter).is_none());
    let second = camera.end().unwrap();
    assert!(!second.begins_segment && !second.discontinuity && !second.key);
    assert_eq!((second.samples.len(), second.decode), (1, START + 10 * STEP));
    assert_eq!(late(&second), 0);
    // Those that come all at once, after a second of pictures.
    let mut camera = Camera::new();
    for n in 0..=20 {
        let mut unit = camera.unit(n * STEP, n == 0);
        unit.capture = Instant(1000 * NANOS_PER_SEC);
        let done = cut(&mut camera.cutter, &unit);
        assert_eq!(done.map(|done| done.samples.len()), (n == 20).then_some(20), "{n}");
    }
}

#[test]
fn a_fragment_does_not_end_before_a_picture_that_is_shown_before_others_of_it() {
    let mut camera = Camera::began(&(1..10).map(|n| n * STEP).collect::<Vec<_>>());
    for (media, at) in [(9 * STEP - 900, 10), (9 * STEP, 11)] {
        let unit = AccessUnit { media: MediaTime(START + media), ..camera.unit(at * STEP, false) };
        assert!(cut(&mut camera.cutter, &unit).is_none(), "at {at}");
    }
    assert_eq!(camera.push(12 * STEP).unwrap().samples.len(), 12);
}

#[test]
fn fragments_and_segments_have_their_bytes_and_no_more() {
    let bytes_of_key = Camera::began(&[]).end().unwrap().pictures.len();
    let with = |camera: &Camera, at, bytes: usize| {
        let mut unit = camera.unit(at, false);
        unit.data.resize(bytes, 7);
        unit
    };
    for over in [0, 1] {
        let mut camera = Camera::began(&[]);
        let unit = with(&camera, STEP, FRAGMENT_BYTES - bytes_of_key + over);
        let done = cut(&mut camera.cutter, &unit);
        assert_eq!(done.is_some(), over == 1);
    }
    let camera = Camera::began(&[STEP]);
    let segment = camera.cutter.segment.as_ref().unwrap();
    assert_eq!(segment.bytes, bytes_of_key as u64 + 6 + 2 * 64, "with what the boxes take");
    for over in [0, 1] {
        let mut camera = Camera::began(&[STEP]);
        let unit = with(&camera, 2 * STEP, 1000);
        camera.cutter.segment.as_mut().unwrap().bytes = SEGMENT_BYTES - 1000 + over;
        let done = cut(&mut camera.cutter, &unit);
        assert_eq!(done.map(|done| done.samples.len()), (over == 1).then_some(2));
        // The rest waits for a key picture.
        assert!(over == 0 || camera.push(3 * STEP).is_none());
        let rest = camera.key(4 * STEP);
        assert_eq!(rest.map(|rest| rest.samples.len()), (over == 0).then_some(3));
        let next = camera.end().unwrap();
        assert_eq!((next.begins_segment, next.discontinuity), (true, over == 1));
    }
    for over in [0, 1] {
        let mut camera = Camera::began(&[]);
        let bytes = SEGMENT_BYTES - camera.key.len() as u64 + over;
        camera.cutter.segment.as_mut().unwrap().bytes = bytes;
        assert!(camera.key(STEP).is_some());
        assert_eq!(camera.end().unwrap().begins_segment, over == 1);
    }
}

#[test]
fn a_segment_ends_before_a_key_picture_when_it_is_time() {
    let begins = |change: fn(&Camera, &mut AccessUnit), at| {
        let mut camera = Camera::began(&[]);
        let mut unit = camera.unit(at, true);
        change(&camera, &mut unit);
        assert!(cut(&mut camera.cutter, &unit).is_some());
        let fragment = camera.end().unwrap();
        assert!(fragment.key);
        (fragment.begins_segment, fragment.discontinuity)
    };
    let six = 6 * MediaTime::RATE;
    assert_eq!(begins(|_, _| (), STEP), (false, false));
    assert!(!begins(|_, _| (), six - 9).0);
    assert!(begins(|_, _| (), six).0);
    let midnight = |unit: &mut AccessUnit| {
        unit.capture_utc = UtcNanos(Day::of(NOON).start().0 + 24 * 3600 * NANOS_PER_SEC);
    };
    assert!(begins(|_, unit| unit.flags = UnitFlags::KEY.with(UnitFlags::DISCONTINUITY), STEP).0);
    let mut camera = Camera::new();
    let mut unit = camera.unit(0, true);
    midnight(&mut unit);
    unit.capture_utc.0 -= 1;
    assert!(cut(&mut camera.cutter, &unit).is_none());
    let mut unit = camera.unit(STEP, true);
    midnight(&mut unit);
    assert!(cut(&mut camera.cutter, &unit).is_some());
    assert!(camera.end().unwrap().begins_segment, "the day's first");
    // The same sets in another order decode the same; others do not.
    let turned = |_: &Camera, unit: &mut AccessUnit| {
        let mut parts: Vec<Vec<u8>> = nals(&unit.data).map(<[u8]>::to_vec).collect();
        parts.sort_by_key(|nal| match nal[0] & 0x1f {
            8 => 0,
            7 => 1,
            _ => 2,
        });
        unit.data = parts.iter().flat_map(|nal| [&[0, 0, 0, 1], &nal[..]].concat()).collect();
    };
    assert_eq!(begins(turned, STEP), (true, false));
    let other = |_: &Camera, unit: &mut AccessUnit| {
        unit.data = units("pedestrians.mp4", NOON, 1, |_| 0).remove(0).data;
    };
    assert_eq!(begins(other, STEP), (true, true));
}

#[test]
fn a_loss_or_a_jump_of_more_than_its_bound_ends_the_segment() {
    let begun = |at, pushed, after_loss| {
        let mut camera = Camera::new();
        assert!(camera.key(at).is_none() && camera.push(at + STEP).is_none());
        let cut = camera.cutter.push(&camera.unit(pushed, false), after_loss).fragment;
        let before = cut.map_or(0, |cut| cut.samples.len());
        (before, camera.end().map_or(0, |rest| rest.samples.len()))
    };
    assert_eq!(begun(0, 2 * STEP, false), (0, 3));
    assert_eq!(begun(0, 2 * STEP, true), (2, 0));
    assert_eq!(begun(0, STEP + JUMP, false), (2, 1));
    assert_eq!(begun(0, STEP + JUMP + 1, false), (2, 0));
    assert_eq!(JUMP, 10 * MediaTime::RATE);
    assert_eq!(begun(JUMP, STEP, false), (0, 3), "back");
    assert_eq!(begun(JUMP, STEP - 1, false), (2, 0));
    let mut camera = Camera::began(&[STEP]);
    assert!(camera.cutter.push(&camera.unit(2 * STEP, true), true).fragment.is_some());
    let next = camera.end().unwrap();
    assert!(next.begins_segment && next.discontinuity);
}

#[test]
fn what_waits_too_long_ends_without_a_next_picture() {
    let first = Camera::new().unit(0, true).capture;
    let mut camera = Camera::began(&[STEP, STEP]);
    let early = first + (FRAGMENT_WAIT - Duration::from_nanos(1));
    assert!(camera.cutter.flush(early, false).is_none());
    let done = camera.cutter.flush(first + FRAGMENT_WAIT, false).unwrap();
    assert_eq!(done.samples.len(), 3, "equal times are in order");
    assert!(camera.cutter.flush(Instant::FAR, false).is_none());
    // Of those that are shown last, the first and what came after it stay.
    let mut camera = Camera::began(&[2 * STEP, STEP, 2 * STEP]);
    let done = camera.cutter.flush(first + FRAGMENT_WAIT, false).unwrap();
    assert_eq!((done.samples.len(), camera.end().unwrap().samples.len()), (1, 3));
}

#[test]
fn pictures_out_of_order_are_decoded_before_they_are_shown() {
    let times = [3, 1, 2, 6, 4, 5].map(|n| n * STEP);
    let fragment = Camera::began(&times).end().unwrap();
    assert_eq!((fragment.start_media.0, fragment.decode), (START, START - STEP));
    let composition: Vec<_> = fragment.samples.iter().map(|s| s.composition).collect();
    assert_eq!(composition, [1, 3, 0, 0, 3, 0, 0].map(|n| n * 4500));
    assert_eq!(durations(&fragment), [4500; 7]);
    // Equal ones are decoded one after the other.
    let fragment = Camera::began(&[STEP, STEP, 2 * STEP]).end().unwrap();
    assert_eq!(durations(&fragment)[..3], [4500, 1, 4499]);
}

#[test]
fn the_last_picture_lasts_until_the_next_one_or_as_long_as_others_do() {
    assert_eq!(durations(&Camera::began(&[]).end().unwrap()), [STEP_DEFAULT]);
    assert_eq!(durations(&Camera::began(&[STEP, 2 * STEP]).end().unwrap()), [4500; 3]);
    // A pause says nothing of the rate.
    let fragment = Camera::began(&[STEP, 4 * STEP]).end().unwrap();
    assert_eq!(durations(&fragment), [4500, 13_500, 4500]);
    let last = 2 * STEP;
    let until = |next| {
        let mut camera = Camera::began(&[STEP, last]);
        let length = durations(&camera.key(next).unwrap())[2];
        (length, camera.end().unwrap().decode - START)
    };
    assert_eq!(until(last + 5000), (5000, last + 5000));
    assert_eq!(until(last + 89_999), (89_999, last + 89_999));
    assert_eq!(until(last + 90_000), (4500, last + 90_000), "a second is a gap");
    assert_eq!(until(last), (4500, last + 1), "decoding times rise");
    assert_eq!(until(last - 900), (4500, last + 1));
    // Few pictures a second: each is a fragment.
    let mut camera = Camera::began(&[]);
    let mut next = |at| durations(&camera.key(at).unwrap());
    assert_eq!(next(180_000), [STEP_DEFAULT]);
    assert_eq!(next(360_000), [180_000]);
    assert_eq!(next(760_000), [400_000], "not three times as long as before");
}

#[test]
fn a_hole_before_a_key_picture_is_told() {
    let told = |at: u64, key| {
        let mut camera = Camera::new();
        assert!(camera.pair(JUMP, true, 0).discontinuity, "the first");
        camera.pair(JUMP + at, key, 0).discontinuity
    };
    let end = 2 * STEP;
    assert!(!told(end, true) && !told(end + 90_000, true));
    assert!(told(end + 90_001, true));
    assert!(!told(end + 90_001, false), "a decoder could not begin there");
    let back = |by| {
        let mut camera = Camera::new();
        camera.pair(JUMP, true, 0);
        camera.pair(JUMP + end - by, true, 0).discontinuity
    };
    assert!(!back(90_000) && back(90_001));
    // Of few pictures a second, as long as half of what one lasts.
    for (at, hole) in [(600_000, false), (600_001, true)] {
        let mut camera = Camera::began(&[]);
        assert!(camera.key(200_000).is_some());
        assert!(camera.end().is_some(), "ends at 400000");
        assert!(camera.key(at).is_none());
        assert_eq!(camera.end().unwrap().discontinuity, hole, "{at}");
    }
}

#[test]
fn arrival_moves_the_line_of_time_a_little_and_a_step_moves_it_there() {
    let pair = 2 * STEP;
    let second = |by| {
        let mut camera = Camera::new();
        assert_eq!(late(&camera.pair(0, true, 0)), 0);
        late(&camera.pair(pair, true, by))
    };
    assert_eq!(second(40 * MILLISECOND), 5 * MILLISECOND);
    assert_eq!(second(-40 * MILLISECOND), -5 * MILLISECOND);
    assert_eq!((second(SNAP), second(-SNAP)), (SNAP, -SNAP));
    assert_eq!(second(SNAP - 8), (SNAP - 8) / SMOOTHING);
    let mut camera = Camera::new();
    camera.pair(0, true, 300 * MILLISECOND);
    assert_eq!(late(&camera.pair(pair, true, 340 * MILLISECOND)), 305 * MILLISECOND);
    for key in [true, false] {
        for (by, told) in [(999_999_999, false), (1_000_000_000, key), (-1_000_000_000, key)] {
            let mut camera = Camera::new();
            camera.pair(0, true, 0);
            let next = camera.pair(pair, key, by);
            assert_eq!((next.discontinuity, late(&next)), (told, by), "key: {key}");
        }
    }
}
