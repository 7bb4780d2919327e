//! What goes and what stays, with segments that are nothing but their lengths, on a disk and with
//! clocks that the tests set.

use super::super::tests::{Rig, cut, units, wait_until};
use super::super::{Recorder, cutter::Cutter, storage::Claim, writer::Writer};
use super::*;
use crate::recorder::storage::Writing;
use base::clock_trust::{Doubt, REST};
use base::time::NANOS_PER_SEC as SECOND;
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::Ordering;

const MIB: u64 = 1 << 20;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

fn midnight(day: &str) -> u64 {
    Day::parse(day).unwrap().start().0
}

/// Recordings, and the machine that they lie on.
struct Shelf {
    rig: Rig,
    now: Clocks,
    sweeper: Sweeper,
}

impl Shelf {
    /// At noon of 8 January 2026, on a disk of 10,000 MiB.
    fn new() -> Shelf {
        Shelf::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Retention)) -> Shelf {
        let rig = Rig::with(change);
        rig.limits.size.store(10_000 * MIB, Ordering::SeqCst);
        let utc = UtcNanos(midnight("20260108") + 12 * HOUR);
        let now = Clocks { utc, monotonic: Instant(1000 * SECOND) };
        let sweeper = Sweeper::new(&rig.storage, now);
        Shelf { rig, now, sweeper }
    }

    /// A segment of so many bytes.
    fn segment(&self, camera: &str, utc: u64, bytes: u64) -> PathBuf {
        let (camera, name) = (CameraId::new(camera).unwrap(), SegmentName::at(UtcNanos(utc)));
        let path = self.rig.storage.recordings.segment(&camera, name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        let index = path.with_file_name(INDEX_NAME);
        if !index.exists() {
            fs::write(index, Header::default().encode()).unwrap();
        }
        path
    }

    /// So many of 10 MiB each, a minute apart; the newest so long ago.
    fn segments(&self, camera: &str, count: u64, ago: u64) {
        for n in 0..count {
            self.segment(camera, self.now.utc.0 - ago - n * MINUTE, 10 * MIB);
        }
    }

    /// Whether they are there yet, the oldest first, and how long ago they began.
    fn ages(&self, camera: &str) -> Vec<u64> {
        let camera = CameraId::new(camera).unwrap();
        let recordings = &self.rig.storage.recordings;
        let days = recordings.days(&camera).unwrap();
        let names = days.iter().flat_map(|day| recordings.segments(&camera, *day).unwrap());
        names.map(|name| self.now.utc.0 - name.utc().0).collect()
    }

    fn left(&self, camera: &str) -> usize {
        self.ages(camera).len()
    }

    fn used(&mut self, permille: u64) -> &mut Shelf {
        self.rig.limits.used_permille.store(permille, Ordering::SeqCst);
        self
    }

    fn pass(&mut self, nanos: u64) -> &mut Shelf {
        self.now.utc.0 += nanos;
        self.now.monotonic.0 += nanos;
        self
    }

    fn set(&mut self, nanos: i64) -> &mut Shelf {
        self.now.utc.0 = self.now.utc.0.checked_add_signed(nanos).unwrap();
        self
    }

    fn sweep(&mut self) -> Removed {
        self.sweeper.sweep(&self.rig.storage, self.now)
    }

    /// How many went.
    fn swept(&mut self) -> u64 {
        self.sweep().all().segments
    }

    fn restart(&mut self) {
        self.sweeper = Sweeper::new(&self.rig.storage, self.now);
    }
}

fn room(segments: u64) -> Removed {
    Removed { room: Count { segments, bytes: segments * 10 * MIB }, ..Removed::default() }
}

fn no_space(segments: u64) -> Removed {
    Removed { no_space: Count { segments, bytes: segments * 10 * MIB }, ..Removed::default() }
}

#[test]
fn limits_of_the_disk_have_their_targets() {
    let retention = Retention::default();
    assert_eq!(
        [0.5, 0.89, 0.90, 0.949, 0.95, 1.0].map(|used| retention.target(used)),
        [None, None, Some(0.85), Some(0.85), Some(0.80), Some(0.80)]
    );
}

#[test]
fn what_is_older_than_its_age_goes_whatever_the_disk_says() {
    let mut shelf = Shelf::new();
    let week = 7 * DAY;
    shelf.segment("a", shelf.now.utc.0 - week, 1);
    for n in 0..10 {
        shelf.segment("a", shelf.now.utc.0 - week - n * HOUR - 1000, 1);
        shelf.segment("b", shelf.now.utc.0 - week - 30 * MINUTE - n * HOUR, 1);
    }
    let day = Day::of(UtcNanos(shelf.now.utc.0 - week));
    let a = CameraId::new("a").unwrap();
    let count = Count { segments: 20, bytes: 20 };
    assert_eq!(shelf.sweep(), Removed { age: count, ..Removed::default() });
    assert_eq!((shelf.ages("a"), shelf.left("b")), (vec![week], 0));
    // The index says so, and the camera without another segment has no day.
    let index = shelf.rig.storage.recordings.day(&a, day).join(INDEX_NAME);
    let header = ipc::recording::read_index(&index, UtcNanos(0)).unwrap().header;
    assert_eq!(header.removed_before.0, shelf.now.utc.0 - week);
    let b = CameraId::new("b").unwrap();
    assert_eq!(shelf.rig.storage.recordings.days(&b).unwrap(), []);
    assert_eq!(shelf.rig.limits.looks.load(Ordering::SeqCst), 1);
}

