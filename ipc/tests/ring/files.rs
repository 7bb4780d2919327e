//! Files that are damaged, strange or not a ring: readers say so and go on, nothing is believed.

use crate::support::{camera, names, newest, publish, shm, spec};
use base::{Absent, FrameId, Generation, Newest};
use ipc::clock;
use ipc::ring::{CopyError, RingError, RingReader, RingSpec, RingWriter, inspect};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_are_for_owner_and_group() {
    let shm = shm();
    let root = shm.path().join("root");
    let _writer = RingWriter::create(&root, &spec(64, 64)).unwrap();
    assert_eq!(mode(&root.join("cam")), 0o750);
    assert_eq!(mode(&root.join("cam/frame.meta")), 0o640);
    assert_eq!(mode(&root.join("cam/frame.data")), 0o640);
    assert_eq!(fs::metadata(root.join("cam/frame.data")).unwrap().len(), 8 * 8192);
    assert_eq!(names(&root), [".cam.lock", "cam"]);
}

#[test]
fn what_cannot_be_exported_is_refused_by_name() {
    let shm = shm();
    for (width, height) in [(0, 64), (64, 0), (65, 64), (64, 63), (8194, 64)] {
        let error = RingWriter::create(shm.path(), &spec(width, height)).unwrap_err();
        assert!(matches!(error, RingError::Geometry { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{width}x{height}")), "{error}");
    }
    for slots in [0, 7, 257] {
        let error =
            RingWriter::create(shm.path(), &RingSpec { slots, ..spec(64, 64) }).unwrap_err();
        assert!(error.to_string().contains(&format!("{slots} slots")), "{error}");
    }
    assert_eq!(names(shm.path()), [""; 0]);
    fs::write(shm.path().join("file"), "").unwrap();
    let error = RingWriter::create(&shm.path().join("file"), &spec(64, 64)).unwrap_err();
    assert!(error.to_string().contains("is no directory"), "{error}");
}

/// In /dev/shm everybody may make what is not there.
#[test]
fn a_root_that_is_not_this_users_own_takes_no_ring() {
    let shm = shm();
    let (root, elsewhere) = (shm.path().join("root"), shm.path().join("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &root).unwrap();
    let error = RingWriter::create(&root, &spec(64, 64)).unwrap_err();
    assert!(error.to_string().contains("is a symbolic link"), "{error}");
    fs::remove_file(&root).unwrap();
    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, PermissionsExt::from_mode(0o777)).unwrap();
    let error = RingWriter::create(&root, &spec(64, 64)).unwrap_err();
    assert!(error.to_string().contains("others than its owner may write"), "{error}");
    assert!(names(&root).is_empty() && names(&elsewhere).is_empty());
}

#[test]
fn a_ring_of_another_user_is_shown_to_people_and_read_by_nobody() {
    if !rustix::process::geteuid().is_root() {
        return; // Nobody else can give a file away.
    }
    for file in ["frame.meta", "frame.data"] {
        let shm = shm();
        let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
        publish(&mut writer);
        chown(shm.path().join("cam").join(file), Some(1), None).unwrap();
        let mut reader = RingReader::new(shm.path(), &camera());
        assert_eq!(reader.newest(clock::monotonic()), Newest::Absent(Absent::Invalid), "{file}");
        let why = reader.refusal().unwrap().to_string();
        assert!(why.contains("belongs to user 1, its reader is 0"), "{why}");
        let copied = reader.copy(writer.generation(), FrameId(1), 0, &mut Vec::new());
        assert_eq!(copied, Err(CopyError::Gone(Absent::Invalid)));
        assert_eq!(inspect(shm.path(), &camera()).unwrap().published, 1);
    }
}

#[test]
fn somebody_elses_directory_is_left_alone() {
    let shm = shm();
    fs::create_dir(shm.path().join("cam")).unwrap();
    fs::write(shm.path().join("cam/thesis.txt"), "years of work").unwrap();
    let error = RingWriter::create(shm.path(), &spec(64, 64)).unwrap_err();
    assert!(error.to_string().contains("is no ring and is left alone"), "{error}");
    assert_eq!(names(&shm.path().join("cam")), ["thesis.txt"]);
}

/// Every kind of damage, done to a ring with a frame before the reader opens it.
#[test]
fn a_damaged_ring_is_absent_until_a_writer_replaces_it() {
    type Damage = fn(&Path);
    fn cut(path: &Path, bytes: u64) {
        File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
    }
    fn put(path: &Path, offset: u64, bytes: &[u8]) {
        File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
    }
    let cases: [(&str, Damage, Absent); 20] = [
        ("empty header", |r| cut(&r.join("frame.meta"), 0), Absent::Invalid),
        ("v1 length", |r| cut(&r.join("frame.meta"), 64), Absent::Invalid),
        ("odd length", |r| cut(&r.join("frame.meta"), 1001), Absent::Invalid),
        ("header without records", |r| cut(&r.join("frame.meta"), 192), Absent::Invalid),
        ("endless header", |r| cut(&r.join("frame.meta"), 1 << 40), Absent::Invalid),
        ("version 1", |r| put(&r.join("frame.meta"), 0, &[1]), Absent::Invalid),
        ("version 3", |r| put(&r.join("frame.meta"), 0, &[3]), Absent::Invalid),
        ("all ones", |r| put(&r.join("frame.meta"), 0, &[0xff; 1216]), Absent::Invalid),
        ("all zero", |r| put(&r.join("frame.meta"), 0, &[0; 1216]), Absent::Invalid),
        ("slots", |r| put(&r.join("frame.meta"), 64, &[255]), Absent::Invalid),
        ("offset", |r| put(&r.join("frame.meta"), 48, &[1]), Absent::Invalid),
        ("frame id", |r| put(&r.join("frame.meta"), 8, &[0xff; 8]), Absent::Invalid),
        (
            "the last frame id there is",
            |r| {
                // Of 8 slots the one it would be in: ids begin at 1.
                let slot = (u64::MAX - 1) % 8;
                put(&r.join("frame.meta"), 8, &[0xff; 8]);
                put(&r.join("frame.meta"), 48, &(slot * 8192).to_le_bytes());
                let meta = fs::read(r.join("frame.meta")).unwrap();
                let mut record = meta[192..320].to_vec();
                record[8..16].fill(0xff);
                record[24..32].copy_from_slice(&meta[16..24]);
                put(&r.join("frame.meta"), 192 + slot * 128, &record);
            },
            Absent::Invalid,
        ),
        ("retired", |r| put(&r.join("frame.meta"), 136, &[1]), Absent::Retired),
        ("short data", |r| cut(&r.join("frame.data"), 8192), Absent::Invalid),
        ("no data", |r| fs::remove_file(r.join("frame.data")).unwrap(), Absent::NoRing),
        ("no header", |r| fs::remove_file(r.join("frame.meta")).unwrap(), Absent::NoRing),
        (
            "another data file",
            |r| {
                fs::copy(r.join("frame.data"), r.join("copy")).unwrap();
                fs::rename(r.join("copy"), r.join("frame.data")).unwrap();
            },
            Absent::Invalid,
        ),
        (
            "header is a link",
            |r| {
                fs::rename(r.join("frame.meta"), r.parent().unwrap().join("elsewhere")).unwrap();
                std::os::unix::fs::symlink("../elsewhere", r.join("frame.meta")).unwrap();
            },
            Absent::Invalid,
        ),
        (
            "header is a pipe",
            |r| {
                fs::remove_file(r.join("frame.meta")).unwrap();
                let made = std::process::Command::new("mkfifo").arg(r.join("frame.meta")).status();
                assert!(made.unwrap().success());
            },
            Absent::Invalid,
        ),
    ];
    for (name, damage, expected) in cases {
        let shm = shm();
        let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
        publish(&mut writer);
        drop(writer);
        damage(&shm.path().join("cam"));
        let mut reader = RingReader::new(shm.path(), &camera());
        let now = clock::monotonic();
        assert_eq!(reader.newest(now), Newest::Absent(expected), "{name}");
        let copied = reader.copy(Generation(u64::MAX), FrameId(1), 0, &mut Vec::new());
        assert!(copied.is_err(), "{name}");
        let _ = inspect(shm.path(), &camera());

        let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap_or_else(|error| {
            panic!("{name}: {error}");
        });
        let id = publish(&mut writer);
        // A tenth of a second later the reader looks again.
        let later = clock::monotonic().max(now) + Duration::from_millis(100);
        match reader.newest(later) {
            Newest::Frame(stamp) => assert_eq!(stamp.frame_id, id, "{name}"),
            Newest::Absent(reason) => panic!("{name}: still {reason:?}"),
        }
        writer.remove().unwrap();
    }
}

#[test]
fn a_missing_ring_is_looked_for_ten_times_a_second() {
    let shm = shm();
    let mut reader = RingReader::new(shm.path(), &camera());
    let start = clock::monotonic();
    assert_eq!(reader.newest(start), Newest::Absent(Absent::NoRing));
    let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
    publish(&mut writer);
    let just_before = start + Duration::from_nanos(99_999_999);
    assert_eq!(reader.newest(just_before), Newest::Absent(Absent::NoRing));
    assert!(matches!(reader.newest(start + Duration::from_millis(100)), Newest::Frame(_)));
}

#[test]
fn a_data_file_that_shrinks_is_an_error_not_a_bus_error() {
    let shm = shm();
    let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
    publish(&mut writer);
    let mut reader = RingReader::new(shm.path(), &camera());
    let mut pixels = Vec::new();
    let stamp = newest(&mut reader);
    reader.copy(stamp.generation, stamp.frame_id, stamp.slot, &mut pixels).unwrap();
    let data = File::options().write(true).open(shm.path().join("cam/frame.data")).unwrap();
    data.set_len(0).unwrap();
    let copied = reader.copy(stamp.generation, stamp.frame_id, stamp.slot, &mut pixels);
    assert_eq!(copied, Err(CopyError::Gone(Absent::Invalid)));
    assert!(pixels.is_empty());
}

/// Random words over the whole header while a reader polls and copies: whatever it says, it says
/// within the bounds of the ring, and it neither panics nor leaves the mapping.
#[test]
fn random_headers_never_lead_a_reader_astray() {
    let seed = clock::utc().0;
    println!("seed {seed}");
    let mut state = seed | 1;
    let mut random = move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut accepted = 0;
    for _ in 0..300 {
        let shm = shm();
        let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
        for _ in 0..10 {
            publish(&mut writer);
        }
        let meta = File::options().write(true).open(shm.path().join("cam/frame.meta")).unwrap();
        let mut reader = RingReader::new(shm.path(), &camera());
        let opened_before = random().is_multiple_of(2);
        if opened_before {
            newest(&mut reader);
        }
        let mut pixels = Vec::new();
        for _ in 0..20 {
            let at = random() % (1216 / 8) * 8;
            let value = match random() % 4 {
                0 => random(),
                1 => random() % 16,
                2 => u64::MAX - random() % 3,
                _ => 1 << (random() % 64),
            };
            meta.write_all_at(&value.to_ne_bytes(), at).unwrap();
            // Move the header's sequence, so that the reader looks.
            meta.write_all_at(&(random() & !1).to_ne_bytes(), 56).unwrap();
            if let Newest::Frame(stamp) = reader.newest(clock::monotonic()) {
                assert!(stamp.slot < stamp.slots && stamp.slots == 8, "{stamp:?}");
                assert_eq!(stamp.size, spec(64, 64).picture.size);
                let _ = reader.copy(stamp.generation, stamp.frame_id, stamp.slot, &mut pixels);
                accepted += 1;
            }
            let _ = reader.copy(
                writer.generation(),
                FrameId(random()),
                random() as u32 % 9,
                &mut pixels,
            );
            assert!(pixels.is_empty() || pixels.len() == 64 * 96);
            let _ = inspect(shm.path(), &camera());
        }
        drop(writer);
        // A writer goes on from it or starts again, but it starts.
        let mut writer = RingWriter::create(shm.path(), &spec(64, 64)).unwrap();
        publish(&mut writer);
        writer.remove().unwrap();
    }
    // Most words are not looked at for the newest frame: a share of headers stays good.
    assert!((60..6000).contains(&accepted), "{accepted} of 6000 looks found a frame");
}
