//! Generations follow one another: ids and media go on, readers are led along, nothing is left.

use crate::support::{camera, info, names, newest, painted, publish, shm, spec};
use base::{Absent, CameraId, FrameId, Generation, MediaTime, Newest};
use ipc::clock;
use ipc::ring::{CopyError, RingError, RingReader, RingWriter, inspect, list, sweep};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

#[test]
fn a_fresh_ring_has_no_frame_and_then_the_one_that_was_published() {
    let shm = shm();
    let mut reader = RingReader::new(shm.path(), &camera());
    assert_eq!(reader.newest(clock::monotonic()), Newest::Absent(Absent::NoRing));
    let mut writer = RingWriter::create(shm.path(), &spec(64, 48)).unwrap();
    assert_eq!((writer.last_frame_id(), writer.last_media()), (None, None));
    let mut reader = RingReader::new(shm.path(), &camera());
    assert_eq!(reader.newest(clock::monotonic()), Newest::Absent(Absent::NoRing));

    let before = clock::monotonic();
    let info = info(1);
    let mut slot = writer.begin();
    assert_eq!((slot.luma().len(), slot.chroma().len()), (64 * 48, 64 * 24));
    slot.luma().fill(1);
    slot.chroma().fill(2);
    slot.publish(&info);
    let stamp = newest(&mut reader);
    assert_eq!(stamp.generation, writer.generation());
    assert_eq!((stamp.frame_id, stamp.slot, stamp.slots), (FrameId(1), 0, 8));
    assert_eq!((stamp.size, stamp.info), (spec(64, 48).picture.size, info));
    assert!(before <= stamp.published && stamp.published <= clock::monotonic());

    let mut pixels = Vec::new();
    let record = reader.copy(stamp.generation, stamp.frame_id, stamp.slot, &mut pixels).unwrap();
    assert_eq!((record.picture, record.info), (spec(64, 48).picture, info));
    assert_eq!(record.published, stamp.published);
    assert_eq!(pixels[..64 * 48], [1; 64 * 48]);
    assert_eq!(pixels[64 * 48..], [2; 64 * 24]);
}

#[test]
fn a_new_size_is_a_new_generation_with_the_next_id() {
    let shm = shm();
    let mut writer = RingWriter::create(shm.path(), &spec(64, 48)).unwrap();
    let (mut poller, mut copier) =
        (RingReader::new(shm.path(), &camera()), RingReader::new(shm.path(), &camera()));
    for _ in 0..11 {
        publish(&mut writer);
    }
    let mut pixels = Vec::new();
    let old = newest(&mut poller);
    copier.copy(old.generation, old.frame_id, old.slot, &mut pixels).unwrap();

    let mut writer = writer.replace(&spec(128, 96)).unwrap();
    assert!(writer.generation() > old.generation);
    assert_eq!(writer.last_frame_id(), Some(FrameId(11)));
    assert_eq!(writer.last_media(), Some(MediaTime(11 * 3600)));
    assert_eq!(poller.newest(clock::monotonic()), Newest::Absent(Absent::NoRing));
    assert_eq!(publish(&mut writer), FrameId(12));

    let new = newest(&mut poller);
    assert_eq!((new.frame_id, new.slot, new.size.width), (FrameId(12), 0, 128));
    // Who only copies finds the new generation by itself, and can't be given an old frame by it.
    copier.copy(new.generation, new.frame_id, new.slot, &mut pixels).unwrap();
    assert!(painted(12, &pixels) && pixels.len() == 128 * 96 * 3 / 2);
    let copied = copier.copy(old.generation, old.frame_id, old.slot, &mut pixels);
    assert_eq!(copied, Err(CopyError::Generation));
    assert_eq!((poller.stats().reopened, copier.stats().reopened), (1, 1));

    writer.remove().unwrap();
    assert_eq!(poller.newest(clock::monotonic()), Newest::Absent(Absent::NoRing));
    assert_eq!(names(shm.path()), [""; 0]);
}