#[test]
fn room_is_counted_once_and_waited_for() {
    let mut shelf = Shelf::new();
    for camera in ["a", "b"] {
        shelf.segments(camera, 200, 3 * HOUR);
    }
    // 93 to 85 %: 800 MiB. The disk does not show that they are gone.
    shelf.used(930);
    assert_eq!(shelf.sweep(), room(80));
    assert_eq!(shelf.rig.limits.looks.load(Ordering::SeqCst), 1, "not between deletions");
    assert_eq!((shelf.left("a"), shelf.left("b")), (160, 160), "the oldest of both");
    assert_eq!(*shelf.ages("a").first().unwrap(), 3 * HOUR + 159 * MINUTE);
    shelf.pass(10 * SECOND);
    assert_eq!(shelf.swept(), 0, "it may come back late");
    shelf.pass(50 * SECOND - 1);
    assert_eq!(shelf.swept(), 0);
    shelf.pass(1);
    assert_eq!(shelf.sweep(), room(80), "it did not come back");
    // It comes back, and somebody else takes some: what is not seen yet still counts.
    for (permille, goes) in [(851, 0), (899, 0), (930, 0), (975, 0), (985, 55), (985, 0)] {
        shelf.pass(SECOND);
        assert_eq!(shelf.used(permille).swept(), goes, "{permille}");
    }
}

#[test]
fn the_wait_for_space_begins_when_something_was_removed() {
    let mut shelf = Shelf::new();
    shelf.segments("a", 200, 3 * HOUR);
    assert_eq!(shelf.used(500).swept(), 0);
    shelf.pass(50 * SECOND);
    assert_eq!(shelf.used(930).swept(), 80);
    shelf.pass(59 * SECOND);
    assert_eq!(shelf.swept(), 0);
}

#[test]
fn what_recorders_write_meanwhile_is_not_taken_for_space_that_is_late() {
    let mut shelf = Shelf::new();
    shelf.segments("a", 300, 3 * HOUR);
    shelf.rig.claim.takes(true, 400 * MIB);
    shelf.used(930);
    assert_eq!(shelf.swept(), 80);
    assert_eq!(shelf.pass(SECOND).swept(), 0, "it may come back late");
    // All of it came back, and was filled again by recordings.
    shelf.rig.claim.takes(true, 600 * MIB);
    shelf.used(910).pass(10 * SECOND);
    assert_eq!(shelf.sweep(), room(60));
}

#[test]
fn urgent_room_is_more_room() {
    let mut shelf = Shelf::new();
    shelf.segments("a", 200, 3 * HOUR);
    shelf.used(949);
    assert_eq!(shelf.swept(), 99);
    let mut shelf = Shelf::new();
    shelf.segments("a", 200, 3 * HOUR);
    shelf.used(950);
    assert_eq!(shelf.swept(), 150);
    let mut shelf = Shelf::new();
    shelf.segments("a", 200, 3 * HOUR);
    shelf.used(899);
    assert_eq!(shelf.swept(), 0);
}

#[test]
fn others_that_fill_the_disk_evict_no_recording_of_the_last_hours() {
    let mut shelf = Shelf::new();
    // 40 of before the last two hours, to the microsecond, and 60 of after.
    shelf.segments("a", 40, 2 * HOUR);
    shelf.segment("a", shelf.now.utc.0 - 2 * HOUR + 1000, 10 * MIB);
    shelf.segments("a", 60, MINUTE);
    shelf.used(1000);
    assert_eq!(shelf.sweep(), room(40));
    let gone: u64 = (0..100).map(|_| shelf.pass(SECOND).swept()).sum();
    assert_eq!(gone, 1, "it has two hours now; how often it is looked at changes nothing");
    let warning = shelf.rig.storage.warning();
    assert!(warning.contains("others fill the disk, 6 % of what is used"), "{warning}");
    assert!(warning.ends_with("of which the last 120 min stay; make room"), "{warning}");
    let told = refuse(&shelf.rig.claim, shelf.now, MIB);
    assert!(told.contains("is full: others fill the disk, 6 %"), "{told}");
    // They made room.
    shelf.used(500).pass(MINUTE);
    assert_eq!(shelf.swept(), 1, "what was refused");
    assert_eq!(shelf.rig.storage.warning(), "");
}

