//! A disk that fails at each call in turn, and files that can't be read: what was acknowledged stays,
//! what is on the disk is whole, and recording goes on.

use super::cutter::{Cutter, Fragment};
use super::disk::Disk;
use super::recovery;
use super::storage::{Claim, RecordingOptions, Storage};
use super::tests::{cut, units};
use super::writer::Writer;
use base::time::NANOS_PER_SEC as SECOND;
use base::{CameraId, Instant, UtcNanos};
use ipc::recording::{
    Call, Day, INDEX_NAME, IndexError, Probe, Recordings, Row, SegmentName, read_index, recover,
    rows_of_segments, scan,
};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Counts calls; lets one fail, or all from one on, or those on some files.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Plan>);

#[derive(Debug, Default)]
struct Plan {
    calls: Vec<(Call, PathBuf)>,
    at: Option<usize>,
    and_after: bool,
    bad: BTreeSet<PathBuf>,
}

impl Probe for Faults {
    fn ask(&self, call: Call, path: &Path) -> io::Result<()> {
        let mut plan = self.0.lock().unwrap();
        let number = plan.calls.len();
        plan.calls.push((call, path.to_owned()));
        let fails = plan.at.is_some_and(|at| number == at || plan.and_after && number > at);
        let unreadable = matches!(call, Call::Open | Call::Read(_)) && plan.bad.contains(path);
        if fails || unreadable { Err(Errno::IO.into()) } else { Ok(()) }
    }
}

impl Faults {
    /// From now on counted anew.
    fn plan(&self, at: Option<usize>, and_after: bool) {
        let mut plan = self.0.lock().unwrap();
        (plan.calls, plan.at, plan.and_after) = (vec![], at, and_after);
    }

    fn calls(&self) -> Vec<(Call, PathBuf)> {
        self.0.lock().unwrap().calls.clone()
    }
}

pub struct Place {
    _root: tempfile::TempDir,
    pub storage: Arc<Storage>,
    pub claim: Claim,
    pub faults: Arc<Faults>,
}

impl Place {
    fn new() -> Place {
        let root = tempfile::tempdir().unwrap();
        let faults: Arc<Faults> = Arc::default();
        let disk = Disk::probed(Arc::clone(&faults) as Arc<dyn Probe>);
        let storage = Storage::new(RecordingOptions {
            disk,
            ..RecordingOptions::new(root.path().join("rec"))
        });
        let claim = storage.claim(&camera(), || false).unwrap();
        Place { _root: root, storage, claim, faults }
    }

    fn recordings(&self) -> &Recordings {
        &self.storage.recordings
    }

    /// Writes until something fails, by the writer that is there; what was acknowledged.
    fn write<'p>(
        &'p self,
        writer: &mut Option<Writer<'p>>,
        fragments: &[Fragment],
    ) -> (Vec<Row>, io::Result<()>) {
        let mut rows = Vec::new();
        let outcome = (|| {
            let writer = match writer {
                Some(writer) => writer,
                none => none.insert(Writer::open(&self.claim)?),
            };
            let mut write = || {
                for fragment in fragments {
                    writer.write(fragment)?;
                    rows.extend(writer.last());
                }
                writer.close()
            };
            write().inspect_err(|_| writer.abandon())
        })();
        (rows, outcome)
    }

    fn recover(&self) {
        recovery::all_due(&self.storage);
        // What a recorder came between is done again.
        for _ in 0..100 {
            recovery::one(&self.storage);
        }
    }
}

pub fn camera() -> CameraId {
    CameraId::new("cam").unwrap()
}

pub fn at(day: &str, second: u64) -> UtcNanos {
    UtcNanos(Day::parse(day).unwrap().start().0 + second * SECOND)
}

/// The first two fragments of each segment of a camera that sends from `utc` on.
pub fn fragments(utc: UtcNanos, segments: usize) -> Vec<Fragment> {
    let mut cutter = Cutter::default();
    let units = units("bframes.mp4", utc, segments as u64 * 8, |_| 0);
    let mut all: Vec<Fragment> = units.iter().filter_map(|unit| cut(&mut cutter, unit)).collect();
    all.extend(cutter.flush(Instant::FAR, true));
    let mut begun = 0;
    let mut since = 0;
    all.retain(|fragment| {
        (begun, since) = if fragment.begins_segment { (begun + 1, 0) } else { (begun, since + 1) };
        begun <= segments && since < 2
    });
    assert_eq!(all.len(), 2 * segments);
    all
}

