//! Clips recorded in virtual time and read back: by `ipc::recording`, and by libavformat as the
//! judge of the files.

use super::cutter::{Cutter, Fragment};
use super::disk::{Disk, Limited};
use super::retention::Retention;
use super::storage::{Claim, RecordingOptions, Storage};
use super::writer::Writer;
use crate::container::ClipReader;
use crate::decoder::initialise;
use crate::pacing::TickLength;
use crate::timeline::ticks_of_utc;
use crate::unit::{AccessUnit, UnitFlags};
use base::time::NANOS_PER_SEC as SECOND;
use base::{CameraId, Instant, MediaTime, UtcNanos};
use ffmpeg_next as ff;
use ipc::recording::{Day, Row, RowFlags, recover};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub fn asset(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = root.join("tests/assets").join(name);
    if own.exists() { own } else { root.join("../assets").join(name) }
}

/// Units of a clip as a camera would send them from `utc` on, played as often as it takes to fill
/// `seconds`; each arrives `late(n)` milliseconds after its time.
pub fn units(
    clip: &str,
    utc: UtcNanos,
    seconds: u64,
    late: impl Fn(usize) -> i64,
) -> Vec<AccessUnit> {
    let mut reader = ClipReader::open(&asset(clip)).unwrap();
    let info = reader.info();
    let ticks = TickLength { numerator: 1, denominator: MediaTime::RATE as i32 };
    let (mut units, mut shift) = (Vec::new(), 0i64);
    loop {
        let mut end = 0;
        while let Some(unit) = reader.next().unwrap() {
            let nanos = |t: i64| shift + info.tick.nanos(t);
            end = end.max(nanos(unit.end));
            if nanos(unit.sent) >= (seconds * SECOND) as i64 {
                return units;
            }
            let sent = nanos(unit.sent) + late(units.len()) * 1_000_000;
            let media = ticks_of_utc(utc) as i64
                + ticks.ticks_in(Duration::from_nanos(nanos(unit.shown) as u64));
            units.push(AccessUnit {
                codec: info.codec,
                data: unit.data,
                media: MediaTime(media as u64),
                capture: Instant(1_000 * SECOND) + Duration::from_nanos(sent as u64),
                capture_utc: UtcNanos(utc.0 + sent as u64),
                flags: UnitFlags::when(unit.key, UnitFlags::KEY),
            });
        }
        shift = end;
        reader.rewind().unwrap();
    }
}

/// What comes of a unit that can be recorded.
pub fn cut(cutter: &mut Cutter, unit: &AccessUnit) -> Option<Fragment> {
    let cut = cutter.push(unit, false);
    assert_eq!(cut.refused, None);
    cut.fragment
}

pub struct Rig {
    pub _root: tempfile::TempDir,
    pub storage: Arc<Storage>,
    pub claim: Claim,
    pub limits: Arc<Limited>,
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Retention)) -> Rig {
        let root = tempfile::tempdir().unwrap();
        let limits = Arc::new(Limited { left: u64::MAX.into(), ..Limited::default() });
        let disk = Disk::limited(Arc::clone(&limits));
        let mut options =
            RecordingOptions { disk, ..RecordingOptions::new(root.path().join("rec")) };
        change(&mut options.retention);
        let storage = Storage::new(options);
        let camera = CameraId::new("cam").unwrap();
        let claim = storage.claim(&camera, || false).unwrap();
        Rig { _root: root, storage, claim, limits }
    }

    /// A recorder from its start to its end.
    pub fn record(&self, units: &[AccessUnit]) {
        let (mut cutter, mut writer) = (Cutter::default(), Writer::open(&self.claim).unwrap());
        for unit in units {
            // As the thread does: it looks several times a second.
            if let Some(fragment) = cutter.flush(unit.capture, false) {
                writer.write(&fragment).unwrap();
            }
            if let Some(fragment) = cut(&mut cutter, unit) {
                writer.write(&fragment).unwrap();
            }
        }
        if let Some(fragment) = cutter.flush(Instant::FAR, true) {
            writer.write(&fragment).unwrap();
        }
        writer.close().unwrap();
    }

    pub fn rows(&self) -> Vec<Row> {
        let recordings = &self.storage.recordings;
        let days = recordings.days(&self.claim.camera).unwrap();
        days.iter().flat_map(|day| recordings.rows(&self.claim.camera, *day).unwrap()).collect()
    }

    pub fn segments(&self) -> Vec<PathBuf> {
        let recordings = &self.storage.recordings;
        let mut paths: Vec<_> =
            self.rows().iter().map(|r| recordings.segment(&self.claim.camera, r.segment)).collect();
        paths.dedup();
        paths
    }

    /// Presentation and decoding times of every packet, as libavformat reads them, and how many
    /// pictures libavcodec makes of them.
    pub fn read_back(&self, path: &Path) -> (Vec<(i64, i64)>, usize) {
        initialise();
        let mut input = ff::format::input(path).unwrap();
        let stream = input.streams().best(ff::media::Type::Video).unwrap();
        let (index, base) = (stream.index(), stream.time_base());
        assert_eq!((base.numerator(), base.denominator()), (1, 90_000));
        let context = ff::codec::Context::from_parameters(stream.parameters()).unwrap();
        let mut decoder = context.decoder().video().unwrap();
        let (mut times, mut pictures) = (Vec::new(), 0);
        let mut frame = ff::frame::Video::empty();
        let mut drain = |decoder: &mut ff::decoder::Video| {
            while decoder.receive_frame(&mut frame).is_ok() {
                assert!(!frame.is_corrupt());
                pictures += 1;
            }
        };
        for (stream, packet) in input.packets() {
            assert_eq!(stream.index(), index);
            times.push((packet.pts().unwrap(), packet.dts().unwrap()));
            decoder.send_packet(&packet).unwrap();
            drain(&mut decoder);
        }
        decoder.send_eof().unwrap();
        drain(&mut decoder);
        (times, pictures)
    }
}