#[test]
fn without_a_floor_all_go_but_what_is_written() {
    let mut shelf = Shelf::with(|retention| retention.keep_at_least = Duration::ZERO);
    shelf.segments("a", 30, 0);
    shelf.rig.claim.announce(Writing::Open(SegmentName::at(shelf.now.utc)));
    shelf.segment("cam", shelf.now.utc.0, 10 * MIB);
    shelf.segment("cam", shelf.now.utc.0 + SECOND, 10 * MIB);
    shelf.used(1000);
    assert_eq!(shelf.swept(), 30);
    assert_eq!(
        (
            shelf.left("a"),
            shelf
                .rig
                .storage
                .recordings
                .segments(&shelf.rig.claim.camera, Day::of(shelf.now.utc))
                .unwrap()
                .len()
        ),
        (0, 2)
    );
    let warning = shelf.rig.storage.warning();
    assert!(warning.contains("0 % of what is used are recordings; make room"), "{warning}");
}

#[test]
fn where_recordings_are_half_of_what_is_used_the_oldest_goes_as_always() {
    for (mib, used, goes) in [(500, 1000, 1), (490, 1000, 0), (600, 1000, 20), (950, 1000, 20)] {
        let mut shelf = Shelf::new();
        shelf.rig.limits.size.store(1000 * MIB, Ordering::SeqCst);
        shelf.segments("a", mib / 10, MINUTE);
        shelf.used(used);
        assert_eq!(shelf.swept(), goes, "{mib} MiB of {used}");
        assert_eq!(shelf.rig.storage.warning().is_empty(), goes == 20, "{mib}");
    }
}

#[test]
fn what_recordings_take_is_kept_up_and_counted_again_now_and_then() {
    let mut shelf = Shelf::new();
    shelf.rig.limits.size.store(1000 * MIB, Ordering::SeqCst);
    shelf.segments("a", 30, MINUTE);
    assert_eq!(shelf.used(950).swept(), 0, "300 of 950 MiB");
    shelf.rig.claim.takes(true, 170 * MIB);
    shelf.pass(MINUTE);
    assert_eq!(shelf.swept(), 0, "470 of 950 MiB, and 120 min are kept");
    shelf.rig.claim.takes(true, 10 * MIB);
    assert_eq!(shelf.swept(), 2, "480 of 950, 470 of 940, and 460 of 930 are less than half");
    shelf.pass(600 * SECOND - MINUTE - 1);
    shelf.rig.claim.takes(true, 20 * MIB);
    assert_eq!(shelf.swept(), 2, "480 of 950");
    shelf.rig.claim.takes(true, 100 * MIB);
    shelf.pass(1);
    assert_eq!(shelf.swept(), 0, "there are 260");
}

fn refuse(claim: &Claim, now: Clocks, bytes: u64) -> String {
    claim.takes(true, bytes);
    claim.refused(&rustix::io::Errno::NOSPC.into(), now.monotonic)
}

#[test]
fn what_finds_no_space_takes_the_room_of_the_oldest_and_no_more() {
    let mut shelf = Shelf::new();
    shelf.segments("a", 30, MINUTE);
    shelf.used(1000);
    assert_eq!(shelf.swept(), 0, "the floor");
    // One byte more than two of them.
    refuse(&shelf.rig.claim, shelf.now, 20 * MIB + 1);
    assert_eq!(shelf.sweep(), no_space(3));
    assert_eq!(*shelf.ages("a").first().unwrap(), 27 * MINUTE, "the oldest");
    let warning = shelf.rig.storage.warning();
    assert!(warning.ends_with("writing found no space, the oldest recordings go for new ones"));
    assert!(warning.starts_with("others fill the disk"), "{warning}");
    shelf.pass(SECOND);
    assert_eq!(shelf.swept(), 0, "once");
    // The next segments ask in advance, so that they find it.
    for n in 1..=5 {
        shelf.pass(6 * SECOND);
        shelf.rig.claim.takes(true, 9 * MIB);
        shelf.rig.claim.takes(false, MIB);
        assert_eq!(shelf.swept(), if n == 1 { 3 } else { 1 }, "{n}: as much as the one before");
    }
    // What goes for the disk as a whole counts as well.
    refuse(&shelf.rig.claim, shelf.now, 20 * MIB);
    shelf.segments("b", 200, 3 * HOUR);
    shelf.pass(MINUTE);
    assert_eq!(shelf.sweep(), room(200));
}

#[test]
fn a_quota_is_not_seen_on_the_disk() {
    let mut shelf = Shelf::new();
    shelf.segments("a", 30, MINUTE);
    shelf.used(300);
    shelf.rig.claim.takes(true, 10 * MIB);
    let error = rustix::io::Errno::DQUOT.into();
    let told = shelf.rig.claim.refused(&error, shelf.now.monotonic);
    assert!(told.contains("quota of ") && told.contains("raise it"), "{told}");
    assert_eq!(shelf.sweep(), no_space(1));
    let warning = shelf.rig.storage.warning();
    assert!(warning.contains("found no space, the oldest") && warning.contains("raise the quota"));
    shelf.rig.claim.takes(true, 10 * MIB);
    assert_eq!(shelf.sweep(), no_space(1), "in advance");
    let other: io::Error = rustix::io::Errno::IO.into();
    let told = shelf.rig.claim.refused(&other, shelf.now.monotonic);
    assert!(told.contains("can't write to ") && told.contains("permissions"), "{told}");
    let told = shelf.rig.claim.refused(&io::Error::other("no segment is open"), Instant(0));
    assert!(told.starts_with("no segment is open; check"), "{told}");
    shelf.pass(600 * SECOND);
    assert_eq!((shelf.swept(), shelf.rig.storage.warning()), (0, String::new()));
}

