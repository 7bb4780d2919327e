//! kill -9 of the writer at every step of a write, of a generation swap and of a clean stop, while
//! a reader polls. Whatever the step, no reader accepts a bad frame, and the next writer goes on.
//!
//! The writer runs in a child process: this test binary again, told by its environment to run
//! [`child`] and to kill itself at the nth time that it comes to a step.

use super::directory::{Names, Step};
use super::{CopyError, RingReader, RingSpec, RingWriter};
use base::{
    Absent, CameraId, ColourMatrix, ColourRange, FrameFlags, FrameId, FrameInfo, MediaTime, Newest,
    Picture, Size,
};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

const CHILD: &str = "VAS_RING_KILL_TEST";
/// What the child's output says of each frame once it is announced.
const PUBLISHED: &str = "published ";
const SLOTS: u32 = 8;

/// Which step kills this process, and after how many more times. Never armed but in the child.
static ARMED: AtomicU32 = AtomicU32::new(u32::MAX);
static LEFT: AtomicI64 = AtomicI64::new(0);

/// Where the writer's code reports that it came to a step.
pub(super) fn step(step: Step) {
    if ARMED.load(Ordering::Relaxed) == step as u32 && LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::KILL).expect("can kill itself");
        unreachable!("killed");
    }
}

fn camera() -> CameraId {
    CameraId::new("cam").expect("is an id")
}

fn spec(side: u32) -> RingSpec {
    let picture = Picture {
        size: Size { width: side, height: side },
        matrix: ColourMatrix::Bt709,
        range: ColourRange::Full,
    };
    RingSpec { camera: camera(), picture, slots: SLOTS }
}

fn pixel(id: u64, at: usize) -> u8 {
    (id.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left((at % 64) as u32) as u8) ^ at as u8
}

fn info(id: u64) -> FrameInfo {
    FrameInfo {
        media: MediaTime(id * 3600),
        capture: crate::clock::monotonic(),
        capture_utc: crate::clock::utc(),
        decode_start: crate::clock::monotonic(),
        flags: FrameFlags::KEY,
    }
}

fn publish(writer: &mut RingWriter) -> FrameId {
    let id = writer.last_frame_id().map_or(1, |last| last.0 + 1);
    let mut slot = writer.begin();
    let pixels = slot.pixels();
    let half = pixels.len() / 2;
    for (at, byte) in pixels.iter_mut().enumerate() {
        *byte = pixel(id, at);
        if at == half {
            step(Step::HalfWritten);
        }
    }
    assert_eq!(slot.publish(&info(id)), FrameId(id));
    println!("{PUBLISHED}{id}");
    FrameId(id)
}

/// What the child does unless it is killed before: takes over, writes more than a ring full, changes
/// the size twice, stops cleanly.
fn script(shm: &Path) {
    let mut writer = RingWriter::create(shm, &spec(64)).expect("the lock is free");
    for _ in 0..2 * SLOTS + 3 {
        publish(&mut writer);
    }
    // Abandoned: the next frame takes the same slot.
    let _ = writer.begin();
    let mut writer = writer.replace(&spec(32)).expect("there is room");
    for _ in 0..3 {
        publish(&mut writer);
        writer.heartbeat();
    }
    let mut writer = writer.replace(&spec(64)).expect("there is room");
    publish(&mut writer);
    writer.remove().expect("its own files");
}

/// Not a test by itself: the body of the child process, idle when run as a test.
#[test]
fn child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    // No child outlives the test that started it.
    let signal = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(signal).expect("a valid signal");
    let mut words = order.splitn(3, ' ');
    let mut number = || words.next().expect("three words").parse::<i64>().expect("a number");
    let (step, nth) = (number(), number());
    ARMED.store(step as u32, Ordering::Relaxed);
    LEFT.store(nth, Ordering::Relaxed);
    script(Path::new(words.next().expect("a path")));
}

/// A reader that believes nothing: counts what it accepted and checks every byte of it.
struct Watcher {
    reader: RingReader,
    highest: u64,
    pixels: Vec<u8>,
}

impl Watcher {
    fn new(shm: &Path) -> Watcher {
        Watcher { reader: RingReader::new(shm, &camera()), highest: 0, pixels: Vec::new() }
    }

    /// Looks at the newest frame and copies all that may still be live.
    fn look(&mut self) -> Newest {
        let newest = self.reader.newest(crate::clock::monotonic());
        if let Newest::Frame(stamp) = newest {
            assert!(stamp.frame_id.0 >= self.highest, "frame ids went back");
            assert_eq!(stamp.info.media, MediaTime(stamp.frame_id.0 * 3600));
            self.highest = stamp.frame_id.0;
            for back in 0..u64::from(SLOTS) {
                let id = stamp.frame_id.0.saturating_sub(back);
                let slot = (stamp.slot + SLOTS - back as u32) % SLOTS;
                match self.reader.copy(stamp.generation, FrameId(id), slot, &mut self.pixels) {
                    Ok(record) => {
                        assert_eq!(record.info.media, MediaTime(id * 3600));
                        assert_eq!(self.pixels.len(), record.picture.size.nv12_bytes());
                        let good =
                            self.pixels.iter().enumerate().all(|(at, b)| *b == pixel(id, at));
                        assert!(good, "frame {id} was accepted with other pixels");
                    }
                    Err(
                        CopyError::Torn
                        | CopyError::Slot
                        | CopyError::Generation
                        | CopyError::Gone(Absent::Retired | Absent::NoRing),
                    ) => assert!(self.pixels.is_empty()),
                    Err(error) => panic!("frame {id}: {error:?}"),
                }
            }
        }
        newest
    }
}