pub fn all_rows(recordings: &Recordings) -> Vec<Row> {
    let days = recordings.days(&camera()).unwrap();
    days.iter().flat_map(|day| recordings.rows(&camera(), *day).unwrap()).collect()
}

/// Where a fragment lies: what was acknowledged is found there for ever.
fn place(row: &Row) -> (SegmentName, u32, u32, u64) {
    (row.segment, row.offset, row.bytes, row.start_utc.0)
}

pub fn assert_holds(recordings: &Recordings, acknowledged: &[Row], what: &str) {
    let found: BTreeSet<_> = all_rows(recordings).iter().map(place).collect();
    for row in acknowledged {
        assert!(found.contains(&place(row)), "{what}: {row:?} is lost");
        let file = std::fs::File::open(recordings.segment(&camera(), row.segment)).unwrap();
        let mut bytes = vec![0; row.bytes as usize];
        file.read_exact_at(&mut bytes, row.offset.into()).unwrap();
        assert_eq!(&bytes[4..8], b"prft", "{what}: {row:?}");
    }
}

/// All that is on the disk is whole, the index says what the segments say, and nothing else lies
/// there. A `spoiled` segment may still have its torn end: it could not be cut off when it was time.
pub fn assert_whole(recordings: &Recordings, spoiled: &BTreeSet<PathBuf>, what: &str) {
    for day in recordings.days(&camera()).unwrap() {
        let directory = recordings.day(&camera(), day);
        for entry in std::fs::read_dir(&directory).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(name) = SegmentName::parse(&name) else {
                assert!(name == INDEX_NAME || name.starts_with("index.damaged"), "{what}: {name}");
                continue;
            };
            let path = recordings.segment(&camera(), name);
            let scanned = scan(&path).unwrap();
            let left = scanned.torn && spoiled.contains(&path);
            assert!(left || scanned.whole_bytes == scanned.file_bytes, "{what}: {name}");
            assert!(!scanned.fragments.is_empty(), "{what}: {name}");
        }
        let rows = match read_index(&directory.join(INDEX_NAME), UtcNanos(0)) {
            Ok(index) => index.rows,
            // A day that was only begun: the sweep removes it.
            Err(IndexError::Missing) => vec![],
            Err(error) => panic!("{what}: {error}"),
        };
        let found: Vec<_> = rows.iter().map(place).collect();
        let from = rows_of_segments(recordings, &camera(), day, None).unwrap();
        assert_eq!(found, from.iter().map(place).collect::<Vec<_>>(), "{what}: {day}");
    }
}

const OLD: &str = "20260129";
const DAY: &str = "20260130";

/// As a kill leaves the newest day: half a fragment, half a row.
fn tear(recordings: &Recordings) {
    use std::io::Write;
    let Some(last) = recordings.last_row(&camera()).unwrap() else { return };
    let segment = recordings.segment(&camera(), last.segment);
    let bytes = std::fs::read(&segment).unwrap();
    let torn = &bytes[last.offset as usize..][..last.bytes as usize / 2];
    let append = |path: &Path, bytes: &[u8]| {
        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(bytes).unwrap();
    };
    append(&segment, torn);
    append(&segment.with_file_name(INDEX_NAME), &last.encode()[..30]);
}

#[test]
fn whichever_call_fails_what_was_acknowledged_stays_and_recording_goes_on() {
    for (and_after, again) in [(false, false), (true, false), (true, true)] {
        let place = Place::new();
        let recordings = place.recordings();
        let (mut acknowledged, outcome) = place.write(&mut None, &fragments(at(OLD, 0), 1));
        outcome.unwrap();
        let mut spoiled = BTreeSet::new();
        for n in 0.. {
            let what = format!("call {n}, and after: {and_after}, opened again: {again}");
            tear(recordings);
            let utc = at(DAY, 60 + n as u64 * 60);
            let written = fragments(utc, 2);
            place.faults.plan(Some(n), and_after);
            let mut writer = None;
            let (rows, outcome) = place.write(&mut writer, &written);
            place.recover();
            let calls = place.faults.calls();
            place.faults.plan(None, false);
            let failed = calls.iter().skip(n).take(if and_after { calls.len() } else { 1 });
            spoiled.extend(failed.map(|(_, path)| path.clone()));
            acknowledged.extend(&rows);
            assert_holds(recordings, &acknowledged, &what);
            // The disk is good again.
            if again {
                writer = None;
            }
            let more = fragments(UtcNanos(utc.0 + 30 * SECOND), 1);
            let (rows, good) = place.write(&mut writer, &more);
            good.unwrap();
            assert_eq!(rows.len(), 2, "{what}");
            acknowledged.extend(&rows);
            place.recover();
            let more = fragments(UtcNanos(utc.0 + 45 * SECOND), 1);
            let (rows, good) = place.write(&mut writer, &more);
            good.unwrap();
            acknowledged.extend(&rows);
            assert_holds(recordings, &acknowledged, &what);
            assert_whole(recordings, &spoiled, &what);
            assert_eq!(recover(recordings, &camera()).unwrap().indexes, 0, "{what}");
            if calls.len() <= n {
                outcome.unwrap();
                assert!(n > 40, "only {n} calls");
                break;
            }
        }
        let numbers: Vec<_> = all_rows(recordings).iter().map(|row| row.number).collect();
        let breaks = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        // Only where the index itself could not be read.
        assert!(breaks <= 12, "{numbers:?}");
    }
}