#[test]
fn a_disk_that_is_full_before_the_start_is_emptied_and_recording_goes_on() {
    let rig = Rig::new();
    let mut old = units("pedestrians.mp4", UtcNanos(midnight("20260108")), 60, |_| 0);
    rig.record(&old);
    let before = rig.segments();
    assert!(before.len() > 5);
    let bytes: u64 = before.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let Rig { _root, storage, claim, limits } = rig;
    drop(claim);
    limits.left.store(10, Ordering::SeqCst);
    limits.size.store(2 * bytes, Ordering::SeqCst);
    limits.used_permille.store(1000, Ordering::SeqCst);
    let counters: Arc<crate::counters::Counters> = Arc::default();
    let camera = CameraId::new("cam").unwrap();
    let recorder = Recorder::start(camera, Arc::clone(&storage), Arc::clone(&counters)).unwrap();
    old.extend(units("pedestrians.mp4", UtcNanos(midnight("20260108") + HOUR), 600, |_| 0));
    let mut new =
        old.into_iter().skip_while(|unit| unit.capture_utc.0 < midnight("20260108") + HOUR);
    let mut feed = || {
        if let Some(mut unit) = new.next() {
            unit.capture = ipc::clock::monotonic();
            recorder.push(&Arc::new(unit));
        }
    };
    let state = || counters.recording.get();
    wait_until("it says that the disk is full", || {
        feed();
        state().1.contains("is full")
    });
    // All of them are younger than the floor, and recordings half of what is used.
    let now =
        Clocks { utc: UtcNanos(midnight("20260108") + HOUR), monotonic: ipc::clock::monotonic() };
    let mut sweeper = Sweeper::new(&storage, now);
    let removed = sweeper.sweep(&storage, now).all();
    assert!(removed.segments > 0 && !before[0].exists(), "{removed:?}");
    limits.left.store(removed.bytes, Ordering::SeqCst);
    wait_until("recording goes on", || {
        feed();
        state().0
    });
    recorder.stop().unwrap().join().unwrap();
}

#[test]
fn a_camera_that_is_connected_and_has_nothing_to_record_keeps_no_old_recordings() {
    let mut shelf = Shelf::new();
    let old = shelf.segment("cam", shelf.now.utc.0 - 8 * DAY, 1);
    assert_eq!((shelf.swept(), old.exists()), (1, false), "its recorder has never begun one");
    let old = shelf.segment("cam", shelf.now.utc.0 - 8 * DAY, 1);
    shelf.rig.claim.announce(Writing::PuttingInOrder);
    assert_eq!((shelf.swept(), old.exists()), (0, true), "nothing is touched meanwhile");
    shelf.rig.claim.announce(Writing::Between);
    assert_eq!((shelf.swept(), old.exists()), (1, false));
    // A recovery that fails.
    let camera = &shelf.rig.claim.camera;
    let directory = shelf.rig.storage.recordings.root().join(camera.as_str());
    fs::remove_dir_all(&directory).unwrap();
    fs::write(directory, "no directory").unwrap();
    assert!(Writer::open(&shelf.rig.claim).is_err());
    assert_eq!(shelf.rig.storage.written(camera), Some(Writing::Between));
}

#[test]
fn a_clock_that_jumps_removes_nothing_for_its_age() {
    for jump in [DAY as i64, 8 * DAY as i64, 365 * DAY as i64, -(DAY as i64)] {
        let mut shelf = Shelf::new();
        shelf.segments("a", 10, 0);
        shelf.segments("a", 10, 6 * DAY);
        assert_eq!(shelf.swept(), 0);
        shelf.set(jump).pass(10 * SECOND);
        assert_eq!(shelf.swept(), 0, "{jump}");
        let warning = shelf.rig.storage.warning();
        let word = if jump > 0 { "set forward" } else { "set back" };
        assert!(warning.contains(word) && warning.contains("vas clock accept"), "{warning}");
        // A restart doesn't make it right, with recordings of the wrong time there.
        shelf.segments("a", 1, 0);
        shelf.restart();
        assert_eq!(shelf.swept(), 0, "{jump}");
        assert!(shelf.rig.storage.warning().contains("before the restart"));
        // After a day of running it is trusted.
        shelf.pass(DAY - 1);
        assert_eq!(shelf.swept(), 0, "{jump}");
        shelf.pass(1);
        let goes = match jump {
            j if j < 0 => 0,
            j if j == DAY as i64 => 10,
            _ => 20,
        };
        assert_eq!(shelf.swept(), goes, "{jump}");
        assert_eq!(shelf.rig.storage.warning(), "");
    }
}