fn kill_at(step: Step, nth: i64) {
    let shm = tempfile::tempdir().expect("a directory");
    // A predecessor that died: the child goes on from it.
    let mut writer = RingWriter::create(shm.path(), &spec(64)).expect("an empty directory");
    for _ in 0..12 {
        publish(&mut writer);
    }
    drop(writer);
    let mut old = Watcher::new(shm.path());
    assert!(matches!(old.look(), Newest::Frame(stamp) if stamp.frame_id == FrameId(12)));

    let mut child = Command::new(std::env::current_exe().expect("known"))
        .args(["--exact", "ring::kill_tests::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{} {nth} {}", step as u32, shm.path().display()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("can start itself");
    let status = loop {
        old.look();
        if let Some(status) = child.try_wait().expect("is a child") {
            break status;
        }
    };
    assert_eq!(status.signal(), Some(9), "{step:?} {nth} was not reached");
    let mut output = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut output).expect("is text");
    let told = output.lines().filter_map(|line| line.rsplit_once(PUBLISHED)?.1.parse().ok());
    let told: u64 = told.max().unwrap_or(12);
    old.look();
    let mut fresh = Watcher::new(shm.path());
    let after = fresh.look();
    // Nobody writes: three seconds on, the ring is stale, if it is there at all.
    let later = crate::clock::monotonic() + Duration::from_millis(3001);
    match RingReader::new(shm.path(), &camera()).newest(later) {
        Newest::Absent(Absent::Stale | Absent::NoRing | Absent::Retired) => {}
        other => panic!("{step:?} {nth}: a dead writer's ring is {other:?}"),
    }

    let known = old.highest.max(fresh.highest);
    let mut writer = RingWriter::create(shm.path(), &spec(64)).expect("the lock is free");
    let last = writer.last_frame_id().map_or(0, |id| id.0);
    if matches!(after, Newest::Absent(Absent::NoRing)) && last == 0 {
        assert!(matches!(step, Step::Swapped | Step::Deleting), "{step:?} {nth} lost the ids");
    } else {
        // One more than was told when the writer died between the record and the telling.
        let one_more = matches!(step, Step::SlotClosed | Step::HeaderOpened | Step::Announced);
        assert_eq!(last, told + u64::from(one_more), "{step:?} {nth}");
        assert!(last >= known, "{step:?} {nth}: {last} would be given twice, {known} was seen");
        assert_eq!(writer.last_media(), Some(MediaTime(last * 3600)));
        // Readers of the old generation are led to the new one.
        let first = publish(&mut writer);
        assert_eq!(first, FrameId(last + 1));
        for (name, watcher) in [("old", &mut old), ("fresh", &mut fresh)] {
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            let found = loop {
                match watcher.look() {
                    Newest::Frame(stamp) if stamp.generation == writer.generation() => {
                        break Some(stamp);
                    }
                    _ if std::time::Instant::now() > deadline => break None,
                    _ => std::thread::yield_now(),
                }
            };
            assert_eq!(found.map(|s| s.frame_id), Some(first), "{step:?} {nth}: {name} reader");
        }
    }
    writer.remove().expect("its own files");
    let left: Vec<_> = std::fs::read_dir(shm.path()).expect("is there").collect();
    assert!(left.is_empty(), "{step:?} {nth}: left behind {left:?}");
}

#[test]
fn killed_while_writing_a_frame() {
    use Step::*;
    // First frame of a generation, one in the first round, one that overwrites.
    for nth in [1, 3, 12] {
        for step in [SlotOpened, HalfWritten, SlotClosed, HeaderOpened, Announced] {
            kill_at(step, nth);
        }
    }
}

#[test]
fn killed_while_taking_over_from_a_dead_writer() {
    use Step::*;
    for step in [DirectoryMade, DataMade, MetaMade, HeaderMade, Swapped, Retired, Deleting] {
        kill_at(step, 1);
    }
    kill_at(Deleting, 2);
}

#[test]
fn killed_while_replacing_its_own_generation() {
    use Step::*;
    for step in [DirectoryMade, DataMade, MetaMade, HeaderMade, Swapped, Retired] {
        kill_at(step, 2);
    }
    kill_at(Deleting, 3);
    kill_at(Deleting, 4);
}

#[test]
fn killed_while_stopping() {
    use Step::*;
    // Three swaps come before.
    for step in [Retired, Swapped] {
        kill_at(step, 4);
    }
    kill_at(Deleting, 7);
    kill_at(Deleting, 8);
}

#[test]
fn names_of_two_cameras_never_meet() {
    let shm = Path::new("/shm");
    let (a, b) = (Names::of(shm, "a"), Names::of(shm, "b"));
    let all = [a.ring, a.new, a.lock, b.ring, b.new, b.lock];
    let set: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(set.len(), all.len());
}