#[test]
fn a_row_that_can_not_be_written_takes_its_fragment_along_or_comes_later() {
    for and_after in [false, true] {
        let place = Place::new();
        let recordings = place.recordings();
        let mut writer = Writer::open(&place.claim).unwrap();
        let fragments = fragments(at(DAY, 0), 2);
        writer.write(&fragments[0]).unwrap();
        // Its row: half of it is written. Then nothing can be cut off either.
        place.faults.plan(Some(1), and_after);
        writer.write(&fragments[1]).unwrap_err();
        writer.abandon();
        place.faults.plan(None, false);
        if !and_after {
            assert_whole(recordings, &BTreeSet::new(), "at once");
            let directory = recordings.day(&camera(), Day::parse(DAY).unwrap());
            assert!(!read_index(&directory.join(INDEX_NAME), UtcNanos(0)).unwrap().torn);
        }
        writer.write(&fragments[2]).unwrap();
        writer.close().unwrap();
        assert_whole(recordings, &BTreeSet::new(), "before the next segment");
        let numbers: Vec<_> = all_rows(recordings).iter().map(|row| row.number).collect();
        let expected = if and_after { vec![0, 1, 2] } else { vec![0, 1] };
        assert_eq!(numbers, expected, "and after: {and_after}");
    }
}

#[test]
fn old_files_that_can_not_be_read_do_not_hold_up_recording() {
    let place = Place::new();
    let recordings = place.recordings();
    let days = ["20260126", "20260127", "20260128", OLD];
    let mut acknowledged = Vec::new();
    for day in days {
        acknowledged.extend(place.write(&mut None, &fragments(at(day, 0), 2)).0);
    }
    // One index, one segment of a day without an index, a directory in place of a segment, and the
    // newest index.
    let index =
        |day: usize| recordings.day(&camera(), Day::parse(days[day]).unwrap()).join(INDEX_NAME);
    let segment = |n: usize| recordings.segment(&camera(), acknowledged[n].segment);
    std::fs::remove_file(index(1)).unwrap();
    std::fs::create_dir(index(2).with_file_name("20260128T230000.000000Z.mp4")).unwrap();
    place.faults.0.lock().unwrap().bad.extend([index(0), segment(4), index(3)]);
    place.faults.plan(None, false);
    let mut writer = Writer::open(&place.claim).unwrap();
    let new = fragments(at(DAY, 0), 3);
    for fragment in &new[..4] {
        writer.write(fragment).unwrap();
        acknowledged.extend(writer.last());
    }
    // Only the newest day was looked into before; of the others at most the end of an index, for the
    // number.
    let calls = place.faults.calls();
    for (day, name) in days[..3].iter().enumerate() {
        let directory = index(day).parent().unwrap().to_owned();
        let of_day = calls.iter().filter(|(_, path)| path.starts_with(&directory));
        let others = of_day.filter(|(_, path)| *path != index(day));
        assert_eq!(others.count(), 0, "{name}");
    }
    assert_eq!(acknowledged.last().unwrap().number, 11 + 4, "from the newest that can be read");
    place.recover();
    assert_holds(recordings, &acknowledged[..4], "an index that can't be read");
    for fragment in &new[4..] {
        writer.write(fragment).unwrap();
        acknowledged.extend(writer.last());
    }
    writer.close().unwrap();
    let but_unreadable: Vec<_> =
        acknowledged.iter().filter(|row| row.segment != acknowledged[4].segment).copied().collect();
    assert_holds(recordings, &but_unreadable, "all but the segment that can't be read");
}

