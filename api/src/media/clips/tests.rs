use super::*;
use crate::disk::{Demands, Disk, Space};
use crate::media::room::MediaOptions;
use crate::testing;
use base::time::NANOS_PER_SEC;
use base::{CameraId, MediaTime};
use ipc::recording::{Day, Header, INDEX_NAME, Row, RowFlags, SegmentName};
use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::io;

const HEAD: &str = r#"read -r job; output=$(echo "$job" | sed 's/.*"output":"\([^"]*\)".*/\1/')
"#;
const DONE: &str = r#"printf clip > "$output"; printf picture > "${output%mp4}jpg"
echo '{"status":"done"}'"#;

/// Clips whose jobs are a script, on a disk of 100 MiB.
struct Rig {
    queue: ClipQueue,
    clips: Clips,
    holds: PathBuf,
    root: tempfile::TempDir,
}

fn rig(script: &str) -> Rig {
    rig_in(tempfile::tempdir().unwrap(), script)
}

fn rig_in(root: tempfile::TempDir, script: &str) -> Rig {
    let control = Control::open(root.path()).unwrap();
    let files = Files::new(root.path().join("media"));
    let space = Space { size: 100 << 20, free: 100 << 20 };
    let disk = Disk::told(Arc::new(Mutex::new(space)));
    let stopping = Arc::new(AtomicBool::new(false));
    let room = Room::new(
        (root.path().to_owned(), disk),
        MediaOptions { retention: Duration::from_secs(1), max_percent: 10 },
        Demands { keep_free: 0, high_percent: None },
        (files.clone(), control.clone()),
        Arc::clone(&stopping),
    );
    let command = ["/bin/sh", "-c", &format!("{HEAD}{script}")].map(OsString::from).to_vec();
    let jobs = Jobs::new(command, Arc::clone(&stopping));
    let recordings = Recordings::new(root.path().join("recordings"));
    let work = Work { control, files, jobs, recordings, room, stopping };
    let holds = root.path().join("holds.json");
    let (queue, clips) = ClipQueue::start(work, holds.clone()).unwrap();
    Rig { queue, clips, holds, root }
}

impl Rig {
    fn ask(&self) -> Result<Bookmark, MediaError> {
        self.queue.ask(&self.clips.work.control, testing::bookmark())
    }

    fn names(&self) -> Vec<String> {
        let folder = self.root.path().join("media/bookmarks").join(testing::CAMERA);
        let files = fs::read_dir(folder).into_iter().flatten();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn state(&self, row: &Bookmark) -> JobState {
        self.clips.work.control.bookmark(&row.id).unwrap().unwrap().state
    }

    fn held(&self) -> Vec<String> {
        let mut ids: Vec<String> =
            holds::read(&self.holds).into_iter().map(|hold| hold.id).collect();
        ids.sort();
        ids
    }

    /// Threads that cut until the queue is gone.
    fn threads(&self, count: usize) -> Vec<std::thread::JoinHandle<()>> {
        let threads = (0..count).map(|_| self.clips.clone());
        threads.map(|clips| std::thread::spawn(move || clips.run())).collect()
    }

    fn bytes(&self) -> u64 {
        self.clips.work.room.taken().unwrap().bytes
    }
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_clip_that_is_deleted_before_its_file_has_a_name_leaves_no_file() {
    let rig = rig(DONE);
    let row = rig.ask().unwrap();
    let control = &rig.clips.work.control;
    let change: Change<'_> = &|id, work| {
        let written = control.write(|write| write.update_bookmark(id, work))?;
        if written.as_ref().is_some_and(|row| row.state == JobState::Done) {
            control.write(|write| write.delete_bookmark(id))?;
        }
        Ok(written)
    };
    rig.clips.work.cut(&row.id, change, Duration::ZERO);
    assert_eq!(rig.names(), [""; 0]);
    assert_eq!(rig.bytes(), 0);
}

#[test]
fn a_registry_that_refuses_for_a_while_leaves_no_file_and_no_clip_that_never_ends() {
    // The first change says that it runs, the second what came of it.
    for refused in [0..3, 1..4] {
        let rig = rig(DONE);
        let row = rig.ask().unwrap();
        let calls = Cell::new(0);
        let change: Change<'_> = &|id, work| {
            calls.set(calls.get() + 1);
            if calls.get() > 2 {
                assert_eq!(rig.names(), [""; 0], "files go first");
            }
            if refused.contains(&(calls.get() - 1)) {
                let source = io::ErrorKind::StorageFull.into();
                return Err(StoreError::DiskFull { path: "control".into(), source });
            }
            rig.clips.work.control.write(|write| write.update_bookmark(id, work))
        };
        rig.clips.work.cut(&row.id, change, Duration::ZERO);
        assert_eq!(calls.get(), refused.end + 1);
        let JobState::Failed(reason) = rig.state(&row) else { panic!("{:?}", rig.state(&row)) };
        assert!(reason.contains("control can't grow"), "{reason}");
        assert_eq!(rig.names(), [""; 0]);
        assert_eq!(rig.bytes(), 0, "its place is given back");
    }
}