#[test]
fn after_two_weeks_off_nothing_goes_for_a_day_unless_somebody_accepts() {
    let mut shelf = Shelf::new();
    shelf.segments("a", 10, 0);
    assert_eq!(shelf.swept(), 0);
    let memory = shelf.rig.storage.recordings.root().join(base::clock_trust::MEMORY_NAME);
    for forgets in [false, true] {
        shelf.set(14 * DAY as i64);
        if forgets {
            // As a program of before left it: the newest segment speaks.
            fs::remove_file(&memory).unwrap();
        }
        shelf.restart();
        assert_eq!(shelf.swept(), 0);
        let warning = shelf.rig.storage.warning();
        assert!(warning.contains("14 d ahead") || warning.contains("28 d ahead"), "{warning}");
        assert_eq!(shelf.sweeper.clock.look(shelf.now).map(|rest| rest.left), Some(REST));
    }
    let accepted = &shelf.rig.storage.options.accepted_clock;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(accepted, format!("1 {} {}\n", boot.trim_end(), shelf.now.offset().0)).unwrap();
    shelf.pass(10 * SECOND);
    assert_eq!(shelf.swept(), 10);
}

#[test]
fn limits_of_size_go_on_while_the_clock_is_in_doubt() {
    let mut shelf = Shelf::new();
    shelf.segments("a", 60, MINUTE);
    shelf.segments("a", 60, 3 * HOUR);
    assert_eq!(shelf.swept(), 0);
    shelf.set(365 * DAY as i64).used(930);
    assert_eq!(shelf.sweep(), room(60), "the floor goes by the time that is believed");
    refuse(&shelf.rig.claim, shelf.now, 20 * MIB);
    assert_eq!(shelf.sweep(), no_space(2));
}

#[test]
fn rows_that_this_run_wrote_say_nothing_of_the_time_before() {
    let shelf = Shelf::new();
    shelf.segments("a", 1, 30 * DAY);
    shelf.segments("c", 1, 40 * DAY);
    shelf.segment("a", shelf.now.utc.0, 1);
    shelf.segment("b", shelf.now.utc.0 + SECOND, 1);
    let newest = newest_before(&shelf.rig.storage.recordings, shelf.now.utc);
    assert_eq!(newest, Some(UtcNanos(shelf.now.utc.0 - 30 * DAY)));
    let mut sweeper = Sweeper::new(&shelf.rig.storage, shelf.now);
    let doubt = sweeper.clock.look(shelf.now).unwrap().doubt;
    assert_eq!(doubt, Doubt::Ahead(Duration::from_secs(30 * 86_400)));
}

#[test]
fn the_oldest_day_is_listed_once_while_it_is_removed() {
    let mut shelf = Shelf::new();
    for camera in ["a", "b"] {
        shelf.segments(camera, 300, 7 * DAY - 5 * HOUR);
        shelf.segments(camera, 5, 0);
    }
    let day = shelf.ages("a").len();
    let mut gone = 0;
    for _ in 0..59 {
        shelf.pass(MINUTE);
        gone += shelf.swept();
    }
    assert_eq!((gone, day), (116, 305));
    assert_eq!(shelf.sweeper.listing.listed, 2, "two cameras, once");
    // A camera more is seen.
    shelf.segments("c", 1, 8 * DAY);
    assert_eq!(shelf.swept(), 1);
}

#[test]
fn where_nothing_goes_nothing_is_listed() {
    let mut shelf = Shelf::new();
    shelf.segments("a", 200, 3 * HOUR);
    let day = shelf.now.utc.0 / DAY * DAY;
    // The day begins just as long ago as is kept.
    shelf.pass(day + 7 * DAY - shelf.now.utc.0);
    assert_eq!((shelf.swept(), shelf.sweeper.listing.listed), (0, 0));
    // And just as much is to go as its day has.
    shelf.segments("b", 80, 10 * DAY - 2 * HOUR);
    assert_eq!(shelf.used(930).swept(), 80);
    assert_eq!(shelf.sweeper.listing.listed, 1);
}

#[test]
fn a_day_that_grows_is_listed_again_when_its_list_is_empty() {
    let mut shelf = Shelf::with(|retention| retention.age = Duration::from_secs(3600));
    shelf.segments("a", 2, HOUR + MINUTE);
    shelf.segments("a", 1, HOUR - MINUTE);
    assert_eq!(shelf.swept(), 2);
    shelf.segments("a", 1, HOUR - 2 * MINUTE);
    shelf.pass(5 * MINUTE);
    assert_eq!(shelf.swept(), 2, "the one in the list, and the one behind it");
}

#[test]
fn a_day_of_more_names_than_are_kept_goes_in_order_and_as_a_whole() {
    for newest in [DAY, 8 * DAY] {
        let mut shelf = Shelf::new();
        let start = midnight("20260108") - newest;
        for (camera, at) in [("a", 0), ("b", 30 * SECOND), ("c", 10 * HOUR)] {
            for n in 0..600 {
                shelf.segment(camera, start + at + n * MINUTE, 10 * MIB);
            }
        }
        if newest == DAY {
            // The oldest 80 of all three, and then 80 more.
            for gone in [40, 80] {
                assert_eq!(shelf.used(930).swept(), 80);
                assert_eq!((shelf.left("a"), shelf.left("b")), (600 - gone, 600 - gone));
                shelf.pass(MINUTE);
            }
            assert_eq!(shelf.sweeper.listing.listed, 3);
        } else {
            assert_eq!(shelf.swept(), 1800);
            assert_eq!(shelf.sweeper.listing.listed, 6, "once more, for the rest");
            let days = |camera: &str| {
                shelf.rig.storage.recordings.days(&CameraId::new(camera).unwrap()).unwrap()
            };
            assert_eq!([days("a"), days("b"), days("c")], [vec![], vec![], vec![]]);
        }
    }
}