#[test]
fn rows_of_a_damaged_index_come_back_while_the_day_is_recorded() {
    for header in [true, false] {
        let place = Place::new();
        let recordings = place.recordings();
        let (mut acknowledged, outcome) = place.write(&mut None, &fragments(at(DAY, 0), 3));
        outcome.unwrap();
        let index = recordings.day(&camera(), Day::parse(DAY).unwrap()).join(INDEX_NAME);
        let mut bytes = std::fs::read(&index).unwrap();
        let damaged = if header { 20 } else { bytes.len() - 10 };
        bytes[damaged] ^= 1;
        std::fs::write(&index, &bytes).unwrap();
        let mut writer = Writer::open(&place.claim).unwrap();
        let more = fragments(at(DAY, 60), 3);
        let mut write = |writer: &mut Writer<'_>, fragments: &[Fragment]| {
            for fragment in fragments {
                writer.write(fragment).unwrap();
                acknowledged.extend(writer.last());
            }
        };
        write(&mut writer, &more[..3]);
        // Between two fragments of an open segment.
        place.recover();
        assert!(index.with_file_name("index.new").exists());
        write(&mut writer, &more[3..4]);
        assert_eq!(all_rows(recordings).len(), 4, "not before the next segment");
        write(&mut writer, &more[4..]);
        writer.close().unwrap();
        assert_holds(recordings, &acknowledged, "they came back");
        assert_whole(recordings, &BTreeSet::new(), "they came back");
        let rows = all_rows(recordings);
        assert_eq!(rows.len(), 12);
        if header {
            assert!(rows.windows(2).all(|pair| pair[1].number == pair[0].number + 1));
        }
        assert_eq!(std::fs::read(index.with_file_name("index.damaged")).unwrap(), bytes);
    }
}

#[test]
fn names_are_synced_before_pictures_and_segments_at_their_end() {
    let place = Place::new();
    let root = place.recordings().root().to_owned();
    let mut writer = Writer::open(&place.claim).unwrap();
    let fragments = fragments(at(DAY, 0), 2);
    place.faults.plan(None, false);
    writer.write(&fragments[0]).unwrap();
    let day = root.join("cam").join(DAY);
    let first = fragments[0].start_utc;
    let name = day.join(SegmentName::at(first).to_string());
    let calls = place.faults.calls();
    let at = |call: Call, path: &Path| {
        let same = |(c, p): &(Call, PathBuf)| *c == call && p == path;
        calls.iter().rposition(same).unwrap_or_else(|| panic!("{call:?} {}", path.display()))
    };
    for (made, above) in [
        (root.clone(), root.parent().unwrap().to_owned()),
        (root.join("cam"), root.clone()),
        (day.clone(), root.join("cam")),
    ] {
        assert!(at(Call::MakeDirectory, &made) < at(Call::SyncDirectory, &above), "{made:?}");
    }
    let named = at(Call::SyncDirectory, &day);
    assert!(at(Call::Create, &day.join(INDEX_NAME)) < named && at(Call::Create, &name) < named);
    let pictures =
        calls.iter().rposition(|(call, path)| matches!(call, Call::Write(_)) && *path == name);
    assert!(named < pictures.unwrap(), "before the fragment");
    place.faults.plan(None, false);
    writer.write(&fragments[1]).unwrap();
    let all = place.faults.calls();
    assert!(all.iter().all(|(call, _)| matches!(call, Call::Write(_))), "no sync: {all:?}");
    place.faults.plan(None, false);
    writer.write(&fragments[2]).unwrap();
    let calls = place.faults.calls();
    let paths: Vec<_> = calls.iter().filter(|(c, _)| *c == Call::Sync).map(|(_, p)| p).collect();
    assert_eq!(paths, [&name, &day.join(INDEX_NAME)]);
    assert!(calls.contains(&(Call::SyncDirectory, day.clone())), "the second segment");
}

/// Does something when an index is begun that is made again.
struct Between(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Between")
    }
}

impl Probe for Between {
    fn ask(&self, call: Call, path: &Path) -> io::Result<()> {
        if call == Call::Create && path.ends_with("index.new") {
            let act = self.0.lock().unwrap().take();
            act.into_iter().for_each(|act| act());
        }
        Ok(())
    }
}