#[test]
fn a_registry_that_refuses_is_asked_again_after_a_pause_unless_serve_stops() {
    let rig = rig(DONE);
    let row = rig.ask().unwrap();
    let asked = Cell::new(vec![]);
    let change: Change<'_> = &|_, _| {
        asked.set([asked.take(), vec![std::time::Instant::now()]].concat());
        let source = io::ErrorKind::StorageFull.into();
        Err(StoreError::DiskFull { path: "control".into(), source })
    };
    let pause = Duration::from_millis(20);
    rig.clips.work.cut(&row.id, change, pause);
    let times = asked.take();
    assert_eq!(times.len() as u32, 1 + RETRIES);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= pause));
    rig.clips.work.stopping.store(true, Ordering::Release);
    rig.clips.work.cut(&row.id, change, Duration::from_secs(3600));
    assert_eq!(asked.take().len() as u32, 1 + RETRIES, "nothing is waited for");
}

#[test]
fn several_are_cut_at_a_time_and_held_until_they_are() {
    // Each waits for the other one to have begun.
    let together = r#": > "$output.begun"
until [ "$(ls "$(dirname "$output")" | grep -c begun)" = 2 ]; do sleep 0.01; done
"#;
    let rig = rig(&format!("{together}{DONE}"));
    let rows = [rig.ask().unwrap(), rig.ask().unwrap()];
    let mut ids: Vec<String> = rows.iter().map(|row| row.id.to_string()).collect();
    ids.sort();
    assert_eq!(rig.held(), ids, "held before it is answered");
    let hold = &holds::read(&rig.holds)[0];
    assert_eq!((hold.start, hold.end), (rows[0].start, rows[0].end));
    let threads = rig.threads(2);
    for row in &rows {
        wait_for("a clip", || rig.state(row) == JobState::Done);
    }
    wait_for("the end of the holds", || !rig.holds.exists());
    wait_for("all names", || {
        rig.names().iter().all(|name| !name.starts_with("new-") || name.ends_with("begun"))
    });
    assert_eq!(rig.bytes(), 2 * 11, "clips and thumbnails");
    drop(rig.queue);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn clips_that_were_not_cut_when_serve_ended_are_cut_when_it_is_back() {
    let stuck = rig("exec sleep 600");
    let rows = [stuck.ask().unwrap(), stuck.ask().unwrap()];
    let threads = stuck.threads(1);
    wait_for("the first to run", || stuck.state(&rows[0]) == JobState::Running);
    stuck.clips.work.stopping.store(true, Ordering::Release);
    let Rig { queue, clips, root, holds } = stuck;
    drop(queue);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(clips);
    assert_eq!(holds::read(&holds).len(), 2, "also while serve is away");
    fs::remove_file(&holds).unwrap();
    let rig = rig_in(root, DONE);
    assert_eq!(rig.held().len(), 2, "still needed");
    assert_eq!(
        [&rows[0], &rows[1]].map(|row| rig.state(row)),
        [JobState::Running, JobState::Pending]
    );
    let threads = rig.threads(1);
    for row in &rows {
        wait_for("a clip", || rig.state(row) == JobState::Done);
    }
    wait_for("the end of the holds", || !rig.holds.exists());
    drop(rig.queue);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_clip_that_can_not_be_cut_leaves_no_file() {
    let rig = rig(r#"printf half > "$output"; echo '{"status":"failed","message":"x"}'"#);
    let row = rig.ask().unwrap();
    let control = &rig.clips.work.control;
    let change: Change<'_> = &|id, work| control.write(|write| write.update_bookmark(id, work));
    rig.clips.work.cut(&row.id, change, Duration::ZERO);
    assert_eq!(rig.state(&row), JobState::Failed("x".into()));
    assert_eq!((rig.names(), rig.bytes()), (vec![], 0));
}

#[test]
fn a_clip_is_what_its_job_says_of_it() {
    let told = r#""start_utc_ns":5,"end_utc_ns":9,"gaps_ms":700"#;
    let rig = rig(&DONE.replace(r#""done""#, &format!(r#""done",{told}"#)));
    let row = rig.ask().unwrap();
    let control = &rig.clips.work.control;
    let change: Change<'_> = &|id, work| control.write(|write| write.update_bookmark(id, work));
    rig.clips.work.cut(&row.id, change, Duration::ZERO);
    let clip = control.bookmark(&row.id).unwrap().unwrap();
    assert_eq!((clip.start, clip.end, clip.gaps_ms), (UtcNanos(5), UtcNanos(9), 700));
    assert_eq!((clip.file_size, clip.thumbnail), (4, true));
    assert_eq!(gaps(&json!({})), 0, "it has none to tell of");
}

#[test]
fn the_queue_has_an_end_and_a_refused_clip_leaves_no_row() {
    let rig = rig(DONE);
    for _ in 0..CLIPS_WAITING_MAX {
        rig.ask().unwrap();
    }
    assert!(matches!(rig.ask(), Err(MediaError::Full)));
    let control = &rig.clips.work.control;
    let total = || control.read(|read| read.bookmarks(None, 0, 1)).unwrap().total;
    assert_eq!(total(), CLIPS_WAITING_MAX as u64);
    assert_eq!(rig.held().len(), CLIPS_WAITING_MAX);
}

/// A minute of 1 MiB a second of the camera, from [`START`] on.
const START: u64 = 1_770_000_000 * NANOS_PER_SEC;

fn record(rig: &Rig) {
    let camera: CameraId = testing::CAMERA.parse().unwrap();
    let row = |n: u64| Row {
        start_utc: UtcNanos(START + n * NANOS_PER_SEC),
        start_media: MediaTime(n * 90_000),
        segment: SegmentName::at(UtcNanos(START)),
        parameters: 7,
        offset: 700 + n as u32,
        bytes: 1 << 20,
        duration: 90_000,
        frames: 25,
        flags: RowFlags::KEY,
        number: n as u32,
        discontinuities: 1,
    };
    let recordings = &rig.clips.work.recordings;
    let day = recordings.day(&camera, Day::of(UtcNanos(START)));
    fs::create_dir_all(&day).unwrap();
    let mut index = Header { removed_before: UtcNanos(0) }.encode().to_vec();
    (0..60).for_each(|n| index.extend(row(n).encode()));
    fs::write(day.join(INDEX_NAME), index).unwrap();
}

#[test]
fn a_clip_needs_as_much_as_the_recording_has_of_its_window() {
    let rig = rig(DONE);
    let window = |from: u64, to: u64| Bookmark {
        start: UtcNanos(START + from * NANOS_PER_SEC),
        end: UtcNanos(START + to * NANOS_PER_SEC),
        ..testing::bookmark()
    };
    let estimated = |row: &Bookmark| estimate(&rig.clips.work.recordings, row);
    assert_eq!(estimated(&window(0, 60)), BESIDE);
    // Its head and its small picture alone need more than 200 KiB.
    let place = rig.clips.work.room.admit((10 << 20) - (200 << 10)).unwrap();
    let refused = rig.queue.ask(&rig.clips.work.control, window(0, 60)).unwrap_err();
    assert!(matches!(refused, MediaError::NoRoom(_)), "{refused}");
    drop(place);
    record(&rig);
    assert_eq!(estimated(&window(3, 7)), BESIDE + 4 * ((1 << 20) + 25 * HEAD_BYTES));
    assert_eq!(estimated(&window(100, 200)), BESIDE);
    // Of 100 MiB ten are for clips: one that needs more has no row, and none that fits is refused.
    let control = &rig.clips.work.control;
    let refused = rig.queue.ask(control, window(0, 10)).unwrap_err();
    assert!(matches!(refused, MediaError::NoRoom(_)), "{refused}");
    assert!(refused.to_string().contains("`max_percent`"), "{refused}");
    assert_eq!(control.read(|read| read.bookmarks(None, 0, 1)).unwrap().total, 0);
    assert!(!rig.holds.exists());
    let row = rig.queue.ask(control, window(0, 9)).unwrap();
    // Meanwhile others took the room: it is failed, and says why.
    let place = rig.clips.work.room.admit(2 << 20).unwrap();
    let change: Change<'_> = &|id, work| control.write(|write| write.update_bookmark(id, work));
    rig.clips.work.cut(&row.id, change, Duration::ZERO);
    let JobState::Failed(reason) = rig.state(&row) else { panic!("{:?}", rig.state(&row)) };
    assert!(reason.contains("`max_percent`"), "{reason}");
    drop(place);
    rig.clips.work.cut(&row.id, change, Duration::ZERO);
    assert_eq!(rig.state(&row), JobState::Done);
}

#[test]
fn clips_take_the_place_of_older_ones_and_never_more_than_their_share() {
    let rig = rig(&DONE.replace("printf clip", "head -c 3000000 /dev/zero"));
    let control = &rig.clips.work.control;
    let change: Change<'_> = &|id, work| control.write(|write| write.update_bookmark(id, work));
    let mut rows = Vec::new();
    for n in 0..8 {
        rows.push(rig.ask().unwrap());
        rig.clips.work.cut(&rows[n].id, change, Duration::ZERO);
        assert_eq!(rig.state(&rows[n]), JobState::Done);
        let on_disk = rig.clips.work.files.bytes_of_all();
        assert!(on_disk <= 10 << 20, "{n}: {on_disk}");
        assert_eq!(on_disk, rig.bytes());
    }
    let there: Vec<bool> =
        rows.iter().map(|row| control.bookmark(&row.id).unwrap().is_some()).collect();
    assert_eq!(there, [false, false, false, false, false, true, true, true]);
}