/// UTC was set back while the camera had no ring.
#[test]
fn a_copier_finds_a_generation_with_a_lower_number() {
    let shm = shm();
    let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
    publish(&mut writer);
    let mut copier = RingReader::new(shm.path(), &camera());
    let mut pixels = Vec::new();
    copier.copy(writer.generation(), FrameId(1), 0, &mut pixels).unwrap();
    writer.remove().unwrap();
    let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
    let meta = std::fs::File::options().write(true).open(shm.path().join("cam/frame.meta"));
    meta.unwrap().write_all_at(&5u64.to_le_bytes(), 80).unwrap();
    publish(&mut writer);
    let stamp = newest(&mut RingReader::new(shm.path(), &camera()));
    assert_eq!(stamp.generation, Generation(5));
    copier.copy(stamp.generation, stamp.frame_id, stamp.slot, &mut pixels).unwrap();
}

#[test]
fn a_new_writer_goes_on_where_the_last_one_ended() {
    let shm = shm();
    let mut reader = RingReader::new(shm.path(), &camera());
    let mut last = (Generation(0), FrameId(0));
    for round in 0..4 {
        let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
        assert!(writer.generation() > last.0);
        assert_eq!(writer.last_frame_id().unwrap_or_default(), last.1, "round {round}");
        // None in the second round: what it took over must still be there in the third.
        for _ in 0..[10, 0, 3, 1][round] {
            last.1 = publish(&mut writer);
            assert_eq!(newest(&mut reader).frame_id, last.1);
        }
        last.0 = writer.generation();
    }
    assert_eq!(last.1, FrameId(14));
}

#[test]
fn silence_is_stale_after_three_seconds_and_a_heartbeat_ends_it() {
    let shm = shm();
    let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
    publish(&mut writer);
    let mut reader = RingReader::new(shm.path(), &camera());
    let published = newest(&mut reader).published;
    assert!(matches!(reader.newest(published + Duration::from_secs(3)), Newest::Frame(_)));
    let late = published + Duration::from_millis(3001);
    assert_eq!(reader.newest(late), Newest::Absent(Absent::Stale));
    // The heartbeat is later than the frame, by little: that much later it is stale again.
    writer.heartbeat();
    let beat = inspect(shm.path(), &camera()).unwrap().heartbeat;
    assert!(beat > published);
    assert!(matches!(reader.newest(beat + Duration::from_secs(3)), Newest::Frame(_)));
    let late = beat + Duration::from_secs(3) + Duration::from_nanos(1);
    assert_eq!(reader.newest(late), Newest::Absent(Absent::Stale));
    assert_eq!(reader.stats().reopened, 0, "the same ring all the time");
}

#[test]
fn a_frame_and_a_slot_must_belong_together() {
    let shm = shm();
    let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
    let mut reader = RingReader::new(shm.path(), &camera());
    let mut pixels = Vec::new();
    let generation = writer.generation();
    let copied = reader.copy(generation, FrameId(1), 0, &mut pixels);
    assert_eq!(copied, Err(CopyError::Torn), "not written yet");
    for _ in 0..3 {
        publish(&mut writer);
    }
    for (id, slot) in [(1, 1), (3, 0), (0, 0), (1, 8), (9, u32::MAX), (u64::MAX, 0)] {
        let copied = reader.copy(generation, FrameId(id), slot, &mut pixels);
        assert_eq!(copied, Err(CopyError::Slot), "frame {id} in slot {slot}");
    }
    let other = Generation(generation.0 + 1);
    assert_eq!(reader.copy(other, FrameId(1), 0, &mut pixels), Err(CopyError::Generation));
    assert!(reader.copy(generation, FrameId(1), 0, &mut pixels).is_ok());
}