#[test]
fn what_a_recorder_put_in_order_meanwhile_is_not_written_over() {
    let root = tempfile::tempdir().unwrap();
    let between = Arc::new(Between(Mutex::default()));
    let disk = Disk::probed(Arc::clone(&between) as Arc<dyn Probe>);
    let storage =
        Storage::new(RecordingOptions { disk, ..RecordingOptions::new(root.path().join("rec")) });
    let recordings = &storage.recordings;
    let claim = storage.claim(&camera(), || false).unwrap();
    let mut writer = Writer::open(&claim).unwrap();
    for fragment in fragments(at(DAY, 0), 2) {
        writer.write(&fragment).unwrap();
    }
    writer.close().unwrap();
    drop(writer);
    drop(claim);
    tear(recordings);
    let index = recordings.day(&camera(), Day::parse(DAY).unwrap()).join(INDEX_NAME);
    let torn = std::fs::read(&index).unwrap();
    let recorder = Arc::clone(&storage);
    *between.0.lock().unwrap() = Some(Box::new(move || {
        let day = Day::parse(DAY).unwrap();
        recorder.orders.begins(&camera(), day);
        recorder.orders.ends(&camera(), day, false);
    }));
    recovery::all_due(&storage);
    let day = Day::parse(DAY).unwrap();
    storage.orders.begins(&camera(), day);
    assert!(recovery::one(&storage));
    assert!(std::fs::read(&index).unwrap() == torn, "a recorder is at it");
    assert!(between.0.lock().unwrap().is_some(), "nothing was begun");
    storage.orders.ends(&camera(), day, false);
    assert!(recovery::one(&storage));
    assert!(std::fs::read(&index).unwrap() == torn, "it may be another one by now");
    assert!(recovery::one(&storage), "it is done again");
    assert_whole(recordings, &BTreeSet::new(), "the second time");
    assert!(!recovery::one(&storage));
}

#[test]
fn what_a_recorder_that_began_again_put_in_order_is_not_written_over() {
    let root = tempfile::tempdir().unwrap();
    let between = Arc::new(Between(Mutex::default()));
    let disk = Disk::probed(Arc::clone(&between) as Arc<dyn Probe>);
    let storage =
        Storage::new(RecordingOptions { disk, ..RecordingOptions::new(root.path().join("rec")) });
    let claim = storage.claim(&camera(), || false).unwrap();
    let mut writer = Writer::open(&claim).unwrap();
    for fragment in fragments(at(DAY, 0), 2) {
        writer.write(&fragment).unwrap();
    }
    writer.close().unwrap();
    tear(&storage.recordings);
    let day = Day::parse(DAY).unwrap();
    // Two recorders of the day after one another, each with a segment open.
    let begin = move |storage: &Storage| {
        storage.orders.begins(&camera(), day);
        storage.orders.ends(&camera(), day, true);
    };
    begin(&storage);
    claim.announce(super::storage::Writing::Open(SegmentName::at(at(DAY, 100))));
    let recorder = Arc::clone(&storage);
    *between.0.lock().unwrap() = Some(Box::new(move || begin(&recorder)));
    assert!(recovery::one(&storage));
    assert_eq!(storage.orders.prepared(&camera(), day), None, "of the one before");
    assert!(recovery::one(&storage));
    assert!(storage.orders.prepared(&camera(), day).is_some());
}

#[test]
fn what_a_kill_left_is_put_in_order_without_being_asked_for() {
    let place = Place::new();
    place.write(&mut None, &fragments(at(DAY, 0), 2)).1.unwrap();
    tear(place.recordings());
    // Nobody appends to the day.
    let Place { _root, storage, claim, .. } = place;
    drop(claim);
    let recordings = &storage.recordings;
    let index = recordings.day(&camera(), Day::parse(DAY).unwrap()).join(INDEX_NAME);
    let torn = std::fs::read(&index).unwrap();
    let pause = std::time::Duration::from_millis(2);
    recovery::keep(&storage, 2 * pause, pause).unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::fs::read(&index).unwrap() == torn && std::time::Instant::now() < until {
        std::thread::sleep(pause);
    }
    assert_whole(recordings, &BTreeSet::new(), "a while after the start");
}

#[test]
fn a_segment_that_can_not_be_made_says_why() {
    let place = Place::new();
    let written = fragments(at(DAY, 0), 1);
    place.faults.plan(None, false);
    let mut writer = None;
    place.write(&mut writer, &written).1.unwrap();
    let made =
        |(call, path): &(Call, PathBuf)| *call == Call::Create && !path.ends_with(INDEX_NAME);
    let at_segment = place.faults.calls().iter().position(made).unwrap();
    let place = Place::new();
    place.faults.plan(Some(at_segment), false);
    let error = place.write(&mut None, &written).1.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
}