const NOON: &str = "20260131";

fn noon() -> UtcNanos {
    UtcNanos(Day::parse(NOON).unwrap().start().0 + 43_200 * SECOND + 123_456_000)
}

#[test]
fn libavformat_finds_every_picture_at_its_time() {
    for clip in ["pedestrians.mp4", "bframes.mp4", "hevc.mp4", "ten_bits.mkv"] {
        let rig = Rig::new();
        let units = units(clip, noon(), 20, |_| 0);
        rig.record(&units);
        let (mut found, mut pictures) = (Vec::new(), 0);
        for segment in rig.segments() {
            let (times, decoded) = rig.read_back(&segment);
            pictures += decoded;
            found.extend(times);
        }
        let sent: Vec<_> = units.iter().map(|unit| unit.media.0 as i64).collect();
        let shown: Vec<_> = found.iter().map(|time| time.0).collect();
        assert!(shown == sent, "{clip}: presentation times, in decoding order");
        assert!(found.is_sorted_by(|a, b| a.1 < b.1), "{clip}: decoding times rise");
        assert_eq!(pictures, units.len(), "{clip}");
        let rows = rig.rows();
        assert_eq!(rows.iter().map(|row| row.frames as usize).sum::<usize>(), units.len());
        let breaks = rows.iter().filter(|row| row.flags.has(RowFlags::DISCONTINUITY)).count();
        assert_eq!(breaks, 1, "{clip}: the first");
        let segments = rig.segments().len();
        assert!((2..=4).contains(&segments), "{clip}: {segments} segments of 6 s or more");
        for pair in rows.windows(2) {
            assert!(ipc::recording::connected(&pair[0], &pair[1]), "{clip}: {pair:?}");
            let end = pair[0].start_media.0 + u64::from(pair[0].duration);
            // Where ten_bits.mkv begins again, its pictures overlap.
            let overlap = if clip == "ten_bits.mkv" { 7200 } else { 1 };
            assert!(end.abs_diff(pair[1].start_media.0) <= overlap, "{clip}: {pair:?}");
            let begins = pair[0].segment != pair[1].segment;
            assert!(!begins || pair[1].flags.has(RowFlags::KEY));
            assert!(pair[0].duration <= 90_000);
        }
        // The index says what the segments say.
        let day = Day::parse(NOON).unwrap();
        let index = rig.storage.recordings.day(&rig.claim.camera, day).join("index");
        let whole = std::fs::read(&index).unwrap();
        std::fs::remove_file(&index).unwrap();
        recover(&rig.storage.recordings, &rig.claim.camera).unwrap();
        assert!(whole == std::fs::read(&index).unwrap(), "{clip}");
        use std::os::unix::fs::PermissionsExt;
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&rig.segments()[0]) & 0o027, 0, "nobody else reads or writes");
        assert_eq!(mode(index.parent().unwrap()) & 0o027, 0);
    }
}

/// The capture time that playback gives a picture.
fn played(rows: &[Row], media: MediaTime) -> UtcNanos {
    let holds = |row: &&Row| {
        (row.start_media.0..row.start_media.0 + u64::from(row.duration).max(1)).contains(&media.0)
    };
    let row = rows.iter().find(holds).unwrap_or_else(|| panic!("{media:?} is not there"));
    row.utc_of(media)
}