#[test]
fn a_long_day_of_which_nothing_may_go_ends_a_sweep() {
    let mut shelf = Shelf::new();
    shelf.rig.claim.announce(Writing::PuttingInOrder);
    for n in 0..1001 {
        shelf.segment("cam", midnight("20251230") + n * MINUTE, 1);
    }
    shelf.segments("a", 1, 8 * DAY);
    assert_eq!(shelf.swept(), 1);
    shelf.rig.claim.announce(Writing::Between);
    assert_eq!(shelf.swept(), 1001);
}

#[test]
fn names_that_come_before_those_in_the_list_are_seen_within_an_hour() {
    let mut shelf = Shelf::new();
    shelf.segments("a", 10, 7 * DAY - 3 * HOUR);
    shelf.segments("a", 1, 7 * DAY);
    shelf.pass(1);
    assert_eq!(shelf.swept(), 1);
    // A clock that was set back wrote it.
    let old = shelf.segment("a", shelf.now.utc.0 - 7 * DAY - HOUR, 1);
    shelf.pass(HOUR - 1);
    assert_eq!((shelf.swept(), old.exists()), (0, true));
    shelf.pass(1);
    assert_eq!((shelf.swept(), old.exists()), (1, false));
}

#[test]
fn what_a_recorder_needs_is_kept_in_the_list() {
    let mut shelf = Shelf::with(|retention| retention.age = Duration::from_secs(60));
    let open = shelf.now.utc.0 - 10 * MINUTE;
    shelf.rig.claim.announce(Writing::Open(SegmentName::at(UtcNanos(open))));
    let mine = shelf.segment("cam", open, 1);
    shelf.segment("cam", open - MINUTE, 1);
    shelf.segments("a", 3, 9 * MINUTE);
    assert_eq!((shelf.swept(), mine.exists()), (4, true));
    let listed = shelf.sweeper.listing.listed;
    shelf.pass(SECOND);
    assert_eq!(shelf.swept(), 0);
    shelf.rig.claim.announce(Writing::Between);
    assert_eq!((shelf.swept(), mine.exists()), (1, false));
    assert!(shelf.sweeper.listing.listed >= listed);
    assert_eq!(shelf.rig.storage.recordings.days(&shelf.rig.claim.camera).unwrap(), []);
}

#[test]
fn what_is_foreign_is_named_and_holds_up_nothing() {
    let mut shelf = Shelf::new();
    let root = shelf.rig.storage.recordings.root().to_owned();
    let old = shelf.now.utc.0 - 8 * DAY;
    for camera in ["b", "d"] {
        shelf.segment(camera, old, 1);
    }
    let segment = shelf.segment("c", old, 1);
    fs::remove_file(&segment).unwrap();
    fs::create_dir_all(segment.join("something")).unwrap();
    let note = shelf.segment("e", old, 1).with_file_name("note.txt");
    fs::write(&note, "do not lose").unwrap();
    let unreadable = std::ffi::OsString::from_vec(b"note\xff".to_vec());
    let unreadable = shelf.segment("g", old, 1).with_file_name(unreadable);
    fs::write(&unreadable, "whatever this is called").unwrap();
    let damaged = shelf.segment("f", old, 1).with_file_name("index.damaged");
    fs::write(&damaged, "set aside").unwrap();
    fs::write(root.join("a"), "no directory").unwrap();
    fs::write(root.join("b/20260101"), "no day").unwrap();
    assert_eq!(shelf.swept(), 5);
    assert!(segment.is_dir() && note.exists() && root.join("a").exists() && unreadable.exists());
    let days = |camera: &str| shelf.rig.storage.recordings.days(&CameraId::new(camera).unwrap());
    assert_eq!((days("d").unwrap().len(), days("f").unwrap().len()), (0, 0));
    // Each was told, and is not told again.
    for path in [root.join("a"), root.join("b/20260101"), segment.clone(), note.clone()] {
        assert!(!shelf.sweeper.listing.tell(&root, &path), "{}", path.display());
    }
    assert!(shelf.sweeper.listing.tell(&root, &root.join("another")));
    let listed = shelf.sweeper.listing.listed;
    for _ in 0..5 {
        shelf.pass(SECOND);
        assert_eq!(shelf.swept(), 0);
    }
    assert!(shelf.sweeper.failed.allows("nothing failed", Instant(0)));
    assert_eq!(shelf.sweeper.listing.listed, listed, "days of something foreign are left alone");
    // For an hour.
    let again = shelf.segment("e", old, 1);
    shelf.pass(HOUR - 5 * SECOND - 1);
    assert_eq!((shelf.swept(), again.exists()), (0, true));
    shelf.pass(1);
    assert_eq!((shelf.swept(), again.exists(), note.exists()), (1, false, true));
}