#[test]
fn two_writers_of_one_camera_exclude_each_other() {
    let shm = shm();
    let writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
    let error = RingWriter::create(shm.path(), &spec(64, 64)).unwrap_err();
    assert!(matches!(&error, RingError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("camera cam: another process"), "{error}");
    let writer = writer.replace(&spec(32, 32)).unwrap();
    assert!(RingWriter::create(shm.path(), &spec(64, 64)).is_err(), "the lock survives a swap");
    let other = CameraId::new("other").unwrap();
    let spec_of_other = ipc::ring::RingSpec { camera: other, ..spec(64, 64) };
    RingWriter::create(shm.path(), &spec_of_other).unwrap().remove().unwrap();
    drop(writer);
    RingWriter::create(shm.path(), &spec(64, 64)).unwrap().remove().unwrap();
    assert_eq!(names(shm.path()), [""; 0]);
}

/// The lock's file comes and goes with its holder; nobody may end up with a lock on a file that is
/// no longer there.
#[test]
fn at_most_one_writer_whatever_the_order_of_starts_and_stops() {
    let shm = shm();
    let (held, made) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let deadline = clock::monotonic() + Duration::from_secs(60);
                while made.load(Ordering::Relaxed) < 200 && clock::monotonic() < deadline {
                    match RingWriter::create(shm.path(), &spec(64, 64)) {
                        Ok(writer) => {
                            assert!(!held.swap(true, Ordering::SeqCst), "two writers");
                            made.fetch_add(1, Ordering::Relaxed);
                            held.store(false, Ordering::SeqCst);
                            writer.remove().unwrap();
                        }
                        Err(RingError::InUse { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert!(made.load(Ordering::Relaxed) >= 200);
    assert_eq!(names(shm.path()), [""; 0]);
}

#[test]
fn a_sweep_takes_only_rings_that_nobody_wants_or_writes() {
    let shm = shm();
    assert_eq!(sweep(&shm.path().join("missing"), |_| false).unwrap(), [""; 0]);
    let make = |name: &str| {
        let camera = CameraId::new(name).unwrap();
        RingWriter::create(shm.path(), &ipc::ring::RingSpec { camera, ..spec(64, 64) }).unwrap()
    };
    drop((make("dead"), make("kept")));
    let alive = make("alive");
    // A writer that died while it built; one that died on a camera that stays.
    std::fs::create_dir(shm.path().join(".half.new")).unwrap();
    std::fs::write(shm.path().join(".half.new/frame.data"), "x").unwrap();
    std::fs::write(shm.path().join(".half.lock"), "").unwrap();
    // Not ours.
    std::fs::create_dir(shm.path().join("photos")).unwrap();
    std::fs::write(shm.path().join("photos/1.jpg"), "x").unwrap();
    std::fs::create_dir(shm.path().join("mixed")).unwrap();
    std::fs::write(shm.path().join("mixed/frame.meta"), "x").unwrap();
    std::fs::write(shm.path().join("mixed/notes"), "x").unwrap();
    std::fs::create_dir(shm.path().join("empty")).unwrap();
    std::fs::write(shm.path().join("file"), "x").unwrap();

    let cameras: Vec<String> =
        list(shm.path()).unwrap().iter().map(|camera| camera.to_string()).collect();
    assert_eq!(cameras, ["alive", "dead", "empty", "kept", "mixed", "photos"]);
    assert_eq!(sweep(shm.path(), |camera| camera == "kept").unwrap(), ["dead", "half"]);
    let left = [".alive.lock", ".kept.lock", "alive", "empty", "file", "kept", "mixed", "photos"];
    assert_eq!(names(shm.path()), left);
    assert_eq!(names(&shm.path().join("mixed")), ["frame.meta", "notes"]);
    alive.remove().unwrap();
    assert_eq!(sweep(shm.path(), |_| false).unwrap(), ["kept"]);
}

#[test]
fn the_report_says_what_is_in_the_ring() {
    let shm = shm();
    let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
    let report = inspect(shm.path(), &camera()).unwrap();
    assert_eq!((report.newest, report.published, report.media_before), (None, 0, None));
    for _ in 0..10 {
        publish(&mut writer);
    }
    let _ = writer.begin();
    let report = inspect(shm.path(), &camera()).unwrap();
    assert_eq!((report.version, report.size.width, report.published), (2, 64, 10));
    assert_eq!(report.generation, writer.generation());
    assert_eq!(report.memory_bytes, spec(64, 64).memory_bytes());
    assert_eq!(report.newest.unwrap().frame_id, FrameId(10));
    assert!(report.writer && !report.retired && report.header_sequence.is_multiple_of(2));
    let ids: Vec<u64> =
        report.slots.iter().map(|slot| slot.frame.as_ref().map_or(0, |(id, _)| id.0)).collect();
    assert_eq!(ids, [9, 10, 0, 4, 5, 6, 7, 8], "frame 3 lost its slot to the one being written");
    assert_eq!(report.slots[2].sequence % 2, 1);
    drop(writer);
    assert!(!inspect(shm.path(), &camera()).unwrap().writer);
    let error = inspect(shm.path(), &CameraId::new("none").unwrap()).unwrap_err();
    assert!(error.to_string().contains("none: No such file"), "{error}");
}