#[test]
fn through_midnight_and_a_restart_every_picture_keeps_its_arrival_time() {
    let rig = Rig::new();
    let midnight = Day::parse("20260201").unwrap().start();
    let start = UtcNanos(midnight.0 - 20 * SECOND - 377_000_000);
    // Arrival wanders by tens of milliseconds, and one picture in 50 is 80 ms late.
    let late = |n: usize| (n as i64 * 7919 % 23) + if n % 50 == 49 { 80 } else { 0 };
    let units = units("pedestrians.mp4", start, 40, late);
    // The recorder dies without a word after 27 s and comes back a second later.
    let (before, after) = (&units[..270], &units[280..]);
    let (mut cutter, mut writer) = (Cutter::default(), Writer::open(&rig.claim).unwrap());
    for unit in before {
        if let Some(fragment) = cut(&mut cutter, unit) {
            writer.write(&fragment).unwrap();
        }
    }
    drop(writer);
    rig.record(after);
    let rows = rig.rows();
    let written: u64 = rows.iter().map(|row| u64::from(row.frames)).sum();
    assert!(
        written >= units.len() as u64 - 10 - 10 - 20,
        "but for the last second and the restart"
    );
    let mut seen = 0;
    for unit in &units {
        let inside = |row: &&Row| {
            (row.start_media.0..row.start_media.0 + u64::from(row.duration)).contains(&unit.media.0)
        };
        if rows.iter().find(inside).is_none() {
            continue;
        }
        seen += 1;
        let off = played(&rows, unit.media).0.abs_diff(unit.capture_utc.0);
        assert!(off < 100_000_000, "{} ns off at {:?}", off, unit.media);
    }
    assert!(seen >= written as usize);
    // The first key picture of the day begins its first segment, and the window has no seam.
    let days = rig.storage.recordings.days(&rig.claim.camera).unwrap();
    assert_eq!(days.iter().map(Day::to_string).collect::<Vec<_>>(), ["20260131", "20260201"]);
    let (from, to) = (UtcNanos(midnight.0 - 5 * SECOND), UtcNanos(midnight.0 + 5 * SECOND));
    let window = rig.storage.recordings.window(&rig.claim.camera, from, to).unwrap();
    let (ranges, gaps) = ipc::recording::ranges(&window, from, to);
    assert_eq!((ranges.len(), gaps.len()), (1, 0), "{ranges:?} {gaps:?}");
    assert!(window.windows(2).all(|pair| ipc::recording::connected(&pair[0], &pair[1])));
    let first = rows.iter().find(|row| row.segment.day() == days[1]).unwrap();
    assert!(first.start_utc.0 < midnight.0 + 2_100_000_000, "within a group of pictures");
    let numbers: Vec<_> = rows.iter().map(|row| row.number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    let (_, gaps) = ipc::recording::ranges(&rows, start, UtcNanos(start.0 + 40 * SECOND));
    assert_eq!(gaps.len(), 1, "the restart");
}

#[test]
fn a_camera_whose_clock_runs_wrong_is_followed() {
    let rig = Rig::new();
    // It stamps 25 per second and sends 21: media time falls behind by 16 %.
    let units = units("bframes.mp4", noon(), 30, |n| n as i64 * 40 * 4 / 21);
    rig.record(&units);
    let rows = rig.rows();
    for unit in &units {
        let off = played(&rows, unit.media).0.abs_diff(unit.capture_utc.0);
        // B-frames are shown up to 120 ms after they arrive.
        assert!(off < 200_000_000, "{off} ns off");
    }
}

#[test]
fn other_parameters_and_jumps_begin_a_segment_and_say_so() {
    let rig = Rig::new();
    let mut all = units("pedestrians.mp4", noon(), 8, |_| 0);
    let other = units("bframes.mp4", UtcNanos(noon().0 + 8 * SECOND), 8, |_| 0);
    // An hour later on another line, in the middle of a group of pictures.
    let mut later = units("bframes.mp4", UtcNanos(noon().0 + 3600 * SECOND), 8, |_| 0);
    for unit in &mut later {
        unit.capture += Duration::from_secs(3600);
    }
    all.extend(other);
    all.extend(later.split_off(10));
    rig.record(&all);
    let rows = rig.rows();
    let breaks: Vec<_> = rows.iter().filter(|r| r.flags.has(RowFlags::DISCONTINUITY)).collect();
    assert_eq!(breaks.len(), 3);
    assert_ne!(breaks[0].parameters, breaks[1].parameters);
    assert_eq!(breaks[1].parameters, breaks[2].parameters);
    assert!(breaks.iter().all(|row| row.flags.has(RowFlags::KEY)));
    for segment in rig.segments() {
        let (times, pictures) = rig.read_back(&segment);
        assert_eq!(times.len(), pictures);
    }
}

#[test]
fn a_pause_or_a_step_inside_a_group_of_pictures_is_no_break() {
    let rig = Rig::new();
    let mut units = units("pedestrians.mp4", noon(), 20, |_| 0);
    let inside = |from: usize| (from..).find(|at| (0..8).all(|n| !units[at + n].key())).unwrap();
    let (pause, step) = (inside(15), inside(95));
    for unit in &mut units[pause..] {
        unit.media = MediaTime(unit.media.0 + 2 * MediaTime::RATE);
        unit.capture += Duration::from_secs(2);
        unit.capture_utc.0 += 2 * SECOND;
    }
    units[step..].iter_mut().for_each(|unit| unit.capture_utc.0 += 5 * SECOND);
    rig.record(&units);
    let rows = rig.rows();
    let breaks: Vec<_> = rows.iter().filter(|r| r.flags.has(RowFlags::DISCONTINUITY)).collect();
    assert!(breaks.iter().all(|row| row.flags.has(RowFlags::KEY)), "{breaks:?}");
    let ahead = units[0].media.0;
    let last = rows.last().unwrap();
    let off = last.start_utc.0 - noon().0 - (last.start_media.0 - ahead) / 9 * 100_000;
    assert!(off.abs_diff(5 * SECOND) < SECOND / 10, "the step is followed: {off} ns");
}

#[test]
fn a_recorder_that_writes_nothing_does_not_say_that_it_records() {
    let Rig { _root, storage, claim, .. } = Rig::new();
    drop(claim);
    let counters: Arc<crate::counters::Counters> = Arc::default();
    let camera = CameraId::new("cam").unwrap();
    let recorder =
        super::Recorder::start(camera, Arc::clone(&storage), Arc::clone(&counters)).unwrap();
    let mut units = units("pedestrians.mp4", noon(), 600, |_| 0).into_iter();
    let mut feed = |change: fn(&mut AccessUnit)| {
        if let Some(mut unit) = units.next() {
            unit.capture = ipc::clock::monotonic();
            change(&mut unit);
            recorder.push(&Arc::new(unit));
        }
    };
    let state = || counters.recording.get();
    wait_until("it records", || {
        feed(|_| ());
        state().0
    });
    // A key picture that no segment can begin with, and what leans on it.
    feed(|unit| {
        (unit.codec, unit.data) = (crate::unit::Codec::H265, vec![0, 0, 0, 1, 0x26, 1, 0]);
        unit.flags = UnitFlags::KEY;
    });
    wait_until("it says what is wrong", || {
        feed(|unit| unit.flags = UnitFlags(0));
        !state().0
    });
    assert!(!state().1.is_empty());
    wait_until("it records again", || {
        feed(|_| ());
        state().0
    });
    wait_until("it says that nothing is written", || {
        feed(|unit| unit.flags = UnitFlags::PREROLL);
        !state().0
    });
    assert_eq!(state().1, "waiting for a key picture");
    recorder.stop().unwrap().join().unwrap();
}

#[test]
fn a_key_unit_that_can_not_be_read_takes_nothing_before_it_along() {
    let units = units("bframes.mp4", noon(), 4, |_| 0);
    let mut junk = units[0].clone();
    (junk.codec, junk.data) = (crate::unit::Codec::H265, vec![0, 0, 0, 1, 0x26, 1, 0]);
    for after_loss in [false, true] {
        let mut cutter = Cutter::default();
        let mut pictures = 0;
        for unit in &units[..5] {
            pictures += cut(&mut cutter, unit).map_or(0, |fragment| fragment.samples.len());
        }
        let cut = cutter.push(&junk, after_loss);
        assert!(cut.refused.is_some());
        let whole = cut.fragment.expect("what was complete before it");
        assert_eq!(pictures + whole.samples.len(), 5, "after a loss: {after_loss}");
        // What leans on it is not recorded, and the next key picture begins anew.
        assert!(cutter.push(&units[6], false).fragment.is_none());
        assert!(cutter.flush(Instant::FAR, true).is_none());
        assert!(cutter.push(&units[0], false).refused.is_none());
        let next = cutter.flush(Instant::FAR, true).unwrap();
        assert!(next.begins_segment && next.discontinuity && next.key);
    }
}

#[test]
fn a_fragment_that_waits_too_long_ends_before_pictures_that_others_may_come_before() {
    let units = units("bframes.mp4", noon(), 4, |_| 0);
    for count in 2..12 {
        let (mut cutter, pushed) = (Cutter::default(), &units[..count]);
        assert!(pushed.iter().all(|unit| cut(&mut cutter, unit).is_none()));
        let newest = |at: &usize| pushed[..*at].iter().all(|unit| unit.media < pushed[*at].media);
        let reordered = !pushed.is_sorted_by_key(|unit| unit.media);
        let whole = if reordered { (0..count).rev().find(newest).unwrap() } else { count };
        let first = cutter.flush(Instant::FAR, false).unwrap();
        let rest = cutter.flush(Instant::FAR, true).map_or(0, |fragment| fragment.samples.len());
        assert_eq!((first.samples.len(), rest), (whole, count - whole), "of {count}");
    }
}

#[test]
fn equal_and_backward_times_are_written_and_read() {
    let rig = Rig::new();
    let mut units = units("pedestrians.mp4", noon(), 12, |_| 0);
    units[15].media = units[14].media;
    units[33].media = MediaTime(units[33].media.0 - 90_000);
    units[57].media = MediaTime(units[57].media.0 + 45_000);
    rig.record(&units);
    let found: usize = rig.segments().iter().map(|path| rig.read_back(path).0.len()).sum();
    assert_eq!(found, units.len());
}

#[test]
fn a_full_disk_leaves_whole_segments_and_an_index_that_fits_them() {
    let rig = Rig::new();
    let units = units("pedestrians.mp4", noon(), 10, |_| 0);
    for left in (0..400_000).step_by(20_011) {
        rig.limits.left.store(left, Ordering::SeqCst);
        let (mut cutter, mut writer) = (Cutter::default(), Writer::open(&rig.claim).unwrap());
        let outcome: std::io::Result<()> = units
            .iter()
            .try_for_each(|unit| cut(&mut cutter, unit).map_or(Ok(()), |cut| writer.write(&cut)));
        assert_eq!(outcome.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        writer.abandon();
        let rows = rig.rows();
        let done = recover(&rig.storage.recordings, &rig.claim.camera).unwrap();
        assert_eq!((done.indexes, done.torn, done.empty), (0, 0, 0), "{left}: all is in order");
        for segment in rig.segments() {
            rig.read_back(&segment);
        }
        assert_eq!(rig.rows(), rows);
    }
    // There is room again.
    rig.limits.left.store(u64::MAX, Ordering::SeqCst);
    let before = rig.rows().len();
    rig.record(&units);
    let rows = rig.rows();
    assert!(rows.len() > before + 10 && rows[before].flags.has(RowFlags::DISCONTINUITY));
}

/// Waits for a state of something that runs.
pub fn wait_until(what: &str, mut ask: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !ask() {
        assert!(start.elapsed() < Duration::from_secs(60), "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_recorder_says_that_the_disk_is_full_and_goes_on_when_it_is_not() {
    let Rig { _root, storage, claim, limits } = Rig::new();
    drop(claim);
    let counters: Arc<crate::counters::Counters> = Arc::default();
    let camera = CameraId::new("cam").unwrap();
    let recorder =
        super::Recorder::start(camera.clone(), Arc::clone(&storage), Arc::clone(&counters))
            .unwrap();
    let mut units = units("pedestrians.mp4", noon(), 300, |_| 0).into_iter();
    // Faster than life; capture is now, or it would be flushed at once.
    let mut feed = || {
        if let Some(mut unit) = units.next() {
            unit.capture = ipc::clock::monotonic();
            recorder.push(&Arc::new(unit));
        }
    };
    let state = || counters.recording.get();
    assert!(!state().0);
    wait_until("it records", || {
        feed();
        state() == (true, String::new())
    });
    limits.left.store(10, Ordering::SeqCst);
    wait_until("it says why it does not", || {
        feed();
        !state().0
    });
    let (_, why) = state();
    assert!(why.contains("is full") && why.contains("make room"), "{why}");
    limits.left.store(u64::MAX, Ordering::SeqCst);
    wait_until("it goes on", || {
        feed();
        state().0
    });
    assert!(counters.read().record_dropped > 0);
    // A second recorder of the camera waits for the first.
    let next =
        super::Recorder::start(camera.clone(), Arc::clone(&storage), Arc::default()).unwrap();
    recorder.stop().unwrap().join().unwrap();
    wait_until("the next one has it", || storage.written(&camera).is_some());
    next.stop().unwrap().join().unwrap();
    assert!(storage.written(&camera).is_none());
}