#[test]
fn a_day_that_is_nothing_but_an_index_goes() {
    let mut shelf = Shelf::new();
    let old = shelf.now.utc.0 - 8 * DAY;
    let alone = shelf.segment("h", old - DAY, 1);
    let beside = shelf.segment("h", old, 1);
    for path in [&alone, &beside] {
        fs::remove_file(path).unwrap();
    }
    shelf.segment("a", old, 1);
    assert_eq!(shelf.swept(), 1);
    assert!(!alone.parent().unwrap().exists() && !beside.parent().unwrap().exists());
}

#[test]
fn what_is_gone_already_is_no_failure_and_what_can_not_be_removed_is_one() {
    let mut shelf = Shelf::new();
    shelf.segments("a", 3, 7 * DAY - HOUR);
    let first = shelf.segment("a", shelf.now.utc.0 - 8 * DAY + 20 * HOUR, 1);
    shelf.segments("a", 1, 7 * DAY);
    shelf.pass(1);
    assert_eq!(shelf.swept(), 2, "and the others are known");
    assert!(!first.exists());
    let (camera, day) = (CameraId::new("a").unwrap(), Day::of(UtcNanos(shelf.now.utc.0 - 7 * DAY)));
    let recordings = &shelf.rig.storage.recordings;
    let names = recordings.segments(&camera, day).unwrap();
    fs::remove_file(recordings.segment(&camera, names[0])).unwrap();
    shelf.pass(HOUR - 2 * MINUTE);
    assert_eq!(shelf.swept(), 0, "somebody removed it");
    assert!(!shelf.sweeper.failed.clear());
    // The way to the others is no directory any more, though they were listed.
    let directory = shelf.rig.storage.recordings.day(&camera, day);
    fs::remove_dir_all(&directory).unwrap();
    fs::write(&directory, "in the way").unwrap();
    shelf.pass(MINUTE);
    assert_eq!(shelf.swept(), 0);
    assert!(shelf.sweeper.failed.clear());
    fs::remove_file(&directory).unwrap();
    assert!(clear(&shelf.rig.storage, &camera, day).unwrap().is_none(), "there is none");
    fs::create_dir_all(directory.join("index.new")).unwrap();
    assert!(clear(&shelf.rig.storage, &camera, day).is_err(), "no file, and named as one");
}

#[test]
fn a_root_that_can_not_be_read_is_a_failure_and_is_read_again() {
    let mut shelf = Shelf::new();
    let root = shelf.rig.storage.recordings.root().to_owned();
    fs::write(&root, "no directory").unwrap();
    assert_eq!(shelf.swept(), 0);
    assert!(shelf.sweeper.failed.clear());
    fs::remove_file(&root).unwrap();
    shelf.segments("a", 2, 8 * DAY);
    assert_eq!((shelf.swept(), shelf.sweeper.failed.clear()), (2, false));
}

#[test]
fn a_camera_that_can_not_be_read_is_a_failure_and_holds_up_no_other() {
    let mut shelf = Shelf::new();
    shelf.segments("b", 2, 8 * DAY);
    let way = shelf.rig.storage.recordings.root().join("a");
    std::os::unix::fs::symlink("a", &way).unwrap();
    assert_eq!((shelf.swept(), shelf.sweeper.failed.clear()), (2, true));
    fs::remove_file(&way).unwrap();
    assert_eq!((shelf.swept(), shelf.sweeper.failed.clear()), (0, false));
}

#[test]
fn a_clock_in_doubt_is_told_also_where_nothing_is_recorded() {
    let mut shelf = Shelf::new();
    assert_eq!((shelf.swept(), shelf.rig.storage.warning()), (0, String::new()));
    shelf.set(365 * DAY as i64);
    assert_eq!(shelf.swept(), 0);
    let warning = shelf.rig.storage.warning();
    assert!(warning.contains("set forward") && !shelf.rig.storage.recordings.root().exists());
}

#[test]
fn a_disk_that_fills_is_told_before_anything_goes() {
    let mut shelf = Shelf::new();
    shelf.segments("a", 1, 3 * HOUR);
    for (permille, told) in [(849, false), (850, true), (899, true), (849, false)] {
        assert_eq!(shelf.used(permille).swept(), 0);
        assert_eq!(shelf.sweeper.warned.clear(), told, "{permille}");
    }
}

