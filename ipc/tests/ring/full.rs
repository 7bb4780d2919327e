//! A full file system is one clear error when a ring is made, never a bus error later.

use crate::support::{CHILD_ARGS, ORDER, camera, names, newest, publish, shm, spec};
use base::Newest;
use ipc::ring::{RingError, RingReader, RingSpec, RingWriter};
use std::path::Path;
use std::process::Command;

/// Printed by a child that came to its end.
const DONE: &str = "done";
/// What the shell ends with when it could not mount.
const NO_MOUNT: i32 = 77;

fn full(result: Result<RingWriter, RingError>) -> String {
    match result {
        Err(error @ RingError::Full { .. }) => error.to_string(),
        other => panic!("not refused as full: {other:?}"),
    }
}

/// A child: there is no room for its first ring.
pub fn fill(shm: &Path) {
    let spec = spec(640, 480);
    let message = full(RingWriter::create(shm, &spec));
    let data = shm.join(".cam.new/frame.data");
    for part in [&*data.to_string_lossy(), "3702784 bytes wanted", "--shm-size"] {
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    }
    assert_eq!(names(shm), [""; 0], "left behind");
    println!("{DONE}");
}

/// A child: there is room for the first ring, not for the larger one that follows.
pub fn outgrow(shm: &Path) {
    let mut writer = RingWriter::create(shm, &spec(320, 240)).unwrap();
    publish(&mut writer);
    let last = publish(&mut writer);
    let more = RingSpec { slots: 100, ..spec(320, 240) };
    let writer = writer.replace(&more).unwrap();
    assert_eq!(writer.spec().slots, 8, "other slots are not worth the pictures");
    let mut reader = RingReader::new(shm, &camera());
    assert_eq!(newest(&mut reader).frame_id, last, "the old generation stays");
    full(writer.replace(&spec(1280, 720)));
    assert_eq!(names(shm), [".cam.lock", "cam"]);
    assert!(matches!(reader.newest(ipc::clock::monotonic()), Newest::Absent(_)));
    full(RingWriter::create(shm, &spec(1280, 720)));
    assert_eq!(names(shm), [".cam.lock", "cam"]);
    assert_eq!(ipc::ring::last(shm, &camera()).map(|(id, _)| id), Some(last));
    let mut writer = RingWriter::create(shm, &spec(320, 240)).unwrap();
    assert_eq!(publish(&mut writer).0, last.0 + 1, "frame ids go on");
    writer.remove().unwrap();
    assert_eq!(names(shm), [""; 0]);
    println!("{DONE}");
}

/// A child: there is room for one ring at a time, whose writer died or wants another size.
pub fn refill(shm: &Path) {
    let mut writer = RingWriter::create(shm, &spec(320, 240)).unwrap();
    let last = publish(&mut writer);
    let mut reader = RingReader::new(shm, &camera());
    assert_eq!(newest(&mut reader).frame_id, last);
    drop(writer);
    let mut writer = RingWriter::create(shm, &spec(320, 240)).unwrap();
    assert_eq!(publish(&mut writer).0, last.0 + 1, "frame ids go on");
    assert_eq!(newest(&mut reader).frame_id.0, last.0 + 1, "readers are led along");
    let mut writer = writer.replace(&spec(240, 320)).unwrap();
    assert_eq!(publish(&mut writer).0, last.0 + 2);
    assert_eq!(newest(&mut reader).frame_id.0, last.0 + 2);
    writer.remove().unwrap();
    assert_eq!(names(shm), [""; 0]);
    println!("{DONE}");
}

/// A tmpfs of its own, in a mount namespace of its own; without the right to make one the test says
/// so and rests on the one below.
fn in_tmpfs(order: &str, size: &str) {
    let shm = shm();
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let script = format!(
        "mount -t tmpfs -o size={size},mode=700 ring-test \"$0\" || exit {NO_MOUNT}; exec \"$@\""
    );
    command.args(["--mount", "sh", "-c", &script]).arg(shm.path());
    command.arg(std::env::current_exe().unwrap()).args(CHILD_ARGS);
    command.env(ORDER, format!("{order} {}", shm.path().display()));
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return println!("skipped, cannot start unshare: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NO_MOUNT) || errors.starts_with("unshare:") {
        return println!("skipped, cannot mount a tmpfs of its own: {errors}");
    }
    assert!(output.status.success() && text.contains(DONE), "{text}{errors}");
}

#[test]
fn a_full_tmpfs_is_a_clear_error() {
    in_tmpfs("fill", "2m");
}

#[test]
fn a_ring_that_cannot_grow_stays_or_leaves_its_ids() {
    in_tmpfs("outgrow", "4m");
}

#[test]
fn a_ring_that_fits_once_takes_the_room_of_its_own_predecessor() {
    in_tmpfs("refill", "1500k");
}

/// Needs no rights: the limit on file sizes stands in for the full file system.
#[test]
fn a_file_size_limit_is_a_clear_error() {
    let shm = shm();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1000 && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(CHILD_ARGS)
        .env(ORDER, format!("fill {}", shm.path().display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(DONE), "{output:?}");
}