#[test]
fn what_was_removed_is_never_said_to_be_less() {
    let shelf = Shelf::new();
    let [early, late] = [HOUR, 2 * HOUR].map(|at| midnight("20260108") + at);
    let path = shelf.segment("cam", late, 1);
    shelf.segment("cam", early, 1);
    let camera = &shelf.rig.claim.camera;
    let index = path.with_file_name(INDEX_NAME);
    let said = || ipc::recording::read_index(&index, UtcNanos(0)).unwrap().header.removed_before;
    for utc in [late, early] {
        remove(&shelf.rig.storage, camera, SegmentName::at(UtcNanos(utc))).unwrap().unwrap();
        assert_eq!(said(), UtcNanos(late + 1000));
    }
    // A damaged one is not made to look whole.
    let mut bytes = fs::read(&index).unwrap();
    bytes[0] ^= 1;
    fs::write(&index, &bytes).unwrap();
    shelf.segment("cam", late + HOUR, 1);
    remove(&shelf.rig.storage, camera, SegmentName::at(UtcNanos(late + HOUR))).unwrap().unwrap();
    assert_eq!(fs::read(&index).unwrap(), bytes);
}

#[test]
fn after_a_step_back_names_go_on_behind_what_was_removed() {
    let rig = Rig::new();
    let noon = midnight("20260108") + 12 * HOUR;
    rig.record(&units("pedestrians.mp4", UtcNanos(noon), 8, |_| 0));
    let names: Vec<_> = rig.rows().iter().map(|row| row.segment).collect();
    for name in names {
        let _ = remove(&rig.storage, &rig.claim.camera, name);
    }
    assert_eq!(rig.rows(), []);
    rig.record(&units("pedestrians.mp4", UtcNanos(noon - HOUR), 8, |_| 0));
    let rows = rig.rows();
    assert!(rows.len() > 10 && rows.iter().all(|row| row.segment.utc().0 > noon), "{rows:?}");
    assert!(rows[0].start_utc.0 < noon, "the rows say when it was");
}

#[test]
fn a_write_error_in_the_middle_leaves_all_to_the_sweep() {
    let rig = Rig::new();
    let units = units("pedestrians.mp4", UtcNanos(midnight("20260108")), 10, |_| 0);
    let (mut cutter, mut writer) = (Cutter::default(), Writer::open(&rig.claim).unwrap());
    let camera = rig.claim.camera.clone();
    assert_eq!(rig.storage.written(&camera), Some(Writing::Between));
    let mut open = None;
    for unit in &units {
        if let Some(fragment) = cut(&mut cutter, unit) {
            rig.limits.left.store(if open.is_some() { 10 } else { u64::MAX }, Ordering::SeqCst);
            let written = writer.write(&fragment);
            assert_eq!(written.is_ok(), open.is_none());
            if open.is_some() {
                break;
            }
            open = Some(SegmentName::at(fragment.start_utc));
            assert_eq!(rig.storage.written(&camera), open.map(Writing::Open));
        }
    }
    writer.abandon();
    assert_eq!(rig.storage.written(&camera), Some(Writing::Between));
    writer.close().unwrap();
    assert_eq!(rig.storage.written(&camera), Some(Writing::Between));
}

#[test]
fn what_clips_still_need_stays_until_it_is_cut_and_for_an_hour_at_most() {
    let hold = |shelf: &Shelf, camera: &str, ago: u64| {
        let start = UtcNanos(shelf.now.utc.0 - ago);
        let camera = CameraId::new(camera).unwrap();
        ipc::holds::Hold { id: "clip".into(), camera, start, end: shelf.now.utc }
    };
    let tell = |shelf: &Shelf, holds: &[ipc::holds::Hold]| {
        ipc::holds::write(&shelf.rig.storage.options.holds, holds).unwrap();
    };
    // Against age: from the window on, with what leads up to it.
    let mut shelf = Shelf::new();
    let week = 7 * DAY;
    for camera in ["a", "b"] {
        shelf.segments(camera, 10, week + MINUTE);
    }
    let one = hold(&shelf, "a", week + 5 * MINUTE);
    tell(&shelf, std::slice::from_ref(&one));
    assert_eq!(shelf.swept(), 3 + 10);
    assert_eq!((shelf.left("a"), shelf.left("b")), (7, 0));
    assert_eq!(shelf.pass(HOUR).swept(), 0, "to the end of the hour");
    assert_eq!(shelf.pass(1).swept(), 7, "and no longer");
    // Against room: the others go instead.
    let mut shelf = Shelf::new();
    for camera in ["a", "b"] {
        shelf.segments(camera, 200, 3 * HOUR);
    }
    tell(&shelf, &[hold(&shelf, "a", 10 * HOUR)]);
    assert_eq!(shelf.used(930).sweep(), room(80));
    assert_eq!((shelf.left("a"), shelf.left("b")), (200, 120));
    tell(&shelf, &[]);
    shelf.used(850).pass(MINUTE).sweep();
    assert_eq!(shelf.used(930).pass(MINUTE).sweep(), room(80));
    assert_eq!(shelf.left("a"), 120, "it was cut");
    // Not against a write that found no space.
    let mut shelf = Shelf::new();
    shelf.segments("a", 100, 3 * HOUR);
    tell(&shelf, &[hold(&shelf, "a", 10 * HOUR)]);
    refuse(&shelf.rig.claim, shelf.now, 15 * MIB);
    assert_eq!(shelf.used(1000).sweep().all().segments, 2);
    assert_eq!(shelf.left("a"), 98);
}
